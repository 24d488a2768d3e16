//! A hundred thousand connections that are never admitted, at each transport of a link, and the memory that they cost.
//! Alone in its process, so that nothing else grows beside it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod wire;

use std::cell::Cell;
use std::time::Duration;

use beehive::Env;
use beehive::link::memory::{MemoryConnection, NetworkPath, pair};
use beehive::link::mux::{MUX_FRAME_MAX, Role, over};
use beehive::link::{Connection, IncomingLink, PeerName, Routes, Urgency};
use beehive::testing::Probe;
use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use wire::{Heard, LONG, Talk};

const STRANGERS: usize = 100_000;
/// Before anything is measured: what is kept once (tables, buffers of the allocator) is there then.
const FIRST: usize = 5_000;
/// 2 MiB of resident memory.
const GROWTH_KIB: u64 = 2 << 10;

/// Longer than any of them stays.
const HOUR: Duration = Duration::from_secs(3600);

/// Resident memory in KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Runs `door` on a first lot and on a hundred thousand, and looks at what has grown.
fn measure(name: &str, mut door: impl FnMut(usize)) {
    (0..FIRST).for_each(&mut door);
    let before = resident();
    (FIRST..FIRST + STRANGERS).for_each(&mut door);
    let growth = resident().saturating_sub(before);
    println!("{name}: {STRANGERS} inputs, {growth} KiB more than {before} KiB");
    assert!(growth <= GROWTH_KIB, "{name}: {growth} KiB");
}

/// Numbers that differ for every input and are the same in every run.
struct Numbers(u64);

impl Numbers {
    fn of(input: usize) -> Numbers {
        Numbers((input as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) + 1)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    fn bytes(&mut self, most: u64) -> Vec<u8> {
        let len = self.below(most);
        (0..len).map(|_| u8::try_from(self.below(256)).unwrap()).collect()
    }
}

fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(16 + body.len()).unwrap().to_be_bytes().to_vec();
    bytes.extend([if (7..=9).contains(&kind) { 0 } else { 1 }, kind]);
    bytes.extend([0; 14]);
    bytes.extend(body);
    bytes
}

/// Bytes that are no frame, a frame that was damaged, or one that lies about its length.
fn hostile(numbers: &mut Numbers, kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = match numbers.below(4) {
        0 => numbers.bytes(64),
        1 => frame(u8::try_from(numbers.below(14)).unwrap(), &numbers.bytes(600)),
        2 => frame(kind, &[body, &numbers.bytes(300)].concat()),
        _ => frame(kind, body),
    };
    for _ in 0..numbers.below(4) {
        if !bytes.is_empty() {
            let at = usize::try_from(numbers.below(bytes.len() as u64)).unwrap();
            bytes[at] = u8::try_from(numbers.below(256)).unwrap();
        }
    }
    bytes
}

fn ends() -> (MemoryConnection, MemoryConnection) {
    pair(&NetworkPath::new(), PeerName::verified("edge-1", "01"), PeerName::verified("cloud", "02"))
}

/// Says something that may be a hello, and goes.
async fn greet(env: &Env, input: usize) {
    let (edge, cloud) = ends();
    let mut numbers = Numbers::of(input);
    let said = hostile(&mut numbers, 7, b"\x01\x01\x06edge-1\x02\x07deflate\x01a");
    let stranger = async {
        let (mut writer, mut reader) = edge.open(Urgency::Link).await.unwrap();
        writer.write_all(&said).await.unwrap();
        drop(writer);
        let mut rest = Vec::new();
        reader.read_to_end(&mut rest).await.unwrap();
    };
    let meet = async {
        // A hello that was damaged where it does not matter is one: it is let in and gone at once.
        if let Ok(arrival) = IncomingLink::read_hello(env, Box::new(cloud)).await {
            let link = arrival.admit(Routes::new()).await;
            drop(link);
        }
    };
    futures::join!(stranger, meet);
}

/// One link's worth of streams that say something that may be frames.
async fn flood(env: &Env, inputs: std::ops::Range<usize>) {
    let (edge, cloud) = ends();
    let (mut probe, heard) = Probe::<Heard>::new(env, 4);
    let admit = async {
        IncomingLink::read_hello(env, Box::new(cloud))
            .await
            .unwrap()
            .admit(wire::routes(heard))
            .await
            .unwrap()
    };
    let greet = async {
        let mut control = edge.open(Urgency::Link).await.unwrap();
        control.0.write_all(&frame(7, b"\x01\x01\x06edge-1\x02\x07deflate\x01a")).await.unwrap();
        let mut ack = [0; 22];
        control.1.read_exact(&mut ack).await.unwrap();
        control
    };
    let (link, control) = futures::join!(admit, greet);
    // Asks are dropped unanswered; one that nobody takes would hold its stream.
    let honest = Cell::new(false);
    let drain = async {
        while let Some(heard) = probe.next(HOUR).await {
            honest.set(matches!(heard.talk, Talk::Say(text) if text == b"honest" && heard.from == "edge-1"));
        }
    };
    let strangers = std::pin::pin!(strangers(env, &edge, inputs, &honest));
    let _over = futures::future::select(strangers, std::pin::pin!(drain)).await;
    assert!(honest.get());
    drop((link, control));
}

async fn strangers(env: &Env, edge: &MemoryConnection, inputs: std::ops::Range<usize>, honest: &Cell<bool>) {
    for input in inputs {
        let mut numbers = Numbers::of(input);
        let (mut writer, mut reader) = edge.open(Urgency::Work).await.unwrap();
        let mut said = match numbers.below(4) {
            0 => hostile(&mut numbers, 1, b"talk"),
            _ => frame(1, b"talk"),
        };
        for _ in 0..numbers.below(4) {
            said.extend(hostile(&mut numbers, 2, b"\x01hello"));
        }
        let _ = writer.write_all(&said).await;
        drop(writer);
        let mut rest = Vec::new();
        let _ = reader.read_to_end(&mut rest).await;
    }
    // Somebody honest is served all the same, and gets the place back.
    let (mut writer, mut reader) = edge.open(Urgency::Work).await.unwrap();
    writer.write_all(&[frame(1, b"talk"), frame(2, b"\x01honest")].concat()).await.unwrap();
    let mut credit = [0; 20];
    env.timeout(LONG, reader.read_exact(&mut credit)).await.unwrap().unwrap();
    assert_eq!(credit[5], 6);
    let seen = async {
        while !honest.get() {
            tokio::task::yield_now().await;
        }
    };
    env.timeout(LONG, seen).await.unwrap();
}

/// Cells that may be some, until the connection is ended.
fn pipe(env: &Env, input: usize) {
    let mut numbers = Numbers::of(input);
    let (connection, ingress, _outlet) =
        over(Role::Accepted, PeerName::verified("edge-1", "01"), env.clock());
    if input.is_multiple_of(2) {
        connection.admitted();
    }
    for _ in 0..numbers.below(30) {
        let mut cell = match numbers.below(4) {
            0 => numbers.bytes(32),
            1 => vec![2; MUX_FRAME_MAX],
            kind => [vec![u8::try_from(kind - 1).unwrap()], vec![0, 0, 0, 1, 1]].concat(),
        };
        if let Some(first) = cell.first_mut()
            && numbers.below(3) == 0
        {
            *first = u8::try_from(numbers.below(10)).unwrap();
        }
        if ingress.take(Bytes::from(cell)).is_err() {
            break;
        }
    }
    drop(connection);
}

#[test]
fn connections_that_were_never_admitted_leave_no_memory_behind() {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let local = tokio::task::LocalSet::new();
    let env = Env::seeded(1);
    measure("hello", |input| local.block_on(&runtime, greet(&env, input)));
    const LOT: usize = 500;
    measure("frames", |input| {
        if input % LOT == 0 {
            local.block_on(&runtime, flood(&env, input..input + LOT));
        }
    });
    measure("cells", |input| pipe(&env, input));
    local.block_on(&runtime, async {
        let (edge, cloud) = ends();
        let (edge, _cloud, mut probe) = wire::link(&env, Box::new(edge), Box::new(cloud), 4).await;
        edge.unwrap().remote::<Talk>().try_tell(Talk::Hurry).unwrap();
        assert!(matches!(probe.next(LONG).await.unwrap().talk, Talk::Hurry));
    });
}
