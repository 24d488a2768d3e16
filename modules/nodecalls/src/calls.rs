//! A call, from the caller's request to the node's answer.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use beehive::link::{ByteStream, ByteStreamError, ByteStreams, WireVersion};
use beehive::{Clock, Metrics};
use contract::NodeName;
use contract::csi_call::CsiCall;
use contract::stream::{LENGTH, MOVING, StreamRequest, StreamResponse, head_length};
use http::{Method, Request, Response, StatusCode, header};
use https::{Answer, Peer, body};
use hyper::body::{Body as _, Incoming};
use tokio::io::{AsyncReadExt, ReadHalf};

use crate::error::CallError;
use crate::error_stream::ErrorStreamTracker;
use crate::nodes::Nodes;
use crate::open_call::{OpenCall, lock};
use crate::route::Route;
use crate::shares::{Limits, Shares};
use crate::transfer::{Sending, pass_both_ways, passed_body};
use crate::upgrade_refusal::upgrade_refusal;
use crate::{events, head, redirect, route};

/// 30 s for the node to begin its answer: a kubelet's own client has no bound, and a person has given up by then.
const HEAD_WITHIN: Duration = Duration::from_secs(30);
/// 12 s for a node to go over to another link: its hello may take ten. It is looked for every 50 ms.
const MOVES_WITHIN: Duration = Duration::from_secs(12);
const MOVE_LOOK: Duration = Duration::from_millis(50);
/// 1 s before the link that the node wanted to leave is asked again: that may have come to nothing.
const MOVE_FAILS: Duration = Duration::from_secs(1);
/// What answers when a command has ended, however long that takes.
const UNBOUNDED: &str = "/run/";
/// 10 s beyond what a CSI driver has, for the way there and back.
const DRIVER_BEYOND: Duration = Duration::from_secs(10);
/// Where text after the cut is seen by a person, and nothing else is (client-go ignores how a log ends).
const LOGS: &str = "/containerLogs/";

/// A call that may be made.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// The node.
    pub node: &'a NodeName,
    /// Path and query at the kubelet's endpoint.
    pub target: &'a str,
    /// Who asks, authenticated and authorised: for the node's log.
    pub user: &'a str,
    /// Whether the user speaks for himself, and so has a share of his own. An API server does not.
    pub speaks_for_himself: bool,
}

/// Makes calls. Its clones are one, and may be used on any thread.
#[derive(Clone)]
pub struct NodeCalls(Arc<Inside>);

struct Inside {
    nodes: Mutex<Nodes>,
    shares: Arc<Mutex<Shares>>,
    metrics: Metrics,
    clock: Arc<dyn Clock>,
}

impl NodeCalls {
    /// Calls within these bounds, of no node yet.
    pub fn new(limits: Limits, metrics: Metrics, clock: Arc<dyn Clock>) -> Self {
        let (nodes, shares) = (Mutex::default(), Arc::new(Mutex::new(Shares::new(limits))));
        NodeCalls(Arc::new(Inside { nodes, shares, metrics, clock }))
    }

    /// A session of a node has opened.
    pub fn node_up(&self, node: NodeName, session: u64, streams: ByteStreams, version: WireVersion) {
        lock(&self.0.nodes).up(node, session, streams, version);
    }

    /// A session has ended. Its calls end with the link.
    pub fn node_down(&self, node: &NodeName, session: u64) {
        lock(&self.0.nodes).down(node, session);
    }

    /// No session is open any more.
    pub fn all_nodes_down(&self) {
        lock(&self.0.nodes).all_down();
    }

    /// How many calls are open of each node that has any.
    pub fn open(&self) -> BTreeMap<NodeName, usize> {
        lock(&self.0.shares).of_nodes()
    }

    /// Asks the node, and answers what it answers. Runs on the thread of an [`https::Server`].
    pub async fn call(&self, call: Call<'_>, request: Request<Incoming>, peer: &Peer) -> Answer {
        let path = call.target.split('?').next().unwrap_or_default().to_owned();
        let is_upgrade = head::is_upgrade(request.headers());
        match self.answer(call, request, peer).await {
            Ok(answer) => {
                events::answered(&self.0.metrics, call.node, call.user, &path, answer.status().as_u16());
                answer
            }
            Err(error) => {
                events::failed(&self.0.metrics, call.node, call.user, &path, &error);
                let mut answer = error.answer();
                if path.starts_with(LOGS) && !call.speaks_for_himself {
                    *answer.status_mut() = shown_to_a_reader_of_logs(answer.status());
                }
                if is_upgrade { upgrade_refusal(answer).await } else { answer }
            }
        }
    }

    async fn answer(
        &self,
        call: Call<'_>,
        mut request: Request<Incoming>,
        peer: &Peer,
    ) -> Result<Answer, CallError> {
        let Call { node, target, user, .. } = call;
        let path = target.split('?').next().unwrap_or_default();
        // Whoever let the call through: no node reads a path that nobody here can read.
        if !matches!(route::route(request.method(), path), Route::Node(_)) {
            return Err(CallError::NoPath);
        }
        let open = self.share(&call)?;
        let asked = head::request(request.method(), request.headers(), target.to_owned(), user);
        let asked = asked.map_err(CallError::Request)?;
        let upgrade = head::is_upgrade(request.headers()).then(|| peer.upgrade(&mut request));
        let (stream, version) = self.within(&call, self.stream_to(node, &asked)).await??;
        let (mut reader, writer) = tokio::io::split(stream);
        let mut sending = if upgrade.is_some() || has_no_body(&request) {
            Sending::kept(writer)
        } else {
            Sending::of(request.into_body(), writer, self.0.metrics.clone())
        };
        let answered = self.within(&call, async {
            tokio::select! {
                answered = read_head(node, &mut reader, version) => answered,
                never = sending.run() => match never {},
            }
        });
        let answered = answered.await??;
        let broken = |reason: &str| CallError::Broken { node: node.clone(), reason: reason.to_owned() };
        let (status, mut headers) = head::response(&answered)
            .ok_or_else(|| broken("its answer has a status or a header that is none"))?;
        if redirect::is_one(status) {
            let location = redirect::to_folder(path).ok_or_else(|| CallError::Redirect(node.clone()))?;
            headers.insert(header::LOCATION, location);
        }
        let body = match (status, upgrade, sending.writer()) {
            (StatusCode::SWITCHING_PROTOCOLS, Some(upgrade), Some(writer)) => {
                let tracker = ErrorStreamTracker::of(path, &headers);
                actix_rt::spawn(async move {
                    // The caller may have gone meanwhile.
                    if let Ok(upgraded) = upgrade.await {
                        pass_both_ways(upgraded, reader, writer, open, tracker).await;
                    }
                });
                body::whole("")
            }
            (StatusCode::SWITCHING_PROTOCOLS, _, _) => return Err(broken("it upgraded what was no upgrade")),
            (StatusCode::OK, _, _) if target.starts_with(LOGS) => passed_body(reader, sending, open, true),
            _ => passed_body(reader, sending, open, false),
        };
        let mut answer = Response::new(body);
        (*answer.status_mut(), *answer.headers_mut()) = (status, headers);
        Ok(answer)
    }

    /// Opens a stream for one who has a share of his own.
    pub(crate) async fn open_stream(
        &self,
        node: &NodeName,
        user: &str,
        request: &StreamRequest,
    ) -> Result<(ByteStream, WireVersion, OpenCall), CallError> {
        let Inside { shares, metrics, clock, .. } = &*self.0;
        let opened = OpenCall::open(shares, (node, Some(user), false), metrics, clock);
        let open = opened.map_err(|full| CallError::of_share(node, user, full))?;
        let (stream, version) = self.stream_to(node, request).await?;
        Ok((stream, version, open))
    }

    /// Opens a stream over the node's link. One that the node has refused because it goes over to another link is opened over that: nothing was
    /// done for it.
    async fn stream_to(
        &self,
        node: &NodeName,
        request: &StreamRequest,
    ) -> Result<(ByteStream, WireVersion), CallError> {
        let Inside { clock, nodes, metrics, .. } = &*self.0;
        let begun = clock.now();
        // The session in which it was refused, and when: it is not asked in that again at once.
        let mut refused = None;
        loop {
            let now = clock.now();
            let may_wait = refused.is_some() && now.since(begun) < MOVES_WITHIN;
            let linked = lock(nodes).get(node);
            let waits = match (&linked, refused) {
                (Some(linked), Some((session, at))) => {
                    linked.session == session && now.since(at) < MOVE_FAILS
                }
                (None, Some(_)) => true,
                (_, None) => false,
            };
            if waits && may_wait {
                clock.sleep(MOVE_LOOK).await;
                continue;
            }
            let linked = linked.ok_or_else(|| CallError::NotLinked(node.clone()))?;
            let header = request.encode(linked.version).map_err(CallError::Request)?;
            match linked.streams.open(header).await {
                Ok(stream) => return Ok((stream, linked.version)),
                Err(ByteStreamError::Refused(refusal))
                    if refusal.code == MOVING && clock.now().since(begun) < MOVES_WITHIN =>
                {
                    if refused.replace((linked.session, clock.now())).is_none() {
                        events::moves(metrics, node);
                    }
                }
                Err(error) => return Err(CallError::of_stream(node, error)),
            }
        }
    }

    /// What is done for a call, as long as it may take.
    pub(crate) async fn in_time<T>(
        &self,
        node: &NodeName,
        within: Duration,
        work: impl Future<Output = Result<T, CallError>>,
    ) -> Result<T, CallError> {
        tokio::select! {
            done = work => done,
            () = self.0.clock.sleep(within) => Err(CallError::Late { node: node.clone(), within }),
        }
    }

    pub(crate) fn metrics(&self) -> Metrics {
        self.0.metrics.clone()
    }

    /// Whether a link of the node is here.
    pub fn is_linked(&self, node: &NodeName) -> bool {
        lock(&self.0.nodes).get(node).is_some()
    }

    fn share(&self, call: &Call<'_>) -> Result<OpenCall, CallError> {
        let user = call.speaks_for_himself.then_some(call.user);
        let lasts = route::lasts(call.target);
        let Inside { shares, metrics, clock, .. } = &*self.0;
        let opened = OpenCall::open(shares, (call.node, user, lasts), metrics, clock);
        opened.map_err(|full| CallError::of_share(call.node, call.user, full))
    }

    async fn within<T>(&self, call: &Call<'_>, work: impl Future<Output = T>) -> Result<T, CallError> {
        let Some(within) = head_within(call.target) else { return Ok(work.await) };
        tokio::select! {
            done = work => Ok(done),
            () = self.0.clock.sleep(within) => Err(CallError::Late { node: call.node.clone(), within }),
        }
    }
}

/// An API server has words of its own for a 503 and a 504 of a kubelet, and drops the kubelet's where it reads a log (`GenericHttpResponseChecker`
/// and `NewGenericServerResponse` in k8s.io/apiserver): they reach its user with a 502.
fn shown_to_a_reader_of_logs(status: StatusCode) -> StatusCode {
    match status {
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => StatusCode::BAD_GATEWAY,
        other => other,
    }
}

/// How long the node has until it begins its answer; `None`: as long as it takes.
fn head_within(target: &str) -> Option<Duration> {
    match CsiCall::parse(target) {
        Ok(call) => Some(call.within() + DRIVER_BEYOND),
        Err(_) if target.starts_with(UNBOUNDED) => None,
        Err(_) => Some(HEAD_WITHIN),
    }
}

/// Whether nothing is to be sent behind the head. What comes with a GET means nothing (RFC 9110, section 9.3.1), and the side of
/// a call that may last for hours must not end before it.
fn has_no_body(request: &Request<Incoming>) -> bool {
    matches!(*request.method(), Method::GET | Method::HEAD) || request.body().is_end_stream()
}

/// The head of the node's answer. Its length is looked at before anything is allocated for it.
pub(crate) async fn read_head(
    node: &NodeName,
    reader: &mut ReadHalf<ByteStream>,
    version: WireVersion,
) -> Result<StreamResponse, CallError> {
    let broken = |reason: String| CallError::Broken { node: node.clone(), reason };
    let cut = |error: std::io::Error| broken_off(node, &error);
    let mut length = [0; LENGTH];
    reader.read_exact(&mut length).await.map_err(cut)?;
    let length = head_length(length).map_err(|error| broken(error.to_string()))?;
    let mut head = vec![0; length];
    reader.read_exact(&mut head).await.map_err(cut)?;
    StreamResponse::decode(&head, version).map_err(|error| broken(error.to_string()))
}

/// What ends a call before its answer.
pub(crate) fn broken_off(node: &NodeName, error: &std::io::Error) -> CallError {
    let broken = |reason: String| CallError::Broken { node: node.clone(), reason };
    match error.kind() {
        std::io::ErrorKind::ConnectionAborted => {
            CallError::LinkDown { node: node.clone(), reason: error.to_string() }
        }
        std::io::ErrorKind::UnexpectedEof => broken("it ended without an answer".to_owned()),
        _ => broken(error.to_string()),
    }
}
