//! When something changes where the files of static pods lie: the kernel's inotify. Whatever it does not tell is found at the
//! next look.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::inotify;
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;

/// 4 KiB: some hundred events at a time.
const EVENTS: usize = 4 << 10;

/// A watch that can be waited for.
pub(crate) struct Watch {
    descriptor: AsyncFd<OwnedFd>,
}

impl Watch {
    /// One that hears of nothing yet. Needs a tokio runtime.
    pub(crate) fn new() -> io::Result<Watch> {
        let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
        #[expect(
            deprecated,
            reason = "its successor is unsafe for descriptors that may be closed; this one is owned"
        )]
        let descriptor = AsyncFd::new(inotify::init(flags)?)?;
        Ok(Watch { descriptor })
    }

    /// Hears of changes at `path` from now on: of a file by its folder, as it may be replaced. What is watched already goes on.
    pub(crate) fn add(&self, path: &Path) -> io::Result<()> {
        let of_interest = inotify::WatchFlags::CLOSE_WRITE
            | inotify::WatchFlags::CREATE
            | inotify::WatchFlags::DELETE
            | inotify::WatchFlags::MOVE
            | inotify::WatchFlags::ATTRIB
            | inotify::WatchFlags::DELETE_SELF
            | inotify::WatchFlags::MOVE_SELF;
        let is_file = path.is_file();
        let folder: PathBuf = path.parent().filter(|_| is_file).unwrap_or(path).to_owned();
        inotify::add_watch(self.descriptor.get_ref(), &folder, of_interest)?;
        Ok(())
    }

    /// Waits for a change. What changed is not said: a look finds it.
    pub(crate) async fn changed(&self) -> io::Result<()> {
        loop {
            let mut ready = self.descriptor.readable().await?;
            if self.take_events()? {
                return Ok(());
            }
            ready.clear_ready();
        }
    }

    /// Takes what there is. Whether there was anything.
    fn take_events(&self) -> io::Result<bool> {
        let mut buffer = [MaybeUninit::uninit(); EVENTS];
        let mut reader = inotify::Reader::new(self.descriptor.get_ref(), &mut buffer);
        let mut any = false;
        loop {
            match reader.next() {
                Ok(_) => any = true,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(any),
                Err(error) => return Err(error.into()),
            }
        }
    }
}
