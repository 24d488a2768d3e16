//! Which objects go because their owners went.

use std::collections::BTreeMap;
use std::sync::Arc;

use apimachinery::NamespacedName;

pub(crate) const FOREGROUND: &str = "foregroundDeletion";
pub(crate) const ORPHAN: &str = "orphan";

/// A reference to an owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) group: String,
    pub(crate) kind: String,
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) blocks: bool,
}

/// What of an object matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ObjectNode {
    /// The position of its kind.
    pub(crate) kind: usize,
    pub(crate) key: NamespacedName,
    pub(crate) uid: String,
    pub(crate) owners: Vec<Owner>,
    pub(crate) finalizers: Vec<String>,
    pub(crate) deleting: bool,
}

/// A kind whose objects are watched.
#[derive(Debug, Clone)]
pub(crate) struct WatchedKind {
    pub(crate) group: String,
    pub(crate) kind: String,
    pub(crate) namespaced: bool,
    /// Whether the first list is complete.
    pub(crate) listed: bool,
}

/// What is to be done about one object.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum CollectorAction {
    /// No owner is left, if those that the caches do not know are gone indeed. With `foreground` an owner waits for the
    /// object, and the object has dependents of its own to wait for.
    Delete { object: Arc<ObjectNode>, verify: Vec<(usize, Owner)>, foreground: bool },
    /// Some owners stay; the references to those that are gone (after a check) or that wait for their dependents go.
    Unlink { object: Arc<ObjectNode>, verify: Vec<(usize, Owner)>, surely: Vec<String> },
    /// Nothing holds the deletion up any more.
    Release { object: Arc<ObjectNode>, finalizer: &'static str },
}

impl CollectorAction {
    pub(crate) fn object(&self) -> &Arc<ObjectNode> {
        match self {
            CollectorAction::Delete { object, .. }
            | CollectorAction::Unlink { object, .. }
            | CollectorAction::Release { object, .. } => object,
        }
    }
}

enum OwnerState {
    /// It is there, or nobody can tell.
    Present,
    /// It is being deleted and waits for its dependents.
    WaitsForDependents,
    /// The caches do not know it: the kind's position.
    Missing(usize),
}

fn owner_state(
    object: &ObjectNode,
    owner: &Owner,
    kinds: &[WatchedKind],
    by_uid: &BTreeMap<&str, &Arc<ObjectNode>>,
) -> OwnerState {
    if let Some(found) = by_uid.get(owner.uid.as_str()) {
        let near = found.key.namespace.is_empty() || found.key.namespace == object.key.namespace;
        if near && found.key.name == owner.name {
            let waits = found.deleting && found.finalizers.iter().any(|finalizer| finalizer == FOREGROUND);
            return if waits { OwnerState::WaitsForDependents } else { OwnerState::Present };
        }
    }
    let kind = kinds.iter().position(|kind| kind.group == owner.group && kind.kind == owner.kind);
    match kind.and_then(|at| Some((at, kinds.get(at)?))) {
        Some((at, kind)) if kind.listed && (!kind.namespaced || !object.key.namespace.is_empty()) => {
            OwnerState::Missing(at)
        }
        // A kind that is not served, or not yet read: its objects may well be there.
        Some(_) | None => OwnerState::Present,
    }
}

/// One look at all objects.
pub(crate) fn plan(objects: &[Arc<ObjectNode>], kinds: &[WatchedKind]) -> Vec<CollectorAction> {
    let by_uid: BTreeMap<&str, &Arc<ObjectNode>> =
        objects.iter().map(|object| (object.uid.as_str(), object)).collect();
    let mut dependents: BTreeMap<&str, Vec<(&Arc<ObjectNode>, bool)>> = BTreeMap::new();
    for object in objects {
        for owner in &object.owners {
            dependents.entry(&owner.uid).or_default().push((object, owner.blocks));
        }
    }
    let mut steps = Vec::new();
    for object in objects {
        let own = dependents.get(object.uid.as_str()).map(Vec::as_slice).unwrap_or_default();
        if object.deleting {
            held_up(object, own, &mut steps);
        } else if !object.owners.is_empty() {
            steps.extend(owned(object, !own.is_empty(), kinds, &by_uid));
        }
    }
    steps
}

fn held_up(
    object: &Arc<ObjectNode>,
    dependents: &[(&Arc<ObjectNode>, bool)],
    steps: &mut Vec<CollectorAction>,
) {
    let has = |wanted: &str| object.finalizers.iter().any(|finalizer| finalizer == wanted);
    if has(ORPHAN) {
        for (dependent, _) in dependents {
            let surely = vec![object.uid.clone()];
            steps.push(CollectorAction::Unlink { object: Arc::clone(dependent), verify: Vec::new(), surely });
        }
        if dependents.is_empty() {
            steps.push(CollectorAction::Release { object: Arc::clone(object), finalizer: ORPHAN });
        }
    } else if has(FOREGROUND) && !dependents.iter().any(|(_, blocks)| *blocks) {
        steps.push(CollectorAction::Release { object: Arc::clone(object), finalizer: FOREGROUND });
    }
}

fn owned(
    object: &Arc<ObjectNode>,
    has_dependents: bool,
    kinds: &[WatchedKind],
    by_uid: &BTreeMap<&str, &Arc<ObjectNode>>,
) -> Option<CollectorAction> {
    let (mut stays, mut waiting, mut verify) = (false, Vec::new(), Vec::new());
    for owner in &object.owners {
        match owner_state(object, owner, kinds, by_uid) {
            OwnerState::Present => stays = true,
            OwnerState::WaitsForDependents => waiting.push(owner.uid.clone()),
            OwnerState::Missing(kind) => verify.push((kind, owner.clone())),
        }
    }
    if waiting.is_empty() && verify.is_empty() {
        return None;
    }
    let object = Arc::clone(object);
    Some(if stays {
        CollectorAction::Unlink { object, verify, surely: waiting }
    } else {
        CollectorAction::Delete { object, verify, foreground: !waiting.is_empty() && has_dependents }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds() -> Vec<WatchedKind> {
        let kind = |group: &str, kind: &str, namespaced: bool| WatchedKind {
            group: group.to_owned(),
            kind: kind.to_owned(),
            namespaced,
            listed: true,
        };
        vec![kind("apps", "ReplicaSet", true), kind("", "Pod", true), kind("", "Node", false)]
    }

    fn object(kind: usize, namespace: &str, name: &str, owners: &[&str]) -> ObjectNode {
        let owner = |uid: &&str| Owner {
            group: "apps".to_owned(),
            kind: "ReplicaSet".to_owned(),
            name: (*uid).to_owned(),
            uid: (*uid).to_owned(),
            blocks: true,
        };
        ObjectNode {
            kind,
            key: NamespacedName::new(namespace, name),
            uid: name.to_owned(),
            owners: owners.iter().map(owner).collect(),
            finalizers: Vec::new(),
            deleting: false,
        }
    }

    fn told(objects: Vec<ObjectNode>) -> Vec<String> {
        told_by(objects, &kinds())
    }

    fn told_by(objects: Vec<ObjectNode>, kinds: &[WatchedKind]) -> Vec<String> {
        let objects: Vec<Arc<ObjectNode>> = objects.into_iter().map(Arc::new).collect();
        let line = |step: &CollectorAction| match step {
            CollectorAction::Delete { object, verify, foreground } => {
                format!(
                    "delete {} if {} are gone{}",
                    object.uid,
                    verify.len(),
                    if *foreground { ", waiting" } else { "" }
                )
            }
            CollectorAction::Unlink { object, verify, surely } => {
                format!("unlink {} from {surely:?} and {} if gone", object.uid, verify.len())
            }
            CollectorAction::Release { object, finalizer } => {
                format!("release {} from {finalizer}", object.uid)
            }
        };
        plan(&objects, kinds).iter().map(line).collect()
    }

    #[test]
    fn objects_go_when_no_owner_is_left() {
        let set = object(0, "d", "rs", &[]);
        assert_eq!(told(vec![set.clone(), object(1, "d", "p", &["rs"])]), Vec::<String>::new());
        assert_eq!(told(vec![object(1, "d", "p", &["rs"])]), ["delete p if 1 are gone"]);
        assert_eq!(
            told(vec![set.clone(), object(1, "d", "p", &["rs", "gone"])]),
            ["unlink p from [] and 1 if gone"]
        );
        assert_eq!(
            told(vec![set, object(1, "other", "p", &["rs"])]),
            ["delete p if 1 are gone"],
            "other namespace"
        );
        let mut leaving = object(1, "d", "p", &["rs"]);
        leaving.deleting = true;
        assert_eq!(told(vec![leaving]), Vec::<String>::new());
    }

    #[test]
    fn what_nobody_can_tell_stays() {
        let mut unread = kinds();
        unread[0].listed = false;
        assert_eq!(told_by(vec![object(1, "d", "p", &["rs"])], &unread), Vec::<String>::new());
        assert_eq!(told_by(vec![object(1, "d", "p", &["rs"])], &unread[1..]), Vec::<String>::new());
        assert_eq!(told(vec![object(2, "", "n", &["rs"])]), Vec::<String>::new(), "no namespace to look in");
    }

    #[test]
    fn foreground_waits_for_those_who_block() {
        let mut set = object(0, "d", "rs", &[]);
        set.deleting = true;
        set.finalizers = vec![FOREGROUND.to_owned()];
        let pod = object(1, "d", "p", &["rs"]);
        assert_eq!(told(vec![set.clone(), pod.clone()]), ["delete p if 0 are gone"]);
        let below = object(1, "d", "below", &["p"]);
        assert_eq!(told(vec![set.clone(), pod.clone(), below]), ["delete p if 0 are gone, waiting"]);
        let mut loose = pod;
        loose.owners[0].blocks = false;
        assert_eq!(
            told(vec![set.clone(), loose]),
            ["release rs from foregroundDeletion", "delete p if 0 are gone"]
        );
        assert_eq!(told(vec![set]), ["release rs from foregroundDeletion"]);
    }

    #[test]
    fn orphans_are_let_go_before_their_owner() {
        let mut set = object(0, "d", "rs", &[]);
        set.deleting = true;
        set.finalizers = vec![ORPHAN.to_owned()];
        assert_eq!(
            told(vec![set.clone(), object(1, "d", "p", &["rs"])]),
            ["unlink p from [\"rs\"] and 0 if gone"]
        );
        assert_eq!(told(vec![set]), ["release rs from orphan"]);
    }
}
