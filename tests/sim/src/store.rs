//! The API's objects in memory, with their whole history: every write is noted and judged.

use bytes::Bytes;
use kubeapi::Change;
use kubeapi::testing::MemoryStore;
use serde_json::Value;

use crate::trace::Trace;
use crate::world::{Violations, note};

/// 65,536 changes that a watcher may be behind: more than a run makes.
const BEHIND_MAX: usize = 1 << 16;

/// The store of a run.
pub(crate) fn store(trace: Trace, violations: Violations) -> MemoryStore {
    MemoryStore::observed(BEHIND_MAX, move |change| judge(&trace, &violations, change))
}

/// Every write is noted, and none may bring back what a newer report has replaced.
fn judge(trace: &Trace, violations: &Violations, change: &Change) {
    let Change { revision, key, before, after } = change;
    trace.note("api", format_args!("{revision} {key:?} {after:?}"));
    if let (Some(before), Some(after)) = (speed(before.as_ref()), speed(after.as_ref()))
        && after < before
    {
        note(violations, format!("{} turns at {after} after {before}", key.name));
    }
}

/// The reported speed in the status of a device: devices of a run only ever turn faster.
fn speed(json: Option<&Bytes>) -> Option<u64> {
    let object: Value = serde_json::from_slice(json?).ok()?;
    (object["kind"] == "DeviceStatus").then_some(())?;
    let twins = object.pointer("/status/twins")?.as_array()?;
    let twin = twins.iter().find(|twin| twin["propertyName"] == "speed")?;
    twin.pointer("/reported/value")?.as_str()?.parse().ok()
}
