//! The rows in the node's store: twins, states and mappers, as JSON.

use std::collections::BTreeMap;

use contract::{UpReport, wire};
use edge_store::{Class, Queue, Store, StoreError, Table, Write};
use serde::{Deserialize, Serialize};

use crate::DeviceId;
use crate::holder::Holder;
use crate::push::Sent;
use crate::twin::Twin;

/// What is kept of a device besides its twins. There is a row for every device that the node has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    /// The device's uid: another one is another device.
    pub(crate) uid: String,
    /// online, offline, ok, unhealthy or unknown, as it was said.
    pub(crate) state: String,
    /// RFC 3339, when it was last online.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) last_online: Option<String>,
    /// The cloud does not know of it yet: its report waits for its turn.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) unreported: bool,
}

impl State {
    /// Of a device that said nothing yet.
    pub(crate) fn unknown(uid: &str) -> Self {
        State { uid: uid.to_owned(), state: "unknown".to_owned(), last_online: None, unreported: false }
    }

    /// What the cloud is to know of it.
    pub(crate) fn report(&self, id: &DeviceId) -> UpReport {
        UpReport::DeviceState {
            namespace: id.namespace.clone(),
            name: id.name.clone(),
            state: self.state.clone(),
            last_online_time: self.last_online.clone(),
        }
    }
}

/// The mapper of a protocol, and what it has got.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MapperRow {
    pub(crate) name: String,
    pub(crate) address: String,
    pub(crate) version: String,
    /// For whom it speaks.
    pub(crate) holder: Holder,
    /// The user of the process that registered.
    pub(crate) uid: u32,
    /// That process.
    pub(crate) process: String,
    /// It wants its devices.
    pub(crate) with_data: bool,
    pub(crate) sent: Sent,
}

/// The state of every device that the node had.
pub(crate) fn states(store: &Store) -> Result<BTreeMap<DeviceId, State>, StoreError> {
    let rows = store.list_rows(Table::DeviceStates, None)?;
    Ok(rows
        .into_iter()
        .filter_map(|row| Some((DeviceId::from_key(&row.key1)?, parse(&row.value)?)))
        .collect())
}

/// The twins of a device.
pub(crate) fn twins(store: &Store, id: &DeviceId) -> Result<BTreeMap<String, Twin>, StoreError> {
    let rows = store.list_rows(Table::Twins, Some(&id.to_string()))?;
    Ok(rows.into_iter().filter_map(|row| Some((row.key2, parse(&row.value)?))).collect())
}

/// The mappers by protocol.
pub(crate) fn mappers(store: &Store) -> Result<BTreeMap<String, MapperRow>, StoreError> {
    let rows = store.list_rows(Table::Mappers, None)?;
    Ok(rows.into_iter().filter_map(|row| Some((row.key1, parse(&row.value)?))).collect())
}

fn parse<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    serde_json::from_slice(bytes)
        .inspect_err(|error| tracing::error!(%error, "a row of the store is not understood and left out"))
        .ok()
}

fn json<T: Serialize>(value: &T) -> Vec<u8> {
    // Structs of texts and numbers under text keys: this cannot fail. An empty row is left out when it is read.
    serde_json::to_vec(value).unwrap_or_default()
}

/// Keeps a twin.
pub(crate) fn put_twin(id: &DeviceId, property: &str, twin: &Twin) -> Write {
    Write::PutRow { table: Table::Twins, key1: id.to_string(), key2: property.to_owned(), value: json(twin) }
}

/// Keeps a state.
pub(crate) fn put_state(id: &DeviceId, state: &State) -> Write {
    Write::PutRow {
        table: Table::DeviceStates,
        key1: id.to_string(),
        key2: String::new(),
        value: json(state),
    }
}

/// Keeps the mapper of a protocol.
pub(crate) fn put_mapper(protocol: &str, mapper: &MapperRow) -> Write {
    Write::PutRow {
        table: Table::Mappers,
        key1: protocol.to_owned(),
        key2: String::new(),
        value: json(mapper),
    }
}

/// Forgets the mapper of a protocol.
pub(crate) fn delete_mapper(protocol: &str) -> Write {
    Write::DeleteRow { table: Table::Mappers, key1: protocol.to_owned(), key2: String::new() }
}

/// Forgets the twins of a device.
pub(crate) fn delete_twins(id: &DeviceId) -> Write {
    Write::DeleteRows { table: Table::Twins, key1: id.to_string() }
}

/// Forgets the state of a device.
pub(crate) fn delete_state(id: &DeviceId) -> Write {
    Write::DeleteRow { table: Table::DeviceStates, key1: id.to_string(), key2: String::new() }
}

/// Puts a report into the outbox in place of an older one about the same.
pub(crate) fn enqueue(report: &UpReport) -> Option<Write> {
    let body = wire::encode_report(report)
        .inspect_err(|error| tracing::error!(%error, "a report cannot be sent"))
        .ok()?;
    let key = report.newest_key()?;
    Some(Write::Enqueue { queue: Queue::Devices, class: Class::Status, key, body })
}
