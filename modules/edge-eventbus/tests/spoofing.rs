//! Attacks on the broker's identities: whoever may connect tries to be `edgecore`, somebody else, or the only one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod node;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use config::edge::EventBus as Settings;
use node::blocking_client::BlockingClient;
use node::users::{
    EDGECORES, Files, MOSQUITTOS, NOT_AUTHORIZED, SECRET, UNAVAILABLE, WELCOME, answer, byte, granted, kept,
    login, say, sources, until_refused,
};
use node::{Node, SOON, connect, connect_as, packet, publish, run, subscribe, text};

#[test]
fn what_only_edgecore_says_nobody_else_says() {
    run(|store| async move {
        let node = Node::start(store.clone()).await;
        let mut witness = node.client("witness").await;
        for filter in ["$hw/#", "$SYS/broker/spoofed/#", "#"] {
            granted(&mut witness, filter, 0).await;
        }
        node.publish(EDGECORES[8], "true", true).await;
        witness.expect(&publish(EDGECORES[8], "true", 0, 0)).await;
        let mut attacker = node.client("hub-client-pub-1700000000").await;
        let mut tries = 0;
        for topic in EDGECORES {
            for qos in [0, 1, 2] {
                for (payload, retain) in [("spoofed", false), ("spoofed", true), ("", true)] {
                    say(&mut attacker, topic, payload, qos, retain).await;
                    tries += 1;
                }
            }
        }
        say(&mut attacker, "end", "end", 1, false).await;
        witness.expect(&publish("end", "end", 0, 0)).await;
        // Neither DeviceTwin nor the outbox heard of it, and no retained message changed.
        assert!(node.asked(Duration::from_millis(20)).await.is_none());
        assert!(store.outbox_head(usize::MAX, usize::MAX).unwrap().is_empty());
        let view = node.view().await;
        let refused = |key: &str| view[key].as_u64().unwrap();
        assert_eq!(refused("refusedPublishes") + refused("refusedTopics"), tries, "{view}");
        drop((attacker, witness));
        node.stop().await;

        let node = Node::start(store).await;
        let mut late = node.client("late").await;
        late.send(&[subscribe("$hw/#", 0), vec![0xc0, 0]].concat()).await;
        late.expect(b"\x90\x03\x00\x09\x00").await;
        late.expect(&[vec![0xd0, 0], kept(EDGECORES[8], "true")].concat()).await;
    });
}

#[test]
fn a_will_obeys_the_same_rule_at_connect_and_when_it_is_published() {
    run(|store| async move {
        let files = Files::new();
        let node = Node::start_as(store, files.settings(Some("topic #\ntopic $hw/#"))).await;
        let mut witness = node.client("witness").await;
        for filter in ["$hw/#", "#"] {
            granted(&mut witness, filter, 0).await;
        }
        // mosquitto's bridges leave a will under `$SYS`; `pending_connects.rs` shows what becomes of it.
        let edgecores: Vec<&str> = EDGECORES.into_iter().filter(|topic| topic.starts_with("$hw/")).collect();
        for topic in &edgecores {
            // What comes right behind a CONNECT that is refused is not looked at.
            let both =
                [connect("dying", true, 0, Some((topic, "spoofed"))), publish("x", "x", 0, 0)].concat();
            assert_eq!(answer(&node, &both).await, NOT_AUTHORIZED, "{topic}");
        }
        for topic in ["", "a/#", "+"] {
            assert_eq!(answer(&node, &connect("dying", true, 0, Some((topic, "x")))).await, b"", "{topic}");
        }
        assert_eq!(node.view().await["refusedWills"], edgecores.len());
        let mut first = node.raw().await;
        first.send(&connect("first", true, 0, Some(("last", "word")))).await;
        first.expect(&WELCOME).await;
        drop(first);
        witness.expect(&publish("last", "word", 0, 0)).await;
        // The right is lost between the CONNECT and the end.
        let mut second = node.raw().await;
        second.send(&connect("second", true, 0, Some(("last", "never")))).await;
        second.expect(&WELCOME).await;
        files.write("acl", "topic #\ntopic deny last");
        until_refused(&node, &mut second, "last").await;
        drop(second);
        node.wait("goodbye", |view| view["clients"] == 1 && view["refusedWills"] == edgecores.len() + 1)
            .await;
        node.publish("end", "end", false).await;
        let mut rest = Vec::new();
        while !rest.ends_with(&publish("end", "end", 0, 0)) {
            rest.push(byte(&mut witness).await);
        }
        assert!(!rest.windows(5).any(|some| some == b"never"));
    });
}

#[test]
fn a_shared_subscription_is_no_way_around() {
    run(|store| async move {
        let node = Node::start(store).await;
        let mut client = node.client("sly").await;
        for (filter, code) in
            [("$share/g/$hw/#", 0), ("$share/g/#", 0), ("$share//#", 0x80), ("$queue/#", 0x80)]
        {
            granted(&mut client, filter, code).await;
        }
        for topic in ["$share/g/$hw/events/node/n/membership/updated", "$queue/x", "$share"] {
            say(&mut client, topic, "x", 1, true).await;
        }
        let view = node.view().await;
        assert_eq!(
            (&view["refusedTopics"], &view["retained"], &view["subscriptions"]),
            (&3.into(), &0.into(), &2.into())
        );
        // What it may not read it does not get by a group either.
        client.send(&[0xc0, 0]).await;
        client.expect(&[0xd0, 0]).await;
    });
}

#[test]
fn nobody_takes_over_or_passes_for_a_client_of_somebody_else() {
    run(|store| async move {
        let files = Files::new();
        let node = Node::start_as(store.clone(), files.settings(None)).await;
        // A user's session that is kept, with a message in its queue.
        let persistent = |user: &str, password: &str| {
            let body = [b"\x00\x04MQTT\x04\xc0\x00\x00".as_slice(), &text("x"), &text(user), &text(password)];
            packet(0x10, &body)
        };
        let mut plc = node.raw().await;
        plc.send(&[persistent("plc", SECRET), subscribe("orders", 1)].concat()).await;
        plc.expect(b"\x20\x02\x00\x00\x90\x03\x00\x09\x01").await;
        plc.send(&[0xe0, 0]).await;
        plc.rest().await;
        node.publish("orders", "for plc", false).await;
        // The same id of an anonymous client and of another user: other sessions, empty ones.
        let mut anonymous = node.raw().await;
        anonymous.send(&connect("x", false, 0, None)).await;
        anonymous.expect(&WELCOME).await;
        let mut other = node.raw().await;
        other.send(&persistent("plc2", "alpha")).await;
        other.expect(&WELCOME).await;
        let mut plc = node.raw().await;
        plc.send(&persistent("plc", SECRET)).await;
        plc.expect(b"\x20\x02\x01\x00").await;
        plc.expect(&publish("orders", "for plc", 1, 1)).await;
        // All three are there at once, and each is known to the cloud by its user.
        for client in [&mut anonymous, &mut other, &mut plc] {
            say(client, "app/user/x", "x", 1, false).await;
        }
        assert_eq!(sources(&store), ["x", "user=plc2;x", "user=plc;x"]);
        assert_eq!(node.view().await["namedClients"], 2);
        // Names that look like a user's or the node's own are nobody's ids.
        for id in ["user=plc;x", "user=", "user=nobody;", "edgecore"] {
            assert_eq!(answer(&node, &connect(id, true, 0, None)).await, b"\x20\x02\x00\x02", "{id}");
        }
        let mut plain = node.raw().await;
        plain.send(&connect_as("user=plc2;x", "plc", Some(SECRET.as_bytes()))).await;
        plain.expect(&WELCOME).await;
        say(&mut plain, "app/user/x", "x", 1, false).await;
        assert_eq!(sources(&store)[3], "user=plc;user=plc2;x");
        assert_eq!(node.view().await["takenOver"], 0);
    });
}

/// Opens a thousand connections, twenty at a time, each of which sends a CONNECT with a password of its own. All stay
/// open until the last has sent, as far as the broker lets them. Answers how often each code came.
fn flood(address: SocketAddr, user: &'static str) -> BTreeMap<u8, usize> {
    let threads: Vec<_> = (0..20)
        .map(|thread| {
            std::thread::spawn(move || {
                let guess = |n| {
                    let mut line = BlockingClient::raw(address);
                    let guess = format!("{thread}-{n}");
                    line.try_send(&connect_as("x", user, Some(guess.as_bytes())));
                    line
                };
                (0..50).map(guess).collect::<Vec<BlockingClient>>()
            })
        })
        .collect();
    let mut codes = BTreeMap::new();
    for mut line in threads.into_iter().flat_map(|thread| thread.join().unwrap()) {
        *codes.entry(line.code()).or_default() += 1;
    }
    codes
}

#[test]
fn a_flood_of_passwords_takes_neither_the_processor_nor_anybody_elses_place() {
    run(|store| async move {
        let files = Files::new();
        let socket = files.path("mqtt.sock");
        let mut settings = files.settings(None);
        settings.unix_socket.path = socket.clone();
        let slow = edge_eventbus::password_line("slow", b"right", [7; 16]).unwrap();
        files.write("passwords", &format!("{MOSQUITTOS}{slow}\n"));
        let node = Node::start_as(store, settings).await;
        let (address, stop) = (node.address, Arc::new(AtomicBool::new(false)));
        let ended = Arc::clone(&stop);
        let witness = tokio::task::spawn_blocking(move || witness(address, &ended));
        let named = tokio::task::spawn_blocking(move || over_unix(&socket));
        let (began, used) = (Instant::now(), processor_time());
        let codes = tokio::task::spawn_blocking(move || flood(address, "slow")).await.unwrap();
        let (took, used) = (began.elapsed(), processor_time() - used);
        stop.store(true, Ordering::Relaxed);
        let (rounds, worst) = witness.await.unwrap();
        let named = named.await.unwrap();
        println!(
            "1000 passwords in {took:?} ({codes:?}), {used:?} of processor: {rounds} newcomers that ping took at most \
             {worst:?}, a user by the Unix socket {named:?}"
        );
        assert_eq!(codes.values().sum::<usize>(), 1000);
        // Refused, turned away, or displaced without an answer; and few were looked at.
        assert!(
            codes.keys().all(|code| [3, 4, 255].contains(code)) && codes.get(&4).is_none_or(|n| *n < 100),
            "{codes:?}"
        );
        // Each of them was answered, sooner than any client gives up.
        assert!(rounds > 3, "{rounds}");
        // Whose source was wrong so often waits, and gets in.
        let mut client = node.raw().await;
        client.send(&connect_as("x", "slow", Some(b"right"))).await;
        client.expect(&WELCOME).await;
        assert_eq!(node.view().await["passwordsWaiting"], 0);
    });
}

/// Newcomers without a name that ping, one after the other: how many, and the longest time of one.
fn witness(address: SocketAddr, stop: &AtomicBool) -> (usize, Duration) {
    let (mut count, mut worst) = (0, Duration::ZERO);
    while !stop.load(Ordering::Relaxed) {
        let began = Instant::now();
        let mut line = BlockingClient::raw(address);
        // Before it is welcome it may be displaced, as anybody.
        if !line.try_send(&connect("witness", true, 0, None)) || line.code() != 0 {
            continue;
        }
        line.send(&[0xc0, 0]);
        assert_eq!(line.next(), Some((0xd0, Vec::new())));
        worst = worst.max(began.elapsed());
        count += 1;
        std::thread::sleep(Duration::from_millis(20));
    }
    (count, worst)
}

/// How long a login by the Unix socket takes that begins a little after the flood.
fn over_unix(path: &Path) -> Duration {
    use std::io::{Read as _, Write as _};
    std::thread::sleep(Duration::from_millis(500));
    let began = Instant::now();
    let mut socket = std::os::unix::net::UnixStream::connect(path).unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    socket.write_all(&connect_as("x", "plc", Some(SECRET.as_bytes()))).unwrap();
    let mut code = [0; 4];
    socket.read_exact(&mut code).unwrap();
    assert_eq!(code, WELCOME);
    began.elapsed()
}

/// What this process has used of the processor, in the kernel's hundredths of a second.
fn processor_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

#[test]
fn a_silent_crowd_without_keep_alives_keeps_nobody_out() {
    run(|store| async move {
        let files = Files::new();
        let node = Node::start_as(store, files.settings(None)).await;
        let mut crowd = Vec::new();
        for n in 0..128 {
            crowd.push(node.client(&format!("silent-{n}")).await);
        }
        node.wait("crowd", |view| view["clients"] == 128).await;
        for n in 0..10 {
            let mut newcomer = node.client(&format!("new-{n}")).await;
            newcomer.send(&[0xc0, 0]).await;
            newcomer.expect(&[0xd0, 0]).await;
            crowd.push(newcomer);
        }
        // The oldest of the silent ones went, and those that say something stay.
        assert_eq!(crowd.remove(0).rest().await, b"");
        crowd.last_mut().unwrap().send(&[0xc0, 0]).await;
        crowd.last_mut().unwrap().expect(&[0xd0, 0]).await;
        assert_eq!(node.view().await["displacedClients"], 10);
    });
}

#[test]
fn a_crowd_that_keeps_itself_alive_keeps_no_user_out() {
    run(|store| async move {
        let files = Files::new();
        let node = Node::start_as(store, Settings { max_connections: 16, ..files.settings(None) }).await;
        let mut crowd = Vec::new();
        for n in 0..16 {
            let mut client = node.raw().await;
            client.send(&connect(&format!("loud-{n}"), true, 60, None)).await;
            client.expect(&WELCOME).await;
            client.send(&[0xc0, 0]).await;
            client.expect(&[0xd0, 0]).await;
            crowd.push(client);
        }
        assert_eq!(answer(&node, &connect("one more", true, 60, None)).await, UNAVAILABLE);
        let plc = login(&node, "x", "plc", SECRET).await;
        assert_eq!(crowd.remove(0).rest().await, b"");
        assert_eq!(answer(&node, &connect("one more", true, 60, None)).await, UNAVAILABLE);
        drop(plc);
    });
}
