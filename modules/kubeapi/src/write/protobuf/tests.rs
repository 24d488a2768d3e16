//! Bodies by hand, all messages, and random bytes.

use prost_reflect::prost_types::field_descriptor_proto::{Label, Type};
use prost_reflect::prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorProto};
use prost_reflect::{DescriptorPool, FieldDescriptor, Kind, MessageDescriptor};
use serde_json::{Value, json};

use super::{DEPTH_MAX, Decoder, VALUES_MAX, decode, delete_options};
use crate::messages::{KINDS, WellKnownType, embedded, of_kind};

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value > 0x7f {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

fn number(field: u32, value: i64) -> Vec<u8> {
    [varint(u64::from(field) << 3), varint(value as u64)].concat()
}

fn part(field: u32, value: impl AsRef<[u8]>) -> Vec<u8> {
    let value = value.as_ref();
    [varint(u64::from(field) << 3 | 2), varint(value.len() as u64), value.to_vec()].concat()
}

fn body(api_version: &str, kind: &str, raw: impl AsRef<[u8]>) -> Vec<u8> {
    let type_meta = part(1, [part(1, api_version), part(2, kind)].concat());
    [b"k8s\0".to_vec(), type_meta, part(2, raw), part(3, ""), part(4, "")].concat()
}

fn refused(bytes: &[u8]) -> (u16, String) {
    let error = decode(bytes).unwrap_err();
    (error.code(), error.message)
}

/// What client-go writes for `kubectl create configmap`: zeros and all.
#[test]
fn a_config_map_as_go_writes_it() {
    let meta =
        [part(1, "cm"), part(2, ""), part(3, "default"), part(4, ""), part(5, ""), part(6, "")].concat();
    let meta = [meta, number(7, 0), part(8, "")].concat();
    let pair = |key: &str, value: &[u8]| [part(1, key), part(2, value)].concat();
    let raw = [part(1, meta), part(2, pair("a", b"1")), part(2, pair("b", b"")), part(3, pair("z", &[0xff]))];
    assert_eq!(
        decode(&body("v1", "ConfigMap", raw.concat())).unwrap(),
        json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "cm", "namespace": "default" },
            "data": { "a": "1", "b": "" }, "binaryData": { "z": "/w==" } }),
    );
}

#[test]
fn a_deployment_with_inner_messages_quantities_and_ports() {
    let http = [part(1, "/"), part(2, [number(1, 1), number(2, 0), part(3, "web")].concat())].concat();
    let probe = [part(1, part(2, http)), number(2, 0), number(3, 5)].concat();
    let port = [part(1, ""), number(2, 0), number(3, 80), part(4, "TCP")].concat();
    let limits = part(1, [part(1, "cpu"), part(2, part(1, "500m"))].concat());
    let container = [part(1, "c"), part(2, "busybox"), part(3, "sh"), part(3, "-c"), part(6, port)].concat();
    let container = [container, part(8, limits), part(10, probe), number(18, 0)].concat();
    let pod = [number(4, 0), number(11, 0), part(2, container)].concat();
    let volume = part(1, [part(1, "v"), part(2, part(2, [part(1, "")].concat()))].concat());
    let template = part(2, [volume, pod].concat());
    let rolling = part(2, [part(1, [number(1, 0), number(2, 1), part(3, "")].concat())].concat());
    let selector = part(1, [part(1, "app"), part(2, "web")].concat());
    let spec = [number(1, 0), part(2, selector), part(3, template), part(4, [part(1, ""), rolling].concat())]
        .concat();
    assert_eq!(
        decode(&body("apps/v1", "Deployment", part(2, spec))).unwrap()["spec"],
        json!({
            "replicas": 0,
            "selector": { "matchLabels": { "app": "web" } },
            "strategy": { "rollingUpdate": { "maxUnavailable": 1 } },
            "template": { "spec": {
                "terminationGracePeriodSeconds": 0,
                "containers": [{
                    "name": "c", "image": "busybox", "command": ["sh", "-c"],
                    "ports": [{ "containerPort": 80, "protocol": "TCP" }],
                    "resources": { "limits": { "cpu": "500m" } },
                    "livenessProbe": { "httpGet": { "path": "/", "port": "web" }, "timeoutSeconds": 5 },
                }],
                "volumes": [{ "name": "v", "emptyDir": {} }],
            } },
        }),
    );
}

#[test]
fn times_are_text() {
    let at = |seconds, nanos| [number(1, seconds), number(2, nanos)].concat();
    let lease = |time: Vec<u8>| decode(&body("coordination.k8s.io/v1", "Lease", part(2, part(4, time))));
    assert_eq!(lease(at(1, 2_000)).unwrap()["spec"], json!({ "renewTime": "1970-01-01T00:00:01.000002Z" }));
    assert_eq!(lease(at(0, 0)).unwrap()["spec"], json!({ "renewTime": "1970-01-01T00:00:00.000000Z" }));
    assert_eq!(lease(Vec::new()).unwrap()["spec"], json!({}));
    assert_eq!(lease(at(super::GO_ZERO, 0)).unwrap()["spec"], json!({}));
    for (seconds, nanos) in
        [(i64::MAX, 0), (i64::MIN, 0), (super::TIME_MAX + 1, 0), (0, -1), (0, 1_000_000_000)]
    {
        assert_eq!(lease(at(seconds, nanos)).unwrap_err().code(), 400);
    }
    let node = |time| body("v1", "Node", part(1, part(9, time)));
    assert_eq!(
        decode(&node(at(-1, 5))).unwrap()["metadata"],
        json!({ "deletionTimestamp": "1969-12-31T23:59:59Z" }),
    );
}

#[test]
fn what_is_there_twice_goes_together() {
    // JSON in bytes is no message: the last one counts.
    let entry = part(17, [part(7, part(1, r#"{"a":1}"#)), part(7, part(1, r#"{"b":2}"#))].concat());
    let map = decode(&body("v1", "ConfigMap", part(1, entry))).unwrap();
    assert_eq!(map["metadata"]["managedFields"][0]["fieldsV1"], json!({ "b": 2 }));
    let first = part(1, [part(1, "a"), part(3, "x")].concat());
    let second = part(1, [part(1, "b"), part(3, "")].concat());
    let map = decode(&body("v1", "ConfigMap", [first, second].concat())).unwrap();
    assert_eq!(map["metadata"], json!({ "name": "b" }));
}

#[test]
fn extra_and_packed_numbers_are_lists() {
    let extra = [part(1, "scopes"), part(2, [part(1, "a"), part(1, "b")].concat())].concat();
    let review = body("authorization.k8s.io/v1", "SubjectAccessReview", part(2, part(5, extra)));
    assert_eq!(decode(&review).unwrap()["spec"], json!({ "extra": { "scopes": ["a", "b"] } }));
    let groups = part(4, [varint(1), varint(u64::MAX)].concat());
    let groups = [groups, number(4, 7)].concat();
    let pod = body("v1", "Pod", part(2, part(14, groups)));
    assert_eq!(decode(&pod).unwrap()["spec"]["securityContext"], json!({ "supplementalGroups": [1, -1, 7] }));
}

#[test]
fn delete_options_go_by_any_version() {
    let raw = [number(1, 0), part(2, part(1, "u")), part(4, "Foreground")].concat();
    let options = delete_options(&body("apps/v1", "DeleteOptions", raw)).unwrap().unwrap();
    assert_eq!(options["gracePeriodSeconds"], 0);
    assert_eq!(options["preconditions"]["uid"], "u");
    assert_eq!(options["propagationPolicy"], "Foreground");
    assert_eq!(delete_options(b"{}"), Ok(None));
    assert_eq!(delete_options(&body("v1", "ConfigMap", "")).unwrap_err().code(), 400);
}

#[test]
fn what_is_not_known_is_named() {
    let (code, message) = refused(&body("v1", "Pod", part(2, number(4096, 1))));
    assert_eq!(code, 400);
    assert_eq!(message, "the protobuf message PodSpec has no field 4096 that is known here");
    let (code, message) = refused(&body("apiextensions.k8s.io/v1", "CustomResourceDefinition", ""));
    assert_eq!(code, 415);
    assert!(message.contains("`CustomResourceDefinition` of `apiextensions.k8s.io/v1`"), "{message}");
    assert_eq!(refused(&body("v2", "Pod", "")).0, 415);
    assert_eq!(refused(b"{}").0, 415);
    assert_eq!(refused(b"k8s\0").0, 415);
    assert_eq!(refused(b"k8s\0\x2a\0").0, 400);
    assert_eq!(refused(&[body("v1", "Pod", ""), part(3, "gzip")].concat()).0, 415);
    assert_eq!(refused(&[body("v1", "Pod", ""), part(4, "application/json")].concat()).0, 415);
}

#[test]
fn what_does_not_fit_its_field_is_named() {
    let spec = |raw: Vec<u8>| refused(&body("apps/v1", "Deployment", part(2, raw)));
    let (code, message) = spec(number(1, 1 << 31));
    assert_eq!(code, 400);
    assert!(
        message.contains("replicas of DeploymentSpec: 2147483648 does not fit into 32 bits"),
        "{message}"
    );
    for wrong in [part(1, "x"), number(2, 1), vec![0x0d, 1, 2, 3, 4], vec![0x08], vec![0x12, 9]] {
        let (code, message) = spec(wrong);
        assert!(code == 400 && message.contains("DeploymentSpec"), "{message}");
    }
    let (code, message) = refused(&body("v1", "ConfigMap", part(1, part(1, [0xff]))));
    assert!(code == 400 && message.contains("name of ObjectMeta: invalid utf-8"), "{message}");
    assert_eq!(refused(&body("v1", "ConfigMap", part(2, part(3, "")))).0, 400);
}

/// A message that is in itself, once and in a list.
fn circular() -> MessageDescriptor {
    let field = |name: &str, number, label: Label| FieldDescriptorProto {
        name: Some(name.to_owned()),
        number: Some(number),
        label: Some(label.into()),
        r#type: Some(Type::Message.into()),
        type_name: Some(".Circular".to_owned()),
        ..FieldDescriptorProto::default()
    };
    let fields = vec![field("again", 1, Label::Optional), field("more", 2, Label::Repeated)];
    let message =
        DescriptorProto { name: Some("Circular".to_owned()), field: fields, ..DescriptorProto::default() };
    let file = FileDescriptorProto {
        name: Some("circular.proto".to_owned()),
        syntax: Some("proto3".to_owned()),
        message_type: vec![message],
        ..FileDescriptorProto::default()
    };
    let mut pool = DescriptorPool::new();
    pool.add_file_descriptor_proto(file).unwrap();
    pool.get_message_by_name("Circular").unwrap()
}

#[test]
fn depth_and_number_of_values_are_bounded() {
    let message = circular();
    let read = |bytes: &[u8]| {
        let mut fields = serde_json::Map::new();
        Decoder { values_left: VALUES_MAX }.message(&message, bytes, 0, &mut fields).map(|()| fields)
    };
    let deep = |levels: usize| (0..levels).fold(Vec::new(), |inner, _| part(1, inner));
    assert!(read(&deep(DEPTH_MAX)).is_ok());
    assert!(read(&deep(DEPTH_MAX + 1)).unwrap_err().message.contains("64 messages in one another"));
    assert!(read(&part(2, "").repeat(VALUES_MAX)).is_ok());
    assert!(read(&part(2, "").repeat(VALUES_MAX + 1)).unwrap_err().message.contains("262144 values"));
}

#[test]
fn json_in_a_body_counts_like_the_rest_of_it() {
    let with = |entries: usize| {
        let json = format!("[{}0]", "0,".repeat(VALUES_MAX / 4));
        let entry = part(17, part(7, part(1, json)));
        decode(&body("v1", "ConfigMap", part(1, entry.repeat(entries))))
    };
    assert_eq!(
        with(1).unwrap()["metadata"]["managedFields"][0]["fieldsV1"].as_array().map(Vec::len),
        Some(VALUES_MAX / 4 + 1)
    );
    assert!(with(4).unwrap_err().message.contains("262144 values"));
}

fn kinds() -> Vec<(&'static str, &'static str, MessageDescriptor)> {
    let all = KINDS.iter().flat_map(|(version, _, kinds)| kinds.iter().map(move |kind| (*version, *kind)));
    all.map(|(version, kind)| (version, kind, of_kind(version, kind).unwrap())).collect()
}

/// Every message that can be reached.
fn all_messages() -> Vec<MessageDescriptor> {
    let mut found: Vec<MessageDescriptor> = kinds().into_iter().map(|kind| kind.2).collect();
    found.extend(of_kind("v1", "DeleteOptions"));
    let mut at = 0;
    while let Some(message) = found.get(at).cloned() {
        for field in message.fields() {
            if let Kind::Message(inner) = field.kind()
                && !found.contains(&inner)
            {
                found.push(inner);
            }
        }
        at += 1;
    }
    found
}

#[test]
fn every_field_has_a_type_that_is_read_and_a_name_of_its_own_in_json() {
    let messages = all_messages();
    assert!(messages.len() > 200, "{}", messages.len());
    for message in messages {
        let mut names: Vec<String> = Vec::new();
        for field in message.fields() {
            let plain = [Kind::String, Kind::Bool, Kind::Int32, Kind::Int64, Kind::Bytes];
            let is_read = matches!(field.kind(), Kind::Message(_)) || plain.contains(&field.kind());
            assert!(is_read, "{}", field.full_name());
            match embedded(&field) {
                Some(inner) => {
                    assert!(!field.is_list() && !field.is_map(), "{}", field.full_name());
                    assert!(inner.fields().all(|field| embedded(&field).is_none()), "{}", field.full_name());
                    names.extend(inner.fields().map(|field| field.name().to_owned()));
                }
                None => names.push(field.name().to_owned()),
            }
        }
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count, "{}", message.full_name());
    }
}

/// Every built-in kind is read except definitions, which take JSON alone: clients of Go send them so.
#[test]
fn every_built_in_kind_has_a_message() {
    for kind in crate::kind::built_in() {
        let known = of_kind(&kind.api_version(), &kind.kind).is_some();
        assert_eq!(known, &*kind.kind != "CustomResourceDefinition", "{kind:?}");
    }
}

/// A body with every field of its kind, as the JSON of it is to be.
fn sample(message: &MessageDescriptor, depth: usize) -> (Vec<u8>, Value) {
    let (mut bytes, mut object) = (Vec::new(), json!({}));
    for field in message.fields().filter(|_| depth < 24) {
        let (payload, value) = if field.is_map() {
            let Kind::Message(entry) = field.kind() else { panic!("{}", field.full_name()) };
            let (payload, value) = sample_of(&entry.map_entry_value_field(), depth);
            (part(field.number(), [part(1, "k"), payload].concat()), json!({ "k": value }))
        } else {
            sample_of(&field, depth)
        };
        bytes.extend(payload);
        if embedded(&field).is_some() {
            let Value::Object(fields) = value else { panic!("{}", field.full_name()) };
            for (name, value) in fields {
                object[name.as_str()] = value;
            }
        } else if field.is_list() {
            object[field.name()] = json!([value]);
        } else {
            object[field.name()] = value;
        }
    }
    (bytes, object)
}

fn sample_of(field: &FieldDescriptor, depth: usize) -> (Vec<u8>, Value) {
    let of = field.number();
    match field.kind() {
        Kind::String => (part(of, "x"), json!("x")),
        Kind::Bool => (number(of, 1), json!(true)),
        Kind::Int32 | Kind::Int64 => (number(of, -7), json!(-7)),
        Kind::Bytes => (part(of, "abc"), json!("YWJj")),
        Kind::Message(inner) => match WellKnownType::of(&inner) {
            None => {
                let (bytes, value) = sample(&inner, depth + 1);
                (part(of, bytes), value)
            }
            Some(WellKnownType::Quantity) => (part(of, part(1, "1Gi")), json!("1Gi")),
            Some(WellKnownType::IntOrString) => (part(of, number(2, 8)), json!(8)),
            Some(WellKnownType::Time) => (part(of, number(1, 5)), json!("1970-01-01T00:00:05Z")),
            Some(WellKnownType::MicroTime) => (part(of, number(1, 5)), json!("1970-01-01T00:00:05.000000Z")),
            Some(WellKnownType::FieldsV1) => (part(of, part(1, r#"{"f":{}}"#)), json!({ "f": {} })),
            Some(WellKnownType::ExtraValue) => (part(of, part(1, "w")), json!(["w"])),
        },
        other => panic!("{}: {other:?}", field.full_name()),
    }
}

/// Fields that are older or newer than the typed kinds of v1.33: they are read, and then named as unknown.
const OTHER_VERSIONS: &[&str] = &[
    "allocatedResources",
    "clusterName",
    "declaredFeatures",
    "extendedResourceClaimStatus",
    "fileKeyRef",
    "hostnameOverride",
    "message",
    "nodeAllocatableResourceClaimStatuses",
    "podCertificate",
    "preventPodSchedulingIfMissing",
    "resources",
    "restartPolicyRules",
    "schedulingGroup",
    "serviceAccountTokenInSecrets",
    "volumeStatus",
];

/// The messages against the typed kinds: names and types of every field have to be those that the kind is read with.
#[test]
fn every_field_is_read_and_known_to_the_typed_kind() {
    let mut lost = std::collections::BTreeSet::new();
    for kind in crate::kind::built_in() {
        let Some(message) = of_kind(&kind.api_version(), &kind.kind) else { continue };
        let (raw, mut expected) = sample(&message, 0);
        expected["apiVersion"] = json!(kind.api_version());
        expected["kind"] = json!(&*kind.kind);
        let read = decode(&body(&kind.api_version(), &kind.kind, raw)).unwrap();
        assert_eq!(read, expected, "{kind:?}");
        let decode_as = super::super::typed::built_in(&kind.group_resource()).unwrap();
        let understood = decode_as(&read).unwrap_or_else(|what| panic!("{kind:?}: {what}"));
        let mut pruned = read.clone();
        let unknown = super::super::prune::prune(&mut pruned, &understood);
        lost.extend(unknown.iter().filter_map(|path| path.rsplit('.').next()).map(str::to_owned));
    }
    assert_eq!(lost.iter().map(String::as_str).collect::<Vec<_>>(), OTHER_VERSIONS);
}

/// xorshift64*: the same bytes each time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }
}

/// Whatever the bytes are: an answer, no panic, and none that is much larger than the question.
#[test]
fn hostile_bytes_are_refused_or_stay_small() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let (kinds, mut read) = (kinds(), 0);
    let mut seen = |bytes: &[u8]| {
        if let Ok(object) = decode(bytes) {
            read += 1;
            let written = object.to_string().len();
            assert!(written <= 64 * bytes.len() + 256, "{} became {written}", bytes.len());
        }
        let _ = delete_options(bytes);
    };
    for round in 0..40_000 {
        let (api_version, kind, message) = &kinds[random.below(kinds.len())];
        let noise: Vec<u8> = (0..random.below(200)).map(|_| random.next() as u8).collect();
        match round % 4 {
            0 => seen(&[b"k8s\0".to_vec(), noise].concat()),
            1 => seen(&body(api_version, kind, noise)),
            2 => {
                // Keys that the kind has, and noise behind them.
                let field = message.fields().nth(random.below(message.fields().len())).unwrap();
                seen(&body(api_version, kind, part(field.number(), noise)));
            }
            _ => {
                let (mut raw, _) = sample(message, 22 + random.below(2));
                for _ in 0..random.below(4) {
                    let at = random.below(raw.len());
                    if let Some(byte) = raw.get_mut(at) {
                        *byte ^= 1 << random.below(8);
                    }
                }
                raw.truncate(raw.len() - random.below(3).min(raw.len()));
                seen(&body(api_version, kind, raw));
            }
        }
    }
    assert!(read > 1_000, "only {read} were read");
}
