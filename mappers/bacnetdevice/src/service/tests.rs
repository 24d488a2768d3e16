use super::*;

fn object(object_type: u16, instance: u32) -> ObjectId {
    ObjectId::new(object_type, instance).unwrap()
}

#[test]
fn requests_are_as_the_standards_examples_show_them() {
    // F.3.5: the present value of analog input 5.
    let input = Target::of(object(0, 5), 85);
    assert_eq!(read(&input), [0x0C, 0, 0, 0, 5, 0x19, 0x55]);
    // F.3.7: present value and reliability of analog input 16.
    let of = |property| Target::of(object(0, 16), property);
    assert_eq!(read_many(&[of(85), of(103)]), [0x0C, 0, 0, 0, 0x10, 0x1E, 0x09, 0x55, 0x09, 0x67, 0x1F]);
    let several = read_many(&[of(85), Target::of(object(0, 17), 85), of(85)]);
    assert_eq!(several.iter().filter(|byte| **byte == 0x1E).count(), 3);
    // F.3.9: 180.0 into the present value of analog value 1.
    let written = write(&Target::of(object(2, 1), 85), &Primitive::Real(180.0), None);
    assert_eq!(written, [0x0C, 0, 0x80, 0, 1, 0x19, 0x55, 0x3E, 0x44, 0x43, 0x34, 0, 0, 0x3F]);
    let element = Target { index: Some(3), ..Target::of(object(2, 1), 87) };
    let relinquished = write(&element, &Primitive::Null, Some(8));
    assert_eq!(relinquished, [0x0C, 0, 0x80, 0, 1, 0x19, 87, 0x29, 3, 0x3E, 0, 0x3F, 0x49, 8]);
    // F.1.10: process 18, analog input 10, with confirmation, no end; ours has one.
    assert_eq!(subscribe(18, object(0, 10), Some(60)), [0x09, 0x12, 0x1C, 0, 0, 0, 0x0A, 0x29, 1, 0x39, 60]);
    assert_eq!(subscribe(18, object(0, 10), None), [0x09, 0x12, 0x1C, 0, 0, 0, 0x0A]);
    // F.4.9: device 3.
    assert_eq!(who_is(3), [0x10, 0x08, 0x09, 3, 0x19, 3]);
}

#[test]
fn answers_are_as_the_standards_examples_show_them() {
    // F.3.5: 72.3.
    let input = Target::of(object(0, 5), 85);
    let ack = [0x0C, 0, 0, 0, 5, 0x19, 0x55, 0x3E, 0x44, 0x42, 0x90, 0x99, 0x9A, 0x3F];
    assert_eq!(value(&ack, &input), Ok(Primitive::Real(72.3)));
    for other in
        [Target::of(object(0, 6), 85), Target::of(object(0, 5), 28), Target { index: Some(1), ..input }]
    {
        assert!(value(&ack, &other).unwrap_err().contains("something else"));
    }
    // F.3.7: values of three inputs, the second of which is not there.
    let ack = [
        0x0C, 0, 0, 0, 0x21, 0x1E, 0x29, 0x55, 0x4E, 0x44, 0x42, 0x29, 0, 0, 0x4F, 0x1F, //
        0x0C, 0, 0, 0, 0x32, 0x1E, 0x29, 0x55, 0x5E, 0x91, 1, 0x91, 0x1F, 0x5F, 0x1F, //
        0x0C, 0, 0, 0, 0x23, 0x1E, 0x29, 0x55, 0x4E, 0x44, 0x43, 0xD9, 0xD9, 0x9A, 0x4F, 0x1F,
    ];
    let found = values(&ack).unwrap();
    let shown = found.iter().map(|(target, outcome)| (target.object.instance, outcome.map(Primitive::only)));
    assert_eq!(
        shown.collect::<Vec<_>>(),
        [(33, Ok(Ok(Primitive::Real(42.25)))), (50, Err((1, 31))), (35, Ok(Ok(Primitive::Real(435.7))))]
    );
    // F.4.9: device 3, 1024 bytes.
    let said = [0xC4, 2, 0, 0, 3, 0x22, 4, 0, 0x91, 3, 0x21, 0x63];
    assert_eq!(i_am(&said), Some(IAm { instance: 3, apdu: 1024 }));
    assert_eq!(i_am(&said[..5]), None);
    assert_eq!(i_am(&[0xC4, 0, 0, 0, 3, 0x22, 4, 0]), None, "that is no device");
    // F.1.2: analog input 10 of device 4 has 65.0, and no flag.
    let told = [
        0x09, 0x12, 0x1C, 2, 0, 0, 4, 0x2C, 0, 0, 0, 0x0A, 0x39, 0, 0x4E, 0x09, 0x55, 0x2E, 0x44, 0x42, 0x82,
        0, 0, 0x2F, 0x09, 0x6F, 0x2E, 0x82, 4, 0, 0x2F, 0x4F,
    ];
    assert_eq!(
        notification(&told),
        Ok(Notification {
            process: 18,
            object: object(0, 10),
            value: Some(Ok(Primitive::Real(65.0))),
            flags: Some(Primitive::Bits(vec![false; 4])),
        })
    );
    for length in 0..told.len() {
        notification(&told[..length]).unwrap_err();
    }
}

#[test]
fn any_device_is_answered_by_one_device() {
    let asked = Target::of(object(8, ANY_INSTANCE), 62);
    let ack = [0x0C, 2, 0, 0, 7, 0x19, 62, 0x3E, 0x22, 5, 0xC4, 0x3F];
    assert_eq!(value(&ack, &asked), Ok(Primitive::Unsigned(1476)));
    let input = [0x0C, 0, 0, 0, 7, 0x19, 62, 0x3E, 0x22, 5, 0xC4, 0x3F];
    value(&input, &asked).unwrap_err();
}

proptest::proptest! {
    #[test]
    fn nothing_that_comes_ends_the_mapper(body: Vec<u8>) {
        drop((value(&body, &Target::of(object(0, 5), 85)), i_am(&body), notification(&body)));
        for found in [values(&body), values(&[&[0x0C, 0, 0, 0, 5, 0x1E][..], &body, &[0x1F]].concat())].into_iter().flatten() {
            assert!(found.len() <= body.len());
        }
        drop(apdu::understood(&body));
    }
}
