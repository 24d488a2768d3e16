//! Host paths and the pod's `/etc/hosts`.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Component, Path};

use k8s_openapi::api::core::v1::HostPathVolumeSource;

use crate::disk::beneath::{Access, Folder};
use crate::disk::layout;
use crate::error::StepError;
use crate::pod::parsed_pod::ParsedPod;
use crate::runtime::sandbox;

/// More of the node's own hosts file is not read.
const HOSTS_MAX: u64 = 256 << 10;

/// Checks a host path against its type and makes what the type says to make.
pub(super) fn check_path(source: &HostPathVolumeSource) -> Result<(), StepError> {
    let path = Path::new(&source.path);
    let upward = path.components().any(|part| part == Component::ParentDir);
    if !path.is_absolute() || upward || source.path.contains('\0') {
        return Err(StepError::Config(format!(
            "hostPath `{}` is not an absolute path without `..`",
            source.path
        )));
    }
    let kind = source.type_.as_deref().unwrap_or_default();
    let found = fs::metadata(path).ok().map(|metadata| metadata.file_type());
    let wrong = |what: &str| {
        Err(StepError::Missing(format!("hostPath type check failed: {} is not {what}", source.path)))
    };
    match (kind, found) {
        ("", _) => Ok(()),
        ("DirectoryOrCreate", None) => {
            let (parent, name) = parent_of(path)?;
            parent.make(name, Access::mode(0o755)).map(drop)
        }
        ("FileOrCreate", None) => {
            let (parent, name) = parent_of(path)?;
            parent.create(name, b"", Access::mode(0o644))
        }
        ("Directory" | "DirectoryOrCreate", Some(found)) if found.is_dir() => Ok(()),
        ("Directory" | "DirectoryOrCreate", _) => wrong("a directory"),
        ("File" | "FileOrCreate", Some(found)) if found.is_file() => Ok(()),
        ("File" | "FileOrCreate", _) => wrong("a file"),
        ("Socket", Some(found)) if found.is_socket() => Ok(()),
        ("Socket", _) => wrong("a socket"),
        ("CharDevice", Some(found)) if found.is_char_device() => Ok(()),
        ("CharDevice", _) => wrong("a character device"),
        ("BlockDevice", Some(found)) if found.is_block_device() => Ok(()),
        ("BlockDevice", _) => wrong("a block device"),
        (other, _) => Err(StepError::Config(format!("hostPath type `{other}` is not known"))),
    }
}

/// Another container may have the folder of a host path, so what is made there is made and opened to others by its
/// descriptor: a link in its place would give away what it leads to.
fn parent_of(path: &Path) -> Result<(Folder, &Path), StepError> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(StepError::Config(format!("hostPath `{}` cannot be made", path.display())));
    };
    // What is there already is the host's, links included.
    let there = parent.ancestors().find(|above| fs::metadata(above).is_ok()).unwrap_or(Path::new("/"));
    let folder = Folder::root(there)?;
    let folder = match parent.strip_prefix(there) {
        Ok(missing) if !missing.as_os_str().is_empty() => folder.make(missing, Access::mode(0o755))?,
        Ok(_) | Err(_) => folder,
    };
    Ok((folder, Path::new(name)))
}

/// Writes the pod's `/etc/hosts`. A container that has it mounted may have written into it.
pub(crate) fn write_hosts(
    root: &Folder,
    pod: &ParsedPod,
    ips: &[String],
    node_name: &str,
) -> Result<(), StepError> {
    let text = hosts(pod, ips, node_name);
    let at = layout::etc_hosts(&pod.id.uid);
    root.make(&layout::pod(&pod.id.uid), Access::mode(0o750))?;
    if root.read(&at, HOSTS_MAX).is_ok_and(|old| old.as_deref() == Some(text.as_bytes())) {
        return Ok(());
    }
    // Written in place: a container that has it mounted would not see a new file.
    root.overwrite(&at, text.as_bytes(), Access::mode(0o644))
}

fn hosts(pod: &ParsedPod, ips: &[String], node_name: &str) -> String {
    let mut text = String::from("# Kubernetes-managed hosts file.\n");
    if pod.host_network() {
        let mut own = String::new();
        if let Ok(file) = fs::File::open("/etc/hosts") {
            drop(file.take(HOSTS_MAX).read_to_string(&mut own));
        }
        text.push_str(&own);
    } else {
        text.push_str("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n");
        text.push_str("fe00::0\tip6-localnet\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n");
        let name = sandbox::hostname(pod, node_name);
        for ip in ips {
            text.push_str(&format!("{ip}\t{name}\n"));
        }
    }
    for alias in pod.spec().host_aliases.iter().flatten() {
        let names: Vec<&str> = alias.hostnames.iter().flatten().map(String::as_str).collect();
        text.push_str(&format!("{}\t{}\n", alias.ip, names.join("\t")));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::pod::parsed_pod::tests::pod;
    use serde_json::json;

    fn source(path: &Path, kind: &str) -> HostPathVolumeSource {
        HostPathVolumeSource { path: path.display().to_string(), type_: Some(kind.to_owned()) }
    }

    #[test]
    fn the_type_of_a_host_path_is_checked_or_made() {
        let dir = tempfile::tempdir().unwrap();
        let absent = dir.path().join("x");
        assert!(matches!(check_path(&source(&absent, "Directory")), Err(StepError::Missing(_))));
        check_path(&source(&absent, "DirectoryOrCreate")).unwrap();
        check_path(&source(&absent, "Directory")).unwrap();
        assert!(check_path(&source(&absent, "File")).is_err());
        check_path(&source(&dir.path().join("y/z"), "DirectoryOrCreate")).unwrap();
        for made in ["x", "y", "y/z"] {
            assert_eq!(fs::metadata(dir.path().join(made)).unwrap().permissions().mode() & 0o777, 0o755);
        }
        check_path(&source(&dir.path().join("f"), "FileOrCreate")).unwrap();
        // What is there stays as somebody wanted it.
        for (name, kind) in [("x", "DirectoryOrCreate"), ("f", "FileOrCreate")] {
            fs::set_permissions(dir.path().join(name), fs::Permissions::from_mode(0o700)).unwrap();
            check_path(&source(&dir.path().join(name), kind)).unwrap();
            assert_eq!(fs::metadata(dir.path().join(name)).unwrap().permissions().mode() & 0o777, 0o700);
        }
        // What a container put there instead is not opened to others.
        fs::write(dir.path().join("secret"), "").unwrap();
        fs::set_permissions(dir.path().join("secret"), fs::Permissions::from_mode(0o600)).unwrap();
        std::os::unix::fs::symlink("nowhere", dir.path().join("l")).unwrap();
        for kind in ["FileOrCreate", "DirectoryOrCreate"] {
            assert!(check_path(&source(&dir.path().join("l"), kind)).is_err(), "{kind}");
        }
        assert!(!dir.path().join("nowhere").exists());
        check_path(&source(Path::new("/dev/null"), "CharDevice")).unwrap();
        assert!(matches!(check_path(&source(Path::new("/a/../b"), "")), Err(StepError::Config(_))));
        assert!(matches!(check_path(&source(Path::new("/a"), "New")), Err(StepError::Config(_))));
    }

    #[test]
    fn hosts_names_the_pod_and_its_aliases() {
        let pod = pod(json!({"hostAliases": [{"ip": "192.0.2.9", "hostnames": ["a", "b"]}]}));
        let text = hosts(&pod, &["10.0.0.2".into()], "edge-1");
        assert!(text.contains("10.0.0.2\tp\n") && text.contains("192.0.2.9\ta\tb\n"), "{text}");
    }
}
