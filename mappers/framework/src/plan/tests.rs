//! What is made of a device's description.

use dmi::Scalar;
use dmi::v1beta1::{
    CustomizedValue, DeviceModelSpec, DeviceSpec, DeviceStatus, ProtocolConfig, PushMethod, PushMethodHttp,
    TwinProperty,
};

use super::cycles::{DEFAULT_CYCLE, LONGEST_CYCLE, REPEAT_CYCLE, SHORTEST_CYCLE, cycle};
use super::*;
use crate::fault::Fault;
use crate::protocol::Session;

/// What is in this slot is called.
const METHOD: i64 = 99;
/// What is in this slot is given up when it is desired no more.
const RELEASED: i64 = 98;

struct TestProtocol;
struct TestSession;

impl Protocol for TestProtocol {
    type Address = String;
    type Visitor = i64;
    type Session = TestSession;
    fn name(&self) -> &'static str {
        "plain"
    }
    fn address(&self, settings: &Settings) -> Result<String, InvalidSetting> {
        settings.whole("unitID")?;
        settings.text("host")?.ok_or_else(|| InvalidSetting::new("setting `host` is missing"))
    }
    fn visitor(&self, _: &Property, settings: &Settings) -> Result<i64, InvalidSetting> {
        settings.whole("slot")?.ok_or_else(|| InvalidSetting::new("setting `slot` is missing"))
    }
    fn is_command(&self, slot: &i64) -> bool {
        *slot == METHOD
    }
    fn is_released(&self, slot: &i64) -> bool {
        *slot == RELEASED
    }
    async fn connect(&self, _: &String) -> Result<TestSession, Fault> {
        Err(Fault::Link("nowhere".to_owned()))
    }
}

impl Session for TestSession {
    type Visitor = i64;
    async fn read(&mut self, _: &i64) -> Result<Value, Fault> {
        Err(Fault::Link("nowhere".to_owned()))
    }
    async fn write(&mut self, _: &i64, _: &Value) -> Result<(), Fault> {
        Err(Fault::Link("nowhere".to_owned()))
    }
}

fn config(pairs: &[(&str, Scalar)]) -> Option<CustomizedValue> {
    let data: BTreeMap<_, _> = pairs.iter().map(|(key, value)| ((*key).to_owned(), value.to_any())).collect();
    Some(CustomizedValue { data })
}

fn property(name: &str, desired: &str) -> DeviceProperty {
    DeviceProperty {
        name: name.to_owned(),
        desired: Some(TwinProperty { value: desired.to_owned(), ..Default::default() }),
        visitors: Some(VisitorConfig {
            protocol_name: "plain".to_owned(),
            config_data: config(&[("slot", Scalar::Int(3))]),
        }),
        report_to_cloud: true,
        ..Default::default()
    }
}

fn device(properties: Vec<DeviceProperty>) -> Device {
    let protocol = ProtocolConfig {
        protocol_name: "plain".to_owned(),
        config_data: config(&[("host", Scalar::Text("here".to_owned()))]),
    };
    Device {
        name: "d".to_owned(),
        namespace: "default".to_owned(),
        spec: Some(DeviceSpec {
            device_model_reference: "m".to_owned(),
            protocol: Some(protocol),
            properties,
            methods: Vec::new(),
        }),
        status: None,
    }
}

fn model() -> DeviceModel {
    let property = |name: &str, kind: &str, mode: &str, maximum: &str| ModelProperty {
        name: name.to_owned(),
        r#type: kind.to_owned(),
        access_mode: mode.to_owned(),
        maximum: maximum.to_owned(),
        ..Default::default()
    };
    let properties = vec![
        property("level", "INT", "ReadWrite", "100"),
        property("seen", "FLOAT", "ReadOnly", ""),
        property("film", "STREAM", "ReadOnly", ""),
        property("odd", "INT", "ReadWrite", "many"),
    ];
    DeviceModel {
        name: "m".to_owned(),
        namespace: "default".to_owned(),
        spec: Some(DeviceModelSpec { properties, commands: Vec::new() }),
    }
}

fn parsed(device: &Device) -> (DevicePlan<TestProtocol>, Vec<String>) {
    let parsed = parse_device(&TestProtocol, device, Some(&model()));
    (parsed.plan.unwrap(), parsed.warnings)
}

#[test]
fn a_plain_device_is_planned_with_defaults() {
    let (plan, warnings) = parsed(&device(vec![property("level", "7"), property("seen", "")]));
    assert_eq!(warnings, Vec::<String>::new());
    assert_eq!(plan.address, "here");
    let level = &plan.properties[0];
    assert_eq!((level.collect, level.report_cycle), (Some(DEFAULT_CYCLE), Some(REPEAT_CYCLE)));
    let Desired::Value(desired) = &level.desired else { panic!("{:?}", level.desired) };
    assert_eq!((desired.text.as_str(), &desired.value), ("7", &Some(Value::Int(7))));
    assert!(!level.is_command);
    assert_eq!(plan.properties[1].kind, Kind::Float);
    assert_eq!(plan.state, None);
}

#[test]
fn what_is_not_reported_is_not_read() {
    let mut quiet = property("level", "7");
    quiet.report_to_cloud = false;
    quiet.collect_cycle = 50;
    let (plan, _) = parsed(&device(vec![quiet]));
    assert_eq!(plan.properties[0].collect, None);
    assert!(matches!(plan.properties[0].desired, Desired::Value(_)), "but it is written");
    assert!(plan.properties[0].is_command, "once");
}

#[test]
fn limits_and_commands_may_be_in_the_visitors() {
    let mut level = property("level", "7");
    let visitors = |more: &[(&str, Scalar)]| config(&[&[("slot", Scalar::Int(3))], more].concat());
    level.visitors.as_mut().unwrap().config_data =
        visitors(&[("max", Scalar::Float(6.0)), ("command", Scalar::Bool(true))]);
    let (plan, warnings) = parsed(&device(vec![level.clone()]));
    assert!(plan.properties[0].is_command);
    assert!(warnings[0].contains("above the model's maximum 6"), "{warnings:?}");
    level.visitors.as_mut().unwrap().config_data =
        visitors(&[("max", Scalar::Float(0.0)), ("min", Scalar::Float(0.0))]);
    let (plan, warnings) = parsed(&device(vec![level]));
    assert_eq!(warnings, Vec::<String>::new(), "absent numbers are zeros");
    assert!(matches!(plan.properties[0].desired, Desired::Value(_)));
}

#[test]
fn a_limit_that_a_float_cannot_reach_is_refused_by_name() {
    let mut seen = property("seen", "");
    let max = [("slot", Scalar::Int(3)), ("max", Scalar::Float(1e39))];
    seen.visitors.as_mut().unwrap().config_data = config(&max);
    let (plan, _) = parsed(&device(vec![seen.clone()]));
    let reason = &plan.refused[0].reason;
    assert!(reason.contains("`max`") && reason.contains("`1e39` is beyond FLOAT, of 32 bits"), "{reason}");
    // In the model it is no setting of the device: it is read all the same, and nothing is written.
    let mut level = property("level", "7");
    let mut models = model();
    let modelled = &mut models.spec.as_mut().unwrap().properties[0];
    (modelled.r#type, modelled.maximum) = ("FLOAT".to_owned(), "1e39".to_owned());
    let parse =
        |level: &DeviceProperty| parse_device(&TestProtocol, &device(vec![level.clone()]), Some(&models));
    let parsed = parse(&level);
    assert!(parsed.warnings[0].contains("the maximum `1e39` is beyond FLOAT"), "{:?}", parsed.warnings);
    let plan = parsed.plan.unwrap();
    assert!(
        matches!(&plan.properties[0].desired, Desired::Invalid(reason) if reason.contains("beyond FLOAT"))
    );
    level.desired.as_mut().unwrap().value = "1e39".to_owned();
    let desired = parse(&level).plan.unwrap().properties[0].desired.clone();
    assert!(
        matches!(&desired, Desired::Invalid(reason) if reason.starts_with("the value `1e39` is beyond FLOAT"))
    );
}

#[test]
fn a_method_is_a_command_and_nothing_else() {
    let with = |more: &[(&str, Scalar)]| {
        let mut level = property("level", "7");
        level.visitors.as_mut().unwrap().config_data =
            config(&[&[("slot", Scalar::Int(METHOD))], more].concat());
        parsed(&device(vec![level])).0
    };
    let plan = with(&[]);
    assert!(plan.properties[0].is_command && plan.properties[0].collect.is_some(), "also when it is read");
    assert!(with(&[("command", Scalar::Bool(true))]).properties[0].is_command);
    let refused = with(&[("command", Scalar::Bool(false))]).refused;
    assert!(refused[0].reason.contains("called once"), "{refused:?}");
}

#[test]
fn what_is_desired_no_more_is_given_up_where_the_protocol_says_so_and_it_is_no_command() {
    let with = |name: &str, desired: &str, more: &[(&str, Scalar)]| {
        let mut level = property(name, desired);
        level.visitors.as_mut().unwrap().config_data =
            config(&[&[("slot", Scalar::Int(RELEASED))], more].concat());
        match parsed(&device(vec![level])).0.properties[0].desired.clone() {
            Desired::Value(desired) => Some(desired.value),
            Desired::Unset => None,
            Desired::Invalid(reason) => panic!("{reason}"),
        }
    };
    assert_eq!(with("level", "7", &[]), Some(Some(Value::Int(7))));
    assert_eq!(with("level", "", &[]), Some(None));
    assert_eq!(with("level", "", &[("command", Scalar::Bool(true))]), None);
    assert_eq!(with("seen", "", &[]), None, "it is ReadOnly");
}

#[test]
fn the_same_value_with_other_metadata_is_another_wish() {
    let mut level = property("level", "7");
    let version = |level: &DeviceProperty| match &parsed(&device(vec![level.clone()])).0.properties[0].desired
    {
        Desired::Value(desired) => desired.version.clone(),
        other => panic!("{other:?}"),
    };
    let before = version(&level);
    let metadata = &mut level.desired.as_mut().unwrap().metadata;
    metadata.insert("timestamp".to_owned(), "1550000000000".to_owned());
    assert_ne!(version(&level), before);
}

#[test]
fn cycles_are_milliseconds_within_reason() {
    let mut fast = property("level", "");
    (fast.collect_cycle, fast.report_cycle) = (1, 5);
    let mut nanoseconds = property("seen", "");
    (nanoseconds.collect_cycle, nanoseconds.report_cycle) = (10_000_000_000, -1);
    let (plan, warnings) = parsed(&device(vec![fast, nanoseconds]));
    assert_eq!(plan.properties[0].collect, Some(SHORTEST_CYCLE));
    assert_eq!(plan.properties[0].report_cycle, Some(SHORTEST_CYCLE));
    assert_eq!(plan.properties[1].collect, Some(Duration::from_secs(10)), "taken as nanoseconds");
    assert_eq!(plan.properties[1].report_cycle, Some(REPEAT_CYCLE));
    assert!(
        warnings.iter().any(|warning| warning.contains("115 days; the unit is milliseconds")),
        "{warnings:?}"
    );
    assert_eq!(warnings.len(), 4, "{warnings:?}");
    assert_eq!(cycle(i64::MAX, "x", &mut Vec::new()), Some(LONGEST_CYCLE));
}

#[test]
fn desired_values_stay_within_the_model() {
    let (plan, warnings) =
        parsed(&device(vec![property("level", "101"), property("seen", "1"), property("odd", "1")]));
    let desired: Vec<&Desired> = plan.properties.iter().map(|property_plan| &property_plan.desired).collect();
    let said = desired.iter().map(|desired| match desired {
        Desired::Invalid(reason) => reason.as_str(),
        _ => panic!("{desired:?}"),
    });
    let said: Vec<&str> = said.collect();
    assert!(said[0].contains("maximum 100") && said[1].contains("ReadOnly"), "{said:?}");
    assert!(said[2].contains("`many` is not a number"), "{said:?}");
    assert!(warnings[0].contains("above the model's maximum 100"), "{warnings:?}");
    assert!(warnings[1].contains("ReadOnly"), "{warnings:?}");
    assert!(warnings[2].contains("`many` is not a number"), "{warnings:?}");
}

#[test]
fn nothing_is_ignored_in_silence() {
    let mut pushed = property("level", "");
    pushed.push_method = Some(PushMethod { http: Some(PushMethodHttp::default()), ..Default::default() });
    let mut strange = property("seen", "");
    strange.visitors.as_mut().unwrap().config_data =
        config(&[("slot", Scalar::Int(1)), ("colour", Scalar::Int(1))]);
    let device = device(vec![pushed.clone(), strange, pushed, property("film", ""), property("ghost", "")]);
    let (plan, warnings) = parsed(&device);
    assert_eq!(plan.properties.len(), 1, "a mistyped key is no default");
    let refused: Vec<&str> = plan.refused.iter().map(|refused| refused.name.as_str()).collect();
    assert_eq!(refused, ["seen", "film", "ghost"]);
    let cure = "setting `colour` is not known; there are `command`, `dataType`, `max`, `min`, `slot`";
    assert_eq!(plan.refused[0].reason, cure);
    for said in
        ["pushMethod.http", "`colour` is not known", "there twice", "`STREAM`", "no property of that name"]
    {
        assert!(warnings.iter().any(|warning| warning.contains(said)), "{said}: {warnings:?}");
    }
}

#[test]
fn a_key_of_the_device_that_nobody_reads_is_told_and_a_slip_is_refused() {
    let with = |key: &str| {
        let mut device = device(vec![property("level", "7")]);
        let host = ("host", Scalar::Text("here".to_owned()));
        let protocol = device.spec.as_mut().unwrap().protocol.as_mut().unwrap();
        protocol.config_data = config(&[host, (key, Scalar::Int(5))]);
        parse_device(&TestProtocol, &device, Some(&model()))
    };
    let said = "spec.protocol.configData: setting `vendor` is not known; there are `host`, `unitID`; it has no effect";
    let parsed = with("vendor");
    assert_eq!(parsed.plan.ok().unwrap().note.as_deref(), Some(said));
    assert_eq!(parsed.warnings, [said]);
    let refusal = with("unitD").plan.err().unwrap().to_string();
    assert_eq!(refusal, "spec.protocol.configData: setting `unitD` is not known; write `unitID`");
    assert_eq!(with("UNITID").plan.ok().unwrap().note, None);
}

#[test]
fn a_device_that_cannot_be_served_says_why() {
    let why = |device: &Device, model: Option<&DeviceModel>| {
        parse_device(&TestProtocol, device, model).plan.err().unwrap().to_string()
    };
    assert!(why(&device(Vec::new()), None).contains("model `m` is not here"));
    assert!(why(&Device::default(), Some(&model())).contains("no spec"));
    let mut other = device(Vec::new());
    other.spec.as_mut().unwrap().protocol.as_mut().unwrap().protocol_name = "opcua".to_owned();
    assert!(why(&other, Some(&model())).contains("`opcua`"));
    let mut lost = device(Vec::new());
    lost.spec.as_mut().unwrap().protocol.as_mut().unwrap().config_data = None;
    assert!(why(&lost, Some(&model())).contains("`host` is missing"));
    let many = device((0..=PROPERTIES_MAX).map(|at| property(&at.to_string(), "")).collect());
    assert!(why(&many, Some(&model())).contains("at most"));
}

#[test]
fn the_state_is_reported_when_asked_for() {
    let mut device = device(Vec::new());
    device.status = Some(DeviceStatus { report_to_cloud: true, report_cycle: 250, ..Default::default() });
    assert_eq!(parsed(&device).0.state, Some(StateReport { report_cycle: Some(Duration::from_millis(250)) }));
    device.status.as_mut().unwrap().report_cycle = 0;
    assert_eq!(parsed(&device).0.state, Some(StateReport { report_cycle: Some(REPEAT_CYCLE) }));
    device.status = Some(DeviceStatus { report_to_cloud: false, report_cycle: 250, ..Default::default() });
    assert_eq!(parsed(&device).0.state, None);
}

#[test]
fn what_is_only_pushed_is_read_in_its_cycle_and_is_no_command() {
    let http = PushMethodHttp { hostname: "http://h".to_owned(), ..Default::default() };
    let mut pushed = property("level", "7");
    (pushed.report_to_cloud, pushed.collect_cycle, pushed.report_cycle) = (false, 200, 5000);
    pushed.push_method = Some(PushMethod { http: Some(http), ..Default::default() });
    let mut unread = property("seen", "");
    (unread.report_to_cloud, unread.push_method) = (false, Some(PushMethod::default()));
    let (plan, warnings) = parsed(&device(vec![pushed.clone(), unread]));
    assert_eq!(warnings, Vec::<String>::new());
    let (level, seen) = (&plan.properties[0], &plan.properties[1]);
    assert_eq!((level.collect, level.report_cycle), (Some(Duration::from_millis(200)), None));
    assert_eq!((level.push.ways.len(), level.push.cycle), (1, Some(Duration::from_secs(5))));
    assert!(!level.is_told && !level.is_command);
    assert!(
        seen.collect.is_none() && seen.push == crate::push::PushPlan::default(),
        "an empty one asks for nothing"
    );
    (pushed.report_cycle, pushed.report_to_cloud) = (0, true);
    let (plan, _) = parsed(&device(vec![pushed]));
    assert_eq!(
        (plan.properties[0].push.cycle, plan.properties[0].is_told),
        (None, true),
        "each reading goes"
    );
}
