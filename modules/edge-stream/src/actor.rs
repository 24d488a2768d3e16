//! EdgeStream's actor: who is served, and where.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use beehive::link::{BYTE_STREAMS_MAX, ByteStream, WireVersion};
use beehive::{Actor, Context, Env, Fault, Liveness, Sample};
use contract::edgestream::EdgeStreamMsg;
use contract::stream::{StreamRequest, StreamResponse};
use cri::Runtime;
use edge_store::Store;
use https::{Http, Limits, Port, Server};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::Semaphore;

use crate::call_thread::CallThread;
use crate::error::Refusal;
use crate::events;
use crate::handler::Kubelet;
use crate::link_calls;
use crate::local_server::LocalServer;
use crate::settings::Settings;
use crate::token::Token;

/// 10 s until the port for agents is tried again.
const SERVE_AGAIN: Duration = Duration::from_secs(10);
/// 60 s for an answer to an agent: a runtime that is busy takes its time with statistics.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);
/// 1 s for agents that are being answered while the node stops.
const STOP_WITHIN: Duration = Duration::from_secs(1);
/// 16 connections of agents.
const AGENTS: usize = 16;

/// Serves the node's kubelet API.
pub struct EdgeStream {
    settings: Settings,
    runtime: Arc<dyn Runtime>,
    store: Store,
    liveness: Option<Liveness>,
    kubelet: Option<Arc<Kubelet>>,
    /// A permit for each call.
    permits: Arc<Semaphore>,
    /// The thread of the calls, once there was one.
    thread: Option<CallThread>,
    local: Option<Server>,
    servers: u64,
}

impl EdgeStream {
    /// EdgeStream over `runtime` and `store`, made anew by its factory after a fault. `liveness` is of the hive, for
    /// `/healthz`.
    pub fn new(
        settings: Settings,
        runtime: Arc<dyn Runtime>,
        store: Store,
        liveness: Option<Liveness>,
    ) -> Self {
        EdgeStream {
            settings,
            runtime,
            store,
            liveness,
            kubelet: None,
            permits: Arc::new(Semaphore::new(BYTE_STREAMS_MAX)),
            thread: None,
            local: None,
            servers: 0,
        }
    }
}

impl Actor for EdgeStream {
    type Message = EdgeStreamMsg;

    async fn started(&mut self, cx: &mut Context<EdgeStreamMsg>) -> Result<(), Fault> {
        let (settings, runtime, store) =
            (self.settings.clone(), Arc::clone(&self.runtime), self.store.clone());
        let (clock, metrics) = (cx.env().clock(), cx.env().metrics().clone());
        let kubelet = Kubelet::new(settings, runtime, store, clock, metrics, self.liveness.clone());
        self.kubelet = Some(Arc::new(kubelet));
        self.serve(cx).await;
        Ok(())
    }

    async fn handle(&mut self, message: EdgeStreamMsg, cx: &mut Context<EdgeStreamMsg>) -> Result<(), Fault> {
        match message {
            EdgeStreamMsg::Opened { header, stream } => self.opened(&header, stream, cx)?,
            EdgeStreamMsg::Serve => self.serve(cx).await,
            EdgeStreamMsg::ServerEnded { server } if server == self.servers => {
                events::not_served(cx.env().metrics(), &"the server has ended");
                self.local = None;
                cx.after(SERVE_AGAIN, EdgeStreamMsg::Serve);
            }
            EdgeStreamMsg::ServerEnded { .. } => {}
            // The calls on it are cut, and the next ones would be: another incarnation begins with another thread.
            EdgeStreamMsg::CallsEnded { reason } => return Err(Fault::new(reason)),
        }
        Ok(())
    }

    async fn stopping(&mut self, _: &mut Context<EdgeStreamMsg>) {
        // Calls are cut: whoever follows a log follows it for hours.
        self.thread = None;
        if let Some(server) = self.local.take() {
            server.stop(STOP_WITHIN).await;
        }
    }

    fn snapshot(&self) -> serde_json::Value {
        serde_json::json!({
            "calls": self.calls(),
            "local": self.local.as_ref().and(self.settings.local),
        })
    }

    fn samples(&self) -> Vec<Sample> {
        vec![Sample::new("stream_calls_open", self.calls() as f64)]
    }
}

impl EdgeStream {
    fn calls(&self) -> usize {
        BYTE_STREAMS_MAX - self.permits.available_permits()
    }

    /// A call of CloudCore's: it goes on on a thread of its own.
    fn opened(
        &mut self,
        header: &[u8],
        mut stream: ByteStream,
        cx: &Context<EdgeStreamMsg>,
    ) -> Result<(), Fault> {
        let Some(kubelet) = self.kubelet.clone() else { return Ok(()) };
        let permit = Arc::clone(&self.permits).try_acquire_owned();
        let request = StreamRequest::decode(header, WireVersion::ONE);
        let calls = self.calls();
        let thread = self.thread(cx)?;
        let refusal = match (request, permit) {
            (Ok(request), Ok(permit)) => {
                thread.spawn(async move {
                    link_calls::serve(kubelet, request, stream).await;
                    drop(permit);
                });
                return Ok(());
            }
            (Err(error), _) => Refusal::bad(error.to_string()),
            (Ok(_), Err(_)) => {
                events::full(cx.env().metrics(), calls);
                Refusal::too_many("calls")
            }
        };
        thread.spawn(async move {
            if let Err(error) = refuse(refusal, &mut stream).await {
                tracing::debug!(%error, "a refused call was broken off");
            }
        });
        Ok(())
    }

    /// The thread of the calls. A node of which nobody asks anything has none.
    fn thread(&mut self, cx: &Context<EdgeStreamMsg>) -> Result<&CallThread, Fault> {
        let thread = match self.thread.take() {
            Some(thread) => thread,
            None => {
                let thread = CallThread::start().map_err(|error| Fault::from_error(&error))?;
                let (ended, owner) = (thread.ended(), cx.myself());
                cx.spawn(async move {
                    let reason = ended.await.reason;
                    let _ = owner.tell(EdgeStreamMsg::CallsEnded { reason }).await;
                });
                thread
            }
        };
        Ok(self.thread.insert(thread))
    }

    /// Opens the port for agents on the node; what stands in the way is said, and it is tried again.
    async fn serve(&mut self, cx: &Context<EdgeStreamMsg>) {
        let (Some(address), Some(kubelet), None) = (self.settings.local, self.kubelet.clone(), &self.local)
        else {
            return;
        };
        let (first, second, file) =
            (cx.env().random_id(), cx.env().random_id(), self.settings.token_file.clone());
        let token = cx.env().blocking(move || {
            let mut random = [0; 32];
            random[..16].copy_from_slice(&first);
            random[16..].copy_from_slice(&second);
            Token::at(&file, &random)
        });
        let started = match token.await {
            Ok(Ok((token, is_new))) => {
                if is_new {
                    events::token_made(cx.env().metrics(), &self.settings.token_file);
                }
                start(address, LocalServer { kubelet, token }, cx.env())
            }
            Ok(Err(error)) => {
                let file = self.settings.token_file.display();
                Err(io::Error::new(error.kind(), format!("token file {file}: {error}")))
            }
            Err(fault) => Err(io::Error::other(fault.reason)),
        };
        match started {
            Ok(server) => {
                self.servers += 1;
                server.tell_end(cx, EdgeStreamMsg::ServerEnded { server: self.servers });
                self.local = Some(server);
            }
            Err(error) => {
                events::not_served(cx.env().metrics(), &error);
                cx.after(SERVE_AGAIN, EdgeStreamMsg::Serve);
            }
        }
    }
}

fn start(address: std::net::SocketAddr, server: LocalServer, env: &Env) -> io::Result<Server> {
    let port = Port::bind(address)
        .map_err(|error| io::Error::new(error.kind(), format!("listen at {address}: {error}")))?;
    let limits = Limits {
        strangers: AGENTS,
        strangers_per_address: AGENTS,
        users: AGENTS,
        connections_per_user: AGENTS,
        answer_within: Some(ANSWER_WITHIN),
        ..Limits::default()
    };
    Server::start("kubelet", &port, None, limits, env.clock(), |_| {}, move || Http::new(server))
}

/// Answers a call that is not taken.
async fn refuse(refusal: Refusal, stream: &mut ByteStream) -> io::Result<()> {
    let headers = refusal.headers.into_iter().chain([("content-type".to_owned(), "text/plain".to_owned())]);
    let head = StreamResponse { status: refusal.status, headers: headers.collect() };
    stream.write_all(&head.encode(WireVersion::ONE).map_err(io::Error::other)?).await?;
    stream.write_all(refusal.text.as_bytes()).await?;
    stream.shutdown().await
}
