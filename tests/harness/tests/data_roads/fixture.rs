//! A cluster with rules.

use std::time::Duration;

use harness::{Cluster, LinkTransport, Node};
use kube::api::DynamicObject;
use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS};
use serde_json::{Value, json};

pub(crate) const V1: &str = "rules.kubeedge.io/v1";
pub(crate) const TOKEN: &str = "a-token-of-sixteen-and-more";

/// A cluster whose rules may lead to loopback, where the tests' targets are. `door`: with a door that takes [`TOKEN`].
pub(crate) async fn cluster(carrier: LinkTransport, door: bool) -> Cluster {
    let mut cluster = Cluster::over(carrier).await;
    let tokens = cluster.folder_of("tokens");
    std::fs::write(&tokens, format!("{TOKEN}\n")).unwrap();
    let port = if door { free_port() } else { 0 };
    cluster
        .reconfigure_cloud(|settings| {
            let router = &mut settings.modules.router;
            router.enable = true;
            router.address = "127.0.0.1".to_owned();
            router.port = port;
            router.plain_http = true;
            router.rest_timeout = 20;
            router.token_file = tokens;
            router.allowed_targets = vec!["127.0.0.0/8".to_owned()];
        })
        .await;
    for kind in ["rest", "eventbus", "servicebus"] {
        endpoint(&cluster, kind, kind, json!({"service_port": "1"})).await;
    }
    cluster
}

/// One that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

pub(crate) async fn endpoint(cluster: &Cluster, name: &str, kind: &str, properties: Value) {
    let properties = if kind == "servicebus" { properties } else { json!({}) };
    let spec = json!({"ruleEndpointType": kind, "properties": properties});
    let object = json!({"metadata": {"name": name, "namespace": "default"}, "spec": spec});
    cluster.apply(V1, "RuleEndpoint", object).await;
}

pub(crate) async fn rule(
    cluster: &Cluster,
    name: &str,
    source: (&str, Value),
    target: (&str, Value),
) -> DynamicObject {
    let spec = json!({"source": source.0, "sourceResource": source.1, "target": target.0, "targetResource": target.1});
    let object = json!({"metadata": {"name": name, "namespace": "default"}, "spec": spec});
    cluster.apply(V1, "Rule", object).await
}

/// The rule's status.
pub(crate) async fn status(cluster: &Cluster, name: &str) -> Value {
    let rules = cluster.objects(V1, "Rule", Some("default"));
    rules.get(name).await.unwrap().data["status"].clone()
}

pub(crate) async fn until_status(cluster: &Cluster, name: &str, what: &str, holds: impl Fn(&Value) -> bool) {
    let what = format!("the status of {name}: {what}");
    cluster.until_async(&what, async || holds(&status(cluster, name).await)).await;
}

/// The port of the node's broker, once it has this many topics of rules.
pub(crate) async fn broker(cluster: &Cluster, node: &Node, topics: usize) -> u16 {
    let found = std::cell::Cell::new(None);
    cluster
        .until_async("the broker knows the rules", async || {
            let view = node.snapshot("edge-eventbus").await;
            let listening =
                view["listening"].as_str().and_then(|address| address.rsplit(':').next()?.parse().ok());
            found.set(listening);
            listening.is_some() && view["ruleTopics"] == topics
        })
        .await;
    found.get().unwrap()
}

/// A client of the broker.
pub(crate) struct Mqtt {
    client: AsyncClient,
    acknowledged: std::rc::Rc<std::cell::Cell<usize>>,
    pub(crate) heard: std::rc::Rc<std::cell::RefCell<Vec<(String, String)>>>,
    task: actix_rt::task::JoinHandle<()>,
}

impl Drop for Mqtt {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Mqtt {
    pub(crate) fn connect(port: u16, name: &str) -> Mqtt {
        let mut options = MqttOptions::new(name, "127.0.0.1", port);
        options.set_keep_alive(Duration::from_secs(60));
        let (client, mut events) = AsyncClient::new(options, 64);
        let (acknowledged, heard) =
            (std::rc::Rc::<std::cell::Cell<usize>>::default(), std::rc::Rc::default());
        let (counted, kept) = (std::rc::Rc::clone(&acknowledged), std::rc::Rc::clone(&heard));
        let kept: std::rc::Rc<std::cell::RefCell<Vec<(String, String)>>> = kept;
        let task = actix_rt::spawn(async move {
            loop {
                match events.poll().await {
                    Ok(Event::Incoming(Packet::PubAck(_))) => counted.set(counted.get() + 1),
                    Ok(Event::Incoming(Packet::Publish(publish))) => {
                        let payload = String::from_utf8_lossy(&publish.payload).into_owned();
                        kept.borrow_mut().push((publish.topic, payload));
                    }
                    Ok(Event::Incoming(Packet::SubAck(_))) => {
                        kept.borrow_mut().push((String::new(), "subscribed".to_owned()));
                    }
                    Ok(_) => {}
                    Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        });
        Mqtt { client, acknowledged, heard, task }
    }

    /// Publishes with QoS 1, and waits for the acknowledgement of each.
    pub(crate) async fn publish(
        &self,
        cluster: &Cluster,
        topic: &str,
        payloads: impl IntoIterator<Item = String>,
    ) {
        for payload in payloads {
            let before = self.acknowledged.get();
            self.client.publish(topic, QoS::AtLeastOnce, false, payload).await.unwrap();
            cluster.until("it is acknowledged", || self.acknowledged.get() > before).await;
        }
    }

    pub(crate) async fn subscribe(&self, cluster: &Cluster, filter: &str) {
        self.client.subscribe(filter, QoS::AtLeastOnce).await.unwrap();
        cluster.until("it is subscribed", || !self.heard.borrow().is_empty()).await;
        self.heard.borrow_mut().clear();
    }
}

/// Numbers as text.
pub(crate) fn numbers(of: std::ops::Range<u32>) -> Vec<String> {
    of.map(|number| number.to_string()).collect()
}
