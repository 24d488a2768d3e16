//! What outlives the daemon, what ends by time, and who makes room.

use super::*;
use crate::access::{AuthMethod, Verdict};
use crate::qos2::Progress;

pub(super) fn will(payload: &'static [u8]) -> crate::packet::Publish {
    crate::packet::Publish {
        topic: "will".into(),
        payload: Bytes::from_static(payload),
        qos: 0,
        retain: false,
        dup: false,
        pkid: 0,
        alias: None,
        expiry: None,
        properties: Bytes::new(),
    }
}

/// A session with rows of publishes that are not released, as an earlier edgecore wrote them and as this one does; one row makes no sense.
#[test]
fn unreleased_publishes_are_rows_of_256_and_those_of_before_are_taken_over() {
    let row = |key: &str, value: &[u8]| (("keeper".to_owned(), key.to_owned()), value.to_vec());
    let mut rows = BTreeMap::from([
        row("", &[0xff, 0xff, 0xff, 0xff, 0]),
        row("r0007", b""),
        row("r0107", b""),
        row("u09", b"no bits"),
    ]);
    let mut broker = restarted(&rows);
    let id: ClientId = "keeper".into();
    let (handle, _) = broker.attach(&id, false, ConnectInfo::default());
    let publish = |pkid| crate::packet::Publish { pkid, qos: 2, ..will(b"x") };
    let session = broker.session_of(&id, &handle).unwrap();
    assert_eq!(session.unreleased.pages(), [0, 1]);
    for pkid in 0x201..0x300 {
        session.unreleased.begin(&publish(pkid));
    }
    assert!(session.unreleased.release(0x107));
    for page in [1, 2] {
        broker.note_row(&id, &handle, crate::session::RowKey::Unreleased(page));
    }
    rows_of(&mut broker, &mut rows);
    let found: Vec<(&str, usize)> =
        rows.iter().map(|((_, key), value)| (key.as_str(), value.len())).collect();
    assert_eq!(found, [("", 5), ("u00", 32), ("u02", 32 + 255 * 4)]);

    let mut broker = restarted(&rows);
    let (handle, _) = broker.attach(&id, false, ConnectInfo::default());
    let session = broker.session_of(&id, &handle).unwrap();
    // Without a digest the identifier says it alone.
    let other = |pkid| crate::packet::Publish { payload: Bytes::from_static(b"other"), ..publish(pkid) };
    for (publish, known) in [
        (publish(7), true),
        (other(7), true),
        (publish(0x107), false),
        (publish(0x2ff), true),
        (other(0x2ff), false),
    ] {
        let progress = session.unreleased.repeated(&publish);
        assert_eq!(progress, known.then_some(Progress::HandedOut), "{publish:?}");
    }
}

/// What the store has of a broker, in the order of its keys.
pub(super) fn rows_of(broker: &mut Broker, rows: &mut BTreeMap<(String, String), Vec<u8>>) {
    let mut batch = broker.take_batch(crate::message::Clocks::default());
    for write in std::mem::take(&mut batch.writes) {
        match write {
            Write::PutRow { table: Table::MqttSessions, key1, key2, value } => {
                drop(rows.insert((key1, key2), value))
            }
            Write::DeleteRow { table: Table::MqttSessions, key1, key2 } => drop(rows.remove(&(key1, key2))),
            Write::DeleteRows { table: Table::MqttSessions, key1 } => {
                rows.retain(|(client, _), _| *client != key1)
            }
            _ => {}
        }
    }
    broker.taken();
}

pub(super) fn restarted(rows: &BTreeMap<(String, String), Vec<u8>>) -> Broker {
    let mut broker = unjudged(rows);
    broker.judge_wills(|_, _| crate::access::Verdict::Could);
    broker
}

/// Of whose wills it is not known yet whether their clients could connect.
pub(super) fn unjudged(rows: &BTreeMap<(String, String), Vec<u8>>) -> Broker {
    let row = |((key1, key2), value): (&(String, String), &Vec<u8>)| Row {
        key1: key1.clone(),
        key2: key2.clone(),
        value: value.clone(),
        revision: 1,
    };
    let mut broker = Broker::new(Retained::default(), rumqttd_router::CAPS, Acl::KubeEdge);
    broker.restore(rows.iter().map(row).collect(), crate::message::Clocks::default());
    broker
}

/// Whether its user has to be in the password file.
#[test]
fn a_session_says_after_a_restart_how_its_client_came_last() {
    let (mut rows, users) = (BTreeMap::new(), crate::access::Users::parse(super::wills::USER).unwrap());
    let mut broker = Broker::new(Retained::default(), rumqttd_router::CAPS, Acl::KubeEdge);
    let id: ClientId = "user=plc2;a".into();
    let password = AuthMethod::Password(std::sync::Arc::clone(users.hash("plc2").unwrap()));
    for (auth_method, sessions) in [(password.clone(), 0), (AuthMethod::Certificate, 1), (password, 0)] {
        broker.attach(&id, false, ConnectInfo { auth_method, ..ConnectInfo::default() });
        rows_of(&mut broker, &mut rows);
        let mut after = restarted(&rows);
        after.judge_sessions(|_, by| match by {
            AuthMethod::Restored => Verdict::CouldNot("of this test"),
            _ => Verdict::Could,
        });
        assert_eq!(after.sizes().1, sessions);
    }
}

#[test]
fn sessions_come_back_from_the_store_as_they_were() {
    let mut rows = BTreeMap::new();
    let mut broker = Broker::new(Retained::default(), rumqttd_router::CAPS, Acl::KubeEdge);
    let id: ClientId = "keeper".into();
    let (handle, _) = broker.attach(&id, false, ConnectInfo::default());
    for filter in ["t/#", "gone", "$share/g/s"] {
        broker.subscribe(&id, &asks(filter, 2), None);
    }
    let clean = client(&mut broker, "clean", &["t/#"]);
    rows_of(&mut broker, &mut rows);
    broker.unsubscribe(&id, "gone");
    for (n, qos) in [(1, 1), (2, 2), (3, 0), (4, 2), (5, 1)] {
        let published = broker.publish(Message { qos, ..message("t/x", &n.to_string()) }, false);
        assert_eq!(published.queued.is_some(), qos > 0);
    }
    rows_of(&mut broker, &mut rows);
    let mut out = BytesMut::new();
    broker.fill(&id, &handle, &mut out, Moment::default());
    // 1 is acknowledged; 2 was received; 4 is on its way.
    let session = broker.session_of(&id, &handle).unwrap();
    let unreleased = crate::packet::Publish { pkid: 0x109, qos: 2, ..will(b"unreleased") };
    session.unreleased.begin(&unreleased);
    let pkid_of = |wanted: &str| {
        let mut all = out.clone();
        loop {
            match crate::packet::decode(&mut all, 99, Version::V311).unwrap().unwrap() {
                crate::packet::Packet::Publish(it) if it.payload == wanted.as_bytes() => return it.pkid,
                _ => {}
            }
        }
    };
    session.acknowledged(pkid_of("1"));
    assert!(session.received(pkid_of("2"), false));
    broker.note_row(&id, &handle, crate::session::RowKey::Unreleased(1));
    rows_of(&mut broker, &mut rows);
    assert!(!broker.to_store().0);
    assert_eq!(rows.keys().filter(|(client, _)| client == "clean").count(), 0);

    let mut broker = restarted(&rows);
    assert_eq!(broker.sizes(), (0, 1, 2));
    broker.publish(message("t/x", "6"), false);
    broker.publish(message("s", "7"), false);
    let (handle, known) = broker.attach(&id, false, ConnectInfo::default());
    assert!(known);
    let session = broker.session_of(&id, &handle).unwrap();
    assert_eq!(session.unreleased.repeated(&unreleased), Some(Progress::HandedOut));
    assert_eq!(
        session.unreleased.repeated(&crate::packet::Publish { topic: "other".into(), ..unreleased }),
        None
    );
    let mut again = BytesMut::new();
    broker.fill(&id, &handle, &mut again, Moment::default());
    let mut heard = Vec::new();
    while let Some(packet) = crate::packet::decode(&mut again, 99, Version::V311).unwrap() {
        heard.push(match packet {
            crate::packet::Packet::Publish(it) => (
                String::from_utf8(it.payload.to_vec()).unwrap(),
                it.qos,
                it.dup,
                (it.qos == 2).then_some(it.pkid),
            ),
            crate::packet::Packet::PubRel(pkid) => ("PUBREL".to_owned(), 2, false, Some(pkid)),
            other => panic!("{other:?}"),
        });
    }
    let said = |payload: &str, qos, dup, pkid| (payload.to_owned(), qos, dup, pkid);
    assert_eq!(
        heard[..3],
        [
            said("PUBREL", 2, false, Some(pkid_of("2"))),
            said("4", 2, true, Some(pkid_of("4"))),
            said("5", 1, true, None),
        ]
    );
    let rest: Vec<&str> = heard[3..].iter().map(|(payload, ..)| payload.as_str()).collect();
    assert_eq!(rest, ["6", "7"]);
    drop(clean);

    // A clean session takes its rows away.
    broker.attach(&id, true, ConnectInfo::default());
    rows_of(&mut broker, &mut rows);
    assert_eq!(rows.len(), 0);
}

#[test]
fn what_the_store_does_not_take_is_tried_again() {
    let mut broker = Broker::new(Retained::default(), rumqttd_router::CAPS, Acl::KubeEdge);
    let id: ClientId = "keeper".into();
    let (handle, _) = broker.attach(&id, false, ConnectInfo::default());
    broker.subscribe(&id, &asks("t", 1), None);
    broker.publish(message("t", "x"), false);
    let mut batch = broker.take_batch(crate::message::Clocks::default());
    let first = std::mem::take(&mut batch.writes);
    assert!(!broker.to_store().0);
    broker.not_taken(batch);
    let mut rows = BTreeMap::new();
    assert_eq!((broker.to_store(), first.len()), ((true, true), 3));
    rows_of(&mut broker, &mut rows);
    assert_eq!((rows.len(), restarted(&rows).sizes()), (3, (0, 1, 1)));
    drop(handle);
}

#[test]
fn a_session_ends_in_its_time_and_its_will_is_published_then_or_before() {
    let at = |seconds: u64| Moment(std::time::Duration::from_secs(seconds));
    let mut broker = Broker::new(Retained::default(), rumqttd_router::CAPS, Acl::KubeEdge);
    let info = || ConnectInfo { version: Version::V5, session_expiry: Some(30), ..ConnectInfo::default() };
    for (name, due) in [("back", 20), ("late", 20), ("long", 90)] {
        let id: ClientId = name.into();
        let (handle, _) = broker.attach(&id, false, info());
        broker.detach(&id, &handle, at(100));
        let publish = will(name.as_bytes());
        broker.delay_will(&id, Rc::new(crate::packet::Will { publish, delay: 0 }), at(100 + due));
    }
    let wills = |(wills, next): (Vec<(ClientId, Rc<crate::packet::Will>)>, Option<Moment>)| {
        (wills.into_iter().map(|(client, _)| client.to_string()).collect::<Vec<_>>(), next)
    };
    assert_eq!(wills(broker.sweep(at(110))), (vec![], Some(at(120))));
    assert!(broker.attach(&"back".into(), false, info()).1);
    assert_eq!(wills(broker.sweep(at(120))), (vec!["late".into()], Some(at(130))));
    assert_eq!(wills(broker.sweep(at(130))), (vec!["long".into()], None));
    assert_eq!((broker.sizes().1, broker.counts.of(events::SESSION_EXPIRED)), (1, 2));
}

#[test]
fn the_session_that_was_away_longest_makes_room() {
    let mut broker = Broker::new(Retained::default(), rumqttd_router::CAPS, Acl::KubeEdge);
    for n in 0..=plan::SESSIONS {
        let id: ClientId = n.to_string().into();
        let (handle, present) = broker.attach(&id, false, ConnectInfo::default());
        assert!(!present);
        broker.detach(&id, &handle, Moment::default());
    }
    assert_eq!(broker.sizes().1, plan::SESSIONS);
    assert!(
        broker.attach(&"1".into(), false, ConnectInfo::default()).1
            && !broker.attach(&"0".into(), false, ConnectInfo::default()).1
    );
}

#[test]
fn all_sessions_together_hold_no_more_than_the_bound_and_the_greediest_gives_way() {
    let mut broker = Broker::new(Retained::default(), rumqttd_router::CAPS, Acl::KubeEdge);
    let modest = client(&mut broker, "modest", &["little"]);
    let payload = "x".repeat(200 << 10);
    for n in 0..100 {
        let (id, topic): (ClientId, _) = (n.to_string().into(), format!("t/{n}"));
        let (handle, _) = broker.attach(&id, false, ConnectInfo::default());
        assert_eq!(broker.subscribe(&id, &asks(&topic, 1), None), 1);
        if n % 2 == 0 {
            broker.detach(&id, &handle, Moment::default());
        }
        broker.publish(message("little", "x"), false);
        for _ in 0..4 {
            broker.publish(message(&topic, &payload), false);
        }
        assert!(broker.sessions.values().map(Session::held).sum::<usize>() <= plan::HELD_BYTES);
    }
    assert!(
        broker.counts.of(events::QOS1_LOST) > 100 && broker.counts.of(events::CLIENT_CUT_OFF) > 10,
        "{:?}",
        broker.counts
    );
    assert_eq!(payloads(&mut broker, &modest).len(), 100);
    assert!(broker.sizes().1 > 20);
}
