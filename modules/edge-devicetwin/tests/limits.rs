//! Mappers that take all they can get.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod fixture;

use contract::ids::DEVICES;
use contract::{UpReport, rows};
use dmi::v1beta1 as pb;
use fixture::callers::{Masked, denied, register, report};
use fixture::{SOON, options, run, speed, start, status_report, until};
use serde_json::json;
use tokio::net::UnixStream;
use tonic::{Code, Request};
use tonic_prost::ProstCodec;

#[test]
fn one_mapper_cannot_fill_the_outbox() {
    run(|folder| async move {
        let node = start(&folder, options());
        node.pump("7").await;
        more_devices(&node, 16).await;
        let mut manager = node.manager().await;
        register(&mut manager, &folder, "modbus").await.unwrap();
        let invented = |device: usize, count: usize| {
            let mut request = status_report("", "1");
            request.device_name = format!("more-{device}");
            let twins = &mut request.reported_device.as_mut().unwrap().twins;
            *twins = (0..count)
                .map(|at| pb::Twin { property_name: format!("p{at}"), ..twins[0].clone() })
                .collect();
            request
        };
        let refused = manager.report_device_status(invented(0, 65)).await.unwrap_err();
        assert!(
            refused.code() == Code::ResourceExhausted && refused.message().contains("the device has 64"),
            "{refused}"
        );
        for device in 0..15 {
            manager.report_device_status(invented(device, 64)).await.unwrap();
        }
        let refused = manager.report_device_status(invented(15, 41)).await.unwrap_err();
        assert!(
            refused.code() == Code::ResourceExhausted && refused.message().contains("this protocol"),
            "{refused}"
        );
        manager.report_device_status(invented(15, 40)).await.unwrap();
        // What the administrator has named goes on.
        report(&mut manager).await.unwrap();
        node.stop().await;
    });
}

/// Devices of the protocol modbus that name no property.
async fn more_devices(node: &fixture::Node, count: usize) {
    for at in 0..count {
        let device = json!({ "metadata": { "name": format!("more-{at}") }, "spec": {
            "nodeName": "edge-1", "properties": [], "protocol": { "protocolName": "modbus" } } });
        node.put(DEVICES, &format!("more-{at}"), &format!("more-{at}"), device).await;
    }
}

/// `count` properties of 512 bytes from `first` on, as a client of the broker writes them.
fn invented(first: usize, count: usize) -> serde_json::Value {
    let part = json!({ "actual": { "value": "x".repeat(512) } });
    let twins: serde_json::Map<_, _> =
        (first..first + count).map(|at| (format!("p{at}"), part.clone())).collect();
    json!({ "event_id": "e", "twin": twins })
}

#[test]
fn clients_of_the_broker_have_no_other_bounds_than_mappers() {
    run(|folder| async move {
        let mut node = start(&folder, options());
        node.pump("").await;
        more_devices(&node, 18).await;
        let update = async |device: &str, first: usize, count: usize| {
            let topic = format!("$hw/events/device/default/{device}/twin/update");
            node.mqtt(&topic, invented(first, count).to_string()).await
        };
        // 18 devices with 1,020 properties each, in messages that are small enough.
        for device in 0..18 {
            for first in (0..1020).step_by(60) {
                let taken = update(&format!("more-{device}"), first, 60).await;
                assert_eq!(taken.is_ok(), first == 0 && device < 16, "more-{device} {first}: {taken:?}");
            }
        }
        assert_eq!(node.store.list_rows(edge_store::Table::Twins, None).unwrap().len(), 16 * 60);
        let waiting = node.store.outbox_head(5000, 64 << 20).unwrap();
        let reports = waiting.iter().map(|row| rows::decode_report(&row.body).unwrap());
        let (twins, others): (Vec<_>, Vec<_>) =
            reports.partition(|report| matches!(report, UpReport::Twin { .. }));
        assert_eq!(twins.len(), 16 * 60);
        // Of each device what is wrong with it: that its client's messages are refused, say.
        let are_conditions = others.iter().all(|report| matches!(report, UpReport::DeviceConditions { .. }));
        assert!(are_conditions && others.len() <= 19, "{others:?}");
        // What the administrator has named goes on, and what is there may change.
        node.update(json!({ "speed": { "actual": { "value": "5" } } })).await.unwrap();
        update("more-3", 7, 1).await.unwrap();
        let (named, refused) = (update("pump", 0, 65).await, update("more-0", 60, 5).await);
        assert!(named.unwrap_err().contains("add them to the model"));
        assert!(refused.unwrap_err().contains("the device has 64"));
        // The client hears why.
        while node.published("default/more-0/twin/update/result").await.get("code").is_none() {}
        node.stop().await;
    });
}

/// The reports that the link has to carry if it takes each one at once.
fn carried(node: &fixture::Node) -> i64 {
    node.store.outbox_head(5000, 64 << 20).unwrap().iter().map(|row| row.seq).max().unwrap_or_default()
}

#[test]
fn what_changes_all_the_time_reaches_the_cloud_in_its_newest_form() {
    run(|folder| async move {
        let mut node = start(&folder, options());
        node.pump("").await;
        node.published("membership/updated").await;
        let topic = "$hw/events/device/default/pump/state/update";
        let began = std::time::Instant::now();
        for at in 1..=300 {
            node.update(json!({ "speed": { "actual": { "value": at.to_string() } } })).await.unwrap();
            let state = if at % 2 == 0 { "online" } else { "offline" };
            node.mqtt(topic, json!({ "state": state }).to_string()).await.unwrap();
        }
        // Each report has a number of its own, also the one that takes another's place: twin and state have four at once and
        // two a second.
        let reports = carried(&node);
        let most = 2 * (4 + 2 * (i64::try_from(began.elapsed().as_secs()).unwrap() + 1));
        assert!(reports <= most, "{reports} reports on 600 changes, at most {most}");
        // The store has the newest at once, so that a crash loses nothing.
        let row = node.store.list_rows(edge_store::Table::Twins, Some("default/pump")).unwrap().remove(0);
        assert!(String::from_utf8(row.value).unwrap().contains("\"300\""));
        let newest = |reports: &[UpReport]| {
            let online = |report: &UpReport| matches!(report, UpReport::DeviceState { state, .. } if state == "online");
            speed(reports).is_some_and(|(reported, _)| reported == Some("300")) && reports.iter().any(online)
        };
        // What waited when the node was stopped is reported after the start.
        node.stop().await;
        let node = start(&folder, options());
        until(|| newest(&node.reports())).await;
        node.stop().await;
    });
}

#[test]
fn a_flood_of_connections_leaves_room_for_others() {
    run(|folder| async move {
        let stage = Masked::start(&folder, Vec::new()).await;
        stage.pod("m1", "modbus").await;
        let mut mapper = stage.in_pod("m1").await;
        register(&mut mapper, &folder, "modbus").await.unwrap();
        stage.peer.becomes(Some("hog"), 0, "alive");
        let mut held = Vec::new();
        for _ in 0..300 {
            held.push(UnixStream::connect(folder.join(dmi::SOCKET_NAME)).await.unwrap());
        }
        let turned_away = async || stage.node.snapshot().await["connectionsTurnedAway"].as_u64().unwrap();
        while turned_away().await < 40 {
            tokio::task::yield_now().await;
        }
        let mut another = stage.in_pod("m1").await;
        tokio::time::timeout(SOON, report(&mut another)).await.expect("an answer").unwrap();
        stage.node.stop().await;
    });
}

#[test]
fn calls_that_never_end_hold_up_their_caller_alone() {
    run(|folder| async move {
        let stage = Masked::start(&folder, Vec::new()).await;
        stage.pod("m1", "modbus").await;
        stage.pod("x1", "evil").await;
        let mut mapper = stage.in_pod("m1").await;
        register(&mut mapper, &folder, "modbus").await.unwrap();
        let mut hog = stage.in_pod("x1").await;
        denied(report(&mut hog).await);
        let channel = dmi::channel(folder.join(dmi::SOCKET_NAME).to_str().unwrap());
        let began = std::time::Instant::now();
        let stalled: Vec<_> = (0..60)
            .map(|_| {
                let mut client = tonic::client::Grpc::new(channel.clone());
                tokio::task::spawn_local(async move {
                    client.ready().await.unwrap();
                    let nothing = futures::stream::pending::<pb::ReportDeviceStatesRequest>();
                    let codec = ProstCodec::<_, pb::ReportDeviceStatesResponse>::default();
                    let path = "/v1beta1.DeviceManagerService/ReportDeviceStates".parse().unwrap();
                    client.client_streaming(Request::new(nothing), path, codec).await.map(drop)
                })
            })
            .collect();
        // Its turns are taken: what it says now waits. Ten seconds would free them.
        let a_while = std::time::Duration::from_secs(2);
        let waits = tokio::time::timeout(4 * a_while, async {
            while tokio::time::timeout(a_while, report(&mut hog)).await.is_ok() {}
        });
        waits.await.expect("the turns of the hog run out");
        tokio::time::timeout(SOON, report(&mut mapper)).await.expect("others have their turn").unwrap();
        assert!(
            began.elapsed() < 5 * a_while,
            "not only when those of the hog are over: {:?}",
            began.elapsed()
        );
        stalled.iter().for_each(tokio::task::JoinHandle::abort);
        denied(tokio::time::timeout(SOON, report(&mut hog)).await.expect("its turns are back"));
        stage.node.stop().await;
    });
}

#[test]
fn protocols_whose_mapper_has_ended_and_that_no_device_has_make_room_for_another() {
    run(|folder| async move {
        let stage = Masked::start(&folder, Vec::new()).await;
        stage.pod("m1", "many").await;
        let call = async |process: &str, protocol: &str| {
            let mut manager = stage.in_pod("m1").await;
            stage.peer.becomes(Some("m1"), 0, process);
            let mut request = fixture::registration(&folder, true);
            let mapper = request.mapper.as_mut().unwrap();
            (mapper.name, mapper.protocol) = (format!("{protocol}-mapper"), protocol.to_owned());
            manager.mapper_register(request).await.map(drop)
        };
        // The pod runs, and what has registered in it does not.
        call("ended", "modbus").await.unwrap();
        for at in 0..12 {
            call("ended", &format!("p{at}")).await.unwrap();
        }
        let mappers = stage.node.snapshot().await["mappers"].clone();
        let mappers = mappers.as_object().unwrap();
        assert!(
            mappers.len() == 8 && mappers.contains_key("modbus"),
            "the pump's waits for its mapper: {mappers:?}"
        );
        // Those that run keep what they have.
        for at in 20..27 {
            call("alive", &format!("p{at}")).await.unwrap();
        }
        let refused = call("alive", "p27").await.unwrap_err();
        assert!(
            refused.code() == Code::ResourceExhausted && refused.message().contains("8 protocols"),
            "{refused}"
        );
        stage.node.stop().await;
    });
}
