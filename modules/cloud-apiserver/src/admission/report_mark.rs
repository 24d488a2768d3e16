//! Whose the mark of a node's reports is: what stands there keeps older reports out, so whoever could write it could keep all out.
//! The same rule as the policy `kubehive-report-marks` in the chart's `policy.yaml`.

use contract::ids::REPORTED_ANNOTATION;
use kubeapi::unstructured::{name, namespace};
use kubeapi::{ApiError, ApiRequest, Attributes};
use serde_json::Value;

use crate::access::AccessControl;

/// Only who may patch an object's status changes the mark of the report that it holds: who may do that could say anything of the
/// status by itself. Anybody may remove the mark, with which every report is news again.
///
/// # Errors
/// 403.
pub(super) async fn validate(
    access: &dyn AccessControl,
    request: &ApiRequest<'_>,
    old: Option<&Value>,
    new: &Value,
) -> Result<(), ApiError> {
    let (Some(old), Some(mark)) = (old, mark(new)) else { return Ok(()) };
    if self::mark(old) == Some(mark) || request.user.is_master() {
        return Ok(());
    }
    let kind = request.kind();
    let status = Attributes {
        verb: "patch".to_owned(),
        group: kind.group.to_string(),
        version: kind.version.to_string(),
        resource: kind.plural.to_string(),
        subresource: "status".to_owned(),
        namespace: namespace(new).to_owned(),
        name: name(new).to_owned(),
        ..Attributes::default()
    };
    if access.authorize(request.user, &status).await {
        return Ok(());
    }
    let what = format!("only who may patch its status changes the annotation {REPORTED_ANNOTATION}");
    Err(ApiError::forbidden_by_admission(kind, name(new), &what))
}

fn mark(object: &Value) -> Option<&Value> {
    object.pointer("/metadata/annotations")?.get(REPORTED_ANNOTATION)
}
