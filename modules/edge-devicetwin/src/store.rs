//! The rows in the node's store: states and twins of devices, mappers and what they have, as JSON.
//!
//! Rows are structs of their own, and each says its version (`v`). Version 1 is frozen: the test below holds it byte by byte.
//! A row of another version was written by a newer release that was rolled back: it is left out, counted and named, and
//! stays until something newer is known under its key.

mod v1;

use std::collections::BTreeMap;

use beehive::Env;
use contract::ids::DeviceName;
use contract::{UpReport, rows};
use edge_store::{Class, OutboxQueue, Row, Store, StoreError, Table, Write};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::calls::{Calls, Remembered};
use crate::events::Event;
use crate::known_mapper::{self, KnownMapper};
use crate::mapper::MapperRecord;
use crate::push::{Acknowledged, Call};
use crate::twin::{State, Twin};

use self::v1::{AcknowledgedV1, CallsV1, MapperV1, StateV1, TwinV1};

/// The version that is written.
const VERSION: u32 = 1;

#[derive(Serialize)]
struct Versioned<T> {
    v: u32,
    #[serde(flatten)]
    row: T,
}

fn encode<T: Serialize>(row: T) -> Vec<u8> {
    // Structs of texts and numbers under text keys: this cannot fail. An empty row is left out when it is read.
    serde_json::to_vec(&Versioned { v: VERSION, row }).unwrap_or_default()
}

/// Why a row is left out.
#[derive(Debug)]
enum Unreadable {
    Version(u32),
    Broken(serde_json::Error),
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Unreadable> {
    #[derive(Deserialize)]
    struct VersionField {
        v: u32,
    }
    let field: VersionField = serde_json::from_slice(bytes).map_err(Unreadable::Broken)?;
    if field.v != VERSION {
        return Err(Unreadable::Version(field.v));
    }
    serde_json::from_slice(bytes).map_err(Unreadable::Broken)
}

/// A row's value; one that is left out is said and counted.
fn read<T: DeserializeOwned>(table: Table, row: &Row, unreadable: &mut Vec<UnreadableRow>) -> Option<T> {
    let key = || format!("{}/{}/{}", table.as_str(), row.key1, row.key2);
    match decode(&row.value) {
        Ok(value) => return Some(value),
        Err(Unreadable::Version(version)) => unreadable.push(UnreadableRow::Newer { row: key(), version }),
        Err(Unreadable::Broken(error)) => unreadable.push(UnreadableRow::Broken { row: key(), error }),
    }
    None
}

/// A row that was not read.
#[derive(Debug)]
enum UnreadableRow {
    Newer { row: String, version: u32 },
    Broken { row: String, error: serde_json::Error },
}

/// All that DeviceTwin has in the store.
#[derive(Debug, Default)]
pub(crate) struct StoredState {
    pub(crate) states: BTreeMap<DeviceName, State>,
    pub(crate) twins: BTreeMap<DeviceName, BTreeMap<String, Twin>>,
    pub(crate) mappers: BTreeMap<String, (MapperRecord, Acknowledged)>,
    pub(crate) calls: BTreeMap<DeviceName, Vec<Remembered>>,
    /// Mappers that had registered with KubeEdge's edgecore, by their protocols.
    pub(crate) known_mappers: BTreeMap<String, KnownMapper>,
    unreadable: Vec<UnreadableRow>,
}

impl StoredState {
    /// Says what was left out.
    pub(crate) fn tell(&self, env: &Env) {
        for row in &self.unreadable {
            match row {
                UnreadableRow::Newer { row, version } => {
                    Event::RowOfNewerRelease { row, version: *version }.happened(env);
                }
                UnreadableRow::Broken { row, error } => Event::RowBroken { row, error }.happened(env),
            }
        }
    }
}

/// Key of the row of the mapper itself; the others of its protocol are what it has.
const MAPPER: &str = "";
const DEVICE: &str = "device/";
/// Key of the row of a device's calls; that of its state has none.
const CALLS: &str = "calls";
const MODEL: &str = "model/";

/// Reads all of it.
pub(crate) fn load(store: &Store) -> Result<StoredState, StoreError> {
    let mut stored = StoredState::default();
    let out = &mut stored.unreadable;
    for row in store.list_rows(Table::DeviceStates, None)? {
        let Ok(id) = row.key1.parse::<DeviceName>() else { continue };
        if row.key2 == CALLS {
            if let Some(calls) = read::<CallsV1>(Table::DeviceStates, &row, out) {
                stored.calls.insert(id, calls.into());
            }
            continue;
        }
        if let Some(state) = read::<StateV1>(Table::DeviceStates, &row, out) {
            stored.states.insert(id, state.into());
        }
    }
    for row in store.list_rows(Table::Twins, None)? {
        let Ok(id) = row.key1.parse::<DeviceName>() else { continue };
        if let Some(twin) = read::<TwinV1>(Table::Twins, &row, out) {
            stored.twins.entry(id).or_default().insert(row.key2, twin.into());
        }
    }
    let mut acknowledged: BTreeMap<String, Acknowledged> = BTreeMap::new();
    for row in store.list_rows(Table::Mappers, None)? {
        if row.key2 == MAPPER {
            if let Some(mapper) = read::<MapperV1>(Table::Mappers, &row, out) {
                stored.mappers.insert(row.key1, (mapper.into(), Acknowledged::default()));
            }
            continue;
        }
        let Some(AcknowledgedV1 { digest }) = read(Table::Mappers, &row, out) else { continue };
        let has = acknowledged.entry(row.key1).or_default();
        let (device, model) = (row.key2.strip_prefix(DEVICE), row.key2.strip_prefix(MODEL));
        if let Some(id) = device.and_then(|key| key.parse::<DeviceName>().ok()) {
            has.devices.insert(id, digest);
        } else if let Some(id) = model.and_then(|key| key.parse::<DeviceName>().ok()) {
            has.models.insert(id, digest);
        }
    }
    for row in store.list_rows(Table::Facts, Some(rows::KNOWN_MAPPERS_FACT))? {
        stored.known_mappers.extend(known_mapper::read(&row.value).map(|known| (row.key2, known)));
    }
    for (protocol, has) in acknowledged {
        if let Some((_, known)) = stored.mappers.get_mut(&protocol) {
            *known = has;
        }
    }
    Ok(stored)
}

/// Keeps a twin.
pub(crate) fn put_twin(id: &DeviceName, property: &str, twin: &Twin) -> Write {
    let value = encode(TwinV1::from(twin));
    Write::PutRow { table: Table::Twins, key1: id.to_string(), key2: property.to_owned(), value }
}

/// Keeps a state.
pub(crate) fn put_state(id: &DeviceName, state: &State) -> Write {
    let value = encode(StateV1::from(state));
    Write::PutRow { table: Table::DeviceStates, key1: id.to_string(), key2: String::new(), value }
}

/// Keeps the calls of a device.
pub(crate) fn put_calls(id: &DeviceName, calls: &Calls) -> Write {
    let value = encode(CallsV1::from(calls));
    Write::PutRow { table: Table::DeviceStates, key1: id.to_string(), key2: CALLS.to_owned(), value }
}

fn mapper_row(protocol: &str, key2: String, value: Vec<u8>) -> Write {
    Write::PutRow { table: Table::Mappers, key1: protocol.to_owned(), key2, value }
}

/// Keeps the mapper of a protocol in place of any other, with what it has.
pub(crate) fn put_mapper(protocol: &str, mapper: &MapperRecord, has: &Acknowledged) -> Vec<Write> {
    let digest = |digest: &u64| encode(AcknowledgedV1 { digest: *digest });
    let mut writes = vec![delete_mapper(protocol)];
    writes.push(mapper_row(protocol, MAPPER.to_owned(), encode(MapperV1::from(mapper))));
    writes
        .extend(has.models.iter().map(|(id, sum)| mapper_row(protocol, format!("{MODEL}{id}"), digest(sum))));
    writes.extend(
        has.devices.iter().map(|(id, sum)| mapper_row(protocol, format!("{DEVICE}{id}"), digest(sum))),
    );
    writes
}

/// Keeps what a mapper has after a call: its row, or that there is none.
pub(crate) fn put_acknowledged(protocol: &str, call: &Call, has: &Acknowledged) -> Write {
    let (key2, digest) = match call {
        Call::CreateModel(id, _) | Call::UpdateModel(id, _) | Call::RemoveModel(id) => {
            (format!("{MODEL}{id}"), has.models.get(id))
        }
        Call::Register(id, _) | Call::Update(id, _) | Call::Remove(id) => {
            (format!("{DEVICE}{id}"), has.devices.get(id))
        }
    };
    match digest {
        Some(digest) => mapper_row(protocol, key2, encode(AcknowledgedV1 { digest: *digest })),
        None => Write::DeleteRow { table: Table::Mappers, key1: protocol.to_owned(), key2 },
    }
}

/// Forgets the mapper of a protocol, and what it has.
pub(crate) fn delete_mapper(protocol: &str) -> Write {
    Write::DeleteRows { table: Table::Mappers, key1: protocol.to_owned() }
}

/// Forgets one twin of a device, and where its versions were.
pub(crate) fn delete_twin(id: &DeviceName, property: &str) -> Write {
    Write::DeleteRow { table: Table::Twins, key1: id.to_string(), key2: property.to_owned() }
}

/// Forgets the twins of a device.
pub(crate) fn delete_twins(id: &DeviceName) -> Write {
    Write::DeleteRows { table: Table::Twins, key1: id.to_string() }
}

/// Forgets the state and the calls of a device.
pub(crate) fn delete_state(id: &DeviceName) -> Write {
    Write::DeleteRows { table: Table::DeviceStates, key1: id.to_string() }
}

/// Puts a report into the outbox in place of an older one about the same.
pub(crate) fn enqueue(report: &UpReport) -> Option<Write> {
    let body = rows::encode_report(report)
        .inspect_err(|error| tracing::error!(%error, "a report cannot be sent"))
        .ok()?;
    let key = report.newest_key()?;
    Some(Write::Enqueue { queue: OutboxQueue::Devices, class: Class::Status, key, body })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::MapperIdentity;
    use crate::twin::{Side, Version};
    use edge_store::Options;

    fn text(write: Write) -> (String, String, String) {
        let Write::PutRow { key1, key2, value, .. } = write else { panic!("{write:?}") };
        (key1, key2, String::from_utf8(value).unwrap())
    }

    fn id() -> DeviceName {
        DeviceName::parse("d", "pump").unwrap()
    }

    fn twin() -> Twin {
        let side = |value: &str, timestamp| Some(Side { value: value.to_owned(), timestamp });
        Twin {
            expected: side("7", 1),
            actual: side("5", 2),
            observed: side("7", 3),
            expected_version: Version { cloud: 4, edge: 5 },
            actual_version: Version { cloud: 0, edge: 6 },
            optional: true,
            value_type: "int".to_owned(),
            desired: Some("7".to_owned()),
            edge_desired: None,
            actual_error: None,
            observed_error: None,
            stale: None,
            deleted: true,
            unreported: true,
        }
    }

    fn state() -> State {
        let last_online = Some("2027-01-15T08:00:00Z".to_owned());
        let (uid, state) = ("u".to_owned(), "online".to_owned());
        State { state, last_online, unreported: true, ..State::unknown(&uid) }
    }

    fn mapper() -> MapperRecord {
        let identity = MapperIdentity::Workload {
            namespace: "m".to_owned(),
            account: "a".to_owned(),
            kind: "DaemonSet".to_owned(),
            name: "modbus".to_owned(),
        };
        MapperRecord {
            name: "modbus-mapper".to_owned(),
            address: "/etc/kubeedge/m.sock".to_owned(),
            version: "v1".to_owned(),
            identity,
            uid: 7,
            process: "b/1/2".to_owned(),
            with_data: true,
            doubles: false,
        }
    }

    fn acknowledged() -> Acknowledged {
        Acknowledged { devices: [(id(), u64::MAX)].into(), models: [(id(), 9)].into() }
    }

    fn calls() -> Calls {
        let values = [("level".to_owned(), "5".to_owned())].into();
        let call = contract::MethodCall::new("i", "SetLevel", values, contract::device_call::WITHIN).unwrap();
        let failed = crate::calls::outcome(contract::CallState::Failed, 502, "no");
        let mut calls = Calls::default();
        calls.put(Remembered::new(&call, contract::CallOrigin::Mqtt, failed, "t".to_owned()));
        calls
    }

    const CALLS_ROW: &str = r#"{"v":1,"calls":[{"id":"i","method":"SetLevel","values":{"level":"5"},"by":"mqtt","state":"Failed","code":502,"message":"no","time":"t"}]}"#;
    const TWIN: &str = r#"{"v":1,"expected":{"value":"7","timestamp":1},"actual":{"value":"5","timestamp":2},"observed":{"value":"7","timestamp":3},"expected_version":{"cloud":4,"edge":5},"actual_version":{"cloud":0,"edge":6},"optional":true,"value_type":"int","desired":"7","deleted":true,"unreported":true}"#;
    const STATE: &str =
        r#"{"v":1,"uid":"u","state":"online","last_online":"2027-01-15T08:00:00Z","unreported":true}"#;
    const MAPPER_ROW: &str = r#"{"v":1,"name":"modbus-mapper","address":"/etc/kubeedge/m.sock","version":"v1","identity":{"workload":{"namespace":"m","account":"a","kind":"DaemonSet","name":"modbus"}},"uid":7,"process":"b/1/2","with_data":true}"#;

    #[test]
    fn version_1_of_the_rows_is_frozen() {
        let of = |key1: &str, key2: &str, value: &str| (key1.to_owned(), key2.to_owned(), value.to_owned());
        assert_eq!(text(put_twin(&id(), "speed", &twin())), of("d/pump", "speed", TWIN));
        assert_eq!(text(put_state(&id(), &state())), of("d/pump", "", STATE));
        assert_eq!(text(put_calls(&id(), &calls())), of("d/pump", "calls", CALLS_ROW));
        let rows: Vec<_> =
            put_mapper("modbus", &mapper(), &acknowledged()).into_iter().skip(1).map(text).collect();
        let expected = [
            of("modbus", "", MAPPER_ROW),
            of("modbus", "model/d/pump", r#"{"v":1,"digest":9}"#),
            of("modbus", "device/d/pump", r#"{"v":1,"digest":18446744073709551615}"#),
        ];
        assert_eq!(rows, expected);
    }

    /// Fields that came later: a release without them passes over them, and rows without them are read.
    #[test]
    fn what_came_later_stands_behind_what_was_there() {
        let text_of = str::to_owned;
        let late = Twin {
            edge_desired: Some(text_of("8")),
            actual_error: Some(text_of("no answer")),
            observed_error: Some(text_of("exception 2")),
            stale: Some(4),
            ..twin()
        };
        let with = r#""desired":"7","edge_desired":"8","actual_error":"no answer","observed_error":"exception 2","stale":4,"#;
        let row = text(put_twin(&id(), "speed", &late)).2;
        assert_eq!(row, TWIN.replace(r#""desired":"7","#, with));
        assert_eq!(Twin::from(decode::<TwinV1>(row.as_bytes()).unwrap()), late);
        let condition = contract::DeviceCondition {
            kind: text_of("Reporting"),
            reason: text_of("Stale"),
            message: text_of("m"),
            since: text_of("t"),
        };
        let (named, spoke) = ([text_of("p")].into(), Some(text_of("modbus")));
        let late = State {
            conditions: vec![condition],
            reason: Some(text_of("r")),
            named,
            mapper: spoke,
            ..state()
        };
        let row = text(put_state(&id(), &late)).2;
        let with = r#","conditions":[{"kind":"Reporting","reason":"Stale","message":"m","since":"t"}],"reason":"r","named":["p"],"mapper":"modbus"}"#;
        assert_eq!(row, format!("{}{with}", STATE.trim_end_matches('}')));
        assert_eq!(State::from(decode::<StateV1>(row.as_bytes()).unwrap()), late);
        let late = MapperRecord { doubles: true, ..mapper() };
        let row = text(put_mapper("modbus", &late, &Acknowledged::default()).remove(1)).2;
        assert_eq!(row, MAPPER_ROW.replace("true}", "true,\"doubles\":true}"));
        assert_eq!(MapperRecord::from(decode::<MapperV1>(row.as_bytes()).unwrap()), late);
    }

    #[test]
    fn what_is_kept_is_read_and_what_a_newer_release_wrote_is_left_where_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().join("db"), Options::new([1; 16])).unwrap();
        let newer = |write: Write| match write {
            Write::PutRow { table, key1, value, .. } => {
                let value = String::from_utf8(value).unwrap().replace("\"v\":1", "\"v\":2").into_bytes();
                Write::PutRow { table, key1, key2: "newer".to_owned(), value }
            }
            other => panic!("{other:?}"),
        };
        let broken = Write::PutRow {
            table: Table::Twins,
            key1: "d/pump".to_owned(),
            key2: "broken".to_owned(),
            value: b"{".to_vec(),
        };
        let mut writes = vec![
            put_twin(&id(), "speed", &twin()),
            put_state(&id(), &state()),
            put_calls(&id(), &calls()),
            newer(put_twin(&id(), "", &twin())),
            broken,
        ];
        writes.extend(put_mapper("modbus", &mapper(), &acknowledged()));
        store.commit_blocking(writes).unwrap();
        for _ in 0..2 {
            let stored = load(&store).unwrap();
            assert_eq!(stored.states, [(id(), state())].into());
            assert_eq!(stored.calls, [(id(), calls().all().to_vec())].into());
            assert_eq!(stored.twins, [(id(), [("speed".to_owned(), twin())].into())].into());
            assert_eq!(stored.mappers, [("modbus".to_owned(), (mapper(), acknowledged()))].into());
            let [UnreadableRow::Broken { row: first, .. }, UnreadableRow::Newer { row, version: 2 }] =
                &stored.unreadable[..]
            else {
                panic!("{:?}", stored.unreadable)
            };
            assert_eq!((first.as_str(), row.as_str()), ("twins/d/pump/broken", "twins/d/pump/newer"));
        }
        let gone = Call::Remove(id());
        let without = Acknowledged::default();
        store.commit_blocking(vec![put_acknowledged("modbus", &gone, &without)]).unwrap();
        assert_eq!(load(&store).unwrap().mappers["modbus"].1.devices, [].into());
        store.commit_blocking(vec![delete_mapper("modbus")]).unwrap();
        assert!(load(&store).unwrap().mappers.is_empty());
    }
}
