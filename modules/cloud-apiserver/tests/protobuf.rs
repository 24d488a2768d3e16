//! What `kubectl create` sends as protobuf arrives as the object that was meant.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod fixture;

use std::time::Duration;

use fixture::Fixture;
use serde_json::{Value, json};

impl Fixture {
    /// Creates; the object has to have been sent as protobuf.
    async fn create(&self, args: &[&str]) {
        let words = [&["create", "-v=8"], args].concat();
        let (ok, out, err) = self.try_kubectl(&words, "").await;
        assert!(ok && out.ends_with(" created\n"), "kubectl {words:?}: {out}{err}");
        assert!(
            err.contains("Content-Type: application/vnd.kubernetes.protobuf"),
            "no protobuf was sent: {err}"
        );
        assert!(!err.contains("Warning"), "{err}");
    }

    async fn read(&self, what: &[&str]) -> Value {
        let out = self.kubectl(&[&["get", "-o", "json"], what].concat()).await;
        serde_json::from_str(&out).unwrap()
    }
}

fn run(test: impl AsyncFnOnce(&Fixture)) {
    actix_rt::System::new().block_on(async {
        let fixture = Fixture::new().await;
        test(&fixture).await;
        fixture.running.stop(Duration::from_secs(5)).await;
    });
}

#[test]
fn data_namespaces_and_accounts() {
    run(async |fixture| {
        fixture.create(&["configmap", "cm", "--from-literal=a=1", "--from-literal=empty="]).await;
        assert_eq!(fixture.read(&["cm", "cm"]).await["data"], json!({ "a": "1", "empty": "" }));
        let file = fixture.folder.join("bytes");
        std::fs::write(&file, [0xff, 0x00]).unwrap();
        fixture.create(&["configmap", "raw", &format!("--from-file=b={}", file.display())]).await;
        assert_eq!(fixture.read(&["cm", "raw"]).await["binaryData"], json!({ "b": "/wA=" }));
        fixture.create(&["secret", "generic", "s", "--from-literal=password=x"]).await;
        let secret = fixture.read(&["secret", "s"]).await;
        assert_eq!((&secret["data"], &secret["type"]), (&json!({ "password": "eA==" }), &json!("Opaque")));
        fixture.create(&["namespace", "n"]).await;
        assert_eq!(fixture.read(&["ns", "n"]).await["status"]["phase"], "Active");
        fixture.create(&["serviceaccount", "robot", "-n", "n"]).await;
        let robot = fixture.read(&["sa", "robot", "-n", "n"]).await;
        assert_eq!(robot["metadata"]["namespace"], "n");
        assert!(robot["metadata"]["creationTimestamp"].is_string(), "{robot}");
        // The refusals are those of JSON bodies.
        let (ok, _, err) = fixture.try_kubectl(&["create", "configmap", "cm"], "").await;
        assert!(!ok && err.contains("configmaps \"cm\" already exists"), "{err}");
        let (ok, _, err) = fixture.try_kubectl(&["create", "serviceaccount", "Wrong_Name"], "").await;
        assert!(!ok && err.contains("metadata.name: Invalid value"), "{err}");
        let out = fixture.kubectl(&["create", "configmap", "dry", "--dry-run=server", "-o", "json"]).await;
        assert_eq!(serde_json::from_str::<Value>(&out).unwrap()["metadata"]["name"], "dry");
    });
}

#[test]
fn deployments_and_services() {
    run(async |fixture| {
        fixture
            .create(&[
                "deployment",
                "web",
                "--image=busybox:1",
                "--replicas=2",
                "--port=80",
                "--",
                "sleep",
                "9",
            ])
            .await;
        let web = fixture.read(&["deploy", "web"]).await;
        assert_eq!(web["spec"]["replicas"], 2);
        assert_eq!(web["spec"]["selector"], json!({ "matchLabels": { "app": "web" } }));
        let template = &web["spec"]["template"];
        assert_eq!(template["metadata"]["labels"], json!({ "app": "web" }));
        let container = &template["spec"]["containers"][0];
        assert_eq!((&container["name"], &container["image"]), (&json!("busybox"), &json!("busybox:1")));
        assert_eq!(container["command"], json!(["sleep", "9"]));
        assert_eq!(container["ports"], json!([{ "containerPort": 80, "protocol": "TCP" }]));
        assert_eq!(web["spec"]["strategy"]["type"], "RollingUpdate");
        fixture.create(&["service", "clusterip", "svc", "--tcp=80:8080"]).await;
        let service = fixture.read(&["svc", "svc"]).await;
        assert_eq!(service["spec"]["selector"], json!({ "app": "svc" }));
        assert_eq!(
            service["spec"]["ports"],
            json!([{ "name": "80-8080", "port": 80, "protocol": "TCP", "targetPort": 8080 }]),
        );
        assert_eq!(service["spec"]["type"], "ClusterIP");
        fixture.create(&["service", "clusterip", "headless", "--clusterip=None", "--tcp=80"]).await;
        assert_eq!(fixture.read(&["svc", "headless"]).await["spec"]["clusterIP"], "None");
    });
}

#[test]
fn roles_and_their_bindings() {
    run(async |fixture| {
        fixture.create(&["role", "reader", "--verb=get,list", "--resource=pods", "--resource-name=a"]).await;
        assert_eq!(
            fixture.read(&["role", "reader"]).await["rules"],
            json!([{ "apiGroups": [""], "resources": ["pods"], "resourceNames": ["a"], "verbs": ["get", "list"] }]),
        );
        fixture.create(&["clusterrole", "health", "--verb=get", "--non-resource-url=/healthz"]).await;
        assert_eq!(
            fixture.read(&["clusterrole", "health"]).await["rules"],
            json!([{ "nonResourceURLs": ["/healthz"], "verbs": ["get"] }]),
        );
        fixture
            .create(&["rolebinding", "rb", "--role=reader", "--serviceaccount=default:robot", "--user=u"])
            .await;
        let binding = fixture.read(&["rolebinding", "rb"]).await;
        let role = json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader" });
        assert_eq!(binding["roleRef"], role);
        assert_eq!(
            binding["subjects"],
            json!([
                { "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "u" },
                { "kind": "ServiceAccount", "name": "robot", "namespace": "default" },
            ]),
        );
        fixture.create(&["clusterrolebinding", "crb", "--clusterrole=health", "--group=g"]).await;
        let binding = fixture.read(&["clusterrolebinding", "crb"]).await;
        assert_eq!(binding["roleRef"]["name"], "health");
        assert_eq!(binding["subjects"][0]["kind"], "Group");
    });
}

#[test]
fn an_account_asks_what_it_may() {
    run(async |fixture| {
        assert_eq!(fixture.kubectl(&["auth", "can-i", "delete", "nodes"]).await, "yes\n");
        let who = "--as=system:serviceaccount:default:default";
        let (ok, out, err) = fixture.try_kubectl(&["auth", "can-i", "delete", "nodes", who], "").await;
        assert!(!ok, "{out}{err}");
        let rules = fixture.kubectl(&["auth", "can-i", "--list"]).await;
        assert!(rules.contains("*.*") && rules.contains("[*]"), "{rules}");
        let rules = fixture.kubectl(&["auth", "can-i", "--list", who]).await;
        assert!(rules.contains("selfsubjectrulesreviews.authorization.k8s.io"), "{rules}");
        let me = fixture.kubectl(&["auth", "whoami", "-o", "jsonpath={.status.userInfo.groups}"]).await;
        assert!(me.contains("system:masters"), "{me}");
        let who_is = ["auth", "whoami", "-o", "jsonpath={.status.userInfo.username}", who];
        assert_eq!(fixture.kubectl(&who_is).await, "system:serviceaccount:default:default");
    });
}

#[test]
fn fields_and_their_types_are_explained() {
    run(async |fixture| {
        let told = fixture.kubectl(&["explain", "pod.spec.containers.livenessProbe"]).await;
        assert!(told.contains("FIELD: livenessProbe <Probe>") && told.contains("periodSeconds"), "{told}");
        let told = fixture.kubectl(&["explain", "deployment.spec.replicas"]).await;
        assert!(told.contains("FIELD: replicas <integer>"), "{told}");
        let told = fixture.kubectl(&["explain", "node"]).await;
        assert!(told.contains("spec\t<NodeSpec>"), "{told}");
        let (ok, _, err) = fixture.try_kubectl(&["explain", "pod.spec.nope"], "").await;
        assert!(!ok && err.contains("nope"), "{err}");
    });
}

#[test]
fn volumes_and_claims_are_shown_as_users_know_them() {
    run(async |fixture| {
        let file = fixture.folder.join("volumes.yaml");
        std::fs::write(&file, VOLUMES).unwrap();
        fixture.kubectl(&["apply", "-f", file.to_str().unwrap()]).await;
        let words = |out: String| -> Vec<String> { out.split_whitespace().map(str::to_owned).collect() };
        let claim = words(fixture.kubectl(&["get", "pvc", "data", "--no-headers"]).await);
        assert_eq!(claim[..5], ["data", "Pending", "fast", "<unset>", &claim[4]]);
        let volume = words(fixture.kubectl(&["get", "pv", "disk", "--no-headers"]).await);
        assert_eq!(volume[..5], ["disk", "5Gi", "RWO", "Retain", "Pending"]);
    });
}

const VOLUMES: &str = r#"
apiVersion: v1
kind: PersistentVolume
metadata: {name: disk}
spec: {capacity: {storage: 5Gi}, accessModes: [ReadWriteOnce], hostPath: {path: /srv/disk}}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data}
spec: {accessModes: [ReadWriteOnce], storageClassName: fast, resources: {requests: {storage: 1Gi}}}
"#;

/// Two revisions, and back: the replica set of the first one is used again, as its template has not changed.
#[test]
fn a_rollout_that_is_undone_comes_back_to_its_first_replica_set() {
    run(async |fixture| {
        let file = fixture.folder.join("web.yaml");
        let apply = async |image: &str| {
            std::fs::write(&file, WEB.replace("IMAGE", image)).unwrap();
            fixture.kubectl(&["apply", "-f", file.to_str().unwrap()]).await;
        };
        let sets = async || {
            let sets = fixture.read(&["rs"]).await;
            let sets = sets["items"].as_array().unwrap().clone();
            sets.iter()
                .map(|set| (set["metadata"]["name"].to_string(), set["spec"]["replicas"].clone()))
                .collect::<Vec<_>>()
        };
        let until = async |count: usize, revision: &str| loop {
            let web = fixture.read(&["deploy", "web"]).await;
            let at = &web["metadata"]["annotations"]["deployment.kubernetes.io/revision"];
            let is_seen = web["status"]["observedGeneration"] == web["metadata"]["generation"];
            if is_seen && at == revision {
                assert_eq!(sets().await.len(), count, "{:?}", sets().await);
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        let bounded = async |count, revision| {
            tokio::time::timeout(Duration::from_secs(120), until(count, revision))
                .await
                .expect("no such revision");
        };
        apply("busybox:1").await;
        bounded(1, "1").await;
        apply("busybox:2").await;
        bounded(2, "2").await;
        fixture.kubectl(&["rollout", "undo", "deployment/web"]).await;
        bounded(2, "3").await;
    });
}

/// With what clients in Go write back in another form than it was written in.
const WEB: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 0
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      volumes:
      - {name: info, downwardAPI: {items: [{path: cpu, resourceFieldRef: {containerName: c, resource: limits.cpu}}]}}
      - name: own
        ephemeral: {volumeClaimTemplate: {spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1024Mi}}}}}
      - {name: scratch, emptyDir: {sizeLimit: 1024Mi}}
      containers:
      - name: c
        image: IMAGE
        env: [{name: CPU, valueFrom: {resourceFieldRef: {resource: limits.cpu}}}]
        resources: {limits: {cpu: 1000m, memory: 64Mi}}
        lifecycle: {preStop: {httpGet: {port: 80}}}
        livenessProbe: {httpGet: {port: 80}, timeoutSeconds: 0}
"#;
