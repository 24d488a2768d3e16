//! Which version two ends speak, and that they keep to it.

use std::collections::BTreeMap;

use beehive::link::wire::{DecodeError, EncodeError, Outgoing, ReplyTo, Wire};
use beehive::link::{
    CloseReason, Connection, Hello, IncomingLink, Link, LinkError, PeerName, Protocol, Routes, Transport,
    Urgency, Versions, WireVersion, events,
};
use beehive::testing::Probe;
use beehive::{AskError, Env, Message, Refusal, Reply};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::raw::{self, ASK, CREDIT, NACK, OPEN, REFUSE, Raw, TELL, ends, frame, hello, hello_with, next};
use crate::wire::run;
use crate::wire::{Heard, LONG, Talk, routes};

/// Asks in which version it was read.
#[derive(Debug)]
struct Which(Reply<u8>);

impl Message for Which {
    fn name(&self) -> &'static str {
        "Which"
    }
}

impl Wire for Which {
    const MAILBOX: &'static str = "which";

    fn encode(self, protocol: &Protocol) -> Result<Outgoing, EncodeError> {
        let reply = Box::new(move |answer: Result<Vec<u8>, AskError>| match answer {
            Ok(bytes) => self.0.send(bytes[0]),
            Err(why) => self.0.fail(why),
        });
        Ok(Outgoing { body: vec![protocol.version.number()], reply: Some(reply) })
    }

    fn decode(body: &[u8], reply: Option<ReplyTo>, protocol: &Protocol) -> Result<Self, DecodeError> {
        assert_eq!(body, [protocol.version.number()]);
        let to = reply.unwrap();
        Ok(Which(Reply::carried(move |answer: Result<u8, AskError>| to.send(vec![answer.unwrap()]))))
    }
}

/// A mailbox that answers with the version of the link that it is told of.
fn answering(env: &Env) -> Routes {
    let (mut probe, address) = Probe::<Which>::new(env, 4);
    env.spawn(async move {
        while let Some(Which(reply)) = probe.next(LONG).await {
            reply.send(77);
        }
    });
    Routes::new().accept(address, |which: Which, _: &PeerName| which)
}

/// Both ends of a link between one that dials and speaks `theirs` and one that speaks `ours`.
async fn meet(
    env: &Env,
    theirs: Versions,
    ours: Versions,
) -> (Result<Link, LinkError>, Result<Link, LinkError>) {
    let (edge, cloud) = ends();
    let greeting = Hello { versions: theirs, name: "edge-1".to_owned() };
    let greet = Link::connect(env, Box::new(edge), &greeting, answering(env));
    let meet =
        async { IncomingLink::read_hello_as(env, Box::new(cloud), ours).await?.admit(answering(env)).await };
    futures::join!(greet, meet)
}

fn versions(oldest: u8, newest: u8) -> Versions {
    Versions { oldest, newest }
}

#[test]
fn two_ends_speak_the_newest_common_version_in_both_directions() {
    run(async |env| {
        let cases = [
            ((1, 1), (1, 1), 1),
            ((1, 1), (1, 2), 1),
            ((1, 2), (1, 1), 1),
            ((1, 2), (1, 2), 2),
            ((1, 2), (2, 3), 2),
            ((2, 3), (1, 2), 2),
        ];
        for ((a, b), (c, d), expected) in cases {
            let (edge, cloud) = meet(&env, versions(a, b), versions(c, d)).await;
            let (edge, cloud) = (edge.unwrap(), cloud.unwrap());
            let spoken = [edge.version().number(), cloud.version().number()];
            assert_eq!(spoken, [expected; 2], "{a}-{b} and {c}-{d}");
            for link in [&edge, &cloud] {
                let talk = link.remote::<Which>();
                assert_eq!(talk.ask(LONG, Which).await, Ok(77), "{a}-{b} and {c}-{d}");
            }
        }
    });
}

fn golden() -> BTreeMap<&'static str, Vec<u8>> {
    let lines = include_str!("../frames-1.txt").lines().filter(|line| !line.starts_with('#'));
    let unhex = |hex: &str| {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    };
    lines.map(|line| line.split_once(' ').unwrap()).map(|(name, hex)| (name, unhex(hex))).collect()
}

/// An end of a later release, of which only the golden file is known, dials.
#[test]
fn an_end_that_also_speaks_a_later_version_is_served_to_the_byte() {
    run(async |env| {
        let golden = golden();
        let (edge, cloud) = ends();
        let (mut probe, heard) = Probe::<Heard>::new(&env, 4);
        let admit =
            async { IncomingLink::read_hello(&env, Box::new(cloud)).await?.admit(routes(heard)).await };
        let greet = async {
            let (mut writer, mut reader) = edge.open(Urgency::Link).await.unwrap();
            // What a later release says behind its capabilities is not looked at.
            let hello = hello_with(1, 2, b"\x02\x06future\x07deflate and more");
            writer.write_all(&hello).await.unwrap();
            let mut ack = vec![0; golden["hello-ack"].len()];
            reader.read_exact(&mut ack).await.unwrap();
            assert_eq!(ack, golden["hello-ack"]);
            (writer, reader)
        };
        let (link, mut control) = futures::join!(admit, greet);
        let link = link.unwrap();
        assert_eq!(link.version(), WireVersion::ONE);
        assert_eq!(link.capabilities().names().collect::<Vec<_>>(), ["deflate", "future"]);
        let (mut writer, mut reader) = edge.open(Urgency::Work).await.unwrap();
        writer.write_all(&golden["open"]).await.unwrap();
        writer.write_all(&frame(1, TELL, 0, 0, b"\x01hello")).await.unwrap();
        assert!(
            matches!(probe.next(LONG).await.unwrap().talk, Talk::Say(text) if text == b"hello".as_slice())
        );
        let credit = next(&mut reader).await.unwrap();
        assert_eq!((credit.version, credit.kind, credit.id, credit.amount), (1, raw::CREDIT, 1, 6));
        control.0.write_all(&golden["bye"]).await.unwrap();
        assert_eq!(link.ended().await, CloseReason::Remote);
    });
}

#[test]
fn an_end_that_was_dialled_is_spoken_to_to_the_byte() {
    run(async |env| {
        let golden = golden();
        let (edge, cloud) = ends();
        let greeting = Hello::of("edge-1");
        let greet = Link::connect(&env, Box::new(edge), &greeting, Routes::new());
        let answer = async {
            let (mut writer, mut reader) = cloud.accept().await.unwrap();
            let mut hello = vec![0; golden["hello"].len()];
            reader.read_exact(&mut hello).await.unwrap();
            assert_eq!(hello, golden["hello"]);
            writer.write_all(&golden["hello-ack-capable"]).await.unwrap();
            (writer, reader)
        };
        let (link, _control) = futures::join!(greet, answer);
        let link = link.unwrap();
        assert_eq!(link.version(), WireVersion::ONE);
        assert_eq!(link.capabilities().to_string(), "deflate report.test");
        let talk = link.remote::<Talk>();
        talk.tell(Talk::Say(b"hello".to_vec())).await.unwrap();
        let (_writer, mut reader) = cloud.accept().await.unwrap();
        let mut open = vec![0; golden["open"].len()];
        reader.read_exact(&mut open).await.unwrap();
        assert_eq!(open, golden["open"]);
        let tell = next(&mut reader).await.unwrap();
        assert_eq!((tell.version, tell.kind, tell.body), (1, TELL, b"\x01hello".to_vec()));
    });
}

#[test]
fn ends_without_a_common_version_are_told_who_is_to_upgrade() {
    run(async |env| {
        let newer = "`edge-1` dialled and speaks wire versions 2 to 3, and the end that it reached speaks wire \
                     version 1: upgrade the end that it reached";
        let older = "`edge-1` dialled and speaks wire version 1, and the end that it reached speaks wire \
                     version 4: upgrade `edge-1`";
        for (theirs, ours, sentence) in
            [(versions(2, 3), Versions::OURS, newer), (Versions::OURS, versions(4, 4), older)]
        {
            let (edge, cloud) = meet(&env, theirs, ours).await;
            assert_eq!(cloud.unwrap_err().to_string(), sentence);
            assert_eq!(edge.unwrap_err().to_string(), format!("refused: {sentence}"));
        }
        // Whatever the stranger speaks: it can read the refusal.
        let (edge, cloud) = ends();
        let meet = IncomingLink::read_hello(&env, Box::new(cloud));
        let greet = async {
            let (mut writer, mut reader) = edge.open(Urgency::Link).await.unwrap();
            writer.write_all(&hello(2, 3)).await.unwrap();
            next(&mut reader).await.unwrap()
        };
        let (met, refusal) = futures::join!(meet, greet);
        assert!(matches!(met, Err(LinkError::Versions { .. })));
        assert_eq!((refusal.version, refusal.kind, refusal.text()), (0, REFUSE, newer));
    });
}

#[test]
fn an_answer_with_a_version_that_was_not_offered_is_no_answer() {
    run(async |env| {
        for body in [&[2, 0][..], &[0, 0], &[1], &[1, 1], &[], b"sentence"] {
            let (link, _cloud, _control) = raw::taken_in(&env, body).await;
            assert!(matches!(link, Err(LinkError::Unexpected { .. })), "{body:?}");
        }
    });
}

#[test]
fn a_hello_whose_versions_are_no_range_is_no_hello() {
    run(async |env| {
        let (edge, cloud) = meet(&env, versions(3, 0), Versions::OURS).await;
        assert!(matches!(cloud, Err(LinkError::Unexpected { expected: "hello" })));
        assert!(matches!(edge, Err(LinkError::Refused(_))));
    });
}

#[test]
fn frames_of_another_version_than_the_agreed_one_are_refused() {
    run(async |env| {
        for (agreed, other) in [(1, 2), (1, 0)] {
            let (mut probe, heard) = Probe::<Heard>::new(&env, 4);
            let raw = Raw::link(&env, agreed, routes(heard)).await;
            let sentence = format!("frame of wire version {other} where {agreed} is spoken");
            // Where a stream begins.
            let (_writer, mut reader) = raw.stream(other, "talk").await;
            let nack = next(&mut reader).await.unwrap();
            assert_eq!((nack.version, nack.kind, nack.text()), (agreed, NACK, sentence.as_str()));
            // In the middle of one.
            let (mut writer, mut reader) = raw.stream(agreed, "talk").await;
            writer.write_all(&frame(other, TELL, 0, 0, b"\x01hello")).await.unwrap();
            assert_eq!(next(&mut reader).await, None);
            assert!(probe.next(LONG).await.is_none());
            assert!(env.timeout(LONG, raw.link.ended()).await.is_none());
            // On the link's own.
            raw.control.lock().await.write_all(&frame(other, 10, 0, 0, &[])).await.unwrap();
            assert_eq!(raw.link.ended().await, CloseReason::Broken(sentence));
        }
    });
}

#[test]
fn a_stream_that_begins_with_anything_but_a_name_is_told_so() {
    run(async |env| {
        let (_probe, heard) = Probe::<Heard>::new(&env, 4);
        let raw = Raw::link(&env, 1, routes(heard)).await;
        for (first, sentence) in [
            (
                frame(1, TELL, 0, 0, b"\x01x"),
                "a stream begins by naming its mailbox or with the header of a byte stream",
            ),
            (frame(1, OPEN, 0, 0, b"wh\nat"), "mailbox `wh\\nat` is not open to this link"),
            (frame(1, OPEN, 0, 0, &[b'x'; 129]), "a mailbox's name of 129 bytes; at most 128 are looked at"),
        ] {
            let (mut writer, mut reader) = raw.connection.open(Urgency::Work).await.unwrap();
            writer.write_all(&first).await.unwrap();
            assert_eq!(next(&mut reader).await.unwrap().text(), sentence);
        }
    });
}

#[test]
fn a_hello_whose_capabilities_are_out_of_bounds_is_no_hello() {
    run(async |env| {
        let many = [&[65][..], &b"\x01a".repeat(65)].concat();
        for rest in [&[][..], &[2, 1, b'a'], b"\x01\x02A\n", &many] {
            let (edge, cloud) = ends();
            let greet = async {
                let (mut writer, mut reader) = edge.open(Urgency::Link).await.unwrap();
                writer.write_all(&hello_with(1, 1, rest)).await.unwrap();
                next(&mut reader).await.unwrap().kind
            };
            let (met, answer) = futures::join!(IncomingLink::read_hello(&env, Box::new(cloud)), greet);
            assert!(matches!(met, Err(LinkError::Unexpected { expected: "hello" })), "{rest:?}");
            assert_eq!(answer, REFUSE);
        }
    });
}

/// A mailbox of a release that has added one message, which needs a capability.
#[derive(Debug)]
enum Growing {
    First,
    Added,
}

impl Message for Growing {
    fn name(&self) -> &'static str {
        "Growing"
    }
}

impl Wire for Growing {
    const MAILBOX: &'static str = "growing";
    const CAPABILITIES: &'static [&'static str] = &["added"];

    fn capability(&self) -> Option<&'static str> {
        matches!(self, Growing::Added).then_some("added")
    }

    fn encode(self, _: &Protocol) -> Result<Outgoing, EncodeError> {
        Ok(Outgoing { body: vec![if matches!(self, Growing::First) { 1 } else { 2 }], reply: None })
    }

    fn decode(body: &[u8], _: Option<ReplyTo>, _: &Protocol) -> Result<Self, DecodeError> {
        match body {
            [1] => Ok(Growing::First),
            [2] => Ok(Growing::Added),
            [kind] => Err(DecodeError::UnknownKind { mailbox: Self::MAILBOX, kind: u16::from(*kind) }),
            _ => Err(DecodeError::new("not one byte".to_owned())),
        }
    }
}

/// A link whose accepting end opens mailboxes of `routes`.
async fn linked(env: &Env, routes: Routes) -> (Link, Link) {
    let (edge, cloud) = ends();
    let greeting = Hello::of("edge-1");
    let greet = Link::connect(env, Box::new(edge), &greeting, Routes::new());
    let meet = async { IncomingLink::read_hello(env, Box::new(cloud)).await?.admit(routes).await };
    let (edge, cloud) = futures::join!(greet, meet);
    (edge.unwrap(), cloud.unwrap())
}

#[test]
fn a_message_is_sent_only_to_an_end_that_has_named_its_capability() {
    run(async |env| {
        let (mut probe, address) = Probe::<Growing>::new(&env, 4);
        let routes = Routes::new().accept(address, |message: Growing, _: &PeerName| message);
        let (edge, cloud) = linked(&env, routes).await;
        assert_eq!(
            (edge.capabilities().to_string(), cloud.capabilities().to_string()),
            ("added".into(), "none".into())
        );
        assert_eq!((edge.transport(), cloud.transport()), (Transport::Memory, Transport::Memory));
        edge.remote::<Growing>().tell(Growing::Added).await.unwrap();
        assert!(matches!(probe.next(LONG).await, Some(Growing::Added)));
        // The other end has opened no mailbox and named no capability.
        let back = cloud.remote::<Growing>();
        assert_eq!(back.tell(Growing::Added).await, Err(Refusal::Unsupported));
        assert_eq!(back.try_tell(Growing::Added), Err(Refusal::Unsupported));
        assert_eq!(env.metrics().count_of(events::MESSAGE_UNSUPPORTED), 2);
        assert_eq!(back.tell(Growing::First).await, Ok(()));
    });
}

#[test]
fn a_message_that_an_end_does_not_know_is_named_and_counted_and_the_next_one_is_read() {
    run(async |env| {
        let (mut probe, address) = Probe::<Growing>::new(&env, 4);
        let routes = Routes::new().accept(address, |message: Growing, _: &PeerName| message);
        let raw = Raw::link(&env, 1, routes).await;
        let (mut writer, mut reader) = raw.stream(1, "growing").await;
        let unknown = "message of the unknown kind 3 to `growing`";
        for (kind, body, sentence) in [
            (TELL, &[3][..], unknown),
            (ASK, &[3], unknown),
            (TELL, &[1, 1], "cannot decode the message: not one byte"),
        ] {
            let id = if kind == ASK { 7 } else { 0 };
            writer.write_all(&frame(1, kind, id, 0, body)).await.unwrap();
            let nack = next(&mut reader).await.unwrap();
            assert_eq!((nack.kind, nack.id, nack.text()), (NACK, id, sentence));
            assert_eq!(next(&mut reader).await.unwrap().kind, CREDIT);
        }
        let counted = |event| env.metrics().count_of(event);
        assert_eq!((counted(events::MESSAGE_UNKNOWN), counted(events::MESSAGE_MALFORMED)), (2, 1));
        writer.write_all(&frame(1, TELL, 0, 0, &[1])).await.unwrap();
        assert!(matches!(probe.next(LONG).await, Some(Growing::First)));
        assert!(env.timeout(LONG, raw.link.ended()).await.is_none());
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn any_two_ends_agree_on_the_newest_common_version_or_refuse(
        (a, b) in (0..5_u8, 0..5_u8),
        ours in proptest::sample::select(vec![(1, 1), (1, 2), (2, 3)]),
    ) {
        run(async |env| {
            let (theirs, ours) = (versions(a.min(b), a.max(b)), versions(ours.0, ours.1));
            let common = (ours.oldest..=ours.newest).rev().find(|number| theirs.contains(*number));
            let (edge, cloud) = meet(&env, theirs, ours).await;
            match common {
                Some(number) => {
                    assert_eq!(edge.unwrap().version().number(), number);
                    assert_eq!(cloud.unwrap().version().number(), number);
                }
                None => {
                    assert!(edge.unwrap_err().to_string().contains("upgrade"));
                    assert!(matches!(cloud, Err(LinkError::Versions { .. })));
                }
            }
        });
    }
}
