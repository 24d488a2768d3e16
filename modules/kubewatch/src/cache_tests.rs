//! What is kept of an object, and what of it goes to a node.

use super::*;
use serde_json::json;

const POD: WatchedKind = WatchedKind::core("pods", "Pod");

impl Cache {
    /// Whether anything moved by it.
    fn take(&mut self, what: &WatchedKind, event: Event<DynamicObject>) -> bool {
        self.take_in(what, event).moved
    }

    /// Which object it is, and whether anything moved by it.
    fn put(&mut self, what: &WatchedKind, object: DynamicObject) -> Option<(ObjectKey, bool)> {
        let (namespace, name) = (object.metadata.namespace.clone(), object.metadata.name.clone());
        let key = ObjectKey::new(what.group_resource, namespace.unwrap_or_default(), name?);
        Some((key, self.put_in(what, object).moved))
    }

    /// Whether the reader is told.
    fn applied(&mut self, what: &WatchedKind, event: Event<DynamicObject>) -> bool {
        self.apply(what, event).1
    }
}

#[test]
fn it_is_known_of_a_node_whether_it_is_ready() {
    let node = |ready: &str| {
        let conditions =
            json!([{ "type": "MemoryPressure", "status": "Unknown" }, { "type": "Ready", "status": ready }]);
        let node = json!({ "metadata": { "name": "edge-1", "uid": "u", "resourceVersion": "1" },
            "status": { "conditions": conditions } });
        serde_json::from_value::<DynamicObject>(node).unwrap()
    };
    let kind = WatchedKind::core("nodes", "Node");
    let mut cache = Cache::default();
    let cases = [
        ("True", Readiness::Ready),
        ("Unknown", Readiness::Unheard),
        ("False", Readiness::NotReady),
        ("", Readiness::Unsaid),
    ];
    for (ready, said) in cases {
        let (key, moved) = cache.put(&kind, node(ready)).unwrap();
        assert_eq!((moved, cache.objects[&key].readiness), (true, said), "{ready}");
    }
}

#[test]
fn whoever_writes_into_the_status_of_a_node_moves_its_mark_and_nothing_else() {
    let node = |ready: &str, at: &str, synced: &str, addresses: Value| {
        let conditions = json!([{ "type": "Ready", "status": ready, "lastHeartbeatTime": at },
            { "type": "kubehive.io/Synced", "status": synced }]);
        let node = json!({ "metadata": { "name": "edge-1", "uid": "u", "resourceVersion": at },
            "status": { "conditions": conditions, "addresses": addresses } });
        serde_json::from_value::<DynamicObject>(node).unwrap()
    };
    let (kind, address) = (WatchedKind::core("nodes", "Node"), json!([{ "address": "10.0.0.1" }]));
    let mut cache = Cache::default();
    let (key, _) = cache.put(&kind, node("True", "1", "True", address.clone())).unwrap();
    let mark = cache.objects[&key].status_mark;
    let (_, moved) = cache.put(&kind, node("True", "2", "False", address)).unwrap();
    assert!(!moved && cache.objects[&key].status_mark == mark, "a heartbeat, and what CloudCore says");
    let (_, moved) = cache.put(&kind, node("True", "3", "False", json!([]))).unwrap();
    assert!(!moved && cache.objects[&key].status_mark != mark);
}

#[test]
fn a_claim_that_is_bound_and_a_volume_that_is_attached_are_other_versions() {
    let kinds = [
        (WatchedKind::core(PERSISTENT_VOLUME_CLAIMS, "PersistentVolumeClaim"), true),
        (WatchedKind::core("persistentvolumes", "PersistentVolume"), false),
    ];
    for (kind, moves) in kinds {
        let mut cache = Cache::default();
        let versions = ["Pending", "Bound"].map(|phase| {
            let (key, _) = cache.put(&kind, named("c", phase, "x", phase)).unwrap();
            cache.objects[&key].object.content_hash.clone()
        });
        assert_eq!(versions[0] != versions[1], moves, "{}", kind.kind);
    }
}

#[test]
fn of_what_is_only_passed_on_no_more_is_held_than_is_read_and_nothing_of_its_change_is_missed() {
    let kind = WatchedKind::core("persistentvolumes", "PersistentVolume")
        .reading(&["/spec/csi/driver", "/spec/none"]);
    let volume = |size: &str| {
        let annotations = json!({LAST_APPLIED: "{}", "pv.beta.kubernetes.io/gid": "7"});
        let object = json!({"metadata": {"name": "pv", "uid": "u", "resourceVersion": size, "annotations": annotations},
            "spec": {"capacity": {"storage": size}, "csi": {"driver": "d.io", "volumeHandle": "h"}}});
        serde_json::from_value::<DynamicObject>(object).unwrap()
    };
    let mut cache = Cache::default();
    let (key, _) = cache.put(&kind, volume("1Gi")).unwrap();
    assert_eq!(*cache.objects[&key].value(), json!({"spec": {"csi": {"driver": "d.io"}}}));
    let sent: Value = serde_json::from_slice(&cache.objects[&key].object.json).unwrap();
    assert_eq!(sent["metadata"]["annotations"], json!({"pv.beta.kubernetes.io/gid": "7"}));
    assert_eq!(sent["spec"]["csi"]["volumeHandle"], "h");
    assert!(!cache.put(&kind, volume("1Gi")).unwrap().1);
    assert!(cache.put(&kind, volume("2Gi")).unwrap().1, "what is not read here is news on the node");
}

#[test]
fn of_what_has_ended_a_rest_is_held_and_nothing_of_its_change_is_missed() {
    let rest = |value: &Value| {
        let phase = value.pointer("/status/phase")?;
        (phase == "Bound").then(|| json!({ "status": { "phase": phase } }))
    };
    let kind = WatchedKind::core(PERSISTENT_VOLUME_CLAIMS, "PersistentVolumeClaim").keeping(rest);
    let mut cache = Cache::default();
    let (key, _) = cache.put(&kind, named("c", "1", "x", "Pending")).unwrap();
    assert!(!cache.objects[&key].object.json.is_empty() && cache.objects[&key].value()["spec"].is_object());
    let (_, moved) = cache.put(&kind, named("c", "2", "x", "Bound")).unwrap();
    let held = &cache.objects[&key];
    assert!(moved && held.object.json.is_empty() && held.object.resource_version == "2");
    assert_eq!(
        (&*held.value(), held.object.uid.is_empty()),
        (&json!({ "status": { "phase": "Bound" } }), false)
    );
    let (_, moved) = cache.put(&kind, named("c", "3", "x", "Bound")).unwrap();
    assert!(!moved, "only its version");
    let (_, moved) = cache.put(&kind, named("c", "4", "y", "Bound")).unwrap();
    assert!(moved, "another spec");
    let (_, moved) = cache.put(&kind, named("c", "5", "y", "Pending")).unwrap();
    assert!(moved && !cache.objects[&key].object.json.is_empty(), "it goes on");
}

/// One test at a time looks at the memory of this process, which is all that they have in common.
static LOOKS: std::sync::Mutex<()> = std::sync::Mutex::new(());

/// The memory of this process, in bytes.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

/// As a cluster of databases has them: claims and volumes with the API server's notes and a provisioner's attributes.
#[test]
fn ten_thousand_claims_and_their_volumes_are_held_in_little_memory() {
    let claims = WatchedKind::core(PERSISTENT_VOLUME_CLAIMS, "PersistentVolumeClaim").reading(&[
        "/metadata/namespace",
        "/metadata/name",
        "/metadata/uid",
        "/spec/volumeName",
    ]);
    let volumes = WatchedKind::core("persistentvolumes", "PersistentVolume").reading(&[
        "/spec/claimRef/uid",
        "/spec/csi/driver",
        "/spec/csi/volumeHandle",
    ]);
    let owner = json!([{"manager": "kube-controller-manager", "operation": "Update", "apiVersion": "v1",
        "fieldsType": "FieldsV1", "fieldsV1": {"f:metadata": {"f:annotations": {".": {}}}}}]);
    let metadata = |name: &str| {
        json!({"name": name, "namespace": "shop", "uid": format!("0f1e2d3c-{name}"), "resourceVersion": "123456",
            "creationTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["kubernetes.io/pvc-protection"],
            "labels": {"app.kubernetes.io/name": "postgres", "app.kubernetes.io/instance": name},
            "annotations": {"pv.kubernetes.io/bind-completed": "yes", "pv.kubernetes.io/bound-by-controller": "yes",
                "volume.kubernetes.io/storage-provisioner": "csi.example.com", LAST_APPLIED: "x".repeat(600)},
            "managedFields": owner})
    };
    let _alone = LOOKS.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let before = resident();
    let (mut of_claims, mut of_volumes) = (Cache::default(), Cache::default());
    for number in 0..10_000 {
        let (name, volume) = (format!("data-postgres-{number}"), format!("pvc-0f1e2d3c-{number}"));
        let claim = json!({"metadata": metadata(&name),
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "10Gi"}},
                "storageClassName": "fast", "volumeMode": "Filesystem", "volumeName": volume},
            "status": {"phase": "Bound", "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "10Gi"}}});
        let volume = json!({"metadata": metadata(&volume),
            "spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "10Gi"}, "storageClassName": "fast",
                "claimRef": {"kind": "PersistentVolumeClaim", "namespace": "shop", "name": name, "uid": "0f1e2d3c"},
                "csi": {"driver": "csi.example.com", "volumeHandle": volume, "fsType": "ext4",
                    "volumeAttributes": {"storage.kubernetes.io/csiProvisionerIdentity": "1700000000000-8081-csi"}},
                "persistentVolumeReclaimPolicy": "Delete"}, "status": {"phase": "Bound"}});
        of_claims.put(&claims, serde_json::from_value(claim).unwrap()).unwrap();
        of_volumes.put(&volumes, serde_json::from_value(volume).unwrap()).unwrap();
    }
    let bytes = resident().saturating_sub(before);
    println!("{} MiB", bytes >> 20);
    assert!(bytes < 120 << 20, "{} MiB", bytes >> 20);
    assert_eq!(of_claims.objects.len() + of_volumes.objects.len(), 20_000);
}

/// As a pod of a Deployment is stored, with what kubelets say of it. What is read of each here is its node.
#[test]
fn ten_thousand_pods_are_held_in_little_memory() {
    let kind = POD.reading_by(|pod| json!({ "spec": { "nodeName": pod.pointer("/spec/nodeName") } }));
    let condition = |of: &str| json!({"type": of, "status": "True", "lastProbeTime": null, "lastTransitionTime": "2026-11-29T10:00:00Z"});
    let conditions = ["PodScheduled", "Initialized", "ContainersReady", "Ready"].map(condition);
    let _alone = LOOKS.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let before = resident();
    let mut cache = Cache::default();
    for number in 0..10_000 {
        let name = format!("web-5d4f8c7b9-{number:05}");
        let pod = json!({
            "metadata": {"name": name, "namespace": "shop", "uid": format!("0f1e2d3c-{number}"), "resourceVersion": "1",
                "labels": {"app": "web", "pod-template-hash": "5d4f8c7b9"},
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-5d4f8c7b9", "uid": "9", "controller": true}]},
            "spec": {"nodeName": format!("edge-{}", number % 1000), "serviceAccountName": "default", "restartPolicy": "Always",
                "containers": [{"name": "web", "image": "registry.example/shop/web:1.4", "imagePullPolicy": "IfNotPresent",
                    "env": [{"name": "A", "value": "b"}, {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}],
                    "ports": [{"containerPort": 80, "protocol": "TCP"}],
                    "resources": {"requests": {"cpu": "50m", "memory": "32Mi"}, "limits": {"memory": "64Mi"}},
                    "livenessProbe": {"httpGet": {"path": "/", "port": 80, "scheme": "HTTP"}, "periodSeconds": 10},
                    "volumeMounts": [{"name": "token", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "readOnly": true}]}],
                "volumes": [{"name": "token", "projected": {"defaultMode": 420, "sources": [
                    {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
                    {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                    {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}}]}}],
                "tolerations": [{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300},
                    {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}],
                "securityContext": {}, "schedulerName": "default-scheduler", "dnsPolicy": "ClusterFirst"},
            "status": {"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}], "qosClass": "Burstable",
                "conditions": conditions,
                "containerStatuses": [{"name": "web", "ready": true, "started": true, "restartCount": 0, "imageID": "sha256:0f1e2d3c",
                    "containerID": "containerd://0f1e2d3c", "state": {"running": {"startedAt": "2026-11-29T10:00:00Z"}}, "lastState": {}}]}});
        cache.put(&kind, serde_json::from_value(pod).unwrap()).unwrap();
    }
    let bytes = resident().saturating_sub(before);
    println!("{} MiB", bytes >> 20);
    assert!(bytes < 80 << 20, "{} MiB", bytes >> 20);
    assert_eq!(cache.objects.len(), 10_000);
}

/// As the API server tells it: text, which is read, taken apart and held, one after another.
fn told(cache: &mut Cache, kind: &WatchedKind, text: &str) {
    let object: crate::WatchedObject = serde_json::from_str(text).unwrap();
    match object.into_read() {
        Ok(object) => drop(cache.apply(kind, Event::Apply(object))),
        Err(unreadable) => drop(cache.apply_unreadable(kind, &unreadable)),
    }
}

/// A Device whose settings for its protocol are a list of so many values: it is text of four bytes each, and a tree of sixty and more.
fn device(name: &str, values: usize) -> String {
    let list = vec!["\"a\""; values].join(",");
    format!(
        r#"{{"metadata":{{"namespace":"d","name":"{name}","uid":"u","resourceVersion":"1"}},"spec":{{"nodeName":"n","protocol":{{"configData":{{"x":[{list}]}}}}}}}}"#
    )
}

#[test]
fn devices_of_many_values_take_no_more_than_three_times_their_text() {
    const DEVICE: WatchedKind = WatchedKind { group_resource: DEVICES, ..WatchedKind::core("", "Device") };
    let _alone = LOOKS.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let look = || {
        let mut cache = Cache::default();
        // One, so that what one look takes does not count.
        told(&mut cache, &DEVICE, &device("first", 99_000));
        let before = resident();
        let mut bytes = 0;
        for number in 0..40 {
            let text = device(&format!("d{number}"), 99_000);
            bytes += text.len();
            told(&mut cache, &DEVICE, &text);
        }
        let taken = resident().saturating_sub(before);
        println!("{} MiB of {} MiB of text", taken >> 20, bytes >> 20);
        assert_eq!((cache.objects.len(), cache.unreadable.len()), (41, 0));
        let held = &cache.objects[&ObjectKey::new(DEVICES, "d", "d7")];
        assert_eq!(held.value().pointer("/spec/protocol/configData/x/98999"), Some(&json!("a")));
        taken < 3 * bytes
    };
    // What tests of other files take beside it is taken once.
    assert!((0..3).any(|_| look()), "more than three times the text, three times");
}

#[test]
fn a_device_of_too_many_values_is_named_and_takes_nothing() {
    let _alone = LOOKS.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    const DEVICE: WatchedKind = WatchedKind { group_resource: DEVICES, ..WatchedKind::core("", "Device") };
    let mut cache = Cache::default();
    for number in 0..40 {
        told(&mut cache, &DEVICE, &device(&format!("d{number}"), 360_000));
    }
    assert_eq!((cache.objects.len(), cache.budget.bytes()), (0, 0));
    assert_eq!(cache.take_moved().len(), 40, "whoever says so has to be told");
    let unread = &cache.unreadable[&ObjectKey::new(DEVICES, "d", "d39")];
    assert_eq!(unread.uid, "u");
    assert!(unread.why.contains("more than 100000 values"), "{}", unread.why);
    told(&mut cache, &DEVICE, &device("d39", 3));
    assert_eq!((cache.objects.len(), cache.unreadable.len()), (1, 39), "it was mended");
}

#[test]
fn what_finds_no_room_is_named_takes_none_from_other_namespaces_and_is_known_to_find_it_again() {
    const DEVICE: WatchedKind = WatchedKind { group_resource: DEVICES, ..WatchedKind::core("", "Device") };
    let of = |namespace: &str, name: &str, bytes: usize| {
        let metadata = json!({ "namespace": namespace, "name": name, "uid": "u", "resourceVersion": "1" });
        let device = json!({ "metadata": metadata, "spec": { "text": "x".repeat(bytes) } });
        Event::Apply(serde_json::from_value(device).unwrap())
    };
    let key = |namespace: &str, name: &str| ObjectKey::new(DEVICES, namespace, name);
    // 1 MiB for a namespace.
    let mut cache = Cache::within(Budget::of_memory(4 << 20));
    assert!(cache.take(&DEVICE, of("a", "one", 900_000)));
    let (refused, _) = cache.apply(&DEVICE, of("a", "two", 300_000));
    let (which, why) = refused.unwrap();
    assert!(which == key("a", "two") && why.contains("1 MiB of objects of `a`"), "{why}");
    assert_eq!(cache.apply(&DEVICE, of("a", "two", 300_000)).0, None, "it is said once");
    assert!(cache.take(&DEVICE, of("b", "one", 900_000)), "another namespace has its own");
    // A version that is too large leaves the one before.
    let before = cache.objects[&key("b", "one")].object.content_hash.clone();
    cache.take(&DEVICE, of("b", "one", 1_200_000));
    assert_eq!(cache.objects[&key("b", "one")].object.content_hash, before);
    assert!(cache.unreadable.contains_key(&key("b", "one")) && cache.lacks_room());
    cache.take(&DEVICE, of("b", "one", 800_000));
    assert!(!cache.unreadable.contains_key(&key("b", "one")) && !cache.has_room_again());
    let Event::Apply(gone) = of("a", "one", 0) else { panic!() };
    cache.take(&DEVICE, Event::Delete(gone));
    assert!(cache.has_room_again(), "a list brings it");
    assert!(cache.take(&DEVICE, of("a", "two", 300_000)) && !cache.lacks_room());
    drop(cache.objects);
    assert_eq!(cache.budget.bytes(), 0);
}

#[test]
fn of_what_is_read_here_so_many_values_are_kept_and_no_more() {
    let kind = POD.reading(&["/spec/volumes"]);
    let pod = |volumes: usize| {
        let mut pod = named("p", "1", "a", "Running");
        pod.data["spec"]["volumes"] = json!(vec![json!({ "name": "v" }); volumes]);
        Event::Apply(pod)
    };
    let mut cache = Cache::default();
    assert!(cache.take(&kind, pod(2000)));
    assert!(cache.apply(&kind, pod(3000)).0.unwrap().1.contains("and reads 4096"));
    assert_eq!(cache.objects[&key("p")].value()["spec"]["volumes"].as_array().unwrap().len(), 2000);
}

fn pod(version: &str, image: &str, phase: &str) -> DynamicObject {
    named("p", version, image, phase)
}

fn named(name: &str, version: &str, image: &str, phase: &str) -> DynamicObject {
    serde_json::from_value(json!({
        "metadata": { "namespace": "d", "name": name, "uid": "u", "resourceVersion": version },
        "spec": { "image": image }, "status": { "phase": phase },
    }))
    .unwrap()
}

fn key(name: &str) -> ObjectKey {
    ObjectKey::new("pods", "d", name)
}

fn version(cache: &Cache) -> &str {
    &cache.objects[&key("p")].object.content_hash
}

fn sent(cache: &Cache) -> Value {
    serde_json::from_slice(&cache.objects[&key("p")].object.json).unwrap()
}

#[test]
fn a_nodes_report_makes_no_new_version_and_goes_with_the_pod() {
    let mut cache = Cache::default();
    assert!(cache.take(&POD, Event::Apply(pod("1", "a", "Pending"))));
    let before = version(&cache).to_owned();
    assert!(cache.take(&POD, Event::Apply(pod("2", "a", "Running"))));
    assert_eq!(version(&cache), before);
    assert_eq!(sent(&cache)["status"], json!({ "phase": "Running" }));
    assert!(!cache.take(&POD, Event::Apply(pod("3", "a", "Running"))));
    assert!(cache.take(&POD, Event::Apply(pod("4", "b", "Running"))));
    assert_ne!(version(&cache), before);
    assert_eq!(
        (&sent(&cache)["metadata"]["resourceVersion"], &sent(&cache)["kind"]),
        (&json!("4"), &json!("Pod"))
    );
}

#[test]
fn an_end_makes_a_new_version_unless_the_node_reported_it() {
    let mut cache = Cache::default();
    let fingerprint = |phase| contract::pod_status::fingerprint(&json!({ "phase": phase }));
    let mark = |phase| format!("1.1/u/{}", fingerprint(phase));
    let with = |version: &str, phase: &str, mark: &str| {
        let mut pod = pod(version, "a", phase);
        pod.metadata.annotations = Some([(REPORTED_ANNOTATION.to_owned(), mark.to_owned())].into());
        Event::Apply(pod)
    };
    cache.take(&POD, with("1", "Running", &mark("Running")));
    let running = version(&cache).to_owned();
    cache.take(&POD, with("2", "Succeeded", &format!("{}/Succeeded", mark("Succeeded"))));
    assert_eq!(version(&cache), running);
    assert_eq!(sent(&cache)["status"]["phase"], "Succeeded");
    cache.take(&POD, with("3", "Failed", &mark("Failed")));
    assert_ne!(version(&cache), running);
    assert_eq!(sent(&cache)["status"]["phase"], "Failed");
}

#[test]
fn the_status_of_what_is_no_pod_is_not_sent() {
    const NODE: WatchedKind = WatchedKind::core("nodes", "Node");
    let mut cache = Cache::default();
    assert!(cache.take(&NODE, Event::Apply(pod("1", "a", "Pending"))));
    assert!(!cache.take(&NODE, Event::Apply(pod("2", "a", "Running"))));
}

#[test]
fn of_a_nodes_status_what_it_has_of_extended_resources_is_sent_and_makes_a_new_version() {
    const NODE: WatchedKind = WatchedKind::core("nodes", "Node");
    let mut cache = Cache::default();
    let node = |version: &str, cpu: &str, foo: Value| {
        let allocatable = json!({ "cpu": cpu, "hugepages-2Mi": "0", "example.com/foo": foo });
        let node = json!({ "metadata": { "name": "edge-1", "uid": "u", "resourceVersion": version },
            "status": { "phase": "Running", "allocatable": allocatable, "capacity": { "example.com/bar": "7" } } });
        Event::Apply(serde_json::from_value(node).unwrap())
    };
    let of = |cache: &Cache| cache.objects[&ObjectKey::new(NODES, "", "edge-1")].object.clone();
    assert!(cache.take(&NODE, node("1", "2", json!("3"))));
    let before = of(&cache);
    let sent: Value = serde_json::from_slice(&before.json).unwrap();
    assert_eq!(sent["status"], json!({ "allocatable": { "example.com/foo": "3" } }));
    assert!(!cache.take(&NODE, node("2", "1", json!("3"))), "what the node says itself moves nothing");
    assert!(cache.take(&NODE, node("3", "1", json!("4"))));
    assert_ne!(of(&cache).content_hash, before.content_hash);
}

#[test]
fn how_the_state_of_a_device_is_reported_goes_down_from_where_it_stood_before() {
    const DEVICE: WatchedKind = WatchedKind { group_resource: DEVICES, ..WatchedKind::core("", "Device") };
    let mut cache = Cache::default();
    let key = ObjectKey::new(DEVICES, "d", "pump");
    let device = |version: &str, status: Value| {
        let metadata = json!({ "namespace": "d", "name": "pump", "uid": "u", "resourceVersion": version });
        let device = json!({ "metadata": metadata, "spec": { "nodeName": "n" }, "status": status });
        Event::Apply(serde_json::from_value(device).unwrap())
    };
    let sent = |cache: &Cache| -> Value { serde_json::from_slice(&cache.objects[&key].object.json).unwrap() };
    let twins = json!([{ "propertyName": "speed", "reported": { "value": "7" } }]);
    assert!(cache.take(&DEVICE, device("1", json!({ "twins": twins, "state": "online" }))));
    assert_eq!(sent(&cache).get("status"), None);
    let both = json!({ "twins": twins, "reportToCloud": true, "reportCycle": 250 });
    assert!(cache.take(&DEVICE, device("2", both)));
    let wishes = json!({ "reportToCloud": true, "reportCycle": 250 });
    assert_eq!(sent(&cache)["status"], wishes);
    let before = cache.objects[&key].object.content_hash.clone();
    assert!(!cache.take(&DEVICE, device("3", wishes)), "what was reported moves nothing");
    assert!(cache.take(&DEVICE, device("4", json!({ "reportToCloud": false, "reportCycle": null }))));
    assert_eq!(sent(&cache)["status"], json!({ "reportToCloud": false }));
    assert_ne!(cache.objects[&key].object.content_hash, before);
}

#[test]
fn the_mark_of_a_report_moves_nothing_and_is_not_sent() {
    let mut cache = Cache::default();
    let with = |annotations: &[(&str, &str)]| {
        let mut pod = pod("2", "a", "Running");
        let texts = annotations.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        pod.metadata.annotations = Some(texts.collect());
        Event::Apply(pod)
    };
    cache.take(&POD, Event::Apply(pod("1", "a", "Running")));
    assert!(!cache.take(&POD, with(&[(REPORTED_ANNOTATION, "3.1")])));
    assert!(!cache.take(&POD, with(&[(REPORTED_ANNOTATION, "3.2")])));
    assert!(cache.take(&POD, with(&[(REPORTED_ANNOTATION, "3.2"), ("mine", "kept")])));
    assert!(!cache.take(&POD, with(&[(REPORTED_ANNOTATION, "3.3"), ("mine", "kept")])));
    let sent: Value = serde_json::from_slice(&cache.objects[&key("p")].object.json).unwrap();
    assert_eq!(sent["metadata"]["annotations"], json!({ "mine": "kept" }));
}

#[test]
fn caches_that_saw_different_histories_come_to_the_same_version() {
    let (mut old, mut fresh) = (Cache::default(), Cache::default());
    for object in [pod("1", "a", "Pending"), pod("2", "a", "Running"), pod("5", "b", "Running")] {
        old.take(&POD, Event::Apply(object));
    }
    fresh.take(&POD, Event::Init);
    let mut later = pod("9", "b", "Failed");
    later.metadata.annotations = Some(
        [(
            REPORTED_ANNOTATION.to_owned(),
            format!("7.7/u/{}/Failed", contract::pod_status::fingerprint(&json!({ "phase": "Failed" }))),
        )]
        .into(),
    );
    later.metadata.managed_fields = Some(Vec::new());
    fresh.take(&POD, Event::InitApply(later));
    assert_eq!(version(&old), version(&fresh));
    let mut other = pod("9", "b", "Running");
    other.metadata.uid = Some("another".to_owned());
    fresh.take(&POD, Event::Apply(other));
    assert_ne!(version(&old), version(&fresh));
}

#[test]
fn a_new_list_forgets_what_it_does_not_name() {
    let mut cache = Cache::default();
    cache.take(&POD, Event::Apply(pod("1", "a", "Pending")));
    assert!(!cache.listed);
    cache.take(&POD, Event::Init);
    assert_eq!(cache.objects.len(), 1, "kept until the list is complete");
    assert!(cache.take(&POD, Event::InitDone));
    assert!(cache.listed && cache.objects.is_empty());
}

#[test]
fn an_object_that_cannot_be_read_is_named_and_its_last_version_is_kept_while_it_is_the_same_object() {
    let mut cache = Cache::default();
    let unreadable = |name: &str, uid: &str| Unreadable {
        metadata: Box::new(
            serde_json::from_value(json!({ "namespace": "d", "name": name, "uid": uid })).unwrap(),
        ),
        why: "it is odd".to_owned(),
    };
    cache.take(&POD, Event::Init);
    cache.take(&POD, Event::InitApply(named("p", "1", "a", "Pending")));
    let fresh = cache.apply_unreadable(&POD, &unreadable("new", "u"));
    assert_eq!(fresh, (Some(key("new")), false));
    cache.take(&POD, Event::InitApply(named("q", "1", "a", "Pending")));
    assert!(cache.applied(&POD, Event::InitDone), "the list is complete, whatever is odd in it");
    assert_eq!(cache.objects.keys().cloned().collect::<Vec<_>>(), [key("p"), key("q")]);
    cache.take_moved();

    assert_eq!(cache.apply_unreadable(&POD, &unreadable("p", "u")), (Some(key("p")), true));
    assert_eq!(cache.apply_unreadable(&POD, &unreadable("p", "u")), (None, false), "it is said once");
    assert!(cache.objects.contains_key(&key("p")), "the version before is kept");
    cache.take(&POD, Event::Init);
    cache.apply_unreadable(&POD, &unreadable("p", "u"));
    cache.apply_unreadable(&POD, &unreadable("q", "another"));
    assert!(!cache.applied(&POD, Event::InitDone), "it knows");
    assert_eq!(cache.take_moved(), BTreeSet::from(["p", "q", "new"].map(key)));
    assert_eq!(cache.objects.keys().cloned().collect::<Vec<_>>(), [key("p")], "q is another object now");
    assert_eq!(cache.unreadable.keys().cloned().collect::<Vec<_>>(), [key("p"), key("q")]);

    assert!(cache.applied(&POD, Event::Apply(named("p", "5", "b", "Pending"))));
    assert!(
        cache.applied(&POD, Event::Delete(named("q", "6", "b", "Pending"))) || cache.unreadable.is_empty()
    );
    assert!(cache.unreadable.is_empty(), "what can be read again, or is gone, is forgotten");
}

#[test]
fn what_moved_is_told_once_and_all_of_it_at_first() {
    let mut cache = Cache::default();
    let all = |cache: &mut Cache| cache.take_moved().into_iter().map(|key| key.name).collect::<Vec<_>>();
    cache.take(&POD, Event::Init);
    for name in ["p", "q"] {
        cache.take(&POD, Event::InitApply(named(name, "1", "a", "Pending")));
    }
    assert!(cache.take(&POD, Event::InitDone));
    assert_eq!(all(&mut cache), ["p", "q"]);
    cache.take(&POD, Event::Apply(named("q", "2", "a", "Pending")));
    assert!(all(&mut cache).is_empty(), "a write that nodes do not see");
    cache.take(&POD, Event::Apply(named("q", "3", "b", "Running")));
    cache.take(&POD, Event::Delete(named("q", "4", "b", "Running")));
    assert_eq!(all(&mut cache), ["q"]);
    cache.take(&POD, Event::Init);
    assert!(cache.take(&POD, Event::InitDone));
    assert_eq!(all(&mut cache), ["p"]);
    cache.take(&POD, Event::Init);
    assert!(!cache.take(&POD, Event::InitDone), "a list that changes nothing");
    assert!(all(&mut cache).is_empty());
}

#[test]
fn the_reader_is_told_once_until_it_looks() {
    let mut cache = Cache::default();
    assert!(!cache.applied(&POD, Event::Init));
    assert!(!cache.applied(&POD, Event::InitApply(pod("1", "a", "Pending"))), "the list is not complete");
    assert!(cache.applied(&POD, Event::InitDone));
    assert!(!cache.applied(&POD, Event::Apply(named("q", "2", "a", "Pending"))), "it knows");
    cache.take_moved();
    assert!(!cache.applied(&POD, Event::Apply(named("q", "3", "a", "Pending"))), "nothing that nodes see");
    assert!(cache.applied(&POD, Event::Delete(named("q", "4", "a", "Running"))));
    assert!(!cache.applied(&POD, Event::Delete(pod("5", "a", "Running"))), "it knows");
    assert_eq!(cache.take_moved().len(), 2);
    assert!(cache.applied(&POD, Event::Apply(pod("6", "a", "Pending"))));
}
