//! The runtime, with its calls counted as a kubelet counts them (pkg/kubelet/kuberuntime/instrumented_services.go).

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use beehive::{Clock, Counter, Metrics};
use cri::v1::{
    AttachRequest, AuthConfig, CgroupDriver, Container, ContainerConfig, ContainerFilter, ContainerStats,
    ContainerStatsFilter, ContainerStatus, ExecRequest, ExecSyncResponse, FilesystemUsage, Image,
    LinuxContainerResources, PodSandbox, PodSandboxConfig, PodSandboxFilter, PodSandboxStats,
    PodSandboxStatsFilter, PodSandboxStatus, PortForwardRequest, RuntimeStatus, VersionResponse,
};
use cri::{Answer, Error, EventStream, Runtime, RuntimeFeatures};

/// How often each kind of call was made.
const RUNTIME_OPERATIONS: &str = "kubelet_runtime_operations_total";
/// How often it failed.
const RUNTIME_OPERATION_ERRORS: &str = "kubelet_runtime_operations_errors_total";
/// How long it took.
const RUNTIME_OPERATION_DURATIONS: &str = "kubelet_runtime_operations_duration_seconds";
/// Seconds: 5 ms, and 2.5 times the one before each.
const BOUNDS: &[f64] = &[
    0.005,
    0.0125,
    0.03125,
    0.078_125,
    0.195_312_5,
    0.488_281_25,
    1.220_703_125,
    3.051_757_812_5,
    7.629_394_531_25,
    19.073_486_328_125,
    47.683_715_820_312_5,
    119.209_289_550_781_25,
    298.023_223_876_953_1,
    745.058_059_692_382_8,
];

struct OfCall {
    made: Counter,
    failed: Option<Counter>,
    durations: Counter,
}

/// A runtime whose calls are counted.
pub struct CountedRuntime {
    runtime: Arc<dyn Runtime>,
    metrics: Metrics,
    clock: Arc<dyn Clock>,
    calls: Mutex<BTreeMap<&'static str, OfCall>>,
}

impl CountedRuntime {
    /// Counts in `metrics`, by `clock`, what goes to `runtime`.
    pub fn new(runtime: Arc<dyn Runtime>, metrics: &Metrics, clock: Arc<dyn Clock>) -> CountedRuntime {
        CountedRuntime { runtime, metrics: metrics.clone(), clock, calls: Mutex::default() }
    }

    fn of_call(&self, name: &'static str) -> OfCall {
        let labels = || vec![("operation_type", name.to_owned())];
        let made = self.metrics.counter(RUNTIME_OPERATIONS, labels());
        let durations = self.metrics.histogram(RUNTIME_OPERATION_DURATIONS, BOUNDS, labels());
        OfCall { made, failed: None, durations }
    }

    fn counted<'a, T: Send + 'a>(
        &'a self,
        name: &'static str,
        answer: impl Future<Output = Result<T, Error>> + Send + 'a,
    ) -> Answer<'a, T> {
        Box::pin(async move {
            let begun = self.clock.now();
            let answer = answer.await;
            let took = self.clock.now().since(begun);
            let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
            let own = calls.entry(name).or_insert_with(|| self.of_call(name));
            own.made.count();
            own.durations.observe(took.as_secs_f64());
            if answer.is_err() {
                let labels = vec![("operation_type", name.to_owned())];
                let failed = || self.metrics.counter(RUNTIME_OPERATION_ERRORS, labels);
                own.failed.get_or_insert_with(failed).count();
            }
            answer
        })
    }
}

impl Runtime for CountedRuntime {
    fn version(&self) -> Answer<'_, VersionResponse> {
        self.counted("version", self.runtime.version())
    }
    fn status(&self) -> Answer<'_, RuntimeStatus> {
        self.counted("status", self.runtime.status())
    }
    fn status_info(&self) -> Answer<'_, HashMap<String, String>> {
        self.counted("status", self.runtime.status_info())
    }
    fn features(&self) -> Answer<'_, RuntimeFeatures> {
        self.counted("status", self.runtime.features())
    }
    fn cgroup_driver(&self) -> Answer<'_, Option<CgroupDriver>> {
        self.counted("runtime_config", self.runtime.cgroup_driver())
    }
    fn run_sandbox(&self, config: PodSandboxConfig, handler: &str) -> Answer<'_, String> {
        self.counted("run_podsandbox", self.runtime.run_sandbox(config, handler))
    }
    fn stop_sandbox(&self, id: &str) -> Answer<'_, ()> {
        self.counted("stop_podsandbox", self.runtime.stop_sandbox(id))
    }
    fn remove_sandbox(&self, id: &str) -> Answer<'_, ()> {
        self.counted("remove_podsandbox", self.runtime.remove_sandbox(id))
    }
    fn sandbox_status(&self, id: &str) -> Answer<'_, PodSandboxStatus> {
        self.counted("podsandbox_status", self.runtime.sandbox_status(id))
    }
    fn list_sandboxes(&self, filter: PodSandboxFilter) -> Answer<'_, Vec<PodSandbox>> {
        self.counted("list_podsandbox", self.runtime.list_sandboxes(filter))
    }
    fn create_container(
        &self,
        sandbox: &str,
        config: ContainerConfig,
        sandbox_config: PodSandboxConfig,
    ) -> Answer<'_, String> {
        self.counted("create_container", self.runtime.create_container(sandbox, config, sandbox_config))
    }
    fn start_container(&self, id: &str) -> Answer<'_, ()> {
        self.counted("start_container", self.runtime.start_container(id))
    }
    fn stop_container(&self, id: &str, grace: Duration) -> Answer<'_, ()> {
        self.counted("stop_container", self.runtime.stop_container(id, grace))
    }
    fn remove_container(&self, id: &str) -> Answer<'_, ()> {
        self.counted("remove_container", self.runtime.remove_container(id))
    }
    fn list_containers(&self, filter: ContainerFilter) -> Answer<'_, Vec<Container>> {
        self.counted("list_containers", self.runtime.list_containers(filter))
    }
    fn container_status(&self, id: &str) -> Answer<'_, ContainerStatus> {
        self.counted("container_status", self.runtime.container_status(id))
    }
    fn exec_sync(&self, id: &str, command: Vec<String>, limit: Duration) -> Answer<'_, ExecSyncResponse> {
        self.counted("exec_sync", self.runtime.exec_sync(id, command, limit))
    }
    fn list_images(&self) -> Answer<'_, Vec<Image>> {
        self.counted("list_images", self.runtime.list_images())
    }
    fn image_status(&self, image: &str) -> Answer<'_, Option<Image>> {
        self.counted("image_status", self.runtime.image_status(image))
    }
    fn pull_image(&self, image: &str, auth: Option<AuthConfig>) -> Answer<'_, String> {
        self.counted("pull_image", self.runtime.pull_image(image, auth))
    }
    fn remove_image(&self, image: &str) -> Answer<'_, ()> {
        self.counted("remove_image", self.runtime.remove_image(image))
    }
    fn image_filesystems(&self) -> Answer<'_, Vec<FilesystemUsage>> {
        self.counted("image_fs_info", self.runtime.image_filesystems())
    }
    fn update_resources(&self, id: &str, resources: LinuxContainerResources) -> Answer<'_, ()> {
        self.counted("update_container", self.runtime.update_resources(id, resources))
    }
    fn reopen_log(&self, id: &str) -> Answer<'_, ()> {
        self.counted("reopen_container_log", self.runtime.reopen_log(id))
    }
    fn exec(&self, request: ExecRequest) -> Answer<'_, String> {
        self.counted("exec", self.runtime.exec(request))
    }
    fn attach(&self, request: AttachRequest) -> Answer<'_, String> {
        self.counted("attach", self.runtime.attach(request))
    }
    fn port_forward(&self, request: PortForwardRequest) -> Answer<'_, String> {
        self.counted("port_forward", self.runtime.port_forward(request))
    }
    fn container_stats(&self, filter: ContainerStatsFilter) -> Answer<'_, Vec<ContainerStats>> {
        self.counted("list_container_stats", self.runtime.container_stats(filter))
    }
    fn sandbox_stats(&self, filter: PodSandboxStatsFilter) -> Answer<'_, Vec<PodSandboxStats>> {
        self.counted("list_podsandbox_stats", self.runtime.sandbox_stats(filter))
    }
    fn events(&self) -> EventStream {
        self.runtime.events()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use beehive::Count;

    #[tokio::test]
    async fn calls_are_counted_by_their_kind_and_those_that_fail_by_themselves() {
        let (metrics, env) = (Metrics::default(), beehive::Env::seeded(1));
        let nowhere = cri::Grpc::new("unix:///nowhere", "unix:///nowhere", Duration::from_secs(1)).unwrap();
        let runtime = CountedRuntime::new(Arc::new(nowhere), &metrics, env.clock());
        for _ in 0..2 {
            assert!(runtime.version().await.is_err());
        }
        assert!(runtime.stop_container("c", Duration::ZERO).await.is_err());
        for family in [RUNTIME_OPERATIONS, RUNTIME_OPERATION_ERRORS] {
            let shown: Vec<_> = metrics.labelled(family);
            let wanted = [("stop_container", 1), ("version", 2)];
            let of =
                |(name, times): (&str, u64)| (vec![("operation_type", name.to_owned())], Count::Times(times));
            assert_eq!(shown, wanted.map(of));
        }
        let durations = metrics.labelled(RUNTIME_OPERATION_DURATIONS);
        assert!(matches!(&durations[1].1, Count::Sizes { count: 2, .. }), "{durations:?}");
    }
}
