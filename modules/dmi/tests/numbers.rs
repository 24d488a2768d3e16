//! The numbers of the fields, as KubeEdge's mappers have them: a byte for every message that travels.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;

use dmi::Scalar;
use dmi::v1beta1::*;
use prost::Message;

/// Which fields a message has on the wire, outermost only: number and wire type.
fn fields(message: &impl Message) -> Vec<(u32, u8)> {
    let bytes = message.encode_to_vec();
    let mut rest = bytes.as_slice();
    let mut found = Vec::new();
    while !rest.is_empty() {
        let tag = prost::encoding::decode_varint(&mut rest).unwrap();
        let kind = u8::try_from(tag & 7).unwrap();
        found.push((u32::try_from(tag >> 3).unwrap(), kind));
        match kind {
            0 => drop(prost::encoding::decode_varint(&mut rest).unwrap()),
            2 => {
                let length = usize::try_from(prost::encoding::decode_varint(&mut rest).unwrap()).unwrap();
                rest = &rest[length..];
            }
            other => panic!("wire type {other}"),
        }
    }
    found
}

/// Wire types: numbers and booleans, and everything else here.
const NUMBER: u8 = 0;
const BYTES: u8 = 2;

fn text() -> String {
    "x".to_owned()
}

fn texts() -> BTreeMap<String, String> {
    BTreeMap::from([(text(), text())])
}

#[test]
fn registration() {
    let mapper = MapperInfo {
        name: text(),
        version: text(),
        api_version: text(),
        protocol: text(),
        address: b"x".to_vec(),
        state: text(),
    };
    assert_eq!(fields(&mapper), (1..=6).map(|number| (number, BYTES)).collect::<Vec<_>>());
    let request = MapperRegisterRequest { with_data: true, mapper: Some(mapper) };
    assert_eq!(fields(&request), [(1, NUMBER), (2, BYTES)]);
    let answer = MapperRegisterResponse {
        model_list: vec![DeviceModel::default()],
        device_list: vec![Device::default()],
    };
    assert_eq!(fields(&answer), [(1, BYTES), (2, BYTES)]);
}

#[test]
fn devices() {
    let device = Device {
        name: text(),
        spec: Some(DeviceSpec::default()),
        status: Some(DeviceStatus::default()),
        namespace: text(),
    };
    assert_eq!(fields(&device), [(1, BYTES), (2, BYTES), (3, BYTES), (4, BYTES)]);
    let spec = DeviceSpec {
        device_model_reference: text(),
        protocol: Some(ProtocolConfig::default()),
        properties: vec![DeviceProperty::default()],
        methods: vec![DeviceMethod::default()],
    };
    assert_eq!(fields(&spec), [(1, BYTES), (2, BYTES), (3, BYTES), (4, BYTES)]);
    let property = DeviceProperty {
        name: text(),
        desired: Some(TwinProperty::default()),
        visitors: Some(VisitorConfig::default()),
        report_cycle: 1,
        collect_cycle: 1,
        report_to_cloud: true,
        push_method: Some(PushMethod::default()),
    };
    let expected = [(1, BYTES), (2, BYTES), (3, BYTES), (4, NUMBER), (5, NUMBER), (6, NUMBER), (7, BYTES)];
    assert_eq!(fields(&property), expected);
    // The two cycles are of one kind, so that only the bytes tell them apart.
    let cycles = DeviceProperty { report_cycle: 2, collect_cycle: 3, ..Default::default() };
    assert_eq!(cycles.encode_to_vec(), [0x20, 2, 0x28, 3]);
    let data = BTreeMap::from([(text(), Scalar::Bool(true).to_any())]);
    let config = CustomizedValue { data };
    assert_eq!(fields(&config), [(1, BYTES)]);
    let visitors = VisitorConfig { protocol_name: text(), config_data: Some(config) };
    assert_eq!(fields(&visitors), [(1, BYTES), (2, BYTES)]);
}

#[test]
fn models() {
    let model = DeviceModel { name: text(), spec: Some(DeviceModelSpec::default()), namespace: text() };
    assert_eq!(fields(&model), [(1, BYTES), (2, BYTES), (3, BYTES)]);
    let named = |place: usize| if place == 0 { text() } else { String::new() };
    // Each field by itself: all are text, and only its number tells one from another.
    for number in 1u8..=7 {
        let at = |field: u8| named(usize::from(field.abs_diff(number)));
        let property = ModelProperty {
            name: at(1),
            description: at(2),
            r#type: at(3),
            access_mode: at(4),
            minimum: at(5),
            maximum: at(6),
            unit: at(7),
        };
        assert_eq!(fields(&property), [(u32::from(number), BYTES)]);
    }
}

#[test]
fn reports() {
    let status = DeviceStatus { twins: vec![Twin::default()], report_to_cloud: true, report_cycle: 1 };
    assert_eq!(fields(&status), [(1, BYTES), (2, NUMBER), (3, NUMBER)]);
    let request = ReportDeviceStatusRequest {
        device_name: "n".to_owned(),
        reported_device: Some(DeviceStatus::default()),
        device_namespace: "s".to_owned(),
    };
    assert_eq!(request.encode_to_vec(), [0x0a, 1, b'n', 0x12, 0, 0x1a, 1, b's']);
    let request = ReportDeviceStatesRequest {
        device_name: "n".to_owned(),
        device_namespace: "s".to_owned(),
        state: "t".to_owned(),
    };
    assert_eq!(request.encode_to_vec(), [0x0a, 1, b'n', 0x12, 1, b's', 0x1a, 1, b't']);
    let side = |value: &str| Some(TwinProperty { value: value.to_owned(), metadata: BTreeMap::new() });
    let twin = Twin { property_name: "p".to_owned(), observed_desired: side("o"), reported: side("r") };
    assert_eq!(twin.encode_to_vec(), [0x0a, 1, b'p', 0x12, 3, 0x0a, 1, b'o', 0x1a, 3, 0x0a, 1, b'r']);
    assert_eq!(fields(&TwinProperty { value: text(), metadata: texts() }), [(1, BYTES), (2, BYTES)]);
}

#[test]
fn services_have_kubeedges_names() {
    use device_manager_service_server::SERVICE_NAME as MANAGER;
    use device_mapper_service_server::SERVICE_NAME as MAPPER;
    assert_eq!((MANAGER, MAPPER), ("v1beta1.DeviceManagerService", "v1beta1.DeviceMapperService"));
}
