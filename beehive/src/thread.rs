//! A thread beside the hive's: the one door to it.
//!
//! Whatever ends a thread is heard by who owns it. A panic that nobody hears leaves a daemon that runs on and does nothing of
//! what the thread was there for.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::JoinHandle;

use tokio::sync::watch;

use crate::Fault;

/// A thread, and how it ended. The owner answers its end as a fault: an actor waits for [`Thread::ended`] in a task and fails
/// with it, and a daemon that cannot do without the thread ends ([`crate::Hive::depend_on`]).
#[derive(Debug)]
pub struct Thread {
    handle: JoinHandle<()>,
    end: watch::Receiver<Option<Fault>>,
}

impl Thread {
    /// Runs `work` on a thread of that name.
    ///
    /// # Errors
    /// When the machine gives no thread.
    pub fn start(name: &'static str, work: impl FnOnce() + Send + 'static) -> std::io::Result<Self> {
        let (ends, end) = watch::channel(None);
        let run = move || {
            // Nothing of the work is looked at after its panic.
            let fault = match catch_unwind(AssertUnwindSafe(work)) {
                Ok(()) => Fault::new(format!("the thread `{name}` has ended")),
                Err(panic) => Fault::of_panic(&format!("the thread `{name}` "), &*panic),
            };
            ends.send_replace(Some(fault));
        };
        let handle = std::thread::Builder::new().name(name.to_owned()).spawn(run)?;
        Ok(Thread { handle, end })
    }

    /// Completes when the thread has ended, by a panic or because its work was done, and says which. Holds nothing of the
    /// thread.
    pub fn ended(&self) -> impl Future<Output = Fault> + Send + use<> {
        let mut end = self.end.clone();
        async move {
            match end.wait_for(Option::is_some).await {
                Ok(fault) => fault.clone().unwrap_or_else(|| Fault::new("a thread has ended")),
                Err(_) => Fault::new("a thread has ended without a word"),
            }
        }
    }

    /// Blocks until the thread has ended. Whoever calls has told it to.
    pub fn join(self) {
        // A panic of the work was caught on the thread, and is told by `ended`.
        let _ = self.handle.join();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_end_is_heard_and_says_how() {
        let returned = Thread::start("short", || {}).unwrap();
        assert_eq!(returned.ended().await.reason, "the thread `short` has ended");
        let died = Thread::start("poor", || panic!("out of {}", "luck")).unwrap();
        let (first, second) = (died.ended(), died.ended());
        assert_eq!(first.await.reason, "the thread `poor` panicked: out of luck");
        died.join();
        assert_eq!(
            second.await.reason,
            "the thread `poor` panicked: out of luck",
            "it is no news of one hearer"
        );
    }
}
