//! A link from hello to its end.

use std::sync::Arc;
use std::time::Duration;

use futures::future::{Either, select};
use thiserror::Error;
use tokio::sync::mpsc;

use super::byte_stream::{self, ByteStreams};
use super::capability::Capabilities;
use super::close_reason::CloseReason;
use super::core::Core;
use super::frame::{Frame, Kind};
use super::inbound::Routes;
use super::incoming_streams::take_streams;
use super::keepalive::{self, Action, PeerSilence};
use super::outbound::Remote;
use super::sentence::sentence;
use super::transport::{Connection, PeerName, Reader, Traffic, Transport, Urgency, Writer};
use super::version::{Protocol, Versions, WireVersion};
use super::wire::Wire;
use crate::{Address, Env};

/// 10 s: how long the answer to a hello may take.
const HELLO_WITHIN: Duration = Duration::from_secs(10);
/// 8 KiB: frames of the first stream are short, and one is read of somebody who is not yet let in.
pub(super) const LINK_FRAME_MAX: usize = 8 << 10;

/// What a dialling end says of itself. Its name has to be the one in its certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// The wire versions that it speaks.
    pub versions: Versions,
    /// Its name.
    pub name: String,
}

impl Hello {
    /// The greeting of an end that speaks what this build speaks.
    pub fn of(name: impl Into<String>) -> Self {
        Hello { versions: Versions::OURS, name: name.into() }
    }

    /// ```text
    /// oldest u8 | newest u8 | length of the name u8 | name | capabilities
    /// ```
    pub(super) fn encode(&self, capabilities: &Capabilities) -> Vec<u8> {
        // 253: the longest name that a certificate of ours carries. A longer one is refused for its length.
        let length = u8::try_from(self.name.len()).unwrap_or(u8::MAX);
        let mut body = vec![self.versions.oldest, self.versions.newest, length];
        body.extend(self.name.as_bytes());
        body.extend(capabilities.encode());
        body
    }

    pub(super) fn decode(body: &[u8]) -> Option<(Hello, Capabilities)> {
        let (&[oldest, newest, length], rest) = body.split_first_chunk()?;
        let (name, capabilities) = rest.split_at_checked(usize::from(length))?;
        (name.len() <= 253 && oldest <= newest).then_some(())?;
        let name = String::from_utf8(name.to_vec()).ok()?;
        let greeting = Hello { versions: Versions { oldest, newest }, name };
        Some((greeting, Capabilities::decode(capabilities)?))
    }
}

/// Why the accepting end does not want the link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// For a person.
    pub reason: String,
    /// How long to wait before trying again; `None`: no advice.
    pub wait: Option<Duration>,
}

/// Why no link came about.
#[derive(Debug, Error)]
pub enum LinkError {
    /// The other end answered and does not want it.
    #[error("refused: {}", .0.reason)]
    Refused(Refused),
    /// The other end did not answer the hello within 10 s.
    #[error("no answer to the hello within 10 s")]
    Silent,
    /// The other end did not say hello within 5 s.
    #[error("no hello within 5 s")]
    Late,
    /// The connection broke; a certificate that the other end does not accept shows here, too.
    #[error("connection ended during the hello: {0}")]
    Broke(String),
    /// What came was no hello, or no answer to one.
    #[error("expected a {expected}, and something else came")]
    Unexpected {
        /// What should have come.
        expected: &'static str,
    },
    /// The name in the greeting is not the one in the certificate.
    #[error("it calls itself `{claimed}`, and its certificate is of `{certified}`")]
    Impostor {
        /// What it says.
        claimed: String,
        /// What the certificate says.
        certified: String,
    },
    /// No wire version is common.
    #[error(
        "`{name}` dialled and speaks {theirs}, and the end that it reached speaks {ours}: upgrade {}",
        older(.name, *.theirs, *.ours)
    )]
    Versions {
        /// Who dialled.
        name: String,
        /// What it speaks.
        theirs: Versions,
        /// What the end speaks that it reached.
        ours: Versions,
    },
}

/// Which of two ends without a common version is to be upgraded.
fn older(name: &str, theirs: Versions, ours: Versions) -> String {
    if theirs.newest < ours.oldest { format!("`{name}`") } else { "the end that it reached".to_owned() }
}

/// A link that is up. Dropping it ends it.
pub struct Link {
    env: Env,
    core: Arc<Core>,
    connection: Arc<dyn Connection>,
    bytes: Arc<byte_stream::Shared>,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Link({})", self.core.peer)
    }
}

/// The agreed version, and what this end understands.
pub(super) fn ack_body(version: WireVersion, capabilities: &Capabilities) -> Vec<u8> {
    let mut body = vec![version.number()];
    body.extend(capabilities.encode());
    body
}

/// What an answer to a greeting says, if its version is one that was offered.
fn agreed(answer: &Frame, offered: Versions) -> Option<Protocol> {
    let (number, capabilities) = answer.body.split_first()?;
    Some(Protocol::new(offered.version(*number)?, Capabilities::decode(capabilities)?))
}

pub(super) fn new_core(env: &Env, connection: &dyn Connection) -> Core {
    Core::new(env, connection.peer().clone())
}

pub(super) async fn first_frame(core: &Core, reader: &mut Reader) -> Result<Frame, LinkError> {
    match core.read(reader, LINK_FRAME_MAX).await {
        Ok(Some(frame)) => Ok(frame),
        Ok(None) => Err(LinkError::Broke("it ended".to_owned())),
        Err(error) => Err(LinkError::Broke(crate::Fault::from_error(&error).reason)),
    }
}

impl Link {
    /// Says hello over a connection that was dialled. The link is up only when the other end has answered.
    ///
    /// # Errors
    /// See [`LinkError`].
    pub async fn connect(
        env: &Env,
        connection: Box<dyn Connection>,
        greeting: &Hello,
        routes: Routes,
    ) -> Result<Link, LinkError> {
        let (mut core, routes) = (new_core(env, &*connection), routes.following(env));
        let hello = async {
            let broke = |error: std::io::Error| LinkError::Broke(error.to_string());
            let mut control = connection.open(Urgency::Link).await.map_err(broke)?;
            let hello = Frame::new(Kind::Hello, 0, greeting.encode(&routes.capabilities()));
            core.write(&mut control.0, &hello).await.map_err(broke)?;
            let answer = first_frame(&core, &mut control.1).await?;
            Ok((answer, control))
        };
        let answer = env.timeout(HELLO_WITHIN, hello).await.unwrap_or(Err(LinkError::Silent));
        let (answer, control) = answer.inspect_err(|_| connection.close())?;
        match answer.kind {
            Kind::HelloAck => match agreed(&answer, greeting.versions) {
                Some(protocol) => {
                    core.protocol = protocol;
                    Ok(Link::start(env.clone(), core, connection, control, routes, true))
                }
                None => {
                    connection.close();
                    Err(LinkError::Unexpected {
                        expected: "wire version of those that were offered, and capabilities",
                    })
                }
            },
            Kind::Refuse => {
                connection.close();
                let wait = (answer.amount > 0).then(|| Duration::from_millis(u64::from(answer.amount)));
                let reason = sentence(&answer.body);
                Err(LinkError::Refused(Refused { reason, wait }))
            }
            Kind::Open
            | Kind::Tell
            | Kind::Ask
            | Kind::Reply
            | Kind::Nack
            | Kind::Credit
            | Kind::Hello
            | Kind::Ping
            | Kind::Pong
            | Kind::Bye
            | Kind::StreamOpen
            | Kind::StreamAccept
            | Kind::StreamRefuse
            | Kind::StreamArrived
            | Kind::StreamWindow
            | Kind::StreamWindowReturn
            | Kind::StreamStop => {
                connection.close();
                Err(LinkError::Unexpected { expected: "answer to the hello" })
            }
        }
    }

    pub(super) fn start(
        env: Env,
        core: Core,
        connection: Box<dyn Connection>,
        control: (Writer, Reader),
        routes: Routes,
        dialled: bool,
    ) -> Link {
        let (core, connection): (Arc<Core>, Arc<dyn Connection>) = (Arc::new(core), Arc::from(connection));
        let bytes = byte_stream::Shared::new(&core, connection.transport(), dialled);
        env.spawn(keep(Arc::clone(&core), Arc::clone(&connection), Arc::clone(&bytes), control));
        env.spawn(Arc::clone(&bytes).run(env.clone(), Arc::clone(&connection)));
        let taken =
            take_streams(env.clone(), Arc::clone(&core), Arc::clone(&connection), Arc::clone(&bytes), routes);
        env.spawn(Arc::clone(&core).until_end(taken));
        Link { env, core, connection, bytes }
    }

    /// Opens byte streams to the other end.
    pub fn byte_streams(&self) -> ByteStreams {
        ByteStreams::new(Arc::clone(&self.bytes))
    }

    /// The mailbox at the other end that accepts `M`.
    pub fn remote<M: Wire>(&self) -> Address<M> {
        let remote = Remote::<M>::new(&self.env, &self.core, &self.connection);
        Address::remote(Arc::new(remote), self.env.clock())
    }

    /// Who is at the other end, by its certificate.
    pub fn peer(&self) -> &PeerName {
        &self.core.peer
    }

    /// The wire version that was agreed on.
    pub fn version(&self) -> WireVersion {
        self.core.protocol.version
    }

    /// What the other end understands, as its hello said.
    pub fn capabilities(&self) -> &Capabilities {
        &self.core.protocol.capabilities
    }

    /// What the link runs over.
    pub fn transport(&self) -> Transport {
        self.connection.transport()
    }

    /// The bytes that crossed so far.
    pub fn traffic(&self) -> Arc<Traffic> {
        Arc::clone(&self.core.traffic)
    }

    /// Waits for the link's end. Does not keep the link.
    pub fn ended(&self) -> impl Future<Output = CloseReason> + 'static {
        let core = Arc::clone(&self.core);
        async move { core.ended().await }
    }

    /// To wait for the other end's silence. Does not keep the link.
    pub fn silence(&self) -> Silence {
        Silence(Arc::clone(&self.core))
    }

    /// Ends it in order.
    pub fn close(&self) {
        self.core.end(CloseReason::Local);
    }
}

/// Whether the other end of a link is silent: it has left a ping unanswered for longer than an answer may take. Such a link is not dead;
/// it ends [`IDLE_TIMEOUT`](super::IDLE_TIMEOUT) after the other end's last word.
pub struct Silence(Arc<Core>);

impl Silence {
    /// Waits until the other end is silent (`true`), or is not (`false`).
    pub async fn until(&self, is_silent: bool) {
        self.0.until_silent(is_silent).await;
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.close();
    }
}

/// Watches over the link: pings, answers, the end.
async fn keep(
    core: Arc<Core>,
    connection: Arc<dyn Connection>,
    bytes: Arc<byte_stream::Shared>,
    control: (Writer, Reader),
) {
    let (mut writer, mut reader) = control;
    {
        // Two pings and two answers may wait behind a stream that takes no more bytes. Further ones would say nothing new.
        let (out, waiting) = mpsc::channel(4);
        // Both wait for each other's turn, and neither may be dropped in the middle of a frame.
        let (pings, heard) = mpsc::channel(4);
        let write = write_all(&core, &bytes, &mut writer, waiting);
        let read = listen(&core, &bytes, &mut reader, pings);
        let live = live(&core, heard, out);
        let work = std::pin::pin!(async { futures::join!(read, write, live) });
        let ended = std::pin::pin!(core.ended());
        drop(select(work, ended).await);
    }
    if core.ended().await == CloseReason::Local {
        let bye = Frame::new(Kind::Bye, 0, Vec::new());
        write_within(&core, &mut writer, &bye, Duration::from_secs(1)).await;
        // Closing at once could overtake the word; the other end closes when it has read it.
        let (goodbye, limit) = (
            std::pin::pin!(core.read(&mut reader, LINK_FRAME_MAX)),
            core.clock.sleep(Duration::from_secs(1)),
        );
        drop(select(goodbye, limit).await);
    }
    connection.close();
}

/// Hands on each ping and its answer, and notes the end.
async fn listen(core: &Core, bytes: &byte_stream::Shared, reader: &mut Reader, pings: mpsc::Sender<Frame>) {
    loop {
        match core.read(reader, LINK_FRAME_MAX).await {
            Ok(Some(frame)) if frame.kind == Kind::Bye => return core.end(CloseReason::Remote),
            Ok(Some(frame)) if bytes.take(&frame) => {}
            Ok(Some(frame)) => {
                if pings.send(frame).await.is_err() {
                    return;
                }
            }
            Ok(None) => return core.end(CloseReason::Broken("its first stream ended".to_owned())),
            Err(error) => return core.end(CloseReason::Broken(crate::Fault::from_error(&error).reason)),
        }
    }
}

async fn write_all(
    core: &Core,
    bytes: &byte_stream::Shared,
    writer: &mut Writer,
    mut waiting: mpsc::Receiver<Frame>,
) {
    loop {
        // Pings first.
        let frame = {
            let (ping, told) = (std::pin::pin!(waiting.recv()), std::pin::pin!(bytes.next_frame()));
            match select(ping, told).await {
                Either::Left((Some(frame), _)) | Either::Right((frame, _)) => frame,
                Either::Left((None, _)) => return,
            }
        };
        if let Err(error) = core.write(writer, &frame).await {
            return core.end(CloseReason::Broken(error.to_string()));
        }
    }
}

/// Decides over life and death, whatever becomes of the writing: a connection that takes no more bytes is dead in time.
async fn live(core: &Core, mut heard: mpsc::Receiver<Frame>, out: mpsc::Sender<Frame>) {
    let (mut pinged, mut told) = (None, None);
    loop {
        let now = core.clock.now();
        let last = keepalive::heard(core.last_heard(), told);
        core.note_silence(keepalive::is_silent(now, last));
        let pause = match keepalive::decide(now, last, pinged) {
            Action::Wait(pause) => pause,
            Action::Ping(pause) => {
                pinged = Some(now);
                let mut ping = Frame::new(Kind::Ping, 0, Vec::new());
                // The true silence, whatever the other end said of its own: two ends that doubt each other would never end.
                let silence = now.since(core.last_heard());
                ping.amount = u32::try_from(silence.as_millis()).unwrap_or(u32::MAX);
                let _ = out.try_send(ping);
                pause
            }
            Action::Dead => return core.end(CloseReason::IdleTimeout),
        };
        let next = {
            let (frame, sleep) = (std::pin::pin!(heard.recv()), core.clock.sleep(pause));
            match select(frame, sleep).await {
                Either::Left((Some(frame), _)) => Some(frame),
                // Whoever listened has noted the end.
                Either::Left((None, _)) => return,
                Either::Right(_) => None,
            }
        };
        if let Some(ping) = next.filter(|frame| frame.kind == Kind::Ping) {
            let unheard = Duration::from_millis(u64::from(ping.amount));
            told = Some(PeerSilence::told(core.clock.now(), unheard, told));
            let _ = out.try_send(Frame::new(Kind::Pong, 0, Vec::new()));
        }
    }
}

async fn write_within(core: &Core, writer: &mut Writer, frame: &Frame, limit: Duration) {
    let write = std::pin::pin!(core.write(writer, frame));
    drop(select(write, core.clock.sleep(limit)).await);
}
