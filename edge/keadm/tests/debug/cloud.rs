//! CloudCore's certificate and a token, against a real enrolment server.

use std::time::Duration;

use beehive::Env;
use harness::{EnrolmentCloud, StandAlone};
use keadm::{CloudPorts, Join, join};

use super::{Node, debug, found};

#[actix_rt::test]
async fn an_address_that_is_not_in_the_certificate_and_a_token_of_another_ca_are_found() {
    let env = Env::real();
    let api = StandAlone::start(&env).await;
    let cloud = EnrolmentCloud::start(api.client(), &env).await;
    let port = cloud.server.address.port();
    let token = keadm::get_token(api.client(), None, 5, keadm::TOKEN_LIFE, &env).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let good = file("good", &token);
    let check = async |host: &str, token: &str| {
        let server = format!("{host}:{port}");
        let config = folder.path().join("none.yaml");
        debug(Some(&config), &["check", "network", "-s", &server, "--token-file", token]).await.1
    };
    let said = check("127.0.0.1", &good).await;
    found(&said, "ok     ", "CloudCore", "TCP answers");
    found(&said, "ok     ", "CloudCoreCertificate", "of the CA that the token pins");
    found(&said, "ok     ", "Clock", "within the life of CloudCore's certificate");
    found(&said, "ok     ", "Token", "whole, until");
    // The certificate is for 127.0.0.1 alone.
    let said = check("localhost", &good).await;
    found(
        &said,
        "FAIL   ",
        "CloudCoreCertificate",
        "is not for localhost (it is for 127.0.0.1): put it into modules.cloudHub.advertiseAddress",
    );
    // Mis-pasted, over, and of another cluster.
    let said = check("127.0.0.1", &file("torn", &token[1..])).await;
    found(&said, "FAIL   ", "Token", "paste it whole");
    let over = cloud.token_key.mint(&cloud.ca_der, 1_000_000_000, "id", None).unwrap();
    found(&check("127.0.0.1", &file("over", &over)).await, "FAIL   ", "Token", "it ended at 2001-09-09");
    let foreign = cloud.token_key.mint(b"another CA", 4_000_000_000, "id", None).unwrap();
    let said = check("127.0.0.1", &file("foreign", &foreign)).await;
    found(&said, "FAIL   ", "CloudCoreCertificate", "of another CA");
    cloud.server.stop().await;
    // It is gone.
    found(&check("127.0.0.1", &good).await, "FAIL   ", "CloudCore", "does CloudCore run");
}

#[actix_rt::test]
async fn a_node_that_has_joined_is_well_and_one_whose_files_are_mixed_is_not() {
    let env = Env::real();
    let api = StandAlone::start(&env).await;
    let cloud = EnrolmentCloud::start(api.client(), &env).await;
    let token = keadm::get_token(api.client(), None, 5, keadm::TOKEN_LIFE, &env).await.unwrap();
    let node = Node::new();
    std::fs::remove_file(&node.config).unwrap();
    let path = |name: &str| node.at(name).display().to_string();
    let order = Join {
        cloud: CloudPorts::new("127.0.0.1:1", cloud.server.address.port()),
        token,
        node: "edge-1".to_owned(),
        config: node.config.clone().into(),
        key_uri: None,
        set: vec![
            format!("modules.edgeHub.tlsCaFile={}", path("rootCA.crt")),
            format!("modules.edgeHub.tlsCertFile={}", path("server.crt")),
            format!("modules.edgeHub.tlsPrivateKeyFile={}", path("server.key")),
            format!("database.dataSource={}", path("edgecore.db")),
            format!(
                "modules.edged.tailoredKubeletConfig.containerRuntimeEndpoint=unix://{}",
                path("no.sock")
            ),
        ],
    };
    let mut said = Vec::new();
    join(&order, &mut |line| said.push(line)).await.unwrap();
    let said = said.join("\n");
    // The same checks, before anything is asked of the cloud; the node joins all the same.
    found(&said, "FAIL   ", "RuntimeEndpoint", "nobody answers at unix://");
    assert!(said.contains("`keadm debug check` looks again") && said.contains("has joined"), "{said}");
    let (_, said) = node.debug(&["check", "node"]).await;
    found(&said, "ok     ", "NodeCertificate", "of `edge-1`, until");
    found(&said, "ok     ", "Configuration", "edgecore.yaml");
    let (_, said) = node.debug(&["check", "network"]).await;
    found(&said, "ok     ", "CloudCoreCertificate", "of the CA that this node has");
    // WebSocket's port is not there, and enrolment's is; UDP comes to nothing.
    found(&said, "WARNING", "CloudCore", "127.0.0.1:1 (modules.edgeHub.websocket.server)");
    found(&said, "WARNING", "Quic", "127.0.0.1:2 (UDP)");

    // One that is over in a second.
    let authority = pki::Authority::create(env.wall(), [7; 16]).unwrap();
    let request = pki::NodeRequest::new("edge-1").unwrap();
    let second = Duration::from_secs(1);
    let issued = authority.sign_node(&request.csr_der, "edge-1", env.wall(), second, [1; 16]).unwrap();
    std::fs::write(node.at("server.crt"), pki::pem_of("CERTIFICATE", &issued.der)).unwrap();
    found(&node.debug(&["check", "node"]).await.1, "FAIL   ", "NodeCertificate", "is not of the key");
    std::fs::write(node.at("server.key"), &request.key_pem).unwrap();
    found(
        &node.debug(&["check", "node"]).await.1,
        "FAIL   ",
        "NodeCertificate",
        "the files are of two clusters",
    );
    std::fs::write(node.at("rootCA.crt"), authority.cert_pem()).unwrap();
    while env.wall() < pki::validity_of(&issued.der).unwrap().not_after {
        env.sleep(Duration::from_millis(50)).await;
    }
    found(&node.debug(&["check", "node"]).await.1, "FAIL   ", "NodeCertificate", "that of `edge-1` ended at");
    found(&node.debug(&["check", "network"]).await.1, "FAIL   ", "CloudCoreCertificate", "of another CA");
    cloud.server.stop().await;
}
