//! What a Node says of where its kubelet is reached: the addresses, first of them this CloudCore's, and the node's port there.
//!
//! The API server dials the first address of the first type that a Node has, in the order Hostname, InternalDNS, InternalIP,
//! ExternalDNS, ExternalIP (pkg/kubelet/client/kubelet_client.go): so there is no Hostname and no DNS name, and the first
//! InternalIP is the CloudCore that has the node. The node's own addresses follow.
//!
//! Both are written by [`fields`], when a node reports and when its link comes to another CloudCore. The port is CloudCore's word
//! alone: API servers show their own certificate to whoever listens there, and at a port of 0 they dial a kubelet's, 10250.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use beehive::{Address, Env, Fault};
use contract::NodeName;
use contract::cloudstream::KubeletEndpoint;
use contract::ids::KUBELET_ADDRESS_ANNOTATION as ANNOTATION;
use contract::nodelease::NodeLeaseMsg;
use fairshare::ReportSender;
use k8s_openapi::api::core::v1::{Node, NodeAddress};
use kube::api::{Api, Patch, PatchParams};
use kubewatch::status_code;
use serde_json::{Value, json};

use crate::error::NodeReportError;
use crate::{events, session_lease};

/// The only types that lead nowhere else: see the module.
const TYPES: [&str; 2] = ["InternalIP", "ExternalIP"];
/// Where nobody serves a node's kubelet endpoint: the port of the node's own kubelet API, which is on loopback there. `policy.yaml`
/// allows it beside CloudCore's ports.
const OWN_PORT: u16 = 10_350;
/// How often a Node is written at once when somebody else wrote in between.
const WRITE_TRIES: usize = 5;
/// 2 s, doubled at each time up to 60 s, before a Node that could not be written is tried again.
const AGAIN_AFTER: Duration = Duration::from_secs(2);
const AGAIN_MAX: Duration = Duration::from_secs(60);

/// The endpoints of the sessions that are open.
#[derive(Clone)]
pub(crate) struct Endpoints {
    /// Whether this CloudCore is the kubelet endpoint of its nodes at all.
    is_served: bool,
    open: Rc<RefCell<BTreeMap<NodeName, (u64, KubeletEndpoint)>>>,
}

/// Where the kubelet endpoint of a session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Here.
    At(KubeletEndpoint),
    /// CloudStream has not said yet.
    Unknown,
    /// Nowhere: this CloudCore serves none.
    Nowhere,
}

impl Endpoints {
    /// None yet; `is_served`: whether there will be any.
    pub(crate) fn new(is_served: bool) -> Self {
        Endpoints { is_served, open: Rc::default() }
    }

    /// That of a session.
    pub(crate) fn of(&self, from: &ReportSender) -> Place {
        let open = self.open.borrow();
        match open.get(&from.node).filter(|(session, _)| *session == from.session) {
            Some((_, endpoint)) => Place::At(*endpoint),
            None if self.is_served => Place::Unknown,
            None => Place::Nowhere,
        }
    }

    /// A session has this one.
    pub(crate) fn put(&self, from: &ReportSender, endpoint: KubeletEndpoint) {
        self.open.borrow_mut().insert(from.node.clone(), (from.session, endpoint));
    }

    /// The node's session is over.
    pub(crate) fn remove(&self, node: &NodeName) {
        self.open.borrow_mut().remove(node);
    }

    /// All sessions are.
    pub(crate) fn clear(&self) {
        self.open.borrow_mut().clear();
    }
}

/// What is written of an endpoint.
#[derive(Debug, PartialEq)]
pub(crate) struct Fields {
    addresses: Vec<NodeAddress>,
    port: i32,
    annotation: Option<String>,
}

/// What a Node says when its kubelet is reached at `endpoint` and these are the node's own addresses. `None`: nobody serves it.
fn fields(endpoint: Option<&KubeletEndpoint>, own: &[NodeAddress]) -> Fields {
    let ours = endpoint.and_then(|endpoint| endpoint.address);
    let ours =
        ours.map(|address| NodeAddress { address: address.to_string(), type_: "InternalIP".to_owned() });
    let own = own.iter().filter(|address| {
        TYPES.contains(&address.type_.as_str()) && address.address.parse::<IpAddr>().is_ok()
    });
    let mut addresses: Vec<NodeAddress> = Vec::new();
    for address in ours.iter().chain(own) {
        // The API server refuses one that stands there twice.
        if !addresses.contains(address) {
            addresses.push(address.clone());
        }
    }
    Fields {
        addresses,
        port: i32::from(endpoint.map_or(OWN_PORT, |endpoint| endpoint.port)),
        annotation: endpoint.map(|_| ours.map(|address| address.address).unwrap_or_default()),
    }
}

impl Fields {
    /// As parts of a strategic merge patch. Addresses are merged by their type there: the whole list is replaced.
    fn patch(self, metadata: &mut Value, status: &mut Value) {
        if !self.addresses.is_empty() {
            let replace = json!({ "$patch": "replace" });
            let addresses = self.addresses.iter().map(|address| json!(address)).chain([replace]);
            status["addresses"] = addresses.collect();
        }
        status["daemonEndpoints"] = json!({ "kubeletEndpoint": { "Port": self.port } });
        // Without one, one of an earlier session goes.
        metadata["annotations"][ANNOTATION] = Value::from(self.annotation);
    }

    /// Whether the Node says so already.
    fn are_of(&self, node: &Node) -> bool {
        let status = node.status.as_ref();
        let addresses = status.and_then(|status| status.addresses.as_deref()).unwrap_or_default();
        addresses == self.addresses
            && port_of(node) == Some(self.port)
            && annotation_of(node) == self.annotation.as_deref()
    }
}

fn annotation_of(node: &Node) -> Option<&str> {
    node.metadata.annotations.as_ref()?.get(ANNOTATION).map(String::as_str)
}

fn port_of(node: &Node) -> Option<i32> {
    let endpoints = node.status.as_ref()?.daemon_endpoints.as_ref()?;
    endpoints.kubelet_endpoint.as_ref().map(|endpoint| endpoint.port)
}

/// The endpoint that the Node says: an earlier session's, until that of this one is known.
fn said_before(node: &Node) -> Option<KubeletEndpoint> {
    let address = annotation_of(node)?.parse().ok();
    Some(KubeletEndpoint { address, port: port_of(node)?.try_into().ok()? })
}

/// The addresses of a Node that are the node's own.
fn own_addresses(node: &Node) -> Vec<NodeAddress> {
    let said = node.status.as_ref().and_then(|status| status.addresses.clone()).unwrap_or_default();
    let ours = annotation_of(node).filter(|ours| !ours.is_empty());
    let is_ours =
        |address: &NodeAddress| address.type_ == "InternalIP" && Some(address.address.as_str()) == ours;
    let mut ours_seen = false;
    let own =
        said.into_iter().filter(|address| ours_seen || !std::mem::replace(&mut ours_seen, is_ours(address)));
    own.filter(|address| !is_ours(address)).collect()
}

/// Completes the patch of a Node's report, whose status has the node's own addresses.
pub(crate) fn complete(
    metadata: &mut Value,
    status: &mut Value,
    (place, own): (Place, &[NodeAddress]),
    found: &Node,
) {
    let endpoint = match place {
        Place::At(endpoint) => Some(endpoint),
        Place::Unknown => said_before(found),
        Place::Nowhere => None,
    };
    fields(endpoint.as_ref(), own).patch(metadata, status);
}

/// The same where the Node says something else.
pub(crate) fn complete_if_other(
    metadata: &mut Value,
    status: &mut Value,
    (place, own): (Place, &[NodeAddress]),
    found: &Node,
) {
    let fields = match place {
        Place::At(endpoint) => fields(Some(&endpoint), own),
        // What a Node says before the endpoint of this session is known is an earlier session's.
        Place::Unknown => return,
        Place::Nowhere => fields(None, own),
    };
    if !fields.are_of(found) {
        fields.patch(metadata, status);
    }
}

/// Writes endpoints into Nodes, beside what the nodes report.
#[derive(Clone)]
pub(crate) struct EndpointWriter {
    pub(crate) client: kube::Client,
    pub(crate) lease: Address<NodeLeaseMsg>,
    pub(crate) endpoints: Endpoints,
    pub(crate) env: Env,
}

impl EndpointWriter {
    /// Writes the endpoint of this session, again until it is written or the session has another one.
    pub(crate) async fn write(self, from: ReportSender, endpoint: KubeletEndpoint) {
        let mut pause = AGAIN_AFTER;
        while self.endpoints.of(&from) == Place::At(endpoint) {
            match self.try_write(&from, &endpoint).await {
                Ok(()) => return,
                Err(error) => {
                    events::endpoint_not_written(&self.env, &from.node, &Fault::from_error(&error).reason);
                }
            }
            self.env.sleep(self.env.jitter(pause)).await;
            pause = (2 * pause).min(AGAIN_MAX);
        }
    }

    async fn try_write(
        &self,
        from: &ReportSender,
        endpoint: &KubeletEndpoint,
    ) -> Result<(), NodeReportError> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        for _ in 0..WRITE_TRIES {
            // The node's first report makes it, and says the endpoint with it.
            let Some(found) = nodes.get_opt(from.node.as_str()).await? else { return Ok(()) };
            let fields = fields(Some(endpoint), &own_addresses(&found));
            if fields.are_of(&found) {
                return Ok(());
            }
            // The Node is read before the Lease, and written as it was read: nobody can have come between.
            if !session_lease::holds(&self.lease, from).await? {
                return Ok(());
            }
            let mut metadata =
                json!({ "uid": found.metadata.uid, "resourceVersion": found.metadata.resource_version });
            let mut status = json!({});
            fields.patch(&mut metadata, &mut status);
            let patch = json!({ "metadata": metadata, "status": status });
            let patch = Patch::Strategic(&patch);
            match nodes.patch_status(from.node.as_str(), &PatchParams::default(), &patch).await {
                Ok(_) => {
                    events::endpoint_written(&self.env, &from.node, endpoint);
                    return Ok(());
                }
                Err(error) if matches!(status_code(&error), Some(404 | 409)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(NodeReportError::Contended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(type_: &str, address: &str) -> NodeAddress {
        NodeAddress { type_: type_.to_owned(), address: address.to_owned() }
    }

    fn at(address: &str) -> KubeletEndpoint {
        KubeletEndpoint { address: address.parse().ok(), port: 12_003 }
    }

    fn node(addresses: &[NodeAddress], annotation: Option<&str>, port: i32) -> Node {
        let annotations = annotation.map(|text| json!({ ANNOTATION: text }));
        serde_json::from_value(json!({
            "metadata": { "name": "edge-1", "annotations": annotations },
            "status": { "addresses": addresses, "daemonEndpoints": { "kubeletEndpoint": { "Port": port } } },
        }))
        .unwrap()
    }

    fn shown(fields: &Fields) -> Vec<&str> {
        fields.addresses.iter().map(|address| address.address.as_str()).collect()
    }

    #[test]
    fn the_first_internal_ip_is_the_cloudcores_and_no_name_stands_there() {
        let own = [
            address("Hostname", "edge-1"),
            address("InternalDNS", "edge-1.local"),
            address("InternalIP", "192.0.2.7"),
            address("InternalIP", "2001:db8::7"),
            address("ExternalIP", "198.51.100.7"),
            address("InternalIP", "not an address"),
        ];
        let fields_there = fields(Some(&at("10.0.0.5")), &own);
        assert_eq!(shown(&fields_there), ["10.0.0.5", "192.0.2.7", "2001:db8::7", "198.51.100.7"]);
        let (mut metadata, mut status) = (json!({}), json!({}));
        fields_there.patch(&mut metadata, &mut status);
        assert_eq!(status["daemonEndpoints"]["kubeletEndpoint"]["Port"], 12_003);
        assert_eq!(status["addresses"][4], json!({ "$patch": "replace" }));
        assert_eq!(metadata["annotations"][ANNOTATION], "10.0.0.5");
        // The node's own first: whoever says so leads the API server to its CloudCore by other means.
        let first = fields(Some(&KubeletEndpoint { address: None, port: 12_003 }), &own);
        assert_eq!(
            (shown(&first)[0], first.port, first.annotation.as_deref()),
            ("192.0.2.7", 12_003, Some(""))
        );
        // One machine for both.
        assert_eq!(shown(&fields(Some(&at("192.0.2.7")), &own[2..3])), ["192.0.2.7"]);
    }

    #[test]
    fn another_cloudcore_takes_the_place_of_the_first() {
        let own = [address("InternalIP", "192.0.2.7"), address("ExternalIP", "198.51.100.7")];
        let before = fields(Some(&at("10.0.0.5")), &own);
        let found = node(&before.addresses, Some("10.0.0.5"), 12_003);
        assert!(before.are_of(&found));
        let after = fields(Some(&at("10.0.0.6")), &own_addresses(&found));
        assert_eq!(shown(&after), ["10.0.0.6", "192.0.2.7", "198.51.100.7"]);
        assert!(!after.are_of(&found));
        // A Node of a kubelet, or of a node that nobody was the endpoint of.
        let found = node(&[address("Hostname", "edge-1"), address("InternalIP", "192.0.2.7")], None, 10_250);
        assert_eq!(shown(&fields(Some(&at("10.0.0.5")), &own_addresses(&found))), ["10.0.0.5", "192.0.2.7"]);
    }

    #[test]
    fn a_report_that_comes_before_the_endpoint_of_its_session_leaves_the_earlier_one() {
        let own = [address("InternalIP", "192.0.2.8")];
        let found = node(&[address("InternalIP", "10.0.0.5"), own[0].clone()], Some("10.0.0.5"), 12_003);
        let (mut metadata, mut status) = (json!({}), json!({}));
        complete(&mut metadata, &mut status, (Place::Unknown, &own), &found);
        assert_eq!(status["addresses"][0]["address"], "10.0.0.5");
        complete(&mut metadata, &mut status, (Place::At(at("10.0.0.6")), &own), &found);
        assert_eq!(status["addresses"][0]["address"], "10.0.0.6");
        // Nobody serves it: whatever the node says, the API server is not led to a kubelet's port or to its own.
        let (mut metadata, mut status) =
            (json!({}), json!({ "daemonEndpoints": { "kubeletEndpoint": { "Port": 6443 } } }));
        complete(&mut metadata, &mut status, (Place::Unknown, &own), &node(&own, None, 10_250));
        let said = |status: &Value| {
            (
                status["addresses"][0]["address"].clone(),
                status["daemonEndpoints"]["kubeletEndpoint"]["Port"].clone(),
            )
        };
        assert_eq!(said(&status), (json!("192.0.2.8"), json!(10_350)));
        // What an earlier CloudCore said, or whoever wrote there, goes.
        let (mut metadata, mut status) = (json!({}), json!({}));
        complete_if_other(&mut metadata, &mut status, (Place::Unknown, &own), &found);
        assert_eq!(status, json!({}));
        complete_if_other(&mut metadata, &mut status, (Place::Nowhere, &own), &found);
        assert_eq!(said(&status), (json!("192.0.2.8"), json!(10_350)));
        assert_eq!(metadata, json!({ "annotations": { ANNOTATION: null } }));
        let (mut metadata, mut status) = (json!({}), json!({}));
        complete(&mut metadata, &mut status, (Place::Nowhere, &own), &found);
        assert_eq!(said(&status), (json!("192.0.2.8"), json!(10_350)));
    }
}
