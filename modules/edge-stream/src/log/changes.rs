//! When something changes in a folder of logs: one watcher of the kernel's for all who follow.

use std::collections::HashMap;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use beehive::Clock;
use rustix::fs::inotify;
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::beneath::Folder;

/// 250 ms between looks where the kernel has no watch left (`fs.inotify.max_user_watches`).
const POLL: Duration = Duration::from_millis(250);
/// 4 KiB: some hundred events at a time.
const EVENTS: usize = 4 << 10;

/// The watcher. It is there while somebody follows, and no longer.
#[derive(Clone)]
pub(crate) struct Changes {
    state: Arc<Mutex<State>>,
    clock: Arc<dyn Clock>,
}

#[derive(Default)]
struct State {
    watcher: Option<Watcher>,
    folders: HashMap<i32, Watched>,
}

struct Watcher {
    descriptor: Arc<OwnedFd>,
    task: AbortHandle,
}

struct Watched {
    changed: watch::Sender<()>,
    followers: usize,
}

impl Changes {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Changes {
        Changes { state: Arc::default(), clock }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hears of changes in `folder` from now on. Needs a tokio runtime.
    pub(crate) fn subscribe(&self, folder: &Folder) -> Subscription {
        let watched = self.watch(folder);
        if let Err(error) = &watched {
            tracing::debug!(%error, "no watch for a folder of logs: it is looked at every 250 ms");
        }
        Subscription { changes: self.clone(), watched: watched.ok() }
    }

    fn watch(&self, folder: &Folder) -> std::io::Result<(i32, watch::Receiver<()>)> {
        let mut state = self.state();
        let descriptor = match &state.watcher {
            Some(watcher) => Arc::clone(&watcher.descriptor),
            None => self.start(&mut state)?,
        };
        let of_interest = inotify::WatchFlags::MODIFY
            | inotify::WatchFlags::CREATE
            | inotify::WatchFlags::MOVE
            | inotify::WatchFlags::ONLYDIR;
        let id = inotify::add_watch(&*descriptor, folder.own_name(), of_interest)?;
        let watched = state
            .folders
            .entry(id)
            .or_insert_with(|| Watched { changed: watch::Sender::new(()), followers: 0 });
        watched.followers += 1;
        Ok((id, watched.changed.subscribe()))
    }

    fn start(&self, state: &mut State) -> std::io::Result<Arc<OwnedFd>> {
        let descriptor = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        let descriptor = Arc::new(descriptor);
        #[expect(
            deprecated,
            reason = "its successor is unsafe for descriptors that may be closed; this one is owned"
        )]
        let ready = AsyncFd::new(Arc::clone(&descriptor))?;
        let own = self.clone();
        let task = tokio::spawn(async move {
            while let Ok(mut guard) = ready.readable().await {
                if own.take_events(&ready) {
                    guard.clear_ready();
                }
            }
        });
        state.watcher = Some(Watcher { descriptor: Arc::clone(&descriptor), task: task.abort_handle() });
        Ok(descriptor)
    }

    /// Tells of some events; whether there are no more.
    fn take_events(&self, ready: &AsyncFd<Arc<OwnedFd>>) -> bool {
        let mut buffer = [MaybeUninit::uninit(); EVENTS];
        let mut reader = inotify::Reader::new(&**ready.get_ref(), &mut buffer);
        let state = self.state();
        loop {
            match reader.next() {
                // More events than the kernel keeps: who was meant is not known.
                Ok(event) if event.wd() < 0 => state.folders.values().for_each(Watched::tell),
                Ok(event) => {
                    if let Some(watched) = state.folders.get(&event.wd()) {
                        watched.tell();
                    }
                }
                Err(Errno::INTR) => {}
                Err(_) => return true,
            }
            if reader.is_buffer_empty() {
                return false;
            }
        }
    }

    fn leave(&self, id: i32) {
        let mut state = self.state();
        let State { watcher, folders } = &mut *state;
        let Some(watched) = folders.get_mut(&id) else { return };
        watched.followers -= 1;
        if watched.followers > 0 {
            return;
        }
        folders.remove(&id);
        if let Some(watcher) = watcher {
            // The folder may be gone, and its watch with it.
            let _ = inotify::remove_watch(&*watcher.descriptor, id);
        }
        if folders.is_empty()
            && let Some(watcher) = watcher.take()
        {
            watcher.task.abort();
        }
    }

    /// How many folders are watched.
    #[cfg(test)]
    pub(crate) fn watched(&self) -> usize {
        self.state().folders.len()
    }
}

impl Watched {
    fn tell(&self) {
        self.changed.send_replace(());
    }
}

/// Hears of the changes in one folder.
pub(crate) struct Subscription {
    changes: Changes,
    /// `None`: the kernel has no watch left.
    watched: Option<(i32, watch::Receiver<()>)>,
}

impl Subscription {
    /// What has changed until now is about to be read.
    pub(crate) fn seen(&mut self) {
        if let Some((_, changed)) = &mut self.watched {
            changed.mark_unchanged();
        }
    }

    /// Completes when something changed since [`Subscription::seen`].
    pub(crate) async fn changed(&mut self) {
        let heard = match &mut self.watched {
            Some((_, changed)) => changed.changed().await.is_ok(),
            None => false,
        };
        if !heard {
            self.changes.clock.sleep(POLL).await;
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if let Some((id, _)) = self.watched.take() {
            self.changes.leave(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use beehive::TokioClock;

    #[tokio::test]
    async fn each_change_is_heard_by_those_who_follow_its_folder() {
        let dir = tempfile::tempdir().unwrap();
        let changes = Changes::new(Arc::new(TokioClock::real()));
        let (one, other) = (dir.path().join("one"), dir.path().join("other"));
        std::fs::create_dir(&one).unwrap();
        std::fs::create_dir(&other).unwrap();
        let folder = Folder::root(&one).unwrap();
        let (mut a, mut b) = (changes.subscribe(&folder), changes.subscribe(&folder));
        let mut elsewhere = changes.subscribe(&Folder::root(&other).unwrap());
        assert_eq!(changes.watched(), 2);
        std::fs::write(one.join("0.log"), "x").unwrap();
        a.changed().await;
        b.changed().await;
        a.seen();
        std::fs::rename(one.join("0.log"), one.join("0.log.old")).unwrap();
        a.changed().await;
        let heard = tokio::time::timeout(Duration::from_millis(20), elsewhere.changed()).await;
        assert!(heard.is_err(), "nothing happened there");
        drop((a, b, elsewhere));
        assert_eq!(changes.watched(), 0);
        assert!(changes.state().watcher.is_none());
    }
}
