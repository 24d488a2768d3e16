//! The ports that Nodes say at this address, for as long as they say them. An API server goes to them, in the name of the node that had the
//! port, whether that has a link or not, and also after a restart of CloudCore: it must not find another one there.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use beehive::{Context, Fault};
use contract::NodeName;
use contract::cloudstream::CloudStreamMsg;
use contract::ids::{EDGE_LABEL, KUBELET_ADDRESS_ANNOTATION};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Node;
use kube::Resource;
use kube::api::{Api, ApiResource, DynamicObject};
use kube::runtime::watcher::{Event, watcher};
use kubewatch::{WatchPause, WatchedObject, watch_config};

use crate::events;

/// 1 s, doubled at each time up to 30 s, before a watch that broke off is taken up again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
const AGAIN_MAX: Duration = Duration::from_secs(30);

/// Tells the actor which ports Nodes say, and each change. What was told last holds while the API server is away.
pub(crate) fn watch(client: kube::Client, address: Option<IpAddr>, cx: &Context<CloudStreamMsg>) {
    let (myself, env) = (cx.myself(), cx.env().clone());
    // One Node that cannot be read must not hide the others.
    let nodes: Api<WatchedObject> = Api::all_with(client, &ApiResource::erase::<Node>(&()));
    cx.spawn(async move {
        let mut said = SaidPorts::new(address);
        let mut pause = WatchPause::new(AGAIN_AFTER, AGAIN_MAX, env.now());
        let mut is_broken = false;
        let mut changes = std::pin::pin!(watcher(nodes, watch_config(None).labels(EDGE_LABEL)));
        while let Some(change) = changes.next().await {
            match change {
                Ok(change) => {
                    // A list that begins has not been answered yet.
                    is_broken &= matches!(change, Event::Init);
                    if let Some(told) = said.take(change) {
                        let _ = myself.tell(told).await;
                    }
                }
                Err(error) => {
                    if !std::mem::replace(&mut is_broken, true) {
                        events::nodes_unread(&env, &Fault::from_error(&error).reason);
                    }
                    env.sleep(env.jitter(pause.broke(env.now()))).await;
                }
            }
        }
    });
}

/// What the watch has said so far.
struct SaidPorts {
    address: Option<IpAddr>,
    ports: BTreeMap<NodeName, u16>,
    /// What the list has that is being read.
    listed: BTreeMap<NodeName, u16>,
}

impl SaidPorts {
    fn new(address: Option<IpAddr>) -> Self {
        SaidPorts { address, ports: BTreeMap::new(), listed: BTreeMap::new() }
    }

    /// Takes an event in. Answers what is to be told.
    fn take(&mut self, event: Event<WatchedObject>) -> Option<CloudStreamMsg> {
        match event {
            Event::Init => self.listed.clear(),
            Event::InitApply(found) => {
                let node = name_of(&found)?;
                if let Some(port) = self.port(&node, found) {
                    self.listed.insert(node, port);
                }
            }
            Event::InitDone => {
                self.ports = std::mem::take(&mut self.listed);
                let ports = self.ports.iter().map(|(node, port)| (node.clone(), *port));
                return Some(CloudStreamMsg::PortsSaid(ports.collect()));
            }
            Event::Apply(found) => {
                let node = name_of(&found)?;
                let port = self.port(&node, found);
                return self.changed(node, port);
            }
            Event::Delete(found) => return self.changed(name_of(&found)?, None),
        }
        None
    }

    /// Of a Node that cannot be read what was known last goes on to hold.
    fn port(&self, node: &NodeName, found: WatchedObject) -> Option<u16> {
        match found.into_read() {
            Ok(found) => said(&found, self.address),
            Err(unreadable) => {
                tracing::warn!(%node, why = unreadable.why, "the Node cannot be read");
                self.ports.get(node).copied()
            }
        }
    }

    fn changed(&mut self, node: NodeName, port: Option<u16>) -> Option<CloudStreamMsg> {
        let before = match port {
            Some(port) => self.ports.insert(node.clone(), port),
            None => self.ports.remove(&node),
        };
        (before != port).then_some(CloudStreamMsg::PortSaid { node, port })
    }
}

/// A name that no node of ours can have has no port either.
fn name_of(found: &WatchedObject) -> Option<NodeName> {
    NodeName::parse(found.meta().name.as_deref()?).ok()
}

/// The port that a Node says, if it is one at this address.
fn said(node: &DynamicObject, address: Option<IpAddr>) -> Option<u16> {
    let at = node.metadata.annotations.as_ref()?.get(KUBELET_ADDRESS_ANNOTATION)?;
    let ours = address.map(|address| address.to_string()).unwrap_or_default();
    if *at != ours {
        return None;
    }
    node.data.pointer("/status/daemonEndpoints/kubeletEndpoint/Port")?.as_u64()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn node(name: &str, address: &str, port: i32) -> WatchedObject {
        let node = json!({
            "metadata": { "name": name, "annotations": { KUBELET_ADDRESS_ANNOTATION: address } },
            "status": { "daemonEndpoints": { "kubeletEndpoint": { "Port": port } } },
        });
        serde_json::from_value(node).unwrap()
    }

    fn read(address: &str, port: i32) -> DynamicObject {
        node("edge-1", address, port).into_read().unwrap()
    }

    fn name(name: &str) -> NodeName {
        NodeName::parse(name).unwrap()
    }

    #[test]
    fn a_port_counts_at_its_own_address() {
        let here = Some("10.0.0.5".parse().unwrap());
        assert_eq!(said(&read("10.0.0.5", 12_003), here), Some(12_003));
        assert_eq!(said(&read("10.0.0.6", 12_003), here), None);
        assert_eq!(said(&read("", 12_003), None), Some(12_003));
        assert_eq!(said(&read("10.0.0.5", 70_000), here), None);
        let nothing: WatchedObject =
            serde_json::from_value(json!({ "metadata": { "name": "edge-1" } })).unwrap();
        assert_eq!(said(&nothing.into_read().unwrap(), here), None);
    }

    #[test]
    fn what_nodes_say_is_told_whole_and_then_by_its_changes() {
        let mut ports = SaidPorts::new(Some("10.0.0.5".parse().unwrap()));
        assert!(ports.take(Event::Init).is_none());
        for listed in
            [node("a", "10.0.0.5", 12_000), node("b", "10.0.0.6", 12_000), node("c", "10.0.0.5", 12_001)]
        {
            assert!(ports.take(Event::InitApply(listed)).is_none());
        }
        let told = ports.take(Event::InitDone);
        let Some(CloudStreamMsg::PortsSaid(all)) = told else { panic!("{told:?}") };
        assert_eq!(all, [(name("a"), 12_000), (name("c"), 12_001)]);
        let mut change = |event| match ports.take(event) {
            None => None,
            Some(CloudStreamMsg::PortSaid { node, port }) => Some((node.to_string(), port)),
            Some(other) => panic!("{other:?}"),
        };
        assert_eq!(change(Event::Apply(node("a", "10.0.0.5", 12_000))), None, "nothing new");
        assert_eq!(change(Event::Apply(node("a", "10.0.0.6", 12_000))), Some(("a".to_owned(), None)));
        assert_eq!(change(Event::Apply(node("b", "10.0.0.5", 12_004))), Some(("b".to_owned(), Some(12_004))));
        // One that cannot be read says what it said.
        let depth = 200;
        let deep = format!(r#"{{"metadata":{{"name":"b"}},"x":{}{}}}"#, "[".repeat(depth), "]".repeat(depth));
        assert_eq!(change(Event::Apply(serde_json::from_str(&deep).unwrap())), None);
        assert_eq!(change(Event::Delete(node("b", "10.0.0.5", 12_004))), Some(("b".to_owned(), None)));
        assert_eq!(change(Event::Delete(node("b", "10.0.0.5", 12_004))), None);
    }
}
