//! The NamespaceLifecycle plugin: objects are made in namespaces that are there and stay, and some namespaces always
//! stay.

use apimachinery::{ObjectKey, kind, resource};
use kubeapi::unstructured::{name, text};
use kubeapi::{ApiError, ApiRequest, ReadStore};
use serde_json::{Value, json};

/// Namespaces that nobody deletes.
const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

/// # Errors
/// 404 without such a namespace, 403 in one that is going.
pub(super) async fn validate_create(
    store: &impl ReadStore,
    request: &ApiRequest<'_>,
    object: &Value,
) -> Result<(), ApiError> {
    if !request.kind().namespaced {
        return Ok(());
    }
    let namespace = request.attributes.namespace.as_str();
    let item = store.get(&ObjectKey::new(resource::NAMESPACES, "", namespace)).await?;
    let item = item.ok_or_else(|| ApiError::not_found(&kind::NAMESPACES, namespace))?;
    let found: Value = serde_json::from_slice(&item.json).unwrap_or_default();
    if text(&found, "/metadata/deletionTimestamp").is_empty() {
        return Ok(());
    }
    let what =
        format!("unable to create new content in namespace {namespace} because it is being terminated");
    let mut error = ApiError::forbidden_by_admission(request.kind(), name(object), &what);
    if let Some(details) = &mut error.details {
        details["causes"] = json!([{ "reason": "NamespaceTerminating", "field": "metadata.namespace",
            "message": format!("namespace {namespace} is being terminated") }]);
    }
    Err(error)
}

/// # Errors
/// 403 for a namespace that always stays.
pub(super) fn validate_delete(request: &ApiRequest<'_>, object: &Value) -> Result<(), ApiError> {
    if request.kind() == &kind::NAMESPACES && IMMORTAL.contains(&name(object)) {
        let what = "this namespace may not be deleted";
        return Err(ApiError::forbidden_by_admission(request.kind(), name(object), what));
    }
    Ok(())
}
