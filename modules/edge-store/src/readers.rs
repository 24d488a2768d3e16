//! The connections that read.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rusqlite::Connection;

use crate::{StoreError, schema};

/// Two reads at once are rare on a node; each connection costs its page cache.
const IDLE_READERS: usize = 2;

/// Connections beside the writer.
#[derive(Debug)]
pub(crate) struct Readers {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    /// The usual: connections of their own, which see the last commit.
    Beside(Vec<Connection>),
    /// There is no writer, because the disk takes no writes: the one connection that gets by without any.
    Alone(Option<Connection>),
}

impl Readers {
    pub(crate) fn beside(path: PathBuf) -> Self {
        Readers { path, state: Mutex::new(State::Beside(Vec::new())) }
    }

    pub(crate) fn alone(path: PathBuf, conn: Connection) -> Self {
        Readers { path, state: Mutex::new(State::Alone(Some(conn))) }
    }

    pub(crate) fn with<T>(
        &self,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let fail = |e| StoreError::sqlite(&self.path, e);
        let kept = match &mut *self.state() {
            State::Beside(idle) => idle.pop(),
            State::Alone(slot) => {
                let conn = match slot.take() {
                    Some(conn) => conn,
                    None => schema::without_writes(&self.path).map_err(fail)?,
                };
                return read(slot.insert(conn)).map_err(fail);
            }
        };
        let conn = match kept {
            Some(conn) => conn,
            None => schema::reader(&self.path).map_err(fail)?,
        };
        let answer = read(&conn).map_err(fail)?;
        if let State::Beside(idle) = &mut *self.state()
            && idle.len() < IDLE_READERS
        {
            idle.push(conn);
        }
        Ok(answer)
    }

    /// Lets go of the file while `open` tries to open it for writing; who reads waits. It goes on as before if that
    /// fails.
    pub(crate) fn step_aside<T>(
        &self,
        open: impl FnOnce() -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut state = self.state();
        *state = State::Alone(None);
        let opened = open()?;
        *state = State::Beside(Vec::new());
        Ok(opened)
    }

    pub(crate) fn close(&self) {
        match &mut *self.state() {
            State::Beside(idle) => idle.clear(),
            State::Alone(slot) => *slot = None,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
