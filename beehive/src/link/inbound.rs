//! Messages that come in: which mailboxes the other end may reach, and one inbox per stream.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::BoxFuture;
use tokio::sync::mpsc;

use super::core::Core;
use super::frame::{Frame, Kind};
use super::transport::{PeerName, Reader, Writer};
use super::wire::{DecodeError, ReplyTo, Wire};
use crate::{Address, Message, Refusal};

/// 16: what a lane's inbox holds, and so the credits that its sender begins with. At 1 MiB a message, a lane that
/// nobody empties holds 16 MiB at the most.
pub(super) const LANE_CREDITS: usize = 16;

/// 4096: asks of one lane that may wait for their answers, at either end.
pub(super) const PENDING_MAX: usize = 4096;

/// 128: the longest name of a mailbox that is looked at.
const NAME_MAX: usize = 128;

type Delivery = BoxFuture<'static, Result<(), Refusal>>;

trait Route: Send + Sync {
    fn deliver(&self, body: &[u8], reply: Option<ReplyTo>, peer: &PeerName) -> Result<Delivery, DecodeError>;
}

/// Makes the mailbox's own message of what came over the link, and of who sent it.
type Wrap<W, M> = dyn Fn(W, &PeerName) -> M + Send + Sync;

struct RouteTo<W, M: Message> {
    to: Address<M>,
    wrap: Box<Wrap<W, M>>,
}

impl<W: Wire, M: Message> Route for RouteTo<W, M> {
    fn deliver(&self, body: &[u8], reply: Option<ReplyTo>, peer: &PeerName) -> Result<Delivery, DecodeError> {
        let message = (self.wrap)(W::decode(body, reply)?, peer);
        let to = self.to.clone();
        Ok(Box::pin(async move { to.tell(message).await }))
    }
}

/// The mailboxes that the other end may reach: nothing else is there for it.
#[derive(Default, Clone)]
pub struct Routes(BTreeMap<&'static str, Arc<dyn Route>>);

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
        self.0.insert(W::MAILBOX, Arc::new(RouteTo { to, wrap: Box::new(wrap) }));
        self
    }
}

impl std::fmt::Debug for Routes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// Serves one stream that the other end opened, until it ends.
pub(super) async fn serve(core: Arc<Core>, routes: Routes, writer: Writer, mut reader: Reader) {
    let route = match open(&core, &routes, &mut reader).await {
        Ok(route) => route,
        Err(sentence) => {
            tracing::warn!(peer = %core.peer, reason = sentence, "refused a stream");
            let nack = Frame::new(Kind::Nack, 0, sentence.into_bytes());
            let mut writer = writer;
            let _ = core.write(&mut writer, &nack).await;
            return;
        }
    };
    // Room for every answer that may be outstanding and for the credits; memory is taken as it is used.
    let (back, answers) = mpsc::channel(PENDING_MAX + LANE_CREDITS);
    let (inbox, messages) = mpsc::channel(LANE_CREDITS);
    let write = answer(&core, writer, answers);
    let forward = forward(&core, route, messages, back);
    let read = fill(&core, &mut reader, inbox);
    // The forwarder and the writer end by themselves when the reader has: what was taken is still delivered.
    futures::join!(read, forward, write);
}

async fn open(core: &Core, routes: &Routes, reader: &mut Reader) -> Result<Arc<dyn Route>, String> {
    let first = core.read(reader).await.map_err(|error| error.to_string())?;
    let Some(first) = first.filter(|frame| frame.kind == Kind::Open && frame.body.len() <= NAME_MAX) else {
        return Err("a stream begins by naming its mailbox".to_owned());
    };
    let name = String::from_utf8_lossy(&first.body);
    match routes.0.get(name.as_ref()) {
        Some(route) => Ok(Arc::clone(route)),
        None => Err(format!("mailbox `{}` is not open to this link", name.escape_debug())),
    }
}

/// Reads messages into the inbox. A sender that exceeds its credits breaks the contract, and its stream ends.
async fn fill(core: &Core, reader: &mut Reader, inbox: mpsc::Sender<Frame>) {
    loop {
        match core.read(reader).await {
            Ok(Some(frame)) if matches!(frame.kind, Kind::Tell | Kind::Ask) => {
                if inbox.try_send(frame).is_err() {
                    tracing::warn!(peer = %core.peer, "a sender exceeded its credits; its stream is ended");
                    return;
                }
            }
            Ok(Some(frame)) => {
                tracing::warn!(peer = %core.peer, kind = ?frame.kind, "unexpected frame on a mailbox's stream");
                return;
            }
            Ok(None) => return,
            Err(error) => {
                core.stream_broke(&error);
                return;
            }
        }
    }
}

/// Hands the inbox to the local mailbox one by one, and gives each place back as a credit.
async fn forward(
    core: &Core,
    route: Arc<dyn Route>,
    mut inbox: mpsc::Receiver<Frame>,
    back: mpsc::Sender<Frame>,
) {
    while let Some(frame) = inbox.recv().await {
        let answer = (frame.kind == Kind::Ask).then(|| Answer::new(frame.id, back.clone()));
        let reply = answer.as_ref().map(Answer::way);
        match route.deliver(&frame.body, reply, &core.peer) {
            Ok(delivery) => {
                if let Some(answer) = &answer {
                    answer.understood();
                }
                if let Err(refusal) = delivery.await {
                    tracing::debug!(peer = %core.peer, error = %refusal, "local mailbox refused a message");
                }
            }
            Err(error) => {
                tracing::warn!(peer = %core.peer, error = %error, "message was not understood");
                let id = answer.map_or(0, |answer| answer.not_understood());
                let nack = Frame::new(Kind::Nack, id, error.to_string().into_bytes());
                if back.send(nack).await.is_err() {
                    return;
                }
            }
        }
        if back.send(Frame::new(Kind::Credit, 1, Vec::new())).await.is_err() {
            return;
        }
    }
}

/// Writes answers and credits.
async fn answer(core: &Core, mut writer: Writer, mut answers: mpsc::Receiver<Frame>) {
    while let Some(mut frame) = answers.recv().await {
        // Credits that wait together travel as one frame.
        while frame.kind == Kind::Credit {
            match answers.try_recv() {
                Ok(next) if next.kind == Kind::Credit => frame.id += next.id,
                Ok(next) => {
                    if core.write(&mut writer, &frame).await.is_err() {
                        return;
                    }
                    frame = next;
                }
                Err(_) => break,
            }
        }
        if core.write(&mut writer, &frame).await.is_err() {
            return;
        }
    }
}

/// The answer of one ask. What the decoder does with the way back counts only once the message was understood: a
/// decoder that fails drops it, and that is not a crash of the actor.
struct Answer {
    id: u64,
    phase: Arc<Mutex<Phase>>,
}

enum Phase {
    Decoding(mpsc::Sender<Frame>, Option<Frame>),
    Live(mpsc::Sender<Frame>),
    Over,
}

impl Answer {
    fn new(id: u64, back: mpsc::Sender<Frame>) -> Self {
        Answer { id, phase: Arc::new(Mutex::new(Phase::Decoding(back, None))) }
    }

    fn way(&self) -> ReplyTo {
        let (id, phase) = (self.id, Arc::clone(&self.phase));
        ReplyTo::new(move |answer| {
            let frame = match answer {
                Ok(body) if Frame::fits(body.len()) => Frame::new(Kind::Reply, id, body),
                Ok(body) => {
                    Frame::new(Kind::Nack, id, format!("answer of {} bytes fits no frame", body.len()).into())
                }
                Err(sentence) => Frame::new(Kind::Nack, id, sentence.into_bytes()),
            };
            let mut phase = phase.lock().unwrap_or_else(PoisonError::into_inner);
            match &mut *phase {
                Phase::Decoding(_, kept) => *kept = Some(frame),
                // Never full: the other end keeps to PENDING_MAX asks. If it does not, it loses its answer.
                Phase::Live(back) => drop(back.try_send(frame)),
                Phase::Over => {}
            }
        })
    }

    fn understood(&self) {
        let mut phase = self.phase.lock().unwrap_or_else(PoisonError::into_inner);
        if let Phase::Decoding(back, kept) = std::mem::replace(&mut *phase, Phase::Over) {
            match kept {
                Some(frame) => drop(back.try_send(frame)),
                None => *phase = Phase::Live(back),
            }
        }
    }

    fn not_understood(self) -> u64 {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner) = Phase::Over;
        self.id
    }
}
