//! Work on volumes that may never end, as when a server does not answer: it is waited for as long as a kubelet waits for a pod's
//! volumes, and nobody begins it a second time beside itself. So it takes one thread, and the pod can end without it. Only so much
//! runs at once: a node has few threads for work that blocks, and at least five of edgecore's stay free whatever hangs. Of one server or
//! device it is less, and what has hung for a while gives its place to others: what does not answer keeps nothing from what does. Who
//! waits for a turn holds no thread.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use beehive::Env;
use mountinfo::Mount;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::dependencies::blocking;
use crate::disk::beneath::Folder;
use crate::error::StepError;

/// The places that are worked on. The process has one list, not an incarnation of Edged: a thread outlives both.
static BUSY: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// What the work hangs on, when it hangs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum HangsOn {
    /// A server that a volume is to be mounted of.
    Server(String),
    /// What a path of the host leads to.
    Host(PathBuf),
    /// What is mounted at a place below `rootDirectory`.
    Ours { root: PathBuf, at: PathBuf },
}

/// So much runs at once on one server or device: one that does not answer takes no more, whoever wants something of it.
const OF_ONE: usize = 2;
/// So much runs at once on all of them, but for what hangs. As [`BUSY`], of the process.
static ALL: Semaphore = Semaphore::const_new(7);
/// 12 more threads are lost to what hangs, of edgecore's 24: six servers or devices, each with as much as it may have.
static HANGING: Semaphore = Semaphore::const_new(12);
/// 5 s: what has not ended by then hangs.
const HANGS_AFTER: Duration = Duration::from_secs(5);
/// The turns of each server or device that something wants a turn of.
static TURNS: Mutex<BTreeMap<String, Weak<Semaphore>>> = Mutex::new(BTreeMap::new());

impl HangsOn {
    /// The server or device, by the kernel's table of mounts. Nothing that may hang is asked. Links on the way to a path of the host
    /// count as where they lie.
    fn name(&self, table: &[Mount]) -> String {
        match self {
            HangsOn::Server(server) => server.clone(),
            HangsOn::Host(path) => mounted_at(table, path),
            HangsOn::Ours { root, at } => {
                let real = Folder::root(root).and_then(|root| root.real());
                mounted_at(table, &real.as_deref().unwrap_or(root).join(at))
            }
        }
    }
}

/// The server of what is mounted where a path leads to, or the number of its device.
fn mounted_at(table: &[Mount], path: &Path) -> String {
    let above = table.iter().filter(|mount| path.starts_with(&mount.point));
    // Of two at one place the later one covers the other.
    let Some(mount) = above.max_by_key(|mount| mount.point.components().count()) else {
        return path.display().to_string();
    };
    let source = mount.source.to_string_lossy();
    let share = source.strip_prefix("//").and_then(|share| share.split('/').next());
    let server = share.or_else(|| source.split_once(":/").map(|(server, _)| server));
    server.map_or_else(|| mount.device.clone(), str::to_owned)
}

fn turns_of(name: String) -> Arc<Semaphore> {
    let mut all = TURNS.lock().unwrap_or_else(PoisonError::into_inner);
    all.retain(|_, turns| turns.strong_count() > 0);
    if let Some(turns) = all.get(&name).and_then(Weak::upgrade) {
        return turns;
    }
    let turns = Arc::new(Semaphore::new(OF_ONE));
    all.insert(name, Arc::downgrade(&turns));
    turns
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

/// The place of one work among all.
struct Place(Mutex<Option<SemaphorePermit<'static>>>);

impl Place {
    /// The work hangs: others have its place from now on, as long as there are threads.
    fn hangs(&self) {
        if let Ok(permit) = HANGING.try_acquire() {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(permit);
        }
    }
}

/// Runs `work` at a place beside the hive's thread. `deadline`: so long it waits for its turn, and then for the work.
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
    // Without the table each path counts for itself.
    let name = move || Ok(on.name(&mountinfo::here().unwrap_or_default()));
    let turns = turns_of(blocking(env, "read the kernel's table of mounts for", name).await?);
    let turn = env.timeout(deadline, async {
        // Nobody closes them.
        let of_one = turns.acquire_owned().await.map_err(|error| late(&error.to_string()))?;
        let of_all = ALL.acquire().await.map_err(|error| late(&error.to_string()))?;
        Ok::<_, StepError>((of_one, Arc::new(Place(Mutex::new(Some(of_all))))))
    });
    let Some(turn) = turn.await else { return Err(late("others on the same have not ended")) };
    let turn = turn?;
    let (place, clock) = (Arc::downgrade(&turn.1), env.clone());
    // Whoever waits for the work may be gone by then.
    env.spawn(async move {
        clock.sleep(HANGS_AFTER).await;
        if let Some(place) = place.upgrade() {
            place.hangs();
        }
    });
    let work = move || {
        let done = work();
        drop((busy, turn));
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
            let on = || HangsOn::Server("server-of-this-test".to_owned());
            let late = run(&env, on(), at, soon, "mount a volume in", stuck).await.unwrap_err().to_string();
            assert!(late.contains("timed out waiting for the condition"), "{late}");
            let long = Duration::from_secs(60);
            let again =
                run(&env, on(), at, long, "mount a volume in", || Ok(())).await.unwrap_err().to_string();
            assert!(again.contains("an earlier attempt has not ended"), "{again}");
            assert_eq!(run(&env, on(), Path::new("/other"), long, "mount", || Ok(1)).await, Ok(1));
            go.send(()).unwrap();
            has_ended.recv_timeout(long).unwrap();
            let looks = async {
                while run(&env, on(), at, long, "mount", || Ok(())).await.is_err() {
                    env.sleep(Duration::from_millis(5)).await;
                }
            };
            assert!(env.timeout(long, looks).await.is_some(), "its place stays taken");
        });
    }

    /// As many threads as edgecore has, and more servers that do not answer.
    #[test]
    fn servers_that_do_not_answer_leave_threads_to_all_others_and_places_to_those_that_answer() {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_all().max_blocking_threads(24).build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let env = Env::real().spawned_by(|task| drop(tokio::task::spawn_local(task)));
            let long = Duration::from_secs(60);
            let (answers, answer) = mpsc::channel::<()>();
            let answer = std::sync::Arc::new(Mutex::new(answer));
            let mount = |number: usize| {
                let (env, answer) = (env.clone(), std::sync::Arc::clone(&answer));
                tokio::task::spawn_local(async move {
                    let at = PathBuf::from(format!("/server-{number}"));
                    let work = move || {
                        // Until the sender has gone.
                        let _ = answer.lock().unwrap().recv();
                        Ok(())
                    };
                    let on = HangsOn::Server(format!("server-{number}"));
                    run(&env, on, &at, Duration::from_secs(120), "mount", work).await
                })
            };
            let mut mounts: Vec<_> = (0..7).map(mount).collect();
            tokio::task::yield_now().await;
            // Seven that hang are in nobody's way for long.
            let well = HangsOn::Server("answers".to_owned());
            let done = run(&env, well, Path::new("/answers"), long, "mount", || Ok(7)).await;
            assert_eq!(done, Ok(7));
            mounts.extend((7..24).map(mount));
            // The others' threads: each waits until all five have one.
            let all = std::sync::Arc::new(std::sync::Barrier::new(5));
            let others = (0..5).map(|_| {
                let all = std::sync::Arc::clone(&all);
                blocking(&env, "work", move || {
                    all.wait();
                    Ok(())
                })
            });
            // After the mounts have begun or wait, and have hung for as long as it takes to take all that they may.
            let hung = env.timeout(long, async {
                while HANGING.available_permits() > 0 {
                    env.sleep(Duration::from_millis(10)).await;
                }
            });
            assert!(hung.await.is_some(), "{} places are left", HANGING.available_permits());
            let done = env.timeout(long, futures::future::join_all(others)).await;
            drop(answers);
            assert!(done.is_some_and(|all| all.iter().all(Result::is_ok)), "no thread is free");
            for mount in mounts {
                assert_eq!(mount.await.unwrap(), Ok(()), "each has its turn");
            }
        });
    }

    #[test]
    fn a_server_that_does_not_answer_takes_nothing_from_the_others() {
        actix_rt::System::new().block_on(async {
            let env = Env::real();
            let long = Duration::from_secs(60);
            let (answers, answer) = mpsc::channel::<()>();
            let answer = Arc::new(Mutex::new(answer));
            let dead = |number: u32, deadline: Duration| {
                let (env, answer) = (env.clone(), Arc::clone(&answer));
                async move {
                    let at = PathBuf::from(format!("/on-a-dead-server-{number}"));
                    let work = move || {
                        let _ = answer.lock().unwrap().recv();
                        Ok(())
                    };
                    run(&env, HangsOn::Server("dead".to_owned()), &at, deadline, "mount", work).await
                }
            };
            // The first two hang, the others wait for their turn.
            let hung =
                futures::future::join_all((0..2).map(|number| dead(number, Duration::from_millis(50))));
            assert!(hung.await.iter().all(Result::is_err));
            for number in 2..12 {
                let why = dead(number, Duration::from_millis(5)).await.unwrap_err().to_string();
                assert!(why.contains("others on the same have not ended"), "{why}");
            }
            let waiting: Vec<_> =
                (2..12).map(|number| tokio::task::spawn_local(dead(number, long))).collect();
            tokio::task::yield_now().await;
            let well = HangsOn::Server("well".to_owned());
            assert_eq!(run(&env, well, Path::new("/well"), long, "mount", || Ok(7)).await, Ok(7));
            drop(answers);
            for one in waiting {
                assert_eq!(one.await.unwrap(), Ok(()), "each has its turn");
            }
        });
    }

    #[test]
    fn what_lies_on_one_server_has_its_turns_wherever_it_is_mounted() {
        let table = mountinfo::parse(
            b"22 1 254:0 / / rw - ext4 /dev/vda rw\n\
            36 22 0:50 / /mnt/nas rw - nfs4 nas:/x rw\n\
            37 22 0:51 /sub /pods/u/volumes/kubernetes.io~csi/pv/mount rw - nfs nas:/y rw\n\
            38 22 0:52 / /mnt/six rw - nfs [fd00::1]:/y rw\n\
            39 22 0:53 / /mnt/share rw - cifs //files/public rw\n\
            40 22 8:16 / /data rw - ext4 /dev/sdb rw\n\
            41 22 0:54 / /data rw - tmpfs none rw\n",
        );
        let name = |path: &str| HangsOn::Host(path.into()).name(&table);
        for (path, wanted) in [
            ("/mnt/nas/a/b", "nas"),
            ("/mnt/nas2", "254:0"),
            ("/mnt/six", "[fd00::1]"),
            ("/mnt/share/x", "files"),
            ("/data/x", "0:54"),
        ] {
            assert_eq!(name(path), wanted, "{path}");
        }
        let ours =
            HangsOn::Ours { root: "/".into(), at: "pods/u/volumes/kubernetes.io~csi/pv/mount/sub".into() };
        assert_eq!([ours.name(&table), HangsOn::Server("nas".into()).name(&table)], ["nas", "nas"]);
        assert_eq!(HangsOn::Host("/x".into()).name(&[]), "/x");
    }
}
