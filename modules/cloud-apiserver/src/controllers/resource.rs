//! A kind as the client names it.

use apimachinery::Kind;
use kube::api::ApiResource;

/// The resource of a kind.
pub(crate) fn api_resource(kind: &Kind) -> ApiResource {
    ApiResource {
        group: kind.group.to_string(),
        version: kind.version.to_string(),
        api_version: kind.api_version(),
        kind: kind.kind.to_string(),
        plural: kind.plural.to_string(),
    }
}
