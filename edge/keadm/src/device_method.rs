//! `keadm ctl call device`: calls a method of a device, on its node by edgecore's socket, or from elsewhere by the Device's annotation.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use beehive::Env;
use clap::{Args, Subcommand};
use contract::device_call::{METHOD_CALL_ANNOTATION, WITHIN, target};
use contract::ids::DeviceName;
use contract::{CallState, MethodCall};
use crd::{Device, DeviceStatus};
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};

use crate::node_socket::{self, OfNode};

/// 250 ms between looks into the DeviceStatus.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// 30 s beyond the mapper's time: CloudCore waits for 10 s whether another one has the node, and then writes it down.
const BEYOND: Duration = Duration::from_secs(30);

/// What has methods.
#[derive(Subcommand)]
pub enum Callable {
    /// A device of this node, with or without the cloud; with --kube-config a device of any node that is linked
    Device(MethodArgs),
}

/// Which method of which device, and what it writes.
#[derive(Args)]
pub struct MethodArgs {
    /// The device's name
    name: String,
    /// The method's, as spec.methods of the Device has it
    method: String,
    /// What is written: PROPERTY=VALUE, for properties that the method names
    #[arg(required = true)]
    values: Vec<String>,
    /// The device's namespace
    #[arg(short = 'n', long, default_value = "default")]
    namespace: String,
    /// The call's id: one that the node knows is not made again, and says what became of it. Made up if left out
    #[arg(long)]
    id: Option<String>,
    /// How many milliseconds the mapper has, up to 20000
    #[arg(long, default_value_t = u64::try_from(WITHIN.as_millis()).unwrap_or_default())]
    within_ms: u64,
    /// Call by the cluster of this kubeconfig, and not on this node: needs the rights to patch the Device and to read its DeviceStatus
    #[arg(long, conflicts_with = "config")]
    kube_config: Option<PathBuf>,
    /// Where edgecore is asked.
    #[command(flatten)]
    node: OfNode,
}

impl MethodArgs {
    fn call(&self, env: &Env) -> Result<MethodCall> {
        let mut values = BTreeMap::new();
        for text in &self.values {
            let (property, value) =
                text.split_once('=').with_context(|| format!("`{text}` is not PROPERTY=VALUE"))?;
            if values.insert(property.to_owned(), value.to_owned()).is_some() {
                bail!("`{property}` is there twice");
            }
        }
        let fresh = || env.random_id().iter().map(|byte| format!("{byte:02x}")).collect();
        let id = self.id.clone().unwrap_or_else(fresh);
        Ok(MethodCall::new(&id, &self.method, values, Duration::from_millis(self.within_ms))?)
    }
}

/// Calls the method, and says what became of it.
///
/// # Errors
/// When it was not done, or nobody knows whether it was.
pub async fn call_method(order: &MethodArgs, env: &Env, say: &mut dyn FnMut(String)) -> Result<()> {
    let device = DeviceName::parse(&order.namespace, &order.name)?;
    let call = order.call(env)?;
    let (state, message) = match &order.kube_config {
        Some(path) => by_annotation(crate::client(Some(path)).await?, &device, &call, env).await?,
        None => {
            let (status, text) = node_socket::post(&order.node, &target(&device), call.json()).await?;
            let said: Value =
                serde_json::from_str(&text).map_err(|_| anyhow!("edgecore says {status}: {text}"))?;
            let word = |key: &str| said[key].as_str().unwrap_or_default().to_owned();
            (word("state"), word("message"))
        }
    };
    let what = format!("`{}` of {device} (call {})", call.method(), call.id());
    if state == CallState::Done.word() {
        say(format!("{what}: {state}"));
        return Ok(());
    }
    bail!("{what}: {state}: {message}")
}

/// Writes the call on the Device, and waits for what the DeviceStatus says of it.
async fn by_annotation(
    client: kube::Client,
    device: &DeviceName,
    call: &MethodCall,
    env: &Env,
) -> Result<(String, String)> {
    let devices: Api<Device> = Api::namespaced(client.clone(), &device.namespace);
    let statuses: Api<DeviceStatus> = Api::namespaced(client, &device.namespace);
    let patch = json!({ "metadata": { "annotations": { METHOD_CALL_ANNOTATION: call.json() } } });
    let patched = devices.patch(&device.name, &PatchParams::default(), &Patch::Merge(&patch)).await;
    patched.with_context(|| format!("cannot annotate Device {device}"))?;
    let until = env.now() + call.within() + BEYOND;
    loop {
        let status = statuses.get_opt(&device.name).await.context("cannot read the DeviceStatus")?;
        if let Some(said) = status.as_ref().and_then(|status| said_of(status, call.id())) {
            return Ok(said);
        }
        if env.now() >= until {
            bail!(
                "nothing is said of the call {} in the DeviceStatus of {device}: no CloudCore has taken it, or its node was cut off meanwhile; whether it was done is not known",
                call.id()
            );
        }
        env.sleep(LOOK_EVERY).await;
    }
}

/// What a DeviceStatus says of a call that is over.
fn said_of(status: &DeviceStatus, id: &str) -> Option<(String, String)> {
    let calls = status.status.as_ref()?.extensions.get("methodCalls")?.as_array()?;
    let call = calls.iter().find(|call| call["id"] == id)?;
    let word = |key: &str| call[key].as_str().unwrap_or_default().to_owned();
    let state = word("state");
    (state != CallState::Running.word()).then(|| (state, word("message")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_is_over_is_found_by_its_id() {
        let status: DeviceStatus = serde_json::from_value(json!({
            "metadata": { "name": "pump" }, "spec": {}, "status": { "extensions": { "methodCalls": [
                { "id": "a", "state": "Failed", "message": "the device says no" }, { "id": "b", "state": "Running" } ] } } }))
        .unwrap();
        assert_eq!(said_of(&status, "a"), Some(("Failed".to_owned(), "the device says no".to_owned())));
        assert_eq!((said_of(&status, "b"), said_of(&status, "c")), (None, None));
    }
}
