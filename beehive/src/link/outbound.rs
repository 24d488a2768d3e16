//! Messages that go out: one lane is one stream, opened on first use, sent within the credits of the other end.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::Arc;

use futures::future::{BoxFuture, Either, select};
use tokio::sync::{Semaphore, mpsc};

use super::core::Core;
use super::frame::{Frame, Kind};
use super::inbound::{LANE_CREDITS, PENDING_MAX};
use super::transport::{Connection, Reader, Urgency, Writer};
use super::wire::{AnswerSlot, Outgoing, Wire};
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
}

impl<M: Wire> RemoteMailbox<M> for Remote<M> {
    fn tell(&self, message: M) -> BoxFuture<'_, Result<(), Refusal>> {
        let lane = self.lane(&message);
        Box::pin(async move {
            // A message that waits for room is not yet encoded: what waits costs no second copy.
            let permit = lane.credits.acquire().await.map_err(|_| Refusal::LinkDown)?;
            let outgoing = encode(message)?;
            permit.forget();
            lane.push(outgoing)
        })
    }

    fn try_tell(&self, message: M) -> Result<(), Refusal> {
        let lane = self.lane(&message);
        let permit = match lane.credits.try_acquire() {
            Ok(permit) => permit,
            Err(tokio::sync::TryAcquireError::NoPermits) => return Err(Refusal::Full),
            Err(tokio::sync::TryAcquireError::Closed) => return Err(Refusal::LinkDown),
        };
        let outgoing = encode(message)?;
        permit.forget();
        lane.push(outgoing)
    }

    fn is_up(&self) -> bool {
        self.core.is_up()
    }
}

fn encode<M: Wire>(message: M) -> Result<Outgoing, Refusal> {
    let name = message.name();
    let outgoing = message.encode().map_err(|error| {
        tracing::warn!(message = name, error = %error, "message fits no frame");
        Refusal::TooLarge
    })?;
    if Frame::fits(outgoing.body.len()) { Ok(outgoing) } else { Err(Refusal::TooLarge) }
}

struct LaneSender {
    credits: Arc<Semaphore>,
    queue: mpsc::Sender<Outgoing>,
}

impl LaneSender {
    fn new(
        env: &Env,
        core: &Arc<Core>,
        connection: &Arc<dyn Connection>,
        mailbox: &'static str,
        urgency: Urgency,
    ) -> Self {
        let credits = Arc::new(Semaphore::new(LANE_CREDITS));
        let (queue, waiting) = mpsc::channel(LANE_CREDITS);
        let lane = LaneTask {
            core: Arc::clone(core),
            connection: Arc::clone(connection),
            credits: Arc::clone(&credits),
            mailbox,
            urgency,
        };
        env.spawn(lane.run(waiting));
        LaneSender { credits, queue }
    }

    /// Whoever holds a credit finds a place.
    fn push(&self, outgoing: Outgoing) -> Result<(), Refusal> {
        self.queue.try_send(outgoing).map_err(|_| Refusal::LinkDown)
    }
}

struct LaneTask {
    core: Arc<Core>,
    connection: Arc<dyn Connection>,
    credits: Arc<Semaphore>,
    mailbox: &'static str,
    urgency: Urgency,
}

impl LaneTask {
    /// Waits for a first message, opens the stream and serves it until the link ends or nobody can send any more.
    async fn run(self, mut waiting: mpsc::Receiver<Outgoing>) {
        let mut pending = Pending::default();
        let work = async {
            while let Some(first) = waiting.recv().await {
                self.stream(first, &mut waiting, &mut pending).await;
                // The stream ended, the link perhaps not: the next message opens a new one with fresh credits.
                pending.fail();
                if !self.core.is_up() {
                    return;
                }
                let lost = LANE_CREDITS.saturating_sub(self.credits.available_permits() + waiting.len());
                self.credits.add_permits(lost);
            }
        };
        {
            let (work, ended) = (std::pin::pin!(work), std::pin::pin!(self.core.ended()));
            drop(select(work, ended).await);
        }
        self.credits.close();
        pending.fail();
        waiting.close();
        while let Ok(outgoing) = waiting.try_recv() {
            fail(outgoing.reply);
        }
    }

    async fn stream(&self, first: Outgoing, waiting: &mut mpsc::Receiver<Outgoing>, pending: &mut Pending) {
        let (mut writer, mut reader) = match self.connection.open(self.urgency).await {
            Ok(stream) => stream,
            Err(error) => {
                tracing::debug!(peer = %self.core.peer, mailbox = self.mailbox, error = %error, "no stream");
                fail(first.reply);
                return;
            }
        };
        let open = Frame::new(Kind::Open, 0, self.mailbox.as_bytes().to_vec());
        if self.core.write(&mut writer, &open).await.is_err() {
            fail(first.reply);
            return;
        }
        if self.send(&mut writer, first, pending).await.is_err() {
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
                    Either::Left(Some(frame)) => self.take(frame, pending),
                    Either::Left(None) => return,
                    Either::Right(Some(outgoing)) => {
                        if self.send(&mut writer, outgoing, pending).await.is_err() {
                            return;
                        }
                    }
                    // Nobody can send any more; answers may still come.
                    Either::Right(None) if pending.is_empty() => return,
                    Either::Right(None) => match heard.recv().await {
                        Some(frame) => self.take(frame, pending),
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
        outgoing: Outgoing,
        pending: &mut Pending,
    ) -> std::io::Result<()> {
        let frame = match outgoing.reply {
            None => Frame::new(Kind::Tell, 0, outgoing.body),
            Some(slot) => match pending.add(slot) {
                Some(id) => Frame::new(Kind::Ask, id, outgoing.body),
                None => {
                    // Not sent, so its place at the other end is free.
                    self.credits.add_permits(1);
                    return Ok(());
                }
            },
        };
        self.core.write(writer, &frame).await
    }

    fn take(&self, frame: Frame, pending: &mut Pending) {
        match frame.kind {
            Kind::Credit => {
                let room = LANE_CREDITS.saturating_sub(self.credits.available_permits());
                self.credits.add_permits(usize::try_from(frame.id).unwrap_or(usize::MAX).min(room));
            }
            Kind::Reply => pending.answer(frame.id, Ok(frame.body)),
            Kind::Nack => {
                let sentence = String::from_utf8_lossy(&frame.body).into_owned();
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
            | Kind::Bye => {
                tracing::warn!(peer = %self.core.peer, kind = ?frame.kind, "unexpected frame on an answering stream");
            }
        }
    }
}

async fn read_all(core: &Core, reader: &mut Reader, heard: mpsc::Sender<Frame>) {
    loop {
        match core.read(reader).await {
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
        if self.slots.len() >= PENDING_MAX {
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
