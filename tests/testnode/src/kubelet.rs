//! What a kubelet leaves in a runtime, KubeEdge's edged among them: made here word by word, and not by Edged.

use std::collections::HashMap;
use std::fs;

use cri::Runtime;
use cri::v1::{
    ContainerConfig, ContainerMetadata, ImageSpec, LinuxContainerConfig, LinuxPodSandboxConfig,
    PodSandboxConfig, PodSandboxMetadata,
};
use serde_json::Value;
use testhost::TestHost;

use crate::objects::text;

/// What a kubelet of 1.31 or later writes for a container: FNV-1a, 32 bits, over Go's words for the bytes of its image and name.
pub fn kubelet_hash(name: &str, image: &str) -> String {
    let json = format!(r#"{{"image":"{image}","name":"{name}"}}"#);
    let bytes: Vec<String> = json.bytes().map(|byte| byte.to_string()).collect();
    let printed = format!("([]uint8)[{}]", bytes.join(" "));
    let step = |hash: u32, byte: u8| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    format!("{:x}", printed.bytes().fold(0x811c_9dc5, step))
}

/// Makes a pod's sandbox and its container with the words of a kubelet, and starts it; answers the container's id.
pub async fn made_by_a_kubelet(host: &TestHost, runtime: &dyn Runtime, pod: &Value) -> String {
    let (name, uid) = (text(&pod["metadata"]["name"]), text(&pod["metadata"]["uid"]));
    let labels = HashMap::from([
        ("io.kubernetes.pod.name".to_owned(), name.clone()),
        ("io.kubernetes.pod.namespace".to_owned(), "default".to_owned()),
        ("io.kubernetes.pod.uid".to_owned(), uid.clone()),
    ]);
    let logs = host.dir().join("pods").join(format!("default_{name}_{uid}"));
    let metadata = PodSandboxMetadata {
        name: name.clone(),
        uid: uid.clone(),
        namespace: "default".to_owned(),
        attempt: 0,
    };
    let sandbox = PodSandboxConfig {
        metadata: Some(metadata),
        hostname: name,
        log_directory: logs.display().to_string(),
        labels: labels.clone(),
        annotations: HashMap::from([("kubernetes.io/config.source".to_owned(), "api".to_owned())]),
        linux: Some(LinuxPodSandboxConfig {
            cgroup_parent: format!("/{}/besteffort/pod{uid}", host.netns()),
            ..LinuxPodSandboxConfig::default()
        }),
        ..PodSandboxConfig::default()
    };
    fs::create_dir_all(logs.join("c")).unwrap();
    let id = runtime.run_sandbox(sandbox.clone(), "").await.unwrap();
    let own = &pod["spec"]["containers"][0];
    let image = text(&own["image"]);
    let mut labels = labels;
    labels.insert("io.kubernetes.container.name".to_owned(), "c".to_owned());
    let annotations = [
        ("io.kubernetes.container.hash", kubelet_hash("c", &image)),
        ("io.kubernetes.container.restartCount", "0".to_owned()),
        ("io.kubernetes.container.terminationMessagePath", "/dev/termination-log".to_owned()),
        ("io.kubernetes.container.terminationMessagePolicy", "File".to_owned()),
        ("io.kubernetes.pod.terminationGracePeriod", "2".to_owned()),
    ];
    let container = ContainerConfig {
        metadata: Some(ContainerMetadata { name: "c".to_owned(), attempt: 0 }),
        image: Some(ImageSpec { image, annotations: HashMap::new() }),
        command: own["command"].as_array().unwrap().iter().map(text).collect(),
        labels,
        annotations: annotations.map(|(key, value)| (key.to_owned(), value)).into(),
        log_path: "c/0.log".to_owned(),
        linux: Some(LinuxContainerConfig::default()),
        ..ContainerConfig::default()
    };
    let made = runtime.create_container(&id, container, sandbox).await.unwrap();
    runtime.start_container(&made).await.unwrap();
    made
}
