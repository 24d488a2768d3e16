//! What listens for the frames that properties come in.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use framework::{Fault, Subscription, Value};
use tokio::time::{Instant, timeout_at};

use crate::bus::Bus;
use crate::frame::{CanId, Frame};
use crate::signal::Signal;

/// 20 ms: what comes faster than that is told with the newest value.
const TOLD_EVERY: Duration = Duration::from_millis(20);

/// The newest frame of each id, and when it came.
#[derive(Debug, Clone, Default)]
pub(crate) struct Newest(Arc<Mutex<BTreeMap<CanId, (Frame, Instant)>>>);

impl Newest {
    pub(crate) fn of(&self, id: CanId) -> Option<(Frame, Instant)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    fn put(&self, frame: Frame) {
        let mut frames = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        frames.insert(frame.id, (frame, Instant::now()));
    }
}

/// A property that comes in a frame.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Listener {
    /// Its place in the subscription.
    pub(crate) place: usize,
    pub(crate) id: CanId,
    pub(crate) signal: Signal,
}

/// Listens, and tells.
pub(crate) struct Monitor {
    pub(crate) bus: Bus,
    pub(crate) listeners: Vec<Listener>,
    pub(crate) newest: Newest,
    pub(crate) values: Subscription,
    /// A frame that has not come for so long is missed.
    pub(crate) within: Duration,
    /// With all frames missed the device is gone.
    pub(crate) is_all: bool,
}

impl Monitor {
    /// Until the bus is of no use any more, or the device is gone.
    pub(crate) async fn run(mut self) {
        let reason = self.listen().await;
        // The session ends with any of them.
        self.values
            .push(self.listeners.first().map_or(0, |listener| listener.place), Err(Fault::Link(reason)));
    }

    async fn listen(&mut self) -> String {
        let began = Instant::now();
        let mut missed: BTreeMap<CanId, (Instant, bool)> =
            self.listeners.iter().map(|listener| (listener.id, (began, false))).collect();
        let mut news: BTreeMap<usize, Result<Value, Fault>> = BTreeMap::new();
        let mut tell_at = began;
        loop {
            let due = missed.values().filter(|(_, is_told)| !is_told).map(|(at, _)| *at + self.within).min();
            let due = due.unwrap_or(began + self.within).max(Instant::now());
            let until = if news.is_empty() { due + TOLD_EVERY } else { tell_at.min(due + TOLD_EVERY) };
            match timeout_at(until, self.bus.receive()).await {
                Ok(Ok(frame)) => {
                    missed.insert(frame.id, (Instant::now(), false));
                    for listener in self.listeners.iter().filter(|listener| listener.id == frame.id) {
                        news.insert(listener.place, listener.signal.decode(frame.bytes()));
                    }
                    self.newest.put(frame);
                }
                Ok(Err(reason)) => return reason,
                Err(_) => {}
            }
            let now = Instant::now();
            if now >= tell_at {
                for (place, outcome) in std::mem::take(&mut news) {
                    self.values.push(place, outcome);
                }
                tell_at = now + TOLD_EVERY;
            }
            let within = self.within;
            // Without a word on each: that there is none would say that the device is there.
            if self.is_all && missed.values().all(|(at, _)| now >= *at + within) {
                return format!("no frame of it has come within {} ms", within.as_millis());
            }
            for (id, (at, is_told)) in &mut missed {
                if !*is_told && now >= *at + within {
                    *is_told = true;
                    for listener in self.listeners.iter().filter(|listener| listener.id == *id) {
                        let reason = format!("no frame {id} has come within {} ms", within.as_millis());
                        self.values.push(listener.place, Err(Fault::NoValue(reason)));
                    }
                }
            }
        }
    }
}
