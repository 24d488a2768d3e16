//! `keadm init`, `manifest` and `reset cloud` against an API of one process, with a kubelet of our making: machines that are Ready, and pods
//! on them that are said to be, since nothing here runs an image. CloudCore itself runs, by the settings and as the account that were
//! installed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod beside;
#[path = "../../../../modules/helmchart/tests/helm_program/mod.rs"]
mod helm_program;
mod kubernetes;
mod machines;

use std::path::{Path, PathBuf};
use std::time::Duration;

use beehive::Env;
use beehive::link::tls::Credentials;
use cloud::{CloudCore, Transport};
use config::edge::EdgeCore as EdgeSettings;
use edge_hub::Endpoints;
use harness::{Cluster, LONG, objects, run};
use keadm::{ChartArgs, Init, Join, Teardown};
use kube::api::{ListParams, Patch, PatchParams};
use machines::{create, kubelet, machines};
use serde_json::{Value, json};

/// What the stand-alone API does not serve, and the right that it needs.
const FOR_STAND_ALONE: &str = "policies.enable=false,rbac.secrets=true,rbac.mirrors=true,networkPolicy.enable=false,podDisruptionBudget.enable=false";

fn order(kubeconfig: &Path, change: impl FnOnce(&mut Init)) -> Init {
    let chart = ChartArgs {
        advertise_address: vec!["192.0.2.10".parse().unwrap()],
        set: vec![FOR_STAND_ALONE.to_owned()],
        ..ChartArgs::default()
    };
    let mut order = Init {
        chart,
        kube_config: Some(kubeconfig.to_owned()),
        dry_run: false,
        force: false,
        skip_preflight_checks: false,
        keep_daemonsets_off: false,
        timeout: 60,
    };
    change(&mut order);
    order
}

async fn init(order: &Init) -> Result<Vec<String>, String> {
    let mut said = Vec::new();
    let done = keadm::init(order, &Env::real(), &mut |line| said.push(line)).await;
    match done {
        Ok(()) => Ok(said),
        Err(error) => Err(format!("{}\n{error:#}", said.join("\n"))),
    }
}

async fn client(kubeconfig: &Path) -> kube::Client {
    keadm::client(Some(kubeconfig)).await.unwrap()
}

/// Every object of these kinds, by name, but those that controllers give to each namespace in their own time.
async fn everything(client: &kube::Client) -> Vec<String> {
    let mut found = Vec::new();
    for (api_version, kind) in [
        ("v1", "Namespace"),
        ("v1", "ServiceAccount"),
        ("v1", "ConfigMap"),
        ("v1", "Secret"),
        ("v1", "Service"),
        ("apps/v1", "Deployment"),
        ("rbac.authorization.k8s.io/v1", "ClusterRole"),
        ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding"),
        ("rbac.authorization.k8s.io/v1", "Role"),
        ("rbac.authorization.k8s.io/v1", "RoleBinding"),
        ("apiextensions.k8s.io/v1", "CustomResourceDefinition"),
    ] {
        for object in
            objects(client.clone(), api_version, kind, None).list(&ListParams::default()).await.unwrap().items
        {
            let namespace = object.metadata.namespace.unwrap_or_default();
            found.push(format!("{kind} {namespace}/{}", object.metadata.name.unwrap()));
        }
    }
    found.retain(|name| {
        let is_everywhere = name.ends_with("/kube-root-ca.crt")
            || (name.starts_with("ServiceAccount ") && name.ends_with("/default"));
        !is_everywhere
    });
    found.sort();
    found
}

/// What init wrote of CloudCore's settings, at ports of this machine that are free.
async fn installed_settings(client: &kube::Client, namespace: &str) -> config::cloud::CloudCore {
    let map = objects(client.clone(), "v1", "ConfigMap", Some(namespace)).get("cloudcore").await.unwrap();
    let mut settings =
        config::cloud::CloudCore::parse(map.data["data"]["cloudcore.yaml"].as_str().unwrap()).unwrap();
    assert_eq!(settings.modules.cloud_hub.advertise_address, ["192.0.2.10"]);
    settings.common_config.monitor_server.bind_address = "127.0.0.1:0".to_owned();
    settings.common_config.monitor_server.healthz_bind_address = "127.0.0.1:0".to_owned();
    let endpoint = &mut settings.modules.cloud_stream.kubelet_endpoint;
    (endpoint.bind_address, endpoint.first_port) = ("127.0.0.1".to_owned(), 0);
    let hub = &mut settings.modules.cloud_hub;
    // The certificate has the address that the test joins by, too.
    hub.advertise_address.push("127.0.0.1".to_owned());
    for listener in [&mut hub.quic, &mut hub.https] {
        (listener.address, listener.port) = ("127.0.0.1".to_owned(), 0);
    }
    (hub.websocket.address, hub.websocket.port) = ("127.0.0.1".to_owned(), 0);
    settings
}

async fn joined(cloud: &CloudCore, folder: PathBuf, token: String) -> Credentials {
    let path = |name: &str| folder.join(name).display().to_string();
    let order = Join {
        cloud: keadm::CloudPorts::new("127.0.0.1:10000", cloud.enrolment_address().port()),
        token,
        node: "edge-1".to_owned(),
        config: folder.join("edgecore.yaml").into(),
        key_uri: None,
        set: vec![
            format!("modules.edgeHub.tlsCaFile={}", path("rootCA.crt")),
            format!("modules.edgeHub.tlsCertFile={}", path("server.crt")),
            format!("modules.edgeHub.tlsPrivateKeyFile={}", path("server.key")),
        ],
    };
    keadm::join(&order, &mut |_| {}).await.unwrap();
    let hub = EdgeSettings::load(&order.config.file).unwrap().modules.edge_hub;
    let read = |path: &Path| std::fs::read_to_string(path).unwrap();
    Credentials {
        certificate: read(&hub.tls_cert_file),
        key: read(&hub.tls_private_key_file).into(),
        authority: read(&hub.tls_ca_file),
    }
}

#[test]
fn what_init_installs_runs_takes_a_node_and_goes_again_without_a_trace() {
    run(async || {
        let mut before = Vec::new();
        let mut cluster = Cluster::installed_by(async |kubeconfig: PathBuf| {
            let client = client(&kubeconfig).await;
            machines(&client).await;
            before = everything(&client).await;
            actix_rt::spawn(kubelet(client.clone(), "kubeedge"));
            let said = init(&order(&kubeconfig, |order| order.skip_preflight_checks = true)).await.unwrap();
            let has = |words: &str| said.iter().any(|line| line.contains(words));
            assert!(has("CloudCore is ready") && has("10 definitions"), "{said:?}");
            assert!(has("--cloudcore-ipport=192.0.2.10:30000 --certport=30002"), "{said:?}");
            // The pods ran on machines, and not on one of the edge.
            let pods = objects(client.clone(), "v1", "Pod", Some("kubeedge"))
                .list(&ListParams::default())
                .await
                .unwrap();
            assert_eq!(pods.items.len(), 2);
        })
        .await;
        cluster.stop_cloud().await;
        let admin = cluster.client();
        let deployment =
            objects(admin.clone(), "apps/v1", "Deployment", Some("kubeedge")).get("cloudcore").await.unwrap();
        assert!(helmchart::is_of_release(&serde_json::to_value(&deployment).unwrap(), "kubeedge"));

        // CloudCore, by what was installed.
        let settings = installed_settings(&admin, "kubeedge").await;
        let cloud =
            CloudCore::start(&settings, cluster.account(), Transport::Quic, Env::real()).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let token = keadm::get_token(admin.clone(), None, 1, keadm::TOKEN_LIFE, &Env::real()).await.unwrap();
        let held = joined(&cloud, folder.path().join("edge-1"), token).await;
        let address = cloud.link_address().unwrap().to_string();
        let endpoints = Endpoints::from_lists(&address, "", &held, &cluster.env().clock()).unwrap();
        let mut node = cluster.node_by("edge-1", endpoints).await;
        cluster.until_ready(&node).await;
        node.stop().await;
        cloud.stop(LONG).await;

        // Again over it: nothing is there twice, and what was changed by hand is as the chart has it.
        let kubeconfig = cluster.kubeconfig();
        let scaled = json!({ "spec": { "replicas": 1 } });
        let deployments = objects(admin.clone(), "apps/v1", "Deployment", Some("kubeedge"));
        deployments.patch("cloudcore", &PatchParams::default(), &Patch::Merge(&scaled)).await.unwrap();
        let forced = order(&kubeconfig, |order| (order.force, order.skip_preflight_checks) = (true, true));
        let said = init(&forced).await.unwrap();
        assert!(said.iter().any(|line| line.contains("not waiting")), "{said:?}");
        assert_eq!(deployments.get("cloudcore").await.unwrap().data["spec"]["replicas"], 2);

        // A Device is somebody's: its definition goes only on purpose.
        let model = json!({ "metadata": { "name": "m", "namespace": "default" }, "spec": {} });
        create(&admin, "devices.kubeedge.io/v1beta1", "DeviceModel", model).await;
        let mut away = Teardown {
            kube_config: Some(kubeconfig.clone()),
            namespace: None,
            force: false,
            with_devices: false,
        };
        let refused = keadm::teardown(&away, &Env::real(), &mut |_| false, &mut |_| {}).await.unwrap_err();
        assert!(refused.to_string().contains("nothing was removed"), "{refused:#}");
        assert_ne!(everything(&admin).await, before);
        let mut said = Vec::new();
        keadm::teardown(&away, &Env::real(), &mut |_| true, &mut |line| said.push(line)).await.unwrap();
        let has = |words: &str| said.iter().any(|line| line.contains(words));
        assert!(has("devicemodels.devices.kubeedge.io stays") && has("the Node edge-1 stays"), "{said:?}");
        (away.force, away.with_devices) = (true, true);
        keadm::teardown(&away, &Env::real(), &mut |_| panic!("it is not asked"), &mut |_| {}).await.unwrap();
        // What was deleted in the background goes a moment later.
        let mut left = everything(&admin).await;
        for _ in 0..100 {
            if left == before {
                break;
            }
            cluster.env().sleep(Duration::from_millis(100)).await;
            left = everything(&admin).await;
        }
        assert_eq!(left, before);
        let nothing = keadm::teardown(&away, &Env::real(), &mut |_| true, &mut |_| {}).await.unwrap_err();
        assert!(nothing.to_string().contains("nothing of CloudCore"), "{nothing:#}");
    });
}

/// Each fault is there for real, and each is named with its cure; nothing is written while one is there.
#[test]
fn what_would_fail_on_the_first_day_is_named_before_anything_is_written() {
    run(async || {
        let folder = tempfile::tempdir().unwrap();
        let server = cloud_apiserver::Settings {
            listen: ([127, 0, 0, 1], 0).into(),
            data_dir: folder.path().join("api"),
            ..cloud_apiserver::Settings::default()
        };
        let api = cloud_apiserver::start(server, Env::real()).await.unwrap();
        let (kubeconfig, admin) = (api.kubeconfig_path().to_owned(), api.client());
        let before = everything(&admin).await;

        // An API of one process with no machine and no DNS, and nobody said where nodes come to.
        let empty = order(&kubeconfig, |order| {
            order.chart.set.push("cloudCore.modules.cloudHub.advertiseAddress={127.0.0.1}".to_owned())
        });
        let told = init(&empty).await.unwrap_err();
        for words in [
            "ApiServerVersion: this is `cloudcore --standalone`",
            "NodesReady: of 0 Nodes none is Ready",
            "ClusterDNS: kube-system has no pod",
            "--skip-preflight-checks installs all the same",
        ] {
            assert!(told.contains(words), "{words}: {told}");
        }
        assert_eq!(everything(&admin).await, before);

        // Cured, one is left, which no cure of the cluster's helps against.
        machines(&admin).await;
        let told = init(&order(&kubeconfig, |_| {})).await.unwrap_err();
        assert!(
            told.contains("FAIL    ApiServerVersion")
                && told.contains("ok      NodesReady")
                && told.contains("ok      ClusterDNS"),
            "{told}"
        );

        // A port that another Service has, a namespace that is too strict, a CloudCore of KubeEdge's, Devices of an older version.
        let ports = json!([{ "port": 80, "nodePort": 30001, "protocol": "UDP" }]);
        let service = json!({ "metadata": { "name": "shop", "namespace": "default" }, "spec": { "type": "NodePort", "ports": ports } });
        create(&admin, "v1", "Service", service).await;
        let labels = json!({ "pod-security.kubernetes.io/enforce": "baseline" });
        create(&admin, "v1", "Namespace", json!({ "metadata": { "name": "kubeedge", "labels": labels } }))
            .await;
        let template = json!({
            "metadata": { "labels": { "a": "b" } },
            "spec": { "containers": [{ "name": "cloudcore", "image": "kubeedge/cloudcore:v1.23.0" }] },
        });
        let spec =
            json!({ "selector": { "matchLabels": { "a": "b" } }, "replicas": 0, "template": template });
        create(
            &admin,
            "apps/v1",
            "Deployment",
            json!({ "metadata": { "name": "cloudcore", "namespace": "kubeedge" }, "spec": spec }),
        )
        .await;
        let devices = crd::manifests().into_iter().find(|one| one.spec.names.plural == "devices").unwrap();
        let definition = serde_json::to_value(devices).unwrap();
        create(&admin, "apiextensions.k8s.io/v1", "CustomResourceDefinition", definition).await;
        let definitions = objects(admin.clone(), "apiextensions.k8s.io/v1", "CustomResourceDefinition", None);
        let stored = json!({ "status": { "storedVersions": ["v1alpha2", "v1beta1"] } });
        let name = "devices.devices.kubeedge.io";
        definitions.patch_status(name, &PatchParams::default(), &Patch::Merge(&stored)).await.unwrap();
        let nodes = objects(admin.clone(), "v1", "Node", None);
        let of_cloud = json!({ "spec": { "providerID": "aws:///eu-central-1a/i-0" } });
        nodes.patch("keadm-test-machine-1", &PatchParams::default(), &Patch::Merge(&of_cloud)).await.unwrap();
        let before = everything(&admin).await;
        let on_host = order(&kubeconfig, |order| order.chart.set.push("cloudCore.hostPorts=true".to_owned()));
        let told = init(&on_host).await.unwrap_err();
        for words in [
            "NodePorts: taken: 30001 (Service default/shop)",
            "PodSecurity: the namespace kubeedge allows baseline pods, and these are privileged",
            "Installed: the Deployment kubeedge/cloudcore (kubeedge/cloudcore:v1.23.0) is not of this chart",
            "WARNING CloudProvider: Nodes are of aws",
            "Definitions: devices.devices.kubeedge.io holds objects of an older version",
        ] {
            assert!(told.contains(words), "{words}: {told}");
        }
        assert_eq!(everything(&admin).await, before);

        // A user who may look and not write.
        let restricted = folder.path().join("reader.kubeconfig");
        std::fs::write(&restricted, reader(&admin, &kubeconfig).await).unwrap();
        let told = init(&order(&restricted, |_| {})).await.unwrap_err();
        assert!(
            told.contains("Rights: this user may not create namespaces")
                && told.contains("patch deployments in kubeedge"),
            "{told}"
        );
        api.stop(LONG).await;
    });
}

/// A kubeconfig of an account that may read everything.
async fn reader(admin: &kube::Client, kubeconfig: &Path) -> String {
    create(
        admin,
        "v1",
        "ServiceAccount",
        json!({ "metadata": { "name": "reader", "namespace": "default" } }),
    )
    .await;
    let rules = json!([
        { "apiGroups": ["*"], "resources": ["*"], "verbs": ["get", "list", "watch"] },
        { "nonResourceURLs": ["*"], "verbs": ["get"] },
        { "apiGroups": ["authorization.k8s.io"], "resources": ["selfsubjectaccessreviews"], "verbs": ["create"] },
    ]);
    create(
        admin,
        "rbac.authorization.k8s.io/v1",
        "ClusterRole",
        json!({ "metadata": { "name": "reader" }, "rules": rules }),
    )
    .await;
    let role = json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "reader" });
    let subjects = json!([{ "kind": "ServiceAccount", "name": "reader", "namespace": "default" }]);
    let binding = json!({ "metadata": { "name": "reader" }, "roleRef": role, "subjects": subjects });
    create(admin, "rbac.authorization.k8s.io/v1", "ClusterRoleBinding", binding).await;
    kubeconfig_of(admin, kubeconfig, "default", "reader").await
}

/// A kubeconfig of an account.
async fn kubeconfig_of(admin: &kube::Client, kubeconfig: &Path, namespace: &str, account: &str) -> String {
    let request = json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": { "audiences": [] } });
    let request =
        http::Request::post(format!("/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"))
            .header("content-type", "application/json")
            .body(serde_json::to_vec(&request).unwrap())
            .unwrap();
    let granted: Value = admin.request(request).await.unwrap();
    let mut config: Value = serde_saphyr::from_str(&std::fs::read_to_string(kubeconfig).unwrap()).unwrap();
    for user in config["users"].as_array_mut().unwrap() {
        user["user"] = json!({ "token": granted["status"]["token"] });
    }
    serde_saphyr::to_string(&config).unwrap()
}

#[test]
fn a_dry_run_prints_and_writes_nothing() {
    run(async || {
        let mut printed = Vec::new();
        Cluster::installed_by(async |kubeconfig: PathBuf| {
            let client = client(&kubeconfig).await;
            let before = everything(&client).await;
            let dry = order(&kubeconfig, |order| (order.dry_run, order.skip_preflight_checks) = (true, true));
            printed = init(&dry).await.unwrap();
            assert_eq!(everything(&client).await, before);
            // So that there is an account to start with.
            let forced =
                order(&kubeconfig, |order| (order.force, order.skip_preflight_checks) = (true, true));
            init(&forced).await.unwrap();
        })
        .await;
        let documents: Vec<Value> = serde_saphyr::from_multiple(&printed.join("\n")).unwrap();
        let kinds: Vec<&str> = documents.iter().map(|object| object["kind"].as_str().unwrap()).collect();
        assert_eq!(
            (kinds[0], kinds[1], kinds[kinds.len() - 1]),
            ("Namespace", "CustomResourceDefinition", "Deployment")
        );
    });
}
