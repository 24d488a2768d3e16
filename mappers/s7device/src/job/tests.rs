use super::*;

fn item(address: &str, bytes: usize) -> Item {
    Item { place: Place::parse(address).unwrap(), bytes }
}

/// An answer with these parameters and data to request 7.
fn answered(parameters: &[u8], data: &[u8]) -> Vec<u8> {
    let length = |part: &[u8]| u8::try_from(part.len()).unwrap();
    let head = [0x32, 3, 0, 0, 0, 7, 0, length(parameters), 0, length(data), 0, 0];
    [&head[..], parameters, data].concat()
}

#[test]
fn requests_are_as_every_implementation_has_them() {
    assert_eq!(setup(1, 480), [0x32, 1, 0, 0, 0, 1, 0, 8, 0, 0, 0xF0, 0, 0, 1, 0, 1, 1, 0xE0]);
    let wanted = [
        0x32, 1, 0, 0, 0, 2, 0, 26, 0, 0, 4, 2, // two values
        0x12, 10, 0x10, 2, 0, 4, 0, 1, 0x84, 0, 0, 32, // DB1.DBD4
        0x12, 10, 0x10, 2, 0, 1, 0, 0, 0x81, 0, 0, 8, // IB1
    ];
    assert_eq!(read(2, &[item("DB1.DBD4", 4), item("IB1", 1)]), wanted);
    let wanted = [
        0x32, 1, 0, 0, 0, 3, 0, 14, 0, 6, 5, 1, 0x12, 10, 0x10, 2, 0, 2, 0, 0, 0x83, 0, 0, 80, 0, 4, 0, 16,
        1, 2,
    ];
    assert_eq!(write(3, &item("MW10", 2).place, &[1, 2]), wanted);
    let bit = write(4, &item("M10.3", 1).place, &[1]);
    assert_eq!(bit[12..], [0x12, 10, 0x10, 1, 0, 1, 0, 0, 0x83, 0, 0, 83, 0, 3, 0, 1, 1]);
}

#[test]
fn as_many_values_are_asked_for_as_fit_into_the_pdu_both_ways() {
    let items = |bytes| vec![item("DB1.DBB0", bytes); 40];
    assert_eq!(fitting(&items(1), 960), 20, "no more, however large it is");
    assert_eq!(fitting(&items(1), 240), 19, "the request: 12 + 19 * 12");
    assert_eq!(fitting(&items(51), 240), 4, "the answer: 14 + 4 * (4 + 52)");
    assert_eq!(fitting(&items(500), 240), 1);
    assert_eq!((readable(240), writable(240)), (222, 205));
}

#[test]
fn answers_are_taken_apart() {
    let data = [0xFF, 4, 0, 8, 7, 0, 0x0A, 0, 0, 0, 0xFF, 9, 0, 2, 1, 2];
    let found = answer(&answered(&[4, 3], &data), 7, READ).unwrap();
    let items = [item("MB0", 1), item("DB9.DBW0", 2), item("MW2", 2)];
    assert_eq!(values(&found, &items), Ok(vec![Ok(vec![7]), Err(0x0A), Ok(vec![1, 2])]));
    let well = answer(&answered(&[5, 1], &[0xFF]), 7, WRITE).unwrap();
    assert_eq!(written(&well), Ok(None));
    let refused = answer(&answered(&[5, 1], &[5]), 7, WRITE).unwrap();
    assert_eq!(written(&refused), Ok(Some(5)));
    let setup = answer(&answered(&[0xF0, 0, 0, 1, 0, 1, 0, 240], &[]), 7, SETUP).unwrap();
    assert_eq!((agreed(&setup, 480), agreed(&setup, 200)), (Ok(240), Ok(200)));
}

#[test]
fn what_is_no_answer_is_known_for_that() {
    let right = answered(&[4, 1], &[0xFF, 4, 0, 8, 7]);
    let is_stranger =
        |pdu: &[u8], function| matches!(answer(pdu, 7, function), Err(NotAnswered::Stranger(_)));
    for length in 0..right.len() {
        assert!(is_stranger(&right[..length], READ), "{length} bytes of it");
    }
    assert!(is_stranger(&right, WRITE));
    assert!(answer(&right, 8, READ).is_err(), "another request's");
    let mut refused = right.clone();
    (refused[1], refused[10], refused[11]) = (2, 0x81, 4);
    assert_eq!(answer(&refused, 7, READ), Err(NotAnswered::Refused(0x8104)));
    let of = |data: &[u8]| answer(&answered(&[4, 1], data), 7, READ).unwrap();
    for data in
        [&[][..], &[0xFF, 4, 0], &[0xFF, 4, 0, 16, 1], &[0xFF, 4, 0, 16, 1, 2], &[0xFF, 4, 0xFF, 0xFF, 1]]
    {
        values(&of(data), &[item("MB0", 1)]).unwrap_err();
    }
    let small = answer(&answered(&[0xF0, 0, 0, 1, 0, 1, 0, 10], &[]), 7, SETUP).unwrap();
    agreed(&small, 480).unwrap_err();
}

proptest::proptest! {
    #[test]
    fn nothing_that_comes_ends_the_mapper(pdu: Vec<u8>, parameters in proptest::collection::vec(0..10u8, 0..9), data: Vec<u8>) {
        drop(answer(&pdu, 7, READ));
        let found = Answer { parameters, data };
        drop((agreed(&found, 480), written(&found), values(&found, &[item("MB0", 1), item("MW0", 2)])));
    }
}
