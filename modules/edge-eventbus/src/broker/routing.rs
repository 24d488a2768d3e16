//! What the router is handed and gives back, and what becomes of the messages when it does not.

use super::Broker;
use crate::error::RouterError;
use crate::rumqttd_router::{self, Match, RouterTx};

impl Broker {
    /// The router has found a filter that takes a message.
    pub(crate) fn matched(&mut self, found: Match) {
        let Some(pending) = self.pending.get_mut(&found.message) else { return };
        let Some(place) = pending.missing.iter().position(|number| *number == found.filter) else { return };
        pending.missing.swap_remove(place);
        if pending.missing.is_empty() {
            self.window = self.window.saturating_sub(pending.weight());
            if let Some(said) = self.router_topics.get_mut(&pending.message.router_form) {
                *said = pending.generation;
            }
            self.feed();
            self.hand_out();
        }
    }

    /// A router is there: it learns the filters.
    pub(crate) fn router_started(&mut self, router: RouterTx) {
        self.router = Some(router);
        self.generation += 1;
        for name in self.filters.names() {
            self.teach(&name);
        }
    }

    pub(crate) fn has_router(&self) -> bool {
        self.router.is_some()
    }

    /// Whether the router has learnt all that it may, and an empty one should come.
    pub(crate) fn router_is_full(&self) -> bool {
        self.router_is_full
    }

    /// An empty router comes for one that is full. Clients, sessions and retained messages are not the router's, so that
    /// it has only to learn the filters.
    pub(crate) fn router_replaced(&mut self, router: RouterTx) {
        self.counts.router_replaced();
        self.router_left();
        self.router_started(router);
    }

    /// The oldest message of which the router owes an answer.
    pub(crate) fn owed(&self) -> Option<u64> {
        self.pending.first_key_value().filter(|(_, pending)| pending.handed_in).map(|(message, _)| *message)
    }

    /// The router is gone.
    pub(crate) fn router_died(&mut self, error: &RouterError) {
        if self.has_router() {
            self.counts.router_died(error);
            self.router_left();
        }
    }

    #[cfg(test)]
    pub(crate) fn kill_router(&mut self) {
        if let Some(router) = &mut self.router {
            router.kill();
        }
    }

    /// Goes on without the router: what it has not given back is handed out, in order.
    pub(super) fn router_left(&mut self) {
        self.router = None;
        self.router_filters.clear();
        self.router_topics.clear();
        self.router_topic_bytes = 0;
        self.router_is_full = false;
        self.filters.unroute();
        self.backlog.clear();
        self.window = 0;
        self.pending.values_mut().for_each(|pending| pending.missing.clear());
        self.hand_out();
    }

    /// Makes a filter the router's, if it may have another one.
    pub(super) fn teach(&mut self, router_form: &str) {
        let room = self.router_filters.len() < self.caps.filters || self.router_filters.contains(router_form);
        if !room {
            // Only what nobody subscribes to any more is forgotten by starting anew.
            if self.filters.routed() <= self.caps.filters / 2 {
                self.fill_up();
            }
        }
        let (Some(router), Some(filter), true) = (&mut self.router, self.filters.get_mut(router_form), room)
        else {
            return;
        };
        match router.add(router_form, filter.number) {
            Ok(()) => {
                filter.routed = true;
                self.router_filters.insert(router_form.to_owned());
            }
            Err(error) => self.router_failed(&error),
        }
    }

    /// Hands the router what its logs surely hold.
    pub(super) fn feed(&mut self) {
        while let Some(next) = self.backlog.front().copied() {
            // What nobody is named for any more needs no answer.
            if let Some(pending) = self.pending.get_mut(&next).filter(|pending| !pending.missing.is_empty()) {
                let weight = rumqttd_router::weight(&pending.message.router_form);
                if self.window > 0 && self.window + weight > rumqttd_router::WINDOW_BYTES {
                    return;
                }
                let Some(router) = &mut self.router else { return };
                if let Err(error) = router.route(&pending.message.router_form, next) {
                    self.router_failed(&error);
                    return;
                }
                pending.handed_in = true;
                self.window += weight;
            }
            self.backlog.pop_front();
        }
    }

    /// Whether the router is to say which filters take a topic: there is one, it may learn the topic, and it has not said it of the
    /// filters that there are.
    pub(super) fn has_to_ask(&mut self, router_form: &str) -> bool {
        if self.router.is_none() {
            return false;
        }
        if let Some(said) = self.router_topics.get(router_form) {
            return *said != self.generation;
        }
        let room = self.router_topics.len() < self.caps.topics
            && self.router_topic_bytes + router_form.len() <= self.caps.topic_bytes;
        if room {
            self.router_topic_bytes += router_form.len();
            self.router_topics.insert(router_form.to_owned(), 0);
        }
        if !room {
            self.fill_up();
        }
        room
    }

    pub(super) fn fill_up(&mut self) {
        if !self.router_is_full {
            self.router_is_full = true;
            self.full.notify_one();
        }
    }

    pub(super) fn router_failed(&mut self, error: &RouterError) {
        self.router_died(error);
    }
}
