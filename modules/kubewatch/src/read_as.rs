//! As whom a CloudCore reads Secrets and config maps.
//!
//! Where the server offers constrained impersonation of nodes (KEP-5284, on by default since Kubernetes 1.36), as the node
//! that needs them: the Node authorizer then allows one that a pod bound to that node refers to, and no other, and
//! CloudCore's own account has no right to any. Elsewhere as itself, with the rights of the chart's `rbac-secrets.yaml`.

use contract::NodeName;
use http::{HeaderName, HeaderValue, Request};
use kube::Client;
use serde_json::{Value, json};

const IMPERSONATE_USER: HeaderName = HeaderName::from_static("impersonate-user");
/// Every kubelet's group. Only constrained impersonation gives it to whoever names a node alone.
const NODES_GROUP: &str = "system:nodes";
/// No node has to have this name: any authenticated user may ask who it is.
const PROBE: &str = "system:node:kubehive-probe";
/// As whom Secrets and config maps are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadAs {
    /// As CloudCore's account.
    CloudCore,
    /// As a node that needs them.
    Nodes,
}

/// Why CloudCore cannot know what it may read.
#[derive(Debug, thiserror::Error)]
pub enum ReadAsError {
    /// Nothing is granted. Without it every Secret and config map would count as not there, and be taken from the nodes.
    #[error(
        "CloudCore may read no Secret and no config map: this server offers no constrained impersonation of nodes (on by default since Kubernetes 1.36), so install with `--set rbac.secrets=true`, or bind the ClusterRole of the chart's `rbac-secrets.yaml` in each namespace whose pods run on edge nodes and in `{0}`"
    )]
    NotGranted(String),
    /// The API server did not say.
    #[error("cannot ask the API server how Secrets and config maps may be read")]
    Api(#[from] kube::Error),
}

impl ReadAs {
    /// Finds out by trying, not by the server's version: whoever asks as a node is told who it is taken for. `namespace` is CloudCore's own:
    /// who grants namespace by namespace grants there, too, and so says that it was done on purpose.
    ///
    /// # Errors
    /// See [`ReadAsError`].
    pub async fn probe(client: &Client, namespace: &str) -> Result<ReadAs, ReadAsError> {
        if is_taken_for_a_node(client).await? {
            tracing::info!("Secrets and config maps are read as the nodes that need them");
            return Ok(ReadAs::Nodes);
        }
        if may_list(client, "secrets", "").await? && may_list(client, "configmaps", "").await? {
            tracing::info!("Secrets and config maps are read as this account, in all namespaces");
            return Ok(ReadAs::CloudCore);
        }
        if may_list(client, "configmaps", namespace).await? {
            tracing::info!(
                "Secrets and config maps are read as this account, in the namespaces that allow it"
            );
            return Ok(ReadAs::CloudCore);
        }
        Err(ReadAsError::NotGranted(namespace.to_owned()))
    }
}

/// Makes a request one of `node`.
pub(crate) fn as_node<B>(mut request: Request<B>, node: &NodeName) -> Request<B> {
    // A node's name has nothing that a header has not.
    if let Ok(user) = HeaderValue::from_str(&format!("system:node:{node}")) {
        request.headers_mut().insert(IMPERSONATE_USER, user);
    }
    request
}

async fn is_taken_for_a_node(client: &Client) -> Result<bool, ReadAsError> {
    let review = json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview" });
    let mut request = post("/apis/authentication.k8s.io/v1/selfsubjectreviews", &review)?;
    request.headers_mut().insert(IMPERSONATE_USER, HeaderValue::from_static(PROBE));
    let told: Value = match client.request(request).await {
        Ok(told) => told,
        // 403: it may not; 404: it does not know the question, and so neither this impersonation.
        Err(kube::Error::Api(status)) if (400..500).contains(&status.code) && status.code != 429 => {
            return Ok(false);
        }
        Err(error) => return Err(error.into()),
    };
    let user = &told["status"]["userInfo"];
    let groups = user["groups"].as_array();
    Ok(user["username"] == PROBE && groups.is_some_and(|groups| groups.iter().any(|g| g == NODES_GROUP)))
}

async fn may_list(client: &Client, resource: &str, namespace: &str) -> Result<bool, ReadAsError> {
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
        "spec": { "resourceAttributes": { "verb": "list", "resource": resource, "namespace": namespace } },
    });
    let told: Value =
        client.request(post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", &review)?).await?;
    Ok(told["status"]["allowed"] == true)
}

fn post(path: &str, body: &Value) -> Result<Request<Vec<u8>>, kube::Error> {
    let request = Request::post(path).header(http::header::CONTENT_TYPE, "application/json");
    request.body(body.to_string().into_bytes()).map_err(kube::Error::HttpError)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    use http::Response;
    use http_body_util::{BodyExt, Full};

    /// A server that answers the probe with these groups, or 403, and grants lists in these namespaces.
    fn server(groups: Option<&'static [&'static str]>, granted: &'static [&'static str]) -> Client {
        let service = tower::service_fn(move |request: Request<kube::client::Body>| async move {
            let probes = request.uri().path().ends_with("selfsubjectreviews");
            let user = request.headers().get("impersonate-user").cloned();
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let (code, told) = if probes {
                assert_eq!(user.unwrap(), PROBE);
                match groups {
                    Some(groups) => {
                        let user = json!({ "username": PROBE, "groups": groups });
                        (201, json!({ "status": { "userInfo": user } }))
                    }
                    None => (
                        403,
                        json!({ "kind": "Status", "status": "Failure", "code": 403, "message": "no", "reason": "Forbidden" }),
                    ),
                }
            } else {
                let asked: Value = serde_json::from_slice(&body).unwrap();
                let namespace = asked["spec"]["resourceAttributes"]["namespace"].as_str().unwrap();
                (201, json!({ "status": { "allowed": granted.contains(&namespace) } }))
            };
            let body = Full::new(bytes::Bytes::from(told.to_string()));
            Ok::<_, Infallible>(Response::builder().status(code).body(body).unwrap())
        });
        Client::new(service, "default")
    }

    #[tokio::test]
    async fn what_a_server_offers_is_found_by_trying() {
        let constrained: Option<&'static [&'static str]> = Some(&[NODES_GROUP, "system:authenticated"]);
        let probe = async |server: Client| ReadAs::probe(&server, "hive").await;
        assert_eq!(probe(server(constrained, &[])).await.unwrap(), ReadAs::Nodes);
        // The old impersonation of a user makes no node of it.
        let old: Option<&'static [&'static str]> = Some(&["system:authenticated"]);
        assert!(matches!(probe(server(old, &[])).await, Err(ReadAsError::NotGranted(_))));
        assert_eq!(probe(server(None, &["", "hive"])).await.unwrap(), ReadAs::CloudCore);
        assert_eq!(probe(server(None, &["hive"])).await.unwrap(), ReadAs::CloudCore);
        // A grant in the namespace of another CloudCore is none for this one.
        let refused = probe(server(None, &["kubeedge"])).await.unwrap_err().to_string();
        assert!(refused.contains("and in `hive`"), "{refused}");
    }
}
