//! The devices of the node, in memory: what the store holds of them, and which of it was committed when.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use beehive::Moment;
use contract::ids::{DEVICE_MODELS, DEVICES};
use edge_store::{Store, StoreError, StoredObject, Write};
use serde::de::DeserializeOwned;

use crate::plan::Touch;
use crate::push::Catalog;
use crate::rows::{self, State};
use crate::twin::Twin;
use crate::{DeviceId, plan};

/// 60 s: a value that does not change is committed and reported again after this, so that its time stays true.
const REFRESH: Duration = Duration::from_secs(60);

/// A device of the node.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) state: State,
    pub(crate) state_saved: Option<Moment>,
    pub(crate) twins: BTreeMap<String, Twin>,
    /// When each twin was committed in this life of the actor.
    saved: BTreeMap<String, Moment>,
}

impl Member {
    /// A device with its rows.
    pub(crate) fn new(state: State, twins: BTreeMap<String, Twin>) -> Self {
        Member { state, state_saved: None, twins, saved: BTreeMap::new() }
    }

    /// Those of the touched that have to be committed.
    pub(crate) fn news<'a>(&self, touched: &'a [Touch], now: Moment) -> Vec<&'a Touch> {
        let stale = |touch: &Touch| is_stale(self.saved.get(&touch.property).copied(), now);
        touched.iter().filter(|touch| touch.is_news() || stale(touch)).collect()
    }

    /// Whether the state has to be committed.
    pub(crate) fn state_is_news(&self, state: &State, now: Moment) -> bool {
        self.state.state != state.state || is_stale(self.state_saved, now)
    }

    /// Takes over what was touched, after the commit of `saved`.
    pub(crate) fn take(&mut self, touched: &[Touch], saved: &[String], now: Moment) {
        for touch in touched {
            self.twins.insert(touch.property.clone(), touch.after.clone());
        }
        self.saved.extend(saved.iter().map(|property| (property.clone(), now)));
    }
}

fn is_stale(saved: Option<Moment>, now: Moment) -> bool {
    saved.is_none_or(|saved| now.since(saved) >= REFRESH)
}

/// The rows of touched twins, and the reports on them.
pub(crate) fn writes<'a>(id: &DeviceId, touched: impl IntoIterator<Item = &'a Touch>) -> Vec<Write> {
    let mut writes = Vec::new();
    for touch in touched {
        writes.push(rows::put_twin(id, &touch.property, &touch.after));
        writes.extend(rows::enqueue(&touch.after.report(id, &touch.property)));
    }
    writes
}

/// All members as the store has them.
pub(crate) fn load(store: &Store) -> Result<BTreeMap<DeviceId, Member>, StoreError> {
    let mut members = BTreeMap::new();
    for (id, state) in rows::states(store)? {
        let twins = rows::twins(store, &id)?;
        members.insert(id, Member::new(state, twins));
    }
    Ok(members)
}

/// The devices and models in the store.
pub(crate) struct Found {
    pub(crate) catalog: Catalog,
    pub(crate) uids: BTreeMap<DeviceId, String>,
    /// Devices that are there, readable or not.
    pub(crate) present: BTreeSet<DeviceId>,
}

/// Reads the store's devices and models. One that is not understood is named in the log and keeps what it had.
pub(crate) fn find(store: &Store) -> Result<Found, StoreError> {
    let heads = store.object_heads()?;
    let present = heads.iter().filter(|(key, ..)| key.resource == DEVICES);
    let present = present.filter_map(|(key, ..)| DeviceId::parse(&key.namespace, &key.name)).collect();
    let (mut catalog, mut uids) = (Catalog::default(), BTreeMap::new());
    for object in store.list_objects(DEVICES, None)? {
        if let Some((id, device)) = parse(&object) {
            uids.insert(id.clone(), object.uid);
            catalog.devices.insert(id, device);
        }
    }
    catalog.models = store.list_objects(DEVICE_MODELS, None)?.iter().filter_map(parse).collect();
    Ok(Found { catalog, uids, present })
}

fn parse<T: DeserializeOwned>(object: &StoredObject) -> Option<(DeviceId, T)> {
    let id = DeviceId::parse(&object.key.namespace, &object.key.name);
    match (id, serde_json::from_slice(&object.json)) {
        (Some(id), Ok(value)) => Some((id, value)),
        (None, _) => {
            tracing::warn!(object = %object.key, "object has a name that Kubernetes does not take and is left out");
            None
        }
        (Some(_), Err(error)) => {
            tracing::warn!(object = %object.key, %error, "object is not understood and is left out");
            None
        }
    }
}

/// What the cloud's desired values make of the twins of each device.
pub(crate) fn desire(
    members: &BTreeMap<DeviceId, Member>,
    catalog: &Catalog,
    fresh: &BTreeSet<DeviceId>,
    now: i64,
) -> BTreeMap<DeviceId, Vec<Touch>> {
    let none = BTreeMap::new();
    let mut touched = BTreeMap::new();
    for (id, device) in &catalog.devices {
        // A device that takes another's place begins without its twins.
        let held = members.get(id).filter(|_| !fresh.contains(id)).map_or(&none, |member| &member.twins);
        let (_, model) = catalog.model_of(id, device);
        let touches = plan::desire(held, device, &plan::types(model), now);
        if !touches.is_empty() {
            touched.insert(id.clone(), touches);
        }
    }
    touched
}
