//! Why something could not be written now. Whatever can never be written is no error: it is dropped with a word.

use kubewatch::status_code;
use thiserror::Error;

/// See the module.
#[derive(Debug, Error)]
pub(crate) enum NodeReportError {
    /// The API server refused or could not be reached.
    #[error("API server did not take it")]
    Api(#[from] kube::Error),
    /// Others wrote all the time.
    #[error("the object is written by others all the time")]
    Contended,
    /// NodeLease could not say whose the Node is, or who has the node.
    #[error("NodeLease could not say now: {0}")]
    Lease(String),
}

/// Nothing more is made in a namespace that goes (Kubernetes: the cause `NamespaceTerminating` of a 403).
fn is_of_ending_namespace(error: &kube::Error) -> bool {
    let kube::Error::Api(status) = error else { return false };
    let causes = status.details.iter().flat_map(|details| &details.causes);
    status.code == 403
        && (causes.into_iter().any(|cause| cause.reason == "NamespaceTerminating")
            || status.message.contains("because it is being terminated"))
}

/// The policies by which an API server lets CloudCore write of its own nodes alone (the chart's `policy.yaml`).
const OF_RIGHTS: [&str; 2] = ["'kubehive-cloudcore-other-nodes'", "'kubehive-cloudcore-node-owners'"];

/// The right to the node is not there, or not yet: NodeLease binds it again, and ends the session where it may not.
fn is_for_want_of_right(error: &kube::Error) -> bool {
    let kube::Error::Api(status) = error else { return false };
    status.code == 422 && OF_RIGHTS.iter().any(|policy| status.message.contains(policy))
}

/// 404 and 409: the object is gone or is another one; 400 and 422: it can never be written. A status that lost against
/// another write does not come here: it is read and compared again.
pub(crate) fn is_final(error: &kube::Error) -> bool {
    let is_final = matches!(status_code(error), Some(400 | 404 | 409 | 410 | 413 | 422));
    (is_final && !is_for_want_of_right(error)) || is_of_ending_namespace(error)
}

/// Of a status: as [`is_final`], but for what a policy of the cluster's own refuses. Policies come and go, and a kubelet asks again, too. An
/// event is not asked for again: those behind it wait for it.
pub(crate) fn is_final_of_status(error: &kube::Error) -> bool {
    is_final(error) && !is_by_policy_of_others(error)
}

fn is_by_policy_of_others(error: &kube::Error) -> bool {
    let kube::Error::Api(status) = error else { return false };
    let policy = status.message.split("ValidatingAdmissionPolicy '").nth(1);
    policy.is_some_and(|policy| !policy.starts_with("kubehive-cloudcore-"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::Status;

    #[test]
    fn what_waits_for_the_right_to_a_node_is_not_given_up() {
        let refused = |code, message: &str| {
            kube::Error::Api(Status::failure(message, "Invalid").with_code(code).boxed())
        };
        let by = |policy: &str| {
            refused(
                422,
                &format!(
                    "pods \"web\" is forbidden: ValidatingAdmissionPolicy '{policy}' with binding '{policy}' denied request: m"
                ),
            )
        };
        assert!(
            !is_final(&by("kubehive-cloudcore-other-nodes"))
                && !is_final(&by("kubehive-cloudcore-node-owners"))
        );
        assert!(
            is_final(&by("kubehive-cloudcore-metadata"))
                && is_final(&refused(422, "status.phase: Unsupported value"))
        );
        let foreign = by("quiet-hours");
        assert!(is_final(&foreign) && !is_final_of_status(&foreign), "it may be gone by the next time");
        assert!(is_final_of_status(&by("kubehive-cloudcore-metadata")));
        assert!(is_final(&refused(404, "not found")) && !is_final(&refused(503, "away")));
    }
}
