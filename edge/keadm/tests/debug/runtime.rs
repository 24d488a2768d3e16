//! A real containerd, and what can be wrong with it.

use std::path::Path;
use std::time::Duration;

use config::edge::CgroupDriver;
use testhost::Daemon;
use testnode::Machine;

use super::{Node, found};

fn node(host: &Machine, driver: CgroupDriver) -> Node {
    let endpoint = host.endpoint();
    Node::with(|settings| {
        let kubelet = &mut settings.modules.edged.tailored_kubelet_config;
        kubelet.container_runtime_endpoint = endpoint;
        kubelet.cgroup_driver = driver;
    })
}

/// Looks until it is so: a runtime takes notice of its files by itself.
async fn eventually(node: &Node, mark: &str, check: &str, words: &str) {
    let env = beehive::Env::real();
    let so = env.timeout(Duration::from_secs(60), async {
        loop {
            let said = node.debug(&["check", "runtime"]).await.1;
            let is_so = |line: &str| {
                line.starts_with(mark) && line.contains(&format!("{check}: ")) && line.contains(words)
            };
            if said.lines().any(is_so) {
                return;
            }
            env.sleep(Duration::from_millis(100)).await;
        }
    });
    if so.await.is_none() {
        found(&node.debug(&["check", "runtime"]).await.1, mark, check, words);
    }
}

#[test]
fn a_runtime_without_network_cri_or_the_same_driver_is_found_and_cured() {
    testnode::run(async {
        let mut host = Machine::new("debug");
        let well = node(&host, CgroupDriver::Cgroupfs);
        let said = well.debug(&["check", "runtime"]).await.1;
        found(&said, "ok     ", "RuntimeEndpoint", "containerd");
        found(&said, "ok     ", "CriPlugin", "CRI v1, and ready");
        found(&said, "ok     ", "CgroupDriver", "cgroupfs, as the runtime");
        eventually(&well, "ok     ", "CniConfiguration", "net.d/10-test.conflist").await;
        // The other driver.
        let other = node(&host, CgroupDriver::Systemd);
        found(
            &other.debug(&["check", "runtime"]).await.1,
            "FAIL   ",
            "CgroupDriver",
            "cgroupDriver to cgroupfs",
        );

        // The folder of the network's configurations is empty, then one is torn, then it is there again.
        let file = host.dir().join("net.d/10-test.conflist");
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::remove_file(&file).unwrap();
        eventually(&well, "FAIL   ", "CniConfiguration", "there is no CNI configuration in").await;
        std::fs::write(&file, "{ torn").unwrap();
        eventually(&well, "FAIL   ", "CniConfiguration", "cannot use").await;
        std::fs::write(&file, text).unwrap();
        eventually(&well, "ok     ", "CniConfiguration", "10-test.conflist").await;

        // Docker's package of containerd has CRI off.
        host.kill_runtime().unwrap();
        found(&well.debug(&["check", "runtime"]).await.1, "FAIL   ", "RuntimeEndpoint", "nobody answers");
        let without = without_cri(host.dir());
        let mut containerd = host.command("containerd");
        containerd.arg("--config").arg(&without);
        let _containerd = Daemon::start("without-cri", well.dir.path(), &mut containerd).unwrap();
        eventually(&well, "FAIL   ", "CriPlugin", "take `cri` out of disabled_plugins").await;
        found(&well.debug(&["check", "runtime"]).await.1, "ok     ", "RuntimeEndpoint", "somebody answers");
    });
}

/// The host's own configuration, with CRI among what is off.
fn without_cri(dir: &Path) -> std::path::PathBuf {
    let text = std::fs::read_to_string(dir.join("containerd.toml")).unwrap();
    let text =
        text.replacen("disabled_plugins = [", "disabled_plugins = [\n  \"io.containerd.grpc.v1.cri\",", 1);
    let path = dir.join("without-cri.toml");
    std::fs::write(&path, text).unwrap();
    path
}
