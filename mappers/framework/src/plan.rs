//! What to do about a device: its description and its model, parsed once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use dmi::v1beta1::{Device, DeviceModel, DeviceProperty, ModelProperty, PushMethod, VisitorConfig};

use crate::error::InvalidSetting;
use crate::protocol::{Property, Protocol};
use crate::settings::Settings;
use crate::value::{Kind, Limits, Value, ValueError};

/// What a cycle is when it is 0 or absent, as in KubeEdge's framework.
const DEFAULT_CYCLE: Duration = Duration::from_secs(1);
/// Nothing is read more often; what asks for it is read this often.
const SHORTEST_CYCLE: Duration = Duration::from_millis(10);
/// A cycle beyond a day is most likely written in nanoseconds, as old samples have it.
const SUSPICIOUS_CYCLE: Duration = Duration::from_secs(24 * 3600);
/// What a clock can add without running over.
const LONGEST_CYCLE: Duration = Duration::from_secs(365 * 24 * 3600);
/// 10 s: so often is a value told again that did not change, unless `reportCycle` says otherwise: what is steady and what is dead
/// look alike without it.
const REPEAT_CYCLE: Duration = Duration::from_secs(10);
/// More properties than any device has; a description with more is refused.
pub(crate) const PROPERTIES_MAX: usize = 4096;

/// A device and its model as the mapper serves it.
pub(crate) struct DevicePlan<P: Protocol> {
    pub(crate) address: P::Address,
    pub(crate) properties: Vec<PropertyPlan<P::Visitor>>,
    /// The properties that cannot be served as they are described, and why.
    pub(crate) refused: Vec<(String, String)>,
    /// Whether its state is reported (`stateReport`).
    pub(crate) state: Option<StateReport>,
}

/// How the state is reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StateReport {
    pub(crate) report_cycle: Option<Duration>,
}

/// What to do about one property.
#[derive(Debug)]
pub(crate) struct PropertyPlan<V> {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) visitor: V,
    /// How often to read it. None: nobody asked for its value.
    pub(crate) collect: Option<Duration>,
    /// How often to report it when it did not change.
    pub(crate) report_cycle: Option<Duration>,
    /// Whether the model lets it be written, and what.
    pub(crate) is_writable: bool,
    pub(crate) limits: Result<Limits, ValueError>,
    /// What is desired is done once, and not kept up.
    pub(crate) is_command: bool,
    pub(crate) desired: Desired,
}

/// What a user wants of a property.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Desired {
    /// Nothing.
    Unset,
    /// Something that the property cannot have, for this reason; the device keeps what it has.
    Invalid(String),
    /// This.
    Value(DesiredValue),
}

/// A value that the device shall have.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct DesiredValue {
    /// As the user wrote it.
    pub(crate) text: String,
    /// Tells it from the same text, desired again with other metadata.
    pub(crate) version: String,
    pub(crate) value: Value,
}

/// A plan, and a warning for what of the device is not in it.
pub(crate) struct ParsedDevice<P: Protocol> {
    pub(crate) plan: Result<DevicePlan<P>, InvalidSetting>,
    /// A sentence for everything that is not honoured.
    pub(crate) warnings: Vec<String>,
}

/// Parses a device by its model.
pub(crate) fn parse_device<P: Protocol>(
    protocol: &P,
    device: &Device,
    model: Option<&DeviceModel>,
) -> ParsedDevice<P> {
    let mut warnings = Vec::new();
    let plan = plan(protocol, device, model, &mut warnings);
    ParsedDevice { plan, warnings }
}

fn plan<P: Protocol>(
    protocol: &P,
    device: &Device,
    model: Option<&DeviceModel>,
    warnings: &mut Vec<String>,
) -> Result<DevicePlan<P>, InvalidSetting> {
    let spec = device.spec.as_ref().ok_or_else(|| InvalidSetting::new("the device has no spec"))?;
    let model = model.and_then(|model| model.spec.as_ref()).ok_or_else(|| {
        InvalidSetting::new(format!("its model `{}` is not here; apply it", spec.device_model_reference))
    })?;
    let config =
        spec.protocol.as_ref().ok_or_else(|| InvalidSetting::new("the device has no spec.protocol"))?;
    if config.protocol_name != protocol.name() {
        let sentence = format!(
            "its protocol is `{}`, and this mapper speaks `{}`",
            config.protocol_name,
            protocol.name()
        );
        return Err(InvalidSetting::new(sentence));
    }
    if spec.properties.len() > PROPERTIES_MAX {
        let sentence =
            format!("it has {} properties; at most {PROPERTIES_MAX} are served", spec.properties.len());
        return Err(InvalidSetting::new(sentence));
    }
    let settings = Settings::from_wire(&config.config_data.clone().unwrap_or_default().data);
    let address = protocol.address(&settings)?;
    warn_of_unread(&settings, "spec.protocol.configData", warnings);
    let modelled: BTreeMap<&str, &ModelProperty> =
        model.properties.iter().map(|modelled| (modelled.name.as_str(), modelled)).collect();
    let mut names = BTreeSet::new();
    let mut properties = Vec::with_capacity(spec.properties.len());
    let mut refused = Vec::new();
    for property in &spec.properties {
        if !names.insert(property.name.as_str()) {
            warnings.push(format!("property `{}` is there twice; the first one counts", property.name));
            continue;
        }
        match property_plan(protocol, property, modelled.get(property.name.as_str()).copied(), warnings) {
            Ok(property_plan) => properties.push(property_plan),
            Err(refusal) => {
                warnings.push(format!("property `{}` is left out: {refusal}", property.name));
                refused.push((property.name.clone(), refusal.to_string()));
            }
        }
    }
    Ok(DevicePlan { address, properties, refused, state: state_report(device, warnings) })
}

fn property_plan<P: Protocol>(
    protocol: &P,
    property: &DeviceProperty,
    modelled: Option<&ModelProperty>,
    warnings: &mut Vec<String>,
) -> Result<PropertyPlan<P::Visitor>, InvalidSetting> {
    let name = &property.name;
    let modelled = modelled.ok_or_else(|| InvalidSetting::new("its model has no property of that name"))?;
    let kind = Kind::named(&modelled.r#type).ok_or_else(|| {
        let sentence = format!(
            "its type `{}` is not served; INT, FLOAT, DOUBLE, STRING and BOOLEAN are",
            modelled.r#type
        );
        InvalidSetting::new(sentence)
    })?;
    let writable = !modelled.access_mode.eq_ignore_ascii_case("ReadOnly");
    let empty = VisitorConfig::default();
    let visitors = property.visitors.as_ref().unwrap_or(&empty);
    if !visitors.protocol_name.is_empty() && visitors.protocol_name != protocol.name() {
        let sentence = format!(
            "its visitors are of protocol `{}`, and this mapper speaks `{}`",
            visitors.protocol_name,
            protocol.name()
        );
        return Err(InvalidSetting::new(sentence));
    }
    let settings = Settings::from_wire(&visitors.config_data.clone().unwrap_or_default().data);
    let limits = limits(modelled, &settings)?;
    let numbers = limits.clone().unwrap_or_default();
    let described = Property {
        name: name.clone(),
        kind,
        writable,
        minimum: numbers.minimum(),
        maximum: numbers.maximum(),
    };
    let is_command = match settings.text("command")? {
        Some(_) => settings.flag("command")?,
        None => !property.report_to_cloud,
    };
    let visitor = protocol.visitor(&described, &settings)?;
    warn_of_unread(&settings, &format!("the visitors of property `{name}`"), warnings);
    for method in push_methods(property.push_method.as_ref()) {
        warnings.push(format!("property `{name}`: pushMethod.{method} is not served yet"));
    }
    let desired = desired(property, kind, writable, limits.clone(), warnings);
    let (collect, report_cycle) = cycles(property, warnings);
    Ok(PropertyPlan {
        name: name.clone(),
        kind,
        visitor,
        collect,
        report_cycle,
        is_writable: writable,
        limits,
        is_command,
        desired,
    })
}

/// Those of the model and of the visitors, the narrower ones. Two zeros are what absent numbers become in KubeEdge's messages.
fn limits(
    modelled: &ModelProperty,
    settings: &Settings,
) -> Result<Result<Limits, ValueError>, InvalidSetting> {
    let text = |key| settings.text(key).map(Option::unwrap_or_default);
    let (minimum, maximum) = (text("min")?, text("max")?);
    let own = if minimum == "0" && maximum == "0" {
        Ok(Limits::default())
    } else {
        Limits::parse(&minimum, &maximum)
    };
    let model = Limits::parse(&modelled.minimum, &modelled.maximum);
    Ok(model.and_then(|model| Ok(model.within(own?))))
}

fn cycles(property: &DeviceProperty, warnings: &mut Vec<String>) -> (Option<Duration>, Option<Duration>) {
    if !property.report_to_cloud {
        return (None, None);
    }
    let name = &property.name;
    let collect = cycle(property.collect_cycle, &format!("property `{name}`: collectCycle"), warnings);
    let collect = collect.unwrap_or(DEFAULT_CYCLE);
    let report_cycle = cycle(property.report_cycle, &format!("property `{name}`: reportCycle"), warnings);
    // Nothing is reported more often than it is read.
    (Some(collect), Some(report_cycle.unwrap_or(REPEAT_CYCLE).max(collect)))
}

fn desired(
    property: &DeviceProperty,
    kind: Kind,
    writable: bool,
    limits: Result<Limits, ValueError>,
    warnings: &mut Vec<String>,
) -> Desired {
    let text = property.desired.as_ref().map(|desired| desired.value.as_str()).unwrap_or_default();
    if text.is_empty() {
        return Desired::Unset;
    }
    if !writable {
        warnings.push(format!("property `{}` is ReadOnly; its desired value is not written", property.name));
        return Desired::Invalid("the property is ReadOnly".to_owned());
    }
    let value = Value::parse(kind, text).and_then(|value| {
        limits?.check(&value)?;
        Ok(value)
    });
    match value {
        Ok(value) => {
            let metadata = property.desired.as_ref().map(|desired| &desired.metadata);
            Desired::Value(DesiredValue {
                text: text.to_owned(),
                version: serde_json::json!([text, metadata]).to_string(),
                value,
            })
        }
        Err(error) => {
            warnings.push(format!("property `{}`: its desired value is not written: {error}", property.name));
            Desired::Invalid(error.to_string())
        }
    }
}

fn state_report(device: &Device, warnings: &mut Vec<String>) -> Option<StateReport> {
    let status = device.status.as_ref().filter(|status| status.report_to_cloud)?;
    let report_cycle = cycle(status.report_cycle, "stateReport.reportCycle", warnings);
    Some(StateReport { report_cycle: Some(report_cycle.unwrap_or(REPEAT_CYCLE)) })
}

/// A cycle in milliseconds; None when it is 0 or absent.
fn cycle(given: i64, what: &str, warnings: &mut Vec<String>) -> Option<Duration> {
    let millis = match u64::try_from(given) {
        Ok(0) => return None,
        Ok(millis) => millis,
        Err(_) => {
            warnings.push(format!("{what} is {given}; a cycle is a positive number of milliseconds"));
            return None;
        }
    };
    let wanted = Duration::from_millis(millis);
    if wanted < SHORTEST_CYCLE {
        warnings.push(format!("{what} is {given} ms; the shortest is {} ms", SHORTEST_CYCLE.as_millis()));
    }
    if wanted > SUSPICIOUS_CYCLE {
        let (days, nanoseconds) = (wanted.as_secs() / 86_400, Duration::from_nanos(millis));
        // Old samples of KubeEdge count in nanoseconds, and whole seconds of them.
        if millis % 1_000_000 == 0 && nanoseconds >= SHORTEST_CYCLE {
            warnings.push(format!(
                "{what} is {given} ms, which is {days} days; the unit is milliseconds, and this is taken as \
                 nanoseconds, which makes {} ms",
                nanoseconds.as_millis()
            ));
            return Some(nanoseconds.min(SUSPICIOUS_CYCLE));
        }
        warnings.push(format!("{what} is {given} ms, which is {days} days; the unit is milliseconds"));
    }
    Some(wanted.clamp(SHORTEST_CYCLE, LONGEST_CYCLE))
}

fn warn_of_unread(settings: &Settings, place: &str, warnings: &mut Vec<String>) {
    let unread_keys = settings.unread_keys();
    if !unread_keys.is_empty() {
        warnings.push(format!("{place}: `{}` is not known and has no effect", unread_keys.join("`, `")));
    }
}

fn push_methods(method: Option<&PushMethod>) -> Vec<&'static str> {
    let Some(method) = method else {
        return Vec::new();
    };
    let all = [
        (method.http.is_some(), "http"),
        (method.mqtt.is_some(), "mqtt"),
        (method.otel.is_some(), "otel"),
        (method.db_method.is_some(), "dbMethod"),
        (method.anomaly_detection.is_some(), "anomalyDetection"),
    ];
    all.into_iter().filter(|(there, _)| *there).map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use dmi::Scalar;
    use dmi::v1beta1::{
        CustomizedValue, DeviceModelSpec, DeviceSpec, DeviceStatus, ProtocolConfig, PushMethodHttp,
        TwinProperty,
    };

    use super::*;
    use crate::fault::Fault;
    use crate::protocol::Session;

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
            settings.text("host")?.ok_or_else(|| InvalidSetting::new("setting `host` is missing"))
        }
        fn visitor(&self, _: &Property, settings: &Settings) -> Result<i64, InvalidSetting> {
            settings.whole("slot")?.ok_or_else(|| InvalidSetting::new("setting `slot` is missing"))
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
        let data: BTreeMap<_, _> =
            pairs.iter().map(|(key, value)| ((*key).to_owned(), value.to_any())).collect();
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
        assert_eq!((desired.text.as_str(), &desired.value), ("7", &Value::Int(7)));
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
    fn the_same_value_with_other_metadata_is_another_wish() {
        let mut level = property("level", "7");
        let version =
            |level: &DeviceProperty| match &parsed(&device(vec![level.clone()])).0.properties[0].desired {
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
        let desired: Vec<&Desired> =
            plan.properties.iter().map(|property_plan| &property_plan.desired).collect();
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
        let device =
            device(vec![pushed.clone(), strange, pushed, property("film", ""), property("ghost", "")]);
        let (plan, warnings) = parsed(&device);
        assert_eq!(plan.properties.len(), 2);
        let refused: Vec<&str> = plan.refused.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(refused, ["film", "ghost"]);
        for said in [
            "pushMethod.http",
            "`colour` is not known",
            "there twice",
            "`STREAM`",
            "no property of that name",
        ] {
            assert!(warnings.iter().any(|warning| warning.contains(said)), "{said}: {warnings:?}");
        }
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
        assert_eq!(
            parsed(&device).0.state,
            Some(StateReport { report_cycle: Some(Duration::from_millis(250)) })
        );
        device.status.as_mut().unwrap().report_cycle = 0;
        assert_eq!(parsed(&device).0.state, Some(StateReport { report_cycle: Some(REPEAT_CYCLE) }));
        device.status =
            Some(DeviceStatus { report_to_cloud: false, report_cycle: 250, ..Default::default() });
        assert_eq!(parsed(&device).0.state, None);
    }
}
