//! What a Node has of resources that neither Kubernetes nor its node knows: operators write them into its capacity (Kubernetes:
//! Advertise Extended Resources for a Node), and a kubelet makes them allocatable (`MachineInfo` of pkg/kubelet/nodestatus). Pure.

use apimachinery::names::is_extended_resource;
use serde_json::Value;

/// Completes what is written of a Node's `allocatable`, so that others' extended resources stand there as in its capacity, and none that
/// is not in it. `said`: the capacity that the node reported; what is in it is the node's own word. Nothing else of `status` is touched,
/// and that only where the Node, as it is `held`, says something else.
pub(crate) fn complete(status: &mut Value, said: &Value, held: &Value) {
    // A capacity that made no sense says nothing of what is not in it.
    let Some(said) = said.as_object() else { return };
    let amounts = |part: &str| held["status"][part].as_object().into_iter().flatten();
    let of_others = |(name, _): &(&String, &Value)| is_extended_resource(name) && !said.contains_key(*name);
    for (name, amount) in amounts("capacity").filter(of_others) {
        if held["status"]["allocatable"].get(name) != Some(amount) {
            status["allocatable"][name] = amount.clone();
        }
    }
    for (name, _) in amounts("allocatable").filter(of_others) {
        if held["status"]["capacity"].get(name).is_none() {
            status["allocatable"][name] = Value::Null;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn completed(said: Value, held: Value) -> Value {
        let mut status = json!({});
        complete(&mut status, &said, &json!({ "status": held }));
        status
    }

    #[test]
    fn what_an_operator_added_to_the_capacity_is_allocatable() {
        let said = json!({ "cpu": "2", "example.com/plugin": "4" });
        let capacity = json!({ "cpu": "2", "example.com/plugin": "4", "example.com/foo": "3", "example.com/bar": "5",
            "example.com/same": "1", "hugepages-1Gi": "0", "kubernetes.io/x": "1" });
        let held = json!({ "capacity": capacity, "allocatable": { "cpu": "1", "example.com/plugin": "2", "example.com/bar": "9",
            "example.com/same": "1", "example.com/gone": "1", "hugepages-2Mi": "0" } });
        let wanted =
            json!({ "example.com/foo": "3", "example.com/bar": "5", "example.com/gone": Value::Null });
        assert_eq!(completed(said, held), json!({ "allocatable": wanted }));
    }

    #[test]
    fn where_it_says_so_already_or_nothing_is_known_nothing_is_written() {
        let held =
            json!({ "capacity": { "example.com/foo": "3" }, "allocatable": { "example.com/foo": "3" } });
        assert_eq!(completed(json!({ "cpu": "2" }), held), json!({}));
        assert_eq!(completed(Value::Null, json!({ "capacity": { "example.com/foo": "3" } })), json!({}));
        assert_eq!(completed(json!({}), json!({})), json!({}));
    }
}
