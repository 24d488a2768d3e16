//! The streams of one connection: what each holds, what may go next. No input or output; it wakes who waits.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::ops::Bound;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use thiserror::Error;
use tokio::io::ReadBuf;

use super::flow_control::{OUT_MAX, OWN, Stream};
use super::frame_allowance::FrameAllowance;
use super::mux_frame::{DATA_MAX, MuxFrame, MuxFrameError};
use crate::Moment;
use crate::link::byte_stream::BYTE_STREAMS_MAX;
use crate::link::bytes_arrived::BytesArrived;
use crate::link::congestion_window::CongestionWindow;
use crate::link::transport::Urgency;

/// 72: streams that the other end may have open at once beside bulk ones; the link itself allows 64 and refuses the others
/// one by one.
pub const STREAMS_MAX: usize = 72;
/// 8 more than the link itself allows and refuses one by one: bulk streams that the other end may have open at once.
const BULK_STREAMS_MAX: usize = BYTE_STREAMS_MAX + 8;
/// 4 MiB: what all streams that are not bulk may make this end hold together, as a connection of QUIC.
const CONNECTION_MAX: u32 = 4 << 20;
/// What streams take when more comes on them than their own window holds.
const SHARED: u32 = CONNECTION_MAX - STREAMS_MAX as u32 * OWN;
/// Two frames: a link so slow that these are too many is slower than anything that pays to be used.
const LEAST: u64 = 2 * DATA_MAX as u64;
/// What streams hold at the most, bulk ones with their own window each: as much as may be on its way.
const MOST: u64 = 4 << 20;
/// 16 KiB of one stream: what is taken of somebody who was not yet let in. A hello has a few hundred bytes.
const BEFORE_HELLO_MAX: u32 = 16 << 10;

/// Which end of the connection this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It dialled.
    Dialled,
    /// It accepted.
    Accepted,
}

/// How the other end broke the rules of the pipe.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("not as agreed: {0}")]
pub struct ProtocolError(String);

impl From<MuxFrameError> for ProtocolError {
    fn from(error: MuxFrameError) -> Self {
        ProtocolError(error.to_string())
    }
}

fn protocol_error(what: impl Into<String>) -> ProtocolError {
    ProtocolError(what.into())
}

enum Lifecycle {
    Up,
    /// This end closes; the other is not yet told.
    Closing,
    Over(io::ErrorKind, String),
}

pub(super) struct State {
    role: Role,
    next: u32,
    last_of_peer: u32,
    streams: BTreeMap<u32, Stream>,
    arrivals: VecDeque<u32>,
    arrival_waker: Option<Waker>,
    egress_waker: Option<Waker>,
    over_waker: Option<Waker>,
    /// What an end that was not yet let in may still send.
    stranger: Option<u32>,
    /// How many frames without bytes the other end may still send.
    allowance: FrameAllowance,
    /// Room that no stream has taken.
    shared: u32,
    /// Per urgency, the streams that have something to send, and the one that was served last.
    ready: [BTreeSet<u32>; 4],
    served: [u32; 4],
    /// Streams of which the other end is to be told that it may send more, or need not.
    due: BTreeSet<u32>,
    budget: CongestionWindow,
    bytes_arrived: BytesArrived,
    life: Lifecycle,
}

impl State {
    pub(super) fn new(role: Role) -> Self {
        State {
            role,
            next: if role == Role::Dialled { 1 } else { 2 },
            last_of_peer: 0,
            streams: BTreeMap::new(),
            arrivals: VecDeque::new(),
            arrival_waker: None,
            egress_waker: None,
            over_waker: None,
            // Who dialled has chosen whom it reached.
            stranger: (role == Role::Accepted).then_some(BEFORE_HELLO_MAX),
            allowance: FrameAllowance::new(role == Role::Accepted),
            shared: SHARED,
            ready: Default::default(),
            served: [0; 4],
            due: BTreeSet::new(),
            budget: CongestionWindow::new(LEAST, MOST),
            bytes_arrived: BytesArrived::default(),
            life: Lifecycle::Up,
        }
    }

    /// Why nothing goes any more, if so.
    fn over(&self) -> Option<io::Error> {
        match &self.life {
            Lifecycle::Up => None,
            Lifecycle::Closing => {
                Some(io::Error::new(io::ErrorKind::NotConnected, "this end closed the connection"))
            }
            Lifecycle::Over(kind, why) => Some(io::Error::new(*kind, why.clone())),
        }
    }

    /// The connection ends at once; the first reason stays.
    pub(super) fn end(&mut self, kind: io::ErrorKind, why: &str) {
        if matches!(self.life, Lifecycle::Over(..)) {
            return;
        }
        self.life = Lifecycle::Over(kind, why.to_owned());
        self.wake_all();
    }

    /// The connection ends as soon as the other end was told.
    pub(super) fn close(&mut self) {
        if matches!(self.life, Lifecycle::Up) {
            self.life = Lifecycle::Closing;
            self.wake_all();
        }
    }

    fn wake_all(&mut self) {
        self.streams.values_mut().for_each(Stream::wake);
        let wakers = [self.arrival_waker.take(), self.egress_waker.take(), self.over_waker.take()];
        wakers.into_iter().flatten().for_each(Waker::wake);
    }

    /// The other end was let in.
    pub(super) fn admitted(&mut self) {
        if self.stranger.take().is_some() {
            self.allowance.admitted();
        }
    }

    fn wake_egress(&mut self) {
        if let Some(waker) = self.egress_waker.take() {
            waker.wake();
        }
    }

    /// A stream has changed: notes what is to be sent of it, and drops it when nothing is left to do.
    fn changed(&mut self, id: u32) {
        let Some(stream) = self.streams.get(&id) else { return };
        let note =
            |set: &mut BTreeSet<u32>, is_in: bool| if is_in { set.insert(id) } else { set.remove(&id) };
        let mut wanted = false;
        if let Some(ready) = self.ready.get_mut(stream.urgency as usize) {
            wanted |= note(ready, stream.has_something());
        }
        wanted |= note(&mut self.due, stream.out.announced && stream.into.is_due(self.shared));
        if stream.is_over()
            && let Some(stream) = self.streams.remove(&id)
        {
            self.shared += stream.into.of_shared();
            self.due.remove(&id);
        }
        if wanted {
            self.wake_egress();
        }
    }
}

/// What the connection asks.
impl State {
    pub(super) fn open(&mut self, urgency: Urgency) -> io::Result<u32> {
        if let Some(error) = self.over() {
            return Err(error);
        }
        let id = self.next;
        self.next =
            id.checked_add(2).ok_or_else(|| io::Error::other("the connection has used up its streams"))?;
        self.streams.insert(id, Stream::new(urgency, false));
        self.changed(id);
        Ok(id)
    }

    pub(super) fn poll_arrival(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<u32>> {
        if let Some(id) = self.arrivals.pop_front() {
            return Poll::Ready(Ok(id));
        }
        if let Some(error) = self.over() {
            return Poll::Ready(Err(error));
        }
        self.arrival_waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// What the halves of a stream ask.
impl State {
    /// Takes as many of `bytes` as there is room for.
    pub(super) fn poll_write(
        &mut self,
        id: u32,
        bytes: &[u8],
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if let Some(error) = self.over() {
            return Poll::Ready(Err(error));
        }
        let Some(stream) = self.streams.get_mut(&id).filter(|stream| !stream.out.complete) else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        let out = &mut stream.out;
        let room = OUT_MAX.saturating_sub(out.waiting.len());
        if room == 0 {
            out.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let taken = bytes.get(..room).unwrap_or(bytes);
        out.waiting.extend_from_slice(taken);
        let taken = taken.len();
        self.changed(id);
        Poll::Ready(Ok(taken))
    }

    /// The writer has written everything, or is gone.
    pub(super) fn complete(&mut self, id: u32) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.out.complete = true;
            self.changed(id);
        }
    }

    /// As many bytes as `buffer` has room for; none at the end of the stream.
    pub(super) fn poll_read(
        &mut self,
        id: u32,
        buffer: &mut ReadBuf<'_>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let over = self.over();
        let Some(stream) = self.streams.get_mut(&id) else { return Poll::Ready(Ok(())) };
        let into = &mut stream.into;
        if !into.waiting.is_empty() {
            let taken = into.waiting.take(buffer.initialize_unfilled());
            buffer.advance(taken);
            into.read += u32::try_from(taken).unwrap_or(u32::MAX);
            self.changed(id);
            return Poll::Ready(Ok(()));
        }
        if into.complete {
            return Poll::Ready(Ok(()));
        }
        if let Some(error) = over {
            return Poll::Ready(Err(error));
        }
        into.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    /// The reader is gone.
    pub(super) fn unread(&mut self, id: u32) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.into.unread = true;
            stream.into.waiting.clear();
            self.changed(id);
        }
    }
}

/// What ingress and egress ask.
impl State {
    /// Takes what the other end sent.
    pub(super) fn take(&mut self, frame: MuxFrame, now: Moment) -> Result<(), ProtocolError> {
        if !matches!(self.life, Lifecycle::Up) {
            return Ok(());
        }
        if !matches!(frame, MuxFrame::Data { .. }) {
            self.without_bytes(now)?;
        }
        match frame {
            MuxFrame::Open { stream, urgency } => self.opened(stream, urgency)?,
            MuxFrame::Data { stream, bytes, echo } => self.data(stream, &bytes, echo, now)?,
            MuxFrame::Window { stream, more } => self.window(stream, more)?,
            MuxFrame::End { stream } => {
                let Some(ended) = self.streams.get_mut(&stream).filter(|stream| !stream.into.complete) else {
                    return Err(protocol_error(format!("the end of stream {stream}, which is not open")));
                };
                ended.into.complete = true;
                if let Some(waker) = ended.into.waker.take() {
                    waker.wake();
                }
                self.changed(stream);
            }
            MuxFrame::Stop { stream } => {
                // It may have ended on its way: that is no protocol error.
                if let Some(stopped) = self.streams.get_mut(&stream) {
                    stopped.out.unwanted = true;
                    stopped.out.complete = true;
                    stopped.out.waiting.clear();
                    if let Some(waker) = stopped.out.waker.take() {
                        waker.wake();
                    }
                    self.changed(stream);
                }
            }
            MuxFrame::Echo { arrived, at } => {
                self.budget.echoed(arrived, at, now);
                self.wake_egress();
            }
            MuxFrame::Close => self.end(io::ErrorKind::ConnectionAborted, "the other end closed it"),
        }
        Ok(())
    }

    /// A frame without bytes of a stream came, or a message of the pipe that is none.
    pub(super) fn without_bytes(&mut self, now: Moment) -> Result<(), ProtocolError> {
        let may_come = self.allowance.take(now);
        may_come.then_some(()).ok_or_else(|| protocol_error("more frames without bytes than it may send"))
    }

    fn opened(&mut self, id: u32, urgency: Urgency) -> Result<(), ProtocolError> {
        let theirs = if self.role == Role::Dialled { 0 } else { 1 };
        if id % 2 != theirs || id <= self.last_of_peer {
            return Err(protocol_error(format!("stream {id} opened, which is not the next")));
        }
        if self.stranger.is_some() && self.last_of_peer > 0 {
            return Err(protocol_error("a second stream before its hello was answered"));
        }
        let (bulk, most) = match urgency {
            Urgency::Bulk => (true, BULK_STREAMS_MAX),
            Urgency::Link | Urgency::Control | Urgency::Work => (false, STREAMS_MAX),
        };
        let alike =
            |(id, stream): &(&u32, &Stream)| *id % 2 == theirs && (stream.urgency == Urgency::Bulk) == bulk;
        if self.streams.iter().filter(alike).count() >= most {
            return Err(protocol_error(format!("more than {most} streams")));
        }
        self.last_of_peer = id;
        self.streams.insert(id, Stream::new(urgency, true));
        self.arrivals.push_back(id);
        if let Some(waker) = self.arrival_waker.take() {
            waker.wake();
        }
        Ok(())
    }

    fn data(&mut self, id: u32, bytes: &Bytes, echo: bool, now: Moment) -> Result<(), ProtocolError> {
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let Some(stream) = self.streams.get_mut(&id).filter(|stream| !stream.into.complete) else {
            return Err(protocol_error(format!("bytes on stream {id}, which is not open")));
        };
        if let Some(left) = &mut self.stranger {
            let within = left.checked_sub(len);
            *left = within.ok_or_else(|| protocol_error("more than a hello before it was answered"))?;
        }
        let into = &mut stream.into;
        into.granted = into
            .granted
            .checked_sub(len)
            .ok_or_else(|| protocol_error(format!("more bytes on stream {id} than its window allows")))?;
        if !into.unread {
            into.waiting.push(bytes);
            if let Some(waker) = into.waker.take() {
                waker.wake();
            }
        }
        self.bytes_arrived.came(bytes.len(), now);
        self.allowance.earn(bytes.len());
        if echo {
            self.bytes_arrived.wanted();
        }
        if self.bytes_arrived.is_due() {
            self.wake_egress();
        }
        self.changed(id);
        Ok(())
    }

    fn window(&mut self, id: u32, more: u32) -> Result<(), ProtocolError> {
        // It may have ended on its way: that is no protocol error.
        let Some(stream) = self.streams.get_mut(&id) else { return Ok(()) };
        let allowed = stream.out.allowed + u64::from(more);
        if allowed > u64::from(u32::MAX) {
            return Err(protocol_error(format!("a window of {allowed} bytes for stream {id}")));
        }
        stream.out.allowed = allowed;
        self.changed(id);
        Ok(())
    }

    /// Ready once the connection is over, or about to be.
    pub(super) fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !matches!(self.life, Lifecycle::Up) {
            return Poll::Ready(());
        }
        self.over_waker = Some(cx.waker().clone());
        Poll::Pending
    }

    /// The next frame for the pipe; `None` once the connection is over and nothing is left to say.
    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>, now: Moment) -> Poll<Option<MuxFrame>> {
        match self.life {
            Lifecycle::Over(..) => return Poll::Ready(None),
            Lifecycle::Closing => {
                self.end(io::ErrorKind::NotConnected, "this end closed the connection");
                return Poll::Ready(Some(MuxFrame::Close));
            }
            Lifecycle::Up => {}
        }
        match self.next_frame(now) {
            Some(frame) => Poll::Ready(Some(frame)),
            None => {
                self.egress_waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    fn next_frame(&mut self, now: Moment) -> Option<MuxFrame> {
        if let Some((arrived, at)) = self.bytes_arrived.take() {
            return Some(MuxFrame::Echo { arrived, at });
        }
        if let Some(frame) = self.next_grant() {
            return Some(frame);
        }
        for urgency in [Urgency::Link, Urgency::Control, Urgency::Work, Urgency::Bulk] {
            if !self.has_room(urgency) {
                return None;
            }
            if let Some(id) = self.next_turn(urgency) {
                return self.serve(id, now);
            }
        }
        None
    }

    /// Whether a further frame of this urgency may go. Pings always may; they are small, and the link lives by them.
    fn has_room(&mut self, urgency: Urgency) -> bool {
        let limit = match urgency {
            Urgency::Link => return true,
            Urgency::Control => 2 * self.budget.limit(),
            Urgency::Work | Urgency::Bulk => self.budget.limit(),
        };
        let has_room = self.budget.in_flight() < limit;
        if !has_room {
            self.budget.holds_back();
        }
        has_room
    }

    /// A stream whose reader has made room, or is gone.
    fn next_grant(&mut self) -> Option<MuxFrame> {
        while let Some(id) = self.due.pop_first() {
            let Some(stream) = self.streams.get_mut(&id) else { continue };
            let into = &mut stream.into;
            if into.unread {
                if !std::mem::replace(&mut into.stop_sent, true) {
                    return Some(MuxFrame::Stop { stream: id });
                }
                continue;
            }
            let more = into.grant(&mut self.shared);
            if more > 0 {
                return Some(MuxFrame::Window { stream: id, more });
            }
        }
        None
    }

    /// The stream of this urgency whose turn it is.
    fn next_turn(&mut self, urgency: Urgency) -> Option<u32> {
        let (ready, served) = (self.ready.get_mut(urgency as usize)?, self.served.get_mut(urgency as usize)?);
        let later = (Bound::Excluded(*served), Bound::Unbounded);
        let next = ready.range(later).next().or_else(|| ready.first()).copied()?;
        *served = next;
        Some(next)
    }

    /// A frame of a stream that has something to send.
    fn serve(&mut self, id: u32, now: Moment) -> Option<MuxFrame> {
        let stream = self.streams.get_mut(&id)?;
        if !stream.out.announced {
            stream.out.announced = true;
            let open = MuxFrame::Open { stream: id, urgency: stream.urgency };
            self.changed(id);
            return Some(open);
        }
        if stream.may_end() {
            stream.out.ended = true;
            self.changed(id);
            return Some(MuxFrame::End { stream: id });
        }
        let out = &mut stream.out;
        let allowed = usize::try_from(out.allowed).unwrap_or(usize::MAX);
        let len = out.waiting.len().min(DATA_MAX).min(allowed);
        let bytes = out.waiting.split_to(len).freeze();
        out.allowed -= len as u64;
        if let Some(waker) = out.waker.take() {
            waker.wake();
        }
        self.changed(id);
        let echo = self.budget.sent(len, now);
        self.allowance.earn(len);
        Some(MuxFrame::Data { stream: id, bytes, echo })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_number_that_a_stream_can_have_has_its_turn() {
        let mut state = State::new(Role::Accepted);
        let now = Moment::default();
        let cx = &mut Context::from_waker(Waker::noop());
        state.take(MuxFrame::Open { stream: u32::MAX, urgency: Urgency::Link }, now).unwrap();
        for bytes in [b"a", b"b"] {
            assert!(matches!(state.poll_write(u32::MAX, bytes, cx), Poll::Ready(Ok(1))));
            let frame = state.poll_frame(cx, now);
            assert!(matches!(frame, Poll::Ready(Some(MuxFrame::Data { stream: u32::MAX, .. }))), "{frame:?}");
        }
    }
}
