//! The connections that read.

use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use rusqlite::Connection;

use crate::exchanged::OpenFiles;
use crate::{StoreError, connection};

/// 2 connections wait for the next read: two reads at once are rare on a node, and each costs its page cache.
const IDLE_READERS: usize = 2;
/// 4 reads at once, as many as a small node has cores; further ones wait for a connection. Reads come from threads that
/// may wait, of which a runtime makes hundreds.
const READERS_MAX: usize = 4;

/// Connections beside the writer. Shared by threads.
#[derive(Debug)]
pub(crate) struct Readers {
    path: PathBuf,
    state: Mutex<State>,
    freed: Condvar,
    /// Those that the writer has open.
    files: Mutex<Option<Arc<OpenFiles>>>,
}

#[derive(Debug)]
enum State {
    /// The usual: connections of their own, which see the last commit.
    Beside {
        /// Those that nobody uses.
        idle: Vec<Connection>,
        /// How many reads go on.
        reading: usize,
    },
    /// There is no writer, because the disk takes no writes: the one connection that gets by without any.
    Alone(Option<Connection>),
}

impl State {
    fn beside() -> Self {
        State::Beside { idle: Vec::new(), reading: 0 }
    }
}

impl Readers {
    pub(crate) fn beside(path: PathBuf) -> Self {
        Readers { path, state: Mutex::new(State::beside()), freed: Condvar::new(), files: Mutex::default() }
    }

    pub(crate) fn alone(path: PathBuf, conn: Connection) -> Self {
        Readers {
            path,
            state: Mutex::new(State::Alone(Some(conn))),
            freed: Condvar::new(),
            files: Mutex::default(),
        }
    }

    pub(crate) fn with<T>(
        &self,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let fail = |e| StoreError::sqlite(&self.path, e);
        let is_full = |state: &mut State| matches!(state, State::Beside { reading: READERS_MAX.., .. });
        let mut state = self.freed.wait_while(self.state(), is_full).unwrap_or_else(PoisonError::into_inner);
        let kept = match &mut *state {
            State::Beside { idle, reading } => {
                *reading += 1;
                idle.pop()
            }
            State::Alone(slot) => {
                let conn = match slot.take() {
                    Some(conn) => conn,
                    None => connection::without_writes(&self.path).map_err(fail)?,
                };
                return read(slot.insert(conn)).map_err(fail);
            }
        };
        drop(state);
        let mut place = ReadPermit { readers: self, conn: None };
        let conn = match kept {
            Some(conn) => conn,
            None => self.connect()?,
        };
        let answer = read(&conn).map_err(fail)?;
        place.conn = Some(conn);
        Ok(answer)
    }

    /// From now on the writer has these open.
    pub(crate) fn beside_files(&self, files: Arc<OpenFiles>) {
        *self.files.lock().unwrap_or_else(PoisonError::into_inner) = Some(files);
    }

    /// A further connection, by the file's name, which may lead to another one than the writer's by now.
    fn connect(&self) -> Result<Connection, StoreError> {
        let files = self.files.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let exchanged = || {
            let found = files.as_ref()?.exchanged()?;
            Some(StoreError::Exchanged { path: self.path.clone(), found })
        };
        let conn = connection::reader(&self.path)
            .map_err(|error| exchanged().unwrap_or_else(|| StoreError::sqlite(&self.path, error)))?;
        exchanged().map_or(Ok(conn), Err)
    }

    /// Lets go of the file while `open` tries to open it for writing; who reads waits. It goes on as before if that
    /// fails.
    pub(crate) fn release_during<T>(
        &self,
        open: impl FnOnce() -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut state = self.state();
        *state = State::Alone(None);
        let opened = open()?;
        *state = State::beside();
        Ok(opened)
    }

    pub(crate) fn close(&self) {
        match &mut *self.state() {
            State::Beside { idle, .. } => idle.clear(),
            State::Alone(slot) => *slot = None,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One read's place among [`READERS_MAX`]; given back also when the read panics.
struct ReadPermit<'a> {
    readers: &'a Readers,
    /// To be kept for the next read.
    conn: Option<Connection>,
}

impl Drop for ReadPermit<'_> {
    fn drop(&mut self) {
        if let State::Beside { idle, reading } = &mut *self.readers.state() {
            *reading = reading.saturating_sub(1);
            if idle.len() < IDLE_READERS {
                idle.extend(self.conn.take());
            }
        }
        self.readers.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema;
    use std::sync::Barrier;

    #[test]
    fn four_read_at_once_and_others_wait_for_their_turn() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        schema::create(&mut connection::writer(&path, 1 << 20).unwrap(), &[1; 16], None).unwrap();
        let readers = Readers::beside(path);
        let (inside, go) = (Barrier::new(READERS_MAX + 1), Barrier::new(READERS_MAX + 1));
        std::thread::scope(|scope| {
            for _ in 0..READERS_MAX {
                scope.spawn(|| {
                    readers.with(|_| {
                        inside.wait();
                        go.wait();
                        Ok(())
                    })
                });
            }
            inside.wait();
            let fifth = scope.spawn(|| readers.with(|_| Ok(())));
            assert!(matches!(&*readers.state(), State::Beside { reading: READERS_MAX, .. }));
            assert!(!fifth.is_finished(), "there is no connection for it");
            go.wait();
            fifth.join().unwrap().unwrap();
        });
        assert!(
            matches!(&*readers.state(), State::Beside { reading: 0, idle } if idle.len() <= IDLE_READERS)
        );
    }

    #[test]
    fn a_read_that_panics_gives_its_place_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        schema::create(&mut connection::writer(&path, 1 << 20).unwrap(), &[1; 16], None).unwrap();
        let readers = Readers::beside(path);
        for _ in 0..2 * READERS_MAX {
            let died = std::thread::scope(|scope| {
                scope.spawn(|| readers.with(|_| -> rusqlite::Result<()> { panic!("a test's choice") })).join()
            });
            assert!(died.is_err());
        }
        readers.with(|_| Ok(())).unwrap();
    }
}
