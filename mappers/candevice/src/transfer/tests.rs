use super::*;

const OBJECT: Object = Object { index: 0x2001, sub: 3 };

fn reading() -> Transfer {
    let (transfer, first) = Transfer::read(OBJECT);
    assert_eq!(first, [0x40, 0x01, 0x20, 3, 0, 0, 0, 0]);
    transfer
}

fn done(bytes: &[u8], has_length: bool) -> Next {
    Next::Done { bytes: bytes.to_vec(), has_length }
}

#[test]
fn up_to_four_bytes_come_in_one_frame() {
    assert_eq!(reading().answered(&[0x4F, 0x01, 0x20, 3, 7, 0, 0, 0]), done(&[7], true));
    assert_eq!(reading().answered(&[0x43, 0x01, 0x20, 3, 1, 2, 3, 4]), done(&[1, 2, 3, 4], true));
    assert_eq!(reading().answered(&[0x42, 0x01, 0x20, 3, 1, 0, 0, 0]), done(&[1, 0, 0, 0], false));
    let (mut writing, first) = Transfer::write(OBJECT, vec![1, 2]);
    assert_eq!(first, [0x2B, 0x01, 0x20, 3, 1, 2, 0, 0]);
    assert_eq!(writing.answered(&[0x60, 0x01, 0x20, 3, 0, 0, 0, 0]), done(&[1, 2], true));
}

#[test]
fn more_comes_in_segments_both_ways() {
    let mut read = reading();
    assert_eq!(read.answered(&[0x41, 0x01, 0x20, 3, 9, 0, 0, 0]), Next::Send([0x60, 0, 0, 0, 0, 0, 0, 0]));
    assert_eq!(read.answered(&[0, 1, 2, 3, 4, 5, 6, 7]), Next::Send([0x70, 0, 0, 0, 0, 0, 0, 0]));
    assert_eq!(read.answered(&[0x1B, 8, 9, 0, 0, 0, 0, 0]), done(&[1, 2, 3, 4, 5, 6, 7, 8, 9], true));
    let (mut write, first) = Transfer::write(OBJECT, (1..=9).collect());
    assert_eq!(first, [0x21, 0x01, 0x20, 3, 9, 0, 0, 0]);
    assert_eq!(write.answered(&[0x60, 0x01, 0x20, 3, 0, 0, 0, 0]), Next::Send([0, 1, 2, 3, 4, 5, 6, 7]));
    assert_eq!(write.answered(&[0x20, 0, 0, 0, 0, 0, 0, 0]), Next::Send([0x1B, 8, 9, 0, 0, 0, 0, 0]));
    assert_eq!(write.answered(&[0x30, 0, 0, 0, 0, 0, 0, 0]), done(&[1, 2, 3, 4, 5, 6, 7, 8, 9], true));
    // Nothing at all is a text, too.
    let (mut empty, first) = Transfer::write(OBJECT, Vec::new());
    assert_eq!(first[..4], [0x21, 0x01, 0x20, 3]);
    assert_eq!(empty.answered(&[0x60, 0x01, 0x20, 3, 0, 0, 0, 0]), Next::Send([0x0F, 0, 0, 0, 0, 0, 0, 0]));
}

#[test]
fn what_belongs_to_another_is_waited_out_and_an_abort_ends_it() {
    let mut read = reading();
    assert_eq!(read.answered(&[0x4F, 0x02, 0x20, 3, 7, 0, 0, 0]), Next::Wait, "another object");
    assert_eq!(read.answered(&[0x80, 0x01, 0x20, 4, 0, 0, 2, 6]), Next::Wait, "another's abort");
    assert_eq!(read.answered(&[0x80, 0x01, 0x20, 3, 0, 0, 2, 6]), Next::Aborted(0x0602_0000));
    assert_eq!(reading().late(), [0x80, 0x01, 0x20, 3, 0, 0, 4, 5]);
}

#[test]
fn a_node_that_breaks_the_rules_is_told_so() {
    let gives_up = |next: Next, code: u32| match next {
        Next::GiveUp(payload, _) => assert_eq!(payload[4..], code.to_le_bytes()),
        other => panic!("{other:?}"),
    };
    gives_up(reading().answered(&[0x60, 0x01, 0x20, 3, 0, 0, 0, 0]), abort::UNKNOWN_COMMAND);
    gives_up(reading().answered(&[0x41, 0x01, 0x20, 3, 0, 0, 1, 0]), abort::NO_MEMORY);
    let begun = |size: u8| {
        let mut read = reading();
        read.answered(&[0x41, 0x01, 0x20, 3, size, 0, 0, 0]);
        read
    };
    gives_up(begun(9).answered(&[TOGGLE, 1, 2, 3, 4, 5, 6, 7]), abort::TOGGLE);
    gives_up(begun(5).answered(&[0, 1, 2, 3, 4, 5, 6, 7]), abort::LENGTH);
    gives_up(begun(9).answered(&[IS_LAST, 1, 2, 3, 4, 5, 6, 7]), abort::LENGTH);
    gives_up(begun(9).answered(&[7 << 1, 0, 0, 0, 0, 0, 0, 0]), abort::UNKNOWN_COMMAND);
    // It never ends, and does not say how long it is.
    let mut endless = reading();
    endless.answered(&[0x40, 0x01, 0x20, 3, 0, 0, 0, 0]);
    let mut toggle = 0;
    let last = (0..10_000).find_map(|_| {
        let next = endless.answered(&[toggle, 1, 2, 3, 4, 5, 6, 7]);
        toggle ^= TOGGLE;
        (!matches!(next, Next::Send(_))).then_some(next)
    });
    gives_up(last.unwrap(), abort::LENGTH);
}

proptest::proptest! {
    #[test]
    fn nothing_that_comes_ends_the_mapper(answers: Vec<[u8; 8]>, bytes: Vec<u8>) {
        for (mut transfer, _) in [Transfer::read(OBJECT), Transfer::write(OBJECT, bytes)] {
            for answer in &answers {
                let mut ours = *answer;
                (ours[1], ours[2], ours[3]) = (0x01, 0x20, 3);
                drop((transfer.answered(answer), transfer.answered(&ours)));
            }
            assert!(transfer.bytes.len() <= OBJECT_MAX.max(answers.len() * 14));
        }
    }
}
