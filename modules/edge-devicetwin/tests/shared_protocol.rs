//! Two mappers of one protocol: a device that names its mapper is that one's, the others are the first one's.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod fixture;

use std::path::Path;

use config::edge::DeviceTwin as Settings;
use contract::ids::DEVICES;
use dmi::v1beta1 as pb;
use fixture::callers::{self, Manager, Masked};
use fixture::{Mapper, Node, called, options, registration, run, start_with_peers, status_report};
use serde_json::json;
use tonic::{Code, Status};

/// A device beside the pump, of the same model.
async fn put(node: &Node, name: &str, mapper: Option<&str>) {
    let annotations = mapper.map(|mapper| json!({ "kubehive.io/mapper": mapper }));
    let device = json!({ "metadata": { "name": name, "annotations": annotations }, "spec": {
        "deviceModelRef": { "name": "pumps" }, "nodeName": "edge-1",
        "properties": [{ "name": "speed", "desired": { "value": "1" }, "visitors": { "configData": { "offset": 3 } } }],
        "protocol": { "protocolName": "modbus" } } });
    node.put(DEVICES, name, name, device).await;
}

async fn register(manager: &mut Manager, folder: &Path, name: &str) -> Result<Vec<String>, Status> {
    let mut request: pb::MapperRegisterRequest = registration(folder, true);
    let mapper = request.mapper.as_mut().unwrap();
    name.clone_into(&mut mapper.name);
    mapper.address = folder.join(format!("{name}.sock")).to_str().unwrap().as_bytes().to_vec();
    let answer = manager.mapper_register(request).await?.into_inner();
    Ok(answer.device_list.into_iter().map(|device| device.name).collect())
}

#[test]
fn a_device_that_names_its_mapper_goes_to_that_one_and_stays_there_across_a_restart() {
    run(|folder| async move {
        let Masked { node, peer } = Masked::start(&folder, Vec::new()).await;
        put(&node, "fan", Some("serial")).await;
        let (mut of_tcp, tcp) = Mapper::serve(&folder.join("tcp.sock"), false);
        let (mut of_serial, serial) = Mapper::serve(&folder.join("serial.sock"), false);
        let mut manager = node.manager().await;
        peer.becomes(None, 7, "alive");
        assert_eq!(register(&mut manager, &folder, "tcp").await.unwrap(), ["fan", "pump"]);
        // Each report may be a new connection; the calls to a mapper ask who listens there, too.
        assert_eq!(register(&mut manager, &folder, "serial").await.unwrap(), ["fan"]);
        assert_eq!(called(&mut of_tcp).await, "remove default/fan");
        // Again: nothing moves.
        assert_eq!(register(&mut manager, &folder, "serial").await.unwrap(), ["fan"]);
        assert_eq!(register(&mut manager, &folder, "tcp").await.unwrap(), ["pump"]);
        manager.report_device_status(status_report("1", "1")).await.unwrap();

        // A device that comes to name it is taken from the one and given to the other.
        put(&node, "valve", None).await;
        assert_eq!(called(&mut of_tcp).await, "register default/valve speed=1");
        put(&node, "valve", Some("serial")).await;
        assert_eq!(called(&mut of_tcp).await, "remove default/valve");
        assert_eq!(called(&mut of_serial).await, "register default/valve speed=1");
        node.stop().await;

        let settings = Settings { dmi_sock_path: folder.clone(), ..Default::default() };
        let node = start_with_peers(&folder, options(), settings, peer.clone());
        assert_eq!(called(&mut of_tcp).await, "create model pumps");
        assert_eq!(called(&mut of_tcp).await, "register default/pump speed=7");
        assert_eq!(called(&mut of_serial).await, "create model pumps");
        assert_eq!(called(&mut of_serial).await, "register default/fan speed=1");
        assert_eq!(called(&mut of_serial).await, "register default/valve speed=1");
        tcp.abort();
        serial.abort();
        node.stop().await;
    });
}

#[test]
fn a_mapper_of_somebody_else_that_no_device_names_is_still_refused() {
    run(|folder| async move {
        let Masked { node, peer } = Masked::start(&folder, Vec::new()).await;
        put(&node, "fan", Some("serial")).await;
        let mut manager = node.manager().await;
        peer.becomes(None, 7, "alive");
        register(&mut manager, &folder, "tcp").await.unwrap();
        peer.becomes(None, 8, "alive");
        let mut stranger = node.manager().await;
        let refused = callers::denied(register(&mut stranger, &folder, "stranger").await);
        assert!(refused.contains("kubehive.io/mapper"), "{refused}");
        // The one that is named may be anybody's, and speaks for what names it alone.
        assert_eq!(register(&mut stranger, &folder, "serial").await.unwrap(), ["fan"]);
        let refused = stranger.report_device_status(status_report("1", "1")).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied);
        // And once it has registered, it is nobody else's.
        peer.becomes(None, 9, "alive");
        let mut thief = node.manager().await;
        callers::denied(register(&mut thief, &folder, "serial").await);
        node.stop().await;
    });
}
