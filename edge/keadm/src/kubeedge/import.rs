//! What of KubeEdge's `edgecore.db` goes into the node's own store. Pure.

use std::collections::{BTreeMap, BTreeSet};

use contract::ids::{
    CONFIG_MAPS, DEVICE_MODELS, DEVICES, NODES, PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, PODS,
    RULE_ENDPOINTS, RULES, SECRETS, UID_MAX, VOLUME_ATTACHMENTS, is_dns1123_subdomain,
};
use contract::rows;
use edge_store::{DeviceRow, KubeEdgeRows, MetaRow, ObjectKey, Table, TwinRow, Write};
use serde_json::Value;

/// What KubeEdge calls the kinds of `meta`, and what they are called in the store; whether they have a namespace.
const KINDS: [(&str, &str, bool); 11] = [
    ("pod", PODS, true),
    ("configmap", CONFIG_MAPS, true),
    ("secret", SECRETS, true),
    ("node", NODES, false),
    ("device", DEVICES, true),
    ("devicemodel", DEVICE_MODELS, true),
    ("persistentvolume", PERSISTENT_VOLUMES, false),
    ("persistentvolumeclaim", PERSISTENT_VOLUME_CLAIMS, true),
    ("volumeattachment", VOLUME_ATTACHMENTS, false),
    ("rule", RULES, true),
    ("ruleendpoint", RULE_ENDPOINTS, true),
];
const TOKEN: &str = "serviceaccounttoken";
const MAPPER: &str = "devicemapper";
/// On the mirror of a static pod: it says nothing of what should run.
const MIRROR: &str = "kubernetes.io/config.mirror";
/// In the place of what an object's content comes to: none that the cloud reckons, so that it sends the object once more.
const CONTENT: &str = "kubeedge";
/// 3 MiB: the largest object that the cloud sends.
const OBJECT_MAX: usize = 3 << 20;
/// 64 things that are left out have a name; the others are counted.
const NAMED_MAX: usize = 64;

/// What comes of the file.
#[derive(Debug, Default)]
pub(super) struct Imported {
    pub(super) writes: Vec<Write>,
    /// How many of each kind.
    pub(super) taken: BTreeMap<String, usize>,
    /// What is not as it should be, each with its reason.
    pub(super) left_out: Vec<String>,
    /// How many more there were.
    pub(super) unnamed: usize,
    /// Kinds that say nothing of what should be, and how many rows of each.
    pub(super) passed_over: BTreeMap<String, usize>,
    /// The static pods, by namespace and name.
    pub(super) static_pods: Vec<String>,
}

/// An object that was understood.
struct Object<'a> {
    key: ObjectKey,
    uid: String,
    row: &'a MetaRow,
}

/// What becomes of an object.
enum Sorted<'a> {
    Taken(Object<'a>),
    /// The mirror of a static pod.
    Mirror(String),
}

/// What goes into the store of `node`.
pub(super) fn plan(found: &KubeEdgeRows, node: &str) -> Imported {
    let mut imported = Imported::default();
    imported.writes.push(fact(rows::IMPORTED_STORE_FACT, String::new()));
    let mut devices = Vec::new();
    let mut pods = BTreeSet::new();
    let (mut tokens, mut mappers) = (Vec::new(), BTreeSet::new());
    for row in &found.metas {
        let Some((kind, resource, namespaced)) = KINDS.into_iter().find(|(kind, ..)| *kind == row.kind)
        else {
            match row.kind.as_str() {
                TOKEN => tokens.push(row),
                MAPPER => mappers.extend(imported.mapper(row)),
                // What nobody writes is not shown as it is.
                other => *imported.passed_over.entry(shown(other)).or_default() += 1,
            }
            continue;
        };
        match sort(row, (kind, resource, namespaced), node) {
            Ok(Sorted::Taken(object)) => {
                if resource == PODS {
                    pods.insert(object.uid.clone());
                    imported.writes.push(fact(rows::ADOPTED_PODS_FACT, object.uid.clone()));
                }
                imported.take(kind, &object);
                if resource == DEVICES {
                    devices.push(object);
                }
            }
            Ok(Sorted::Mirror(pod)) => imported.static_pods.push(pod),
            Err(reason) => imported.leave_out(&format!("{kind} `{}`", shown(&row.key)), &reason),
        }
    }
    for row in tokens {
        imported.token(row, &pods);
    }
    imported.devices(found, &devices, &mappers);
    imported
}

/// What an object of KubeEdge's is: whether it is whole, and of this node.
fn sort<'a>(
    row: &'a MetaRow,
    (kind, resource, namespaced): (&str, &str, bool),
    node: &str,
) -> Result<Sorted<'a>, String> {
    if row.value.len() > OBJECT_MAX {
        return Err(format!("it has {} bytes, and at most {OBJECT_MAX} are taken", row.value.len()));
    }
    let object: Value =
        serde_json::from_str(&row.value).map_err(|error| format!("its value is no JSON: {error}"))?;
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let (namespace, name, uid) = (text("/metadata/namespace"), text("/metadata/name"), text("/metadata/uid"));
    if !is_dns1123_subdomain(name) || namespaced != is_dns1123_subdomain(namespace) {
        return Err("its value has no namespace and name as an object has them".to_owned());
    }
    let is_uid = |uid: &str| uid.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    if uid.is_empty() || uid.len() > UID_MAX || !is_uid(uid) {
        return Err("its value has no uid".to_owned());
    }
    let of = match kind {
        "pod" | "device" => text("/spec/nodeName"),
        "node" => name,
        _ => node,
    };
    if of != node {
        return Err(format!("it is of node `{}`, and this is `{node}`", shown(of)));
    }
    let annotations = object.pointer("/metadata/annotations").and_then(Value::as_object);
    if resource == PODS && annotations.is_some_and(|annotations| annotations.contains_key(MIRROR)) {
        return Ok(Sorted::Mirror(format!("{namespace}/{name}")));
    }
    let key = ObjectKey::new(resource, namespace, name);
    Ok(Sorted::Taken(Object { key, uid: uid.to_owned(), row }))
}

impl Imported {
    fn take(&mut self, kind: &str, object: &Object<'_>) {
        let version = serde_json::from_str::<Value>(&object.row.value).ok();
        let version = version.as_ref().and_then(|json| json.pointer("/metadata/resourceVersion")?.as_str());
        self.writes.push(Write::PutObject {
            key: object.key.clone(),
            uid: object.uid.clone(),
            content_hash: CONTENT.to_owned(),
            resource_version: version.unwrap_or_default().chars().take(64).collect(),
            json: object.row.value.clone().into_bytes(),
        });
        self.count(kind, 1);
    }

    fn count(&mut self, kind: &str, more: usize) {
        *self.taken.entry(kind.to_owned()).or_default() += more;
    }

    fn leave_out(&mut self, what: &str, reason: &str) {
        if self.left_out.len() < NAMED_MAX {
            self.left_out.push(format!("{what}: {reason}"));
        } else {
            self.unnamed += 1;
        }
    }

    /// A mapper that had registered; answers its protocol.
    fn mapper(&mut self, row: &MetaRow) -> Option<String> {
        match edge_devicetwin::import::mapper(&row.value) {
            Ok((_, protocol, write)) => {
                self.writes.push(write);
                self.count(MAPPER, 1);
                Some(protocol)
            }
            Err(reason) => {
                self.leave_out(&format!("{MAPPER} `{}`", shown(&row.key)), &reason);
                None
            }
        }
    }

    fn token(&mut self, row: &MetaRow, pods: &BTreeSet<String>) {
        match edge_edged::import::token(&row.key, &row.value) {
            Ok((uid, write)) if pods.contains(&uid) => {
                self.writes.push(write);
                self.count(TOKEN, 1);
            }
            // Of a pod that is gone.
            Ok(_) => *self.passed_over.entry(TOKEN.to_owned()).or_default() += 1,
            // The key names no secret.
            Err(reason) => self.leave_out(&format!("{TOKEN} `{}`", shown(&row.key)), &reason),
        }
    }

    fn devices(&mut self, found: &KubeEdgeRows, devices: &[Object<'_>], mappers: &BTreeSet<String>) {
        let rows: BTreeMap<&str, &DeviceRow> =
            found.devices.iter().map(|row| (row.id.as_str(), row)).collect();
        let mut twins: BTreeMap<&str, Vec<&TwinRow>> = BTreeMap::new();
        for row in &found.twins {
            twins.entry(row.device.as_str()).or_default().push(row);
        }
        for device in devices {
            let id = format!("{}/{}", device.key.namespace, device.key.name);
            let own = twins.remove(id.as_str()).unwrap_or_default();
            let said = (rows.get(id.as_str()).copied(), own.as_slice());
            match edge_devicetwin::import::device(&device.uid, device.row.value.as_bytes(), said, mappers) {
                Ok(device) => {
                    self.writes.extend(device.writes);
                    self.count("twin", device.twins);
                    for (property, reason) in device.left_out {
                        self.leave_out(&format!("twin `{id}/{}`", shown(&property)), &reason);
                    }
                }
                Err(reason) => self.leave_out(&format!("twins of device `{id}`"), &reason),
            }
        }
        for (id, rows) in twins {
            let what = format!("{} twins of device `{}`", rows.len(), shown(id));
            self.leave_out(&what, "there is no such device among the objects");
        }
    }
}

fn fact(key1: &str, key2: String) -> Write {
    Write::PutRow { table: Table::Facts, key1: key1.to_owned(), key2, value: Vec::new() }
}

/// What a file says, made harmless for a terminal.
fn shown(text: &str) -> String {
    text.chars().take(160).flat_map(char::escape_default).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn meta(key: &str, kind: &str, value: &Value) -> MetaRow {
        MetaRow { key: key.to_owned(), kind: kind.to_owned(), value: value.to_string() }
    }

    fn pod(name: &str, node: &str) -> Value {
        json!({ "metadata": { "namespace": "d", "name": name, "uid": format!("u-{name}"), "resourceVersion": "7" },
            "spec": { "nodeName": node } })
    }

    fn device(name: &str) -> Value {
        json!({ "metadata": { "namespace": "d", "name": name, "uid": "u-d" }, "spec": { "nodeName": "edge-1",
            "properties": [{ "name": "speed" }] } })
    }

    fn objects(imported: &Imported) -> Vec<String> {
        let keys = imported.writes.iter().filter_map(|write| match write {
            Write::PutObject { key, .. } => Some(key.to_string()),
            _ => None,
        });
        keys.collect()
    }

    #[test]
    fn objects_of_this_node_are_taken_and_what_is_not_as_it_should_be_has_its_name_and_reason() {
        let mut mirror = pod("static", "edge-1");
        mirror["metadata"]["annotations"] = json!({ MIRROR: "hash" });
        let no_uid = json!({ "metadata": { "namespace": "d", "name": "x" } });
        let metas = vec![
            meta("d/pod/a", "pod", &pod("a", "edge-1")),
            meta("d/pod/b", "pod", &pod("b", "edge-2")),
            meta("kube-system/pod/static", "pod", &mirror),
            meta("d/configmap/x", "configmap", &no_uid),
            MetaRow {
                value: "{\"metadata\":".to_owned(),
                ..meta("d/secret/\u{1b}[31m", "secret", &Value::Null)
            },
            meta("d/configmap/big", "configmap", &json!("x".repeat(OBJECT_MAX + 1))),
            meta("d/podstatus/a", "podstatus", &json!({})),
            meta("d/podpatch/a", "podpatch", &json!({})),
            meta("null/node/edge-1", "node", &json!({ "metadata": { "name": "edge-1", "uid": "n" } })),
            meta(
                "null/persistentvolume/../x",
                "persistentvolume",
                &json!({ "metadata": { "name": "../x", "uid": "p" } }),
            ),
        ];
        let found = KubeEdgeRows { metas, ..KubeEdgeRows::default() };
        let imported = plan(&found, "edge-1");
        assert_eq!(objects(&imported), ["pods/d/a", "nodes/edge-1"]);
        assert_eq!(imported.taken, BTreeMap::from([("node".to_owned(), 1), ("pod".to_owned(), 1)]));
        assert_eq!(imported.static_pods, ["d/static"]);
        assert_eq!(imported.passed_over.len(), 2);
        let wanted = [
            "pod `d/pod/b`: it is of node `edge-2`",
            "configmap `d/configmap/x`: its value has no uid",
            "secret `d/secret/\\u{1b}[31m`: its value is no JSON",
            "configmap `d/configmap/big`: it has",
            "persistentvolume `null/persistentvolume/../x`: its value has no namespace and name",
        ];
        assert_eq!(imported.left_out.len(), wanted.len(), "{:?}", imported.left_out);
        for (found, wanted) in imported.left_out.iter().zip(wanted) {
            assert!(found.starts_with(wanted), "{found}");
        }
        let adopted = imported.writes.iter().any(|write| {
            matches!(write, Write::PutRow { key1, key2, .. } if key1 == rows::ADOPTED_PODS_FACT && key2 == "u-a")
        });
        assert!(adopted);
    }

    #[test]
    fn twins_and_tokens_come_with_what_they_are_of() {
        let bound = |uid: &str| {
            json!({ "spec": { "boundObjectRef": { "kind": "Pod", "uid": uid } },
                "status": { "token": "t", "expirationTimestamp": "2026-11-30T12:00:00Z" } })
        };
        let key = r#""default"/"d"/[]string(nil)/3607/"#;
        let mapper = json!({ "name": "m", "protocol": "modbus", "address": "L2V0Yy9rdWJlZWRnZS9tLnNvY2s=" });
        let metas = vec![
            meta(key, TOKEN, &bound("u-a")),
            meta(key, TOKEN, &bound("u-gone")),
            meta("d/device/pump", "device", &device("pump")),
            meta("d/pod/a", "pod", &pod("a", "edge-1")),
            meta("node/nodeID/namespace/devicemapper/m", MAPPER, &mapper),
        ];
        let twin = |device: &str| TwinRow {
            device: device.to_owned(),
            property: "speed".to_owned(),
            actual: "5".to_owned(),
            value_type: "int".to_owned(),
            ..TwinRow::default()
        };
        let twins = vec![twin("d/pump"), twin("d/gone")];
        let imported = plan(&KubeEdgeRows { metas, twins, ..KubeEdgeRows::default() }, "edge-1");
        for (kind, count) in [(TOKEN, 1), ("device", 1), ("twin", 1), (MAPPER, 1), ("pod", 1)] {
            assert_eq!(imported.taken.get(kind), Some(&count), "{kind}: {imported:?}");
        }
        assert_eq!(imported.passed_over.get(TOKEN), Some(&1));
        assert_eq!(imported.left_out.len(), 1, "{:?}", imported.left_out);
        assert!(imported.left_out[0].contains("`d/gone`"));
    }

    #[test]
    fn what_is_left_out_fills_no_screen() {
        let metas = (0..200).map(|n| meta(&format!("d/pod/{n}"), "pod", &Value::Null)).collect();
        let imported = plan(&KubeEdgeRows { metas, ..KubeEdgeRows::default() }, "edge-1");
        assert_eq!((imported.left_out.len(), imported.unnamed), (NAMED_MAX, 200 - NAMED_MAX));
    }
}
