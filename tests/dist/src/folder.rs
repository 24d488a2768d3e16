//! The folder of a release: made anew beside the one before, which it replaces when it is whole.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use sha2::{Digest as _, Sha256};

/// The list of sums, by which a folder is known to be a release.
pub const SUMS: &str = "SHA256SUMS";

/// A release that is being written.
#[derive(Debug)]
pub struct Folder {
    /// Where it goes.
    wanted: PathBuf,
    /// Where it is meanwhile.
    now: PathBuf,
    /// SHA-256 of each file, in hexadecimal, by its path.
    sums: BTreeMap<String, String>,
}

impl Folder {
    /// Begins a release for `wanted`.
    ///
    /// # Errors
    /// When something else lies there, which is not taken away.
    pub fn begin(wanted: &Path) -> Result<Folder> {
        let shown = wanted.display();
        if let Ok(mut entries) = std::fs::read_dir(wanted)
            && entries.next().is_some()
            && !wanted.join(SUMS).is_file()
        {
            bail!(
                "{shown} is no release of before (it has no {SUMS}), and is left as it is: name another folder with --out"
            );
        }
        let name = wanted.file_name().with_context(|| format!("{shown} names no folder"))?;
        let mut new = name.to_owned();
        new.push(".new");
        let now = wanted.with_file_name(new);
        remove(&now)?;
        std::fs::create_dir_all(&now).with_context(|| format!("cannot make {}", now.display()))?;
        Ok(Folder { wanted: wanted.to_owned(), now, sums: BTreeMap::new() })
    }

    /// Writes a file of the release.
    ///
    /// # Errors
    /// Names the file.
    pub fn add(&mut self, path: &str, bytes: &[u8], mode: u32) -> Result<()> {
        self.sums.insert(path.to_owned(), hex::encode(Sha256::digest(bytes)));
        self.write(path, bytes, mode)
    }

    /// Writes a file that no sum is told of: a signature, or what is signed itself.
    ///
    /// # Errors
    /// Names the file.
    pub fn write(&self, path: &str, bytes: &[u8], mode: u32) -> Result<()> {
        let file = self.now.join(path);
        let written = (|| {
            if let Some(parent) = file.parent() {
                std::fs::create_dir_all(parent)?;
            }
            std::fs::write(&file, bytes)?;
            // Whatever the umask is.
            std::fs::set_permissions(&file, Permissions::from_mode(mode))
        })();
        written.with_context(|| format!("cannot write {}", file.display()))
    }

    /// What a file of the release holds.
    ///
    /// # Errors
    /// Names the file.
    pub fn read(&self, path: &str) -> Result<Vec<u8>> {
        let file = self.now.join(path);
        std::fs::read(&file).with_context(|| format!("cannot read {}", file.display()))
    }

    /// Each file with its sum.
    pub fn sums(&self) -> Vec<(String, String)> {
        self.sums.iter().map(|(path, sum)| (path.clone(), sum.clone())).collect()
    }

    /// The list of sums, in the form of `sha256sum -c`.
    pub fn list(&self) -> String {
        self.sums.iter().map(|(path, sum)| format!("{sum}  {path}\n")).collect()
    }

    /// Puts the release in its place.
    ///
    /// # Errors
    /// Names the folder.
    pub fn end(self) -> Result<()> {
        self.write(SUMS, self.list().as_bytes(), 0o644)?;
        remove(&self.wanted)?;
        std::fs::rename(&self.now, &self.wanted)
            .with_context(|| format!("cannot put the release at {}", self.wanted.display()))
    }
}

fn remove(folder: &Path) -> Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_replaces_the_one_before_and_nothing_else() {
        let parent = tempfile::tempdir().unwrap();
        let wanted = parent.path().join("dist");
        for text in ["one", "two"] {
            let mut folder = Folder::begin(&wanted).unwrap();
            folder.add(&format!("bin/{text}"), text.as_bytes(), 0o755).unwrap();
            folder.end().unwrap();
        }
        assert!(!wanted.join("bin/one").exists());
        let mode = std::fs::metadata(wanted.join("bin/two")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o755);
        let list = std::fs::read_to_string(wanted.join(SUMS)).unwrap();
        assert_eq!(list, format!("{}  bin/two\n", hex::encode(Sha256::digest(b"two"))));
        std::fs::remove_file(wanted.join(SUMS)).unwrap();
        let error = Folder::begin(&wanted).unwrap_err().to_string();
        assert!(error.contains("--out") && wanted.join("bin/two").exists(), "{error}");
    }
}
