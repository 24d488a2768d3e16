//! The broker between a real router and clients without sockets.

use super::*;
use crate::error::RouterError;
use crate::events;
use crate::packet::{FilterRequest, Version};
use crate::rumqttd_router::RouterRx;
use crate::topic;
use bytes::Bytes;
use edge_store::{Row, Table, Write};

fn message(topic: &str, payload: &str) -> Message {
    Message::of_node(topic.into(), Bytes::copy_from_slice(payload.as_bytes()), 1, false)
}

fn asks(filter: &str, qos: u8) -> FilterRequest {
    let (no_local, retain_as_published, retain_handling) = (false, false, 0);
    FilterRequest { filter: filter.into(), qos, no_local, retain_as_published, retain_handling }
}

fn with_router() -> (Broker, RouterRx) {
    with_small_router(rumqttd_router::CAPS)
}

fn with_small_router(caps: RouterCaps) -> (Broker, RouterRx) {
    let mut broker = Broker::new(Retained::default(), caps, Acl::KubeEdge);
    let (router_tx, router_rx) = rumqttd_router::start().unwrap();
    broker.router_started(router_tx);
    (broker, router_rx)
}

fn client(broker: &mut Broker, name: &str, filters: &[&str]) -> (ClientId, Rc<ConnectionHandle>) {
    let id: ClientId = name.into();
    let (handle, _) = broker.attach(&id, true, ConnectInfo::default());
    for filter in filters {
        assert_eq!(broker.subscribe(&id, &asks(filter, 1), None), 1);
    }
    (id, handle)
}

fn payloads(broker: &mut Broker, (id, handle): &(ClientId, Rc<ConnectionHandle>)) -> Vec<String> {
    let mut seen = Vec::new();
    loop {
        let mut out = BytesMut::new();
        broker.fill(id, handle, &mut out, Moment::default());
        if out.is_empty() {
            return seen;
        }
        while let Some(packet) = crate::packet::decode(&mut out, 1 << 20, Version::V311).unwrap() {
            if let crate::packet::Packet::Publish(publish) = packet {
                seen.push(String::from_utf8_lossy(&publish.payload).into_owned());
                broker.session_of(id, handle).unwrap().acknowledged(publish.pkid);
            }
        }
    }
}

async fn settle(broker: &mut Broker, out: &mut RouterRx) {
    while broker.owed().is_some() {
        let found = tokio::time::timeout(std::time::Duration::from_secs(10), out.next()).await;
        broker.matched(found.unwrap().unwrap());
    }
}

fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
}

#[test]
fn many_messages_through_small_logs_all_arrive_once_and_in_order() {
    run(async {
        let (mut broker, mut out) = with_router();
        let all = client(&mut broker, "all", &["#", "t/+", "$hw/#"]);
        let one = client(&mut broker, "one", &["t/é"]);
        let mut wanted = Vec::new();
        for round in 0..20 {
            for n in 0..100 {
                broker.publish(
                    message(if n % 2 == 0 { "t/é" } else { "$hw/x" }, &format!("{round}.{n}")),
                    false,
                );
                wanted.push(format!("{round}.{n}"));
            }
            settle(&mut broker, &mut out).await;
            assert_eq!(payloads(&mut broker, &all), wanted);
            assert_eq!(payloads(&mut broker, &one).len(), 50);
            wanted.clear();
        }
    });
}

#[test]
fn a_dead_router_loses_nothing_and_a_new_one_goes_on() {
    run(async {
        let (mut broker, mut out) = with_router();
        let one = client(&mut broker, "one", &["a/#", "a/b"]);
        broker.kill_router();
        let wanted: Vec<String> = (0..60).map(|n| n.to_string()).collect();
        for n in &wanted {
            broker.publish(message("a/b", n), false);
        }
        assert!(out.next().await.is_err());
        broker.router_died(&RouterError::Stalled);
        broker.publish(message("a/b", "between"), false);
        let (router_tx, mut out) = rumqttd_router::start().unwrap();
        broker.router_started(router_tx);
        broker.publish(message("a/b", "after"), false);
        assert!(broker.owed().is_some(), "the new router is not used");
        settle(&mut broker, &mut out).await;
        let mut wanted = wanted;
        wanted.extend(["between".to_owned(), "after".to_owned()]);
        assert_eq!(payloads(&mut broker, &one), wanted);
    });
}

#[test]
fn filters_and_topics_beyond_the_routers_are_served_all_the_same() {
    run(async {
        let (mut broker, mut out) = with_router();
        let names: Vec<String> = (0..rumqttd_router::CAPS.filters + 20).map(|n| format!("f/{n}")).collect();
        let mut clients = Vec::new();
        for (n, part) in names.chunks(plan::SUBSCRIPTIONS).enumerate() {
            let part: Vec<&str> = part.iter().map(String::as_str).collect();
            clients.push(client(&mut broker, &n.to_string(), &part));
        }
        let all = client(&mut broker, "all", &["f/#"]);
        for name in &names {
            broker.publish(message(name, name), false);
        }
        settle(&mut broker, &mut out).await;
        let mut seen = Vec::new();
        for one in &clients {
            seen.extend(payloads(&mut broker, one));
        }
        seen.sort();
        let mut wanted = names.clone();
        wanted.sort();
        assert_eq!(seen, wanted);
        assert_eq!(payloads(&mut broker, &all).len(), names.len());
    });
}

#[test]
fn a_filter_that_is_left_while_messages_are_under_way_owes_nothing() {
    run(async {
        let (mut broker, mut out) = with_router();
        let one = client(&mut broker, "one", &["a"]);
        let two = client(&mut broker, "two", &["+"]);
        for n in 0..200 {
            broker.publish(message("a", &n.to_string()), false);
        }
        broker.unsubscribe(&one.0, "a");
        settle(&mut broker, &mut out).await;
        assert_eq!(payloads(&mut broker, &two).len(), 200);
        broker.detach(&two.0, &two.1, Moment::default());
        broker.publish(message("a", "x"), false);
        assert!(broker.owed().is_none());
        assert_eq!(broker.sizes(), (1, 1, 0));
    });
}

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

/// What the store has of a broker, in the order of its keys.
fn rows_of(broker: &mut Broker, rows: &mut BTreeMap<(String, String), Vec<u8>>) {
    let mut batch = broker.take_batch(crate::message::Clocks::default());
    for write in std::mem::take(&mut batch.writes) {
        match write {
            Write::PutRow { table: Table::MqttSessions, key1, key2, value } => {
                drop(rows.insert((key1, key2), value))
            }
            Write::DeleteRow { table: Table::MqttSessions, key1, key2 } => drop(rows.remove(&(key1, key2))),
            Write::DeleteRows { table: Table::MqttSessions, key1 } => {
                rows.retain(|(client, _), _| *client != key1)
            }
            _ => {}
        }
    }
}

fn restarted(rows: &BTreeMap<(String, String), Vec<u8>>) -> Broker {
    let row = |((key1, key2), value): (&(String, String), &Vec<u8>)| Row {
        key1: key1.clone(),
        key2: key2.clone(),
        value: value.clone(),
        revision: 1,
    };
    let mut broker = Broker::new(Retained::default(), rumqttd_router::CAPS, Acl::KubeEdge);
    broker.restore(rows.iter().map(row).collect(), crate::message::Clocks::default());
    broker
}

#[test]
fn sessions_come_back_from_the_store_as_they_were() {
    let mut rows = BTreeMap::new();
    let mut broker = Broker::new(Retained::default(), rumqttd_router::CAPS, Acl::KubeEdge);
    let id: ClientId = "keeper".into();
    let (handle, _) = broker.attach(&id, false, ConnectInfo::default());
    for filter in ["t/#", "gone", "$share/g/s"] {
        broker.subscribe(&id, &asks(filter, 2), None);
    }
    let clean = client(&mut broker, "clean", &["t/#"]);
    rows_of(&mut broker, &mut rows);
    broker.unsubscribe(&id, "gone");
    for (n, qos) in [(1, 1), (2, 2), (3, 0), (4, 2), (5, 1)] {
        let published = broker.publish(Message { qos, ..message("t/x", &n.to_string()) }, false);
        assert_eq!(published.queued.is_some(), qos > 0);
    }
    let mut out = BytesMut::new();
    broker.fill(&id, &handle, &mut out, Moment::default());
    // 1 is acknowledged; 2 was received; 4 is on its way.
    let session = broker.session_of(&id, &handle).unwrap();
    session.unreleased.begin(9);
    let pkid_of = |wanted: &str| {
        let mut all = out.clone();
        loop {
            match crate::packet::decode(&mut all, 99, Version::V311).unwrap().unwrap() {
                crate::packet::Packet::Publish(it) if it.payload == wanted.as_bytes() => return it.pkid,
                _ => {}
            }
        }
    };
    session.acknowledged(pkid_of("1"));
    assert!(session.received(pkid_of("2"), false));
    broker.note_row(&id, &handle, crate::session::RowKey::Unreleased(9));
    rows_of(&mut broker, &mut rows);
    assert!(!broker.to_store().0);
    assert_eq!(rows.keys().filter(|(client, _)| client == "clean").count(), 0);

    let mut broker = restarted(&rows);
    assert_eq!(broker.sizes(), (0, 1, 2));
    broker.publish(message("t/x", "6"), false);
    broker.publish(message("s", "7"), false);
    let (handle, known) = broker.attach(&id, false, ConnectInfo::default());
    assert!(known);
    assert_eq!(broker.session_of(&id, &handle).unwrap().unreleased.pkids(), [9]);
    let mut again = BytesMut::new();
    broker.fill(&id, &handle, &mut again, Moment::default());
    let mut heard = Vec::new();
    while let Some(packet) = crate::packet::decode(&mut again, 99, Version::V311).unwrap() {
        heard.push(match packet {
            crate::packet::Packet::Publish(it) => (
                String::from_utf8(it.payload.to_vec()).unwrap(),
                it.qos,
                it.dup,
                (it.qos == 2).then_some(it.pkid),
            ),
            crate::packet::Packet::PubRel(pkid) => ("PUBREL".to_owned(), 2, false, Some(pkid)),
            other => panic!("{other:?}"),
        });
    }
    let said = |payload: &str, qos, dup, pkid| (payload.to_owned(), qos, dup, pkid);
    assert_eq!(
        heard[..3],
        [
            said("PUBREL", 2, false, Some(pkid_of("2"))),
            said("4", 2, true, Some(pkid_of("4"))),
            said("5", 1, true, None),
        ]
    );
    let rest: Vec<&str> = heard[3..].iter().map(|(payload, ..)| payload.as_str()).collect();
    assert_eq!(rest, ["6", "7"]);
    drop(clean);

    // A clean session takes its rows away.
    broker.attach(&id, true, ConnectInfo::default());
    rows_of(&mut broker, &mut rows);
    assert_eq!(rows.len(), 0);
}

#[test]
fn what_the_store_does_not_take_is_tried_again() {
    let mut broker = Broker::new(Retained::default(), rumqttd_router::CAPS, Acl::KubeEdge);
    let id: ClientId = "keeper".into();
    let (handle, _) = broker.attach(&id, false, ConnectInfo::default());
    broker.subscribe(&id, &asks("t", 1), None);
    broker.publish(message("t", "x"), false);
    let mut batch = broker.take_batch(crate::message::Clocks::default());
    let first = std::mem::take(&mut batch.writes);
    assert!(!broker.to_store().0);
    broker.not_taken(batch);
    let mut rows = BTreeMap::new();
    assert_eq!((broker.to_store(), first.len()), ((true, true), 3));
    rows_of(&mut broker, &mut rows);
    assert_eq!((rows.len(), restarted(&rows).sizes()), (3, (0, 1, 1)));
    drop(handle);
}

#[test]
fn a_session_ends_in_its_time_and_its_will_is_published_then_or_before() {
    let at = |seconds: u64| Moment(std::time::Duration::from_secs(seconds));
    let mut broker = Broker::new(Retained::default(), rumqttd_router::CAPS, Acl::KubeEdge);
    let will = |payload: &'static [u8]| crate::packet::Publish {
        topic: "will".into(),
        payload: Bytes::from_static(payload),
        qos: 0,
        retain: false,
        dup: false,
        pkid: 0,
        alias: None,
        expiry: None,
        properties: Bytes::new(),
    };
    let info = || ConnectInfo { version: Version::V5, session_expiry: Some(30), ..ConnectInfo::default() };
    for (name, due) in [("back", 20), ("late", 20), ("long", 90)] {
        let id: ClientId = name.into();
        let (handle, _) = broker.attach(&id, false, info());
        broker.detach(&id, &handle, at(100));
        broker.delay_will(&id, will(name.as_bytes()), at(100 + due));
    }
    let wills = |(wills, next): (Vec<(ClientId, crate::packet::Publish)>, Option<Moment>)| {
        (wills.into_iter().map(|(client, _)| client.to_string()).collect::<Vec<_>>(), next)
    };
    assert_eq!(wills(broker.sweep(at(110))), (vec![], Some(at(120))));
    assert!(broker.attach(&"back".into(), false, info()).1);
    assert_eq!(wills(broker.sweep(at(120))), (vec!["late".into()], Some(at(130))));
    assert_eq!(wills(broker.sweep(at(130))), (vec!["long".into()], None));
    assert_eq!((broker.sizes().1, broker.counts.of(events::SESSION_EXPIRED)), (1, 2));
}

#[test]
fn the_session_that_was_away_longest_makes_room() {
    let mut broker = Broker::new(Retained::default(), rumqttd_router::CAPS, Acl::KubeEdge);
    for n in 0..=plan::SESSIONS {
        let id: ClientId = n.to_string().into();
        let (handle, present) = broker.attach(&id, false, ConnectInfo::default());
        assert!(!present);
        broker.detach(&id, &handle, Moment::default());
    }
    assert_eq!(broker.sizes().1, plan::SESSIONS);
    assert!(
        broker.attach(&"1".into(), false, ConnectInfo::default()).1
            && !broker.attach(&"0".into(), false, ConnectInfo::default()).1
    );
}

/// Settles, and replaces the router whenever it is full, as the actor does.
async fn settle_anew(broker: &mut Broker, out: &mut RouterRx) {
    settle(broker, out).await;
    if broker.router_is_full() {
        let (router_tx, fresh) = rumqttd_router::start().unwrap();
        broker.router_replaced(router_tx);
        *out = fresh;
    }
}

#[test]
fn a_router_full_of_topics_is_replaced_and_every_message_arrives_once_and_in_order() {
    run(async {
        let (mut broker, mut out) = with_small_router(RouterCaps { topics: 50, ..rumqttd_router::CAPS });
        let all = client(&mut broker, "all", &["t/#", "t/+/x"]);
        broker.publish(message("kept", "kept"), true);
        for round in 0..100 {
            let wanted: Vec<String> = (0..10).map(|n| format!("{round}.{n}")).collect();
            for payload in &wanted {
                broker.publish(message(&format!("t/{payload}/x"), payload), false);
                broker.publish(message("t/same", "same"), false);
            }
            settle_anew(&mut broker, &mut out).await;
            let wanted: Vec<&str> = wanted.iter().flat_map(|payload| [payload, "same"]).collect();
            assert_eq!(payloads(&mut broker, &all), wanted);
        }
        assert!(
            (15..=25).contains(&broker.counts.of(events::ROUTER_REPLACED)),
            "{}",
            broker.counts.of(events::ROUTER_REPLACED)
        );
        assert_eq!((broker.counts.of(events::ROUTER_DIED), broker.retained.len()), (0, 1));
        assert_eq!((broker.router_topics.len() <= 50, broker.pending.len(), broker.window), (true, 0, 0));
        let late = client(&mut broker, "late", &["kept"]);
        assert_eq!(payloads(&mut broker, &late), ["kept"]);
    });
}

#[test]
fn what_a_full_router_has_not_given_back_is_handed_out_without_it() {
    run(async {
        let (mut broker, mut out) = with_small_router(RouterCaps { topic_bytes: 20, ..rumqttd_router::CAPS });
        let one = client(&mut broker, "one", &["a", "b"]);
        for n in 0..300 {
            broker.publish(message("a", &n.to_string()), false);
        }
        assert!(broker.owed().is_some() && !broker.backlog.is_empty());
        broker.unsubscribe(&one.0, "b");
        let (router_tx, fresh) = rumqttd_router::start().unwrap();
        broker.router_replaced(router_tx);
        out = {
            drop(out);
            fresh
        };
        broker.publish(message("a", "after"), false);
        assert!(broker.owed().is_some(), "the new router is not used");
        settle(&mut broker, &mut out).await;
        let wanted: Vec<String> = (0..300).map(|n| n.to_string()).chain(["after".to_owned()]).collect();
        assert_eq!(payloads(&mut broker, &one), wanted);
    });
}

#[test]
fn a_router_full_of_filters_that_nobody_has_any_more_is_replaced() {
    run(async {
        let (mut broker, mut out) = with_small_router(RouterCaps { filters: 10, ..rumqttd_router::CAPS });
        let one = client(&mut broker, "one", &["lasting"]);
        for n in 0..100 {
            assert_eq!(broker.subscribe(&one.0, &asks(&format!("f/{n}"), 1), None), 1);
            broker.publish(message(&format!("f/{n}"), "x"), false);
            settle_anew(&mut broker, &mut out).await;
            assert_eq!(payloads(&mut broker, &one), ["x"]);
            broker.unsubscribe(&one.0, &format!("f/{n}"));
        }
        assert!(
            (8..=12).contains(&broker.counts.of(events::ROUTER_REPLACED)),
            "{}",
            broker.counts.of(events::ROUTER_REPLACED)
        );
        // As many as live are not helped by a new one: they are served without it.
        let many: Vec<String> = (0..20).map(|n| format!("m/{n}")).collect();
        let before = broker.counts.of(events::ROUTER_REPLACED);
        for filter in &many {
            assert_eq!(broker.subscribe(&one.0, &asks(filter, 1), None), 1);
            settle_anew(&mut broker, &mut out).await;
        }
        for filter in &many {
            broker.publish(message(filter, "y"), false);
        }
        settle_anew(&mut broker, &mut out).await;
        assert_eq!(payloads(&mut broker, &one).len(), 20);
        assert!(broker.counts.of(events::ROUTER_REPLACED) <= before + 1);
    });
}

#[test]
fn all_sessions_together_hold_no_more_than_the_bound_and_the_greediest_gives_way() {
    let mut broker = Broker::new(Retained::default(), rumqttd_router::CAPS, Acl::KubeEdge);
    let modest = client(&mut broker, "modest", &["little"]);
    let payload = "x".repeat(200 << 10);
    for n in 0..100 {
        let (id, topic): (ClientId, _) = (n.to_string().into(), format!("t/{n}"));
        let (handle, _) = broker.attach(&id, false, ConnectInfo::default());
        assert_eq!(broker.subscribe(&id, &asks(&topic, 1), None), 1);
        if n % 2 == 0 {
            broker.detach(&id, &handle, Moment::default());
        }
        broker.publish(message("little", "x"), false);
        for _ in 0..4 {
            broker.publish(message(&topic, &payload), false);
        }
        assert!(broker.sessions.values().map(Session::held).sum::<usize>() <= plan::HELD_BYTES);
    }
    assert!(
        broker.counts.of(events::QOS1_LOST) > 100 && broker.counts.of(events::CLIENT_CUT_OFF) > 10,
        "{:?}",
        broker.counts
    );
    assert_eq!(payloads(&mut broker, &modest).len(), 100);
    assert!(broker.sizes().1 > 20);
}

/// Deterministic noise: the sequence of splitmix64.
struct Rng(u64);

impl Rng {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % bound.max(1) as u64).unwrap()
    }
}

const NAMES: [&str; 6] = ["a/b", "a/c", "$hw/a", "\u{e9}/b", "b", "a"];
const FILTERS: [&str; 8] = ["#", "a/+", "a/#", "$hw/#", "+/b", "a/b", "+", "b"];

/// A client of the fuzz loop, and what it is owed.
struct Guest {
    id: ClientId,
    clean: bool,
    handle: Option<Rc<ConnectionHandle>>,
    filters: BTreeSet<&'static str>,
    /// What was published for it and has not come, in order.
    due: VecDeque<String>,
    /// What has come and is not acknowledged: these may come again.
    open: BTreeMap<u16, String>,
}

impl Guest {
    fn come(&mut self, broker: &mut Broker) {
        let (handle, _) = broker.attach(&self.id, self.clean, ConnectInfo::default());
        self.handle = Some(handle);
    }

    fn go(&mut self, broker: &mut Broker) {
        let Some(handle) = self.handle.take() else { return };
        broker.detach(&self.id, &handle, Moment::default());
        if self.clean {
            self.filters.clear();
            self.due.clear();
            self.open.clear();
        }
    }

    fn takes(&self, name: &str) -> bool {
        self.filters
            .iter()
            .any(|filter| topic::matches(&topic::router_form(filter), &topic::router_form(name)))
    }

    /// Reads what there is, and acknowledges `patience` out of ten.
    fn read(&mut self, broker: &mut Broker, noise: &mut Rng, patience: usize) {
        let Some(handle) = self.handle.clone() else { return };
        let mut out = BytesMut::new();
        broker.fill(&self.id, &handle, &mut out, Moment::default());
        while !out.is_empty() {
            let again = out[0] & 8 != 0;
            let packet = crate::packet::decode(&mut out, 1 << 20, Version::V311).unwrap().unwrap();
            let crate::packet::Packet::Publish(publish) = packet else { panic!("{packet:?}") };
            let payload = String::from_utf8(publish.payload.to_vec()).unwrap();
            if again {
                assert_eq!(self.open.get(&publish.pkid), Some(&payload));
            } else {
                assert_eq!(self.due.pop_front().as_ref(), Some(&payload), "{} on {}", self.id, publish.topic);
                assert!(self.open.insert(publish.pkid, payload).is_none(), "number used twice");
            }
        }
        assert!(self.open.len() <= plan::INFLIGHT);
        let known: Vec<u16> = self.open.keys().copied().collect();
        for pkid in known {
            if noise.below(10) < patience {
                self.open.remove(&pkid);
                broker.session_of(&self.id, &handle).unwrap().acknowledged(pkid);
            }
        }
        // Nonsense changes nothing.
        broker.session_of(&self.id, &handle).unwrap().acknowledged(60_000);
    }
}

/// Comings, goings, filters, publishes, half-read queues, full routers and dead ones, in any order: every message of
/// QoS 1 reaches every session that had a filter for it, in order, and again only if not acknowledged.
#[test]
fn whatever_clients_do_every_session_gets_what_it_is_owed() {
    run(async {
        for seed in 0..8 {
            let mut noise = Rng(seed);
            let (mut broker, mut out) =
                with_small_router(RouterCaps { filters: 6, topics: 5, topic_bytes: 1000 });
            let guest = |n: usize| Guest {
                id: n.to_string().into(),
                clean: n == 0,
                handle: None,
                filters: BTreeSet::new(),
                due: VecDeque::new(),
                open: BTreeMap::new(),
            };
            let mut guests: Vec<Guest> = (0..4).map(guest).collect();
            for guest in &mut guests {
                guest.come(&mut broker);
            }
            for step in 0..3000 {
                let who = noise.below(guests.len());
                let guest = guests.get_mut(who).unwrap();
                let filter = FILTERS[noise.below(FILTERS.len())];
                match noise.below(20) {
                    0 => {
                        settle_anew(&mut broker, &mut out).await;
                        guest.go(&mut broker);
                    }
                    1 | 2 => {
                        settle_anew(&mut broker, &mut out).await;
                        if guest.clean {
                            guest.go(&mut broker);
                        }
                        guest.come(&mut broker);
                    }
                    3 | 4 if guest.handle.is_some() => {
                        assert_eq!(broker.subscribe(&guest.id, &asks(filter, 2), None), 2);
                        guest.filters.insert(filter);
                    }
                    5 => {
                        settle_anew(&mut broker, &mut out).await;
                        if guest.handle.is_some() {
                            broker.unsubscribe(&guest.id, filter);
                            guest.filters.remove(filter);
                        }
                    }
                    6..=12 => {
                        let name = NAMES[noise.below(NAMES.len())];
                        let payload = format!("{seed}.{step}");
                        for guest in &mut guests {
                            if guest.takes(name) {
                                guest.due.push_back(payload.clone());
                            }
                        }
                        broker.publish(message(name, &payload), false);
                    }
                    13..=17 => {
                        let patience = noise.below(11);
                        guest.read(&mut broker, &mut noise, patience);
                    }
                    18 => settle_anew(&mut broker, &mut out).await,
                    _ => {
                        // One in many routers dies; what it was handed is not lost.
                        if noise.below(8) == 0 {
                            broker.router_died(&RouterError::Stalled);
                            let (router_tx, fresh) = rumqttd_router::start().unwrap();
                            broker.router_started(router_tx);
                            out = fresh;
                        }
                    }
                }
                let (_, sessions, subscriptions) = broker.sizes();
                assert!(sessions <= guests.len() && subscriptions <= guests.len() * FILTERS.len());
            }
            settle_anew(&mut broker, &mut out).await;
            for guest in &mut guests {
                if guest.handle.is_none() {
                    guest.come(&mut broker);
                }
                for _ in 0..200 {
                    guest.read(&mut broker, &mut noise, 10);
                }
                assert!(guest.due.is_empty(), "seed {seed}: {} is owed {:?}", guest.id, guest.due);
                assert!(guest.open.is_empty());
            }
            assert_eq!(
                (
                    broker.counts.of(events::QOS1_LOST),
                    broker.counts.of(events::CLIENT_CUT_OFF),
                    broker.pending.len()
                ),
                (0, 0, 0)
            );
            assert!(
                broker.counts.of(events::ROUTER_REPLACED) > 10,
                "{}",
                broker.counts.of(events::ROUTER_REPLACED)
            );
        }
    });
}
