//! Namespaces on their way out.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::controllers::object::{condition, is_deleting, list, text, with_condition};

/// The finalizer that stands for the objects in a namespace.
const FINALIZER: &str = "kubernetes";

/// Whether the namespace waits for its objects to go.
pub(crate) fn is_leaving(namespace: &Value) -> bool {
    is_deleting(namespace)
        && list(namespace, "/spec/finalizers").iter().any(|finalizer| finalizer == FINALIZER)
}

/// The namespace without our finalizer.
pub(crate) fn finalized(namespace: &Value) -> Value {
    let mut left = list(namespace, "/spec/finalizers").to_vec();
    left.retain(|finalizer| finalizer != FINALIZER);
    let mut next = namespace.clone();
    next["spec"]["finalizers"] = Value::Array(left);
    next
}

/// What is left of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RemainingContent {
    /// `pods.` or `deployments.apps`, as upstream writes it.
    pub(crate) resource: String,
    pub(crate) count: usize,
    /// The finalizers that hold them.
    pub(crate) finalizers: Vec<String>,
}

/// The conditions that say what the namespace waits for; `None` if they say it already.
pub(crate) fn conditions(
    namespace: &Value,
    left: &[RemainingContent],
    failure: Option<&str>,
    now: Timestamp,
) -> Option<Vec<Value>> {
    let mut conditions = list(namespace, "/status/conditions").to_vec();
    let mut moved = false;
    let mut say = |kind: &str, problem: Option<(&str, String)>, fine: (&str, &str)| {
        let (status, reason, message) = match problem {
            Some((reason, message)) => ("True", reason.to_owned(), message),
            None => ("False", fine.0.to_owned(), fine.1.to_owned()),
        };
        let new = json!({ "type": kind, "status": status, "reason": reason, "message": message });
        let old = condition(namespace, kind);
        if old
            .is_none_or(|old| ["status", "reason", "message"].iter().any(|field| old[*field] != new[*field]))
        {
            moved = true;
            conditions = with_condition(&conditions, new, now);
        }
    };
    say(
        "NamespaceDeletionContentFailure",
        failure.map(|failure| ("ContentDeletionFailed", failure.to_owned())),
        ("ContentDeleted", "All content successfully deleted, may be waiting on finalization"),
    );
    let counts: Vec<String> =
        left.iter().map(|left| format!("{} has {} resource instances", left.resource, left.count)).collect();
    let remaining = (!counts.is_empty())
        .then(|| ("SomeResourcesRemain", format!("Some resources are remaining: {}", counts.join(", "))));
    say("NamespaceContentRemaining", remaining, ("ContentRemoved", "All content successfully removed"));
    let mut holders: std::collections::BTreeMap<&str, usize> = std::collections::BTreeMap::new();
    for finalizer in left.iter().flat_map(|left| &left.finalizers) {
        *holders.entry(finalizer).or_default() += 1;
    }
    let held: Vec<String> = holders
        .iter()
        .map(|(finalizer, count)| format!("{finalizer} in {count} resource instances"))
        .collect();
    let held = (!held.is_empty()).then(|| {
        (
            "SomeFinalizersRemain",
            format!("Some content in the namespace has finalizers remaining: {}", held.join(", ")),
        )
    });
    say(
        "NamespaceFinalizersRemaining",
        held,
        ("ContentHasNoFinalizers", "All content-preserving finalizers finished"),
    );
    moved.then_some(conditions)
}

/// The finalizers of an object.
pub(crate) fn finalizers(object: &Value) -> Vec<String> {
    list(object, "/metadata/finalizers").iter().map(|finalizer| text(finalizer, "").to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_goes_when_its_own_finalizer_is_gone() {
        let namespace = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"finalizers": ["kubernetes", "mine"]}});
        assert!(is_leaving(&namespace));
        let next = finalized(&namespace);
        assert_eq!(next["spec"]["finalizers"], json!(["mine"]));
        assert!(!is_leaving(&next));
        assert!(!is_leaving(&json!({"spec": {"finalizers": ["kubernetes"]}})));
    }

    #[test]
    fn conditions_name_what_is_left_and_are_written_once() {
        let left =
            [RemainingContent { resource: "pods.".to_owned(), count: 2, finalizers: vec!["x/y".to_owned()] }];
        let mut namespace = json!({});
        let said = conditions(&namespace, &left, None, Timestamp::UNIX_EPOCH).unwrap();
        namespace["status"]["conditions"] = Value::Array(said);
        let remaining = condition(&namespace, "NamespaceContentRemaining").unwrap();
        assert_eq!(remaining["message"], "Some resources are remaining: pods. has 2 resource instances");
        let held = condition(&namespace, "NamespaceFinalizersRemaining").unwrap();
        assert_eq!(held["status"], "True");
        assert_eq!(conditions(&namespace, &left, None, Timestamp::UNIX_EPOCH), None);
        assert!(conditions(&namespace, &[], Some("no"), Timestamp::UNIX_EPOCH).is_some());
    }

    #[test]
    fn finalizers_are_read() {
        assert_eq!(finalizers(&json!({"metadata": {"finalizers": ["a"]}})), ["a"]);
    }
}
