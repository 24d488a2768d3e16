//! The API's objects in memory, with their whole history: every write is noted and judged.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use kubeapi::Change;
use kubeapi::testing::MemoryStore;
use serde_json::Value;

use crate::trace::Trace;
use crate::violations::{Violations, note};

/// 65,536 changes that a watcher may be behind: more than a run makes.
const BEHIND_MAX: usize = 1 << 16;

/// What no trace shows.
const SECRETS: &str = "secrets";

/// The names of the pods that are in the API and not being deleted.
#[derive(Clone, Default)]
pub(crate) struct WantedPods(Arc<Mutex<BTreeSet<String>>>);

impl WantedPods {
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(name)
    }

    fn set(&self, name: &str, is_wanted: bool) {
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if is_wanted {
            names.insert(name.to_owned());
        } else {
            names.remove(name);
        }
    }
}

/// The store of a run.
pub(crate) fn store(trace: Trace, violations: Violations, pods: WantedPods) -> MemoryStore {
    MemoryStore::observed(BEHIND_MAX, move |change| judge(&trace, &violations, &pods, change))
}

/// Every write is noted, and none may bring back what a newer report has replaced.
fn judge(trace: &Trace, violations: &Violations, pods: &WantedPods, change: &Change) {
    let Change { revision, key, before, after } = change;
    // Keys are drawn by the machine, and differ at each telling.
    let shown = after.as_ref().filter(|_| key.resource != SECRETS);
    trace.note("api", format_args!("{revision} {key:?} {shown:?}"));
    let (before, after) = (parsed(before.as_ref()), parsed(after.as_ref()));
    if [&before, &after].into_iter().any(|object| object["kind"] == "Pod") {
        pods.set(&key.name, !after.is_null() && after["metadata"]["deletionTimestamp"].is_null());
    }
    if let (Some(before), Some(after)) = (speed(&before), speed(&after))
        && after < before
    {
        note(violations, format!("{} turns at {after} after {before}", key.name));
    }
}

fn parsed(json: Option<&Bytes>) -> Value {
    json.and_then(|json| serde_json::from_slice(json).ok()).unwrap_or_default()
}

/// The reported speed in the status of a device: devices of a run only ever turn faster.
fn speed(object: &Value) -> Option<u64> {
    (object["kind"] == "DeviceStatus").then_some(())?;
    let twins = object.pointer("/status/twins")?.as_array()?;
    let twin = twins.iter().find(|twin| twin["propertyName"] == "speed")?;
    twin.pointer("/reported/value")?.as_str()?.parse().ok()
}
