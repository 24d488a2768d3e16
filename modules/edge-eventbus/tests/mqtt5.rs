//! Clients of MQTT 3.1 and 5 beside those of 3.1.1, on one port: by the bytes, and with mosquitto's tools. Ids in comments are
//! those of statements: 5:x is [MQTT-x] of version 5.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod node;

use node::child::lines;
use node::{Node, RawClient, SOON, connect, packet, publish, run, subscribe, text};

/// CONNECT of MQTT 5.
fn connect5(id: &str, clean: bool, properties: &[u8], will: Option<(&[u8], &str, &str)>) -> Vec<u8> {
    let flags = u8::from(clean) << 1 | if will.is_some() { 0x0c } else { 0 };
    let length = u8::try_from(properties.len()).unwrap();
    let mut body = [b"\x00\x04MQTT\x05".as_slice(), &[flags, 0, 0, length], properties, &text(id)].concat();
    if let Some((properties, topic, payload)) = will {
        body.push(u8::try_from(properties.len()).unwrap());
        body.extend([properties, &text(topic), &text(payload)].concat());
    }
    packet(0x10, &[&body])
}

/// PUBLISH of MQTT 5.
fn publish5(topic: &str, payload: &str, qos: u8, pkid: u16, properties: &[u8]) -> Vec<u8> {
    let pkid = pkid.to_be_bytes();
    let pkid = if qos > 0 { pkid.as_slice() } else { &[] };
    let length = [u8::try_from(properties.len()).unwrap()];
    packet(0x30 | qos << 1, &[&text(topic), pkid, &length, properties, payload.as_bytes()])
}

fn subscribe5(filter: &str, options: u8, properties: &[u8]) -> Vec<u8> {
    let length = [u8::try_from(properties.len()).unwrap()];
    packet(0x82, &[b"\x00\x09", &length, properties, &text(filter), &[options]])
}

/// Its CONNACK says which limits hold: 256 messages, 1 MiB, 16 aliases.
const WELCOME: &[u8] = b"\x20\x0e\x00\x00\x0b\x21\x01\x00\x27\x00\x10\x00\x00\x22\x00\x10";
const AGAIN: &[u8] = b"\x20\x0e\x01\x00\x0b\x21\x01\x00\x27\x00\x10\x00\x00\x22\x00\x10";
const FOR_30_S: &[u8] = &[0x11, 0, 0, 0, 30];

async fn client5(node: &Node, id: &str, properties: &[u8]) -> RawClient {
    let mut raw = node.raw().await;
    raw.send(&connect5(id, true, properties, None)).await;
    raw.expect(WELCOME).await;
    raw
}

async fn is_alive(client: &mut RawClient) {
    client.send(&[0xc0, 0]).await;
    client.expect(&[0xd0, 0]).await;
}

#[test]
fn the_last_word_reaches_a_client_that_goes_on_sending() {
    run(|store| async move {
        let node = Node::start(store).await;
        let mut client = client5(&node, "one", &[]).await;
        // 257 of QoS 2 that are not released: one too many (5:3.3.4-9). What follows nobody hears any more.
        let all: Vec<u8> = (1..=400).flat_map(|pkid| publish5("t", "x", 2, pkid, &[])).collect();
        client.send(&all).await;
        let mut rest = client.rest().await;
        let last = rest.split_off(256 * 4);
        assert_eq!((rest[0], last[0], last[2]), (0x50, 0xe0, 0x93), "{last:x?}");
    });
}

/// The code of the DISCONNECT that the connection ends with.
async fn ends(client: &mut RawClient) -> Option<u8> {
    let rest = client.rest().await;
    (rest.first() == Some(&0xe0)).then(|| rest[2])
}

#[test]
fn tools_of_every_version_hear_each_other() {
    run(|store| async move {
        let node = Node::start(store).await;
        let properties =
            ["-D", "publish", "content-type", "text", "-D", "publish", "user-property", "a", "b"];
        for from in ["31", "311", "5"] {
            for to in ["31", "311", "5"] {
                for qos in ["0", "1", "2"] {
                    let topic = format!("{from}/{to}/{qos}");
                    let sub =
                        node.mosquitto("sub", &["-V", to, "-t", &topic, "-q", "2", "-C", "1", "-F", "%q %p"]);
                    node.subscriptions(1).await;
                    let mut words = vec!["-V", from, "-t", &topic, "-q", qos, "-m", "x"];
                    if from == "5" {
                        words.extend(properties);
                    }
                    lines(node.mosquitto("pub", &words)).await;
                    assert_eq!(lines(sub).await, [format!("{qos} x")], "{topic}");
                    node.subscriptions(0).await;
                }
            }
        }
        let sub = node.mosquitto("sub", &["-V", "5", "-t", "p", "-C", "1", "-F", "%C %P %p"]);
        node.subscriptions(1).await;
        lines(node.mosquitto("pub", &[&["-V", "5", "-t", "p", "-m", "x"], &properties[..]].concat())).await;
        assert_eq!(lines(sub).await, ["text a:b x"]);
    });
}

#[test]
fn a_client_of_3_1_is_served_in_its_own_words() {
    run(|store| async move {
        let node = Node::start(store).await;
        let greet = |id: &str, clean: u8| {
            packet(0x10, &[b"\x00\x06MQIsdp\x03", &[clean << 1], b"\x00\x3c", &text(id)])
        };
        let mut old = node.raw().await;
        old.send(&greet("old", 0)).await;
        old.expect(b"\x20\x02\x00\x00").await;
        // It has no word for a refusal: it is granted QoS 0 and gets nothing.
        old.send(&[subscribe("a#", 1), subscribe("t", 1)].concat()).await;
        old.expect(b"\x90\x03\x00\x09\x00\x90\x03\x00\x09\x01").await;
        node.publish("t", "x", false).await;
        old.expect(&publish("t", "x", 1, 1)).await;
        // Nor one for a session that was there.
        let mut again = node.raw().await;
        again.send(&greet("old", 0)).await;
        again.expect(b"\x20\x02\x00\x00").await;
        assert_eq!(old.rest().await, b"");
        // Its flags are unused there, or say that something is sent again.
        let mut loud = node.raw().await;
        let mut hello = greet("loud", 1);
        hello[0] = 0x1f;
        loud.send(&hello).await;
        loud.expect(b"\x20\x02\x00\x00").await;
        loud.send(&[publish("q", "x", 2, 5), vec![0x6a, 2, 0, 5]].concat()).await;
        loud.expect(b"\x50\x02\x00\x05\x70\x02\x00\x05").await;
        let mut nameless = node.raw().await;
        nameless.send(&greet("", 1)).await;
        assert_eq!(nameless.rest().await, b"\x20\x02\x00\x02");
        // A bridge of mosquitto that asks for its own way gets it: nothing comes back to it.
        let mut bridge = node.raw().await;
        bridge.send(&packet(0x10, &[b"\x00\x04MQTT\x84\x02\x00\x3c", &text("bridge")])).await;
        bridge.expect(b"\x20\x02\x00\x00").await;
        bridge.send(&[subscribe("b/#", 0), publish("b/1", "x", 0, 0)].concat()).await;
        bridge.expect(b"\x90\x03\x00\x09\x00").await;
        is_alive(&mut bridge).await;
    });
}

#[test]
fn who_has_no_id_gets_one_and_who_breaks_the_protocol_is_told_the_code() {
    run(|store| async move {
        let node = Node::start(store).await;
        let mut nameless = node.raw().await;
        // 5:3.1.3-6, 3.2.2-16
        nameless.send(&connect5("", false, &[], None)).await;
        nameless
            .expect(b"\x20\x36\x00\x00\x33\x21\x01\x00\x27\x00\x10\x00\x00\x22\x00\x10\x12\x00\x25auto-")
            .await;
        tokio::io::AsyncReadExt::read_exact(&mut nameless.socket, &mut [0; 32]).await.unwrap();
        let faults: [(u8, Vec<u8>); 8] = [
            (0x82, connect5("x", true, &[], None)),
            (0x94, publish5("t", "x", 0, 0, &[0x23, 0, 0])),
            (0x94, publish5("t", "x", 0, 0, &[0x23, 0, 17])),
            (0x82, publish5("", "x", 0, 0, &[0x23, 0, 1])),
            (0x90, publish5("a/#", "x", 0, 0, &[])),
            (0x95, b"\x30\xff\xff\x7f".to_vec()),
            (0x81, b"\xc1\x00".to_vec()),
            (0x82, b"\xe0\x07\x00\x05\x11\x00\x00\x00\x05".to_vec()),
        ];
        for (code, sent) in faults {
            let mut client = client5(&node, "x", &[]).await;
            client.send(&sent).await;
            assert_eq!(ends(&mut client).await, Some(code), "{sent:x?}");
        }
        // Ahead of CONNACK it is CONNACK that says so (5:3.14.0-1); no method of login is there (5:4.12.0-1).
        for (code, properties) in [(0x81, &[0x7f][..]), (0x82, &[0x21, 0, 0]), (0x8c, &[0x15, 0, 1, b'x'])] {
            let mut client = node.raw().await;
            client.send(&connect5("x", true, properties, None)).await;
            assert_eq!(client.rest().await, [0x20, 3, 0, code, 0]);
        }
        is_alive(&mut nameless).await;
    });
}

#[test]
fn refusals_have_codes_and_leave_the_connection_open() {
    run(|store| async move {
        let node = Node::start(store).await;
        let mut client = client5(&node, "one", &[]).await;
        client.send(&publish5("$hw/events/node/n/membership/updated", "x", 1, 1, &[])).await;
        client.expect(b"\x40\x03\x00\x01\x87").await;
        // Nobody subscribes to one, the cloud gets the other.
        client.send(&publish5("nobody/hears", "x", 1, 3, &[])).await;
        client.expect(b"\x40\x03\x00\x03\x10").await;
        client.send(&publish5("$hw/events/upload/hears", "x", 1, 4, &[])).await;
        client.expect(b"\x40\x02\x00\x04").await;
        client.send(&publish5("$SYS/x", "x", 2, 2, &[])).await;
        client.expect(b"\x50\x03\x00\x02\x87").await;
        client.send(&subscribe5("a/#/b", 1, &[])).await;
        client.expect(b"\x90\x04\x00\x09\x00\x8f").await;
        client.send(&packet(0xa2, &[b"\x00\x0a\x00", &text("never")])).await;
        client.expect(b"\xb0\x04\x00\x0a\x00\x11").await;
        // Of unknown identifiers.
        client.send(b"\x62\x02\x00\x07\x50\x02\x00\x08").await;
        client.expect(b"\x70\x03\x00\x07\x92\x62\x03\x00\x08\x92").await;
        is_alive(&mut client).await;
    });
}

#[test]
fn an_alias_stands_for_its_topic_and_is_forgotten_with_the_connection() {
    run(|store| async move {
        let node = Node::start(store).await;
        let mut sub = node.client("sub").await;
        sub.send(&subscribe("#", 0)).await;
        sub.expect(b"\x90\x03\x00\x09\x00").await;
        let mut client = client5(&node, "one", FOR_30_S).await;
        let alias = [0x23, 0, 16];
        for (topic, payload) in [("a", "1"), ("", "2"), ("b", "3"), ("", "4")] {
            client.send(&publish5(topic, payload, 0, 0, &alias)).await;
        }
        let wanted = [("a", "1"), ("a", "2"), ("b", "3"), ("b", "4")];
        sub.expect(&wanted.map(|(topic, payload)| publish(topic, payload, 0, 0)).concat()).await;
        drop(client);
        let mut client = node.raw().await;
        client
            .send(&[connect5("one", false, FOR_30_S, None), publish5("", "x", 0, 0, &alias)].concat())
            .await;
        client.expect(AGAIN).await;
        assert_eq!(ends(&mut client).await, Some(0x82));
    });
}

#[test]
fn a_client_that_takes_numbers_for_topics_gets_a_name_once_for_each_connection() {
    run(|store| async move {
        let node = Node::start(store).await;
        // 5:3.1.2-26: no more than it takes, which is one here.
        let one = &[0x22, 0, 1];
        let mut client = client5(&node, "sub", one).await;
        client.send(&subscribe5("line/+", 0, &[])).await;
        client.expect(b"\x90\x04\x00\x09\x00\x00").await;
        let mut publisher = node.client("pub").await;
        for topic in ["line/1", "line/1", "line/2", "line/1"] {
            publisher.send(&publish(topic, "x", 0, 0)).await;
        }
        client.expect(b"\x30\x0d\x00\x06line/1\x03\x23\x00\x01x").await;
        client.expect(b"\x30\x07\x00\x00\x03\x23\x00\x01x").await;
        client.expect(b"\x30\x0a\x00\x06line/2\x00x").await;
        client.expect(b"\x30\x07\x00\x00\x03\x23\x00\x01x").await;
        drop(client);
        let mut client = client5(&node, "sub", one).await;
        client.send(&subscribe5("line/1", 0, &[])).await;
        client.expect(b"\x90\x04\x00\x09\x00\x00").await;
        publisher.send(&publish("line/1", "x", 0, 0)).await;
        client.expect(b"\x30\x0d\x00\x06line/1\x03\x23\x00\x01x").await;
    });
}

#[test]
fn a_client_is_told_a_keep_alive_and_ended_by_it() {
    run(|store| async move {
        let settings = config::edge::EventBus { max_keep_alive: 1, ..config::edge::EventBus::default() };
        let node = Node::start_as(store, settings).await;
        let mut client = node.raw().await;
        // It asks for none (5:3.2.2-21).
        client.send(&connect5("silent", true, &[], None)).await;
        let told = [b"\x20\x11\x00\x00\x0e".as_slice(), &WELCOME[5..], b"\x13\x00\x01"].concat();
        client.expect(&told).await;
        assert_eq!(ends(&mut client).await, Some(0x8d));
        // One of 3.1.1 cannot be told, and what it asked for holds.
        let mut old = node.client("old").await;
        node.env.sleep(std::time::Duration::from_secs(2)).await;
        is_alive(&mut old).await;
    });
}

#[test]
fn what_a_client_takes_is_respected() {
    run(|store| async move {
        let node = Node::start(store).await;
        // Two messages at once, none larger than 20 bytes (5:3.3.4-9, 3.1.2-24).
        let mut client = client5(&node, "one", &[0x21, 0, 2, 0x27, 0, 0, 0, 20]).await;
        client.send(&subscribe5("t", 1, &[0x0b, 7])).await;
        client.expect(b"\x90\x04\x00\x09\x00\x01").await;
        for payload in ["1", &"x".repeat(20), "2", "3"] {
            node.publish("t", payload, false).await;
        }
        let id = [0x0b, 7];
        client.expect(&[publish5("t", "1", 1, 1, &id), publish5("t", "2", 1, 3, &id)].concat()).await;
        is_alive(&mut client).await;
        client.send(b"\x40\x02\x00\x03").await;
        client.expect(&publish5("t", "3", 1, 4, &id)).await;
        // Twenty codes do not fit, so nothing is subscribed.
        let filters: Vec<u8> = (0..20).flat_map(|n| [text(&format!("f/{n}")), vec![0]].concat()).collect();
        client.send(&packet(0x82, &[b"\x00\x0a\x00", &filters])).await;
        assert_eq!(ends(&mut client).await, Some(0x95));
        node.subscriptions(0).await;
        // Not even the answers to its CONNECT.
        for (most, told) in [(15, b"\x20\x03\x00\x95\x00".as_slice()), (4, b"")] {
            let mut small = node.raw().await;
            small.send(&connect5("small", true, &[0x27, 0, 0, 0, most], None)).await;
            assert_eq!(small.rest().await, told);
        }
    });
}

#[test]
fn an_acknowledgement_of_another_kind_than_its_message_ends_the_connection() {
    run(|store| async move {
        let node = Node::start(store).await;
        for ack in [b"\x50\x02\x00\x01", b"\x70\x02\x00\x01"] {
            let mut client = client5(&node, "one", &[]).await;
            client.send(&subscribe5("t", 2, &[])).await;
            client.expect(b"\x90\x04\x00\x09\x00\x02").await;
            node.publish("t", "x", false).await;
            client.expect(&publish5("t", "x", 1, 1, &[])).await;
            client.send(ack).await;
            assert_eq!(ends(&mut client).await, Some(0x82), "{ack:x?}");
        }
    });
}

#[test]
fn a_message_that_nobody_wants_any_more_does_not_come() {
    run(|store| async move {
        let node = Node::start(store).await;
        let mut away = node.raw().await;
        away.send(&[connect("away", false, 0, None), subscribe("t", 1), vec![0xe0, 0]].concat()).await;
        away.rest().await;
        let mut client = client5(&node, "one", &[]).await;
        for (payload, seconds, pkid) in [("soon", 1, 1), ("later", 100, 2)] {
            client.send(&publish5("t", payload, 1, pkid, &[2, 0, 0, 0, seconds])).await;
            client.expect(&[0x40, 2, 0, u8::try_from(pkid).unwrap()]).await;
        }
        node.env.sleep(std::time::Duration::from_millis(1100)).await;
        let mut back = node.raw().await;
        back.send(&connect5("away", false, FOR_30_S, None)).await;
        back.expect(AGAIN).await;
        // A second has passed, or more on a busy machine.
        let mut got = [0; 17];
        tokio::io::AsyncReadExt::read_exact(&mut back.socket, &mut got).await.unwrap();
        let mut wanted =
            publish5("t", "later", 1, u16::from_be_bytes([got[5], got[6]]), &[2, 0, 0, 0, got[12]]);
        wanted.truncate(17);
        assert_eq!(got.to_vec(), wanted);
        assert!((1..100).contains(&got[12]), "{got:?}");
    });
}

#[test]
fn options_of_a_subscription_hold() {
    run(|store| async move {
        let node = Node::start(store).await;
        node.publish("t", "kept", true).await;
        let mut client = client5(&node, "one", &[]).await;
        // No local and retain as published; no retained message (retain handling 2).
        client.send(&subscribe5("t", 0x2c, &[])).await;
        client.expect(b"\x90\x04\x00\x09\x00\x00").await;
        let mut kept = publish5("t", "new", 0, 0, &[]);
        *kept.first_mut().unwrap() |= 1;
        client.send(&kept).await;
        let mut other = client5(&node, "two", &[]).await;
        other.send(&kept).await;
        client.expect(&kept).await;
        // Only where it is new (1): it is not.
        client.send(&subscribe5("t", 0x10, &[])).await;
        client.expect(b"\x90\x04\x00\x09\x00\x00").await;
        is_alive(&mut client).await;
        client.send(&subscribe5("t", 0x00, &[])).await;
        client.expect(b"\x90\x04\x00\x09\x00\x00").await;
        client.expect(&kept).await;
    });
}

#[test]
fn a_group_shares_its_messages() {
    run(|store| async move {
        let node = Node::start(store).await;
        let mut members = Vec::new();
        for name in ["a", "b"] {
            let mut member = node.client(name).await;
            member.send(&subscribe("$share/g/t/+", 1)).await;
            member.expect(b"\x90\x03\x00\x09\x01").await;
            members.push(member);
        }
        for n in ["1", "2", "3", "4"] {
            node.publish("t/x", n, false).await;
        }
        members[0].expect(&[publish("t/x", "1", 1, 1), publish("t/x", "3", 1, 2)].concat()).await;
        members[1].expect(&[publish("t/x", "2", 1, 1), publish("t/x", "4", 1, 2)].concat()).await;
    });
}

#[test]
fn a_session_lasts_as_long_as_its_client_says_and_takeover_is_told_and_counted() {
    run(|store| async move {
        let node = Node::start(store).await;
        let mut first = client5(&node, "same", FOR_30_S).await;
        let mut second = node.raw().await;
        second.send(&connect5("same", false, FOR_30_S, None)).await;
        second.expect(AGAIN).await;
        assert_eq!(ends(&mut first).await, Some(0x8e));
        node.wait("a takeover", |view| view["takenOver"] == 1).await;
        // 5: ended by a DISCONNECT that says 0; extended by one that says so.
        second.send(b"\xe0\x07\x00\x05\x11\x00\x00\x00\x00").await;
        second.rest().await;
        node.wait("no session", |view| view["sessions"] == 0).await;
        let mut third = client5(&node, "same", &[0x11, 0, 0, 0, 1]).await;
        third.send(b"\xe0\x00").await;
        third.rest().await;
        node.wait("an end of the session", |view| view["sessions"] == 0 && view["expiredSessions"] == 1)
            .await;
    });
}

#[test]
fn a_will_waits_for_its_delay_and_is_dropped_when_its_client_is_back() {
    run(|store| async move {
        let node = Node::start(store).await;
        let mut sub = node.client("sub").await;
        sub.send(&subscribe("will", 0)).await;
        sub.expect(b"\x90\x03\x00\x09\x00").await;
        let delay = |seconds: u8| [0x18, 0, 0, 0, seconds];
        let come = async |id: &str, seconds: u8, properties: &[u8]| {
            let mut client = node.raw().await;
            client.send(&connect5(id, false, properties, Some((&delay(seconds), "will", id)))).await;
            let mut first = [0; 16];
            tokio::io::AsyncReadExt::read_exact(&mut client.socket, &mut first).await.unwrap();
            client
        };
        // Back in time: the will of the first connection is gone. Asked for by the DISCONNECT: at the session's end at the latest.
        drop(come("back", 60, FOR_30_S).await);
        node.wait("an absent client", |view| view["clients"] == 1 && view["sessions"] == 2).await;
        let mut back = come("back", 60, FOR_30_S).await;
        back.send(b"\xe0\x00").await;
        back.rest().await;
        let mut asked = come("asked", 60, &[]).await;
        asked.send(b"\xe0\x01\x04").await;
        sub.expect(&publish("will", "asked", 0, 0)).await;
        drop(come("late", 1, FOR_30_S).await);
        sub.expect(&publish("will", "late", 0, 0)).await;
        is_alive(&mut sub).await;
    });
}

#[test]
fn queued_messages_and_subscriptions_outlive_the_daemon() {
    run(|store| async move {
        let node = Node::start(store.clone()).await;
        let mut keeper = node.raw().await;
        keeper.send(&[connect("keeper", false, 0, None), subscribe("t", 2), vec![0xe0, 0]].concat()).await;
        keeper.rest().await;
        for n in 1..=5 {
            let qos = n.to_string();
            lines(node.mosquitto("pub", &["-q", if n == 5 { "2" } else { "1" }, "-t", "t", "-m", &qos]))
                .await;
        }
        // A publish of QoS 2 that is not released when the daemon ends.
        let mut sender = node.raw().await;
        sender.send(&[connect("sender", false, 0, None), publish("t", "once", 2, 3)].concat()).await;
        sender.expect(b"\x20\x02\x00\x00\x50\x02\x00\x03").await;
        node.stop().await;

        let node = Node::start(store).await;
        node.wait("sessions", |view| view["sessions"] == 2 && view["subscriptions"] == 1).await;
        let mut sender = node.raw().await;
        let mut dup = publish("t", "once", 2, 3);
        *dup.first_mut().unwrap() |= 8;
        sender.send(&[connect("sender", false, 0, None), dup].concat()).await;
        sender.expect(b"\x20\x02\x01\x00\x50\x02\x00\x03").await;
        sender.send(b"\x62\x02\x00\x03").await;
        sender.expect(b"\x70\x02\x00\x03").await;
        // mosquitto's tool does not subscribe to what it does not name, so what comes is what was kept.
        let words = ["-i", "keeper", "-c", "-q", "2", "-t", "t", "-C", "6", "-F", "%q %p"];
        let got = lines(node.mosquitto("sub", &words)).await;
        assert_eq!(got, ["1 1", "1 2", "1 3", "1 4", "2 5", "2 once"]);
    });
}

#[test]
fn a_publish_of_300_kib_comes_and_one_above_the_bound_is_dropped_without_a_word() {
    run(|store| async move {
        let settings = config::edge::EventBus { max_message_bytes: 512 << 10, ..Default::default() };
        let node = Node::start_as(store, settings).await;
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, kib: usize| {
            let path = folder.path().join(name);
            std::fs::write(&path, vec![b'x'; kib << 10]).unwrap();
            path.display().to_string()
        };
        let (fits, large) = (file("fits", 300), file("large", 2048));
        let sub = node.mosquitto("sub", &["-t", "camera", "-q", "1", "-C", "2", "-F", "%l"]);
        node.subscriptions(1).await;
        for name in [&fits, &large, &fits] {
            lines(node.mosquitto("pub", &["-t", "camera", "-q", "1", "-f", name])).await;
        }
        assert_eq!(lines(sub).await, ["307200", "307200"]);
        assert_eq!(node.view().await["oversized"], 1);
        // What goes on to DeviceTwin or the cloud has its own bound.
        lines(node.mosquitto("pub", &["-t", "$hw/events/upload/x", "-q", "1", "-f", &fits])).await;
        assert_eq!(node.view().await["oversized"], 2);
        assert!(node.asked(std::time::Duration::from_millis(20)).await.is_none());
    });
}

#[test]
fn one_subscribe_may_have_2000_filters_and_1500_retained_messages_come_after_a_restart() {
    run(|store| async move {
        let node = Node::start(store.clone()).await;
        let mut client = node.client("many").await;
        let filters: Vec<u8> =
            (0..2000).flat_map(|n| [text(&format!("device/{n}/state")), vec![1]].concat()).collect();
        client.send(&packet(0x82, &[b"\x00\x09", &filters])).await;
        client.expect(&packet(0x90, &[b"\x00\x09", &[1; 2000]])).await;
        node.publish("device/1999/state", "on", false).await;
        client.expect(&publish("device/1999/state", "on", 1, 1)).await;
        for n in 0..1500 {
            node.publish(&format!("kept/{n}"), "x", true).await;
        }
        node.wait("them", |view| view["retained"] == 1500).await;
        node.stop().await;
        let node = Node::start(store).await;
        assert_eq!(node.view().await["retained"], 1500);
        let sub = node.mosquitto("sub", &["-t", "kept/#", "-q", "1", "-C", "1500", "-F", "%t"]);
        let mut got = tokio::time::timeout(SOON, lines(sub)).await.unwrap();
        got.sort();
        got.dedup();
        assert_eq!(got.len(), 1500);
    });
}

#[test]
fn the_broker_tells_its_figures_and_only_who_asks_for_them_gets_them() {
    run(|store| async move {
        let node = Node::start(store.clone()).await;
        let all = node.mosquitto("sub", &["-t", "#", "-C", "1", "-F", "%t"]);
        node.subscriptions(1).await;
        let words = ["-t", "$SYS/broker/version", "-t", "$SYS/broker/clients/+", "-C", "5", "-F", "%t %r %p"];
        let mut got = lines(node.mosquitto("sub", &words)).await;
        got.sort();
        let topics: Vec<&str> = got.iter().filter_map(|line| line.split(' ').next()).collect();
        assert!(
            topics.contains(&"$SYS/broker/version") && topics.contains(&"$SYS/broker/clients/connected"),
            "{got:?}"
        );
        assert!(got.iter().any(|line| line.starts_with("$SYS/broker/version 1 KubeHive ")), "{got:?}");
        node.publish("t", "x", false).await;
        assert_eq!(lines(all).await, ["t"]);
        // They are none of the retained messages that are kept.
        assert_eq!(node.view().await["retained"], 0);
        node.stop().await;
        assert_eq!(store.list_rows(edge_store::Table::Retained, None).unwrap().len(), 0);
    });
}
