use super::*;
use framework::Scalar;

fn property(kind: Kind) -> Property {
    Property { writable: true, ..Property::new("p", kind) }
}

fn read(kind: Kind, pairs: &[(&str, Scalar)]) -> Result<Visitor, String> {
    let settings = Settings::from_pairs(pairs.iter().cloned());
    let visitor = Visitor::read(&property(kind), &settings).map_err(|refusal| refusal.to_string());
    if visitor.is_ok() {
        assert_eq!(settings.unread_keys(), Vec::<String>::new());
    }
    visitor
}

fn holding(limit: i64, data_type: &str) -> Vec<(&'static str, Scalar)> {
    vec![
        ("register", Scalar::Text("HoldingRegister".to_owned())),
        ("offset", Scalar::Float(2.0)),
        ("limit", Scalar::Int(limit)),
        ("dataType", Scalar::Text(data_type.to_owned())),
    ]
}

fn format(kind: Kind, limit: i64, data_type: &str) -> Option<Format> {
    read(kind, &holding(limit, data_type)).ok().map(|visitor| visitor.encoding.format)
}

#[test]
fn function_23_is_for_whole_holding_registers() {
    let by = |register: &str, more: &[(&str, Scalar)]| {
        let text = |text: &str| Scalar::Text(text.to_owned());
        let pairs = [("register", text(register)), ("writeFunction", text("readBack"))];
        let settings = Settings::from_pairs(pairs.into_iter().chain(more.iter().cloned()));
        Visitor::read(&property(Kind::Int), &settings).map_err(|refusal| refusal.to_string())
    };
    assert_eq!(by("HoldingRegister", &[]).unwrap().write, WriteFunction::ReadBack);
    for (register, more) in [("CoilRegister", vec![]), ("HoldingRegister", vec![("bit", Scalar::Int(1))])] {
        assert!(by(register, &more).unwrap_err().contains("readBack"), "{register}");
    }
}

#[test]
fn kubeedges_sample_is_read() {
    let visitor = read(
        Kind::Int,
        &[
            ("register", Scalar::Text("HoldingRegister".to_owned())),
            ("offset", Scalar::Float(2.0)),
            ("limit", Scalar::Float(1.0)),
            ("scale", Scalar::Float(1.0)),
            ("isSwap", Scalar::Bool(true)),
            ("isRegisterSwap", Scalar::Bool(true)),
        ],
    )
    .unwrap();
    assert_eq!((visitor.table, visitor.offset, visitor.count), (Table::HoldingRegisters, 2, 1));
    assert_eq!(visitor.encoding.format, Format::U16);
    assert!(visitor.encoding.swap_bytes && visitor.encoding.swap_words);
}

#[test]
fn formats_follow_from_type_and_size() {
    assert_eq!(format(Kind::Int, 0, ""), Some(Format::U16));
    assert_eq!(format(Kind::Int, 2, ""), Some(Format::U32));
    assert_eq!(format(Kind::Int, 2, "INT32"), Some(Format::I32));
    assert_eq!(format(Kind::Int, 0, "int32"), Some(Format::I32));
    assert_eq!(format(Kind::Int, 2, "float"), Some(Format::F32), "rounded");
    assert_eq!(format(Kind::Float, 0, ""), Some(Format::F32));
    assert_eq!(format(Kind::Float, 1, ""), Some(Format::U16), "scaled");
    assert_eq!(format(Kind::Double, 0, ""), Some(Format::F64));
    assert_eq!(format(Kind::Double, 2, ""), Some(Format::F32));
    assert_eq!(format(Kind::Bool, 0, ""), Some(Format::U16));
    assert_eq!(format(Kind::Text, 8, ""), Some(Format::Text));
    for (kind, limit, data_type) in [
        (Kind::Int, 3, ""),
        (Kind::Int, 1, "int32"),
        (Kind::Float, 1, "float32"),
        (Kind::Text, 0, ""),
        (Kind::Text, 2, "int32"),
        (Kind::Int, 2, "string"),
        (Kind::Int, 1, "decimal"),
        (Kind::Text, 124, ""),
        (Kind::Text, 126, ""),
        (Kind::Int, -1, ""),
    ] {
        assert_eq!(format(kind, limit, data_type), None, "{kind:?} {limit} {data_type}");
    }
}

#[test]
fn a_float_may_be_a_scaled_number_in_one_register() {
    assert_eq!(format(Kind::Float, 1, "float"), Some(Format::U16));
    assert_eq!(format(Kind::Double, 1, "double"), Some(Format::U16));
    assert_eq!(format(Kind::Double, 2, "double"), Some(Format::F32));
}

#[test]
fn what_devices_do_otherwise_can_be_said() {
    let with = |kind, more: &[(&'static str, Scalar)]| read(kind, &[&holding(1, ""), more].concat());
    let text = |text: &str| Scalar::Text(text.to_owned());
    let visitor = with(Kind::Bool, &[("bit", Scalar::Int(3)), ("writeFunction", text("mask"))]).unwrap();
    assert_eq!((visitor.encoding.bit, visitor.write), (Some(3), WriteFunction::Mask));
    let visitor = with(Kind::Int, &[("byteOrder", text("DCBA")), ("encoding", text("BCD"))]).unwrap();
    assert!(visitor.encoding.swap_bytes && visitor.encoding.swap_words);
    assert_eq!(visitor.encoding.format, Format::Bcd);
    for (given, marks) in [
        (text("0x8000, 65535"), vec![0x8000, 65_535]),
        (text("[32768,-1]"), vec![32_768, -1]),
        (text(r#"["0xFFFF"]"#), vec![0xFFFF]),
        (Scalar::Int(7), vec![7]),
        (Scalar::Float(65_535.0), vec![65_535]),
    ] {
        assert_eq!(with(Kind::Int, &[("noValue", given)]).unwrap().encoding.no_value, marks);
    }
    for wrong in [
        ("bit", Scalar::Int(16)),
        ("byteOrder", text("ACBD")),
        ("encoding", text("ebcdic")),
        ("encoding", text("latin1")),
        ("noValue", text("none")),
        ("writeFunction", text("mask")),
    ] {
        let said = with(Kind::Int, std::slice::from_ref(&wrong)).unwrap_err();
        assert!(said.contains(wrong.0), "{said}");
    }
    assert!(with(Kind::Float, &[("bit", Scalar::Int(1))]).is_err());
}

#[test]
fn a_minimum_below_zero_makes_it_signed() {
    let below = Property { minimum: Some(-40.0), ..property(Kind::Int) };
    let visitor = Visitor::read(&below, &Settings::from_pairs(holding(1, ""))).unwrap();
    assert_eq!(visitor.encoding.format, Format::I16);
    let visitor = Visitor::read(&below, &Settings::from_pairs(holding(1, "uint16"))).unwrap();
    assert_eq!(visitor.encoding.format, Format::U16, "what is said counts more");
}

#[test]
fn bits_are_booleans_or_small_numbers() {
    let coil = |kind, limit| {
        let register = Scalar::Text("CoilRegister".to_owned());
        read(kind, &[("register", register), ("limit", Scalar::Int(limit)), ("isSwap", Scalar::Bool(true))])
    };
    let visitor = coil(Kind::Bool, 1).unwrap();
    assert_eq!((visitor.count, visitor.encoding.words, visitor.encoding.swap_bytes), (1, 1, false));
    assert_eq!(coil(Kind::Int, 8).unwrap().count, 8);
    assert!(coil(Kind::Bool, 2).is_err());
    assert!(coil(Kind::Int, 17).is_err());
    assert!(coil(Kind::Text, 1).is_err());
    for kind in [Kind::Float, Kind::Double] {
        assert!(coil(kind, 1).unwrap_err().contains("make the property a BOOLEAN"));
    }
    let as_float = [("register", "DiscreteInputRegister"), ("dataType", "float")];
    let as_float = as_float.map(|(key, text)| (key, Scalar::Text(text.to_owned())));
    assert!(read(Kind::Int, &as_float).unwrap_err().contains("`dataType` is `float`"));
}

#[test]
fn a_scale_of_zero_is_refused_by_name_and_none_is_one() {
    let scaled = |scale: Scalar| read(Kind::Int, &[holding(1, ""), vec![("scale", scale)]].concat());
    for zero in [Scalar::Int(0), Scalar::Float(0.0), Scalar::Text("0".to_owned())] {
        assert!(scaled(zero).unwrap_err().contains("`scale` is 0; write a number other than 0"));
    }
    assert_eq!(scaled(Scalar::Float(1.0)).unwrap().encoding.scale, Scale::ONE);
    assert_eq!(read(Kind::Int, &holding(1, "")).unwrap().encoding.scale, Scale::ONE);
}

#[test]
fn addresses_end_where_the_table_does() {
    let at = |offset| {
        let register = Scalar::Text("inputregister".to_owned());
        read(Kind::Float, &[("register", register), ("offset", Scalar::Int(offset))])
    };
    assert!(at(65_534).is_ok());
    assert!(at(65_535).unwrap_err().contains("65535"));
    assert!(at(-1).is_err());
    assert!(read(Kind::Int, &[]).unwrap_err().contains("`register`"));
}
