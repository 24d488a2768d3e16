//! The Unix socket and TLS beside plain TCP, with mosquitto's tools and raw bytes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod node;

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use config::edge::{EventBus as Settings, MqttTls, MqttUnixSocket, MqttWebSocket};
use node::certificates::{Ca, secure};
use node::child::{fails, lines, mosquitto};
use node::{Node, SOON, connect, publish, run, subscribe};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

#[test]
fn the_unix_socket_serves_its_group_and_knows_who_connects() {
    run(|store| async move {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mqtt.sock");
        let unix_socket = MqttUnixSocket { path: path.clone(), group: "0".to_owned() };
        let settings = Settings { unix_socket, max_connections_per_address: 3, ..Settings::default() };
        let node = Node::start_as(store.clone(), settings.clone()).await;
        let found = std::fs::symlink_metadata(&path).unwrap();
        assert_eq!((found.permissions().mode() & 0o7777, found.gid()), (0o660, 0));
        let shown = path.to_str().unwrap();
        let sub = mosquitto("sub", &["--unix", shown, "-t", "t", "-C", "1"]);
        node.subscriptions(1).await;
        let uid = found.uid().to_string();
        node.wait("its uid", |view| view["clientsByUid"][&uid] == 1).await;
        lines(node.mosquitto("pub", &["-t", "t", "-m", "by TCP"])).await;
        assert_eq!(lines(sub).await, ["by TCP"]);
        // Nothing that only edgecore says comes in by this way either.
        lines(mosquitto(
            "pub",
            &["--unix", shown, "-q", "1", "-t", "$hw/events/node/n/membership/updated", "-m", "x"],
        ))
        .await;
        node.wait("a refusal", |view| view["refusedPublishes"] == 1 && view["clients"] == 0).await;
        // One user has so many and no more; the others' places are not his.
        let mut held = Vec::new();
        for n in 0..4 {
            let mut socket = UnixStream::connect(&path).await.unwrap();
            socket.write_all(&connect(&n.to_string(), true, 60, None)).await.unwrap();
            let mut code = [0; 4];
            socket.read_exact(&mut code).await.unwrap();
            assert_eq!(code, [0x20, 2, 0, if n < 3 { 0 } else { 3 }]);
            held.push(socket);
        }
        node.client("by TCP").await;
        drop(held);
        node.stop().await;
        assert!(!path.exists());
        // A socket that a dead process left is replaced.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let node = Node::start_as(store, settings).await;
        lines(mosquitto("pub", &["--unix", shown, "-t", "t", "-m", "x"])).await;
        node.stop().await;
    });
}

fn settings(ca: &Ca) -> Settings {
    let tls = MqttTls {
        enable: true,
        listen: "127.0.0.1:0".to_owned(),
        cert_file: ca.path("broker.crt"),
        key_file: ca.path("broker.key"),
        client_ca_file: ca.path("ca"),
        crl_file: ca.path("crl"),
    };
    Settings { tls, ..Settings::default() }
}

async fn port(node: &Node) -> String {
    let view = node.view().await;
    view["listeningTls"].as_str().unwrap().rsplit(':').next().unwrap().to_owned()
}

#[test]
fn a_certificate_says_who_its_client_is() {
    run(|store| async move {
        let folder = tempfile::tempdir().unwrap();
        let ca = Ca::new(folder.path(), "ours");
        ca.issue("broker", &["broker"], 1);
        ca.issue("plc", &["plc"], 2);
        ca.issue("lost", &["plc"], 3);
        ca.issue("bad", &["a/b"], 4);
        ca.issue("nameless", &[], 5);
        ca.issue("edgecore", &["edgecore"], 6);
        ca.revoke(&[3]);
        let acl = folder.path().join("acl");
        std::fs::write(&acl, "topic read #\nuser plc\ntopic line/7\npattern write u/%u").unwrap();
        let mut settings = Settings { acl_file: acl, ..settings(&ca) };
        settings.allow_anonymous = false;
        let node = Node::start_as(store, settings).await;
        let port = port(&node).await;
        let sub = secure("sub", &port, &ca, Some("plc"), &["-t", "line/7", "-C", "2", "-q", "1"]);
        node.subscriptions(1).await;
        // Whatever it says in its CONNECT: the certificate counts.
        let words = ["-u", "root", "-P", "x", "-i", "edgecore", "-q", "1"];
        for (topic, message) in [("line/7", "one"), ("line/8", "none"), ("u/root", "none"), ("line/7", "two")]
        {
            let all = [&words[..], &["-t", topic, "-m", message]].concat();
            lines(secure("pub", &port, &ca, Some("plc"), &all)).await;
        }
        assert_eq!(lines(sub).await, ["one", "two"]);
        assert_eq!(node.view().await["refusedPublishes"], 2);
        let refused = node.view().await["refusedHandshakes"].as_u64().unwrap();
        // None, a revoked one, another authority's, and such as name no user.
        let other = Ca::new(folder.path(), "other");
        other.issue("plc", &["plc"], 2);
        let publish = ["-t", "line/7", "-m", "x", "-q", "1"];
        for certificate in [None, Some("lost"), Some("bad"), Some("nameless"), Some("edgecore")] {
            fails(secure("pub", &port, &ca, certificate, &publish)).await;
        }
        let (crt, key, authority) = (other.shown("plc.crt"), other.shown("plc.key"), ca.shown("ca"));
        let foreign = ["-h", "127.0.0.1", "-p", &port, "--cafile", &authority, "--cert", &crt, "--key", &key];
        fails(mosquitto("pub", &[&foreign[..], &publish].concat())).await;
        node.wait("six refusals", |view| view["refusedHandshakes"] == refused + 6).await;
        // Plain MQTT at the port of TLS is no handshake, and TLS at the plain port no MQTT.
        let mut plain = tokio::net::TcpStream::connect(format!("127.0.0.1:{port}")).await.unwrap();
        plain.write_all(&connect("x", true, 0, None)).await.unwrap();
        let mut rest = Vec::new();
        let _ = tokio::time::timeout(SOON, plain.read_to_end(&mut rest)).await.unwrap();
        assert!(!rest.starts_with(&[0x20]), "{rest:x?}");
        let plain = node.address.port().to_string();
        fails(secure("pub", &plain, &ca, Some("plc"), &publish)).await;
    });
}

/// What the log of this thread says.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn whoever_is_refused_before_his_name_is_known_is_named_by_his_address() {
    let log = Log::default();
    let into = log.clone();
    let _log = tracing::subscriber::set_default(daemon::log::to("info", move || Box::new(into.clone())));
    run(|store| async move {
        let folder = tempfile::tempdir().unwrap();
        let ca = Ca::new(folder.path(), "ours");
        ca.issue("broker", &["broker"], 1);
        ca.revoke(&[]);
        let listen = "127.0.0.1:0".to_owned();
        let web_socket = MqttWebSocket { enable: true, listen, ..MqttWebSocket::default() };
        let node = Node::start_as(store, Settings { web_socket, ..settings(&ca) }).await;
        let view = node.view().await;
        for (place, refused) in [("listeningTls", 1), ("listeningWebSocket", 2)] {
            let mut stranger = tokio::net::TcpStream::connect(view[place].as_str().unwrap()).await.unwrap();
            stranger.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
            let from = format!("peer={}", stranger.local_addr().unwrap());
            node.wait("a refusal", |view| view["refusedHandshakes"] == refused).await;
            let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
            let line =
                text.lines().find(|line| line.contains(&from)).unwrap_or_else(|| panic!("{from}: {text}"));
            assert!(line.contains("eventbus_handshake_refused") && !line.contains("client="), "{line}");
        }
        node.stop().await;
    });
}

#[test]
fn certificates_are_read_again_and_who_is_revoked_is_cut_off() {
    run(|store| async move {
        let folder = tempfile::tempdir().unwrap();
        let ca = Ca::new(folder.path(), "ours");
        // The broker's own is not there yet: nobody gets in, and nothing ends.
        for (name, serial) in [("plc", 2), ("meter", 3)] {
            ca.issue(name, &[name], serial);
        }
        ca.revoke(&[]);
        let node = Node::start_as(store, settings(&ca)).await;
        assert!(node.view().await["refusedFiles"]["tls"].is_string());
        let port = port(&node).await;
        let publish = ["-t", "t", "-m", "x", "-q", "1"];
        fails(secure("pub", &port, &ca, Some("plc"), &publish)).await;
        ca.issue("broker", &["broker"], 1);
        node.wait("certificate", |view| view["refusedFiles"].as_object().unwrap().is_empty()).await;
        let sub = secure("sub", &port, &ca, Some("meter"), &["-t", "t", "-q", "1"]);
        node.wait("both", |view| view["namedClients"] == 1 && view["subscriptions"] == 1).await;
        ca.revoke(&[3]);
        node.wait("it is cut off", |view| view["revoked"] == 1).await;
        lines(secure("pub", &port, &ca, Some("plc"), &publish)).await;
        fails(secure("pub", &port, &ca, Some("meter"), &publish)).await;
        node.wait("no client with a name", |view| view["namedClients"] == 0).await;
        drop(sub);
        // A list that is none changes nothing.
        ca.write("crl", "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n");
        node.wait("it is told", |view| view["refusedFiles"]["tls"].is_string()).await;
        fails(secure("pub", &port, &ca, Some("meter"), &publish)).await;
        lines(secure("pub", &port, &ca, Some("plc"), &publish)).await;
    });
}

#[test]
fn tls_without_an_authority_keeps_passwords_secret_and_half_a_handshake_keeps_nobody_out() {
    run(|store| async move {
        let folder = tempfile::tempdir().unwrap();
        let ca = Ca::new(folder.path(), "ours");
        ca.issue("broker", &["broker"], 1);
        let passwords = folder.path().join("passwords");
        std::fs::write(&passwords, edge_eventbus::password_line("plc", b"x y", [7; 16]).unwrap()).unwrap();
        let mut settings = Settings { password_file: passwords, ..settings(&ca) };
        (settings.tls.client_ca_file, settings.tls.crl_file) = (PathBuf::new(), PathBuf::new());
        let node = Node::start_as(store, settings).await;
        let port = port(&node).await;
        let mut half = Vec::new();
        for _ in 0..200 {
            let mut socket = tokio::net::TcpStream::connect(format!("127.0.0.1:{port}")).await.unwrap();
            let _ = socket.write_all(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03").await;
            half.push(socket);
        }
        let publish = ["-t", "t", "-m", "x", "-q", "1"];
        lines(secure("pub", &port, &ca, None, &[&publish[..], &["-u", "plc", "-P", "x y"]].concat())).await;
        fails(secure("pub", &port, &ca, None, &[&publish[..], &["-u", "plc", "-P", "x"]].concat())).await;
        // A large message in both directions, and a persistent session.
        let large = "x".repeat(200_000);
        let file = folder.path().join("large");
        std::fs::write(&file, &large).unwrap();
        let sub = secure("sub", &port, &ca, None, &["-t", "large", "-C", "1", "-q", "1", "-i", "s", "-c"]);
        node.subscriptions(1).await;
        let all = ["-t", "large", "-q", "2", "-f", file.to_str().unwrap()];
        lines(secure("pub", &port, &ca, None, &all)).await;
        assert_eq!(lines(sub).await, [large]);
        drop(half);
    });
}

#[test]
fn a_broker_needs_no_plain_listener() {
    run(|store| async move {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mqtt.sock");
        let unix_socket = MqttUnixSocket { path: path.clone(), group: String::new() };
        let settings = Settings { mqtt_server_internal: String::new(), unix_socket, ..Settings::default() };
        let node = Node::start_exactly(store, settings).await;
        assert!(node.view().await["listening"].is_null());
        let mut socket = UnixStream::connect(&path).await.unwrap();
        let all = [connect("x", true, 0, None), subscribe("t", 0), publish("t", "x", 0, 0)].concat();
        socket.write_all(&all).await.unwrap();
        let wanted = [b"\x20\x02\x00\x00\x90\x03\x00\x09\x00".to_vec(), publish("t", "x", 0, 0)].concat();
        let mut got = vec![0; wanted.len()];
        tokio::time::timeout(SOON, socket.read_exact(&mut got)).await.unwrap().unwrap();
        assert_eq!(got, wanted);
    });
}

#[test]
fn a_place_that_cannot_be_had_is_named_and_tried_again_and_keeps_no_other_from_being_served() {
    run(|store| async move {
        let folder = tempfile::tempdir().unwrap();
        let another_broker = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = another_broker.local_addr().unwrap().to_string();
        let path = folder.path().join("mqtt.sock");
        let unix_socket = MqttUnixSocket { path: path.clone(), group: String::new() };
        let settings = Settings { mqtt_server_internal: address.clone(), unix_socket, ..Settings::default() };
        let node = Node::start_exactly(store.clone(), settings).await;
        let view = node.view().await;
        let why = view["notListening"]["modules.eventBus.mqttServerInternal"].as_str().unwrap();
        assert!(why.contains(&address) && why.contains("is another broker there?"), "{why}");
        let mut socket = UnixStream::connect(&path).await.unwrap();
        socket.write_all(&connect("x", true, 0, None)).await.unwrap();
        let mut answer = [0; 4];
        tokio::time::timeout(SOON, socket.read_exact(&mut answer)).await.unwrap().unwrap();
        assert_eq!(answer, *b"\x20\x02\x00\x00", "who comes by another way is served");
        drop(another_broker);
        node.wait("the port", |view| {
            view["listening"] == address && view["notListening"].as_object().unwrap().is_empty()
        })
        .await;
        tokio::net::TcpStream::connect(&address).await.unwrap();
        drop(socket);
        node.stop().await;

        let path = folder.path().join("none/mqtt.sock");
        let unix_socket = MqttUnixSocket { path: path.clone(), group: String::new() };
        let settings = Settings { unix_socket, ..Settings::default() };
        let node = Node::start_as(store, settings).await;
        let view = node.view().await;
        let why = view["notListening"]["modules.eventBus.unixSocket"].as_str().unwrap();
        assert!(why.contains("does its folder exist?") && view["listening"].is_string(), "{view}");
        std::fs::create_dir(path.parent().unwrap()).unwrap();
        node.wait("the socket", |view| view["listeningUnix"].is_string()).await;
    });
}
