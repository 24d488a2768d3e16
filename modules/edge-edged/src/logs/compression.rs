//! Compressing one older file of a log, bit by bit. Blocks.

use std::io::{Read as _, Write as _};
use std::path::Path;

use flate2::Compression as Level;
use flate2::write::GzEncoder;

use super::plan::{COMPRESSED, UNFINISHED};
use crate::disk::beneath::{Access, Folder, OpenFile};
use crate::error::StepError;

/// 256 KiB at a turn: some 10 ms.
const SLICE: u64 = 256 << 10;

/// A file that is being compressed. Until it is whole it has another name; then the plain one goes.
pub(super) struct Compression {
    folder: Folder,
    name: String,
    from: OpenFile,
    to: GzEncoder<OpenFile>,
}

impl Compression {
    /// Begins with a plain file; `None` when it is not there.
    pub(super) fn begin(folder: Folder, name: &str) -> Result<Option<Compression>, StepError> {
        let at = Path::new(name);
        let (Some(from), Some(stat)) = (folder.reader(at)?, folder.file_stat(at)?) else { return Ok(None) };
        let unfinished = format!("{name}{UNFINISHED}");
        folder.remove(Path::new(&unfinished))?;
        let to = folder.new_file(Path::new(&unfinished), Access::mode(stat.st_mode & 0o777))?;
        Ok(Some(Compression { folder, name: name.to_owned(), from, to: GzEncoder::new(to, Level::fast()) }))
    }

    /// Goes on; `None`: it is done.
    pub(super) fn go_on(mut self) -> Result<Option<Compression>, StepError> {
        let mut slice = Vec::new();
        let failed = |error: &std::io::Error| {
            StepError::file("compress", &self.folder.shown().join(&self.name), error)
        };
        (&mut self.from).take(SLICE).read_to_end(&mut slice).map_err(|error| failed(&error))?;
        self.to.write_all(&slice).map_err(|error| failed(&error))?;
        if slice.len() as u64 == SLICE {
            return Ok(Some(self));
        }
        let Compression { folder, name, to, .. } = self;
        let failed = |error: &std::io::Error| StepError::file("compress", &folder.shown().join(&name), error);
        // What is not on the disk yet must not be all that is left.
        to.finish().and_then(|file| file.sync_data()).map_err(|error| failed(&error))?;
        folder.rename(&format!("{name}{UNFINISHED}"), &format!("{name}{COMPRESSED}"))?;
        folder.remove(Path::new(&name))?;
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_compressed_is_what_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let text: String = (0..100_000).map(|n| format!("line {n}\n")).collect();
        std::fs::write(dir.path().join("0.log.x"), &text).unwrap();
        // As a crash leaves it.
        std::fs::write(dir.path().join("0.log.x.tmp"), "half").unwrap();
        let folder = || Folder::root(dir.path()).unwrap();
        let mut left = Compression::begin(folder(), "0.log.x").unwrap();
        let mut slices = 0;
        while let Some(compression) = left {
            left = compression.go_on().unwrap();
            slices += 1;
        }
        assert!(slices > 2, "{slices}");
        let names: Vec<_> =
            std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["0.log.x.gz"]);
        let mut read = String::new();
        let file = std::fs::File::open(dir.path().join("0.log.x.gz")).unwrap();
        flate2::read::GzDecoder::new(file).read_to_string(&mut read).unwrap();
        assert!(read == text);
        assert!(Compression::begin(folder(), "0.log.y").unwrap().is_none());
    }
}
