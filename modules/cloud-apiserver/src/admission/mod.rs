//! What this server admits, and what it adds to the rules of the API: one file for each of `kube-apiserver`'s admission
//! plugins, called in its order.

mod cluster_ip;
mod default_tolerations;
mod edge_taints;
mod namespace_lifecycle;
mod pod_security;
mod priority;
mod rbac_escalation;
mod report_mark;
mod runtime_class;
mod service_account;
#[cfg(test)]
pub(crate) mod tests;

use std::sync::Arc;

use apimachinery::{resource, static_pod};
use futures::future::BoxFuture;
use kubeapi::unstructured::name;
use kubeapi::{
    Admission, Answer, Api, ApiError, ApiRequest, ExtraResource, Operation, Policy, QuotaCheck, Store, User,
};
use serde_json::Value;
use tokio::sync::Mutex;

use crate::access::AccessControl;
use crate::rest;

/// The user of the controllers that run beside the API: `system:kube-controller-manager`, as upstream.
pub(crate) const CONTROLLERS: &str = "system:kube-controller-manager";

/// Random bytes.
type Random = Arc<dyn Fn() -> [u8; 16] + Send + Sync>;

/// The policy of the stand-alone API: its admission plugins and its resources.
pub struct ClusterPolicy<S: Store> {
    store: Arc<S>,
    access: Arc<dyn AccessControl>,
    random: Random,
    /// Held from the choice of a service's address to its write, so that no two get the same one.
    cluster_ips: Mutex<()>,
}

impl<S: Store> ClusterPolicy<S> {
    /// The policy over `store`, with what `access` allows; `random` makes names and addresses.
    pub fn new(store: Arc<S>, access: Arc<dyn AccessControl>, random: Random) -> Self {
        ClusterPolicy { store, access, random, cluster_ips: Mutex::default() }
    }

    async fn mutate(&self, admission: Admission<'_>, object: &mut Value) -> Result<(), ApiError> {
        let Admission { request, operation, old } = admission;
        let (store, group_resource) = (&*self.store, request.kind().group_resource());
        let creates = operation == Operation::Create;
        if creates {
            namespace_lifecycle::validate_create(store, request, object).await?;
        }
        match group_resource.as_str() {
            resource::PODS if creates => {
                priority::mutate(request.user, object)
                    .map_err(|what| ApiError::forbidden_by_admission(request.kind(), name(object), &what))?;
                default_tolerations::mutate(object);
                // The mirror of a static pod has no account.
                if static_pod::mirror_of(object).is_some() {
                    return Ok(());
                }
                runtime_class::mutate(store, object).await?;
                service_account::mutate(store, (self.random)(), object).await
            }
            resource::NODES if request.attributes.subresource.is_empty() => {
                edge_taints::mutate(object);
                Ok(())
            }
            resource::SERVICES => cluster_ip::mutate(store, (self.random)(), request, old, object).await,
            _ => Ok(()),
        }
    }

    async fn validate(&self, admission: Admission<'_>, object: &Value) -> Result<Vec<String>, ApiError> {
        let Admission { request, operation, old } = admission;
        if operation == Operation::Delete {
            namespace_lifecycle::validate_delete(request, object)?;
            return Ok(Vec::new());
        }
        let (store, access) = (&*self.store, &*self.access);
        let group_resource = request.kind().group_resource();
        if group_resource == resource::PODS {
            priority::validate_mirror(request.user, old, object)
                .map_err(|what| ApiError::forbidden_by_admission(request.kind(), name(object), what))?;
        }
        if [resource::PODS, resource::NODES].contains(&group_resource.as_str()) {
            report_mark::validate(access, request, old, object).await?;
        }
        let adds_containers = request.attributes.subresource == "ephemeralcontainers";
        if !request.attributes.subresource.is_empty() && !adds_containers {
            // Those that write the object's main part change a number or a finalizer.
            return Ok(Vec::new());
        }
        let differs = |pointer: &str| old.is_none_or(|old| old.pointer(pointer) != object.pointer(pointer));
        match group_resource.as_str() {
            resource::ROLES | resource::CLUSTER_ROLES if differs("/rules") || differs("/aggregationRule") => {
                rbac_escalation::validate_role(access, request, object).await?;
                Ok(Vec::new())
            }
            resource::ROLE_BINDINGS | resource::CLUSTER_ROLE_BINDINGS
                if differs("/subjects") || differs("/roleRef") =>
            {
                rbac_escalation::validate_binding(store, access, request, object).await?;
                Ok(Vec::new())
            }
            resource::NAMESPACES => pod_security::validate_namespace(store, request, old, object).await,
            resource::PODS => pod_security::validate_pod(store, old, object).await,
            resource::DEPLOYMENTS | resource::REPLICA_SETS => {
                pod_security::warn_of_template(store, object).await
            }
            _ => Ok(Vec::new()),
        }
    }
}

impl<S: Store> Policy<S> for ClusterPolicy<S> {
    fn resources(&self) -> &'static [ExtraResource] {
        rest::RESOURCES
    }

    fn lock(&self, request: &ApiRequest<'_>) -> Option<&Mutex<()>> {
        let writes_address = request.attributes.subresource.is_empty()
            && request.kind().group_resource() == resource::SERVICES;
        writes_address.then_some(&self.cluster_ips)
    }

    fn mutate<'a>(
        &'a self,
        admission: Admission<'a>,
        object: &'a mut Value,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        Box::pin(self.mutate(admission, object))
    }

    fn validate<'a>(
        &'a self,
        admission: Admission<'a>,
        object: &'a Value,
    ) -> BoxFuture<'a, Result<Vec<String>, ApiError>> {
        Box::pin(self.validate(admission, object))
    }

    /// The controllers make on behalf of others what those could multiply, pods above all, and that counts as theirs;
    /// what the cluster needs of them is exempt. Events are nobody's need: whoever writes them, and be it about what a node
    /// says, they take no more than a namespace's share.
    fn quota(&self, request: &ApiRequest<'_>) -> QuotaCheck {
        let namespace = request.attributes.namespace.as_str();
        let is_of_cluster = !request.kind().namespaced
            || namespace.starts_with("kube-")
            || matches!(
                request.kind().group_resource().as_str(),
                resource::SERVICE_ACCOUNTS | resource::CONFIG_MAPS
            )
            || request.attributes.subresource == "status";
        if request.kind().group_resource() == resource::EVENTS {
            return QuotaCheck::Enforced;
        }
        if request.user.is_master() || request.user.name == CONTROLLERS && is_of_cluster {
            QuotaCheck::Exempt
        } else {
            QuotaCheck::Enforced
        }
    }

    fn subresource<'a>(
        &'a self,
        api: &'a Api<S>,
        request: &'a ApiRequest<'a>,
    ) -> BoxFuture<'a, Result<Answer, ApiError>> {
        Box::pin(rest::subresource(api, &*self.access, request))
    }

    fn review<'a>(
        &'a self,
        resource: &'a ExtraResource,
        review: &'a Value,
        user: &'a User,
    ) -> BoxFuture<'a, Result<Value, ApiError>> {
        Box::pin(rest::review::status(&*self.access, resource, review, user))
    }
}
