//! A session without a connection or a store.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use edge_store::{Row, Write};

use super::*;
use crate::message::Clocks;

fn at(qos: u8) -> Delivery {
    Delivery { qos, ..Delivery::default() }
}

fn message(payload: &[u8]) -> Rc<Message> {
    Rc::new(Message::of_node("t".into(), Bytes::copy_from_slice(payload), 1, false))
}

fn connected() -> Session {
    let mut session = Session::new(KEPT_FOR_EVER, Rights::KubeEdge);
    session.attach(Rc::default());
    session
}

/// The store takes what there is.
fn commit(session: &mut Session) {
    session.take_writes("c", Clocks::default(), &mut Vec::new());
    session.written();
}

#[test]
fn what_was_not_acknowledged_is_sent_again_with_its_number() {
    let mut session = connected();
    for n in 0..3 {
        session.put(&message(&[n]), at(1));
    }
    let mut out = BytesMut::new();
    assert_eq!(session.fill(&mut out, Moment::default()), 3);
    session.acknowledged(2);
    session.attach(Rc::default());
    out.clear();
    assert_eq!(session.fill(&mut out, Moment::default()), 0);
    assert_eq!(&out[..], b"\x3a\x06\0\x01t\0\x01\0\x3a\x06\0\x01t\0\x03\x02");
}

#[test]
fn a_client_that_acknowledges_nothing_gets_a_window_and_no_more() {
    let mut session = connected();
    for _ in 0..plan::INFLIGHT + 5 {
        session.put(&message(b"x"), at(1));
    }
    let mut out = BytesMut::new();
    assert_eq!(session.fill(&mut out, Moment::default()), plan::INFLIGHT as u64);
    session.acknowledged(1);
    assert_eq!(session.fill(&mut out, Moment::default()), 1);
    assert_eq!(session.fill(&mut out, Moment::default()), 0);
}

#[test]
fn large_messages_have_a_smaller_window_and_one_always_goes() {
    let mut session = connected();
    let (large, small) = (message(&vec![0; plan::INFLIGHT_BYTES]), message(b"x"));
    assert_eq!(
        (session.put(&large, at(1)), session.put(&small, at(1))),
        (EnqueueOutcome::Queued, EnqueueOutcome::Queued)
    );
    let mut out = BytesMut::new();
    assert_eq!((session.fill(&mut out, Moment::default()), session.held() > plan::INFLIGHT_BYTES), (1, true));
    session.acknowledged(1);
    out.clear();
    assert_eq!(session.fill(&mut out, Moment::default()), 1);
    session.put(&large, at(1));
    out.clear();
    assert_eq!(session.fill(&mut out, Moment::default()), 0);
    session.acknowledged(2);
    assert_eq!(session.fill(&mut out, Moment::default()), 1);
    session.acknowledged(3);
    assert_eq!(session.held(), 0);
}

#[test]
fn retained_messages_in_the_queue_do_not_make_it_full() {
    let mut session = connected();
    let owed = |after| Owed { filter: "u/#".into(), subscription: Subscription::default(), after };
    session.owed.push_back(owed(None));
    for _ in 0..plan::RETAINED_PAGE {
        assert!(session.takes_retained());
        let kept = Delivery { kept: true, retain: true, ..at(1) };
        assert_eq!(session.put(&message(&[0; 65536]), kept), EnqueueOutcome::Queued);
    }
    assert!(!session.takes_retained() && !session.is_slow() && session.held() == 0);
    assert_eq!(session.put(&message(b"x"), at(1)), EnqueueOutcome::Queued);
    assert_eq!(session.give_up(), plan::RETAINED_PAGE as u64 + 1);
    assert!(!session.takes_retained() && session.held() == 0);
}

#[test]
fn a_message_of_qos_2_is_resent_until_it_was_received_and_then_only_released() {
    let mut session = connected();
    session.put(&message(b"x"), at(2));
    commit(&mut session);
    let mut out = BytesMut::new();
    session.fill(&mut out, Moment::default());
    assert_eq!(&out[..], b"\x34\x06\0\x01t\0\x01x");
    // An acknowledgement of the other kind is none.
    session.acknowledged(1);
    assert!(!session.received(2, false) && session.received(1, false) && session.held() == 0);
    session.attach(Rc::default());
    out.clear();
    session.fill(&mut out, Moment::default());
    assert_eq!(&out[..], b"\x62\x02\0\x01");
    session.completed(1);
    assert!(session.inflight.is_empty() && session.used.is_empty());
    session.put(&message(b"y"), at(2));
    commit(&mut session);
    out.clear();
    session.fill(&mut out, Moment::default());
    assert!(session.received(2, true) && session.inflight.is_empty());
}

#[test]
fn an_acknowledgement_of_another_kind_is_told_from_one_of_a_message_that_is_gone() {
    use crate::packet::Packet::{PubAck, PubComp, PubRec};
    let mut session = connected();
    for qos in [1, 2] {
        session.put(&message(b"x"), at(qos));
        commit(&mut session);
        session.fill(&mut BytesMut::new(), Moment::default());
    }
    let wrong = |session: &Session, pkid| {
        [PubAck(pkid), PubRec(pkid, 0), PubComp(pkid)].map(|packet| session.is_contradicted_by(&packet))
    };
    assert_eq!((wrong(&session, 1), wrong(&session, 2)), ([false, true, true], [true, false, true]));
    assert!(session.received(2, false));
    // A repeated PUBREC is none.
    assert_eq!(wrong(&session, 2), [true, false, false]);
    session.acknowledged(1);
    session.completed(2);
    assert_eq!((wrong(&session, 1), wrong(&session, 2)), ([false; 3], [false; 3]));
}

#[test]
fn what_a_client_does_not_take_is_left_out_and_its_window_is_its_own() {
    let mut session = connected();
    let info = ConnectInfo { receive_maximum: 2, packet_maximum: 12, ..ConnectInfo::default() };
    session.attach(ConnectionHandle::of(info));
    let old = Message { expires: Some(Moment::default()), ..(*message(b"old")).clone() };
    session.put(&message(&[b'x'; 40]), at(1));
    session.put(&Rc::new(old), at(1));
    for _ in 0..3 {
        session.put(&message(b"1"), at(1));
    }
    let mut out = BytesMut::new();
    assert_eq!(session.fill(&mut out, Moment::default()), 2);
    assert_eq!(&out[..], b"\x32\x06\0\x01t\0\x031\x32\x06\0\x01t\0\x041");
    session.acknowledged(3);
    assert_eq!((session.fill(&mut out, Moment::default()), session.used.len()), (1, 2));
}

#[test]
fn a_full_queue_says_what_became_of_the_message() {
    let mut session = connected();
    while session.put(&message(b"x"), at(1)) == EnqueueOutcome::Queued {}
    assert_eq!(session.put(&message(b"x"), at(0)), EnqueueOutcome::Dropped);
    assert_eq!(session.put(&message(b"x"), at(1)), EnqueueOutcome::Lost);
    session.handle = None;
    assert_eq!(session.put(&message(b"x"), at(1)), EnqueueOutcome::Lost);
    assert_eq!(session.put(&message(b"x"), at(0)), EnqueueOutcome::NotKept);
    let mut session = connected();
    let large = vec![0; plan::QUEUE_BYTES * 2];
    assert_eq!(session.put(&message(&large), at(1)), EnqueueOutcome::Queued);
    assert_eq!(session.put(&message(b"x"), at(0)), EnqueueOutcome::Dropped);
}

#[test]
fn a_queue_is_as_long_as_the_settings_say() {
    let mut session = connected().with_queue(2);
    for (nth, slow) in [(1, false), (2, true)] {
        session.put(&message(b"x"), at(1));
        assert_eq!(session.is_slow(), slow, "{nth}");
    }
    session.handle = None;
    let kept = (2..99).take_while(|_| session.put(&message(b"x"), at(1)) == EnqueueOutcome::Queued).count();
    assert_eq!((2 + kept, session.put(&message(b"x"), at(1))), (20, EnqueueOutcome::Lost));
}

#[test]
fn for_a_client_that_is_held_up_nobody_waits_until_its_queue_is_almost_full() {
    let mut session = connected().with_queue(2);
    let handle = session.handle.clone().unwrap();
    for (nth, held_up, waited_for) in
        [(1, false, false), (2, false, true), (3, true, false), (17, true, false), (18, true, true)]
    {
        while session.waiting() < nth {
            session.put(&message(b"x"), at(1));
        }
        handle.set_held_up(held_up);
        assert_eq!(session.is_waited_for(Moment::default()), waited_for, "{nth}");
    }
}

#[test]
fn a_kept_message_of_qos_2_goes_out_when_the_store_has_its_identifier_or_takes_nothing() {
    let sent = |session: &mut Session| session.fill(&mut BytesMut::new(), Moment::default());
    let mut session = connected();
    assert!(session.put(&message(b"1"), at(1)) == EnqueueOutcome::Queued && sent(&mut session) == 1);
    let kept = Delivery { kept: true, retain: true, ..at(2) };
    for delivery in [at(2), kept, at(0)] {
        session.put(&message(b"2"), delivery);
    }
    assert_eq!(sent(&mut session), 0, "nothing overtakes it");
    assert_eq!(rows(&mut session, Clocks::default()).len(), 4);
    session.put(&message(b"3"), at(2));
    assert_eq!(sent(&mut session), 0, "the store is at it");
    session.written();
    assert_eq!((sent(&mut session), session.waiting()), (3, 4));
    // The store fails: what waits for it goes, and what comes until it takes something.
    let keys = session.take_writes("c", Clocks::default(), &mut Vec::new());
    session.not_written(keys);
    session.put(&message(b"4"), at(2));
    assert_eq!(sent(&mut session), 2);
    commit(&mut session);
    session.put(&message(b"5"), at(2));
    assert_eq!(sent(&mut session), 0);
    // One that ends with its connection has nothing in the store.
    session.expiry = 0;
    assert_eq!(sent(&mut session), 1);
}

/// The rows of a session as a store has them, written when `clocks` said so.
fn rows(session: &mut Session, clocks: Clocks) -> Vec<Row> {
    let mut writes = Vec::new();
    session.take_writes("c", clocks, &mut writes);
    let row = |write| match write {
        Write::PutRow { key1, key2, value, .. } => Some(Row { key1, key2, value, revision: 1 }),
        _ => None,
    };
    writes.into_iter().filter_map(row).collect()
}

#[test]
fn what_has_expired_while_edgecore_was_down_or_since_is_not_sent_and_leaves_the_store() {
    let clocks =
        |now, kept| Clocks { now: Moment(Duration::from_secs(now)), kept: Duration::from_secs(kept) };
    let lives = |payload: &'static [u8], seconds: Option<u64>| {
        let expires = seconds.map(|seconds| Moment(Duration::from_secs(seconds)));
        Rc::new(Message { expires, ..(*message(payload)).clone() })
    };
    let mut session = connected();
    session.handle = None;
    for (payload, seconds) in [(b"a", Some(110)), (b"b", Some(160)), (b"c", None)] {
        for qos in [1, 2] {
            session.put(&lives(payload, seconds), at(qos));
        }
    }
    let rows = rows(&mut session, clocks(100, 5_000));
    // 20 s later in another run, whose clock begins anew.
    let restored = |now: u64| {
        let mut session = Restored::read(&rows, Rights::KubeEdge, clocks(3, 5_020)).unwrap().session;
        session.attach(Rc::default());
        let mut out = BytesMut::new();
        session.fill(&mut out, Moment(Duration::from_secs(now)));
        let sent: Vec<u8> = out.iter().copied().filter(|byte| b"abc".contains(byte)).collect();
        let mut writes = Vec::new();
        session.take_writes("c", clocks(now, 5_020 + now - 3), &mut writes);
        let gone = writes.iter().filter(|write| matches!(write, Write::DeleteRow { .. })).count();
        (String::from_utf8(sent).unwrap(), gone, session.inflight.len())
    };
    assert_eq!(restored(3), ("bbcc".to_owned(), 2, 4));
    assert_eq!(restored(60), ("cc".to_owned(), 4, 2), "it may have been on its way, and nobody knows");
    // What this run has sent is sent again.
    let mut session = connected();
    session.put(&lives(b"a", Some(10)), at(1));
    for now in [5, 50] {
        session.attach(Rc::default());
        let mut out = BytesMut::new();
        session.fill(&mut out, Moment(Duration::from_secs(now)));
        assert!(out.ends_with(b"a"), "{now}");
    }
}
