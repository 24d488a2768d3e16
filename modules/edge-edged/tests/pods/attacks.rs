//! What a container, another user of the machine and another tenant try, and are refused.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::node::{Machine, Node, WAITS, container, eventually, first, pod, run, text};

const KEYS: usize = 60;
const UPDATES: usize = 200;

/// A folder of the host that no container has any business with.
struct Outside {
    path: PathBuf,
    before: [i64; 4],
}

impl Outside {
    fn new(host: &Machine) -> Outside {
        let path = host.dir().join("outside");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("canary"), "hush").unwrap();
        let before = Outside::stamps(&path);
        Outside { path, before }
    }

    /// Every write, change of mode or owner, and new or lost name moves one of these.
    fn stamps(path: &Path) -> [i64; 4] {
        let (folder, file) = (fs::metadata(path).unwrap(), fs::metadata(path.join("canary")).unwrap());
        [folder.ctime(), folder.ctime_nsec(), file.ctime(), file.ctime_nsec()]
    }

    fn is_untouched(&self) -> bool {
        Outside::stamps(&self.path) == self.before
    }
}

fn map(round: usize) -> Value {
    let data: serde_json::Map<String, Value> =
        (0..KEYS).map(|key| (format!("k{key}"), json!(format!("{round}-{key}")))).collect();
    json!({"apiVersion": "v1", "kind": "ConfigMap", "data": data,
        "metadata": {"name": "m", "namespace": "default", "uid": "m"}})
}

fn secret() -> Value {
    // "hush"
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "key", "namespace": "default", "uid": "s"},
        "type": "Opaque", "data": {"pass": "aHVzaA=="}})
}

/// Exchanges whatever shows up in the volumes for a link that leads out, counts what worked, and never stops.
fn attacker(name: &str, user: i64, outside: &Path) -> Value {
    let outside = outside.display();
    let script = format!(
        "trap 'exit 0' TERM; tries=0; won=0; win() {{ won=$((won+1)); }}
         while true; do
           for v in /map /secret /all /labels /part; do
             ln -s {outside} $v/..trap 2>/dev/null && win
             for d in $v/..[0-9a-f]* $v/..data $v/k7; do
               mv $d $v/..gone 2>/dev/null && win
               ln -sfn {outside} $d 2>/dev/null && win
             done
             touch $v/x 2>/dev/null && win
             chmod 777 $v 2>/dev/null && win
             mount -o remount,rw $v 2>/dev/null && win
           done
           tries=$((tries+1)); echo $tries $won > /scratch/new-{name}; mv /scratch/new-{name} /scratch/{name}
         done"
    );
    let mut container = container(name, &script);
    container["volumeMounts"] = json!([
        {"name": "scratch", "mountPath": "/scratch"},
        // The pod asks for write access, and gets none.
        {"name": "map", "mountPath": "/map", "readOnly": false},
        {"name": "secret", "mountPath": "/secret"},
        {"name": "all", "mountPath": "/all"},
        {"name": "labels", "mountPath": "/labels"},
        {"name": "map", "mountPath": "/part", "subPath": "..data"},
    ]);
    container["securityContext"] = json!({"runAsUser": user, "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]}});
    container
}

#[test]
fn no_container_gets_out_through_a_volume_in_two_hundred_updates() {
    run(async {
        let host = Machine::new("attack");
        let node = Node::start(&host);
        let outside = Outside::new(&host);
        let attackers = [attacker("root", 0, &outside.path), attacker("group", 1000, &outside.path)];
        let pod = pod(
            "attacker",
            "",
            json!({
                "containers": attackers,
                "securityContext": {"fsGroup": 4321},
                "volumes": [
                    {"name": "scratch", "emptyDir": {}},
                    {"name": "map", "configMap": {"name": "m", "defaultMode": 0o666}},
                    {"name": "secret", "secret": {"secretName": "key"}},
                    {"name": "labels", "downwardAPI": {"items": [
                        {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
                    {"name": "all", "projected": {"sources": [{"configMap": {"name": "m"}},
                        {"serviceAccountToken": {"path": "token"}}]}},
                ],
            }),
        );
        node.apply(&[map(0), secret(), pod]).await;
        node.until_ready("attacker").await;
        let volumes = node.pod_folder("attacker").join("volumes");
        let scratch = volumes.join("kubernetes.io~empty-dir/scratch");
        // Rounds, and what worked in them. The file is put in its place whole: who reads it never finds it empty.
        let told = |name: &str| -> Option<(u64, u64)> {
            let text = fs::read_to_string(scratch.join(name)).ok()?;
            let (tries, won) = text.trim().split_once(' ')?;
            Some((tries.parse().ok()?, won.parse().ok()?))
        };
        eventually(async || Some((told("root")?, told("group")?))).await.expect("both try");
        let file = volumes.join("kubernetes.io~configmap/map/k0");
        for round in 1..=UPDATES {
            node.apply(&[map(round)]).await;
            let wanted = format!("{round}-0");
            let arrived =
                eventually(async || fs::read_to_string(&file).is_ok_and(|text| text == wanted).then_some(()));
            arrived.await.unwrap_or_else(|| panic!("update {round} does not arrive"));
        }
        assert!(outside.is_untouched(), "a container has reached a folder of the host");
        let rounds = async || {
            let (root, group) = (told("root")?, told("group")?);
            (root.0 > 10 && group.0 > 10).then_some((root, group))
        };
        let (root, group) = eventually(rounds).await.expect("both go on");
        assert_eq!((root.1, group.1), (0, 0), "something worked");
        let tries = (root.0, group.0);
        eprintln!("{UPDATES} updates of {KEYS} keys under attack, {tries:?} rounds of it: 0 writes outside");
    });
}

#[test]
fn termination_messages_and_hosts_files_are_no_way_out() {
    run(async {
        let host = Machine::new("words");
        let node = Node::start(&host);
        let script = "rm -f /dev/termination-log; ln -s /etc/passwd /dev/termination-log; mkfifo /dev/termination-log;
            dd if=/dev/zero bs=1k count=5000 of=/etc/hosts 2>/dev/null;
            { dd if=/dev/zero bs=1k count=3000 2>/dev/null | tr '\\0' x; echo end; } > /dev/termination-log; exit 3";
        node.apply(&[pod("writer", script, json!({"restartPolicy": "Never"}))]).await;
        let status = node.until("writer", "its end", |status| status["phase"] == "Failed").await;
        let message = text(&first(&status)["state"]["terminated"]["message"]);
        assert!(message.len() <= 4096 && message.ends_with("xend\n"), "{} bytes", message.len());
        assert!(!message.contains("root:"));

        // What a container wrote into its hosts file is gone with the next start.
        let script = "grep -q mine /etc/hosts && exit 0; echo mine >> /etc/hosts; exit 1";
        node.apply(&[pod("hosts", script, json!({"restartPolicy": "OnFailure"}))]).await;
        node.until("hosts", "a second start", |status| {
            first(status)["restartCount"].as_u64() >= Some(2) && status["phase"] != "Succeeded"
        })
        .await;
    });
}

#[test]
fn what_belongs_to_the_machine_is_hidden_and_unsafe_sysctls_need_a_word() {
    run(async {
        let host = Machine::new("masks");
        let node = Node::start(&host);
        let sysctls = |name: &str, value: &str| json!({"securityContext": {"sysctls": [{"name": name, "value": value}]}});
        node.apply(&[
            pod("safe", WAITS, sysctls("net.ipv4.ip_unprivileged_port_start", "7")),
            pod("unsafe", WAITS, sysctls("kernel.msgmax", "9000")),
        ])
        .await;
        let status = node.until_ready("safe").await;
        let port = node.exec(&status, &["/bin/cat", "/proc/sys/net/ipv4/ip_unprivileged_port_start"]).await;
        assert_eq!(port.trim(), "7");
        assert_eq!(node.exec(&status, &["/bin/cat", "/proc/interrupts", "/proc/timer_list"]).await, "");
        let refused = node.until("unsafe", "its refusal", |status| status["phase"] == "Failed").await;
        assert_eq!(refused["reason"], "SysctlForbidden");
        let bare = "forbidden sysctl: \"kernel.msgmax\" not allowlisted";
        assert_eq!(text(&refused["message"]), format!("Pod was rejected: {bare}"));
        let event = ("SysctlForbidden".to_owned(), bare.to_owned());
        eventually(async || node.events("unsafe").contains(&event).then_some(())).await.expect("the event");
    });
}

#[test]
fn another_user_of_the_machine_sees_nothing_of_a_pod() {
    run(async {
        let host = Machine::new("local");
        fs::set_permissions(host.dir(), fs::Permissions::from_mode(0o755)).unwrap();
        // As an older release left it.
        fs::create_dir_all(host.dir().join("kubelet/pods")).unwrap();
        for open in ["kubelet", "kubelet/pods"] {
            fs::set_permissions(host.dir().join(open), fs::Permissions::from_mode(0o777)).unwrap();
        }
        let node = Node::start(&host);
        let mut reader = container("c", WAITS);
        // Inside, whoever the container is may read what it mounts.
        reader["securityContext"] = json!({"runAsUser": 12345});
        reader["volumeMounts"] = json!([{"name": "s", "mountPath": "/s"}, {"name": "e", "mountPath": "/e"}]);
        let spec = json!({"containers": [reader],
            "volumes": [{"name": "s", "secret": {"secretName": "key"}}, {"name": "e", "emptyDir": {}}]});
        node.apply(&[secret(), pod("p", "", spec)]).await;
        let status = node.until_ready("p").await;
        assert_eq!(node.exec(&status, &["/bin/cat", "/s/pass"]).await, "hush");
        assert_eq!(node.exec(&status, &["/bin/touch", "/e/mine"]).await, "");
        let volumes = node.pod_folder("p").join("volumes");
        let empty = volumes.join("kubernetes.io~empty-dir/e");
        for (program, at) in [
            ("ls", node.settings.root.clone()),
            ("ls", node.settings.root.join("pods")),
            ("cat", volumes.join("kubernetes.io~secret/s/pass")),
            ("touch", empty.join("x")),
            ("cat", node.pod_folder("p").join("etc-hosts")),
            ("cat", node.settings.logs.join("default_p_uid-of-p/c/0.log")),
        ] {
            let tried = Command::new(program).arg(&at).uid(65534).gid(65534).output().unwrap();
            let said = String::from_utf8_lossy(&tried.stderr).into_owned();
            assert!(!tried.status.success() && said.contains("Permission denied"), "{program}: {said}");
        }
        assert!(empty.join("mine").exists() && !empty.join("x").exists());
    });
}

#[test]
fn an_image_that_was_pulled_with_a_credential_is_not_anybodys() {
    run(async {
        let host = Machine::new("images");
        let node = Node::start(&host);
        let image = node.runtime.image_status(testhost::BUSYBOX).await.unwrap().unwrap();
        // As the pull with the secret `mine` left it.
        let record = json!({"apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "ImagePulledRecord",
            "lastUpdatedTime": "2026-01-01T00:00:00Z", "imageRef": image.id,
            "credentialMapping": {"kubehive.test/busybox": {"kubernetesSecrets": [
                {"uid": "s", "namespace": "default", "name": "mine", "credentialHash": "h"}]}}});
        let folder = node.settings.root.join("image_manager/pulled");
        fs::create_dir_all(&folder).unwrap();
        let name = format!("sha256-{:x}", Sha256::digest(image.id.as_bytes()));
        fs::write(folder.join(name), record.to_string()).unwrap();
        // {"auths": {"kubehive.test": {"username": "u", "password": "p"}}}
        let auths =
            "eyJhdXRocyI6IHsia3ViZWhpdmUudGVzdCI6IHsidXNlcm5hbWUiOiAidSIsICJwYXNzd29yZCI6ICJwIn19fQ==";
        let mine = json!({"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/dockerconfigjson",
            "metadata": {"name": "mine", "namespace": "default", "uid": "s"}, "data": {".dockerconfigjson": auths}});
        let mut never = container("c", WAITS);
        never["imagePullPolicy"] = json!("Never");
        node.apply(&[
            mine,
            pod("owner", WAITS, json!({"imagePullSecrets": [{"name": "mine"}]})),
            pod("stranger", WAITS, json!({})),
            pod("never", "", json!({"containers": [never]})),
        ])
        .await;
        node.until_ready("owner").await;
        let waits = |status: &Value| text(&first(status)["state"]["waiting"]["reason"]);
        node.until("never", "its refusal", |status| waits(status) == "ErrImageNeverPull").await;
        // Its registry is asked, and there is none.
        node.until("stranger", "a failed pull", |status| {
            ["ErrImagePull", "ImagePullBackOff"].contains(&waits(status).as_str())
        })
        .await;
    });
}
