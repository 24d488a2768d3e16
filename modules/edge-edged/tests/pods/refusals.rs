//! Pods that a node turns away, in a kubelet's words.

use contract::edged::EdgedMsg;
use edge_store::{ObjectKey, Write};
use serde_json::{Value, json};

use crate::node::{Machine, Node, WAITS, container, deleted, eventually, first, pod, run, text};

async fn until_rejected(node: &Node, pod: &str, reason: &str, message: &str) {
    let status = node.until(pod, "its refusal", |status| status["reason"] == reason).await;
    assert_eq!(status["phase"], "Failed", "{pod}");
    assert_eq!(status["message"], format!("Pod was rejected: {message}"), "{pod}");
    let told = eventually(async || {
        node.events(pod).contains(&(reason.to_owned(), message.to_owned())).then_some(())
    });
    told.await.unwrap_or_else(|| panic!("no event says why: {:#?}", node.events(pod)));
}

/// What hardened charts set; and sysctls of the safe set, of the unsafe set and of the host.
#[test]
fn what_the_kernel_lacks_is_ignored_or_refused_as_a_kubelet_does() {
    run(async {
        let host = Machine::new("kernel");
        let node = Node::start(&host);
        let mut labelled = container("a", WAITS);
        labelled["securityContext"] = json!({"seLinuxOptions": {"level": "s0", "type": "spc_t"}});
        let mut annotated = pod("b8-annotation", WAITS, json!({}));
        annotated["metadata"]["annotations"] =
            json!({"container.apparmor.security.beta.kubernetes.io/c": "runtime/default"});
        let sysctls = |list: Value| json!({"securityContext": {"sysctls": list}});
        let mut on_host =
            pod("b10-host", WAITS, sysctls(json!([{"name": "net.ipv4.ip_forward", "value": "0"}])));
        on_host["spec"]["hostNetwork"] = json!(true);
        node.apply(&[
            pod("b8-selinux", "", json!({"containers": [labelled]})),
            pod(
                "b8-apparmor",
                WAITS,
                json!({"securityContext": {"appArmorProfile": {"type": "RuntimeDefault"},
                "seccompProfile": {"type": "RuntimeDefault"}}}),
            ),
            annotated,
            pod("b10-safe", WAITS, sysctls(json!([{"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}]))),
            pod(
                "b10-unsafe",
                WAITS,
                sysctls(json!([{"name": "net.core.somaxconn", "value": "1024"}, {"name": "kernel.msgmax", "value": "65536"}])),
            ),
            on_host,
        ])
        .await;
        node.until_ready("b8-selinux").await;
        let status = node.until_ready("b10-safe").await;
        let port = node.exec(&status, &["/bin/cat", "/proc/sys/net/ipv4/ip_unprivileged_port_start"]).await;
        assert_eq!(port.trim(), "0");
        let unsafe_one = "forbidden sysctl: \"net.core.somaxconn\" not allowlisted";
        until_rejected(&node, "b10-unsafe", "SysctlForbidden", unsafe_one).await;
        let on_host = "forbidden sysctl: \"net.ipv4.ip_forward\" not allowlisted";
        until_rejected(&node, "b10-host", "SysctlForbidden", on_host).await;
        let enabled = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled");
        for name in ["b8-apparmor", "b8-annotation"] {
            if enabled.as_deref().is_ok_and(|enabled| enabled.starts_with('Y')) {
                node.until_ready(name).await;
            } else {
                let message = "Cannot enforce AppArmor: AppArmor is not enabled on the host";
                until_rejected(&node, name, "AppArmor", message).await;
            }
        }
    });
}

/// A device plugin's pod, a pod that wants a device, a claim of devices; a claim.
#[test]
fn what_the_node_does_not_have_is_refused_by_name() {
    run(async {
        let host = Machine::new("lacks");
        let node = Node::start(&host);
        let folder = host.dir().join("device-plugins");
        let mut plugin = container("plugin", WAITS);
        plugin["volumeMounts"] = json!([{"name": "dp", "mountPath": "/var/lib/kubelet/device-plugins"}]);
        let plugin = pod(
            "b9-plugin",
            "",
            json!({"containers": [plugin], "priorityClassName": "system-node-critical",
                "volumes": [{"name": "dp", "hostPath": {"path": folder, "type": "Directory"}}]}),
        );
        let mut user = container("cuda", WAITS);
        user["resources"] = json!({"limits": {"nvidia.com/gpu": 1}});
        let mut claimed = container("broker", WAITS);
        claimed["volumeMounts"] = json!([{"name": "data", "mountPath": "/data"}]);
        let claim = json!([{"name": "data", "persistentVolumeClaim": {"claimName": "data-b13-0"}}]);
        node.apply(&[
            plugin,
            pod("b9-user", "", json!({"containers": [user]})),
            pod("b9-claim", WAITS, json!({"resourceClaims": [{"name": "gpu", "resourceClaimName": "gpu"}]})),
            pod("b13", "", json!({"containers": [claimed], "volumes": claim})),
        ])
        .await;
        let message = "Node didn't have enough resource: nvidia.com/gpu, requested: 1, used: 0, capacity: 0";
        until_rejected(&node, "b9-user", "OutOfnvidia.com/gpu", message).await;
        let words = "Failed to prepare dynamic resources: prepare dynamic resources: DRA driver of ResourceClaim gpu is not registered";
        node.until_event("b9-claim", "FailedPrepareDynamicResources", words).await;
        let waits = |status: &Value| first(status)["state"]["waiting"]["message"] == words;
        let status = node.until("b9-claim", "its driver", waits).await;
        assert_eq!((&status["phase"], &status["reason"]), (&json!("Pending"), &Value::Null));
        assert_eq!(first(&status)["state"]["waiting"]["reason"], "ContainerCreating");
        let sandboxes = node.runtime.list_sandboxes(Default::default()).await.unwrap();
        let names = sandboxes.iter().filter_map(|one| one.metadata.as_ref()).map(|own| own.name.as_str());
        assert!(names.clone().all(|name| name != "b9-claim"), "{:?}", names.collect::<Vec<_>>());
        node.until_event("b13", "FailedMount", "persistentvolumeclaims \"data-b13-0\" not found").await;
        let wanted = format!(
            "MountVolume.SetUp failed for volume \"dp\" : hostPath type check failed: {} is not a directory",
            folder.display()
        );
        let told = eventually(async || {
            node.events("b9-plugin").contains(&("FailedMount".to_owned(), wanted.clone())).then_some(())
        });
        told.await.unwrap_or_else(|| panic!("{:#?}", node.events("b9-plugin")));
        // The folder comes, and with it the pod.
        std::fs::create_dir(&folder).unwrap();
        node.until_ready("b9-plugin").await;
    });
}

/// Two pods that go past the scheduler want the same port of the host.
#[test]
fn the_second_of_two_pods_with_one_host_port_is_rejected() {
    run(async {
        let host = Machine::new("hostport");
        let node = Node::start(&host);
        let server = |name: &str| {
            let script = "mkdir /srv; echo $HOSTNAME > /srv/index.html; httpd -f -p 80 -h /srv";
            let mut server = container("a", script);
            server["ports"] = json!([{"containerPort": 80, "hostPort": 18080}]);
            pod(name, "", json!({"containers": [server]}))
        };
        let one = server("b14-one");
        node.apply(std::slice::from_ref(&one)).await;
        node.until_ready("b14-one").await;
        node.apply(&[server("b14-two")]).await;
        let message =
            "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports";
        until_rejected(&node, "b14-two", "NodePorts", message).await;
        // When the first is gone, another may have it; the rejected one stays rejected.
        node.apply(&[deleted(&one, 0)]).await;
        node.until_gone("b14-one").await;
        node.forget("b14-one").await;
        node.apply(&[server("b14-three")]).await;
        node.until_ready("b14-three").await;
        assert_eq!(node.status("b14-two").unwrap()["phase"], "Failed");
    });
}

/// The scheduler has placed a pod by a label that the node hears of later, and another one by none that it ever gets.
#[test]
fn a_critical_pod_starts_when_the_one_that_makes_room_for_it_has_left() {
    run(async {
        let host = Machine::new("preempts");
        let node = Node::start_set(&host, |settings| settings.max_pods = 1);
        let slow = "trap 'sleep 3; exit 0' TERM; while true; do sleep 0.1; done";
        node.apply(&[pod("plain", slow, json!({"terminationGracePeriodSeconds": 20}))]).await;
        node.until_ready("plain").await;
        node.apply(&[pod("critical", WAITS, json!({"priority": 2_000_000_000}))]).await;
        let critical = node.until_ready("critical").await;
        let plain = node.until("plain", "its end", |status| status["reason"] == "Preempting").await;
        let ended = text(&first(&plain)["state"]["terminated"]["finishedAt"]);
        let started = text(&first(&critical)["state"]["running"]["startedAt"]);
        // Whole seconds of one clock, as RFC 3339 writes them.
        assert!(!ended.is_empty() && started >= ended, "{started}, before {ended}");
        assert_eq!(plain["phase"], "Failed");
    });
}

#[test]
fn a_label_may_come_after_the_pod_that_was_placed_by_it() {
    run(async {
        let host = Machine::new("labels");
        let node = Node::start(&host);
        let describe = async |labels: Value, taints: Value| {
            let object = json!({"metadata": {"name": "edge-1", "uid": "n", "labels": labels}, "spec": {"taints": taints}});
            let json = serde_json::to_vec(&object).unwrap();
            let write = Write::PutObject {
                key: ObjectKey::new("nodes", "", "edge-1"),
                uid: "n".to_owned(),
                content_hash: format!("{}", json.len()),
                resource_version: "1".to_owned(),
                json,
            };
            node.store.commit(vec![write]).await.unwrap();
            node.edged.tell(EdgedMsg::Reconcile).await.unwrap();
        };
        let cut = json!([{"key": "node.kubernetes.io/unreachable", "effect": "NoExecute"}]);
        describe(json!({"zone": "a"}), cut).await;
        node.apply(&[
            pod("early", WAITS, json!({"nodeSelector": {"zone": "a", "line": "7"}})),
            pod("lost", WAITS, json!({"nodeSelector": {"zone": "b"}})),
        ])
        .await;
        describe(json!({"zone": "a", "line": "7"}), json!([])).await;
        node.until_ready("early").await;
        let message = "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector";
        until_rejected(&node, "lost", "NodeAffinity", message).await;
    });
}
