//! KubeEdge's CloudCore and ours beside each other in one cluster: what is of KubeEdge's is written by nobody, from `init` to `reset cloud`.

use std::path::Path;
use std::time::Duration;

use beehive::Env;
use cloud::{CloudCore, Transport};
use contract::NodeName;
use harness::{LONG, objects, run};
use keadm::{Init, Teardown};
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::kubernetes;
use crate::machines::{create, kubelet, machines};
use crate::{client, init, installed_settings, joined, kubeconfig_of, order};

/// The kinds of which KubeEdge 1.22 and 1.23 have objects in a cluster, and ours have, too.
const KINDS: [(&str, &str); 14] = [
    ("v1", "Namespace"),
    ("v1", "Node"),
    ("v1", "ServiceAccount"),
    ("v1", "ConfigMap"),
    ("v1", "Secret"),
    ("v1", "Service"),
    ("apps/v1", "Deployment"),
    ("rbac.authorization.k8s.io/v1", "ClusterRole"),
    ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding"),
    ("apiextensions.k8s.io/v1", "CustomResourceDefinition"),
    ("reliablesyncs.kubeedge.io/v1alpha1", "ObjectSync"),
    ("devices.kubeedge.io/v1beta1", "Device"),
    ("devices.kubeedge.io/v1beta1", "DeviceStatus"),
    ("operations.kubeedge.io/v1alpha2", "ImagePrePullJob"),
];

/// All objects of [`KINDS`] whose name is among KubeEdge's, but for what controllers of the cluster say of them.
async fn of_kubeedge(admin: &kube::Client) -> Vec<(String, Value)> {
    let mut found = Vec::new();
    for (api_version, kind) in KINDS {
        let list = objects(admin.clone(), api_version, kind, None).list(&ListParams::default()).await;
        for object in list.unwrap_or_else(|error| panic!("{kind}: {error}")).items {
            let (namespace, name) = (
                object.metadata.namespace.clone().unwrap_or_default(),
                object.metadata.name.clone().unwrap(),
            );
            let is_theirs = namespace == "kubeedge"
                || name == "kubeedge"
                || name.starts_with("old-")
                || (namespace.is_empty() && (name == "cloudcore" || name == "cloudcore-common"))
                || name.ends_with(".kubeedge.io");
            if !is_theirs || name == "kube-root-ca.crt" || name == "default" {
                continue;
            }
            let mut object = serde_json::to_value(object).unwrap();
            if !matches!(kind, "DeviceStatus" | "ImagePrePullJob") {
                object.as_object_mut().unwrap().remove("status");
            }
            if kind == "Node" {
                // Taints, of whom nothing is heard.
                object.as_object_mut().unwrap().remove("spec");
            }
            let metadata = object["metadata"].as_object_mut().unwrap();
            ["resourceVersion", "managedFields", "generation"]
                .iter()
                .for_each(|field| drop(metadata.remove(*field)));
            if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
                annotations.remove("deployment.kubernetes.io/revision");
            }
            found.push((format!("{kind} {namespace}/{name}"), object));
        }
    }
    found.sort_by(|one, other| one.0.cmp(&other.0));
    found
}

fn unchanged(before: &[(String, Value)], after: &[(String, Value)]) {
    let names = |all: &[(String, Value)]| all.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    assert_eq!(names(after), names(before));
    for ((name, before), (_, after)) in before.iter().zip(after) {
        assert_eq!(after, before, "{name}");
    }
}

/// A definition as KubeEdge's chart has it: by another hand, with what ours does not have.
fn definition(plural: &str) -> Value {
    let ours = crd::manifests().into_iter().find(|one| one.spec.names.plural == plural).unwrap();
    let mut theirs = serde_json::to_value(ours).unwrap();
    crd::without_nulls(&mut theirs);
    theirs["metadata"] = json!({
        "name": theirs["metadata"]["name"],
        "annotations": { "controller-gen.kubebuilder.io/version": "v0.17.3" },
    });
    let versions = theirs["spec"]["versions"].as_array_mut().unwrap();
    versions.retain(|version| version["storage"] == true);
    versions[0].as_object_mut().unwrap().remove("additionalPrinterColumns");
    let mut older = versions[0].clone();
    (older["name"], older["storage"]) = ("v1alpha0".into(), false.into());
    versions.push(older);
    theirs
}

/// What KubeEdge's keadm (1.22, 1.23) makes in a cluster, and a node of its with a device and a job.
async fn kubeedge(admin: &kube::Client) {
    let marks = |name: &str, namespace: Option<&str>| {
        let mut metadata = json!({
            "name": name,
            "labels": { "k8s-app": "kubeedge", "kubeedge": "cloudcore", "app.kubernetes.io/managed-by": "Helm" },
            "annotations": { "meta.helm.sh/release-name": "cloudcore", "meta.helm.sh/release-namespace": "kubeedge" },
        });
        if let Some(namespace) = namespace {
            metadata["namespace"] = namespace.into();
        }
        metadata
    };
    let own = |name: &str| marks(name, Some("kubeedge"));
    create(admin, "v1", "Namespace", json!({ "metadata": { "name": "kubeedge" } })).await;
    create(admin, "v1", "ServiceAccount", json!({ "metadata": own("cloudcore") })).await;
    let settings = json!({ "cloudcore.yaml": "modules: {cloudHub: {advertiseAddress: [192.0.2.9]}}" });
    create(admin, "v1", "ConfigMap", json!({ "metadata": own("cloudcore"), "data": settings })).await;
    let plain = |name: &str| json!({ "name": name, "namespace": "kubeedge" });
    create(admin, "v1", "ConfigMap", json!({ "metadata": plain("tunnelport") })).await;
    // KubeEdge's CA lies there as DER.
    let authority = json!({ "cadata": "MIIB", "cakeydata": "MHcC" });
    create(admin, "v1", "Secret", json!({ "metadata": plain("casecret"), "data": authority })).await;
    for name in ["cloudcoresecret", "tokensecret", "cloudcore"] {
        create(admin, "v1", "Secret", json!({ "metadata": plain(name), "data": { "a": "Yg==" } })).await;
    }
    let rules = json!([{ "apiGroups": [""], "resources": ["nodes"], "verbs": ["get"] }]);
    for name in ["cloudcore", "cloudcore-common"] {
        let role = json!({ "metadata": marks(name, None), "rules": rules });
        create(admin, "rbac.authorization.k8s.io/v1", "ClusterRole", role).await;
    }
    let role = json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cloudcore" });
    let subjects = json!([{ "kind": "ServiceAccount", "name": "cloudcore", "namespace": "kubeedge" }]);
    let binding = json!({ "metadata": marks("cloudcore", None), "roleRef": role, "subjects": subjects });
    create(admin, "rbac.authorization.k8s.io/v1", "ClusterRoleBinding", binding).await;
    let ports: Vec<Value> = (0..5)
        .map(|at| json!({ "name": format!("p{at}"), "port": 10000 + at, "nodePort": 30000 + at, "protocol": if at == 1 { "UDP" } else { "TCP" } }))
        .collect();
    let labels = json!({ "k8s-app": "kubeedge", "kubeedge": "cloudcore" });
    let spec = json!({ "type": "NodePort", "ports": ports, "selector": labels });
    create(admin, "v1", "Service", json!({ "metadata": own("cloudcore"), "spec": spec })).await;
    let pod = json!({ "containers": [{ "name": "cloudcore", "image": "kubeedge/cloudcore:v1.22.0" }] });
    let template = json!({ "metadata": { "labels": labels }, "spec": pod });
    let spec = json!({ "replicas": 0, "selector": { "matchLabels": labels }, "template": template });
    create(admin, "apps/v1", "Deployment", json!({ "metadata": own("cloudcore"), "spec": spec })).await;

    for plural in [
        "devices",
        "devicemodels",
        "devicestatuses",
        "rules",
        "ruleendpoints",
        "imageprepulljobs",
        "nodeupgradejobs",
    ] {
        create(admin, "apiextensions.k8s.io/v1", "CustomResourceDefinition", definition(plural)).await;
    }
    let schema =
        json!({ "openAPIV3Schema": { "type": "object", "x-kubernetes-preserve-unknown-fields": true } });
    let version = json!({ "name": "v1alpha1", "served": true, "storage": true, "schema": schema });
    let names = json!({ "kind": "ObjectSync", "plural": "objectsyncs", "singular": "objectsync" });
    let spec = json!({ "group": "reliablesyncs.kubeedge.io", "names": names, "scope": "Namespaced", "versions": [version] });
    let syncs = json!({ "metadata": { "name": "objectsyncs.reliablesyncs.kubeedge.io" }, "spec": spec });
    create(admin, "apiextensions.k8s.io/v1", "CustomResourceDefinition", syncs).await;

    let roles = json!({ "node-role.kubernetes.io/edge": "", "node-role.kubernetes.io/agent": "" });
    for name in ["old-1", "old-2"] {
        create(admin, "v1", "Node", json!({ "metadata": { "name": name, "labels": roles } })).await;
    }
    let of = |name: &str| json!({ "name": name, "namespace": "default" });
    let sync = json!({ "metadata": of("old-1.1234"), "spec": { "objectKind": "Pod" }, "status": { "objectResourceVersion": "7" } });
    served(admin, "reliablesyncs.kubeedge.io/v1alpha1", "ObjectSync", sync).await;
    for (name, node) in [("old-pump", "old-1"), ("old-valve", "old-1"), ("lost", "nowhere")] {
        let device = json!({ "metadata": of(name), "spec": { "nodeName": node, "deviceModelRef": { "name": "none" } } });
        served(admin, "devices.kubeedge.io/v1beta1", "Device", device).await;
    }
    let said = json!({ "state": "online", "twins": [{ "propertyName": "speed" }] });
    let status = json!({ "metadata": of("old-pump"), "spec": {}, "status": said });
    served(admin, "devices.kubeedge.io/v1beta1", "DeviceStatus", status).await;
    for (name, node) in [("old-job", "old-1"), ("lost-job", "nowhere")] {
        let template = json!({ "images": ["a:1"], "nodeNames": [node] });
        let job = json!({ "metadata": { "name": name }, "spec": { "imagePrePullTemplate": template } });
        served(admin, "operations.kubeedge.io/v1alpha2", "ImagePrePullJob", job).await;
    }
}

/// Makes an object of a kind that was defined a moment ago.
async fn served(admin: &kube::Client, api_version: &str, kind: &str, mut object: Value) {
    (object["apiVersion"], object["kind"]) = (api_version.into(), kind.into());
    let made: DynamicObject = serde_json::from_value(object).unwrap();
    let api = objects(admin.clone(), api_version, kind, made.metadata.namespace.as_deref());
    until(kind, async || api.create(&PostParams::default(), &made).await.is_ok()).await;
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let env = Env::real();
    let waiting = async {
        while !holds().await {
            env.sleep(Duration::from_millis(50)).await;
        }
    };
    assert!(env.timeout(LONG, waiting).await.is_some(), "waited in vain: {what}");
}

async fn cloudcore(admin: &kube::Client, kubeconfig: &Path, folder: &Path) -> CloudCore {
    let mut settings = installed_settings(admin, "hive").await;
    settings.modules.task_manager.enable = true;
    let path = folder.join("hive.kubeconfig");
    std::fs::write(&path, kubeconfig_of(admin, kubeconfig, "hive", "cloudcore").await).unwrap();
    CloudCore::start(&settings, client(&path).await, Transport::Quic, Env::real()).await.unwrap()
}

#[test]
fn beside_kubeedges_cloudcore_ours_writes_nothing_of_its_until_it_is_gone_again() {
    run(async || {
        let folder = tempfile::tempdir().unwrap();
        let server = cloud_apiserver::Settings {
            listen: ([127, 0, 0, 1], 0).into(),
            data_dir: folder.path().join("api"),
            ..cloud_apiserver::Settings::default()
        };
        let api = cloud_apiserver::start(server, Env::real()).await.unwrap();
        let (kubeconfig, admin) = (api.kubeconfig_path().to_owned(), api.client());
        machines(&admin).await;
        actix_rt::spawn(kubelet(admin.clone(), "hive"));
        beside_each_other(&admin, &kubeconfig, false).await;
        api.stop(LONG).await;
    });
}

/// The same on a real Kubernetes, with policies that are asked, and server-side apply.
pub(crate) async fn on_kubernetes(admin: &kube::Client, kubeconfig: &Path) {
    // Also what an earlier run left has to end.
    actix_rt::spawn(kubelet(admin.clone(), "hive"));
    gone(admin, kubeconfig).await;
    machines(admin).await;
    beside_each_other(admin, kubeconfig, true).await;
    gone(admin, kubeconfig).await;
}

/// What an earlier run left.
async fn gone(admin: &kube::Client, kubeconfig: &Path) {
    kubernetes::clean(kubeconfig, admin, Some("hive")).await;
    let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
    for (api_version, kind, name) in [
        ("v1", "Namespace", "kubeedge"),
        ("v1", "Node", "old-1"),
        ("v1", "Node", "old-2"),
        ("rbac.authorization.k8s.io/v1", "ClusterRole", "cloudcore"),
        ("rbac.authorization.k8s.io/v1", "ClusterRole", "cloudcore-common"),
        ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", "cloudcore"),
        ("apiextensions.k8s.io/v1", "CustomResourceDefinition", "objectsyncs.reliablesyncs.kubeedge.io"),
    ] {
        let api = objects(admin.clone(), api_version, kind, None);
        let _ = api.delete(name, &now).await;
        until(name, async || api.get_opt(name).await.unwrap().is_none()).await;
    }
    let definitions = objects(admin.clone(), "apiextensions.k8s.io/v1", "CustomResourceDefinition", None);
    for ours in crd::manifests() {
        let name = ours.metadata.name.unwrap();
        let _ = definitions.delete(&name, &now).await;
        until(&name, async || definitions.get_opt(&name).await.unwrap().is_none()).await;
    }
}

async fn beside_each_other(admin: &kube::Client, kubeconfig: &Path, is_real: bool) {
    let folder = tempfile::tempdir().unwrap();
    let order = |change: &dyn Fn(&mut Init)| {
        order(kubeconfig, |order| {
            if is_real {
                order.chart.set.clear();
            }
            change(order);
        })
    };
    kubeedge(admin).await;
    let before = of_kubeedge(admin).await;

    // In its place, whatever is skipped and forced.
    for skip in [false, true] {
        let over = order(&|order| (order.skip_preflight_checks, order.force) = (skip, true));
        let told = init(&over).await.unwrap_err();
        assert!(told.contains("`--namespace=kubehive` installs CloudCore beside it"), "{told}");
    }
    // Beside it: what collides is named with what is free.
    let beside = |more: &str| {
        order(&|order| {
            order.chart.namespace = "hive".to_owned();
            // The stand-alone API is no place for the chart, and says so.
            (order.skip_preflight_checks, order.force) = (!is_real && !more.is_empty(), true);
            order.chart.set.extend((!more.is_empty()).then(|| more.to_owned()));
        })
    };
    let told = init(&beside("")).await.unwrap_err();
    for words in [
        "ok      Installed: none of ours is there, beside KubeEdge's: kubeedge/cloudcore (kubeedge/cloudcore:v1.22.0)",
        "ok      Definitions: 7 of KubeEdge's stay as they are",
        "FAIL    NodePorts: taken: 30000 (Service kubeedge/cloudcore)",
    ] {
        assert!(told.contains(words), "{words}: {told}");
    }
    unchanged(&before, &of_kubeedge(admin).await);
    let free = told.rsplit("--set ").next().unwrap().lines().next().unwrap().to_owned();
    assert!(free.starts_with("cloudCore.service.cloudhubNodePort=30010,"), "{free}");
    let said = init(&beside(&free)).await.unwrap();
    for words in [
        "the namespace hive is made",
        "7 of them are KubeEdge's, and stay as they are",
        "KubeEdge's CloudCore runs beside it",
        "--cloudcore-ipport=192.0.2.10:30010 --certport=30012",
    ] {
        assert!(said.iter().any(|line| line.contains(words)), "{words}: {said:?}");
    }
    // What was not there of KubeEdge 1.22 is made, and is ours.
    let definitions = objects(admin.clone(), "apiextensions.k8s.io/v1", "CustomResourceDefinition", None);
    let made = definitions.get("configupdatejobs.operations.kubeedge.io").await.unwrap();
    assert_eq!(made.metadata.labels.unwrap()["app.kubernetes.io/part-of"], "kubehive");
    let before: Vec<(String, Value)> = {
        let mut all = before;
        let now = of_kubeedge(admin).await;
        all.extend(
            now.into_iter().filter(|(name, _)| name.ends_with("/configupdatejobs.operations.kubeedge.io")),
        );
        all.sort_by(|one, other| one.0.cmp(&other.0));
        all
    };
    unchanged(&before, &of_kubeedge(admin).await);

    // CloudCore works by what was installed, with its own CA and by KubeEdge's definitions, as an account that may write none.
    let cloud = cloudcore(admin, kubeconfig, folder.path()).await;
    let token = keadm::get_token(admin.clone(), None, 1, keadm::TOKEN_LIFE, &Env::real()).await.unwrap();
    joined(&cloud, folder.path().join("edge-1"), token).await;
    assert!(
        objects(admin.clone(), "v1", "Secret", Some("hive")).get_opt("casecret").await.unwrap().is_some()
    );
    // Of what no node has it says that it is wrong, and of what KubeEdge's node has it says nothing.
    let statuses = objects(admin.clone(), "devices.kubeedge.io/v1beta1", "DeviceStatus", Some("default"));
    until("the lost device", async || {
        let lost = statuses.get_opt("lost").await.unwrap();
        lost.is_some_and(|lost| lost.data.to_string().contains("the cluster has no Node of that name"))
    })
    .await;
    let jobs = objects(admin.clone(), "operations.kubeedge.io/v1alpha2", "ImagePrePullJob", None);
    until("the lost job", async || jobs.get("lost-job").await.unwrap().data["status"]["phase"] == "Failure")
        .await;
    until("the old job is looked at", async || {
        let report = serde_json::to_string(&cloud.inspector().report(LONG).await).unwrap();
        report.contains(r#""leftAlone":1"#)
    })
    .await;
    assert!(statuses.get_opt("old-valve").await.unwrap().is_none(), "KubeEdge makes it");
    unchanged(&before, &of_kubeedge(admin).await);

    // One node moves, and back again.
    let old = NodeName::parse("old-2").unwrap();
    keadm::adopt(admin.clone(), &old, &mut |_| {}).await.unwrap();
    keadm::undo_adoption(admin.clone(), &old, &mut |_| {}).await.unwrap();
    let nodes = objects(admin.clone(), "v1", "Node", None);
    let node = nodes.get("old-2").await.unwrap();
    assert!(node.metadata.labels.unwrap().contains_key("node-role.kubernetes.io/edge"));
    let annotations = node.metadata.annotations.unwrap_or_default();
    assert!(!annotations.keys().any(|key| key.starts_with("kubehive.io/")), "{annotations:?}");
    // What CloudCore said of a device while it had the node it takes back.
    let stale = json!({ "status": { "extensions": { "conditions": [
            { "type": "Reachable", "status": "False", "reason": "NodeSilent", "message": "m", "lastTransitionTime": "t" },
            { "type": "Mine", "status": "False", "reason": "Stays", "message": "n", "lastTransitionTime": "t" } ] } } });
    statuses.patch("old-pump", &PatchParams::default(), &Patch::Merge(&stale)).await.unwrap();
    cloud.stop(LONG).await;
    let cloud = cloudcore(admin, kubeconfig, folder.path()).await;
    until("the condition is taken back", async || {
        let pump = statuses.get("old-pump").await.unwrap().data.to_string();
        !pump.contains("NodeSilent") && pump.contains("Stays") && pump.contains("speed")
    })
    .await;
    cloud.stop(LONG).await;

    // Ours goes, and KubeEdge's stays.
    let before = of_kubeedge(admin).await;
    let mut away = Teardown {
        kube_config: Some(kubeconfig.to_owned()),
        namespace: None,
        force: true,
        with_devices: true,
    };
    let mut said = Vec::new();
    keadm::teardown(&away, &Env::real(), &mut |_| true, &mut |line| said.push(line)).await.unwrap();
    let has = |words: &str| said.iter().any(|line| line.contains(words));
    assert!(has("removed the namespace hive") && has("devicestatuses.devices.kubeedge.io stays"), "{said:?}");
    assert!(!has("the Node old-1 stays"), "it is KubeEdge's: {said:?}");
    unchanged(&before, &of_kubeedge(admin).await);
    let namespaces: Api<DynamicObject> = objects(admin.clone(), "v1", "Namespace", None);
    assert!(namespaces.get_opt("hive").await.unwrap().is_none());
    let roles = objects(admin.clone(), "rbac.authorization.k8s.io/v1", "ClusterRole", None);
    assert!(roles.get_opt("hive-cloudcore").await.unwrap().is_none());
    assert!(definitions.get_opt("edgenodes.kubehive.io").await.unwrap().is_none());
    // And once more it is KubeEdge's alone that is there.
    for namespace in [None, Some("kubeedge".to_owned())] {
        away.namespace = namespace;
        let told = keadm::teardown(&away, &Env::real(), &mut |_| true, &mut |_| {}).await.unwrap_err();
        assert!(told.to_string().contains("is KubeEdge's"), "{told:#}");
    }
    unchanged(&before, &of_kubeedge(admin).await);

    // KubeEdge's runs on outside of the cluster, as the unit of some machine: nothing but what it leaves here says so.
    let deployments = objects(admin.clone(), "apps/v1", "Deployment", Some("kubeedge"));
    deployments.delete("cloudcore", &DeleteParams::default()).await.unwrap();
    until("its Deployment is gone", async || deployments.get_opt("cloudcore").await.unwrap().is_none()).await;
    let record = json!({ "tunnelportrecord.kubeedge.io": r#"{"ipTunnelPort":{"192.0.2.9":10351}}"# });
    let record = json!({ "metadata": { "annotations": record } });
    let maps = objects(admin.clone(), "v1", "ConfigMap", Some("kubeedge"));
    maps.patch("tunnelport", &PatchParams::default(), &Patch::Merge(&record)).await.unwrap();
    let before = of_kubeedge(admin).await;
    let signs = "(Secrets cloudcoresecret, tokensecret; the ConfigMap tunnelport names 192.0.2.9; ";
    for skip in [false, true] {
        let over = order(&|order| (order.skip_preflight_checks, order.force) = (skip, true));
        let told = init(&over).await.unwrap_err();
        let words = format!("KubeEdge's CloudCore runs outside of the cluster {signs}");
        assert!(told.contains(&words) && told.contains("`--namespace=kubehive`"), "{told}");
    }
    let told = init(&beside("")).await.unwrap_err();
    for words in [
        format!("ok      Installed: none of ours is there, beside KubeEdge's outside of the cluster {signs}")
            .as_str(),
        "ok      Definitions: 7 of KubeEdge's stay as they are",
    ] {
        assert!(told.contains(words), "{words}: {told}");
    }
    away.namespace = None;
    let told = keadm::teardown(&away, &Env::real(), &mut |_| true, &mut |_| {}).await.unwrap_err();
    assert!(told.to_string().contains("a CloudCore of KubeEdge's outside of the cluster"), "{told:#}");
    unchanged(&before, &of_kubeedge(admin).await);
}
