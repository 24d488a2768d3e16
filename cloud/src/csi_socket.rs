//! The socket for `csidriver` on the same machine (`modules.cloudHub.unixsocket`, KubeEdge's `kubeedge.sock`): calls of CSI drivers to
//! the nodes that are linked here, by the path that they have at the API server, and nothing else.
//!
//! Who may call is who may open the socket: its owner and root.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use beehive::{Actor, Context, Env, Fault, Message, Metrics};
use contract::NodeName;
use contract::csi_call::{CsiCall, WITHIN_MAX};
use http::{Request, StatusCode, header};
use https::{Answer, Event, Handler, Http1, Limits, Peer, Server, body};
use hyper::body::Incoming;
use nodecalls::{Call, NodeCalls};
use unixsocket::{Bound, OwnFile};

/// 10 s until a socket that could not be served is tried again.
const SERVE_AGAIN: Duration = Duration::from_secs(10);
/// 2 s for calls in hand when it stops.
const STOP_GRACE: Duration = Duration::from_secs(2);
/// As whom its calls count and stand in the node's log.
const USER: &str = "csidriver";
/// Of the API server's path of a node, before the name and behind it.
const NODES: &str = "/api/v1/nodes/";
const PROXY: &str = "/proxy";

/// 256 connections: a `csidriver` has one for each call, and makes few calls at once.
fn limits() -> Limits {
    Limits {
        strangers: 256,
        strangers_per_address: 256,
        users: 256,
        connections_per_user: 256,
        answer_within: Some(WITHIN_MAX + Duration::from_secs(30)),
        ..Limits::default()
    }
}

/// Messages of the socket to itself.
#[derive(Debug)]
pub enum CsiSocketMsg {
    /// Time to serve it.
    Serve,
    /// Its server has ended by itself.
    ServerEnded,
}

impl Message for CsiSocketMsg {
    fn name(&self) -> &'static str {
        match self {
            CsiSocketMsg::Serve => "Serve",
            CsiSocketMsg::ServerEnded => "ServerEnded",
        }
    }
}

/// Serves the socket.
pub struct CsiSocket {
    path: PathBuf,
    calls: NodeCalls,
    running: Option<Running>,
}

struct Running {
    server: Server,
    file: OwnFile,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.file.remove();
    }
}

impl CsiSocket {
    /// One at `path`, whose calls go by `calls`.
    pub fn new(path: PathBuf, calls: NodeCalls) -> Self {
        CsiSocket { path, calls, running: None }
    }

    /// What stands in the way is said, and it is tried again: a socket for one program is no reason for nodes to have no CloudCore.
    async fn serve(&mut self, cx: &Context<CsiSocketMsg>) {
        match self.start(cx.env()).await {
            Ok(running) => {
                running.server.tell_end(cx, CsiSocketMsg::ServerEnded);
                self.running = Some(running);
                cx.env().count("csisocket_served");
                tracing::info!(socket = %self.path.display(), "csidriver is served");
            }
            Err(error) => {
                cx.env().count("csisocket_not_served");
                tracing::error!(
                    socket = %self.path.display(),
                    %error,
                    "csidriver is not served (modules.cloudHub.unixsocket): let CloudCore write to that folder, or switch it off; tried again"
                );
                cx.after(SERVE_AGAIN, CsiSocketMsg::Serve);
            }
        }
    }

    async fn start(&self, env: &Env) -> io::Result<Running> {
        let path = self.path.clone();
        let bound = env.blocking(move || unixsocket::bind_own(&path)).await;
        let Bound { listener, file, .. } = bound.map_err(|fault| io::Error::other(fault.reason)).flatten()?;
        let (calls, metrics) = (self.calls.clone(), env.metrics().clone());
        let on_event = move |event| count(&metrics, event);
        let handler = move || Http1::new(CsiHandler { calls });
        let server =
            Server::start_at_socket("csi-socket", listener, limits(), env.clock(), on_event, handler)?;
        Ok(Running { server, file })
    }
}

impl Actor for CsiSocket {
    type Message = CsiSocketMsg;

    async fn started(&mut self, cx: &mut Context<CsiSocketMsg>) -> Result<(), Fault> {
        self.serve(cx).await;
        Ok(())
    }

    async fn handle(&mut self, message: CsiSocketMsg, cx: &mut Context<CsiSocketMsg>) -> Result<(), Fault> {
        match message {
            CsiSocketMsg::Serve => self.serve(cx).await,
            CsiSocketMsg::ServerEnded => {
                return Err(Fault::new("the server of csidriver's socket has ended by itself"));
            }
        }
        Ok(())
    }

    async fn stopping(&mut self, _: &mut Context<CsiSocketMsg>) {
        if let Some(running) = self.running.take() {
            running.server.stop(STOP_GRACE).await;
        }
    }

    fn snapshot(&self) -> serde_json::Value {
        let counts = self.running.as_ref().map(|running| running.server.counts());
        serde_json::json!({ "socket": self.path.display().to_string(), "connections": counts })
    }
}

fn count(metrics: &Metrics, event: Event) {
    let name = match event {
        Event::Refused => "csisocket_connections_refused",
        Event::Displaced => "csisocket_connections_displaced",
        Event::HandshakeFailed => "csisocket_handshakes_failed",
        Event::AnswerLate => "csisocket_answers_late",
        Event::Panicked => "csisocket_handlers_panicked",
        Event::AcceptFailed => "csisocket_accepts_failed",
    };
    metrics.add(name, 1);
}

/// Answers on the server's thread.
struct CsiHandler {
    calls: NodeCalls,
}

impl Handler for CsiHandler {
    async fn handle(&self, mut request: Request<Incoming>, peer: &Peer) -> Answer {
        let target = request.uri().path_and_query().map(ToString::to_string).unwrap_or_default();
        let Some((node, target)) = asked(&target) else {
            return body::sentence(
                StatusCode::NOT_FOUND,
                "calls of CSI drivers on nodes are taken here, and nothing else\n",
            );
        };
        if peer.identify(USER, false).is_err() {
            let words = "too many calls of csidrivers are open: wait for one to end, then try again\n";
            return body::sentence(StatusCode::TOO_MANY_REQUESTS, words);
        }
        // No call of a driver is upgraded to anything.
        request.headers_mut().remove(header::UPGRADE);
        let call = Call { node: &node, target, user: USER, speaks_for_himself: true };
        self.calls.call(call, request, peer).await
    }
}

/// The node and what is asked of it.
fn asked(target: &str) -> Option<(NodeName, &str)> {
    let (node, rest) = target.strip_prefix(NODES)?.split_once('/')?;
    let at = rest.strip_prefix(PROXY.trim_start_matches('/')).filter(|rest| rest.starts_with('/'))?;
    CsiCall::parse(at).ok()?;
    Some((NodeName::parse(node).ok()?, at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_of_csi_drivers_are_taken_and_nothing_else() {
        let call = "/csi/d.io/csi.v1.Controller/CreateVolume?timeoutSeconds=9";
        let (node, target) =
            asked("/api/v1/nodes/edge-1/proxy/csi/d.io/csi.v1.Controller/CreateVolume?timeoutSeconds=9")
                .unwrap();
        assert_eq!((node.as_str(), target), ("edge-1", call));
        for other in [
            "",
            "/",
            call,
            "/api/v1/nodes/edge-1/proxy/exec/d/p/c",
            "/api/v1/nodes/edge-1/proxy/csi/d.io/csi.v1.Node/NodeStageVolume",
            "/api/v1/nodes/edge-1/proxy/csi/d.io/csi.v1.Controller/CreateVolume/../../exec",
            "/api/v1/nodes/edge-1/proxyx/csi/d.io/csi.v1.Controller/CreateVolume",
            "/api/v1/nodes/Edge_1/proxy/csi/d.io/csi.v1.Controller/CreateVolume",
            "/api/v1/nodes//proxy/csi/d.io/csi.v1.Controller/CreateVolume",
        ] {
            assert!(asked(other).is_none(), "{other}");
        }
    }
}
