//! The calls against a real containerd.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::HashMap;
use std::time::Duration;

use cri::v1::{
    CgroupDriver, ContainerConfig, ContainerFilter, ContainerMetadata, ContainerState, ImageSpec,
    LinuxContainerConfig, LinuxPodSandboxConfig, PodSandboxConfig, PodSandboxFilter, PodSandboxMetadata,
};
use cri::{Content, Error, EventKind, Grpc, Runtime};
use futures::StreamExt as _;
use testhost::TestHost;

fn sandbox(host: &TestHost) -> PodSandboxConfig {
    PodSandboxConfig {
        metadata: Some(PodSandboxMetadata {
            name: "p".into(),
            uid: "u-1".into(),
            namespace: "default".into(),
            attempt: 0,
        }),
        hostname: "p".into(),
        log_directory: host.dir().join("logs").display().to_string(),
        labels: HashMap::from([("io.kubernetes.pod.uid".into(), "u-1".into())]),
        linux: Some(LinuxPodSandboxConfig::default()),
        ..PodSandboxConfig::default()
    }
}

fn container(script: &str) -> ContainerConfig {
    ContainerConfig {
        metadata: Some(ContainerMetadata { name: "c".into(), attempt: 0 }),
        image: Some(ImageSpec { image: testhost::BUSYBOX.into(), ..ImageSpec::default() }),
        command: vec!["/bin/sh".into(), "-c".into(), script.into()],
        log_path: "c.log".into(),
        linux: Some(LinuxContainerConfig::default()),
        ..ContainerConfig::default()
    }
}

#[tokio::test]
async fn the_parts_of_an_image_are_given_out_as_their_digests_say() {
    let host = TestHost::new("cri-content").unwrap();
    let runtime = Grpc::new(&host.endpoint(), &host.endpoint(), Duration::from_secs(60)).unwrap();
    let image = runtime.image_status(testhost::BUSYBOX).await.unwrap().unwrap();
    let content = Content::new(&host.endpoint()).unwrap();
    let target = content.target(&image.id).await.unwrap();
    let mut pieces = content.read(&target.digest).await.unwrap();
    let mut bytes = Vec::new();
    while let Some(piece) = pieces.next().await {
        bytes.extend_from_slice(&piece.unwrap());
    }
    assert_eq!(bytes.len() as u64, target.size);
    let document: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    assert!(document["layers"].is_array() || document["manifests"].is_array(), "{document}");
    let absent = content.target("nothing/of:this").await.unwrap_err();
    assert!(matches!(absent, Error::NotFound { .. }), "{absent:?}");
    let none = format!("sha256:{}", "0".repeat(64));
    let opened = content.read(&none).await;
    let first = match opened {
        Ok(mut pieces) => pieces.next().await.unwrap().map(drop),
        Err(error) => Err(error),
    };
    assert!(first.is_err(), "a blob that is not there");
}

#[tokio::test]
async fn a_container_runs_and_its_end_is_told() {
    let host = TestHost::new("cri").unwrap();
    let runtime = Grpc::new(&host.endpoint(), &host.endpoint(), Duration::from_secs(60)).unwrap();
    let version = runtime.version().await.unwrap();
    assert_eq!(version.runtime_name, "containerd");
    let status = runtime.status().await.unwrap();
    assert!(status.conditions.iter().all(|condition| condition.status), "{status:?}");
    // What it can do came with 2.0; whoever is older says nothing of it.
    let is_older = version.runtime_version.trim_start_matches('v').starts_with("1.");
    let features = runtime.features().await.unwrap();
    assert!(
        !is_older || features.of("") == cri::Features::default(),
        "{} {features:?}",
        version.runtime_version
    );
    // The host's own configuration names no driver, and runc's is then cgroupfs.
    assert_eq!(runtime.cgroup_driver().await.unwrap(), Some(CgroupDriver::Cgroupfs));
    assert!(runtime.image_status(testhost::BUSYBOX).await.unwrap().is_some());
    assert!(runtime.image_status("kubehive.test/absent:1").await.unwrap().is_none());
    assert!(!runtime.image_filesystems().await.unwrap().is_empty());

    let mut events = runtime.events();
    let told = tokio::spawn(async move {
        let mut told = Vec::new();
        while let Some(event) = events.next().await {
            let event = event.unwrap();
            let stopped = event.kind == EventKind::Stopped;
            told.push(event);
            if stopped {
                break;
            }
        }
        told
    });

    let config = sandbox(&host);
    let pod = runtime.run_sandbox(config.clone(), "").await.unwrap();
    let address = runtime.sandbox_status(&pod).await.unwrap().network.unwrap().ip;
    assert!(address.starts_with(&host.pod_prefix()), "{address}");
    let id =
        runtime.create_container(&pod, container("echo hello; sleep 0.2; exit 3"), config).await.unwrap();
    runtime.start_container(&id).await.unwrap();
    let told = tokio::time::timeout(Duration::from_secs(30), told).await.unwrap().unwrap();
    assert!(told.iter().any(|event| event.id == id && event.kind == EventKind::Started), "{told:?}");
    assert!(told.iter().any(|event| event.id == id && event.kind == EventKind::Stopped), "{told:?}");

    // The event can be ahead of CRI's own books.
    let status = loop {
        let status = runtime.container_status(&id).await.unwrap();
        if status.state() == ContainerState::ContainerExited {
            break status;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(status.exit_code, 3);
    let log = std::fs::read_to_string(host.dir().join("logs/c.log")).unwrap();
    assert!(log.contains("hello"), "{log}");

    let by_uid = HashMap::from([("io.kubernetes.pod.uid".to_owned(), "u-1".to_owned())]);
    let filter = PodSandboxFilter { label_selector: by_uid, ..PodSandboxFilter::default() };
    assert_eq!(runtime.list_sandboxes(filter).await.unwrap().len(), 1);
    let filter = ContainerFilter { pod_sandbox_id: pod.clone(), ..ContainerFilter::default() };
    assert_eq!(runtime.list_containers(filter).await.unwrap().len(), 1);

    runtime.stop_sandbox(&pod).await.unwrap();
    runtime.remove_sandbox(&pod).await.unwrap();
    runtime.stop_container(&id, Duration::from_secs(1)).await.unwrap();
    runtime.remove_container(&id).await.unwrap();
    assert!(matches!(runtime.container_status(&id).await, Err(Error::NotFound { .. })));
}

#[tokio::test]
async fn a_missing_runtime_is_unreachable_and_found_again() {
    let mut host = TestHost::new("crigone").unwrap();
    let runtime = Grpc::new(&host.endpoint(), &host.endpoint(), Duration::from_secs(60)).unwrap();
    runtime.version().await.unwrap();
    host.kill_runtime().unwrap();
    let error = runtime.version().await.unwrap_err();
    assert!(error.is_unreachable(), "{error:?}");
    host.restart_runtime().unwrap();
    runtime.version().await.unwrap();
    // Nobody listens on port 1 of the namespace.
    let error = runtime.pull_image("127.0.0.1:1/x:1", None).await.unwrap_err();
    assert!(matches!(error, Error::Failed { .. }), "{error:?}");
}

#[tokio::test]
async fn of_what_a_command_prints_the_beginning_is_held_and_how_it_ended_is_known() {
    let host = TestHost::new("criout").unwrap();
    let runtime = Grpc::new(&host.endpoint(), &host.endpoint(), Duration::from_secs(60)).unwrap();
    let config = sandbox(&host);
    let pod = runtime.run_sandbox(config.clone(), "").await.unwrap();
    let id = runtime.create_container(&pod, container("sleep 1000"), config).await.unwrap();
    runtime.start_container(&id).await.unwrap();
    let script = "head -c 8000000 /dev/zero; echo why >&2; exit 7";
    let command = vec!["/bin/sh".to_owned(), "-c".to_owned(), script.to_owned()];
    let limit = Duration::from_secs(60);
    let done = runtime.exec_sync(&id, command.clone(), limit).await.unwrap();
    assert_eq!((done.stdout.len(), done.stderr.as_slice(), done.exit_code), (10 << 10, &b"why\n"[..], 7));
    let whole = runtime.exec_sync_whole(&id, command, limit).await.unwrap();
    assert_eq!((whole.stdout.len(), whole.exit_code), (8_000_000, 7));
    runtime.remove_sandbox(&pod).await.unwrap();
}
