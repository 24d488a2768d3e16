//! Publishes of QoS 2 that their client has not released: any number of them, over connections and restarts, each handed out once; and
//! what is said anew under an identifier of before.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod node;

use std::rc::Rc;
use std::time::Instant;

use edge_store::{Store, Table};
use node::blocking_client::BlockingClient;
use node::{Node, RawClient, connect, packet, publish, run, subscribe, text};

const NEW: &[u8] = b"\x20\x02\x00\x00";
const KNOWN: &[u8] = b"\x20\x02\x01\x00";

/// A client of 3.1.1 whose session lasts.
async fn come(node: &Node, id: &str, welcome: &[u8]) -> RawClient {
    let mut raw = node.raw().await;
    raw.send(&connect(id, false, 0, None)).await;
    raw.expect(welcome).await;
    raw
}

/// A client that hears everything below `t`, with QoS 0.
async fn reader(node: &Node) -> RawClient {
    let mut reader = node.client("reader").await;
    reader.send(&subscribe("t/#", 0)).await;
    reader.expect(&[0x90, 3, 0, 9, 0]).await;
    reader
}

fn dup(mut publish: Vec<u8>) -> Vec<u8> {
    *publish.first_mut().unwrap() |= 8;
    publish
}

fn pubrec(pkid: u16) -> Vec<u8> {
    [&[0x50, 2], pkid.to_be_bytes().as_slice()].concat()
}

/// Releases it, and hears that.
async fn release(client: &mut RawClient, pkid: u16) {
    client.send(&[&[0x62, 2], pkid.to_be_bytes().as_slice()].concat()).await;
    client.expect(&[&[0x70, 2], pkid.to_be_bytes().as_slice()].concat()).await;
}

/// Nothing has come to the reader but what it has read.
async fn heard_all(node: &Node, reader: &mut RawClient) {
    node.publish("t/end", "end", false).await;
    reader.expect(&publish("t/end", "end", 0, 0)).await;
}

const MANY: u16 = 3_000;

fn all<T>(one: impl Fn(u16) -> Vec<T>) -> Vec<T> {
    (1..=MANY).flat_map(one).collect()
}

fn numbered(pkid: u16) -> Vec<u8> {
    publish("t/x", &pkid.to_string(), 2, pkid)
}

fn rows(store: &Store, client: &str) -> usize {
    let rows = store.list_rows(Table::MqttSessions, Some(client)).unwrap();
    rows.iter().filter(|row| row.key2.starts_with('u')).count()
}

#[test]
fn three_thousand_are_handed_out_once_over_connections_and_a_restart() {
    run(|store| async move {
        let node = Node::start(store.clone()).await;
        let mut reader_of_first = reader(&node).await;
        let mut client = come(&node, "sender", NEW).await;
        client.send(&all(numbered)).await;
        client.expect(&all(pubrec)).await;
        reader_of_first.expect(&all(|pkid| publish("t/x", &pkid.to_string(), 0, 0))).await;
        drop(client);
        // As the standard has it, and as paho does it at its second dial.
        for again in [dup, std::convert::identity] {
            let mut client = come(&node, "sender", KNOWN).await;
            client.send(&all(|pkid| again(numbered(pkid)))).await;
            client.expect(&all(pubrec)).await;
        }
        heard_all(&node, &mut reader_of_first).await;
        // 256 of them share a row.
        assert_eq!(rows(&store, "sender"), usize::from(MANY / 256 + 1));
        drop(reader_of_first);
        node.stop().await;

        let node = Node::start(store.clone()).await;
        let mut reader = reader(&node).await;
        let mut client = come(&node, "sender", KNOWN).await;
        client.send(&all(|pkid| if pkid % 2 == 0 { dup(numbered(pkid)) } else { numbered(pkid) })).await;
        client.expect(&all(pubrec)).await;
        heard_all(&node, &mut reader).await;
        client.send(&publish("t/x", "new", 2, 7)).await;
        client.expect(&pubrec(7)).await;
        reader.expect(&publish("t/x", "new", 0, 0)).await;
        client.send(&all(|pkid| [&[0x62, 2], pkid.to_be_bytes().as_slice()].concat())).await;
        client.expect(&all(|pkid| [&[0x70, 2], pkid.to_be_bytes().as_slice()].concat())).await;
        assert_eq!(rows(&store, "sender"), 0);
        // What was released is free for the same words.
        client.send(&numbered(7)).await;
        client.expect(&pubrec(7)).await;
        reader.expect(&publish("t/x", "7", 0, 0)).await;
        heard_all(&node, &mut reader).await;
    });
}

#[test]
fn a_process_that_has_lost_its_memory_uses_identifiers_anew() {
    run(|store| async move {
        let node = Node::start(store.clone()).await;
        let mut reader = reader(&node).await;
        let mut client = come(&node, "sender", NEW).await;
        client.send(&publish("t/x", "old", 2, 5)).await;
        client.expect(&pubrec(5)).await;
        reader.expect(&publish("t/x", "old", 0, 0)).await;
        drop(client);

        // The same message, whatever DUP says; then another one, and another topic.
        let mut client = come(&node, "sender", KNOWN).await;
        for again in [publish("t/x", "old", 2, 5), dup(publish("t/x", "old", 2, 5))] {
            client.send(&again).await;
            client.expect(&pubrec(5)).await;
        }
        heard_all(&node, &mut reader).await;
        client.send(&publish("t/x", "new", 2, 5)).await;
        client.expect(&pubrec(5)).await;
        reader.expect(&publish("t/x", "new", 0, 0)).await;
        drop(client);

        // The new one is known as the old one was; with DUP it is another one, too: its first try may not have come.
        let mut client = come(&node, "sender", KNOWN).await;
        client.send(&publish("t/x", "new", 2, 5)).await;
        client.expect(&pubrec(5)).await;
        client.send(&dup(publish("t/y", "new", 2, 5))).await;
        client.expect(&pubrec(5)).await;
        reader.expect(&publish("t/y", "new", 0, 0)).await;
        release(&mut client, 5).await;
        drop(client);

        // Over a restart, too, and while it waits for DeviceTwin.
        let mut client = come(&node, "sender", KNOWN).await;
        client.send(&publish("t/x", "before", 2, 6)).await;
        client.expect(&pubrec(6)).await;
        drop((client, reader));
        node.stop().await;
        let node = Node::start(store).await;
        let mut reader = self::reader(&node).await;
        let mut client = come(&node, "sender", KNOWN).await;
        client.send(&publish("t/x", "before", 2, 6)).await;
        client.expect(&pubrec(6)).await;
        client.send(&publish("t/x", "after", 2, 6)).await;
        client.expect(&pubrec(6)).await;
        reader.expect(&publish("t/x", "after", 0, 0)).await;
        release(&mut client, 6).await;
        heard_all(&node, &mut reader).await;
    });
}

#[test]
fn another_message_does_not_wait_for_what_the_one_before_was_told() {
    run(|store| async move {
        let node = Node::start(store).await;
        let topic = "$hw/events/device/a/b/twin/update";
        let mut client = come(&node, "sender", NEW).await;
        client.send(&publish(topic, "{\"n\":1}", 2, 5)).await;
        let asked = async || match node.asked(node::SOON).await {
            Some(contract::devicetwin::TwinMsg::Mqtt { payload, reply, .. }) => (payload, reply),
            other => panic!("{other:?}"),
        };
        let (_, first) = asked().await;
        drop(client);
        let mut client = come(&node, "sender", KNOWN).await;
        client.send(&publish(topic, "{\"n\":2}", 2, 5)).await;
        let (payload, second) = asked().await;
        assert_eq!(&payload[..], b"{\"n\":2}");
        // That the first one was taken is no word about the second: sent once more it still waits.
        first.send(Ok(()));
        client.send(&[dup(publish(topic, "{\"n\":2}", 2, 5)), vec![0xc0, 0]].concat()).await;
        client.expect(b"\xd0\0").await;
        second.send(Ok(()));
        client.expect(&[pubrec(5), pubrec(5)].concat()).await;
        release(&mut client, 5).await;
    });
}

/// CONNECT of MQTT 5 whose session lasts for a minute, and its PUBLISH.
fn connect5(id: &str) -> Vec<u8> {
    packet(0x10, &[b"\x00\x04MQTT\x05\x00\x00\x00\x05\x11\x00\x00\x00\x3c", &text(id)])
}

fn publish5(topic: &str, payload: &str, flags: u8, pkid: u16) -> Vec<u8> {
    packet(0x30 | flags, &[&text(topic), &pkid.to_be_bytes(), &[0], payload.as_bytes()])
}

async fn come5(node: &Node, id: &str, is_known: bool) -> RawClient {
    let mut raw = node.raw().await;
    raw.send(&connect5(id)).await;
    let limits = b"\x00\x0b\x21\x01\x00\x27\x00\x10\x00\x00\x22\x00\x10";
    raw.expect(&[&[0x20, 14, u8::from(is_known)], limits.as_slice()].concat()).await;
    raw
}

#[test]
fn the_receive_maximum_is_that_of_a_connection() {
    run(|store| async move {
        let node = Node::start(store).await;
        // 256 in each of two connections: neither is cut, as the bound is of each connection.
        for (is_known, from) in [(false, 1), (true, 1_000)] {
            let mut client = come5(&node, "five", is_known).await;
            client
                .send(&(from..from + 256).flat_map(|pkid| publish5("t", "x", 4, pkid)).collect::<Vec<u8>>())
                .await;
            client.expect(&(from..from + 256).flat_map(pubrec).collect::<Vec<u8>>()).await;
            // One that is sent again is no further one; one that is released makes room.
            client.send(&publish5("t", "x", 12, from)).await;
            client.expect(&pubrec(from)).await;
            release(&mut client, from).await;
            client.send(&publish5("t", "y", 4, 5_000)).await;
            client.expect(&pubrec(5_000)).await;
            if is_known {
                client.send(&publish5("t", "one too many", 4, 6_000)).await;
                let rest = client.rest().await;
                assert_eq!((rest.first(), rest.get(2)), (Some(&0xe0), Some(&0x93)), "{rest:x?}");
            }
        }
    });
}

#[test]
fn what_is_refused_with_a_code_is_not_open_any_more() {
    run(|store| async move {
        let settings = config::edge::EventBus {
            max_retained_bytes: 1 << 20,
            max_messages_per_second: 0,
            ..Default::default()
        };
        let node = Node::start_as(store, settings).await;
        let mut reader = reader(&node).await;
        let mut client = come5(&node, "five", false).await;
        let large = "x".repeat(1_000_000);
        client.send(&publish5("kept/large", &large, 3, 1)).await;
        client.expect(b"\x40\x03\x00\x01\x10").await;
        // There is no room for a second one, 300 times under the same three identifiers: each is a message of its own for who listens.
        let other = "y".repeat(50_000);
        for n in 0..300_u16 {
            let pkid = 1 + n % 3;
            client.send(&publish5("t/kept", &other, 5, pkid)).await;
            client.expect(&[&[0x50, 3], pkid.to_be_bytes().as_slice(), &[0x97]].concat()).await;
            reader.expect(&publish("t/kept", &other, 0, 0)).await;
        }
        // Nor has it left anything open.
        client.send(&(1..=256).flat_map(|pkid| publish5("t", "x", 4, pkid)).collect::<Vec<u8>>()).await;
        client.expect(&(1..=256).flat_map(pubrec).collect::<Vec<u8>>()).await;
    });
}

/// Hostile: one that never releases. What all identifiers of 256 sessions cost is tested beside the code that keeps them.
#[test]
fn all_identifiers_may_be_open_at_once() {
    run(|store| async move {
        let settings = config::edge::EventBus { max_messages_per_second: 0, ..Default::default() };
        let node = Node::start_as(store, settings).await;
        let (address, began) = (node.address, Instant::now());
        let client = tokio::task::spawn_blocking(move || {
            let mut line = BlockingClient::client(address, "greedy");
            for from in (1..=u16::MAX).step_by(512) {
                let some = from..=from.saturating_add(511);
                line.send(
                    &some.clone().flat_map(|pkid| publish("nobody", "x", 2, pkid)).collect::<Vec<u8>>(),
                );
                for pkid in some {
                    assert_eq!(line.next(), Some((0x50, pkid.to_be_bytes().to_vec())));
                }
            }
            line.send(&[0xc0, 0]);
            assert_eq!(line.next(), Some((0xd0, vec![])));
            line
        });
        let line = client.await.unwrap();
        println!("65,535 publishes of QoS 2 in {:?}", began.elapsed());
        assert_eq!(node.view().await["clients"], 1);
        drop(line);
        let _: Rc<Node> = node;
    });
}
