//! An object as its kind: which fields there are, and what is unknown.

use apimachinery::resource;
use k8s_openapi::api::{
    apps::v1 as apps, coordination::v1 as coordination, core::v1 as core, discovery::v1 as discovery,
    node::v1 as node, rbac::v1 as rbac, storage::v1 as storage,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};

use super::{prune, quantities};
use crate::error::ApiError;
use crate::kind::{ServedKind, Source};
use crate::request::ApiRequest;
use crate::unstructured::{as_fields, drop_nulls, entry, remove, text};

/// The object as the type of its kind understands it.
///
/// # Errors
/// A sentence, when a field is of another type.
type DecodeFn = fn(&Value) -> Result<Value, String>;

/// How a built-in kind is understood.
pub(super) fn built_in(group_resource: &str) -> Option<DecodeFn> {
    Some(match group_resource {
        resource::NAMESPACES => prune::decode_as::<core::Namespace>,
        resource::NODES => prune::decode_as::<core::Node>,
        resource::PODS => prune::decode_as::<core::Pod>,
        resource::PERSISTENT_VOLUME_CLAIMS => prune::decode_as::<core::PersistentVolumeClaim>,
        resource::PERSISTENT_VOLUMES => prune::decode_as::<core::PersistentVolume>,
        resource::CSI_DRIVERS => prune::decode_as::<storage::CSIDriver>,
        resource::RUNTIME_CLASSES => prune::decode_as::<node::RuntimeClass>,
        resource::CSI_NODES => prune::decode_as::<storage::CSINode>,
        resource::VOLUME_ATTACHMENTS => prune::decode_as::<storage::VolumeAttachment>,
        resource::CONFIG_MAPS => prune::decode_as::<core::ConfigMap>,
        resource::SECRETS => prune::decode_as::<core::Secret>,
        resource::SERVICE_ACCOUNTS => prune::decode_as::<core::ServiceAccount>,
        resource::SERVICES => prune::decode_as::<core::Service>,
        resource::ENDPOINTS => prune::decode_as::<core::Endpoints>,
        resource::EVENTS => prune::decode_as::<core::Event>,
        resource::DEPLOYMENTS => prune::decode_as::<apps::Deployment>,
        resource::REPLICA_SETS => prune::decode_as::<apps::ReplicaSet>,
        resource::LEASES => prune::decode_as::<coordination::Lease>,
        resource::ENDPOINT_SLICES => prune::decode_as::<discovery::EndpointSlice>,
        resource::CLUSTER_ROLES => prune::decode_as::<rbac::ClusterRole>,
        resource::CLUSTER_ROLE_BINDINGS => prune::decode_as::<rbac::ClusterRoleBinding>,
        resource::ROLES => prune::decode_as::<rbac::Role>,
        resource::ROLE_BINDINGS => prune::decode_as::<rbac::RoleBinding>,
        resource::CUSTOM_RESOURCE_DEFINITIONS => prune::decode_as::<CustomResourceDefinition>,
        _ => return None,
    })
}

/// An object without unknown fields, and what its client should hear about it.
pub(super) struct Decoded {
    pub(super) object: Value,
    pub(super) warnings: Vec<String>,
}

impl ApiRequest<'_> {
    /// Reads an object as the request's kind, and deals with fields that the kind does not have, or that stand there twice, as
    /// `fieldValidation` says.
    pub(super) fn decode_typed(&self, object: Value) -> Result<Decoded, ApiError> {
        self.decode_in_place_of(None, object)
    }

    /// The same for what a patch makes of a `stored` object: what is wrong there already may stay.
    pub(super) fn decode_in_place_of(
        &self,
        stored: Option<&Value>,
        mut object: Value,
    ) -> Result<Decoded, ApiError> {
        let kind = &self.kind;
        self.check_type_meta(&object)?;
        as_fields(&mut object).insert("apiVersion".to_owned(), json!(kind.api_version()));
        as_fields(&mut object).insert("kind".to_owned(), json!(kind.kind));
        let metadata = entry(&mut object, "metadata");
        drop_nulls(metadata);
        remove(metadata, "managedFields");
        let cannot = |what: String| cannot_be_handled(kind, &what);
        let unknown = unknown_fields(kind, &mut object).map_err(cannot)?;
        if matches!(kind.source, Source::BuiltIn) {
            quantities::check(kind, &object, stored).map_err(cannot)?;
        }
        let directive = self.query.get("fieldValidation").unwrap_or("Warn");
        let repeated = if directive == "Ignore" { Vec::new() } else { self.repeated_fields() };
        let repeated = repeated.iter().map(|path| format!("duplicate field \"{path}\""));
        let unknown = unknown.iter().map(|path| format!("unknown field \"{path}\""));
        let warnings: Vec<String> = repeated.chain(unknown).collect();
        match directive {
            "Strict" if !warnings.is_empty() => {
                Err(cannot(format!("strict decoding error: {}", warnings.join(", "))))
            }
            "Ignore" => Ok(Decoded { object, warnings: Vec::new() }),
            "Strict" | "Warn" | "" => Ok(Decoded { object, warnings }),
            other => {
                Err(ApiError::bad_request(format!("invalid fieldValidation `{}`", other.escape_debug())))
            }
        }
    }

    fn check_type_meta(&self, object: &Value) -> Result<(), ApiError> {
        let kind = &self.kind;
        let (api_version, kind_name) = (text(object, "/apiVersion"), text(object, "/kind"));
        let other_version = !api_version.is_empty() && api_version != kind.api_version();
        if !other_version && (kind_name.is_empty() || kind_name == kind.kind) {
            return Ok(());
        }
        Err(ApiError::bad_request(format!(
            "the API version in the data ({}) does not match the expected API version ({})",
            format_args!("{}, Kind={}", api_version.escape_debug(), kind_name.escape_debug()),
            format_args!("{}, Kind={}", kind.api_version(), kind.kind),
        )))
    }
}

fn cannot_be_handled(kind: &ServedKind, what: &str) -> ApiError {
    let (version, kind) = (&kind.version, &kind.kind);
    ApiError::bad_request(format!("{kind} in version \"{version}\" cannot be handled as a {kind}: {what}"))
}

/// Takes the unknown fields of `object` away and answers their paths.
fn unknown_fields(kind: &ServedKind, object: &mut Value) -> Result<Vec<String>, String> {
    match &kind.source {
        Source::BuiltIn => {
            drop_nulls(object);
            let group_resource = kind.group_resource();
            let decode_as =
                built_in(&group_resource).ok_or_else(|| format!("{group_resource} has no type here"))?;
            let understood = decode_as(object)?;
            Ok(prune::prune(object, &understood))
        }
        Source::Custom(custom) => {
            let mut unknown = custom.prune(object);
            // Metadata is typed for custom kinds, too.
            let understood = prune::decode_as::<ObjectMeta>(&object["metadata"])?;
            let inner = prune::prune(entry(object, "metadata"), &understood);
            unknown.extend(inner.into_iter().map(|path| format!("metadata.{path}")));
            Ok(unknown)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_kind_has_a_type() {
        for kind in crate::kind::built_in() {
            assert!(built_in(&kind.group_resource()).is_some(), "{kind:?}");
        }
    }
}
