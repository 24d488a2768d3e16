//! What a server says, as a value of a property.

use std::borrow::Cow;

use framework::{Fault, Kind, Value};
use opcua_types::{Array, DataValue, DateTime, StatusCode, Variant};
use serde_json::{Number, json};

use crate::status;
use crate::values::{EPOCH_SECONDS, EXACT, TICK_NANOS, TICKS};
use crate::visitor::Part;

/// 1 MiB of a text, for those who ask over REST; of more no property is made. What a twin takes of it, and a target, the framework knows.
const TEXT_MAX: usize = 1 << 20;

/// A value with its quality. None: the server has not got one from its own device yet, and will tell when it has.
pub(crate) fn of_data_value(data: &DataValue, kind: Kind, part: Part) -> Option<Result<Value, Fault>> {
    let status = data.status.unwrap_or(StatusCode::Good);
    if status.sub_code() == StatusCode::BadWaitingForInitialData.sub_code() {
        return None;
    }
    if status.is_bad() {
        return Some(Err(status::of_node(status)));
    }
    let value = decode(data.value.as_ref().unwrap_or(&Variant::Empty), kind, part);
    Some(match value {
        Ok(value) if status.is_uncertain() => Err(Fault::Doubtful(value, status::named(status))),
        other => other,
    })
}

/// A value of a property's kind. Of one element of an array that was asked for, an array of one comes.
pub(crate) fn decode(variant: &Variant, kind: Kind, part: Part) -> Result<Value, Fault> {
    let variant = scalar(variant, kind, part)?;
    let variant = variant.as_ref();
    match kind {
        Kind::Int => whole(variant),
        Kind::Float => {
            let number = number(variant)?;
            // What is beyond 32 bits is none of theirs; what lies between two of them is the nearer one.
            #[allow(clippy::cast_possible_truncation)]
            let narrow = number as f32;
            if narrow.is_finite() { Ok(Value::Float(narrow)) } else { Err(too_large(number, "FLOAT")) }
        }
        Kind::Double => number(variant).map(Value::Double),
        Kind::Bool => truth(variant),
        Kind::Text => text(variant).and_then(bounded).map(Value::Text),
    }
}

/// What is looked at: an element, a whole array, or a single value; a variant in a variant is what is inside.
fn scalar(variant: &Variant, kind: Kind, part: Part) -> Result<Cow<'_, Variant>, Fault> {
    let array = match variant {
        Variant::Variant(inside) => return Ok(Cow::Borrowed(inside)),
        Variant::Array(array) => array,
        other => return within_range(other, part).map(|()| Cow::Borrowed(other)),
    };
    let none = || status::of_node(StatusCode::BadIndexRangeNoData);
    let all_came = |cure: &str| {
        let (many, of) = (array.values.len(), array.value_type);
        Fault::Device(format!("the server heeds no index, and sent all {many} of its {of}; {cure}"))
    };
    match (part, array.values.as_slice()) {
        (Part::Element(_), [one]) => Ok(Cow::Borrowed(one)),
        // Some servers send all, whatever was asked for.
        (Part::Element(Some(element)), all) => {
            let at = element.within(array.dimensions.as_deref(), all.len());
            at.and_then(|at| all.get(at)).map(Cow::Borrowed).ok_or_else(none)
        }
        (Part::Element(None), _) => Err(all_came("name one in at most 8 dimensions")),
        // One that heeds the range sends no more than that, and less where the array ends.
        (Part::Range { from, to }, all) if kind == Kind::Text && exceeds(all.len(), from, to) => {
            if array.dimensions.as_ref().is_some_and(|each| each.len() > 1) {
                return Err(all_came("name one element, with a number for each dimension"));
            }
            let place = |at: u32| usize::try_from(at).unwrap_or(usize::MAX);
            let end = place(to).saturating_add(1).min(all.len());
            let range = all.get(place(from)..end).filter(|range| !range.is_empty()).ok_or_else(none)?;
            let range = Array::new(array.value_type, range.to_vec()).map_err(|_| none())?;
            Ok(Cow::Owned(Variant::Array(Box::new(range))))
        }
        (Part::Block { most }, all) if kind == Kind::Text && all.len() as u64 > most => {
            Err(all_came("name one element, with a number for each dimension"))
        }
        (Part::Whole | Part::Range { .. } | Part::Block { .. }, _) if kind == Kind::Text => {
            Ok(Cow::Borrowed(variant))
        }
        (_, many) => Err(Fault::Device(format!(
            "the node is an array, and {} of its {} came; name one with `index`, or make the property a STRING",
            many.len(),
            array.value_type
        ))),
    }
}

/// Whether more came than a range has.
fn exceeds(came: usize, from: u32, to: u32) -> bool {
    came as u64 > u64::from(to.saturating_sub(from)) + 1
}

/// A range of a text or of bytes is a part of it, too (Part 4, 7.27).
fn within_range(variant: &Variant, part: Part) -> Result<(), Fault> {
    let Part::Range { from, to } = part else { return Ok(()) };
    let length = match variant {
        Variant::String(text) => text.value().as_ref().map(|text| text.chars().count()),
        Variant::ByteString(bytes) => bytes.value.as_ref().map(Vec::len),
        _ => None,
    };
    match length {
        Some(length) if exceeds(length, from, to) => {
            Err(Fault::Device(format!("the server heeds no index, and sent all {length}; remove `index`")))
        }
        Some(_) | None => Ok(()),
    }
}

fn bounded(text: String) -> Result<String, Fault> {
    if text.len() <= TEXT_MAX {
        return Ok(text);
    }
    Err(Fault::Device(format!(
        "its value is a text of {} bytes, and at most {TEXT_MAX} are taken; name a part of it with `index`, or remove the property",
        text.len()
    )))
}

fn whole(variant: &Variant) -> Result<Value, Fault> {
    let number = match variant {
        Variant::Boolean(yes) => i128::from(*yes),
        Variant::SByte(number) => (*number).into(),
        Variant::Byte(number) => (*number).into(),
        Variant::Int16(number) => (*number).into(),
        Variant::UInt16(number) => (*number).into(),
        Variant::Int32(number) => (*number).into(),
        Variant::UInt32(number) => (*number).into(),
        Variant::Int64(number) => (*number).into(),
        Variant::UInt64(number) => (*number).into(),
        Variant::StatusCode(code) => code.bits().into(),
        Variant::Float(_) | Variant::Double(_) => {
            let number = number(variant)?;
            if number.fract() != 0.0 || number.abs() > EXACT {
                return Err(Fault::Device(format!(
                    "{number} is no whole number; make the property a DOUBLE"
                )));
            }
            #[allow(clippy::cast_possible_truncation)]
            let whole = number as i128;
            whole
        }
        other => return Err(wrong(other, "INT")),
    };
    Ok(Value::Int(number))
}

#[allow(clippy::cast_precision_loss)]
fn number(variant: &Variant) -> Result<f64, Fault> {
    let number = match variant {
        // By way of its digits: 0.1 of 32 bits is the 0.1 that a person wrote.
        Variant::Float(number) => number.to_string().parse().unwrap_or(f64::NAN),
        Variant::Double(number) => *number,
        Variant::Empty | Variant::String(_) => return Err(wrong(variant, "FLOAT or DOUBLE")),
        other => {
            let Value::Int(number) = whole(other).map_err(|_| wrong(other, "FLOAT or DOUBLE"))? else {
                return Err(wrong(other, "FLOAT or DOUBLE"));
            };
            if number.unsigned_abs() > EXACT as u128 {
                return Err(Fault::Device(format!(
                    "{number} is not exact as a float; make the property an INT"
                )));
            }
            number as f64
        }
    };
    if number.is_finite() { Ok(number) } else { Err(Fault::NoValue(format!("the node says {number}"))) }
}

fn truth(variant: &Variant) -> Result<Value, Fault> {
    match variant {
        Variant::Boolean(yes) => Ok(Value::Bool(*yes)),
        other => match whole(other).map_err(|_| wrong(other, "BOOLEAN"))? {
            Value::Int(0) => Ok(Value::Bool(false)),
            Value::Int(1) => Ok(Value::Bool(true)),
            _ => Err(Fault::Device(
                "the number is more than true or false; make the property an INT".to_owned(),
            )),
        },
    }
}

/// Anything that has a text; arrays as JSON.
fn text(variant: &Variant) -> Result<String, Fault> {
    let null = || Fault::NoValue("the node's value is null".to_owned());
    Ok(match variant {
        Variant::Boolean(yes) => yes.to_string(),
        Variant::Float(number) => number.to_string(),
        Variant::Double(number) => number.to_string(),
        Variant::String(text) => text.value().clone().ok_or_else(null)?,
        Variant::XmlElement(text) => text.to_string(),
        Variant::LocalizedText(text) => text.text.value().clone().ok_or_else(null)?,
        Variant::QualifiedName(name) => name.name.value().clone().ok_or_else(null)?,
        Variant::Guid(guid) => guid.to_string(),
        Variant::NodeId(id) => id.to_string(),
        Variant::ExpandedNodeId(id) => id.to_string(),
        Variant::ByteString(bytes) if bytes.is_null() => return Err(null()),
        Variant::ByteString(bytes) => bytes.as_base64(),
        Variant::StatusCode(code) => code.sub_code().name().to_owned(),
        Variant::DateTime(time) => time_text(time)?,
        Variant::Array(array) => {
            if array.dimensions.as_ref().is_some_and(|each| each.len() > 1) {
                return Err(Fault::Device(
                    "the node is an array of several dimensions; name one element with `index`".to_owned(),
                ));
            }
            let elements = array.values.iter().map(element).collect::<Result<Vec<_>, _>>()?;
            serde_json::Value::Array(elements).to_string()
        }
        other => whole(other).map_err(|_| wrong(other, "STRING"))?.to_string(),
    })
}

/// An element of an array. Numbers stay numbers; what none is, NaN, is null.
fn element(variant: &Variant) -> Result<serde_json::Value, Fault> {
    Ok(match variant {
        Variant::Boolean(yes) => json!(yes),
        Variant::Float(_) | Variant::Double(_) => {
            number(variant).ok().and_then(Number::from_f64).map_or(serde_json::Value::Null, Into::into)
        }
        Variant::Int64(number) => json!(number),
        Variant::UInt64(number) => json!(number),
        Variant::SByte(_)
        | Variant::Byte(_)
        | Variant::Int16(_)
        | Variant::UInt16(_)
        | Variant::Int32(_)
        | Variant::UInt32(_) => match whole(variant)? {
            Value::Int(number) => json!(i64::try_from(number).unwrap_or_default()),
            _ => serde_json::Value::Null,
        },
        other => match text(other) {
            Ok(text) => json!(text),
            Err(Fault::NoValue(_)) => serde_json::Value::Null,
            Err(fault) => return Err(fault),
        },
    })
}

/// RFC 3339, to the 100 ns that the server gives. Its two ends mean that there is none.
fn time_text(time: &DateTime) -> Result<String, Fault> {
    let ticks = i128::from(time.checked_ticks());
    let none = || Fault::NoValue("the node's time is not set".to_owned());
    if ticks <= 0 || time.checked_ticks() == i64::MAX {
        return Err(none());
    }
    let nanos = (ticks - EPOCH_SECONDS * TICKS) * TICK_NANOS;
    jiff::Timestamp::from_nanosecond(nanos).map(|at| at.to_string()).map_err(|_| none())
}

fn too_large(number: f64, kind: &str) -> Fault {
    Fault::Device(format!("{number} is no {kind}; make the property a DOUBLE"))
}

/// What is there instead.
fn wrong(variant: &Variant, wanted: &str) -> Fault {
    let there = match variant {
        Variant::Empty => return Fault::NoValue("the node's value is null".to_owned()),
        Variant::ExtensionObject(object) => {
            let name = object.type_name().unwrap_or("of no known type");
            return Fault::Device(format!("the node is a structure ({name}), which no property can have"));
        }
        other => match other.scalar_type_id() {
            Some(there) => there.to_string(),
            None => "structure".to_owned(),
        },
    };
    Fault::Device(format!("the node is a {there}, which is no {wanted}; make the property a STRING"))
}
