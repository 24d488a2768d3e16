//! Ends that do not keep to their credits, and how much they can make the other one hold.

use std::time::Duration;

use beehive::link::wire::{DecodeError, EncodeError, Outgoing, ReplyTo, Wire};
use beehive::link::{PeerName, Protocol, Routes};
use beehive::testing::Probe;
use beehive::{AskError, Message, Reply};
use tokio::io::AsyncWriteExt;

use crate::raw::{ASK, CREDIT, NACK, REPLY, Raw, TELL, frame, next, write_what_is_taken};
use crate::wire::run;
use crate::wire::{Heard, LONG, Talk, routes};

const MIB: usize = 1 << 20;
/// What the transport in memory holds of each stream.
const WINDOW: usize = 64 << 10;

/// A mailbox beside the other one; an ask wants so many bytes.
#[derive(Debug)]
enum FreeMsg {
    Pass,
    Give(Reply<Vec<u8>>),
}

impl Message for FreeMsg {
    fn name(&self) -> &'static str {
        "FreeMsg"
    }
}

impl Wire for FreeMsg {
    const MAILBOX: &'static str = "aside";

    fn encode(self, _: &Protocol) -> Result<Outgoing, EncodeError> {
        Err(EncodeError::new("it only listens".to_owned()))
    }

    fn decode(_: &[u8], reply: Option<ReplyTo>, _: &Protocol) -> Result<Self, DecodeError> {
        Ok(match reply {
            None => FreeMsg::Pass,
            Some(to) => {
                FreeMsg::Give(Reply::carried(move |answer: Result<Vec<u8>, AskError>| match answer {
                    Ok(bytes) => to.send(bytes),
                    Err(why) => to.fail(why.to_string()),
                }))
            }
        })
    }
}

fn tell(version: u8, size: usize) -> Vec<u8> {
    frame(version, TELL, 0, 0, &vec![1; size])
}

#[test]
fn a_sender_beyond_its_credits_is_told_and_its_stream_ends() {
    run(async |env| {
        let (mut probe, heard) = Probe::<Heard>::new(&env, 1);
        let raw = Raw::link(&env, 1, routes(heard)).await;
        for (size, count, sentence) in [
            (1, 40, "more than 16 messages without a credit for them; the stream is ended"),
            (300_000, 5, "message of 300000 bytes, and credits for 148576 are left; the stream is ended"),
        ] {
            let (mut writer, mut reader) = raw.stream(1, "talk").await;
            let flood = tell(1, size).repeat(count);
            let taken = write_what_is_taken(&env, &mut writer, &flood).await;
            // Its credits, and what the transport holds.
            assert!(taken <= MIB + WINDOW + 16 * 20 + 300_020, "{taken}");
            let said = async {
                loop {
                    match next(&mut reader).await {
                        Some(said) if said.kind == CREDIT => {}
                        said => return said,
                    }
                }
            };
            let said = env.timeout(LONG, said).await.unwrap().unwrap();
            assert_eq!((said.kind, said.id, said.text()), (NACK, 0, sentence));
            // What was within its credits still arrives, and then the stream is over.
            while probe.next(LONG).await.is_some() {}
            while next(&mut reader).await.is_some() {}
        }
        // The link is not.
        assert!(env.timeout(LONG, raw.link.ended()).await.is_none());
        let (mut writer, _reader) = raw.stream(1, "talk").await;
        writer.write_all(&tell(1, 1)).await.unwrap();
        assert_eq!(probe.next(LONG).await.unwrap().from, "edge-1");
    });
}

#[test]
fn all_streams_together_make_an_end_hold_no_more_than_its_bound_and_small_messages_pass() {
    run(async |env| {
        {
            let version = 1;
            let (mut stuck, heard) = Probe::<Heard>::new(&env, 1);
            let (mut free, aside) = Probe::<FreeMsg>::new(&env, 1);
            let routes = routes(heard).accept(aside, |aside: FreeMsg, _: &PeerName| aside);
            let raw = Raw::link(&env, version, routes).await;
            let mut streams = Vec::new();
            let mut taken = 0;
            // As much as the credits of one stream allow.
            let flood = tell(version, 250_000).repeat(4);
            for _ in 0..60 {
                let (mut writer, reader) = raw.stream(version, "talk").await;
                taken += write_what_is_taken(&env, &mut writer, &flood).await;
                streams.push((writer, reader));
            }
            // One is in the mailbox; each stream has its own window in the transport.
            assert!(taken <= 4 * MIB + 250_020 + 60 * (WINDOW + 40), "{taken}");
            assert!(taken >= 3 * MIB, "{taken}");
            // Another mailbox is reached all the same, again and again.
            let (mut writer, mut reader) = raw.stream(version, "aside").await;
            for _ in 0..50 {
                writer.write_all(&tell(version, 10_000)).await.unwrap();
                assert!(matches!(free.next(LONG).await, Some(FreeMsg::Pass)));
                assert_eq!(next(&mut reader).await.unwrap().kind, CREDIT);
            }
            // And when the actor goes on, so does everything that was taken as a whole.
            for _ in 0..taken / 250_020 - 16 {
                assert!(matches!(stuck.next(LONG).await.unwrap().talk, Talk::Say(_)));
            }
        }
    });
}

#[test]
fn a_length_without_its_bytes_takes_no_small_room_from_others() {
    run(async |env| {
        let (mut probe, heard) = Probe::<Heard>::new(&env, 4);
        let raw = Raw::link(&env, 1, routes(heard)).await;
        let mut kept = Vec::new();
        for _ in 0..20 {
            let (mut writer, reader) = raw.stream(1, "talk").await;
            writer.write_all(&tell(1, MIB)[..100]).await.unwrap();
            kept.push((writer, reader));
        }
        let (mut writer, _reader) = raw.stream(1, "talk").await;
        writer.write_all(&tell(1, 10_000)).await.unwrap();
        assert!(probe.next(LONG).await.is_some());
    });
}

#[test]
fn unread_answers_stop_further_asks() {
    run(async |env| {
        let (mut probe, aside) = Probe::<FreeMsg>::new(&env, 4);
        let routes = Routes::new().accept(aside, |aside: FreeMsg, _: &PeerName| aside);
        let raw = Raw::link(&env, 1, routes).await;
        let mut streams = Vec::new();
        for _ in 0..4 {
            let (mut writer, reader) = raw.stream(1, "aside").await;
            for id in 1..=16 {
                writer.write_all(&frame(1, ASK, id, 0, &[])).await.unwrap();
            }
            streams.push((writer, reader));
        }
        let mut answered = 0;
        let mut answer = async |limit: Duration| {
            while let Some(FreeMsg::Give(reply)) = probe.next(limit).await {
                reply.send(vec![0; 300_000]);
                answered += 1;
            }
            answered
        };
        let unread = answer(Duration::from_secs(1)).await;
        // Of 64: what fills the bound, and what each stream had taken before.
        assert!((4..=16).contains(&unread), "{unread}");
        let replies = futures::future::join_all(streams.iter_mut().map(async |(_, reader)| {
            let mut replies = 0;
            while let Some(Some(said)) = env.timeout(LONG, next(reader)).await {
                replies += usize::from(said.kind == REPLY);
            }
            replies
        }));
        let (replies, answered) = futures::join!(replies, answer(Duration::from_secs(1)));
        assert_eq!(replies, [16; 4]);
        assert_eq!(answered, 64);
    });
}

#[test]
fn a_flood_on_one_link_keeps_no_message_of_another_waiting_for_long() {
    run(async |env| {
        let (mut probe, heard) = Probe::<Heard>::new(&env, 1);
        let flood = Raw::link(&env, 1, routes(heard.clone())).await;
        let honest = Raw::link(&env, 1, routes(heard)).await;
        let mut streams = Vec::new();
        for _ in 0..60 {
            let (mut writer, reader) = flood.stream(1, "talk").await;
            write_what_is_taken(&env, &mut writer, &tell(1, 10).repeat(16)).await;
            streams.push((writer, reader));
        }
        let (mut writer, _reader) = honest.stream(1, "talk").await;
        writer.write_all(&frame(1, TELL, 0, 0, b"\x01honest")).await.unwrap();
        env.sleep(Duration::from_millis(1)).await;
        // One in the mailbox, and one of each stream of the flood in front of it: of 960.
        let mut before = 0;
        while !matches!(probe.next(LONG).await.unwrap().talk, Talk::Say(text) if text == b"honest") {
            before += 1;
        }
        assert!(before <= 61, "{before}");
    });
}
