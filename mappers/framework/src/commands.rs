//! What was sent to devices as a command, kept across a restart of the mapper: a command is sent once.
//!
//! It is noted before it is sent, so that a mapper that ends in between has rather not sent it than sent it twice. The file is
//! written anew beside itself and renamed, so that it is whole at any moment. A lock beside it is held as long as the mapper
//! runs: two that keep one file, or serve one socket, would each send a command.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::UNIX_EPOCH;

use apimachinery::NamespacedName;
use beehive::Env;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use crate::own_file;

/// 16384: the properties whose last command is remembered; beyond that the oldest are forgotten.
const COMMANDS_MAX: usize = 16_384;
/// 32 MiB: more than that many commands of 1 KiB.
const FILE_MAX: u64 = 32 << 20;

/// What came of a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Outcome {
    /// It is on its way, or the mapper ended while it was.
    Sent,
    /// The device has confirmed it.
    Done,
    /// It was not done, or nobody knows.
    Failed(String),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Command {
    version: String,
    outcome: Outcome,
    /// Seconds since 1970, to forget the oldest ones.
    at: u64,
}

/// The commands that were sent.
#[derive(Debug, Clone)]
pub(crate) struct CommandLog {
    path: Rc<PathBuf>,
    sent: Rc<RefCell<BTreeMap<String, Command>>>,
    /// One writes at a time.
    writing: Rc<Mutex<()>>,
    /// Held until the last of these is dropped.
    _claim: Rc<File>,
}

impl CommandLog {
    /// Claims the file, and reads what was noted. A file that is not there is an empty one.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] while another mapper has it; when it cannot be claimed, or when there is one that cannot
    /// be read or understood: without it commands would be sent again.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let claim = claim(path)?;
        let text = own_file::read(path, FILE_MAX)?.unwrap_or_default();
        let sent = if text.is_empty() { BTreeMap::new() } else { serde_json::from_slice(&text)? };
        Ok(CommandLog {
            path: Rc::new(path.to_owned()),
            sent: Rc::new(RefCell::new(sent)),
            writing: Rc::default(),
            _claim: Rc::new(claim),
        })
    }

    /// What came of this command, if it was sent.
    pub(crate) fn outcome(&self, device: &NamespacedName, property: &str, version: &str) -> Option<Outcome> {
        let sent = self.sent.borrow();
        let command = sent.get(&key(device, property)).filter(|command| command.version == version)?;
        Some(command.outcome.clone())
    }

    /// Notes it, and returns once it is on the disk.
    ///
    /// # Errors
    /// When it cannot be written; then it is not noted either.
    pub(crate) async fn note(
        &self,
        device: &NamespacedName,
        property: &str,
        version: &str,
        outcome: Outcome,
        env: &Env,
    ) -> Result<(), String> {
        let at = env.wall().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let command = Command { version: version.to_owned(), outcome, at };
        self.replace(key(device, property), Some(command), env).await
    }

    /// It was not sent after all.
    ///
    /// # Errors
    /// When that cannot be written; then it counts as sent.
    pub(crate) async fn take_back(
        &self,
        device: &NamespacedName,
        property: &str,
        env: &Env,
    ) -> Result<(), String> {
        self.replace(key(device, property), None, env).await
    }

    async fn replace(&self, key: String, command: Option<Command>, env: &Env) -> Result<(), String> {
        let _one = self.writing.lock().await;
        let before = self.put(&key, command);
        let text = serde_json::to_vec(&*self.sent.borrow()).map_err(|error| error.to_string());
        let path = self.path.to_path_buf();
        let written = match text {
            Ok(text) => match env.blocking(move || own_file::write(&path, &text)).await {
                Ok(written) => written.map_err(|error| error.to_string()),
                Err(fault) => Err(fault.reason),
            },
            Err(error) => Err(error),
        };
        if written.is_err() {
            self.put(&key, before);
        }
        written
    }

    fn put(&self, key: &str, command: Option<Command>) -> Option<Command> {
        let mut sent = self.sent.borrow_mut();
        let before = match command {
            Some(command) => sent.insert(key.to_owned(), command),
            None => sent.remove(key),
        };
        if sent.len() > COMMANDS_MAX
            && let Some(oldest) =
                sent.iter().min_by_key(|(_, command)| command.at).map(|(key, _)| key.clone())
        {
            sent.remove(&oldest);
        }
        before
    }
}

fn key(device: &NamespacedName, property: &str) -> String {
    format!("{device}/{property}")
}

/// The lock is on a file of its own, since the noted one is replaced with each write.
fn claim(path: &Path) -> io::Result<File> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".lock");
    let file = own_file::open_or_make(Path::new(&beside))?;
    file.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => io::ErrorKind::WouldBlock.into(),
        TryLockError::Error(error) => error,
    })?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[tokio::test]
    async fn what_was_sent_is_known_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let (path, env) = (folder.path().join("commands.json"), Env::real());
        let device = NamespacedName::new("default", "pump");
        let log = CommandLog::open(&path).unwrap();
        log.note(&device, "reset", "1", Outcome::Sent, &env).await.unwrap();
        log.note(&device, "open", "9", Outcome::Done, &env).await.unwrap();
        log.note(&device, "stop", "3", Outcome::Done, &env).await.unwrap();
        log.take_back(&device, "stop", &env).await.unwrap();
        assert_eq!(CommandLog::open(&path).unwrap_err().kind(), io::ErrorKind::WouldBlock, "it has a mapper");
        drop(log);
        let log = CommandLog::open(&path).unwrap();
        assert_eq!(log.outcome(&device, "reset", "1"), Some(Outcome::Sent));
        assert_eq!(log.outcome(&device, "reset", "2"), None, "another one");
        assert_eq!(log.outcome(&device, "open", "9"), Some(Outcome::Done));
        assert_eq!(log.outcome(&device, "stop", "3"), None);
    }

    #[tokio::test]
    async fn what_cannot_be_noted_is_not_noted() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("gone");
        fs::create_dir(&place).unwrap();
        let log = CommandLog::open(&place.join("commands.json")).unwrap();
        fs::remove_dir_all(&place).unwrap();
        let device = NamespacedName::new("default", "pump");
        log.note(&device, "reset", "1", Outcome::Sent, &Env::real()).await.unwrap_err();
        assert_eq!(log.outcome(&device, "reset", "1"), None);
    }

    #[test]
    fn a_damaged_file_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("commands.json");
        fs::write(&path, "{\"half").unwrap();
        CommandLog::open(&path).unwrap_err();
    }
}
