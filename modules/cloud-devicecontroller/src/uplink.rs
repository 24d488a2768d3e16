//! Writes what nodes report to DeviceStatus objects.

use contract::{NodeName, UpReport};
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::plan;

/// How often a write is tried again when somebody else wrote in between.
const CONFLICT_TRIES: usize = 5;

fn resource(plural: &str, kind: &str) -> ApiResource {
    ApiResource {
        group: "devices.kubeedge.io".to_owned(),
        version: "v1beta1".to_owned(),
        api_version: "devices.kubeedge.io/v1beta1".to_owned(),
        kind: kind.to_owned(),
        plural: plural.to_owned(),
    }
}

fn code_of(error: &kube::Error) -> Option<u16> {
    match error {
        kube::Error::Api(status) => Some(status.code),
        _ => None,
    }
}

/// Makes sure that the device has its DeviceStatus, owned by it.
///
/// # Errors
/// What the API server said, except that it is there already.
pub(crate) async fn ensure_status(
    client: &kube::Client,
    namespace: &str,
    name: &str,
    uid: &str,
) -> Result<(), kube::Error> {
    let statuses = statuses(client, namespace);
    if statuses.get_metadata_opt(name).await?.is_some() {
        return Ok(());
    }
    let status = json!({
        "apiVersion": "devices.kubeedge.io/v1beta1",
        "kind": "DeviceStatus",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "ownerReferences": [{
                "apiVersion": "devices.kubeedge.io/v1beta1",
                "kind": "Device",
                "name": name,
                "uid": uid,
                "controller": true,
            }],
        },
        "spec": {},
    });
    let status: DynamicObject = serde_json::from_value(status).map_err(kube::Error::SerdeError)?;
    match statuses.create(&PostParams::default(), &status).await {
        Ok(_) => Ok(()),
        Err(error) if code_of(&error) == Some(409) => Ok(()),
        Err(error) => Err(error),
    }
}

fn statuses(client: &kube::Client, namespace: &str) -> Api<DynamicObject> {
    Api::namespaced_with(client.clone(), namespace, &resource("devicestatuses", "DeviceStatus"))
}

/// Writes the reports of one device. `Ok` means: written, or never possible.
///
/// # Errors
/// When the API server could not be reached or refused for now.
pub(crate) async fn write(
    client: &kube::Client,
    node: &NodeName,
    (namespace, name): (&str, &str),
    reports: &[&UpReport],
) -> Result<(), kube::Error> {
    let devices: Api<DynamicObject> =
        Api::namespaced_with(client.clone(), namespace, &resource("devices", "Device"));
    let Some(device) = devices.get_opt(name).await? else { return Ok(()) };
    let bound = plan::node_of(&device.data);
    if bound.as_ref() != Some(node) {
        tracing::warn!(%node, namespace, name, "report about a device of another node was refused");
        return Ok(());
    }
    let uid = device.metadata.uid.unwrap_or_default();
    let statuses = statuses(client, namespace);
    for _ in 0..CONFLICT_TRIES {
        let Some(held) = statuses.get_opt(name).await? else {
            ensure_status(client, namespace, name, &uid).await?;
            continue;
        };
        let mut status = held.data.get("status").cloned().unwrap_or(Value::Null);
        if !plan::merge(&mut status, reports) {
            return Ok(());
        }
        // The resource version makes the write fail when another report came in between.
        let patch =
            json!({ "metadata": { "resourceVersion": held.metadata.resource_version }, "status": status });
        match statuses.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await {
            Ok(_) => return Ok(()),
            Err(error) if code_of(&error) == Some(409) => {}
            Err(error) if matches!(code_of(&error), Some(400 | 404 | 413 | 422)) => {
                tracing::info!(%node, namespace, name, %error, "report dropped: it can never be written");
                return Ok(());
            }
            Err(error) => return Err(error),
        }
    }
    let busy = kube::core::Status::failure("DeviceStatus is written by others all the time", "Conflict")
        .with_code(409);
    Err(kube::Error::Api(Box::new(busy)))
}
