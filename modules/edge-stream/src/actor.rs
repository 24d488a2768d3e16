//! EdgeStream's actor: who is served, and where.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use beehive::link::{BYTE_STREAMS_MAX, ByteStream, WireVersion};
use beehive::{Actor, Address, Context, Env, Fault, Liveness, Sample};
use contract::csi::CsiMsg;
use contract::devicetwin::TwinMsg;
use contract::edged::EdgedMsg;
use contract::edgepage::EdgePageMsg;
use contract::edgestream::EdgeStreamMsg;
use contract::eventbus::EventBusMsg;
use contract::servicebus::ServiceBusMsg;
use contract::stream::{StreamRequest, StreamResponse};
use cri::Runtime;
use edge_store::Store;
use https::{Port, Server};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::Semaphore;
use unixsocket::{Existing, OwnFile};

use crate::call_thread::CallThread;
use crate::error::Refusal;
use crate::events;
use crate::handler::Kubelet;
use crate::link_calls;
use crate::local_server::LocalServer;
use crate::rule_calls;
use crate::rule_servers::RuleServers;
use crate::settings::Settings;
use crate::token::{self, Token};

/// 10 s until the port for agents is tried again.
const SERVE_AGAIN: Duration = Duration::from_secs(10);
/// 1 s for agents that are being answered while the node stops.
const STOP_WITHIN: Duration = Duration::from_secs(1);
/// Serves the node's kubelet API.
pub struct EdgeStream {
    settings: Settings,
    runtime: Arc<dyn Runtime>,
    store: Store,
    liveness: Option<Liveness>,
    /// Who knows what pods' volumes hold.
    edged: Option<Address<EdgedMsg>>,
    /// Who calls CSI drivers.
    csi: Option<Address<CsiMsg>>,
    /// Who calls methods of devices.
    twin: Option<Address<TwinMsg>>,
    /// Who makes the node's page.
    page: Option<Address<EdgePageMsg>>,
    /// Who does what rules bring.
    rules: RuleServers,
    kubelet: Option<Arc<Kubelet>>,
    /// A permit for each call.
    permits: Arc<Semaphore>,
    /// The thread of the calls, once there was one.
    thread: Option<CallThread>,
    port: Option<Running>,
    socket: Option<Running>,
    servers: u64,
}

/// A server for agents on the node.
struct Running {
    number: u64,
    server: Server,
    /// The socket's file, if it is at one.
    file: Option<OwnFile>,
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(file) = &self.file {
            file.remove();
        }
    }
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
            edged: None,
            csi: None,
            twin: None,
            page: None,
            rules: RuleServers::default(),
            kubelet: None,
            permits: Arc::new(Semaphore::new(BYTE_STREAMS_MAX)),
            thread: None,
            port: None,
            socket: None,
            servers: 0,
        }
    }

    /// With Edged, which must allow asking, for what pods' volumes hold.
    #[must_use]
    pub fn measuring_by(self, edged: Address<EdgedMsg>) -> Self {
        EdgeStream { edged: Some(edged), ..self }
    }

    /// With EdgeCsi, which must allow asking, for calls of CSI drivers.
    #[must_use]
    pub fn calling_drivers_by(self, csi: Address<CsiMsg>) -> Self {
        EdgeStream { csi: Some(csi), ..self }
    }

    /// With DeviceTwin, which must allow asking, for calls of devices' methods by somebody on the node.
    #[must_use]
    pub fn calling_methods_by(self, twin: Address<TwinMsg>) -> Self {
        EdgeStream { twin: Some(twin), ..self }
    }

    /// With the node's page, which must allow asking, for who comes to the socket.
    #[must_use]
    pub fn inviting_to(self, page: Address<EdgePageMsg>) -> Self {
        EdgeStream { page: Some(page), ..self }
    }

    /// With the EventBus, which must allow asking, and the ServiceBus, if it is on, for what rules bring.
    #[must_use]
    pub fn serving_rules_by(
        self,
        bus: Address<EventBusMsg>,
        services: Option<Address<ServiceBusMsg>>,
    ) -> Self {
        EdgeStream { rules: RuleServers { bus: Some(bus), services }, ..self }
    }
}

impl Actor for EdgeStream {
    type Message = EdgeStreamMsg;

    async fn started(&mut self, cx: &mut Context<EdgeStreamMsg>) -> Result<(), Fault> {
        let (settings, runtime, store) =
            (self.settings.clone(), Arc::clone(&self.runtime), self.store.clone());
        let (clock, metrics) = (cx.env().clock(), cx.env().metrics().clone());
        let mut kubelet = Kubelet::new(settings, runtime, store, clock, metrics, self.liveness.clone());
        kubelet.edged = self.edged.clone();
        kubelet.csi = self.csi.clone();
        kubelet.twin = self.twin.clone();
        kubelet.page = self.page.clone();
        kubelet.rules = self.rules.clone();
        self.kubelet = Some(Arc::new(kubelet));
        self.serve(cx).await;
        Ok(())
    }

    async fn handle(&mut self, message: EdgeStreamMsg, cx: &mut Context<EdgeStreamMsg>) -> Result<(), Fault> {
        match message {
            EdgeStreamMsg::Opened { header, stream } => self.opened(&header, stream, cx)?,
            EdgeStreamMsg::Serve => self.serve(cx).await,
            EdgeStreamMsg::ServerEnded { server } => self.ended(server, cx).await,
            // The calls on it are cut, and the next ones would be: another incarnation begins with another thread.
            EdgeStreamMsg::CallsEnded { reason } => return Err(Fault::new(reason)),
        }
        Ok(())
    }

    async fn stopping(&mut self, cx: &mut Context<EdgeStreamMsg>) {
        // Calls are cut: whoever follows a log follows it for hours.
        self.thread = None;
        if self.port.is_some() {
            self.withdraw_token(cx).await;
        }
        for running in [self.port.take(), self.socket.take()].into_iter().flatten() {
            running.server.stop(STOP_WITHIN).await;
        }
    }

    fn snapshot(&self) -> serde_json::Value {
        serde_json::json!({
            "calls": self.calls(),
            "port": self.port.as_ref().and(self.settings.local),
            "socket": self.socket.as_ref().and(self.settings.socket.as_ref()),
        })
    }

    fn samples(&self) -> Vec<Sample> {
        vec![
            Sample::new("stream_calls_open", self.calls() as f64),
            Sample::new("stream_local_port_served", if self.port.is_some() { 1.0 } else { 0.0 }),
            Sample::new("stream_local_socket_served", if self.socket.is_some() { 1.0 } else { 0.0 }),
        ]
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
                    if request.target == contract::rule_stream::TARGET {
                        rule_calls::serve(kubelet, request, stream).await;
                    } else {
                        link_calls::serve(kubelet, request, stream).await;
                    }
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

    /// Opens the port and the socket for agents on the node, as far as they are not open; what stands in the way is said, and it is
    /// tried again.
    async fn serve(&mut self, cx: &Context<EdgeStreamMsg>) {
        let Some(kubelet) = self.kubelet.clone() else { return };
        let mut failed = false;
        if let (Some(address), None) = (self.settings.local, &self.port) {
            let opened = self.open_port(address, &kubelet, cx).await;
            kubelet.set_port_missing(opened.is_err());
            failed |= opened.is_err();
            self.port = self.started(opened.map(|server| (server, None)), cx);
        }
        if let (Some(path), None) = (self.settings.socket.clone(), &self.socket) {
            let opened = open_socket(path, kubelet, cx.env()).await;
            failed |= opened.is_err();
            self.socket = self.started(opened.map(|(server, file)| (server, Some(file))), cx);
        }
        if failed {
            cx.after(SERVE_AGAIN, EdgeStreamMsg::Serve);
        }
    }

    fn started(
        &mut self,
        opened: io::Result<(Server, Option<OwnFile>)>,
        cx: &Context<EdgeStreamMsg>,
    ) -> Option<Running> {
        match opened {
            Ok((server, file)) => {
                self.servers += 1;
                server.tell_end(cx, EdgeStreamMsg::ServerEnded { server: self.servers });
                Some(Running { number: self.servers, server, file })
            }
            Err(error) => {
                events::not_served(cx.env().metrics(), &error);
                None
            }
        }
    }

    /// The port is opened before there is a token, so that nobody else hears it; while it is not open there is none.
    async fn open_port(
        &self,
        address: SocketAddr,
        kubelet: &Arc<Kubelet>,
        cx: &Context<EdgeStreamMsg>,
    ) -> io::Result<Server> {
        let port = match Port::bind(address) {
            Ok(port) => port,
            Err(error) => {
                if error.kind() == io::ErrorKind::AddrInUse {
                    events::port_taken(cx.env().metrics(), address);
                }
                self.withdraw_token(cx).await;
                return Err(io::Error::new(error.kind(), format!("listen at {address}: {error}")));
            }
        };
        let (first, second, file) =
            (cx.env().random_id(), cx.env().random_id(), self.settings.token_file.clone());
        let token = cx.env().blocking(move || {
            let mut random = [0; 32];
            random[..16].copy_from_slice(&first);
            random[16..].copy_from_slice(&second);
            Token::renew(&file, &random)
        });
        let token = token.await.map_err(|fault| io::Error::other(fault.reason))?;
        let token = token.map_err(|error| about_token(&self.settings.token_file, &error))?;
        events::token_made(cx.env().metrics(), &self.settings.token_file);
        LocalServer { kubelet: Arc::clone(kubelet), token: Some(token) }.at_port(&port, cx.env())
    }

    /// What agents would show to whoever has the port.
    async fn withdraw_token(&self, cx: &Context<EdgeStreamMsg>) {
        let file = self.settings.token_file.clone();
        let withdrawn = cx.env().blocking(move || token::withdraw(&file)).await;
        let withdrawn = withdrawn.map_err(|fault| io::Error::other(fault.reason)).flatten();
        if let Err(error) = withdrawn {
            events::not_served(cx.env().metrics(), &about_token(&self.settings.token_file, &error));
        }
    }

    /// A server has ended by itself.
    async fn ended(&mut self, number: u64, cx: &Context<EdgeStreamMsg>) {
        let is_it = |running: &Option<Running>| running.as_ref().is_some_and(|own| own.number == number);
        if is_it(&self.port) {
            self.port = None;
            self.kubelet.iter().for_each(|kubelet| kubelet.set_port_missing(true));
            self.withdraw_token(cx).await;
        } else if is_it(&self.socket) {
            self.socket = None;
        } else {
            return;
        }
        events::not_served(cx.env().metrics(), &"the server has ended");
        cx.after(SERVE_AGAIN, EdgeStreamMsg::Serve);
    }
}

fn about_token(file: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("token file {}: {error}", file.display()))
}

async fn open_socket(path: PathBuf, kubelet: Arc<Kubelet>, env: &Env) -> io::Result<(Server, OwnFile)> {
    let shown = path.display().to_string();
    let bound = env.blocking(move || unixsocket::bind(&path, None, Existing::ReplaceDead)).await;
    let bound = bound.map_err(|fault| io::Error::other(fault.reason)).flatten();
    let bound = bound.map_err(|error| io::Error::new(error.kind(), format!("socket {shown}: {error}")))?;
    let server = LocalServer { kubelet, token: None }.at_socket(bound.listener, env)?;
    Ok((server, bound.file))
}

/// Answers a call that is not taken.
async fn refuse(refusal: Refusal, stream: &mut ByteStream) -> io::Result<()> {
    let headers = refusal.headers.into_iter().chain([("content-type".to_owned(), "text/plain".to_owned())]);
    let head = StreamResponse { status: refusal.status, headers: headers.collect() };
    stream.write_all(&head.encode(WireVersion::ONE).map_err(io::Error::other)?).await?;
    stream.write_all(refusal.text.as_bytes()).await?;
    stream.shutdown().await
}
