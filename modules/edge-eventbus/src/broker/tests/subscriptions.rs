//! Who gets a message, how often, and the retained ones.

use super::*;

#[test]
fn too_many_subscriptions_and_wrong_ones_are_refused_by_their_codes() {
    let mut broker = Broker::new(Retained::default(), rumqttd_router::CAPS, Acl::KubeEdge);
    let (id, _) = client(&mut broker, "one", &[]);
    for n in 0..plan::SUBSCRIPTIONS {
        assert_eq!(broker.subscribe(&id, &asks(&n.to_string(), 2), None), 2);
    }
    assert_eq!(broker.subscribe(&id, &asks("more", 0), None), 0x97);
    assert_eq!(broker.subscribe(&id, &asks("7", 0), None), 0);
    for wrong in
        ["a#", "#/a", "$share/g", "$share//a", "$share/g/", "$share/g+/a", "$share/g/a/#/b", "$queue/a"]
    {
        assert_eq!(broker.subscribe(&id, &asks(wrong, 0), None), 0x8f, "{wrong}");
    }
    assert_eq!(broker.counts.of(events::SUBSCRIPTION_REFUSED), 9);
    assert!(broker.unsubscribe(&id, "7") && !broker.unsubscribe(&id, "7"));
    assert_eq!(broker.subscribe(&id, &asks("$share/g/more", 1), None), 1);
    assert!(broker.unsubscribe(&id, "$share/g/more"));
}

#[test]
fn each_message_goes_to_one_of_a_group_and_to_every_other_subscriber() {
    let mut broker = Broker::new(Retained::default(), rumqttd_router::CAPS, Acl::KubeEdge);
    broker.publish(message("t/0", "kept"), true);
    let members: Vec<_> = ["a", "b"].map(|name| client(&mut broker, name, &["$share/g/t/+"])).into();
    let other_group = client(&mut broker, "c", &["$share/h/t/+", "$share/h/t/#"]);
    let plain = client(&mut broker, "d", &["t/#"]);
    assert_eq!(payloads(&mut broker, &plain), ["kept"]);
    for n in 0..10 {
        broker.publish(message("t/1", &n.to_string()), false);
    }
    let (a, b) = (payloads(&mut broker, &members[0]), payloads(&mut broker, &members[1]));
    assert_eq!((a.len(), b.len()), (5, 5));
    let all: BTreeSet<String> = a.into_iter().chain(b).collect();
    assert_eq!(all.len(), 10);
    // Once for each filter of a group, and once for all that is not shared.
    assert_eq!((payloads(&mut broker, &other_group).len(), payloads(&mut broker, &plain).len()), (20, 10));
    // Who leaves takes no turn any more.
    broker.detach(&members[0].0, &members[0].1, Moment::default());
    for n in 0..4 {
        broker.publish(message("t/1", &n.to_string()), false);
    }
    assert_eq!(payloads(&mut broker, &members[1]).len(), 4);
}

#[test]
fn a_client_gets_one_copy_with_all_identifiers_and_none_of_its_own_where_it_says_so() {
    let mut broker = Broker::new(Retained::default(), rumqttd_router::CAPS, Acl::KubeEdge);
    let id: ClientId = "one".into();
    let info = ConnectInfo { version: Version::V5, session_expiry: Some(0), ..ConnectInfo::default() };
    let (handle, _) = broker.attach(&id, true, info);
    broker.subscribe(&id, &FilterRequest { retain_as_published: true, ..asks("t/#", 0) }, Some(7));
    broker.subscribe(&id, &FilterRequest { no_local: true, ..asks("t/+", 1) }, Some(300));
    let hear = |broker: &mut Broker| {
        let mut out = BytesMut::new();
        broker.fill(&id, &handle, &mut out, Moment::default());
        out.to_vec()
    };
    broker.publish(message("t/1", "x"), false);
    assert_eq!(hear(&mut broker), b"\x32\x0e\0\x03t/1\0\x01\x05\x0b\x07\x0b\xac\x02x");
    broker.publish(Message { from: Rc::clone(&id), retain: true, ..message("t/1", "y") }, false);
    assert_eq!(hear(&mut broker), b"\x31\x09\0\x03t/1\x02\x0b\x07y");
}

#[test]
fn any_number_of_retained_messages_come_to_a_slow_client_each_once_and_none_older_than_what_it_has() {
    run(async {
        let (mut broker, mut out) = with_router();
        for n in 0..1500 {
            broker.publish(message(&format!("t/{n:04}"), &n.to_string()), true);
        }
        let slow = client(&mut broker, "slow", &["t/#", "$none/#", "t/0007"]);
        let mut seen = payloads(&mut broker, &slow);
        assert_eq!(seen.pop().as_deref(), Some("7"));
        let wanted: Vec<String> = (0..1500).map(|n| n.to_string()).collect();
        assert_eq!(seen, wanted);
        // A message that is still with the router is older than the retained one that it left behind.
        assert_eq!(broker.subscribe(&slow.0, &asks("t/0007", 1), None), 1);
        broker.publish(message("t/0007", "first"), true);
        broker.publish(message("t/0007", "second"), true);
        assert_eq!(payloads(&mut broker, &slow), [""; 0]);
        settle(&mut broker, &mut out).await;
        assert_eq!(payloads(&mut broker, &slow), ["first", "second", "second"]);
    });
}
