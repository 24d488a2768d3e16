//! Patches: JSON patch (RFC 6902), JSON merge patch (RFC 7386), strategic merge patch (Kubernetes).

mod json;
mod strategic;

use serde_json::Value;

use crate::error::ApiError;
use crate::request::BODY_MAX;

/// Which patch a body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::write) enum PatchType {
    Json,
    Merge,
    StrategicMerge,
}

impl PatchType {
    pub(in crate::write) fn of(content_type: &str) -> Result<PatchType, ApiError> {
        match content_type.split(';').next().unwrap_or_default().trim() {
            "application/json-patch+json" => Ok(PatchType::Json),
            "application/merge-patch+json" => Ok(PatchType::Merge),
            "application/strategic-merge-patch+json" => Ok(PatchType::StrategicMerge),
            other => Err(ApiError::unsupported_media_type(&format!(
                "accepted media types include: application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json (got `{}`)",
                other.escape_debug()
            ))),
        }
    }
}

/// The object after the patch.
pub(in crate::write) fn apply(
    patch_type: PatchType,
    kind: &str,
    object: &Value,
    patch: &Value,
) -> Result<Value, ApiError> {
    let mut next = object.clone();
    match patch_type {
        PatchType::Json => json::apply(&mut next, patch)?,
        PatchType::Merge => json_patch::merge(&mut next, patch),
        PatchType::StrategicMerge => strategic::merge(&mut next, patch, kind)?,
    }
    if json::size(&next) > BODY_MAX {
        return Err(ApiError::too_large(&format!("limit is {BODY_MAX}")));
    }
    Ok(next)
}
