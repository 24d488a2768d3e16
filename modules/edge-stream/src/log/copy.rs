//! From a container's log file to whoever asked for it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use beehive::Clock;
use cri::Runtime;
use cri::v1::ContainerState;
use jiff::Timestamp;
use thiserror::Error;
use tokio::io::{AsyncWrite, AsyncWriteExt as _};

use crate::beneath::{Folder, Plain};
use crate::budget::Budget;
use crate::disk::Disk;
use crate::log::changes::{Changes, Subscription};
use crate::log::instance::Instance;
use crate::log::line::{Fed, Lines, UnsupportedFormat};
use crate::log::options::LogOptions;
use crate::log::running::{Following, Running};
use crate::log::tail::{Step, TailSearch};

/// 16 blocks of a search, 1 MiB, at a turn of the disk's.
const STEPS: usize = 16;

/// What copying logs takes.
pub(crate) struct Logs {
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) clock: Arc<dyn Clock>,
    /// `podLogsDir`.
    pub(crate) root: PathBuf,
    pub(crate) disk: Disk,
    pub(crate) budget: Arc<Budget>,
    pub(crate) changes: Changes,
    pub(crate) running: Running,
}

/// Why a log came to an early end.
#[derive(Debug, Error)]
pub(crate) enum LogError {
    /// Told to the client, behind what it has.
    #[error("{0}")]
    Said(String),
    /// The client is gone.
    #[error("the client is gone: {0}")]
    Client(io::Error),
}

impl From<UnsupportedFormat> for LogError {
    fn from(error: UnsupportedFormat) -> Self {
        LogError::Said(error.to_string())
    }
}

/// A log file that is held open, and where it lies.
struct Open {
    folder: Arc<Folder>,
    name: PathBuf,
    shown: String,
    file: Arc<File>,
    inode: (u64, u64),
    /// What was read of it.
    at: u64,
}

impl Open {
    fn failed(&self, error: &io::Error) -> LogError {
        LogError::Said(format!("failed to read log file {:?}: {error}", self.shown))
    }

    fn turn_to(&mut self, next: Plain) {
        (self.file, self.inode, self.at) = (Arc::new(next.file), next.inode, 0);
    }
}

impl Logs {
    /// Copies the log of an instance of a container to `out`.
    pub(crate) async fn copy(
        &self,
        instance: &Instance,
        options: &LogOptions,
        out: &mut (impl AsyncWrite + Unpin),
    ) -> Result<(), LogError> {
        let now = Timestamp::try_from(self.clock.wall()).unwrap_or_default();
        let status = self.runtime.container_status(&instance.id).await.map_err(|error| {
            tracing::debug!(%error, container = instance.id, "no status of a container whose log is asked for");
            LogError::Said(format!("unable to retrieve container logs for {}", instance.shown))
        })?;
        let mut open = self.open(&status.log_path).await?;
        if let Some(lines) = options.tail {
            open.at = self.search(&open, lines).await.map_err(|error| open.failed(&error))?;
        }
        let mut lines = Lines::new(options, now);
        if lines.is_done() {
            return Ok(());
        }
        if !options.follow {
            if self.to_its_end(&mut open, &mut lines, out).await? == Fed::More {
                lines.end_of_file()?;
            }
            return Ok(());
        }
        let runs = status.state() == ContainerState::ContainerRunning;
        let following = runs.then(|| self.running.follow(&instance.id));
        self.follow(open, lines, following, out).await
    }

    /// Opens the file that the runtime names, below the folder of logs.
    async fn open(&self, log_path: &str) -> Result<Open, LogError> {
        let shown = log_path.to_owned();
        let missing = |error: &dyn std::fmt::Display| {
            LogError::Said(format!("failed to try resolving symlinks in path {shown:?}: {error}"))
        };
        let Ok(at) = Path::new(log_path).strip_prefix(&self.root) else {
            return Err(missing(&"it is not below podLogsDir"));
        };
        let (root, at) = (self.root.clone(), at.to_owned());
        let opened = self.disk.blocking(move || {
            let (Some(parent), Some(name)) = (at.parent(), at.file_name()) else {
                return Err(io::Error::from(io::ErrorKind::NotFound));
            };
            let folder = Folder::root(&root)?.below(parent)?;
            let plain = folder.file(Path::new(name))?;
            Ok((folder, PathBuf::from(name), plain))
        });
        let (folder, name, plain) = opened.await.map_err(|error| missing(&error))?;
        let (folder, file) = (Arc::new(folder), Arc::new(plain.file));
        Ok(Open { folder, name, shown, file, inode: plain.inode, at: 0 })
    }

    /// Where the last `lines` begin.
    async fn search(&self, open: &Open, lines: u64) -> io::Result<u64> {
        let file = Arc::clone(&open.file);
        let length = self.disk.blocking(move || file.metadata()).await?.len();
        let mut search = TailSearch::new(length, lines);
        loop {
            let file = Arc::clone(&open.file);
            let turn = self.disk.blocking(move || {
                for _ in 0..STEPS {
                    if let Step::Found(at) = search.step(&file)? {
                        return Ok((search, Step::Found(at)));
                    }
                }
                Ok((search, Step::Further))
            });
            let (further, step) = turn.await?;
            search = further;
            if let Step::Found(at) = step {
                return Ok(at);
            }
        }
    }

    /// Copies until the file ends, as it is now.
    async fn to_its_end(
        &self,
        open: &mut Open,
        lines: &mut Lines,
        out: &mut (impl AsyncWrite + Unpin),
    ) -> Result<Fed, LogError> {
        let mut said = Vec::new();
        loop {
            let chunk = self.budget.chunk();
            let (file, at, length) = (Arc::clone(&open.file), open.at, chunk.length);
            let read = self.disk.blocking(move || {
                let mut bytes = vec![0; length];
                let length = file.read_at(&mut bytes, at)?;
                bytes.truncate(length);
                Ok(bytes)
            });
            let bytes = read.await.map_err(|error| open.failed(&error))?;
            if bytes.is_empty() {
                return Ok(Fed::More);
            }
            open.at += bytes.len() as u64;
            said.clear();
            let fed = lines.feed(&bytes, &mut said);
            drop(bytes);
            out.write_all(&said).await.map_err(LogError::Client)?;
            if fed? == Fed::Done {
                return Ok(Fed::Done);
            }
        }
    }

    /// Copies what comes until the container has ended. The file may be renamed and another one take its name: what was
    /// written to the old one comes first.
    async fn follow(
        &self,
        mut open: Open,
        mut lines: Lines,
        mut following: Option<Following>,
        out: &mut (impl AsyncWrite + Unpin),
    ) -> Result<(), LogError> {
        let mut changes: Option<Subscription> = None;
        let mut next: Option<Plain> = None;
        loop {
            // What a container that has ended wrote is in its files before that is known.
            let ended = following.as_ref().is_none_or(Following::has_ended);
            if let Some(changes) = &mut changes {
                changes.seen();
            }
            if self.to_its_end(&mut open, &mut lines, out).await? == Fed::Done {
                return Ok(());
            }
            if let Some(next) = next.take() {
                lines.end_of_file()?;
                open.turn_to(next);
                continue;
            }
            next = self.successor(&open).await;
            if next.is_some() {
                // Once it is written to, nothing more is written to the old one: what is there of that is all.
                continue;
            }
            if ended {
                lines.end_of_file()?;
                return Ok(());
            }
            match &mut changes {
                // Something may have changed before it was watched.
                None => changes = Some(self.changes.subscribe(&open.folder)),
                Some(changes) => {
                    let ended = async {
                        match &mut following {
                            Some(following) => following.ended().await,
                            None => std::future::pending().await,
                        }
                    };
                    tokio::select! {
                        () = changes.changed() => {}
                        () = ended => {}
                    }
                }
            }
        }
    }

    /// The file that has the name now, if it is another one and something was written to it.
    async fn successor(&self, open: &Open) -> Option<Plain> {
        let (folder, name, inode) = (Arc::clone(&open.folder), open.name.clone(), open.inode);
        let look = self.disk.blocking(move || {
            let stat = folder.stat(&name)?;
            if (stat.st_dev, stat.st_ino) == inode || stat.st_size == 0 {
                return Ok(None);
            }
            folder.file(&name).map(Some)
        });
        // Between the renaming and the new file there is none.
        look.await.ok().flatten()
    }
}
