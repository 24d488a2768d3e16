//! Patches: JSON patch (RFC 6902), JSON merge patch (RFC 7386), strategic merge patch (Kubernetes).

mod json;
mod strategic;

use serde_json::Value;

use crate::api::BODY_MAX;
use crate::failure::Failure;

/// Which patch a body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Json,
    Merge,
    Strategic,
}

impl Format {
    pub(crate) fn of(content_type: &str) -> Result<Format, Failure> {
        match content_type.split(';').next().unwrap_or_default().trim() {
            "application/json-patch+json" => Ok(Format::Json),
            "application/merge-patch+json" => Ok(Format::Merge),
            "application/strategic-merge-patch+json" => Ok(Format::Strategic),
            other => Err(Failure::media_type(&format!(
                "accepted media types include: application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json (got `{}`)",
                other.escape_debug()
            ))),
        }
    }
}

/// The object after the patch.
pub(crate) fn apply(format: Format, kind: &str, object: &Value, patch: &Value) -> Result<Value, Failure> {
    let mut next = object.clone();
    match format {
        Format::Json => json::apply(&mut next, patch)?,
        Format::Merge => json_patch::merge(&mut next, patch),
        Format::Strategic => strategic::merge(&mut next, patch, kind)?,
    }
    if json::size(&next) > BODY_MAX {
        return Err(Failure::too_large(&format!("limit is {BODY_MAX}")));
    }
    Ok(next)
}
