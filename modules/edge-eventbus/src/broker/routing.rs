//! What the router is handed and gives back, and what becomes of the messages when it does not.

use super::Broker;
use crate::core::{self, CoreIn, Match};
use crate::error::CoreError;

impl Broker {
    /// The router has found a filter that takes a message.
    pub(crate) fn matched(&mut self, found: Match) {
        let Some(pending) = self.pending.get_mut(&found.message) else { return };
        let Some(place) = pending.missing.iter().position(|number| *number == found.filter) else { return };
        pending.missing.swap_remove(place);
        if pending.missing.is_empty() {
            self.window = self.window.saturating_sub(pending.weight());
            self.feed();
            self.hand_out();
        }
    }

    /// A router is there: it learns the filters.
    pub(crate) fn core_started(&mut self, core: CoreIn) {
        self.core = Some(core);
        for name in self.filters.names() {
            self.teach(&name);
        }
    }

    pub(crate) fn has_core(&self) -> bool {
        self.core.is_some()
    }

    /// Whether the router has learnt all that it may, and an empty one should come.
    pub(crate) fn core_is_full(&self) -> bool {
        self.core_is_full
    }

    /// An empty router comes for one that is full. Clients, sessions and retained messages are not the router's, so that
    /// it has only to learn the filters.
    pub(crate) fn core_replaced(&mut self, core: CoreIn) {
        self.counts.router_rebuilds += 1;
        self.core_left();
        self.core_started(core);
    }

    /// The oldest message of which the router owes an answer.
    pub(crate) fn owed(&self) -> Option<u64> {
        self.pending.first_key_value().filter(|(_, pending)| pending.handed_in).map(|(message, _)| *message)
    }

    /// The router is gone.
    pub(crate) fn core_died(&mut self) {
        if self.has_core() {
            self.counts.router_deaths += 1;
            self.core_left();
        }
    }

    #[cfg(test)]
    pub(crate) fn kill_core(&mut self) {
        if let Some(core) = &mut self.core {
            core.kill();
        }
    }

    /// Goes on without the router: what it has not given back is handed out, in order.
    pub(super) fn core_left(&mut self) {
        self.core = None;
        self.core_filters.clear();
        self.core_topics.clear();
        self.core_topic_bytes = 0;
        self.core_is_full = false;
        self.filters.unroute();
        self.backlog.clear();
        self.window = 0;
        self.pending.values_mut().for_each(|pending| pending.missing.clear());
        self.hand_out();
    }

    /// Makes a filter the router's, if it may have another one.
    pub(super) fn teach(&mut self, inside: &str) {
        let room = self.core_filters.len() < self.caps.filters || self.core_filters.contains(inside);
        if !room {
            // Only what nobody subscribes to any more is forgotten by starting anew.
            if self.filters.routed() <= self.caps.filters / 2 {
                self.fill_up();
            }
        }
        let (Some(core), Some(filter), true) = (&mut self.core, self.filters.get_mut(inside), room) else {
            return;
        };
        match core.add(inside, filter.number) {
            Ok(()) => {
                filter.routed = true;
                self.core_filters.insert(inside.to_owned());
            }
            Err(error) => self.core_failed(&error),
        }
    }

    /// Hands the router what its logs surely hold.
    pub(super) fn feed(&mut self) {
        while let Some(next) = self.backlog.front().copied() {
            // What nobody is named for any more needs no answer.
            if let Some(pending) = self.pending.get_mut(&next).filter(|pending| !pending.missing.is_empty()) {
                let weight = core::weight(&pending.message.inside);
                if self.window > 0 && self.window + weight > core::WINDOW_BYTES {
                    return;
                }
                let Some(core) = &mut self.core else { return };
                if let Err(error) = core.route(&pending.message.inside, next) {
                    self.core_failed(&error);
                    return;
                }
                pending.handed_in = true;
                self.window += weight;
            }
            self.backlog.pop_front();
        }
    }

    pub(super) fn topic_is_routed(&mut self, inside: &str) -> bool {
        if self.core.is_none() {
            return false;
        }
        if self.core_topics.contains(inside) {
            return true;
        }
        let room = self.core_topics.len() < self.caps.topics
            && self.core_topic_bytes + inside.len() <= self.caps.topic_bytes;
        if room {
            self.core_topic_bytes += inside.len();
            self.core_topics.insert(inside.to_owned());
        }
        if !room {
            self.fill_up();
        }
        room
    }

    pub(super) fn fill_up(&mut self) {
        if !self.core_is_full {
            self.core_is_full = true;
            self.full.notify_one();
        }
    }

    pub(super) fn core_failed(&mut self, error: &CoreError) {
        tracing::error!(%error, "router takes nothing more");
        self.core_died();
    }
}
