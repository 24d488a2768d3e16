//! Thirty pods in the shapes that charts, add-ons and guides bring to a node, each with its own command, on an image whose
//! programs ask of the node what the real ones ask ([`standin.sh`](popular/standin.sh)). Each does its work, or is refused in a
//! kubelet's sentence: the annotation `shows` is what its log has to hold, `ends` its phase, `refused` a word of the refusal.

use std::path::Path;

use serde_json::{Value, json};
use testhost::{BUSYBOX, Entry, Image};

use crate::node::{Machine, Node, deleted, eventually, first, run, text};

const STANDIN: &str = "kubehive.test/standin:1";
/// What the manifests call, beside busybox's applets.
const PROGRAMS: [&str; 16] = [
    "nginx",
    "redis-server",
    "redis-cli",
    "mysqld",
    "mysql",
    "mysqladmin",
    "postgres",
    "pg_isready",
    "mosquitto",
    "start-zookeeper",
    "zookeeper-ready",
    "nodetool",
    "perl",
    "vault",
    "kube-proxy",
    "local-path-provisioner",
];

fn standin() -> Image {
    let mut image = Image::busybox(BUSYBOX).unwrap();
    STANDIN.clone_into(&mut image.name);
    let script = include_str!("popular/standin.sh").to_owned();
    for folder in ["usr", "usr/local", "usr/local/bin", "www"] {
        image.entries.push(Entry::Folder(folder.into(), 0o755));
    }
    image.entries.push(Entry::Text("usr/local/bin/standin".into(), script, 0o755));
    image.entries.push(Entry::Text("www/index.html".into(), "here\n".into(), 0o644));
    for program in PROGRAMS {
        image.entries.push(Entry::Link(format!("usr/local/bin/{program}"), "standin".into()));
    }
    for (at, of) in [("wait-shutdown", "usr/local/bin/standin"), ("ready-probe.sh", "usr/local/bin/standin")]
    {
        image.entries.push(Entry::Link(at.into(), of.into()));
    }
    // A shell by that name; busybox has no applet of it.
    image.entries.push(Entry::Text("bin/bash".into(), "#!/bin/sh\nexec /bin/sh \"$@\"\n".into(), 0o755));
    image.entrypoint = vec!["/usr/local/bin/standin".into()];
    image.cmd = Vec::new();
    image.env = vec!["PATH=/usr/local/bin:/bin".into()];
    image
}

/// What agents find on a machine.
fn furnish(machine: &Path) {
    for folder in ["shared", "modules", "device-plugins", "kubeedge", "log/containers"] {
        std::fs::create_dir_all(machine.join(folder)).unwrap();
    }
    let files = [
        ("localtime", "UTC"),
        ("kmsg", "a line of the kernel"),
        ("kubeedge/dmi.sock", ""),
        ("log/containers/app.log", "a line of a pod"),
    ];
    for (file, content) in files {
        std::fs::write(machine.join(file), content).unwrap();
    }
}

/// The objects of a manifest as the API server hands them on, its pod last.
fn objects(manifest: &str, machine: &Path, address: &str) -> Vec<Value> {
    let manifest = manifest.replace("HOST/", &format!("{}/", machine.display())).replace("NODE_IP", address);
    let mut list = config::yaml_document(&manifest).unwrap();
    let mut objects = std::mem::take(list["items"].as_array_mut().unwrap());
    for object in &mut objects {
        let uid = format!("uid-of-{}", text(&object["metadata"]["name"]));
        let metadata = object["metadata"].as_object_mut().unwrap();
        metadata.insert("namespace".into(), json!("default"));
        metadata.insert("uid".into(), json!(uid));
        metadata.insert("creationTimestamp".into(), json!("2026-01-01T00:00:00Z"));
        if object["kind"] == "Pod" {
            complete(object["spec"].as_object_mut().unwrap());
        }
    }
    objects
}

/// What the API server fills in, the image that stands in, and the ports at which its programs listen.
fn complete(spec: &mut serde_json::Map<String, Value>) {
    let defaults = json!({"restartPolicy": "Always", "nodeName": "edge-1", "dnsPolicy": "Default",
        "serviceAccountName": "default", "terminationGracePeriodSeconds": 5});
    for (key, value) in defaults.as_object().unwrap() {
        spec.entry(key.clone()).or_insert_with(|| value.clone());
    }
    for field in ["initContainers", "containers"] {
        for container in spec.get_mut(field).and_then(Value::as_array_mut).into_iter().flatten() {
            let ports = container["ports"].as_array().cloned().unwrap_or_default();
            let tcp = ports.iter().filter(|port| port["protocol"] != "UDP");
            let mut ports: Vec<u64> = tcp.map(|port| port["containerPort"].as_u64().unwrap()).collect();
            ports.sort_unstable();
            let ports: Vec<String> = ports.iter().map(u64::to_string).collect();
            container["image"] = json!(STANDIN);
            container["imagePullPolicy"] = json!("IfNotPresent");
            let listen = json!({"name": "LISTEN", "value": ports.join(" ")});
            match container["env"].as_array_mut() {
                Some(env) => env.push(listen),
                None => container["env"] = json!([listen]),
            }
        }
    }
}

/// Waits until the pod has done what its annotations say.
async fn does_its_work(node: &Node, pod: &Value) {
    let name = text(&pod["metadata"]["name"]);
    let told = |annotation: &str| pod["metadata"]["annotations"][annotation].as_str();
    if let Some(word) = told("refused") {
        let refused = |status: &Value| status["phase"] == "Failed" && text(&status["message"]).contains(word);
        node.until(&name, "its refusal", refused).await;
        return;
    }
    let status = match told("ends") {
        Some(phase) => node.until(&name, phase, |status| status["phase"] == phase).await,
        None => node.until_ready(&name).await,
    };
    let container = text(&pod["spec"]["containers"][0]["name"]);
    let wanted = told("shows").unwrap();
    let log = || node.log(&name, &container, 0);
    let found = eventually(async || log().contains(wanted).then_some(())).await;
    assert!(found.is_some(), "{name} does not show `{wanted}`:\n{}", log());
    assert_eq!(first(&status)["restartCount"], 0, "{name} began anew");
}

#[test]
fn thirty_popular_pods_do_their_work_or_are_refused_in_a_sentence() {
    run(async {
        let host = Machine::with_uplink("popular");
        host.import(&standin()).unwrap();
        let machine = host.dir().join("machine");
        furnish(&machine);
        let (address, _) = host.uplink().unwrap();
        let node = Node::start_set(&host, |settings| settings.node_ips = vec![address.clone()]);
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pods/popular");
        let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let mut manifests: Vec<_> =
            files.filter(|path| path.extension().is_some_and(|kind| kind == "yaml")).collect();
        manifests.sort();
        assert!(manifests.len() >= 30);
        for some in manifests.chunks(8) {
            let read = |path| objects(&std::fs::read_to_string(path).unwrap(), &machine, &address);
            let all: Vec<Value> = some.iter().flat_map(read).collect();
            node.apply(&all).await;
            let pods: Vec<&Value> = all.iter().filter(|object| object["kind"] == "Pod").collect();
            for pod in &pods {
                does_its_work(&node, pod).await;
            }
            let ended: Vec<Value> = pods.iter().map(|pod| deleted(pod, 5)).collect();
            node.apply(&ended).await;
            for pod in &pods {
                node.until_gone(&text(&pod["metadata"]["name"])).await;
            }
        }
    });
}
