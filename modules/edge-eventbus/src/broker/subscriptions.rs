//! What clients subscribe to, and the retained messages that they get for it.

use std::collections::BTreeMap;
use std::rc::Rc;

use beehive::Moment;

use super::{Broker, ClientId};
use crate::access::Rights;
use crate::filters::Filter;
use crate::message::Message;
use crate::packet::FilterRequest;
use crate::session::{Delivery, Owed, RowKey, Subscription};
use crate::topic::TopicDefect;
use crate::{identity, plan, topic};

/// SUBACK's words for a refusal in MQTT 5; 3.1.1 has but one.
const NOT_AUTHORIZED: u8 = 0x87;
const FILTER_INVALID: u8 = 0x8f;
const QUOTA_EXCEEDED: u8 = 0x97;

/// Group, filter in the router's form, and the name under which the session has it.
struct Wanted<'a> {
    group: Option<&'a str>,
    router_form: String,
    key: String,
}

impl<'a> Wanted<'a> {
    fn of(filter: &'a str) -> Result<Self, TopicDefect> {
        let (group, filter) = match topic::shared(filter) {
            Some(shared) => shared.map(|(group, filter)| (Some(group), filter))?,
            None => (None, filter),
        };
        if let Some(defect) = topic::filter_defect(filter) {
            return Err(defect);
        }
        let router_form = topic::router_form(filter);
        let key = match group {
            Some(group) => format!("$share/{group}/{router_form}"),
            None => router_form.clone(),
        };
        Ok(Wanted { group, router_form, key })
    }
}

/// Group and filter of a name of [`Wanted::key`].
fn of_key(key: &str) -> (Option<&str>, &str) {
    match key.strip_prefix("$share/").and_then(|rest| rest.split_once('/')) {
        Some((group, router_form)) => (Some(group), router_form),
        None => (None, key),
    }
}

impl Broker {
    /// Subscribes; the retained messages come when the client reads. Returns SUBACK's code of MQTT 5.
    pub(crate) fn subscribe(&mut self, client: &ClientId, asked: &FilterRequest, id: Option<u32>) -> u8 {
        let wanted = match Wanted::of(&asked.filter) {
            Ok(wanted) => wanted,
            Err(defect) => {
                self.counts.subscription_refused(client, &asked.filter, defect.reason());
                return FILTER_INVALID;
            }
        };
        let Wanted { group, router_form, key } = wanted;
        let Some(session) = self.sessions.get_mut(client) else { return NOT_AUTHORIZED };
        if !session.rights.may_subscribe(&router_form) {
            self.counts.subscription_refused(client, &asked.filter, "the client has no right to it");
            return NOT_AUTHORIZED;
        }
        let is_new = !session.subscriptions.contains_key(&key);
        let owner = identity::owner(client);
        let too_many = is_new
            && (session.subscriptions.len() >= plan::SUBSCRIPTIONS
                || self.filters.owned_with(&owner, &router_form) > self.quotas.quota(&owner, plan::FILTERS)
                || (self.filters.len() >= plan::FILTERS && !self.filters.contains(&router_form)));
        if too_many {
            self.counts.subscription_refused(client, &asked.filter, "too many subscriptions or filters");
            return QUOTA_EXCEEDED;
        }
        let FilterRequest { qos, no_local, retain_as_published, retain_handling, .. } = *asked;
        let subscription = Subscription { qos, no_local, retain_as_published, id };
        session.subscriptions.insert(key.clone(), subscription);
        session.soil(RowKey::Subscription(key));
        session.owed.retain(|owed| owed.filter != router_form);
        // A shared subscription gets none (MQTT 5, 4.8.2).
        if group.is_none() && (retain_handling == 0 || (retain_handling == 1 && is_new)) {
            session.owed.push_back(Owed { filter: router_form.clone(), subscription, after: None });
        }
        if let Some(handle) = &session.handle {
            handle.out.notify_one();
        }
        if self.filters.join(&router_form, group, client, subscription) {
            self.generation += 1;
            self.teach(&router_form);
        }
        self.to_store.notify_one();
        qos
    }

    /// Says whether there was such a subscription.
    pub(crate) fn unsubscribe(&mut self, client: &ClientId, filter: &str) -> bool {
        let (Ok(Wanted { router_form, key, group }), Some(session)) =
            (Wanted::of(filter), self.sessions.get_mut(client))
        else {
            return false;
        };
        if session.subscriptions.remove(&key).is_none() {
            return false;
        }
        if group.is_none() {
            session.owed.retain(|owed| owed.filter != router_form);
        }
        session.soil(RowKey::Subscription(key.clone()));
        self.to_store.notify_one();
        self.leave_filter(client, &key);
        true
    }

    /// Takes a client out of a filter, which is given as the session has it.
    pub(super) fn leave_filter(&mut self, client: &ClientId, key: &str) {
        let (group, router_form) = of_key(key);
        let Some(Filter { number, routed, .. }) = self.filters.leave(router_form, group, client) else {
            return;
        };
        self.generation += 1;
        if !routed {
            return;
        }
        for pending in self.pending.values_mut().filter(|pending| pending.missing.contains(&number)) {
            pending.missing.retain(|missing| *missing != number);
            if pending.missing.is_empty() {
                self.window = self.window.saturating_sub(pending.weight());
            }
        }
        if let Some(router) = &mut self.router
            && let Err(error) = router.remove(router_form)
        {
            self.router_failed(&error);
        }
        self.feed();
        self.hand_out();
    }

    /// The subscriptions of a session that was in the store are those of its client again.
    pub(super) fn join_restored(&mut self, client: &ClientId) {
        let Some(session) = self.sessions.get(client) else { return };
        for (key, subscription) in &session.subscriptions {
            let (group, router_form) = of_key(key);
            self.filters.join(router_form, group, client, *subscription);
        }
    }

    /// Puts some of the retained messages that a client is owed into its queue. Says whether there is more to look at.
    ///
    /// They are looked up only now, so that they are never older than what the client has got. A message that is still with
    /// the router would be: then they wait until it has been handed out.
    pub(super) fn queue_retained(&mut self, client: &ClientId, now: Moment) -> bool {
        let Some(session) = self.sessions.get(client).filter(|session| session.takes_retained()) else {
            return false;
        };
        let to_it = |pending: &super::Pending| pending.targets.iter().any(|target| target.client == *client);
        let Some(owed) = session.owed.front().filter(|_| !self.pending.values().any(to_it)) else {
            return false;
        };
        let (most, looks) = (plan::RETAINED_PAGE, plan::RETAINED_LOOKS);
        let page = self.retained.page(&owed.filter, owed.after.as_deref(), most, looks);
        let subscription = owed.subscription;
        let messages = self.readable(client, page.messages, now);
        if let Some(session) = self.sessions.get_mut(client) {
            match (session.owed.front_mut(), page.after) {
                (Some(owed), Some(after)) => owed.after = Some(after),
                _ => drop(session.owed.pop_front()),
            }
        }
        for message in messages {
            let qos = subscription.qos.min(message.qos);
            let ids = subscription.id.into_iter().collect();
            self.deliver(client, &message, Delivery { qos, retain: true, ids, kept: true });
        }
        // Those of QoS 2 wait for it.
        self.to_store.notify_one();
        self.sessions.get(client).is_some_and(|session| session.takes_retained())
    }

    /// Those that a client may read, and whose own clients may still write them.
    fn readable(&self, client: &ClientId, mut all: Vec<Rc<Message>>, now: Moment) -> Vec<Rc<Message>> {
        let Some(session) = self.sessions.get(client) else { return Vec::new() };
        let mut writers: BTreeMap<Rc<str>, Rights> = BTreeMap::new();
        all.retain(|message| {
            let by_node = message.from.is_empty();
            !message.is_expired(now)
                && session.rights.may_read(&message.router_form)
                && (by_node
                    || writers
                        .entry(Rc::clone(&message.from))
                        .or_insert_with(|| self.acl.rights(&message.from))
                        .may_write(&message.router_form))
        });
        all
    }
}
