//! Wills over the end of edgecore: one that is stopped says them before it closes the connections, one that was killed says them at its
//! next start. Ids in comments are those of statements: 4:x is [MQTT-x] of version 3.1.1.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod node;

use std::path::Path;
use std::rc::Rc;

use config::edge::{EventBus as Settings, MqttTls};
use contract::devicetwin::TwinMsg;
use edge_store::{Options, Store, Table};
use node::certificates::{Ca, secure};
use node::child::lines;
use node::users::{Files, MOSQUITTOS, SECRET, UNAVAILABLE, answer};
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
    killed_after_as(path, &Settings::default(), test);
}

/// The same with other settings.
fn killed_after_as<F: Future<Output = ()>>(
    path: &Path,
    settings: &Settings,
    test: impl FnOnce(Rc<Node>, Store) -> F,
) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let store = Store::open(path, Options::new([1; 16])).unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let node = Node::start_as(store.clone(), settings.clone()).await;
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

/// CONNECT of a user with a session that is kept, and a will of QoS 1 that is retained.
fn leaves_as(id: &str, user: &str, password: &str, topic: &str) -> Vec<u8> {
    let all = [id, topic, "gone", user, password].map(text).concat();
    packet(0x10, &[b"\x00\x04MQTT\x04\xec\0\0", &all])
}

/// The same of MQTT 5, with a delay that is longer than a test.
fn leaves5_as(id: &str, user: &str, password: &str, topic: &str) -> Vec<u8> {
    let (expiry, delay) = ([5, 0x11, 0, 0, 0x10, 0], [5, 0x18, 0, 0, 0x10, 0]);
    let [id, topic, payload, user, password] = [id, topic, "gone", user, password].map(text);
    packet(0x10, &[b"\x00\x04MQTT\x05\xec\0\0", &expiry, &id, &delay, &topic, &payload, &user, &password])
}

const RIGHTS: &str = "topic #\nuser plc\ntopic #\nuser plc2\ntopic #";

/// What is not understood says of nobody that he is gone, nor that he may do nothing.
#[test]
fn files_that_are_not_understood_at_a_start_cost_nobody_his_session_or_his_will() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("edgecore.db");
    let files = Files::new();
    let settings = files.settings(Some(RIGHTS));
    killed_after_as(&path, &settings, |node, store| async move {
        let mut plc = come(&node, &leaves_as("x", "plc", SECRET, "fp/plc"), WELCOME).await;
        plc.send(&subscribe("q", 1)).await;
        plc.expect(b"\x90\x03\x00\x09\x01").await;
        let _other = come(&node, &leaves("other", "fp/other", "gone"), WELCOME).await;
        stored(&node, &store, &["other", "user=plc;x"]).await;
    });
    files.write("passwords", &format!("{MOSQUITTOS}plc4:secret\n"));
    files.write("acl", "nonsense");
    killed_after_as(&path, &settings, |node, _| async move {
        let view = node.view().await;
        assert_eq!(view["refusedFiles"].as_object().unwrap().len(), 2, "{view}");
        let kept = [&view["sessions"], &view["subscriptions"], &view["wills"], &view["refusedWills"]];
        assert_eq!(kept, [1, 1, 2, 0], "{view}");
        assert_eq!(answer(&node, &leaves_as("x", "plc", SECRET, "fp/plc")).await, UNAVAILABLE);
        assert_eq!(node.view().await["retained"], 0);
    });
    files.write("acl", RIGHTS);
    std::fs::remove_file(files.path("passwords")).unwrap();
    killed_after_as(&path, &settings, |node, _| async move {
        node.wait("the will of which all is known", |view| view["wills"] == 1 && view["retained"] == 1).await;
        let view = node.view().await;
        assert_eq!([&view["sessions"], &view["subscriptions"], &view["refusedWills"]], [1, 1, 0], "{view}");
        files.write("passwords", MOSQUITTOS);
        node.wait("the other will", |view| view["wills"] == 0 && view["retained"] == 2).await;
        let mut plc = node.raw().await;
        plc.send(&leaves_as("x", "plc", SECRET, "fp/plc")).await;
        plc.expect(b"\x20\x02\x01\x00").await;
    });
}

#[test]
fn a_user_who_is_taken_out_before_he_comes_again_leaves_no_session_and_no_will() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("edgecore.db");
    let files = Files::new();
    let settings = files.settings(None);
    killed_after_as(&path, &settings, |node, store| async move {
        let (_plc, _plc2) = (
            come(&node, &leaves5_as("x", "plc", SECRET, "fp/plc"), WELCOME5).await,
            come(&node, &leaves5_as("x", "plc2", "alpha", "fp/plc2"), WELCOME5).await,
        );
        stored(&node, &store, &["user=plc2;x", "user=plc;x"]).await;
    });
    killed_after_as(&path, &settings, |node, store| async move {
        node.wait("both", |view| view["sessions"] == 2 && view["wills"] == 2).await;
        let rest: Vec<&str> = MOSQUITTOS.lines().filter(|line| !line.starts_with("plc:")).collect();
        files.write("passwords", &rest.join("\n"));
        node.wait("one of them", |view| view["sessions"] == 1 && view["wills"] == 1).await;
        stored(&node, &store, &["user=plc2;x"]).await;
        assert_eq!(node.view().await["retained"], 0);
    });
}

/// As of users who are taken out: what waits for nobody any more is not kept.
#[test]
fn anonymous_clients_that_may_not_connect_any_more_leave_no_session() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("edgecore.db");
    let files = Files::new();
    let settings = files.settings(None);
    let of = |store: &Store, client: &str| {
        let rows = store.list_rows(Table::MqttSessions, None).unwrap();
        rows.iter().any(|row| row.key1 == client)
    };
    killed_after_as(&path, &settings, |node, store| async move {
        let mut kept = come(&node, &connect("kept", false, 0, None), WELCOME).await;
        kept.send(&subscribe("q", 1)).await;
        kept.expect(b"\x90\x03\x00\x09\x01").await;
        let _plc = come(&node, &leaves_as("x", "plc", SECRET, "fp/plc"), WELCOME).await;
        stored(&node, &store, &["user=plc;x"]).await;
        assert!(of(&store, "kept") && of(&store, "user=plc;x"));
    });
    killed_after_as(&path, &settings, |node, _| async move {
        assert_eq!(node.view().await["sessions"], 2);
    });
    let settings = Settings { allow_anonymous: false, ..settings };
    killed_after_as(&path, &settings, |node, store| async move {
        let view = node.view().await;
        assert_eq!([&view["sessions"], &view["refusedSessions"]], [1, 1], "{view}");
        let until = node.env.now() + SOON;
        while of(&store, "kept") {
            assert!(node.env.now() < until, "its rows are still there");
            node.env.sleep(std::time::Duration::from_millis(5)).await;
        }
        assert!(of(&store, "user=plc;x"));
    });
}

async fn stored(node: &Node, store: &Store, clients: &[&str]) {
    let until = node.env.now() + SOON;
    while in_the_store(store) != clients {
        assert!(node.env.now() < until, "{:?}", in_the_store(store));
        node.env.sleep(std::time::Duration::from_millis(5)).await;
    }
}

#[test]
fn anonymous_clients_that_may_not_connect_any_more_have_no_last_word() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("edgecore.db");
    let files = Files::new();
    let settings = files.settings(Some(RIGHTS));
    killed_after_as(&path, &settings, |node, store| async move {
        let _plc = come(&node, &leaves_as("x", "plc", SECRET, "fp/plc"), WELCOME).await;
        let _plc2 = come(&node, &leaves_as("x", "plc2", "alpha", "fp/plc2"), WELCOME).await;
        let _other = come(&node, &leaves("other", "fp/other", "gone"), WELCOME).await;
        stored(&node, &store, &["other", "user=plc2;x", "user=plc;x"]).await;
    });
    // One of the users may connect, and publish it no more.
    files.write("acl", "topic #\nuser plc\ntopic #\nuser plc2\ntopic read #");
    let settings = Settings { allow_anonymous: false, ..settings };
    killed_after_as(&path, &settings, |node, store| async move {
        node.wait("all of them", |view| view["wills"] == 0).await;
        let view = node.view().await;
        assert_eq!([&view["refusedWills"], &view["retained"]], [2, 1], "{view}");
        stored(&node, &store, &[]).await;
    });
}

#[test]
fn a_client_whose_certificate_is_not_trusted_any_more_has_no_last_word() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("edgecore.db");
    let ca = Rc::new(Ca::new(folder.path(), "ours"));
    for (serial, name) in [(1, "broker"), (2, "plc"), (3, "meter")] {
        ca.issue(name, &[name], serial);
    }
    ca.revoke(&[]);
    let tls = MqttTls {
        enable: true,
        listen: "127.0.0.1:0".to_owned(),
        cert_file: ca.path("broker.crt"),
        key_file: ca.path("broker.key"),
        client_ca_file: ca.path("ca"),
        crl_file: ca.path("crl"),
    };
    let settings = Settings { tls, ..Settings::default() };
    let of = Rc::clone(&ca);
    let come_and_be_killed = |node: Rc<Node>, store: Store| async move {
        let view = node.view().await;
        let port = view["listeningTls"].as_str().unwrap().rsplit(':').next().unwrap().to_owned();
        let client = |name: &str| {
            let topic = format!("fp/{name}");
            let will = ["--will-topic", &topic, "--will-payload", "gone", "--will-qos", "1", "--will-retain"];
            secure("sub", &port, &of, Some(name), &[&will[..], &["-i", "x", "-t", "x"]].concat())
        };
        let _both = (client("plc"), client("meter"));
        stored(&node, &store, &["user=meter;x", "user=plc;x"]).await;
    };
    killed_after_as(&path, &settings, come_and_be_killed);
    // While it is not known who is trusted, nobody's is said and nobody's is lost.
    ca.revoke(&[3]);
    ca.write("broker.crt", "none");
    let of = Rc::clone(&ca);
    killed_after_as(&path, &settings, |node, _| async move {
        let view = node.view().await;
        assert!(view["refusedFiles"]["tls"].is_string(), "{view}");
        assert_eq!([&view["wills"], &view["retained"], &view["refusedWills"]], [2, 0, 0], "{view}");
        of.issue("broker", &["broker"], 1);
        node.wait("both", |view| view["wills"] == 0).await;
        let view = node.view().await;
        assert_eq!([&view["refusedWills"], &view["retained"]], [1, 1], "{view}");
        let mut sub = node.client("sub").await;
        hears(&mut sub, "fp/#", &[kept("fp/plc", "gone", 0, 0)]).await;
    });
}

#[test]
fn certificates_of_another_authority_prove_nothing_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("edgecore.db");
    let (ca, other) = (Rc::new(Ca::new(folder.path(), "ours")), Ca::new(folder.path(), "other"));
    ca.issue("broker", &["broker"], 1);
    ca.issue("plc", &["plc"], 2);
    let tls = MqttTls {
        enable: true,
        listen: "127.0.0.1:0".to_owned(),
        cert_file: ca.path("broker.crt"),
        key_file: ca.path("broker.key"),
        client_ca_file: ca.path("ca"),
        ..MqttTls::default()
    };
    let settings = Settings { tls, ..Settings::default() };
    let of = Rc::clone(&ca);
    killed_after_as(&path, &settings, |node, store| async move {
        let view = node.view().await;
        let port = view["listeningTls"].as_str().unwrap().rsplit(':').next().unwrap().to_owned();
        let will = ["--will-topic", "fp/plc", "--will-payload", "gone", "--will-qos", "1", "--will-retain"];
        let _plc = secure("sub", &port, &of, Some("plc"), &[&will[..], &["-i", "x", "-t", "x"]].concat());
        stored(&node, &store, &["user=plc;x"]).await;
    });
    let tls = MqttTls { client_ca_file: other.path("ca"), ..settings.tls.clone() };
    killed_after_as(&path, &Settings { tls, ..Settings::default() }, |node, _| async move {
        node.wait("its end", |view| view["wills"] == 0).await;
        let view = node.view().await;
        assert_eq!([&view["refusedWills"], &view["retained"]], [1, 0], "{view}");
    });
}
