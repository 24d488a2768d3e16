//! Which kinds the API server serves.

use kube::api::ApiResource;
use kube::discovery::{Discovery, Scope};

/// A kind that can be listed.
#[derive(Debug, Clone)]
pub(super) struct ListableKind {
    pub(super) resource: ApiResource,
    pub(super) namespaced: bool,
    pub(super) watched: bool,
    pub(super) deleted: bool,
    pub(super) deleted_together: bool,
}

/// Every kind that can be listed, once each, in its most stable version.
pub(super) async fn kinds(client: &kube::Client) -> Result<Vec<ListableKind>, kube::Error> {
    let discovery = Discovery::new(client.clone()).run().await?;
    let all = discovery.groups().flat_map(|group| group.resources_by_stability());
    let kinds = all.filter(|(_, can)| can.supports_operation("list")).map(|(resource, can)| ListableKind {
        namespaced: can.scope == Scope::Namespaced,
        watched: can.supports_operation("watch"),
        deleted: can.supports_operation("delete"),
        deleted_together: can.supports_operation("deletecollection"),
        resource,
    });
    Ok(kinds.collect())
}
