//! Named checks of CloudCore, most of them of the kubelet endpoints: what is wrong and what cures it, for `/healthz` and `/metrics`.
//!
//! None of them is a reason to start CloudCore anew: the links go on, and a new one would find the same.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use beehive::Sample;

/// What is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Check {
    /// Whether the certificate is shown that the settings ask for.
    KubeletEndpointCertificate,
    /// Whether the API server reaches the ports.
    KubeletEndpointReachable,
    /// Whether the addresses of the settings lead nodes on other machines here.
    AdvertiseAddress,
}

impl Check {
    const ALL: [Check; 3] =
        [Check::KubeletEndpointCertificate, Check::KubeletEndpointReachable, Check::AdvertiseAddress];

    /// Its name, in the form of a Node's conditions.
    pub fn name(self) -> &'static str {
        match self {
            Check::KubeletEndpointCertificate => "KubeletEndpointCertificate",
            Check::KubeletEndpointReachable => "KubeletEndpointReachable",
            Check::AdvertiseAddress => "AdvertiseAddress",
        }
    }
}

/// What failed when it was checked last. Clones are one.
#[derive(Debug, Clone, Default)]
pub struct Checks(Arc<Mutex<BTreeMap<Check, String>>>);

impl Checks {
    /// Nothing is wrong, or nothing can be said. Answers whether that is news.
    pub(crate) fn passed(&self, check: Check) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&check).is_some()
    }

    /// Something is. Answers whether that is news.
    pub fn failed(&self, check: Check, what: &str) -> bool {
        let before = self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(check, what.to_owned());
        before.as_deref() != Some(what)
    }

    /// A line for each that failed: its name, what is wrong, and the cure.
    pub fn said(&self) -> Vec<String> {
        let failed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        failed.iter().map(|(check, what)| format!("{}: {what}", check.name())).collect()
    }

    /// A gauge for each: 1 where it failed.
    pub(crate) fn samples(&self) -> Vec<Sample> {
        let failed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of = |check: Check| {
            let value = if failed.contains_key(&check) { 1.0 } else { 0.0 };
            Sample::new("kubehive_check_failed", value).of("check", check.name())
        };
        Check::ALL.into_iter().map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_is_said_with_its_name_until_it_passes() {
        let checks = Checks::default();
        assert!(checks.clone().failed(Check::KubeletEndpointReachable, "a timeout: open the port"));
        assert!(!checks.failed(Check::KubeletEndpointReachable, "a timeout: open the port"), "no news");
        assert_eq!(checks.said(), ["KubeletEndpointReachable: a timeout: open the port"]);
        let values: Vec<f64> = checks.samples().iter().map(|sample| sample.value).collect();
        assert_eq!(values, [0.0, 1.0, 0.0]);
        assert!(checks.passed(Check::KubeletEndpointReachable));
        assert!(!checks.passed(Check::KubeletEndpointReachable));
        assert_eq!(checks.said(), [] as [&str; 0]);
    }
}
