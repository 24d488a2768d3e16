//! What clients have left to be said when they are gone, from CONNECT to its publication.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use beehive::Moment;
use edge_store::Row;

use super::{Broker, ClientId};
use crate::access::{Proof, Verdict};
use crate::packet::Will;
use crate::session::{ConnectionHandle, PendingWill};

impl Broker {
    /// A client that has come leaves a will, or none: what it left before is not to be published by the store any more.
    pub(crate) fn set_will(&mut self, client: &ClientId, handle: &ConnectionHandle, will: Option<Will>) {
        if self.unjudged.remove(client) {
            self.due_wills.retain(|(owner, _)| owner != client);
        }
        match will.map(Rc::new) {
            Some(will) => {
                let proof = Proof::of(&handle.connect_info);
                if !self.wills.put(client, Rc::clone(&will), proof) {
                    self.counts.will_not_kept(client, &will.publish.topic);
                }
                handle.will.replace(Some(will));
            }
            None => self.wills.remove(client),
        }
        self.to_store.notify_one();
    }

    /// How many wills the store has, or is to have.
    pub(crate) fn wills(&self) -> usize {
        self.wills.len()
    }

    /// A will is published, or never will be: the store forgets it, unless its client has left another one since.
    pub(crate) fn will_done(&mut self, client: &ClientId, will: &Rc<Will>) {
        self.wills.done(client, will);
        self.to_store.notify_one();
    }

    /// A will that is published when its delay has passed, or its session ends.
    pub(crate) fn delay_will(&mut self, client: &ClientId, will: Rc<Will>, due: Moment) {
        match self.sessions.get_mut(client) {
            Some(session) => session.will = Some(PendingWill { will, due }),
            None => self.due_wills.push((Rc::clone(client), will)),
        }
        self.timers.notify_one();
    }

    /// Takes up the will of a client that was connected, or away for less than its delay, when an earlier run ended. Its delay and its
    /// session begin anew, as nobody could come back before; where neither is left it is due at once.
    pub(super) fn restore_will(&mut self, client: &ClientId, row: &Row, now: Moment) {
        let Some(will) = self.wills.restore(client, row) else {
            tracing::warn!(?client, "row is no will of an MQTT client and is left out");
            return;
        };
        self.unjudged.insert(Rc::clone(client));
        let expiry = self.sessions.get(client).map(|session| session.expiry).unwrap_or_default();
        let wait = Duration::from_secs(will.delay.min(expiry).into());
        if wait.is_zero() {
            self.due_wills.push((Rc::clone(client), will));
            self.timers.notify_one();
        } else {
            self.delay_will(client, will, now + wait);
        }
    }

    /// Settings or files have been read: who could not connect now has no last word. A will of an earlier run waits until that is known.
    pub(crate) fn judge_wills(&mut self, verdict: impl Fn(&str, &Proof) -> Verdict) {
        let due = self.due_wills.iter().map(|(client, _)| client);
        let delayed = self.sessions.iter().filter(|(_, session)| session.will.is_some());
        let absent = due
            .chain(delayed.map(|(client, _)| client))
            .filter(|client| self.sessions.get(*client).is_none_or(|session| session.handle.is_none()));
        let waiting: BTreeSet<ClientId> = absent.map(Rc::clone).collect();
        for client in waiting {
            let Some((will, proof)) = self.wills.get(&client) else { continue };
            match verdict(&client, proof) {
                Verdict::Could => drop(self.unjudged.remove(&client)),
                Verdict::Unknown => {}
                Verdict::CouldNot(why) => {
                    self.counts.will_refused(&client, &will.publish.topic, why);
                    self.drop_will(&client);
                }
            }
        }
        self.timers.notify_one();
    }

    /// Whatever a client that is away has left is not said.
    pub(super) fn drop_will(&mut self, client: &ClientId) {
        self.unjudged.remove(client);
        self.wills.remove(client);
        if let Some(session) = self.sessions.get_mut(client) {
            session.will = None;
        }
        self.due_wills.retain(|(owner, _)| owner != client);
        self.to_store.notify_one();
    }

    /// The broker ends. No client is let in from now on. Returns the wills of those that are connected, in the order of their names; one
    /// with a delay is left to the next run, to which its client may come back in time.
    pub(crate) fn begin_end(&mut self) -> Vec<(ClientId, Rc<Will>)> {
        self.is_ending = true;
        let mut wills = Vec::new();
        for (client, session) in &self.sessions {
            let Some(handle) = session.handle.as_ref().filter(|handle| !handle.is_closing()) else {
                continue;
            };
            let will = handle.will.borrow_mut().take_if(|will| will.delay.min(session.expiry) == 0);
            wills.extend(will.map(|will| (Rc::clone(client), will)));
        }
        wills
    }

    /// Whether clients have been written all that may go to them now.
    pub(crate) fn is_written(&self) -> bool {
        let is_busy = |handle: &Rc<ConnectionHandle>| !handle.is_closing() && handle.writing.get();
        let mut sessions = self.sessions.values();
        self.pending.is_empty()
            && !sessions.any(|session| session.handle.as_ref().is_some_and(is_busy) || session.may_send())
    }
}
