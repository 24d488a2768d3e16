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

const CREATE: &[&str] = &["create"];
/// Of what is answered by the nodes' kubelet endpoints.
const CONNECT: &[&str] = &["create", "get"];
const PROXY: &[&str] = &["create", "delete", "get", "patch", "update"];

/// What discovery lists beside the stored kinds.
pub(crate) const RESOURCES: &[ExtraResource] = &[
    of_core("pods/attach", true, "PodAttachOptions", CONNECT),
    of_core("pods/binding", true, "Binding", CREATE),
    ExtraResource {
        group: "",
        name: "pods/eviction",
        namespaced: true,
        kind: "Eviction",
        verbs: CREATE,
        kind_is_of: Some(("policy", "v1")),
    },
    of_core("pods/exec", true, "PodExecOptions", CONNECT),
    of_core("pods/log", true, "Pod", &["get"]),
    of_core("pods/portforward", true, "PodPortForwardOptions", CONNECT),
    of_core("nodes/proxy", false, "NodeProxyOptions", PROXY),
    ExtraResource {
        group: "",
        name: "serviceaccounts/token",
        namespaced: true,
        kind: "TokenRequest",
        verbs: CREATE,
        kind_is_of: Some(("authentication.k8s.io", "v1")),
    },
    review("authentication.k8s.io", "selfsubjectreviews", "SelfSubjectReview"),
    review("authentication.k8s.io", "tokenreviews", "TokenReview"),
    review("authorization.k8s.io", "selfsubjectaccessreviews", "SelfSubjectAccessReview"),
    review("authorization.k8s.io", "selfsubjectrulesreviews", "SelfSubjectRulesReview"),
    review("authorization.k8s.io", "subjectaccessreviews", "SubjectAccessReview"),
];

const fn review(group: &'static str, name: &'static str, kind: &'static str) -> ExtraResource {
    ExtraResource { group, name, namespaced: false, kind, verbs: CREATE, kind_is_of: None }
}

const fn of_core(
    name: &'static str,
    namespaced: bool,
    kind: &'static str,
    verbs: &'static [&'static str],
) -> ExtraResource {
    ExtraResource { group: "", name, namespaced, kind, verbs, kind_is_of: None }
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
