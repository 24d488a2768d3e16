//! Retained messages, in memory and in the store.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use bytes::Bytes;
use edge_store::{Row, Table, Write};

use crate::session::Message;
use crate::{plan, topic};

/// The newest retained message of each topic.
#[derive(Default)]
pub(crate) struct Retained {
    kept: BTreeMap<String, Rc<Message>>,
    bytes: usize,
    /// Topics whose row is not what is kept here.
    dirty: BTreeSet<String>,
    change: u64,
}

impl Retained {
    /// What the store has. A row that is no retained message is left out.
    pub(crate) fn load(rows: Vec<Row>) -> Self {
        let mut all = Retained::default();
        for row in rows {
            let Some((qos, payload)) = row.value.split_first() else { continue };
            if topic::name_defect(&row.key1).is_some() || *qos > 2 {
                tracing::warn!(topic = %row.key1, "row is no retained message and is left out");
                continue;
            }
            let message = Message {
                inside: topic::inside(&row.key1),
                topic: row.key1,
                payload: Bytes::copy_from_slice(payload),
                qos: *qos,
            };
            all.insert(Rc::new(message));
        }
        all
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
            if self.kept.len() >= plan::RETAINED || self.bytes + size > plan::RETAINED_BYTES {
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
        self.kept.values().filter(|message| topic::matches(filter, &message.inside)).map(Rc::clone).collect()
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
                    let mut value = Vec::with_capacity(1 + message.payload.len());
                    value.push(message.qos);
                    value.extend_from_slice(&message.payload);
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
        self.bytes += message.topic.len() + message.payload.len();
        self.kept.insert(message.topic.clone(), message);
    }

    fn remove(&mut self, topic: &str) {
        if let Some(old) = self.kept.remove(topic) {
            self.bytes = self.bytes.saturating_sub(old.topic.len() + old.payload.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(topic: &str, payload: &[u8]) -> Rc<Message> {
        let payload = Bytes::copy_from_slice(payload);
        Rc::new(Message { topic: topic.into(), inside: topic::inside(topic), payload, qos: 1 })
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
        again.put(&message("y", b""));
        assert_eq!(again.len(), 1);
        assert!(matches!(again.take_writes().0.as_slice(), [Write::DeleteRow { key1, .. }] if key1 == "y"));
    }

    #[test]
    fn there_is_a_bound_and_beyond_it_no_stale_message() {
        let mut retained = Retained::default();
        for n in 0..plan::RETAINED {
            assert!(retained.put(&message(&n.to_string(), b"x")).is_some());
        }
        assert_eq!(retained.put(&message("more", b"x")), None);
        assert!(retained.put(&message("7", b"y")).is_some());
        assert_eq!(retained.put(&message("7", &vec![0; plan::RETAINED_BYTES])), None);
        assert_eq!(retained.matching("u/7").len(), 0);
    }
}
