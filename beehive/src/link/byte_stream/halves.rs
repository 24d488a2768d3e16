//! What one byte stream holds, in each direction. Pure but for the wakers of those who wait.

use std::io;
use std::task::Waker;

use bytes::BytesMut;

use super::receive_window::{OWN, ReceiveWindow, SharedWindow};
use crate::Moment;
use crate::link::backlog::Backlog;
use crate::link::frame::{Frame, Kind};

/// One stream, both directions.
pub(super) struct Stream {
    /// Whether anybody still has the stream in hand.
    pub(super) has_handle: bool,
    /// Whether its task still moves bytes.
    pub(super) has_task: bool,
    /// The other end has broken it off.
    pub(super) reset: bool,
    /// Whether the other end is to be told something of it.
    pub(super) told: bool,
    pub(super) out: SendHalf,
    pub(super) into: ReceiveHalf,
}

#[derive(Default)]
pub(super) struct SendHalf {
    /// The size of the frame that opens the stream, until its turn has come.
    pub(super) opening: usize,
    pub(super) waiting: BytesMut,
    /// Bytes that the other end still takes.
    pub(super) allowed: u64,
    /// Bytes whose turn has come and that the task has not taken, and whether to ask for their echo.
    pub(super) granted: usize,
    pub(super) echo: bool,
    /// Whether a turn has come since the last look for streams that are silent.
    pub(super) active: bool,
    /// Bytes that may be sent, are not needed now, and are given back.
    pub(super) returning: u32,
    /// Whether it waits for its turn.
    pub(super) queued: bool,
    /// The writer has written everything.
    pub(super) complete: bool,
    /// The task has said so.
    pub(super) ended: bool,
    /// The other end reads no more.
    pub(super) stopped: bool,
    pub(super) writer: Option<Waker>,
    pub(super) task: Option<Waker>,
}

pub(super) struct ReceiveHalf {
    pub(super) waiting: Backlog,
    pub(super) window: ReceiveWindow,
    pub(super) complete: bool,
    /// The reader is gone: what still comes is dropped.
    pub(super) unread: bool,
    pub(super) stop_due: bool,
    pub(super) reader: Option<Waker>,
}

pub(super) fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

impl Stream {
    pub(super) fn new(opening: usize) -> Self {
        Stream {
            has_handle: false,
            has_task: true,
            reset: false,
            told: true,
            out: SendHalf { opening, allowed: u64::from(OWN), ..SendHalf::default() },
            into: ReceiveHalf {
                waiting: Backlog::default(),
                window: ReceiveWindow::new(),
                complete: false,
                unread: false,
                stop_due: false,
                reader: None,
            },
        }
    }

    pub(super) fn wake(&mut self) {
        for waker in [&mut self.out.writer, &mut self.out.task, &mut self.into.reader] {
            wake(waker);
        }
    }

    /// What the other end is to be told of it next.
    pub(super) fn frame(&mut self, id: u64, shared: &mut SharedWindow, now: Moment) -> Option<Frame> {
        if !self.has_task {
            return None;
        }
        let frame = |kind, amount| Some(Frame { amount, ..Frame::new(kind, id, Vec::new()) });
        if std::mem::take(&mut self.into.stop_due) {
            return frame(Kind::StreamStop, 0);
        }
        match std::mem::take(&mut self.out.returning) {
            0 => {}
            back => return frame(Kind::StreamWindowReturn, back),
        }
        if self.into.unread || self.into.complete {
            return None;
        }
        match self.into.window.grant(shared, now) {
            0 => None,
            more => frame(Kind::StreamWindow, more),
        }
    }

    /// Why nothing more can be written, if so.
    pub(super) fn write_error(&self) -> Option<io::Error> {
        if self.reset {
            return Some(reset());
        }
        let stopped =
            || io::Error::new(io::ErrorKind::BrokenPipe, "the other end reads no more of the stream");
        self.out.stopped.then(stopped)
    }
}

impl SendHalf {
    /// Whether nothing more of it will be sent.
    pub(super) fn is_given_up(&self) -> bool {
        self.stopped || self.ended
    }

    /// What wants to go in the next turn.
    pub(super) fn wants(&self, turn: usize) -> usize {
        let allowed = usize::try_from(self.allowed).unwrap_or(usize::MAX);
        if self.opening > 0 { self.opening } else { self.waiting.len().min(turn).min(allowed) }
    }
}

pub(super) fn reset() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, "the other end broke the stream off")
}
