//! The one copy of what was handed in. Whoever may write or rename where that lies may do so at any time, also between two looks at it: so
//! it is read once, into a folder for root alone, and everything that is held against it, and everything that is taken out of it, is of
//! the copy, by the one descriptor that wrote it.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Seek as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::files;

/// A file that was handed in, and that nothing is known of yet.
pub(crate) struct HandedIn {
    file: File,
    /// How it was named.
    path: PathBuf,
    most: u64,
    /// Its bytes, as far as is known before they are read.
    pub(crate) length: u64,
}

impl HandedIn {
    /// Opens it. It may have `most` bytes.
    ///
    /// # Errors
    /// When it is not there, no regular file, a link, or longer.
    pub(crate) fn open(path: &Path, most: u64) -> Result<HandedIn> {
        let file = files::open_regular(path)?;
        let length = file.metadata().with_context(|| format!("cannot see {}", path.display()))?.len();
        if length > most {
            bail!("{} is longer than {most} bytes", path.display());
        }
        Ok(HandedIn { file, path: path.to_owned(), most, length })
    }

    /// Copies it, and counts its bytes and its sum on the way. The folder is made anew.
    ///
    /// # Errors
    /// When it has grown beyond its bound, or the disk does not take it.
    pub(crate) fn copy_into(mut self, folder: &Path) -> Result<WorkingCopy> {
        remove_folder(folder)?;
        files::make_folder(folder)?;
        let copy = folder.join("file");
        let at = || format!("cannot copy {} to {}", self.path.display(), copy.display());
        let mut options = OpenOptions::new();
        let made = options.read(true).write(true).create_new(true).mode(0o600).open(&copy);
        let mut file = made.with_context(at)?;
        let copied = files::copy_and_sum(&mut self.file, &mut file, self.most);
        let (sum, length) = match copied {
            Ok(copied) => copied,
            Err(error) => {
                drop(remove_folder(folder));
                return Err(error.context(at()));
            }
        };
        Ok(WorkingCopy { file, sum, length, handed_in: self.path, folder: folder.to_owned() })
    }
}

/// The copy. It goes with this.
pub(crate) struct WorkingCopy {
    file: File,
    /// SHA-256 in hexadecimal.
    pub(crate) sum: String,
    length: u64,
    /// How what it is a copy of was named.
    pub(crate) handed_in: PathBuf,
    folder: PathBuf,
}

impl WorkingCopy {
    /// Its file, at the begin.
    ///
    /// # Errors
    /// When the disk does not read it.
    pub(crate) fn file(&self) -> Result<&File> {
        (&self.file).rewind().context("the copy of what was handed in")?;
        Ok(&self.file)
    }

    /// All of it.
    ///
    /// # Errors
    /// When the disk does not read it.
    pub(crate) fn bytes(&self) -> Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(usize::try_from(self.length).unwrap_or_default());
        self.file()?.take(self.length).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

impl Drop for WorkingCopy {
    fn drop(&mut self) {
        // What stays goes with the next one.
        drop(remove_folder(&self.folder));
    }
}

/// Removes the folder of a working copy, also what an end in the middle has left.
///
/// # Errors
/// When the disk does not let go of it.
pub(crate) fn remove_folder(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
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
    fn what_becomes_of_the_file_that_was_handed_in_does_not_change_the_copy() {
        let folder = tempfile::tempdir().unwrap();
        let (path, working) = (folder.path().join("edgecore"), folder.path().join("upgrade/incoming"));
        fs::write(&path, "good").unwrap();
        let copy = HandedIn::open(&path, 100).unwrap().copy_into(&working).unwrap();
        assert_eq!(copy.sum, files::sum_of(&mut "good".as_bytes(), 100).unwrap().0);
        for folder in [&working, &folder.path().join("upgrade")] {
            assert_eq!(files::mode_of(folder).unwrap(), 0o700, "{}", folder.display());
        }
        // In place, and by a rename.
        fs::write(&path, "evil").unwrap();
        assert_eq!(copy.bytes().unwrap(), b"good");
        fs::write(folder.path().join("other"), "evil").unwrap();
        fs::rename(folder.path().join("other"), &path).unwrap();
        assert_eq!(copy.bytes().unwrap(), b"good");
        let staged = folder.path().join("staged");
        assert_eq!(files::copy_opened(copy.file().unwrap(), &path, &staged, 0o755).unwrap(), copy.sum);
        assert_eq!(fs::read(&staged).unwrap(), b"good");
        drop(copy);
        assert!(!working.exists());
    }

    #[test]
    fn a_link_a_pipe_and_what_is_too_long_are_not_copied() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("file"), "12345").unwrap();
        std::os::unix::fs::symlink(at("file"), at("link")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, at("pipe"), rustix::fs::Mode::RUSR).unwrap();
        for (name, most, word) in [
            ("link", 100, "name the file itself"),
            ("pipe", 100, "not a regular file"),
            (".", 100, "not a regular file"),
            ("file", 4, "longer than 4 bytes"),
            ("none", 100, "cannot read"),
        ] {
            let error = HandedIn::open(&at(name), most).err().map(|error| format!("{error:#}"));
            assert!(error.as_ref().is_some_and(|error| error.contains(word)), "{name}: {error:?}");
        }
        // One that grows after it was looked at is cut off, and nothing stays of it.
        let handed_in = HandedIn::open(&at("file"), 5).unwrap();
        fs::write(at("file"), "123456").unwrap();
        assert!(handed_in.copy_into(&at("incoming")).is_err());
        assert!(!at("incoming").exists());
    }

    #[test]
    fn a_folder_that_others_could_write_to_is_closed() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let open = folder.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
        files::make_folder(&open).unwrap();
        assert_eq!(files::mode_of(&open).unwrap(), 0o700);
    }
}
