//! What CloudCore shows, as openssl sees it: renewed while it runs.

use std::path::Path;
use std::process::Stdio;

use harness::{Cluster, LinkTransport, run};
use tokio::process::Command;

use super::{NODE, seconds, session};

/// What `openssl s_client` sees at a port: the leaf's serial, and what came of verifying it.
pub(super) async fn seen(port: u16, ca: &Path) -> (String, String) {
    let output = Command::new("openssl")
        .args(["s_client", "-connect", &format!("127.0.0.1:{port}"), "-tls1_3", "-showcerts", "-CAfile"])
        .arg(ca)
        .args(["-verify_ip", "127.0.0.1"])
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let verified = text.lines().find(|line| line.trim_start().starts_with("Verify return code:"));
    let verified = verified.map(|line| line.trim().to_owned()).unwrap_or_else(|| text.clone());
    let begin = text.find("-----BEGIN CERTIFICATE-----").unwrap_or_else(|| panic!("{text}"));
    let folder = tempfile::tempdir().unwrap();
    let leaf = folder.path().join("leaf.pem");
    std::fs::write(&leaf, &text[begin..]).unwrap();
    let serial =
        Command::new("openssl").args(["x509", "-noout", "-serial", "-in"]).arg(&leaf).output().await.unwrap();
    (String::from_utf8(serial.stdout).unwrap().trim().to_owned(), verified)
}

#[test]
fn what_cloudcore_shows_is_renewed_while_it_runs_and_its_links_stay() {
    run(async || {
        let mut cluster = Cluster::over(LinkTransport::WebSocket).await;
        cluster
            .reconfigure_cloud(|settings| {
                settings.modules.cloud_hub.server_cert_signing_duration = seconds(10)
            })
            .await;
        let mut node = cluster.node(NODE).await;
        cluster.until_ready(&node).await;
        let before = session(&cluster).await["session"].clone();
        let ca = node.settings().modules.edge_hub.tls_ca_file.clone();
        let enrolment = cluster.enrolment_port();
        let first = seen(enrolment, &ca).await;
        assert_eq!(first.1, "Verify return code: 0 (ok)");
        for _ in 0..2 {
            let shown = seen(enrolment, &ca).await.0;
            cluster
                .until_async("enrolment shows another", async || seen(enrolment, &ca).await.0 != shown)
                .await;
        }
        assert_eq!(seen(enrolment, &ca).await.1, "Verify return code: 0 (ok)");
        assert_eq!(session(&cluster).await["session"], before, "no link was lost");
        // A link that is made now is verified by what is shown now: the first has ended.
        node.stop().await;
        node.start().await;
        cluster
            .until_async("the node is linked again", async || {
                session(&cluster).await["session"].as_u64() > before.as_u64()
            })
            .await;
        node.stop().await;
    });
}
