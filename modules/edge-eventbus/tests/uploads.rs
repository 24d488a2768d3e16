//! What clients publish for the cloud: in the outbox before it is acknowledged, in order, and refused where there is no
//! room. The store is a real one, with bounds of its own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod node;

use std::time::Duration;

use contract::metamanager::MetaMsg;
use contract::{Telemetry, rows};
use edge_store::{Class, Options, Store, Write};
use node::{Node, SOON, connect, publish, run, run_over, subscribe};
use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Outgoing, Packet, QoS};

const UPLOAD: &str = "$hw/events/upload/line-1";
const RECORDS: &str = "SYS/dis/upload_records";
const USER: &str = "app/user/alarm";

fn client(node: &Node, id: &str) -> (AsyncClient, EventLoop) {
    let mut options = MqttOptions::new(id, "127.0.0.1", node.address.port());
    // Or rumqttc forgets what was not acknowledged.
    options.set_clean_session(false);
    options.set_inflight(10);
    AsyncClient::new(options, 1000)
}

async fn event(events: &mut EventLoop) -> Result<Event, rumqttc::ConnectionError> {
    tokio::time::timeout(SOON, events.poll()).await.expect("an event in time")
}

async fn until<T>(events: &mut EventLoop, wanted: impl Fn(Packet) -> Option<T>) -> T {
    loop {
        if let Event::Incoming(packet) = event(events).await.expect("a connection")
            && let Some(found) = wanted(packet)
        {
            return found;
        }
    }
}

fn uploaded(store: &Store) -> Vec<Telemetry> {
    let rows = store.outbox_head(usize::MAX, usize::MAX).unwrap();
    let telemetry = rows.iter().inspect(|row| assert_eq!(row.class, Class::Telemetry));
    telemetry.map(|row| rows::decode_telemetry(&row.body).unwrap()).collect()
}

/// As the cloud does when it has taken all.
async fn confirm(store: &Store) {
    let seqs = store.outbox_head(usize::MAX, usize::MAX).unwrap().iter().map(|row| row.seq).collect();
    store.commit(vec![Write::Confirm { seqs }]).await.unwrap();
}

fn bounded(rows: u64) -> Options {
    Options { outbox_rows: rows, ..Options::new([1; 16]) }
}

#[test]
fn a_publish_is_acknowledged_only_after_its_commit() {
    run_over(Options::new([1; 16]), |store, path| async move {
        let node = Node::start(store.clone()).await;
        let (client, mut events) = client(&node, "device");
        until(&mut events, |packet| matches!(packet, Packet::ConnAck(_)).then_some(())).await;
        let mut rows = 0;
        for topic in [UPLOAD, RECORDS, USER] {
            for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
                // Nobody commits while somebody else writes.
                let other = rusqlite::Connection::open(&path).unwrap();
                other.execute_batch("BEGIN IMMEDIATE").unwrap();
                client.publish(topic, qos, false, format!("{rows}")).await.unwrap();
                while !matches!(event(&mut events).await.unwrap(), Event::Outgoing(Outgoing::Publish(_))) {}
                let early = tokio::time::timeout(Duration::from_millis(100), events.poll()).await;
                assert!(early.is_err(), "{topic} at {qos:?}: {early:?} before the commit");
                assert_eq!(uploaded(&store).len(), rows);
                other.execute_batch("ROLLBACK").unwrap();
                let acknowledged =
                    |packet| matches!(packet, Packet::PubAck(_) | Packet::PubRec(_)).then_some(packet);
                let packet = until(&mut events, acknowledged).await;
                assert_eq!(matches!(packet, Packet::PubAck(_)), qos == QoS::AtLeastOnce, "{packet:?}");
                if qos == QoS::ExactlyOnce {
                    until(&mut events, |packet| matches!(packet, Packet::PubComp(_)).then_some(())).await;
                }
                rows += 1;
                let all = uploaded(&store);
                assert_eq!(all.len(), rows, "acknowledged before the commit");
                let last = all.last().unwrap();
                assert_eq!((last.client.as_str(), last.topic.as_str()), ("device", topic));
                assert_eq!(last.payload, format!("{}", rows - 1));
                assert_eq!((last.qos, last.dup), (qos as u8, false));
                assert_eq!(last.sequence, if qos == QoS::AtLeastOnce { 1 } else { 2 });
                assert!(matches!(node.told(SOON).await, Some(MetaMsg::OutboxGrew)));
            }
        }
        // What is not for the cloud stays here.
        client.publish("app/users/alarm", QoS::AtLeastOnce, false, "x").await.unwrap();
        until(&mut events, |packet| matches!(packet, Packet::PubAck(_)).then_some(())).await;
        assert_eq!(uploaded(&store).len(), rows);
        assert_eq!(node.view().await["uploaded"], rows);
    });
}

#[test]
fn a_publish_of_qos_2_whose_connection_breaks_before_it_is_kept_is_one_when_it_comes_again() {
    run_over(Options::new([1; 16]), |store, path| async move {
        let node = Node::start(store.clone()).await;
        let mut reader = node.client("reader").await;
        reader.send(&subscribe(UPLOAD, 0)).await;
        reader.expect(&[0x90, 3, 0, 9, 0]).await;
        // Nobody commits while somebody else writes.
        let other = rusqlite::Connection::open(&path).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let first = publish(UPLOAD, "cut off", 2, 7);
        let again = [&[first[0] | 0x08], &first[1..]].concat();
        let as_read = publish(UPLOAD, "cut off", 0, 0);
        let mut device = node.raw().await;
        device.send(&connect("device", false, 0, None)).await;
        device.expect(b"\x20\x02\0\0").await;
        device.send(&first).await;
        reader.expect(&as_read).await;
        drop(device);
        let mut device = node.raw().await;
        device.send(&connect("device", false, 0, None)).await;
        device.expect(b"\x20\x02\x01\0").await;
        device.send(&again).await;
        // It is read before this is answered.
        device.send(b"\xc0\0").await;
        device.expect(b"\xd0\0").await;
        other.execute_batch("ROLLBACK").unwrap();
        device.expect(b"\x50\x02\0\x07").await;
        // Nor does it come twice when it is sent once more, after that.
        device.send(&again).await;
        device.expect(b"\x50\x02\0\x07").await;
        assert_eq!(uploaded(&store).len(), 1);
        device.send(b"\x62\x02\0\x07").await;
        device.expect(b"\x70\x02\0\x07").await;
        device.send(&publish(UPLOAD, "next", 2, 7)).await;
        device.expect(b"\x50\x02\0\x07").await;
        reader.expect(&publish(UPLOAD, "next", 0, 0)).await;
        assert_eq!(uploaded(&store).len(), 2);
    });
}

#[test]
fn what_there_is_no_room_for_is_refused_and_comes_again_in_order() {
    run_over(bounded(30), |store, _| async move {
        let node = Node::start(store.clone()).await;
        let (client, mut events) = client(&node, "device");
        let (mut sent, mut acknowledged, mut closed, mut arrived) = (0, 0, 0, Vec::new());
        while acknowledged < 100 {
            // rumqttc loses requests that wait behind its window when a connection ends.
            while sent < 100 && sent - acknowledged < 10 {
                client.publish(UPLOAD, QoS::AtLeastOnce, false, format!("{sent}")).await.unwrap();
                sent += 1;
            }
            match event(&mut events).await {
                Ok(Event::Incoming(Packet::PubAck(_))) => acknowledged += 1,
                Ok(_) => {}
                Err(_) => {
                    closed += 1;
                    let kept = uploaded(&store);
                    // rumqttc may not have read an acknowledgement before the end of its connection.
                    assert!(kept.len() <= 30 && kept.len() + arrived.len() >= acknowledged);
                    // It comes back to a full outbox first, and then to an empty one.
                    if closed % 2 == 0 {
                        arrived.extend(kept);
                        confirm(&store).await;
                    }
                }
            }
        }
        arrived.extend(uploaded(&store));
        assert!(closed >= 3, "{closed}");
        let view = node.view().await;
        assert!(view["refusedUploads"].as_u64().unwrap() >= closed, "{view}");
        assert_eq!(view["droppedUploads"], 0);
        // Without a gap, and without one message overtaking another.
        let sequences: Vec<u64> = arrived.iter().map(|telemetry| telemetry.sequence).collect();
        assert_eq!(sequences, (1..=arrived.len() as u64).collect::<Vec<_>>());
        let mut next = 0;
        for telemetry in &arrived {
            let n: u64 = std::str::from_utf8(&telemetry.payload).unwrap().parse().unwrap();
            assert!(n <= next, "{n} before {next}");
            next = next.max(n + 1);
        }
        assert_eq!(next, 100);
    });
}

#[test]
fn only_qos_0_is_dropped_and_that_shows_as_a_gap() {
    run_over(bounded(2), |store, _| async move {
        let node = Node::start(store.clone()).await;
        let (client, mut events) = client(&node, "device");
        for n in 0..5 {
            client.publish(USER, QoS::AtMostOnce, false, format!("{n}")).await.unwrap();
        }
        // Acknowledged behind them, so that they were taken before.
        client.publish("other", QoS::AtLeastOnce, false, "x").await.unwrap();
        until(&mut events, |packet| matches!(packet, Packet::PubAck(_)).then_some(())).await;
        node.wait("three dropped", |view| view["droppedUploads"] == 3 && view["uploaded"] == 2).await;
        let view = node.view().await;
        assert_eq!((&view["refusedUploads"], &view["clients"]), (&0.into(), &1.into()), "{view}");
        confirm(&store).await;
        client.publish(USER, QoS::AtLeastOnce, false, "5").await.unwrap();
        until(&mut events, |packet| matches!(packet, Packet::PubAck(_)).then_some(())).await;
        let last = uploaded(&store);
        assert_eq!((last.len(), last[0].sequence, last[0].payload.as_ref()), (1, 6, b"5".as_slice()));
    });
}

#[test]
fn nothing_overtakes_what_was_refused_on_its_connection() {
    run_over(bounded(1), |store, _| async move {
        let node = Node::start(store.clone()).await;
        let mut device = node.client("device").await;
        device.send(&publish(UPLOAD, "0", 1, 1)).await;
        device.expect(b"\x40\x02\x00\x01").await;
        device.send(&[publish(UPLOAD, "1", 1, 2), publish(UPLOAD, "2", 0, 0)].concat()).await;
        node.wait("both refused", |view| view["refusedUploads"] == 1 && view["droppedUploads"] == 1).await;
        // There is room again before the connection ends, and still nothing that stands behind 1 is taken.
        confirm(&store).await;
        device.send(&publish(UPLOAD, "3", 1, 3)).await;
        assert_eq!(device.rest().await, b"", "acknowledged");
        assert_eq!(uploaded(&store), []);
        // It comes back and says so.
        let mut device = node.client("device").await;
        let mut again = publish(UPLOAD, "1", 1, 2);
        again[0] |= 0x08;
        device.send(&again).await;
        device.expect(b"\x40\x02\x00\x02").await;
        let all = uploaded(&store);
        assert_eq!((all.len(), all[0].dup, all[0].payload.as_ref()), (1, true, b"1".as_slice()));
    });
}

#[test]
fn a_will_and_what_a_client_said_before_it_left_are_kept() {
    run(|store| async move {
        let node = Node::start(store.clone()).await;
        let mut device = node.raw().await;
        device.send(&connect("device", true, 0, Some((USER, "gone")))).await;
        device.expect(b"\x20\x02\x00\x00").await;
        for n in 0..20 {
            device.send(&publish(USER, &format!("{n}"), 0, 0)).await;
        }
        drop(device);
        node.wait("all of it", |view| view["uploaded"] == 21).await;
        let payloads: Vec<_> = uploaded(&store).into_iter().map(|telemetry| telemetry.payload).collect();
        let wanted: Vec<String> = (0..20).map(|n| n.to_string()).chain(["gone".to_owned()]).collect();
        assert_eq!(payloads, wanted);
    });
}

#[test]
fn many_topics_take_no_more_than_their_room_and_another_broker_begins_another_boot() {
    run(|store| async move {
        let node = Node::start(store.clone()).await;
        let mut device = node.client("device").await;
        for n in 0..3000_u16 {
            device.send(&publish(&format!("app/user/{n}"), "x", 0, 0)).await;
        }
        device.send(&publish("app/user/0", "x", 1, 1)).await;
        device.expect(b"\x40\x02\x00\x01").await;
        let view = node.view().await;
        assert_eq!((&view["uploaded"], &view["uploadSources"]), (&3001.into(), &1024.into()), "{view}");
        let (first, last) = (uploaded(&store)[0].clone(), uploaded(&store)[3000].clone());
        assert_eq!((first.sequence, last.sequence), (1, 1));
        assert_ne!(first.boot, last.boot, "a number was given twice");
        node.stop().await;
        let node = Node::start(store.clone()).await;
        let mut device = node.client("device").await;
        device.send(&publish("app/user/0", "x", 1, 1)).await;
        device.expect(b"\x40\x02\x00\x01").await;
        let after = uploaded(&store)[3001].clone();
        assert_eq!(after.sequence, 1);
        assert!(after.boot != first.boot && after.boot != last.boot);
    });
}
