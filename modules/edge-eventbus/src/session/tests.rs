//! A session without a connection or a store.

use super::*;
use bytes::{Bytes, BytesMut};

fn at(qos: u8) -> Delivery {
    Delivery { qos, ..Delivery::default() }
}

fn message(payload: &[u8]) -> Rc<Message> {
    Rc::new(Message::of_node("t".into(), Bytes::copy_from_slice(payload), 1, false))
}

fn connected() -> Session {
    let mut session = Session::new(u32::MAX, Rights::KubeEdge);
    session.attach(Rc::default());
    session
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
    out.clear();
    session.fill(&mut out, Moment::default());
    assert!(session.received(2, true) && session.inflight.is_empty());
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
    assert_eq!(session.put(&message(b"x"), at(1)), EnqueueOutcome::Overflow);
    session.handle = None;
    assert_eq!(session.put(&message(b"x"), at(1)), EnqueueOutcome::Lost);
    assert_eq!(session.put(&message(b"x"), at(0)), EnqueueOutcome::NotKept);
    let mut session = connected();
    let large = vec![0; plan::QUEUE_BYTES * 2];
    assert_eq!(session.put(&message(&large), at(1)), EnqueueOutcome::Queued);
    assert_eq!(session.put(&message(b"x"), at(0)), EnqueueOutcome::Dropped);
}
