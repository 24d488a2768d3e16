//! Reading the files that describe static pods. Blocks.

use std::collections::BTreeMap;
use std::fs;
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// 10 MiB: a kubelet reads no larger file.
const FILE_MAX: u64 = 10 << 20;
/// So many files are read; a folder of more is no folder of manifests.
const FILES_MAX: usize = 1024;
/// Written by others than their owner.
const OTHERS_WRITE: u32 = 0o022;

/// Reads a file, or every file of a folder but those that begin with a dot: a kubelet's rule. A path that is not there has
/// no pods. `each` makes what is kept of a file of its content, or of why it cannot be read: one content is held at a time.
///
/// # Errors
/// When nothing can be said of what is there, in words that name the path: the pods stay as they are.
pub(crate) fn read<T>(
    path: &Path,
    each: impl Fn(&Path, Result<Vec<u8>, String>) -> T,
) -> Result<BTreeMap<PathBuf, T>, String> {
    let named = |what: &dyn std::fmt::Display| format!("{}: {what}", path.display());
    let kind = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(named(&error)),
    };
    if kind.is_file() {
        return Ok(BTreeMap::from([(path.to_owned(), each(path, read_file(path)))]));
    }
    if !kind.is_dir() {
        return Err(named(&"is neither a file nor a folder"));
    }
    if let Some(who) = written_by_others(&kind) {
        return Err(named(&who));
    }
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(path).map_err(|error| named(&error))? {
        let entry = entry.map_err(|error| named(&error))?;
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        if files.len() >= FILES_MAX {
            return Err(named(&format!("has more than {FILES_MAX} files")));
        }
        let file = entry.path();
        let content = match fs::metadata(&file) {
            Ok(kind) if kind.is_file() => read_file(&file),
            Ok(kind) if kind.is_dir() => Err("is a folder: folders below it are not read".to_owned()),
            Ok(_) => Err("is no regular file".to_owned()),
            // It went, or is a link to nothing yet.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => Err(error.to_string()),
        };
        let kept = each(&file, content);
        files.insert(file, kept);
    }
    Ok(files)
}

fn read_file(path: &Path) -> Result<Vec<u8>, String> {
    let file = fs::File::open(path).map_err(|error| error.to_string())?;
    let kind = file.metadata().map_err(|error| error.to_string())?;
    if let Some(who) = written_by_others(&kind) {
        return Err(who);
    }
    let mut bytes = Vec::new();
    file.take(FILE_MAX + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(format!("has more than {FILE_MAX} bytes"));
    }
    Ok(bytes)
}

/// Whoever writes there says what runs here, as whom it likes: that is root and the user of edgecore.
fn written_by_others(kind: &fs::Metadata) -> Option<String> {
    let own = rustix::process::geteuid().as_raw();
    if kind.uid() != 0 && kind.uid() != own {
        return Some(format!(
            "belongs to user {}, who could run anything here: chown it to root",
            kind.uid()
        ));
    }
    let others = kind.mode() & OTHERS_WRITE;
    (others != 0).then(|| "others than its owner can write it, and run anything here: chmod go-w".to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn read(path: &Path) -> Result<BTreeMap<PathBuf, Result<Vec<u8>, String>>, String> {
        super::read(path, |_, content| content)
    }

    #[test]
    fn files_are_read_and_what_is_none_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        assert_eq!(read(&at("none")).unwrap().len(), 0);
        fs::write(at("a.yaml"), "a").unwrap();
        fs::write(at(".hidden"), "h").unwrap();
        fs::create_dir(at("sub")).unwrap();
        fs::write(at("open"), "o").unwrap();
        fs::set_permissions(at("open"), fs::Permissions::from_mode(0o666)).unwrap();
        std::os::unix::fs::symlink("nothing", at("dangling")).unwrap();
        let files = read(dir.path()).unwrap();
        let names: Vec<_> = files.keys().map(|file| file.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(names, ["a.yaml", "open", "sub"]);
        assert_eq!(files[&at("a.yaml")].as_deref(), Ok(b"a".as_slice()));
        assert!(files[&at("open")].as_ref().unwrap_err().contains("chmod"));
        assert_eq!(read(&at("a.yaml")).unwrap().len(), 1, "a file by itself");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(read(dir.path()).unwrap_err().contains("chmod"));
    }

    #[test]
    fn a_file_without_end_is_not_read_to_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let file = fs::File::create(dir.path().join("long")).unwrap();
        file.set_len(FILE_MAX + 1).unwrap();
        let files = read(dir.path()).unwrap();
        assert!(files.values().next().unwrap().as_ref().unwrap_err().contains("more than"));
    }
}
