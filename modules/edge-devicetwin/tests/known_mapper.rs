//! A mapper that had registered with KubeEdge's edgecore goes on after its node has moved over: it does not register again.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod fixture;

use std::path::Path;

use contract::rows::KNOWN_MAPPERS_FACT;
use edge_store::{Store, Table, Write};
use fixture::{Mapper, called, options, run, speed, start, status_report};
use serde_json::json;
use tonic::Code;

/// As an import leaves it.
async fn imported(folder: &Path) {
    let address = folder.join("mapper.sock");
    let value = json!({ "v": 1, "name": "modbus-mapper", "address": address, "version": "v1" });
    let (key1, key2) = (KNOWN_MAPPERS_FACT.to_owned(), "modbus".to_owned());
    let row = Write::PutRow { table: Table::Facts, key1, key2, value: value.to_string().into_bytes() };
    Store::open(folder.join("edgecore.db"), options()).unwrap().commit(vec![row]).await.unwrap();
}

fn known(store: &Store) -> usize {
    store.list_rows(Table::Facts, Some(KNOWN_MAPPERS_FACT)).unwrap().len()
}

#[test]
fn it_is_taken_by_its_first_report_and_told_what_its_devices_should_be() {
    run(|folder| async move {
        imported(&folder).await;
        let node = start(&folder, options());
        node.pump("8").await;
        // Whoever does not listen at its address is not it.
        let mut manager = node.manager().await;
        let refused = manager.report_device_status(status_report("7", "6")).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
        assert_eq!(known(&node.store), 1);
        let (mut seen, serving) = Mapper::serve(&folder.join("mapper.sock"), false);
        let mut manager = node.manager().await;
        manager.report_device_status(status_report("7", "6")).await.unwrap();
        // It may have the device as it was before the move: it is told how it is now.
        let mut calls = Vec::new();
        for _ in 0..4 {
            calls.push(called(&mut seen).await);
        }
        assert_eq!(
            calls,
            [
                "create model pumps",
                "update model pumps",
                "register default/pump speed=8",
                "update default/pump speed=8"
            ]
        );
        assert_eq!(speed(&node.reports()), Some((Some("6"), Some("7"))));
        assert_eq!(known(&node.store), 0, "it is registered now, as any other");
        assert_eq!(node.snapshot().await["mappers"]["modbus"]["name"], "modbus-mapper");
        serving.abort();
        node.stop().await;
    });
}
