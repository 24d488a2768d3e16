//! What an earlier node, a kubelet or KubeEdge has left. The verdict is pure.

use std::path::{Path, PathBuf};

use config::edge::{EdgeCore, KUBEEDGE_PATH};

use crate::finding::Finding;
use crate::host::{Host, Process};

const LEFTOVERS: &str = "Leftovers";

/// What is found of earlier nodes.
#[derive(Debug, Clone, Default)]
pub struct Remains {
    /// `edgecore.yaml` is there, and the node has joined.
    pub has_joined: bool,
    /// Files that `join` writes, without it.
    pub written: Vec<PathBuf>,
    /// KubeEdge's own `edgecore.yaml`, which is no link of ours.
    pub kubeedge: bool,
    /// Processes that do a node's work.
    pub processes: Vec<Process>,
    /// Volumes that are mounted for pods.
    pub mounts: usize,
}

impl Remains {
    /// Those of a machine. `written`: files that `join` writes and that are there, of a machine that has not joined.
    pub fn of(host: &Host, settings: &EdgeCore, written: Vec<PathBuf>, has_joined: bool) -> Remains {
        let is_file = |path: &Path| path.symlink_metadata().is_ok_and(|metadata| metadata.is_file());
        let root = settings.modules.edged.root_directory.join("pods");
        let table = host.text(mountinfo::TABLE);
        let mounts = mountinfo::parse(table.as_bytes());
        // One of a container of this machine's, as of a cluster in containers, has its pods in there.
        let works = |process: &Process| {
            matches!(process.name.as_str(), "kubelet" | "edgecore") && host.is_of_the_machine(process.pid)
        };
        Remains {
            has_joined,
            written,
            kubeedge: is_file(&host.at(KUBEEDGE_PATH)),
            processes: host.processes().into_iter().filter(works).collect(),
            mounts: mounts.iter().filter(|mount| mount.point.starts_with(&root)).count(),
        }
    }
}

/// Whatever else makes this machine a node, or did.
pub fn leftovers(remains: &Remains) -> Finding {
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

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::finding::Grade::{Failed, Passed, Warned};
    use crate::finding::tests::grade;

    /// The files are really there.
    #[test]
    fn what_an_earlier_node_left_is_named_with_its_cure() {
        let folder = tempfile::tempdir().unwrap();
        let host = Host::in_folder(folder.path());
        let settings = EdgeCore::default();
        let look = |has_joined| leftovers(&Remains::of(&host, &settings, Vec::new(), has_joined));
        grade(&look(false), Passed, "none");
        let files = ["server.crt", "server.key"].map(PathBuf::from).to_vec();
        let remains = Remains::of(&host, &settings, files, false);
        grade(&leftovers(&remains), Failed, "server.crt and 1 more of its files are of an earlier node");
        let process = |pid: u32, name: &str| {
            fs::create_dir_all(folder.path().join(format!("proc/{pid}"))).unwrap();
            fs::write(folder.path().join(format!("proc/{pid}/comm")), name).unwrap();
        };
        process(7, "edgecore\n");
        grade(&look(true), Passed, "none");
        process(8, "kubelet\n");
        grade(&look(true), Failed, "a kubelet runs (pid 8)");
        grade(&look(false), Failed, "an edgecore runs (pid 7)");
        // That of a cluster in containers on this machine.
        for (pid, space) in [("self", 1), ("8", 2)] {
            let ns = folder.path().join(format!("proc/{pid}/ns"));
            fs::create_dir_all(&ns).unwrap();
            std::os::unix::fs::symlink(format!("pid:[{space}]"), ns.join("pid")).unwrap();
        }
        grade(&look(true), Passed, "none");
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
        let settings = EdgeCore::default();
        let look = |has_joined| leftovers(&Remains::of(&host, &settings, Vec::new(), has_joined));
        let mount = |at: &str| format!("36 35 0:7 / {at} rw - tmpfs tmpfs rw\n");
        write(mountinfo::TABLE, &(mount("/var/lib/kubelet/pods/u/volumes/x") + &mount("/proc")));
        grade(&look(false), Warned, "1 volumes of pods of an earlier node are mounted");
        grade(&look(true), Passed, "none");
        write(KUBEEDGE_PATH, "kind: EdgeCore");
        grade(&look(false), Warned, "keadm join --from-kubeedge");
    }
}
