use super::*;
use proptest::prelude::*;

fn will(topic: &str, payload: &[u8]) -> Will {
    let publish = Publish {
        topic: topic.to_owned(),
        payload: Bytes::copy_from_slice(payload),
        qos: 1,
        retain: true,
        dup: false,
        pkid: 0,
        alias: None,
        expiry: None,
        properties: Bytes::new(),
    };
    Will { publish, delay: 0 }
}

fn taken(wills: &mut Wills, forgotten: &[&str]) -> Vec<String> {
    let forgotten: Vec<ClientId> = forgotten.iter().map(|client| (*client).into()).collect();
    let mut writes = Vec::new();
    wills.take_writes(&forgotten, &mut writes);
    let shown = writes.into_iter().map(|write| match write {
        Write::PutRow { table: Table::MqttSessions, key1, key2, .. } => format!("put {key1} {key2}"),
        Write::DeleteRow { table: Table::MqttSessions, key1, key2 } => format!("delete {key1} {key2}"),
        other => panic!("{other:?}"),
    });
    shown.collect()
}

#[test]
fn the_bytes_of_version_1_are_frozen() {
    let plain = b"\x01\x05\0\0\0\0\0\0\0\0\x00\x03fp/\0\0\0\0gone";
    assert_eq!(to_bytes(&will("fp/", b"gone"), &Proof::None), plain);
    let publish = Publish {
        qos: 2,
        retain: false,
        expiry: Some(0x102),
        properties: Bytes::from_static(&[1, 1]),
        ..will("é", b"").publish
    };
    let full = Will { publish, delay: 0x304 };
    let bytes = b"\x01\x1a\0\0\x03\x04\0\0\x01\x02\x00\x02\xc3\xa9\0\0\0\x02\x01\x01";
    assert_eq!(to_bytes(&full, &Proof::Password), bytes);
    assert_eq!(from_bytes(bytes), Some((full.clone(), Proof::Password)));
    // A later version, a QoS and a flag that there are not, a topic that nobody publishes on.
    for (place, byte) in [(0, 2), (1, 3), (1, 0x28), (1, 0x40), (14, b'#')] {
        let mut other = plain.to_vec();
        other[place] = byte;
        assert_eq!(from_bytes(&other), None, "{place}");
    }
    // With a payload behind the certificates.
    let full = Will { publish: Publish { payload: Bytes::from_static(b"!"), ..full.publish }, ..full };
    let certified = Proof::Certificate([b"abc".to_vec(), Vec::new()].into());
    let bytes = b"\x01\x32\0\0\x03\x04\0\0\x01\x02\x00\x02\xc3\xa9\0\0\0\x02\x01\x01\x02\0\x03abc\0\0!";
    assert_eq!(to_bytes(&full, &certified), bytes);
    assert_eq!(from_bytes(bytes), Some((full, certified)));
}

#[test]
fn only_what_changes_is_written_and_only_what_was_written_is_deleted() {
    let (a, b): (ClientId, ClientId) = ("a".into(), "b".into());
    let mut wills = Wills::default();
    // One without a will costs nothing, nor does one that says goodbye before the commit.
    wills.remove(&a);
    assert_eq!(wills.to_store(), (false, false));
    wills.put(&b, Rc::new(will("t", b"x")), Proof::None);
    wills.remove(&b);
    assert_eq!(taken(&mut wills, &[]), [""; 0]);

    let first = Rc::new(will("t", b"x"));
    wills.put(&a, Rc::clone(&first), Proof::None);
    assert_eq!((wills.to_store(), taken(&mut wills, &[])), ((true, true), vec!["put a w".to_owned()]));
    // The same again is in the store; that of the connection before says nothing about it any more.
    let again = Rc::new(will("t", b"x"));
    wills.put(&a, Rc::clone(&again), Proof::None);
    wills.done(&a, &first);
    assert_eq!((wills.to_store(), wills.len()), ((false, false), 1));
    wills.put(&a, Rc::new(will("t", b"other")), Proof::None);
    wills.done(&a, &again);
    assert_eq!(taken(&mut wills, &[]), ["put a w"]);
    // All rows of its session go, and the will stays to be published.
    assert_eq!(taken(&mut wills, &["a", "b"]), ["put a w"]);
    wills.remove(&a);
    assert_eq!(wills.to_store(), (true, false));
    let mut writes = Vec::new();
    let clients = wills.take_writes(&[], &mut writes);
    wills.not_written(clients);
    assert_eq!((wills.to_store(), taken(&mut wills, &[])), ((true, true), vec!["delete a w".to_owned()]));
}

#[test]
fn wills_have_a_budget_that_is_shared_and_a_will_beyond_it_leaves_no_older_one() {
    let mut wills = Wills::default();
    wills.quota(Quotas { users: true });
    let large = |client: &str, wills: &mut Wills| {
        wills.put(&client.into(), Rc::new(will("t", &vec![b'x'; 64 << 10])), Proof::None)
    };
    let anonymous = (0..64).filter(|n| large(&format!("n{n}"), &mut wills)).count();
    assert_eq!(anonymous, plan::WILL_BYTES / 2 / ((64 << 10) + OVERHEAD + 1));
    assert!(large("user=plc;a", &mut wills));
    // The same size in the place of the old one has room.
    assert!(large("n0", &mut wills));
    wills.put(&"n63".into(), Rc::new(will("t", b"x")), Proof::None);
    taken(&mut wills, &[]);
    assert!(!large("n63", &mut wills));
    assert_eq!(taken(&mut wills, &[]), ["delete n63 w"]);
}

proptest! {
    #[test]
    fn what_was_written_is_read_again_and_no_bytes_panic(
        payload in proptest::collection::vec(any::<u8>(), 0..40),
        properties in proptest::collection::vec(any::<u8>(), 0..40),
        qos in 0u8..3, retain: bool, proved in 0u8..3, delay: u32, expiry in proptest::option::of(any::<u32>()),
        noise in proptest::collection::vec(any::<u8>(), 0..60),
    ) {
        let publish = Publish { qos, retain, expiry, properties: properties.into(), ..will("a/b", &payload).publish };
        let will = Will { publish, delay };
        let proof = match proved {
            0 => Proof::None,
            1 => Proof::Password,
            _ => Proof::Certificate([noise.clone(), payload.clone()].into()),
        };
        prop_assert_eq!(from_bytes(&to_bytes(&will, &proof)), Some((will, proof)));
        let _ = from_bytes(&noise);
    }
}
