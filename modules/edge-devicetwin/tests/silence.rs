//! What is wrong with a device is seen in the cloud: silence, refusals, a mapper that has ended. And what an application on the
//! node wants reaches the mapper.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod fixture;

use contract::UpReport;
use contract::ids::DEVICES;
use dmi::v1beta1 as pb;
use fixture::callers::{self, Masked};
use fixture::told::{conditions, document, metadata, told};
use fixture::{Mapper, SOON, called, options, registration, run, start, status_report};
use serde_json::json;

#[test]
fn a_value_and_a_state_that_are_not_repeated_go_stale_on_mqtt_and_in_the_cloud_and_heal() {
    run(|folder| async move {
        let mut node = start(&folder, options());
        let cycle = json!({ "reportToCloud": true, "reportCycle": 1000 });
        let speed = json!({ "name": "speed", "reportToCloud": true, "reportCycle": 1000 });
        node.pump_with(json!({ "properties": [speed], "stateReport": cycle })).await;
        node.published("membership/updated").await;
        let mut manager = node.manager().await;
        manager.mapper_register(registration(&folder, false)).await.unwrap();
        manager.report_device_status(status_report("", "5")).await.unwrap();
        callers::state(&mut manager, "default", "pump").await.unwrap();
        let stale = document(&mut node, true).await;
        let (since, heard) = (&stale["metadata"]["stale"], &stale["metadata"]["timestamp"]);
        assert_eq!(stale["value"], "5", "the last value stays");
        assert!(since.as_i64() > heard.as_i64(), "{stale}");
        loop {
            let state = node.published("default/pump/state/update/result").await;
            if state["device"]["state"] == "unknown" {
                break;
            }
        }
        let online_at = |report: &UpReport| match report {
            UpReport::DeviceState { state, last_online_time, .. } if state == "unknown" => {
                Some(last_online_time.clone())
            }
            _ => None,
        };
        let said = node.reports().iter().rev().find_map(online_at).unwrap();
        assert!(said.is_some(), "the cloud hears when it was online last");
        assert!(told(&node, "Reporting", "Stale").await.contains("`speed`"));
        assert_eq!(metadata(&node, "reported")["stale"], since.to_string());
        node.mqtt("$hw/events/device/default/pump/twin/get", r#"{"event_id":"g"}"#).await.unwrap();
        let got = node.published("twin/get/result").await;
        assert_eq!(&got["twin"]["speed"]["actual"]["metadata"]["stale"], since);

        // The same value again: it is the time that is news.
        manager.report_device_status(status_report("", "5")).await.unwrap();
        callers::state(&mut manager, "default", "pump").await.unwrap();
        document(&mut node, false).await;
        fixture::until(|| !metadata(&node, "reported").contains_key("stale")).await;
        node.stop().await;
    });
}

#[test]
fn a_state_that_nobody_reports_any_more_is_unknown() {
    run(|folder| async move {
        let mut node = start(&folder, options());
        let speed = json!({ "name": "speed", "reportToCloud": true, "reportCycle": 2000 });
        let report = |to_cloud: bool| {
            let cycle = json!({ "reportToCloud": to_cloud, "reportCycle": 1000 });
            json!({ "properties": [speed], "stateReport": cycle })
        };
        node.pump_with(report(true)).await;
        let mut manager = node.manager().await;
        manager.mapper_register(registration(&folder, false)).await.unwrap();
        callers::state(&mut manager, "default", "pump").await.unwrap();
        assert_eq!(node.published("state/update/result").await["device"]["state"], "online");
        // From now on its mapper says nothing of it, whatever becomes of the device.
        node.pump_with(report(false)).await;
        assert_eq!(node.published("state/update/result").await["device"]["state"], "unknown");
        fixture::until(|| {
            let is_told = |report: &UpReport| matches!(report, UpReport::DeviceState { state, .. } if state == "unknown");
            node.reports().iter().any(is_told)
        })
        .await;
        // An MQTT client promised nothing: its word stays, while a value that is said after it grows old.
        node.mqtt("$hw/events/device/default/pump/state/update", r#"{"state":"online"}"#).await.unwrap();
        manager.report_device_status(status_report("", "5")).await.unwrap();
        document(&mut node, true).await;
        node.mqtt("$hw/events/node/edge-1/membership/get", r#"{"event_id":"m"}"#).await.unwrap();
        let members = node.published("membership/get/result").await;
        assert_eq!(members["devices"][0]["state"], "online", "{members}");
        node.stop().await;
    });
}

#[test]
fn a_mapper_that_has_ended_is_named_and_its_devices_are_stale_before_their_cycles_say_so() {
    run(|folder| async move {
        let Masked { mut node, peer } = Masked::start(&folder, Vec::new()).await;
        let speed = json!({ "name": "speed", "reportToCloud": true, "reportCycle": 600_000 });
        node.pump_with(json!({ "properties": [speed], "stateReport": { "reportToCloud": true } })).await;
        peer.becomes(None, 7, "ended");
        let mut manager = node.manager().await;
        callers::register(&mut manager, &folder, "modbus").await.unwrap();
        callers::report(&mut manager).await.unwrap();
        callers::state(&mut manager, "default", "pump").await.unwrap();
        assert!(told(&node, "Served", "MapperGone").await.contains("`modbus-mapper`"));
        assert!(told(&node, "Reporting", "Stale").await.contains("`speed`"));
        document(&mut node, true).await;
        // Another process of the same user speaks for it.
        callers::report(&mut manager).await.unwrap();
        document(&mut node, false).await;
        fixture::until(|| conditions(&node) == Some(Vec::new())).await;
        node.stop().await;
    });
}

#[test]
fn what_a_mapper_refuses_and_what_a_device_refuses_is_told_to_the_cloud() {
    run(|folder| async move {
        let mut node = start(&folder, options());
        node.pump("7").await;
        let (mut seen, mapper) = Mapper::serve(&folder.join("mapper.sock"), true);
        let mut manager = node.manager().await;
        manager.mapper_register(registration(&folder, true)).await.unwrap();
        node.pump("8").await;
        assert_eq!(called(&mut seen).await, "rejected update default/pump speed=8");
        let words = told(&node, "Served", "MapperRefused").await;
        assert_eq!(words, "mapper `modbus-mapper` does not take the device: no such device");

        let mut report = status_report("7", "");
        let twin = &mut report.reported_device.as_mut().unwrap().twins[0];
        let error = |text: &str| [("error".to_owned(), text.to_owned())].into();
        twin.observed_desired.as_mut().unwrap().metadata = error("exception 3");
        twin.reported.as_mut().unwrap().metadata = error("no answer");
        manager.report_device_status(report).await.unwrap();
        assert_eq!(told(&node, "DesiredApplied", "Refused").await, "not taken: `speed` = `8`: exception 3");
        assert_eq!(told(&node, "Reporting", "NoValue").await, "there is no value of `speed`: no answer");
        assert_eq!(metadata(&node, "reported")["error"], "no answer");
        assert_eq!(metadata(&node, "desired")["error"], "exception 3");
        loop {
            let document = node.published("default/pump/twin/update/document").await;
            let current = &document["twin"]["speed"]["current"];
            if current["actual"]["metadata"]["error"] == "no answer" {
                assert_eq!(current["expected"]["metadata"]["error"], "exception 3");
                break;
            }
        }
        manager.report_device_status(status_report("8", "8")).await.unwrap();
        fixture::until(|| conditions(&node).is_some_and(|all| all.iter().all(|(kind, ..)| kind == "Served")))
            .await;
        mapper.abort();
        node.stop().await;
    });
}

#[test]
fn what_an_application_on_the_node_wants_reaches_the_mapper_across_a_restart_until_the_cloud_wants_something_else()
 {
    run(|folder| async move {
        let node = start(&folder, options());
        node.pump("7").await;
        let (mut seen, mapper) = Mapper::serve(&folder.join("mapper.sock"), false);
        let mut manager = node.manager().await;
        manager.mapper_register(registration(&folder, true)).await.unwrap();
        node.update(json!({ "speed": { "expected": { "value": "9" } } })).await.unwrap();
        assert_eq!(called(&mut seen).await, "update default/pump speed=9");
        fixture::until(|| metadata(&node, "desired").get("setBy").is_some_and(|by| by == "edge")).await;
        assert!(
            node.update(json!({ "speed": { "expected": { "value": "fast" } } }))
                .await
                .unwrap_err()
                .contains("INT")
        );
        node.stop().await;

        let node = start(&folder, options());
        assert_eq!(called(&mut seen).await, "create model pumps");
        assert_eq!(called(&mut seen).await, "register default/pump speed=9");
        // The cloud's word that was there before is not said again.
        node.pump("7").await;
        node.pump("8").await;
        assert_eq!(called(&mut seen).await, "update default/pump speed=8");
        // And another device of that name begins without it.
        node.update(json!({ "speed": { "expected": { "value": "9" } } })).await.unwrap();
        assert_eq!(called(&mut seen).await, "update default/pump speed=9");
        let key = edge_store::ObjectKey::new(DEVICES, "default", "pump");
        let json = node.store.get_object(&key).unwrap().unwrap().json;
        node.put(DEVICES, "pump", "u2", serde_json::from_slice(&json).unwrap()).await;
        assert_eq!(called(&mut seen).await, "update default/pump speed=8");
        mapper.abort();
        node.stop().await;
    });
}

#[test]
fn a_device_whose_fields_are_null_is_a_device_without_them() {
    run(|folder| async move {
        let mut node = start(&folder, options());
        let speed = json!({ "name": "speed", "desired": null, "visitors": { "configData": null }, "pushMethod": null });
        node.pump_with(json!({ "properties": [speed], "stateReport": null })).await;
        let device = json!({ "metadata": { "name": "bare" }, "spec": { "nodeName": "edge-1", "properties": null, "methods": null,
            "protocol": { "protocolName": "modbus", "configData": null } }, "status": null });
        node.put(DEVICES, "bare", "u2", device).await;
        node.mqtt("$hw/events/node/edge-1/membership/get", r#"{"event_id":"m"}"#).await.unwrap();
        let members = node.published("membership/get/result").await;
        let names: Vec<&str> = members["devices"]
            .as_array()
            .unwrap()
            .iter()
            .map(|device| device["name"].as_str().unwrap())
            .collect();
        assert_eq!(names, ["bare", "pump"]);
        let mut manager = node.manager().await;
        let request: pb::MapperRegisterRequest = registration(&folder, true);
        let answer =
            tokio::time::timeout(SOON, manager.mapper_register(request)).await.unwrap().unwrap().into_inner();
        let devices: Vec<&str> = answer.device_list.iter().map(|device| device.name.as_str()).collect();
        assert_eq!(devices, ["bare", "pump"]);
        node.stop().await;
    });
}

#[test]
fn an_offline_device_says_why_until_it_is_back_and_across_a_restart() {
    run(|folder| async move {
        let node = start(&folder, options());
        node.pump("").await;
        let mut manager = node.manager().await;
        manager.mapper_register(registration(&folder, false)).await.unwrap();
        let state = |word: &str, reason: Option<&str>| {
            let mut request = tonic::Request::new(pb::ReportDeviceStatesRequest {
                device_namespace: "default".to_owned(),
                device_name: "pump".to_owned(),
                state: word.to_owned(),
            });
            reason.into_iter().for_each(|reason| dmi::notes::set_state_reason(&mut request, reason));
            request
        };
        manager
            .report_device_states(state("offline", Some("Verbindung zu 192.0.2.1 abgelehnt: ü")))
            .await
            .unwrap();
        let words = "the device is offline: Verbindung zu 192.0.2.1 abgelehnt: ü";
        assert_eq!(told(&node, "Reporting", "Offline").await, words);
        node.stop().await;

        let node = start(&folder, options());
        assert_eq!(told(&node, "Reporting", "Offline").await, words);
        let mut manager = node.manager().await;
        manager.report_device_states(state("online", None)).await.unwrap();
        fixture::until(|| {
            conditions(&node).is_some_and(|all| all.iter().all(|(kind, ..)| kind != "Reporting"))
        })
        .await;
        node.stop().await;
    });
}

#[test]
fn of_a_name_that_is_there_twice_the_first_one_counts_for_twins_and_mappers() {
    run(|folder| async move {
        let mut node = start(&folder, options());
        let speed = |desired: &str| json!({ "name": "speed", "desired": { "value": desired } });
        node.pump_with(json!({ "properties": [speed("1"), speed("2")],
            "methods": [{ "name": "Set", "propertyNames": ["speed"] }, { "name": "Set", "propertyNames": [] }] }))
        .await;
        let delta = node.published("default/pump/twin/update/delta").await;
        assert_eq!(delta["delta"], json!({ "speed": "1" }));
        let mut manager = node.manager().await;
        let mut answer = manager.mapper_register(registration(&folder, true)).await.unwrap().into_inner();
        let spec = answer.device_list.remove(0).spec.unwrap();
        let desired: Vec<&str> = spec
            .properties
            .iter()
            .map(|property| property.desired.as_ref().unwrap().value.as_str())
            .collect();
        assert_eq!((desired, spec.methods.len()), (vec!["1"], 1));
        assert_eq!(spec.methods[0].property_names, ["speed"]);
        node.stop().await;
    });
}

#[test]
fn a_reported_value_that_is_not_taken_is_told_to_the_cloud_whichever_door_it_came_by() {
    run(|folder| async move {
        let mut node = start(&folder, options());
        node.pump_with(json!({ "properties": [{ "name": "speed" }, { "name": "extra" }] })).await;
        let mut manager = node.manager().await;
        manager.mapper_register(registration(&folder, false)).await.unwrap();
        let mut report = status_report("", "NaN");
        let twins = &mut report.reported_device.as_mut().unwrap().twins;
        let side = |value: &str| Some(pb::TwinProperty { value: value.to_owned(), ..Default::default() });
        twins.push(pb::Twin {
            property_name: "extra".to_owned(),
            observed_desired: side(""),
            reported: side("7"),
        });
        let actual = |published: &serde_json::Value, property: &str| {
            let actual = &published["twin"][property]["actual"];
            let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
            (text(&actual["value"]), text(&actual["metadata"]["error"]))
        };
        manager.report_device_status(status_report("", "5")).await.unwrap();
        assert_eq!(actual(&node.published("twin/update/result").await, "speed").0, "5");
        let refused = manager.report_device_status(report).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::InvalidArgument);
        let words = "the value of `speed` is not a finite number; report why there is none instead";
        assert_eq!(refused.message(), format!("{words}; the rest of the report is taken"));
        let taken = node.published("twin/update/result").await;
        let in_its_place = (String::new(), format!("edgecore does not take the value: {words}"));
        assert_eq!(actual(&taken, "speed"), in_its_place);
        assert_eq!(actual(&taken, "extra").0, "7");
        assert!(told(&node, "Reporting", "NoValue").await.contains(words));
        assert_eq!(metadata(&node, "reported")["error"], in_its_place.1);

        // An MQTT client's message is refused as a whole, and what it could not say of the device is told as well.
        node.update(json!({ "speed": { "actual": { "value": "6" } } })).await.unwrap();
        fixture::until(|| conditions(&node) == Some(Vec::new())).await;
        let said =
            json!({ "speed": { "actual": { "value": "inf" } }, "extra": { "actual": { "value": "8" } } });
        let refused = node.update(said).await.unwrap_err();
        assert!(refused.contains("not of its type, int"), "{refused}");
        assert!(told(&node, "Reporting", "NoValue").await.contains("not of its type, int"));
        node.mqtt("$hw/events/device/default/pump/twin/get", r#"{"event_id":"g"}"#).await.unwrap();
        let got = node.published("twin/get/result").await;
        assert_eq!((actual(&got, "speed").0, actual(&got, "extra").0), (String::new(), "7".to_owned()));
        node.stop().await;
    });
}
