//! The edgecore that is built here and a copy of it that says another version: a node that has joined and has no cloud.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use beehive::Env;
use harness::{EnrolmentCloud, StandAlone};
use keadm::{CloudPorts, Join};
use nodeupgrade::Outcome;

use crate::node::{Node, until};

/// The program that cargo has built beside keadm; it is built now where it was not.
fn edgecore() -> PathBuf {
    let beside = Path::new(env!("CARGO_BIN_EXE_keadm")).with_file_name("edgecore");
    if !beside.exists() {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.args(["build", "--locked", "--workspace", "--bin", "edgecore"]);
        assert!(cargo.current_dir(env!("CARGO_MANIFEST_DIR")).status().unwrap().success());
    }
    beside
}

/// A copy that says the next version: the text is as long.
fn next_version(program: &Path, folder: &Path) -> PathBuf {
    let mut bytes = fs::read(program).unwrap();
    let own = format!("{} (commit ", buildinfo::VERSION).into_bytes();
    let mut next = own.clone();
    next[4] += 1;
    let places: Vec<usize> =
        bytes.windows(own.len()).enumerate().filter(|(_, text)| *text == own).map(|(at, _)| at).collect();
    assert!(!places.is_empty(), "edgecore does not say its version");
    for at in places {
        bytes[at..at + next.len()].copy_from_slice(&next);
    }
    let path = folder.join("next");
    fs::write(&path, bytes).unwrap();
    path
}

#[actix_rt::test]
async fn the_edgecore_of_this_release_is_exchanged_and_goes_back() {
    let env = Env::real();
    let api = StandAlone::start(&env).await;
    let cloud = EnrolmentCloud::start(api.client(), &env).await;
    let program = edgecore();
    let node = Node::bare(&program);
    let folder = node.folder.display();
    let [mqtt, agents] = testhost::free_ports().unwrap();
    let kubelet = "modules.edged.tailoredKubeletConfig";
    let set = vec![
        format!("database.dataSource={}", node.store.display()),
        format!("modules.edged.rootDirectory={folder}/kubelet"),
        format!("modules.edged.devicePluginPath={folder}/device-plugins"),
        format!("modules.edged.podResourcesPath={folder}/pod-resources"),
        format!("{kubelet}.containerRuntimeEndpoint=unix://{folder}/no-runtime.sock"),
        format!("{kubelet}.podLogsDir={folder}/logs"),
        format!("{kubelet}.readOnlyPort={agents}"),
        format!("modules.edgeHub.tlsCaFile={folder}/ca.crt"),
        format!("modules.edgeHub.tlsCertFile={folder}/edge.crt"),
        format!("modules.edgeHub.tlsPrivateKeyFile={folder}/edge.key"),
        format!("modules.deviceTwin.dmiSockPath={folder}/dmi/"),
        format!("modules.eventBus.mqttServerInternal=127.0.0.1:{mqtt}"),
        format!("modules.edgeStream.socket={folder}/kubelet.sock"),
        format!("modules.edgeStream.tokenFile={folder}/kubelet.token"),
    ];
    let order = Join {
        cloud: CloudPorts::new("127.0.0.1:1", cloud.server.address.port()),
        token: keadm::get_token(api.client(), None, 5, keadm::TOKEN_LIFE, &env).await.unwrap(),
        node: "edge-1".to_owned(),
        config: node.config.clone().into(),
        set,
        key_uri: None,
    };
    keadm::join(&order, &mut |_| {}).await.unwrap();
    cloud.server.stop().await;
    // What is waited for is in other processes.
    let works = std::thread::spawn(move || {
        node.start();
        let next = next_version(&program, &node.folder);
        let (good, said) = node.upgrade(&next, &[]);
        assert!(!good && said.contains("failed  NodeReady: "), "{said}");
        let (good, said) = node.upgrade(&next, &["--offline-ok"]);
        assert!(good, "{said}\n{}", fs::read_to_string(node.folder.join("log")).unwrap_or_default());
        node.runs_only(&next);
        assert_eq!(node.outcome().0, Outcome::Confirmed);
        let (good, said) = node.keadm("rollback", &["--offline-ok"]);
        assert!(good, "{said}");
        node.runs_only(&program);
        node.kill_all();
        until("the mount's end", || {
            let _ = Command::new("umount").arg("-l").arg(node.folder.join("kubelet")).output();
            fs::remove_dir_all(node.folder.join("kubelet")).is_ok().then_some(())
        });
    });
    works.join().unwrap();
}
