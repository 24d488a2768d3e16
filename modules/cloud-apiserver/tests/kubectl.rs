//! The server over real HTTPS, asked by `kubectl` and by kube-rs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod fixture;

use std::process::Command;

use beehive::Env;
use cloud_apiserver::{Settings, start};
use fixture::Fixture;
use fixture::kubectl::kubectl;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};

impl Fixture {
    async fn apply(&self, manifest: &str) -> String {
        let (ok, out, err) = self.try_kubectl(&["apply", "-f", "-"], manifest).await;
        assert!(ok, "{out}{err}");
        out
    }
}

fn run(test: impl AsyncFnOnce(Fixture)) {
    // The test installs nothing; it says what is missing.
    assert!(
        Command::new("kubectl").arg("version").arg("--client").output().is_ok(),
        "kubectl is not installed"
    );
    actix_rt::System::new().block_on(async { test(Fixture::new().await).await });
}

const DEPLOYMENT: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 0
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: web, image: "busybox:1", ports: [{containerPort: 80}]}
"#;

#[test]
fn kubectl_gets_applies_changes_and_deletes() {
    run(async |fixture| {
        let out = fixture.kubectl(&["get", "namespaces"]).await;
        for name in ["NAME", "STATUS", "default", "kube-system", "Active"] {
            assert!(out.contains(name), "{out}");
        }
        assert_eq!(fixture.apply(DEPLOYMENT).await, "deployment.apps/web created\n");
        assert_eq!(fixture.apply(DEPLOYMENT).await, "deployment.apps/web unchanged\n");
        let changed = DEPLOYMENT.replace("busybox:1", "busybox:2");
        assert_eq!(fixture.apply(&changed).await, "deployment.apps/web configured\n");
        let image = ["get", "deploy", "web", "-o", "jsonpath={.spec.template.spec.containers[0].image}"];
        assert_eq!(fixture.kubectl(&image).await, "busybox:2");
        let out = fixture.kubectl(&["get", "deploy", "-o", "wide"]).await;
        assert!(out.contains("UP-TO-DATE") && out.contains("busybox:2") && out.contains("app=web"), "{out}");
        fixture.apply("{apiVersion: v1, kind: ConfigMap, metadata: {name: cm}, data: {a: '1'}}").await;
        fixture.kubectl(&["patch", "configmap", "cm", "-p", r#"{"data":{"b":"2"}}"#]).await;
        fixture.kubectl(&["label", "configmap", "cm", "tier=x"]).await;
        fixture.kubectl(&["annotate", "configmap", "cm", "note=y"]).await;
        let out = fixture.kubectl(&["get", "cm", "-l", "tier in (x)", "-o", "yaml"]).await;
        for part in ["b: \"2\"", "note: \"y\"", "kind: ConfigMap"] {
            assert!(out.contains(part), "{out}");
        }
        let out = fixture.kubectl(&["get", "cm", "cm", "-o", "json"]).await;
        assert!(out.contains("\"tier\": \"x\""), "{out}");
        let out = fixture.kubectl(&["describe", "configmap", "cm"]).await;
        assert!(out.contains("Data") && out.contains("BinaryData"), "{out}");
        let out = fixture.kubectl(&["scale", "deployment", "web", "--replicas=0"]).await;
        assert_eq!(out, "deployment.apps/web scaled\n");
        let out = fixture.kubectl(&["delete", "configmap", "cm"]).await;
        assert!(out.starts_with("configmap \"cm\" deleted"), "{out}");
        let (ok, _, err) = fixture.try_kubectl(&["get", "cm", "cm"], "").await;
        assert!(!ok && err.contains("configmaps \"cm\" not found"), "{err}");
        let out = fixture.kubectl(&["api-resources"]).await;
        for part in ["deployments", "deploy", "customresourcedefinitions", "leases"] {
            assert!(out.contains(part), "{out}");
        }
        let out = fixture.kubectl(&["version"]).await;
        assert!(out.contains("Server Version: v1.36"), "{out}");
        fixture.running.stop(std::time::Duration::from_secs(5)).await;
    });
}

#[test]
fn kubectl_hears_what_is_wrong() {
    run(async |fixture| {
        let typo = DEPLOYMENT.replace("replicas:", "replica:");
        let (ok, _, err) = fixture.try_kubectl(&["apply", "-f", "-"], &typo).await;
        assert!(!ok && err.contains("strict decoding error: unknown field \"spec.replica\""), "{err}");
        let wrong = DEPLOYMENT.replace("matchLabels: {app: web}", "matchLabels: {app: other}");
        let (ok, _, err) = fixture.try_kubectl(&["apply", "-f", "-"], &wrong).await;
        assert!(!ok && err.contains("`selector` does not match template `labels`"), "{err}");
        // Without credentials nothing is told.
        let text = std::fs::read_to_string(fixture.running.kubeconfig_path()).unwrap();
        let mut config: serde_json::Value = serde_json::from_str(&text).unwrap();
        config["users"][0]["user"]["token"] = serde_json::json!("wrong");
        let stranger = fixture.folder.join("stranger");
        std::fs::write(&stranger, config.to_string()).unwrap();
        let (ok, _, err) = kubectl(&stranger, &fixture.folder, &["get", "pods"], "").await;
        assert!(!ok && err.contains("Unauthorized"), "{err}");
    });
}

#[test]
fn custom_resources_are_checked_and_watched() {
    run(async |fixture| {
        let definition = r#"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: things.x.io}
spec:
  group: x.io
  scope: Namespaced
  names: {plural: things, kind: Thing, shortNames: [th]}
  versions:
  - name: v1
    served: true
    storage: true
    additionalPrinterColumns: [{name: Size, type: integer, jsonPath: .spec.size}]
    schema: {openAPIV3Schema: {type: object, properties: {spec: {type: object, properties: {size: {type: integer, maximum: 3}}}}}}
"#;
        fixture.apply(definition).await;
        fixture.kubectl(&["wait", "--for=condition=Established", "crd/things.x.io", "--timeout=20s"]).await;
        let thing =
            |size: &str| format!("{{apiVersion: x.io/v1, kind: Thing, metadata: {{name: t}}, spec: {size}}}");
        assert_eq!(fixture.apply(&thing("{size: 1}")).await, "thing.x.io/t created\n");
        assert_eq!(fixture.apply(&thing("{size: 2}")).await, "thing.x.io/t configured\n");
        let out = fixture.kubectl(&["get", "th"]).await;
        assert!(out.contains("SIZE") && out.contains("t      2"), "{out}");
        let (ok, _, err) = fixture.try_kubectl(&["apply", "-f", "-"], &thing("{size: 9}")).await;
        assert!(!ok && err.contains("should be less than or equal to 3"), "{err}");
        let (ok, _, err) = fixture.try_kubectl(&["apply", "-f", "-"], &thing("{sice: 1}")).await;
        assert!(!ok && err.contains("unknown field \"spec.sice\""), "{err}");
        let wait = ["wait", "--for=jsonpath={.spec.size}=3", "thing/t", "--timeout=30s"];
        let (waited, ()) = futures::join!(fixture.kubectl(&wait), async {
            fixture.kubectl(&["patch", "thing", "t", "--type=merge", "-p", r#"{"spec":{"size":3}}"#]).await;
        });
        assert!(waited.contains("condition met"), "{waited}");
    });
}

#[test]
fn objects_outlive_the_server_and_stale_writes_are_refused() {
    run(async |fixture| {
        let file = Kubeconfig::read_from(fixture.running.kubeconfig_path()).unwrap();
        let config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.unwrap();
        let maps: Api<ConfigMap> = Api::default_namespaced(kube::Client::try_from(config).unwrap());
        let mut map = ConfigMap::default();
        map.metadata.name = Some("a".into());
        let first = maps.create(&PostParams::default(), &map).await.unwrap();
        let mut next = first.clone();
        next.data = Some([("k".to_owned(), "v".to_owned())].into());
        maps.replace("a", &PostParams::default(), &next).await.unwrap();
        match maps.replace("a", &PostParams::default(), &next).await {
            Err(kube::Error::Api(status)) => {
                assert_eq!((status.code, status.reason.as_str()), (409, "Conflict"))
            }
            other => panic!("{other:?}"),
        }
        let folder = fixture.folder.clone();
        fixture.running.stop(std::time::Duration::from_secs(5)).await;
        let settings =
            Settings { listen: ([127, 0, 0, 1], 0).into(), data_dir: folder, ..Settings::default() };
        let again = start(settings, Env::real()).await.unwrap();
        let maps: Api<ConfigMap> = Api::default_namespaced(again.client());
        assert_eq!(maps.get("a").await.unwrap().data.unwrap()["k"], "v");
    });
}

#[test]
fn a_register_of_the_cluster_is_kept_by_kubectl() {
    run(async |fixture| {
        let definition = r#"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: edgethings.x.io}
spec:
  group: x.io
  scope: Cluster
  names: {plural: edgethings, singular: edgething, kind: EdgeThing, shortNames: [et]}
  versions:
  - name: v1
    served: true
    storage: true
    additionalPrinterColumns:
    - {name: Revoked, type: string, jsonPath: '.metadata.labels.x\.io/revoked'}
    - {name: Owner, type: string, jsonPath: .spec.owner}
    - {name: Certificate, type: string, jsonPath: '.metadata.annotations.x\.io/certificate', priority: 1}
    schema: {openAPIV3Schema: {type: object, properties: {spec: {type: object, properties: {owner: {type: string}}}}}}
"#;
        fixture.apply(definition).await;
        fixture
            .kubectl(&["wait", "--for=condition=Established", "crd/edgethings.x.io", "--timeout=20s"])
            .await;
        for name in ["n1", "n2"] {
            fixture.apply(&format!("{{apiVersion: x.io/v1, kind: EdgeThing, metadata: {{name: {name}}}, spec: {{owner: made}}}}")).await;
        }
        fixture.kubectl(&["label", "edgething", "n1", "x.io/revoked=true"]).await;
        fixture.kubectl(&["annotate", "edgething", "n1", "x.io/certificate=0a1b"]).await;
        let wide = fixture.kubectl(&["get", "et", "-o", "wide"]).await;
        let line = wide.lines().find(|line| line.starts_with("n1")).unwrap();
        assert_eq!(line.split_whitespace().collect::<Vec<_>>(), ["n1", "true", "made", "0a1b"], "{wide}");
        let out = fixture.kubectl(&["get", "edgethings", "-l", "x.io/revoked=true", "-o", "name"]).await;
        assert_eq!(out, "edgething.x.io/n1\n");
        let out = fixture.kubectl(&["get", "et", "--chunk-size=1", "-o", "name"]).await;
        assert_eq!(out, "edgething.x.io/n1\nedgething.x.io/n2\n");
        let waited = ["wait", "--for=delete", "edgething/n1", "--timeout=20s"];
        let (waited, deleted) =
            futures::join!(fixture.kubectl(&waited), fixture.kubectl(&["delete", "edgething", "n1"]));
        assert!(deleted.contains("\"n1\" deleted"), "{deleted}{waited}");
    });
}

/// The definition as it is installed.
#[test]
fn properties_of_a_device_are_told_apart_by_their_names() {
    run(async |fixture| {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../cloud/deploy/chart/crds/devices.yaml");
        fixture.apply(&std::fs::read_to_string(path).unwrap()).await;
        let established =
            ["wait", "--for=condition=Established", "crd/devices.devices.kubeedge.io", "--timeout=20s"];
        fixture.kubectl(&established).await;
        let device = |properties: &str| {
            format!(
                "{{apiVersion: devices.kubeedge.io/v1beta1, kind: Device, metadata: {{name: lamp}}, spec: {{properties: {properties}}}}}"
            )
        };
        let named = "[{name: power, collectCycle: 500}, {name: heat}]";
        assert_eq!(fixture.apply(&device(named)).await, "device.devices.kubeedge.io/lamp created\n");
        for (properties, said) in [
            ("[{name: power}, {name: power}]", "spec.properties[1]: Duplicate value"),
            ("[{name: power}, {collectCycle: 500}]", "spec.properties[1].name: Required value"),
        ] {
            let (ok, _, err) = fixture.try_kubectl(&["apply", "-f", "-"], &device(properties)).await;
            assert!(!ok && err.contains(said), "{err}");
        }
        let value = "[{name: power, desired: {value: 'on'}}]";
        assert_eq!(fixture.apply(&device(value)).await, "device.devices.kubeedge.io/lamp configured\n");
        let out =
            fixture.kubectl(&["get", "device", "lamp", "-o", "jsonpath={.spec.properties[*].name}"]).await;
        assert_eq!(out, "power", "a plain apply replaces the list, as with an API server");
    });
}

#[test]
fn kubectl_hears_of_pod_security_and_of_what_is_not_served() {
    run(async |fixture| {
        fixture.kubectl(&["label", "ns", "default", "pod-security.kubernetes.io/enforce=restricted"]).await;
        let (ok, out, err) = fixture.try_kubectl(&["apply", "-f", "-"], DEPLOYMENT).await;
        assert!(ok, "{out}{err}");
        assert!(err.contains("Warning: would violate PodSecurity \"restricted:latest\""), "{err}");
        let pod = "{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {hostNetwork: true, containers: [{name: c, image: x}]}}";
        let (ok, _, err) = fixture.try_kubectl(&["apply", "-f", "-"], pod).await;
        assert!(
            !ok && err
                .contains("violates PodSecurity \"restricted:latest\": host namespaces (hostNetwork=true)"),
            "{err}"
        );
        let (ok, _, err) = fixture
            .try_kubectl(
                &["label", "ns", "default", "--overwrite", "pod-security.kubernetes.io/enforce=strict"],
                "",
            )
            .await;
        assert!(!ok && err.contains("must be one of privileged, baseline, restricted"), "{err}");
        // There is no admission policy here, and nobody is told that there were one.
        let policy = "{apiVersion: admissionregistration.k8s.io/v1, kind: ValidatingAdmissionPolicy, metadata: {name: p}}";
        let (ok, _, err) = fixture.try_kubectl(&["apply", "-f", "-"], policy).await;
        assert!(!ok && err.contains("no matches for kind \"ValidatingAdmissionPolicy\""), "{err}");
    });
}

const POD: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  containers:
  - {name: c, image: "busybox:1", resources: {requests: {cpu: 100m, memory: 16Mi}}}
"#;

#[test]
fn kubectl_resizes_and_debugs_a_pod() {
    run(async |fixture| {
        fixture.apply(POD).await;
        let cpu = ["get", "pod", "web", "-o", "jsonpath={.spec.containers[0].resources.requests.cpu}"];
        let patch = r#"{"spec":{"containers":[{"name":"c","resources":{"requests":{"cpu":"200m"}}}]}}"#;
        let out = fixture.kubectl(&["patch", "pod", "web", "--subresource", "resize", "-p", patch]).await;
        assert_eq!(out, "pod/web patched\n");
        assert_eq!(fixture.kubectl(&cpu).await, "200m");
        let refused =
            r#"{"spec":{"containers":[{"name":"c","resources":{"limits":{"cpu":"200m","memory":"16Mi"}}}]}}"#;
        let args = ["patch", "pod", "web", "--subresource", "resize", "-p", refused];
        let (ok, _, error) = fixture.try_kubectl(&args, "").await;
        assert!(!ok && error.contains("Pod QOS Class may not change as a result of resizing"), "{error}");
        // It is the subresource's alone.
        let (ok, _, error) = fixture
            .try_kubectl(&["patch", "pod", "web", "-p", patch.replace("200m", "300m").as_str()], "")
            .await;
        assert!(!ok && error.contains("pod updates may not change fields other than"), "{error}");

        let debug = ["debug", "web", "--image=busybox:2", "--target=c", "-c", "look", "--", "sleep", "9"];
        fixture.kubectl(&debug).await;
        let added = [
            "get",
            "pod",
            "web",
            "-o",
            "jsonpath={.spec.ephemeralContainers[*]['name','image','targetContainerName']}",
        ];
        let out = fixture.kubectl(&added).await;
        assert!(out.contains("look") && out.contains("busybox:2") && out.contains("c"), "{out}");
        let listed = fixture.kubectl(&["get", "--raw", "/api/v1"]).await;
        for name in [
            "pods/resize",
            "pods/ephemeralcontainers",
            "pods/log",
            "pods/exec",
            "pods/attach",
            "pods/portforward",
            "nodes/proxy",
        ] {
            assert!(listed.contains(&format!("\"name\":\"{name}\"")), "{name}: {listed}");
        }
    });
}
