//! The broker as clients see it that we did not write, and as hostile ones do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod node;

use std::net::SocketAddr;
use std::sync::Barrier;
use std::time::Instant;

use contract::devicetwin::{TwinMsg, UpdateListeners};
use node::blocking_client::BlockingClient;
use node::child::lines;
use node::{Node, SOON, connect, packet, publish, run, subscribe, text};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use tokio::io::AsyncWriteExt;

const UPDATE: &str = "$hw/events/device/default/sensor-1/twin/update";
const RESULT: &str = "$hw/events/device/default/sensor-1/twin/update/result";

#[test]
fn a_twin_update_is_acknowledged_when_device_twin_has_committed_and_seen_by_others() {
    run(|store| async move {
        let node = Node::start(store).await;
        let others = node
            .mosquitto("sub", &["-t", "$hw/events/device/+/+/twin/#", "-C", "2", "-F", "%t %p", "-q", "1"]);
        node.subscriptions(1).await;
        let mut publisher = node.mosquitto("pub", &["-q", "1", "-t", UPDATE, "-m", "{\"event_id\":\"1\"}"]);
        let message = node.asked(SOON).await.unwrap();
        let TwinMsg::Mqtt { topic, payload, listeners, reply } = message else { panic!("{message:?}") };
        assert_eq!(listeners, UpdateListeners::ALL, "somebody subscribes to both");
        assert_eq!((topic.as_str(), payload.as_ref()), (UPDATE, b"{\"event_id\":\"1\"}".as_slice()));
        assert!(publisher.try_wait().unwrap().is_none(), "acknowledged before the commit");
        node.publish(RESULT, "{}", false).await;
        reply.send(Ok(()));
        assert_eq!(lines(publisher).await, Vec::<String>::new());
        assert_eq!(
            lines(others).await,
            [format!("{UPDATE} {{\"event_id\":\"1\"}}"), format!("{RESULT} {{}}")]
        );
    });
}

#[test]
fn a_refusal_is_acknowledged_and_counted_and_no_answer_ends_the_connection() {
    run(|store| async move {
        let node = Node::start(store).await;
        let mut client = node.client("one").await;
        client.send(&publish(UPDATE, "x", 1, 5)).await;
        // A later message waits for its turn: acknowledgements keep the order of the publishes.
        client.send(&publish("other", "x", 1, 6)).await;
        let Some(TwinMsg::Mqtt { listeners, reply, .. }) = node.asked(SOON).await else { panic!() };
        assert_eq!(listeners, UpdateListeners { result: false, document: false }, "nobody subscribes");
        reply.send(Err("not JSON".to_owned()));
        client.expect(b"\x40\x02\x00\x05\x40\x02\x00\x06").await;
        client.send(&publish(UPDATE, "x", 1, 7)).await;
        let Some(TwinMsg::Mqtt { reply, .. }) = node.asked(SOON).await else { panic!() };
        drop(reply);
        assert_eq!(client.rest().await, b"");
        node.wait("counts", |v| v["refusedByTwin"] == 1 && v["unansweredByTwin"] == 1 && v["clients"] == 0)
            .await;
    });
}

#[test]
fn a_value_that_is_sent_by_a_client_that_leaves_at_once_reaches_device_twin() {
    run(|store| async move {
        let node = Node::start(store).await;
        let mut client = node.client("one").await;
        client.send(&[publish(UPDATE, "x", 0, 0), vec![0xe0, 0]].concat()).await;
        assert_eq!(client.rest().await, b"");
        assert!(matches!(node.asked(SOON).await, Some(TwinMsg::Mqtt { .. })));
    });
}

#[test]
fn first_level_wildcards_keep_away_from_dollar_topics() {
    run(|store| async move {
        let node = Node::start(store).await;
        let all = node.mosquitto("sub", &["-t", "#", "-C", "2", "-F", "%t"]);
        let upload = "$hw/events/upload/x";
        let hw = node.mosquitto("sub", &["-t", "$hw/#", "-t", upload, "-C", "1", "-F", "%t"]);
        node.subscriptions(3).await;
        for topic in [upload, "größe/ü", "hw/x"] {
            lines(node.mosquitto("pub", &["-t", topic, "-m", "1", "-q", "2"])).await;
        }
        assert_eq!(lines(all).await, ["größe/ü", "hw/x"]);
        assert_eq!(lines(hw).await, [upload]);
    });
}

#[test]
fn thousands_of_messages_of_qos_1_arrive_once_and_in_order() {
    run(|store| async move {
        let node = Node::start(store).await;
        const COUNT: usize = 5000;
        let count = COUNT.to_string();
        let subs: Vec<_> = ["load/#", "load/x"]
            .iter()
            .map(|filter| node.mosquitto("sub", &["-t", filter, "-C", &count, "-q", "1"]))
            .collect();
        node.subscriptions(2).await;
        let mut publisher = node.mosquitto("pub", &["-t", "load/x", "-q", "1", "-l"]);
        let wanted: Vec<String> = (0..COUNT).map(|n| format!("{n} {}", "x".repeat(200))).collect();
        let mut input = publisher.stdin.take().unwrap();
        let text = wanted.join("\n") + "\n";
        let feed = async move {
            input.write_all(text.as_bytes()).await.unwrap();
            drop(input);
        };
        // All at once: a subscriber whose output nobody reads holds up the publisher, as it should.
        let got = futures::future::join_all(subs.into_iter().map(lines));
        let (_, _, got) = tokio::join!(feed, lines(publisher), got);
        assert!(got.iter().all(|got| *got == wanted));
        let view = node.view().await;
        assert_eq!(
            (&view["lostQos1"], &view["cutOff"], &view["routerDeaths"]),
            (&0.into(), &0.into(), &0.into())
        );
    });
}

#[test]
fn retained_messages_outlive_the_daemon_until_an_empty_one_comes() {
    run(|store| async move {
        let node = Node::start(store.clone()).await;
        lines(node.mosquitto("pub", &["-r", "-q", "1", "-t", "a/b", "-m", "kept"])).await;
        lines(node.mosquitto("pub", &["-r", "-q", "1", "-t", "a/c", "-m", "gone"])).await;
        lines(node.mosquitto("pub", &["-r", "-q", "1", "-t", "a/c", "-n"])).await;
        node.publish("$hw/x", "own", true).await;
        let sub =
            node.mosquitto("sub", &["-t", "a/#", "-t", "$hw/+", "-C", "2", "-F", "%t %r %p", "-q", "1"]);
        let mut got = lines(sub).await;
        got.sort();
        assert_eq!(got, ["$hw/x 1 own", "a/b 1 kept"]);
        node.stop().await;

        let node = Node::start(store).await;
        assert_eq!(node.view().await["retained"], 2);
        let sub = node.mosquitto("sub", &["-t", "+/b", "-C", "2", "-F", "%r %p", "-q", "1"]);
        node.subscriptions(1).await;
        lines(node.mosquitto("pub", &["-t", "a/b", "-m", "now"])).await;
        assert_eq!(lines(sub).await, ["1 kept", "0 now"]);
    });
}

#[test]
fn a_will_is_published_when_the_client_is_silent_or_gone_but_not_when_it_says_goodbye() {
    run(|store| async move {
        let node = Node::start(store).await;
        let state = "$hw/events/device/default/sensor-1/state/update";
        let sub = node.mosquitto("sub", &["-t", "will", "-t", state, "-C", "3", "-F", "%p"]);
        node.subscriptions(2).await;
        let wills = [("a", ("will", "gone"), 0), ("b", ("will", "silent"), 1), ("c", (state, "off"), 0)];
        for (count, (id, will, keep_alive)) in (1..).zip(wills) {
            let mut client = node.raw().await;
            client.send(&connect(id, true, keep_alive, Some(will))).await;
            client.expect(b"\x20\x02\x00\x00").await;
            if keep_alive > 0 {
                assert_eq!(client.rest().await, b"");
            }
            drop(client);
            node.wait("will", |view| view["messagesIn"] == count).await;
        }
        let mut polite = node.raw().await;
        polite.send(&connect("d", true, 0, Some(("will", "never")))).await;
        polite.expect(b"\x20\x02\x00\x00").await;
        polite.send(&[0xe0, 0]).await;
        assert_eq!(polite.rest().await, b"");
        assert_eq!(lines(sub).await, ["gone", "silent", "off"]);
        node.wait("goodbye", |view| view["clients"] == 0 && view["messagesIn"] == 3).await;
        let told = node.asked(SOON).await;
        assert!(matches!(told, Some(TwinMsg::Mqtt { topic, .. }) if topic == state));
    });
}

#[test]
fn a_persistent_session_is_taken_over_with_what_was_not_acknowledged() {
    run(|store| async move {
        let node = Node::start(store).await;
        let mut first = node.raw().await;
        first.send(&[connect("same", false, 0, None), subscribe("q", 2)].concat()).await;
        first.expect(b"\x20\x02\x00\x00\x90\x03\x00\x09\x02").await;
        node.publish("q", "1", false).await;
        first.expect(&publish("q", "1", 1, 1)).await;

        let mut second = node.raw().await;
        second.send(&connect("same", false, 0, None)).await;
        assert_eq!(first.rest().await, b"");
        second.expect(b"\x20\x02\x01\x00").await;
        let mut again = publish("q", "1", 1, 1);
        *again.first_mut().unwrap() |= 0x08;
        second.expect(&again).await;
        second.send(b"\x40\x02\x00\x01\xe0\x00").await;
        assert_eq!(second.rest().await, b"");
        node.wait("goodbye", |view| view["clients"] == 0 && view["sessions"] == 1).await;
        node.publish("q", "2", false).await;

        let mut third = node.raw().await;
        third.send(&connect("same", false, 0, None)).await;
        third.expect(b"\x20\x02\x01\x00").await;
        third.expect(&publish("q", "2", 1, 2)).await;
        let mut fourth = node.raw().await;
        fourth.send(&connect("same", true, 0, None)).await;
        fourth.expect(b"\x20\x02\x00\x00").await;
        node.wait("clean session", |view| view["subscriptions"] == 0).await;
    });
}

#[test]
fn a_publish_of_qos_2_is_taken_once_however_often_it_is_sent() {
    run(|store| async move {
        let node = Node::start(store).await;
        let mut sub = node.client("sub").await;
        sub.send(&subscribe("t", 0)).await;
        sub.expect(b"\x90\x03\x00\x09\x00").await;
        let mut client = node.client("pub").await;
        for _ in 0..2 {
            client.send(&publish("t", "once", 2, 3)).await;
            client.expect(b"\x50\x02\x00\x03").await;
        }
        client.send(b"\x62\x02\x00\x03").await;
        client.expect(b"\x70\x02\x00\x03").await;
        client.send(&publish("t", "twice", 2, 3)).await;
        client.expect(b"\x50\x02\x00\x03").await;
        sub.expect(&[publish("t", "once", 0, 0), publish("t", "twice", 0, 0)].concat()).await;
    });
}

#[test]
fn a_subscriber_that_acknowledges_nothing_holds_up_publishers_and_loses_what_its_queue_cannot_take() {
    run(|store| async move {
        let node = Node::start(store).await;
        let mut stuck = node.client("stuck").await;
        stuck.send(&subscribe("t", 1)).await;
        stuck.expect(b"\x90\x03\x00\x09\x01").await;
        let mut other = node.client("other").await;
        other.send(&subscribe("end", 1)).await;
        other.expect(b"\x90\x03\x00\x09\x01").await;
        // 20 on the way and 100 in the queue; the next one of another client waits for a second.
        for n in 0..120 {
            node.publish("t", &n.to_string(), false).await;
        }
        node.wait("window", |view| view["messagesOut"] == 20 && view["messagesIn"] == 120).await;
        let began = node.env.now();
        other.send(&publish("t", "x", 1, 1)).await;
        other.expect(b"\x40\x02\x00\x01").await;
        assert!(node.env.now().since(began).as_millis() >= 900);
        // What the node itself says does not wait, so the queue of 1,000 overflows.
        for n in 121..1121 {
            node.publish("t", &n.to_string(), false).await;
        }
        node.publish("end", "x", false).await;
        other.expect(&publish("end", "x", 1, 1)).await;
        let view = node.view().await;
        let counted = ["cutOff", "clients", "lostQos1"].map(|key| view[key].as_u64().unwrap());
        assert_eq!(counted, [0, 2, 101]);
        // What was lost is the newest; the rest comes as soon as there is an answer.
        let window: Vec<u8> = (0..20u16).flat_map(|n| publish("t", &n.to_string(), 1, n + 1)).collect();
        stuck.expect(&window).await;
        stuck.send(b"\x40\x02\x00\x01").await;
        stuck.expect(&publish("t", "20", 1, 21)).await;
    });
}

/// The packet identifier of a publish of QoS 1 or 2, and its payload.
fn published(body: &[u8]) -> ([u8; 2], String) {
    let topic = 2 + usize::from(u16::from_be_bytes([body[0], body[1]]));
    ([body[topic], body[topic + 1]], String::from_utf8(body[topic + 2..].to_vec()).unwrap())
}

/// How many messages each of two clients has for the other.
const EXCHANGED: u16 = 400;

/// Publishes to the client `other`, as many at once as `window` says and before anything is acknowledged; answers what comes from
/// it meanwhile.
fn exchange(
    address: SocketAddr,
    own: &str,
    other: &str,
    qos: u8,
    window: u16,
    together: &Barrier,
) -> Vec<String> {
    let mut line = BlockingClient::raw(address);
    line.send(&[connect(own, false, 0, None), subscribe(own, qos)].concat());
    assert_eq!(line.next(), Some((0x20, vec![0, 0])));
    assert_eq!(line.next(), Some((0x90, vec![0, 9, qos])));
    together.wait();
    let began = Instant::now();
    let (mut sent, mut done, mut got, mut acks) = (0, 0, Vec::new(), Vec::new());
    while done < EXCHANGED || got.len() < usize::from(EXCHANGED) {
        assert!(began.elapsed() < SOON, "{own}: {done} of {sent} acknowledged, {} came", got.len());
        let mut some = Vec::new();
        while sent < EXCHANGED && sent - done < window {
            sent += 1;
            some.extend(publish(other, &sent.to_string(), qos, sent));
        }
        some.append(&mut acks);
        line.send(&some);
        let (first, body) = line.next().unwrap();
        match first & 0xf0 {
            0x30 => {
                let ([high, low], payload) = published(&body);
                got.push(payload);
                acks.extend([if qos == 1 { 0x40 } else { 0x50 }, 2, high, low]);
            }
            0x50 => acks.extend([0x62, 2, body[0], body[1]]),
            0x60 => acks.extend([0x70, 2, body[0], body[1]]),
            _ => done += 1,
        }
    }
    line.send(&acks);
    got
}

#[test]
fn two_clients_that_publish_to_each_other_do_not_wait_for_each_other() {
    run(|store| async move {
        let node = Node::start(store).await;
        let (address, together) = (node.address, std::sync::Arc::new(Barrier::new(2)));
        let wanted: Vec<String> = (1..=EXCHANGED).map(|n| n.to_string()).collect();
        // Without a window its acknowledgements lie behind more than is held back. 256 of QoS 2 may be open.
        for (names, qos, window) in [(["a", "b"], 1, EXCHANGED), (["c", "d"], 1, 200), (["e", "f"], 2, 200)] {
            let [one, other] = [names, [names[1], names[0]]].map(|[own, other]| {
                let together = std::sync::Arc::clone(&together);
                tokio::task::spawn_blocking(move || exchange(address, own, other, qos, window, &together))
            });
            assert!(one.await.unwrap() == wanted && other.await.unwrap() == wanted, "QoS {qos}, {window}");
        }
        let view = node.view().await;
        assert_eq!((&view["lostQos1"], &view["cutOff"]), (&0.into(), &0.into()));
    });
}

#[test]
fn a_client_whose_publishes_wait_for_another_gets_its_own_messages_and_may_leave() {
    run(|store| async move {
        let node = Node::start(store).await;
        let mut deaf = node.client("deaf").await;
        deaf.send(&subscribe("t", 1)).await;
        deaf.expect(b"\x90\x03\x00\x09\x01").await;
        for n in 0..120 {
            node.publish("t", &n.to_string(), false).await;
        }
        node.wait("window", |view| view["messagesOut"] == 20 && view["messagesIn"] == 120).await;
        let mut brief = node.client("brief").await;
        brief.send(&[publish("t", "x", 1, 1), publish("t", "x", 1, 2), vec![0xe0, 0]].concat()).await;
        let address = node.address;
        let busy = tokio::task::spawn_blocking(move || {
            let mut line = BlockingClient::client(address, "busy");
            line.send(&subscribe("own", 1));
            assert_eq!(line.next().map(|(first, _)| first), Some(0x90));
            // Each of them waits for a second.
            line.send(&(1..=20).flat_map(|pkid| publish("t", "x", 1, pkid)).collect::<Vec<u8>>());
            let (mut came, mut acknowledged) = (0, 0);
            while came < 60 {
                let (first, body) = line.next().unwrap();
                if first == 0x40 {
                    acknowledged += 1;
                } else {
                    let ([high, low], _) = published(&body);
                    line.send(&[0x40, 2, high, low]);
                    came += 1;
                }
            }
            (line, acknowledged)
        });
        node.subscriptions(2).await;
        for n in 0..60 {
            node.publish("own", &n.to_string(), false).await;
        }
        let (mut line, acknowledged) = busy.await.unwrap();
        assert!(acknowledged < 9, "{acknowledged} publishes came first");
        drop(deaf);
        let rest = tokio::task::spawn_blocking(move || {
            (acknowledged..20).map(|_| line.next().unwrap()).collect::<Vec<_>>()
        });
        let wanted: Vec<_> = (acknowledged + 1..=20).map(|pkid| (0x40, vec![0, pkid])).collect();
        assert_eq!(rest.await.unwrap(), wanted);
        node.wait("all of them", |view| view["messagesIn"] == 120 + 60 + 20 + 2).await;
    });
}

#[test]
fn rumqttc_writes_and_reads_kubeedges_topics() {
    run(|store| async move {
        use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS};
        let node = Node::start(store).await;
        let options = MqttOptions::new("rumqttc", "127.0.0.1", node.address.port());
        let (client, mut events) = AsyncClient::new(options, 10);
        client.subscribe("$hw/events/#", QoS::ExactlyOnce).await.unwrap();
        client.publish("$hw/events/upload/x", QoS::AtLeastOnce, false, "{}").await.unwrap();
        client.publish("$SYS/broker", QoS::AtLeastOnce, false, "mine").await.unwrap();
        let (mut got, mut acks) = (Vec::new(), 0);
        while got.is_empty() || acks < 2 {
            match tokio::time::timeout(SOON, events.poll()).await.unwrap().unwrap() {
                Event::Incoming(Packet::Publish(publish)) => got.push((publish.topic, publish.qos)),
                Event::Incoming(Packet::PubAck(_)) => acks += 1,
                _ => {}
            }
        }
        assert_eq!(got, [("$hw/events/upload/x".to_owned(), QoS::AtLeastOnce)]);
        assert_eq!(node.view().await["refusedTopics"], 1);
    });
}

#[test]
fn clients_that_cannot_be_served_are_told_why() {
    run(|store| async move {
        let node = Node::start(store).await;
        for (level, answer) in [(3, b"\x20\x02\x00\x01".as_slice()), (6, b"\x20\x03\x00\x84\x00")] {
            let mut other = node.raw().await;
            other
                .send(&[b"\x10\x0d\x00\x04MQTT".as_slice(), &[level], b"\x02\x00\x3c\x00\x00\x00"].concat())
                .await;
            assert_eq!(other.rest().await, answer);
        }
        let mut nameless = node.raw().await;
        nameless.send(&connect("", false, 0, None)).await;
        assert_eq!(nameless.rest().await, b"\x20\x02\x00\x02");
        let mut shared = node.client("").await;
        shared
            .send(&[subscribe("$share/group", 1), packet(0xa2, &[b"\x00\x0a", &text("never")])].concat())
            .await;
        shared.expect(b"\x90\x03\x00\x09\x80\xb0\x02\x00\x0a").await;
        shared.send(&[0xc0, 0]).await;
        shared.expect(&[0xd0, 0]).await;
        let view = node.view().await;
        assert_eq!((&view["refusedConnections"], &view["refusedVersions"]), (&3.into(), &2.into()));
    });
}

#[test]
fn there_are_no_more_connections_than_the_bound() {
    run(|store| async move {
        let node = Node::start(store).await;
        let greet = async |id: &str| {
            let mut client = node.raw().await;
            client.send(&connect(id, true, 60, None)).await;
            client
        };
        let mut clients = Vec::new();
        for n in 0..128 {
            let mut client = greet(&n.to_string()).await;
            client.expect(b"\x20\x02\x00\x00").await;
            clients.push(client);
        }
        // Told, so that it does not come again at once; and it is no bound for whoever comes back.
        assert_eq!(greet("one more").await.rest().await, b"\x20\x02\x00\x03");
        greet("7").await.expect(b"\x20\x02\x00\x00").await;
        assert_eq!(clients.remove(7).rest().await, b"");
        node.wait("room", |view| view["clients"] == 127).await;
        node.client("again").await;
    });
}

/// Random bytes, real packets with one byte changed, and real packets cut short, after a CONNECT or instead of it.
#[test]
fn hostile_bytes_end_their_own_connection_and_nothing_else() {
    run(|store| async move {
        let node = Node::start(store).await;
        let mut witness = node.client("witness").await;
        witness.send(&subscribe("alive", 0)).await;
        witness.expect(b"\x90\x03\x00\x09\x00").await;
        let good = [
            connect("hostile", true, 0, Some(("will/é", "x"))),
            subscribe("$hw/+/é/#", 1),
            subscribe("#", 1),
            publish("é", "x", 1, 1),
            publish("$é/x", "", 2, 2),
            packet(0x31, &[&text("r"), b"x"]),
            packet(0xa2, &[b"\x00\x0a", &text("#")]),
            vec![0x62, 2, 0, 2],
            vec![0xc0, 0],
        ];
        let bytes = proptest::collection::vec(proptest::num::u8::ANY, 0..64);
        let plan = (
            proptest::bool::ANY,
            0..good.len(),
            0..64_usize,
            proptest::num::u8::ANY,
            proptest::option::of(bytes),
        );
        let mut runner = TestRunner::deterministic();
        for round in 0..400 {
            let (greeted, pick, place, change, random) = plan.new_tree(&mut runner).unwrap().current();
            let mut sent = if greeted { connect("hostile", place % 2 == 0, 0, None) } else { Vec::new() };
            match random {
                Some(random) => sent.extend(random),
                None => {
                    let mut one = good.get(pick).unwrap().clone();
                    let place = place % one.len();
                    if change % 2 == 0 {
                        one.truncate(place)
                    } else {
                        *one.get_mut(place).unwrap() ^= change
                    }
                    sent.extend(one);
                }
            }
            let mut client = node.raw().await;
            // The broker may have closed it before all was sent.
            let _ = client.socket.write_all(&sent).await;
            let _ = client.socket.shutdown().await;
            client.rest().await;
            if round % 50 == 0 {
                node.publish("alive", "yes", false).await;
                witness.expect(&publish("alive", "yes", 0, 0)).await;
            }
        }
        // What is malformed is closed by the broker, without waiting for the client to go.
        for wrong in
            [b"GET / HTTP/1.1\r\n\r\n".as_slice(), b"\x30\xff\xff\xff\x7f", b"\x10\xff\xff\xff\xff\xff"]
        {
            let mut client = node.raw().await;
            client.send(wrong).await;
            assert_eq!(client.rest().await, b"");
        }
        for wrong in [publish("a/+", "x", 0, 0), subscribe("", 0), connect("two", true, 0, None)] {
            let mut client = node.client("x").await;
            client.send(&wrong).await;
            assert_eq!(client.rest().await, b"");
        }
        let view = node.view().await;
        assert_eq!((&view["routerDeaths"], &view["router"]), (&0.into(), &"up".into()));
    });
}
