//! Links that fall silent, on a paused clock: in whichever direction, both ends know within ten seconds.

use std::time::Duration;

use crate::pipe;
use crate::wire::run;
use crate::wire::{Talk, link};
use beehive::link::memory::{Direction, MemoryConnection, NetworkPath, pair};
use beehive::link::mux::Role;
use beehive::link::{CloseReason, Connection, Hello, IncomingLink, Link, PeerName, Routes, Urgency};
use beehive::{Env, Moment};
use bytes::Bytes;
use futures::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// After the second unanswered ping, before the end.
const JUST_BEFORE: Duration = Duration::from_millis(9500);
const TEN: Duration = Duration::from_secs(10);

fn ends(network_path: &NetworkPath) -> (MemoryConnection, MemoryConnection) {
    pair(network_path, PeerName::verified("edge-1", "01"), PeerName::verified("cloud", "02"))
}

/// A link that has been idle for so long that pings have gone both ways, and whatever is in the middle of a pause.
async fn idle(env: &Env, network_path: &NetworkPath, phase: Duration) -> (Link, Link) {
    let (edge, cloud) = ends(network_path);
    let (edge, cloud, _probe) = link(env, Box::new(edge), Box::new(cloud), 4).await;
    env.sleep(Duration::from_secs(60) + phase).await;
    (edge.unwrap(), cloud.unwrap())
}

/// The ends of both links, and how long after `begun` the later one knew.
async fn both_end(
    env: &Env,
    begun: Moment,
    edge: &Link,
    cloud: &Link,
) -> (CloseReason, CloseReason, Duration) {
    let (edge, cloud) = futures::join!(edge.ended(), cloud.ended());
    (edge, cloud, env.now().since(begun))
}

/// Every half second of the pause between pings.
fn phases() -> impl Iterator<Item = Duration> {
    (0..14).map(|step| Duration::from_millis(500 * step))
}

#[test]
fn a_way_that_closes_in_one_direction_is_noticed_at_both_ends() {
    run(async |env| {
        for (way, phase) in [Direction::ToAcceptor, Direction::ToDialler]
            .into_iter()
            .flat_map(|way| phases().map(move |p| (way, p)))
        {
            let network_path = NetworkPath::new();
            let (edge, cloud) = idle(&env, &network_path, phase).await;
            network_path.cut_direction(way);
            let (_, _, after) = both_end(&env, env.now(), &edge, &cloud).await;
            assert!(after <= TEN, "{way:?} {phase:?}: {after:?}");
        }
    });
}

#[test]
fn both_ends_time_out_even_when_the_last_frame_is_lost() {
    run(async |env| {
        for (way, back) in
            [(Direction::ToAcceptor, Direction::ToDialler), (Direction::ToDialler, Direction::ToAcceptor)]
        {
            let network_path = NetworkPath::new();
            let (edge, cloud) = idle(&env, &network_path, Duration::ZERO).await;
            // A message and its credit: both ends have just been heard.
            edge.remote::<Talk>().tell(Talk::Hurry).await.unwrap();
            env.sleep(Duration::from_millis(1)).await;
            let cut_at = env.now();
            network_path.cut_direction(way);
            // Just before the deaf end gives up, the way back closes, too: its goodbye does not arrive.
            let (cutter, clock) = (network_path.clone(), env.clone());
            env.spawn(async move {
                clock.sleep(JUST_BEFORE).await;
                cutter.cut_direction(back);
            });
            let (_, _, after) = both_end(&env, cut_at, &edge, &cloud).await;
            assert!(after <= TEN, "{way:?}: {after:?}");
        }
    });
}

#[test]
fn an_end_that_vanished_without_a_word_is_noticed() {
    run(async |env| {
        for phase in phases() {
            let network_path = NetworkPath::new();
            let (edge, cloud) = idle(&env, &network_path, phase).await;
            let gone_at = env.now();
            network_path.cut();
            drop(cloud);
            edge.ended().await;
            assert!(env.now().since(gone_at) <= TEN);
        }
    });
}

#[test]
fn an_end_that_stands_still_is_noticed_however_much_is_sent_to_it() {
    run(async |env| {
        let network_path = NetworkPath::new();
        let (edge, cloud) = ends(&network_path);
        // It says hello and never looks at the connection again, as a frozen process does.
        let frozen = async {
            let (mut writer, mut reader) = cloud.accept().await.unwrap();
            // The header, the versions, the length of the name, the name, no capabilities.
            let mut hello = vec![0; 20 + 2 + 1 + 6 + 1];
            reader.read_exact(&mut hello).await.unwrap();
            let mut ack = hello[..20].to_vec();
            (ack[3], ack[5]) = (18, 8);
            // Version 1, no capabilities.
            ack.extend([1, 0]);
            writer.write_all(&ack).await.unwrap();
            (writer, reader)
        };
        let greeting = Hello::of("edge-1");
        let greet = Link::connect(&env, Box::new(edge), &greeting, Routes::new());
        let (edge, _kept) = futures::join!(greet, frozen);
        let edge = edge.unwrap();
        let up_at = env.now();
        let talk = edge.remote::<Talk>();
        env.spawn(async move { while talk.tell(Talk::Say(vec![0; 100_000])).await.is_ok() {} });
        assert_eq!(edge.ended().await, CloseReason::IdleTimeout);
        assert_eq!(env.now().since(up_at), TEN);
        drop(cloud);
    });
}

#[test]
fn a_pipe_that_takes_no_more_is_noticed() {
    run(async |env| {
        let (edge, ingress, mut egress) = pipe::end(&env, Role::Dialled, "cloud");
        let cloud = async {
            // The stream opens, the hello comes; its answer goes back, and then the pipe stalls in both directions.
            for _ in 0..2 {
                egress.next().await.unwrap();
            }
            let ack = b"\x02\0\0\0\x01\0\0\0\x12\0\x08\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\0";
            ingress.take(Bytes::from_static(ack)).unwrap();
            (ingress, egress)
        };
        let greeting = Hello::of("edge-1");
        let greet = Link::connect(&env, Box::new(edge), &greeting, Routes::new());
        let (edge, _pipe) = futures::join!(greet, cloud);
        let (edge, up_at) = (edge.unwrap(), env.now());
        let talk = edge.remote::<Talk>();
        env.spawn(async move { while talk.tell(Talk::Say(vec![0; 100_000])).await.is_ok() {} });
        assert_eq!(edge.ended().await, CloseReason::IdleTimeout);
        assert_eq!(env.now().since(up_at), TEN);
    });
}

#[test]
fn a_frame_that_takes_half_a_minute_is_a_sign_of_life_all_the_while() {
    run(async |env| {
        let network_path = NetworkPath::new();
        network_path.slow_down(&env.clock(), 32_000);
        let (edge, cloud) = ends(&network_path);
        let (edge, cloud, mut probe) = link(&env, Box::new(edge), Box::new(cloud), 4).await;
        let (edge, _cloud) = (edge.unwrap(), cloud.unwrap());
        let begun = env.now();
        edge.remote::<Talk>().tell(Talk::Say(vec![0; 1 << 19])).await.unwrap();
        edge.remote::<Talk>().tell(Talk::Say(vec![0; 1 << 19])).await.unwrap();
        for _ in 0..2 {
            probe.next(Duration::from_secs(100)).await.unwrap();
        }
        assert!(env.now().since(begun) > Duration::from_secs(30));
    });
}

#[test]
fn a_short_hole_in_one_direction_ends_nothing() {
    run(async |env| {
        for phase in phases() {
            let network_path = NetworkPath::new();
            let (edge, cloud) = idle(&env, &network_path, phase).await;
            network_path.cut_direction(Direction::ToAcceptor);
            env.sleep(Duration::from_millis(2500)).await;
            network_path.mend();
            env.sleep(Duration::from_secs(60)).await;
            assert!(env.timeout(Duration::ZERO, edge.ended()).await.is_none(), "{phase:?}");
            drop((edge, cloud));
        }
    });
}

#[test]
fn a_connection_that_opens_streams_without_a_hello_is_closed() {
    run(async |env| {
        let (edge, cloud) = ends(&NetworkPath::new());
        let mut kept = Vec::new();
        for _ in 0..3 {
            kept.push(edge.open(Urgency::Work).await.unwrap());
        }
        let begun = env.now();
        assert!(IncomingLink::read_hello(&env, Box::new(cloud)).await.is_err());
        assert_eq!(env.now().since(begun), Duration::from_secs(5));
    });
}
