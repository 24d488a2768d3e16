//! Where things lie on the node, in the kubelet's folders.

use std::path::{Path, PathBuf};

use crate::desired::PodId;

/// `<root>/pods/<uid>`
pub(crate) fn pod(root: &Path, uid: &str) -> PathBuf {
    root.join("pods").join(uid)
}

/// `<pod>/volumes/kubernetes.io~<kind>/<name>`
pub(crate) fn volume(root: &Path, uid: &str, kind: &str, name: &str) -> PathBuf {
    pod(root, uid).join("volumes").join(format!("kubernetes.io~{kind}")).join(name)
}

/// Where a `subPath` is mounted before a container sees it.
pub(crate) fn sub_path(root: &Path, uid: &str, container: &str, volume: &str, index: usize) -> PathBuf {
    pod(root, uid).join("volume-subpaths").join(volume).join(container).join(index.to_string())
}

/// The pod's `/etc/hosts`.
pub(crate) fn etc_hosts(root: &Path, uid: &str) -> PathBuf {
    pod(root, uid).join("etc-hosts")
}

/// Where an instance of a container writes its last words.
pub(crate) fn last_words(root: &Path, uid: &str, container: &str, attempt: u32) -> PathBuf {
    pod(root, uid).join("containers").join(container).join(attempt.to_string())
}

/// `<logs>/<namespace>_<name>_<uid>`
pub(crate) fn pod_logs(logs: &Path, id: &PodId) -> PathBuf {
    logs.join(format!("{}_{}_{}", id.namespace, id.name, id.uid))
}

/// A container's log, below the pod's.
pub(crate) fn log(container: &str, attempt: u32) -> String {
    format!("{container}/{attempt}.log")
}
