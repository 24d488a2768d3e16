use super::*;

fn encoding(kind: Kind, name: &str) -> Encoding {
    let format = Format::named(name, Some(8)).unwrap();
    Encoding { kind, format, scale: Scale::ONE, letters: Letters::Latin1 }
}

/// What is written is what is read.
fn both_ways(kind: Kind, name: &str, value: &Value) {
    let encoding = encoding(kind, name);
    let mut bytes = encoding.encode(value).unwrap();
    if name == "string" {
        bytes.insert(0, 8);
    }
    bytes.resize(encoding.format.bytes(), 0);
    assert_eq!(encoding.decode(&bytes, Some(0)), Ok(value.clone()), "{name}");
}

#[test]
fn values_come_through_exactly() {
    for (name, least, most) in [
        ("byte", 0, 255),
        ("sint", -128, 127),
        ("word", 0, 65_535),
        ("int", -32_768, 32_767),
        ("udint", 0, i128::from(u32::MAX)),
        ("DINT", i128::from(i32::MIN), i128::from(i32::MAX)),
        ("ulint", 0, i128::from(u64::MAX)),
        ("lint", i128::from(i64::MIN), i128::from(i64::MAX)),
    ] {
        for number in [least, most, 1] {
            both_ways(Kind::Int, name, &Value::Int(number));
        }
        for number in [least - 1, most + 1] {
            let refusal = encoding(Kind::Int, name).encode(&Value::Int(number)).unwrap_err();
            assert!(refusal.contains("not between"), "{refusal}");
        }
    }
    for number in [0.1, -0.5, f32::MAX] {
        both_ways(Kind::Float, "real", &Value::Float(number));
    }
    both_ways(Kind::Double, "lreal", &Value::Double(1.0 / 3.0));
    both_ways(Kind::Double, "real", &Value::Double(0.1));
    both_ways(Kind::Bool, "bool", &Value::Bool(true));
    both_ways(Kind::Text, "string", &Value::Text("Tür 7".to_owned()));
    both_ways(Kind::Text, "char", &Value::Text("a b".to_owned()));
}

#[test]
fn bits_are_found_in_their_bytes() {
    let encoding = encoding(Kind::Bool, "bool");
    assert_eq!(encoding.decode(&[0b1000], Some(3)), Ok(Value::Bool(true)));
    assert_eq!(encoding.decode(&[0b0111], Some(3)), Ok(Value::Bool(false)));
}

#[test]
fn numbers_are_scaled_both_ways() {
    let scaled = Encoding { scale: Scale::new(0.1).unwrap(), ..encoding(Kind::Double, "int") };
    assert_eq!(scaled.decode(&[0, 3], None), Ok(Value::Double(0.3)));
    assert_eq!(scaled.encode(&Value::Double(-0.1)), Ok(vec![0xFF, 0xFF]));
    scaled.encode(&Value::Double(3276.8)).unwrap_err();
}

#[test]
fn what_is_no_value_is_none() {
    let real = encoding(Kind::Float, "real");
    assert!(matches!(real.decode(&f32::NAN.to_be_bytes(), None), Err(Fault::NoValue(_))));
    assert!(matches!(real.decode(&[1, 2], None), Err(Fault::Device(_))));
    assert!(real.encode(&Value::Double(1e39)).is_err());
    let text = encoding(Kind::Text, "string");
    for (head, is_right) in [([8, 8], true), ([8, 9], false), ([0, 2], true), ([254, 200], false)] {
        let bytes: Vec<u8> = head.into_iter().chain([b'x'; 8]).collect();
        assert_eq!(text.decode(&bytes, None).is_ok(), is_right, "{head:?}");
    }
    assert!(text.encode(&Value::Text("nine char".to_owned())).unwrap_err().contains("room for 8"));
    assert!(text.encode(&Value::Text("€".to_owned())).unwrap_err().contains("Latin-1"));
    let utf8 = Encoding { letters: Letters::Utf8, ..text };
    assert_eq!(utf8.encode(&Value::Text("€".to_owned())), Ok(vec![3, 0xE2, 0x82, 0xAC]));
    assert!(utf8.decode(&[8, 1, 0xFF, 0, 0, 0, 0, 0, 0, 0], None).is_err());
}

proptest::proptest! {
    #[test]
    fn nothing_that_a_plc_has_ends_the_mapper(bytes: Vec<u8>, bit in 0..8u8, at in 0..13usize, kind in 0..5usize) {
        let names = [
            "bool", "byte", "sint", "word", "int", "dword", "dint", "lword", "lint", "real", "lreal", "char", "string",
        ];
        let kinds = [Kind::Int, Kind::Float, Kind::Double, Kind::Text, Kind::Bool];
        drop(encoding(kinds[kind], names[at]).decode(&bytes, Some(bit)));
    }
}
