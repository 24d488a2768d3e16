//! Messages on their way to their subscribers.

use std::collections::BTreeMap;
use std::rc::Rc;

use tokio::sync::oneshot;

use super::{Broker, ClientId, Pending, Published};
use crate::identity::{self, Owner};
use crate::message::Message;
use crate::session::{CloseReason, Delivery, EnqueueOutcome, Session, Subscription};
use crate::{plan, topic};

/// A client that gets a message.
pub(super) struct Target {
    pub(super) client: ClientId,
    delivery: Delivery,
}

impl Target {
    fn of(client: &ClientId) -> Self {
        Target { client: Rc::clone(client), delivery: Delivery::default() }
    }

    /// One of its subscriptions takes the message.
    fn add(&mut self, subscription: &Subscription, message: &Message) {
        let Delivery { qos, retain, ids, .. } = &mut self.delivery;
        *qos = (*qos).max(subscription.qos.min(message.qos));
        *retain |= message.retain && subscription.retain_as_published;
        ids.extend(subscription.id);
    }
}

impl Broker {
    /// Sends a figure of the broker itself on its way.
    pub(crate) fn publish_figure(&mut self, message: Message) {
        self.retained.put_figure(Rc::new(message.clone()));
        self.publish(message, false);
    }

    /// Bytes that are held for clients, those that several of them get once.
    pub(crate) fn held(&self) -> usize {
        self.held.sum()
    }

    /// Sends a message on its way.
    pub(crate) fn publish(&mut self, message: Message, retain: bool) -> Published {
        if !topic::is_brokers_own(&message.topic) {
            self.counts.message_in();
        }
        let change = if retain { self.retain(&Rc::new(message.clone())) } else { None };
        let is_not_retained = retain && change.is_none();
        let (targets, mut missing, looks) = self.targets(&message);
        if !missing.is_empty() && !self.has_to_ask(&message.router_form) {
            missing.clear();
        }
        if targets.is_empty() {
            return Published { change, has_subscribers: false, is_not_retained, looks, queued: None };
        }
        // What is retained has a bound of its own.
        let message = Rc::new(message.counted_in(&self.held));
        let stays = |target: &Target| {
            target.delivery.qos > 0
                && self.sessions.get(&target.client).is_some_and(|session| session.is_persistent())
        };
        let (tell, queued) = if targets.iter().any(stays) { Some(oneshot::channel()) } else { None }.unzip();
        self.next_message += 1;
        if !missing.is_empty() {
            self.backlog.push_back(self.next_message);
        }
        let generation = self.generation;
        let pending = Pending { message, targets, queued: tell, missing, handed_in: false, generation };
        self.pending.insert(self.next_message, pending);
        self.feed();
        self.hand_out();
        Published { change, has_subscribers: true, is_not_retained, looks, queued }
    }

    /// Who gets a message, the filters that the router has to name, and what it cost to find out. A client gets it once for
    /// all its own subscriptions, with the highest QoS of these and with all their identifiers, and once more for each group
    /// whose turn it has.
    fn targets(&self, message: &Message) -> (Vec<Target>, Vec<usize>, usize) {
        let mut own: BTreeMap<ClientId, Target> = BTreeMap::new();
        let (mut shared, mut missing) = (Vec::new(), Vec::new());
        let (matching, looks) = self.filters.matching(&message.router_form);
        let may = |client: &ClientId| {
            self.sessions.get(client).filter(|session| session.rights.may_read(&message.router_form))
        };
        for filter in matching {
            for (client, member) in &filter.members {
                if may(client).is_none() || (member.no_local && message.from == *client) {
                    continue;
                }
                own.entry(Rc::clone(client)).or_insert_with(|| Target::of(client)).add(member, message);
            }
            for group in filter.groups.values() {
                let turn = group.next(|client, member| {
                    let session = may(client)?;
                    match &session.handle {
                        Some(handle) if !handle.is_closing() => Some(u8::from(session.is_slow())),
                        // Whoever is away keeps what he gets from the others, so he gets it only if none is there.
                        _ => (member.qos > 0 && message.qos > 0).then_some(2),
                    }
                });
                if let Some((client, member)) = turn {
                    let mut target = Target::of(client);
                    target.add(member, message);
                    shared.push(target);
                }
            }
            if filter.routed {
                missing.push(filter.number);
            }
        }
        let mut targets: Vec<Target> = own.into_values().collect();
        targets.extend(shared);
        (targets, missing, looks)
    }

    fn retain(&mut self, message: &Rc<Message>) -> Option<u64> {
        let is_kept = self.retained.put(message);
        self.to_store.notify_one();
        if !is_kept {
            self.counts.not_retained(&message.from, &message.topic);
            return None;
        }
        self.change += 1;
        Some(self.change)
    }

    /// Hands out the oldest messages, up to the first that the router owes an answer for.
    pub(super) fn hand_out(&mut self) {
        while let Some(oldest) = self.pending.first_entry().filter(|oldest| oldest.get().missing.is_empty()) {
            let Pending { message, targets, queued, .. } = oldest.remove();
            for Target { client, delivery } in targets {
                self.deliver(&client, &message, delivery);
            }
            if let Some(queued) = queued {
                self.change += 1;
                // Nobody waits for a message of QoS 0, or of the node.
                let _ = queued.send(self.change);
                self.to_store.notify_one();
            }
            self.moved.notify_waiters();
        }
    }

    pub(super) fn deliver(&mut self, client: &ClientId, message: &Rc<Message>, delivery: Delivery) {
        let Some(session) = self.sessions.get_mut(client) else { return };
        match session.put(message, delivery) {
            EnqueueOutcome::Queued if session.held_in_all() > plan::HELD_LITTLE => self.relieve(),
            EnqueueOutcome::Queued | EnqueueOutcome::NotKept => {}
            EnqueueOutcome::Dropped => self.counts.qos0_dropped(client, &message.topic),
            EnqueueOutcome::Lost => self.counts.qos1_lost(client, &message.topic),
        }
    }

    /// Makes the session that holds most give way if all together hold too much; one of the anonymous clients' if they
    /// have more than their share. What several sessions hold is there once, and so it counts: subscribers of the same large
    /// messages do not push each other out.
    fn relieve(&mut self) {
        let is_going = |session: &Session| session.handle.as_ref().is_some_and(|handle| handle.is_closing());
        let (mut going, mut anonymous) = (0, 0);
        for (client, session) in &self.sessions {
            // It lets go when its connection's turn comes.
            going += if is_going(session) { session.held_in_all() } else { 0 };
            anonymous += if identity::owner(client) == Owner::Anonymous { session.held_in_all() } else { 0 };
        }
        if self.held().saturating_sub(going) <= plan::HELD_BYTES {
            return;
        }
        let from_anonymous = anonymous > self.quotas.quota(&Owner::Anonymous, plan::HELD_BYTES);
        let may = |client: &ClientId| !from_anonymous || identity::owner(client) == Owner::Anonymous;
        let held = self.sessions.iter_mut().filter(|(client, session)| may(client) && !is_going(session));
        let Some((client, session)) = held.max_by_key(|(_, session)| session.held_in_all()) else {
            return;
        };
        let lost = session.give_up();
        self.counts.session_given_up(client, lost);
        match &session.handle {
            Some(handle) => {
                self.counts.client_cut_off(client);
                handle.close(CloseReason::Stuck);
            }
            None => {
                let client = Rc::clone(client);
                self.forget(&client);
            }
        }
    }
}
