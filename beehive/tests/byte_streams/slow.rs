//! Bulk that fills a link of 256 kbit/s keeps neither pings nor mailboxes waiting.

use std::time::Duration;

use beehive::testing::Probe;
use beehive::{Env, Moment};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::fixture::{End, in_memory, link_with, stream};
use crate::loopback::{self, Kind, Wires};
use crate::relay::Slow;
use crate::wire::{self, Heard, Talk};
use beehive::link::memory::NetworkPath;

/// 256 kbit/s.
const PER_SECOND: u64 = 32_000;
/// Nothing urgent is later than this.
const IN_TIME: Duration = Duration::from_secs(2);

/// Fills both directions with bulk of three streams for so long, and asks a mailbox meanwhile, one question after the other.
/// Answers how long each answer took, the shortest first, and how many bytes the streams have carried, up and down.
async fn fill(
    env: &Env,
    edge: &End,
    cloud: &End,
    mut probe: Probe<Heard>,
    how_long: Duration,
) -> (Vec<Duration>, [Vec<u64>; 2]) {
    env.spawn(async move {
        while let Some(heard) = probe.next(Duration::from_secs(3600)).await {
            if let Talk::Length(text, reply) = heard.talk {
                reply.send(text.len());
            }
        }
    });
    let mut counts = [Vec::new(), Vec::new()];
    let mut kept = Vec::new();
    for _ in 0..3 {
        let (one, other) = stream(edge, cloud).await;
        for (end, counts) in [(one, 1), (other, 0)] {
            let (mut reader, mut writer) = tokio::io::split(end);
            env.spawn(async move { while writer.write_all(&[7; 4096]).await.is_ok() {} });
            let count = std::rc::Rc::new(std::cell::Cell::new(0_u64));
            let counting = std::rc::Rc::clone(&count);
            env.spawn(async move {
                let mut bytes = vec![0; 4096];
                while let Ok(len) = reader.read(&mut bytes).await {
                    counting.set(counting.get() + len as u64);
                }
            });
            kept.push((counts, count));
        }
    }
    let until: Moment = env.now() + how_long;
    let talk = edge.link.remote::<Talk>();
    let mut took = Vec::new();
    while env.now() < until {
        let asked = env.now();
        let answer = talk.ask(Duration::from_secs(30), |reply| Talk::Length(vec![0; 100], reply)).await;
        assert_eq!(answer, Ok(100));
        took.push(env.now().since(asked));
        env.sleep(Duration::from_millis(250)).await;
    }
    assert!(edge.link.byte_streams().is_up() && cloud.link.byte_streams().is_up());
    for (at, count) in kept {
        counts[at].push(count.get());
    }
    took.sort_unstable();
    (took, counts)
}

/// By a clock that nothing but the path moves.
fn check(took: &[Duration], carried: &[Vec<u64>; 2], how_long: Duration) {
    println!("longest ask {:?}, carried {carried:?} in {how_long:?}", took.last());
    assert!(*took.last().unwrap() <= IN_TIME, "{took:?}");
    for streams in carried {
        let all: u64 = streams.iter().sum();
        // Nor is that bought with the link.
        assert!(all > PER_SECOND * how_long.as_secs() * 6 / 10, "{carried:?}");
        // Streams share alike.
        assert!(streams.iter().all(|one| *one > all / 5), "{carried:?}");
    }
}

/// By the clock of a machine that others use too: one answer may be late because of them, and not half of them.
fn check_real(took: &[Duration], carried: &[Vec<u64>; 2], how_long: Duration) {
    println!("longest ask {:?}, carried {carried:?} in {how_long:?}", took.last());
    assert!(took[took.len() / 2] <= IN_TIME, "{took:?}");
    assert!(carried.iter().flatten().all(|one| *one > 0), "no stream waits for the others: {carried:?}");
}

async fn over_real(env: &Env, kind: Kind) {
    let slow = Slow { bytes_per_second: PER_SECOND, one_way: Duration::from_millis(20) };
    let wires = Wires::new(kind, Some(slow)).await;
    let (edge, cloud) = wires.connect().await;
    let (probe, heard) = Probe::new(env, 4);
    let (edge, cloud) = link_with(env, edge, cloud, wire::routes(heard)).await;
    let how_long = Duration::from_secs(20);
    let (took, carried) = fill(env, &edge, &cloud, probe, how_long).await;
    check_real(&took, &carried, how_long);
}

#[test]
fn mailboxes_pass_bulk_on_a_slow_quic_link() {
    loopback::run(async |env| over_real(&env, Kind::Quic).await);
}

#[test]
fn mailboxes_pass_bulk_on_a_slow_websocket_link() {
    loopback::run(async |env| over_real(&env, Kind::WebSocket).await);
}

#[test]
fn mailboxes_pass_ten_minutes_of_bulk_on_a_slow_network_path() {
    wire::run(async |env| {
        let network_path = NetworkPath::new();
        network_path.slow_down(&env.clock(), PER_SECOND);
        let (edge, cloud) = in_memory(&network_path);
        let (probe, heard) = Probe::new(&env, 4);
        let (edge, cloud) = link_with(&env, edge, cloud, wire::routes(heard)).await;
        let how_long = Duration::from_secs(600);
        let (took, carried) = fill(&env, &edge, &cloud, probe, how_long).await;
        check(&took, &carried, how_long);
    });
}
