//! What a Kubernetes API server refuses of an object.

mod definitions;
mod endpoints;
mod metadata;
mod objects;
mod rbac;
mod references;
mod security_context;
mod services;
mod updates;

use apimachinery::resource;
use serde_json::Value;

pub use self::endpoints::bad_endpoint_address;
pub use self::references::bad_subdomain;
use super::part::Subresource;
use super::{object_size, pod_parts};
use crate::error::ApiError;
use crate::kind::{ServedKind, Source};
use crate::unstructured::{DEPTH_MAX, depth, name, remove, text};

/// 128: no body that is deeper is read.
const SERDE_DEPTH: usize = 128;

/// Whether `object` may be stored in place of `old` (`None`: a new one), when that part of it is written.
///
/// # Errors
/// 422 with everything that is wrong.
pub(super) fn validate(
    kind: &ServedKind,
    before: Option<(&Value, Subresource)>,
    object: &Value,
) -> Result<(), ApiError> {
    let old = before.map(|(old, _)| old);
    object_size::check(old, object)?;
    nesting(old, object)?;
    let group_resource = kind.group_resource();
    let mut causes = metadata::metadata(kind, object);
    causes.extend(references::causes(&group_resource, object));
    match &kind.source {
        Source::BuiltIn if group_resource == resource::SERVICES => services::service(object, &mut causes),
        Source::BuiltIn if group_resource == resource::CUSTOM_RESOURCE_DEFINITIONS => {
            causes.extend(definitions::definition(old, object));
        }
        Source::BuiltIn if group_resource == resource::ENDPOINTS => endpoints::endpoints(object, &mut causes),
        Source::BuiltIn if group_resource == resource::ENDPOINT_SLICES => {
            endpoints::slice(old, object, &mut causes);
        }
        Source::BuiltIn => causes.extend(objects::object(&group_resource, object)),
        Source::Custom(custom) => causes.extend(custom.validate(old, object)),
    }
    match before {
        Some((old, Subresource::Resize)) => causes.extend(pod_parts::resize_causes(old, object)),
        Some((old, Subresource::EphemeralContainers)) => {
            causes.extend(pod_parts::ephemeral_causes(old, object));
        }
        Some((old, Subresource::Main | Subresource::Status | Subresource::Finalize)) => {
            causes.extend(updates::change(&group_resource, old, object));
        }
        None => {}
    }
    // An object that is on its way out may be as wrong as it was, but nothing new may hold it up.
    let leaving = old.filter(|old| !text(old, "/metadata/deletionTimestamp").is_empty());
    if leaving.is_some_and(|old| spec_of(old) == spec_of(object)) {
        causes.clear();
    }
    causes.extend(leaving.and_then(|old| updates::new_finalizers(old, object)));
    if causes.is_empty() { Ok(()) } else { Err(ApiError::invalid(kind, name(object), &causes)) }
}

/// What is stored can be read again by whoever lists or watches it. One that was deeper may stay as deep, so that it can be
/// changed, and let go of.
fn nesting(old: Option<&Value>, object: &Value) -> Result<(), ApiError> {
    let deepest = depth(object, SERDE_DEPTH);
    if deepest <= DEPTH_MAX || old.is_some_and(|old| deepest <= depth(old, SERDE_DEPTH)) {
        return Ok(());
    }
    let what = format!(
        "the object is nested deeper than {DEPTH_MAX} levels: lists and watches put it into something else, and many clients \
         read no more than 100 levels"
    );
    Err(ApiError::unprocessable(&what))
}

/// An object without its metadata and its status.
pub(super) fn spec_of(object: &Value) -> Value {
    let mut object = object.clone();
    remove(&mut object, "metadata");
    remove(&mut object, "status");
    object
}
