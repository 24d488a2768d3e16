//! Devices by claim (dynamic resource allocation). Pure.
//!
//! No driver of them can register on this node. So a pod that has a claim waits for its driver as with a kubelet where that is missing:
//! it stays Pending without a sandbox, says why, and is looked at again.

use k8s_openapi::api::core::v1::PodResourceClaim;

use crate::pod::parsed_pod::{ParsedPod, all_of};

/// Why what a pod claims cannot be prepared, in the words of a kubelet's that has no such driver; `None`: it claims nothing.
pub(crate) fn hindrance(pod: &ParsedPod) -> Option<String> {
    let claims = pod.spec().resource_claims.as_deref().unwrap_or_default();
    let of_pod = claims.iter().find_map(|claim| of_claim(pod, claim));
    let is_known = |name: &str| claims.iter().any(|claim| claim.name == name);
    let of_containers = || {
        let all = all_of(pod.spec()).filter_map(|container| container.resources.as_ref()?.claims.as_ref());
        all.flatten().map(|claim| claim.name.as_str()).find(|name| !is_known(name)).map(without_driver)
    };
    let of_extended = || pod.newer.extended_resource_claim.as_deref().map(without_driver);
    of_pod.or_else(of_containers).or_else(of_extended)
}

/// `None`: whoever makes claims of templates has found that none is needed.
fn of_claim(pod: &ParsedPod, claim: &PodResourceClaim) -> Option<String> {
    if let Some(name) = &claim.resource_claim_name {
        return Some(without_driver(name));
    }
    let status = pod.cloud_status();
    let mut made = status.iter().flat_map(|status| status.resource_claim_statuses.iter().flatten());
    match made.find(|made| made.name == claim.name) {
        Some(made) => made.resource_claim_name.as_deref().map(without_driver),
        None => {
            let id = &pod.id;
            Some(format!("pod \"{}/{}\": ResourceClaim not created yet", id.namespace, id.name))
        }
    }
}

/// A kubelet names the driver, which it reads in the claim; claims do not travel to edge nodes.
fn without_driver(claim: &str) -> String {
    format!("DRA driver of ResourceClaim {claim} is not registered")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::pod::parsed_pod::tests::pod;

    fn why(spec: Value, status: Value) -> Option<String> {
        let mut own = pod(spec);
        own.newer.extended_resource_claim =
            status["extendedResourceClaimStatus"]["resourceClaimName"].as_str().map(str::to_owned);
        own.pod.status = serde_json::from_value(status).unwrap();
        hindrance(&own)
    }

    #[test]
    fn a_pod_that_claims_devices_says_which_claim_has_no_driver() {
        let none = "DRA driver of ResourceClaim gpu-7 is not registered";
        let named = json!({"resourceClaims": [{"name": "gpu", "resourceClaimName": "gpu-7"}]});
        assert_eq!(why(named, Value::Null).as_deref(), Some(none));
        let made = || json!({"resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": "t"}]});
        let not_yet = why(made(), Value::Null).unwrap();
        assert_eq!(not_yet, "pod \"default/p\": ResourceClaim not created yet");
        let is_made = json!({"resourceClaimStatuses": [{"name": "gpu", "resourceClaimName": "gpu-7"}]});
        assert_eq!(why(made(), is_made).as_deref(), Some(none));
        let needs_none = json!({"resourceClaimStatuses": [{"name": "gpu"}]});
        assert_eq!(why(made(), needs_none), None, "the claim's own controller has found so");
        let extended = json!({"extendedResourceClaimStatus": {"resourceClaimName": "gpu-7"}});
        assert_eq!(why(json!({}), extended).as_deref(), Some(none));
        assert_eq!(why(json!({}), Value::Null), None);
    }

    #[test]
    fn a_container_never_runs_without_what_it_claims_of_nobody() {
        let spec = json!({"containers": [
            {"name": "c", "image": "x", "resources": {"claims": [{"name": "gpu-7"}]}}]});
        let why = why(spec, Value::Null).unwrap();
        assert_eq!(why, "DRA driver of ResourceClaim gpu-7 is not registered");
    }
}
