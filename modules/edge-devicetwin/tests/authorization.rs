//! Callers over DMI who are not who they would like to be.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod fixture;

use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;

use config::edge::{DeviceTwin as Settings, MapperRule};
use contract::ids::PODS;
use dmi::v1beta1::device_manager_service_client::DeviceManagerServiceClient;
use fixture::callers::{Masked, denied, register, report, state};
use fixture::{Mapper, called, options, registration, run, start, start_with_peers, status_report, until};
use tokio::net::UnixListener;
use tonic::Code;

#[test]
fn a_protocol_is_its_mappers_until_that_one_is_gone() {
    run(|folder| async move {
        let stage = Masked::start(&folder, Vec::new()).await;
        stage.pod("m1", "modbus").await;
        stage.pod("x1", "evil").await;
        let mut mapper = stage.in_pod("m1").await;
        let nobody = denied(report(&mut mapper).await);
        assert!(nobody.contains("default/pump") && nobody.contains("modbus"), "{nobody}");
        assert_eq!(register(&mut mapper, &folder, "modbus").await.unwrap(), 1);
        report(&mut mapper).await.unwrap();

        let mut stranger = stage.in_pod("x1").await;
        let told = denied(register(&mut stranger, &folder, "modbus").await);
        assert!(told.contains("DaemonSet mappers/modbus"), "{told}");
        assert!(denied(report(&mut stranger).await).contains("default/pump"));
        denied(state(&mut stranger, "default", "pump").await);
        // Another protocol, under the name of the mapper: it has its own, and the mapper keeps its.
        assert_eq!(register(&mut stranger, &folder, "opcua").await.unwrap(), 0);
        denied(report(&mut stranger).await);
        report(&mut mapper).await.unwrap();

        // Its next pod is the same; one that is not on the node is nobody.
        stage.node.delete(PODS, "modbus-m1").await;
        stage.pod("m2", "modbus").await;
        let mut next = stage.in_pod("m2").await;
        report(&mut next).await.unwrap();
        register(&mut next, &folder, "modbus").await.unwrap();
        let mut ghost = stage.in_pod("ghost").await;
        denied(register(&mut ghost, &folder, "modbus").await);
        denied(report(&mut ghost).await);

        stage.node.delete(PODS, "modbus-m2").await;
        register(&mut stranger, &folder, "modbus").await.expect("the one before is gone");
        report(&mut stranger).await.unwrap();
        let shown = stage.node.snapshot().await;
        assert_eq!(shown["deniedCalls"], 7, "{shown}");
        assert!(shown["mappers"]["modbus"]["identity"].as_str().unwrap().contains("evil"), "{shown}");
        stage.node.stop().await;
    });
}

#[test]
fn a_restart_of_edgecore_gives_no_protocol_away() {
    run(|folder| async move {
        let stage = Masked::start(&folder, Vec::new()).await;
        stage.pod("m1", "modbus").await;
        stage.pod("x1", "evil").await;
        let mut mapper = stage.in_pod("m1").await;
        register(&mut mapper, &folder, "modbus").await.unwrap();
        drop(mapper);
        stage.node.stop().await;

        let stage = Masked::start(&folder, Vec::new()).await;
        let mut stranger = stage.in_pod("x1").await;
        denied(register(&mut stranger, &folder, "modbus").await);
        denied(report(&mut stranger).await);
        // KubeEdge's mappers register once in their life.
        let mut mapper = stage.in_pod("m1").await;
        report(&mut mapper).await.unwrap();
        stage.node.stop().await;
    });
}

#[test]
fn users_outside_of_pods_hold_by_their_processes() {
    run(|folder| async move {
        let stage = Masked::start(&folder, Vec::new()).await;
        let as_user = async |uid, process| {
            let manager = stage.node.manager().await;
            stage.peer.becomes(None, uid, process);
            manager
        };
        let mut first = as_user(1000, "alive").await;
        register(&mut first, &folder, "modbus").await.unwrap();
        let mut other = as_user(1001, "alive").await;
        denied(register(&mut other, &folder, "modbus").await);
        denied(report(&mut other).await);
        // Restarted, and now it has ended: nobody listens at its socket either.
        let mut again = as_user(1000, "ended").await;
        register(&mut again, &folder, "modbus").await.unwrap();
        let mut other = as_user(1001, "alive").await;
        register(&mut other, &folder, "modbus").await.unwrap();
        denied(report(&mut first).await);
        report(&mut other).await.unwrap();
        stage.node.stop().await;
    });
}

#[test]
fn a_mapper_that_still_listens_is_there() {
    run(|folder| async move {
        let stage = Masked::start(&folder, Vec::new()).await;
        let (_seen, server) = Mapper::serve(&folder.join("mapper.sock"), false);
        let mut first = stage.node.manager().await;
        stage.peer.becomes(None, 0, "ended");
        register(&mut first, &folder, "modbus").await.unwrap();
        stage.pod("x1", "evil").await;
        let mut stranger = stage.in_pod("x1").await;
        report(&mut stranger).await.unwrap_err();
        // Whoever listens there is asked for: the peer is that of the mapper again.
        stage.peer.becomes(None, 0, "ended");
        denied(register(&mut stranger, &folder, "modbus").await);
        server.abort();
        until(|| server.is_finished()).await;
        register(&mut stranger, &folder, "modbus").await.unwrap();
        stage.node.stop().await;
    });
}

#[test]
fn the_settings_say_who_may_be_a_mapper() {
    run(|folder| async move {
        let rule = MapperRule {
            namespace: "mappers".to_owned(),
            service_account: "modbus".to_owned(),
            protocols: vec!["modbus".to_owned()],
            ..Default::default()
        };
        let stage = Masked::start(&folder, vec![rule]).await;
        stage.pod("m1", "modbus").await;
        stage.pod("x1", "evil").await;
        let mut stranger = stage.in_pod("x1").await;
        assert!(
            denied(register(&mut stranger, &folder, "modbus").await).contains("modules.deviceTwin.mappers")
        );
        let mut mapper = stage.in_pod("m1").await;
        denied(register(&mut mapper, &folder, "opcua").await);
        register(&mut mapper, &folder, "modbus").await.unwrap();
        let mut root = stage.node.manager().await;
        stage.peer.becomes(None, 0, "alive");
        denied(register(&mut root, &folder, "opcua").await);
        stage.node.stop().await;
    });
}

#[test]
fn names_that_are_paths_lead_nowhere() {
    run(|folder| async move {
        let node = start(&folder, options());
        node.pump("7").await;
        let mut manager = node.manager().await;
        register(&mut manager, &folder, "modbus").await.unwrap();
        for (namespace, name) in [
            ("default", "devices/dev1?x="),
            ("default/devices", "pump"),
            ("..", "pump"),
            ("default", "../pump"),
            ("default", "pump?x="),
            ("default", "pump%2f"),
            ("default", "pump\0"),
            ("", "pump"),
            ("default", ""),
            ("Default", "pump"),
            ("default", "pump#"),
        ] {
            let refused = state(&mut manager, namespace, name).await.unwrap_err();
            assert_eq!(refused.code(), Code::InvalidArgument, "{namespace} {name}");
        }
        for value in ["NaN", "-inf", " Infinity ", "1\u{1b}[2J", "\0"] {
            let refused = manager.report_device_status(status_report("", value)).await.unwrap_err();
            assert_eq!(refused.code(), Code::InvalidArgument, "{value}");
        }
        for property in ["", "a b", "a\n", "%2e", "a?b=", "ü"] {
            let mut request = status_report("", "1");
            property.clone_into(&mut request.reported_device.as_mut().unwrap().twins[0].property_name);
            let refused = manager.report_device_status(request).await.unwrap_err();
            assert_eq!(refused.code(), Code::InvalidArgument, "{property}");
        }
        assert!(node.reports().iter().all(|report| !format!("{report:?}").contains("NaN")));
        state(&mut manager, "default", "pump").await.unwrap();
        node.stop().await;
    });
}

#[test]
fn a_mapper_cannot_make_edgecore_dial_somebody_else() {
    run(|folder| async move {
        let (shared, run) = (folder.join("mappers"), folder.join("run"));
        std::fs::create_dir_all(&shared).unwrap();
        std::fs::create_dir_all(&run).unwrap();
        let runtime = UnixListener::bind(run.join("containerd.sock")).unwrap();
        let settings = Settings { dmi_sock_path: shared.clone(), ..Default::default() };
        let node =
            start_with_peers(&folder, options(), settings, Arc::new(edge_devicetwin::KernelPeerResolver));
        node.pump("7").await;
        let socket = shared.join(dmi::SOCKET_NAME);
        until(|| std::os::unix::net::UnixStream::connect(&socket).is_ok()).await;
        let mut manager = DeviceManagerServiceClient::new(dmi::channel(socket.to_str().unwrap()));
        let mut claim = async |address: &Path| {
            let mut request = registration(&shared, true);
            request.mapper.as_mut().unwrap().address = address.to_str().unwrap().as_bytes().to_vec();
            manager.mapper_register(request).await
        };
        for elsewhere in [run.join("containerd.sock"), shared.join("../run/containerd.sock"), socket.clone()]
        {
            let refused = claim(&elsewhere).await.unwrap_err();
            assert_eq!(refused.code(), Code::FailedPrecondition, "{}", elsewhere.display());
        }
        symlink(run.join("containerd.sock"), shared.join("mapper.sock")).unwrap();
        claim(&shared.join("mapper.sock")).await.unwrap();
        node.pump("8").await;
        loop {
            let shown = node.snapshot().await;
            if shown["mappers"]["modbus"]["failures"].as_u64() > Some(0) {
                break;
            }
            tokio::task::yield_now().await;
        }
        let came = futures::FutureExt::now_or_never(runtime.accept());
        assert!(came.is_none(), "the runtime was dialled");

        // The mapper itself, at the same place, is.
        std::fs::remove_file(shared.join("mapper.sock")).unwrap();
        let (mut seen, server) = Mapper::serve(&shared.join("mapper.sock"), false);
        assert_eq!(called(&mut seen).await, "register default/pump speed=8");
        server.abort();
        node.stop().await;
    });
}
