//! Plain files below a folder.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::fd::{AsFd as _, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, Stat, fstat};
use rustix::io::Errno;

use super::{Access, Folder, set_access};
use crate::error::StepError;

/// The name of what an open descriptor stands for, and for nothing else.
pub(super) fn own_name(fd: &impl AsRawFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

impl Folder {
    /// Makes a file that is not there yet. What was made is what is written, given away and shown.
    pub(crate) fn create(&self, at: &Path, bytes: &[u8], access: Access) -> Result<(), StepError> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
        let fd = self
            .open(at, flags, Mode::from_raw_mode(0o600))
            .map_err(|error| self.fault("make file", at, &error))?;
        let mut file = File::from(fd);
        file.write_all(bytes).map_err(|error| self.fault("write", at, &error))?;
        set_access(file.as_fd(), access).map_err(|error| self.fault("set mode and owner of", at, &error))
    }

    /// Makes a file that is not there yet, to be written.
    pub(crate) fn new_file(&self, at: &Path, access: Access) -> Result<File, StepError> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
        let fd = self
            .open(at, flags, Mode::from_raw_mode(0o600))
            .map_err(|error| self.fault("make file", at, &error))?;
        set_access(fd.as_fd(), access).map_err(|error| self.fault("set mode and owner of", at, &error))?;
        Ok(File::from(fd))
    }

    /// What the kernel says about a plain file; `None` when there is no plain file.
    pub(crate) fn file_stat(&self, at: &Path) -> Result<Option<Stat>, StepError> {
        match self.plain_file(at) {
            Ok(found) => Ok(found.map(|(_, stat)| stat)),
            Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR) => Ok(None),
            Err(error) => Err(self.fault("look at", at, &error)),
        }
    }

    /// Gives a file new content in place, so that a container that has it mounted sees it. Anything else of its name,
    /// a file that is also known elsewhere included, makes way for a new file.
    pub(crate) fn overwrite(&self, at: &Path, bytes: &[u8], access: Access) -> Result<(), StepError> {
        match self.plain_file(at) {
            Ok(Some((place, stat))) if stat.st_nlink == 1 => {
                let again = OFlags::WRONLY | OFlags::TRUNC | OFlags::NONBLOCK | OFlags::CLOEXEC;
                let fd = rustix::fs::open(own_name(&place), again, Mode::empty())
                    .map_err(|error| self.fault("open", at, &error))?;
                let mut file = File::from(fd);
                file.write_all(bytes).map_err(|error| self.fault("write", at, &error))?;
                return set_access(file.as_fd(), access)
                    .map_err(|error| self.fault("set mode and owner of", at, &error));
            }
            Ok(_) | Err(Errno::NOENT | Errno::LOOP) => {}
            Err(error) => return Err(self.fault("open", at, &error)),
        }
        self.remove(at)?;
        self.create(at, bytes, access)
    }

    /// Puts a file in the place of what has its name, in one step that survives a loss of power.
    pub(crate) fn replace(&self, name: &str, bytes: &[u8], access: Access) -> Result<(), StepError> {
        let next = format!("{name}.new");
        self.remove(Path::new(&next))?;
        self.create(Path::new(&next), bytes, access)?;
        if let Some((place, _)) =
            self.plain_file(Path::new(&next)).map_err(|error| self.fault("open", Path::new(&next), &error))?
        {
            let fd = rustix::fs::open(own_name(&place), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
            fd.and_then(rustix::fs::fsync).map_err(|error| self.fault("keep", Path::new(name), &error))?;
        }
        self.rename(&next, name)?;
        rustix::fs::fsync(self.as_fd()).map_err(|error| self.fault("keep", Path::new(name), &error))
    }

    /// A plain file's content; `None` when there is no plain file. More than `max` bytes are an error.
    pub(crate) fn read(&self, at: &Path, max: u64) -> Result<Option<Vec<u8>>, StepError> {
        let Some(file) = self.reader(at)? else { return Ok(None) };
        let mut bytes = Vec::new();
        file.take(max.saturating_add(1))
            .read_to_end(&mut bytes)
            .map_err(|error| self.fault("read", at, &error))?;
        if bytes.len() as u64 > max {
            return Err(self.fault("read", at, &format!("it has more than {max} bytes")));
        }
        Ok(Some(bytes))
    }

    /// The last `max` bytes of a plain file; `None` when there is no plain file.
    pub(crate) fn tail(&self, at: &Path, max: u64) -> Result<Option<Vec<u8>>, StepError> {
        let Some(mut file) = self.reader(at)? else { return Ok(None) };
        let mut read = || {
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(max)))?;
            let mut bytes = Vec::new();
            (&mut file).take(max).read_to_end(&mut bytes)?;
            Ok::<_, std::io::Error>(bytes)
        };
        read().map(Some).map_err(|error| self.fault("read", at, &error))
    }

    /// A plain file to be read; `None` when there is no plain file.
    pub(crate) fn reader(&self, at: &Path) -> Result<Option<File>, StepError> {
        let place = match self.plain_file(at) {
            Ok(Some((place, _))) => place,
            // A link stands in its place, or nothing does.
            Ok(None) | Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR) => return Ok(None),
            Err(error) => return Err(self.fault("open", at, &error)),
        };
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(own_name(&place), flags, Mode::empty())
            .map_err(|error| self.fault("open", at, &error))?;
        Ok(Some(File::from(fd)))
    }

    /// The place of a plain file, not opened for anything yet; `None` when something else has its name.
    fn plain_file(&self, at: &Path) -> Result<Option<(OwnedFd, Stat)>, Errno> {
        let place = self.open(at, OFlags::PATH, Mode::empty())?;
        let stat = fstat(&place)?;
        let plain = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        Ok(plain.then_some((place, stat)))
    }
}
