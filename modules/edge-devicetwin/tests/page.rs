//! What DeviceTwin says for the node's page.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod fixture;

use contract::devicetwin::TwinMsg;
use contract::edgepage::{DevicesView, ViewBounds};
use contract::ids::DEVICES;
use fixture::{Node, SOON, options, pump, run, start};
use serde_json::json;

async fn described(node: &Node, bounds: ViewBounds) -> DevicesView {
    node.twin.ask(SOON, |reply| TwinMsg::Describe { bounds, reply }).await.unwrap()
}

#[test]
fn devices_that_are_not_well_stand_first_and_no_more_than_was_asked_for() {
    run(|folder| async move {
        let node = start(&folder, options());
        node.pump("").await;
        for name in ["alpha", "zulu"] {
            let mut device = pump(json!({}));
            device["metadata"]["name"] = name.into();
            node.put(DEVICES, name, &format!("u-{name}"), device).await;
        }
        for (name, state) in [("alpha", "online"), ("pump", "online"), ("zulu", "offline")] {
            let topic = format!("$hw/events/device/default/{name}/state/update");
            node.mqtt(&topic, json!({ "state": state }).to_string()).await.unwrap();
        }
        let twin = json!({ "twin": {
            "heat": { "actual": { "value": "long".repeat(100) }, "expected": { "value": "30" } },
            "level": { "actual": { "value": "3" } } } });
        node.mqtt("$hw/events/device/default/zulu/twin/update", twin.to_string()).await.unwrap();
        let all = described(&node, ViewBounds { rows: 9, parts: 9, text: 16 }).await;
        let names: Vec<_> =
            all.devices.iter().map(|device| (device.name.as_str(), device.state.as_str())).collect();
        assert_eq!(names, [("zulu", "offline"), ("alpha", "online"), ("pump", "online")]);
        let zulu = &all.devices[0];
        assert_eq!(
            (zulu.namespace.as_str(), zulu.protocol.as_str(), zulu.properties_in_all),
            ("default", "modbus", 2)
        );
        let heat = &zulu.properties[0];
        assert_eq!((heat.name.as_str(), heat.desired.as_deref()), ("heat", Some("30")));
        assert_eq!(heat.reported.as_deref(), Some("longlonglonglong…"));
        assert!(heat.reported_unix_ms.is_some_and(|at| at > 0) && !heat.is_stale);
        let few = described(&node, ViewBounds { rows: 1, parts: 1, text: 16 }).await;
        assert_eq!((few.devices.len(), few.devices_in_all), (1, 3));
        assert_eq!((few.devices[0].properties.len(), few.devices[0].properties_in_all), (1, 2));
    });
}
