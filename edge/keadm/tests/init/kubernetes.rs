//! On a real Kubernetes, where somebody names one that tests may change: server-side apply, policies, daemon sets, and Helm after us.

use std::path::PathBuf;

use beehive::Env;
use harness::{LONG, objects, run};
use keadm::{ChartArgs, Init, Teardown};
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::helm_program::{Helm, chart};
use crate::machines::{create, kubelet, machines};
use crate::{client, init};

/// The kubeconfig of its administrator.
const VARIABLE: &str = "KUBEHIVE_TEST_KUBECONFIG";

fn order(kubeconfig: &std::path::Path) -> Init {
    Init {
        chart: ChartArgs { advertise_address: vec!["192.0.2.10".parse().unwrap()], ..ChartArgs::default() },
        kube_config: Some(kubeconfig.to_owned()),
        dry_run: false,
        force: false,
        skip_preflight_checks: false,
        keep_daemonsets_off: false,
        timeout: 120,
    }
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let env = Env::real();
    let waiting = async {
        while !holds().await {
            env.sleep(std::time::Duration::from_millis(200)).await;
        }
    };
    assert!(env.timeout(LONG, waiting).await.is_some(), "waited in vain: {what}");
}

/// What an earlier run left.
pub(crate) async fn clean(kubeconfig: &std::path::Path, admin: &kube::Client, namespace: Option<&str>) {
    let away = Teardown {
        kube_config: Some(kubeconfig.to_owned()),
        namespace: namespace.map(str::to_owned),
        force: true,
        with_devices: true,
    };
    let _ = keadm::teardown(&away, &Env::real(), &mut |_| true, &mut |_| {}).await;
    for (kind, namespace, name) in [
        ("Node", None, "keadm-test-machine-1"),
        ("Node", None, "keadm-test-machine-2"),
        ("Pod", Some("kube-system"), "keadm-test-coredns"),
    ] {
        let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
        let _ = objects(admin.clone(), "v1", kind, namespace).delete(name, &now).await;
    }
    let sets = objects(admin.clone(), "apps/v1", "DaemonSet", Some("kube-system"));
    let _ = sets.delete("keadm-test-proxy", &DeleteParams::default()).await;
}

async fn as_account(admin: &kube::Client, kubeconfig: &std::path::Path) -> kube::Client {
    let request = json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {} });
    let request = http::Request::post("/api/v1/namespaces/kubeedge/serviceaccounts/cloudcore/token")
        .header("content-type", "application/json")
        .body(serde_json::to_vec(&request).unwrap())
        .unwrap();
    let granted: Value = admin.request(request).await.unwrap();
    let mut found = kube::config::Kubeconfig::read_from(kubeconfig).unwrap();
    for user in &mut found.auth_infos {
        let token = granted["status"]["token"].as_str().unwrap().to_owned();
        user.auth_info = Some(kube::config::AuthInfo { token: Some(token.into()), ..Default::default() });
    }
    let options = kube::config::KubeConfigOptions::default();
    kube::Client::try_from(kube::Config::from_custom_kubeconfig(found, &options).await.unwrap()).unwrap()
}

#[test]
#[allow(clippy::print_stdout)] // Whoever reads the output is told that nothing was looked at.
fn on_kubernetes_init_installs_what_helm_takes_over() {
    let Some(kubeconfig) = std::env::var_os(VARIABLE).map(PathBuf::from) else {
        return println!("skipped: {VARIABLE} names no kubeconfig of a real cluster");
    };
    run(async || {
        let admin = client(&kubeconfig).await;
        actix_rt::spawn(kubelet(admin.clone(), "kubeedge"));
        clean(&kubeconfig, &admin, None).await;
        machines(&admin).await;
        // As kube-proxy has it: everywhere, whatever taints there are.
        let pod = json!({
            "metadata": { "labels": { "a": "b" } },
            "spec": { "containers": [{ "name": "proxy", "image": "proxy:1" }], "tolerations": [{ "operator": "Exists" }] },
        });
        let spec = json!({ "selector": { "matchLabels": { "a": "b" } }, "template": pod });
        create(
            &admin,
            "apps/v1",
            "DaemonSet",
            json!({ "metadata": { "name": "keadm-test-proxy", "namespace": "kube-system" }, "spec": spec }),
        )
        .await;

        let mut order = order(&kubeconfig);
        order.dry_run = true;
        let said = init(&order).await.unwrap();
        let warned = said.iter().find(|line| line.starts_with("# warn DaemonSets:")).unwrap();
        assert!(
            warned.contains("kube-system/keadm-test-proxy")
                && warned.contains("kubectl -n kube-system patch daemonset"),
            "{warned}"
        );
        let namespaces = objects(admin.clone(), "v1", "Namespace", None);
        assert!(namespaces.get_opt("kubeedge").await.unwrap().is_none(), "a dry run made the namespace");

        (order.dry_run, order.keep_daemonsets_off) = (false, true);
        let said = init(&order).await.unwrap();
        assert!(said.iter().any(|line| line == "CloudCore is ready"), "{said:?}");
        let sets = objects(admin.clone(), "apps/v1", "DaemonSet", Some("kube-system"));
        let patched = serde_json::to_string(&sets.get("keadm-test-proxy").await.unwrap().data).unwrap();
        assert!(
            patched.contains(r#"{"key":"node-role.kubernetes.io/edge","operator":"DoesNotExist"}"#),
            "{patched}"
        );
        // Twice only on purpose.
        let told = init(&order).await.unwrap_err();
        assert!(told.contains("Installed: CloudCore is there") && told.contains("--force"), "{told}");

        // The account is bounded by the policies that came with it.
        let account = as_account(&admin, &kubeconfig).await;
        let secrets = objects(account, "v1", "Secret", Some("kubeedge"));
        let secret: DynamicObject = serde_json::from_value(
            json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "foreign" } }),
        )
        .unwrap();
        let mut answer = String::new();
        until("the policy refuses a Secret that is none of CloudCore's", async || {
            let dry = PostParams { dry_run: true, ..PostParams::default() };
            answer = secrets
                .create(&dry, &secret)
                .await
                .map_or_else(|error| error.to_string(), |_| "allowed".to_owned());
            answer.contains("kubehive-cloudcore-secrets")
        })
        .await;

        // Helm 4 takes over what we wrote, as `helm upgrade --install` does where it finds no release of its own; then 3 goes on.
        let deployments: Api<DynamicObject> =
            objects(admin.clone(), "apps/v1", "Deployment", Some("kubeedge"));
        let mut helm = Helm::start();
        for (command, version, replicas) in [("helm_install", "v4", 3), ("helm_upgrade", "v3", 1)] {
            let hub = json!({ "advertiseAddress": ["192.0.2.10"] });
            let values = json!({ "cloudCore": { "replicaCount": replicas, "modules": { "cloudHub": hub } } });
            let arguments = json!({
                "release_name": "cloudcore", "chart": chart(), "namespace": "kubeedge", "values": values,
                "kubeconfig": kubeconfig, "helm_version": version,
            });
            helm.run(command, arguments).unwrap();
            assert_eq!(
                deployments.get("cloudcore").await.unwrap().data["spec"]["replicas"],
                replicas,
                "{version}"
            );
        }
        // And ours over Helm's.
        let scaled = json!({ "spec": { "replicas": 5 } });
        deployments.patch("cloudcore", &PatchParams::default(), &Patch::Merge(&scaled)).await.unwrap();
        order.force = true;
        init(&order).await.unwrap();
        assert_eq!(deployments.get("cloudcore").await.unwrap().data["spec"]["replicas"], 2);

        let away = Teardown {
            kube_config: Some(kubeconfig.to_owned()),
            namespace: None,
            force: true,
            with_devices: true,
        };
        keadm::teardown(&away, &Env::real(), &mut |_| true, &mut |_| {}).await.unwrap();
        assert!(namespaces.get_opt("kubeedge").await.unwrap().is_none());
        let policies =
            objects(admin.clone(), "admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicy", None);
        let left = policies.get_opt("kubehive-cloudcore-secrets").await;
        assert!(left.is_err() || left.unwrap().is_none());
        clean(&kubeconfig, &admin, None).await;
        // One test of one cluster: they would be in each other's way.
        crate::beside::on_kubernetes(&admin, &kubeconfig).await;
    });
}
