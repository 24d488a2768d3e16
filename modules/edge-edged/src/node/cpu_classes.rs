//! How much CPU the classes of pods get beside each other: by what the pods ask for that run now.

use std::sync::Arc;

use crate::dependencies::{Dependencies, blocking};
use crate::events;
use crate::pod::parsed_pod::ParsedPod;
use crate::runtime::demand;
use crate::runtime::kubepods;
use crate::runtime::resources::Qos;
use crate::runtime::slices::Slices;

/// What all Burstable pods ask for, in thousandths of a CPU.
fn burstable(pods: &[Arc<ParsedPod>]) -> i64 {
    let own = pods.iter().filter(|pod| pod.qos == Qos::Burstable);
    let asked = own.filter_map(|pod| demand::of_pod(pod.spec()).get("cpu").copied());
    asked.fold(0, i64::saturating_add)
}

/// Brings the classes' weights up to date. A node whose kernel takes none goes on without.
pub(crate) async fn weigh(deps: &Dependencies) {
    let burstable = burstable(&deps.active_pods.borrow());
    let (driver, root) = (deps.settings.cgroup_driver, deps.settings.cgroup_root.clone());
    let cgroups = deps.settings.cgroups.clone();
    let slices = Slices::of(&deps.settings);
    let weigh = move || {
        let weighed = kubepods::weigh_classes(&cgroups, (driver, &root), burstable);
        // Not with each pod: with those that change the weights.
        let told = match (slices, &weighed) {
            (Some(slices), Ok(true)) => slices.weigh_classes(burstable),
            _ => Ok(()),
        };
        Ok(weighed.and(told))
    };
    let weighed = blocking(&deps.env, "weigh the classes of pods in", weigh).await;
    let error = weighed.map(Result::err).unwrap_or_else(|error| Some(std::io::Error::other(error)));
    if let Some(error) = error {
        events::classes_not_weighed(&deps.env, &error);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::pod::parsed_pod::tests::pod;

    #[test]
    fn burstable_pods_count_with_what_they_ask_for() {
        let of = |resources: serde_json::Value| {
            Arc::new(pod(json!({"containers": [{"name": "c", "image": "x", "resources": resources}]})))
        };
        let pods = [
            of(json!({})),
            of(json!({"requests": {"cpu": "300m"}})),
            of(json!({"requests": {"cpu": "2", "memory": "1Gi"}})),
            of(json!({"limits": {"cpu": "1", "memory": "1Gi"}})),
        ];
        assert_eq!(burstable(&pods), 2300);
        assert_eq!(burstable(&[]), 0);
    }
}
