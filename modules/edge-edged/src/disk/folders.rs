//! The folders of `edgecore` on the host: nobody else on the node may look into what pods hold.

use std::collections::BTreeMap;
use std::path::Path;

use crate::disk::beneath::{Access, Folder};
use crate::disk::layout;
use crate::error::StepError;
use crate::pod::id::PodId;
use crate::pod::parsed_pod::is_path_safe;

/// The kubelet's mode of `rootDirectory` and `pods`: below them lie secrets that their containers may read whoever they
/// are, so the way there is closed instead.
const CLOSED: u32 = 0o750;
/// What no other user may read is below these, too.
const BELOW: [&str; 2] = [layout::PODS, "image_manager"];
/// So many folders of pods, or of logs, are looked at in one go; the next look finds the others.
pub(crate) const PODS_MAX: usize = 1 << 16;

/// `rootDirectory`, made when it is not there.
pub(crate) fn root(path: &Path) -> Result<Folder, StepError> {
    Folder::make_root(path, CLOSED)
}

/// Makes a folder of a pod, and what leads there: no other user of the node may pass.
pub(crate) fn lead_to(root: &Folder, at: &Path) -> Result<Folder, StepError> {
    root.make(at, Access::mode(CLOSED))
}

/// Takes from others what they may do in `rootDirectory` and the folders in it. Answers what was repaired, a sentence
/// each. What is not there yet is made closed when it is needed.
pub(crate) fn secure(path: &Path) -> Result<Vec<String>, StepError> {
    let Some(root) = Folder::find_root(path)? else { return Ok(Vec::new()) };
    let mut repaired: Vec<String> = root.tighten(CLOSED)?.into_iter().collect();
    for name in BELOW {
        if let Some(below) = root.find(Path::new(name))? {
            repaired.extend(below.tighten(CLOSED)?);
        }
    }
    Ok(repaired)
}

/// The pods that have a folder below `rootDirectory`. Their names are told by the folders of their logs; one without any
/// has an empty name and namespace.
pub(crate) fn pods(root: &Path, logs: &Path) -> Result<Vec<PodId>, StepError> {
    let Some(root) = Folder::find_root(root)? else { return Ok(Vec::new()) };
    let Some(folder) = root.find(Path::new(layout::PODS))? else { return Ok(Vec::new()) };
    let mut names = BTreeMap::new();
    if let Some(logs) = Folder::find_root(logs)? {
        for name in logs.names(PODS_MAX)? {
            let id = name.to_str().and_then(layout::pod_of_logs);
            names.extend(id.map(|id| (id.uid.clone(), id)));
        }
    }
    let mut found = Vec::new();
    for uid in folder.names(PODS_MAX)? {
        let Some(uid) = uid.to_str().filter(|uid| is_path_safe(uid)) else { continue };
        if folder.has_folder(uid)? {
            let without_spec =
                || PodId { namespace: String::new(), name: String::new(), uid: uid.to_owned() };
            found.push(names.remove(uid).unwrap_or_else(without_spec));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, chown};
    use std::os::unix::process::CommandExt as _;
    use std::process::Command;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn what_was_open_is_closed_and_said() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("kubelet");
        fs::create_dir_all(root.join("pods/u")).unwrap();
        fs::set_permissions(&root, fs::Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(root.join("pods"), fs::Permissions::from_mode(0o777)).unwrap();
        let said = secure(&root).unwrap();
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(said[0].contains("0755") && said[1].contains("pods") && said[1].contains("0777"), "{said:?}");
        assert_eq!((mode(&root), mode(&root.join("pods"))), (0o750, 0o750));
        assert_eq!(secure(&root).unwrap(), [] as [String; 0]);
        // Tighter than needed is the administrator's choice.
        fs::set_permissions(&root, fs::Permissions::from_mode(0o700)).unwrap();
        assert_eq!(secure(&root).unwrap(), [] as [String; 0]);
        assert_eq!(mode(&root), 0o700);
    }

    #[test]
    fn the_pods_on_the_disk_are_known_by_their_folders_and_logs() {
        let (root, logs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        assert_eq!(pods(&root.path().join("none"), logs.path()).unwrap(), []);
        assert_eq!(pods(root.path(), logs.path()).unwrap(), []);
        for uid in ["u-1", "u-2"] {
            fs::create_dir_all(root.path().join("pods").join(uid)).unwrap();
        }
        fs::write(root.path().join("pods/file"), "").unwrap();
        std::os::unix::fs::symlink("/etc", root.path().join("pods/link")).unwrap();
        for name in ["ns_p_u-1", "ns_other_u-3", "no", "a_b"] {
            fs::create_dir(logs.path().join(name)).unwrap();
        }
        let id = |namespace: &str, name: &str, uid: &str| PodId {
            namespace: namespace.into(),
            name: name.into(),
            uid: uid.into(),
        };
        let mut found = pods(root.path(), logs.path()).unwrap();
        found.sort_by(|a, b| a.uid.cmp(&b.uid));
        assert_eq!(found, [id("ns", "p", "u-1"), id("", "", "u-2")]);
    }

    #[test]
    fn a_folder_of_somebody_else_is_taken_back() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("kubelet");
        super::root(&root).unwrap();
        // Only root can give a folder away.
        if chown(&root, Some(65534), None).is_ok() {
            let said = secure(&root).unwrap();
            assert!(said.len() == 1 && said[0].contains("65534"), "{said:?}");
        }
    }

    #[test]
    fn a_link_in_its_place_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("kubelet");
        fs::create_dir(&root).unwrap();
        std::os::unix::fs::symlink("/etc", root.join("pods")).unwrap();
        assert!(secure(&root).unwrap_err().to_string().contains("pods"));
        assert_eq!(mode(Path::new("/etc")), 0o755);
    }

    /// H2: another user of the machine, in a process of its own.
    #[test]
    fn another_local_user_sees_and_writes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let root = dir.path().join("kubelet");
        assert_eq!(secure(&root).unwrap(), [] as [String; 0], "nothing is there yet");
        let folder = super::root(&root).unwrap();
        let volume =
            folder.make(Path::new("pods/u/volumes/kubernetes.io~secret/s"), Access::mode(0o750)).unwrap();
        volume.set_access(Access::mode(0o755)).unwrap();
        volume.create(Path::new("key"), b"hush", Access::mode(0o644)).unwrap();
        let empty =
            folder.make(Path::new("pods/u/volumes/kubernetes.io~empty-dir/e"), Access::mode(0o750)).unwrap();
        empty.set_access(Access::mode(0o777)).unwrap();
        let try_as = |program: &str, argument: &Path| {
            let mut command = Command::new(program);
            command.arg(argument).uid(65534).gid(65534).output()
        };
        let Ok(own) = try_as("ls", Path::new("/")) else {
            // Only root can become somebody else.
            return;
        };
        assert!(own.status.success());
        for (program, at) in [
            ("ls", root.clone()),
            ("ls", root.join("pods")),
            ("cat", volume.shown().join("key")),
            ("touch", empty.shown().join("x")),
            ("ls", empty.shown().to_owned()),
        ] {
            let tried = try_as(program, &at).unwrap();
            assert!(!tried.status.success(), "{program} {} went well", at.display());
            let said = String::from_utf8_lossy(&tried.stderr).into_owned();
            assert!(said.contains("Permission denied"), "{program}: {said}");
            assert!(tried.stdout.is_empty());
        }
        assert_eq!(fs::read_dir(empty.shown()).unwrap().count(), 0);
    }
}
