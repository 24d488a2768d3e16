//! From the cloud's objects to the messages that mappers know. Pure.
//!
//! A device is sent with its model laid under it: keys of its own win. Parts that the SDKs take for granted are never
//! left out (protocol, desired, visitors and their settings), because a mapper that misses one ends. So do KubeEdge's at a property
//! that the model does not have, wherever it is named, and at a cycle that is none, and they check nothing of a desired value but
//! ReadOnly: none of that goes to them.

use std::collections::BTreeMap;

use contract::ids::{DeviceName, PropertyName};
use crd::{AnyMap, DesiredValue, Device, DeviceModel, DeviceProperty, PropertyType, VisitorConfig};
use dmi::Scalar;
use dmi::v1beta1 as pb;
use serde_json::Value;

use crate::plan;

/// 2^63: a number from here on is a whole one that an API server has rounded: nobody knows any more what it was.
const WHOLE_MAX: f64 = 9_223_372_036_854_775_808.0;

/// The protocol of a device: its own, else its model's.
pub(crate) fn protocol<'a>(device: &'a Device, model: Option<&'a DeviceModel>) -> &'a str {
    match device.protocol_name() {
        "" => model.and_then(|model| model.spec.protocol.as_deref()).unwrap_or_default(),
        name => name,
    }
}

/// What applications on the node want of a device's properties, in place of what the cloud wants.
pub(crate) type EdgeDesired = BTreeMap<String, String>;

/// What is wanted of a device beside what its object says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'a> {
    /// By applications on the node.
    pub(crate) by_edge: &'a EdgeDesired,
    /// By the cloud, the last time that the model allowed it.
    pub(crate) taken_over: &'a EdgeDesired,
}

/// A device as its mapper gets it, which reads DoubleValue or does not (`doubles`).
pub(crate) fn device(
    id: &DeviceName,
    device: &Device,
    model: Option<&DeviceModel>,
    wanted: Wanted<'_>,
    doubles: bool,
) -> pb::Device {
    let own = device.spec.protocol.as_ref().map(|protocol| &protocol.config_data);
    let base = model.map(|model| &model.spec.protocol_config_data);
    let report = device.state_report();
    pb::Device {
        name: id.name.clone(),
        namespace: id.namespace.clone(),
        spec: Some(pb::DeviceSpec {
            device_model_reference: device.model_name().to_owned(),
            protocol: Some(pb::ProtocolConfig {
                protocol_name: protocol(device, model).to_owned(),
                config_data: Some(settings(base, own, doubles)),
            }),
            properties: device
                .spec
                .properties
                .iter()
                .filter(|p| is_sent(&p.name, model))
                .map(|p| property(p, device, model, wanted, doubles))
                .collect(),
            methods: methods(device, model),
        }),
        status: Some(pb::DeviceStatus {
            twins: Vec::new(),
            report_to_cloud: report.report_to_cloud.unwrap_or_default(),
            report_cycle: crd::cycle(report.report_cycle),
        }),
    }
}

/// Whether a mapper may hear of a property: it has a name, without which nobody takes its reports, and the device's model has it, or
/// there is none.
fn is_sent(property: &str, model: Option<&DeviceModel>) -> bool {
    PropertyName::parse(property).is_ok()
        && model.is_none_or(|model| model.spec.properties.iter().any(|modelled| modelled.name == property))
}

/// The methods, of the properties that are sent. One that has nothing left of what it named is none.
fn methods(device: &Device, model: Option<&DeviceModel>) -> Vec<pb::DeviceMethod> {
    let own = |name: &str| device.spec.properties.iter().any(|property| property.name == name);
    let methods = device.spec.methods.iter().filter_map(|method| {
        let names = method.property_names.iter().filter(|name| own(name) && is_sent(name, model));
        let property_names: Vec<String> = names.cloned().collect();
        let has_lost_all = property_names.is_empty() && !method.property_names.is_empty();
        (!has_lost_all).then(|| pb::DeviceMethod {
            name: method.name.clone(),
            description: method.description.clone().unwrap_or_default(),
            property_names,
        })
    });
    methods.collect()
}

/// A model as a mapper gets it.
pub(crate) fn model(id: &DeviceName, model: &DeviceModel) -> pb::DeviceModel {
    let properties = model.spec.properties.iter().map(|property| pb::ModelProperty {
        name: property.name.clone(),
        description: property.description.clone().unwrap_or_default(),
        r#type: property.value_type.map(|t| t.as_str()).unwrap_or_default().to_owned(),
        access_mode: property.access_mode.map(|mode| mode.as_str()).unwrap_or_default().to_owned(),
        minimum: property.minimum.clone().unwrap_or_default(),
        maximum: property.maximum.clone().unwrap_or_default(),
        unit: property.unit.clone().unwrap_or_default(),
    });
    pb::DeviceModel {
        name: id.name.clone(),
        namespace: id.namespace.clone(),
        spec: Some(pb::DeviceModelSpec { properties: properties.collect(), commands: Vec::new() }),
    }
}

fn property(
    property: &DeviceProperty,
    device: &Device,
    model: Option<&DeviceModel>,
    wanted: Wanted<'_>,
    doubles: bool,
) -> pb::DeviceProperty {
    let own = property.visitors.as_ref();
    let modelled = model.and_then(|model| model.spec.properties.iter().find(|p| p.name == property.name));
    let base = modelled.and_then(|p| p.visitors.as_ref());
    let named = |visitors: Option<&VisitorConfig>| visitors.and_then(|v| v.protocol_name.clone());
    let desired = match wanted.by_edge.get(&property.name) {
        Some(value) => DesiredValue { value: value.clone(), metadata: BTreeMap::new() },
        None => property.desired.clone().unwrap_or_default(),
    };
    // What the model does not allow is nobody's to try.
    // Who reads doubles is a mapper of ours, and reads all of 64 bits.
    let is_int = modelled.is_some_and(|p| p.value_type == Some(PropertyType::Int));
    let is_readable = |value: &str| doubles || !is_int || !plan::is_unsigned(value);
    let is_allowed = |value: &str| plan::check_desired(&property.name, value, model).is_ok();
    let desired = if is_allowed(&desired.value) {
        desired
    } else {
        // The last one that was allowed, if it is still: a mapper of KubeEdge's writes into the device what it is told, and be it that
        // nothing is wanted.
        let last = wanted.taken_over.get(&property.name).filter(|value| is_allowed(value));
        DesiredValue { value: last.cloned().unwrap_or_default(), metadata: BTreeMap::new() }
    };
    let desired = if is_readable(&desired.value) { desired } else { DesiredValue::default() };
    pb::DeviceProperty {
        name: property.name.clone(),
        desired: Some(pb::TwinProperty { value: desired.value, metadata: desired.metadata }),
        visitors: Some(pb::VisitorConfig {
            protocol_name: named(own)
                .or_else(|| named(base))
                .unwrap_or_else(|| protocol(device, model).to_owned()),
            config_data: Some(settings(base.map(|v| &v.config_data), own.map(|v| &v.config_data), doubles)),
        }),
        report_cycle: crd::cycle(property.report_cycle),
        collect_cycle: crd::cycle(property.collect_cycle),
        report_to_cloud: property.report_to_cloud.unwrap_or_default(),
        push_method: property.push_method.as_ref().map(push_method),
    }
}

/// Settings with those of the model under those of the device, per key.
fn settings(base: Option<&AnyMap>, own: Option<&AnyMap>, doubles: bool) -> pb::CustomizedValue {
    let both = base.into_iter().chain(own).flatten();
    let merged: BTreeMap<&String, &Value> = both.collect();
    pb::CustomizedValue { data: any_map(merged, doubles) }
}

fn any_map<'a>(
    values: impl IntoIterator<Item = (&'a String, &'a Value)>,
    doubles: bool,
) -> BTreeMap<String, prost_types::Any> {
    let any = |scalar: Scalar| if doubles { scalar.to_exact_any() } else { scalar.to_any() };
    values.into_iter().filter_map(|(key, value)| Some((key.clone(), any(scalar(value)?)))).collect()
}

/// Mappers know texts, truths and numbers; of whole ones those of 64 bits with a sign. A larger one goes to them as its digits, and
/// anything deeper as the text of its JSON; null is nothing, and neither is a number that has lost its digits on the way here.
fn scalar(value: &Value) -> Option<Scalar> {
    match value {
        Value::Null => None,
        Value::Bool(yes) => Some(Scalar::Bool(*yes)),
        Value::Number(number) => match number.as_i64() {
            Some(whole) => Some(Scalar::Int(whole)),
            None if number.is_u64() => Some(Scalar::Text(number.to_string())),
            None => number.as_f64().filter(|number| number.abs() < WHOLE_MAX).map(Scalar::Float),
        },
        Value::String(text) => Some(Scalar::Text(text.clone())),
        Value::Array(_) | Value::Object(_) => Some(Scalar::Text(value.to_string())),
    }
}

fn push_method(method: &crd::PushMethod) -> pb::PushMethod {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    pb::PushMethod {
        http: method.http.as_ref().map(|http| pb::PushMethodHttp {
            hostname: text(&http.host_name),
            port: http.port.unwrap_or_default(),
            requestpath: text(&http.request_path),
            timeout: http.timeout.unwrap_or_default(),
        }),
        mqtt: method.mqtt.as_ref().map(|mqtt| pb::PushMethodMqtt {
            address: text(&mqtt.address),
            topic: text(&mqtt.topic),
            qos: mqtt.qos.unwrap_or_default(),
            retained: mqtt.retained.unwrap_or_default(),
        }),
        db_method: method.db_method.as_ref().map(db_method),
        otel: method.otel.as_ref().map(|otel| pb::PushMethodOtel { endpoint_url: text(&otel.endpoint_url) }),
        anomaly_detection: (!method.anomaly_detection.is_empty())
            .then(|| pb::AnomalyDetection { data: any_map(&method.anomaly_detection, false) }),
    }
}

fn db_method(db: &crd::DbMethod) -> pb::DbMethod {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    pb::DbMethod {
        influxdb2: db.influxdb2.as_ref().map(|influx| pb::DbMethodInfluxdb2 {
            influxdb2_client_config: influx.client.as_ref().map(|client| pb::Influxdb2ClientConfig {
                url: text(&client.url),
                org: text(&client.org),
                bucket: text(&client.bucket),
            }),
            influxdb2_data_config: influx.data.as_ref().map(|data| pb::Influxdb2DataConfig {
                measurement: text(&data.measurement),
                tag: data.tag.clone(),
                field_key: text(&data.field_key),
            }),
        }),
        redis: db.redis.as_ref().map(|redis| pb::DbMethodRedis {
            redis_client_config: redis.client.as_ref().map(|client| pb::RedisClientConfig {
                addr: text(&client.addr),
                db: client.db.unwrap_or_default(),
                poolsize: client.poolsize.unwrap_or_default(),
                min_idle_conns: client.min_idle_conns.unwrap_or_default(),
            }),
        }),
        tdengine: db.td_engine.as_ref().map(|engine| pb::DbMethodTdEngine {
            td_engine_client_config: engine.client.as_ref().map(|client| pb::TdEngineClientConfig {
                addr: text(&client.addr),
                dbname: text(&client.db_name),
            }),
        }),
        mysql: db.mysql.as_ref().map(|mysql| pb::DbMethodMySql {
            mysql_client_config: mysql.client.as_ref().map(|client| pb::MySqlClientConfig {
                addr: text(&client.addr),
                database: text(&client.database),
                user_name: text(&client.user_name),
            }),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static NOTHING: EdgeDesired = EdgeDesired::new();

    fn wanted_by_edge(by_edge: &EdgeDesired) -> Wanted<'_> {
        Wanted { by_edge, taken_over: &NOTHING }
    }
    use serde_json::json;

    fn id(name: &str) -> DeviceName {
        DeviceName::parse("d", name).unwrap()
    }

    fn parts() -> (Device, DeviceModel) {
        let device = json!({
            "metadata": { "name": "pump", "namespace": "d" },
            "spec": {
                "deviceModelRef": { "name": "pumps" }, "nodeName": "n",
                "properties": [
                    { "name": "speed", "desired": { "value": "7" }, "collectCycle": 500, "reportToCloud": true,
                      "visitors": { "protocolName": "modbus", "configData": { "offset": 3 } },
                      "pushMethod": { "http": { "hostName": "h", "port": 80, "requestPath": "/x" },
                        "dbMethod": { "TDEngine": { "TDEngineClientConfig": { "dbName": "t" } } } } },
                    { "name": "heat" }
                ],
                "protocol": { "protocolName": "modbus", "configData": { "ip": "10.0.0.1", "port": 502, "deep": { "a": 1 }, "none": null } }
            }
        });
        let model = json!({
            "metadata": { "name": "pumps", "namespace": "d" },
            "spec": {
                "properties": [{ "name": "speed", "type": "INT", "accessMode": "ReadWrite", "unit": "rpm",
                    "visitors": { "protocolName": "modbus", "configData": { "register": "HoldingRegister", "offset": 1 } } },
                    { "name": "heat" }],
                "protocol": "modbus", "protocolConfigData": { "port": 1502, "slaveID": 4 }
            }
        });
        (serde_json::from_value(device).unwrap(), serde_json::from_value(model).unwrap())
    }

    fn read(settings: Option<&pb::CustomizedValue>) -> BTreeMap<String, Scalar> {
        let data = &settings.unwrap().data;
        data.iter().map(|(key, any)| (key.clone(), Scalar::from_any(any).unwrap())).collect()
    }

    #[test]
    fn the_device_wins_over_its_model_key_by_key() {
        let (device, model) = parts();
        let spec =
            super::device(&id("pump"), &device, Some(&model), wanted_by_edge(&NOTHING), false).spec.unwrap();
        let protocol = spec.protocol.unwrap();
        assert_eq!(
            read(protocol.config_data.as_ref()),
            BTreeMap::from([
                ("deep".to_owned(), Scalar::Text("{\"a\":1}".to_owned())),
                ("ip".to_owned(), Scalar::Text("10.0.0.1".to_owned())),
                ("port".to_owned(), Scalar::Int(502)),
                ("slaveID".to_owned(), Scalar::Int(4)),
            ])
        );
        let visitors = spec.properties[0].visitors.as_ref().unwrap();
        assert_eq!(
            read(visitors.config_data.as_ref()),
            BTreeMap::from([
                ("offset".to_owned(), Scalar::Int(3)),
                ("register".to_owned(), Scalar::Text("HoldingRegister".to_owned())),
            ])
        );
        let push = spec.properties[0].push_method.as_ref().unwrap();
        assert_eq!(push.http.as_ref().unwrap().hostname, "h");
        let engine = push.db_method.as_ref().unwrap().tdengine.as_ref().unwrap();
        assert_eq!(engine.td_engine_client_config.as_ref().unwrap().dbname, "t");
    }

    #[test]
    fn nothing_that_a_mapper_takes_for_granted_is_missing() {
        let bare: Device = serde_json::from_value(json!({
            "metadata": { "name": "pump" }, "spec": { "properties": [{ "name": "heat" }] }
        }))
        .unwrap();
        let sent = super::device(&id("pump"), &bare, None, wanted_by_edge(&NOTHING), false);
        assert!(sent.status.is_some());
        let spec = sent.spec.unwrap();
        assert!(spec.protocol.unwrap().config_data.is_some());
        let heat = &spec.properties[0];
        assert!(heat.desired.is_some() && heat.visitors.as_ref().unwrap().config_data.is_some());
    }

    #[test]
    fn a_state_is_reported_as_the_spec_says_and_else_as_the_status_said_before() {
        let sent = |spec: Value, status: Value| {
            let device = json!({ "metadata": { "name": "pump" }, "spec": spec, "status": status });
            let device: Device = serde_json::from_value(device).unwrap();
            let status =
                super::device(&id("pump"), &device, None, wanted_by_edge(&NOTHING), false).status.unwrap();
            (status.report_to_cloud, status.report_cycle)
        };
        let before = json!({ "reportToCloud": true, "reportCycle": 250 });
        assert_eq!(sent(json!({}), before.clone()), (true, 250));
        assert_eq!(sent(json!({ "stateReport": { "reportCycle": 500 } }), before), (false, 500));
        assert_eq!(sent(json!({}), json!({})), (false, 0));
        for cycle in [-5, i64::MIN, i64::MAX, i64::MAX / 1_000_000 + 1] {
            let sent = sent(json!({ "stateReport": { "reportCycle": cycle } }), json!({}));
            assert_eq!(sent, (false, 0), "KubeEdge's mappers end at {cycle}");
        }
    }

    #[test]
    fn a_mapper_hears_of_no_cycle_that_is_none_and_of_no_property_whose_reports_nobody_takes() {
        let property =
            |name: &str, cycle: i64| json!({ "name": name, "collectCycle": cycle, "reportCycle": cycle });
        let properties = [
            property("heat", -1),
            property("level", i64::MAX),
            property("fine", 250),
            property("a b", 1),
            property("温度", 1),
        ];
        let methods = json!([{ "name": "Set", "propertyNames": ["heat", "a b"] }]);
        let device: Device = serde_json::from_value(
            json!({ "metadata": { "name": "pump" }, "spec": { "properties": properties, "methods": methods } }),
        )
        .unwrap();
        let spec = super::device(&id("pump"), &device, None, wanted_by_edge(&NOTHING), false).spec.unwrap();
        let sent: Vec<_> =
            spec.properties.iter().map(|p| (p.name.as_str(), p.collect_cycle, p.report_cycle)).collect();
        assert_eq!(sent, [("heat", 0, 0), ("level", 0, 0), ("fine", 250, 250)]);
        assert_eq!(spec.methods[0].property_names, ["heat"]);
    }

    /// The case of a camera's settings, numbers as people write them.
    #[test]
    fn whole_numbers_arrive_digit_by_digit() {
        let settings = json!({ "format": 0x5659_5559, "big": 9_007_199_254_740_993_i64, "huge": u64::MAX, "low": i64::MIN,
            "scale": 0.1, "nothing": null, "rounded": 1.8446744073709552e19, "below": -1e30, "deep": { "list": [1, u64::MAX] } });
        let settings: AnyMap = serde_json::from_value(settings).unwrap();
        let sent = read(Some(&super::settings(None, Some(&settings), false)));
        let text = |text: &str| Scalar::Text(text.to_owned());
        let expected = BTreeMap::from([
            ("format".to_owned(), Scalar::Int(1_448_695_129)),
            ("big".to_owned(), Scalar::Int(9_007_199_254_740_993)),
            ("huge".to_owned(), text("18446744073709551615")),
            ("low".to_owned(), Scalar::Int(i64::MIN)),
            ("scale".to_owned(), Scalar::Float(0.1)),
            ("deep".to_owned(), text("{\"list\":[1,18446744073709551615]}")),
        ]);
        assert_eq!(sent, expected);
    }

    #[test]
    fn a_mapper_that_reads_doubles_gets_all_digits_of_them() {
        let settings: AnyMap =
            serde_json::from_value(json!({ "latitude": 48.137_154_321, "half": 0.5 })).unwrap();
        let sent = |doubles| read(Some(&super::settings(None, Some(&settings), doubles)));
        let of = |latitude| {
            BTreeMap::from([
                ("latitude".to_owned(), Scalar::Float(latitude)),
                ("half".to_owned(), Scalar::Float(0.5)),
            ])
        };
        assert_eq!(sent(true), of(48.137_154_321));
        assert_eq!(sent(false), of(48.137_154), "as KubeEdge sends it, 32 bits of it");
    }

    #[test]
    fn what_an_application_wants_stands_in_the_place_of_the_clouds_word() {
        let (device, model) = parts();
        let edge_desired =
            EdgeDesired::from([("speed".to_owned(), "9".to_owned()), ("heat".to_owned(), "1".to_owned())]);
        let spec = super::device(&id("pump"), &device, Some(&model), wanted_by_edge(&edge_desired), false)
            .spec
            .unwrap();
        let desired = |at: usize| spec.properties[at].desired.as_ref().unwrap().value.as_str();
        assert_eq!((desired(0), desired(1)), ("9", "1"));
    }

    #[test]
    fn a_desired_value_that_the_model_does_not_allow_is_not_sent_whoever_wants_it() {
        let model: DeviceModel =
            serde_json::from_value(json!({ "metadata": { "name": "m" }, "spec": { "properties": [
            { "name": "valve", "type": "INT", "accessMode": "ReadWrite", "minimum": "1", "maximum": "100" },
            { "name": "relay", "type": "BOOLEAN", "accessMode": "ReadWrite" },
            { "name": "heat", "type": "FLOAT", "accessMode": "ReadOnly" },
            { "name": "note", "type": "STRING", "accessMode": "ReadWrite" } ] } }))
            .unwrap();
        let sent = |property: &str, by_cloud: &str, by_edge: Option<&str>| {
            let spec = json!({ "properties": [{ "name": property, "desired": { "value": by_cloud, "metadata": { "a": "b" } } }] });
            let device: Device =
                serde_json::from_value(json!({ "metadata": { "name": "pump" }, "spec": spec })).unwrap();
            let wanted = by_edge.map(|value| (property.to_owned(), value.to_owned())).into_iter().collect();
            let spec = super::device(&id("pump"), &device, Some(&model), wanted_by_edge(&wanted), false)
                .spec
                .unwrap();
            spec.properties[0].desired.clone().unwrap()
        };
        for (property, value) in
            [("valve", "500"), ("valve", "0"), ("valve", "2.5"), ("relay", "maybe"), ("heat", "1")]
        {
            assert_eq!(sent(property, value, None), pb::TwinProperty::default(), "{property}={value}");
        }
        // A mapper that was given one before is given it still, and not that nothing is wanted: KubeEdge's would write that.
        let device: Device = serde_json::from_value(json!({ "metadata": { "name": "pump" },
            "spec": { "properties": [{ "name": "valve", "desired": { "value": "500" } }] } }))
        .unwrap();
        let taken_over = EdgeDesired::from([("valve".to_owned(), "49".to_owned())]);
        let wanted = Wanted { by_edge: &NOTHING, taken_over: &taken_over };
        let spec = super::device(&id("pump"), &device, Some(&model), wanted, false).spec.unwrap();
        assert_eq!(spec.properties[0].desired.as_ref().unwrap().value, "49");
        // Unless the model forbids that one, too, by now.
        let narrowed = [
            json!({ "type": "INT", "accessMode": "ReadWrite", "maximum": "40" }),
            json!({ "type": "INT", "accessMode": "ReadOnly", "maximum": "100" }),
            json!({ "type": "BOOLEAN", "accessMode": "ReadWrite" }),
        ];
        for mut property in narrowed {
            property["name"] = json!("valve");
            let model = serde_json::from_value(
                json!({ "metadata": { "name": "m" }, "spec": { "properties": [property] } }),
            );
            let spec =
                super::device(&id("pump"), &device, Some(&model.unwrap()), wanted, false).spec.unwrap();
            assert_eq!(spec.properties[0].desired, Some(pb::TwinProperty::default()), "{property}");
        }
        assert_eq!(sent("note", &"x".repeat(4097), None).value, "", "longer than any value is");
        assert_eq!(sent("valve", "20", Some("500")).value, "", "a model that came after it");
        assert_eq!(
            (&*sent("valve", "100", None).value, &*sent("relay", "true", None).value),
            ("100", "true")
        );
    }

    #[test]
    fn a_whole_number_beyond_the_signed_ones_goes_to_mappers_that_read_it() {
        let model: DeviceModel = serde_json::from_value(json!({ "metadata": { "name": "m" }, "spec": { "properties": [
            { "name": "count", "type": "INT", "accessMode": "ReadWrite" }, { "name": "note", "type": "STRING" } ] } }))
        .unwrap();
        let sent = |value: &str, doubles: bool| {
            let properties =
                ["count", "note"].map(|name| json!({ "name": name, "desired": { "value": value } }));
            let spec = json!({ "properties": properties });
            let device: Device =
                serde_json::from_value(json!({ "metadata": { "name": "pump" }, "spec": spec })).unwrap();
            let spec =
                super::device(&id("pump"), &device, Some(&model), wanted_by_edge(&NOTHING), doubles).spec;
            let of = |property: &pb::DeviceProperty| property.desired.clone().unwrap().value;
            spec.unwrap().properties.iter().map(of).collect::<Vec<_>>()
        };
        let (signed, unsigned) = (i64::MAX.to_string(), u64::MAX.to_string());
        assert_eq!(sent(&signed, false), [&*signed, &*signed]);
        assert_eq!(sent(&unsigned, true), [&*unsigned, &*unsigned]);
        assert_eq!(sent(&unsigned, false), ["", &*unsigned], "KubeEdge's end at none, and go on without it");
    }

    #[test]
    fn what_the_model_does_not_have_is_named_to_no_mapper() {
        let device: Device = serde_json::from_value(json!({ "metadata": { "name": "pump" }, "spec": {
            "properties": [{ "name": "speed" }, { "name": "sped" }],
            "methods": [{ "name": "Set", "propertyNames": ["sped", "speed", "gone"] },
                { "name": "Lost", "propertyNames": ["sped"] }, { "name": "Bare" }] } }))
        .unwrap();
        let named = |model: Option<&DeviceModel>| {
            let spec =
                super::device(&id("pump"), &device, model, wanted_by_edge(&NOTHING), false).spec.unwrap();
            let properties: Vec<String> = spec.properties.into_iter().map(|p| p.name).collect();
            let methods: Vec<String> = spec
                .methods
                .into_iter()
                .map(|method| format!("{} {}", method.name, method.property_names.join(" ")))
                .collect();
            (properties, methods)
        };
        let texts = |texts: &[&str]| -> Vec<String> { texts.iter().map(|text| (*text).to_owned()).collect() };
        let (_, model) = parts();
        assert_eq!(named(Some(&model)), (texts(&["speed"]), texts(&["Set speed", "Bare "])));
        let without = (texts(&["speed", "sped"]), texts(&["Set sped speed", "Lost sped", "Bare "]));
        assert_eq!(named(None), without, "nobody knows what a model that is not here has");
    }

    #[test]
    fn a_model_keeps_its_words() {
        let (device, model) = parts();
        assert_eq!(protocol(&device, Some(&model)), "modbus");
        let sent = super::model(&id("pumps"), &model).spec.unwrap().properties.remove(0);
        assert_eq!((&*sent.r#type, &*sent.access_mode, &*sent.unit), ("INT", "ReadWrite", "rpm"));
    }
}
