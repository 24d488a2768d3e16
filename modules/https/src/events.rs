//! What a server tells its owner: each event once, and counts of all.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

/// Something that an owner may want to count under a name of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A connection was closed because its address held all that it may.
    Refused,
    /// A connection was closed for a newer one.
    Displaced,
    /// A TLS handshake failed or took too long.
    HandshakeFailed,
    /// A handler took longer than [`Limits::answer_within`](crate::Limits::answer_within).
    AnswerLate,
    /// A connection's task panicked, most often in its handler. The connection has ended, nothing else.
    Panicked,
    /// The system had no socket for us.
    AcceptFailed,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    accepted: AtomicU64,
    requests: AtomicU64,
    refused: AtomicU64,
    displaced: AtomicU64,
    handshakes_failed: AtomicU64,
    answers_late: AtomicU64,
    panics: AtomicU64,
}

impl Counters {
    pub(crate) fn accepted(&self) {
        self.accepted.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts, and answers the count.
    pub(crate) fn event(&self, event: Event) -> u64 {
        let counter = match event {
            Event::Refused => &self.refused,
            Event::Displaced => &self.displaced,
            Event::HandshakeFailed => &self.handshakes_failed,
            Event::AnswerLate => &self.answers_late,
            Event::Panicked => &self.panics,
            Event::AcceptFailed => return 0,
        };
        counter.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(crate) fn counts(&self, open: usize, identified: usize) -> Counts {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            open,
            identified,
            accepted: of(&self.accepted),
            requests: of(&self.requests),
            refused: of(&self.refused),
            displaced: of(&self.displaced),
            handshakes_failed: of(&self.handshakes_failed),
            answers_late: of(&self.answers_late),
            panics: of(&self.panics),
        }
    }
}

/// A server since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// Connections that are open.
    pub open: usize,
    /// Those of them whose sender has shown a credential.
    pub identified: usize,
    /// Connections that were taken.
    pub accepted: u64,
    /// Requests.
    pub requests: u64,
    /// See [`Event::Refused`].
    pub refused: u64,
    /// See [`Event::Displaced`].
    pub displaced: u64,
    /// See [`Event::HandshakeFailed`].
    pub handshakes_failed: u64,
    /// See [`Event::AnswerLate`].
    pub answers_late: u64,
    /// See [`Event::Panicked`].
    pub panics: u64,
}
