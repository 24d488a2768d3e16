//! What a pod has and is given as a whole, as its status says it since Kubernetes 1.35: `resources` and `allocatedResources`, which the
//! types of the API that are built here do not have. Pure.

use std::collections::BTreeMap;

use apimachinery::Quantity;
use k8s_openapi::api::core::v1::{PodSpec, PodStatus};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as QuantityText;
use serde_json::{Map, Value, json};

use crate::pod::parsed_pod::ParsedPod;
use crate::pod::resize;
use crate::runtime::cgroup;
use crate::runtime::demand::{self, Amounts};

/// The kernel's least shares: what asks for no more of a CPU has what it is given, in thousandths.
const MIN_SHARES: i64 = 2;

/// The two fields, for a pod as it is given and its status. While a pod runs `resources` is what its cgroup holds, as by a kubelet; before
/// and after that what it is given.
pub(crate) fn fields(pod: &ParsedPod, status: &PodStatus) -> Map<String, Value> {
    let allocated = texts(&demand::of_pod(pod.spec()));
    let has = if status.phase.as_deref() == Some("Running") {
        of_cgroup(pod.with_resources(&resize::reported(status)).spec())
    } else {
        Resources { requests: allocated.clone(), limits: texts(&demand::limits_of_pod(pod.spec())) }
    };
    let mut fields = Map::new();
    fields.insert("resources".to_owned(), has.shown());
    if !allocated.is_empty() {
        fields.insert("allocatedResources".to_owned(), json!(allocated));
    }
    fields
}

type Texts = BTreeMap<String, String>;

#[derive(Default)]
struct Resources {
    requests: Texts,
    limits: Texts,
}

impl Resources {
    fn shown(self) -> Value {
        let mut shown = Map::new();
        for (name, amounts) in [("limits", self.limits), ("requests", self.requests)] {
            if !amounts.is_empty() {
                shown.insert(name.to_owned(), json!(amounts));
            }
        }
        Value::Object(shown)
    }
}

/// A kubelet's `convertToAPIPodLevelResourcesStatus`: what is said for the pod as a whole, with CPU and memory as the cgroup of the pod
/// has them. A request for memory is in no cgroup.
fn of_cgroup(spec: &PodSpec) -> Resources {
    let whole = spec.resources.clone().unwrap_or_default();
    let given = |list: Option<BTreeMap<String, QuantityText>>| {
        list.into_iter().flatten().map(|(name, amount)| (name, amount.0)).collect::<Texts>()
    };
    let mut has = Resources { requests: given(whole.requests), limits: given(whole.limits) };
    let requests = demand::of_pod(spec);
    for name in ["cpu", "memory"] {
        let least = if name == "cpu" { MIN_SHARES } else { 0 };
        if let Some(amount) = requests.get(name).filter(|amount| **amount > least) {
            has.requests.insert(name.to_owned(), text(name, *amount));
        }
    }
    let bounds = [("cpu", cgroup::cpu_limit(spec)), ("memory", cgroup::memory_limit(spec))];
    for (name, amount) in bounds {
        if let Some(amount) = amount.filter(|amount| *amount > 0) {
            has.limits.insert(name.to_owned(), text(name, amount));
        }
    }
    has
}

fn texts(amounts: &Amounts) -> Texts {
    amounts.iter().map(|(name, amount)| (name.clone(), text(name, *amount))).collect()
}

/// An amount as Kubernetes writes it.
fn text(name: &str, amount: i64) -> String {
    let amount = u64::try_from(amount).unwrap_or_default();
    match name {
        "cpu" if amount % 1000 == 0 => Quantity::decimal_text(amount / 1000),
        "cpu" => format!("{amount}m"),
        _ if name == "memory" || name == "ephemeral-storage" || name.starts_with("hugepages-") => {
            Quantity::binary_text(amount)
        }
        _ => Quantity::decimal_text(amount),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::parsed_pod::tests::pod;

    fn shown(spec: Value, phase: &str, containers: Value) -> (Value, Value) {
        let status = json!({"phase": phase, "containerStatuses": containers});
        let fields = fields(&pod(spec), &serde_json::from_value(status).unwrap());
        (fields["resources"].clone(), fields.get("allocatedResources").cloned().unwrap_or_default())
    }

    fn container(name: &str, resources: Value) -> Value {
        json!({"name": name, "image": "x", "resources": resources})
    }

    #[test]
    fn the_status_says_what_the_pod_is_given_and_while_it_runs_what_its_cgroup_holds() {
        let limited =
            json!({"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"cpu": "1", "memory": "128Mi"}});
        let asks =
            json!({"requests": {"cpu": "900m", "example.com/x": "2"}, "limits": {"example.com/x": "2"}});
        let both = json!({"containers": [container("a", limited.clone()), container("b", asks)]});
        let all = json!({"cpu": "1", "memory": "64Mi", "example.com/x": "2"});
        let (has, given) = shown(both.clone(), "Pending", json!(null));
        assert_eq!(given, all);
        assert_eq!(
            has,
            json!({"requests": all, "limits": {"cpu": "1", "memory": "128Mi", "example.com/x": "2"}})
        );
        // A container without a limit leaves the pod's cgroup without one.
        let (has, given) = shown(both, "Running", json!(null));
        assert_eq!((has, given), (json!({"requests": {"cpu": "1", "memory": "64Mi"}}), all));
        let one = json!({"containers": [container("a", limited.clone())]});
        assert_eq!(shown(one, "Running", json!(null)).0, limited);
        // Nothing is asked for.
        let none = json!({"containers": [container("a", json!({}))]});
        assert_eq!(shown(none, "Running", json!(null)), (json!({}), Value::Null));
    }

    #[test]
    fn what_is_said_for_the_pod_as_a_whole_counts_and_its_overhead_comes_on_top() {
        let whole = json!({"requests": {"cpu": "500m", "memory": "100Mi"}, "limits": {"cpu": "2", "memory": "200Mi"}});
        let own = json!({"requests": {"cpu": "100m"}});
        let spec = |overhead: Value| json!({"containers": [container("a", own.clone())], "resources": whole, "overhead": overhead});
        let (has, given) = shown(spec(json!(null)), "Running", json!(null));
        assert_eq!((has, given), (whole.clone(), whole["requests"].clone()));
        let (has, given) = shown(spec(json!({"cpu": "250m", "memory": "24Mi"})), "Running", json!(null));
        assert_eq!(given, json!({"cpu": "750m", "memory": "124Mi"}));
        assert_eq!(has, json!({"requests": given, "limits": {"cpu": "2250m", "memory": "224Mi"}}));
    }

    /// While a resize goes on the pod is given more than it has.
    #[test]
    fn a_resize_is_told_when_it_is_done() {
        let with = |cpu: &str| json!({"requests": {"cpu": cpu}, "limits": {"cpu": cpu}});
        let spec = json!({"containers": [container("a", with("2"))]});
        let status = |cpu: &str| json!([{"name": "a", "image": "x", "imageID": "", "ready": true, "restartCount": 0, "resources": with(cpu)}]);
        assert_eq!(shown(spec.clone(), "Running", status("1")), (with("1"), json!({"cpu": "2"})));
        assert_eq!(shown(spec, "Running", status("2")).0, with("2"));
    }
}
