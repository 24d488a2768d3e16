//! Decides who is a node of ours: who may join, whose session is admitted, whose a Node is. Pure.

use contract::NodeName;
use crd::{CERTIFICATE_ANNOTATION, EdgeNode, EdgeNodeSpec, JoinToken, NodeOwner, REVOKED, REVOKED_LABEL};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use thiserror::Error;

use crate::{ADOPTED_ANNOTATION, ENROLMENT_ANNOTATION};

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
    /// The serial of the living certificate.
    pub living: Option<String>,
    /// The newest certificate, living or not.
    pub newest: Option<Certificate>,
    /// The uid of the Node that is this node's.
    pub node_uid: Option<String>,
}

impl Entry {
    /// Reads an object of the register.
    pub fn of(object: &EdgeNode) -> Self {
        let spec = &object.spec;
        let newest = spec.serial.clone().map(|serial| Certificate {
            serial,
            // One that cannot be read does not end: it is freed by hand.
            not_after_unix: spec.not_after.as_deref().map_or(u64::MAX, |text| unix(text).unwrap_or(u64::MAX)),
        });
        Entry {
            is_barred: is_barred(&object.metadata),
            living: living(&object.metadata),
            newest,
            node_uid: spec.node_uid.clone(),
        }
    }

    /// Whether a certificate of this name is good at `now_unix`.
    fn lives(&self, now_unix: u64) -> bool {
        let ends = self.newest.as_ref().filter(|newest| self.living.as_ref() == Some(&newest.serial));
        self.living.is_some() && ends.is_none_or(|newest| newest.not_after_unix > now_unix)
    }
}

/// Whether an EdgeNode of this metadata bars its name.
pub fn is_barred(metadata: &ObjectMeta) -> bool {
    metadata
        .labels
        .as_ref()
        .and_then(|labels| labels.get(REVOKED_LABEL))
        .is_some_and(|value| value == REVOKED)
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
}

impl NodeObject {
    /// Reads a Node's metadata; `None` where it has no uid, as no object of a server is.
    pub fn of(metadata: &ObjectMeta) -> Option<Self> {
        let annotation = |key: &str| metadata.annotations.as_ref().and_then(|found| found.get(key)).cloned();
        Some(NodeObject {
            uid: metadata.uid.clone()?,
            adopted: annotation(ADOPTED_ANNOTATION),
            enrolment: annotation(ENROLMENT_ANNOTATION),
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
    /// Somebody else's.
    Foreign,
}

/// Whose the Node of a name is, by what the register holds of the name and by the Node that is there now.
///
/// * A Node with the uid that stands in the register is this node's.
/// * A Node whose annotation [`ADOPTED_ANNOTATION`] names its own uid is: an administrator's word. Neither a node nor
///   CloudCore's account can write it (the shipped admission policy).
/// * A Node with the serial of the name's newest certificate in [`ENROLMENT_ANNOTATION`], while no uid stands in the register:
///   CloudCore made it and had no time to note so.
/// * No Node, no uid in the register, but a certificate: a fresh join, whose Node may be made.
/// * No Node, but a uid in the register: it was deleted.
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
    let ours = |note| Ownership::Ours { uid: node.uid.clone(), note };
    if known == Some(&node.uid) {
        return ours(None);
    }
    if node.is_adopted() {
        return ours(Some(NodeOwner::Adopted));
    }
    let made =
        known.is_none() && newest.is_some_and(|newest| node.enrolment.as_ref() == Some(&newest.serial));
    if made { ours(Some(NodeOwner::Made)) } else { Ownership::Foreign }
}

/// That a session of a node may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admitted {
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
        "the name `{0}` has or had a Node in the cluster: only a token that is bound to it joins here; print one with `keadm gettoken --edgenode-name={0}`"
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
    /// The token has ended.
    #[error("this token has expired: print a new one with `keadm gettoken`")]
    TokenExpired,
    /// As many nodes have joined with it as may.
    #[error("this token has been used {0} times, as often as it may: print a new one with `keadm gettoken`")]
    TokenSpent(u32),
    /// It is bound to another name.
    #[error("this token is bound to the name `{0}`: join under it, or print a token without --edgenode-name")]
    TokenOfAnotherName(String),
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
) -> Result<(Admitted, Option<NodeOwner>), Refusal> {
    let entry = entry.ok_or_else(|| Refusal::NotRegistered(node.clone()))?;
    if entry.is_barred {
        return Err(Refusal::Barred(node.clone()));
    }
    if entry.living.as_deref() != Some(serial) {
        return Err(Refusal::NotLiving(node.clone()));
    }
    match ownership(Some(entry), object) {
        Ownership::Ours { uid, note } => Ok((Admitted { node_uid: Some(uid) }, note)),
        Ownership::MayBeMade => Ok((Admitted { node_uid: None }, None)),
        Ownership::Deleted => Err(Refusal::Deleted(node.clone())),
        Ownership::Foreign => Err(Refusal::Foreign(node.clone())),
    }
}

/// What a token's signed words say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
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
    ticket: &Ticket,
    token: Option<&JoinToken>,
    node: &NodeName,
    now_unix: u64,
) -> Result<(), Refusal> {
    let token = token.ok_or(Refusal::TokenWithdrawn)?;
    let other = [&ticket.node, &token.spec.node].into_iter().flatten().find(|bound| *bound != node.as_str());
    if let Some(other) = other {
        return Err(Refusal::TokenOfAnotherName(other.chars().take(64).collect()));
    }
    if token.spec.expires.as_deref().and_then(unix).is_none_or(|end| end <= now_unix) {
        return Err(Refusal::TokenExpired);
    }
    let (uses, used) = (token.spec.uses.unwrap_or(1), token.spec.used.unwrap_or(0));
    if used >= uses { Err(Refusal::TokenSpent(used)) } else { Ok(()) }
}

/// Whether `node` may have a certificate. Answers the uid of the Node that is already its own, and how it is.
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
    if entry.is_some_and(|entry| entry.is_barred) {
        return Err(Refusal::Barred(node.clone()));
    }
    if entry.is_some_and(|entry| entry.lives(now_unix)) {
        return Err(Refusal::NameTaken(node.clone()));
    }
    let had_node = entry.is_some_and(|entry| entry.node_uid.is_some());
    if !is_bound && (object.is_some() || had_node) {
        return Err(Refusal::NeedsBoundToken(node.clone()));
    }
    let Some(object) = object else { return Ok(None) };
    match ownership(entry, Some(object)) {
        Ownership::Ours { uid, note } => Ok(Some((uid, note.unwrap_or(NodeOwner::Made)))),
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
    // How a Node that stays came to be ours is not forgotten.
    let before = object
        .spec
        .owner
        .filter(|_| own.as_ref().is_some_and(|own| Some(&own.0) == object.spec.node_uid.as_ref()));
    let (node_uid, owner) = own.unzip();
    object.spec = EdgeNodeSpec {
        serial: Some(certificate.serial.clone()),
        not_after: Some(rfc3339(certificate.not_after_unix)),
        node_uid,
        owner: before.or(owner),
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

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn name() -> NodeName {
        NodeName::parse("edge-1").unwrap()
    }

    fn certificate(serial: &str) -> Certificate {
        Certificate { serial: serial.to_owned(), not_after_unix: NOW + 1000 }
    }

    /// A name that joined with the certificate `aa`.
    fn joined(node_uid: Option<&str>) -> Entry {
        Entry {
            is_barred: false,
            living: Some("aa".to_owned()),
            newest: Some(certificate("aa")),
            node_uid: node_uid.map(str::to_owned),
        }
    }

    fn given_back(node_uid: Option<&str>) -> Entry {
        Entry { living: None, ..joined(node_uid) }
    }

    fn object(uid: &str, adopted: Option<&str>, enrolment: Option<&str>) -> NodeObject {
        NodeObject {
            uid: uid.to_owned(),
            adopted: adopted.map(str::to_owned),
            enrolment: enrolment.map(str::to_owned),
        }
    }

    fn ours(uid: &str, note: Option<NodeOwner>) -> Ownership {
        Ownership::Ours { uid: uid.to_owned(), note }
    }

    #[test]
    fn a_node_is_ours_by_uid_by_adoption_or_by_the_serial_it_was_made_for() {
        let cases = [
            // The uid that stands in the register, whatever else.
            (Some(joined(Some("u1"))), Some(object("u1", None, None)), ours("u1", None)),
            (Some(given_back(Some("u1"))), Some(object("u1", None, None)), ours("u1", None)),
            // Deleted and made again: another one.
            (Some(joined(Some("u1"))), Some(object("u2", None, None)), Ownership::Foreign),
            (Some(joined(Some("u1"))), Some(object("u2", None, Some("aa"))), Ownership::Foreign),
            // Made by us, and not noted yet.
            (Some(joined(None)), Some(object("u1", None, Some("aa"))), ours("u1", Some(NodeOwner::Made))),
            (Some(given_back(None)), Some(object("u1", None, Some("aa"))), ours("u1", Some(NodeOwner::Made))),
            (Some(joined(None)), Some(object("u1", None, Some("bb"))), Ownership::Foreign),
            (Some(joined(None)), Some(object("u1", None, None)), Ownership::Foreign),
            // An administrator's word, which names the uid.
            (Some(joined(None)), Some(object("u1", Some("u1"), None)), ours("u1", Some(NodeOwner::Adopted))),
            (
                Some(joined(Some("u0"))),
                Some(object("u1", Some("u1"), None)),
                ours("u1", Some(NodeOwner::Adopted)),
            ),
            (None, Some(object("u1", Some("u1"), None)), ours("u1", Some(NodeOwner::Adopted))),
            (Some(joined(None)), Some(object("u1", Some("u0"), None)), Ownership::Foreign),
            (Some(joined(None)), Some(object("u1", Some("true"), None)), Ownership::Foreign),
            // No Node.
            (Some(joined(None)), None, Ownership::MayBeMade),
            (Some(joined(Some("u1"))), None, Ownership::Deleted),
            (None, None, Ownership::Foreign),
            (Some(Entry::default()), None, Ownership::Foreign),
            // A control-plane node.
            (None, Some(object("u9", None, None)), Ownership::Foreign),
        ];
        for (entry, node, expected) in cases {
            assert_eq!(ownership(entry.as_ref(), node.as_ref()), expected, "{entry:?} {node:?}");
        }
    }

    #[test]
    fn only_the_living_serial_of_a_name_that_is_not_barred_is_admitted() {
        let of = |serial: &str, entry: Option<&Entry>, node: Option<&NodeObject>| {
            admit(&name(), serial, entry, node).map(|(admitted, _)| admitted.node_uid)
        };
        let node = object("u1", None, None);
        assert_eq!(of("aa", Some(&joined(Some("u1"))), Some(&node)), Ok(Some("u1".to_owned())));
        assert_eq!(of("aa", Some(&joined(None)), None), Ok(None));
        assert_eq!(of("bb", Some(&joined(None)), None), Err(Refusal::NotLiving(name())));
        assert_eq!(of("aa", Some(&given_back(Some("u1"))), Some(&node)), Err(Refusal::NotLiving(name())));
        assert_eq!(of("aa", None, None), Err(Refusal::NotRegistered(name())));
        assert_eq!(of("aa", Some(&joined(Some("u1"))), None), Err(Refusal::Deleted(name())));
        assert_eq!(of("aa", Some(&joined(None)), Some(&node)), Err(Refusal::Foreign(name())));
        let barred = Entry { is_barred: true, ..joined(Some("u1")) };
        assert_eq!(of("aa", Some(&barred), Some(&node)), Err(Refusal::Barred(name())));
    }

    #[test]
    fn an_open_token_makes_only_new_nodes() {
        let of = |bound: bool, entry: Option<Entry>, node: Option<NodeObject>, now: u64| {
            may_enrol(&name(), bound, entry.as_ref(), node.as_ref(), now)
        };
        let (bound, open, needs) = (true, false, Err(Refusal::NeedsBoundToken(name())));
        let (mine, theirs) = (object("u1", None, None), object("u9", None, None));
        let adopted = object("u9", Some("u9"), None);
        // A new name.
        assert_eq!(of(open, None, None, NOW), Ok(None));
        assert_eq!(of(open, Some(given_back(None)), None, NOW), Ok(None));
        // A name with a Node, or that had one.
        assert_eq!(of(open, None, Some(theirs.clone()), NOW), needs);
        assert_eq!(of(open, None, Some(adopted.clone()), NOW), needs);
        assert_eq!(of(open, Some(given_back(Some("u1"))), Some(mine.clone()), NOW), needs);
        assert_eq!(of(open, Some(given_back(Some("u1"))), None, NOW), needs);
        // A bound token: for our own Nodes.
        let made = Ok(Some(("u1".to_owned(), NodeOwner::Made)));
        assert_eq!(of(bound, Some(given_back(Some("u1"))), Some(mine.clone()), NOW), made);
        assert_eq!(
            of(bound, Some(given_back(Some("u1"))), None, NOW),
            Ok(None),
            "a new join after a deletion"
        );
        assert_eq!(of(bound, None, Some(adopted), NOW), Ok(Some(("u9".to_owned(), NodeOwner::Adopted))));
        assert_eq!(of(bound, None, Some(theirs.clone()), NOW), Err(Refusal::Foreign(name())));
        assert_eq!(of(bound, Some(given_back(Some("u1"))), Some(theirs), NOW), Err(Refusal::Foreign(name())));
        // A name in use, until its certificate ends.
        let taken = Err(Refusal::NameTaken(name()));
        assert_eq!(of(bound, Some(joined(Some("u1"))), Some(mine.clone()), NOW), taken);
        assert_eq!(of(open, Some(joined(None)), None, NOW), taken);
        assert_eq!(of(bound, Some(joined(Some("u1"))), Some(mine.clone()), NOW + 1000), made);
        // A barred name.
        for (living, entry) in
            [(true, joined(Some("u1"))), (false, given_back(Some("u1"))), (false, Entry::default())]
        {
            let barred = Some(Entry { is_barred: true, ..entry });
            let refused = Err(Refusal::Barred(name()));
            assert_eq!(of(bound, barred.clone(), Some(mine.clone()), NOW), refused, "{living}");
            assert_eq!(of(open, barred, None, NOW + 5000), refused, "{living}");
        }
    }

    #[test]
    fn a_token_is_worth_what_its_object_says() {
        let spec =
            crd::JoinTokenSpec { expires: Some(rfc3339(NOW + 10)), node: None, uses: Some(2), used: Some(1) };
        let token = |change: &dyn Fn(&mut crd::JoinTokenSpec)| {
            let mut spec = spec.clone();
            change(&mut spec);
            JoinToken::new("t1", spec)
        };
        let open = Ticket { id: "t1".into(), node: None };
        let bound = Ticket { id: "t1".into(), node: Some("edge-2".into()) };
        let of = |ticket: &Ticket, token: JoinToken| may_use(ticket, Some(&token), &name(), NOW);
        assert_eq!(of(&open, token(&|_| ())), Ok(()));
        assert_eq!(may_use(&open, None, &name(), NOW), Err(Refusal::TokenWithdrawn));
        assert_eq!(of(&open, token(&|spec| spec.used = Some(2))), Err(Refusal::TokenSpent(2)));
        assert_eq!(of(&open, token(&|spec| spec.uses = None)), Err(Refusal::TokenSpent(1)));
        assert_eq!(of(&open, token(&|spec| spec.expires = Some(rfc3339(NOW)))), Err(Refusal::TokenExpired));
        for unreadable in [None, Some("tomorrow".to_owned())] {
            let token = token(&|spec| spec.expires.clone_from(&unreadable));
            assert_eq!(of(&open, token), Err(Refusal::TokenExpired));
        }
        let other = Err(Refusal::TokenOfAnotherName("edge-2".into()));
        assert_eq!(of(&bound, token(&|_| ())), other, "the signed words bind");
        assert_eq!(
            of(&open, token(&|spec| spec.node = Some("edge-2".into()))),
            other,
            "the object binds, too"
        );
    }

    #[test]
    fn an_object_says_what_was_written_into_it() {
        let mut object = EdgeNode::new("edge-1", EdgeNodeSpec::default());
        assert_eq!(Entry::of(&object), Entry::default());
        enrolled(&mut object, &certificate("aa"), Some(("u1".into(), NodeOwner::Adopted)), "t1", NOW);
        assert_eq!(Entry::of(&object), joined(Some("u1")));
        assert_eq!(object.spec.owner, Some(NodeOwner::Adopted));
        // It joins again: the Node is still the one that was adopted.
        enrolled(&mut object, &certificate("bb"), Some(("u1".into(), NodeOwner::Made)), "t2", NOW);
        assert_eq!(object.spec.owner, Some(NodeOwner::Adopted));
        assert_eq!(living(&object.metadata).as_deref(), Some("bb"));
        // And after its Node was deleted.
        enrolled(&mut object, &certificate("cc"), None, "t3", NOW);
        assert_eq!((object.spec.node_uid, object.spec.owner), (None, None));
        object.metadata.labels = Some([(REVOKED_LABEL.to_owned(), "false".to_owned())].into());
        assert!(!is_barred(&object.metadata));
        object.metadata.labels = Some([(REVOKED_LABEL.to_owned(), "true".to_owned())].into());
        assert!(is_barred(&object.metadata));
        assert_eq!(rfc3339(u64::MAX), jiff::Timestamp::MAX.to_string());
    }
}
