//! Clients that mean harm or do not know better: what they cost in memory, and what others notice of them.
//!
//! Memory is that of the whole process, so the tests of this file run one at a time and none other runs beside them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod node;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use contract::devicetwin::TwinMsg;
use node::blocking_client::BlockingClient;
use node::{Node, SOON, connect, connect_as, packet, publish, run, subscribe, text};

static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Resident memory of this process in KiB.
fn resident() -> i64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse().unwrap()
}

/// As mosquitto_passwd 2.0.11 wrote it.
const PLC: &str = "plc:$7$101$J+sztkJ5MvbqwC5W$UGUZDqcVOj4sK9We0X2dVki1YjbCX2KWfG8k7uys3qan7T1E9J2/7CiUlw6SfCrnclfB8oimzqeG7ra396WFKg==\n";

/// 2 MiB may be left of any number of bad inputs.
const LEFT_KIB: i64 = 2 << 10;

/// What this process has grown by in the course of `work`, in KiB: the least of three times. What is left behind is left each
/// time; what the allocator takes beside it is not.
async fn grown_by(mut work: impl AsyncFnMut()) -> i64 {
    let mut least = i64::MAX;
    for _ in 0..3 {
        let before = resident();
        work().await;
        least = least.min(resident() - before);
        if least <= LEFT_KIB {
            break;
        }
    }
    least
}

/// Threads of routers in this process.
fn routers() -> usize {
    let threads = std::fs::read_dir("/proc/self/task").unwrap();
    let name = |thread: std::io::Result<std::fs::DirEntry>| {
        std::fs::read_to_string(thread.unwrap().path().join("comm")).unwrap_or_default()
    };
    threads.map(name).filter(|name| name.starts_with("router-")).count()
}

async fn routers_are(count: usize) {
    let until = Instant::now() + SOON;
    while routers() != count {
        assert!(Instant::now() < until, "{} router threads instead of {count}", routers());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Runs a client that blocks beside the broker.
async fn beside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

/// Deterministic noise: the sequence of splitmix64.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound.max(1) as u64).unwrap()
    }

    fn bytes(&mut self, most: usize) -> Vec<u8> {
        (0..self.below(most)).map(|_| self.next().to_le_bytes()[0]).collect()
    }

    /// What a client may not mean, and is not thrown out for.
    fn nuisance(&mut self) -> Vec<u8> {
        let pkid = u16::try_from(1 + self.below(40_000)).unwrap();
        let number = pkid.to_be_bytes();
        let device = format!("$hw/events/device/ns-{pkid}/d/twin/update");
        match self.below(10) {
            0 => packet(0x40, &[&number]),
            1 => packet(0x62, &[&number]),
            2 => publish(&format!("$SYS/{pkid}"), "x", 1, pkid),
            3 => subscribe(&format!("$share/{pkid}/"), 1),
            4 => packet(0xa2, &[&number, &text(&format!("never/{pkid}"))]),
            5 => publish(&device, "{\"twin\":", 1, pkid),
            6 => publish(&format!("$hw/events/node/{pkid}/membership/get"), "", 0, 0),
            7 => publish(&"long/".repeat(400), "x", 0, 0),
            8 => packet(0x31, &[&text(&format!("none/{pkid}"))]),
            _ => publish(&format!("nobody/{pkid}/\u{1F980}"), "x", 2, pkid),
        }
    }

    /// A CONNECT with a login that is none, of a broker without and with users.
    fn login(&mut self) -> Vec<u8> {
        let names = ["plc", "", "nobody", "user=plc;x", "edgecore", "plc\u{1}", "größe/#"];
        let name = names[self.below(names.len())];
        let long = "x".repeat(self.below(70_000).min(65_535));
        let password = self.bytes(40);
        match self.below(6) {
            0 => connect_as(name, name, Some(&password)),
            1 => connect_as("x", &long, Some(&password)),
            2 => connect_as("x", name, Some(long.as_bytes())),
            3 => connect_as(name, name, None),
            _ => {
                let mut good = connect_as("x", name, Some(&password));
                let place = self.below(good.len());
                if self.below(2) == 0 {
                    good.truncate(place);
                } else {
                    let change = self.bytes(2).first().copied().unwrap_or(0xff);
                    good.iter_mut().skip(place).take(1).for_each(|byte| *byte ^= change);
                }
                good
            }
        }
    }

    /// What ends a connection, or leaves a packet without its end.
    fn poison(&mut self) -> Vec<u8> {
        let length = self.below(300) + 1;
        match self.below(6) {
            0 => self.bytes(300),
            1 => [vec![0x30], vec![0xff; length.min(4)], vec![0x7f]].concat(),
            2 => [vec![0x32, 0xff, 0xff, 0x0f], self.bytes(40)].concat(),
            3 => connect(&"x".repeat(length), false, 1, Some(("$SYS/will", "x"))),
            4 => {
                let mut good = self.nuisance();
                let place = self.below(good.len());
                good.truncate(place);
                good
            }
            _ => {
                let mut good = self.nuisance();
                let place = self.below(good.len());
                good.iter_mut().skip(place).take(1).for_each(|byte| *byte ^= 0x55);
                good
            }
        }
    }
}

/// Sends `count` bad inputs, up to 24 on one connection.
fn harass(address: SocketAddr, seed: u64, count: usize) {
    let mut noise = Rng(seed);
    let mut sent = 0;
    while sent < count {
        let mut line = BlockingClient::raw(address);
        let clean = noise.below(2) == 0;
        let mut all = match noise.below(8) {
            0 => Vec::new(),
            1 => noise.login(),
            _ => connect("bad", clean, 0, None),
        };
        for _ in 0..noise.below(24) {
            all.extend(noise.nuisance());
            sent += 1;
        }
        all.extend(noise.poison());
        sent += 1;
        // The broker may have closed it before all was sent.
        let _ = line.try_send(&all);
        line.finish();
    }
}

#[test]
fn a_hundred_thousand_bad_inputs_leave_nothing_behind() {
    let _alone = alone();
    run(|store| async move {
        let before = resident();
        let node = Node::start(store).await;
        node.answer(Err("not JSON".to_owned()));
        let idle = resident();
        println!(
            "an idle broker: {} KiB more resident, {idle} KiB with the tests and the store",
            idle - before
        );
        let (address, began) = (node.address, Instant::now());
        beside(move || harass(address, 1, 20_000)).await;
        let grown = grown_by(async || beside(move || harass(address, 2, 100_000)).await).await;
        println!("100000 bad inputs: {grown} KiB more resident, {:?} with warming up", began.elapsed());
        assert!(grown <= LEFT_KIB, "{grown} KiB");
        let view = node.view().await;
        assert_eq!((&view["routerDeaths"], &view["router"]), (&0.into(), &"up".into()));
        for kind in ["refusedTopics", "refusedByTwin", "refusedSubscriptions", "brokenConnections"] {
            assert!(view[kind].as_u64().unwrap() > 1000, "{kind} in {view}");
        }
        let mut good = node.client("good").await;
        good.send(&[0xc0, 0]).await;
        good.expect(&[0xd0, 0]).await;
    });
}

#[test]
fn thousands_of_bad_logins_leave_nothing_behind() {
    let _alone = alone();
    run(|store| async move {
        let folder = tempfile::tempdir().unwrap();
        let password_file = folder.path().join("passwords");
        std::fs::write(&password_file, PLC).unwrap();
        let settings = config::edge::EventBus { password_file, ..config::edge::EventBus::default() };
        let node = Node::start_as(store, settings).await;
        let address = node.address;
        // Nobody waits for an answer, so that the gate turns most away.
        let try_logins = move |seed: u64, count: usize| {
            let mut noise = Rng(seed);
            for _ in 0..count {
                let login = noise.login();
                let mut line = BlockingClient::raw(address);
                let _ = line.try_send(&login);
            }
        };
        beside(move || try_logins(1, 2_000)).await;
        let settled = |view: &serde_json::Value| view["passwordsWaiting"] == 0 && view["clients"] == 0;
        let grown = grown_by(async || {
            beside(move || try_logins(2, 10_000)).await;
            node.wait("an end of it", settled).await;
        });
        let grown = grown.await;
        println!("10000 bad logins: {grown} KiB more resident");
        assert!(grown <= LEFT_KIB, "{grown} KiB");
        let view = node.view().await;
        assert!(view["refusedLogins"].as_u64().unwrap() > 1000, "{view}");
        let mut good = node.client("good").await;
        good.send(&[0xc0, 0]).await;
        good.expect(&[0xd0, 0]).await;
    });
}

#[test]
fn what_is_declared_and_does_not_come_takes_no_memory() {
    let _alone = alone();
    run(|store| async move {
        let node = Node::start(store).await;
        let mut clients = Vec::new();
        let before = resident();
        for n in 0..100 {
            // 256 KiB less a little after a CONNECT, 72 KiB less a little instead of one.
            let mut client = if n % 2 == 0 {
                let mut client = node.client(&n.to_string()).await;
                client.send(&[0x30, 0xf0, 0xff, 0x0f]).await;
                client
            } else {
                let mut client = node.raw().await;
                client.send(&[0x10, 0xf0, 0xbf, 0x04]).await;
                client
            };
            client.send(&text("t")).await;
            clients.push(client);
        }
        let mut witness = node.client("witness").await;
        witness.send(&[0xc0, 0]).await;
        witness.expect(&[0xd0, 0]).await;
        let grown = resident() - before;
        println!("100 clients that declare 164 KiB each on average: {grown} KiB more resident");
        // Half of what they declare; what a hundred connections cost is in it.
        assert!(grown <= 4 * LEFT_KIB, "{grown} KiB");
        drop(clients);
        node.wait("goodbye", |view| view["clients"] == 1).await;
    });
}

#[test]
fn large_packets_of_many_clients_come_one_after_the_other() {
    let _alone = alone();
    run(|store| async move {
        let node = Node::start(store).await;
        let mut witness = node.client("witness").await;
        let large = publish("large", &"x".repeat(1_000_000), 1, 1);
        let mut clients = Vec::new();
        for n in 0..100 {
            clients.push((node.client(&n.to_string()).await, 0));
        }
        let before = resident();
        // Each sends as much as the broker takes, up to the last byte but one.
        let mut moved = true;
        while moved {
            moved = false;
            for (client, sent) in &mut clients {
                let rest = large.get(*sent..large.len() - 1).unwrap();
                if let Ok(count @ 1..) = client.socket.try_write(rest) {
                    (*sent, moved) = (*sent + count, true);
                }
            }
            for _ in 0..20 {
                witness.send(&[0xc0, 0]).await;
                witness.expect(&[0xd0, 0]).await;
            }
        }
        let grown = resident() - before;
        println!("100 clients in the midst of a packet of 1 MB: {grown} KiB more resident");
        // 16 MiB of room, and for each packet in it what its buffer has grown to; all of them together would be 98,000.
        assert!(grown <= 48 << 10, "{grown} KiB");
        // Those in the room end, and the others come after them.
        for (client, sent) in &mut clients {
            let rest = large.get(*sent..).unwrap().to_vec();
            client.send(&rest).await;
        }
        for (client, _) in &mut clients {
            client.expect(b"\x40\x02\x00\x01").await;
        }
    });
}

/// Publishes on topics from `from` to `to` with a window of 64, and waits for all acknowledgements.
fn visit_topics(line: &mut BlockingClient, from: u32, to: u32) {
    let (mut sent, mut acknowledged) = (from, from);
    while acknowledged < to {
        let mut some = Vec::new();
        while sent < to && sent - acknowledged < 64 {
            let pkid = u16::try_from(1 + sent % 60_000).unwrap();
            some.extend(publish(&format!("site/{}/sensor-{sent}/value", sent % 97), "21.5", 1, pkid));
            sent += 1;
        }
        line.send(&some);
        let answer = line.next().map(|(first, _)| first);
        assert_eq!(answer, Some(0x40));
        acknowledged += 1;
    }
}

/// Takes and acknowledges `count` publishes; answers how many came.
fn take_topics(line: &mut BlockingClient, count: u32) -> u32 {
    let mut taken = 0;
    while taken < count {
        let Some((0x32, body)) = line.next() else { return taken };
        let topic = usize::from(u16::from_be_bytes([body[0], body[1]]));
        line.send(&[0x40, 2, body[2 + topic], body[3 + topic]]);
        taken += 1;
    }
    taken
}

const TOPICS: u32 = 26_000;
const WARM: u32 = 9_000;
const HALF_WAY: u32 = (WARM + TOPICS) / 2;

#[test]
fn distinct_topics_without_end_cost_no_memory_and_nothing_is_lost_when_the_router_is_replaced() {
    let _alone = alone();
    run(|store| async move {
        routers_are(0).await;
        let node = Node::start(store).await;
        node.publish("kept/before", "kept", true).await;
        let mut away = node.raw().await;
        away.send(&[connect("away", false, 0, None), subscribe("to/away", 1)].concat()).await;
        away.expect(b"\x20\x02\x00\x00\x90\x03\x00\x09\x01").await;
        away.send(&[0xe0, 0]).await;
        away.rest().await;
        let address = node.address;
        let subscriber = tokio::task::spawn_blocking(move || {
            let mut line = BlockingClient::client(address, "subscriber");
            line.send(&subscribe("site/#", 1));
            assert_eq!(line.next().map(|(first, _)| first), Some(0x90));
            take_topics(&mut line, TOPICS)
        });
        node.subscriptions(2).await;
        let (grown, took) = beside(move || {
            let mut line = BlockingClient::client(address, "publisher");
            visit_topics(&mut line, 0, WARM);
            let (began, mut least) = (Instant::now(), i64::MAX);
            for half in [WARM..HALF_WAY, HALF_WAY..TOPICS] {
                let before = resident();
                visit_topics(&mut line, half.start, half.end);
                least = least.min(resident() - before);
            }
            (least, began.elapsed())
        })
        .await;
        assert_eq!(subscriber.await.unwrap(), TOPICS);
        let view = node.view().await;
        let rate = f64::from(TOPICS - WARM) / took.as_secs_f64();
        println!(
            "{TOPICS} topics, {} routers: {grown} KiB more resident in half of those after {WARM}, {rate:.0} messages/s",
            view["routerRebuilds"]
        );
        assert!(grown <= LEFT_KIB, "{grown} KiB");
        assert!(view["routerRebuilds"].as_u64().unwrap() >= 5, "{view}");
        assert_eq!((&view["routerDeaths"], &view["lostQos1"]), (&0.into(), &0.into()));
        routers_are(1).await;

        // Sessions, subscriptions and retained messages are where they were.
        node.publish("to/away", "later", false).await;
        let mut back = node.raw().await;
        back.send(&connect("away", false, 0, None)).await;
        back.expect(b"\x20\x02\x01\x00").await;
        let mut kept = publish("kept/before", "kept", 0, 0);
        *kept.first_mut().unwrap() |= 1;
        back.expect(&publish("to/away", "later", 1, 1)).await;
        back.send(&subscribe("kept/#", 0)).await;
        back.expect(b"\x90\x03\x00\x09\x00").await;
        back.expect(&kept).await;
        drop(back);
        node.stop().await;
        routers_are(0).await;
    });
}

#[test]
fn a_subscriber_that_does_not_read_is_bounded() {
    let _alone = alone();
    run(|store| async move {
        let node = Node::start(store).await;
        let mut deaf = node.client("deaf").await;
        deaf.send(&[subscribe("load", 0), subscribe("load", 1)].concat()).await;
        deaf.expect(b"\x90\x03\x00\x09\x00\x90\x03\x00\x09\x01").await;
        let address = node.address;
        let grown = beside(move || {
            let mut line = BlockingClient::client(address, "loud");
            let some = publish("load", &"x".repeat(4000), 0, 0).repeat(16);
            // 16 MB, until every queue on the way is full, and then 16 MB more.
            (0..250).for_each(|_| line.send(&some));
            let more = |_: u32| {
                let full = resident();
                (0..250).for_each(|_| line.send(&some));
                line.send(&[0xc0, 0]);
                assert_eq!(line.next().map(|(first, _)| first), Some(0xd0));
                resident() - full
            };
            // What the allocator takes beside it is taken once.
            (0..3).map(more).min().unwrap()
        })
        .await;
        let view = node.view().await;
        println!(
            "16 MB more for a subscriber that does not read: {grown} KiB more resident, {} dropped",
            view["droppedQos0"]
        );
        assert!(view["droppedQos0"].as_u64().unwrap() > 3_000, "{view}");
        assert!(grown <= LEFT_KIB, "{grown} KiB");
    });
}

/// Sends `some` again and again as fast as the broker takes it, until told to stop.
fn flood(
    address: SocketAddr,
    id: &'static str,
    stop: &Arc<AtomicBool>,
    some: Vec<u8>,
) -> tokio::task::JoinHandle<u64> {
    let stop = Arc::clone(stop);
    tokio::task::spawn_blocking(move || {
        let mut line = BlockingClient::client(address, id);
        let mut rounds = 0;
        while !stop.load(Ordering::Relaxed) && line.try_send(&some) {
            rounds += 1;
        }
        rounds
    })
}

#[test]
fn floods_do_not_keep_others_from_being_answered() {
    let _alone = alone();
    run(|store| async move {
        let node = Node::start(store).await;
        node.answer(Ok(()));
        let stop = Arc::new(AtomicBool::new(false));
        let publishes = flood(node.address, "publishes", &stop, publish("flood/x", "", 0, 0).repeat(4000));
        let pings = flood(node.address, "pings", &stop, [0xc0, 0].repeat(16));
        let twins = publish("$hw/events/device/a/b/twin/update", "{}", 0, 0).repeat(100);
        let twins = flood(node.address, "twins", &stop, twins);
        let address = node.address;
        let worst = beside(move || {
            let mut line = BlockingClient::client(address, "witness");
            let mut worst = Duration::ZERO;
            for n in 0..200 {
                let began = Instant::now();
                line.send(&[0xc0, 0]);
                assert_eq!(line.next(), Some((0xd0, Vec::new())));
                line.send(&publish("$hw/events/device/a/c/state/update", "{}", 1, n + 1));
                assert_eq!(line.next().map(|(first, _)| first), Some(0x40));
                worst = worst.max(began.elapsed());
            }
            worst
        })
        .await;
        stop.store(true, Ordering::Relaxed);
        let view = node.view().await;
        println!(
            "beside three floods a ping and a state take at most {worst:?}; {} messages in",
            view["messagesIn"]
        );
        // Each was answered sooner than a client gives up.
        assert!(view["slowed"].as_u64().unwrap() > 100, "{view}");
        // Those who read their answers end by themselves; the one that does not is closed with the broker.
        assert!(publishes.await.unwrap() > 0);
        assert!(twins.await.unwrap() > 0);
        node.stop().await;
        assert!(pings.await.unwrap() > 0);
    });
}

#[test]
fn connections_that_say_nothing_do_not_keep_out_those_that_do() {
    let _alone = alone();
    run(|store| async move {
        let node = Node::start(store).await;
        let mut held = vec![node.client("first").await];
        for n in 0..300 {
            held.push(node.raw().await);
            if n % 60 == 0 {
                held.push(node.client(&n.to_string()).await);
            }
        }
        let mut last = node.client("last").await;
        last.send(&[0xc0, 0]).await;
        last.expect(&[0xd0, 0]).await;
        node.wait("clients", |view| view["clients"] == 7).await;
    });
}

#[test]
fn a_client_has_sixteen_requests_under_way_and_the_next_client_has_its_own() {
    let _alone = alone();
    run(|store| async move {
        let node = Node::start(store).await;
        let update = |pkid| publish("$hw/events/device/a/b/twin/update", "{}", 1, pkid);
        let mut greedy = node.client("greedy").await;
        greedy.send(&(1..=48).flat_map(update).collect::<Vec<u8>>()).await;
        let mut modest = node.client("modest").await;
        modest.send(&publish("$hw/events/device/a/modest/twin/update", "{}", 1, 1)).await;
        let mut waiting = Vec::new();
        loop {
            let Some(TwinMsg::Mqtt { topic, reply, .. }) = node.asked(SOON).await else { panic!() };
            if topic.contains("modest") {
                reply.send(Ok(()));
                break;
            }
            waiting.push(reply);
            assert!(waiting.len() <= 16, "more under way than the bound");
        }
        modest.expect(b"\x40\x02\x00\x01").await;
        waiting.into_iter().for_each(|reply| reply.send(Ok(())));
        node.answer(Ok(()));
        greedy.expect(&(1..=48).flat_map(|pkid| [0x40, 2, 0, pkid]).collect::<Vec<u8>>()).await;
    });
}

#[test]
fn messages_of_qos_1_from_one_client_to_another() {
    let _alone = alone();
    run(|store| async move {
        const COUNT: u32 = 8_000;
        let node = Node::start(store).await;
        let address = node.address;
        let subscriber = tokio::task::spawn_blocking(move || {
            let mut line = BlockingClient::client(address, "subscriber");
            line.send(&subscribe("site/#", 1));
            assert_eq!(line.next().map(|(first, _)| first), Some(0x90));
            take_topics(&mut line, COUNT)
        });
        node.subscriptions(1).await;
        let took = beside(move || {
            let mut line = BlockingClient::client(address, "publisher");
            let began = Instant::now();
            let (mut sent, mut acknowledged) = (0, 0);
            while acknowledged < COUNT {
                let mut some = Vec::new();
                while sent < COUNT && sent - acknowledged < 64 {
                    let pkid = u16::try_from(1 + sent % 60_000).unwrap();
                    some.extend(publish(&format!("site/1/sensor-{}/value", sent % 100), "21.5", 1, pkid));
                    sent += 1;
                }
                line.send(&some);
                assert_eq!(line.next().map(|(first, _)| first), Some(0x40));
                acknowledged += 1;
            }
            began.elapsed()
        })
        .await;
        assert_eq!(subscriber.await.unwrap(), COUNT);
        println!("QoS 1 from one client to another: {:.0} messages/s", f64::from(COUNT) / took.as_secs_f64());
    });
}
