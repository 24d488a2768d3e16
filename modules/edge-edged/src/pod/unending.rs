//! Work on volumes that may never end, as when a server does not answer: it is waited for as long as a kubelet waits for a pod's
//! volumes, and nobody begins it a second time beside itself. So it takes one thread, and the pod can end without it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use beehive::Env;

use crate::dependencies::blocking;
use crate::error::StepError;

/// The places that are worked on. The process has one list, not an incarnation of Edged: a thread outlives both.
static BUSY: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

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

/// Runs `work` at a place beside the hive's thread, and waits for it until `deadline`.
pub(crate) async fn run<T: Send + 'static>(
    env: &Env,
    at: &Path,
    deadline: Duration,
    what: &'static str,
    work: impl FnOnce() -> Result<T, StepError> + Send + 'static,
) -> Result<T, StepError> {
    let late = |why: &str| {
        StepError::Missing(format!("{what} {}: {why}: does what it lies on answer?", at.display()))
    };
    let Some(busy) = Busy::begin(at) else { return Err(late("an earlier attempt has not ended")) };
    let work = move || {
        let done = work();
        drop(busy);
        done
    };
    let done = env.timeout(deadline, blocking(env, what, work)).await;
    done.unwrap_or_else(|| Err(late("timed out waiting for the condition")))
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
            let late = run(&env, at, soon, "mount a volume in", stuck).await.unwrap_err().to_string();
            assert!(late.contains("timed out waiting for the condition"), "{late}");
            let long = Duration::from_secs(60);
            let again = run(&env, at, long, "mount a volume in", || Ok(())).await.unwrap_err().to_string();
            assert!(again.contains("an earlier attempt has not ended"), "{again}");
            assert_eq!(run(&env, Path::new("/other"), long, "mount", || Ok(1)).await, Ok(1));
            go.send(()).unwrap();
            has_ended.recv_timeout(long).unwrap();
            let looks = async {
                while run(&env, at, long, "mount", || Ok(())).await.is_err() {
                    env.sleep(Duration::from_millis(5)).await;
                }
            };
            assert!(env.timeout(long, looks).await.is_some(), "its place stays taken");
        });
    }
}
