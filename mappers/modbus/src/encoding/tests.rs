use super::*;
use proptest::prelude::*;

fn encoding(kind: Kind, format: Format) -> Encoding {
    let words = format.words().unwrap_or(4);
    Encoding {
        kind,
        format,
        words,
        scale: Scale::ONE,
        swap_bytes: false,
        swap_words: false,
        bit: None,
        no_value: Vec::new(),
        charset: Charset::Utf8,
    }
}

fn swapped(encoding: Encoding, swap_bytes: bool, swap_words: bool) -> Encoding {
    Encoding { swap_bytes, swap_words, ..encoding }
}

#[test]
fn orders_are_as_devices_have_them() {
    // 0x01020304, in the four orders that are around: ABCD, BADC, CDAB, DCBA.
    let value = Ok(Value::Int(0x0102_0304));
    for (bytes, words, registers) in [
        (false, false, [0x0102, 0x0304]),
        (true, false, [0x0201, 0x0403]),
        (false, true, [0x0304, 0x0102]),
        (true, true, [0x0403, 0x0201]),
    ] {
        let encoding = swapped(encoding(Kind::Int, Format::U32), bytes, words);
        assert_eq!(encoding.decode(&registers), value);
        assert_eq!(encoding.encode(&Value::Int(0x0102_0304)), Ok(registers.to_vec()));
    }
}

#[test]
fn known_bit_patterns() {
    assert_eq!(encoding(Kind::Float, Format::F32).decode(&[0x41BC, 0x0000]), Ok(Value::Float(23.5)));
    assert_eq!(encoding(Kind::Double, Format::F64).decode(&[0xC004, 0, 0, 0]), Ok(Value::Double(-2.5)));
    assert_eq!(encoding(Kind::Int, Format::I16).decode(&[0xFFD8]), Ok(Value::Int(-40)));
    assert_eq!(encoding(Kind::Int, Format::U16).decode(&[0xFFD8]), Ok(Value::Int(65_496)));
    assert_eq!(encoding(Kind::Int, Format::I32).encode(&Value::Int(-1)), Ok(vec![0xFFFF, 0xFFFF]));
    assert_eq!(encoding(Kind::Bool, Format::U16).decode(&[2]), Ok(Value::Bool(true)));
    assert_eq!(encoding(Kind::Bool, Format::U16).encode(&Value::Bool(true)), Ok(vec![1]));
    let text = encoding(Kind::Text, Format::Text);
    assert_eq!(text.decode(&[0x4142, 0x4300, 0x4142, 0]), Ok(Value::Text("ABC".to_owned())));
    assert_eq!(text.encode(&Value::Text("ABC".to_owned())), Ok(vec![0x4142, 0x4300, 0, 0]));
}

#[test]
fn scaled_numbers_are_those_that_a_person_would_write() {
    let tenths = |kind, format| Encoding { scale: Scale::new(0.1).unwrap(), ..encoding(kind, format) };
    let double = tenths(Kind::Double, Format::I16);
    for (raw, shown) in [(235u16, "23.5"), (233, "23.3"), (3, "0.3"), (0xFFFF, "-0.1")] {
        assert_eq!(double.decode(&[raw]).unwrap().to_string(), shown);
    }
    assert_eq!(tenths(Kind::Float, Format::U16).encode(&Value::Float(23.5)), Ok(vec![235]));
    assert_eq!(tenths(Kind::Int, Format::U16).decode(&[289]), Ok(Value::Int(29)), "the nearest");
    assert_eq!(tenths(Kind::Int, Format::U16).encode(&Value::Int(29)), Ok(vec![290]));
    let hundred = Encoding { scale: Scale::new(100.0).unwrap(), ..encoding(Kind::Int, Format::U16) };
    assert_eq!(hundred.decode(&[7]), Ok(Value::Int(700)));
    assert_eq!(hundred.encode(&Value::Int(700)), Ok(vec![7]));
    let float = tenths(Kind::Float, Format::F32);
    assert_eq!(float.decode(&float.encode(&Value::Float(0.7)).unwrap()), Ok(Value::Float(0.7)));
    for bad in [0.0, f64::NAN, f64::INFINITY] {
        assert!(Scale::new(bad).is_err());
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let told = encoding(Kind::Int, Format::U16).encode(&Value::Int(999_990));
    assert_eq!(told, Err("999990 does not fit into uint16".to_owned()), "as the guide has the type");
    assert!(encoding(Kind::Int, Format::U16).encode(&Value::Int(-1)).is_err());
    assert!(encoding(Kind::Int, Format::I16).encode(&Value::Int(32_768)).is_err());
    assert!(encoding(Kind::Double, Format::F32).encode(&Value::Double(1e300)).is_err());
    assert!(encoding(Kind::Text, Format::Text).encode(&Value::Text("nine byte".to_owned())).is_err());
    assert!(encoding(Kind::Int, Format::U32).decode(&[1]).is_err());
    assert!(encoding(Kind::Text, Format::Text).decode(&[0xFFFF; 4]).is_err());
}

#[test]
fn no_value_is_told_from_a_value() {
    let marked = |encoding: Encoding, no_value: &[i128]| Encoding { no_value: no_value.to_vec(), ..encoding };
    let says_none = |encoding: &Encoding, registers: &[u16]| {
        matches!(encoding.decode(registers), Err(NotDecoded::NoValue(_)))
    };
    for nan in [[0x7FC0, 0], [0xFFC0, 1], [0xFFFF, 0xFFFF], [0x7F80, 0]] {
        assert!(says_none(&encoding(Kind::Float, Format::F32), &nan), "{nan:x?}");
    }
    assert!(says_none(&encoding(Kind::Double, Format::F64), &[0x7FF8, 0, 0, 0]));
    let word = encoding(Kind::Int, Format::U16);
    assert_eq!(word.decode(&[0xFFFF]), Ok(Value::Int(65_535)), "it may be a value");
    assert!(says_none(&marked(word.clone(), &[0x8000, 0xFFFF]), &[0xFFFF]));
    assert!(!says_none(&marked(word, &[0x8000, 0xFFFF]), &[0xFFFE]));
    let signed = encoding(Kind::Int, Format::I16);
    assert!(says_none(&marked(signed.clone(), &[0x8000]), &[0x8000]), "by its bits");
    assert!(says_none(&marked(signed, &[-32_768]), &[0x8000]), "by its number");
    let swapped = swapped(encoding(Kind::Int, Format::U32), false, true);
    assert!(says_none(&marked(swapped, &[0x8000_0000]), &[0, 0x8000]));
}

#[test]
fn all_64_bits_are_exact() {
    for number in [u64::MAX, u64::MAX - 1, 9_007_199_254_740_993] {
        let unsigned = encoding(Kind::Int, Format::U64);
        let registers = unsigned.encode(&Value::Int(number.into())).unwrap();
        assert_eq!(unsigned.decode(&registers), Ok(Value::Int(number.into())));
    }
    let tens = Encoding { scale: Scale::new(10.0).unwrap(), ..encoding(Kind::Int, Format::U64) };
    let registers = tens.encode(&Value::Int(9_007_199_254_740_993 * 10)).unwrap();
    assert_eq!(tens.decode(&registers), Ok(Value::Int(9_007_199_254_740_993 * 10)));
    assert!(matches!(tens.decode(&[0xFFFF; 4]), Err(NotDecoded::Wrong(_))));
}

#[test]
fn a_bit_of_a_register_is_a_truth() {
    let bit = Encoding { bit: Some(3), ..encoding(Kind::Bool, Format::U16) };
    assert_eq!(bit.decode(&[0b1000]), Ok(Value::Bool(true)));
    assert_eq!(bit.decode(&[0b0111]), Ok(Value::Bool(false)));
    assert_eq!(swapped(bit, true, false).decode(&[0b1000 << 8]), Ok(Value::Bool(true)));
}

#[test]
fn digits_and_letters_of_older_devices() {
    let bcd = Encoding { words: 2, ..encoding(Kind::Int, Format::Bcd) };
    assert_eq!(bcd.decode(&[0x1234, 0x5678]), Ok(Value::Int(12_345_678)));
    assert_eq!(bcd.encode(&Value::Int(42)), Ok(vec![0, 0x42]));
    assert!(bcd.encode(&Value::Int(100_000_000)).is_err() && bcd.encode(&Value::Int(-1)).is_err());
    assert!(matches!(bcd.decode(&[0, 0xA]), Err(NotDecoded::Wrong(_))));
    let latin = Encoding { charset: Charset::Latin1, ..encoding(Kind::Text, Format::Text) };
    assert_eq!(latin.decode(&[0x4DFC, 0x6C6C, 0x2020, 0x2020]), Ok(Value::Text("Müll".to_owned())));
    assert_eq!(latin.encode(&Value::Text("ü".to_owned())), Ok(vec![0xFC00, 0, 0, 0]));
    assert!(latin.encode(&Value::Text("€".to_owned())).is_err());
}

proptest! {
    #[test]
    fn whole_numbers_come_back(number in any::<i128>().prop_map(|number| number >> 63), bytes: bool, words: bool) {
        for (format, low, high) in [
            (Format::U16, 0, i128::from(u16::MAX)),
            (Format::I16, i128::from(i16::MIN), i128::from(i16::MAX)),
            (Format::U32, 0, i128::from(u32::MAX)),
            (Format::I32, i128::from(i32::MIN), i128::from(i32::MAX)),
            (Format::U64, 0, i128::from(u64::MAX)),
            (Format::I64, i128::from(i64::MIN), i128::from(i64::MAX)),
        ] {
            let encoding = swapped(encoding(Kind::Int, format), bytes, words);
            let inside = number.clamp(low, high);
            let registers = encoding.encode(&Value::Int(inside)).unwrap();
            prop_assert_eq!(registers.len(), usize::from(encoding.words));
            prop_assert_eq!(encoding.decode(&registers), Ok(Value::Int(inside)));
            prop_assert_eq!(encoding.encode(&Value::Int(number)).is_ok(), inside == number);
        }
    }

    #[test]
    fn numbers_come_back(number in any::<f32>(), wide in any::<f64>(), bytes: bool, words: bool) {
        let float = swapped(encoding(Kind::Float, Format::F32), bytes, words);
        let double = swapped(encoding(Kind::Double, Format::F64), bytes, words);
        if number.is_finite() {
            prop_assert_eq!(float.decode(&float.encode(&Value::Float(number)).unwrap()), Ok(Value::Float(number)));
        }
        if wide.is_finite() {
            prop_assert_eq!(double.decode(&double.encode(&Value::Double(wide)).unwrap()), Ok(Value::Double(wide)));
        }
    }

    #[test]
    fn scaled_registers_come_back(raw: u16, step in 0usize..6) {
        let factor = [0.001, 0.01, 0.1, 0.5, 2.0, 10.0][step];
        let scale = Scale::new(factor).unwrap();
        for format in [Format::U16, Format::I16] {
            let encoding = Encoding { scale, ..encoding(Kind::Double, format) };
            prop_assert_eq!(encoding.encode(&encoding.decode(&[raw]).unwrap()), Ok(vec![raw]));
        }
    }

    #[test]
    fn text_comes_back(text in "[a-zA-Z0-9 .:/-]{0,8}", bytes: bool, words: bool) {
        let encoding = swapped(encoding(Kind::Text, Format::Text), bytes, words);
        let kept = text.trim_end().to_owned();
        prop_assert_eq!(encoding.decode(&encoding.encode(&Value::Text(text)).unwrap()), Ok(Value::Text(kept)));
    }

    #[test]
    fn nothing_from_a_device_panics(registers in proptest::collection::vec(any::<u16>(), 0..6), at in 0usize..10, step in 0usize..5) {
        let formats = [
            Format::U16, Format::I16, Format::U32, Format::I32, Format::U64, Format::I64, Format::F32, Format::F64,
            Format::Text, Format::Bcd,
        ];
        let kinds = [Kind::Int, Kind::Float, Kind::Double, Kind::Bool, Kind::Text];
        let mut encoding = encoding(kinds[step], formats[at]);
        encoding.scale = Scale::new(1e300).unwrap();
        drop(encoding.decode(&registers));
        encoding.words = u16::try_from(registers.len()).unwrap();
        drop(encoding.decode(&registers));
    }
}
