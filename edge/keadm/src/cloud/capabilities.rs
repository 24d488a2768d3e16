//! What an API server can: its version, and the kinds that it serves.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use helmchart::Capabilities;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::APIResourceList;
use kube::Client;

/// What of a kind is needed to write its objects.
#[derive(Debug, Clone)]
pub(crate) struct Resource {
    /// `deployments`.
    pub(crate) plural: String,
    /// Whether its objects are in namespaces.
    pub(crate) is_namespaced: bool,
}

/// What a cluster can.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cluster {
    /// Its version, as it says it: `v1.36.2`.
    pub(crate) version: String,
    /// By `apiVersion` and kind.
    pub(crate) resources: BTreeMap<(String, String), Resource>,
}

impl Cluster {
    /// Asks the API server. Of a group whose own server does not answer nothing is known, as with kubectl.
    ///
    /// # Errors
    /// When the API server does not answer, or not to this user.
    pub(crate) async fn ask(client: &Client) -> Result<Cluster> {
        let version =
            client.apiserver_version().await.context("the API server does not say its version")?.git_version;
        let mut cluster = Cluster { version, resources: BTreeMap::new() };
        let core =
            client.list_core_api_versions().await.context("the API server does not say what it serves")?;
        for version in core.versions {
            cluster.add(client.list_core_api_resources(&version).await?);
        }
        let groups = client.list_api_groups().await.context("the API server does not say what it serves")?;
        let versions = groups.groups.into_iter().flat_map(|group| group.versions);
        for version in versions {
            if let Ok(resources) = client.list_api_group_resources(&version.group_version).await {
                cluster.add(resources);
            }
        }
        Ok(cluster)
    }

    fn add(&mut self, resources: APIResourceList) {
        for resource in resources.resources.into_iter().filter(|resource| !resource.name.contains('/')) {
            let key = (resources.group_version.clone(), resource.kind);
            self.resources
                .insert(key, Resource { plural: resource.name, is_namespaced: resource.namespaced });
        }
    }

    /// As the chart asks for it.
    pub(crate) fn capabilities(&self) -> Capabilities {
        let kinds = self.resources.keys().map(|(version, kind)| format!("{version}/{kind}"));
        Capabilities { version: self.version.clone(), kinds: kinds.collect() }
    }

    /// Whether it serves a kind.
    pub(crate) fn serves(&self, api_version: &str, kind: &str) -> bool {
        self.resources.contains_key(&(api_version.to_owned(), kind.to_owned()))
    }

    /// Whether it is `cloudcore --standalone`, which has CloudCore within.
    pub(crate) fn is_stand_alone(&self) -> bool {
        self.version.contains("+kubehive")
    }
}
