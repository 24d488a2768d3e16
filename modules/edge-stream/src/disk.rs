//! Work that blocks its thread: files and the node's store.

use std::io;
use std::sync::Arc;

use tokio::sync::Semaphore;

/// 4 at once, as many as the node's store reads at once: more threads would only wait for one disk.
const AT_ONCE: usize = 4;

/// Runs what blocks on threads of its own, a few at a time.
#[derive(Clone)]
pub(crate) struct Disk(Arc<Semaphore>);

impl Default for Disk {
    fn default() -> Self {
        Disk(Arc::new(Semaphore::new(AT_ONCE)))
    }
}

impl Disk {
    /// Runs `work`, when it is its turn.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let _turn = self.0.acquire().await.map_err(io::Error::other)?;
        beehive::on_a_thread(work).await.map_err(|fault| io::Error::other(fault.reason))?
    }
}
