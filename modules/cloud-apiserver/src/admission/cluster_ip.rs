//! The addresses of services (`spec.clusterIP`): given, kept, and given back.

use std::collections::HashSet;
use std::net::Ipv4Addr;

use apimachinery::resource;
use kubeapi::unstructured::{as_fields, entry, list, name, namespace, put, remove, text};
use kubeapi::{ApiError, ApiRequest, FieldError, Range, ReadStore};
use serde_json::{Value, json};

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
fn keep(current: &Value, next: &mut Value) {
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

/// Gives a service that has no address the one that it asks for, if it is free, or a free one. What would change the
/// address of one that has is left for the validation to refuse.
///
/// # Errors
/// 422 for an address that cannot be had.
pub(super) async fn mutate(
    store: &impl ReadStore,
    random: [u8; 16],
    request: &ApiRequest<'_>,
    old: Option<&Value>,
    service: &mut Value,
) -> Result<(), ApiError> {
    if let Some(old) = old {
        keep(old, service);
        let has_one = !text(old, "/spec/clusterIP").is_empty();
        if has_one && !text(service, "/spec/clusterIP").is_empty() {
            return Ok(());
        }
    }
    allocate(store, random, request, service).await
}

async fn allocate(
    store: &impl ReadStore,
    random: [u8; 16],
    request: &ApiRequest<'_>,
    service: &mut Value,
) -> Result<(), ApiError> {
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
        let taken = taken(store, service).await?;
        let chosen = if wanted.is_empty() {
            free_address(random, &taken)?
        } else {
            asked_for(&wanted, &taken).map_err(|what| {
                let cause = FieldError::invalid("spec.clusterIPs", &json!([wanted]), &what);
                ApiError::invalid(request.kind(), name(service), &[cause])
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
async fn taken(store: &impl ReadStore, service: &Value) -> Result<HashSet<Ipv4Addr>, ApiError> {
    let range = Range { resource: resource::SERVICES.to_owned(), namespace: None, after: None, limit: None };
    let items = store.list(range).await?.items;
    let own = (namespace(service), name(service));
    let others = items.iter().filter(|item| (item.key.namespace.as_str(), item.key.name.as_str()) != own);
    let address = |service: Value| text(&service, "/spec/clusterIP").parse().ok();
    Ok(others.filter_map(|item| serde_json::from_slice(&item.json).ok().and_then(address)).collect())
}

/// A free address from a random place on.
fn free_address(random: [u8; 16], taken: &HashSet<Ipv4Addr>) -> Result<Ipv4Addr, ApiError> {
    let [a, b, c, d, ..] = random;
    let start = u32::from_be_bytes([a, b, c, d]) % COUNT;
    let mut all = (0..COUNT).map(|step| Ipv4Addr::from(FIRST + (start + step) % COUNT));
    let free = all.find(|address| !taken.contains(address));
    free.ok_or_else(|| ApiError::internal(&"no service address is free"))
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
            keep(&current, &mut next);
            next["spec"].clone()
        };
        assert_eq!(next(json!({"spec": {"type": "ClusterIP"}})), current["spec"]);
        let other = json!({"type": "ClusterIP", "clusterIP": "10.96.1.2"});
        assert_eq!(next(json!({"spec": other})), other);
        let named = json!({"type": "ExternalName", "externalName": "x", "clusterIP": "10.96.1.1"});
        assert_eq!(next(json!({"spec": named})), json!({"type": "ExternalName", "externalName": "x"}));
    }
}
