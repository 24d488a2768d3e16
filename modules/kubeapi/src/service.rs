//! The addresses of services.

use std::collections::HashSet;
use std::net::Ipv4Addr;

use serde_json::{Value, json};
use tokio::sync::MutexGuard;

use crate::api::Api;
use crate::failure::{Cause, Failure};
use crate::field::{as_fields, entry, list, name, put, remove, text};
use crate::kind::Kind;
use crate::store::{Range, Store};
use crate::write::{Part, key_of};

/// 10.96.0.0/12
const RANGE: std::ops::RangeInclusive<u32> =
    u32::from_be_bytes([10, 96, 0, 0])..=u32::from_be_bytes([10, 111, 255, 255]);
/// The first 256 are for those who ask by number.
const FIRST: u32 = *RANGE.start() + 256;
/// How many are given to those who do not ask.
const COUNT: u32 = *RANGE.end() - FIRST;

fn is_external(service: &Value) -> bool {
    text(service, "/spec/type") == "ExternalName"
}

/// A service keeps its address when an update does not say it; one that becomes a mere name loses it.
pub(crate) fn keep_address(current: &Value, next: &mut Value) {
    let old = text(current, "/spec/clusterIP");
    let wanted = text(next, "/spec/clusterIP");
    if is_external(next) {
        if !is_external(current) && wanted == old {
            remove(entry(next, "spec"), "clusterIP");
            remove(entry(next, "spec"), "clusterIPs");
        }
    } else if !is_external(current) && !old.is_empty() && (wanted.is_empty() || wanted == old) {
        for field in ["clusterIP", "clusterIPs"] {
            put(entry(next, "spec"), field, current["spec"].get(field).cloned());
        }
    }
}

/// Whether an update wants an address that the service did not have.
pub(crate) fn asks(current: &Value, next: &Value) -> bool {
    let wanted = text(next, "/spec/clusterIP");
    wanted.is_empty() || wanted != text(current, "/spec/clusterIP")
}

impl<S: Store> Api<S> {
    /// Held while the address of a service is chosen and written, so that no two get the same one.
    pub(crate) async fn addresses(&self, kind: &Kind, part: Part) -> Option<MutexGuard<'_, ()>> {
        let gives = kind.is("services") && part == Part::Main;
        if gives { Some(self.inner.addresses.lock().await) } else { None }
    }

    /// The address that a service asks for, if it is free, or a free one from a random place on.
    pub(crate) async fn give_address(&self, kind: &Kind, service: &mut Value) -> Result<(), Failure> {
        if is_external(service) {
            return Ok(());
        }
        let first = list(service, "/spec/clusterIPs").first().and_then(Value::as_str).unwrap_or_default();
        let wanted = match text(service, "/spec/clusterIP") {
            "" => first.to_owned(),
            address => address.to_owned(),
        };
        let address = if wanted == "None" {
            wanted
        } else {
            let taken = self.addresses_taken(kind, service).await?;
            let chosen = if wanted.is_empty() {
                self.free_address(&taken)?
            } else {
                asked_for(&wanted, &taken).map_err(|what| {
                    let cause = Cause::invalid("spec.clusterIPs", &json!([wanted]), &what);
                    Failure::invalid(&kind.names_of(), name(service), &[cause])
                })?
            };
            chosen.to_string()
        };
        let spec = as_fields(entry(service, "spec"));
        spec.insert("clusterIP".to_owned(), json!(address));
        spec.insert("clusterIPs".to_owned(), json!([address]));
        Ok(())
    }

    /// The addresses of all other services.
    async fn addresses_taken(&self, kind: &Kind, service: &Value) -> Result<HashSet<Ipv4Addr>, Failure> {
        let own = key_of(kind, service);
        let range = Range { resource: own.resource.clone(), namespace: None, after: None, limit: None };
        let items = self.inner.store.list(range).await?.items;
        let others = items.iter().filter(|item| item.key != own);
        let address = |service: Value| text(&service, "/spec/clusterIP").parse().ok();
        Ok(others.filter_map(|item| serde_json::from_slice(&item.json).ok().and_then(address)).collect())
    }

    fn free_address(&self, taken: &HashSet<Ipv4Addr>) -> Result<Ipv4Addr, Failure> {
        let [a, b, c, d, ..] = (self.inner.options.random)();
        let start = u32::from_be_bytes([a, b, c, d]) % COUNT;
        let mut all = (0..COUNT).map(|step| Ipv4Addr::from(FIRST + (start + step) % COUNT));
        let free = all.find(|address| !taken.contains(address));
        free.ok_or_else(|| Failure::internal(&"no service address is free"))
    }
}

fn asked_for(wanted: &str, taken: &HashSet<Ipv4Addr>) -> Result<Ipv4Addr, String> {
    let address: Ipv4Addr =
        wanted.parse().map_err(|_| "must be a valid IP address, (e.g. 10.9.8.7)".to_owned())?;
    let bits = u32::from(address);
    // The first one names the network, the last one all of it.
    if !RANGE.contains(&bits) || bits == *RANGE.start() || bits == *RANGE.end() {
        return Err(format!(
            "failed to allocate IP {address}: the provided IP ({address}) is not in the valid range. The range of valid IPs is 10.96.0.0/12"
        ));
    }
    if taken.contains(&address) {
        return Err(format!("failed to allocate IP {address}: provided IP is already allocated"));
    }
    Ok(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_in_the_range_and_free() {
        let taken = HashSet::from([Ipv4Addr::new(10, 96, 0, 1)]);
        for good in ["10.96.0.2", "10.111.255.254"] {
            assert_eq!(asked_for(good, &taken).map(|address| address.to_string()), Ok(good.to_owned()));
        }
        let bad = ["", "x", "10.96.0.1", "10.96.0.0", "10.111.255.255", "10.95.255.255", "10.112.0.1", "::1"];
        for bad in bad {
            assert!(asked_for(bad, &taken).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_update_keeps_the_address_that_it_does_not_say() {
        let current =
            json!({"spec": {"type": "ClusterIP", "clusterIP": "10.96.1.1", "clusterIPs": ["10.96.1.1"]}});
        let next = |mut next: Value| {
            keep_address(&current, &mut next);
            next["spec"].clone()
        };
        assert_eq!(next(json!({"spec": {"type": "ClusterIP"}})), current["spec"]);
        let other = json!({"type": "ClusterIP", "clusterIP": "10.96.1.2"});
        assert_eq!(next(json!({"spec": other})), other);
        let named = json!({"type": "ExternalName", "externalName": "x", "clusterIP": "10.96.1.1"});
        assert_eq!(next(json!({"spec": named})), json!({"type": "ExternalName", "externalName": "x"}));
    }
}
