//! What stands in a node's Lease, and the patches that change it. Pure.

use contract::NodeName;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use serde_json::{Value, json};

/// On a node's Lease: the CloudCore that has the node. `spec.holderIdentity` is the node's own name, as Kubernetes has it.
pub const CLOUDCORE_ANNOTATION: &str = "kubehive.io/cloudcore";
/// On a node's Lease: where other CloudCores reach that CloudCore, as `IP:PORT`. A claim writes both. One of an earlier release leaves
/// the address of whoever had the node before: whoever dials it finds that it is not the CloudCore that he wants.
pub const ADDRESS_ANNOTATION: &str = "kubehive.io/cloudcore-address";
/// 40 s: how long a Lease counts (kubelet's default).
const LEASE_SECONDS: i32 = 40;
/// `spec.leaseTransitions`, which holds the session's number, has 32 bits.
const SESSION_MAX: u64 = i32::MAX as u64;

/// Who has a node, as its Lease says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseHolder {
    /// The CloudCore; `None` before one has taken the node.
    pub cloudcore: Option<String>,
    /// Where others reach that CloudCore, if it says so.
    pub address: Option<String>,
    /// The session since which it has the node: the Lease's `leaseTransitions`.
    pub session: u64,
    /// The Lease as it was read or written.
    pub lease: LeaseVersion,
}

/// A Lease as it was read or written last.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LeaseVersion {
    /// Its resourceVersion.
    pub resource_version: String,
    /// When it was renewed last, as it stands there.
    pub renewed: Option<jiff::Timestamp>,
    /// Whether it has an owner.
    pub owner: LeaseOwner,
}

/// Whether a Lease has an owner. A kubelet makes its Node the owner, when it renews a Lease that has none
/// (`SetNodeOwnerFunc` of component-helpers): so the Lease goes with the Node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LeaseOwner {
    /// It has none.
    #[default]
    Missing,
    /// It has one, whoever that is.
    Named,
    /// It has none, and the API server has refused the one that CloudCore gave it: that is not tried again in this session.
    Refused,
}

/// What a Lease says.
pub fn holder_of(lease: &Lease) -> LeaseHolder {
    let annotation = |key: &str| lease.metadata.annotations.as_ref()?.get(key).cloned();
    let transitions = lease.spec.as_ref().and_then(|spec| spec.lease_transitions).unwrap_or_default();
    LeaseHolder {
        cloudcore: annotation(CLOUDCORE_ANNOTATION),
        address: annotation(ADDRESS_ANNOTATION),
        session: u64::try_from(transitions).unwrap_or_default(),
        lease: LeaseVersion {
            resource_version: lease.metadata.resource_version.clone().unwrap_or_default(),
            renewed: lease.spec.as_ref().and_then(|spec| spec.renew_time.as_ref()).map(|time| time.0),
            owner: match lease.metadata.owner_references.as_deref() {
                None | Some([]) => LeaseOwner::Missing,
                Some(_) => LeaseOwner::Named,
            },
        },
    }
}

/// The number of a new session, given the highest that is known; `None` where the field ends. It never begins anew: whoever
/// compares two sessions (the hub, this module, the controllers) takes the greater one for the later one.
pub fn next_session(highest: u64) -> Option<u64> {
    (highest < SESSION_MAX).then(|| highest + 1)
}

/// A CloudCore as a Lease names it: who it is, and where others reach it, if they do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedCloudCore {
    /// Its identity.
    pub cloudcore: String,
    /// `IP:PORT`.
    pub address: Option<String>,
}

/// The patch that takes a node over. It does not renew: that is Edged's word.
pub fn claim_patch(node: &NodeName, holder: &NamedCloudCore, session: u64, resource_version: &str) -> Value {
    json!({
        "metadata": {
            "resourceVersion": resource_version,
            // Without an address that of the one before goes.
            "annotations": { CLOUDCORE_ANNOTATION: holder.cloudcore, ADDRESS_ANNOTATION: holder.address },
        },
        "spec": {
            "holderIdentity": node.as_str(),
            "leaseDurationSeconds": LEASE_SECONDS,
            "leaseTransitions": session,
        },
    })
}

/// The time of a renewal at `now`, given that of the one before. It always grows: Kubernetes' node lifecycle controller takes
/// a Lease whose time has not grown for one that was not renewed, so a clock that is set back would make the node NotReady
/// for as long as it was set back by.
pub fn renewal_time(before: Option<jiff::Timestamp>, now: jiff::Timestamp) -> jiff::Timestamp {
    // The API keeps microseconds.
    let after = before.and_then(|before| before.checked_add(jiff::SignedDuration::from_micros(1)).ok());
    after.map_or(now, |after| after.max(now))
}

/// The patch that renews a Lease, given the resourceVersion at which it was ours, and that makes the Node with the uid `owner` its
/// owner.
pub fn renewal_patch(
    node: &NodeName,
    now: jiff::Timestamp,
    resource_version: &str,
    owner: Option<&str>,
) -> Value {
    let mut patch = json!({
        "metadata": { "resourceVersion": resource_version },
        "spec": {
            "holderIdentity": node.as_str(),
            "leaseDurationSeconds": LEASE_SECONDS,
            "renewTime": MicroTime(now),
        },
    });
    own(&mut patch, node, owner);
    patch
}

fn own(lease: &mut Value, node: &NodeName, owner: Option<&str>) {
    if let Some(uid) = owner {
        lease["metadata"]["ownerReferences"] =
            json!([{ "apiVersion": "v1", "kind": "Node", "name": node.as_str(), "uid": uid }]);
    }
}

/// A Lease where there is none. It always has a time of renewal: Kubernetes' node lifecycle controller compares each one that it
/// sees with the one before, and a Lease that it has seen without is never younger than anything, for as long as it runs. Before
/// the first renewal that time is 1970, which is no sign of life.
pub fn new_lease(
    node: &NodeName,
    holder: &NamedCloudCore,
    session: u64,
    renewed: Option<jiff::Timestamp>,
    owner: Option<&str>,
) -> Value {
    let mut lease = claim_patch(node, holder, session, "");
    lease["apiVersion"] = json!("coordination.k8s.io/v1");
    lease["kind"] = json!("Lease");
    lease["metadata"] = json!({
        "name": node.as_str(),
        "annotations": { CLOUDCORE_ANNOTATION: holder.cloudcore },
    });
    if let Some(address) = &holder.address {
        lease["metadata"]["annotations"][ADDRESS_ANNOTATION] = json!(address);
    }
    lease["spec"]["renewTime"] = json!(MicroTime(renewed.unwrap_or(jiff::Timestamp::UNIX_EPOCH)));
    own(&mut lease, node, owner);
    lease
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(address: Option<&str>) -> NamedCloudCore {
        NamedCloudCore { cloudcore: "cloudcore-a".into(), address: address.map(str::to_owned) }
    }

    #[test]
    fn a_claim_says_where_its_cloudcore_is_or_takes_the_address_of_the_one_before_away() {
        let node = NodeName::parse("edge-1").unwrap();
        let patch = claim_patch(&node, &named(Some("192.0.2.1:9444")), 3, "9");
        assert_eq!(patch["metadata"]["annotations"][ADDRESS_ANNOTATION], "192.0.2.1:9444");
        let patch = claim_patch(&node, &named(None), 3, "9");
        let annotations = patch["metadata"]["annotations"].as_object().unwrap();
        assert_eq!(annotations.get(ADDRESS_ANNOTATION), Some(&Value::Null), "a merge patch removes it");
        let made = new_lease(&node, &named(Some("192.0.2.1:9444")), 3, None, None);
        let made: Lease = serde_json::from_value(made).unwrap();
        assert_eq!(holder_of(&made).address.as_deref(), Some("192.0.2.1:9444"));
    }

    #[test]
    fn a_lease_names_its_cloudcore_and_a_kubelets_names_none() {
        let node = NodeName::parse("edge-1").unwrap();
        let mut lease = new_lease(&node, &named(None), 3, None, None);
        lease["metadata"]["resourceVersion"] = json!("9");
        let held: Lease = serde_json::from_value(lease).unwrap();
        let lease = LeaseVersion {
            resource_version: "9".into(),
            renewed: Some(jiff::Timestamp::UNIX_EPOCH),
            owner: LeaseOwner::Missing,
        };
        let expected =
            LeaseHolder { cloudcore: Some("cloudcore-a".into()), address: None, session: 3, lease };
        assert_eq!(holder_of(&held), expected);
        let renewed = held.spec.unwrap().renew_time.unwrap().0;
        assert_eq!(
            renewed,
            jiff::Timestamp::UNIX_EPOCH,
            "a claim is no sign of life, and a Lease has a time"
        );
        let nobody =
            LeaseHolder { cloudcore: None, address: None, session: 0, lease: LeaseVersion::default() };
        assert_eq!(holder_of(&Lease::default()), nobody);
    }

    #[test]
    fn the_owner_of_a_lease_is_the_node_as_a_kubelet_has_it() {
        let node = NodeName::parse("edge-1").unwrap();
        let owners = json!([{ "apiVersion": "v1", "kind": "Node", "name": "edge-1", "uid": "u" }]);
        let patch = renewal_patch(&node, jiff::Timestamp::UNIX_EPOCH, "9", Some("u"));
        assert_eq!(patch["metadata"], json!({ "resourceVersion": "9", "ownerReferences": owners }));
        let patch = renewal_patch(&node, jiff::Timestamp::UNIX_EPOCH, "9", None);
        assert_eq!(patch["metadata"], json!({ "resourceVersion": "9" }), "those that it has stay");
        let made = new_lease(&node, &named(None), 3, None, Some("u"));
        assert_eq!(made["metadata"]["ownerReferences"], owners);
        let held: Lease = serde_json::from_value(made).unwrap();
        assert_eq!(holder_of(&held).lease.owner, LeaseOwner::Named);
    }

    #[test]
    fn the_time_of_a_renewal_grows_whatever_the_clock_does() {
        let at = |seconds| jiff::Timestamp::from_second(seconds).unwrap();
        assert_eq!(renewal_time(None, at(100)), at(100));
        assert_eq!(renewal_time(Some(at(100)), at(110)), at(110));
        let mut last = at(4000);
        for now in [at(400), at(410), at(0), at(4000)] {
            let next = renewal_time(Some(last), now);
            assert!(next > last && next < at(4001), "{next}");
            last = next;
        }
        let most = jiff::Timestamp::MAX;
        assert_eq!(renewal_time(Some(most), at(1)), at(1), "what can't grow begins anew");
    }

    #[test]
    fn session_numbers_grow_to_the_end_of_the_field_and_never_begin_anew() {
        assert_eq!((next_session(0), next_session(41)), (Some(1), Some(42)));
        assert_eq!(next_session(SESSION_MAX - 1), Some(SESSION_MAX));
        assert_eq!((next_session(SESSION_MAX), next_session(u64::MAX)), (None, None));
    }
}
