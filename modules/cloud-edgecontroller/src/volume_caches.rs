//! Claims, volumes, the drivers' objects and attachments, and runtime classes, as the API server has them.
//!
//! A node may read the claims and volumes of its pods one by one, and watch none: so they are watched all together, under
//! CloudCore's own account. None of them holds a secret.

use std::cell::Ref;
use std::collections::BTreeSet;
use std::sync::Arc;

use apimachinery::resource::RUNTIME_CLASSES;
use apimachinery::volume;
use beehive::Context;
use contract::edgecontroller::EdgeControllerMsg;
use contract::ids::{CSI_DRIVERS, PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, VOLUME_ATTACHMENTS};
use contract::{Object, ObjectKey};
use kubewatch::{Cache, Interruptions, Presence, SharedCache, WatchedKind};
use serde_json::Value;

use crate::plan;

const KINDS: [WatchedKind; 5] = [
    WatchedKind::core(PERSISTENT_VOLUME_CLAIMS, "PersistentVolumeClaim").reading(volume::READ_OF_CLAIM),
    WatchedKind::core(PERSISTENT_VOLUMES, "PersistentVolume").reading(volume::READ_OF_VOLUME),
    of_storage(CSI_DRIVERS, "csidrivers", "CSIDriver").reading(&["/spec/tokenRequests"]),
    of_storage(VOLUME_ATTACHMENTS, "volumeattachments", "VolumeAttachment").reading(&[]),
    WatchedKind {
        group_resource: RUNTIME_CLASSES,
        group: "node.k8s.io",
        version: "v1",
        ..WatchedKind::core("runtimeclasses", "RuntimeClass").reading(&[])
    },
];

const fn of_storage(group_resource: &'static str, plural: &'static str, kind: &'static str) -> WatchedKind {
    WatchedKind { group_resource, group: "storage.k8s.io", ..WatchedKind::core(plural, kind) }
}

/// A token that a CSI driver wants of the pods that have its volumes.
pub(crate) struct DriverToken {
    pub(crate) audience: String,
    pub(crate) expiration_seconds: Option<i64>,
}

/// A cache of each kind.
pub(crate) struct VolumeCaches(Vec<(&'static str, SharedCache)>);

impl VolumeCaches {
    /// Begins to watch.
    pub(crate) fn watch(
        client: &kube::Client,
        interruptions: &Interruptions,
        cx: &Context<EdgeControllerMsg>,
    ) -> VolumeCaches {
        let watch = |what: &WatchedKind| {
            let tell = || EdgeControllerMsg::Reconcile;
            (what.group_resource, kubewatch::watch(client, *what, None, interruptions, cx, tell))
        };
        VolumeCaches(KINDS.iter().map(watch).collect())
    }

    /// Of an API server that has none of them.
    #[cfg(test)]
    pub(crate) fn none() -> VolumeCaches {
        VolumeCaches(Vec::new())
    }

    /// What came, changed or went since the last call; of a kind that was not listed yet nothing.
    pub(crate) fn take_moved(&self) -> BTreeSet<ObjectKey> {
        let listed = self.0.iter().filter(|(_, cache)| cache.borrow().listed);
        listed.flat_map(|(_, cache)| cache.borrow_mut().take_moved()).collect()
    }

    /// The tokens that the CSI drivers of a pod's volumes want.
    pub(crate) fn tokens_of(&self, pod: &Value) -> Vec<DriverToken> {
        let objects = self.read();
        let needs = plan::needs_of(pod, &|key| objects.value(key));
        let drivers = needs.iter().filter(|need| need.resource == CSI_DRIVERS);
        let requests =
            drivers.filter_map(|key| objects.value(key)?.pointer("/spec/tokenRequests")?.as_array());
        let token = |request: &Value| DriverToken {
            audience: request["audience"].as_str().unwrap_or_default().to_owned(),
            expiration_seconds: request["expirationSeconds"].as_i64(),
        };
        requests.flatten().map(token).collect()
    }

    pub(crate) fn read(&self) -> VolumeObjects<'_> {
        VolumeObjects(self.0.iter().map(|(resource, cache)| (*resource, cache.borrow())).collect())
    }
}

/// The caches while they are read. What is asked of them is `None` for objects of other kinds.
pub(crate) struct VolumeObjects<'a>(Vec<(&'static str, Ref<'a, Cache>)>);

impl VolumeObjects<'_> {
    fn cache(&self, key: &ObjectKey) -> Option<&Cache> {
        self.0.iter().find(|(resource, _)| *resource == key.resource).map(|(_, cache)| &**cache)
    }

    pub(crate) fn value(&self, key: &ObjectKey) -> Option<&Value> {
        self.cache(key)?.objects.get(key)?.parts()
    }

    pub(crate) fn object(&self, key: &ObjectKey) -> Option<Arc<Object>> {
        Some(Arc::clone(&self.cache(key)?.objects.get(key)?.object))
    }

    /// Whether the API server has said what there is of this kind.
    pub(crate) fn is_listed(&self, key: &ObjectKey) -> Option<bool> {
        self.cache(key).map(|cache| cache.listed)
    }

    pub(crate) fn presence(&self, key: &ObjectKey) -> Option<Presence> {
        let cache = self.cache(key)?;
        Some(match (cache.listed, cache.objects.contains_key(key)) {
            (false, _) => Presence::Unknown,
            (true, false) => Presence::Absent,
            (true, true) => Presence::Present,
        })
    }
}
