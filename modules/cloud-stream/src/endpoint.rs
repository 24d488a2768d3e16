//! A node's endpoint: a child of CloudStream that holds the node's port, for as long as that is open.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use beehive::{Actor, Address, Capacity, Context, Env, Fault, Message, Policy};
use contract::NodeName;
use contract::cloudstream::CloudStreamMsg;
use https::{Listening, Port, Server};

/// The kind of CloudStream's children: one endpoint each.
pub const ENDPOINT: &str = "endpoint";
/// 2 s for an endpoint to end: it has nothing to do but close its port.
pub(crate) const ENDS_WITHIN: Duration = Duration::from_secs(2);

/// 10 tries, 50 ms between them, for a port that is in use.
const BIND_TRIES: usize = 10;
const BIND_PAUSE: Duration = Duration::from_millis(50);

/// An endpoint is told nothing.
#[derive(Debug)]
pub(crate) enum EndpointMsg {}

impl Message for EndpointMsg {
    fn name(&self) -> &'static str {
        match *self {}
    }
}

/// Which node an open port is of, for the server's thread.
pub(crate) trait OpenPorts {
    fn opened(&self, port: u16, node: &NodeName);
    fn closed(&self, port: u16);
}

/// What an endpoint is made of.
#[derive(Clone)]
pub(crate) struct EndpointDependencies {
    pub(crate) node: NodeName,
    pub(crate) address: IpAddr,
    pub(crate) port: u16,
    pub(crate) server: Rc<Server>,
    pub(crate) ports: Rc<dyn OpenPorts>,
    pub(crate) parent: Address<CloudStreamMsg>,
}

/// See the module.
pub(crate) struct Endpoint {
    dependencies: EndpointDependencies,
    open: Option<Open>,
}

/// A port that is listened at. Closed when it is dropped: first nobody comes in any more, then nobody is served.
struct Open {
    address: SocketAddr,
    ports: Rc<dyn OpenPorts>,
    _listening: Listening,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.ports.closed(self.address.port());
    }
}

impl Endpoint {
    /// The name of the child among CloudStream's.
    pub(crate) fn name(node: &NodeName) -> (&'static str, String) {
        (ENDPOINT, node.to_string())
    }

    pub(crate) fn policy() -> Policy {
        Policy { capacity: Capacity::new(1, "nobody tells it anything"), ..Policy::default() }
    }

    pub(crate) fn factory(dependencies: EndpointDependencies) -> impl FnMut() -> Endpoint + 'static {
        move || Endpoint { dependencies: dependencies.clone(), open: None }
    }

    async fn listen(&self, env: &Env) -> io::Result<Open> {
        let EndpointDependencies { node, address, port, server, ports, .. } = &self.dependencies;
        let port = bind((*address, *port).into(), env).await?;
        let address = port.address();
        // Known before the first connection comes in.
        ports.opened(address.port(), node);
        match server.listen(port).await {
            Ok(listening) => Ok(Open { address, ports: Rc::clone(ports), _listening: listening }),
            Err(error) => {
                ports.closed(address.port());
                Err(error)
            }
        }
    }
}

/// The server lets a port go a moment after the endpoint that had it before.
async fn bind(address: SocketAddr, env: &Env) -> io::Result<Port> {
    for _ in 0..BIND_TRIES {
        match Port::bind(address) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => env.sleep(BIND_PAUSE).await,
            other => return other,
        }
    }
    Port::bind(address)
}

impl Actor for Endpoint {
    type Message = EndpointMsg;

    async fn started(&mut self, cx: &mut Context<EndpointMsg>) -> Result<(), Fault> {
        let node = self.dependencies.node.clone();
        let told: Box<dyn Fn() -> CloudStreamMsg> = match self.listen(cx.env()).await {
            Ok(open) => {
                let port = open.address.port();
                self.open = Some(open);
                Box::new(move || CloudStreamMsg::Listening { node: node.clone(), port })
            }
            Err(error) => {
                let (port, reason) = (self.dependencies.port, error.to_string());
                cx.stop();
                Box::new(move || CloudStreamMsg::PortRefused {
                    node: node.clone(),
                    port,
                    reason: reason.clone(),
                })
            }
        };
        // Its parent may be full of others that begin.
        self.dependencies.parent.tell_with_retry(cx.env(), told).await;
        Ok(())
    }

    async fn handle(&mut self, message: EndpointMsg, _: &mut Context<EndpointMsg>) -> Result<(), Fault> {
        match message {}
    }

    fn snapshot(&self) -> serde_json::Value {
        let address = self.open.as_ref().map(|open| open.address.to_string());
        serde_json::json!({ "node": self.dependencies.node.as_str(), "address": address })
    }
}
