//! Objects into a cluster, as `helm` would write them: by server-side apply, under Helm's name, so that Helm owns the same fields later.

use anyhow::{Result, anyhow};
use kube::Client;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use serde_json::Value;

use super::capabilities::Cluster;

/// Who writes, in `metadata.managedFields`: the name that Helm 4 has there, and its next upgrade finds no fields of somebody else's.
const FIELD_MANAGER: &str = "helm";

/// Writes and removes objects of a cluster.
pub(crate) struct Applier<'a> {
    client: Client,
    cluster: &'a Cluster,
}

/// What became of an object that was to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Removed {
    /// It goes.
    Going,
    /// It was not there.
    NotThere,
}

impl<'a> Applier<'a> {
    pub(crate) fn new(client: Client, cluster: &'a Cluster) -> Self {
        Applier { client, cluster }
    }

    /// The API of an object, and its name.
    fn api(&self, object: &Value) -> Result<(Api<DynamicObject>, String)> {
        let at = |name: &str| object.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (api_version, kind) = (at("apiVersion"), at("kind"));
        let metadata = object.get("metadata");
        let of = |name: &str| metadata.and_then(|metadata| metadata.get(name)?.as_str());
        let name = of("name").ok_or_else(|| anyhow!("a {kind} of the chart has no name"))?.to_owned();
        let resource = self.cluster.resources.get(&(api_version.clone(), kind.clone()));
        let resource = resource.ok_or_else(|| not_served(&api_version, &kind))?;
        let (group, version) = api_version.rsplit_once('/').unwrap_or(("", &api_version));
        let gvk = GroupVersionKind::gvk(group, version, &kind);
        let resource_of = ApiResource::from_gvk_with_plural(&gvk, &resource.plural);
        let api = if resource.is_namespaced {
            Api::namespaced_with(self.client.clone(), of("namespace").unwrap_or("default"), &resource_of)
        } else {
            Api::all_with(self.client.clone(), &resource_of)
        };
        Ok((api, name))
    }

    /// The object as the cluster has it.
    ///
    /// # Errors
    /// When its kind is not served, or the user may not.
    pub(crate) async fn read(&self, object: &Value) -> Result<Option<DynamicObject>> {
        let (api, name) = self.api(object)?;
        api.get_opt(&name).await.map_err(|error| refused("read", object, error))
    }

    /// Makes the object what is said here, whoever wrote it before.
    ///
    /// # Errors
    /// When its kind is not served, or the server refuses it.
    pub(crate) async fn apply(&self, object: &Value) -> Result<()> {
        let (api, name) = self.api(object)?;
        let how = PatchParams::apply(FIELD_MANAGER).force();
        match api.patch(&name, &how, &Patch::Apply(object)).await {
            Ok(_) => Ok(()),
            // The stand-alone API has no server-side apply.
            Err(kube::Error::Api(status)) if status.code == 415 => self.write(&api, &name, object).await,
            Err(error) => Err(refused("write", object, error)),
        }
    }

    async fn write(&self, api: &Api<DynamicObject>, name: &str, object: &Value) -> Result<()> {
        let written = match api.get_opt(name).await {
            Ok(Some(_)) => api.patch(name, &PatchParams::default(), &Patch::Merge(object)).await.map(drop),
            Ok(None) => {
                let made: DynamicObject = serde_json::from_value(object.clone())?;
                api.create(&PostParams::default(), &made).await.map(drop)
            }
            Err(error) => Err(error),
        };
        written.map_err(|error| refused("write", object, error))
    }

    /// Has an object removed, and what it owns.
    ///
    /// # Errors
    /// When the user may not.
    pub(crate) async fn remove(&self, object: &Value) -> Result<Removed> {
        let Ok((api, name)) = self.api(object) else { return Ok(Removed::NotThere) };
        match api.delete(&name, &DeleteParams::background()).await {
            Ok(_) => Ok(Removed::Going),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(Removed::NotThere),
            Err(error) => Err(refused("remove", object, error)),
        }
    }
}

/// An object in a sentence: `Deployment kubeedge/cloudcore`.
pub(crate) fn named(object: &Value) -> String {
    let at = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    match at("/metadata/namespace") {
        "" => format!("{} {}", at("/kind"), at("/metadata/name")),
        namespace => format!("{} {namespace}/{}", at("/kind"), at("/metadata/name")),
    }
}

fn refused(verb: &str, object: &Value, error: kube::Error) -> anyhow::Error {
    let cure = match &error {
        kube::Error::Api(status) if status.code == 403 => {
            ": use the kubeconfig of an administrator of the cluster"
        }
        _ => "",
    };
    anyhow!(error).context(format!("cannot {verb} {}{cure}", named(object)))
}

/// Kinds that a cluster may be without, and the value that leaves each out.
const OPTIONAL: [(&str, &str); 5] = [
    ("ServiceMonitor", "metrics.serviceMonitor.enable=false"),
    ("NetworkPolicy", "networkPolicy.enable=false"),
    ("PodDisruptionBudget", "podDisruptionBudget.enable=false"),
    ("ValidatingAdmissionPolicy", "policies.enable=false"),
    ("MutatingAdmissionPolicy", "policies.keepPods=false"),
];

fn not_served(api_version: &str, kind: &str) -> anyhow::Error {
    let cure = OPTIONAL.iter().find(|(optional, _)| *optional == kind);
    let cure = cure.map_or(String::new(), |(_, value)| format!(": --set {value} leaves it out"));
    anyhow!("the API server serves no {kind} ({api_version}){cure}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_object_is_named_with_its_namespace_if_it_has_one() {
        assert_eq!(named(&json!({"kind": "ClusterRole", "metadata": {"name": "a"}})), "ClusterRole a");
        let object = json!({"kind": "Service", "metadata": {"name": "a", "namespace": "b"}});
        assert_eq!(named(&object), "Service b/a");
    }

    /// Whoever follows a cure finds the value.
    #[test]
    fn the_values_that_cures_name_are_there() {
        for (_, value) in OPTIONAL {
            let mut given = json!({});
            helmchart::set(&mut given, value).unwrap();
            helmchart::with_defaults(&given).unwrap();
        }
    }
}
