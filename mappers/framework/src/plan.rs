//! What to do about a device: its description and its model, parsed once.

mod cycles;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use dmi::v1beta1::{Device, DeviceModel, DeviceProperty, ModelProperty, VisitorConfig};

use crate::anomaly::AnomalyWatch;
use crate::error::InvalidSetting;
use crate::plan::cycles::{Cycles, cycles, refusal_cycle, state_report};
use crate::protocol::{Property, Protocol};
use crate::push::{PushPlan, push_plan};
use crate::settings::Settings;
use crate::stream::StreamPlan;
use crate::value::{Kind, Limits, Value, ValueError};

pub(crate) use crate::plan::cycles::StateReport;

/// More properties than any device has; a description with more is refused.
pub(crate) const PROPERTIES_MAX: usize = 4096;

/// A device and its model as the mapper serves it.
pub(crate) struct DevicePlan<P: Protocol> {
    pub(crate) address: P::Address,
    /// What of the device has no effect: told beside each of its values.
    pub(crate) note: Option<String>,
    pub(crate) properties: Vec<PropertyPlan<P::Visitor>>,
    /// The properties that cannot be served as they are described.
    pub(crate) refused: Vec<RefusedProperty>,
    /// Whether its state is reported (`stateReport`).
    pub(crate) state: Option<StateReport>,
}

/// A property that cannot be served.
#[derive(Debug, Clone)]
pub(crate) struct RefusedProperty {
    pub(crate) name: String,
    /// Why.
    pub(crate) reason: String,
    /// How often to say so.
    pub(crate) report_cycle: Option<Duration>,
}

impl RefusedProperty {
    /// For that reason.
    pub(crate) fn new(property: &DeviceProperty, reason: String) -> Self {
        RefusedProperty { name: property.name.clone(), reason, report_cycle: refusal_cycle(property) }
    }
}

/// What to do about one property.
#[derive(Debug)]
pub(crate) struct PropertyPlan<V> {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) visitor: V,
    /// Where its readings are pushed.
    pub(crate) push: PushPlan,
    /// What looks at its readings first.
    pub(crate) watch: Option<AnomalyWatch>,
    /// What of its stream is saved, if it is one.
    pub(crate) stream: Option<StreamPlan>,
    /// Whether its value is told to edgecore, and not only pushed.
    pub(crate) is_told: bool,
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
    /// None: nothing is desired, and the device is told so.
    pub(crate) value: Option<Value>,
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
    let place = |said: String| format!("spec.protocol.configData: {said}");
    let note =
        settings.note_unread().map_err(|slip| InvalidSetting::new(place(slip.to_string())))?.map(place);
    warnings.extend(note.clone());
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
                refused.push(RefusedProperty::new(property, refusal.to_string()));
            }
        }
    }
    Ok(DevicePlan { address, note, properties, refused, state: state_report(device, warnings) })
}

fn property_plan<P: Protocol>(
    protocol: &P,
    property: &DeviceProperty,
    modelled: Option<&ModelProperty>,
    warnings: &mut Vec<String>,
) -> Result<PropertyPlan<P::Visitor>, InvalidSetting> {
    let name = &property.name;
    let modelled = modelled.ok_or_else(|| InvalidSetting::new("its model has no property of that name"))?;
    let (kind, is_stream) = kind(protocol, modelled)?;
    let writable = !is_stream && !modelled.access_mode.eq_ignore_ascii_case("ReadOnly");
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
    let Cycles { collect, report: report_cycle, push } = cycles(property, is_stream, warnings);
    let mut push = push_plan(property, kind, push, warnings);
    let limits = limits(modelled, kind, &settings)?;
    if let Err(error) = &limits {
        warnings.push(format!("property `{name}`: {error}; until then no value is written"));
    }
    let numbers = limits.clone().unwrap_or_default();
    let described = Property {
        name: name.clone(),
        kind,
        is_stream,
        writable,
        minimum: numbers.minimum(),
        maximum: numbers.maximum(),
        cycle: collect,
        told_every: report_cycle,
    };
    let command = settings.text("command")?.map(|_| settings.flag("command")).transpose()?;
    let stream = is_stream.then(|| StreamPlan::read(name, &settings)).transpose()?;
    let visitor = protocol.visitor(&described, &settings)?;
    let is_always_one = protocol.is_command(&visitor);
    if is_always_one && command == Some(false) {
        return Err(InvalidSetting::new(
            "setting `command` is false, and a method is called once; leave it out",
        ));
    }
    let is_command = command.unwrap_or(is_always_one || collect.is_none());
    // Every mapper that was made from KubeEdge's template has it; the model's type is what counts.
    settings.text("dataType")?;
    settings.check_unread()?;
    let watch = AnomalyWatch::read(protocol, &described, property).unwrap_or_else(|refusal| {
        let said = format!("pushMethod.anomalyDetection: {refusal}");
        warnings.push(format!("property `{name}`: {said}"));
        push.refused.push(said);
        None
    });
    let desired = match desired(property, kind, writable, limits.clone(), warnings) {
        Desired::Unset if writable && !is_command && protocol.is_released(&visitor) => {
            Desired::Value(DesiredValue { text: String::new(), version: String::new(), value: None })
        }
        desired => desired,
    };
    Ok(PropertyPlan {
        name: name.clone(),
        kind,
        visitor,
        push,
        watch,
        stream,
        is_told: property.report_to_cloud,
        collect,
        report_cycle,
        is_writable: writable,
        limits,
        is_command,
        desired,
    })
}

/// What the values are, and whether they are a stream's files.
fn kind<P: Protocol>(protocol: &P, modelled: &ModelProperty) -> Result<(Kind, bool), InvalidSetting> {
    if let Some(kind) = Kind::named(&modelled.r#type) {
        return Ok((kind, false));
    }
    if protocol.has_streams() && modelled.r#type.eq_ignore_ascii_case("STREAM") {
        return Ok((Kind::Text, true));
    }
    let more = if protocol.has_streams() { ", and STREAM" } else { "" };
    let sentence = format!(
        "its type `{}` is not served; INT, FLOAT, DOUBLE, STRING and BOOLEAN are{more}",
        modelled.r#type
    );
    Err(InvalidSetting::new(sentence))
}

/// Those of the model and of the visitors, the narrower ones. Two zeros are what absent numbers become in KubeEdge's messages.
fn limits(
    modelled: &ModelProperty,
    kind: Kind,
    settings: &Settings,
) -> Result<Result<Limits, ValueError>, InvalidSetting> {
    let text = |key| settings.text(key).map(Option::unwrap_or_default);
    let (minimum, maximum) = (text("min")?, text("max")?);
    let own = if minimum == "0" && maximum == "0" {
        Ok(Limits::default())
    } else {
        Limits::parse(&minimum, &maximum)
    };
    if let Ok(own) = &own {
        let refusal = |error: ValueError| InvalidSetting::new(format!("settings `min` and `max`: {error}"));
        own.check_kind(kind).map_err(refusal)?;
    }
    let model = Limits::parse(&modelled.minimum, &modelled.maximum);
    let model = model.and_then(|model| model.check_kind(kind).map(|()| model));
    Ok(model.and_then(|model| Ok(model.within(own?))))
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
                value: Some(value),
            })
        }
        Err(error) => {
            warnings.push(format!("property `{}`: its desired value is not written: {error}", property.name));
            Desired::Invalid(error.to_string())
        }
    }
}
