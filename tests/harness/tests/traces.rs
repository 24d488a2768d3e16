//! One pod's and one device's way, from the change in the API to the node and back, as a collector has it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;

use harness::{Cluster, CollectedSpan, LinkTransport, Node, TraceCollector, is_whole, run};
use kube::api::{Patch, PatchParams};
use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS};
use serde_json::{Value, json};

const IMAGE: &str = "web:1";
const DEVICES: &str = "devices.kubeedge.io/v1beta1";

/// A cluster over QUIC whose CloudCore traces everything, and a node that traces what CloudCore does, both to this collector.
async fn traced(collector: &TraceCollector) -> (Cluster, Node) {
    let mut cluster = Cluster::over(LinkTransport::Quic).await;
    let url = collector.url();
    cluster
        .reconfigure_cloud(|settings| {
            let tracing = &mut settings.common_config.tracing;
            (tracing.endpoint, tracing.sampling_rate_per_million) = (url.clone(), 1_000_000);
        })
        .await;
    let mut node = cluster.node("edge-1").await;
    let url = collector.url();
    node.reconfigure(|settings| {
        settings.modules.edged.tailored_kubelet_config.tracing.endpoint = url;
    })
    .await;
    cluster.until_ready(&node).await;
    (cluster, node)
}

/// Waits until all of these have come in one trace that begins so, and everything between them.
async fn until_whole(
    cluster: &Cluster,
    collector: &TraceCollector,
    (first, object): (&str, &str),
    wanted: &[&str],
) -> Vec<CollectedSpan> {
    let has_all = || {
        let mut missing = Vec::new();
        for trace in collector.traces(first, object) {
            let shown: BTreeSet<String> = trace.iter().map(CollectedSpan::shown).collect();
            let wants: Vec<&&str> = wanted.iter().filter(|name| !shown.contains(**name)).collect();
            if wants.is_empty() && is_whole(&trace) {
                return Ok(trace);
            }
            missing.push(format!("{wants:?} beside {shown:?}"));
        }
        Err(missing)
    };
    let env = cluster.env();
    let until = env.now() + harness::LONG;
    loop {
        match has_all() {
            Ok(trace) => return trace,
            Err(missing) => assert!(env.now() < until, "missing in each: {missing:#?}"),
        }
        env.sleep(std::time::Duration::from_millis(50)).await;
    }
}

/// Whose child the first span of a name is.
fn parent_of(trace: &[CollectedSpan], name: &str) -> String {
    let own = trace.iter().find(|own| own.shown() == name).unwrap();
    let parent = trace.iter().find(|other| other.span.span_id == own.span.parent_span_id);
    parent.map(CollectedSpan::shown).unwrap_or_default()
}

/// Says something of the horn, over MQTT.
async fn say(cluster: &Cluster, node: &Node, payload: String) {
    let mut port = None;
    cluster
        .until_async("the broker listens", async || {
            let broker = node.snapshot("edge-eventbus").await;
            port = broker["listening"].as_str().and_then(|text| text.rsplit(':').next()?.parse().ok());
            port.is_some()
        })
        .await;
    let (client, mut events) = AsyncClient::new(MqttOptions::new("horn", "127.0.0.1", port.unwrap()), 8);
    let topic = "$hw/events/device/default/horn/twin/update";
    client.publish(topic, QoS::AtLeastOnce, false, payload).await.unwrap();
    let acknowledged =
        async { while !matches!(events.poll().await, Ok(Event::Incoming(Packet::PubAck(_)))) {} };
    assert!(cluster.env().timeout(harness::LONG, acknowledged).await.is_some());
}

#[test]
fn one_pod_is_followed_from_its_change_to_its_container_and_back_to_its_status() {
    run(async || {
        let collector = TraceCollector::start().await;
        let (cluster, node) = traced(&collector).await;
        node.runtime().add_image(IMAGE);
        let spec = json!({
            "nodeName": node.name(),
            "terminationGracePeriodSeconds": 1,
            "containers": [{"name": "web", "image": IMAGE}],
        });
        let pod = json!({"metadata": {"name": "web", "namespace": "default"}, "spec": spec});
        cluster.apply("v1", "Pod", pod).await;
        let wanted = [
            "cloudcore: EdgeController send",
            "cloudcore: SyncController send",
            "cloudcore: CloudHub send",
            "edgecore: EdgeHub receive",
            "edgecore: MetaManager store",
            "edgecore: Edged pod worker",
            "edgecore: Edged create sandbox",
            "edgecore: Edged pull image",
            "edgecore: Edged start container",
            "edgecore: Edged report status",
            "edgecore: MetaManager deliver",
            "edgecore: EdgeHub send",
            "cloudcore: CloudHub receive",
            "cloudcore: EdgeController write status",
        ];
        let trace = until_whole(&cluster, &collector, ("EdgeController send", "web"), &wanted).await;
        for (name, parent) in [
            ("cloudcore: EdgeController send", ""),
            ("cloudcore: SyncController send", "cloudcore: EdgeController send"),
            ("edgecore: EdgeHub receive", "cloudcore: CloudHub send"),
            ("edgecore: MetaManager store", "edgecore: EdgeHub receive"),
            ("edgecore: Edged pod worker", "edgecore: MetaManager store"),
            ("edgecore: Edged start container", "edgecore: Edged pod worker"),
            ("edgecore: Edged report status", "edgecore: Edged pod worker"),
            ("edgecore: MetaManager deliver", "edgecore: Edged report status"),
            ("cloudcore: CloudHub receive", "edgecore: EdgeHub send"),
            ("cloudcore: EdgeController write status", "cloudcore: CloudHub receive"),
        ] {
            assert_eq!(parent_of(&trace, name), parent, "{name}");
        }
        let root = trace.iter().find(|own| own.span.name == "EdgeController send").unwrap();
        let said = |key: &str| root.attribute(key).unwrap();
        assert_eq!(
            (said("k8s.resource"), said("k8s.namespace.name")),
            ("pods".to_owned(), "default".to_owned())
        );
        assert_eq!((said("k8s.node.name"), root.node.as_deref()), ("edge-1".to_owned(), None));
        assert!(said("k8s.object.resource_version").parse::<u64>().is_ok());
        let on_node = trace.iter().find(|own| own.service == "edgecore").unwrap();
        assert_eq!(on_node.node.as_deref(), Some("edge-1"));
        assert!(trace.iter().all(|own| own.span.status.is_none()), "nothing failed");
        // What a node reports changes the pod, and begins no trace of its own.
        let roots = collector.spans().into_iter().filter(|own| {
            own.span.parent_span_id.is_empty() && own.attribute("k8s.object.name").as_deref() == Some("web")
        });
        assert_eq!(roots.map(|own| own.shown()).collect::<Vec<_>>(), ["cloudcore: EdgeController send"]);
    });
}

#[test]
fn one_twin_is_followed_from_what_is_desired_to_what_is_reported() {
    run(async || {
        let collector = TraceCollector::start().await;
        let (cluster, node) = traced(&collector).await;
        let meta = |name: &str| json!({ "name": name, "namespace": "default" });
        let property = json!({ "name": "volume", "type": "INT", "accessMode": "ReadWrite" });
        let model = json!({ "metadata": meta("horns"), "spec": { "properties": [property] } });
        cluster.apply(DEVICES, "DeviceModel", model).await;
        let device = json!({ "metadata": meta("horn"), "spec": {
            "nodeName": node.name(), "deviceModelRef": { "name": "horns" },
            "properties": [{ "name": "volume", "desired": { "value": "3" } }],
            "protocol": { "protocolName": "mqtt" },
        }});
        cluster.apply(DEVICES, "Device", device).await;
        cluster
            .until_async("the device is on its node", async || {
                node.snapshot("edge-devicetwin").await["devices"] == 1
            })
            .await;
        let status = async || -> Value {
            let statuses = cluster.objects(DEVICES, "DeviceStatus", Some("default"));
            let found = statuses.get_opt("horn").await.unwrap();
            found.map(|found| found.data["status"].clone()).unwrap_or_default()
        };
        // Somebody wants something else of it.
        let patch = json!({ "spec": { "properties": [{ "name": "volume", "desired": { "value": "7" } }] } });
        let devices = cluster.objects(DEVICES, "Device", Some("default"));
        devices.patch("horn", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
        let wanted = [
            "cloudcore: DeviceController send",
            "cloudcore: SyncController send",
            "cloudcore: CloudHub send",
            "edgecore: EdgeHub receive",
            "edgecore: MetaManager store",
            "edgecore: DeviceTwin report",
            "edgecore: MetaManager deliver",
            "edgecore: EdgeHub send",
            "cloudcore: CloudHub receive",
            "cloudcore: DeviceController write status",
        ];
        // The node reports which value it knows to be desired.
        cluster
            .until_async("the new value has come back", async || status().await.to_string().contains("\"7\""))
            .await;
        let trace = until_whole(&cluster, &collector, ("DeviceController send", "horn"), &wanted).await;
        for (name, parent) in [
            ("edgecore: MetaManager store", "edgecore: EdgeHub receive"),
            ("edgecore: DeviceTwin report", "edgecore: MetaManager store"),
            ("edgecore: MetaManager deliver", "edgecore: DeviceTwin report"),
            ("cloudcore: DeviceController write status", "cloudcore: CloudHub receive"),
        ] {
            assert_eq!(parent_of(&trace, name), parent, "{name}");
        }
        // And so is what the device says then.
        let before = collector.spans().len();
        let payload = json!({ "twin": { "volume": { "actual": { "value": "7" } } } }).to_string();
        say(&cluster, &node, payload).await;
        cluster
            .until("it is followed, too", || {
                let spans = collector.spans();
                spans.iter().skip(before).any(|own| own.span.name == "DeviceController write status")
            })
            .await;
    });
}
