//! `edgecore` as a client of a mosquitto: KubeEdge's `mqttMode` 2 and 1.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod node;

use std::rc::Rc;
use std::time::Duration;

use config::edge::{EventBus as Settings, ExternalTls};
use contract::devicetwin::{TwinMsg, UpdateListeners};
use edge_store::Store;
use node::certificates::Ca;
use node::child::lines;
use node::mosquitto::Mosquitto;
use node::{Node, SOON, run};
use tokio::process::Command;

const UPDATE: &str = "$hw/events/device/default/d/twin/update";
const RESULT: &str = "$hw/events/device/default/d/twin/update/result";

fn settings(broker: &Mosquitto) -> Settings {
    Settings { mqtt_mode: 2, mqtt_server_external: broker.url(), ..Settings::default() }
}

async fn connected(node: &Node) {
    node.wait("both connections", |view| {
        view["external"]["listens"] == "connected" && view["external"]["publishes"] == "connected"
    })
    .await;
}

/// A subscriber whose session the broker keeps; its messages are read with [`read`].
async fn subscribe(broker: &Mosquitto, id: &str, filter: &str) {
    lines(broker.tool("sub", &["-c", "-i", id, "-q", "1", "-t", filter, "-E"])).await;
}

async fn read(broker: &Mosquitto, id: &str, filter: &str, count: usize) -> Vec<String> {
    let count = count.to_string();
    lines(broker.tool("sub", &["-c", "-i", id, "-q", "1", "-t", filter, "-C", &count])).await
}

async fn publish(broker: &Mosquitto, topic: &str, payload: &str) {
    lines(broker.tool("pub", &["-q", "1", "-t", topic, "-m", payload])).await;
}

/// What DeviceTwin is asked next, with its answer outstanding.
async fn asked(node: &Node) -> (String, String, TwinMsg) {
    match node.asked(SOON).await {
        Some(TwinMsg::Mqtt { topic, payload, listeners, reply }) => {
            assert_eq!(listeners, UpdateListeners::ALL, "the broker elsewhere alone knows who listens there");
            let text = String::from_utf8(payload.to_vec()).unwrap();
            let again = TwinMsg::Mqtt { topic: topic.clone(), payload, listeners, reply };
            (topic, text, again)
        }
        other => panic!("DeviceTwin is asked {other:?}"),
    }
}

fn answer(message: TwinMsg) {
    if let TwinMsg::Mqtt { reply, .. } = message {
        reply.send(Ok(()));
    }
}

fn uploads(store: &Store) -> Vec<String> {
    store.outbox_head(usize::MAX, usize::MAX).unwrap().into_iter().map(|row| row.key).collect()
}

#[test]
fn devices_and_applications_at_the_external_broker_are_served() {
    run(|store| async move {
        let mut broker = Mosquitto::new();
        broker.start().await;
        let node = Node::start_exactly(store.clone(), settings(&broker)).await;
        connected(&node).await;
        let report = node.reported("usable broker", |report| report.is_usable).await;
        assert!(report.is_external && report.message.contains(&broker.url()), "{report:?}");
        // Up: for DeviceTwin, and for the cloud.
        publish(&broker, UPDATE, "{1}").await;
        let (topic, payload, question) = asked(&node).await;
        assert_eq!((topic.as_str(), payload.as_str()), (UPDATE, "{1}"));
        answer(question);
        for topic in ["$hw/events/upload/a/b", "SYS/dis/upload_records", "app/user/x"] {
            publish(&broker, topic, "1").await;
        }
        node.wait("three uploads", |view| view["uploaded"] == 3).await;
        // What only edgecore says is nobody's to say there either, and what is nobody's for the node is left alone.
        publish(&broker, "$hw/events/device/default/d/twin/cloud_updated", "x").await;
        publish(&broker, "app/x", "x").await;
        publish(&broker, "$hw/events/node/edge-1/membership/get", "{}").await;
        let (topic, _, question) = asked(&node).await;
        assert_eq!(topic, "$hw/events/node/edge-1/membership/get");
        answer(question);
        // Down, with QoS 1 and not retained, as KubeEdge has it.
        subscribe(&broker, "app", "$hw/events/device/#").await;
        node.publish(RESULT, "done", true).await;
        assert_eq!(read(&broker, "app", "$hw/events/device/#", 1).await, ["done"]);
        subscribe(&broker, "late", "$hw/events/device/#").await;
        node.publish(RESULT, "second", false).await;
        assert_eq!(read(&broker, "late", "$hw/events/device/#", 1).await, ["second"]);
        node.wait("nothing waits", |view| view["external"]["waiting"] == 0).await;
        // Nobody else can connect: there is no broker of the node's own.
        assert!(node.view().await["listening"].is_null());
        assert_eq!(uploads(&store).len(), 3);
    });
}

#[test]
fn nothing_is_lost_while_the_broker_or_edgecore_is_away() {
    run(|store| async move {
        let mut broker = Mosquitto::new();
        broker.start().await;
        let node = Node::start_exactly(store.clone(), settings(&broker)).await;
        connected(&node).await;
        subscribe(&broker, "app", RESULT).await;
        node.publish(RESULT, "0", false).await;
        node.wait("nothing waits", |view| view["external"]["waiting"] == 0).await;
        broker.stop().await;
        let down = |view: &serde_json::Value| view["external"]["publishes"]["reason"].is_string();
        node.wait("loss of the connection", down).await;
        for n in 1..4 {
            node.publish(RESULT, &n.to_string(), false).await;
        }
        node.wait("three wait", |view| view["external"]["waiting"] == 3).await;
        // Neither by the end of edgecore.
        node.stop().await;
        broker.start().await;
        // A device that says something while edgecore is not there.
        publish(&broker, UPDATE, "{1}").await;
        publish(&broker, "app/user/x", "kept").await;
        let node = Node::start_exactly(store.clone(), settings(&broker)).await;
        let (topic, payload, question) = asked(&node).await;
        assert_eq!((topic.as_str(), payload.as_str()), (UPDATE, "{1}"));
        answer(question);
        node.wait("the upload", |view| view["uploaded"] == 1).await;
        assert_eq!(read(&broker, "app", RESULT, 4).await, ["0", "1", "2", "3"]);
        node.wait("nothing waits", |view| view["external"]["waiting"] == 0).await;
    });
}

#[test]
fn what_device_twin_has_not_answered_for_comes_again() {
    run(|store| async move {
        let mut broker = Mosquitto::new();
        broker.start().await;
        let node = Node::start_exactly(store, settings(&broker)).await;
        connected(&node).await;
        publish(&broker, UPDATE, "{1}").await;
        let (_, _, question) = asked(&node).await;
        // DeviceTwin dies with it.
        drop(question);
        let (topic, payload, question) = asked(&node).await;
        assert_eq!((topic.as_str(), payload.as_str()), (UPDATE, "{1}"));
        answer(question);
        connected(&node).await;
        publish(&broker, UPDATE, "{2}").await;
        let (_, payload, question) = asked(&node).await;
        assert_eq!(payload, "{2}", "what was answered for does not come again");
        answer(question);
    });
}

#[test]
fn a_broker_that_does_not_listen_or_lets_nobody_in_is_named_until_it_does() {
    run(|store| async move {
        let mut broker = Mosquitto::with("allow_anonymous false\npassword_file passwords\n");
        let passwords = broker.folder().join("passwords");
        let mut made = Command::new("/usr/bin/mosquitto_passwd");
        made.args(["-c", "-b"]).arg(&passwords).args(["edge", "right"]);
        assert!(made.status().await.unwrap().success());
        let conf = broker.folder().join("mosquitto.conf");
        let text = std::fs::read_to_string(&conf).unwrap();
        std::fs::write(
            &conf,
            text.replace("password_file passwords", &format!("password_file {}", passwords.display())),
        )
        .unwrap();
        let with = |password: &str| Settings {
            mqtt_username: "edge".to_owned(),
            mqtt_password: password.into(),
            ..settings(&broker)
        };
        let (wrong, right) = (with("not-it"), with("right"));
        let node = Node::start_exactly(store.clone(), wrong).await;
        let report = node.reported("broker that is not there", |report| !report.is_usable).await;
        assert_eq!(report.reason, "NothingListens");
        assert!(report.message.contains(&broker.url()), "{report:?}");
        broker.start().await;
        let report = node.reported("refusal", |report| report.reason == "LoginRefused").await;
        for words in [broker.url().as_str(), "`edge`", "mqttPassword"] {
            assert!(report.message.contains(words), "{words}: {report:?}");
        }
        let seen = node.view().await.to_string();
        assert!(!seen.contains("not-it") && !report.message.contains("not-it"), "{seen}");
        node.stop().await;
        let node = Node::start_exactly(store, right).await;
        node.reported("usable broker", |report| report.is_usable).await;
        broker.stop().await;
        node.reported("loss", |report| !report.is_usable).await;
        broker.start().await;
        node.reported("usable broker again", |report| report.is_usable).await;
    });
}

#[test]
fn tls_checks_the_broker_and_shows_it_a_certificate() {
    run(|store| async move {
        let folder = tempfile::tempdir().unwrap();
        let ca = Ca::new(folder.path(), "ours");
        ca.issue("broker", &["broker"], 1);
        ca.issue("edge", &["edge-1"], 2);
        let mut broker = Mosquitto::with(&format!(
            "allow_anonymous true\ncafile {}\ncertfile {}\nkeyfile {}\nrequire_certificate true\n",
            ca.shown("ca"),
            ca.shown("broker.crt"),
            ca.shown("broker.key"),
        ));
        broker.start().await;
        let with = |ca: &Ca, certificate: &str| Settings {
            mqtt_mode: 2,
            mqtt_server_external: format!("ssl://127.0.0.1:{}", broker.port),
            external_tls: ExternalTls {
                enable: true,
                tls_mqtt_ca_file: ca.path("ca"),
                tls_mqtt_cert_file: ca.path(&format!("{certificate}.crt")),
                tls_mqtt_private_key_file: ca.path(&format!("{certificate}.key")),
            },
            ..Settings::default()
        };
        let other = Ca::new(folder.path(), "other");
        other.issue("edge", &["edge-1"], 3);
        let mut without = with(&ca, "edge");
        without.external_tls.tls_mqtt_cert_file = Default::default();
        without.external_tls.tls_mqtt_private_key_file = Default::default();
        let cases = [
            ("another CA", with(&other, "edge"), "TlsRefused"),
            ("no certificate", without, "TlsRefused"),
            ("no file", with(&ca, "missing"), "FilesNotUsable"),
        ];
        for (what, settings, reason) in cases {
            let node = Node::start_exactly(store.clone(), settings).await;
            let report = node.reported(what, |report| !report.is_usable).await;
            assert_eq!(report.reason, reason, "{what}: {report:?}");
            node.stop().await;
        }
        // A certificate that comes later is read at the next attempt.
        let node = Node::start_exactly(store, with(&ca, "late")).await;
        node.reported("no file", |report| report.reason == "FilesNotUsable").await;
        ca.issue("late", &["edge-1"], 4);
        node.reported("usable broker", |report| report.is_usable).await;
        node.publish(RESULT, "in TLS", false).await;
        node.wait("nothing waits", |view| view["external"]["waiting"] == 0).await;
    });
}

#[test]
fn with_both_brokers_edgecore_speaks_to_both_and_nothing_else_goes_over() {
    run(|store| async move {
        let mut broker = Mosquitto::new();
        broker.start().await;
        let node = Node::start_as(store, Settings { mqtt_mode: 1, ..settings(&broker) }).await;
        connected(&node).await;
        subscribe(&broker, "app", "#").await;
        subscribe(&broker, "results", "$hw/#").await;
        let own = node.mosquitto("sub", &["-t", "$hw/#", "-q", "1", "-C", "2"]);
        node.subscriptions(1).await;
        // From the own broker to DeviceTwin, and from the external one.
        node.answer(Ok(()));
        lines(node.mosquitto("pub", &["-q", "1", "-t", UPDATE, "-m", "own"])).await;
        lines(node.mosquitto("pub", &["-q", "1", "-t", "x", "-m", "own"])).await;
        publish(&broker, "x", "external").await;
        node.publish(RESULT, "both", false).await;
        assert_eq!(lines(own).await, ["own", "both"]);
        assert_eq!(read(&broker, "results", "$hw/#", 1).await, ["both"]);
        assert_eq!(read(&broker, "app", "#", 1).await, ["external"]);
    });
}

#[test]
fn what_is_too_large_is_passed_over_and_what_follows_is_heard() {
    run(|store| async move {
        let mut broker = Mosquitto::new();
        broker.start().await;
        let node = Node::start_exactly(store, settings(&broker)).await;
        connected(&node).await;
        let large = broker.folder().join("large");
        for size in [300 << 10, 2 << 20] {
            std::fs::write(&large, vec![b'x'; size]).unwrap();
            let file = large.to_str().unwrap();
            lines(broker.tool("pub", &["-q", "1", "-t", "app/user/x", "-f", file])).await;
        }
        publish(&broker, "app/user/x", "small").await;
        node.wait("the small one", |view| view["uploaded"] == 1).await;
        assert_eq!(node.view().await["external"]["listens"], "connected");
    });
}

#[test]
fn a_retained_message_is_heard_once_and_not_with_each_connection() {
    run(|store| async move {
        let mut broker = Mosquitto::new();
        broker.start().await;
        lines(broker.tool("pub", &["-r", "-q", "1", "-t", "app/user/x", "-m", "kept"])).await;
        let node = Node::start_exactly(store.clone(), settings(&broker)).await;
        node.wait("it", |view| view["uploaded"] == 1).await;
        broker.stop().await;
        broker.start().await;
        connected_again(&node).await;
        publish(&broker, "app/user/y", "next").await;
        node.wait("the next", |view| view["uploaded"] == 2).await;
        assert_eq!(uploads(&store), ["app/user/x", "app/user/y"]);
    });
}

/// Waits out a loss of the connections that may not have been seen yet.
async fn connected_again(node: &Rc<Node>) {
    node.env.sleep(Duration::ZERO).await;
    connected(node).await;
}
