//! `keadm debug` with faults that are made for real: a runtime without CRI, a network without a configuration, ports that are taken, a
//! certificate for another address, a store that is read without its edgecore.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod archive;
mod cloud;
mod runtime;
mod store;

use std::path::{Path, PathBuf};

use beehive::Env;
use clap::Parser;
use config::edge::EdgeCore;
use keadm::DebugCommand;
use tempfile::TempDir;

/// A node's folder with its `edgecore.yaml`.
struct Node {
    dir: TempDir,
    config: PathBuf,
}

impl Node {
    fn new() -> Node {
        Node::with(|_| ())
    }

    fn with(set: impl FnOnce(&mut EdgeCore)) -> Node {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let mut settings = EdgeCore::default();
        settings.database.data_source = at("edgecore.db");
        let modules = &mut settings.modules;
        modules.edged.hostname_override = "edge-1".to_owned();
        modules.edged.root_directory = at("kubelet");
        modules.edged.tailored_kubelet_config.pod_logs_dir = at("logs");
        modules.edged.tailored_kubelet_config.container_runtime_endpoint =
            format!("unix://{}", at("no.sock").display());
        modules.edge_stream.socket = at("kubelet.sock");
        modules.edge_stream.token_file = at("kubelet.token");
        modules.edge_hub.http_server = "https://127.0.0.1:1".to_owned();
        modules.edge_hub.quic.server = "127.0.0.1:1".to_owned();
        modules.edge_hub.websocket.server = "127.0.0.1:1".to_owned();
        modules.edge_hub.tls_ca_file = at("rootCA.crt");
        modules.edge_hub.tls_cert_file = at("server.crt");
        modules.edge_hub.tls_private_key_file = at("server.key");
        set(&mut settings);
        let config = at("edgecore.yaml");
        std::fs::write(&config, serde_saphyr::to_string(&settings).unwrap()).unwrap();
        Node { config, dir }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Runs the words behind `keadm debug` with this node's file; answers whether all is well, and what was said.
    async fn debug(&self, words: &[&str]) -> (bool, String) {
        debug(Some(&self.config), words).await
    }
}

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    verb: DebugCommand,
}

async fn debug(config: Option<&Path>, words: &[&str]) -> (bool, String) {
    let mut line = vec!["debug".to_owned()];
    line.extend(words.iter().map(|word| (*word).to_owned()));
    line.extend(config.map(|config| format!("--config={}", config.display())));
    let order = Cli::try_parse_from(line).unwrap_or_else(|error| panic!("{error}")).verb;
    let mut said = Vec::new();
    let ended = keadm::debug(&order, &Env::real(), &mut |line| said.push(line)).await;
    let is_well = ended.is_ok();
    said.extend(ended.err().map(|error| format!("{error:#}")));
    (is_well, said.join("\n"))
}

/// The line of a check.
#[track_caller]
fn line<'a>(said: &'a str, check: &str) -> &'a str {
    let is_it = |line: &&str| line.split_whitespace().nth(1) == Some(&format!("{check}:"));
    said.lines().find(is_it).unwrap_or_else(|| panic!("no {check} in {said}"))
}

/// It is so, with these words.
#[track_caller]
fn found(said: &str, mark: &str, check: &str, words: &str) {
    let line = line(said, check);
    assert!(
        line.starts_with(&format!("{mark} ")) && line.contains(words),
        "{check} is not {mark} with {words}: {line}"
    );
}

#[actix_rt::test]
async fn all_is_looked_at_within_ten_seconds_whatever_is_missing() {
    let env = Env::real();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    // Something that takes a connection and says nothing, as a port behind a bad proxy.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = silent.local_addr().unwrap();
    let node = Node::with(|settings| {
        settings.modules.event_bus.mqtt_server_internal = taken.local_addr().unwrap().to_string();
        settings.modules.edge_stream.enable = false;
        settings.modules.edge_hub.http_server = format!("https://{silent}");
        settings.modules.edge_hub.websocket.server = "no-such-host.invalid:10000".to_owned();
    });
    let begun = env.now();
    let (is_well, said) = node.debug(&["check"]).await;
    assert!(env.now().since(begun) < std::time::Duration::from_secs(10), "{said}");
    assert!(!is_well && said.contains(" checks failed: "), "{said}");
    found(&said, "FAIL   ", "RuntimeEndpoint", "systemctl enable --now containerd");
    found(&said, "FAIL   ", "Ports", "(modules.eventBus.mqttServerInternal) is taken by");
    found(&said, "FAIL   ", "Names", "no-such-host.invalid is not found");
    found(&said, "FAIL   ", "NodeCertificate", "join again");
    found(&said, "ok     ", "Store", "not there yet");
    for check in [
        "Architecture",
        "Privileges",
        "Memory",
        "MemoryCgroup",
        "Disk",
        "Inodes",
        "Pids",
        "Cpu",
        "KernelModules",
        "Iptables",
        "CniConfiguration",
        "Configuration",
        "Leftovers",
        "NodeAddress",
        "ResolvConf",
        "CloudCore",
    ] {
        line(&said, check);
    }
}

#[actix_rt::test]
async fn a_machine_that_has_not_joined_is_looked_at_by_the_defaults() {
    let folder = tempfile::tempdir().unwrap();
    let (_, said) = debug(Some(&folder.path().join("none.yaml")), &["check"]).await;
    found(&said, "WARNING", "Configuration", "has not joined");
    found(&said, "ok     ", "CloudCore", "--cloud-hub-server");
    let (is_well, said) = debug(None, &["check", "arch"]).await;
    assert!(is_well && said.lines().count() == 1, "{said}");
    let (is_well, said) = debug(None, &["check", "cpu", "--domain", "a.example"]).await;
    assert!(!is_well && said.starts_with("--domain has no effect here"), "{said}");
}

#[actix_rt::test]
async fn a_name_server_that_says_nothing_is_told() {
    // TEST-NET: nobody is there.
    let (is_well, said) = debug(None, &["check", "dns", "-d", "cloud.example", "-D", "192.0.2.1"]).await;
    assert!(!is_well);
    found(&said, "FAIL   ", "DnsServers", "192.0.2.1");
}
