//! CloudCore's own account, made from the YAML that ships.

use std::path::Path;

use kube::api::{Api, DynamicObject, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};

use crate::cluster::resource;

const RBAC: &str = include_str!("../../../cloud/deploy/rbac.yaml");

/// Applies the YAML as `admin`, and gives a client that is the account which it names.
pub(crate) async fn cloudcore(admin: &kube::Client, kubeconfig: &Path) -> kube::Client {
    for object in serde_saphyr::from_multiple::<Value>(RBAC).unwrap() {
        let (api_version, kind) = (object["apiVersion"].as_str().unwrap(), object["kind"].as_str().unwrap());
        let resource = resource(api_version, kind);
        let api: Api<DynamicObject> = match object["metadata"]["namespace"].as_str() {
            Some(namespace) => Api::namespaced_with(admin.clone(), namespace, &resource),
            None => Api::all_with(admin.clone(), &resource),
        };
        let object: DynamicObject = serde_json::from_value(object).unwrap();
        api.create(&PostParams::default(), &object).await.unwrap();
    }
    let request =
        json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"audiences": []}});
    let request = http::Request::post("/api/v1/namespaces/kubeedge/serviceaccounts/cloudcore/token")
        .header("content-type", "application/json")
        .body(serde_json::to_vec(&request).unwrap())
        .unwrap();
    let granted: Value = admin.request(request).await.unwrap();
    let mut found = Kubeconfig::read_from(kubeconfig).unwrap();
    for user in &mut found.auth_infos {
        let token = granted["status"]["token"].as_str().unwrap().to_owned();
        user.auth_info = Some(kube::config::AuthInfo { token: Some(token.into()), ..Default::default() });
    }
    let config = kube::Config::from_custom_kubeconfig(found, &KubeConfigOptions::default()).await.unwrap();
    kube::Client::try_from(config).unwrap()
}
