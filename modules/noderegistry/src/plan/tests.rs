//! The rules, case by case.

use crd::REVOKED_LABEL;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

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
        is_ending: false,
        living: Some("aa".to_owned()),
        newest: Some(certificate("aa")),
        next: Vec::new(),
        enrolment: None,
        node_uid: node_uid.map(str::to_owned),
        had_node: node_uid.is_some(),
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
        is_ending: false,
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
        // Made for the certificate that it joined with, which was renewed before that was noted.
        (
            Some(Entry { enrolment: Some("a0".to_owned()), ..joined(None) }),
            Some(object("u1", None, Some("a0"))),
            ours("u1", Some(NodeOwner::Made)),
        ),
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
    assert_eq!(of(bound, Some(given_back(Some("u1"))), None, NOW), Ok(None), "a new join after a deletion");
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
    let open = TokenClaims { id: "t1".into(), node: None };
    let bound = TokenClaims { id: "t1".into(), node: Some("edge-2".into()) };
    let of = |claims: &TokenClaims, token: JoinToken| may_use(claims, Some(&token), &name(), NOW);
    assert_eq!(of(&open, token(&|_| ())), Ok(()));
    assert_eq!(may_use(&open, None, &name(), NOW), Err(Refusal::TokenWithdrawn));
    assert_eq!(of(&open, token(&|spec| spec.used = Some(2))), Err(Refusal::TokenSpent(2)));
    assert_eq!(of(&open, token(&|spec| spec.uses = None)), Err(Refusal::TokenSpent(1)));
    assert_eq!(of(&open, token(&|spec| spec.expires = Some(rfc3339(NOW)))), Err(TokenError::Expired.into()));
    for unreadable in [None, Some("tomorrow".to_owned())] {
        let token = token(&|spec| spec.expires.clone_from(&unreadable));
        assert_eq!(of(&open, token), Err(TokenError::Expired.into()));
    }
    let other = Err(TokenError::OtherName("edge-2".into()).into());
    assert_eq!(of(&bound, token(&|_| ())), other, "the signed words bind");
    assert_eq!(of(&open, token(&|spec| spec.node = Some("edge-2".into()))), other, "the object binds, too");
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
    assert_eq!((object.spec.node_uid.as_ref(), object.spec.owner), (None, None));
    assert!(Entry::of(&object).had_node, "that there was one is not forgotten");
    assert_eq!(rfc3339(u64::MAX), jiff::Timestamp::MAX.to_string());
}

#[test]
fn any_value_of_the_label_but_false_bars() {
    let with = |value: &str| ObjectMeta {
        labels: Some([(REVOKED_LABEL.to_owned(), value.to_owned())].into()),
        ..ObjectMeta::default()
    };
    for value in ["true", "True", "TRUE", "yes", "1", "", "stolen"] {
        assert!(is_barred(&with(value)), "{value}");
    }
    assert!(!is_barred(&with("false")) && !is_barred(&ObjectMeta::default()));
}

/// Of an object that was deleted while a finalizer holds it.
fn ending() -> ObjectMeta {
    ObjectMeta {
        uid: Some("u1".to_owned()),
        deletion_timestamp: Some(Time(jiff::Timestamp::UNIX_EPOCH)),
        finalizers: Some(vec!["example.com/hold".to_owned()]),
        ..ObjectMeta::default()
    }
}

#[test]
fn what_was_deleted_counts_as_gone_though_finalizers_hold_it() {
    // A token.
    let spec = crd::JoinTokenSpec { expires: Some(rfc3339(NOW + 10)), ..crd::JoinTokenSpec::default() };
    let mut token = JoinToken::new("t1", spec);
    let claims = TokenClaims { id: "t1".into(), node: None };
    assert_eq!(may_use(&claims, Some(&token), &name(), NOW), Ok(()));
    token.metadata = ending();
    assert_eq!(may_use(&claims, Some(&token), &name(), NOW), Err(Refusal::TokenWithdrawn));
    // A name.
    let mut object = EdgeNode::new("edge-1", EdgeNodeSpec::default());
    enrolled(&mut object, &certificate("aa"), Some(("u1".into(), NodeOwner::Made)), "t1", NOW);
    let node = self::object("u1", None, None);
    let annotations = object.metadata.annotations.take();
    object.metadata = ObjectMeta { annotations, ..ending() };
    let entry = Entry::of(&object);
    let refused = Refusal::NameEnding(name());
    assert_eq!(admit(&name(), "aa", Some(&entry), Some(&node)), Err(refused.clone()));
    for bound in [true, false] {
        assert_eq!(may_enrol(&name(), bound, Some(&entry), Some(&node), NOW), Err(refused.clone()));
    }
    // A Node, whoever's it was.
    let adopted = [(ADOPTED_ANNOTATION.to_owned(), "u1".to_owned())].into();
    let node = NodeObject::of(&ObjectMeta { annotations: Some(adopted), ..ending() }).unwrap();
    for entry in [joined(Some("u1")), joined(None), given_back(Some("u1"))] {
        assert_eq!(ownership(Some(&entry), Some(&node)), Ownership::Ending);
    }
    let refused = Refusal::NodeEnding(name());
    assert_eq!(admit(&name(), "aa", Some(&joined(Some("u1"))), Some(&node)), Err(refused.clone()));
    assert_eq!(may_enrol(&name(), true, Some(&given_back(Some("u1"))), Some(&node), NOW), Err(refused));
    let open = may_enrol(&name(), false, None, Some(&node), NOW);
    assert_eq!(open, Err(Refusal::NeedsBoundToken(name())));
}

#[test]
fn that_a_name_had_a_node_outlives_the_uid() {
    let forgiven = Entry { had_node: true, ..given_back(None) };
    assert_eq!(ownership(Some(&forgiven), None), Ownership::MayBeMade, "an adopted node's comes back");
    let of = |bound| may_enrol(&name(), bound, Some(&forgiven), None, NOW);
    assert_eq!(of(false), Err(Refusal::NeedsBoundToken(name())));
    assert_eq!(of(true), Ok(None));
}

#[test]
fn no_node_has_a_name_of_cloudcores() {
    for name in ["cloudcore", "kubehive-cloudcore"] {
        let name = NodeName::parse(name).unwrap();
        for is_bound in [false, true] {
            let refused = may_enrol(&name, is_bound, None, None, NOW);
            assert_eq!(refused, Err(Refusal::Reserved(name.clone())));
        }
    }
    let other = NodeName::parse("cloudcore-1").unwrap();
    assert_eq!(may_enrol(&other, false, None, None, NOW), Ok(None));
}
