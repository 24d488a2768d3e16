//! The thread on which handshakes are made whose signatures block: that of the hive would stand still with them.

use std::future::pending;
use std::io;
use std::sync::{Mutex, PoisonError};

use tokio::runtime::{Builder, Handle};

use crate::thread::Thread;

/// Begun with the first such handshake, and there from then on.
static THREAD: Mutex<Option<(Thread, Handle)>> = Mutex::new(None);

/// What runs there runs on no other thread. Its timers are the machine's.
pub(super) fn handle() -> io::Result<Handle> {
    let mut thread = THREAD.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, handle)) = &*thread {
        return Ok(handle.clone());
    }
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    // A panic of what is spawned ends that alone.
    let started = Thread::start("link-signing", move || runtime.block_on(pending()))?;
    *thread = Some((started, handle.clone()));
    Ok(handle)
}
