//! Host paths.

use std::fs;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Component, Path};

use k8s_openapi::api::core::v1::HostPathVolumeSource;

use crate::disk::beneath::{Access, Folder};
use crate::error::StepError;

/// Whether a host path is one.
pub(super) fn check_words(source: &HostPathVolumeSource) -> Result<(), StepError> {
    let path = Path::new(&source.path);
    let wrong = if path.components().any(|part| part == Component::ParentDir) {
        Some("must not contain '..'")
    } else if !path.is_absolute() || source.path.contains('\0') {
        Some("must be an absolute path")
    } else {
        None
    };
    if let Some(wrong) = wrong {
        return Err(StepError::Config(format!("invalid HostPath `{}`: {wrong}", source.path)));
    }
    Ok(())
}

/// Whether what is at a host path has to be of a type; what need not be is not looked at, as by a kubelet.
pub(crate) fn has_type(source: &HostPathVolumeSource) -> bool {
    source.type_.as_ref().is_some_and(|kind| !kind.is_empty())
}

/// Checks a host path against its type and makes what the type says to make. It may never end.
pub(crate) fn check_path(source: &HostPathVolumeSource) -> Result<(), StepError> {
    check_words(source)?;
    if !has_type(source) {
        return Ok(());
    }
    let path = Path::new(&source.path);
    let kind = source.type_.as_deref().unwrap_or_default();
    let found = fs::metadata(path).ok().map(|metadata| metadata.file_type());
    let wrong = |what: &str| {
        Err(StepError::Missing(format!("hostPath type check failed: {} is not {what}", source.path)))
    };
    match (kind, found) {
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
        ("Socket", _) => wrong("a socket file"),
        ("CharDevice", Some(found)) if found.is_char_device() => Ok(()),
        ("CharDevice", _) => wrong("a character device"),
        ("BlockDevice", Some(found)) if found.is_block_device() => Ok(()),
        ("BlockDevice", _) => wrong("a block device"),
        (other, _) => Err(StepError::Config(format!("{other} is an invalid volume type"))),
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

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
        for (path, kind, words) in [
            ("/a/../b", "", "invalid HostPath `/a/../b`: must not contain '..'"),
            ("/a", "New", "New is an invalid volume type"),
            ("/dev/null", "Socket", "hostPath type check failed: /dev/null is not a socket file"),
            ("/dev/null", "BlockDevice", "hostPath type check failed: /dev/null is not a block device"),
        ] {
            assert_eq!(check_path(&source(Path::new(path), kind)).unwrap_err().to_string(), words);
        }
    }
}
