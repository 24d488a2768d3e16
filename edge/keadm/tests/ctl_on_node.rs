//! `keadm ctl get|describe|logs|exec|restart|edit` with the program itself on a node that is cut off: edgecore, its socket, its store and the
//! container runtime are real, and CloudCore has ended.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use cri::Grpc;
use harness::{Cluster, Node, run};
use serde_json::{Value, json};
use testhost::{BUSYBOX, TestHost};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

const DEVICES: &str = "devices.kubeedge.io/v1beta1";
const WITHIN: Duration = Duration::from_secs(60);
/// Says lines, and how it is ended.
const SPEAKS: &str =
    "trap 'echo asked to end; exit 0' TERM; n=0; while true; do echo line $n; n=$((n+1)); sleep 0.2; done";

/// What keadm did.
#[derive(Debug)]
struct Done {
    code: Option<i32>,
    out: String,
    err: String,
}

/// `keadm ctl` on a node.
struct Ctl {
    config: PathBuf,
}

impl Ctl {
    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_keadm"));
        let (verb, rest) =
            words.split_at(words.iter().position(|word| word.starts_with('-')).unwrap_or(words.len()));
        command.arg("ctl").args(verb).arg("--config").arg(&self.config).args(rest);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    async fn try_run(&self, words: &[&str]) -> Done {
        done(self.command(words)).await
    }

    async fn run(&self, words: &[&str]) -> String {
        let done = self.try_run(words).await;
        assert_eq!(done.code, Some(0), "{words:?}: {done:?}");
        done.out
    }

    async fn refused(&self, words: &[&str]) -> String {
        let done = self.try_run(words).await;
        assert_eq!(done.code, Some(1), "{words:?}: {done:?}");
        done.err
    }

    async fn pod(&self, name: &str) -> Value {
        serde_json::from_str(&self.run(&["get", "pod", name, "-o", "json"]).await).unwrap()
    }
}

async fn done(mut command: Command) -> Done {
    let output = command.output().await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Done { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

/// A node with a socket over a real runtime, and the file that keadm reads.
async fn node(cluster: &mut Cluster, host: &TestHost) -> (Node, Ctl) {
    let endpoint = host.endpoint();
    let mut node =
        cluster.node_over("edge-1", Arc::new(Grpc::new(&endpoint, &endpoint, WITHIN).unwrap())).await;
    node.stop().await;
    let folder = node.folder().to_owned();
    node.configure(|settings| settings.modules.edge_stream.socket = folder.join("kubelet.sock"));
    node.start().await;
    cluster.until_ready(&node).await;
    let mut settings = node.settings().clone();
    // As `keadm join` writes it. keadm reads where the socket, the store and the runtime are, and no more.
    settings.modules.edge_hub.http_server = "https://cloud:10002".to_owned();
    settings.modules.edge_hub.quic.server = "cloud:10001".to_owned();
    settings.modules.device_twin.dmi_sock_path = folder.join("mappers");
    settings.modules.edged.tailored_kubelet_config.container_runtime_endpoint = endpoint;
    let config = folder.join("edgecore.yaml");
    std::fs::write(&config, serde_saphyr::to_string(&settings).unwrap()).unwrap();
    (node, Ctl { config })
}

async fn apply(cluster: &Cluster) {
    for (name, policy) in [("web", "Always"), ("once", "Never")] {
        let containers = json!([
            {"name": "c", "image": BUSYBOX, "imagePullPolicy": "IfNotPresent", "command": ["/bin/sh", "-c", SPEAKS]},
            {"name": "d", "image": BUSYBOX, "imagePullPolicy": "IfNotPresent", "command": ["/bin/sh", "-c", SPEAKS]}]);
        let spec = json!({"nodeName": "edge-1", "restartPolicy": policy, "terminationGracePeriodSeconds": 5,
            "automountServiceAccountToken": false, "dnsPolicy": "Default", "containers": containers});
        let metadata = json!({"name": name, "namespace": "default", "labels": {"app": name}});
        cluster.apply("v1", "Pod", json!({"metadata": metadata, "spec": spec})).await;
    }
    let properties = json!([
        {"name": "level", "type": "INT", "accessMode": "ReadWrite", "minimum": "0", "maximum": "100"},
        {"name": "fill", "type": "INT", "accessMode": "ReadOnly"}]);
    let model = json!({"metadata": {"name": "tanks", "namespace": "default"}, "spec": {"protocol": "nobodys", "properties": properties}});
    cluster.apply(DEVICES, "DeviceModel", model).await;
    let spec = json!({"deviceModelRef": {"name": "tanks"}, "nodeName": "edge-1", "protocol": {"protocolName": "nobodys"},
        "properties": [{"name": "level", "desired": {"value": "41"}}, {"name": "fill"}]});
    let device =
        json!({"metadata": {"name": "tank", "namespace": "default", "labels": {"plant": "a"}}, "spec": spec});
    cluster.apply(DEVICES, "Device", device).await;
}

async fn pods(ctl: &Ctl) {
    let table = ctl.run(&["get", "pods"]).await;
    let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["NAME", "READY", "STATUS", "RESTARTS", "AGE"]);
    assert_eq!((lines[1][0], lines[2][0], lines.len()), ("once", "web", 3), "{table}");
    assert_eq!(lines[2][1..4], ["2/2", "Running", "0"], "{table}");
    let wide = ctl.run(&["get", "pod", "-A", "-l", "app=web", "-o", "wide"]).await;
    assert!(wide.starts_with("NAMESPACE") && wide.contains("edge-1") && !wide.contains("once"), "{wide}");
    assert_eq!(ctl.run(&["get", "po", "-o", "name"]).await, "pod/once\npod/web\n");
    let yaml = ctl.run(&["get", "pod", "web", "-o", "yaml"]).await;
    assert!(yaml.contains("kind: Pod") && yaml.contains("phase: Running"), "{yaml}");
    let nothing = ctl.try_run(&["get", "pod", "-n", "shop"]).await;
    let words = ("", "No resources found in shop namespace.\n");
    assert_eq!((nothing.out.as_str(), nothing.err.as_str()), words);
    let missing = ctl.refused(&["get", "pod", "till"]).await;
    assert_eq!(missing, "keadm: pod \"till\" of namespace default is not on this node\n");
    let described = ctl.run(&["describe", "pod", "web"]).await;
    for wanted in [
        "Name:             web",
        "  c:\n    Container ID:   containerd://",
        "    State:          Running",
        "Normal   Started",
    ] {
        assert!(described.contains(wanted), "{wanted}\n---\n{described}");
    }
}

async fn logs(ctl: &Ctl) {
    let tail = ctl.run(&["logs", "web", "-c", "d", "--tail", "2"]).await;
    let lines: Vec<&str> = tail.lines().collect();
    assert!(lines.len() == 2 && lines.iter().all(|line| line.starts_with("line ")), "{tail}");
    let first = ctl.try_run(&["logs", "web", "--timestamps", "--limit-bytes=40"]).await;
    assert!(first.out.contains("T") && first.out.contains("line 0"), "{first:?}");
    assert!(first.err.contains("Defaulted container \"c\" out of: c, d"), "{first:?}");
    let refused = ctl.refused(&["logs", "web", "-c", "c", "-p"]).await;
    assert!(refused.contains("previous terminated container \"c\" in pod \"web\" not found"), "{refused}");
    // It goes on.
    let mut follows = ctl.command(&["logs", "web", "-c", "c", "-f", "--tail=0"]).spawn().unwrap();
    let mut lines = BufReader::new(follows.stdout.take().unwrap()).lines();
    for _ in 0..3 {
        let line =
            tokio::time::timeout(WITHIN, lines.next_line()).await.expect("the next line").unwrap().unwrap();
        assert!(line.starts_with("line "), "{line}");
    }
}

async fn exec(ctl: &Ctl) {
    let script = "echo out; echo err >&2; cat /proc/1/comm; exit 3";
    let ended = ctl.try_run(&["exec", "web", "-c", "d", "--", "/bin/sh", "-c", script]).await;
    assert_eq!((ended.code, ended.out.as_str()), (Some(3), "out\nsh\n"), "{ended:?}");
    assert_eq!(ended.err, "err\ncommand terminated with exit code 3\n");
    assert_eq!(ctl.run(&["exec", "web", "-c", "c", "--", "echo", "a b", "$HOME"]).await, "a b $HOME\n");
    for flag in ["-i", "-t"] {
        let refused = ctl.refused(&["exec", "web", flag, "--", "sh"]).await;
        assert!(
            refused.contains(&format!("{flag} is not there")) && refused.contains("crictl exec"),
            "{refused}"
        );
    }
    let refused = ctl.refused(&["exec", "web", "-c", "x", "--", "sh"]).await;
    assert!(refused.contains("container \"x\" is not one of pod web: it has c, d"), "{refused}");
}

async fn restart(cluster: &Cluster, ctl: &Ctl) {
    let before = ctl.pod("web").await;
    let said = ctl.run(&["restart", "pod", "web"]).await;
    assert_eq!(said, "pod/web restarts: its containers end, and begin again\n");
    let again = async || {
        let status = ctl.pod("web").await["status"].clone();
        let both = status["containerStatuses"].as_array().cloned().unwrap_or_default();
        both.len() == 2 && both.iter().all(|own| own["restartCount"] == 1 && own["ready"] == true)
    };
    cluster.until_async("both containers begin again", again).await;
    let after = ctl.pod("web").await;
    assert_ne!(
        before["status"]["containerStatuses"][0]["containerID"],
        after["status"]["containerStatuses"][0]["containerID"]
    );
    // They had their grace, and the pod is the same one.
    let ended = &after["status"]["containerStatuses"][0]["lastState"]["terminated"];
    assert_eq!(ended["exitCode"], 0, "{after}");
    assert_eq!(before["status"]["podIP"], after["status"]["podIP"]);
    assert!(ctl.run(&["logs", "web", "-c", "c", "--previous"]).await.ends_with("asked to end\n"));
    let described = ctl.run(&["describe", "pod", "web"]).await;
    assert!(described.contains("was asked to begin again on the node, will be restarted"), "{described}");
    let refused = ctl.refused(&["restart", "pod", "once", "none"]).await;
    assert!(
        refused.contains("pod/once cannot restart: its policy would not begin container c again"),
        "{refused}"
    );
    assert!(refused.contains("pod/none cannot restart: it is not on this node"), "{refused}");
    let once = ctl.pod("once").await;
    assert!(once["status"]["containerStatuses"][0]["state"]["running"].is_object(), "{once}");
}

async fn devices(ctl: &Ctl, folder: &Path) {
    let table = ctl.run(&["get", "device", "-l", "plant=a"]).await;
    assert!(
        table.starts_with("NAME   STATE") && table.contains("tank") && table.contains("nobodys"),
        "{table}"
    );
    let described = ctl.run(&["describe", "device", "tank"]).await;
    assert!(described.contains("Model:        tanks") && described.contains("level   41"), "{described}");
    let yaml = ctl.run(&["get", "device", "tank", "-o", "yaml"]).await;
    assert!(yaml.contains("kind: Device") && yaml.contains("protocolName: nobodys"), "{yaml}");
    let said = ctl.run(&["edit", "device", "tank", "--set", "level=42"]).await;
    assert!(said.contains("`level` should be `42` until the cloud's value changes"), "{said}");
    assert!(ctl.run(&["describe", "device", "tank"]).await.contains("level   42"));
    let refused = ctl.refused(&["edit", "device", "tank", "--set", "level=101"]).await;
    assert!(refused.contains("above the maximum, 100"), "{refused}");
    let refused = ctl.refused(&["edit", "device", "tank", "--set", "fill=1"]).await;
    assert!(refused.contains("`fill` is not set") && refused.contains("ReadOnly"), "{refused}");
    let refused = ctl.refused(&["edit", "device", "tank", "--set", "speed=1"]).await;
    assert!(refused.contains("no property speed") && refused.contains("kubectl edit device"), "{refused}");
    // By an editor: a program that writes another value in.
    let editor = folder.join("editor");
    std::fs::write(&editor, "#!/bin/sh\nsed -i \"s/42/7/\" \"$1\"\n").unwrap();
    std::fs::set_permissions(&editor, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut edit = ctl.command(&["edit", "device", "tank"]);
    let edited = done({
        edit.env("KUBE_EDITOR", &editor);
        edit
    })
    .await;
    assert!(edited.code == Some(0) && edited.out.contains("`level` should be `7`"), "{edited:?}");
    let mut untouched = ctl.command(&["edit", "device", "tank"]);
    untouched.env("KUBE_EDITOR", "true");
    assert_eq!(done(untouched).await.out, "Edit cancelled, no changes made.\n");
    let back = ctl.run(&["edit", "device", "tank", "--set", "level="]).await;
    assert!(back.contains("`level` should be what the cloud says"), "{back}");
}

#[test]
fn pods_and_devices_of_a_node_that_is_cut_off_are_shown_told_to_begin_again_and_set() {
    let host = TestHost::new("ctl").unwrap();
    run(async || {
        let mut cluster = Cluster::spawn().await;
        let (mut node, ctl) = node(&mut cluster, &host).await;
        apply(&cluster).await;
        let all_run = async || {
            let table = ctl.run(&["get", "pods"]).await;
            let device = ctl.run(&["get", "device"]).await;
            table.matches("2/2").count() == 2 && device.contains("tank")
        };
        cluster.until_async("both pods run and the device is here", all_run).await;
        cluster.stop_cloud().await;

        pods(&ctl).await;
        logs(&ctl).await;
        exec(&ctl).await;
        restart(&cluster, &ctl).await;
        devices(&ctl, node.folder()).await;
        node.stop().await;
        let gone = ctl.refused(&["get", "pods"]).await;
        assert!(gone.contains("edgecore cannot be reached at"), "{gone}");
    });
    drop(host);
}
