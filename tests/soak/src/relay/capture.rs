//! Packets that crossed, one by one.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::Direction;
use crate::Console;

/// 1,000,000 packets are written down, not more.
const PACKETS: usize = 1_000_000;
/// 28 bytes: the headers of IPv4 and of UDP.
const HEADERS: usize = 28;

/// A packet that was passed on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Packet {
    pub(crate) at: Instant,
    pub(crate) direction: Direction,
    pub(crate) payload: usize,
}

impl Packet {
    /// Its size as a packet of IP.
    pub(crate) fn bytes(&self) -> usize {
        self.payload + HEADERS
    }

    /// Each with its time since `begun`.
    pub(crate) fn tell(packets: &[Packet], begun: Instant, console: &Console) {
        for packet in packets {
            let at = packet.at.saturating_duration_since(begun).as_secs_f64();
            console.line(&format!("  {at:8.3} s  {:?}  {} B", packet.direction, packet.bytes()));
        }
    }
}

/// Written down while somebody asks for it.
#[derive(Default)]
pub(super) struct Capture(Mutex<Option<Vec<Packet>>>);

impl Capture {
    fn open(&self) -> MutexGuard<'_, Option<Vec<Packet>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn begin(&self) {
        *self.open() = Some(Vec::new());
    }

    pub(super) fn add(&self, direction: Direction, payload: usize) {
        if let Some(packets) = self.open().as_mut().filter(|packets| packets.len() < PACKETS) {
            packets.push(Packet { at: Instant::now(), direction, payload });
        }
    }

    pub(super) fn shown(&self) -> Vec<Packet> {
        self.open().clone().unwrap_or_default()
    }
}
