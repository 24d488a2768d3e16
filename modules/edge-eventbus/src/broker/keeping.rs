//! What outlives the daemon, and what ends by time.

use std::collections::BTreeMap;
use std::rc::Rc;

use beehive::Moment;
use edge_store::{Row, Table, Write};

use super::{Broker, ClientId};
use crate::access::{AuthMethod, Verdict};
use crate::message::Clocks;
use crate::packet::Will;
use crate::session::{ConnectionHandle, Restored, RowKey, Session};
use crate::wills;

/// What the store has to take, and what to do if it does not.
pub(crate) struct Batch {
    pub(crate) writes: Vec<Write>,
    /// Up to which change the store is then.
    pub(crate) change: u64,
    topics: Vec<String>,
    forgotten: Vec<ClientId>,
    rows: Vec<(ClientId, Vec<RowKey>)>,
    wills: Vec<ClientId>,
}

impl Broker {
    /// Takes up the sessions and the wills that the store has.
    pub(crate) fn restore(&mut self, rows: Vec<Row>, clocks: Clocks) {
        let (wills, rows): (Vec<Row>, Vec<Row>) = rows.into_iter().partition(wills::is_will);
        let mut by_client: BTreeMap<String, Vec<Row>> = BTreeMap::new();
        for row in rows {
            by_client.entry(row.key1.clone()).or_default().push(row);
        }
        for (client, rows) in by_client {
            let id: ClientId = client.as_str().into();
            let restored = Restored::read(&rows, self.acl.rights(&client), clocks);
            let full = self.sessions.len() >= self.room;
            let Some(Restored { session, strange }) = restored.filter(|_| !full) else {
                tracing::warn!(?client, full, "rows are no MQTT session that can be kept and are left out");
                self.forgotten.insert(id);
                continue;
            };
            if strange > 0 {
                tracing::warn!(?client, strange, "rows of an MQTT session are not understood and left out");
            }
            self.departures += 1;
            let mut session = session.with_queue(self.queue);
            (session.left, session.left_at) = (self.departures, clocks.now);
            session.count_in(&self.held);
            self.sessions.insert(Rc::clone(&id), session);
            self.join_restored(&id);
        }
        for will in wills {
            self.restore_will(&will.key1.as_str().into(), &will, clocks.now);
        }
    }

    /// Settings or files have been read: who could not connect now leaves no session behind, nor the will that waits for its end, also where
    /// he has not come since the start.
    pub(crate) fn judge_sessions(&mut self, verdict: impl Fn(&str, &AuthMethod) -> Verdict) {
        let judged = |(client, session): (&ClientId, &Session)| {
            let verdict = session.handle.is_none().then(|| verdict(client, &session.auth_method))?;
            if let Verdict::CouldNot(why) = verdict { Some((Rc::clone(client), why)) } else { None }
        };
        let gone: Vec<(ClientId, &str)> = self.sessions.iter().filter_map(judged).collect();
        for (client, why) in gone {
            self.counts.session_refused(&client, why);
            self.drop_will(&client);
            self.forget(&client);
        }
    }

    /// Whether there is something for the store, and whether somebody waits for that.
    pub(crate) fn to_store(&self) -> (bool, bool) {
        let now = self.retained.is_dirty() || !self.forgotten.is_empty();
        let wills = self.wills.to_store();
        let mut sessions = self.sessions.values().map(Session::to_store);
        sessions
            .try_fold((now || wills.0, now || wills.1), |(any, urgent), (one, waits)| {
                let both = (any || one, urgent || waits);
                if both.1 { Err(both) } else { Ok(both) }
            })
            .unwrap_or_else(|both| both)
    }

    /// The number of the last change that somebody may wait for.
    pub(crate) fn change(&self) -> u64 {
        self.change
    }

    pub(crate) fn take_batch(&mut self, clocks: Clocks) -> Batch {
        let (mut writes, topics) = self.retained.take_writes(clocks);
        // First, so that a session that took the name of one that ended keeps its rows.
        let forgotten: Vec<ClientId> = std::mem::take(&mut self.forgotten).into_iter().collect();
        let delete =
            |client: &ClientId| Write::DeleteRows { table: Table::MqttSessions, key1: client.to_string() };
        writes.extend(forgotten.iter().map(delete));
        let mut rows = Vec::new();
        for (client, session) in &mut self.sessions {
            let keys = session.take_writes(client, clocks, &mut writes);
            if !keys.is_empty() {
                rows.push((Rc::clone(client), keys));
            }
        }
        let wills = self.wills.take_writes(&forgotten, &mut writes);
        Batch { writes, change: self.change, topics, forgotten, rows, wills }
    }

    /// The store took the last batch.
    pub(crate) fn taken(&mut self) {
        self.sessions.values_mut().for_each(Session::written);
    }

    /// The store did not take it.
    pub(crate) fn not_taken(&mut self, batch: Batch) {
        self.retained.not_written(batch.topics);
        self.forgotten.extend(batch.forgotten);
        self.wills.not_written(batch.wills);
        for (client, keys) in batch.rows {
            if let Some(session) = self.sessions.get_mut(&client) {
                session.not_written(keys);
            }
        }
    }

    /// The number of what the session of a connection has to have in the store now, `None` if it does not outlive it.
    pub(crate) fn note_row(
        &mut self,
        client: &ClientId,
        handle: &Rc<ConnectionHandle>,
        key: RowKey,
    ) -> Option<u64> {
        let session = self.session_of(client, handle)?;
        if !session.is_persistent() {
            return None;
        }
        session.soil(key);
        self.change += 1;
        self.to_store.notify_one();
        Some(self.change)
    }

    /// The same for what the session itself has noted already.
    pub(crate) fn change_of(&mut self, client: &ClientId, handle: &Rc<ConnectionHandle>) -> Option<u64> {
        let (_, waits) = self.session_of(client, handle)?.to_store();
        if !waits {
            return None;
        }
        self.change += 1;
        self.to_store.notify_one();
        Some(self.change)
    }

    /// Ends what is over by now. Returns the wills that are due, and when to look again.
    pub(crate) fn sweep(&mut self, now: Moment) -> (Vec<(ClientId, Rc<Will>)>, Option<Moment>) {
        let over = self.sessions.iter().filter(|(_, session)| session.ends().is_some_and(|at| at <= now));
        let over: Vec<ClientId> = over.map(|(client, _)| Rc::clone(client)).collect();
        for client in over {
            self.counts.session_expired(&client);
            self.forget(&client);
        }
        let unjudged = &self.unjudged;
        let (held, mut wills): (Vec<_>, Vec<_>) = std::mem::take(&mut self.due_wills)
            .into_iter()
            .partition(|(client, _)| unjudged.contains(client));
        self.due_wills = held;
        for (client, session) in &mut self.sessions {
            if let Some(will) = session.will.take_if(|will| will.due <= now && !unjudged.contains(client)) {
                wills.push((Rc::clone(client), will.will));
            }
        }
        let ends = self.sessions.values().filter_map(Session::ends);
        let judged = self.sessions.iter().filter(|(client, _)| !unjudged.contains(*client));
        let dues = judged.filter_map(|(_, session)| session.will.as_ref().map(|will| will.due));
        (wills, ends.chain(dues).min())
    }
}
