//! Links over one ordered pipe, on a paused clock: what the streams of a connection promise, and what ends it.

use std::time::Duration;

use crate::pipe::{self, Pipe};
use crate::wire::run;
use crate::wire::{LONG, Talk, link};
use beehive::Refusal;
use beehive::link::mux::{self, MUX_FRAME_MAX, Role, STREAMS_MAX};
use beehive::link::{CloseReason, Connection, PeerName, Urgency};
use bytes::Bytes;
use futures::StreamExt;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[test]
fn messages_and_answers_cross_a_pipe() {
    run(async |env| {
        let (edge, cloud) = pipe::ends(&env, Pipe::FAST);
        let (edge, cloud, mut probe) = link(&env, edge, cloud, 4).await;
        let (edge, cloud) = (edge.unwrap(), cloud.unwrap());
        assert_eq!((edge.peer().as_str(), cloud.peer().as_str()), ("cloud", "edge-1"));
        let talk = edge.remote::<Talk>();
        env.spawn(async move {
            while let Some(heard) = probe.next(LONG).await {
                assert_eq!(heard.from, "edge-1");
                if let Talk::Length(text, reply) = heard.talk {
                    reply.send(text.len());
                }
            }
        });
        // The largest frame, and more than every window together.
        for len in [0, 1, 1 << 20, 300_000, (1 << 20) - 1] {
            let length = talk.ask(LONG, |reply| Talk::Length(vec![7; len], reply)).await;
            // The kind takes one byte.
            let expected =
                if len == 1 << 20 { Err(beehive::AskError::Refused(Refusal::TooLarge)) } else { Ok(len) };
            assert_eq!(length, expected);
        }
        let ended = cloud.ended();
        drop(edge);
        assert_eq!(ended.await, CloseReason::Remote);
    });
}

#[test]
fn a_stream_that_nobody_reads_stops_its_writer_and_no_other() {
    run(async |env| {
        let (edge, cloud) = pipe::ends(&env, Pipe::FAST);
        let (mut stuck, _stuck_back) = edge.open(Urgency::Work).await.unwrap();
        let (_there, _there_reader) = {
            stuck.write_all(&[1]).await.unwrap();
            cloud.accept().await.unwrap()
        };
        let mut written = 0;
        while env.timeout(LONG, stuck.write_all(&[0; 1024])).await.is_some() {
            written += 1024;
            assert!(written < 1 << 20, "no back-pressure");
        }
        // The window at the other end, and what a writer may leave at this one.
        assert_eq!(written / 1024, 256 + 64 - 1);
        let (mut free, _free_back) = edge.open(Urgency::Work).await.unwrap();
        free.write_all(b"passes").await.unwrap();
        drop(free);
        let (_writer, mut reader) = cloud.accept().await.unwrap();
        let mut text = String::new();
        reader.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "passes");
    });
}

#[test]
fn a_reader_that_is_gone_stops_the_writer_and_streams_are_used_up_by_no_number_of_them() {
    run(async |env| {
        let (edge, cloud) = pipe::ends(&env, Pipe::FAST);
        for _ in 0..10 * STREAMS_MAX {
            let (mut writer, _reader) = edge.open(Urgency::Work).await.unwrap();
            writer.write_all(b"x").await.unwrap();
            drop(cloud.accept().await.unwrap());
            let stopped = async {
                while writer.write_all(&[0; 4096]).await.is_ok() {
                    env.sleep(Duration::from_millis(1)).await
                }
            };
            env.timeout(LONG, stopped).await.unwrap();
        }
    });
}

#[test]
fn a_pipe_that_ends_ends_the_connection_and_what_came_is_still_read() {
    run(async |env| {
        let (edge, ingress, mut egress) = pipe::end(&env, Role::Dialled, "cloud");
        let (mut writer, mut reader) = edge.open(Urgency::Link).await.unwrap();
        writer.write_all(b"hello").await.unwrap();
        let frames: Vec<Bytes> = vec![egress.next().await.unwrap(), egress.next().await.unwrap()];
        assert_eq!(frames[0][..], [1, 0, 0, 0, 1, 0]);
        assert_eq!(frames[1][..], *b"\x03\0\0\0\x01hello");
        ingress.take(Bytes::from_static(b"\x02\0\0\0\x01back")).unwrap();
        drop(ingress);
        let mut back = [0; 4];
        reader.read_exact(&mut back).await.unwrap();
        assert_eq!(&back, b"back");
        assert!(reader.read_exact(&mut back).await.is_err());
        assert!(writer.write_all(b"more").await.is_err());
        assert!(edge.accept().await.is_err());
        assert!(edge.open(Urgency::Work).await.is_err());
        assert_eq!(egress.next().await, None);
    });
}

#[test]
fn a_connection_that_is_closed_says_so_and_ends() {
    run(async |env| {
        let (edge, _inlet, mut egress) = pipe::end(&env, Role::Dialled, "cloud");
        drop(edge);
        assert_eq!(egress.next().await.unwrap()[..], [8]);
        assert_eq!(egress.next().await, None);
    });
}

#[test]
fn a_protocol_violation_is_named_and_ends_the_connection() {
    run(async |env| {
        let too_long = [vec![2, 0, 0, 0, 1], vec![0; MUX_FRAME_MAX]].concat();
        let cases: [(&[&[u8]], &str); 8] = [
            (&[b"\x01\0\0\0\x02\x02"], "stream 2 opened, which is not the next"),
            (&[b"\x01\0\0\0\x03\x02", b"\x01\0\0\0\x01\x02"], "stream 1 opened"),
            (&[b"\x02\0\0\0\x05xyz"], "bytes on stream 5, which is not open"),
            (&[b"\x05\0\0\0\x05"], "the end of stream 5"),
            (&[b"\x01\0\0\0\x01\x02", b"\x04\0\0\0\x01\xff\xff\xff\xff"], "a window of"),
            (&[b"\x63"], "unknown kind 99"),
            (&[b"GET / HTTP/1.1\r\n\r\n"], "unknown kind 71"),
            (&[&too_long], "at most"),
        ];
        for (frames, sentence) in cases {
            let (cloud, ingress, mut egress) = pipe::end(&env, Role::Accepted, "edge-1");
            let mut last = Ok(());
            for frame in frames {
                last = ingress.take(Bytes::copy_from_slice(frame));
            }
            let breach = last.unwrap_err().to_string();
            assert!(breach.contains(sentence), "{breach}");
            assert!(cloud.open(Urgency::Work).await.is_err());
            assert_eq!(egress.next().await, None);
        }
    });
}

#[test]
fn neither_more_streams_nor_more_bytes_than_agreed_are_held() {
    run(async |env| {
        let (_cloud, ingress, _outlet) = pipe::end(&env, Role::Accepted, "edge-1");
        let open =
            |id: u32| ingress.take(Bytes::from([vec![1], id.to_be_bytes().to_vec(), vec![2]].concat()));
        for number in 0..STREAMS_MAX as u32 {
            open(2 * number + 1).unwrap();
        }
        assert!(open(2 * STREAMS_MAX as u32 + 1).unwrap_err().to_string().contains("more than 72 streams"));
    });
}

const WINDOW: u8 = 4;

/// Opens so many streams and sends on each as much as it may; answers how many bytes were taken of each.
async fn fill(env: &beehive::Env, streams: u32, frame: usize) -> Vec<usize> {
    let (_cloud, ingress, mut egress) = pipe::end(env, Role::Accepted, "edge-1");
    let mut taken = Vec::new();
    for id in (0..streams).map(|number| (2 * number + 1).to_be_bytes().to_vec()) {
        ingress.take(Bytes::from([vec![1], id.clone(), vec![2]].concat())).unwrap();
        let (mut sent, mut allowed) = (0, 32 << 10);
        while sent < allowed {
            let frame = frame.min(allowed - sent);
            ingress.take(Bytes::from([vec![2], id.clone(), vec![0; frame]].concat())).unwrap();
            sent += frame;
            while let Some(Some(frame)) = env.timeout(Duration::ZERO, egress.next()).await {
                if frame[0] == WINDOW {
                    allowed += u32::from_be_bytes(frame[5..9].try_into().unwrap()) as usize;
                }
            }
        }
        taken.push(sent);
    }
    // Not one more.
    let more = ingress.take(Bytes::from_static(b"\x02\0\0\0\x01x"));
    assert!(more.unwrap_err().to_string().contains("than its window allows"));
    taken
}

#[test]
fn all_streams_together_hold_no_more_than_the_connection_may() {
    run(async |env| {
        assert_eq!(fill(&env, 1, 8192).await, [256 << 10]);
        let taken = fill(&env, STREAMS_MAX as u32, 8192).await;
        // The first are wide, and each has its own.
        assert_eq!((taken[0], taken[7], taken[8], taken[71]), (256 << 10, 256 << 10, 32 << 10, 32 << 10));
        assert!(taken.iter().sum::<usize>() <= 4 << 20);
    });
}

#[test]
fn before_a_hello_was_answered_one_stream_and_a_few_bytes_are_taken() {
    run(async |env| {
        let stranger = || mux::over(Role::Accepted, PeerName::verified("edge-1", "01"), env.clock());
        let first = Bytes::from_static(b"\x01\0\0\0\x01\0");
        let data = |len| Bytes::from([vec![2, 0, 0, 0, 1], vec![0; len]].concat());
        let (cloud, ingress, _outlet) = stranger();
        ingress.take(first.clone()).unwrap();
        ingress.take(data(8192)).unwrap();
        ingress.take(data(8192)).unwrap();
        assert!(ingress.take(data(1)).unwrap_err().to_string().contains("more than a hello"));
        assert!(cloud.open(Urgency::Work).await.is_err());
        let (cloud, ingress, _outlet) = stranger();
        ingress.take(first).unwrap();
        let second = Bytes::from_static(b"\x01\0\0\0\x03\x02");
        assert!(ingress.take(second.clone()).unwrap_err().to_string().contains("a second stream before"));
        drop(cloud);
        // Also when the first is over.
        let (cloud, ingress, _outlet) = stranger();
        ingress.take(Bytes::from_static(b"\x01\0\0\0\x01\0")).unwrap();
        ingress.take(Bytes::from_static(b"\x05\0\0\0\x01")).unwrap();
        drop(cloud.accept().await.unwrap());
        assert!(ingress.take(second.clone()).is_err());
        let (cloud, ingress, _outlet) = stranger();
        ingress.take(Bytes::from_static(b"\x01\0\0\0\x01\0")).unwrap();
        cloud.admitted();
        ingress.take(second).unwrap();
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn no_messages_end_more_than_their_connection(
        frames in proptest::collection::vec((0_u8..9, 0_u32..6, proptest::collection::vec(any::<u8>(), 0..9)), 0..60),
    ) {
        run(async |env| {
            let (cloud, ingress, mut egress) = pipe::end(&env, Role::Accepted, "edge-1");
            for (kind, stream, rest) in frames {
                let frame = [vec![kind], stream.to_be_bytes().to_vec(), rest].concat();
                if ingress.take(Bytes::from(frame)).is_err() {
                    break;
                }
                drop(env.timeout(Duration::ZERO, cloud.accept()).await);
                while env.timeout(Duration::ZERO, egress.next()).await.flatten().is_some() {}
            }
        });
    }
}

#[test]
fn frames_without_bytes_end_the_connection_when_nothing_has_earned_them() {
    run(async |env| {
        // Echoes, windows and stops of streams that are none, as they stand in the golden file.
        let floods: [&[u8]; 3] =
            [&[7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], &[4, 0, 0, 0, 3, 0, 0, 0, 1], &[6, 0, 0, 0, 3]];
        for flood in floods {
            let (connection, ingress, _egress) = pipe::end(&env, Role::Accepted, "edge-1");
            let taken =
                (0..1_000_000).take_while(|_| ingress.take(Bytes::from_static(flood)).is_ok()).count();
            assert_eq!(taken, 32_768, "{flood:?}");
            assert!(connection.open(Urgency::Work).await.is_err(), "the connection has ended");
        }
        let (_connection, ingress, _egress) = pipe::end(&env, Role::Accepted, "edge-1");
        assert_eq!(
            (0..1_000_000).take_while(|_| ingress.nothing().is_ok()).count(),
            32_768,
            "pings count, too"
        );
        // At its own pace an end may send them for ever.
        let (_connection, ingress, _egress) = pipe::end(&env, Role::Accepted, "edge-1");
        for _ in 0..200 {
            (0..1000).for_each(|_| ingress.take(Bytes::from_static(floods[0])).unwrap());
            env.sleep(Duration::from_secs(1)).await;
        }
        // Of an end that was not let in hardly any is taken.
        let (_connection, ingress, _egress) =
            mux::over(Role::Accepted, PeerName::verified("edge-1", "01"), env.clock());
        let taken = (0..1000).take_while(|_| ingress.take(Bytes::from_static(floods[0])).is_ok()).count();
        assert_eq!(taken, 64);
    });
}
