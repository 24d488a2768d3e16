//! Resources and subresources that are more than reading and writing an object: binding, eviction, token requests, and
//! reviews.

mod binding;
pub(crate) mod review;
#[cfg(test)]
mod tests;
mod token;

use apimachinery::resource;
use kubeapi::{Answer, Api, ApiError, ApiRequest, ExtraResource, Store};

use crate::access::AccessControl;

/// What discovery lists beside the stored kinds.
pub(crate) const RESOURCES: &[ExtraResource] = &[
    ExtraResource { group: "", name: "pods/binding", namespaced: true, kind: "Binding", kind_is_of: None },
    ExtraResource {
        group: "",
        name: "pods/eviction",
        namespaced: true,
        kind: "Eviction",
        kind_is_of: Some(("policy", "v1")),
    },
    ExtraResource {
        group: "",
        name: "serviceaccounts/token",
        namespaced: true,
        kind: "TokenRequest",
        kind_is_of: Some(("authentication.k8s.io", "v1")),
    },
    review("authentication.k8s.io", "tokenreviews", "TokenReview"),
    review("authorization.k8s.io", "selfsubjectaccessreviews", "SelfSubjectAccessReview"),
    review("authorization.k8s.io", "subjectaccessreviews", "SubjectAccessReview"),
];

const fn review(group: &'static str, name: &'static str, kind: &'static str) -> ExtraResource {
    ExtraResource { group, name, namespaced: false, kind, kind_is_of: None }
}

pub(crate) async fn subresource<S: Store>(
    api: &Api<S>,
    access: &dyn AccessControl,
    request: &ApiRequest<'_>,
) -> Result<Answer, ApiError> {
    let group_resource = request.kind().group_resource();
    let attributes = &request.attributes;
    match (group_resource.as_str(), attributes.subresource.as_str(), attributes.verb.as_str()) {
        (resource::PODS, "binding", "create") => binding::create(api, request).await,
        (resource::PODS, "eviction", "create") => {
            api.delete_with(request, &request.object()?["deleteOptions"]).await?;
            Ok(Answer::success())
        }
        (resource::SERVICE_ACCOUNTS, "token", "create") => token::create(api, access, request).await,
        _ => Err(ApiError::no_such_path()),
    }
}
