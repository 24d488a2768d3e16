//! Work on volumes that may never end, as when a server does not answer: it is waited for as long as a kubelet waits for a pod's
//! volumes, and nobody begins it a second time beside itself. So it takes one thread, and the pod can end without it. Of each kind
//! only so many run at once: a node has few threads for work that blocks, and some stay free whatever hangs. Who waits for a turn
//! holds none.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use beehive::Env;
use tokio::sync::Semaphore;

use crate::dependencies::blocking;
use crate::error::StepError;

/// The places that are worked on. The process has one list, not an incarnation of Edged: a thread outlives both.
static BUSY: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// What the work hangs on, when it hangs. The bounds together leave at least five of edgecore's twelve threads to all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HangsOn {
    /// A server that a volume is to be mounted of: two at once.
    Server,
    /// What is there on the machine, and what drivers have mounted: two at once.
    Disk,
    /// What is mounted, when a container gets a part of it: two at once.
    Parts,
    /// What is mounted, when it is asked how full it is: one at once.
    Figures,
}

/// As [`BUSY`], of the process.
static SERVERS: Semaphore = Semaphore::const_new(2);
static DISKS: Semaphore = Semaphore::const_new(2);
static PARTS: Semaphore = Semaphore::const_new(2);
static FIGURES: Semaphore = Semaphore::const_new(1);

impl HangsOn {
    fn turns(self) -> &'static Semaphore {
        match self {
            HangsOn::Server => &SERVERS,
            HangsOn::Disk => &DISKS,
            HangsOn::Parts => &PARTS,
            HangsOn::Figures => &FIGURES,
        }
    }
}

/// A place that is worked on, until this is dropped.
struct Busy(PathBuf);

impl Busy {
    fn begin(at: &Path) -> Option<Busy> {
        let is_first = BUSY.lock().unwrap_or_else(PoisonError::into_inner).insert(at.to_owned());
        is_first.then(|| Busy(at.to_owned()))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        BUSY.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.0);
    }
}

/// Runs `work` at a place beside the hive's thread, and waits for its turn and for it until `deadline`.
pub(crate) async fn run<T: Send + 'static>(
    env: &Env,
    on: HangsOn,
    at: &Path,
    deadline: Duration,
    what: &'static str,
    work: impl FnOnce() -> Result<T, StepError> + Send + 'static,
) -> Result<T, StepError> {
    let late = |why: &str| {
        StepError::Missing(format!("{what} {}: {why}: does what it lies on answer?", at.display()))
    };
    let Some(busy) = Busy::begin(at) else { return Err(late("an earlier attempt has not ended")) };
    let done = env.timeout(deadline, async {
        // Nobody closes them.
        let turn = on.turns().acquire().await.map_err(|error| late(&error.to_string()))?;
        let work = move || {
            let done = work();
            drop((busy, turn));
            done
        };
        blocking(env, what, work).await
    });
    done.await.unwrap_or_else(|| Err(late("timed out waiting for the condition")))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn what_does_not_end_is_given_up_and_never_begun_beside_itself() {
        actix_rt::System::new().block_on(async {
            let env = Env::real();
            let (go, may_go) = mpsc::channel::<()>();
            let (said, has_ended) = mpsc::channel();
            let at = Path::new("/place-of-this-test");
            let soon = Duration::from_millis(50);
            let stuck = move || {
                let _ = may_go.recv();
                said.send(()).unwrap();
                Ok(())
            };
            let late =
                run(&env, HangsOn::Disk, at, soon, "mount a volume in", stuck).await.unwrap_err().to_string();
            assert!(late.contains("timed out waiting for the condition"), "{late}");
            let long = Duration::from_secs(60);
            let again = run(&env, HangsOn::Disk, at, long, "mount a volume in", || Ok(()))
                .await
                .unwrap_err()
                .to_string();
            assert!(again.contains("an earlier attempt has not ended"), "{again}");
            assert_eq!(run(&env, HangsOn::Disk, Path::new("/other"), long, "mount", || Ok(1)).await, Ok(1));
            go.send(()).unwrap();
            has_ended.recv_timeout(long).unwrap();
            let looks = async {
                while run(&env, HangsOn::Disk, at, long, "mount", || Ok(())).await.is_err() {
                    env.sleep(Duration::from_millis(5)).await;
                }
            };
            assert!(env.timeout(long, looks).await.is_some(), "its place stays taken");
        });
    }

    /// As many threads as edgecore has, and more of each kind that do not answer.
    #[test]
    fn servers_that_do_not_answer_leave_threads_to_all_others() {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_all().max_blocking_threads(12).build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let env = Env::real();
            let long = Duration::from_secs(60);
            let (answers, answer) = mpsc::channel::<()>();
            let answer = std::sync::Arc::new(Mutex::new(answer));
            let kinds = [HangsOn::Server, HangsOn::Disk, HangsOn::Parts, HangsOn::Figures];
            let mounts = (0..16).map(|number: usize| {
                let (env, answer) = (env.clone(), std::sync::Arc::clone(&answer));
                tokio::task::spawn_local(async move {
                    let at = PathBuf::from(format!("/server-{number}"));
                    let work = move || {
                        // Until the sender has gone.
                        let _ = answer.lock().unwrap().recv();
                        Ok(())
                    };
                    run(&env, kinds[number % 4], &at, Duration::from_secs(120), "mount", work).await
                })
            });
            let mounts: Vec<_> = mounts.collect();
            // The others' threads: each waits until all five have one.
            let all = std::sync::Arc::new(std::sync::Barrier::new(5));
            let others = (0..5).map(|_| {
                let all = std::sync::Arc::clone(&all);
                blocking(&env, "work", move || {
                    all.wait();
                    Ok(())
                })
            });
            // After the mounts have begun or wait.
            tokio::task::yield_now().await;
            let done = env.timeout(long, futures::future::join_all(others)).await;
            drop(answers);
            assert!(done.is_some_and(|all| all.iter().all(Result::is_ok)), "no thread is free");
            for mount in mounts {
                assert_eq!(mount.await.unwrap(), Ok(()), "each has its turn");
            }
        });
    }
}
