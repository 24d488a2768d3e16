//! The byte streams of one link: what each holds, whose turn it is, what the other end is to be told. No input or output; it
//! wakes who waits.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::task::{Context, Poll, Waker};

use bytes::BytesMut;
use tokio::io::ReadBuf;

use super::chunk;
use super::halves::{Stream, reset, wake};
use super::receive_window::{OWN, SharedWindow};
use super::send_budget::{SendBudget, send_buffer};
use super::{BYTE_STREAMS_MAX, OpenRequest};
use crate::Moment;
use crate::link::bytes_arrived::BytesArrived;
use crate::link::congestion_window::Stamp;
use crate::link::frame::{Frame, Kind};

/// What the task of a stream is to send next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// A chunk.
    Chunk(Vec<u8>),
    /// The writer has written everything.
    End,
    /// The stream breaks off.
    Abort,
}

pub(super) struct State {
    /// The number of the next stream that this end opens.
    next: u64,
    streams: BTreeMap<u64, Stream>,
    /// Streams that wait for their turn to send, in order.
    turns: VecDeque<u64>,
    budget: SendBudget,
    shared: SharedWindow,
    bytes_arrived: BytesArrived,
    /// Streams of which the other end is to be told something.
    to_tell: VecDeque<u64>,
    teller: Option<Waker>,
    to_open: VecDeque<OpenRequest>,
    opener: Option<Waker>,
    /// Streams that may send more than a new one may.
    wide: BTreeSet<u64>,
    sweeper: Option<Waker>,
    /// Why the link is down.
    over: Option<String>,
}

impl State {
    pub(super) fn new(dialled: bool, knows_urgency: bool) -> Self {
        State {
            next: if dialled { 1 } else { 2 },
            streams: BTreeMap::new(),
            turns: VecDeque::new(),
            budget: SendBudget::new(knows_urgency),
            shared: SharedWindow::new(),
            bytes_arrived: BytesArrived::default(),
            to_tell: VecDeque::new(),
            teller: None,
            to_open: VecDeque::new(),
            opener: None,
            wide: BTreeSet::new(),
            sweeper: None,
            over: None,
        }
    }

    /// How many streams there are.
    pub(super) fn open(&self) -> usize {
        self.streams.len()
    }

    /// The link is down; the first reason stays.
    pub(super) fn end(&mut self, why: String) {
        if self.over.is_some() {
            return;
        }
        self.over = Some(why);
        self.to_open.clear();
        for stream in self.streams.values_mut() {
            stream.has_task = false;
            stream.wake();
        }
        self.streams.retain(|_, stream| stream.has_handle);
        wake(&mut self.teller);
        wake(&mut self.opener);
    }

    pub(super) fn why_over(&self) -> Option<&str> {
        self.over.as_deref()
    }

    fn link_down(&self) -> Option<io::Error> {
        self.over.as_ref().map(|why| io::Error::new(io::ErrorKind::ConnectionAborted, why.clone()))
    }

    fn is_ours(&self, id: u64) -> bool {
        id % 2 == self.next % 2
    }

    fn is_full(&self, ours: bool) -> bool {
        self.streams.len() >= BYTE_STREAMS_MAX
            && self.streams.keys().filter(|id| self.is_ours(**id) == ours).count() >= BYTE_STREAMS_MAX
    }

    /// Drops a stream that nobody needs any more.
    fn forget_if_over(&mut self, id: u64) {
        if self.streams.get(&id).is_some_and(|stream| !stream.has_handle && !stream.has_task)
            && let Some(mut stream) = self.streams.remove(&id)
        {
            stream.into.window.close(&mut self.shared);
            self.wide.remove(&id);
        }
    }
}

/// What opens streams.
impl State {
    /// A stream of this end's that is to be opened by a frame of so many bytes; `None` when there are too many.
    pub(super) fn request(&mut self, opening: usize, request: impl FnOnce(u64) -> OpenRequest) -> bool {
        if self.is_full(true) {
            return false;
        }
        let id = self.next;
        self.next += 2;
        self.streams.insert(id, Stream::new(opening));
        self.to_open.push_back(request(id));
        wake(&mut self.opener);
        true
    }

    pub(super) fn poll_request(&mut self, cx: &Context<'_>) -> Poll<OpenRequest> {
        if let Some(request) = self.to_open.pop_front() {
            return Poll::Ready(request);
        }
        self.opener = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Ready when the frame that opens a stream may go.
    pub(super) fn poll_opening(&mut self, id: u64, cx: &Context<'_>, now: Moment) -> Poll<()> {
        let Some(stream) = self.streams.get_mut(&id) else { return Poll::Ready(()) };
        if stream.out.opening == 0 || stream.out.granted > 0 {
            (stream.out.opening, stream.out.granted) = (0, 0);
            return Poll::Ready(());
        }
        stream.out.task = Some(cx.waker().clone());
        self.queue(id, now);
        Poll::Pending
    }

    /// A stream that the other end opened. Answers why it is not taken, if so.
    pub(super) fn opened(&mut self, id: u64) -> Result<(), Unopened> {
        if self.is_ours(id) || self.streams.contains_key(&id) {
            return Err(Unopened::Number);
        }
        if self.is_full(false) {
            return Err(Unopened::TooMany);
        }
        self.streams.insert(id, Stream::new(0));
        Ok(())
    }

    /// Somebody has the stream in hand from now on.
    pub(super) fn handed_out(&mut self, id: u64) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.has_handle = true;
        }
    }
}

/// Why a stream of the other end's is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unopened {
    /// There are too many.
    TooMany,
    /// Its number is not one that the other end may give, or is taken.
    Number,
}

/// What whoever has a stream in hand asks.
impl State {
    pub(super) fn poll_read(
        &mut self,
        id: u64,
        buffer: &mut ReadBuf<'_>,
        cx: &Context<'_>,
    ) -> Poll<io::Result<()>> {
        let link_down = self.link_down();
        let Some(stream) = self.streams.get_mut(&id) else {
            return Poll::Ready(Err(link_down.unwrap_or_else(reset)));
        };
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let into = &mut stream.into;
        if !into.waiting.is_empty() {
            let taken = into.waiting.take(buffer.initialize_unfilled());
            buffer.advance(taken);
            if into.window.read(taken) && !into.complete {
                self.tell(id);
            }
            return Poll::Ready(Ok(()));
        }
        if into.complete {
            return Poll::Ready(Ok(()));
        }
        if stream.reset {
            return Poll::Ready(Err(reset()));
        }
        if let Some(error) = link_down {
            return Poll::Ready(Err(error));
        }
        into.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Takes as many of `bytes` as there is room for.
    pub(super) fn poll_write(
        &mut self,
        id: u64,
        bytes: &[u8],
        cx: &Context<'_>,
        now: Moment,
    ) -> Poll<io::Result<usize>> {
        if let Some(error) = self.link_down() {
            return Poll::Ready(Err(error));
        }
        let most = send_buffer(self.turns.len());
        let Some(stream) = self.streams.get_mut(&id) else { return Poll::Ready(Err(reset())) };
        if let Some(error) = stream.write_error() {
            return Poll::Ready(Err(error));
        }
        let out = &mut stream.out;
        if out.complete {
            let why = "this end has shut its half of the stream down";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::BrokenPipe, why)));
        }
        let room = most.saturating_sub(out.waiting.len());
        if room == 0 && !bytes.is_empty() {
            out.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let taken = bytes.get(..room).unwrap_or(bytes);
        out.waiting.extend_from_slice(taken);
        self.queue(id, now);
        Poll::Ready(Ok(taken.len()))
    }

    /// Ready when everything that was written, and that it is everything, was given to the transport.
    pub(super) fn poll_shutdown(&mut self, id: u64, cx: &Context<'_>) -> Poll<io::Result<()>> {
        let link_down = self.link_down();
        let Some(stream) = self.streams.get_mut(&id) else {
            return Poll::Ready(Err(link_down.unwrap_or_else(reset)));
        };
        if stream.out.ended && stream.out.complete {
            return Poll::Ready(Ok(()));
        }
        if let Some(error) = link_down.or_else(|| stream.write_error()) {
            return Poll::Ready(Err(error));
        }
        stream.out.complete = true;
        stream.out.writer = Some(cx.waker().clone());
        wake(&mut stream.out.task);
        Poll::Pending
    }

    /// Nobody has the stream in hand any more.
    pub(super) fn dropped(&mut self, id: u64, now: Moment) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.has_handle = false;
        stream.into.waiting.clear();
        stream.into.unread = true;
        let stops = stream.has_task && !stream.into.complete && !stream.reset;
        stream.into.stop_due = stops;
        if !stream.out.complete {
            self.give_up(id, now);
        }
        if stops {
            self.tell(id);
        }
        self.forget_if_over(id);
    }
}

/// What the task of a stream asks.
impl State {
    /// What is to be sent next.
    pub(super) fn poll_next(&mut self, id: u64, cx: &Context<'_>, now: Moment) -> Poll<Next> {
        let most = send_buffer(self.turns.len());
        let Some(stream) = self.streams.get_mut(&id) else { return Poll::Ready(Next::Abort) };
        let out = &mut stream.out;
        if out.granted > 0 {
            let bytes = out.waiting.split_to(out.granted.min(out.waiting.len()));
            let chunk = chunk::encode(&bytes, std::mem::take(&mut out.echo));
            out.granted = 0;
            if out.waiting.is_empty() {
                // An idle stream holds no memory.
                out.waiting = BytesMut::new();
            }
            if out.waiting.len() < most {
                wake(&mut out.writer);
            }
            self.queue(id, now);
            return Poll::Ready(Next::Chunk(chunk));
        }
        if out.is_given_up() || stream.reset {
            return Poll::Ready(Next::Abort);
        }
        if out.complete && out.waiting.is_empty() {
            return Poll::Ready(Next::End);
        }
        out.task = Some(cx.waker().clone());
        Poll::Pending
    }

    /// The end was given to the transport.
    pub(super) fn end_sent(&mut self, id: u64) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.out.ended = true;
            wake(&mut stream.out.writer);
        }
    }

    /// The frame that opens a stream has come. Its bytes count as those of streams do, and its sender hears of them at once.
    pub(super) fn opening_arrived(&mut self, bytes: usize, now: Moment) {
        self.bytes_arrived.came(bytes, now);
        self.echo();
    }

    /// Bytes of a stream have come; answers whether they were granted.
    pub(super) fn arrived(&mut self, id: u64, bytes: &[u8], now: Moment) -> bool {
        self.bytes_arrived.came(bytes.len(), now);
        self.tell_arrived();
        let Some(stream) = self.streams.get_mut(&id) else { return true };
        let into = &mut stream.into;
        let granted = into.window.arrived(bytes.len());
        if granted && !into.unread {
            into.waiting.push(bytes);
            wake(&mut into.reader);
        }
        granted
    }

    /// The sender wants to hear at once that its bytes have come.
    pub(super) fn echo(&mut self) {
        self.bytes_arrived.wanted();
        self.tell_arrived();
    }

    fn tell_arrived(&mut self) {
        if self.bytes_arrived.is_due() {
            wake(&mut self.teller);
        }
    }

    /// The other end has written everything.
    pub(super) fn completed(&mut self, id: u64) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.into.complete = true;
            wake(&mut stream.into.reader);
        }
    }

    /// The stream has broken off, unless the other end's half is complete.
    pub(super) fn broke_off(&mut self, id: u64, now: Moment) {
        if self.over.is_some() {
            // What has come may still be read, and then that the link is down.
            return;
        }
        let Some(stream) = self.streams.get_mut(&id).filter(|stream| !stream.into.complete) else { return };
        stream.reset = true;
        stream.into.waiting.clear();
        self.give_up(id, now);
    }

    /// The stream's task is over.
    pub(super) fn task_ended(&mut self, id: u64, now: Moment) {
        self.broke_off(id, now);
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.has_task = false;
            // Its other half may be complete and wait to be read.
            if !stream.out.ended {
                stream.out.stopped = true;
            }
            stream.wake();
        }
        self.forget_if_over(id);
    }

    /// What waits to be sent will not be.
    fn give_up(&mut self, id: u64, now: Moment) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let out = &mut stream.out;
        self.budget.withdraw(std::mem::take(&mut out.granted));
        out.opening = 0;
        out.waiting = BytesMut::new();
        out.stopped = !out.ended;
        stream.wake();
        self.next_turns(now);
    }
}

/// Whose turn it is.
impl State {
    /// A stream waits for its turn, if it has something to send.
    fn queue(&mut self, id: u64, now: Moment) {
        let turn = self.budget.turn();
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let out = &mut stream.out;
        if !out.queued && out.granted == 0 && !out.is_given_up() && out.wants(turn) > 0 {
            out.queued = true;
            self.turns.push_back(id);
        }
        self.next_turns(now);
    }

    /// Gives turns while there is room.
    fn next_turns(&mut self, now: Moment) {
        while let Some(id) = self.turns.front().copied() {
            let turn = self.budget.turn();
            let stream = self.streams.get_mut(&id);
            let wants = stream.as_ref().map_or(0, |stream| stream.out.wants(turn));
            if wants > 0 && !self.budget.has_room(wants) {
                return;
            }
            self.turns.pop_front();
            let Some(stream) = stream else { continue };
            let out = &mut stream.out;
            out.queued = false;
            if wants > 0 {
                (out.granted, out.active) = (wants, true);
                out.echo = self.budget.sent(wants, now);
                if out.opening == 0 {
                    out.allowed -= wants as u64;
                }
                wake(&mut out.task);
            }
        }
    }
}

/// What crosses the link's own stream.
impl State {
    fn tell(&mut self, id: u64) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if !std::mem::replace(&mut stream.told, false) {
            return;
        }
        self.to_tell.push_back(id);
        wake(&mut self.teller);
    }

    /// What the other end is to be told next.
    pub(super) fn poll_frame(&mut self, cx: &Context<'_>, now: Moment) -> Poll<Frame> {
        if let Some((total, Stamp(amount))) = self.bytes_arrived.take() {
            return Poll::Ready(Frame { amount, ..Frame::new(Kind::StreamArrived, total, Vec::new()) });
        }
        while let Some(id) = self.to_tell.front().copied() {
            if let Some(frame) =
                self.streams.get_mut(&id).and_then(|stream| stream.frame(id, &mut self.shared, now))
            {
                return Poll::Ready(frame);
            }
            self.to_tell.pop_front();
            if let Some(stream) = self.streams.get_mut(&id) {
                stream.told = true;
            }
        }
        self.teller = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Ready while a stream may send more than a new one may.
    pub(super) fn poll_wide(&mut self, cx: &Context<'_>) -> Poll<()> {
        if !self.wide.is_empty() {
            return Poll::Ready(());
        }
        self.sweeper = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Streams that have had nothing to send since the last time give back what they do not need: others may use it.
    pub(super) fn sweep(&mut self) {
        let mut silent = Vec::new();
        for id in &self.wide {
            if let Some(stream) = self.streams.get_mut(id) {
                let out = &mut stream.out;
                if !std::mem::take(&mut out.active) && out.waiting.is_empty() {
                    let back = out.allowed.saturating_sub(u64::from(OWN));
                    out.allowed -= back;
                    out.returning = out.returning.saturating_add(u32::try_from(back).unwrap_or(u32::MAX));
                    silent.push(*id);
                }
            }
        }
        for id in silent {
            self.wide.remove(&id);
            self.tell(id);
        }
    }

    /// Takes what the other end says of its streams; answers whether it was that.
    pub(super) fn take(&mut self, frame: &Frame, now: Moment) -> bool {
        match frame.kind {
            Kind::StreamArrived => {
                self.budget.arrived(frame.id, Stamp(frame.amount), now);
                self.next_turns(now);
            }
            Kind::StreamWindow => {
                if let Some(stream) = self.streams.get_mut(&frame.id) {
                    let allowed = stream.out.allowed.saturating_add(u64::from(frame.amount));
                    stream.out.allowed = allowed.min(u64::from(u32::MAX));
                    if stream.out.allowed > u64::from(OWN) {
                        self.wide.insert(frame.id);
                        wake(&mut self.sweeper);
                    }
                    self.queue(frame.id, now);
                }
            }
            Kind::StreamWindowReturn => {
                if let Some(stream) = self.streams.get_mut(&frame.id) {
                    stream.into.window.returned(frame.amount, &mut self.shared);
                }
            }
            Kind::StreamStop => {
                if self.streams.contains_key(&frame.id) {
                    self.give_up(frame.id, now);
                }
            }
            _ => return false,
        }
        true
    }
}
