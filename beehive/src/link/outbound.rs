//! Messages that go out: one lane is one stream, opened on first use, sent within the credits of the other end.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::Arc;

use futures::future::{BoxFuture, Either, select};
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, TryAcquireError, mpsc};

use super::core::Core;
use super::events;
use super::frame::{FRAME_MAX, Frame, Kind};
use super::receive_budget::{ASKS_MAX, LANE_BYTES, LANE_MESSAGES};
use super::sentence::sentence;
use super::transport::{Connection, Reader, Urgency, Writer};
use super::version::Protocol;
use super::wire::{AnswerSlot, EncodeError, Outgoing, Wire};
use crate::trace::{self, Sending};
use crate::{AskError, Env, Lane, Refusal, RemoteMailbox};

/// A mailbox at the other end: two lanes.
pub(super) struct Remote<M> {
    core: Arc<Core>,
    work: LaneSender,
    control: LaneSender,
    message: PhantomData<fn(M)>,
}

impl<M: Wire> Remote<M> {
    pub(super) fn new(env: &Env, core: &Arc<Core>, connection: &Arc<dyn Connection>) -> Self {
        Remote {
            core: Arc::clone(core),
            work: LaneSender::new(env, core, connection, M::MAILBOX, Urgency::Work),
            control: LaneSender::new(env, core, connection, M::MAILBOX, Urgency::Control),
            message: PhantomData,
        }
    }

    fn lane(&self, message: &M) -> &LaneSender {
        match message.lane() {
            Lane::Work => &self.work,
            Lane::Control => &self.control,
        }
    }

    /// What the other end did not name in its hello is not sent to it.
    fn understands(&self, message: &M) -> Result<(), Refusal> {
        match message.capability() {
            Some(capability) if !self.core.protocol.capabilities.has(capability) => {
                events::unsupported(&self.core, M::MAILBOX, capability);
                Err(Refusal::Unsupported)
            }
            Some(_) | None => Ok(()),
        }
    }
}

impl<M: Wire> Remote<M> {
    /// The contexts that go with a message, if any are current and the other end takes them.
    fn followed(&self) -> Option<Sending> {
        let core = &self.core;
        let is_taken = core.traces.is_on() && core.protocol.capabilities.has(trace::CAPABILITY);
        if is_taken { core.traces.sending(core.peer.as_str(), M::MAILBOX) } else { None }
    }
}

impl<M: Wire> RemoteMailbox<M> for Remote<M> {
    fn tell(&self, message: M) -> BoxFuture<'_, Result<(), Refusal>> {
        let lane = self.lane(&message);
        Box::pin(async move {
            self.understands(&message)?;
            let followed = self.followed();
            // One at a time: only the message whose turn it is is encoded, and the others cost no second copy.
            let _turn = lane.turn.lock().await;
            let message_credit = lane.credits.message().await?;
            let outgoing = encode(message, &self.core.protocol)?;
            let (size, followed) = size(&outgoing, followed);
            let bytes = lane.credits.bytes(size).await?;
            lane.push(Queued { outgoing, followed, spent: Spent { message: message_credit, bytes } })
        })
    }

    fn try_tell(&self, message: M) -> Result<(), Refusal> {
        self.understands(&message)?;
        let lane = self.lane(&message);
        let Ok(_turn) = lane.turn.try_lock() else { return Err(Refusal::Full) };
        let message_credit = lane.credits.try_message()?;
        let outgoing = encode(message, &self.core.protocol)?;
        let (size, followed) = size(&outgoing, self.followed());
        let bytes = lane.credits.try_bytes(size)?;
        lane.push(Queued { outgoing, followed, spent: Spent { message: message_credit, bytes } })
    }

    fn is_up(&self) -> bool {
        self.core.is_up()
    }
}

fn encode<M: Wire>(message: M, protocol: &Protocol) -> Result<Outgoing, Refusal> {
    let name = message.name();
    let outgoing = message.encode(protocol).map_err(|error| {
        tracing::warn!(message = name, error = %error, "message not sent");
        match error {
            EncodeError::TooLarge(_) => Refusal::TooLarge,
            EncodeError::Version(_) => Refusal::Unsupported,
        }
    })?;
    if Frame::fits(outgoing.body.len()) { Ok(outgoing) } else { Err(Refusal::TooLarge) }
}

/// What a message costs of the lane's bytes, which count all behind a frame's fixed header. A body that leaves no room there for contexts
/// goes without them.
fn size(outgoing: &Outgoing, followed: Option<Sending>) -> (usize, Option<Sending>) {
    let body = outgoing.body.len();
    let followed = followed.filter(|followed| body + followed.extension.len() <= LANE_BYTES);
    (body + followed.as_ref().map_or(0, |followed| followed.extension.len()), followed)
}

/// What the other end has room for.
#[derive(Clone)]
struct Credits {
    messages: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
}

/// The credits of one message. Dropped, they are free again.
struct Spent {
    message: OwnedSemaphorePermit,
    bytes: OwnedSemaphorePermit,
}

impl Credits {
    fn new() -> Self {
        let (messages, bytes) = (Semaphore::new(LANE_MESSAGES), Semaphore::new(LANE_BYTES));
        Credits { messages: Arc::new(messages), bytes: Arc::new(bytes) }
    }

    async fn message(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        Arc::clone(&self.messages).acquire_owned().await.map_err(|_| Refusal::LinkDown)
    }

    fn try_message(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        Arc::clone(&self.messages).try_acquire_owned().map_err(refusal)
    }

    async fn bytes(&self, size: usize) -> Result<OwnedSemaphorePermit, Refusal> {
        Arc::clone(&self.bytes).acquire_many_owned(cost(size)).await.map_err(|_| Refusal::LinkDown)
    }

    fn try_bytes(&self, size: usize) -> Result<OwnedSemaphorePermit, Refusal> {
        Arc::clone(&self.bytes).try_acquire_many_owned(cost(size)).map_err(refusal)
    }

    fn close(&self) {
        self.messages.close();
        self.bytes.close();
    }
}

fn cost(size: usize) -> u32 {
    u32::try_from(size).unwrap_or(u32::MAX)
}

fn refusal(why: TryAcquireError) -> Refusal {
    match why {
        TryAcquireError::NoPermits => Refusal::Full,
        TryAcquireError::Closed => Refusal::LinkDown,
    }
}

struct Queued {
    outgoing: Outgoing,
    followed: Option<Sending>,
    spent: Spent,
}

struct LaneSender {
    turn: Mutex<()>,
    credits: Credits,
    queue: mpsc::Sender<Queued>,
}

impl LaneSender {
    fn new(
        env: &Env,
        core: &Arc<Core>,
        connection: &Arc<dyn Connection>,
        mailbox: &'static str,
        urgency: Urgency,
    ) -> Self {
        let credits = Credits::new();
        let (queue, waiting) = mpsc::channel(LANE_MESSAGES);
        let lane = LaneTask {
            core: Arc::clone(core),
            connection: Arc::clone(connection),
            credits: credits.clone(),
            mailbox,
            urgency,
        };
        env.spawn(lane.run(waiting));
        LaneSender { turn: Mutex::new(()), credits, queue }
    }

    /// Never full: whoever holds a credit finds room.
    fn push(&self, queued: Queued) -> Result<(), Refusal> {
        self.queue.try_send(queued).map_err(|_| Refusal::LinkDown)
    }
}

struct LaneTask {
    core: Arc<Core>,
    connection: Arc<dyn Connection>,
    credits: Credits,
    mailbox: &'static str,
    urgency: Urgency,
}

/// What was sent on a stream and has not come back: credits, and answers.
#[derive(Default)]
struct Underway {
    messages: usize,
    bytes: usize,
    pending: Pending,
}

impl Underway {
    /// A message leaves with its credits.
    fn leave(&mut self, spent: Spent) {
        self.messages += spent.message.num_permits();
        self.bytes += spent.bytes.num_permits();
        spent.message.forget();
        spent.bytes.forget();
    }

    /// The other end gives credits back, at most what it was given.
    fn credit(&mut self, credits: &Credits, messages: u64, bytes: u32) {
        let messages = usize::try_from(messages).unwrap_or(usize::MAX).min(self.messages);
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX).min(self.bytes);
        self.messages -= messages;
        self.bytes -= bytes;
        credits.messages.add_permits(messages);
        credits.bytes.add_permits(bytes);
    }

    /// The stream is over. Another one begins with fresh credits.
    fn over(&mut self, credits: &Credits) {
        self.credit(credits, u64::MAX, u32::MAX);
        self.pending.fail();
    }
}

impl LaneTask {
    /// Waits for a first message, opens the stream and serves it until the link ends or nobody can send any more.
    async fn run(self, mut waiting: mpsc::Receiver<Queued>) {
        let mut underway = Underway::default();
        let work = async {
            while let Some(first) = waiting.recv().await {
                self.stream(first, &mut waiting, &mut underway).await;
                // The stream ended, the link perhaps not: the next message opens a new one.
                underway.over(&self.credits);
                if !self.core.is_up() {
                    return;
                }
            }
        };
        {
            let (work, ended) = (std::pin::pin!(work), std::pin::pin!(self.core.ended()));
            drop(select(work, ended).await);
        }
        self.credits.close();
        underway.pending.fail();
        waiting.close();
        while let Ok(queued) = waiting.try_recv() {
            fail(queued.outgoing.reply);
        }
    }

    async fn stream(&self, first: Queued, waiting: &mut mpsc::Receiver<Queued>, underway: &mut Underway) {
        let (mut writer, mut reader) = match self.connection.open(self.urgency).await {
            Ok(stream) => stream,
            Err(error) => {
                tracing::debug!(peer = %self.core.peer, mailbox = self.mailbox, error = %error, "no stream");
                fail(first.outgoing.reply);
                return;
            }
        };
        let open = Frame::new(Kind::Open, 0, self.mailbox.as_bytes().to_vec());
        if self.core.write(&mut writer, &open).await.is_err() {
            fail(first.outgoing.reply);
            return;
        }
        if self.send(&mut writer, first, underway).await.is_err() {
            return;
        }
        // A frame that is half read must not be lost to a message that wants out, so reading has a task's loop of its own.
        let (heard_tx, mut heard) = mpsc::channel(1);
        let read = read_all(&self.core, &mut reader, heard_tx);
        let talk = async {
            loop {
                let turn = {
                    let (next, frame) = (std::pin::pin!(waiting.recv()), std::pin::pin!(heard.recv()));
                    match select(frame, next).await {
                        Either::Left((frame, _)) => Either::Left(frame),
                        Either::Right((next, _)) => Either::Right(next),
                    }
                };
                match turn {
                    Either::Left(Some(frame)) => self.take(frame, underway),
                    Either::Left(None) => return,
                    Either::Right(Some(queued)) => {
                        if self.send(&mut writer, queued, underway).await.is_err() {
                            return;
                        }
                    }
                    // Nobody can send any more; answers may still come.
                    Either::Right(None) if underway.pending.is_empty() => return,
                    Either::Right(None) => match heard.recv().await {
                        Some(frame) => self.take(frame, underway),
                        None => return,
                    },
                }
            }
        };
        let (read, talk) = (std::pin::pin!(read), std::pin::pin!(talk));
        match select(talk, read).await {
            Either::Left(_) => {}
            // What was read is still in the channel.
            Either::Right(((), talk)) => talk.await,
        }
    }

    async fn send(
        &self,
        writer: &mut Writer,
        queued: Queued,
        underway: &mut Underway,
    ) -> std::io::Result<()> {
        let Queued { outgoing, mut followed, spent } = queued;
        let mut frame = match outgoing.reply {
            None => Frame::new(Kind::Tell, 0, outgoing.body),
            Some(slot) => match underway.pending.add(slot) {
                Some(id) => Frame::new(Kind::Ask, id, outgoing.body),
                // Not sent, so its credits are free again.
                None => return Ok(()),
            },
        };
        underway.leave(spent);
        if let Some(followed) = &mut followed {
            frame.extension = std::mem::take(&mut followed.extension);
        }
        // The steps of `followed` end when it is written.
        self.core.write(writer, &frame).await
    }

    fn take(&self, frame: Frame, underway: &mut Underway) {
        let pending = &mut underway.pending;
        match frame.kind {
            Kind::Credit => underway.credit(&self.credits, frame.id, frame.amount),
            Kind::Reply => pending.answer(frame.id, Ok(frame.body)),
            Kind::Nack => {
                let sentence = sentence(&frame.body);
                if frame.id == 0 {
                    tracing::warn!(peer = %self.core.peer, mailbox = self.mailbox, reason = sentence, "refused by the peer");
                } else {
                    pending.answer(frame.id, Err(AskError::Rejected(sentence)));
                }
            }
            Kind::Open
            | Kind::Tell
            | Kind::Ask
            | Kind::Hello
            | Kind::HelloAck
            | Kind::Refuse
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
                tracing::warn!(peer = %self.core.peer, kind = ?frame.kind, "unexpected frame on an answering stream");
            }
        }
    }
}

async fn read_all(core: &Core, reader: &mut Reader, heard: mpsc::Sender<Frame>) {
    loop {
        match core.read(reader, FRAME_MAX).await {
            Ok(Some(frame)) => {
                if heard.send(frame).await.is_err() {
                    return;
                }
            }
            Ok(None) => return,
            Err(error) => {
                core.stream_broke(&error);
                return;
            }
        }
    }
}

/// Asks whose answers have not come.
#[derive(Default)]
struct Pending {
    last: u64,
    slots: BTreeMap<u64, AnswerSlot>,
}

impl Pending {
    fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    fn add(&mut self, slot: AnswerSlot) -> Option<u64> {
        if self.slots.len() >= ASKS_MAX {
            slot(Err(AskError::Refused(Refusal::Full)));
            return None;
        }
        self.last += 1;
        self.slots.insert(self.last, slot);
        Some(self.last)
    }

    fn answer(&mut self, id: u64, answer: Result<Vec<u8>, AskError>) {
        // An id that nobody waits for is an answer twice or an invention: nothing to do.
        if let Some(slot) = self.slots.remove(&id) {
            slot(answer);
        }
    }

    fn fail(&mut self) {
        for (_, slot) in std::mem::take(&mut self.slots) {
            slot(Err(AskError::LinkDown));
        }
    }
}

fn fail(slot: Option<AnswerSlot>) {
    if let Some(slot) = slot {
        slot(Err(AskError::LinkDown));
    }
}
