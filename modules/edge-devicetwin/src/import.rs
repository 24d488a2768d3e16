//! What a node that moves over from KubeEdge brings along of its devices: states, twins with their values and versions, and who
//! the mappers are. Rows of the store come of it, and nothing runs here.

use std::collections::{BTreeMap, BTreeSet};

use contract::ids::DeviceName;
use contract::parsed::VALUE_MAX;
use crd::Device;
use edge_store::{DeviceRow, TwinRow, Write};
use serde::Deserialize;

use crate::known_mapper::KnownMapper;
use crate::mapper;
use crate::plan::{self, TWINS_MAX};
use crate::twin::{Side, State, Twin, Version};
use crate::{object_reader, store};

/// The type of a twin that KubeEdge has deleted.
const DELETED: &str = "deleted";
/// The types of values that twins have; any other is taken for the first.
const TYPES: [&str; 5] = ["string", "int", "integer", "float", "boolean"];

/// What comes of a device.
#[derive(Debug, Default)]
pub struct ImportedDevice {
    /// Its rows.
    pub writes: Vec<Write>,
    /// How many twins are among them.
    pub twins: usize,
    /// The properties that are left out, and why.
    pub left_out: Vec<(String, String)>,
}

/// The rows of the device whose object is `json` and has `uid`, as KubeEdge's rows have it. A value that the cloud wants counts as
/// taken over where KubeEdge had it in the twin; what the cloud knows of the twins is told again over the first link. `mappers`: the
/// protocols that had one.
///
/// # Errors
/// A sentence, when the object is none that is understood.
pub fn device(
    uid: &str,
    json: &[u8],
    (row, twins): (Option<&DeviceRow>, &[&TwinRow]),
    mappers: &BTreeSet<String>,
) -> Result<ImportedDevice, String> {
    let object: Device = object_reader::parse(json)?;
    let (namespace, name) = (object.metadata.namespace.as_deref(), object.metadata.name.as_deref());
    let id = DeviceName::parse(namespace.unwrap_or_default(), name.unwrap_or_default())
        .map_err(|error| error.to_string())?;
    let object = object.without_repeats();
    let mut imported = ImportedDevice::default();
    let said = row.map(|row| row.state.as_str()).unwrap_or_default();
    let state = plan::state_of_mapper(said).unwrap_or("unknown").to_ascii_lowercase();
    let last_online =
        row.map(|row| row.last_online.clone()).filter(|time| time.parse::<jiff::Timestamp>().is_ok());
    let protocol = object.spec.protocol.as_ref().and_then(|protocol| protocol.protocol_name.clone());
    let state = State {
        last_online,
        unreported: state != "unknown",
        state,
        named: plan::named_by(&object),
        mapper: protocol.filter(|protocol| mappers.contains(protocol)),
        ..State::unknown(uid)
    };
    imported.writes.push(store::put_state(&id, &state));
    let wanted: BTreeMap<&str, &str> = object
        .spec
        .properties
        .iter()
        .filter_map(|property| Some((property.name.as_str(), property.desired.as_ref()?.value.as_str())))
        .collect();
    for row in twins {
        if row.value_type == DELETED {
            continue;
        }
        match twin_of(row, wanted.get(row.property.as_str()).copied()) {
            Ok(_) if imported.twins >= TWINS_MAX => {
                let reason = format!("a device has at most {TWINS_MAX} twins");
                imported.left_out.push((row.property.clone(), reason));
            }
            Ok(twin) => {
                imported.writes.push(store::put_twin(&id, &row.property, &twin));
                imported.twins += 1;
            }
            Err(reason) => imported.left_out.push((row.property.clone(), reason)),
        }
    }
    Ok(imported)
}

fn twin_of(row: &TwinRow, wanted: Option<&str>) -> Result<Twin, String> {
    plan::check_name(&row.property)?;
    let value_type = TYPES.into_iter().find(|known| *known == row.value_type).unwrap_or(TYPES[0]);
    let expected = side("expected", &row.expected, &row.expected_meta)?;
    let actual = side("actual", &row.actual, &row.actual_meta)?;
    let taken = expected.as_ref().filter(|side| wanted == Some(side.value.as_str()));
    Ok(Twin {
        desired: taken.map(|side| side.value.clone()),
        expected_version: version("expected_version", &row.expected_version)?,
        actual_version: version("actual_version", &row.actual_version)?,
        optional: row.optional,
        unreported: actual.is_some(),
        expected,
        actual,
        ..Twin::new(value_type)
    })
}

/// One side; KubeEdge keeps none as an empty value.
fn side(what: &str, value: &str, meta: &str) -> Result<Option<Side>, String> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Meta {
        timestamp: i64,
    }
    if value.is_empty() {
        return Ok(None);
    }
    if value.len() > VALUE_MAX {
        return Err(format!("{what} has {} bytes, and at most {VALUE_MAX} are taken", value.len()));
    }
    let Meta { timestamp } = json(&format!("{what}_meta"), meta)?;
    Ok(Some(Side { value: value.to_owned(), timestamp }))
}

fn version(what: &str, text: &str) -> Result<Version, String> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Counts {
        cloud: i64,
        edge: i64,
    }
    let Counts { cloud, edge } = json(what, text)?;
    let count = |number: i64| u64::try_from(number).map_err(|_| format!("{what} is negative"));
    Ok(Version { cloud: count(cloud)?, edge: count(edge)? })
}

/// A small document in a column; an empty one says nothing.
fn json<T: Default + for<'a> Deserialize<'a>>(what: &str, text: &str) -> Result<T, String> {
    match text {
        "" => Ok(T::default()),
        text => serde_json::from_str(text).map_err(|_| format!("{what} is not understood")),
    }
}

/// KubeEdge's record of a mapper (`MapperInfo`), as JSON; its address is in Base64.
#[derive(Default, Deserialize)]
#[serde(default)]
struct MapperInfo {
    name: String,
    version: String,
    api_version: String,
    protocol: String,
    address: String,
}

/// The row of a mapper by KubeEdge's record of it: its name and its protocol besides.
///
/// # Errors
/// A sentence, when the record is none of a mapper.
pub fn mapper(json: &str) -> Result<(String, String, Write), String> {
    let info: MapperInfo = serde_json::from_str(json).map_err(|error| error.to_string())?;
    mapper::check(&info.name, &info.protocol)?;
    let address = base64(&info.address).and_then(|bytes| String::from_utf8(bytes).ok());
    let address = address.ok_or_else(|| "its address is not understood".to_owned())?;
    let version = format!("{} {}", info.version, info.api_version);
    let version: String = version.trim().chars().filter(|c| !c.is_control()).take(128).collect();
    let known = KnownMapper { name: info.name.clone(), address, version };
    let write = known.put(&info.protocol);
    Ok((info.name, info.protocol, write))
}

/// Standard Base64 with its padding, as Go writes bytes into JSON.
fn base64(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=');
    if !text.len().is_multiple_of(4) || text.len() - digits.len() > 2 {
        return None;
    }
    let (mut bytes, mut bits, mut count) = (Vec::with_capacity(digits.len()), 0_u32, 0);
    for digit in digits.bytes() {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = (bits << 6) | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            // The eight bits above those that wait.
            bytes.push(u8::try_from((bits >> count) & 0xff).ok()?);
            bits &= (1 << count) - 1;
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::known_mapper;
    use edge_store::{Options, Store};
    use serde_json::json;

    fn object() -> Vec<u8> {
        let object = json!({
            "apiVersion": "devices.kubeedge.io/v1beta1", "kind": "Device",
            "metadata": { "namespace": "d", "name": "pump", "uid": "u-1" },
            "spec": { "nodeName": "edge-1", "deviceModelRef": { "name": "pumps" }, "protocol": { "protocolName": "modbus" },
                "properties": [{ "name": "speed", "desired": { "value": "7" } }, { "name": "mode", "desired": { "value": "b" } }] },
        });
        serde_json::to_vec(&object).unwrap()
    }

    fn row(property: &str, expected: &str, actual: &str) -> TwinRow {
        TwinRow {
            device: "d/pump".to_owned(),
            property: property.to_owned(),
            expected: expected.to_owned(),
            actual: actual.to_owned(),
            expected_meta: r#"{"timestamp":5}"#.to_owned(),
            actual_meta: r#"{"timestamp":6}"#.to_owned(),
            expected_version: r#"{"cloud":3,"edge":4}"#.to_owned(),
            actual_version: r#"{"cloud":0,"edge":9}"#.to_owned(),
            optional: false,
            value_type: "int".to_owned(),
        }
    }

    #[tokio::test]
    async fn a_device_has_its_state_and_its_twins_with_values_times_and_versions() {
        let state = DeviceRow {
            id: "d/pump".to_owned(),
            state: "Online".to_owned(),
            last_online: "2026-01-01 00:00:00".to_owned(),
        };
        let deleted = TwinRow { value_type: "deleted".to_owned(), ..row("old", "", "") };
        let bad = TwinRow { expected_version: "{".to_owned(), ..row("bad", "1", "1") };
        let rows = [row("speed", "7", "6"), row("mode", "a", ""), row("no name!", "1", "1"), deleted, bad];
        let rows: Vec<&TwinRow> = rows.iter().collect();
        let mappers = BTreeSet::from(["modbus".to_owned()]);
        let imported = device("u-1", &object(), (Some(&state), &rows), &mappers).unwrap();
        assert_eq!(imported.twins, 2);
        let left_out: Vec<&str> = imported.left_out.iter().map(|(property, _)| property.as_str()).collect();
        assert_eq!(left_out, ["no name!", "bad"]);
        let folder = tempfile::tempdir().unwrap();
        let kept = Store::open(folder.path().join("db"), Options::new([1; 16])).unwrap();
        kept.commit(imported.writes).await.unwrap();
        let loaded = store::load(&kept).unwrap();
        let id = DeviceName::parse("d", "pump").unwrap();
        let state = &loaded.states[&id];
        assert_eq!(
            (state.uid.as_str(), state.state.as_str(), state.last_online.as_deref()),
            ("u-1", "online", None)
        );
        assert!(
            state.unreported && state.named.contains("speed") && state.mapper.as_deref() == Some("modbus")
        );
        let speed = &loaded.twins[&id]["speed"];
        assert_eq!(speed.expected, Some(Side { value: "7".to_owned(), timestamp: 5 }));
        assert_eq!(speed.actual, Some(Side { value: "6".to_owned(), timestamp: 6 }));
        assert_eq!(
            (speed.expected_version, speed.actual_version),
            (Version { cloud: 3, edge: 4 }, Version { cloud: 0, edge: 9 })
        );
        assert_eq!((speed.desired.as_deref(), speed.value_type.as_str()), (Some("7"), "int"));
        assert!(!speed.optional && speed.unreported);
        // What the cloud wanted since is taken over when DeviceTwin begins.
        assert_eq!(loaded.twins[&id]["mode"].desired, None);
        assert!(device("u", b"{}", (None, &[]), &mappers).is_err());
    }

    #[test]
    fn a_mapper_is_known_by_its_protocol() {
        let record = r#"{"name":"modbus-mapper","version":"v1.13.0","api_version":"v1.0.0","protocol":"modbus","address":"L2V0Yy9rdWJlZWRnZS9tb2RidXMuc29jaw==","state":"ok"}"#;
        let (name, protocol, write) = mapper(record).unwrap();
        let Write::PutRow { key2, value, .. } = write else { panic!("{write:?}") };
        assert_eq!((name.as_str(), protocol.as_str(), key2.as_str()), ("modbus-mapper", "modbus", "modbus"));
        let known = known_mapper::read(&value).unwrap();
        assert_eq!(known.address, "/etc/kubeedge/modbus.sock");
        assert_eq!(known.version, "v1.13.0 v1.0.0");
        for bad in [
            "{}",
            "[]",
            r#"{"name":"a","protocol":"b","address":"*"}"#,
            r#"{"name":"a","protocol":"b","address":"/w=="}"#,
        ] {
            assert!(mapper(bad).is_err(), "{bad}");
        }
        assert_eq!(known_mapper::read(br#"{"v":2,"name":"a","address":"b","version":"c"}"#), None);
    }
}
