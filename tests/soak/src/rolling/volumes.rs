//! What the nodes' volumes show, read whenever the kernel says that one has moved.

use std::collections::BTreeMap;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use rustix::fs::inotify;
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;

use super::SharedWitness;

/// The key of the config map, and so the file in the volume.
pub(super) const KEY: &str = "count";
/// 16 KiB of events at a time.
const EVENTS: usize = 16 << 10;

/// Looks at volumes.
pub(super) struct Volumes {
    descriptor: Arc<OwnedFd>,
    /// By the kernel's number: whose, and where.
    watched: Mutex<BTreeMap<i32, (String, PathBuf)>>,
    witness: SharedWitness,
}

impl Volumes {
    /// One that tells `witness`.
    pub(super) fn new(witness: SharedWitness) -> Result<Volumes> {
        let descriptor = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)
            .context("inotify: the kernel gives no more (fs.inotify.max_user_instances)")?;
        Ok(Volumes { descriptor: Arc::new(descriptor), watched: Mutex::default(), witness })
    }

    /// Looks at this volume of `node` now, and whenever it moves.
    pub(super) fn watch(&self, node: &str, folder: PathBuf) -> Result<()> {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let moves = inotify::WatchFlags::MOVED_TO | inotify::WatchFlags::ONLYDIR;
        let number = inotify::add_watch(&*self.descriptor, &folder, moves)
            .with_context(|| format!("watch {}", folder.display()))?;
        self.read(node, &folder);
        watched.insert(number, (node.to_owned(), folder));
        Ok(())
    }

    fn read(&self, node: &str, folder: &Path) {
        let text = std::fs::read_to_string(folder.join(KEY)).map_err(|error| error.to_string());
        let value = text.and_then(|text| text.trim().parse().map_err(|_| format!("it holds `{text}`")));
        let (now, mut witness) = self.witness.open();
        match value {
            Ok(value) => witness.shown(now, node, value),
            Err(why) => witness.unreadable(now, node, &why),
        }
    }

    /// Goes on looking.
    pub(super) async fn follow(&self) -> Result<()> {
        #[expect(
            deprecated,
            reason = "its successor is unsafe for descriptors that may be closed; this one is owned"
        )]
        let ready = AsyncFd::new(Arc::clone(&self.descriptor))?;
        loop {
            let mut guard = ready.readable().await?;
            if self.take_events()? {
                guard.clear_ready();
            }
        }
    }

    /// Reads what has moved; whether there is no more.
    fn take_events(&self) -> Result<bool> {
        let mut buffer = [MaybeUninit::uninit(); EVENTS];
        let mut reader = inotify::Reader::new(&*self.descriptor, &mut buffer);
        let watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match reader.next() {
                // More events than the kernel keeps: who was meant is not known.
                Ok(event) if event.wd() < 0 => {
                    watched.values().for_each(|(node, folder)| self.read(node, folder));
                }
                Ok(event) => {
                    if let Some((node, folder)) = watched.get(&event.wd()) {
                        self.read(node, folder);
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(true),
                Err(error) => return Err(error).context("inotify"),
            }
            if reader.is_buffer_empty() {
                return Ok(false);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_volume_is_read_again_whenever_it_moves() {
        let folder = std::env::temp_dir().join(format!("soak-volumes-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let place = |value: u64| {
            std::fs::write(folder.join("next"), value.to_string()).unwrap();
            std::fs::rename(folder.join("next"), folder.join(KEY)).unwrap();
        };
        let witness = SharedWitness::of(["n".to_owned()], crate::Console::new());
        let volumes = Volumes::new(witness.clone()).unwrap();
        place(3);
        volumes.watch("n", folder.clone()).unwrap();
        place(4);
        // The one read that a set of events in one buffer stands for sees the last value.
        volumes.take_events().unwrap();
        place(2);
        volumes.take_events().unwrap();
        let told = witness.open().1.take_violations();
        assert!(told.len() == 1 && told[0].ends_with("its volume shows 2, and has shown 4"), "{told:?}");
        std::fs::remove_dir_all(folder).unwrap();
    }
}
