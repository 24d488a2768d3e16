//! CloudCore's own account, made from the YAML that ships.

use std::path::Path;
use std::time::Duration;

use beehive::Env;
use kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};

const RBAC: &str = include_str!("../../../cloud/deploy/rbac.yaml");
const RBAC_SECRETS: &str = include_str!("../../../cloud/deploy/rbac-secrets.yaml");
const RBAC_MIRRORS: &str = include_str!("../../../cloud/deploy/rbac-mirrors.yaml");
const POLICY: &str = include_str!("../../../cloud/deploy/policy.yaml");
const RBAC_CSR: &str = include_str!("../../../cloud/deploy/rbac-csr.yaml");
const RBAC_ENDPOINT_CHECK: &str = include_str!("../../../cloud/deploy/rbac-endpoint-check.yaml");
const EVICTION: &str = include_str!("../../../cloud/deploy/eviction.yaml");

/// Applies what ships for a server without constrained impersonation and without admission policies, and gives a client
/// that is CloudCore's account.
pub(crate) async fn of_stand_alone(admin: &kube::Client, kubeconfig: &Path) -> kube::Client {
    cloud::apply_definitions(admin, &Env::real()).await.unwrap();
    apply(admin, objects(RBAC)).await;
    apply(admin, objects(RBAC_SECRETS)).await;
    apply(admin, objects(RBAC_MIRRORS)).await;
    become_account(admin, kubeconfig, "kubeedge", "cloudcore").await
}

/// Applies what ships for a server of today: nothing grants a Secret.
pub(crate) async fn apply_shipped(admin: &kube::Client) {
    cloud::apply_definitions(admin, &Env::real()).await.unwrap();
    apply(admin, objects(RBAC)).await;
    apply(admin, objects(POLICY)).await;
    apply(admin, objects(RBAC_MIRRORS)).await;
    apply(admin, objects(EVICTION)).await;
    apply(admin, objects(RBAC_CSR)).await;
    apply(admin, objects(RBAC_ENDPOINT_CHECK)).await;
}

fn objects(yaml: &str) -> Vec<Value> {
    serde_saphyr::from_multiple::<Value>(yaml).unwrap()
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

/// A client that is this account, by a token of an hour.
pub(crate) async fn become_account(
    admin: &kube::Client,
    kubeconfig: &Path,
    namespace: &str,
    account: &str,
) -> kube::Client {
    let request =
        json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"audiences": []}});
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
    let mut config =
        kube::Config::from_custom_kubeconfig(found, &KubeConfigOptions::default()).await.unwrap();
    config.connect_timeout = Some(Duration::from_secs(10));
    kube::Client::try_from(config).unwrap()
}
