//! Methods of a server (Part 4 §5.11): what is desired is what they are called with.

use framework::{Fault, Kind, Value};
use opcua_client::Session;
use opcua_types::{
    Argument, BrowsePath, CallMethodRequest, NodeId, QualifiedName, ReadValueId, ReferenceTypeId,
    RelativePath, RelativePathElement, StatusCode, TimestampsToReturn, Variant, VariantScalarTypeId,
};

use crate::status;
use crate::values;
use crate::visitor::Part;

/// 32 arguments of a method.
const ARGUMENTS_MAX: usize = 32;

/// Calls a method of an object. Of what it gives back, the first value that is of the property's kind, or else what it was called with.
///
/// # Errors
/// When it was not called, or says that it did not do it.
pub(crate) async fn call(
    session: &Session,
    object: &NodeId,
    method: &NodeId,
    kind: Kind,
    value: &Value,
) -> Result<Value, Fault> {
    // Up to the call itself nothing was done: it may be begun anew.
    let wanted = arguments(session, method).await.map_err(|fault| match fault {
        Fault::Link(reason) | Fault::Silent(reason) => Fault::NotSent(reason),
        other => other,
    })?;
    let given = given(&wanted, value).map_err(Fault::Unfit)?;
    let request = CallMethodRequest {
        object_id: object.clone(),
        method_id: method.clone(),
        input_arguments: Some(given),
    };
    let called = session.call(vec![request]).await.map_err(|error| status::of_request(&error))?;
    let Some(result) = called.into_iter().next() else {
        return Err(Fault::Device("the server does not say what came of it".to_owned()));
    };
    if result.status_code.is_bad() {
        let of_arguments = result.input_argument_results.into_iter().flatten().enumerate();
        let wrong: Vec<String> = of_arguments
            .filter(|(_, code)| code.is_bad())
            .map(|(at, code)| format!("argument {}: {}", at + 1, status::named(code)))
            .collect();
        let reason = [vec![status::named(result.status_code)], wrong].concat().join("; ");
        return Err(Fault::Device(reason));
    }
    let outputs = result.output_arguments.unwrap_or_default();
    Ok(output(&outputs, kind).unwrap_or_else(|| value.clone()))
}

/// What a method wants, by the property that says so; a method without one wants nothing.
async fn arguments(session: &Session, method: &NodeId) -> Result<Vec<Argument>, Fault> {
    let path = BrowsePath {
        starting_node: method.clone(),
        relative_path: RelativePath {
            elements: Some(vec![RelativePathElement {
                reference_type_id: ReferenceTypeId::HasProperty.into(),
                is_inverse: false,
                include_subtypes: true,
                target_name: QualifiedName::new(0, "InputArguments"),
            }]),
        },
    };
    let found = session.translate_browse_paths_to_node_ids(&[path]).await;
    let found = found.map_err(|error| status::of_request(&error))?.into_iter().next();
    let Some(found) = found else { return Ok(Vec::new()) };
    if found.status_code.is_bad() && found.status_code.sub_code() != StatusCode::BadNoMatch.sub_code() {
        return Err(Fault::Device(status::named(found.status_code)));
    }
    let Some(target) = found.targets.into_iter().flatten().next() else { return Ok(Vec::new()) };
    let id = ReadValueId::from(target.target_id.node_id);
    let read = session.read(&[id], TimestampsToReturn::Neither, 0.0).await;
    let read = read.map_err(|error| status::of_request(&error))?.into_iter().next();
    match read.and_then(|data| data.value) {
        Some(Variant::Array(array)) if array.values.len() <= ARGUMENTS_MAX => {
            array.values.into_iter().map(argument).collect()
        }
        Some(Variant::Array(array)) => Err(Fault::Device(format!(
            "the method wants {} arguments; at most {ARGUMENTS_MAX} are given",
            array.values.len()
        ))),
        Some(Variant::Empty) | None => Ok(Vec::new()),
        Some(_) => Err(not_understood()),
    }
}

fn argument(variant: Variant) -> Result<Argument, Fault> {
    match variant {
        Variant::ExtensionObject(object) => {
            object.into_inner_as().map(|argument| *argument).ok_or_else(not_understood)
        }
        _ => Err(not_understood()),
    }
}

fn not_understood() -> Fault {
    Fault::Device("the server does not say which arguments the method wants".to_owned())
}

/// What is desired, as the method wants it: nothing, one value, or several as a JSON array in a text.
fn given(wanted: &[Argument], value: &Value) -> Result<Vec<Variant>, String> {
    match (wanted, value) {
        ([], _) => Ok(Vec::new()),
        ([one], value) => Ok(vec![as_wanted(one, value)?]),
        (several, Value::Text(text)) => {
            let Ok(serde_json::Value::Array(given)) = serde_json::from_str(text) else {
                return Err(several_wanted(several));
            };
            if given.len() != several.len() {
                return Err(several_wanted(several));
            }
            let each = |(argument, given): (&Argument, serde_json::Value)| {
                let text = match given {
                    serde_json::Value::String(text) => text,
                    other => other.to_string(),
                };
                as_wanted(argument, &Value::Text(text))
            };
            several.iter().zip(given).map(each).collect()
        }
        (several, _) => Err(several_wanted(several)),
    }
}

fn several_wanted(wanted: &[Argument]) -> String {
    let names: Vec<&str> = wanted.iter().map(|argument| argument.name.as_ref()).collect();
    format!(
        "the method wants {} ({}); make the property a STRING and write them as a JSON array",
        wanted.len(),
        names.join(", ")
    )
}

fn as_wanted(argument: &Argument, value: &Value) -> Result<Variant, String> {
    let name = argument.name.as_ref();
    let number = argument.data_type.as_u32().filter(|_| argument.data_type.namespace == 0);
    let of = number
        .filter(|number| (1..=25).contains(number))
        .and_then(|number| VariantScalarTypeId::try_from(number).ok());
    let of = of.ok_or_else(|| {
        format!("argument `{name}` is of a type that is not known here ({})", argument.data_type)
    })?;
    let encoded = match value {
        Value::Text(text) if argument.value_rank >= 0 => values::encode_array(text, of),
        _ => values::encode(value, of),
    };
    encoded.map_err(|reason| format!("argument `{name}`: {reason}"))
}

fn output(outputs: &[Variant], kind: Kind) -> Option<Value> {
    outputs.iter().find_map(|output| values::decode(output, kind, Part::Whole).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn argument(name: &str, data_type: u32) -> Argument {
        Argument {
            name: name.into(),
            data_type: NodeId::new(0, data_type),
            value_rank: -1,
            ..Default::default()
        }
    }

    #[test]
    fn what_is_desired_is_what_a_method_is_called_with() {
        assert_eq!(given(&[], &Value::Bool(true)), Ok(vec![]), "the wish alone");
        let speed = argument("speed", VariantScalarTypeId::UInt16 as u32);
        assert_eq!(given(std::slice::from_ref(&speed), &Value::Int(7)), Ok(vec![Variant::UInt16(7)]));
        let refusal = given(std::slice::from_ref(&speed), &Value::Int(-1)).unwrap_err();
        assert!(refusal.contains("`speed`") && refusal.contains("UInt16"), "{refusal}");
        let name = argument("name", VariantScalarTypeId::String as u32);
        let both = [speed, name];
        let several = given(&both, &Value::Text(r#"[7, "left"]"#.to_owned()));
        assert_eq!(several, Ok(vec![Variant::UInt16(7), Variant::from("left")]));
        for wrong in [Value::Int(7), Value::Text("[7]".to_owned()), Value::Text("7".to_owned())] {
            let refusal = given(&both, &wrong).unwrap_err();
            assert!(refusal.contains("speed, name") && refusal.contains("JSON array"), "{refusal}");
        }
        let strange = argument("shape", 20_000);
        assert!(given(&[strange], &Value::Int(1)).unwrap_err().contains("not known here"));
    }

    #[test]
    fn what_a_method_gives_back_is_what_is_known_of_it() {
        let outputs = [Variant::from("ok"), Variant::Int32(5)];
        assert_eq!(output(&outputs, Kind::Int), Some(Value::Int(5)));
        assert_eq!(output(&outputs, Kind::Text), Some(Value::Text("ok".to_owned())));
        assert_eq!(output(&[], Kind::Int), None);
    }
}
