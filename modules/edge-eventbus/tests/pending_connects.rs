//! What anonymous clients cannot take from others: the node's time, and the places in the tables that all share.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod node;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use edge_store::Options;
use node::blocking_client::BlockingClient;
use node::users::{Files, NOT_AUTHORIZED, SECRET, WELCOME, answer, granted, kept, login, say};
use node::{Node, SOON, connect, packet, publish, run, run_over, subscribe, text};

/// Sessions of one attacker, and filters in each: all that there are.
const SESSIONS: usize = 8;
const FILTERS: usize = 128;
/// What all clients together may have.
const ALL: usize = 4096;

fn subscribe_all(filters: &[String]) -> Vec<u8> {
    let parts: Vec<Vec<u8>> = filters.iter().map(|filter| [text(filter), vec![0]].concat()).collect();
    packet(0x82, &[b"\x00\x09", &parts.concat()])
}

/// Connects to persistent sessions, subscribes in each to what `filter` makes, and goes. Returns SUBACK's codes.
fn fill(address: SocketAddr, filters: usize, filter: impl Fn(usize) -> String) -> Vec<u8> {
    let mut codes = Vec::new();
    for session in 0..SESSIONS {
        let mut line = BlockingClient::raw(address);
        line.send(&connect(&format!("thief-{session}"), false, 0, None));
        assert_eq!(line.next().map(|(first, _)| first), Some(0x20));
        let filters: Vec<String> = (0..filters).map(|n| filter(session * filters + n)).collect();
        line.send(&subscribe_all(&filters));
        let (first, body) = line.next().unwrap();
        assert_eq!(first, 0x90);
        codes.extend_from_slice(body.get(2..).unwrap());
        line.send(&[0xe0, 0]);
        line.finish();
    }
    codes
}

/// A filter of 32 levels: wildcards early in all combinations, and the difference at the end.
fn dearest(n: usize) -> String {
    let early = (0..10).map(|bit| if n >> bit & 1 == 1 { "+" } else { "a" });
    let levels: Vec<&str> = early.chain(std::iter::repeat_n("a", 21)).collect();
    format!("{}/{n}", levels.join("/"))
}

#[test]
fn filters_and_floods_that_are_dear_leave_the_others_their_time() {
    run(|store| async move {
        let node = Node::start(store).await;
        let address = node.address;
        let (deep, dear) = tokio::task::spawn_blocking(move || {
            let deep = fill(address, FILTERS, |n| format!("{}{n}", "+/".repeat(505)));
            (deep, fill(address, FILTERS, dearest))
        })
        .await
        .unwrap();
        assert!(deep.iter().all(|code| *code == 0x80), "filters of 506 levels are taken");
        assert_eq!(dear.iter().filter(|code| **code == 0).count(), SESSIONS * FILTERS);
        let mut one = node.client("deep").await;
        one.send(&publish(&format!("{}x", "a/".repeat(505)), "x", 1, 1)).await;
        one.expect(b"\x40\x02\x00\x01").await;
        assert_eq!(node.view().await["refusedTopics"], 1);

        let stop = Arc::new(AtomicBool::new(false));
        let floods: Vec<_> = (0..SESSIONS)
            .map(|n| {
                let stop = Arc::clone(&stop);
                let some = publish(&format!("{}x", "a/".repeat(31)), &"x".repeat(900), 0, 0).repeat(16);
                tokio::task::spawn_blocking(move || {
                    let mut line = BlockingClient::client(address, &format!("flood-{n}"));
                    while !stop.load(Ordering::Relaxed) && line.try_send(&some) {}
                })
            })
            .collect();
        let seen = Arc::new(AtomicBool::new(false));
        let all_seen = Arc::clone(&seen);
        let witness = tokio::task::spawn_blocking(move || {
            let mut line = BlockingClient::client(address, "witness");
            let mut worst = Duration::ZERO;
            while !all_seen.load(Ordering::Relaxed) {
                let began = Instant::now();
                line.send(&[0xc0, 0]);
                assert_eq!(line.next(), Some((0xd0, Vec::new())));
                worst = worst.max(began.elapsed());
            }
            worst
        });
        // The floods are put off, or the machine works off fewer than they may have: three such messages a second for each of the
        // eight. Each ping meanwhile is answered sooner than a client gives up.
        let slowed = async || node.view().await["slowed"].as_u64() > Some(10);
        let put_off = async {
            while !slowed().await {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        let were_slowed = tokio::time::timeout(Duration::from_secs(30), put_off).await.is_ok();
        seen.store(true, Ordering::Relaxed);
        let worst = witness.await.unwrap();
        let view = node.view().await;
        println!("a ping beside eight floods takes at most {worst:?}; {} messages in", view["messagesIn"]);
        assert!(were_slowed || view["messagesIn"].as_u64().unwrap() < 30 * 25, "{view}");
        // What lies in the sockets is not worked off before the end.
        tokio::time::timeout(SOON, node.stop()).await.expect("an end beside the floods");
        stop.store(true, Ordering::Relaxed);
        for flood in floods {
            flood.await.unwrap();
        }
    });
}

#[test]
fn half_of_the_filters_is_left_to_users() {
    run(|store| async move {
        let files = Files::new();
        let node = Node::start_as(store, files.settings(None)).await;
        let address = node.address;
        let taken = tokio::task::spawn_blocking(move || fill(address, ALL / SESSIONS, |n| format!("f/{n}")))
            .await
            .unwrap();
        assert_eq!(taken.iter().filter(|code| **code == 0).count(), ALL / 2);
        let mut user = login(&node, "plc", "plc2", "alpha").await;
        for n in 0..FILTERS {
            granted(&mut user, &format!("mine/{n}"), 0).await;
        }
    });
}

#[test]
fn half_of_the_retained_messages_is_left_to_users() {
    run(|store| async move {
        let files = Files::new();
        let settings = config::edge::EventBus { max_retained_bytes: 1 << 20, ..files.settings(None) };
        let node = Node::start_as(store, settings).await;
        let mut nobody = node.client("thief").await;
        for n in 0..1024 {
            let mut some = publish(&format!("t/{n:04}"), &"x".repeat(1000), 0, 0);
            *some.first_mut().unwrap() |= 1;
            nobody.send(&some).await;
        }
        nobody.send(&[0xc0, 0]).await;
        nobody.expect(&[0xd0, 0]).await;
        let mut user = login(&node, "plc", "plc2", "alpha").await;
        say(&mut user, "mine/state", "kept", 1, true).await;
        granted(&mut user, "mine/#", 0).await;
        user.expect(&kept("mine/state", "kept")).await;
        let view = node.view().await;
        // Half of the budget, 256 bytes added for each.
        let half = (1 << 19) / (256 + 6 + 1000);
        assert_eq!((&view["retained"], &view["notRetained"]), (&(half + 1).into(), &(1024 - half).into()));
    });
}

#[test]
fn no_crowd_of_anonymous_sessions_costs_a_user_his() {
    run(|store| async move {
        let files = Files::new();
        let node = Node::start_as(store, files.settings(None)).await;
        let persistent = |mut connect: Vec<u8>| {
            *connect.get_mut(9).unwrap() &= !2;
            connect
        };
        let mine = persistent(node::connect_as("plc", "plc2", Some(b"alpha")));
        let mut user = node.raw().await;
        user.send(&mine).await;
        user.expect(&WELCOME).await;
        user.send(&subscribe("orders", 1)).await;
        user.expect(b"\x90\x03\x00\x09\x01").await;
        user.send(&[0xe0, 0]).await;
        user.rest().await;
        node.publish("orders", "open the valve", false).await;
        for n in 0..260 {
            let mut thief = node.raw().await;
            thief.send(&[connect(&format!("thief-{n}"), false, 0, None), vec![0xe0, 0]].concat()).await;
            thief.rest().await;
        }
        let view = node.view().await;
        assert_eq!((&view["sessions"], &view["forgottenSessions"]), (&129.into(), &132.into()));
        let mut user = node.raw().await;
        user.send(&mine).await;
        user.expect(b"\x20\x02\x01\x00").await;
        user.expect(&publish("orders", "open the valve", 1, 1)).await;
    });
}

#[test]
fn no_flood_of_anonymous_messages_for_the_cloud_keeps_a_users_out() {
    let options = Options { outbox_rows: 400, ..Options::new([1; 16]) };
    run_over(options, |store, _| async move {
        let files = Files::new();
        let node = Node::start_as(store.clone(), files.settings(None)).await;
        let mut nobody = node.client("thief").await;
        nobody.send(&publish("$hw/events/upload/x", "x", 0, 0).repeat(1000)).await;
        nobody.send(&[0xc0, 0]).await;
        nobody.expect(&[0xd0, 0]).await;
        node.wait("uploads", |view| view["uploadsWaiting"] == 0).await;
        // Telemetry may have 350 of the 400 rows.
        let view = node.view().await;
        assert_eq!((&view["uploaded"], &view["droppedUploads"]), (&175.into(), &825.into()));
        let mut user = login(&node, "plc", "plc", SECRET).await;
        for _ in 0..100 {
            say(&mut user, "$hw/events/upload/mine", "x", 1, false).await;
        }
        assert_eq!(store.snapshot().outbox_rows, 275);
    });
}

#[test]
fn a_bridge_of_mosquitto_connects_and_its_notice_is_dropped() {
    run(|store| async move {
        let node = Node::start(store).await;
        let mut watcher = node.client("watcher").await;
        granted(&mut watcher, "$SYS/broker/connection/#", 0).await;
        let notice = "$SYS/broker/connection/edge.bridge/state";
        let mut bridge = node.raw().await;
        bridge.send(&connect("edge.bridge", true, 60, Some((notice, "0")))).await;
        bridge.expect(&WELCOME).await;
        bridge.send(&publish(notice, "1", 1, 1)).await;
        bridge.expect(b"\x40\x02\x00\x01").await;
        drop(bridge);
        node.wait("an end", |view| view["clients"] == 1).await;
        let view = node.view().await;
        assert_eq!((&view["refusedWills"], &view["refusedTopics"]), (&1.into(), &1.into()));
        watcher.send(&[0xc0, 0]).await;
        watcher.expect(&[0xd0, 0]).await;
        // What would speak for the node is refused as ever, and so is what nobody could publish.
        for topic in ["$hw/events/node/edge-1/membership/updated", &"a/".repeat(40)] {
            assert_eq!(answer(&node, &connect("x", true, 0, Some((topic, "x")))).await, NOT_AUTHORIZED);
        }
    });
}

#[test]
fn a_client_id_with_a_control_character_is_refused() {
    run(|store| async move {
        let node = Node::start(store).await;
        for id in ["a\n2026-11-28T00:00:00Z ERROR edgecore: disk is gone", "\u{1b}[2J", "a\u{85}"] {
            assert_eq!(answer(&node, &connect(id, true, 0, None)).await, [0x20, 2, 0, 2], "{id:?}");
        }
        assert_eq!(node.view().await["refusedConnections"], 3);
    });
}
