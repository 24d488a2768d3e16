//! The kinds of jobs, as the API server has them.

use contract::node_task::TaskKind;
use kubewatch::WatchedKind;

/// How jobs of a kind are watched.
pub(crate) fn watched(kind: TaskKind) -> WatchedKind {
    let (plural, word) = match kind {
        TaskKind::NodeUpgrade => ("nodeupgradejobs", kind.word()),
        TaskKind::ImagePrePull => ("imageprepulljobs", kind.word()),
        TaskKind::ConfigUpdate => ("configupdatejobs", kind.word()),
    };
    WatchedKind {
        group_resource: kind.resource(),
        group: crd::OPERATIONS_GROUP,
        version: crd::OPERATIONS_VERSION,
        plural,
        kind: word,
        reads: &[],
    }
}
