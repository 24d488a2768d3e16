//! CloudStream's actor: the server of all ports, an endpoint for each node that is linked or says its port here, and what they are shown as.

mod checks;
mod endpoints;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use beehive::{Actor, Address, Context, Fault, Sample};
use contract::NodeName;
use contract::cloudhub::{CloudHubMsg, SessionReader};
use contract::cloudstream::CloudStreamMsg;
use contract::edgecontroller::EdgeControllerMsg;
use https::{Http, Limits, Server, Tls};
use nodecalls::NodeCalls;

use crate::certificate::{Issued, ServingCertificate};
use crate::checks::Checks;
use crate::handler::{KubeletHandler, NodesByPort};
use crate::ports::Ports;
use crate::reach::Reach;
use crate::reviews::Reviews;
use crate::signed_certificate::{Signed, Signer};
use crate::{client_ca, events, said_ports};

/// 256 strangers, 64 of an address, of whom the oldest goes first. 4,096 connections of callers, each of which may be an upgraded
/// one, and 4,096 more for API servers, so that no other caller shuts them out. One caller has 2,048 at the ports of all nodes
/// together: a scraper keeps one to each node of a fleet, and leaves as many to others.
const LIMITS: Limits = Limits {
    strangers: 256,
    strangers_per_address: 64,
    yields_after: Duration::ZERO,
    users: 4096,
    connections_per_user: 2048,
    reserved: 4096,
    handshakes: None,
    handshake_within: Duration::from_secs(10),
    // As long as a kubelet keeps an idle connection.
    credential_within: None,
    head_within: Duration::from_secs(90),
    // A node has a bound of its own, and what it answers may have no end.
    answer_within: None,
    // As a kubelet: somebody may hold a log with Ctrl-S.
    taken_within: Duration::from_secs(4 * 3600),
    // Service account tokens are long.
    head_bytes: 64 << 10,
    header_fields: 100,
    keep_alive: true,
    // An API server opens another connection beyond these.
    streams_per_connection: 250,
};
/// 2 s for calls in hand when it stops; the others are cut.
const STOP_GRACE: Duration = Duration::from_secs(2);
/// 1 min before a port is looked for again where all were used.
const LOOK_AGAIN: Duration = Duration::from_secs(60);
/// 60 s between looks whether the certificate is to be made anew: it is old, or the CA gives way to its successor.
const CERTIFICATE_LOOK: Duration = Duration::from_secs(60);
/// 1 h before a certificate is tried again that could not be made.
const CERTIFICATE_AGAIN: Duration = Duration::from_secs(3600);

/// Where the ports are, and how they are shown.
#[derive(Clone)]
pub struct Serving {
    /// What they listen at.
    pub bind: IpAddr,
    /// The first of them; 0: whichever the system gives.
    pub first_port: u16,
    /// How many.
    pub ports: usize,
    /// The address that Nodes say; `None`: each node's own.
    pub address: Option<IpAddr>,
    /// The certificate of CloudCore's own CA that is shown there.
    pub certificate: Rc<ServingCertificate>,
    /// Who signs the one that is shown in its place, if anybody does.
    pub signer: Option<Signer>,
    /// Whether it is checked that the API server reaches them: not where it is in this process and needs no port.
    pub checked: bool,
    /// The names in the client certificates by which API servers call. They speak for all their users, without a user's bounds.
    pub api_servers: Vec<String>,
}

/// Says of a name whether it is of one of our nodes.
pub type IsOurs = dyn Fn(&NodeName) -> Option<bool>;

/// What a CloudStream is made of.
#[derive(Clone)]
pub struct Dependencies {
    /// The API server.
    pub client: kube::Client,
    /// CloudHub, which is asked who is linked.
    pub hub: Address<CloudHubMsg>,
    /// EdgeController, which writes endpoints into Nodes.
    pub edge: Address<EdgeControllerMsg>,
    /// Makes the calls; it is told here of links.
    pub calls: NodeCalls,
    /// What is found wrong, for who says so.
    pub checks: Checks,
    /// Whether the register has a name with a good certificate; `None`: the register is not known yet.
    pub is_ours: Rc<IsOurs>,
    /// The ports. `None`: nobody outside this process reaches a node through it.
    pub serving: Option<Serving>,
}

/// Brings calls to nodes.
pub struct CloudStream {
    dependencies: Dependencies,
    running: Option<Running>,
    /// The nodes that have a link, or a port without one.
    nodes: BTreeMap<NodeName, Served>,
}

struct Served {
    /// `None`: it has no link, and whoever comes to its port is told so.
    session: Option<u64>,
    /// The port that is listened at.
    port: Option<u16>,
}

/// What an incarnation with ports has.
struct Running {
    serving: Serving,
    server: Rc<Server>,
    tls: Tls,
    issued: Issued,
    /// What a signer has signed: it is shown while it is there.
    signed: Signed,
    /// Of one question at a time.
    reach: Rc<tokio::sync::Mutex<Reach>>,
    client_ca: Option<String>,
    by_port: NodesByPort,
    ports: Ports,
    /// Whether the ports are known that Nodes say from before: until then no node is given one.
    ports_known: bool,
    /// The ports that Nodes say at this address.
    said: BTreeMap<NodeName, u16>,
    /// The nodes for which a port is looked for again after [`LOOK_AGAIN`]: once for each, however often it comes.
    looked_for: BTreeSet<NodeName>,
}

impl CloudStream {
    /// One that knows of no node yet.
    pub fn new(dependencies: Dependencies) -> Self {
        CloudStream { dependencies, running: None, nodes: BTreeMap::new() }
    }
}

impl Actor for CloudStream {
    type Message = CloudStreamMsg;

    async fn started(&mut self, cx: &mut Context<CloudStreamMsg>) -> Result<(), Fault> {
        self.dependencies.calls.all_nodes_down();
        if let Some(serving) = self.dependencies.serving.clone() {
            let address = serving.address;
            self.running = Some(self.serve(serving, cx).map_err(|error| Fault::from_error(&error))?);
            client_ca::watch(self.dependencies.client.clone(), cx);
            said_ports::watch(self.dependencies.client.clone(), address, cx);
            cx.after(CERTIFICATE_LOOK, CloudStreamMsg::RenewCertificate);
            self.begin_checks(cx);
        }
        cx.spawn_tell(&self.dependencies.hub, CloudHubMsg::TellSessions { to: SessionReader::CloudStream });
        Ok(())
    }

    async fn handle(
        &mut self,
        message: CloudStreamMsg,
        cx: &mut Context<CloudStreamMsg>,
    ) -> Result<(), Fault> {
        match message {
            CloudStreamMsg::AllNodesDown => {
                self.dependencies.calls.all_nodes_down();
                self.all_nodes_down(cx);
            }
            CloudStreamMsg::NodeUp { node, session, streams, version } => {
                self.dependencies.calls.node_up(node.clone(), session, streams, version);
                self.node_up(node, session, cx).await;
            }
            CloudStreamMsg::NodeDown { node, session } => {
                self.dependencies.calls.node_down(&node, session);
                if self.nodes.get(&node).is_some_and(|served| served.session == Some(session)) {
                    self.link_ended(&node, cx);
                }
            }
            CloudStreamMsg::TellEndpoints => {
                for node in self.nodes.keys() {
                    self.tell_endpoint(node).await;
                }
            }
            CloudStreamMsg::PortsSaid(ports) => self.ports_said(ports, cx),
            CloudStreamMsg::PortSaid { node, port } => self.port_said(node, port, cx),
            CloudStreamMsg::RegisterChanged => self.reconsider_all(cx),
            CloudStreamMsg::Listening { node, port } => self.listening(&node, port, cx).await,
            CloudStreamMsg::PortRefused { node, port, reason } => {
                self.port_refused(&node, port, &reason, cx);
            }
            CloudStreamMsg::OpenAgain { node } => {
                if let Some(running) = &mut self.running {
                    running.looked_for.remove(&node);
                }
                self.open(&node, cx);
            }
            CloudStreamMsg::ClientCa(pem) => self.client_ca(pem, cx),
            CloudStreamMsg::RenewCertificate => self.renew(cx),
            CloudStreamMsg::CertificateChanged => self.show(cx),
            CloudStreamMsg::CheckReach => self.check_reach(cx),
            CloudStreamMsg::ServerEnded => {
                return Err(Fault::new("the server of the kubelet endpoints has ended by itself"));
            }
        }
        Ok(())
    }

    async fn stopping(&mut self, _: &mut Context<CloudStreamMsg>) {
        if let Some(running) = self.running.take() {
            running.server.stop(STOP_GRACE).await;
        }
    }

    fn snapshot(&self) -> serde_json::Value {
        let ports = |linked: bool| -> BTreeMap<&str, Option<u16>> {
            let nodes = self.nodes.iter().filter(|(_, served)| served.session.is_some() == linked);
            nodes.map(|(node, served)| (node.as_str(), served.port)).collect()
        };
        let counts = self.running.as_ref().map(|running| running.server.counts());
        let client_ca = self.running.as_ref().is_some_and(|running| running.client_ca.is_some());
        let said = self.running.as_ref().map_or(0, |running| running.said.len());
        let looked_for = self.running.as_ref().map_or(0, |running| running.looked_for.len());
        let signed = self.running.as_ref().is_some_and(|running| running.signed.borrow().is_some());
        serde_json::json!({
            "signedCertificate": signed, "checks": self.dependencies.checks.said(), "ports": ports(true), "kept": ports(false), "portsSaid": said, "connections": counts, "clientCa": client_ca, "lookedForAgain": looked_for,
        })
    }

    fn samples(&self) -> Vec<Sample> {
        let open = self.dependencies.calls.open();
        let of_node = |(node, open): (NodeName, usize)| {
            Sample::new("kubehive_node_kubelet_calls", open as f64).of("node", node.as_str())
        };
        open.into_iter().map(of_node).chain(self.dependencies.checks.samples()).collect()
    }
}

impl Running {
    /// What is shown: the signer's, else our own CA's.
    fn shown(&self) -> Issued {
        self.signed.borrow().clone().unwrap_or_else(|| self.issued.clone())
    }

    /// There is no port for the node now.
    fn look_again(&mut self, node: &NodeName, cx: &Context<CloudStreamMsg>) {
        if self.looked_for.insert(node.clone()) {
            events::no_port(cx.env(), node);
            cx.after(LOOK_AGAIN, CloudStreamMsg::OpenAgain { node: node.clone() });
        }
    }
}

impl CloudStream {
    fn serve(
        &self,
        serving: Serving,
        cx: &Context<CloudStreamMsg>,
    ) -> Result<Running, crate::CertificateError> {
        let issued = serving.certificate.issue(cx.env())?;
        let tls = issued.tls(None)?;
        let (by_port, metrics) = (NodesByPort::default(), cx.env().metrics().clone());
        let reach = Reach::default();
        let handler = KubeletHandler {
            nodes: by_port.clone(),
            reviews: Arc::new(Reviews::new(self.dependencies.client.clone(), cx.env().clock())),
            calls: self.dependencies.calls.clone(),
            metrics: metrics.clone(),
            api_servers: serving.api_servers.clone(),
            arrived: Arc::clone(&reach.arrived),
        };
        let on_event = move |event| events::connection(&metrics, event);
        let clock = cx.env().clock();
        let server = Server::without_port("kubelet", Some(tls.clone()), LIMITS, clock, on_event, || {
            Http::new(handler)
        });
        server.tell_end(cx, CloudStreamMsg::ServerEnded);
        let ports = Ports::new(serving.first_port, serving.ports);
        Ok(Running {
            serving,
            server: Rc::new(server),
            tls,
            issued,
            signed: Rc::new(RefCell::new(None)),
            reach: Rc::new(tokio::sync::Mutex::new(reach)),
            client_ca: None,
            by_port,
            ports,
            ports_known: false,
            said: BTreeMap::new(),
            looked_for: BTreeSet::new(),
        })
    }

    fn client_ca(&mut self, pem: Option<String>, cx: &Context<CloudStreamMsg>) {
        let Some(running) = &mut self.running else { return };
        match running.shown().tls(pem.as_deref()) {
            Ok(_) if pem == running.client_ca && pem.is_some() => {}
            Ok(tls) => {
                running.tls.replace(&tls);
                match &pem {
                    Some(_) => events::client_ca_learnt(cx.env()),
                    None => events::client_ca_missing(cx.env()),
                }
                running.client_ca = pem;
            }
            Err(error) => events::client_ca_unusable(cx.env(), &Fault::from_error(&error).reason),
        }
    }

    fn renew(&mut self, cx: &Context<CloudStreamMsg>) {
        let Some(running) = &mut self.running else { return };
        if !running.serving.certificate.is_due(&running.issued, cx.now()) {
            cx.after(CERTIFICATE_LOOK, CloudStreamMsg::RenewCertificate);
            return;
        }
        let made = running.serving.certificate.issue(cx.env()).and_then(|issued| {
            let tls = issued.tls(running.client_ca.as_deref())?;
            Ok((issued, tls))
        });
        let next = match made {
            Ok((issued, tls)) => {
                running.issued = issued;
                if running.signed.borrow().is_none() {
                    running.tls.replace(&tls);
                }
                events::certificate_renewed(cx.env());
                CERTIFICATE_LOOK
            }
            Err(error) => {
                events::certificate_not_renewed(cx.env(), &Fault::from_error(&error).reason);
                CERTIFICATE_AGAIN
            }
        };
        cx.after(next, CloudStreamMsg::RenewCertificate);
    }
}
