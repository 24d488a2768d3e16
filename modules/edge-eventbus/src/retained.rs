//! Retained messages, in memory and in the store.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use bytes::Bytes;
use edge_store::{Row, Table, Write};

use crate::identity;
use crate::quotas::{Quotas, Usage};
use crate::session::Message;
use crate::{plan, topic};

/// The newest retained message of each topic.
#[derive(Default)]
pub(crate) struct Retained {
    kept: BTreeMap<String, Rc<Message>>,
    bytes: usize,
    quotas: Quotas,
    /// Messages and bytes of each owner.
    messages_of: Usage,
    bytes_of: Usage,
    /// Topics whose row is not what is kept here.
    dirty: BTreeSet<String>,
    change: u64,
}

impl Retained {
    /// What the store has. A row that is no retained message is left out.
    pub(crate) fn load(rows: Vec<Row>) -> Self {
        let mut all = Retained::default();
        for row in rows {
            match read(&row) {
                Some(message) => all.insert(Rc::new(message)),
                None => tracing::warn!(topic = ?row.key1, "row is no retained message and is left out"),
            }
        }
        all
    }

    /// Shared like that from now on.
    pub(crate) fn quota(&mut self, quotas: Quotas) {
        self.quotas = quotas;
    }

    pub(crate) fn len(&self) -> usize {
        self.kept.len()
    }

    /// Keeps `message`, or forgets its topic if it is empty. Returns the number of the change, or `None` if there is no
    /// room for another topic.
    pub(crate) fn put(&mut self, message: &Rc<Message>) -> Option<u64> {
        self.remove(&message.topic);
        if !message.payload.is_empty() {
            let size = message.topic.len() + message.payload.len();
            let owner = identity::owner(&message.from);
            let share = |bound| self.quotas.quota(&owner, bound);
            let others_need_it = self.messages_of.of(&owner) >= share(plan::RETAINED)
                || self.bytes_of.of(&owner) + size > share(plan::RETAINED_BYTES);
            if others_need_it || self.kept.len() >= plan::RETAINED || self.bytes + size > plan::RETAINED_BYTES
            {
                // The old one is not true any more, so it goes in any case.
                self.dirty.insert(message.topic.clone());
                self.change += 1;
                return None;
            }
            self.insert(Rc::clone(message));
        }
        self.dirty.insert(message.topic.clone());
        self.change += 1;
        Some(self.change)
    }

    /// The messages that a new subscription gets.
    pub(crate) fn matching(&self, filter: &str) -> Vec<Rc<Message>> {
        self.kept
            .values()
            .filter(|message| topic::matches(filter, &message.router_form))
            .map(Rc::clone)
            .collect()
    }

    pub(crate) fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// What the store has to take, and up to which change it is then.
    pub(crate) fn take_writes(&mut self) -> (Vec<Write>, BTreeSet<String>, u64) {
        let topics = std::mem::take(&mut self.dirty);
        let writes = topics
            .iter()
            .map(|topic| match self.kept.get(topic) {
                Some(message) => {
                    let value = value(message);
                    let (key1, key2) = (topic.clone(), String::new());
                    Write::PutRow { table: Table::Retained, key1, key2, value }
                }
                None => Write::DeleteRow { table: Table::Retained, key1: topic.clone(), key2: String::new() },
            })
            .collect();
        (writes, topics, self.change)
    }

    /// The store did not take these: they are to be tried again.
    pub(crate) fn not_written(&mut self, topics: BTreeSet<String>) {
        self.dirty.extend(topics);
    }

    fn insert(&mut self, message: Rc<Message>) {
        let (owner, size) = (identity::owner(&message.from), message.topic.len() + message.payload.len());
        self.messages_of.add(&owner, 1);
        self.bytes_of.add(&owner, size);
        self.bytes += size;
        self.kept.insert(message.topic.clone(), message);
    }

    fn remove(&mut self, topic: &str) {
        if let Some(old) = self.kept.remove(topic) {
            let (owner, size) = (identity::owner(&old.from), old.topic.len() + old.payload.len());
            self.messages_of.take(&owner, 1);
            self.bytes_of.take(&owner, size);
            self.bytes = self.bytes.saturating_sub(size);
        }
    }
}

/// A row's value: the QoS, the length of the publisher's name, the name, the payload.
fn value(message: &Message) -> Vec<u8> {
    // Names are capped at 128 bytes when clients connect.
    let length = u8::try_from(message.from.len()).unwrap_or_default();
    let name = message.from.as_bytes().get(..usize::from(length)).unwrap_or_default();
    [&[message.qos, length], name, &message.payload].concat()
}

/// The message of a row, if it is one that could have been published.
fn read(row: &Row) -> Option<Message> {
    let (qos, rest) = row.value.split_first()?;
    let (length, rest) = rest.split_first()?;
    let (name, payload) = rest.split_at_checked(usize::from(*length))?;
    let (from, router_form) = (std::str::from_utf8(name).ok()?, topic::router_form(&row.key1));
    let told = from.is_empty() || plan::may_be_clients(&router_form);
    (topic::name_defect(&row.key1).is_none() && *qos <= 2 && told).then(|| Message {
        router_form,
        topic: row.key1.clone(),
        payload: Bytes::copy_from_slice(payload),
        qos: *qos,
        from: from.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(topic: &str, payload: &[u8]) -> Rc<Message> {
        let payload = Bytes::copy_from_slice(payload);
        let from = if topic.starts_with('$') { "" } else { "user=plc;a" };
        Rc::new(Message {
            topic: topic.into(),
            router_form: topic::router_form(topic),
            payload,
            qos: 1,
            from: from.into(),
        })
    }

    #[test]
    fn an_empty_message_forgets_and_a_row_is_read_as_it_was_written() {
        let mut retained = Retained::default();
        assert_eq!(retained.put(&message("$hw/x", b"1")), Some(1));
        assert_eq!(retained.put(&message("y", b"2")), Some(2));
        assert_eq!(retained.matching("u/#").len(), 1);
        let (writes, _, change) = retained.take_writes();
        assert_eq!(change, 2);
        let rows = writes.into_iter().filter_map(|write| match write {
            Write::PutRow { key1, key2, value, .. } => Some(Row { key1, key2, value, revision: 1 }),
            _ => None,
        });
        let mut again = Retained::load(rows.collect());
        assert_eq!((again.len(), again.is_dirty()), (2, false));
        assert_eq!(
            again.matching("s/hw/x").first().map(|m| (m.qos, m.payload.to_vec())),
            Some((1, b"1".to_vec()))
        );
        assert_eq!(again.matching("u/#").first().map(|m| m.from.to_string()).as_deref(), Some("user=plc;a"));
        again.put(&message("y", b""));
        assert_eq!(again.len(), 1);
        assert!(matches!(again.take_writes().0.as_slice(), [Write::DeleteRow { key1, .. }] if key1 == "y"));
    }

    #[test]
    fn a_row_that_no_client_could_have_published_is_left_out() {
        let row = |topic: &str, value: &[u8]| Row {
            key1: topic.into(),
            key2: String::new(),
            value: value.to_vec(),
            revision: 1,
        };
        let spoofed = "$hw/events/node/edge-1/membership/updated";
        let bad = [
            row(spoofed, b"\x01\x01apayload"),
            row("a/+", b"\x01\0x"),
            row("a", b"\x03\0x"),
            row("b", b"\x01\x09short"),
            row("c", b"\x01"),
            row("d", b""),
            row("e", b"\x01\x01\xffx"),
        ];
        assert_eq!(Retained::load(bad.to_vec()).len(), 0);
        assert_eq!(Retained::load(vec![row(spoofed, b"\x01\0payload"), row("a", b"\0\x01ax")]).len(), 2);
    }

    #[test]
    fn anonymous_clients_keep_no_more_than_their_half() {
        let mut retained = Retained::default();
        retained.quota(Quotas { users: true });
        let from = |name: &str, topic: &str, size: usize| {
            let payload = Bytes::from(vec![b'x'; size]);
            let (topic, router_form) = (topic.to_owned(), topic::router_form(topic));
            Rc::new(Message { topic, router_form, payload, qos: 1, from: name.into() })
        };
        let kept = (0..plan::RETAINED).filter(|n| retained.put(&from("n", &n.to_string(), 1)).is_some());
        assert_eq!(kept.count(), plan::RETAINED / 2);
        assert!(retained.put(&from("user=plc;a", "users", 1)).is_some());
        assert!(retained.put(&from("", "nodes", 1)).is_some());
        // By bytes, too; and what is given up is free again.
        assert_eq!(retained.put(&from("n", "0", plan::RETAINED_BYTES / 2)), None);
        assert!(retained.put(&from("n", "again", 1)).is_some());
        assert!(retained.put(&from("user=plc;a", "large", plan::RETAINED_BYTES / 2)).is_some());
    }

    #[test]
    fn there_is_a_bound_and_beyond_it_no_stale_message() {
        let mut retained = Retained::default();
        for n in 0..plan::RETAINED {
            assert!(retained.put(&message(&format!("${n}"), b"x")).is_some());
        }
        assert_eq!(retained.put(&message("$more", b"x")), None);
        assert!(retained.put(&message("$7", b"y")).is_some());
        assert_eq!(retained.put(&message("$7", &vec![0; plan::RETAINED_BYTES])), None);
        assert_eq!(retained.matching("s/7").len(), 0);
    }
}
