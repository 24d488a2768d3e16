//! Shapes of pods that charts and operators bring to a node, each as it is applied, and what a kubelet makes of it.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::node::{Machine, Node, WAITS, container, eventually, first, pod, run, text};

fn config_map(name: &str, data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "default", "uid": format!("uid-of-{name}")}, "data": data})
}

/// Waits for a line of a container's log that holds `wanted`.
async fn until_logged(node: &Node, pod: &str, container: &str, wanted: &str) -> String {
    let path = node.settings.logs.join(format!("default_{pod}_uid-of-{pod}/{container}/0.log"));
    let read = || std::fs::read_to_string(&path).unwrap_or_default();
    let found = eventually(async || Some(read()).filter(|log| log.contains(wanted))).await;
    found.unwrap_or_else(|| panic!("{wanted} is not in the log:\n{}\n{:#?}", read(), node.events(pod)))
}

/// The host's files once more, at a place whose mounts propagate, as systemd has `/`; a machine of tests has no such.
struct Shared(PathBuf);

impl Shared {
    fn root_at(at: PathBuf) -> Shared {
        std::fs::create_dir(&at).unwrap();
        mount(&["--bind", "/"], &at);
        let shared = Shared(at);
        mount(&["--make-rshared"], &shared.0);
        shared
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // In reverse order, what was mounted later too.
        drop(Command::new("umount").arg("-R").arg("-l").arg(&self.0).status());
    }
}

fn mount(arguments: &[&str], at: &Path) {
    let done = Command::new("mount").args(arguments).arg(at).status().unwrap();
    assert!(done.success(), "mount {arguments:?} {}", at.display());
}

/// An agent that reads the host: its network, its processes, its files, as a user without rights.
#[test]
fn an_agent_of_the_host_sees_the_host() {
    run(async {
        let host = Machine::new("agent");
        let shared = Shared::root_at(host.dir().join("host"));
        let node = Node::start(&host);
        let mut agent = container(
            "agent",
            &format!(
                "echo \"listening on [$(IP)]:9100\"; ls /host/root/etc >/dev/null && echo root-ok; {WAITS}"
            ),
        );
        agent["args"] = json!(["--listen=[$(IP)]:9100"]);
        agent["env"] = json!([{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]);
        agent["ports"] = json!([{"name": "http", "containerPort": 9100, "hostPort": 9100}]);
        agent["resources"] = json!({"limits": {"cpu": "250m", "memory": "180Mi"},
            "requests": {"cpu": "102m", "memory": "180Mi"}});
        agent["securityContext"] = json!({"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
            "capabilities": {"add": ["SYS_TIME"], "drop": ["ALL"]}});
        agent["volumeMounts"] = json!([
            {"name": "sys", "mountPath": "/host/sys", "mountPropagation": "HostToContainer", "readOnly": true},
            {"name": "root", "mountPath": "/host/root", "mountPropagation": "HostToContainer", "readOnly": true},
        ]);
        let agent = pod(
            "b1",
            "",
            json!({
                "hostNetwork": true, "hostPID": true, "automountServiceAccountToken": true,
                "securityContext": {"runAsNonRoot": true, "runAsUser": 65534, "runAsGroup": 65534},
                "tolerations": [{"operator": "Exists"}], "containers": [agent],
                "volumes": [{"name": "sys", "hostPath": {"path": shared.0.join("sys")}}, {"name": "root", "hostPath": {"path": shared.0}}],
            }),
        );
        node.apply(&[agent]).await;
        let status = node.until_ready("b1").await;
        until_logged(&node, "b1", "agent", "listening on [192.0.2.1]:9100").await;
        until_logged(&node, "b1", "agent", "root-ok").await;
        let hosts = node.exec(&status, &["/bin/cat", "/etc/hosts"]).await;
        assert!(hosts.starts_with("# Kubernetes-managed hosts file (host network).\n"), "{hosts}");
        // What the host mounts later shows, and cannot be written to.
        let late = shared.0.join("mnt");
        mount(&["-t", "tmpfs", "tmpfs"], &late);
        std::fs::write(late.join("late"), "seen").unwrap();
        assert_eq!(node.exec(&status, &["/bin/cat", "/host/root/mnt/late"]).await, "seen");
        assert!(node.exec(&status, &["/bin/touch", "/host/root/new"]).await.contains("Read-only"));
    });
}

/// A config map is mounted below another's path, and the outer one changes.
#[test]
fn a_mount_inside_a_mount_outlives_a_change_of_the_outer_one() {
    run(async {
        let host = Machine::new("nested");
        let node = Node::start(&host);
        let mut agent = container("agent", WAITS);
        agent["volumeMounts"] = json!([
            {"name": "inner", "mountPath": "/etc/mesh/config"}, {"name": "outer", "mountPath": "/etc/mesh"}]);
        let agent = pod(
            "b4",
            "",
            json!({"containers": [agent], "volumes": [
                {"name": "outer", "configMap": {"name": "b4-outer"}},
                {"name": "inner", "configMap": {"name": "b4-inner"}}]}),
        );
        let inner = config_map("b4-inner", json!({"agent.yaml": "v: 1"}));
        node.apply(&[config_map("b4-outer", json!({"psk": "one"})), inner, agent]).await;
        let status = node.until_ready("b4").await;
        let read = async |path: &str| node.exec(&status, &["/bin/cat", path]).await;
        assert_eq!(read("/etc/mesh/psk").await, "one");
        assert_eq!(read("/etc/mesh/config/agent.yaml").await, "v: 1");
        for round in ["two", "three"] {
            node.apply(&[config_map("b4-outer", json!({"psk": round}))]).await;
            let changed = eventually(async || (read("/etc/mesh/psk").await == round).then_some(()));
            changed.await.expect("the outer volume follows its config map");
            assert_eq!(read("/etc/mesh/config/agent.yaml").await, "v: 1", "the inner one is still there");
        }
        let told = config_map("b4-inner", json!({"agent.yaml": "v: 22"}));
        node.apply(&[told]).await;
        let changed =
            eventually(async || (read("/etc/mesh/config/agent.yaml").await == "v: 22").then_some(()));
        changed.await.expect("the inner volume follows its own");
    });
}

/// A user without root writes into sub-paths of an emptyDir.
#[test]
fn a_user_without_root_writes_below_a_sub_path() {
    run(async {
        let host = Machine::new("subpath");
        let node = Node::start(&host);
        let mut broker = container(
            "broker",
            &format!("touch /data/mosquitto.db && echo data-ok; touch /log/x && echo log-ok; {WAITS}"),
        );
        broker["volumeMounts"] = json!([{"name": "v", "mountPath": "/data", "subPath": "data"},
            {"name": "v", "mountPath": "/log", "subPath": "a/b/log"}]);
        let broker = pod(
            "b5",
            "",
            json!({"containers": [broker], "volumes": [{"name": "v", "emptyDir": {}}],
                "securityContext": {"runAsUser": 1883, "runAsGroup": 1883, "fsGroup": 1883}}),
        );
        node.apply(&[broker]).await;
        let status = node.until_ready("b5").await;
        until_logged(&node, "b5", "broker", "log-ok").await;
        until_logged(&node, "b5", "broker", "data-ok").await;
        let shown = node.exec(&status, &["/bin/ls", "-ldn", "/data", "/log"]).await;
        for line in shown.lines() {
            assert!(line.starts_with("drwxrwsrwx"), "{shown}");
            assert_eq!(line.split_whitespace().nth(3), Some("1883"), "{shown}");
        }
    });
}

/// A pod asks for its own full name.
#[test]
fn a_pod_of_a_subdomain_knows_its_full_name() {
    run(async {
        let host = Machine::new("fqdn");
        let node = Node::start(&host);
        let peer = |name: &str, spec: Value| {
            let mut peer = pod(name, WAITS, spec);
            peer["spec"]["subdomain"] = json!("b6-peers");
            peer
        };
        let named = peer(
            "b6",
            json!({"hostname": "b6-0",
            "hostAliases": [{"ip": "192.0.2.9", "hostnames": ["a.example", "b.example"]}]}),
        );
        let long = "x".repeat(40);
        node.apply(&[
            named,
            peer("whole", json!({"setHostnameAsFQDN": true})),
            peer("long", json!({"setHostnameAsFQDN": true, "hostname": long})),
            pod("other", WAITS, json!({"hostnameOverride": "plc.example"})),
        ])
        .await;
        let status = node.until_ready("b6").await;
        let full = "b6-0.b6-peers.default.svc.cluster.local";
        assert_eq!(node.exec(&status, &["/bin/hostname", "-f"]).await.trim(), full);
        assert_eq!(node.exec(&status, &["/bin/hostname"]).await.trim(), "b6-0");
        let ip = text(&status["podIP"]);
        let hosts = node.exec(&status, &["/bin/cat", "/etc/hosts"]).await;
        let own = format!("\n{ip}\t{full}\tb6-0\n");
        assert!(hosts.contains(&own) && hosts.starts_with("# Kubernetes-managed hosts file.\n"), "{hosts}");
        let aliases = "\n\n# Entries added by HostAliases.\n192.0.2.9\ta.example\tb.example\n";
        assert!(hosts.ends_with(aliases), "{hosts}");
        let pinged = node.exec(&status, &["/bin/ping", "-c1", "-W1", full]).await;
        assert!(pinged.contains("1 packets received"), "{pinged}");

        let status = node.until_ready("whole").await;
        let name = node.exec(&status, &["/bin/hostname"]).await;
        assert_eq!(name.trim(), "whole.b6-peers.default.svc.cluster.local");
        let status = node.until_ready("other").await;
        assert_eq!(node.exec(&status, &["/bin/hostname"]).await.trim(), "plc.example");
        let fqdn = format!("{long}.b6-peers.default.svc.cluster.local");
        let refusal = format!(
            "failed to construct FQDN from pod hostname and cluster domain, FQDN {fqdn} is too long (64 \
             characters is the max, {} characters requested)",
            fqdn.len()
        );
        let told = eventually(async || {
            let events = node.events("long");
            let told = |(reason, message): &(String, String)| {
                reason == "FailedCreatePodSandBox" && message.contains(&refusal)
            };
            events.iter().any(told).then_some(())
        });
        told.await.unwrap_or_else(|| panic!("{:#?}", node.events("long")));
    });
}

/// An entry point that edits its configuration in place.
#[test]
fn nobody_writes_into_a_config_map() {
    run(async {
        let host = Machine::new("readonly");
        let node = Node::start(&host);
        let mut app = container(
            "app",
            &format!(
                "echo a=2 > /conf/app.conf && echo WROTE; touch /conf/new && echo MADE; \
                 chmod 777 /conf/..data/ && echo CHMOD; echo tried; {WAITS}"
            ),
        );
        app["volumeMounts"] = json!([{"name": "c", "mountPath": "/conf"}]);
        let app = pod(
            "b7",
            "",
            json!({"containers": [app], "volumes": [{"name": "c", "configMap": {"name": "b7"}}]}),
        );
        node.apply(&[config_map("b7", json!({"app.conf": "a=1"})), app]).await;
        let status = node.until_ready("b7").await;
        let log = until_logged(&node, "b7", "app", "tried").await;
        assert!(!log.contains("WROTE") && !log.contains("MADE") && !log.contains("CHMOD"), "{log}");
        assert_eq!(log.matches("Read-only file system").count(), 3, "{log}");
        assert_eq!(node.exec(&status, &["/bin/cat", "/conf/app.conf"]).await, "a=1");
    });
}

/// What of a stateful set's pod does not need its claim: a secret as one file, two names for one port, an fsGroup.
#[test]
fn a_secret_is_mounted_as_one_file() {
    run(async {
        let host = Machine::new("onefile");
        let node = Node::start(&host);
        let mut broker = container("broker", &format!("touch /data/x && echo ok; {WAITS}"));
        broker["ports"] =
            json!([{"name": "mqtt", "containerPort": 1883}, {"name": "internalmqtt", "containerPort": 1883}]);
        broker["volumeMounts"] = json!([{"name": "data", "mountPath": "/data"},
            {"name": "lic", "mountPath": "/etc/b.lic", "subPath": "b.lic", "readOnly": true}]);
        let broker = pod(
            "b13",
            "",
            json!({"containers": [broker],
                "securityContext": {"fsGroup": 1000, "fsGroupChangePolicy": "Always", "runAsUser": 1000,
                    "supplementalGroups": [1000]},
                "volumes": [{"name": "data", "emptyDir": {}},
                    {"name": "lic", "secret": {"secretName": "b13-lic", "defaultMode": 0o400}}]}),
        );
        // "none"
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "type": "Opaque", "data": {"b.lic": "bm9uZQ=="},
            "metadata": {"name": "b13-lic", "namespace": "default", "uid": "lic"}});
        node.apply(&[secret, broker]).await;
        let status = node.until_ready("b13").await;
        until_logged(&node, "b13", "broker", "ok").await;
        assert_eq!(node.exec(&status, &["/bin/cat", "/etc/b.lic"]).await, "none");
        let shown = node.exec(&status, &["/bin/ls", "-ln", "/etc/b.lic"]).await;
        assert!(shown.starts_with("-r--r-----"), "the group reads what was the owner's alone: {shown}");
    });
}

/// A client with in-cluster configuration: its files are there; whose API server it is to ask stays open at the edge.
#[test]
fn a_client_finds_its_service_account_and_no_api_server() {
    run(async {
        let host = Machine::new("incluster");
        let node = Node::start(&host);
        let at = "/var/run/secrets/kubernetes.io/serviceaccount";
        let mut client = container(
            "a",
            &format!("echo \"host=[$KUBERNETES_SERVICE_HOST] port=[$KUBERNETES_SERVICE_PORT]\"; {WAITS}"),
        );
        client["volumeMounts"] = json!([{"name": "kube-api-access", "mountPath": at, "readOnly": true}]);
        let volume = json!({"name": "kube-api-access", "projected": {"defaultMode": 0o644, "sources": [
            {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}}]}});
        let client = pod("b16", "", json!({"containers": [client], "volumes": [volume]}));
        node.apply(&[config_map("kube-root-ca.crt", json!({"ca.crt": "PEM"})), client]).await;
        let status = node.until_ready("b16").await;
        until_logged(&node, "b16", "a", "host=[] port=[]").await;
        for (name, content) in [("token", "token 0"), ("ca.crt", "PEM"), ("namespace", "default")] {
            assert_eq!(node.exec(&status, &["/bin/cat", &format!("{at}/{name}")]).await, content);
        }
        let env = node.exec(&status, &["/bin/env"]).await;
        assert!(!env.contains("KUBERNETES_PORT"), "by it EdgeMesh tells the cloud from the edge: {env}");
        assert_eq!(first(&status)["restartCount"], 0);
    });
}
