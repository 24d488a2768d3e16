//! Messages that come in: which mailboxes the other end may reach, and one inbox per stream.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::{BoxFuture, Either, select};
use tokio::sync::{Semaphore, mpsc};

use super::byte_stream::{self, BYTE_STREAM_HEADER_MAX, ByteStreamHandler};
use super::capability::Capabilities;
use super::core::Core;
use super::events;
use super::frame::{FIXED, FRAME_MAX, Frame, Kind};
use super::receive_budget::{ASKS_MAX, LANE_MESSAGES, LaneBudget, Reserved, UnreadAnswer, UnreadAnswers};
use super::transport::{PeerName, Reader, Writer};
use super::wire::{DecodeError, ReplyTo, Wire};
use crate::{Address, Env, Message, Refusal, trace};

/// 128: the longest name of a mailbox that is looked at.
const NAME_MAX: usize = 128;

/// 10 s: how long a stream may take to name its mailbox.
const NAME_WITHIN: Duration = Duration::from_secs(10);

type Delivery = BoxFuture<'static, Result<(), Refusal>>;

pub(super) trait Route: Send + Sync {
    fn mailbox(&self) -> &'static str;
    fn deliver(&self, body: &[u8], reply: Option<ReplyTo>, core: &Core) -> Result<Delivery, DecodeError>;
}

/// Makes the mailbox's own message of what came over the link, and of who sent it.
type Wrap<W, M> = dyn Fn(W, &PeerName) -> M + Send + Sync;

struct RouteTo<W, M: Message> {
    to: Address<M>,
    wrap: Box<Wrap<W, M>>,
}

impl<W: Wire, M: Message> Route for RouteTo<W, M> {
    fn mailbox(&self) -> &'static str {
        W::MAILBOX
    }

    fn deliver(&self, body: &[u8], reply: Option<ReplyTo>, core: &Core) -> Result<Delivery, DecodeError> {
        let message = (self.wrap)(W::decode(body, reply, &core.protocol)?, &core.peer);
        let to = self.to.clone();
        Ok(Box::pin(async move { to.tell(message).await }))
    }
}

/// The mailboxes that the other end may reach: nothing else is there for it.
#[derive(Default, Clone)]
pub struct Routes {
    mailboxes: BTreeMap<&'static str, Arc<dyn Route>>,
    capabilities: BTreeSet<&'static str>,
    byte_streams: Option<Arc<dyn ByteStreamHandler>>,
}

impl Routes {
    /// No mailbox at all.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets the other end reach `to` with messages of `W`. `wrap` makes the actor's own message of one and of who the
    /// other end is by its certificate.
    #[must_use]
    pub fn accept<W: Wire, M: Message>(
        mut self,
        to: Address<M>,
        wrap: impl Fn(W, &PeerName) -> M + Send + Sync + 'static,
    ) -> Self {
        self.mailboxes.insert(W::MAILBOX, Arc::new(RouteTo { to, wrap: Box::new(wrap) }));
        self.capabilities.extend(W::CAPABILITIES);
        self
    }

    /// Lets the other end open byte streams, which `handler` takes. Without one they are refused.
    #[must_use]
    pub fn byte_streams(mut self, handler: Arc<dyn ByteStreamHandler>) -> Self {
        self.byte_streams = Some(handler);
        self.capabilities.insert(byte_stream::CAPABILITY);
        self
    }

    /// Says `capability` in the hello, too, beyond what the open mailboxes do.
    #[must_use]
    pub fn saying(mut self, capability: &'static str) -> Self {
        self.capabilities.insert(capability);
        self
    }

    /// Says that this end takes contexts of what is followed, if it does.
    pub(super) fn following(self, env: &Env) -> Self {
        if env.traces().is_on() { self.saying(trace::CAPABILITY) } else { self }
    }

    pub(super) fn byte_stream_handler(&self) -> Option<Arc<dyn ByteStreamHandler>> {
        self.byte_streams.clone()
    }

    /// What this end understands, as its hello says it: what its open mailboxes do.
    pub(super) fn capabilities(&self) -> Capabilities {
        self.capabilities.iter().copied().collect()
    }
}

impl std::fmt::Debug for Routes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.mailboxes.keys()).finish()
    }
}

/// A frame on its way back, and what it holds until it was written.
struct Back {
    frame: Frame,
    _waiting: Option<UnreadAnswer>,
}

impl From<Frame> for Back {
    fn from(frame: Frame) -> Self {
        Back { frame, _waiting: None }
    }
}

/// What a stream is for that the other end opened.
pub(super) enum Purpose {
    /// Messages to a mailbox.
    Mailbox(Arc<dyn Route>),
    /// Bytes, opened with this frame.
    Bytes(Frame),
}

/// Reads what a stream is for; a sentence when it is nothing that this end serves. `headers` bounds the bytes of headers
/// that are being read.
pub(super) async fn purpose(
    core: &Core,
    routes: &Routes,
    headers: &Semaphore,
    reader: &mut Reader,
) -> Result<Purpose, String> {
    let open = std::pin::pin!(open(core, routes, headers, reader));
    match select(open, core.clock.sleep(NAME_WITHIN)).await {
        Either::Left((named, _)) => named,
        Either::Right(_) => Err("a stream says what it is for within 10 s".to_owned()),
    }
}

/// Serves the stream of a mailbox until it ends.
pub(super) async fn serve(
    core: &Core,
    route: Arc<dyn Route>,
    budget: LaneBudget,
    writer: Writer,
    mut reader: Reader,
) {
    // Room for every answer that may be outstanding and for the credits; memory is taken as it is used.
    let (back, answers) = mpsc::channel(ASKS_MAX + LANE_MESSAGES);
    let (inbox, messages) = mpsc::channel(LANE_MESSAGES);
    let write = answer(core, writer, answers);
    let read = fill(core, &mut reader, &budget, inbox, back.clone());
    let forward = forward(core, route, &budget, messages, back);
    // The forwarder and the writer end by themselves when the reader has: what was taken is still delivered.
    futures::join!(read, forward, write);
}

async fn open(
    core: &Core,
    routes: &Routes,
    headers: &Semaphore,
    reader: &mut Reader,
) -> Result<Purpose, String> {
    let none = || "a stream begins by naming its mailbox or with the header of a byte stream".to_owned();
    let len =
        core.read_len(reader, FIXED + BYTE_STREAM_HEADER_MAX).await.map_err(|error| error.to_string())?;
    let len = len.ok_or_else(none)?;
    // Before a byte of it is read. The name of a mailbox is short and waits for nobody.
    let header = u32::try_from(len).ok().filter(|_| len > FIXED + NAME_MAX);
    let _room = match header {
        Some(len) => headers.acquire_many(len).await.ok(),
        None => None,
    };
    let first = core.read_rest(reader, len).await.map_err(|error| error.to_string())?;
    match first.kind {
        Kind::StreamOpen => Ok(Purpose::Bytes(first)),
        Kind::Open if first.body.len() > NAME_MAX => {
            let len = first.body.len();
            Err(format!("a mailbox's name of {len} bytes; at most {NAME_MAX} are looked at"))
        }
        Kind::Open => {
            let name = String::from_utf8_lossy(&first.body);
            match routes.mailboxes.get(name.as_ref()) {
                Some(route) => Ok(Purpose::Mailbox(Arc::clone(route))),
                None => Err(format!("mailbox `{}` is not open to this link", name.escape_debug())),
            }
        }
        _ => Err(none()),
    }
}

/// Reads messages into the inbox. A sender that exceeds its credits breaks the contract, and its stream ends.
async fn fill(
    core: &Core,
    reader: &mut Reader,
    budget: &LaneBudget,
    inbox: mpsc::Sender<(Frame, Reserved)>,
    back: mpsc::Sender<Back>,
) {
    loop {
        let len = match core.read_len(reader, FRAME_MAX).await {
            Ok(Some(len)) => len,
            Ok(None) => return,
            Err(error) => return core.stream_broke(&error),
        };
        // Before a byte of it is read: what finds no room stays on the stream.
        let held = match budget.take(len.saturating_sub(FIXED)).await {
            Ok(held) => held,
            Err(error) => {
                tracing::warn!(peer = %core.peer, reason = %error, "a sender exceeded its credits");
                let nack = Frame::new(Kind::Nack, 0, error.to_string().into_bytes());
                let _ = back.send(nack.into()).await;
                return;
            }
        };
        match core.read_rest(reader, len).await {
            Ok(frame) if matches!(frame.kind, Kind::Tell | Kind::Ask) => {
                // Never full: it has a slot for each credit.
                if inbox.try_send((frame, held)).is_err() {
                    return;
                }
            }
            Ok(frame) => {
                tracing::warn!(peer = %core.peer, kind = ?frame.kind, "unexpected frame on a mailbox's stream");
                return;
            }
            Err(error) => return core.stream_broke(&error),
        }
    }
}

/// Hands the inbox to the local mailbox one by one, and gives each slot back as a credit.
async fn forward(
    core: &Core,
    route: Arc<dyn Route>,
    budget: &LaneBudget,
    mut inbox: mpsc::Receiver<(Frame, Reserved)>,
    back: mpsc::Sender<Back>,
) {
    while let Some((frame, held)) = inbox.recv().await {
        if frame.kind == Kind::Ask {
            budget.answers_are_read().await;
        }
        let answer = (frame.kind == Kind::Ask).then(|| Answer::new(frame.id, back.clone(), budget.answers()));
        let reply = answer.as_ref().map(Answer::way);
        let delivery = route.deliver(&frame.body, reply, core);
        let (carried, steps) =
            core.traces.received(core.peer.as_str(), route.mailbox(), &frame.extension).unzip();
        // What the mailbox gets is made; its bytes need not wait with it.
        drop(frame);
        match delivery {
            Ok(delivery) => {
                if let Some(answer) = &answer {
                    answer.understood();
                }
                if let Err(refusal) = trace::within(carried, delivery).await {
                    tracing::debug!(peer = %core.peer, error = %refusal, "local mailbox refused a message");
                }
            }
            Err(error) => {
                events::not_understood(core, &error);
                let id = answer.map_or(0, |answer| answer.not_understood());
                let nack = Frame::new(Kind::Nack, id, error.to_string().into_bytes());
                let _ = back.send(nack.into()).await;
            }
        }
        drop(steps);
        let mut credit = Frame::new(Kind::Credit, 1, Vec::new());
        credit.amount = held.size();
        // Free before the sender can know of it.
        drop(held);
        // Whoever sent may be gone for good, and what was taken is delivered all the same.
        let _ = back.send(credit.into()).await;
    }
}

/// Writes answers and credits.
async fn answer(core: &Core, mut writer: Writer, mut answers: mpsc::Receiver<Back>) {
    while let Some(mut back) = answers.recv().await {
        // Credits that wait together travel as one frame.
        while back.frame.kind == Kind::Credit {
            match answers.try_recv() {
                Ok(next) if next.frame.kind == Kind::Credit => {
                    back.frame.id += next.frame.id;
                    back.frame.amount = back.frame.amount.saturating_add(next.frame.amount);
                }
                Ok(next) => {
                    if core.write(&mut writer, &back.frame).await.is_err() {
                        return;
                    }
                    back = next;
                }
                Err(_) => break,
            }
        }
        if core.write(&mut writer, &back.frame).await.is_err() {
            return;
        }
    }
}

/// The answer of one ask. What the decoder does with the way back counts only once the message was understood: a
/// decoder that fails drops it, and that is not a crash of the actor.
struct Answer {
    id: u64,
    answers: UnreadAnswers,
    phase: Arc<Mutex<Phase>>,
}

enum Phase {
    Decoding(mpsc::Sender<Back>, Option<Back>),
    Live(mpsc::Sender<Back>),
    Over,
}

impl Answer {
    fn new(id: u64, back: mpsc::Sender<Back>, answers: UnreadAnswers) -> Self {
        Answer { id, answers, phase: Arc::new(Mutex::new(Phase::Decoding(back, None))) }
    }

    fn way(&self) -> ReplyTo {
        let (id, phase, answers) = (self.id, Arc::clone(&self.phase), self.answers.clone());
        ReplyTo::new(move |answer| {
            let frame = match answer {
                Ok(body) if Frame::fits(body.len()) => Frame::new(Kind::Reply, id, body),
                Ok(body) => {
                    Frame::new(Kind::Nack, id, format!("answer of {} bytes fits no frame", body.len()).into())
                }
                Err(sentence) => Frame::new(Kind::Nack, id, sentence.into_bytes()),
            };
            let back = Back { _waiting: Some(answers.wait(frame.body.len())), frame };
            let mut phase = phase.lock().unwrap_or_else(PoisonError::into_inner);
            match &mut *phase {
                Phase::Decoding(_, kept) => *kept = Some(back),
                // Never full: the other end keeps to ASKS_MAX asks. If it does not, it loses its answer.
                Phase::Live(way) => drop(way.try_send(back)),
                Phase::Over => {}
            }
        })
    }

    fn understood(&self) {
        let mut phase = self.phase.lock().unwrap_or_else(PoisonError::into_inner);
        if let Phase::Decoding(way, kept) = std::mem::replace(&mut *phase, Phase::Over) {
            match kept {
                Some(back) => drop(way.try_send(back)),
                None => *phase = Phase::Live(way),
            }
        }
    }

    fn not_understood(self) -> u64 {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner) = Phase::Over;
        self.id
    }
}
