//! The thread on which calls go on: whoever copies a log for hours takes no time of the hive's.

use std::future::Future;
use std::io;

use beehive::{Fault, Thread};
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// A thread that runs calls. It ends when this is dropped, and the calls on it are cut.
pub(crate) struct CallThread {
    calls: Handle,
    thread: Thread,
    /// Dropped with this, which the thread waits for.
    _owned: oneshot::Sender<()>,
}

impl CallThread {
    /// Starts it.
    ///
    /// # Errors
    /// When the machine gives no thread.
    pub(crate) fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let calls = runtime.handle().clone();
        let (owned, dropped) = oneshot::channel::<()>();
        let thread = Thread::start("kubelet-calls", move || {
            let _ = runtime.block_on(dropped);
        })?;
        Ok(CallThread { calls, thread, _owned: owned })
    }

    /// Runs a call there.
    pub(crate) fn spawn(&self, call: impl Future<Output = ()> + Send + 'static) {
        self.calls.spawn(call);
    }

    /// Completes when it has ended, and says how.
    pub(crate) fn ended(&self) -> impl Future<Output = Fault> + Send + use<> {
        self.thread.ended()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_runs_calls_until_it_is_dropped_and_its_end_is_heard() {
        let thread = CallThread::start().unwrap();
        let (cut, mut is_cut) = oneshot::channel::<()>();
        let (begun, has_begun) = oneshot::channel();
        thread.spawn(async move {
            begun.send(std::thread::current().name().map(str::to_owned)).unwrap();
            std::future::pending::<()>().await;
            drop(cut);
        });
        assert_eq!(has_begun.blocking_recv().unwrap().as_deref(), Some("kubelet-calls"));
        assert_eq!(is_cut.try_recv(), Err(oneshot::error::TryRecvError::Empty));
        let ended = thread.ended();
        drop(thread);
        assert!(is_cut.blocking_recv().is_err(), "the call is cut");
        let fault = Builder::new_current_thread().build().unwrap().block_on(ended);
        assert_eq!(fault.reason, "the thread `kubelet-calls` has ended");
    }
}
