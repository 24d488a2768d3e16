//! The class of service of a pod (`pkg/apis/core/v1/helper/qos`). Pure.

use k8s_openapi::api::core::v1::PodSpec;

use crate::pod::spec_containers::all_of;
use crate::runtime::demand;
use crate::runtime::resources::{Amounts, Qos, amounts};

/// The pod's class: by what is said for the pod as a whole where that is said (`spec.resources`), else by its containers.
pub(crate) fn class_of(spec: &PodSpec) -> Qos {
    let parts: Vec<Amounts> = if spec.resources.is_some() {
        vec![of_whole(spec)]
    } else {
        all_of(spec).map(|container| amounts(container.resources.as_ref())).collect()
    };
    let is_bound = |own: &Amounts| {
        own.cpu_limit > 0
            && own.memory_limit > 0
            && own.cpu_request == own.cpu_limit
            && own.memory_request == own.memory_limit
    };
    if parts.iter().all(|own| *own == Amounts::default()) {
        Qos::BestEffort
    } else if parts.iter().all(is_bound) {
        Qos::Guaranteed
    } else {
        Qos::Burstable
    }
}

/// What is said for the pod as a whole, with the requests that the API server fills in.
fn of_whole(spec: &PodSpec) -> Amounts {
    let (requests, limits) = (demand::requests_of_whole(spec), demand::limits_of_whole(spec));
    let of = |from: &demand::Amounts, name: &str| from.get(name).copied().unwrap_or(0);
    Amounts {
        cpu_request: of(&requests, "cpu"),
        cpu_limit: of(&limits, "cpu"),
        memory_request: of(&requests, "memory"),
        memory_limit: of(&limits, "memory"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn class(spec: Value) -> Qos {
        class_of(&serde_json::from_value(spec).unwrap())
    }

    #[test]
    fn the_class_follows_from_limits_and_requests() {
        let one = |resources: Value| class(json!({"containers": [{"name": "a", "resources": resources}]}));
        assert_eq!(one(json!({})), Qos::BestEffort);
        assert_eq!(one(json!({"requests": {"cpu": "100m"}})), Qos::Burstable);
        assert_eq!(one(json!({"limits": {"cpu": "1", "memory": "64Mi"}})), Qos::Guaranteed);
    }

    #[test]
    fn what_is_said_for_the_whole_pod_decides_alone() {
        let full = json!({"limits": {"cpu": "1", "memory": "64Mi"}});
        let of = |whole: Value, own: Value| {
            class(json!({"resources": whole, "containers": [{"name": "a", "resources": own}, {"name": "b"}]}))
        };
        assert_eq!(of(full.clone(), json!({})), Qos::Guaranteed);
        assert_eq!(of(json!({"requests": {"cpu": "1"}}), full.clone()), Qos::Burstable);
        assert_eq!(of(json!({"limits": {"cpu": "1"}}), json!({})), Qos::Burstable);
        // The API server fills the containers' request in, and the pod's limit is above it.
        assert_eq!(of(full.clone(), json!({"requests": {"cpu": "500m"}})), Qos::Burstable);
        assert_eq!(of(json!({}), full), Qos::BestEffort, "an empty word is one, too");
    }
}
