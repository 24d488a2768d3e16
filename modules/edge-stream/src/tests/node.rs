//! A node of a test: its store, its folders, and a runtime that says what the test says.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use beehive::link::WireVersion;
use beehive::{Metrics, TokioClock};
use config::edge::CgroupDriver;
use contract::ids::PODS;
use contract::stream::{LENGTH, StreamRequest, StreamResponse, head_length};
use cri::v1::*;
use cri::{Answer, Error, EventStream, Runtime};
use edge_store::{ObjectKey, Options, Store, Table, Write};
use futures::StreamExt as _;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, DuplexStream};

use crate::handler::Kubelet;
use crate::link_calls;
use crate::settings::Settings;

/// What a test waits for a fact at the most.
pub(crate) const LONG: Duration = Duration::from_secs(20);

/// Says what the test says.
#[derive(Default)]
pub(crate) struct Fake {
    pub(crate) log: Mutex<PathBuf>,
    pub(crate) running: Mutex<Vec<String>>,
    pub(crate) url: Mutex<String>,
    pub(crate) asked: Mutex<Vec<String>>,
    pub(crate) lists: AtomicUsize,
    /// What a command says beside its words.
    pub(crate) output: AtomicUsize,
}

fn no<T: Send + 'static>(call: &'static str) -> Answer<'static, T> {
    Box::pin(std::future::ready(Err(Error::Unsupported { call })))
}

fn yes<T: Send + 'static>(value: T) -> Answer<'static, T> {
    Box::pin(std::future::ready(Ok(value)))
}

impl Runtime for Fake {
    fn version(&self) -> Answer<'_, VersionResponse> {
        no("Version")
    }
    fn status(&self) -> Answer<'_, RuntimeStatus> {
        no("Status")
    }
    fn run_sandbox(&self, _: PodSandboxConfig, _: &str) -> Answer<'_, String> {
        no("RunPodSandbox")
    }
    fn stop_sandbox(&self, _: &str) -> Answer<'_, ()> {
        no("StopPodSandbox")
    }
    fn remove_sandbox(&self, _: &str) -> Answer<'_, ()> {
        no("RemovePodSandbox")
    }
    fn sandbox_status(&self, _: &str) -> Answer<'_, PodSandboxStatus> {
        no("PodSandboxStatus")
    }
    fn list_sandboxes(&self, filter: PodSandboxFilter) -> Answer<'_, Vec<PodSandbox>> {
        // The clock was set back before the second attempt.
        let sandbox = |id: &str, attempt, created_at| PodSandbox {
            id: id.into(),
            metadata: Some(PodSandboxMetadata { attempt, ..PodSandboxMetadata::default() }),
            created_at,
            ..PodSandbox::default()
        };
        let (old, new) = (sandbox("s-old", 0, 2), sandbox("s-new", 1, 1));
        let own = filter.label_selector.get(cri::pods::POD_UID).is_some_and(|uid| uid == "u");
        yes(if own { vec![old, new] } else { Vec::new() })
    }
    fn create_container(&self, _: &str, _: ContainerConfig, _: PodSandboxConfig) -> Answer<'_, String> {
        no("CreateContainer")
    }
    fn start_container(&self, _: &str) -> Answer<'_, ()> {
        no("StartContainer")
    }
    fn stop_container(&self, _: &str, _: Duration) -> Answer<'_, ()> {
        no("StopContainer")
    }
    fn remove_container(&self, _: &str) -> Answer<'_, ()> {
        no("RemoveContainer")
    }
    fn list_containers(&self, _: ContainerFilter) -> Answer<'_, Vec<Container>> {
        self.lists.fetch_add(1, Ordering::SeqCst);
        let running = self.running.lock().unwrap();
        // Each is a later attempt than those before it, and the clock was set back before each.
        let container = |(attempt, id): (u32, &String)| Container {
            id: id.clone(),
            metadata: Some(ContainerMetadata { attempt, ..ContainerMetadata::default() }),
            created_at: -i64::from(attempt),
            ..Container::default()
        };
        yes((0..).zip(running.iter()).map(container).collect())
    }
    fn container_status(&self, id: &str) -> Answer<'_, ContainerStatus> {
        let runs = self.running.lock().unwrap().iter().any(|own| own == id);
        if id != "c1" {
            return Box::pin(std::future::ready(Err(Error::NotFound {
                call: "ContainerStatus",
                message: format!("{id} is not known"),
            })));
        }
        let state = if runs { ContainerState::ContainerRunning } else { ContainerState::ContainerExited };
        let log_path = self.log.lock().unwrap().display().to_string();
        yes(ContainerStatus { id: id.into(), state: state.into(), log_path, ..ContainerStatus::default() })
    }
    fn exec_sync(&self, _: &str, command: Vec<String>, _: Duration) -> Answer<'_, ExecSyncResponse> {
        let exit_code = i32::from(command.first().is_some_and(|command| command == "false"));
        let mut stdout = b"out\n".to_vec();
        stdout.resize(stdout.len() + self.output.load(Ordering::SeqCst), b'x');
        let stderr = b"err\n".to_vec();
        yes(ExecSyncResponse { stdout, stderr, exit_code })
    }
    fn events(&self) -> EventStream {
        futures::stream::empty().boxed()
    }
    fn list_images(&self) -> Answer<'_, Vec<Image>> {
        no("ListImages")
    }
    fn image_status(&self, _: &str) -> Answer<'_, Option<Image>> {
        no("ImageStatus")
    }
    fn pull_image(&self, _: &str, _: Option<AuthConfig>) -> Answer<'_, String> {
        no("PullImage")
    }
    fn remove_image(&self, _: &str) -> Answer<'_, ()> {
        no("RemoveImage")
    }
    fn image_filesystems(&self) -> Answer<'_, Vec<FilesystemUsage>> {
        no("ImageFsInfo")
    }
    fn exec(&self, request: ExecRequest) -> Answer<'_, String> {
        self.asked.lock().unwrap().push(format!("{request:?}"));
        yes(self.url.lock().unwrap().clone())
    }
    fn attach(&self, request: AttachRequest) -> Answer<'_, String> {
        self.asked.lock().unwrap().push(format!("{request:?}"));
        Box::pin(std::future::ready(Err(Error::Exhausted {
            call: "Attach",
            message: "too many requests".into(),
        })))
    }
    fn port_forward(&self, request: PortForwardRequest) -> Answer<'_, String> {
        self.asked.lock().unwrap().push(format!("{request:?}"));
        yes(self.url.lock().unwrap().clone())
    }
}

/// A node with the pod `d/p` of one container `c`, whose instance is `c1`.
pub(crate) struct Node {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) kubelet: Arc<Kubelet>,
    pub(crate) metrics: Metrics,
    pub(crate) store: Store,
}

impl Node {
    pub(crate) async fn new(runtime: Arc<dyn Runtime>, status: Value) -> Node {
        let node = Node::over(runtime, None);
        node.put("p", "u", status).await;
        node
    }

    /// A node whose logs lie in `logs`, or in a folder of its own.
    pub(crate) fn over(runtime: Arc<dyn Runtime>, logs: Option<PathBuf>) -> Node {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().join("db"), Options::new([1; 16])).unwrap();
        std::fs::create_dir(dir.path().join("logs")).unwrap();
        let settings = Settings {
            node: "n".into(),
            version: "v1.33.0".into(),
            logs: logs.unwrap_or_else(|| dir.path().join("logs")),
            node_logs: dir.path().join("var-log"),
            root: dir.path().to_owned(),
            cgroups: PathBuf::from("/sys/fs/cgroup"),
            cgroup_driver: CgroupDriver::Cgroupfs,
            local: None,
            socket: None,
            token_file: dir.path().join("token"),
            shown: json!({"kubeletconfig": {"kind": "KubeletConfiguration"}}),
        };
        let (clock, metrics) = (Arc::new(TokioClock::real()), Metrics::default());
        let kubelet = Kubelet::new(settings, runtime, store.clone(), clock, metrics.clone(), None);
        Node { dir, kubelet: Arc::new(kubelet), metrics, store }
    }

    pub(crate) async fn put(&self, name: &str, uid: &str, status: Value) {
        self.put_annotated(name, uid, status, "").await;
    }

    pub(crate) async fn put_annotated(&self, name: &str, uid: &str, status: Value, annotation: &str) {
        let pod = json!({"metadata": {"namespace": "d", "name": name, "uid": uid, "annotations": {"a": annotation}},
            "spec": {"nodeName": "n", "containers": [{"name": "c", "tty": false}]}});
        let object = Write::PutObject {
            key: ObjectKey::new(PODS, "d", name),
            uid: uid.into(),
            content_hash: "h".into(),
            resource_version: "1".into(),
            json: pod.to_string().into_bytes(),
        };
        let reported = Write::PutRow {
            table: Table::PodStatuses,
            key1: uid.into(),
            key2: String::new(),
            value: status.to_string().into_bytes(),
        };
        self.store.commit(vec![object, reported]).await.unwrap();
    }

    /// Calls, as CloudCore does; answers the head and the stream behind it.
    pub(crate) async fn call(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
    ) -> (StreamResponse, DuplexStream) {
        let (mut client, stream) = tokio::io::duplex(64 << 10);
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let request = StreamRequest {
            method: method.into(),
            target: target.into(),
            headers: headers.collect(),
            user: "tester".into(),
        };
        tokio::spawn(link_calls::serve(Arc::clone(&self.kubelet), request, stream));
        let mut length = [0; LENGTH];
        client.read_exact(&mut length).await.unwrap();
        let mut head = vec![0; head_length(length).unwrap()];
        client.read_exact(&mut head).await.unwrap();
        (StreamResponse::decode(&head, WireVersion::ONE).unwrap(), client)
    }

    /// Calls; answers status and body.
    pub(crate) async fn get(&self, target: &str) -> (u16, String) {
        let (head, mut stream) = self.call("GET", target, &[]).await;
        let mut body = String::new();
        tokio::time::timeout(LONG, stream.read_to_string(&mut body)).await.unwrap().unwrap();
        (head.status, body)
    }
}

/// The status of a pod whose container runs as `c1`.
pub(crate) fn running() -> Value {
    status(json!({"state": {"running": {}}, "containerID": "containerd://c1"}))
}

pub(crate) fn status(container: Value) -> Value {
    let mut own: HashMap<String, Value> = serde_json::from_value(
        json!({"name": "c", "image": "", "imageID": "", "ready": true, "restartCount": 0}),
    )
    .unwrap();
    own.extend(serde_json::from_value::<HashMap<String, Value>>(container).unwrap());
    json!({"phase": "Running", "containerStatuses": [own]})
}
