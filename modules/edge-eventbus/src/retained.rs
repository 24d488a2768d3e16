//! Retained messages, in memory and in the store.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::rc::Rc;

use edge_store::{Row, Table, Write};

use crate::identity;
use crate::message::{self, Clocks, Message};
use crate::quotas::{Quotas, Usage};
use crate::{plan, topic};

/// What a retained message weighs in the budget: 256 bytes stand for what it takes beside its topic and its payload, so that
/// many small ones are bounded, too.
fn weight(message: &Message) -> usize {
    256 + message.topic.len() + message.size()
}

/// Some of the retained messages that a filter takes.
pub(crate) struct Page {
    pub(crate) messages: Vec<Rc<Message>>,
    /// The topic behind which the next page begins; `None` when this was the last.
    pub(crate) after: Option<String>,
}

/// The newest retained message of each topic.
pub(crate) struct Retained {
    kept: BTreeMap<String, Rc<Message>>,
    /// How many of them are the broker's own figures, which weigh nothing.
    figures: usize,
    /// What the others weigh, see [`weight`].
    bytes: usize,
    /// What they may weigh.
    budget: usize,
    quotas: Quotas,
    /// What those of each owner weigh.
    bytes_of: Usage,
    /// Topics whose row is not what is kept here.
    dirty: BTreeSet<String>,
}

/// With the room that a node's broker has by itself: `maxRetainedBytes`.
#[cfg(test)]
impl Default for Retained {
    fn default() -> Self {
        Retained::within(usize::try_from(config::edge::EventBus::default().max_retained_bytes).unwrap())
    }
}

impl Retained {
    /// None, with room for what weighs `budget` bytes.
    pub(crate) fn within(budget: usize) -> Self {
        Retained {
            kept: BTreeMap::new(),
            figures: 0,
            bytes: 0,
            budget,
            quotas: Quotas::default(),
            bytes_of: Usage::default(),
            dirty: BTreeSet::new(),
        }
    }

    /// What the store has, also if it is more than the budget of now. A row that is no retained message is left out.
    pub(crate) fn load(rows: Vec<Row>, budget: usize, clocks: Clocks) -> Self {
        let mut all = Retained::within(budget);
        for row in rows {
            match read(&row, clocks) {
                // Nobody asks for it any more, and it would have its share of the budget for ever.
                Some(message) if message.is_expired(clocks.now) => {
                    all.dirty.insert(message.topic);
                }
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

    /// Those that outlive the daemon.
    pub(crate) fn len(&self) -> usize {
        self.kept.len() - self.figures
    }

    /// Keeps a figure of the broker itself, which is made anew after a restart.
    pub(crate) fn put_figure(&mut self, message: Rc<Message>) {
        if self.kept.insert(message.topic.clone(), message).is_none() {
            self.figures += 1;
        }
    }

    /// Keeps `message`, or forgets its topic if it is empty. Says whether there was room.
    pub(crate) fn put(&mut self, message: &Rc<Message>) -> bool {
        self.remove(&message.topic);
        if !message.payload.is_empty() {
            let size = weight(message);
            let owner = identity::owner(&message.from);
            let others_need_it = self.bytes_of.of(&owner) + size > self.quotas.quota(&owner, self.budget);
            if others_need_it || self.bytes + size > self.budget {
                // The old one is not true any more, so it goes in any case.
                self.dirty.insert(message.topic.clone());
                return false;
            }
            self.insert(Rc::clone(message));
        }
        self.dirty.insert(message.topic.clone());
        true
    }

    /// At most `most` of the messages that a filter takes, those behind the topic `after`, in the order of their topics. No
    /// more than `looks` topics are looked at. A filter without a wildcard in its first levels looks only at topics that
    /// begin like it.
    pub(crate) fn page(&self, filter: &str, after: Option<&str>, most: usize, looks: usize) -> Page {
        let wild = filter.split('/').position(|level| level == "+" || level == "#");
        let Some(wild) = wild else {
            let one = topic::from_router_form(filter).and_then(|topic| self.kept.get(&topic));
            return Page { messages: one.cloned().into_iter().collect(), after: None };
        };
        let begins: Vec<&str> = filter.split('/').take(wild).collect();
        let begins = topic::from_router_form(&begins.join("/")).unwrap_or_default();
        let from = after.map_or(Bound::Included(begins.as_str()), Bound::Excluded);
        let mut messages = Vec::new();
        for (looked, (topic, message)) in (1..).zip(self.kept.range::<str, _>((from, Bound::Unbounded))) {
            if !topic.starts_with(&begins) {
                break;
            }
            if topic::matches(filter, &message.router_form) {
                messages.push(Rc::clone(message));
            }
            if looked >= looks || messages.len() >= most {
                return Page { messages, after: Some(topic.clone()) };
            }
        }
        Page { messages, after: None }
    }

    pub(crate) fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// What the store has to take, and for which topics.
    pub(crate) fn take_writes(&mut self, clocks: Clocks) -> (Vec<Write>, Vec<String>) {
        let topics = std::mem::take(&mut self.dirty);
        let writes = topics
            .iter()
            .map(|topic| match self.kept.get(topic) {
                Some(message) => {
                    let value = message::to_bytes(message, clocks);
                    let (key1, key2) = (topic.clone(), String::new());
                    Write::PutRow { table: Table::Retained, key1, key2, value }
                }
                None => Write::DeleteRow { table: Table::Retained, key1: topic.clone(), key2: String::new() },
            })
            .collect();
        (writes, topics.into_iter().collect())
    }

    /// The store did not take these: they are to be tried again.
    pub(crate) fn not_written(&mut self, topics: Vec<String>) {
        self.dirty.extend(topics);
    }

    fn insert(&mut self, message: Rc<Message>) {
        let (owner, size) = (identity::owner(&message.from), weight(&message));
        self.bytes_of.add(&owner, size);
        self.bytes += size;
        self.kept.insert(message.topic.clone(), message);
    }

    fn remove(&mut self, topic: &str) {
        if let Some(old) = self.kept.remove(topic) {
            let (owner, size) = (identity::owner(&old.from), weight(&old));
            self.bytes_of.take(&owner, size);
            self.bytes = self.bytes.saturating_sub(size);
        }
    }
}

/// The message of a row, if it is one that could have been published.
fn read(row: &Row, clocks: Clocks) -> Option<Message> {
    let message = message::from_bytes(&row.key1, &row.value, clocks)?;
    let told = message.from.is_empty() || plan::may_be_clients(&message.router_form);
    (told && (message.from.is_empty() || topic::name_defect(&row.key1).is_none())).then_some(message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    use beehive::Moment;
    use bytes::Bytes;

    /// Enough for whatever these put.
    const ROOM: usize = 1 << 20;

    fn from(name: &str, topic: &str, payload: &[u8]) -> Rc<Message> {
        let message = Message::of_node(topic.into(), Bytes::copy_from_slice(payload), 1, true);
        Rc::new(Message { from: name.into(), ..message })
    }

    fn message(topic: &str, payload: &[u8]) -> Rc<Message> {
        from(if topic.starts_with('$') { "" } else { "user=plc;a" }, topic, payload)
    }

    fn topics(
        retained: &Retained,
        filter: &str,
        after: Option<&str>,
        most: usize,
        looks: usize,
    ) -> (String, Option<String>) {
        let page = retained.page(filter, after, most, looks);
        let topics: Vec<&str> = page.messages.iter().map(|message| message.topic.as_str()).collect();
        (topics.join(" "), page.after)
    }

    #[test]
    fn an_empty_message_forgets_and_a_row_is_read_as_it_was_written() {
        let mut retained = Retained::default();
        assert!(retained.put(&message("$hw/x", b"1")) && retained.put(&message("y", b"2")));
        let (writes, _) = retained.take_writes(Clocks::default());
        let rows = writes.into_iter().filter_map(|write| match write {
            Write::PutRow { key1, key2, value, .. } => Some(Row { key1, key2, value, revision: 1 }),
            _ => None,
        });
        let mut again = Retained::load(rows.collect(), ROOM, Clocks::default());
        assert_eq!((again.len(), again.is_dirty()), (2, false));
        for (filter, wanted) in [("s/hw/x", message("$hw/x", b"1")), ("u/#", message("y", b"2"))] {
            assert_eq!(again.page(filter, None, 9, 9).messages, [wanted]);
        }
        assert!(again.put(&message("y", b"")));
        assert_eq!(again.len(), 1);
        let (writes, _) = again.take_writes(Clocks::default());
        assert!(matches!(writes.as_slice(), [Write::DeleteRow { key1, .. }] if key1 == "y"));
    }

    #[test]
    fn what_has_expired_while_edgecore_was_down_has_no_share_of_the_budget_and_leaves_the_store() {
        let at = |seconds| Clocks {
            now: Moment(Duration::from_secs(seconds)),
            kept: Duration::from_secs(seconds),
        };
        let short =
            Message { expires: Some(Moment(Duration::from_secs(10))), ..(*message("x", b"1")).clone() };
        let value = message::to_bytes(&short, at(0));
        let load = |seconds| {
            let row = Row { key1: "x".into(), key2: String::new(), value: value.clone(), revision: 1 };
            Retained::load(vec![row], ROOM, at(seconds))
        };
        assert_eq!((load(9).len(), load(9).bytes > 0, load(9).is_dirty()), (1, true, false));
        let mut late = load(10);
        assert_eq!((late.len(), late.bytes), (0, 0));
        assert!(
            matches!(late.take_writes(at(10)).0.as_slice(), [Write::DeleteRow { key1, .. }] if key1 == "x")
        );
    }

    #[test]
    fn a_row_that_no_client_could_have_published_is_left_out() {
        let row = |topic: &str, from: &str| {
            let one = Message { from: from.into(), ..Message::of_node("t".into(), Bytes::new(), 1, true) };
            let value = message::to_bytes(&one, Clocks::default());
            Row { key1: topic.into(), key2: String::new(), value, revision: 1 }
        };
        let load = |rows: Vec<Row>| Retained::load(rows, ROOM, Clocks::default()).len();
        let spoofed = "$hw/events/node/edge-1/membership/updated";
        let short = Row { value: vec![1, 9, b'x'], ..row("b", "") };
        assert_eq!(load(vec![row(spoofed, "a"), row("$SYS/x", "a"), row("a/+", ""), short]), 0);
        assert_eq!(load(vec![row(spoofed, ""), row("a", "a")]), 2);
    }

    #[test]
    fn messages_come_in_pages_and_only_topics_that_begin_like_the_filter_are_looked_at() {
        let mut retained = Retained::default();
        for topic in ["a", "a/1", "a/1/x", "a/2", "ab/1", "b/1", "$hw/1"] {
            retained.put(&message(topic, b"x"));
        }
        let all = |filter: &str| topics(&retained, filter, None, 99, 99).0;
        assert_eq!(all("u/a/#"), "a a/1 a/1/x a/2");
        assert_eq!(
            (all("u/a/+"), all("u/+/1"), all("u/a")),
            ("a/1 a/2".into(), "a/1 ab/1 b/1".into(), "a".into())
        );
        assert_eq!((all("u/#"), all("s/#")), ("a a/1 a/1/x a/2 ab/1 b/1".into(), "$hw/1".into()));
        assert_eq!(
            (all("u/none"), all("u/none/#"), all("s/hw")),
            (String::new(), String::new(), String::new())
        );
        let page = |after, most, looks| topics(&retained, "u/+/1", after, most, looks);
        assert_eq!(page(None, 1, 99), ("a/1".into(), Some("a/1".into())));
        assert_eq!(page(Some("a/1"), 9, 2), (String::new(), Some("a/2".into())));
        assert_eq!(page(Some("a/2"), 9, 9), ("ab/1 b/1".into(), None));
    }

    #[test]
    fn anonymous_clients_keep_no_more_than_their_half() {
        let mut retained = Retained::within(100_000);
        retained.quota(Quotas { users: true });
        let kept = (0..1000).filter(|n| retained.put(&from("n", &format!("{n:03}"), b"x"))).count();
        assert_eq!(kept, 50_000 / (256 + 3 + 1));
        assert!(retained.put(&from("user=plc;a", "users", b"x")) && retained.put(&from("", "nodes", b"x")));
        // What is given up is free again.
        assert!(!retained.put(&from("n", "000", &[0; 300])) && retained.put(&from("n", "again", b"x")));
    }

    #[test]
    fn there_is_a_budget_and_beyond_it_no_stale_message() {
        let mut retained = Retained::within(100 * (256 + 4 + 1));
        for n in 0..100 {
            assert!(retained.put(&message(&format!("$/{n:02}"), b"x")));
        }
        assert!(!retained.put(&message("$/more", b"x")) && retained.put(&message("$/07", b"y")));
        assert!(!retained.put(&message("$/07", &[0; 9])));
        assert_eq!(topics(&retained, "s//07", None, 9, 9).0, "");
    }
}
