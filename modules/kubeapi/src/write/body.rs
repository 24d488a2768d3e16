//! The object of a body, in any of the forms that clients send.

use serde_json::Value;

use super::{json, protobuf};
use crate::error::ApiError;
use crate::request::ApiRequest;

/// The object of a body.
///
/// # Errors
/// 400 if it is none, 415 if it is of a type that is not read.
pub(super) fn decode(body: &[u8], content_type: &str) -> Result<Value, ApiError> {
    let media = content_type.split(';').next().unwrap_or_default().trim();
    let unrecognized = |error: &dyn std::fmt::Display| {
        ApiError::bad_request(format!("the object provided is unrecognized: {error}"))
    };
    let object: Value = match media {
        "application/json" | "" | "*/*" => json::read(body).map_err(|error| unrecognized(&error))?,
        "application/yaml" => yaml(body).map_err(|error| unrecognized(&error))?,
        protobuf::MEDIA => protobuf::decode(body)?,
        other => {
            let what = format!(
                "accepted media types include: application/json, application/yaml, \
                 application/vnd.kubernetes.protobuf (got `{}`)",
                other.escape_debug()
            );
            return Err(ApiError::unsupported_media_type(&what));
        }
    };
    if object.is_object() {
        Ok(object)
    } else {
        Err(ApiError::bad_request("the object provided is unrecognized (must be of type object)"))
    }
}

/// One document of YAML. Without aliases: a few of them could repeat a large text without end.
fn yaml(body: &[u8]) -> Result<Value, serde_saphyr::Error> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_aliases: 0 },
        with_snippet: false,
    };
    serde_saphyr::from_slice_with_options(body, options)
}

impl ApiRequest<'_> {
    /// The object of its body, as the client sent it.
    ///
    /// # Errors
    /// 400 if it is none, 415 if it is of a type that is not read.
    pub fn object(&self) -> Result<Value, ApiError> {
        decode(self.body, &self.content_type)
    }

    /// The paths of fields that stand in its body twice, if that is JSON.
    pub(super) fn repeated_fields(&self) -> Vec<String> {
        json::repeated_fields(self.body)
    }

    /// The JSON of a body that is a patch.
    pub(super) fn patch_body(&self) -> Result<Value, ApiError> {
        json::read(self.body).map_err(|error| ApiError::bad_request(format!("error decoding patch: {error}")))
    }
}
