//! What clients may do, and who of them has to go.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use beehive::Moment;

use super::{Broker, ClientId};
use crate::access::{Acl, AuthMethod, PasswordHash};
use crate::connection_limits::{self, Admission, ClientConnection, ConnectionLimits};
use crate::events::Counters;
use crate::peer::PeerOrigin;
use crate::quotas::{self, Quotas, SessionEntry, SessionRoom};
use crate::rate_limit::RateLimiter;
use crate::session::{CloseReason, ConnectInfo};
use crate::{identity, plan, topic};

impl Broker {
    /// SessionRoom for so many clients, and for as many sessions of absent ones.
    pub(crate) fn with_room(mut self, limits: ConnectionLimits) -> Self {
        self.room = plan::SESSIONS.max(2 * limits.all);
        self
    }

    /// With queues of that size.
    pub(crate) fn with_queue(mut self, size: u32) -> Self {
        self.queue = usize::try_from(size).unwrap_or(plan::QUEUE_SIZE);
        self
    }

    /// With so many small publishes a second of one connection; 0: no bound.
    pub(crate) fn with_rate(mut self, a_second: u32) -> Self {
        self.rates = RateLimiter::new(a_second);
        self
    }

    /// Counts there.
    pub(crate) fn with_counters(mut self, counts: Counters) -> Self {
        self.counts = counts;
        self
    }

    /// Quotas its tables like that.
    pub(crate) fn with_shares(mut self, quotas: Quotas) -> Self {
        self.quotas = quotas;
        self.retained.quota(quotas);
        self.wills.quota(quotas);
        self
    }

    /// What becomes of a session that `client` needs anew.
    pub(super) fn room_for(&self, client: &ClientId) -> SessionRoom<ClientId> {
        let others = self.sessions.iter().filter(|(other, _)| *other != client);
        let entries = others.map(|(client, session)| SessionEntry {
            client: Rc::clone(client),
            owner: identity::owner(client),
            left: session.handle.is_none().then_some(session.left),
        });
        quotas::room(self.quotas, self.room, entries.collect(), &identity::owner(client))
    }

    /// Whether a client that comes may have a session. One that ends with the connection may in any case, as connections
    /// have a bound of their own.
    pub(crate) fn has_room(&self, client: &ClientId, clean: bool) -> bool {
        clean || self.sessions.contains_key(client) || self.room_for(client) != SessionRoom::Refused
    }

    /// How many retained messages there are.
    pub(crate) fn retained_count(&self) -> usize {
        self.retained.len()
    }

    /// Rights change: for what comes from now on, also of clients that are connected or away.
    pub(crate) fn set_acl(&mut self, acl: Acl) {
        for (client, session) in &mut self.sessions {
            session.rights = acl.rights(client);
        }
        self.acl = acl;
    }

    /// Whether the client of that name may publish on a topic, be it connected or not.
    pub(crate) fn may_write(&self, client: &str, name: &str) -> bool {
        self.acl.rights(client).may_write(&topic::router_form(name))
    }

    /// Makes sure that there is a place for a client, at the cost of another one if need be. The connection that it takes
    /// over is none that counts.
    pub(crate) fn make_place(
        &mut self,
        client: &ClientId,
        connect_info: &ConnectInfo,
        limits: ConnectionLimits,
        now: Moment,
    ) -> bool {
        let here = self.sessions.iter().filter(|(other, _)| *other != client);
        let connections: Vec<ClientConnection> = here
            .filter_map(|(client, session)| {
                let handle = session.handle.as_ref().filter(|handle| !handle.is_closing())?;
                Some(connection(client, &handle.connect_info, handle.last_heard()))
            })
            .collect();
        match connection_limits::place(limits, &connections, &connection(client, connect_info, None), now) {
            Admission::Free => true,
            Admission::Refused => false,
            Admission::Evict(victim) => {
                self.counts.client_displaced(&victim, client);
                if let Some(handle) = self.sessions.get(&victim).and_then(|session| session.handle.as_ref()) {
                    handle.close(CloseReason::MadeRoom);
                }
                true
            }
        }
    }

    /// Users have changed. `fate` says of each that came by password whether it stays (`None`) or has to log in again,
    /// and with `Some(true)` that there is no such user any more, so that its sessions end, too. Returns how many
    /// connections end.
    pub(crate) fn revoke(&mut self, fate: impl Fn(&str, &Arc<PasswordHash>) -> Option<bool>) -> usize {
        let (mut cut, mut gone, mut over) = (0, Vec::new(), Vec::new());
        for (client, session) in &mut self.sessions {
            let AuthMethod::Password(hash) = &session.auth_method else { continue };
            let (Some(user), _) = identity::parts(client) else { continue };
            let Some(ends) = fate(user, hash) else { continue };
            if ends {
                session.will = None;
                self.wills.remove(client);
            }
            match &session.handle {
                Some(handle) => {
                    cut += 1;
                    handle.close(CloseReason::Revoked);
                    if ends {
                        over.push(Rc::clone(client));
                    }
                }
                None if ends => gone.push(Rc::clone(client)),
                None => {}
            }
        }
        over.iter().for_each(|client| self.set_expiry(client, 0));
        gone.iter().for_each(|client| self.forget(client));
        cut
    }

    /// Other certificates are trusted than before: who came with one shows it again. What is kept of those that are away is judged by
    /// [`Broker::judge_wills`]; a will for which there was no room has no certificate by it that could be looked at.
    pub(crate) fn revoke_certified(&mut self) {
        for (client, session) in &mut self.sessions {
            if session.auth_method != AuthMethod::Certificate {
                continue;
            }
            match &session.handle {
                Some(handle) => handle.close(CloseReason::Revoked),
                None => drop(session.will.take_if(|_| self.wills.get(client).is_none())),
            }
        }
    }

    /// How many clients each user of the Unix socket has.
    pub(crate) fn by_uid(&self) -> BTreeMap<String, usize> {
        let mut count = BTreeMap::new();
        for handle in self.sessions.values().filter_map(|session| session.handle.as_ref()) {
            if let PeerOrigin::Uid(uid) = handle.connect_info.peer.source {
                *count.entry(uid.to_string()).or_default() += 1;
            }
        }
        count
    }

    /// Clients that are connected as a user.
    pub(crate) fn named(&self) -> usize {
        let here = self.sessions.iter().filter(|(_, session)| session.handle.is_some());
        here.filter(|(client, _)| identity::parts(client).0.is_some()).count()
    }
}

fn connection(client: &ClientId, connect_info: &ConnectInfo, heard: Option<Moment>) -> ClientConnection {
    ClientConnection {
        client: Rc::clone(client),
        named: connect_info.auth_method != AuthMethod::None,
        listener: connect_info.peer.listener,
        source: connect_info.peer.source,
        keep_alive: connect_info.keep_alive,
        heard: heard.unwrap_or(connect_info.at),
        spoke: heard.is_some(),
    }
}
