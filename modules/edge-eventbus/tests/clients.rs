//! KubeEdge's contract as clients see it that we did not write: mosquitto's tools and rumqttc.
//!
//! DeviceTwin is a probe here, so that a test decides when it commits; what its documents say is tested with it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod node;

use std::time::Duration;

use contract::devicetwin::TwinMsg;
use contract::eventbus::EventBusMsg;
use node::child::lines;
use node::{Node, SOON, run};
use rumqttc::{AsyncClient, Event, EventLoop, LastWill, MqttOptions, Outgoing, Packet, QoS};

fn options(node: &Node, id: &str) -> MqttOptions {
    MqttOptions::new(id, "127.0.0.1", node.address.port())
}

async fn event(events: &mut EventLoop) -> Event {
    tokio::time::timeout(SOON, events.poll()).await.expect("an event in time").expect("a connection")
}

/// The next packet of that kind.
async fn until<T>(events: &mut EventLoop, wanted: impl Fn(Packet) -> Option<T>) -> T {
    loop {
        if let Event::Incoming(packet) = event(events).await
            && let Some(found) = wanted(packet)
        {
            return found;
        }
    }
}

fn published(packet: Packet) -> Option<(String, String, QoS, bool)> {
    let Packet::Publish(publish) = packet else { return None };
    let payload = String::from_utf8(publish.payload.to_vec()).unwrap();
    Some((publish.topic, payload, publish.qos, publish.retain))
}

/// Every request topic of the table, with a request, and every topic that the node publishes on.
const REQUESTS: [(&str, &str); 4] = [
    (
        "$hw/events/device/default/sensor-1/twin/update",
        r#"{"event_id":"7c1f","timestamp":1760000000000,"twin":{"temperature":{"actual":{"value":"21.5"},"metadata":{"type":"float"}}}}"#,
    ),
    ("$hw/events/device/default/sensor-1/twin/get", r#"{"event_id":"g1","timestamp":1760000002000}"#),
    (
        "$hw/events/device/default/sensor-1/state/update",
        r#"{"event_id":"s1","timestamp":1760000003000,"state":"online"}"#,
    ),
    ("$hw/events/node/edge-1/membership/get", r#"{"event_id":"m1"}"#),
];
const ANSWERS: [&str; 9] = [
    "$hw/events/device/default/sensor-1/twin/update/result",
    "$hw/events/device/default/sensor-1/twin/update/delta",
    "$hw/events/device/default/sensor-1/twin/update/document",
    "$hw/events/device/default/sensor-1/twin/get/result",
    "$hw/events/device/default/sensor-1/state/update/result",
    "$hw/events/device/default/sensor-1/updated",
    "$hw/events/node/edge-1/membership/get/result",
    "$hw/events/node/edge-1/membership/updated",
    "a/rule/of/the/router",
];

#[test]
fn requests_of_every_qos_are_acknowledged_only_when_device_twin_has_answered() {
    run(|store| async move {
        let node = Node::start(store).await;
        let (client, mut events) = AsyncClient::new(options(&node, "device"), 10);
        until(&mut events, |packet| matches!(packet, Packet::ConnAck(_)).then_some(())).await;
        for (topic, payload) in REQUESTS {
            for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
                client.publish(topic, qos, false, payload).await.unwrap();
                // Written, and nothing comes back before the commit, not even beside a ping.
                while !matches!(event(&mut events).await, Event::Outgoing(Outgoing::Publish(_))) {}
                let Some(TwinMsg::Mqtt { topic: asked, payload: body, reply, .. }) = node.asked(SOON).await
                else {
                    panic!()
                };
                assert_eq!((asked.as_str(), body.as_ref()), (topic, payload.as_bytes()));
                let early = tokio::time::timeout(Duration::from_millis(30), events.poll()).await;
                assert!(early.is_err(), "{topic} at {qos:?}: {early:?} before the commit");
                reply.send(Ok(()));
                let acknowledged =
                    |packet| matches!(packet, Packet::PubAck(_) | Packet::PubRec(_)).then_some(packet);
                let packet = until(&mut events, acknowledged).await;
                assert_eq!(matches!(packet, Packet::PubAck(_)), qos == QoS::AtLeastOnce, "{packet:?}");
                if qos == QoS::ExactlyOnce {
                    until(&mut events, |packet| matches!(packet, Packet::PubComp(_)).then_some(())).await;
                }
            }
            client.publish(topic, QoS::AtMostOnce, false, payload).await.unwrap();
            let asked = async {
                loop {
                    let _ = events.poll().await;
                }
            };
            let next = async { node.asked(SOON).await };
            tokio::select! {
                () = asked => {}
                message = next => assert!(matches!(message, Some(TwinMsg::Mqtt { .. })), "{message:?}"),
            }
        }
    });
}

#[test]
fn what_the_node_publishes_comes_as_it_was_said_with_qos_1_and_not_retained() {
    run(|store| async move {
        let node = Node::start(store).await;
        let (client, mut events) = AsyncClient::new(options(&node, "app"), 10);
        // The filters that KubeEdge's users have.
        for filter in [
            "$hw/events/device/+/+/twin/#",
            "$hw/events/device/+/+/state/update/result",
            "$hw/events/device/+/+/updated",
            "$hw/events/node/+/membership/#",
            "a/rule/of/#",
        ] {
            client.subscribe(filter, QoS::AtLeastOnce).await.unwrap();
            until(&mut events, |packet| matches!(packet, Packet::SubAck(_)).then_some(())).await;
        }
        let count = ANSWERS.len().to_string();
        let sub = node
            .mosquitto("sub", &["-t", "$hw/#", "-t", "a/#", "-q", "0", "-C", &count, "-F", "%t %q %r %p"]);
        node.subscriptions(7).await;
        for topic in ANSWERS {
            node.publish(topic, r#"{"event_id":"ü","timestamp":1}"#, false).await;
            let wanted =
                (topic.to_owned(), r#"{"event_id":"ü","timestamp":1}"#.to_owned(), QoS::AtLeastOnce, false);
            assert_eq!(until(&mut events, published).await, wanted);
        }
        let wanted: Vec<String> =
            ANSWERS.iter().map(|topic| format!(r#"{topic} 0 0 {{"event_id":"ü","timestamp":1}}"#)).collect();
        assert_eq!(lines(sub).await, wanted);
        // An answer that a client made up is acknowledged, and reaches nobody but where every client may write.
        for topic in ANSWERS {
            client.publish(topic, QoS::AtLeastOnce, false, "made up").await.unwrap();
        }
        let (mut acknowledged, mut came) = (0, Vec::new());
        while acknowledged < ANSWERS.len() || came.is_empty() {
            match event(&mut events).await {
                Event::Incoming(Packet::PubAck(_)) => acknowledged += 1,
                Event::Incoming(Packet::Publish(publish)) => came.push(publish.topic),
                _ => {}
            }
        }
        assert_eq!(came, ["a/rule/of/the/router"]);
        let view = node.view().await;
        assert_eq!(view["refusedPublishes"], ANSWERS.len() - 1, "{view}");
        assert!(node.asked(Duration::from_millis(20)).await.is_none());
    });
}

#[test]
fn a_request_and_its_answer_with_mosquittos_request_tool() {
    run(|store| async move {
        let node = Node::start(store).await;
        // mosquitto_rr subscribes to the answer, publishes the request and ends with the first answer.
        for (request, answer) in [
            (
                "$hw/events/device/default/sensor-1/twin/get",
                "$hw/events/device/default/sensor-1/twin/get/result",
            ),
            ("$hw/events/node/edge-1/membership/get", "$hw/events/node/edge-1/membership/get/result"),
        ] {
            let asking = node.mosquitto(
                "rr",
                &["-V", "311", "-q", "1", "-t", request, "-e", answer, "-m", r#"{"event_id":"g1"}"#],
            );
            let Some(TwinMsg::Mqtt { topic, reply, .. }) = node.asked(SOON).await else { panic!() };
            assert_eq!(topic, request);
            node.publish(answer, r#"{"event_id":"g1","timestamp":2,"twin":{}}"#, false).await;
            reply.send(Ok(()));
            assert_eq!(lines(asking).await, [r#"{"event_id":"g1","timestamp":2,"twin":{}}"#]);
        }
    });
}

#[test]
fn user_topics_pass_between_the_clients_at_every_qos() {
    run(|store| async move {
        let node = Node::start(store).await;
        let topics = [
            "site/user/line-1",
            "upload",
            "SYS/dis/upload_records",
            "$hw/events/upload/x",
            "$ke/events/device/default/d/data/update",
            "größe/ü/",
            "/",
        ];
        let filters = [
            "+/user/#",
            "upload",
            "SYS/#",
            "$hw/events/upload/#",
            "$ke/events/device/+/+/data/update",
            "größe/+/",
            "/",
        ];
        let (client, mut events) = AsyncClient::new(options(&node, "app"), 10);
        for filter in filters {
            client.subscribe(filter, QoS::ExactlyOnce).await.unwrap();
            let granted = until(&mut events, |packet| {
                if let Packet::SubAck(ack) = packet { Some(ack.return_codes) } else { None }
            })
            .await;
            assert_eq!(granted, [rumqttc::SubscribeReasonCode::Success(QoS::ExactlyOnce)]);
        }
        for topic in topics {
            for (sent, got) in [("0", QoS::AtMostOnce), ("1", QoS::AtLeastOnce), ("2", QoS::ExactlyOnce)] {
                let publisher = node.mosquitto("pub", &["-V", "311", "-q", sent, "-t", topic, "-m", sent]);
                assert_eq!(
                    until(&mut events, published).await,
                    (topic.to_owned(), sent.to_owned(), got, false)
                );
                lines(publisher).await;
            }
        }
        assert!(node.asked(Duration::from_millis(20)).await.is_none());
    });
}

#[test]
fn overlapping_filters_bring_a_message_once_and_an_unsubscribed_one_brings_none() {
    run(|store| async move {
        let node = Node::start(store).await;
        let (client, mut events) = AsyncClient::new(options(&node, "app"), 10);
        for (filter, qos) in [
            ("a/#", QoS::AtMostOnce),
            ("a/+/c", QoS::AtLeastOnce),
            ("a/b/c", QoS::AtMostOnce),
            ("end", QoS::AtMostOnce),
        ] {
            client.subscribe(filter, qos).await.unwrap();
            until(&mut events, |packet| matches!(packet, Packet::SubAck(_)).then_some(())).await;
        }
        node.publish("a/b/c", "once", false).await;
        node.publish("end", "first", false).await;
        let next = until(&mut events, published).await;
        assert_eq!((next.0.as_str(), next.2), ("a/b/c", QoS::AtLeastOnce));
        assert_eq!(until(&mut events, published).await.1, "first");
        for filter in ["a/#", "a/+/c", "a/b/c"] {
            client.unsubscribe(filter).await.unwrap();
            until(&mut events, |packet| matches!(packet, Packet::UnsubAck(_)).then_some(())).await;
        }
        node.publish("a/b/c", "never", false).await;
        node.publish("end", "second", false).await;
        assert_eq!(until(&mut events, published).await.1, "second");
    });
}

#[test]
fn a_persistent_session_of_mosquitto_gets_what_came_while_it_was_away() {
    run(|store| async move {
        let node = Node::start(store).await;
        let session = ["-i", "keeper", "-c", "-q", "1", "-t", "news/#"];
        // -E ends when the subscription is acknowledged.
        lines(node.mosquitto("sub", &[&session[..], &["-E"]].concat())).await;
        node.wait("a session without its client", |view| view["clients"] == 0 && view["sessions"] == 1).await;
        for n in ["1", "2", "3"] {
            lines(node.mosquitto("pub", &["-q", "2", "-t", "news/x", "-m", n])).await;
        }
        lines(node.mosquitto("pub", &["-q", "0", "-t", "news/x", "-m", "not kept"])).await;
        assert_eq!(
            lines(node.mosquitto("sub", &[&session[..], &["-C", "3"]].concat())).await,
            ["1", "2", "3"]
        );
        // A clean session with the same name forgets it.
        lines(node.mosquitto("sub", &["-i", "keeper", "-t", "other", "-E"])).await;
        node.wait("no session", |view| view["sessions"] == 0 && view["subscriptions"] == 0).await;
    });
}

#[test]
fn a_persistent_session_of_rumqttc_goes_on_after_its_connection_broke() {
    run(|store| async move {
        let node = Node::start(store).await;
        let mut keeping = options(&node, "keeper");
        keeping.set_clean_session(false);
        let (client, mut events) = AsyncClient::new(keeping, 10);
        client.subscribe("news", QoS::AtLeastOnce).await.unwrap();
        let fresh = until(&mut events, |packet| {
            if let Packet::ConnAck(ack) = packet { Some(!ack.session_present) } else { None }
        })
        .await;
        until(&mut events, |packet| matches!(packet, Packet::SubAck(_)).then_some(())).await;
        node.publish("news", "1", false).await;
        assert_eq!((fresh, until(&mut events, published).await.1.as_str()), (true, "1"));
        // No DISCONNECT: rumqttc's socket just closes, before its PUBACK left or after.
        events.clean();
        node.wait("an absent client", |view| view["clients"] == 0 && view["sessions"] == 1).await;
        node.publish("news", "2", false).await;
        let known = until(&mut events, |packet| {
            if let Packet::ConnAck(ack) = packet { Some(ack.session_present) } else { None }
        })
        .await;
        let mut got = until(&mut events, published).await.1;
        if got == "1" {
            got = until(&mut events, published).await.1;
        }
        assert_eq!((known, got.as_str()), (true, "2"));
    });
}

#[test]
fn wills_and_retained_messages_between_mosquitto_and_rumqttc() {
    run(|store| async move {
        let node = Node::start(store.clone()).await;
        let mut dying = options(&node, "dying");
        dying.set_last_will(LastWill::new("site/user/state", "gone", QoS::AtLeastOnce, true));
        let (client, mut events) = AsyncClient::new(dying, 10);
        client.publish("site/user/state", QoS::ExactlyOnce, true, "here").await.unwrap();
        until(&mut events, |packet| matches!(packet, Packet::PubComp(_)).then_some(())).await;
        let live = node.mosquitto("sub", &["-t", "site/user/+", "-q", "1", "-C", "2", "-F", "%r %q %p"]);
        node.subscriptions(1).await;
        drop((client, events));
        // To who was there it is a new message, and to who comes later a kept one.
        assert_eq!(lines(live).await, ["1 1 here", "0 1 gone"]);
        let late = node.mosquitto("sub", &["-t", "#", "-q", "0", "-C", "1", "-F", "%t %r %q %p"]);
        assert_eq!(lines(late).await, ["site/user/state 1 0 gone"]);

        let mut will = node.mosquitto(
            "sub",
            &["-t", "x", "--will-topic", "site/user/sub", "--will-payload", "killed", "--will-qos", "1"],
        );
        node.subscriptions(1).await;
        let live = node.mosquitto("sub", &["-t", "site/user/sub", "-C", "1"]);
        node.subscriptions(2).await;
        will.kill().await.unwrap();
        assert_eq!(lines(live).await, ["killed"]);

        // An acknowledged retained message survives the daemon: it was committed before.
        node.stop().await;
        let node = Node::start(store).await;
        let late = node.mosquitto("sub", &["-t", "site/#", "-q", "1", "-C", "1", "-F", "%t %r %q %p"]);
        assert_eq!(lines(late).await, ["site/user/state 1 1 gone"]);
    });
}

#[test]
fn what_the_node_keeps_by_itself_survives_the_daemon() {
    run(|store| async move {
        for round in 0..10 {
            let node = Node::start(store.clone()).await;
            assert_eq!(node.view().await["retained"], round * 3);
            for n in 0..3 {
                let message = EventBusMsg::Publish {
                    topic: format!("$hw/kept/{round}/{n}"),
                    payload: "x".into(),
                    retain: true,
                };
                node.bus.tell(message).await.unwrap();
            }
            node.wait("all of them", |view| view["messagesIn"] == 3).await;
            node.stop().await;
        }
    });
}

#[test]
fn a_silent_client_of_another_library_stays_as_long_as_it_pings() {
    run(|store| async move {
        let node = Node::start(store).await;
        // Two keep-alives of mosquitto's shortest: it would be thrown out after 7.5 s without its pings.
        let quiet = node.mosquitto("sub", &["-k", "5", "-t", "t", "-C", "1"]);
        node.subscriptions(1).await;
        node.env.sleep(Duration::from_secs(8)).await;
        node.publish("t", "still there", false).await;
        assert_eq!(lines(quiet).await, ["still there"]);
    });
}
