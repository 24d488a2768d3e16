//! A whole EdgeCore without a cloud and without a runtime, and its own socket.
#![allow(dead_code, reason = "each of the tests needs a part of it")]

use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use beehive::Env;
use beehive::link::PeerName;
use beehive::link::memory::{NetworkPath, listen};
use config::edge::EdgeCore as Settings;
use contract::NodeName;
use edge::{Dependencies, EdgeCore};
use edge_edged::MachineChecks;
use edge_store::{ObjectKey, Store, Write};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::UnixStream;

/// What a test waits for a fact at the most.
pub(crate) const LONG: Duration = Duration::from_secs(60);
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(50);
pub(crate) const NODE: &str = "edge-1";

pub(crate) fn settings(folder: &Path, port: u16) -> Settings {
    let mut settings = Settings::default();
    settings.database.data_source = folder.join("edgecore.db");
    let modules = &mut settings.modules;
    modules.edged.node_ip = "127.0.0.1".to_owned();
    modules.edged.root_directory = folder.join("kubelet");
    modules.edged.device_plugin_path = Default::default();
    modules.edged.pod_resources_path = Default::default();
    modules.edged.tailored_kubelet_config.pod_logs_dir = folder.join("logs");
    modules.edged.tailored_kubelet_config.read_only_port = 0;
    modules.edge_stream.socket = folder.join("kubelet.sock");
    modules.edge_stream.token_file = folder.join("kubelet.token");
    modules.event_bus.mqtt_server_internal = "127.0.0.1:0".to_owned();
    modules.device_twin.dmi_sock_path = folder.to_owned();
    (modules.edge_page.enable, modules.edge_page.port) = (true, port);
    settings
}

/// A node whose cloud does not answer.
pub(crate) async fn start(settings: &Settings, checks: Option<MachineChecks>) -> (EdgeCore, Store) {
    let env = Env::real();
    let node = NodeName::parse(NODE).unwrap();
    let store = edge::open_store(settings, &node, &env).unwrap();
    let (port, _cloud) = listen(PeerName::verified("cloud", "01"));
    let dialer = Rc::new(port.dialer(PeerName::verified("system:node:edge-1", "02"), NetworkPath::new()));
    let runtime = cri::Grpc::new("unix:///nowhere", "unix:///nowhere", Duration::from_secs(1)).unwrap();
    let dependencies = Dependencies {
        node,
        common_name: "system:node:edge-1".to_owned(),
        endpoints: dialer.into(),
        certificates: None,
        network: None,
        runtime: Arc::new(runtime),
        store: store.clone(),
        programs: None,
        checks,
    };
    (EdgeCore::start(settings, dependencies, env).await.unwrap(), store)
}

pub(crate) async fn answer(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    request: String,
) -> (u16, String) {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    tokio::time::timeout(LONG, stream.read_to_end(&mut bytes)).await.expect("an answer that ends").unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    (status, text)
}

/// At edgecore's own socket, once it is there.
pub(crate) async fn at_socket(folder: &Path, method: &str, path: &str) -> (u16, String) {
    let connect = async {
        loop {
            match UnixStream::connect(folder.join("kubelet.sock")).await {
                Ok(stream) => return stream,
                Err(_) => tokio::time::sleep(LOOK_EVERY).await,
            }
        }
    };
    let stream = tokio::time::timeout(LONG, connect).await.expect("the socket");
    answer(
        stream,
        format!("{method} {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"),
    )
    .await
}

pub(crate) fn object(resource: &str, name: &str, object: &Value) -> Write {
    Write::PutObject {
        key: ObjectKey::new(resource, "shop", name),
        uid: format!("u-{name}"),
        content_hash: "1".to_owned(),
        resource_version: "1".to_owned(),
        json: object.to_string().into_bytes(),
    }
}
