//! What is desired, in the very type that a node has: servers refuse any other, were it only wider.

use framework::{Kind, Value};
use opcua_types::{
    Array, ByteString, DateTime, Guid, LocalizedText, NodeId, QualifiedName, UAString, Variant,
    VariantScalarTypeId as Type,
};

use crate::values::{EPOCH_SECONDS, TICK_NANOS, TICKS};

/// 10,000 elements of an array that is written.
const ELEMENTS_MAX: usize = 10_000;

/// A value of one of these types.
///
/// # Errors
/// A sentence, when the type has no such value.
pub(crate) fn encode(value: &Value, to: Type) -> Result<Variant, String> {
    match value {
        Value::Text(text) => of_text(text, to),
        Value::Bool(yes) if to == Type::Boolean => Ok(Variant::Boolean(*yes)),
        Value::Bool(yes) => integer(i128::from(*yes), to),
        Value::Int(number) => of_whole(*number, to),
        Value::Float(number) => of_number(&number.to_string(), to),
        Value::Double(number) => of_number(&number.to_string(), to),
    }
}

/// An array of one of these types, from JSON: `[1, 2, 3]`.
///
/// # Errors
/// A sentence, when it is none.
pub(crate) fn encode_array(text: &str, to: Type) -> Result<Variant, String> {
    let Ok(serde_json::Value::Array(elements)) = serde_json::from_str(text) else {
        return Err(format!(
            "the node is an array of {to}; write it as JSON, `[1, 2, 3]`, or name one element with `index`"
        ));
    };
    if elements.len() > ELEMENTS_MAX {
        return Err(format!("{} elements; at most {ELEMENTS_MAX} are written", elements.len()));
    }
    let each = |element: &serde_json::Value| match element {
        serde_json::Value::String(text) => of_text(text, to),
        serde_json::Value::Bool(_) | serde_json::Value::Number(_) => of_text(&element.to_string(), to),
        other => Err(format!("{other} is no element of an array")),
    };
    let elements = elements.iter().map(each).collect::<Result<Vec<Variant>, String>>()?;
    array(to, elements)
}

/// One element of an array of one of these types, as servers take it with an index: an array of one.
///
/// # Errors
/// A sentence, when the type has no such value.
pub(crate) fn encode_element(value: &Value, to: Type) -> Result<Variant, String> {
    array(to, vec![encode(value, to)?])
}

fn array(of: Type, elements: Vec<Variant>) -> Result<Variant, String> {
    let array =
        Array::new(of, elements).map_err(|error| format!("the server takes no such array: {error}"))?;
    Ok(Variant::Array(Box::new(array)))
}

fn of_text(text: &str, to: Type) -> Result<Variant, String> {
    let wrong = |example: &str| format!("`{}` is no {to}; write {example}", shortened(text));
    match to {
        Type::Boolean => match Value::parse(Kind::Bool, text) {
            Ok(Value::Bool(yes)) => Ok(Variant::Boolean(yes)),
            _ => Err(wrong("true or false")),
        },
        Type::Float | Type::Double => match text.trim().parse() {
            Ok(whole) => of_whole(whole, to),
            Err(_) => of_number(text.trim(), to),
        },
        Type::String => Ok(Variant::String(UAString::from(text))),
        Type::LocalizedText => Ok(Variant::LocalizedText(Box::new(LocalizedText::new("", text)))),
        Type::QualifiedName => Ok(Variant::QualifiedName(Box::new(QualifiedName::new(0, text)))),
        Type::XmlElement => Ok(Variant::XmlElement(text.into())),
        Type::ByteString => {
            ByteString::from_base64(text.trim()).map(Variant::ByteString).ok_or_else(|| wrong("Base64"))
        }
        Type::Guid => {
            let guid: Result<Guid, _> = text.trim().parse();
            guid.map(|guid| Variant::Guid(Box::new(guid)))
                .map_err(|_| wrong("00000000-0000-0000-0000-000000000000"))
        }
        Type::NodeId => {
            let id: Result<NodeId, _> = text.trim().parse();
            id.map(|id| Variant::NodeId(Box::new(id))).map_err(|_| wrong("ns=2;s=NAME"))
        }
        Type::DateTime => {
            let at: Result<jiff::Timestamp, _> = text.trim().parse();
            let ticks = at.ok().and_then(|at| ticks(&at)).ok_or_else(|| wrong("2026-01-31T12:00:00Z"))?;
            Ok(Variant::DateTime(Box::new(DateTime::from(ticks))))
        }
        Type::SByte
        | Type::Byte
        | Type::Int16
        | Type::UInt16
        | Type::Int32
        | Type::UInt32
        | Type::Int64
        | Type::UInt64
        | Type::StatusCode => match text.trim().parse() {
            Ok(number) => integer(number, to),
            Err(_) => Err(wrong("a whole number")),
        },
        Type::ExpandedNodeId
        | Type::ExtensionObject
        | Type::DataValue
        | Type::Variant
        | Type::DiagnosticInfo => Err(format!("the node is a {to}, which this mapper does not write")),
    }
}

fn of_whole(number: i128, to: Type) -> Result<Variant, String> {
    match to {
        Type::Float => of_number(&number.to_string(), to),
        Type::Double => {
            #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)]
            let (double, back) = (number as f64, number as f64 as i128);
            if back == number {
                Ok(Variant::Double(double))
            } else {
                Err(format!("{number} is not exact as a Double"))
            }
        }
        _ => integer(number, to),
    }
}

fn of_number(text: &str, to: Type) -> Result<Variant, String> {
    let number: f64 = text.parse().map_err(|_| format!("`{}` is no number", shortened(text)))?;
    let out_of_range = || format!("{number} is no {to}");
    match to {
        Type::Double if number.is_finite() => Ok(Variant::Double(number)),
        Type::Float => match text.parse::<f32>() {
            Ok(narrow) if narrow.is_finite() => Ok(Variant::Float(narrow)),
            _ => Err(out_of_range()),
        },
        Type::Double => Err(out_of_range()),
        Type::String => Ok(Variant::String(UAString::from(text))),
        _ if number.fract() == 0.0 => match format!("{number:.0}").parse() {
            Ok(whole) => integer(whole, to),
            Err(_) => Err(out_of_range()),
        },
        _ => Err(format!("{number} is no whole number, and the node is a {to}")),
    }
}

fn integer(number: i128, to: Type) -> Result<Variant, String> {
    let encoded = match to {
        Type::Boolean => match number {
            0 => Some(Variant::Boolean(false)),
            1 => Some(Variant::Boolean(true)),
            _ => None,
        },
        Type::SByte => number.try_into().ok().map(Variant::SByte),
        Type::Byte => number.try_into().ok().map(Variant::Byte),
        Type::Int16 => number.try_into().ok().map(Variant::Int16),
        Type::UInt16 => number.try_into().ok().map(Variant::UInt16),
        Type::Int32 => number.try_into().ok().map(Variant::Int32),
        Type::UInt32 => number.try_into().ok().map(Variant::UInt32),
        Type::Int64 => number.try_into().ok().map(Variant::Int64),
        Type::UInt64 => number.try_into().ok().map(Variant::UInt64),
        Type::StatusCode => number.try_into().ok().map(|bits: u32| Variant::StatusCode(bits.into())),
        Type::String => Some(Variant::String(UAString::from(number.to_string()))),
        other => return Err(format!("a number is no {other}")),
    };
    encoded.ok_or_else(|| format!("{number} does not fit into a {to}"))
}

/// 100 ns since 1601; None before that.
fn ticks(at: &jiff::Timestamp) -> Option<i64> {
    let ticks = at.as_nanosecond() / TICK_NANOS + EPOCH_SECONDS * TICKS;
    i64::try_from(ticks).ok().filter(|ticks| *ticks >= 0)
}

fn shortened(text: &str) -> String {
    text.chars().take(64).collect()
}
