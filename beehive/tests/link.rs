//! Links over the transport in memory, on a paused clock.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod wire;

use std::time::Duration;

use beehive::link::memory::{MemoryConnection, NetworkPath, pair};
use beehive::link::{
    CloseReason, Connection, Hello, IncomingLink, Link, LinkError, PeerName, Refused, Routes, Urgency,
    Versions,
};
use beehive::{AskError, Refusal};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use wire::{Heard, LONG, Talk, link, run};

fn ends(network_path: &NetworkPath) -> (Box<dyn Connection>, Box<dyn Connection>) {
    let (edge, cloud): (MemoryConnection, MemoryConnection) =
        pair(network_path, PeerName::verified("edge-1", "01"), PeerName::verified("cloud", "02"));
    (Box::new(edge), Box::new(cloud))
}

fn text(heard: Heard) -> Vec<u8> {
    match heard.talk {
        Talk::Say(text) => text,
        other => panic!("{other:?}"),
    }
}

#[test]
fn messages_arrive_in_order_under_the_name_of_the_certificate() {
    run(async |env| {
        let (edge, cloud) = ends(&NetworkPath::new());
        let (edge, _cloud, mut probe) = link(&env, edge, cloud, 200).await;
        let edge = edge.unwrap();
        let talk = edge.remote::<Talk>();
        for number in 0..100_u8 {
            talk.tell(Talk::Say(vec![number])).await.unwrap();
        }
        for number in 0..100_u8 {
            let heard = probe.next(LONG).await.unwrap();
            assert_eq!(heard.from, "edge-1");
            assert_eq!(text(heard), [number]);
        }
        assert!(edge.traffic().sent() > 1900, "{}", edge.traffic().sent());
    });
}

#[test]
fn an_ask_brings_its_answer_and_a_refused_body_a_sentence() {
    run(async |env| {
        let (edge, cloud) = ends(&NetworkPath::new());
        let (edge, _cloud, mut probe) = link(&env, edge, cloud, 4).await;
        let edge = edge.unwrap();
        let talk = edge.remote::<Talk>();
        env.spawn(async move {
            while let Some(heard) = probe.next(LONG).await {
                match heard.talk {
                    Talk::Length(text, reply) if text.is_empty() => drop(reply),
                    Talk::Length(text, reply) => reply.send(text.len()),
                    Talk::Say(_) | Talk::Hurry => {}
                }
            }
        });
        assert_eq!(talk.ask(LONG, |reply| Talk::Length(vec![0; 300], reply)).await, Ok(300));
        let crashed = talk.ask(LONG, |reply| Talk::Length(Vec::new(), reply)).await;
        assert!(matches!(crashed, Err(AskError::Rejected(why)) if why.contains("crashed")));
        let large = talk.ask(LONG, |reply| Talk::Length(vec![0; (1 << 20) + 1], reply)).await;
        assert_eq!(large, Err(AskError::Refused(Refusal::TooLarge)));
        // The lane goes on after all of that.
        assert_eq!(talk.ask(LONG, |reply| Talk::Length(vec![0; 3], reply)).await, Ok(3));
    });
}

#[test]
fn a_mailbox_that_nobody_empties_stops_its_sender_and_nothing_else() {
    run(async |env| {
        let (edge, cloud) = ends(&NetworkPath::new());
        let (edge, _cloud, mut probe) = link(&env, edge, cloud, 1).await;
        let edge = edge.unwrap();
        let talk = edge.remote::<Talk>();
        let mut taken = 0;
        while env.timeout(LONG, talk.tell(Talk::Say(vec![0]))).await.is_some() {
            taken += 1;
            assert!(taken < 100, "no back-pressure");
        }
        // One in the mailbox; 16 that have credits, one of them in front of it.
        assert_eq!(taken, 17);
        assert_eq!(talk.try_tell(Talk::Say(vec![0])), Err(Refusal::Full));
        // Control has a stream of its own.
        talk.try_tell(Talk::Hurry).unwrap();
        // Virtual time: everything that can move has moved.
        env.sleep(Duration::from_secs(1)).await;
        assert!(matches!(probe.next(LONG).await.unwrap().talk, Talk::Hurry));
        for _ in 0..taken {
            probe.next(LONG).await.unwrap();
        }
        talk.tell(Talk::Say(vec![9])).await.unwrap();
        assert_eq!(text(probe.next(LONG).await.unwrap()), [9]);
    });
}

#[test]
fn a_silent_network_path_ends_the_link_within_ten_seconds_and_its_asks_with_it() {
    run(async |env| {
        let network_path = NetworkPath::new();
        let (edge, cloud) = ends(&network_path);
        let (edge, cloud, _probe) = link(&env, edge, cloud, 4).await;
        let (edge, cloud) = (edge.unwrap(), cloud.unwrap());
        let talk = edge.remote::<Talk>();
        // An hour of silence on a whole network path ends nothing.
        env.sleep(Duration::from_secs(3600)).await;
        assert!(talk.is_up());
        network_path.cut();
        let cut_at = env.now();
        let ask = talk.ask(Duration::from_secs(60), |reply| Talk::Length(vec![1], reply));
        let (answer, edge_end, cloud_end) = futures::join!(ask, edge.ended(), cloud.ended());
        assert_eq!(answer, Err(AskError::LinkDown));
        assert_eq!((edge_end, cloud_end), (CloseReason::IdleTimeout, CloseReason::IdleTimeout));
        assert!(env.now().since(cut_at) <= Duration::from_secs(10), "{:?}", env.now().since(cut_at));
        assert!(!talk.is_up());
        assert_eq!(talk.tell(Talk::Hurry).await, Err(Refusal::LinkDown));
        assert_eq!(talk.try_tell(Talk::Hurry), Err(Refusal::LinkDown));
    });
}

#[test]
fn a_link_that_is_closed_says_so_to_the_other_end() {
    run(async |env| {
        let (edge, cloud) = ends(&NetworkPath::new());
        let (edge, cloud, _probe) = link(&env, edge, cloud, 4).await;
        let closed_at = env.now();
        let ended = cloud.as_ref().unwrap().ended();
        drop(edge);
        assert_eq!(ended.await, CloseReason::Remote);
        assert_eq!(env.now(), closed_at);
    });
}

#[test]
fn only_allowed_mailboxes_can_be_reached() {
    run(async |env| {
        let (edge, cloud) = ends(&NetworkPath::new());
        let greeting = Hello::of("edge-1");
        let greet = Link::connect(&env, edge, &greeting, Routes::new());
        let meet = async { IncomingLink::read_hello(&env, cloud).await.unwrap().admit(Routes::new()).await };
        let (edge, cloud) = futures::join!(greet, meet);
        let (edge, _cloud) = (edge.unwrap(), cloud.unwrap());
        let answer = edge.remote::<Talk>().ask(LONG, |reply| Talk::Length(vec![1], reply)).await;
        assert_eq!(answer, Err(AskError::LinkDown));
        assert!(edge.remote::<Talk>().is_up(), "a refused stream must not end the link");
    });
}

#[test]
fn a_refused_link_is_told_why_and_how_long_to_wait() {
    run(async |env| {
        let (edge, cloud) = ends(&NetworkPath::new());
        let greeting = Hello::of("edge-1");
        let greet = Link::connect(&env, edge, &greeting, Routes::new());
        let why = Refused { reason: "too many".to_owned(), wait: Some(Duration::from_secs(7)) };
        let refuse = async { IncomingLink::read_hello(&env, cloud).await.unwrap().refuse(why.clone()).await };
        let (edge, ()) = futures::join!(greet, refuse);
        assert!(matches!(edge, Err(LinkError::Refused(heard)) if heard == why));
    });
}

#[test]
fn a_wrong_name_and_an_unknown_version_are_refused() {
    run(async |env| {
        let cases = [
            (Hello::of("edge-2"), "it calls itself `edge-2`"),
            (
                Hello { versions: Versions { oldest: 8, newest: 9 }, name: "edge-1".into() },
                "upgrade the end that it reached",
            ),
        ];
        for (greeting, sentence) in cases {
            let (edge, cloud) = ends(&NetworkPath::new());
            let greet = Link::connect(&env, edge, &greeting, Routes::new());
            let (edge, cloud) = futures::join!(greet, IncomingLink::read_hello(&env, cloud));
            assert!(cloud.is_err());
            match edge {
                Err(LinkError::Refused(why)) => assert!(why.reason.contains(sentence), "{}", why.reason),
                other => panic!("{other:?}"),
            }
        }
    });
}

#[test]
fn silence_instead_of_a_hello_is_given_up_after_five_seconds() {
    run(async |env| {
        let (edge, cloud) = ends(&NetworkPath::new());
        let begun = env.now();
        assert!(matches!(IncomingLink::read_hello(&env, cloud).await, Err(LinkError::Late)));
        assert_eq!(env.now().since(begun), Duration::from_secs(5));
        drop(edge);
    });
}

#[test]
fn bytes_that_are_no_frames_end_their_stream_only() {
    run(async |env| {
        let network_path = NetworkPath::new();
        let (edge, cloud) =
            pair(&network_path, PeerName::verified("edge-1", "01"), PeerName::verified("cloud", "02"));
        let (probe, heard) = beehive::testing::Probe::<Heard>::new(&env, 4);
        let meet = async {
            IncomingLink::read_hello(&env, Box::new(cloud)).await.unwrap().admit(wire::routes(heard)).await
        };
        let hello = async {
            let (mut writer, mut reader) = edge.open(Urgency::Work).await.unwrap();
            let mut frame = vec![0, 0, 0, 26, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            frame.extend([1, 1, 6]);
            frame.extend(b"edge-1\0");
            writer.write_all(&frame).await.unwrap();
            let mut ack = [0; 22];
            reader.read_exact(&mut ack).await.unwrap();
            (writer, reader, ack)
        };
        let (link, (_writer, _reader, ack)) = futures::join!(meet, hello);
        assert_eq!(ack[5], 8);
        let link = link.unwrap();
        for hostile in
            [&b"\xff\xff\xff\xff"[..], b"GET / HTTP/1.1\r\n\r\n", b"\0\0\0\x10\x01\x63aaaaaaaaaaaaaa"]
        {
            let (mut writer, mut reader) = edge.open(Urgency::Work).await.unwrap();
            writer.write_all(hostile).await.unwrap();
            // The stream is ended, with a sentence or without.
            let mut rest = Vec::new();
            reader.read_to_end(&mut rest).await.unwrap();
        }
        let still = env.timeout(LONG, link.ended()).await;
        assert_eq!(still, None);
        drop(probe);
    });
}
