//! CloudCore's own account, made from the chart that ships.

use std::path::Path;
use std::time::Duration;

use beehive::Env;
use kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};

/// What of the chart is about CloudCore's account. Nothing here runs a pod of it.
const OF_THE_ACCOUNT: [&str; 10] = [
    "Namespace",
    "ServiceAccount",
    "ClusterRole",
    "ClusterRoleBinding",
    "Role",
    "RoleBinding",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
    "MutatingAdmissionPolicy",
    "MutatingAdmissionPolicyBinding",
];

/// 86,400 s: as long as whatever shows such a token runs at the most.
const DAY: u32 = 86_400;

/// Applies what ships for a server without constrained impersonation and without admission policies, and gives a client
/// that is CloudCore's account.
pub(crate) async fn of_stand_alone(admin: &kube::Client, kubeconfig: &Path) -> kube::Client {
    apply_for_stand_alone(admin).await;
    become_account(admin, kubeconfig, "kubeedge", "cloudcore").await
}

/// Applies what ships for a server without constrained impersonation and without admission policies.
pub(crate) async fn apply_for_stand_alone(admin: &kube::Client) {
    cloud::apply_definitions(admin, &Env::real()).await.unwrap();
    let values = json!({ "policies": { "enable": false }, "rbac": { "secrets": true, "mirrors": true } });
    apply(admin, of_chart(values)).await;
}

/// Applies what ships for a server of today: nothing grants a Secret.
pub(crate) async fn apply_shipped(admin: &kube::Client) {
    cloud::apply_definitions(admin, &Env::real()).await.unwrap();
    let signer = json!({ "certificate": { "signerName": "kubernetes.io/kubelet-serving" } });
    let values = json!({
        "cloudCore": { "modules": { "cloudStream": { "kubeletEndpoint": signer } } },
        "rbac": { "endpointCheckNodes": ["edge-1"] },
    });
    apply(admin, of_chart(values)).await;
}

fn of_chart(mut values: Value) -> Vec<Value> {
    values["cloudCore"]["modules"]["cloudHub"]["advertiseAddress"] = json!(["127.0.0.1"]);
    let values = helmchart::with_defaults(&values).unwrap();
    let capabilities = helmchart::Capabilities { version: "v1.36.0".to_owned(), kinds: Vec::new() };
    let mut objects = vec![helmchart::namespace(&values, helmchart::NAMESPACE)];
    objects.extend(helmchart::render(&values, &capabilities, helmchart::NAMESPACE).unwrap());
    objects.retain(|object| OF_THE_ACCOUNT.contains(&object["kind"].as_str().unwrap()));
    objects
}

/// Creates them; what is there already is made to say the same.
async fn apply(admin: &kube::Client, objects: Vec<Value>) {
    for object in objects {
        let (api_version, kind) = (object["apiVersion"].as_str().unwrap(), object["kind"].as_str().unwrap());
        let namespace = object["metadata"]["namespace"].as_str();
        let api = crate::objects(admin.clone(), api_version, kind, namespace);
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        let made: DynamicObject = serde_json::from_value(object.clone()).unwrap();
        match api.create(&PostParams::default(), &made).await {
            Ok(_) => {}
            // A patch would leave of an earlier policy what this one no longer says.
            Err(kube::Error::Api(status)) if status.code == 409 && kind.contains("AdmissionPolicy") => {
                let mut made = made;
                made.metadata.resource_version = api.get(&name).await.unwrap().metadata.resource_version;
                api.replace(&name, &PostParams::default(), &made).await.unwrap();
            }
            Err(kube::Error::Api(status)) if status.code == 409 => {
                let patch = Patch::Merge(&object);
                api.patch(&name, &PatchParams::default(), &patch).await.unwrap();
            }
            Err(error) => panic!("{kind} {name}: {error}"),
        }
    }
}

/// A client that is this account, by a token of a day.
pub(crate) async fn become_account(
    admin: &kube::Client,
    kubeconfig: &Path,
    namespace: &str,
    account: &str,
) -> kube::Client {
    let found = as_account(admin, kubeconfig, namespace, account).await;
    let mut config =
        kube::Config::from_custom_kubeconfig(found, &KubeConfigOptions::default()).await.unwrap();
    config.connect_timeout = Some(Duration::from_secs(10));
    kube::Client::try_from(config).unwrap()
}

/// Writes a kubeconfig of CloudCore's account, for a program: it is good for a day.
pub(crate) async fn write_kubeconfig(admin: &kube::Client, kubeconfig: &Path, to: &Path) {
    let found = as_account(admin, kubeconfig, "kubeedge", "cloudcore").await;
    std::fs::write(to, serde_json::to_vec(&found).unwrap()).unwrap();
}

async fn as_account(admin: &kube::Client, kubeconfig: &Path, namespace: &str, account: &str) -> Kubeconfig {
    let request = json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
        "spec": {"audiences": [], "expirationSeconds": DAY},
    });
    let request =
        http::Request::post(format!("/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"))
            .header("content-type", "application/json")
            .body(serde_json::to_vec(&request).unwrap())
            .unwrap();
    let granted: Value = admin.request(request).await.unwrap();
    let mut found = Kubeconfig::read_from(kubeconfig).unwrap();
    for user in &mut found.auth_infos {
        let token = granted["status"]["token"].as_str().unwrap().to_owned();
        user.auth_info = Some(kube::config::AuthInfo { token: Some(token.into()), ..Default::default() });
    }
    found
}
