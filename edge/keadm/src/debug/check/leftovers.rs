//! What an earlier node, a kubelet or KubeEdge has left, the store, and what of the cluster landed on the node that has no place there.
//! The verdicts are pure.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use config::edge::{EdgeCore, KUBEEDGE_PATH};
use edge_store::{StoreError, StoreInspector};
use serde_json::Value;

use super::super::host::{Host, Process};
use super::identity;
use crate::finding::Finding;
use crate::store::plain;

const LEFTOVERS: &str = "Leftovers";
const STORE: &str = "Store";
const DAEMON_SETS: &str = "DaemonSets";
/// So many names are said.
const NAMED: usize = 8;
/// Daemon sets that find no API server on an edge node, by the beginnings of their pods' names: kube-proxy and network plugins.
const NOT_FOR_EDGE_NODES: [&str; 9] = [
    "kube-proxy",
    "calico-node",
    "canal",
    "cilium",
    "kube-flannel",
    "kube-router",
    "kindnet",
    "antrea-agent",
    "weave-net",
];

/// What is found of earlier nodes.
#[derive(Debug, Clone, Default)]
pub(super) struct Remains {
    /// `edgecore.yaml` is there, and the node has joined.
    pub(super) has_joined: bool,
    /// Files that `join` writes, without it.
    pub(super) written: Vec<PathBuf>,
    /// KubeEdge's own `edgecore.yaml`, which is no link of ours.
    pub(super) kubeedge: bool,
    /// Processes that do a node's work.
    pub(super) processes: Vec<Process>,
    /// Volumes that are mounted for pods.
    pub(super) mounts: usize,
}

impl Remains {
    pub(super) fn of(host: &Host, settings: &EdgeCore, config: &Path, has_joined: bool) -> Remains {
        let written = if has_joined { Vec::new() } else { identity::written(settings, config) };
        let is_file = |path: &Path| path.symlink_metadata().is_ok_and(|metadata| metadata.is_file());
        let root = settings.modules.edged.root_directory.join("pods");
        let table = host.text(mountinfo::TABLE);
        let mounts = mountinfo::parse(table.as_bytes());
        let works = |process: &Process| matches!(process.name.as_str(), "kubelet" | "edgecore");
        Remains {
            has_joined,
            written: written.into_iter().filter(|path| path != config).collect(),
            kubeedge: is_file(&host.at(KUBEEDGE_PATH)),
            processes: host.processes().into_iter().filter(works).collect(),
            mounts: mounts.iter().filter(|mount| mount.point.starts_with(&root)).count(),
        }
    }
}

/// Whatever else makes this machine a node, or did.
pub(super) fn leftovers(remains: &Remains) -> Finding {
    let mut grave = Vec::new();
    let mut light = Vec::new();
    for Process { pid, name } in &remains.processes {
        match name.as_str() {
            "kubelet" => grave.push(format!(
                "a kubelet runs (pid {pid}): both would end each other's containers; `systemctl disable --now kubelet`"
            )),
            _ if !remains.has_joined => grave.push(format!(
                "an edgecore runs (pid {pid}) though this machine has not joined: if it is KubeEdge's, `keadm join --from-kubeedge` takes the node over; \
                 else `systemctl disable --now edgecore`"
            )),
            _ => {}
        }
    }
    if let Some(first) = remains.written.first() {
        let others = remains.written.len() - 1;
        let more = if others > 0 { format!(" and {others} more of its files") } else { String::new() };
        grave.push(format!(
            "{}{more} are of an earlier node, and `keadm join` stops there: `keadm reset` removes them where its edgecore.yaml is, else move them away",
            first.display()
        ));
    }
    if remains.kubeedge && !remains.has_joined {
        light.push(format!(
            "{KUBEEDGE_PATH} is KubeEdge's: `keadm join --from-kubeedge` takes its node over with its pods, or KubeEdge's own `keadm reset` removes it"
        ));
    }
    if remains.mounts > 0 && !remains.has_joined {
        light.push(format!(
            "{} volumes of pods of an earlier node are mounted: end its pods (`crictl rmp -fa`), then unmount them (the README's section Away with it)",
            remains.mounts
        ));
    }
    match (grave.is_empty(), light.is_empty()) {
        (true, true) => Finding::passed(LEFTOVERS, "none"),
        (true, false) => Finding::warned(LEFTOVERS, light.join("; ")),
        (false, _) => {
            Finding::failed(LEFTOVERS, grave.into_iter().chain(light).collect::<Vec<_>>().join("; "))
        }
    }
}

/// The store, if there is one: whether it can be read, and whose it is.
pub(crate) fn store(path: &Path, node: &str) -> (Finding, Option<StoreInspector>) {
    let shown = path.display();
    let inspector = match StoreInspector::open(path) {
        Ok(inspector) => inspector,
        Err(StoreError::Missing { .. }) => {
            return (Finding::passed(STORE, format!("{shown} is not there yet: edgecore makes it")), None);
        }
        Err(error @ StoreError::OfKubeEdge { .. }) => {
            return (Finding::failed(STORE, error.to_string()), None);
        }
        Err(error) => {
            let cure = "edgecore sets a broken one aside when it starts, salvages its rows and fetches the rest from the cloud: `systemctl restart edgecore`";
            let words = plain(&anyhow::Error::from(error).to_string());
            return (Finding::failed(STORE, format!("{words}: {cure}")), None);
        }
    };
    (of_store(&inspector, path, node), Some(inspector))
}

fn of_store(inspector: &StoreInspector, path: &Path, node: &str) -> Finding {
    let shown = path.display();
    if let Some(of) = inspector.node().filter(|of| !node.is_empty() && of != node) {
        let error = StoreError::OtherNode { path: path.to_owned(), of, node: node.to_owned() };
        return Finding::failed(STORE, error.to_string());
    }
    if let Some(trouble) = inspector.key_trouble() {
        return Finding::warned(
            STORE,
            format!("{trouble}; edgecore fetches them again from the cloud when it starts"),
        );
    }
    let (rows, reports) = match (inspector.entries(None, None, false), inspector.reports(None)) {
        (Ok(rows), Ok(reports)) => (rows, reports),
        (Err(error), _) | (_, Err(error)) => {
            return Finding::failed(
                STORE,
                format!("{error}: `systemctl restart edgecore` sets a broken one aside"),
            );
        }
    };
    let damaged = rows.iter().filter(|row| row.damage.is_some()).count()
        + reports.iter().filter(|report| report.damage.is_some()).count();
    let words = format!(
        "{shown} at revision {}: {} rows, {} reports wait for the cloud",
        inspector.revision(),
        rows.len(),
        reports.len()
    );
    match damaged {
        0 => Finding::passed(STORE, words),
        _ => Finding::warned(
            STORE,
            format!(
                "{words}, {damaged} damaged (`keadm store show` names them): objects come again from the cloud when edgecore is restarted"
            ),
        ),
    }
}

/// Pods of daemon sets that find no API server here.
pub(super) fn daemon_sets(pods: &[Value]) -> Finding {
    let mut landed = BTreeSet::new();
    for pod in pods {
        let owners = pod["metadata"]["ownerReferences"].as_array();
        let sets = owners.into_iter().flatten().filter(|owner| owner["kind"] == "DaemonSet");
        let names = sets.filter_map(|owner| owner["name"].as_str());
        for name in names.filter(|name| NOT_FOR_EDGE_NODES.iter().any(|known| name.starts_with(known))) {
            landed.insert(format!(
                "{}/{}",
                plain(pod["metadata"]["namespace"].as_str().unwrap_or_default()),
                plain(name)
            ));
        }
    }
    if landed.is_empty() {
        return Finding::passed(DAEMON_SETS, "none of those that need an API server on the node");
    }
    let named: Vec<String> = landed.into_iter().take(NAMED).collect();
    Finding::warned(
        DAEMON_SETS,
        format!(
            "{} landed here and find no API server: `keadm init --dry-run` prints a patch for each that keeps it off edge nodes, and \
             `keadm init --keep-daemonsets-off` applies them",
            named.join(", ")
        ),
    )
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::json;

    use super::*;
    use crate::finding::Grade::{Failed, Passed, Warned};
    use crate::finding::tests::grade;

    /// The files are really there.
    #[test]
    fn what_an_earlier_node_left_is_named_with_its_cure() {
        let folder = tempfile::tempdir().unwrap();
        let host = Host::in_folder(folder.path());
        let mut settings = EdgeCore::default();
        let hub = &mut settings.modules.edge_hub;
        hub.tls_cert_file = folder.path().join("server.crt");
        hub.tls_private_key_file = folder.path().join("server.key");
        hub.tls_ca_file = folder.path().join("rootCA.crt");
        let config = folder.path().join("edgecore.yaml");
        let look = |has_joined| leftovers(&Remains::of(&host, &settings, &config, has_joined));
        grade(&look(false), Passed, "none");
        fs::write(folder.path().join("server.key"), "").unwrap();
        fs::write(folder.path().join("server.crt"), "").unwrap();
        grade(&look(false), Failed, "server.crt and 1 more of its files are of an earlier node");
        grade(&look(true), Passed, "none");
        let process = |pid: u32, name: &str| {
            fs::create_dir_all(folder.path().join(format!("proc/{pid}"))).unwrap();
            fs::write(folder.path().join(format!("proc/{pid}/comm")), name).unwrap();
        };
        process(7, "edgecore\n");
        grade(&look(true), Passed, "none");
        process(8, "kubelet\n");
        grade(&look(true), Failed, "a kubelet runs (pid 8)");
        grade(&look(false), Failed, "an edgecore runs (pid 7)");
    }

    #[test]
    fn mounts_and_kubeedges_file_are_said_before_a_machine_joins() {
        let folder = tempfile::tempdir().unwrap();
        let host = Host::in_folder(folder.path());
        let write = |path: &str, text: &str| {
            let path = folder.path().join(path.trim_start_matches('/'));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let (settings, config) = (EdgeCore::default(), folder.path().join("none.yaml"));
        let look = |has_joined| {
            leftovers(&Remains { written: Vec::new(), ..Remains::of(&host, &settings, &config, has_joined) })
        };
        let mount = |at: &str| format!("36 35 0:7 / {at} rw - tmpfs tmpfs rw\n");
        write(mountinfo::TABLE, &(mount("/var/lib/kubelet/pods/u/volumes/x") + &mount("/proc")));
        grade(&look(false), Warned, "1 volumes of pods of an earlier node are mounted");
        grade(&look(true), Passed, "none");
        write(KUBEEDGE_PATH, "kind: EdgeCore");
        grade(&look(false), Warned, "keadm join --from-kubeedge");
    }

    #[test]
    fn a_store_that_is_broken_or_anothers_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("edgecore.db");
        grade(&store(&path, "edge-1").0, Passed, "not there yet");
        let mut options = edge_store::Options::new([1; 16]);
        options.node = Some("edge-1".to_owned());
        drop(edge_store::Store::open(&path, options).unwrap());
        grade(&store(&path, "edge-1").0, Passed, "0 rows, 0 reports");
        grade(&store(&path, "edge-2").0, Failed, "edge-1");
        fs::remove_file(folder.path().join("edgecore.db.key")).unwrap();
        grade(&store(&path, "edge-1").0, Warned, "fetches them again");
        fs::write(&path, b"no database").unwrap();
        grade(&store(&path, "edge-1").0, Failed, "sets a broken one aside");
    }

    #[test]
    fn a_kube_proxy_on_the_node_is_said() {
        let pod = |set: &str, kind: &str| json!({"metadata": {"namespace": "kube-system", "name": format!("{set}-x"), "ownerReferences": [{"kind": kind, "name": set}]}});
        grade(
            &daemon_sets(&[pod("shop", "DaemonSet"), pod("kube-proxy", "ReplicaSet"), json!({})]),
            Passed,
            "none",
        );
        let found = daemon_sets(&[pod("kube-proxy", "DaemonSet"), pod("kube-flannel-ds", "DaemonSet")]);
        grade(&found, Warned, "kube-system/kube-flannel-ds, kube-system/kube-proxy landed here");
    }
}
