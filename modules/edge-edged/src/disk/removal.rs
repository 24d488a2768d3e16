//! Work whose length a container chooses: removing what it has written. It has one thread at a time, is cut into slices,
//! and each slice gives its place to whoever has waited longest. So neither the node's report nor the start of a pod
//! waits behind it, and a pod with little to remove doesn't wait for one with much.

use beehive::Env;
use tokio::sync::Semaphore;

use crate::dependencies::blocking;
use crate::error::StepError;
use crate::volumes::Teardown;

/// Entries of a slice: some 10 ms on a slow disk.
const SLICE: usize = 1000;

/// Who has it may run a slice. The process has one, not an incarnation of Edged: a slice that an actor has left behind
/// holds it to its end, so that the removal which the next actor begins doesn't run beside it.
static TURN: Semaphore = Semaphore::const_new(1);

/// Runs one slice of work when its turn has come: at most some 10 ms of it. The slice goes on to its end when the caller is no longer there.
pub(crate) async fn in_turn<T: Send + 'static>(
    env: &Env,
    work: impl FnOnce() -> Result<T, StepError> + Send + 'static,
) -> Result<T, StepError> {
    // Never closed, so an error cannot come.
    let turn = TURN.acquire().await.ok();
    let slice = move || {
        let done = work();
        drop(turn);
        done
    };
    blocking(env, "work below", slice).await
}

/// Removes what `begin` finds, slice by slice.
pub(crate) async fn clear(
    env: &Env,
    begin: impl FnOnce() -> Result<Teardown, StepError> + Send + 'static,
) -> Result<(), StepError> {
    let mut left = in_turn(env, begin).await?;
    loop {
        let slice = move || left.go_on(SLICE).map(|over| (left, over));
        let (rest, over) = in_turn(env, slice).await?;
        if over {
            return Ok(());
        }
        left = rest;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::fs;
    use std::path::{Path, PathBuf};
    use std::rc::Rc;
    use std::sync::mpsc;

    use super::*;
    use crate::error::StepError;

    const FILES: usize = 20_000;
    const NESTED: usize = 200;

    /// A pod's folder with as much in it as a container likes.
    fn fill(root: &Path, uid: &str) -> PathBuf {
        let pod = root.join("pods").join(uid);
        let volume = pod.join("volumes/kubernetes.io~empty-dir/v");
        fs::create_dir_all(&volume).unwrap();
        fs::write(volume.join("file"), "").unwrap();
        // Names of one file are as many entries, and sooner made.
        for name in 0..FILES {
            fs::hard_link(volume.join("file"), volume.join(name.to_string())).unwrap();
        }
        let mut inner = crate::disk::beneath::Folder::root(&volume).unwrap();
        for _ in 0..NESTED {
            inner = inner.make(Path::new("d"), crate::disk::beneath::Access::mode(0o755)).unwrap();
        }
        pod
    }

    /// As edgecore has it, with fewer threads.
    fn on_two_threads(test: impl Future<Output = ()>) {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().max_blocking_threads(2).build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, test);
    }

    async fn tear_down(env: &Env, root: &Path, uid: &str) -> Result<(), StepError> {
        let (root, uid) = (root.to_owned(), uid.to_owned());
        let begin = move || Teardown::begin(&root, &root.join("logs"), &uid, Path::new("none"));
        clear(env, begin).await
    }

    #[test]
    fn volumes_with_many_files_hold_nobody_up() {
        let dir = tempfile::tempdir().unwrap();
        let large: Vec<PathBuf> = ["a", "b", "c"].iter().map(|uid| fill(dir.path(), uid)).collect();
        let small = dir.path().join("pods/small");
        fs::create_dir_all(small.join("volumes")).unwrap();
        on_two_threads(async {
            let env = Env::seeded(1);
            let over = Rc::new(Cell::new(0));
            let removals: Vec<_> = ["a", "b", "c"]
                .map(|uid| {
                    let (env, over, root) = (env.clone(), Rc::clone(&over), dir.path().to_owned());
                    tokio::task::spawn_local(async move {
                        tear_down(&env, &root, uid).await.unwrap();
                        over.set(over.get() + 1);
                    })
                })
                .into();
            // All of them have asked for their turn, and one has it.
            tokio::task::yield_now().await;
            assert_eq!(TURN.available_permits(), 0);
            // What a report, or the start of another pod, asks of the disk.
            for _ in 0..5 {
                blocking(&env, "look", || Ok(())).await.unwrap();
            }
            assert_eq!(over.get(), 0, "a look waited for the end of a removal");
            // A pod with little in it, though it came last.
            tear_down(&env, dir.path(), "small").await.unwrap();
            assert!(!small.exists());
            assert_eq!(over.get(), 0, "a small removal waited for the end of a large one");
            assert!(large.iter().all(|pod| pod.exists()));
            for removal in removals {
                removal.await.unwrap();
            }
            assert!(large.iter().all(|pod| !pod.exists()));
        });
    }

    /// The actor is made anew while it removes: its last slice ends before the next actor's first begins.
    #[test]
    fn a_slice_that_was_left_behind_runs_beside_no_other() {
        on_two_threads(async {
            let env = Env::seeded(1);
            let (began, has_begun) = mpsc::channel();
            let (go, may_go) = mpsc::channel::<()>();
            let (said, heard) = mpsc::channel();
            let (first, second) = (said.clone(), said);
            let beside = env.clone();
            let task = tokio::task::spawn_local(async move {
                let slice = move || {
                    began.send(()).unwrap();
                    may_go.recv().unwrap();
                    first.send("first").unwrap();
                    Ok(())
                };
                in_turn(&beside, slice).await
            });
            while has_begun.try_recv().is_err() {
                tokio::task::yield_now().await;
            }
            task.abort();
            assert!(task.await.unwrap_err().is_cancelled());
            let beside = env.clone();
            let next = tokio::task::spawn_local(async move {
                let slice = move || {
                    second.send("second").unwrap();
                    Ok(())
                };
                in_turn(&beside, slice).await
            });
            tokio::task::yield_now().await;
            // There is a thread for it, but not its turn.
            blocking(&env, "look", || Ok(())).await.unwrap();
            assert!(heard.try_recv().is_err());
            go.send(()).unwrap();
            next.await.unwrap().unwrap();
            assert_eq!(heard.iter().collect::<Vec<_>>(), ["first", "second"]);
        });
    }

    /// What was removed stays removed, and the rest goes, when a removal was left off anywhere.
    #[test]
    fn a_removal_goes_on_where_another_was_left_off() {
        let dir = tempfile::tempdir().unwrap();
        let pod = dir.path().join("pods/a");
        fs::create_dir_all(pod.join("v/d/e/f")).unwrap();
        for name in ["v/1", "v/2", "v/d/1", "v/d/e/f/1", "v/d/e/f/2"] {
            fs::write(pod.join(name), "").unwrap();
        }
        let begin = || Teardown::begin(dir.path(), &dir.path().join("logs"), "a", Path::new("none")).unwrap();
        let mut slices = 0;
        // Each slice by another removal, one entry each.
        while !begin().go_on(1).unwrap() {
            slices += 1;
            assert!(slices < 100, "it doesn't get on");
        }
        assert!(slices >= 5, "{slices}: cut into slices");
        assert!(!pod.exists() && dir.path().join("pods").exists());
    }
}
