//! What is left on the node of a pod that has a worker: as long as there is something, what the pod has is nobody else's. Pure.

use std::sync::Arc;

use crate::pod::parsed_pod::ParsedPod;
use crate::pod::plan::Intent;

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct Left {
    pub(crate) pod: Arc<ParsedPod>,
    /// What was wanted of it last.
    pub(crate) intent: Intent,
    /// The runtime has something of it, or may.
    pub(crate) is_there: bool,
    /// Something of it runs, or may.
    pub(crate) may_run: bool,
}

impl Left {
    /// Whether a pod that is to end has what it has still. `own`: what is left of it; `None`: nobody has looked yet, as after a restart of
    /// EdgeCore, and one that was admitted may.
    pub(crate) fn holds(own: Option<&Left>, was_admitted: bool) -> bool {
        own.map_or(was_admitted, |own| own.is_there)
    }
}
