//! Where things lie on the node, in the kubelet's folders. All paths are relative: those of pods to `rootDirectory`,
//! those of logs to `podLogsDir`.

use std::path::{Path, PathBuf};

use crate::pod::id::PodId;
use crate::pod::parsed_pod::is_path_safe;

/// Bytes of a file's name.
const FILE_NAME_MAX: usize = 255;
const LOG_SUFFIX: &str = ".log";
/// Below it lies what pods have.
pub(crate) const PODS: &str = "pods";

/// `pods/<uid>`
pub(crate) fn pod(uid: &str) -> PathBuf {
    PathBuf::from(PODS).join(uid)
}

/// `<pod>/volumes/kubernetes.io~<kind>/<name>`
pub(crate) fn volume(uid: &str, kind: &str, name: &str) -> PathBuf {
    volumes(uid, kind).join(name)
}

/// `<pod>/volumes/kubernetes.io~<kind>`
pub(crate) fn volumes(uid: &str, kind: &str) -> PathBuf {
    pod(uid).join("volumes").join(format!("kubernetes.io~{kind}"))
}

/// `<pod>/volumeDevices/kubernetes.io~<kind>/<name>`: the link to a block device.
pub(crate) fn volume_device(uid: &str, kind: &str, name: &str) -> PathBuf {
    pod(uid).join("volumeDevices").join(format!("kubernetes.io~{kind}")).join(name)
}

/// `<pod>/plugins/kubernetes.io~empty-dir/<name>/ready`, the kubelet's mark of an emptyDir that has been made: from then on
/// the volume is its containers'.
pub(crate) fn ready(uid: &str, name: &str) -> PathBuf {
    pod(uid).join("plugins").join("kubernetes.io~empty-dir").join(name).join("ready")
}

/// `<pod>/plugins/kubernetes.io~<kind>/<name>/given`, our mark of a volume of others whose files were given to the pod's group.
pub(crate) fn given(uid: &str, kind: &str, name: &str) -> PathBuf {
    pod(uid).join("plugins").join(format!("kubernetes.io~{kind}")).join(name).join("given")
}

/// The kind of a volume, by where it lies; `None`: it is no volume of a pod.
pub(crate) fn kind(volume: &Path) -> Option<&str> {
    let mut names = volume.strip_prefix(PODS).ok()?.iter().skip(1);
    let kind = (names.next()? == "volumes").then(|| names.next())??;
    kind.to_str()?.strip_prefix("kubernetes.io~")
}

/// Below it lies every `subPath` of the pod.
pub(crate) fn sub_paths(uid: &str) -> PathBuf {
    pod(uid).join("volume-subpaths")
}

/// Where a `subPath` is mounted before a container sees it.
pub(crate) fn sub_path(uid: &str, container: &str, volume: &str, index: usize) -> PathBuf {
    sub_paths(uid).join(volume).join(container).join(index.to_string())
}

/// The pod's `/etc/hosts`.
pub(crate) fn etc_hosts(uid: &str) -> PathBuf {
    pod(uid).join("etc-hosts")
}

/// Where an instance of a container writes its termination message.
pub(crate) fn termination_message(uid: &str, container: &str, attempt: u32) -> PathBuf {
    pod(uid).join("containers").join(container).join(attempt.to_string())
}

/// `<namespace>_<name>_<uid>`
pub(crate) fn pod_logs(id: &PodId) -> PathBuf {
    PathBuf::from(format!("{}_{}_{}", id.namespace, id.name, id.uid))
}

/// The pod whose logs a folder of this name holds: neither namespaces nor names have a `_`.
pub(crate) fn pod_of_logs(folder: &str) -> Option<PodId> {
    let mut parts = folder.splitn(3, '_').map(str::to_owned);
    let (namespace, name, uid) = (parts.next()?, parts.next()?, parts.next()?);
    let safe = [&namespace, &name, &uid].into_iter().all(|part| is_path_safe(part));
    safe.then_some(PodId { namespace, name, uid })
}

/// `<name>_<namespace>_<container>-<id>.log`: the link to an instance's log, cut to what a file's name may be.
pub(crate) fn log_link(pod: &PodId, container: &str, id: &str) -> String {
    let mut name = format!("{}_{}_{container}-{id}", pod.name, pod.namespace);
    // All of it is ASCII.
    name.truncate(FILE_NAME_MAX - LOG_SUFFIX.len());
    name + LOG_SUFFIX
}

/// A container's log, below the pod's.
pub(crate) fn log(container: &str, attempt: u32) -> String {
    format!("{container}/{attempt}.log")
}
