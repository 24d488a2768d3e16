//! What a pod takes from its node, resource by resource. Pure.

use std::collections::BTreeMap;

use apimachinery::Quantity;
use k8s_openapi::api::core::v1::{Container, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as QuantityText;

use crate::pod::spec_containers::is_sidecar;
use crate::runtime::huge_pages;
use crate::runtime::resources::quantity;

/// Amounts by the names of resources: of CPU in thousandths, of all else in whole units.
pub(crate) type Amounts = BTreeMap<String, i64>;

/// What a pod asks for: the kubelet's `PodRequests`. Init containers run one after another, each beside the sidecars that
/// were started before it; what the pod as a whole asks for counts instead of its containers' sum.
pub(crate) fn of_pod(spec: &PodSpec) -> Amounts {
    let mut total = without_overhead(spec);
    add(&mut total, &amounts(spec.overhead.as_ref()));
    total
}

/// The same without what its runtime class takes for itself.
pub(crate) fn without_overhead(spec: &PodSpec) -> Amounts {
    let mut total = of_containers(spec);
    total.extend(requests_of_whole(spec));
    total
}

/// What its containers ask for together, whatever is said for the pod as a whole (`AggregateContainerRequests`).
pub(crate) fn of_containers(spec: &PodSpec) -> Amounts {
    sum(spec, |container| requests(container.resources.as_ref()))
}

/// What may be said for a pod as a whole (`IsSupportedPodLevelResource`).
fn is_of_whole(name: &str) -> bool {
    matches!(name, "cpu" | "memory") || name.starts_with(huge_pages::PREFIX)
}

/// What is asked for the pod as a whole. Of what has no request there it is what the containers ask for, else the limit, as the
/// API server fills it in: static pods come without that.
pub(crate) fn requests_of_whole(spec: &PodSpec) -> Amounts {
    let Some(whole) = &spec.resources else { return Amounts::new() };
    let mut own = amounts(whole.limits.as_ref());
    if !own.is_empty() || whole.requests.as_ref().is_some_and(|requests| !requests.is_empty()) {
        let of_containers = of_containers(spec);
        own.extend(of_containers.into_iter().filter(|(name, _)| !name.starts_with(huge_pages::PREFIX)));
    }
    own.extend(amounts(whole.requests.as_ref()));
    own.retain(|name, _| is_of_whole(name));
    own
}

/// What the pod as a whole may have at most.
pub(crate) fn limits_of_whole(spec: &PodSpec) -> Amounts {
    let mut own = amounts(spec.resources.as_ref().and_then(|own| own.limits.as_ref()));
    own.retain(|name, _| is_of_whole(name));
    own
}

/// What a pod may have at most, as far as there are bounds: the kubelet's `PodLimits`. What its runtime class takes for itself
/// comes on top.
pub(crate) fn limits_of_pod(spec: &PodSpec) -> Amounts {
    let mut total = limits_without_overhead(spec);
    for (name, amount) in overhead(spec) {
        if let Some(own) = total.get_mut(&name) {
            *own = own.saturating_add(amount);
        }
    }
    total
}

/// The same without that.
pub(crate) fn limits_without_overhead(spec: &PodSpec) -> Amounts {
    let limits = |own: Option<&ResourceRequirements>| amounts(own.and_then(|own| own.limits.as_ref()));
    let mut total = sum(spec, |container| limits(container.resources.as_ref()));
    total.extend(limits_of_whole(spec));
    total
}

/// What the pod's runtime class takes for itself.
pub(crate) fn overhead(spec: &PodSpec) -> Amounts {
    amounts(spec.overhead.as_ref())
}

/// Of all containers, as they run beside and after each other.
fn sum(spec: &PodSpec, of_container: impl Fn(&Container) -> Amounts) -> Amounts {
    let mut total = Amounts::new();
    for container in &spec.containers {
        add(&mut total, &of_container(container));
    }
    let (mut sidecars, mut most) = (Amounts::new(), Amounts::new());
    for container in spec.init_containers.iter().flatten() {
        let own = of_container(container);
        if is_sidecar(container) {
            add(&mut sidecars, &own);
            raise(&mut most, &sidecars);
        } else {
            let mut beside = sidecars.clone();
            add(&mut beside, &own);
            raise(&mut most, &beside);
        }
    }
    add(&mut total, &sidecars);
    raise(&mut total, &most);
    total
}

/// Where only a limit stands it is the request, too.
fn requests(resources: Option<&ResourceRequirements>) -> Amounts {
    let mut own = amounts(resources.and_then(|own| own.limits.as_ref()));
    own.extend(amounts(resources.and_then(|own| own.requests.as_ref())));
    own
}

fn amounts(list: Option<&BTreeMap<String, QuantityText>>) -> Amounts {
    let amount = |(name, text): (&String, &QuantityText)| {
        let in_units = if name == "cpu" { Quantity::millis } else { Quantity::units };
        Some((name.clone(), in_units(quantity(text)?)))
    };
    list.into_iter().flatten().filter_map(amount).collect()
}

/// Adds to a sum.
pub(crate) fn add(sum: &mut Amounts, other: &Amounts) {
    for (name, amount) in other {
        let own = sum.entry(name.clone()).or_default();
        *own = own.saturating_add(*amount);
    }
}

fn raise(most: &mut Amounts, other: &Amounts) {
    for (name, amount) in other {
        let own = most.entry(name.clone()).or_default();
        *own = (*own).max(*amount);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::pod::parsed_pod::tests::pod;

    fn container(name: &str, cpu: &str, more: Value) -> Value {
        let mut container = json!({"name": name, "image": "x", "resources": {"requests": {"cpu": cpu}}});
        for (key, value) in more.as_object().unwrap() {
            container[key] = value.clone();
        }
        container
    }

    fn cpu(spec: Value) -> i64 {
        of_pod(pod(spec).spec()).get("cpu").copied().unwrap_or(0)
    }

    #[test]
    fn containers_count_by_when_they_run() {
        let none = json!({});
        let side = json!({"restartPolicy": "Always"});
        let mains = json!([container("a", "500m", none.clone()), container("b", "600m", none.clone())]);
        let of = |inits: Value| cpu(json!({"containers": mains, "initContainers": inits}));
        assert_eq!(of(json!([])), 1100);
        assert_eq!(of(json!([container("i", "2", none.clone())])), 2000);
        assert_eq!(of(json!([container("s", "300m", side.clone())])), 1400);
        // The init container runs beside the sidecar before it, not beside the one after it.
        let inits = json!([
            container("s", "300m", side.clone()),
            container("i", "2", none),
            container("t", "300m", side)
        ]);
        assert_eq!(of(inits), 2300);
    }

    #[test]
    fn limits_overhead_and_the_pod_as_a_whole_count() {
        let limited = json!([{"name": "a", "image": "x", "resources": {
            "limits": {"cpu": "1", "nvidia.com/gpu": 2, "memory": "1Ki"}, "requests": {"memory": "512"}}}]);
        let found = of_pod(pod(json!({"containers": limited, "overhead": {"cpu": "100m"}})).spec());
        let wanted = [("cpu", 1100), ("memory", 512), ("nvidia.com/gpu", 2)];
        assert_eq!(found, Amounts::from(wanted.map(|(name, amount)| (name.to_owned(), amount))));
        // The overhead raises a bound that is there and makes none.
        let spec = json!({"containers": limited, "overhead": {"cpu": "100m", "ephemeral-storage": "1Ki"}});
        let bounds = limits_of_pod(pod(spec).spec());
        let wanted = [("cpu", 1100), ("memory", 1024), ("nvidia.com/gpu", 2)];
        assert_eq!(bounds, Amounts::from(wanted.map(|(name, amount)| (name.to_owned(), amount))));
        let whole = |own: Value| cpu(json!({"containers": limited, "resources": own}));
        assert_eq!(whole(json!({"requests": {"cpu": "3"}})), 3000);
        assert_eq!(whole(json!({"limits": {"cpu": "3"}})), 1000, "what the containers ask for");
        let bare = json!({"resources": {"limits": {"cpu": "3", "example.com/x": "1"}}});
        assert_eq!(of_pod(pod(bare).spec()), Amounts::from([("cpu".to_owned(), 3000)]));
    }
}
