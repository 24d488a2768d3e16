//! `pods/binding`: the scheduler's decision.

use kubeapi::unstructured::{as_fields, entry, list, text};
use kubeapi::{Answer, Api, ApiError, ApiRequest, FieldError, Store, bad_subdomain};
use serde_json::{Value, json};

pub(super) async fn create<S: Store>(api: &Api<S>, request: &ApiRequest<'_>) -> Result<Answer, ApiError> {
    let binding = request.object()?;
    if let Some(cause) = wrong_target(&binding) {
        return Err(ApiError::invalid(request.kind(), &request.attributes.name, &[cause]));
    }
    let node = text(&binding, "/target/name");
    let uid = text(&binding, "/metadata/uid");
    let now = api.now_text();
    let key = request.key();
    api.guaranteed_update(request, &key, |pod| {
        let conflict = |what: &str| Err(ApiError::conflict(request.kind(), &key.name, what));
        if !uid.is_empty() && uid != text(pod, "/metadata/uid") {
            return conflict("Precondition failed: the uid is another");
        }
        if !text(pod, "/metadata/deletionTimestamp").is_empty() {
            return conflict(&format!("pod {} is being deleted, cannot be assigned to a host", key.name));
        }
        let assigned = text(pod, "/spec/nodeName");
        if !assigned.is_empty() {
            return conflict(&format!("pod {} is already assigned to node \"{assigned}\"", key.name));
        }
        if !list(pod, "/spec/schedulingGates").is_empty() {
            return conflict(&format!("pod {} has non-empty .spec.schedulingGates", key.name));
        }
        assign(pod, node, &now);
        Ok(())
    })
    .await?;
    Ok(Answer::success())
}

fn wrong_target(binding: &Value) -> Option<FieldError> {
    let (node, kind) = (text(binding, "/target/name"), text(binding, "/target/kind"));
    if node.is_empty() {
        return Some(FieldError::required("target.name", ""));
    }
    if let Some(what) = bad_subdomain(node) {
        return Some(FieldError::invalid("target.name", &json!(node), what));
    }
    let is_node = matches!(kind, "" | "Node");
    (!is_node).then(|| FieldError::unsupported("target.kind", &json!(kind), &["Node", "<empty>"]))
}

fn assign(pod: &mut Value, node: &str, now: &str) {
    as_fields(entry(pod, "spec")).insert("nodeName".to_owned(), json!(node));
    let scheduled =
        json!({ "type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": now });
    let conditions = entry(entry(pod, "status"), "conditions");
    if !conditions.is_array() {
        *conditions = json!([]);
    }
    if let Value::Array(conditions) = conditions {
        conditions.retain(|condition| text(condition, "/type") != "PodScheduled");
        conditions.push(scheduled);
    }
}
