//! The ports that Nodes say at this address. After a restart of CloudCore an API server still goes to them, in the name of the node
//! that had the port: it must not find another one there.

use std::net::IpAddr;
use std::time::Duration;

use beehive::{Context, Env, Fault};
use contract::NodeName;
use contract::cloudstream::CloudStreamMsg;
use contract::ids::{EDGE_LABEL, KUBELET_ADDRESS_ANNOTATION};
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, ListParams};

use crate::events;

/// 500 Nodes at a time.
const PAGE: u32 = 500;
/// 1 s, doubled at each time up to 30 s, before a list that failed is asked for again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
const AGAIN_MAX: Duration = Duration::from_secs(30);

/// Tells the actor, once they are known.
pub(crate) fn ask(client: kube::Client, address: Option<IpAddr>, cx: &Context<CloudStreamMsg>) {
    let (myself, env) = (cx.myself(), cx.env().clone());
    cx.spawn(async move {
        let ports = list(&Api::all(client), address, &env).await;
        let _ = myself.tell(CloudStreamMsg::PortsSaid(ports)).await;
    });
}

async fn list(api: &Api<Node>, address: Option<IpAddr>, env: &Env) -> Vec<(NodeName, u16)> {
    let mut pause = AGAIN_AFTER;
    loop {
        match try_list(api, address).await {
            Ok(ports) => return ports,
            Err(error) => events::nodes_unread(env, &Fault::from_error(&error).reason),
        }
        env.sleep(env.jitter(pause)).await;
        pause = (2 * pause).min(AGAIN_MAX);
    }
}

async fn try_list(api: &Api<Node>, address: Option<IpAddr>) -> kube::Result<Vec<(NodeName, u16)>> {
    let mut params = ListParams::default().labels(EDGE_LABEL).limit(PAGE);
    let mut ports = Vec::new();
    loop {
        let page = api.list(&params).await?;
        ports.extend(page.items.iter().filter_map(|node| said(node, address)));
        match page.metadata.continue_.filter(|next| !next.is_empty()) {
            Some(next) => params.continue_token = Some(next),
            None => return Ok(ports),
        }
    }
}

/// The port that a Node says, if it is one at this address.
fn said(node: &Node, address: Option<IpAddr>) -> Option<(NodeName, u16)> {
    let at = node.metadata.annotations.as_ref()?.get(KUBELET_ADDRESS_ANNOTATION)?;
    let ours = address.map(|address| address.to_string()).unwrap_or_default();
    if *at != ours {
        return None;
    }
    let endpoint = node.status.as_ref()?.daemon_endpoints.as_ref()?.kubelet_endpoint.as_ref()?;
    let name = NodeName::parse(node.metadata.name.as_deref()?).ok()?;
    Some((name, endpoint.port.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_port_counts_at_its_own_address() {
        let node = |address: &str, port: i32| -> Node {
            serde_json::from_value(json!({
                "metadata": { "name": "edge-1", "annotations": { KUBELET_ADDRESS_ANNOTATION: address } },
                "status": { "daemonEndpoints": { "kubeletEndpoint": { "Port": port } } },
            }))
            .unwrap()
        };
        let here = Some("10.0.0.5".parse().unwrap());
        let name = NodeName::parse("edge-1").unwrap();
        assert_eq!(said(&node("10.0.0.5", 12_003), here), Some((name.clone(), 12_003)));
        assert_eq!(said(&node("10.0.0.6", 12_003), here), None);
        assert_eq!(said(&node("", 12_003), None), Some((name, 12_003)));
        assert_eq!(said(&node("10.0.0.5", 70_000), here), None);
        assert_eq!(said(&Node::default(), here), None);
    }
}
