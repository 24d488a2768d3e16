//! Decides who is a node of ours: who may join, whose session is admitted, whose a Node is. Pure.

use contract::NodeName;
use contract::ids::EDGE_LABEL;
use crd::{
    CERTIFICATE_ANNOTATION, EdgeNode, EdgeNodeSpec, JoinToken, NEXT_CERTIFICATE_ANNOTATION, NOT_REVOKED,
    NodeOwner, REVOKED_LABEL,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use pki::TokenError;
use serde_json::Value;
use thiserror::Error;

use crate::{ADOPTED_ANNOTATION, ENROLMENT_ANNOTATION};

/// Names of no node: a certificate of one could be taken for CloudCore's own, which asks the cluster's signer of kubelets for one of
/// `system:node:kubehive-cloudcore`.
const RESERVED_NAMES: [&str; 2] = ["cloudcore", "kubehive-cloudcore"];

/// A certificate that was signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// Its serial, lower-case hex.
    pub serial: String,
    /// When it ends, in seconds since 1970.
    pub not_after_unix: u64,
}

/// What the register holds of a name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Entry {
    /// An administrator barred the name.
    pub is_barred: bool,
    /// The object was deleted, and finalizers hold it: it counts for nothing, and the name is nobody's until it has gone.
    pub is_ending: bool,
    /// The serial of the living certificate.
    pub living: Option<String>,
    /// The newest certificate that was used, living or not.
    pub newest: Option<Certificate>,
    /// Those that may take the living one's place, as they were signed: any of them may be on the node's disk, and is as good as the living
    /// one until the node shows which it uses.
    pub next: Vec<Certificate>,
    /// The serial of the certificate that the node joined with, if that was renewed since.
    pub enrolment: Option<String>,
    /// The uid of the Node that is this node's.
    pub node_uid: Option<String>,
    /// The name has or had a Node. Only deleting the object forgets it.
    pub had_node: bool,
}

impl Entry {
    /// Reads an object of the register.
    pub fn of(object: &EdgeNode) -> Self {
        let spec = &object.spec;
        // One that cannot be read does not end: it is freed by hand.
        let ends = |text: Option<&str>| text.map_or(u64::MAX, |text| unix(text).unwrap_or(u64::MAX));
        let of = |serial, not_after: &Option<String>| Certificate {
            serial,
            not_after_unix: ends(not_after.as_deref()),
        };
        let newest = spec.serial.clone().map(|serial| of(serial, &spec.not_after));
        let ends_of = next_ends(spec);
        let next = next(&object.metadata).into_iter().enumerate();
        let next = next.map(|(at, serial)| of(serial, &ends_of.get(at).cloned())).collect();
        Entry {
            is_barred: is_barred(&object.metadata),
            is_ending: is_ending(&object.metadata),
            living: living(&object.metadata),
            newest,
            next,
            enrolment: spec.enrolment_serial.clone(),
            node_uid: spec.node_uid.clone(),
            had_node: had_node(spec),
        }
    }

    /// Whether a certificate of this name is good at `now_unix`.
    fn lives(&self, now_unix: u64) -> bool {
        let ends = self.newest.as_ref().filter(|newest| self.living.as_ref() == Some(&newest.serial));
        let living = self.living.is_some() && ends.is_none_or(|newest| newest.not_after_unix > now_unix);
        living || self.next.iter().any(|next| next.not_after_unix > now_unix)
    }

    /// Whether this serial is of a certificate that may take the living one's place.
    pub fn is_next(&self, serial: &str) -> bool {
        self.next.iter().any(|next| next.serial == serial)
    }

    /// Whether a certificate of this serial is good: the living one, or one that may take its place.
    pub(crate) fn is_good(&self, serial: &str) -> bool {
        self.living.as_deref() == Some(serial) || self.is_next(serial)
    }
}

/// Whether an object was deleted and only finalizers hold it: whoever deleted it means that it is no more.
pub fn is_ending(metadata: &ObjectMeta) -> bool {
    metadata.deletion_timestamp.is_some()
}

/// Whether a Node is one of ours by what stands on it: CloudCore made it for a certificate, or an administrator adopted it
/// by its uid; and nobody has deleted it. Whose of ours it is, [`ownership`] says.
pub fn is_ours(metadata: &ObjectMeta) -> bool {
    if is_ending(metadata) {
        return false;
    }
    let annotation = |key: &str| metadata.annotations.as_ref()?.get(key).filter(|value| !value.is_empty());
    let adopted = annotation(ADOPTED_ANNOTATION);
    annotation(ENROLMENT_ANNOTATION).is_some() || (adopted.is_some() && adopted == metadata.uid.as_ref())
}

/// Whether a Node is the one of an edge node: it has the label, is one of ours, and was not deleted: one that finalizers hold counts as
/// gone.
pub fn is_edge(node: &Value) -> bool {
    let metadata = &node["metadata"];
    metadata["labels"].get(EDGE_LABEL).is_some()
        && serde_json::from_value(metadata.clone()).is_ok_and(|metadata| is_ours(&metadata))
}

/// Whether the name has or had a Node, as its object says.
pub(crate) fn had_node(spec: &EdgeNodeSpec) -> bool {
    spec.had_node == Some(true) || spec.node_uid.is_some()
}

/// Whether an EdgeNode of this metadata bars its name: by any value of the label but `false`, as whoever writes `True` or
/// `yes` means it.
pub fn is_barred(metadata: &ObjectMeta) -> bool {
    metadata
        .labels
        .as_ref()
        .and_then(|labels| labels.get(REVOKED_LABEL))
        .is_some_and(|value| value != NOT_REVOKED)
}

/// The serial of the living certificate in an EdgeNode's metadata.
pub fn living(metadata: &ObjectMeta) -> Option<String> {
    let annotations = metadata.annotations.as_ref()?;
    annotations.get(CERTIFICATE_ANNOTATION).filter(|serial| !serial.is_empty()).cloned()
}

/// A Node object, as far as it matters whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeObject {
    /// Its uid.
    pub uid: String,
    /// The uid that an administrator's word names.
    pub adopted: Option<String>,
    /// The serial of the certificate that it was made for.
    pub enrolment: Option<String>,
    /// It was deleted, and finalizers hold it.
    pub is_ending: bool,
}

impl NodeObject {
    /// Reads a Node's metadata; `None` where it has no uid, as no object of a server is.
    pub fn of(metadata: &ObjectMeta) -> Option<Self> {
        let annotation = |key: &str| metadata.annotations.as_ref().and_then(|found| found.get(key)).cloned();
        Some(NodeObject {
            uid: metadata.uid.clone()?,
            adopted: annotation(ADOPTED_ANNOTATION),
            enrolment: annotation(ENROLMENT_ANNOTATION),
            is_ending: is_ending(metadata),
        })
    }

    fn is_adopted(&self) -> bool {
        self.adopted.as_ref() == Some(&self.uid)
    }
}

/// Whose a Node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ownership {
    /// This node's. `note`: how, where the register does not say so yet.
    Ours {
        /// Its uid.
        uid: String,
        /// What is to be noted.
        note: Option<NodeOwner>,
    },
    /// There is none: CloudCore makes it when the node reports itself.
    MayBeMade,
    /// There was one, and it was deleted: it does not come back by itself.
    Deleted,
    /// There is one that was deleted and that finalizers hold: nobody's.
    Ending,
    /// Somebody else's.
    Foreign,
}

/// Whose the Node of a name is, by what the register holds of the name and by the Node that is there now.
///
/// * A Node with the uid that stands in the register is this node's.
/// * A Node whose annotation [`ADOPTED_ANNOTATION`] names its own uid is: an administrator's word. Neither a node nor
///   CloudCore's account can write it (the shipped admission policy).
/// * A Node with the serial of the name's newest certificate, or of the one that it joined with, in [`ENROLMENT_ANNOTATION`], while no
///   uid stands in the register: CloudCore made it and had no time to note so.
/// * No Node, no uid in the register, but a certificate: a fresh join, whose Node may be made.
/// * No Node, but a uid in the register: it was deleted.
/// * A Node that was deleted and is held by finalizers is nobody's.
/// * Anything else is not ours.
pub fn ownership(entry: Option<&Entry>, node: Option<&NodeObject>) -> Ownership {
    let known = entry.and_then(|entry| entry.node_uid.as_ref());
    let newest = entry.and_then(|entry| entry.newest.as_ref());
    let Some(node) = node else {
        return match (known, newest) {
            (Some(_), _) => Ownership::Deleted,
            (None, Some(_)) => Ownership::MayBeMade,
            (None, None) => Ownership::Foreign,
        };
    };
    if node.is_ending {
        return Ownership::Ending;
    }
    let ours = |note| Ownership::Ours { uid: node.uid.clone(), note };
    if known == Some(&node.uid) {
        return ours(None);
    }
    if node.is_adopted() {
        return ours(Some(NodeOwner::Adopted));
    }
    let of_newest = newest.is_some_and(|newest| node.enrolment.as_ref() == Some(&newest.serial));
    let of_join = entry
        .and_then(|entry| entry.enrolment.as_ref())
        .is_some_and(|serial| node.enrolment.as_ref() == Some(serial));
    let made = known.is_none() && (of_newest || of_join);
    if made { ours(Some(NodeOwner::Made)) } else { Ownership::Foreign }
}

/// That a session of a node may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdmittedNode {
    /// The uid of the Node that the session is for; `None`: it is yet to be made.
    pub node_uid: Option<String>,
}

/// Why the answer is no. Each says what to do.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    /// An administrator barred the name.
    #[error("the name `{0}` was revoked by an administrator: free it with `keadm free {0}`, then join again")]
    Barred(NodeName),
    /// The name is in use.
    #[error(
        "the name `{0}` has a living certificate: run `keadm reset` on that node (if it is lost: `keadm free {0}`), or join under another --edgenode-name"
    )]
    NameTaken(NodeName),
    /// The name has a Node, or had one.
    #[error(
        "the name `{0}` has or had a Node in the cluster, or a Lease or a pod there still names it: only a token that is bound to it joins here; print one with `keadm gettoken --edgenode-name={0}`"
    )]
    NeedsBoundToken(NodeName),
    /// The Node of this name is not ours.
    #[error(
        "the cluster's Node `{0}` was not made by this edge node: an administrator may let it have it with `keadm adopt {0}`, or `kubectl delete node {0}`; or join under another --edgenode-name"
    )]
    Foreign(NodeName),
    /// The Node was deleted.
    #[error(
        "the Node `{0}` was deleted from the cluster: it comes back when an administrator says `keadm adopt {0}`, or by `keadm reset` and a new join"
    )]
    Deleted(NodeName),
    /// The Node was deleted, and finalizers hold it.
    #[error(
        "the Node `{0}` is being deleted from the cluster, and its finalizers hold it (`kubectl get node {0} -o yaml` shows them): when it has gone, an administrator says `keadm adopt {0}`"
    )]
    NodeEnding(NodeName),
    /// The name is CloudCore's own.
    #[error("the name `{0}` is kept for CloudCore's own certificates: join under another --edgenode-name")]
    Reserved(NodeName),
    /// The name was freed, and finalizers hold its object.
    #[error(
        "the name `{0}` is being freed, and finalizers hold its EdgeNode (`kubectl get edgenode {0} -o yaml` shows them): when it has gone, join again"
    )]
    NameEnding(NodeName),
    /// The name's object is not understood.
    #[error(
        "the EdgeNode `{0}` in the cluster is not understood: an administrator looks at it with `kubectl get edgenode {0} -o yaml` and mends it, or `keadm free {0}`, then join again"
    )]
    OddName(NodeName),
    /// Nobody joined under the name.
    #[error(
        "the name `{0}` is not in the cluster's register of edge nodes: run `keadm reset --force`, then `keadm join`"
    )]
    NotRegistered(NodeName),
    /// The certificate is not the one that lives.
    #[error(
        "this certificate of `{0}` was given back or replaced: run `keadm reset --force`, then `keadm join`"
    )]
    NotLiving(NodeName),
    /// The certificate to give back is not the living one.
    #[error("the certificate of `{0}` is not the living one of that name: there is nothing to give back")]
    NothingToGiveBack(NodeName),
    /// There is no such token any more.
    #[error("this token was withdrawn, or its cluster has lost it: print a new one with `keadm gettoken`")]
    TokenWithdrawn,
    /// The token's object is not understood.
    #[error(
        "this token's object in the cluster is not understood: print a new one with `keadm gettoken`, and withdraw this one (`keadm token list` shows it)"
    )]
    OddToken,
    /// As many nodes have joined with it as may.
    #[error("this token has been used {0} times, as often as it may: print a new one with `keadm gettoken`")]
    TokenSpent(u32),
    /// What its own text shows too: it has ended, or is bound to another name.
    #[error(transparent)]
    Token(#[from] TokenError),
}

/// Whether a session of `node` with a certificate of this serial is admitted, and for which Node. The second: what is to
/// be noted in the register first.
///
/// # Errors
/// See [`Refusal`].
pub fn admit(
    node: &NodeName,
    serial: &str,
    entry: Option<&Entry>,
    object: Option<&NodeObject>,
) -> Result<(AdmittedNode, Option<NodeOwner>), Refusal> {
    let entry = entry.ok_or_else(|| Refusal::NotRegistered(node.clone()))?;
    if entry.is_barred {
        return Err(Refusal::Barred(node.clone()));
    }
    if entry.is_ending {
        return Err(Refusal::NameEnding(node.clone()));
    }
    if !entry.is_good(serial) {
        return Err(Refusal::NotLiving(node.clone()));
    }
    match ownership(Some(entry), object) {
        Ownership::Ours { uid, note } => Ok((AdmittedNode { node_uid: Some(uid) }, note)),
        Ownership::MayBeMade => Ok((AdmittedNode { node_uid: None }, None)),
        Ownership::Deleted => Err(Refusal::Deleted(node.clone())),
        Ownership::Ending => Err(Refusal::NodeEnding(node.clone())),
        Ownership::Foreign => Err(Refusal::Foreign(node.clone())),
    }
}

/// What a token's signed words say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenClaims {
    /// The token's id: the name of its object.
    pub id: String,
    /// The only name that it is good for.
    pub node: Option<String>,
}

/// Whether a token is good for `node` at `now_unix`, by its words and by its object.
///
/// # Errors
/// See [`Refusal`].
pub fn may_use(
    claims: &TokenClaims,
    token: Option<&JoinToken>,
    node: &NodeName,
    now_unix: u64,
) -> Result<(), Refusal> {
    let token = token.filter(|token| !is_ending(&token.metadata)).ok_or(Refusal::TokenWithdrawn)?;
    let other = [&claims.node, &token.spec.node].into_iter().flatten().find(|bound| *bound != node.as_str());
    if let Some(other) = other {
        return Err(TokenError::OtherName(other.chars().take(64).collect()).into());
    }
    if token.spec.expires.as_deref().and_then(unix).is_none_or(|end| end <= now_unix) {
        return Err(TokenError::Expired.into());
    }
    let (uses, used) = (token.spec.uses.unwrap_or(1), token.spec.used.unwrap_or(0));
    if used >= uses { Err(Refusal::TokenSpent(used)) } else { Ok(()) }
}

/// Whether `node` may have a certificate. Answers the uid of the Node that is already its own, and how it is. With a token
/// that is not bound, nothing else in the cluster may point to the name either (see [`crate::Registry::enrol`]).
///
/// # Errors
/// See [`Refusal`].
pub fn may_enrol(
    node: &NodeName,
    is_bound: bool,
    entry: Option<&Entry>,
    object: Option<&NodeObject>,
    now_unix: u64,
) -> Result<Option<(String, NodeOwner)>, Refusal> {
    if RESERVED_NAMES.contains(&node.as_str()) {
        return Err(Refusal::Reserved(node.clone()));
    }
    if entry.is_some_and(|entry| entry.is_barred) {
        return Err(Refusal::Barred(node.clone()));
    }
    if entry.is_some_and(|entry| entry.is_ending) {
        return Err(Refusal::NameEnding(node.clone()));
    }
    if entry.is_some_and(|entry| entry.lives(now_unix)) {
        return Err(Refusal::NameTaken(node.clone()));
    }
    let had_node = entry.is_some_and(|entry| entry.had_node);
    if !is_bound && (object.is_some() || had_node) {
        return Err(Refusal::NeedsBoundToken(node.clone()));
    }
    let Some(object) = object else { return Ok(None) };
    match ownership(entry, Some(object)) {
        Ownership::Ours { uid, note } => Ok(Some((uid, note.unwrap_or(NodeOwner::Made)))),
        Ownership::Ending => Err(Refusal::NodeEnding(node.clone())),
        Ownership::MayBeMade | Ownership::Deleted | Ownership::Foreign => Err(Refusal::Foreign(node.clone())),
    }
}

/// Writes a new certificate into a name's object.
pub(crate) fn enrolled(
    object: &mut EdgeNode,
    certificate: &Certificate,
    own: Option<(String, NodeOwner)>,
    token: &str,
    now_unix: u64,
) {
    let annotations = object.metadata.annotations.get_or_insert_default();
    annotations.insert(CERTIFICATE_ANNOTATION.to_owned(), certificate.serial.clone());
    annotations.remove(NEXT_CERTIFICATE_ANNOTATION);
    // How a Node that stays came to be ours is not forgotten.
    let before = object
        .spec
        .owner
        .filter(|_| own.as_ref().is_some_and(|own| Some(&own.0) == object.spec.node_uid.as_ref()));
    let had_node = had_node(&object.spec) || own.is_some();
    let (node_uid, owner) = own.unzip();
    object.spec = EdgeNodeSpec {
        serial: Some(certificate.serial.clone()),
        not_after: Some(rfc3339(certificate.not_after_unix)),
        next_not_after: None,
        enrolment_serial: None,
        node_uid,
        owner: before.or(owner),
        had_node: had_node.then_some(true),
        token: Some(token.to_owned()),
        joined_at: Some(rfc3339(now_unix)),
    };
}

/// Seconds since 1970 of an RFC 3339 time.
pub(crate) fn unix(text: &str) -> Option<u64> {
    let time: jiff::Timestamp = text.parse().ok()?;
    u64::try_from(time.as_second()).ok()
}

/// An RFC 3339 time; the last one there is for a number beyond it.
pub(crate) fn rfc3339(unix: u64) -> String {
    let seconds = i64::try_from(unix).unwrap_or(i64::MAX);
    jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::MAX).to_string()
}

mod renewal;

pub use renewal::{NEXT_MAX, next};
pub(crate) use renewal::{given_back, next_ends, renewed, used};

#[cfg(test)]
mod tests;
