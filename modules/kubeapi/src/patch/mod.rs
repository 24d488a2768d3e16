//! Patches: JSON patch (RFC 6902), JSON merge patch (RFC 7386), strategic merge patch (Kubernetes).

mod strategic;

use serde_json::Value;

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
        Format::Json => {
            let patch: json_patch::Patch = serde_json::from_value(patch.clone())
                .map_err(|error| Failure::bad_request(format!("error decoding patch: {error}")))?;
            json_patch::patch(&mut next, &patch).map_err(|error| Failure {
                code: 422,
                reason: "Invalid",
                message: format!("the server rejected our request due to an error in our request: {error}"),
                details: None,
            })?;
        }
        Format::Merge => json_patch::merge(&mut next, patch),
        Format::Strategic => strategic::merge(&mut next, patch, kind)?,
    }
    Ok(next)
}
