//! What a change is in the words of a watch: read once, and written once for each form in which it is asked for, however many
//! watch. Their bytes are the same bytes.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use apimachinery::ObjectKey;
use bytes::Bytes;
use serde_json::Value;

use super::decode_stored;
use crate::kind::ServedKind;
use crate::request::Representation;
use crate::store::Change;

/// 32 changes or 4 MiB of them are remembered. Whoever reads as changes come finds them here; a reader who is behind reads for
/// himself, at his own pace.
const REMEMBERED: (usize, usize) = (32, 4 << 20);

/// The changes of late.
#[derive(Default)]
pub(super) struct SharedEvents(Mutex<VecDeque<Arc<SharedEvent>>>);

/// A change, as objects of one kind and version.
pub(super) struct SharedEvent {
    of: (u64, ObjectKey, String, String),
    weight: usize,
    before: OnceLock<Option<Value>>,
    after: OnceLock<Option<Value>>,
    lines: Mutex<Vec<(LineOf, Bytes)>>,
}

/// A form in which a change is told.
#[derive(Clone, PartialEq)]
pub(super) struct LineOf {
    pub(super) event: &'static str,
    pub(super) representation: Representation,
    /// Of a table: what of the objects goes with its rows.
    pub(super) include: String,
    /// Of a table: whether the columns go with it.
    pub(super) first: bool,
}

impl SharedEvents {
    /// The change as whoever asked first has left it.
    pub(super) fn of(&self, kind: &ServedKind, change: &Change) -> Arc<SharedEvent> {
        let of = (change.revision, change.key.clone(), kind.api_version(), kind.kind.to_string());
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = known.iter().rev().find(|known| known.of == of) {
            return Arc::clone(found);
        }
        let weight = [&change.before, &change.after].into_iter().flatten().map(Bytes::len).sum();
        let event = Arc::new(SharedEvent {
            of,
            weight,
            before: OnceLock::new(),
            after: OnceLock::new(),
            lines: Mutex::default(),
        });
        known.push_back(Arc::clone(&event));
        let mut bytes: usize = known.iter().map(|event| event.weight).sum();
        while known.len() > REMEMBERED.0 || bytes > REMEMBERED.1 && known.len() > 1 {
            bytes -= known.pop_front().map_or(0, |oldest| oldest.weight);
        }
        event
    }
}

impl SharedEvent {
    /// The object before, if it can be read.
    pub(super) fn before(&self, kind: &ServedKind, change: &Change) -> Option<&Value> {
        self.before.get_or_init(|| read(kind, change.before.as_ref(), change.revision)).as_ref()
    }

    /// The object after, if it can be read.
    pub(super) fn after(&self, kind: &ServedKind, change: &Change) -> Option<&Value> {
        self.after.get_or_init(|| read(kind, change.after.as_ref(), change.revision)).as_ref()
    }

    /// The line of this form, which is made if nobody has asked for it.
    pub(super) fn line(&self, of: LineOf, make: impl FnOnce() -> Bytes) -> Bytes {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, line)) = lines.iter().find(|(known, _)| *known == of) {
            return line.clone();
        }
        let line = make();
        lines.push((of, line.clone()));
        line
    }
}

fn read(kind: &ServedKind, json: Option<&Bytes>, revision: u64) -> Option<Value> {
    decode_stored(kind, json?, revision).ok()
}
