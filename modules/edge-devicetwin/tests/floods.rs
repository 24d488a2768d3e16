//! Mappers that take all they can get.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod stage;

use contract::ids::DEVICES;
use dmi::v1beta1 as pb;
use serde_json::json;
use stage::callers::{Masked, denied, register, report};
use stage::{SOON, options, run, start, status_report};
use tokio::net::UnixStream;
use tonic::{Code, Request};
use tonic_prost::ProstCodec;

#[test]
fn one_mapper_cannot_fill_the_outbox() {
    run(|folder| async move {
        let node = start(&folder, options());
        node.pump("7").await;
        for at in 0..2 {
            let device = json!({ "metadata": { "name": format!("more-{at}") }, "spec": {
                "nodeName": "edge-1", "properties": [], "protocol": { "protocolName": "modbus" } } });
            node.put(DEVICES, &format!("more-{at}"), &format!("more-{at}"), device).await;
        }
        let mut manager = node.manager().await;
        register(&mut manager, &folder, "modbus").await.unwrap();
        let invented = |device: &str, count: usize| {
            let mut request = status_report("", "1");
            device.clone_into(&mut request.device_name);
            let twins = &mut request.reported_device.as_mut().unwrap().twins;
            *twins = (0..count)
                .map(|at| pb::Twin { property_name: format!("p{at}"), ..twins[0].clone() })
                .collect();
            request
        };
        manager.report_device_status(invented("more-0", 900)).await.unwrap();
        let refused = manager.report_device_status(invented("more-1", 101)).await.unwrap_err();
        assert!(
            refused.code() == Code::ResourceExhausted && refused.message().contains("model"),
            "{refused}"
        );
        manager.report_device_status(invented("more-1", 100)).await.unwrap();
        // What the administrator has named goes on.
        report(&mut manager).await.unwrap();
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
        stage.face.put_on(Some("hog"), 0, "alive");
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
        let waits = tokio::time::timeout(std::time::Duration::from_secs(3), async {
            while tokio::time::timeout(std::time::Duration::from_millis(200), report(&mut hog)).await.is_ok()
            {
            }
        });
        waits.await.expect("the turns of the hog run out");
        let answered = tokio::time::timeout(std::time::Duration::from_secs(5), report(&mut mapper));
        answered.await.expect("others have their turn at once").unwrap();
        stalled.iter().for_each(tokio::task::JoinHandle::abort);
        denied(tokio::time::timeout(SOON, report(&mut hog)).await.expect("its turns are back"));
        stage.node.stop().await;
    });
}
