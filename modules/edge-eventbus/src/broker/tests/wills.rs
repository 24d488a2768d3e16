//! Wills over the end of the daemon.

use std::sync::Arc;
use std::time::Duration;

use super::keeping::{restarted, rows_of, unjudged, will};
use super::*;
use crate::access::{Proof, Verdict};
use crate::packet::Will;

/// Of mosquitto_passwd.
pub(super) const USER: &str = "plc2:$7$101$SK+en7NDuaw9SQJD$f5g1D1btrcHAtFm98KRsCzRKrhDw2DdOibkp5uS9jI5+iuSkeWiWl1OG00i3OSndaOeJYP3OcfaNz8XYv7dLGQ==\n";

fn leaves(broker: &mut Broker, name: &str, (delay, expiry): (u32, u32), payload: &'static [u8]) {
    let id: ClientId = name.into();
    let info = ConnectInfo {
        version: Version::V5,
        session_expiry: Some(expiry),
        auth_method: crate::access::AuthMethod::None,
        ..ConnectInfo::default()
    };
    let (handle, _) = broker.attach(&id, false, info);
    broker.set_will(&id, &handle, Some(Will { publish: will(payload), delay }));
}

/// Whose wills are due after so many seconds, and when to look again.
fn due(broker: &mut Broker, seconds: u64) -> (Vec<(ClientId, Rc<Will>)>, Option<u64>) {
    let (wills, next) = broker.sweep(Moment(Duration::from_secs(seconds)));
    (wills, next.map(|next| next.0.as_secs()))
}

fn names(wills: &[(ClientId, Rc<Will>)]) -> Vec<&str> {
    wills.iter().map(|(client, _)| client.as_ref()).collect()
}

#[test]
fn the_wills_of_a_broker_that_was_killed_are_due_at_the_start_or_after_their_delay() {
    let mut rows = BTreeMap::new();
    let mut broker = Broker::new(Retained::default(), rumqttd_router::CAPS, Acl::KubeEdge);
    for (name, times) in [
        // Neither a session nor a delay, and each alone.
        ("a-plain", (0, 0)),
        ("b-session", (0, 60)),
        ("c-delay", (60, 0)),
        // The delay, or the end of the session.
        ("d-both", (20, 60)),
        ("e-short", (60, 30)),
        ("f-back", (20, 60)),
    ] {
        leaves(&mut broker, name, times, b"gone");
    }
    client(&mut broker, "without", &["t"]);
    rows_of(&mut broker, &mut rows);
    assert!(!broker.to_store().0);

    let mut broker = restarted(&rows);
    assert_eq!((broker.sizes().1, broker.wills(), broker.to_store().0), (4, 6, false));
    let (wills, next) = due(&mut broker, 0);
    assert_eq!((names(&wills), next), (vec!["a-plain", "b-session", "c-delay"], Some(20)));
    // Killed before these are where they are to be, it says them once more.
    assert_eq!(names(&due(&mut restarted(&rows), 0).0), names(&wills));
    for (client, will) in &wills {
        assert_eq!(will.publish, super::keeping::will(b"gone"));
        broker.will_done(client, will);
    }
    leaves(&mut broker, "f-back", (20, 60), b"later");
    rows_of(&mut broker, &mut rows);
    let wills: Vec<&str> =
        rows.keys().filter(|(_, key)| key == "w").map(|(client, _)| client.as_str()).collect();
    assert_eq!(wills, ["d-both", "e-short", "f-back"]);
    let (wills, next) = due(&mut broker, 20);
    assert_eq!((names(&wills), next), (vec!["d-both"], Some(30)));
    // Its session ends at once with its delay.
    assert_eq!(names(&due(&mut broker, 30).0), ["e-short"]);
    assert_eq!(names(&due(&mut broker, 3600).0), [""; 0]);
}

#[test]
fn a_will_outlives_the_rows_of_its_session_until_it_is_published() {
    let mut rows = BTreeMap::new();
    let mut broker = Broker::new(Retained::default(), rumqttd_router::CAPS, Acl::KubeEdge);
    leaves(&mut broker, "a", (60, 30), b"gone");
    rows_of(&mut broker, &mut rows);
    let mut broker = restarted(&rows);
    let (wills, _) = due(&mut broker, 30);
    assert_eq!((names(&wills), broker.sizes().1), (vec!["a"], 0));
    rows_of(&mut broker, &mut rows);
    assert_eq!(rows.keys().map(|(_, key)| key.as_str()).collect::<Vec<_>>(), ["w"]);
    broker.will_done(&"a".into(), &wills[0].1);
    rows_of(&mut broker, &mut rows);
    assert_eq!(rows, BTreeMap::new());
}

#[test]
fn a_broker_that_ends_says_the_wills_without_a_delay_and_lets_nobody_in() {
    let mut rows = BTreeMap::new();
    let mut broker = Broker::new(Retained::default(), rumqttd_router::CAPS, Acl::KubeEdge);
    for (name, times) in [("b", (0, 60)), ("a", (60, 0)), ("waits", (60, 60))] {
        leaves(&mut broker, name, times, b"gone");
    }
    rows_of(&mut broker, &mut rows);
    let wills = broker.begin_end();
    assert!(broker.is_ending);
    assert_eq!(names(&wills), ["a", "b"]);
    // Said once, whatever ends the connection now.
    assert_eq!(names(&broker.begin_end()), [""; 0]);
    wills.iter().for_each(|(client, will)| broker.will_done(client, will));
    rows_of(&mut broker, &mut rows);
    let mut broker = restarted(&rows);
    assert_eq!(names(&due(&mut broker, 59).0), [""; 0]);
    assert_eq!(names(&due(&mut broker, 60).0), ["waits"]);
}

#[test]
fn a_user_that_is_no_more_has_no_last_word_at_the_next_start_either() {
    let mut rows = BTreeMap::new();
    let mut broker = Broker::new(Retained::default(), rumqttd_router::CAPS, Acl::KubeEdge);
    let users = crate::access::Users::parse(USER).unwrap();
    let hash = users.hash("plc2").unwrap();
    for (user, expiry) in [("gone", 0), ("gone", 60), ("stays", 0), ("stays", 60)] {
        let id: ClientId = format!("user={user};{expiry}").into();
        let hash = Arc::clone(hash);
        let info = ConnectInfo {
            session_expiry: Some(expiry),
            auth_method: crate::access::AuthMethod::Password(hash),
            ..ConnectInfo::default()
        };
        let (handle, _) = broker.attach(&id, true, info);
        broker.set_will(&id, &handle, Some(Will { publish: will(b"x"), delay: 0 }));
    }
    rows_of(&mut broker, &mut rows);
    let mut broker = restarted(&rows);
    let verdict = |client: &str| match client.starts_with("user=stays;") {
        true => Verdict::Could,
        false => Verdict::CouldNot("of this test"),
    };
    broker.judge_sessions(|client, _| verdict(client));
    broker.judge_wills(|client, _| verdict(client));
    assert_eq!(names(&due(&mut broker, 0).0), ["user=stays;0", "user=stays;60"]);
    rows_of(&mut broker, &mut rows);
    assert!(rows.keys().all(|(client, _)| client.starts_with("user=stays")), "{rows:?}");
}

#[test]
fn a_will_of_before_waits_until_it_is_known_whether_its_client_could_connect() {
    let mut rows = BTreeMap::new();
    let mut broker = Broker::new(Retained::default(), rumqttd_router::CAPS, Acl::KubeEdge);
    for (name, times) in
        [("a", (0, 0)), ("back", (0, 0)), ("delayed", (20, 60)), ("gone", (20, 60)), ("short", (60, 30))]
    {
        leaves(&mut broker, name, times, b"gone");
    }
    rows_of(&mut broker, &mut rows);
    let mut broker = unjudged(&rows);
    broker.judge_wills(|_, _| Verdict::Unknown);
    // Neither at once nor with its delay or its session; and nobody is woken for it meanwhile.
    let (wills, next) = due(&mut broker, 0);
    assert_eq!((names(&wills), next), (vec![], Some(30)));
    assert_eq!((names(&due(&mut broker, 30).0), broker.sizes().1, broker.wills()), (vec![], 2, 5));
    // It has come, and says itself what is so.
    leaves(&mut broker, "back", (0, 0), b"later");
    broker.judge_wills(|client, proof| {
        assert_eq!(proof, &Proof::None);
        if client == "gone" { Verdict::CouldNot("of this test") } else { Verdict::Could }
    });
    let (wills, _) = due(&mut broker, 30);
    assert_eq!(names(&wills), ["a", "short", "delayed"]);
    assert_eq!(broker.counts.of(events::WILL_REFUSED), 1);
    wills.iter().for_each(|(client, will)| broker.will_done(client, will));
    rows_of(&mut broker, &mut rows);
    let left: Vec<&str> =
        rows.keys().filter(|(_, key)| key == "w").map(|(client, _)| client.as_str()).collect();
    assert_eq!(left, ["back"]);
}

#[test]
fn rows_that_are_no_wills_are_left_out_and_deleted() {
    let row = |client: &str, key: &str, value: &[u8]| ((client.to_owned(), key.to_owned()), value.to_vec());
    let mut rows = BTreeMap::from([
        row("a", "w", b"\x02later"),
        row("b", "", &[0xff, 0xff, 0xff, 0xff, 0]),
        row("b", "w", b""),
    ]);
    let mut broker = restarted(&rows);
    assert_eq!((broker.sizes().1, names(&due(&mut broker, 0).0)), (1, vec![]));
    rows_of(&mut broker, &mut rows);
    assert_eq!(rows.into_keys().collect::<Vec<_>>(), [("b".to_owned(), String::new())]);
}
