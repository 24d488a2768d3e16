//! A machine whose clock jumps: to 1970 at a boot, forward when it is set, and back by an hour.
//!
//! Nothing shifts the wall clock of one process on Linux: time namespaces shift the other clocks only, and containerd, a Go
//! program, takes its time past whatever a library could put in between. So containerd is real, and its answers pass through
//! [`ShiftedRuntime`], which makes of each time in them what a containerd with the shifted clock would have written down: by
//! the clock as it stood when the thing was made, or ended. Edged's own clock is shifted with it.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use beehive::{Clock, Env, Moment, TokioClock};
use cri::v1::{
    AuthConfig, CgroupDriver, Container, ContainerConfig, ContainerFilter, ContainerStats,
    ContainerStatsFilter, ContainerStatus, ExecSyncResponse, FilesystemUsage, Image, LinuxContainerResources,
    PodSandbox, PodSandboxConfig, PodSandboxFilter, PodSandboxStats, PodSandboxStatsFilter, PodSandboxStatus,
    RuntimeStatus, VersionResponse,
};
use cri::{Answer, EventStream, Runtime};
use futures::FutureExt as _;
use serde_json::{Value, json};

use crate::node::{Machine, Node, WAITS, condition, container_id, eventually, first, pod, run, text};

const HOUR: i64 = 3_600_000_000_000;

/// By how many nanoseconds the machine's clock is off.
#[derive(Default)]
struct Shift(AtomicI64);

impl Shift {
    fn get(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }

    fn set(&self, nanos: i64) {
        self.0.store(nanos, Ordering::SeqCst);
    }

    /// The clock stands at the beginning of 1970 now.
    fn to_1970(&self) {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        self.set(-i64::try_from(now.as_nanos()).unwrap());
    }
}

struct ShiftedClock(TokioClock, Arc<Shift>);

impl Clock for ShiftedClock {
    fn now(&self) -> Moment {
        self.0.now()
    }
    fn wall(&self) -> SystemTime {
        let shift = Duration::from_nanos(self.1.get().unsigned_abs());
        if self.1.get() < 0 { self.0.wall() - shift } else { self.0.wall() + shift }
    }
    fn sleep(&self, pause: Duration) -> futures::future::BoxFuture<'static, ()> {
        self.0.sleep(pause)
    }
}

/// A runtime that writes its times by the shifted clock.
struct ShiftedRuntime {
    inner: Arc<dyn Runtime>,
    shift: Arc<Shift>,
    /// The shift when each sandbox and container was made, and when the end of a container was first told.
    made: Mutex<BTreeMap<String, i64>>,
    ended: Mutex<BTreeMap<String, i64>>,
}

impl ShiftedRuntime {
    fn note(&self, id: &str) {
        self.made.lock().unwrap().insert(id.to_owned(), self.shift.get());
    }

    fn shifted(&self, id: &str, at: i64) -> i64 {
        let shift = self.made.lock().unwrap().get(id).copied().unwrap_or_default();
        if at == 0 { 0 } else { at + shift }
    }

    fn shifted_end(&self, id: &str, at: i64) -> i64 {
        if at == 0 {
            return 0;
        }
        at + *self.ended.lock().unwrap().entry(id.to_owned()).or_insert(self.shift.get())
    }
}

impl Runtime for ShiftedRuntime {
    fn features(&self) -> Answer<'_, cri::RuntimeFeatures> {
        self.inner.features()
    }
    fn cgroup_driver(&self) -> Answer<'_, Option<CgroupDriver>> {
        self.inner.cgroup_driver()
    }
    fn run_sandbox(&self, config: PodSandboxConfig, handler: &str) -> Answer<'_, String> {
        let made = self.inner.run_sandbox(config, handler);
        async move { made.await.inspect(|id| self.note(id)) }.boxed()
    }
    fn create_container(
        &self,
        sandbox: &str,
        config: ContainerConfig,
        sandbox_config: PodSandboxConfig,
    ) -> Answer<'_, String> {
        let made = self.inner.create_container(sandbox, config, sandbox_config);
        async move { made.await.inspect(|id| self.note(id)) }.boxed()
    }
    fn list_sandboxes(&self, filter: PodSandboxFilter) -> Answer<'_, Vec<PodSandbox>> {
        let listed = self.inner.list_sandboxes(filter);
        let shift = |mut all: Vec<PodSandbox>| {
            all.iter_mut().for_each(|one| one.created_at = self.shifted(&one.id, one.created_at));
            // A runtime lists in no order that it would promise.
            all.sort_by_key(|one| std::cmp::Reverse(one.created_at));
            all
        };
        async move { listed.await.map(shift) }.boxed()
    }
    fn list_containers(&self, filter: ContainerFilter) -> Answer<'_, Vec<Container>> {
        let listed = self.inner.list_containers(filter);
        let shift = |mut all: Vec<Container>| {
            all.iter_mut().for_each(|one| one.created_at = self.shifted(&one.id, one.created_at));
            all.sort_by_key(|one| std::cmp::Reverse(one.created_at));
            all
        };
        async move { listed.await.map(shift) }.boxed()
    }
    fn sandbox_status(&self, id: &str) -> Answer<'_, PodSandboxStatus> {
        let status = self.inner.sandbox_status(id);
        let shift = |mut one: PodSandboxStatus| {
            one.created_at = self.shifted(&one.id, one.created_at);
            one
        };
        async move { status.await.map(shift) }.boxed()
    }
    fn container_status(&self, id: &str) -> Answer<'_, ContainerStatus> {
        let status = self.inner.container_status(id);
        let shift = |mut one: ContainerStatus| {
            one.created_at = self.shifted(&one.id, one.created_at);
            one.started_at = self.shifted(&one.id, one.started_at);
            one.finished_at = self.shifted_end(&one.id, one.finished_at);
            one
        };
        async move { status.await.map(shift) }.boxed()
    }
    fn version(&self) -> Answer<'_, VersionResponse> {
        self.inner.version()
    }
    fn status(&self) -> Answer<'_, RuntimeStatus> {
        self.inner.status()
    }
    fn stop_sandbox(&self, id: &str) -> Answer<'_, ()> {
        self.inner.stop_sandbox(id)
    }
    fn remove_sandbox(&self, id: &str) -> Answer<'_, ()> {
        self.inner.remove_sandbox(id)
    }
    fn start_container(&self, id: &str) -> Answer<'_, ()> {
        self.inner.start_container(id)
    }
    fn stop_container(&self, id: &str, grace: Duration) -> Answer<'_, ()> {
        self.inner.stop_container(id, grace)
    }
    fn remove_container(&self, id: &str) -> Answer<'_, ()> {
        self.inner.remove_container(id)
    }
    fn exec_sync(&self, id: &str, command: Vec<String>, limit: Duration) -> Answer<'_, ExecSyncResponse> {
        self.inner.exec_sync(id, command, limit)
    }
    fn status_info(&self) -> Answer<'_, HashMap<String, String>> {
        self.inner.status_info()
    }
    fn container_stats(&self, filter: ContainerStatsFilter) -> Answer<'_, Vec<ContainerStats>> {
        self.inner.container_stats(filter)
    }
    fn sandbox_stats(&self, filter: PodSandboxStatsFilter) -> Answer<'_, Vec<PodSandboxStats>> {
        self.inner.sandbox_stats(filter)
    }
    fn update_resources(&self, id: &str, resources: LinuxContainerResources) -> Answer<'_, ()> {
        self.inner.update_resources(id, resources)
    }
    fn reopen_log(&self, id: &str) -> Answer<'_, ()> {
        self.inner.reopen_log(id)
    }
    fn events(&self) -> EventStream {
        self.inner.events()
    }
    fn list_images(&self) -> Answer<'_, Vec<Image>> {
        self.inner.list_images()
    }
    fn image_status(&self, image: &str) -> Answer<'_, Option<Image>> {
        self.inner.image_status(image)
    }
    fn pull_image(&self, image: &str, auth: Option<AuthConfig>) -> Answer<'_, String> {
        self.inner.pull_image(image, auth)
    }
    fn remove_image(&self, image: &str) -> Answer<'_, ()> {
        self.inner.remove_image(image)
    }
    fn image_filesystems(&self) -> Answer<'_, Vec<FilesystemUsage>> {
        self.inner.image_filesystems()
    }
}

fn start(host: &Machine, shift: &Arc<Shift>) -> Node {
    let clock = ShiftedClock(TokioClock::real(), Arc::clone(shift));
    let between = |inner| -> Arc<dyn Runtime> {
        Arc::new(ShiftedRuntime {
            inner,
            shift: Arc::clone(shift),
            made: Mutex::default(),
            ended: Mutex::default(),
        })
    };
    Node::start_with(host, Env::real().with_clock(Arc::new(clock)), between)
}

/// A boot: the runtime comes back with what its disk kept, and Edged starts anew.
async fn boot(node: Node, host: &mut Machine) -> Node {
    // What outlives Edged here is the runtime's client alone, which connects again.
    let down = node.stop(host).await;
    host.cut_power().unwrap();
    host.restore_power().unwrap();
    host.restart_runtime().unwrap();
    down.start()
}

fn restarts(status: &Value) -> u64 {
    first(status)["restartCount"].as_u64().unwrap()
}

/// Waits until a pod is Ready again after it had been restarted so often.
async fn until_restarted(node: &Node, pod: &str, before: u64) -> (Value, Duration) {
    let begun = Instant::now();
    let status = node
        .until(pod, "a restart", |status| {
            restarts(status) > before && condition(status, "Ready")["status"] == "True"
        })
        .await;
    (status, begun.elapsed())
}

/// How many sandboxes the runtime has of a pod, once one of them is ready, and what it counts as the latest attempt.
async fn sandboxes(node: &Node, pod: &str) -> (usize, u32) {
    let of_pod = |one: &PodSandbox| one.metadata.as_ref().is_some_and(|metadata| metadata.name == pod);
    let all = node.runtime.list_sandboxes(PodSandboxFilter::default()).await.unwrap();
    let own: Vec<PodSandbox> = all.into_iter().filter(of_pod).collect();
    let latest = own.iter().filter_map(|one| Some(one.metadata.as_ref()?.attempt)).max();
    (own.len(), latest.unwrap())
}

#[test]
fn pods_start_within_seconds_whatever_the_clock_did() {
    run(async {
        let mut host = Machine::new("clocks");
        let shift = Arc::new(Shift::default());
        let mut node = start(&host, &shift);
        let limited = json!({"activeDeadlineSeconds": 3600, "restartPolicy": "OnFailure"});
        let pods = [pod("c", WAITS, json!({})), pod("s", WAITS, json!({})), pod("limited", WAITS, limited)];
        node.apply(&pods).await;
        let before = node.until_ready("c").await;
        node.until_ready("s").await;
        node.until_ready("limited").await;

        // A boot without a battery.
        shift.to_1970();
        node = boot(node, &mut host).await;
        for pod in ["c", "s", "limited"] {
            let (in_1970, took) = until_restarted(&node, pod, 0).await;
            eprintln!("after a boot in 1970 {pod} was Ready again after {took:?}");
            assert!(
                text(&first(&in_1970)["state"]["running"]["startedAt"]).starts_with("1970-"),
                "{in_1970}"
            );
            assert_eq!(sandboxes(&node, pod).await.1, 1);
        }
        assert_eq!(node.status("c").unwrap()["startTime"], before["startTime"]);

        // Still in 1970, set right, set back by an hour, set ahead by decades: each time one pod loses its container and
        // another one its sandbox.
        for (attempt, jump) in [(2, None), (3, Some(0)), (4, Some(-HOUR)), (5, Some(30 * 365 * 24 * HOUR))] {
            // What ends again and again waits for its pause; a restart of Edged forgets it.
            node = node.restart(&host, async |_, _| {}).await;
            let last = node.until_ready("c").await;
            let of_s = node.until_ready("s").await;
            if let Some(jump) = jump {
                shift.set(jump);
            }
            node.runtime.stop_container(&container_id(&last), Duration::ZERO).await.unwrap();
            lose_sandbox(&node, "s").await;
            for (pod, before) in [("c", restarts(&last)), ("s", restarts(&of_s))] {
                let (_, took) = until_restarted(&node, pod, before).await;
                eprintln!("after the clock was {jump:?} off {pod} was Ready again after {took:?}");
            }
            assert_eq!((sandboxes(&node, "c").await.1, sandboxes(&node, "s").await.1), (1, attempt));
        }

        // No clock ended the one with a deadline of an hour, though by the clock decades have passed.
        assert_eq!(node.status("limited").unwrap()["phase"], "Running");
        for pod in ["c", "s", "limited"] {
            let refused: Vec<_> = node
                .events(pod)
                .into_iter()
                .filter(|(reason, text)| reason == "FailedCreatePodSandBox" || text.contains("reserved"))
                .collect();
            assert!(refused.is_empty(), "{refused:?}");
        }
        let cleared = eventually(async || (sandboxes(&node, "s").await.0 <= 2).then_some(())).await;
        assert!(cleared.is_some(), "sandboxes that nothing needs are removed");
    });
}

async fn lose_sandbox(node: &Node, pod: &str) {
    let all = node.runtime.list_sandboxes(PodSandboxFilter::default()).await.unwrap();
    let own = all.iter().filter(|one| one.metadata.as_ref().is_some_and(|metadata| metadata.name == pod));
    let latest = own.max_by_key(|one| one.metadata.as_ref().map(|metadata| metadata.attempt)).unwrap();
    node.runtime.stop_sandbox(&latest.id).await.unwrap();
}
