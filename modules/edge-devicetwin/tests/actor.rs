//! DeviceTwin between a real store, probes for its neighbours and stand-in mappers on real sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod fixture;

use contract::UpReport;
use contract::devicetwin::UpdateListeners;
use contract::eventbus::EventBusMsg;
use contract::ids::DEVICES;
use contract::metamanager::MetaMsg;
use dmi::v1beta1 as pb;
use edge_store::{Options, Store, Table};
use fixture::{
    Mapper, SOON, called, desired, options, registration, run, speed, start, status_report, twin_rows,
};
use serde_json::{Value, json};
use tonic::Code;

#[test]
fn what_nobody_listens_for_is_not_said_but_a_delta_and_a_refusal_are() {
    run(|folder| async move {
        let mut node = start(&folder, options());
        node.pump("").await;
        node.published("membership/updated").await;
        let topic = "$hw/events/device/default/pump/twin/update";
        let nobody = UpdateListeners { result: false, document: false };
        let update = json!({ "event_id": "1", "twin": {
            "heat": { "actual": { "value": "21.5" }, "expected": { "value": "30" } } } });
        node.mqtt_heard_by(topic, update.to_string(), nobody).await.unwrap();
        let first = node.bus.next(SOON).await;
        let is_delta = |topic: &str| topic.ends_with("default/pump/twin/update/delta");
        assert!(matches!(&first, Some(EventBusMsg::Publish { topic, .. }) if is_delta(topic)), "{first:?}");
        let result = UpdateListeners { result: true, document: false };
        let same = json!({ "event_id": "2", "twin": { "heat": { "actual": { "value": "22" } } } });
        node.mqtt_heard_by(topic, same.to_string(), result).await.unwrap();
        assert_eq!(node.published("twin/update/result").await["event_id"], "2");
        node.mqtt_heard_by(topic, "no JSON", nobody).await.unwrap_err();
        assert_eq!(node.published("twin/update/result").await["code"], 400);
    });
}

#[test]
fn an_update_is_answered_after_one_commit_of_row_and_report() {
    run(|folder| async move {
        let mut node = start(&folder, options());
        node.pump("").await;
        node.published("membership/updated").await;
        let before = node.store.revision();
        node.update(json!({ "heat": { "actual": { "value": "21.5" }, "expected": { "value": "30" }, "metadata": { "type": "float" } } }))
            .await
            .unwrap();
        assert_eq!(node.store.revision(), before + 1, "one commit");
        assert_eq!(twin_rows(&node.store), 1);
        let UpReport::Twin { property, reported, observed_desired, .. } = node.reports().remove(0) else {
            panic!()
        };
        let reported = reported.unwrap();
        assert_eq!((property.as_str(), reported.value.as_str()), ("heat", "21.5"));
        assert_eq!(reported.metadata["type"], "float");
        assert!(reported.metadata["timestamp"].parse::<i64>().unwrap() > 1_800_000_000_000);
        assert_eq!(observed_desired.unwrap().value, "30");
        assert!(matches!(node.meta.next(SOON).await, Some(MetaMsg::OutboxGrew)));

        let result = node.published("default/pump/twin/update/result").await;
        assert_eq!(result["event_id"], "7c1f");
        let twin = &result["twin"]["heat"];
        assert_eq!(
            (&twin["actual"]["value"], &twin["optional"], &twin["metadata"]),
            (&json!("21.5"), &json!(true), &json!({ "type": "float" }))
        );
        assert!(twin["actual"]["metadata"]["timestamp"].is_i64() && twin.get("actual_version").is_none());
        let document = node.published("default/pump/twin/update/document").await;
        assert_eq!(document["event_id"], "7c1f");
        assert_eq!(
            (&document["twin"]["heat"]["last"], &document["twin"]["heat"]["current"]),
            (&Value::Null, twin)
        );
        let delta = node.published("default/pump/twin/update/delta").await;
        assert_eq!(delta["delta"], json!({ "heat": "30" }));
        assert_eq!(&delta["twin"]["heat"], twin);

        // The same again is answered, and costs no commit.
        let before = node.store.revision();
        node.update(json!({ "heat": { "actual": { "value": "21.5" } } })).await.unwrap();
        assert_eq!(node.published("twin/update/result").await["twin"]["heat"]["actual"]["value"], "21.5");
        assert_eq!(node.store.revision(), before);
        assert_ne!(node.published("twin/update/document").await["twin"]["heat"]["last"], Value::Null);

        node.update(json!({ "heat": null })).await.unwrap();
        assert_eq!(node.published("twin/update/document").await["twin"]["heat"]["current"], Value::Null);
        let heat = node
            .reports()
            .into_iter()
            .find(|r| matches!(r, UpReport::Twin { property, .. } if property == "heat"));
        assert!(matches!(heat, Some(UpReport::Twin { reported: None, observed_desired: None, .. })));
        node.mqtt("$hw/events/device/default/pump/twin/get", r#"{"event_id":"g1"}"#).await.unwrap();
        let got = node.published("twin/get/result").await;
        assert_eq!((&got["event_id"], &got["twin"]), (&json!("g1"), &json!({})));
        node.stop().await;
    });
}

#[test]
fn a_mapper_that_reads_doubles_gets_all_digits_and_another_one_what_kubeedge_sends() {
    run(|folder| async move {
        let node = start(&folder, options());
        let config = json!({ "latitude": 48.137_154_321, "half": 0.5 });
        let protocol = json!({ "protocolName": "modbus", "configData": config });
        node.pump_with(json!({ "protocol": protocol })).await;
        let mut manager = node.manager().await;
        for (doubles, latitude, kind) in
            [(false, 48.137_154, "FloatValue"), (true, 48.137_154_321, "DoubleValue")]
        {
            let mut request = tonic::Request::new(registration(&folder, true));
            if doubles {
                dmi::notes::set_doubles(&mut request);
            }
            let answer = manager.mapper_register(request).await.unwrap().into_inner();
            let protocol = answer.device_list[0].spec.as_ref().unwrap().protocol.as_ref().unwrap();
            let data = &protocol.config_data.as_ref().unwrap().data;
            assert_eq!(dmi::Scalar::from_any(&data["latitude"]), Ok(dmi::Scalar::Float(latitude)));
            assert!(
                data["latitude"].type_url.ends_with(kind) && data["half"].type_url.ends_with("FloatValue")
            );
        }
        node.stop().await;
    });
}

#[test]
fn what_is_wrong_is_refused_with_its_code() {
    run(|folder| async move {
        let mut node = start(&folder, options());
        node.pump("").await;
        let elsewhere = "$hw/events/device/default/stranger/twin/update";
        let update = r#"{"event_id":"u","twin":{"a":{"actual":{"value":"1"}}}}"#;
        assert!(node.mqtt(elsewhere, update).await.is_err());
        let result = node.published("default/stranger/twin/update/result").await;
        assert_eq!((&result["event_id"], &result["code"]), (&json!("u"), &json!(404)));
        assert!(result["reason"].as_str().unwrap().contains("default/stranger"));
        assert!(node.mqtt("$hw/events/device/default/stranger/twin/get", "{}").await.is_err());
        assert_eq!(node.published("default/stranger/twin/get/result").await["code"], 404);
        let mine = "$hw/events/device/default/pump/twin/update";
        let deep = "[".repeat(100_000);
        let large = format!(r#"{{"twin":{{"a":{{"actual":{{"value":"{}"}}}}}}}}"#, "x".repeat(300 << 10));
        let long_id = format!(r#"{{"event_id":"{}","twin":{{}}}}"#, "x".repeat(300));
        for payload in [
            "",
            "x",
            "null",
            "{}",
            r#"{"twin":7}"#,
            r#"{"twin":{"a":{"actual":{"value":7}}}}"#,
            &deep,
            &large,
            &long_id,
        ] {
            assert!(node.mqtt(mine, payload.to_owned()).await.is_err(), "{:.40}", payload);
            assert_eq!(node.published("default/pump/twin/update/result").await["code"], 400, "{payload:.40}");
        }
        assert!(node.mqtt(mine, vec![0xff, 0xfe]).await.is_err());
        for topic in
            ["$hw/events/device/default/pump/twin/cloud_updated", "$hw/events/device/pump/twin/update", "a/b"]
        {
            assert!(node.mqtt(topic, update).await.is_err(), "{topic}");
        }
        assert_eq!(twin_rows(&node.store), 0);
        node.stop().await;
    });
}

#[test]
fn what_the_store_does_not_take_is_not_kept() {
    run(|folder| async move {
        let mut node = start(&folder, Options { row_bytes: 900, ..options() });
        node.put(DEVICES, "pump", "u1", json!({ "metadata": { "name": "pump" }, "spec": {} })).await;
        let value = "x".repeat(500);
        let sides = json!({ "heat": { "actual": { "value": value }, "expected": { "value": value } } });
        assert!(node.update(sides).await.unwrap_err().contains("900"));
        assert_eq!(node.published("twin/update/result").await["code"], 500);
        node.mqtt("$hw/events/device/default/pump/twin/get", "{}").await.unwrap();
        assert_eq!(node.published("twin/get/result").await["twin"], json!({}));
        assert!(node.reports().is_empty());
        node.stop().await;
    });
}

#[test]
fn members_come_with_the_cloud_and_go_with_their_twins() {
    run(|folder| async move {
        let mut node = start(&folder, options());
        node.pump("").await;
        let updated = node.published("$hw/events/node/edge-1/membership/updated").await;
        let described = json!([{ "id": "default/pump", "name": "pump", "description": "a-pump" }]);
        assert_eq!((&updated["added_devices"], &updated["removed_devices"]), (&described, &Value::Null));
        node.mqtt("$hw/events/device/default/pump/state/update", r#"{"state":"online"}"#).await.unwrap();
        let state = node.published("default/pump/state/update/result").await;
        assert_eq!((&state["device"]["name"], &state["device"]["state"]), (&json!("pump"), &json!("online")));
        let time = state["device"]["lastOnlineTime"].as_str().unwrap().to_owned();
        assert!(time.starts_with("2027-01-15T") && time.ends_with('Z') && time.len() == 20, "{time}");
        assert!(
            node.mqtt("$hw/events/device/default/pump/state/update", r#"{"state":"dancing"}"#).await.is_err()
        );
        let state = UpReport::DeviceState {
            namespace: "default".into(),
            name: "pump".into(),
            state: "online".into(),
            last_online_time: Some(time.clone()),
        };
        assert_eq!(node.reports(), [state]);
        node.mqtt("$hw/events/node/edge-1/membership/get", r#"{"event_id":"m1"}"#).await.unwrap();
        let members = node.published("membership/get/result").await;
        assert_eq!(members["event_id"], "m1");
        assert_eq!(
            members["devices"],
            json!([{ "id": "default/pump", "name": "pump", "description": "a-pump", "state": "online", "last_online": time }])
        );
        node.mqtt("$hw/events/device/default/pump/state/update", r#"{"state":"offline"}"#).await.unwrap();
        let state = node.published("default/pump/state/update/result").await;
        assert_eq!(
            state["device"],
            json!({ "name": "pump", "state": "offline" }),
            "as KubeEdge has it on MQTT"
        );
        let state = UpReport::DeviceState {
            namespace: "default".into(),
            name: "pump".into(),
            state: "offline".into(),
            last_online_time: Some(time.clone()),
        };
        assert_eq!(node.reports().last(), Some(&state), "the cloud hears when it was online last");
        node.update(json!({ "heat": { "actual": { "value": "1" } } })).await.unwrap();
        // Another device under the same name begins anew.
        node.put(DEVICES, "pump", "u2", json!({ "metadata": { "name": "pump" }, "spec": {} })).await;
        let updated = node.published("membership/updated").await;
        assert_eq!(updated["removed_devices"], updated["added_devices"]);
        assert_eq!(twin_rows(&node.store), 0);
        // An object that is not understood is no device that is gone.
        node.put(DEVICES, "pump", "u2", json!({ "spec": 7 })).await;
        node.mqtt("$hw/events/node/edge-1/membership/get", "{}").await.unwrap();
        assert_eq!(node.published("membership/get/result").await["devices"][0]["state"], "unknown");
        node.delete(DEVICES, "pump").await;
        let updated = node.published("membership/updated").await;
        assert_eq!(updated["removed_devices"], json!([{ "id": "default/pump", "name": "pump" }]));
        assert!(store_is_empty(&node.store));
        node.stop().await;
    });
}

fn store_is_empty(store: &Store) -> bool {
    [Table::Twins, Table::DeviceStates].iter().all(|table| store.list_rows(*table, None).unwrap().is_empty())
}

#[test]
fn a_mapper_registers_reports_and_hears_of_desired_values() {
    run(|folder| async move {
        let mut node = start(&folder, options());
        node.pump("7").await;
        assert_eq!(node.published("default/pump/twin/update/delta").await["delta"], json!({ "speed": "7" }));
        let (mut seen, mapper) = Mapper::serve(&folder.join("mapper.sock"), false);
        let mut manager = node.manager().await;
        let answer = manager.mapper_register(registration(&folder, true)).await.unwrap().into_inner();
        assert_eq!(answer.model_list.iter().map(|m| m.name.as_str()).collect::<Vec<_>>(), ["pumps"]);
        assert_eq!(answer.device_list.len(), 1);
        assert_eq!(desired(answer.device_list.into_iter().next()), "default/pump speed=7");

        let before = node.store.revision();
        manager.report_device_status(status_report("7", "5")).await.unwrap();
        assert_eq!(
            node.store.revision(),
            before + 2,
            "who speaks for the device, once; row and report in one"
        );
        assert_eq!(twin_rows(&node.store), 1);
        assert_eq!(speed(&node.reports()), Some((Some("5"), Some("7"))));
        let result = node.published("default/pump/twin/update/result").await;
        assert_eq!(result["twin"]["speed"]["actual"]["value"], "5");
        // The same reading again is nobody's news.
        manager.report_device_status(status_report("7", "5")).await.unwrap();
        assert_eq!(node.store.revision(), before + 2);

        node.pump("9").await;
        assert_eq!(called(&mut seen).await, "update default/pump speed=9");
        assert_eq!(
            speed(&node.reports()),
            Some((Some("5"), Some("7"))),
            "the mapper has not said that it knows"
        );
        manager.report_device_status(status_report("9", "9")).await.unwrap();
        assert_eq!(speed(&node.reports()), Some((Some("9"), Some("9"))));
        let state = pb::ReportDeviceStatesRequest {
            device_name: "pump".to_owned(),
            device_namespace: "default".to_owned(),
            state: "ok".to_owned(),
        };
        manager.report_device_states(state.clone()).await.unwrap();
        assert_eq!(node.published("state/update/result").await["device"]["state"], "ok");
        let say = |word: &str| pb::ReportDeviceStatesRequest { state: word.to_owned(), ..state.clone() };
        let refused = manager.report_device_states(say("healthy")).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(refused.message().contains("offline, ok, unhealthy"), "{refused:?}");
        // A word that the SDK has and the contract has not.
        manager.report_device_states(say("disconnected")).await.unwrap();
        assert_eq!(node.published("state/update/result").await["device"]["state"], "offline");

        node.delete(DEVICES, "pump").await;
        assert_eq!(called(&mut seen).await, "remove default/pump");
        assert_eq!(called(&mut seen).await, "remove model pumps");
        mapper.abort();
        node.stop().await;
    });
}

#[test]
fn a_broken_call_of_a_mapper_gets_an_error() {
    run(|folder| async move {
        let node = start(&folder, options());
        node.pump("7").await;
        let mut manager = node.manager().await;
        let nobody = pb::MapperRegisterRequest { with_data: true, mapper: None };
        assert_eq!(manager.mapper_register(nobody).await.unwrap_err().code(), Code::InvalidArgument);
        let mut no_protocol = registration(&folder, true);
        no_protocol.mapper.as_mut().unwrap().protocol.clear();
        assert_eq!(manager.mapper_register(no_protocol).await.unwrap_err().code(), Code::FailedPrecondition);
        let quiet = manager.mapper_register(registration(&folder, false)).await.unwrap().into_inner();
        assert!(quiet.device_list.is_empty());
        let kept = node.store.list_rows(Table::Mappers, None).unwrap().remove(0);
        let kept: Value = serde_json::from_slice(&kept.value).unwrap();
        assert_eq!(kept["with_data"], false, "it speaks for its protocol, and is called by nobody");
        let mut half = status_report("", "1");
        half.reported_device.as_mut().unwrap().twins[0].observed_desired = None;
        assert_eq!(manager.report_device_status(half).await.unwrap_err().code(), Code::InvalidArgument);
        let nothing = pb::ReportDeviceStatusRequest { reported_device: None, ..status_report("", "") };
        assert_eq!(manager.report_device_status(nothing).await.unwrap_err().code(), Code::InvalidArgument);
        let stranger =
            pb::ReportDeviceStatusRequest { device_name: "stranger".to_owned(), ..status_report("", "1") };
        let refused = manager.report_device_status(stranger).await.unwrap_err();
        assert!(refused.code() == Code::FailedPrecondition && refused.message().contains("default/stranger"));
        let mut many = status_report("", "1");
        let twins = &mut many.reported_device.as_mut().unwrap().twins;
        *twins = vec![twins[0].clone(); 1025];
        assert_eq!(manager.report_device_status(many).await.unwrap_err().code(), Code::InvalidArgument);
        let large = status_report("", &"x".repeat(300 << 10));
        assert_eq!(manager.report_device_status(large).await.unwrap_err().code(), Code::OutOfRange);
        manager.report_device_status(status_report("", "1")).await.unwrap();
        node.stop().await;
    });
}

#[test]
fn a_restart_serves_the_twins_and_pushes_until_the_mapper_is_there() {
    run(|folder| async move {
        let node = start(&folder, options());
        node.pump("7").await;
        let mut manager = node.manager().await;
        manager.mapper_register(registration(&folder, true)).await.unwrap();
        manager.report_device_status(status_report("7", "7")).await.unwrap();
        drop(manager);
        node.stop().await;

        // Nobody serves the mapper's socket yet.
        let mut node = start(&folder, options());
        node.mqtt("$hw/events/device/default/pump/twin/get", "{}").await.unwrap();
        let got = node.published("twin/get/result").await;
        assert_eq!(got["twin"]["speed"]["actual"]["value"], "7");
        assert_eq!(got["twin"]["speed"]["metadata"]["type"], "int");
        node.pump("8").await;
        let (mut seen, mapper) = Mapper::serve(&folder.join("mapper.sock"), false);
        assert_eq!(called(&mut seen).await, "create model pumps");
        // The change may reach DeviceTwin after the mapper's socket is found; the mapper gets it in either order.
        let registered = called(&mut seen).await;
        assert!(
            ["register default/pump speed=7", "register default/pump speed=8"].contains(&registered.as_str()),
            "{registered}"
        );
        assert_eq!(called(&mut seen).await, "update default/pump speed=8");
        mapper.abort();
        node.stop().await;
    });
}

#[test]
fn a_mapper_that_refuses_an_update_gets_the_device_anew() {
    run(|folder| async move {
        let node = start(&folder, options());
        node.pump("7").await;
        let (mut seen, mapper) = Mapper::serve(&folder.join("mapper.sock"), true);
        let mut manager = node.manager().await;
        manager.mapper_register(registration(&folder, true)).await.unwrap();
        node.pump("8").await;
        assert_eq!(called(&mut seen).await, "rejected update default/pump speed=8");
        assert_eq!(called(&mut seen).await, "register default/pump speed=8");
        mapper.abort();
        node.stop().await;
    });
}
