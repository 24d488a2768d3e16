//! Writes what was counted into the status of Rules, by a plain patch of the object: KubeEdge's Rules have no status of their own.

use std::time::SystemTime;

use beehive::{Env, Fault};
use contract::ObjectKey;
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kubewatch::status_code;
use serde_json::{Value, json};

use crate::events;
use crate::rules::RULE;
use crate::status::{StatusToWrite, merged};

/// RFC 3339 in whole seconds.
fn rfc3339(now: SystemTime) -> String {
    let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let second = i64::try_from(since.as_secs()).unwrap_or_default();
    jiff::Timestamp::from_second(second).unwrap_or_default().to_string()
}

/// Writes one. Answers whether it is written, or never can be; where not, it is tried again with what has come by then.
pub(crate) async fn write(client: &kube::Client, status: StatusToWrite, env: &Env) -> bool {
    let key = status.key.clone();
    match try_write(client, status, env.wall()).await {
        Ok(()) => true,
        // Gone, or written by another CloudCore in between: the first needs nothing more, the second another look.
        Err(error) if status_code(&error) == Some(404) => true,
        Err(error) if status_code(&error) == Some(409) => false,
        Err(error) => {
            events::status_not_written(env, &key, &Fault::from_error(&error).reason);
            false
        }
    }
}

async fn try_write(client: &kube::Client, status: StatusToWrite, now: SystemTime) -> Result<(), kube::Error> {
    let StatusToWrite { key: ObjectKey { namespace, name, .. }, uid, news } = status;
    let rules: Api<DynamicObject> = Api::namespaced_with(client.clone(), &namespace, &RULE.api_resource());
    let Some(held) = rules.get_opt(&name).await? else { return Ok(()) };
    if held.metadata.uid.as_deref() != Some(uid.as_str()) {
        return Ok(());
    }
    let status = merged(held.data.get("status").unwrap_or(&Value::Null), &news, &rfc3339(now));
    let patch = json!({
        // Several CloudCores count, and none overwrites what another has counted.
        "metadata": {"resourceVersion": held.metadata.resource_version},
        "status": status,
    });
    rules.patch(&name, &PatchParams::default(), &Patch::Merge(&patch)).await.map(drop)
}
