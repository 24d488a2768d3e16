//! A CloudCore at other ports than KubeEdge's, as behind NodePorts, is joined by the words that KubeEdge's users know.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::UdpSocket;
use std::path::Path;

use beehive::Env;
use beehive::link::Dialer;
use beehive::link::quic_dialer::QuicDialer;
use beehive::link::tls::Credentials;
use beehive::link::ws::WebSocketDialer;
use cloud::{CloudCore, Transport};
use config::edge::EdgeCore;
use harness::StandAlone;
use keadm::{CloudPorts, HubProtocol, Join, join};

/// A TCP port with a free UDP port above it.
fn two_ports() -> u16 {
    loop {
        let [port] = testhost::free_ports().unwrap();
        if UdpSocket::bind(("127.0.0.1", port + 1)).is_ok() {
            return port;
        }
    }
}

async fn cloudcore(api: &StandAlone, port: u16, env: &Env) -> CloudCore {
    let mut settings = config::cloud::CloudCore::default();
    let endpoint = &mut settings.modules.cloud_stream.kubelet_endpoint;
    (endpoint.bind_address, endpoint.first_port) = ("127.0.0.1".to_owned(), 0);
    settings.common_config.monitor_server.bind_address = "127.0.0.1:0".to_owned();
    let hub = &mut settings.modules.cloud_hub;
    (hub.websocket.address, hub.websocket.port) = ("127.0.0.1".to_owned(), port);
    (hub.quic.address, hub.quic.port) = ("127.0.0.1".to_owned(), port + 1);
    (hub.https.address, hub.https.port) = ("127.0.0.1".to_owned(), 0);
    CloudCore::start(&settings, api.client(), Transport::Quic, env.clone()).await.unwrap()
}

fn order(folder: &Path, cloud: CloudPorts, token: String, node: &str) -> Join {
    let path = |name: &str| folder.join(name).display().to_string();
    Join {
        cloud,
        token,
        node: node.to_owned(),
        config: folder.join("edgecore.yaml").into(),
        key_uri: None,
        set: vec![
            format!("modules.edgeHub.tlsCaFile={}", path("rootCA.crt")),
            format!("modules.edgeHub.tlsCertFile={}", path("server.crt")),
            format!("modules.edgeHub.tlsPrivateKeyFile={}", path("server.key")),
        ],
    }
}

#[actix_rt::test]
async fn the_port_of_the_command_is_used_and_the_link_is_found_at_both_of_its_ports() {
    let env = Env::real();
    let api = StandAlone::start(&env).await;
    let port = two_ports();
    let core = cloudcore(&api, port, &env).await;
    let certs = core.enrolment_address().port();
    for (node, cloudcore, protocol) in [
        ("edge-1", format!("127.0.0.1:{port}"), HubProtocol::Websocket),
        ("edge-2", format!("127.0.0.1:{}", port + 1), HubProtocol::Quic),
    ] {
        let token = keadm::get_token(api.client(), None, 5, keadm::TOKEN_LIFE, &env).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let cloud = CloudPorts { protocol, ..CloudPorts::new(cloudcore, certs) };
        let order = order(folder.path(), cloud, token, node);
        let mut said = Vec::new();
        join(&order, &mut |line| said.push(line)).await.unwrap();
        assert!(!said.concat().contains("nothing answers"), "{said:?}");
        let hub = EdgeCore::load(&order.config.file).unwrap().modules.edge_hub;
        let read = |path: &Path| std::fs::read_to_string(path).unwrap();
        let credentials = Credentials {
            certificate: read(&hub.tls_cert_file),
            key: read(&hub.tls_private_key_file).into(),
            authority: read(&hub.tls_ca_file),
        };
        let at = |server: &str| config::parse_host_port(server).unwrap();
        let (host, websocket) = at(&hub.websocket.server);
        let dialer = WebSocketDialer::new(&host, websocket, &credentials, env.clock()).unwrap();
        assert!(dialer.dial().await.is_ok(), "{node}: WebSocket at {websocket}");
        let (host, quic) = at(&hub.quic.server);
        let dialer = QuicDialer::new(&host, quic, &credentials).unwrap();
        assert!(dialer.dial().await.is_ok(), "{node}: QUIC at {quic}");
    }
    // A port where nothing of the link is: joined, and said.
    let token = keadm::get_token(api.client(), None, 5, keadm::TOKEN_LIFE, &env).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let wrong = CloudPorts::new(format!("127.0.0.1:{}", port + 1), certs);
    let mut said = Vec::new();
    join(&order(folder.path(), wrong, token, "edge-3"), &mut |line| said.push(line)).await.unwrap();
    assert!(
        said.iter().any(|line| line.contains("nothing answers") && line.contains("--hub-protocol")),
        "{said:?}"
    );
    core.stop(std::time::Duration::from_secs(10)).await;
}
