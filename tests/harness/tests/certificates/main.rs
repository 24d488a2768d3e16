//! Certificates of seconds on real QUIC: renewed over their links, the CA's and CloudCore's own as well, and no link is lost for it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod address;
mod authority;
mod ended;
mod lives;
mod server;
mod stolen;
mod token;

use std::time::Duration;

use config::SigningDuration;
use crd::EdgeNode;
use harness::{Cluster, LinkTransport, Node};
use kube::api::Api;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::Value;

/// The only node.
const NODE: &str = "edge-1";

fn seconds(seconds: u64) -> SigningDuration {
    SigningDuration(Duration::from_secs(seconds))
}

/// A cluster whose nodes' certificates live for `life` seconds, and may be renewed for `grace` seconds after that.
async fn cluster(life: u64, grace: u64) -> Cluster {
    let mut cluster = Cluster::over(LinkTransport::Quic).await;
    cluster
        .reconfigure_cloud(|settings| {
            let hub = &mut settings.modules.cloud_hub;
            hub.edge_cert_signing_duration = seconds(life);
            hub.edge_cert_grace_duration = seconds(grace);
        })
        .await;
    cluster.joining_for(Duration::from_secs(life));
    cluster
}

/// What CloudHub says of the node's session; null: it has none.
async fn session(cluster: &Cluster) -> Value {
    let report = cluster.state().await;
    report.actor("cloud-hub").unwrap().snapshot["nodes"][NODE].clone()
}

/// The name in the register.
async fn register(cluster: &Cluster) -> EdgeNode {
    Api::all(cluster.client()).get(NODE).await.unwrap()
}

/// The serial of the certificate that lives by the register.
async fn living(cluster: &Cluster) -> String {
    noderegistry::plan::living(&register(cluster).await.metadata).unwrap_or_default()
}

/// The first certificate of a PEM, in DER.
fn der(pem: &[u8]) -> Vec<u8> {
    CertificateDer::from_pem_slice(pem).unwrap().to_vec()
}

/// The certificate on the node's disk, in DER.
fn certificate(node: &Node) -> Vec<u8> {
    der(&std::fs::read(&node.settings().modules.edge_hub.tls_cert_file).unwrap())
}

/// Its serial.
fn on_disk(node: &Node) -> String {
    pki::serial_of(&certificate(node)).unwrap()
}

/// How many CAs the node trusts by its disk.
fn trusted(node: &Node) -> usize {
    let pem = std::fs::read_to_string(&node.settings().modules.edge_hub.tls_ca_file).unwrap();
    pki::authorities_of_pem(&pem).unwrap().len()
}
