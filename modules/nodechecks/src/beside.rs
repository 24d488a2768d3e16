//! Work beside the thread that waits for it, bounded in time: a disk that does not answer is left with its thread.

use std::time::Duration;

use beehive::{Env, Thread};
use tokio::sync::oneshot;

use crate::finding::Finding;

/// 8 s for what this machine alone is asked: a disk that does not answer holds up nobody for longer.
const LOCAL_WITHIN: Duration = Duration::from_secs(8);

/// Who looks, one look at a time: as long as one has not come back no other begins, however often is asked.
#[derive(Debug)]
pub struct Beside<T> {
    under_way: Option<oneshot::Receiver<T>>,
}

impl<T> Default for Beside<T> {
    fn default() -> Self {
        Beside { under_way: None }
    }
}

impl<T: Send + 'static> Beside<T> {
    /// Does `work` on a thread of its own, and waits for it for at most 8 s; `None`: it has not come back, has panicked, or the machine gives no
    /// thread. Where an earlier one is still under way that one is waited for, and its outcome is told.
    pub async fn look(&mut self, work: impl FnOnce() -> T + Send + 'static, env: &Env) -> Option<T> {
        let mut told = match self.under_way.take() {
            Some(told) => told,
            None => {
                let (tell, told) = oneshot::channel();
                let run = move || {
                    // Nobody may wait any more.
                    drop(tell.send(work()));
                };
                Thread::start("machine checks", run).ok()?;
                told
            }
        };
        match env.timeout(LOCAL_WITHIN, &mut told).await {
            Some(done) => done.ok(),
            None => {
                self.under_way = Some(told);
                None
            }
        }
    }
}

/// What is said of a machine whose files do not come back.
pub fn silent() -> Finding {
    Finding::failed(
        "LocalChecks",
        format!(
            "this machine's files said nothing within {} s: a disk or a mount does not answer (`dmesg`, `mount`)",
            LOCAL_WITHIN.as_secs()
        ),
    )
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Until a look has come back: the clock of these tests jumps, and a thread may be late for it.
    async fn until_back(beside: &mut Beside<i32>, work: i32, env: &Env) -> i32 {
        loop {
            if let Some(back) = beside.look(move || work, env).await {
                return back;
            }
        }
    }

    /// The look really waits for what does not come.
    #[tokio::test(start_paused = true)]
    async fn a_look_that_hangs_is_left_and_no_second_one_begins_beside_it() {
        let env = Env::seeded(1);
        let mut beside = Beside::default();
        assert_eq!(until_back(&mut beside, 7, &env).await, 7);
        let (release, hangs) = mpsc::channel::<()>();
        let hang = move || {
            hangs.recv().ok();
            8
        };
        assert_eq!(beside.look(hang, &env).await, None);
        assert_eq!(beside.look(|| 9, &env).await, None, "another one was begun");
        release.send(()).unwrap();
        assert_eq!(until_back(&mut beside, 9, &env).await, 8);
        assert_eq!(until_back(&mut beside, 9, &env).await, 9);
    }

    #[tokio::test]
    async fn a_look_that_panics_is_a_silent_one() {
        let env = Env::real();
        let mut beside = Beside::<u8>::default();
        assert_eq!(beside.look(|| panic!("no such disk"), &env).await, None);
        assert_eq!(beside.look(|| 1, &env).await, Some(1));
    }
}
