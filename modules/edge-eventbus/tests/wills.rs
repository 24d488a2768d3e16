//! Wills over the end of edgecore: one that is stopped says them before it closes the connections, one that was killed says them at its
//! next start. Ids in comments are those of statements: 4:x is [MQTT-x] of version 3.1.1.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod node;

use std::path::Path;
use std::rc::Rc;

use contract::devicetwin::TwinMsg;
use edge_store::{Options, Store, Table};
use node::child::lines;
use node::{Node, RawClient, SOON, connect, packet, publish, run, subscribe, text};

/// CONNECT of MQTT 3.1.1 with a clean session, and a will of QoS 1 that is retained.
fn leaves(id: &str, topic: &str, payload: &str) -> Vec<u8> {
    let mut bytes = connect(id, true, 0, Some((topic, payload)));
    bytes[9] |= 0x20;
    bytes
}

/// The same of MQTT 5, for a session and a delay of so many seconds.
fn leaves5(id: &str, (delay, expiry): (u8, u8), topic: &str, payload: &str) -> Vec<u8> {
    let (expiry, delay) = ([5, 0x11, 0, 0, 0, expiry], [5, 0x18, 0, 0, 0, delay]);
    let body =
        [b"\x00\x04MQTT\x05\x2c\0\0".as_slice(), &expiry, &text(id), &delay, &text(topic), &text(payload)];
    packet(0x10, &[&body.concat()])
}

async fn come(node: &Node, connect: &[u8], welcome: &[u8]) -> RawClient {
    let mut client = node.raw().await;
    client.send(connect).await;
    client.expect(welcome).await;
    client
}

const WELCOME: &[u8] = b"\x20\x02\x00\x00";
const WELCOME5: &[u8] = b"\x20\x0e\x00\x00\x0b\x21\x01\x00\x27\x00\x10\x00\x00\x22\x00\x10";
const AGAIN5: &[u8] = b"\x20\x0e\x01\x00\x0b\x21\x01\x00\x27\x00\x10\x00\x00\x22\x00\x10";

/// A PUBLISH that is marked as a retained one.
fn kept(topic: &str, payload: &str, qos: u8, pkid: u16) -> Vec<u8> {
    let mut bytes = publish(topic, payload, qos, pkid);
    bytes[0] |= 1;
    bytes
}

async fn hears(client: &mut RawClient, filter: &str, messages: &[Vec<u8>]) {
    client.send(&subscribe(filter, 0)).await;
    client.expect(b"\x90\x03\x00\x09\x00").await;
    client.expect(&messages.concat()).await;
}

/// Clients whose wills the store has.
fn in_the_store(store: &Store) -> Vec<String> {
    let rows = store.list_rows(Table::MqttSessions, None).unwrap();
    rows.into_iter().filter(|row| row.key2 == "w").map(|row| row.key1).collect()
}

/// Edgecore over the store at `path`, which is killed at the end of the test: nothing of it goes on.
fn killed_after<F: Future<Output = ()>>(path: &Path, test: impl FnOnce(Rc<Node>, Store) -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let store = Store::open(path, Options::new([1; 16])).unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let node = Node::start(store.clone()).await;
        test(node, store).await;
    });
}

/// 4:3.1.2-8: a will is stored. What says that it is in the store is the acknowledgement of what its client says next.
#[test]
fn wills_of_clients_that_were_connected_when_edgecore_was_killed_are_published_at_its_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("edgecore.db");
    killed_after(&path, |node, store| async move {
        let mut keeper = node.raw().await;
        keeper.send(&[connect("keeper", false, 0, None), subscribe("fp/4", 1), vec![0xe0, 0]].concat()).await;
        keeper.rest().await;
        let _clean5 = come(&node, &leaves5("clean5", (60, 0), "fp/5", "gone"), WELCOME5).await;
        let _back = come(&node, &leaves5("back", (200, 250), "fp/back", "gone"), WELCOME5).await;
        let _late = come(&node, &leaves5("late", (1, 250), "fp/late", "gone"), WELCOME5).await;
        let mut polite = come(&node, &leaves("polite", "fp/polite", "gone"), WELCOME).await;
        polite.send(&[0xe0, 0]).await;
        polite.rest().await;
        let mut device = come(&node, &leaves("device", "fp/4", "gone"), WELCOME).await;
        node.wait("goodbyes", |view| view["clients"] == 4 && view["wills"] == 4).await;
        device.send(&kept("fp/4", "online", 1, 7)).await;
        device.expect(b"\x40\x02\x00\x07").await;
        assert_eq!(in_the_store(&store), ["back", "clean5", "device", "late"]);
    });
    killed_after(&path, |node, store| async move {
        let mut back = come(&node, &leaves5("back", (200, 250), "fp/back", "gone"), AGAIN5).await;
        back.send(b"\xe0\x00").await;
        back.rest().await;
        let mut keeper = node.raw().await;
        keeper.send(&connect("keeper", false, 0, None)).await;
        keeper.expect(b"\x20\x02\x01\x00").await;
        // What it has not got of the run before comes first.
        let mut came = vec![0; publish("fp/4", "online", 1, 1).len() + publish("fp/4", "gone", 1, 1).len()];
        tokio::io::AsyncReadExt::read_exact(&mut keeper.socket, &mut came).await.unwrap();
        assert!(came.windows(6).any(|part| part == b"online") && came.ends_with(b"gone"), "{came:x?}");
        let mut sub = node.client("sub").await;
        hears(&mut sub, "fp/4", &[kept("fp/4", "gone", 0, 0)]).await;
        hears(&mut sub, "fp/5", &[kept("fp/5", "gone", 0, 0)]).await;
        // Now, or as a retained one if a second has passed already.
        assert_eq!(lines(node.mosquitto("sub", &["-t", "fp/late", "-C", "1"])).await, ["gone"]);
        node.wait("all in the store", |view| view["wills"] == 0).await;
        drop((keeper, sub));
        let until = node.env.now() + SOON;
        while !in_the_store(&store).is_empty() {
            assert!(node.env.now() < until, "{:?}", in_the_store(&store));
            node.env.sleep(std::time::Duration::from_millis(5)).await;
        }
    });
    killed_after(&path, |node, _| async move {
        // Said once; what was said stays.
        let view = node.view().await;
        assert_eq!(
            (&view["wills"], &view["messagesIn"], &view["retained"]),
            (&0.into(), &0.into(), &3.into()),
            "{view}"
        );
    });
}

#[test]
fn a_broker_that_is_stopped_publishes_the_wills_before_it_closes_the_connections() {
    run(|store| async move {
        let node = Node::start(store.clone()).await;
        let mut mosquittos = node.mosquitto(
            "sub",
            &[
                "-i",
                "wk5",
                "--will-topic",
                "fp/wk5",
                "--will-payload",
                "gone5",
                "--will-qos",
                "1",
                "--will-retain",
                "-t",
                "x",
            ],
        );
        node.subscriptions(1).await;
        let mut sub = node.client("sub").await;
        hears(&mut sub, "fp/#", &[]).await;
        let mut clean5 = come(&node, &leaves5("clean5", (60, 0), "fp/clean5", "gone"), WELCOME5).await;
        let mut waits = come(&node, &leaves5("waits", (1, 250), "fp/waits", "gone"), WELCOME5).await;
        node.stop().await;
        // In the order of their names; server shutting down.
        let said = [publish("fp/clean5", "gone", 0, 0), publish("fp/wk5", "gone5", 0, 0)].concat();
        assert_eq!(sub.rest().await, said);
        for client in [&mut clean5, &mut waits] {
            let last = client.rest().await;
            assert_eq!(last.get(..3).map(|head| (head[0], head[2])), Some((0xe0, 0x8b)), "{last:x?}");
        }
        mosquittos.kill().await.unwrap();
        assert_eq!(in_the_store(&store), ["waits"]);

        let node = Node::start(store.clone()).await;
        let late = node.mosquitto("sub", &["-t", "fp/+", "-C", "3", "-F", "%t %p"]);
        let mut all = lines(late).await;
        all.sort();
        assert_eq!(all, ["fp/clean5 gone", "fp/waits gone", "fp/wk5 gone5"]);
    });
}

/// DeviceTwin, or whoever else a will is for, may be gone before the broker.
#[test]
fn a_will_that_was_not_taken_where_it_was_to_go_is_published_again_at_the_next_start() {
    run(|store| async move {
        let state = "$hw/events/device/default/sensor-1/state/update";
        let node = Node::start(store.clone()).await;
        let _device = come(&node, &leaves("device", state, "off"), WELCOME).await;
        node.stop().await;
        assert_eq!(in_the_store(&store), ["device"]);
        let node = Node::start(store.clone()).await;
        let Some(TwinMsg::Mqtt { topic, payload, reply, .. }) = node.asked(SOON).await else { panic!() };
        assert_eq!((topic.as_str(), payload.as_ref()), (state, b"off".as_slice()));
        reply.send(Ok(()));
        node.wait("the end of the will", |view| view["wills"] == 0).await;
    });
}
