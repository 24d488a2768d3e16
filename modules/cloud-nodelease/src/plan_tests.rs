use super::*;
use crate::lease::{LeaseOwner, LeaseVersion};
use proptest::prelude::*;

fn version(text: &str) -> LeaseVersion {
    LeaseVersion { resource_version: text.to_owned(), renewed: None, owner: LeaseOwner::Missing }
}

fn link() -> OpenLink {
    OpenLink { transport: Transport::Quic, traffic: Arc::default(), certificate_valid: None }
}

fn node() -> NodeName {
    NodeName::parse("edge-1").unwrap()
}

fn metadata(uid: &str) -> ObjectMeta {
    ObjectMeta { name: Some("edge-1".into()), uid: Some(uid.into()), ..ObjectMeta::default() }
}

fn open(uid: &str) -> SessionState {
    SessionState::Open { node_uid: uid.into() }
}

/// The hub has said who is linked.
fn told() -> Sessions {
    let mut sessions = Sessions::default();
    sessions.all_down();
    sessions
}

#[test]
fn a_session_counts_from_its_claim_until_a_newer_one_and_no_older_one_begins_after_it() {
    let mut sessions = told();
    assert_eq!(sessions.state(&node(), 4), SessionState::Ended);
    sessions.begin(&node(), 4, "0a", Some("u".into()), None);
    assert_eq!(sessions.state(&node(), 4), open("u"), "the watch has yet to show its Node");
    sessions.begin(&node(), 5, "0b", Some("u".into()), None);
    sessions.begin(&node(), 4, "0a", Some("u".into()), None);
    assert_eq!(sessions.state(&node(), 4), SessionState::Ended);
    assert_eq!(sessions.state(&node(), 5), open("u"));
    assert_eq!(sessions.certificate(&node(), 5).as_deref(), Some("0b"));
    // The count never begins anew, not even at 1: the hub takes the greater number for the later session, too.
    sessions.begin(&node(), 1, "0c", Some("u".into()), None);
    assert!(!sessions.up(&node(), 1, "0c", link()));
    assert_eq!((sessions.state(&node(), 1), sessions.newest(&node())), (SessionState::Ended, Some(5)));
}

#[test]
fn a_node_that_goes_or_is_replaced_puts_its_session_in_doubt_until_the_api_server_has_said_so() {
    let mut sessions = told();
    sessions.node_applied(node(), &metadata("u"));
    sessions.begin(&node(), 4, "0a", Some("u".into()), None);
    assert_eq!((sessions.state(&node(), 4), sessions.session_in_doubt(&node())), (open("u"), None));
    sessions.node_deleted(&node());
    assert_eq!(
        (sessions.state(&node(), 4), sessions.session_in_doubt(&node())),
        (SessionState::InDoubt, Some(4))
    );
    assert!(sessions.begin_check(&node(), 4));
    assert!(
        !sessions.begin_check(&node(), 4) && sessions.session_in_doubt(&node()).is_none(),
        "one asks at a time"
    );
    assert_eq!(sessions.checked(&node(), 4, Some("u")), NodeCheck::StillThere);
    assert_eq!(sessions.state(&node(), 4), open("u"), "the watch was late");
    sessions.node_applied(node(), &metadata("v"));
    assert!(sessions.begin_check(&node(), 4));
    sessions.not_checked(&node(), 4);
    assert!(sessions.begin_check(&node(), 4), "it could not be asked");
    assert_eq!(sessions.checked(&node(), 3, Some("v")), NodeCheck::NoSession);
    assert_eq!(sessions.checked(&node(), 4, Some("v")), NodeCheck::Over);
    assert_eq!(sessions.state(&node(), 4), SessionState::Ended);
}

#[test]
fn a_node_that_finalizers_hold_counts_as_gone() {
    let mut sessions = told();
    sessions.begin(&node(), 4, "0a", Some("u".into()), None);
    let time = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(jiff::Timestamp::UNIX_EPOCH);
    sessions.node_applied(node(), &ObjectMeta { deletion_timestamp: Some(time), ..metadata("u") });
    assert_eq!(sessions.session_in_doubt(&node()), Some(4));
    assert!(!sessions.is_of(&node(), sessions.node(&node()).unwrap()));
}

#[test]
fn before_there_is_a_node_the_certificate_says_for_whom_it_is_made() {
    let mut sessions = told();
    sessions.begin(&node(), 1, "0a", None, None);
    let without = SessionState::WithoutNode { certificate: "0a".into() };
    assert_eq!(sessions.state(&node(), 1), without);
    assert!(!sessions.is_of(&node(), &metadata("u")));
    sessions.resolved(&node(), 2, Some("v".into()));
    assert_eq!(sessions.state(&node(), 1), without, "of another session");
    sessions.resolved(&node(), 1, Some("u".into()));
    assert_eq!(sessions.state(&node(), 1), open("u"));
    assert!(sessions.is_of(&node(), &metadata("u")) && !sessions.is_of(&node(), &metadata("v")));
}

#[test]
fn after_a_restart_nothing_is_called_ended_before_the_hub_has_said_who_is_linked() {
    let mut sessions = Sessions::default();
    assert_eq!(sessions.state(&node(), 4), SessionState::InDoubt);
    sessions.all_down();
    assert!(sessions.up(&node(), 4, "0a", link()), "the register has to say of which Node it is");
    assert_eq!(sessions.state(&node(), 4), SessionState::InDoubt);
    assert_eq!(sessions.session_in_doubt(&node()), None, "it is being resolved");
    sessions.resolved(&node(), 4, Some("u".into()));
    assert_eq!(sessions.state(&node(), 4), open("u"));
    assert!(!sessions.up(&node(), 4, "0a", link()) && !sessions.up(&node(), 3, "0a", link()));
    assert_eq!((sessions.state(&node(), 3), sessions.counts()), (SessionState::Ended, (1, 1)));
    sessions.down(&node(), 3, None);
    assert_eq!(sessions.counts(), (1, 1), "the end of an older session");
    sessions.down(&node(), 4, None);
    assert_eq!((sessions.counts(), sessions.link(&node())), ((1, 0), None));
    assert_eq!(sessions.state(&node(), 4), open("u"), "what it said before is still written");
}

#[test]
fn why_a_node_is_shut_out_is_known_until_it_has_a_session_again() {
    let mut sessions = told();
    sessions.up(&node(), 4, "0a", link());
    sessions.down(&node(), 3, Some("of an older one"));
    assert_eq!(sessions.revoked(&node()), None);
    sessions.down(&node(), 4, Some("revoked"));
    assert_eq!(sessions.revoked(&node()), Some("revoked"));
    sessions.begin(&node(), 5, "0b", Some("u".into()), None);
    assert_eq!(sessions.revoked(&node()), None);
}

#[test]
fn a_node_whose_later_session_has_no_link_yet_is_linked_as_long_as_the_one_before_is() {
    let mut sessions = told();
    sessions.up(&node(), 4, "0a", link());
    // It dials anew while its link is silent, and may give that up.
    sessions.begin(&node(), 5, "0a", Some("u".into()), None);
    sessions.begin(&node(), 6, "0a", Some("u".into()), None);
    assert_eq!((sessions.counts(), sessions.link(&node())), ((1, 1), None), "nothing said over it counts");
    sessions.down(&node(), 4, None);
    assert_eq!(sessions.counts(), (1, 0));
    sessions.up(&node(), 6, "0a", link());
    assert_eq!(sessions.counts(), (1, 1));
    // The link of an older one is told late, and its end after that.
    sessions.begin(&node(), 8, "0a", Some("u".into()), None);
    sessions.down(&node(), 6, None);
    assert!(!sessions.up(&node(), 7, "0a", link()));
    assert_eq!(sessions.counts(), (1, 1));
    sessions.down(&node(), 7, None);
    assert_eq!(sessions.counts(), (1, 0));
    sessions.begin(&node(), 9, "0a", Some("u".into()), None);
    sessions.up(&node(), 9, "0a", link());
    sessions.begin(&node(), 10, "0a", Some("u".into()), None);
    sessions.all_down();
    assert_eq!(sessions.counts(), (1, 0));
}

#[test]
fn a_lease_is_renewed_once_in_its_period_while_its_node_is_alive() {
    let (period, at) = (Duration::from_secs(10), |second| Moment(Duration::from_secs(second)));
    let mut sessions = told();
    let after = |seconds| Renewal::After(Duration::from_secs(seconds));
    assert_eq!(sessions.sign_of_life(&node(), 4, period, at(0)), Renewal::None, "there is no such session");
    sessions.begin(&node(), 4, "0a", Some("u".into()), Some(version("9")));
    let mut alive = |second| sessions.sign_of_life(&node(), 4, period, at(second));
    assert_eq!([alive(0), alive(6), alive(8)], [Renewal::Now, after(4), Renewal::None]);
    assert!(sessions.begin_planned(&node(), 4, at(10)) && !sessions.begin_planned(&node(), 4, at(10)));
    assert_eq!(sessions.sign_of_life(&node(), 4, period, at(13)), after(7));
    assert_eq!(sessions.sign_of_life(&node(), 4, period, at(20)), Renewal::Now, "the planned one is late");
    assert!(!sessions.begin_planned(&node(), 4, at(20)));
    sessions.up(&node(), 4, "0a", link());
    assert!(sessions.may_retry(&node(), 4, at(20)) && !sessions.may_retry(&node(), 4, at(10)));
    assert_eq!(sessions.sign_of_life(&node(), 4, period, at(26)), after(4));
    sessions.down(&node(), 4, None);
    assert!(!sessions.begin_planned(&node(), 4, at(30)), "nobody has said since that it is alive");
    assert!(!sessions.may_retry(&node(), 4, at(20)));
    assert_eq!(sessions.take_lease_version(&node(), 4), Some(version("9")));
    assert_eq!(sessions.take_lease_version(&node(), 4), None, "somebody writes");
    sessions.put_lease_version(&node(), 3, version("10"));
    assert_eq!(sessions.take_lease_version(&node(), 4), None, "of an older session");
    sessions.begin(&node(), 5, "0a", Some("u".into()), None);
    let renewal = sessions.sign_of_life(&node(), 5, period, at(21));
    assert_eq!(renewal, Renewal::Now, "a new session has a renewal of its own");
}

#[derive(Debug, Clone)]
enum Step {
    Begin(u64, Option<u8>),
    Up(u64),
    Down(u64),
    AllDown,
    Node(Option<u8>),
    NodeCheck(u64, Option<u8>),
    End(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (number, uid) = (2_u64..6, prop::option::of(0_u8..3));
    let step = prop_oneof![
        (number.clone(), uid.clone()).prop_map(|(number, uid)| Step::Begin(number, uid)),
        number.clone().prop_map(Step::Up),
        number.clone().prop_map(Step::Down),
        Just(Step::AllDown),
        uid.clone().prop_map(Step::Node),
        (number.clone(), uid).prop_map(|(number, uid)| Step::NodeCheck(number, uid)),
        number.prop_map(Step::End),
    ];
    prop::collection::vec(step, 1..60)
}

proptest! {
    /// However messages of sessions are mixed: at most one session of a node is worth anything, and numbers never go back.
    #[test]
    fn at_most_one_session_counts_and_it_is_never_an_older_one(steps in steps()) {
        let mut sessions = told();
        let mut newest = 0;
        for step in steps {
            let text = |uid: u8| format!("u{uid}");
            match step {
                Step::Begin(number, uid) => sessions.begin(&node(), number, "0a", uid.map(text), None),
                Step::Up(number) => {
                    sessions.up(&node(), number, "0a", link());
                }
                Step::Down(number) => sessions.down(&node(), number, None),
                Step::AllDown => sessions.all_down(),
                Step::Node(Some(uid)) => sessions.node_applied(node(), &metadata(&text(uid))),
                Step::Node(None) => sessions.node_deleted(&node()),
                Step::NodeCheck(number, uid) => {
                    sessions.checked(&node(), number, uid.map(text).as_deref());
                }
                Step::End(number) => {
                    sessions.end(&node(), number);
                }
            }
            let counting: Vec<u64> =
                (1..8).filter(|number| sessions.state(&node(), *number) != SessionState::Ended).collect();
            prop_assert!(counting.len() <= 1);
            prop_assert_eq!(counting.first().copied(), sessions.newest(&node()));
            match sessions.newest(&node()) {
                Some(number) => {
                    prop_assert!(number >= newest, "{} after {}", number, newest);
                    newest = number;
                }
                None => newest = 0,
            }
        }
    }
}

#[test]
fn a_certificate_that_was_renewed_is_the_sessions_from_then_on() {
    let mut sessions = Sessions::default();
    sessions.up(&node(), 5, "0a", link());
    sessions.certificate_renewed(&node(), 4, "0b", (1, 2));
    assert_eq!(sessions.certificate(&node(), 5).as_deref(), Some("0a"), "said of an older session");
    sessions.certificate_renewed(&node(), 5, "0b", (1, 2));
    assert_eq!(sessions.certificate(&node(), 5).as_deref(), Some("0b"));
    assert_eq!(sessions.certificate_valid(&node()), Some((1, 2)));
}
