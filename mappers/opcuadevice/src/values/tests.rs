//! Values both ways.

use framework::{Fault, Kind, Value};
use opcua_types::{
    Array, ByteString, DataValue, DateTime, ExtensionObject, Guid, LocalizedText, StatusCode, Variant,
    VariantScalarTypeId as Type,
};
use proptest::prelude::*;

use super::*;
use crate::visitor::{Element, Part};

fn read(variant: &Variant, kind: Kind) -> Result<Value, String> {
    decode(variant, kind, Part::Whole).map_err(|fault| fault.to_string())
}

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

#[test]
fn each_type_is_read_as_it_is() {
    for (variant, kind, value) in [
        (Variant::Boolean(true), Kind::Bool, Value::Bool(true)),
        (Variant::SByte(-128), Kind::Int, Value::Int(-128)),
        (Variant::Byte(255), Kind::Int, Value::Int(255)),
        (Variant::UInt64(u64::MAX), Kind::Int, Value::Int(u64::MAX.into())),
        (Variant::Int64(9_007_199_254_740_993), Kind::Int, Value::Int(9_007_199_254_740_993)),
        (Variant::Double(42.0), Kind::Int, Value::Int(42)),
        (Variant::Float(0.1), Kind::Double, Value::Double(0.1)),
        (Variant::Double(0.1), Kind::Float, Value::Float(0.1)),
        (Variant::Int16(-3), Kind::Double, Value::Double(-3.0)),
        (Variant::Byte(1), Kind::Bool, Value::Bool(true)),
        (Variant::from("room 7"), Kind::Text, text("room 7")),
        (Variant::Int32(7), Kind::Text, text("7")),
        (Variant::from(LocalizedText::new("en", "on")), Kind::Text, text("on")),
        (Variant::from(StatusCode::BadOutOfService), Kind::Text, text("BadOutOfService")),
        (Variant::from(ByteString::from(vec![1, 2])), Kind::Text, text("AQI=")),
    ] {
        assert_eq!(read(&variant, kind), Ok(value), "{variant:?}");
    }
    let guid: Guid = "72962b91-fa75-4ae6-8d28-b404dc7daf63".parse().unwrap();
    assert_eq!(read(&Variant::from(guid.clone()), Kind::Text), Ok(text(&guid.to_string())));
}

#[test]
fn what_cannot_be_is_refused_and_not_bent() {
    for (variant, kind, said) in [
        (Variant::Double(23.5), Kind::Int, "no whole number"),
        (Variant::Int64(9_007_199_254_740_993), Kind::Double, "not exact"),
        (Variant::Double(1e300), Kind::Float, "no FLOAT"),
        (Variant::from("7"), Kind::Int, "a String, which is no INT"),
        (Variant::Int32(2), Kind::Bool, "more than true or false"),
        (Variant::Double(f64::NAN), Kind::Double, "NaN"),
        (Variant::Empty, Kind::Int, "null"),
        (Variant::from(opcua_types::UAString::null()), Kind::Text, "null"),
        (
            Variant::from(ExtensionObject::from_message(opcua_types::Argument::default())),
            Kind::Text,
            "a structure",
        ),
    ] {
        let refusal = read(&variant, kind).unwrap_err();
        assert!(refusal.contains(said), "{variant:?}: {refusal}");
    }
    let none =
        |variant: &Variant| matches!(decode(variant, Kind::Double, Part::Whole), Err(Fault::NoValue(_)));
    assert!(none(&Variant::Double(f64::INFINITY)) && none(&Variant::Empty), "no value, not a refusal");
}

#[test]
fn arrays_are_json_or_one_element() {
    let array = |of: Type, values: Vec<Variant>| Variant::Array(Box::new(Array::new(of, values).unwrap()));
    let floats = array(Type::Float, vec![Variant::Float(0.1), Variant::Float(f32::NAN)]);
    assert_eq!(read(&floats, Kind::Text), Ok(text("[0.1,null]")));
    let one = array(Type::Int32, vec![Variant::Int32(7)]);
    assert_eq!(decode(&one, Kind::Int, Part::Element(Element::new(&[0]))), Ok(Value::Int(7)));
    assert_eq!(read(&one, Kind::Text), Ok(text("[7]")));
    assert!(read(&one, Kind::Int).unwrap_err().contains("name one with `index`"));
    assert_eq!(
        encode_array("[1, 2]", Type::Int16),
        Ok(array(Type::Int16, vec![Variant::Int16(1), Variant::Int16(2)]))
    );
    assert_eq!(encode_element(&Value::Int(7), Type::Int32), Ok(one));
    for (wrong, said) in
        [("7", "as JSON"), ("[70000]", "does not fit"), ("[null]", "no element"), ("[[1]]", "no element")]
    {
        let refusal = encode_array(wrong, Type::Int16).unwrap_err();
        assert!(refusal.contains(said), "{refusal}");
    }
    let all = array(Type::Int32, vec![Variant::Int32(7), Variant::Int32(8)]);
    assert_eq!(
        decode(&all, Kind::Int, Part::Element(Element::new(&[1]))),
        Ok(Value::Int(8)),
        "a server that sends all"
    );
    assert!(
        decode(&all, Kind::Int, Part::Element(Element::new(&[2])))
            .unwrap_err()
            .to_string()
            .contains("BadIndexRangeNoData")
    );
    let numbers: Vec<Variant> = (0..6).map(Variant::Int32).collect();
    let matrix = Variant::Array(Box::new(Array::new_multi(Type::Int32, numbers, vec![2, 3]).unwrap()));
    assert!(read(&matrix, Kind::Text).unwrap_err().contains("several dimensions"));
    let of_matrix = |places: &[u32]| decode(&matrix, Kind::Int, Part::Element(Element::new(places)));
    assert_eq!((of_matrix(&[0, 2]), of_matrix(&[1, 1])), (Ok(Value::Int(2)), Ok(Value::Int(4))));
    for outside in [&[0, 3][..], &[2, 0], &[5], &[0, 0, 0]] {
        let refusal = of_matrix(outside).unwrap_err().to_string();
        assert!(refusal.contains("BadIndexRangeNoData"), "{outside:?}: {refusal}");
    }
    let many = of_matrix(&[0; 9]).unwrap_err().to_string();
    assert!(many.contains("heeds no index") && !many.contains("name one with"), "{many}");
}

#[test]
fn a_range_is_no_more_than_was_asked_for() {
    let doubles: Vec<Variant> = [0.5, 1.5, 2.5, 3.5].map(Variant::Double).into();
    let of = |values: &[Variant], part: Part, kind: Kind| {
        let array = Variant::Array(Box::new(Array::new(Type::Double, values.to_vec()).unwrap()));
        decode(&array, kind, part).map_err(|fault| fault.to_string())
    };
    let range = |from, to| Part::Range { from, to };
    assert_eq!(of(&doubles[1..3], range(1, 2), Kind::Text), Ok(text("[1.5,2.5]")), "a server that heeds it");
    assert_eq!(of(&doubles, range(1, 2), Kind::Text), Ok(text("[1.5,2.5]")), "one that does not");
    assert_eq!(of(&doubles, range(2, 4), Kind::Text), Ok(text("[2.5,3.5]")), "as far as there are some");
    assert_eq!(of(&doubles, range(0, u32::MAX), Kind::Text), Ok(text("[0.5,1.5,2.5,3.5]")));
    assert!(of(&doubles, range(4, 5), Kind::Text).unwrap_err().contains("BadIndexRangeNoData"));
    assert!(of(&doubles, range(0, 1), Kind::Double).unwrap_err().contains("make the property a STRING"));
    let block = Part::Block { most: 2 };
    assert_eq!(of(&doubles[..2], block, Kind::Text), Ok(text("[0.5,1.5]")));
    assert!(of(&doubles, block, Kind::Text).unwrap_err().contains("sent all 4 of its Double"));
    let matrix = Array::new_multi(Type::Double, doubles, vec![2, 2]).unwrap();
    let matrix = decode(&Variant::Array(Box::new(matrix)), Kind::Text, range(0, 1));
    assert!(matrix.unwrap_err().to_string().contains("a number for each dimension"));
    let letters = |letters: &str| decode(&Variant::from(letters), Kind::Text, range(1, 2));
    assert_eq!(letters("oo"), Ok(text("oo")));
    assert!(letters("room 7").unwrap_err().to_string().contains("sent all 6"));
}

#[test]
fn times_are_rfc_3339_to_100_ns() {
    let at = "2026-11-29T08:30:00.1234567Z";
    let encoded = encode(&text(at), Type::DateTime).unwrap();
    assert_eq!(read(&encoded, Kind::Text), Ok(text(at)));
    assert!(matches!(
        decode(&Variant::from(DateTime::null()), Kind::Text, Part::Whole),
        Err(Fault::NoValue(_))
    ));
    assert!(matches!(
        decode(&Variant::from(DateTime::endtimes()), Kind::Text, Part::Whole),
        Err(Fault::NoValue(_))
    ));
    assert!(encode(&text("yesterday"), Type::DateTime).unwrap_err().contains("2026-01-31T12:00:00Z"));
    assert!(encode(&text("1500-01-01T00:00:00Z"), Type::DateTime).is_err(), "before OPC UA's time");
}

#[test]
fn a_type_has_its_own_range() {
    for (value, to, variant) in [
        (Value::Int(255), Type::Byte, Variant::Byte(255)),
        (Value::Int(u64::MAX.into()), Type::UInt64, Variant::UInt64(u64::MAX)),
        (Value::Float(0.1), Type::Double, Variant::Double(0.1)),
        (Value::Float(f32::MAX), Type::Float, Variant::Float(f32::MAX)),
        (Value::Double(1e23), Type::Double, Variant::Double(1e23)),
        (Value::Double(7.0), Type::Int32, Variant::Int32(7)),
        (Value::Bool(true), Type::Byte, Variant::Byte(1)),
        (text("AQI="), Type::ByteString, Variant::from(ByteString::from(vec![1, 2]))),
    ] {
        assert_eq!(encode(&value, to), Ok(variant));
    }
    for (value, to, said) in [
        (Value::Int(256), Type::Byte, "256 does not fit into a Byte"),
        (Value::Int(-1), Type::UInt64, "does not fit"),
        (Value::Int(9_007_199_254_740_993), Type::Double, "not exact"),
        (Value::Double(1e39), Type::Float, "no Float"),
        (Value::Double(0.5), Type::Int32, "no whole number"),
        (Value::Int(2), Type::Boolean, "does not fit"),
        (text("on"), Type::Boolean, "true or false"),
        (text("x"), Type::Guid, "is no Guid"),
        (text("x"), Type::ExtensionObject, "does not write"),
    ] {
        let refusal = encode(&value, to).unwrap_err();
        assert!(refusal.contains(said), "{refusal}");
    }
}

#[test]
fn a_quality_goes_with_its_value() {
    let with = |status| DataValue { status: Some(status), ..DataValue::value_only(Variant::Int32(7)) };
    let of = |status| of_data_value(&with(status), Kind::Int, Part::Whole);
    assert_eq!(of(StatusCode::Good), Some(Ok(Value::Int(7))));
    assert_eq!(of(StatusCode::BadWaitingForInitialData), None, "no value, and no alarm");
    let Some(Err(Fault::NoValue(reason))) = of(StatusCode::BadSensorFailure) else { panic!() };
    assert!(reason.starts_with("BadSensorFailure"), "{reason}");
    let Some(Err(Fault::Doubtful(value, reason))) = of(StatusCode::UncertainLastUsableValue) else {
        panic!()
    };
    assert!(value == Value::Int(7) && reason.starts_with("UncertainLastUsableValue"), "{reason}");
}

proptest! {
    #[test]
    fn what_is_written_is_what_is_read(number in any::<i64>(), double in any::<f64>(), float in any::<f32>(), said in ".*") {
        let through = |value: Value, to: Type, kind: Kind| decode(&encode(&value, to).unwrap(), kind, Part::Whole).unwrap();
        prop_assert_eq!(through(Value::Int(number.into()), Type::Int64, Kind::Int), Value::Int(number.into()));
        prop_assert_eq!(through(text(&said), Type::String, Kind::Text), text(&said));
        if double.is_finite() {
            prop_assert_eq!(through(Value::Double(double), Type::Double, Kind::Double), Value::Double(double));
        }
        if float.is_finite() {
            prop_assert_eq!(through(Value::Float(float), Type::Float, Kind::Float), Value::Float(float));
            prop_assert_eq!(through(Value::Float(float), Type::Double, Kind::Float), Value::Float(float));
        }
    }
}
