//! Rules of devices, on their node: with the cloud away and over a restart of edgecore, each change once, and all of it told at last.

use harness::{Cluster, LinkTransport, Node, run};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::fixture::{Mqtt, broker};
use crate::target::Target;

const DEVICES: &str = "devices.kubeedge.io/v1beta1";

/// The gantry of the guide, with shorter times, and a horn.
fn rules(horn: &Target) -> String {
    let url = horn.url("/horn");
    format!(
        r#"
- name: cool
  when: {{property: temperature, above: 80, clear: 75, for: 300ms}}
  then:
  - set: {{device: fan, property: run, value: true}}
  - publish: {{topic: hall/alarm}}
  - call: {{url: "{url}"}}
  otherwise:
  - set: {{device: fan, property: run, value: false}}
- name: lost
  when: {{offline: true, for: 300ms}}
  then:
  - publish: {{topic: hall/lost, payload: the gantry is away}}
"#
    )
}

async fn apply(cluster: &Cluster, name: &str, property: Value, rules: Option<String>) {
    let annotations = rules.map(|rules| json!({ "kubehive.io/rules": rules }));
    let own = property["name"].clone();
    let model =
        json!({ "metadata": { "name": name, "namespace": "default" }, "spec": { "properties": [property] } });
    cluster.apply(DEVICES, "DeviceModel", model).await;
    let device = json!({ "metadata": { "name": name, "namespace": "default", "annotations": annotations },
        "spec": { "nodeName": "edge-1", "deviceModelRef": { "name": name }, "properties": [{ "name": own }],
            "protocol": { "protocolName": "mqtt" } } });
    cluster.apply(DEVICES, "Device", device).await;
}

async fn say(client: &Mqtt, cluster: &Cluster, heat: &str) {
    let twin = json!({ "twin": { "temperature": { "actual": { "value": heat } } } }).to_string();
    client.publish(cluster, "$hw/events/device/default/gantry/twin/update", [twin]).await;
}

/// What the fan should do, by its last delta.
fn fan(client: &Mqtt) -> Option<String> {
    let heard = client.heard.borrow();
    let delta = heard.iter().rev().find(|(topic, _)| topic.ends_with("fan/twin/update/delta"))?;
    let delta: Value = serde_json::from_str(&delta.1).unwrap();
    delta["delta"]["run"].as_str().map(str::to_owned)
}

fn heard(client: &Mqtt, topic: &str) -> usize {
    client.heard.borrow().iter().filter(|(of, _)| of == topic).count()
}

async fn connect(cluster: &Cluster, node: &Node, name: &str) -> Mqtt {
    let client = Mqtt::connect(broker(cluster, node, 0).await, name);
    client.subscribe(cluster, "hall/#").await;
    client.subscribe(cluster, "$hw/events/device/default/fan/twin/update/delta").await;
    client
}

async fn triggered(node: &Node) -> Value {
    node.snapshot("edge-devicerules").await["triggered"].clone()
}

/// The DeviceStatus' conditions as `Type/Reason`.
async fn conditions(cluster: &Cluster, device: &str) -> Vec<String> {
    let statuses = cluster.objects(DEVICES, "DeviceStatus", Some("default"));
    let status = statuses.get_opt(device).await.unwrap().map(|status| status.data).unwrap_or_default();
    let all = status.pointer("/status/extensions/conditions").and_then(Value::as_array).cloned();
    let word = |one: &Value| format!("{}/{}", one["type"].as_str().unwrap(), one["reason"].as_str().unwrap());
    all.unwrap_or_default().iter().map(word).collect()
}

/// How often an Event about the gantry was counted.
async fn events(cluster: &Cluster, reason: &str) -> i64 {
    let events = cluster.objects("v1", "Event", Some("default")).list(&Default::default()).await.unwrap();
    let about = |event: &Value| {
        event["involvedObject"]["kind"] == "Device" && event["involvedObject"]["name"] == "gantry"
    };
    let of = events
        .items
        .iter()
        .map(|event| &event.data)
        .filter(|event| about(event) && event["reason"] == reason);
    of.map(|event| event["count"].as_i64().unwrap()).sum()
}

#[test]
fn a_rule_acts_without_the_cloud_and_over_a_restart_and_all_is_told_when_it_is_back() {
    run(async || {
        let mut cluster = Cluster::over(LinkTransport::Quic).await;
        let horn = Target::start(cluster.env());
        apply(&cluster, "fan", json!({ "name": "run", "type": "BOOLEAN", "accessMode": "ReadWrite" }), None)
            .await;
        let heat = json!({ "name": "temperature", "type": "FLOAT", "accessMode": "ReadOnly" });
        apply(&cluster, "gantry", heat, Some(rules(&horn))).await;
        let mut node = cluster.node("edge-1").await;
        node.reconfigure(|settings| settings.modules.device_twin.rule_calls = true).await;
        cluster
            .until_async("the rules are there", async || {
                node.snapshot("edge-devicerules").await["rules"] == 2
            })
            .await;
        let client = connect(&cluster, &node, "app").await;
        let state = "$hw/events/device/default/gantry/state/update";
        client.publish(&cluster, state, [r#"{"state":"online"}"#.to_owned()]).await;
        say(&client, &cluster, "60").await;
        cluster.stop_cloud().await;

        say(&client, &cluster, "85.5").await;
        cluster.until("the fan is to run", || fan(&client).as_deref() == Some("true")).await;
        cluster.until("the alarm is published", || heard(&client, "hall/alarm") == 1).await;
        cluster.until("the horn is called", || horn.arrived().len() == 1).await;
        assert_eq!(horn.arrived()[0].path, "/horn");

        // edgecore begins anew, still without the cloud: nothing happens again.
        drop(client);
        node.stop().await;
        node.start().await;
        let client = connect(&cluster, &node, "app-2").await;
        cluster.until_async("it knows that it has triggered", async || triggered(&node).await == 1).await;
        say(&client, &cluster, "86").await;
        client.publish(&cluster, state, [r#"{"state":"offline"}"#.to_owned()]).await;
        // This one comes after whatever the other would have done.
        cluster.until("the loss is published", || heard(&client, "hall/lost") == 1).await;
        assert_eq!((heard(&client, "hall/alarm"), horn.arrived().len()), (0, 1));
        say(&client, &cluster, "74").await;
        cluster.until("the fan is to stand still", || fan(&client).as_deref() == Some("false")).await;

        cluster.start_cloud().await;
        cluster
            .until_async("the Events are there", async || {
                events(&cluster, "RuleTriggered").await == 2 && events(&cluster, "RuleCleared").await == 1
            })
            .await;
        cluster
            .until_async("the status says that one has triggered", async || {
                conditions(&cluster, "gantry").await.contains(&"RulesQuiet/Triggered".to_owned())
            })
            .await;
        let statuses = cluster.objects(DEVICES, "DeviceStatus", Some("default"));
        cluster
            .until_async("the fan's status says what the node wants", async || {
                let status = statuses.get("fan").await.unwrap().data["status"].clone();
                let desired = &status["twins"][0]["observedDesired"];
                desired["value"] == "false" && desired["metadata"]["setBy"] == "edge"
            })
            .await;
        client.publish(&cluster, state, [r#"{"state":"online"}"#.to_owned()]).await;
        cluster
            .until_async("and that it is over", async || {
                !conditions(&cluster, "gantry").await.contains(&"RulesQuiet/Triggered".to_owned())
            })
            .await;
    });
}

#[test]
fn rules_that_are_not_taken_say_so_in_the_status_and_heal() {
    run(async || {
        let mut cluster = Cluster::over(LinkTransport::Memory).await;
        let horn = Target::start(cluster.env());
        let heat = json!({ "name": "temperature", "type": "FLOAT", "accessMode": "ReadOnly" });
        apply(&cluster, "gantry", heat, Some(rules(&horn).replace("above", "abov"))).await;
        cluster
            .until_async("it is refused by name, without the node", async || {
                conditions(&cluster, "gantry").await == ["Valid/NotHonoured"]
            })
            .await;
        let statuses = cluster.objects(DEVICES, "DeviceStatus", Some("default"));
        let status = statuses.get("gantry").await.unwrap().data;
        let message = status["status"]["extensions"]["conditions"][0]["message"].as_str().unwrap().to_owned();
        assert!(message.contains("kubehive.io/rules: `cool`: unknown field `abov`"), "{message}");
        let node = cluster.node("edge-1").await;
        let devices = cluster.objects(DEVICES, "Device", Some("default"));
        let patch = json!({ "metadata": { "annotations": { "kubehive.io/rules": rules(&horn) } } });
        devices.patch("gantry", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
        cluster
            .until_async("they are there", async || node.snapshot("edge-devicerules").await["rules"] == 2)
            .await;
        // The fan is not on this node, and calls are off.
        let client = Mqtt::connect(broker(&cluster, &node, 0).await, "app");
        say(&client, &cluster, "90").await;
        cluster
            .until_async("what was not done is said", async || {
                conditions(&cluster, "gantry").await.contains(&"RulesApplied/ActionFailed".to_owned())
            })
            .await;
        assert!(horn.arrived().is_empty());
    });
}
