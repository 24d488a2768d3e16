//! The archive: a tar of texts, packed by gzip, bounded, whole or not there at all.

use std::fs::Permissions;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use flate2::Compression;
use flate2::write::GzEncoder;
use tempfile::NamedTempFile;

use super::redact;

/// 4 MiB of one file, of which the end is kept: that of a log says most.
pub(super) const FILE_MAX: usize = 4 << 20;
/// 32 MiB of all, before they are packed.
const ALL_MAX: usize = 32 << 20;

/// An archive that is being written.
pub(super) struct Archive {
    builder: tar::Builder<GzEncoder<NamedTempFile>>,
    at: PathBuf,
    /// The folder within, so that unpacking makes one.
    folder: String,
    written: usize,
    unix: u64,
}

impl Archive {
    /// One that will be `name`.tar.gz in `folder`, for its owner alone.
    ///
    /// # Errors
    /// When nothing can be written there.
    pub(super) fn begin(folder: &Path, name: &str, unix: u64) -> Result<Archive> {
        let at = folder.join(format!("{name}.tar.gz"));
        let said = || format!("cannot write {}", at.display());
        let file = tempfile::Builder::new()
            .prefix(".keadm-")
            .permissions(Permissions::from_mode(0o600))
            .tempfile_in(folder)
            .with_context(said)?;
        let builder = tar::Builder::new(GzEncoder::new(file, Compression::default()));
        Ok(Archive { builder, at, folder: name.to_owned(), written: 0, unix })
    }

    /// Adds a text, without what opens doors; answers how many bytes of it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn add(&mut self, name: &str, text: &str) -> Result<usize> {
        let mut text = redact::text(text);
        if text.len() > FILE_MAX {
            let mut from = text.len() - FILE_MAX;
            while !text.is_char_boundary(from) {
                from += 1;
            }
            text = format!("(the first {from} bytes are left out)\n{}", &text[from..]);
        }
        if self.written + text.len() > ALL_MAX {
            text = "(left out: the archive has its 32 MiB)\n".to_owned();
        }
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(self.unix);
        let path = format!("{}/{name}", self.folder);
        self.builder
            .append_data(&mut header, &path, text.as_bytes())
            .with_context(|| format!("cannot write {name} into the archive"))?;
        self.written += text.len();
        Ok(text.len())
    }

    /// Gives it its name. What has that name already stays.
    ///
    /// # Errors
    /// When the disk does not take it, or the name is taken.
    pub(super) fn end(self) -> Result<PathBuf> {
        let said = || format!("cannot write {}", self.at.display());
        let mut file = self.builder.into_inner().and_then(GzEncoder::finish).with_context(said)?;
        file.flush().with_context(said)?;
        file.as_file().sync_all().with_context(said)?;
        if let Err(error) = file.persist_noclobber(&self.at) {
            bail!("cannot write {}: {}", self.at.display(), error.error);
        }
        Ok(self.at)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn it_is_whole_bounded_and_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let mut archive = Archive::begin(folder.path(), "edge_x", 1_700_000_000).unwrap();
        archive.add("a", "token: hunter2\n").unwrap();
        let long = "x".repeat(FILE_MAX) + "the end";
        assert!(archive.add("logs/b", &long).unwrap() < FILE_MAX + 100);
        for _ in 0..8 {
            archive.add("c", &long).unwrap();
        }
        assert_eq!(
            std::fs::read_dir(folder.path()).unwrap().count(),
            1,
            "nothing but the one that is being written"
        );
        let at = archive.end().unwrap();
        assert_eq!(at, folder.path().join("edge_x.tar.gz"));
        assert_eq!(std::fs::metadata(&at).unwrap().permissions().mode() & 0o777, 0o600);
        let packed = std::fs::File::open(&at).unwrap();
        let mut files = Vec::new();
        let mut unpacked = tar::Archive::new(flate2::read::GzDecoder::new(packed));
        for entry in unpacked.entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            files.push((entry.path().unwrap().display().to_string(), text));
        }
        assert_eq!(files[0], ("edge_x/a".to_owned(), "token: (redacted)\n".to_owned()));
        assert!(
            files[1].1.starts_with("(the first 7 bytes are left out)\n") && files[1].1.ends_with("the end")
        );
        assert!(files.last().unwrap().1.starts_with("(left out"), "no more than 32 MiB");
        let again = Archive::begin(folder.path(), "edge_x", 0).unwrap().end().unwrap_err().to_string();
        assert!(again.contains("edge_x.tar.gz"), "{again}");
    }
}
