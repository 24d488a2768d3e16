//! A session in the store: a row for itself, for each subscription, for each message of QoS 1 or 2 that its client has not
//! acknowledged, and for up to 256 publishes of QoS 2 each that its client has not released (see `qos2.rs`). The row of its will is in `wills.rs`.

use std::collections::VecDeque;
use std::rc::Rc;

use edge_store::{Row, Table, Write};

use super::{Delivery, Flying, Queued, Session, Subscription};
use crate::access::{AuthMethod, Rights};
use crate::message::{self, Clocks, Message};
use crate::{plan, qos2, topic};

/// Which row.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum RowKey {
    Session,
    /// As in [`Session::subscriptions`].
    Subscription(String),
    Message(u64),
    /// One alone by its packet identifier, as an earlier edgecore wrote it.
    OneUnreleased(u16),
    /// Those of one page, see [`qos2::page_of`].
    Unreleased(u8),
}

impl RowKey {
    fn text(&self) -> String {
        match self {
            RowKey::Session => String::new(),
            RowKey::Subscription(filter) => format!("f{filter}"),
            RowKey::Message(seq) => format!("m{seq:016x}"),
            RowKey::OneUnreleased(pkid) => format!("r{pkid:04x}"),
            RowKey::Unreleased(page) => format!("u{page:02x}"),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let Some((kind, rest)) = text.split_at_checked(1) else { return Some(RowKey::Session) };
        Some(match kind {
            "f" => RowKey::Subscription(rest.to_owned()),
            "m" => RowKey::Message(u64::from_str_radix(rest, 16).ok()?),
            "r" => RowKey::OneUnreleased(u16::from_str_radix(rest, 16).ok()?),
            "u" => RowKey::Unreleased(u8::from_str_radix(rest, 16).ok()?),
            _ => return None,
        })
    }
}

impl Session {
    /// A row is to be written, and somebody waits for it.
    pub(crate) fn soil(&mut self, key: RowKey) {
        if self.is_persistent() {
            self.dirty.insert(key);
            self.urgent = true;
        }
    }

    /// All rows are to be written: the session outlives its connection from now on, or for another time.
    pub(crate) fn soil_all(&mut self) {
        self.soil(RowKey::Session);
        let subscriptions: Vec<String> = self.subscriptions.keys().cloned().collect();
        subscriptions.into_iter().for_each(|filter| self.soil(RowKey::Subscription(filter)));
        let outlives = |queued: &&Queued| super::outlives(queued.delivery.qos, queued.delivery.kept);
        let queued = self.queue.iter().filter(outlives);
        let all: Vec<u64> =
            queued.map(|queued| queued.seq).chain(self.inflight.iter().map(|it| it.seq)).collect();
        all.into_iter().for_each(|seq| self.soil(RowKey::Message(seq)));
        self.unreleased.pages().into_iter().for_each(|page| self.soil(RowKey::Unreleased(page)));
    }

    /// Whether the store has to take something, and whether somebody waits for it.
    pub(crate) fn to_store(&self) -> (bool, bool) {
        let any = self.is_persistent() && !self.dirty.is_empty();
        (any, any && self.urgent)
    }

    /// What the store has to take, and which rows these are.
    pub(crate) fn take_writes(&mut self, client: &str, clocks: Clocks, into: &mut Vec<Write>) -> Vec<RowKey> {
        if !self.is_persistent() {
            return Vec::new();
        }
        self.urgent = false;
        self.handed = self.last_seq;
        let keys: Vec<RowKey> = std::mem::take(&mut self.dirty).into_iter().collect();
        for key in &keys {
            let value = self.value(key, clocks);
            if let RowKey::Message(seq) = key {
                let had = if value.is_some() { !self.stored.insert(*seq) } else { self.stored.remove(seq) };
                if value.is_none() && !had {
                    continue;
                }
            }
            let (table, key1, key2) = (Table::MqttSessions, client.to_owned(), key.text());
            into.push(match value {
                Some(value) => Write::PutRow { table, key1, key2, value },
                None => Write::DeleteRow { table, key1, key2 },
            });
        }
        keys
    }

    /// The store has what it was handed last.
    pub(crate) fn written(&mut self) {
        if self.committed != self.handed {
            self.committed = self.handed;
            self.wake();
        }
    }

    /// The store did not take these. Until it takes some again no message waits for it.
    pub(crate) fn not_written(&mut self, keys: Vec<RowKey>) {
        self.committed = u64::MAX;
        self.wake();
        for key in &keys {
            // Whether there is a row nobody knows; to delete one that is not there is no error.
            if let RowKey::Message(seq) = key {
                self.stored.insert(*seq);
            }
        }
        self.urgent = true;
        self.dirty.extend(keys);
    }

    fn value(&self, key: &RowKey, clocks: Clocks) -> Option<Vec<u8>> {
        match key {
            RowKey::Session => {
                Some([self.expiry.to_be_bytes().as_slice(), &[auth_code(&self.auth_method)]].concat())
            }
            RowKey::Subscription(filter) => {
                let Subscription { qos, no_local, retain_as_published, id } =
                    self.subscriptions.get(filter)?;
                let options = qos | u8::from(*no_local) << 2 | u8::from(*retain_as_published) << 3;
                Some([&[options], id.unwrap_or_default().to_be_bytes().as_slice()].concat())
            }
            RowKey::Message(seq) => {
                if let Ok(place) = self.queue.binary_search_by_key(seq, |queued| queued.seq) {
                    return self.queue.get(place).map(|queued| queued.value(queued.pkid, clocks));
                }
                let flying = self.inflight.iter().find(|flying| flying.seq == *seq)?;
                Some(match &flying.queued {
                    Some(queued) => queued.value(Some(flying.pkid), clocks),
                    None => [&[RELEASED], flying.pkid.to_be_bytes().as_slice()].concat(),
                })
            }
            RowKey::OneUnreleased(_) => None,
            RowKey::Unreleased(page) => self.unreleased.row(*page),
        }
    }
}

/// What proved who its client is, in the row of a session.
pub(super) fn auth_code(auth_method: &AuthMethod) -> u8 {
    match auth_method {
        AuthMethod::None => 0,
        AuthMethod::Password(_) | AuthMethod::Restored => 1,
        AuthMethod::Certificate => 2,
    }
}

/// The first byte of the row of a message that its client has received, and has only to release.
const RELEASED: u8 = 0xff;

impl Queued {
    /// QoS and RETAIN, packet identifier or 0, subscription identifiers, topic, message.
    fn value(&self, pkid: Option<u16>, clocks: Clocks) -> Vec<u8> {
        let Delivery { qos, retain, ids, .. } = &self.delivery;
        let mut value = vec![qos | u8::from(*retain) << 2];
        value.extend(pkid.unwrap_or_default().to_be_bytes());
        value.push(u8::try_from(ids.len()).unwrap_or(u8::MAX));
        for id in ids.iter().take(usize::from(u8::MAX)) {
            value.extend(id.to_be_bytes());
        }
        // Topics are capped at 1 KiB when they come in.
        value.extend(u16::try_from(self.message.topic.len()).unwrap_or_default().to_be_bytes());
        value.extend(self.message.topic.as_bytes());
        value.extend(message::to_bytes(&self.message, clocks));
        value
    }
}

fn read_message(value: &[u8], clocks: Clocks) -> Option<(Message, Delivery, u16)> {
    let ([flags, high, low, count], mut rest) = value.split_first_chunk::<4>()?;
    let mut ids = Vec::new();
    for _ in 0..*count {
        let (id, more) = rest.split_first_chunk()?;
        ids.push(u32::from_be_bytes(*id));
        rest = more;
    }
    let (length, rest) = rest.split_first_chunk()?;
    let (topic, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
    let message = message::from_bytes(std::str::from_utf8(topic).ok()?, rest, clocks)?;
    let qos = flags & 3;
    let delivery = Delivery { qos, retain: flags & 4 != 0, ids, kept: false };
    matches!(qos, 1 | 2).then_some((message, delivery, u16::from_be_bytes([*high, *low])))
}

fn read_subscription(filter: &str, value: &[u8]) -> Option<Subscription> {
    let ([options], id) = value.split_first_chunk::<1>()?;
    let id = u32::from_be_bytes(*id.first_chunk()?);
    let plain = filter.strip_prefix("$share/").and_then(|shared| shared.split_once('/')).map(|(_, it)| it);
    let plain = topic::from_router_form(plain.unwrap_or(filter))?;
    let ours = topic::filter_defect(&plain).is_none() && options & 3 < 3;
    ours.then(|| Subscription {
        qos: options & 3,
        no_local: options & 4 != 0,
        retain_as_published: options & 8 != 0,
        id: (id > 0).then_some(id),
    })
}

/// A session that the store has, and how many of its rows are none.
pub(crate) struct Restored {
    pub(crate) session: Session,
    pub(crate) strange: usize,
}

impl Restored {
    /// Of the rows of one client; `None` if that of the session itself is missing.
    pub(crate) fn read(rows: &[Row], rights: Rights, clocks: Clocks) -> Option<Self> {
        let mut all: Vec<(RowKey, &Row)> =
            rows.iter().filter_map(|row| Some((RowKey::parse(&row.key2)?, row))).collect();
        all.sort_by(|(one, _), (other, _)| one.cmp(other));
        let (first, own) = all.first()?;
        let (expiry, by) = own.value.split_first_chunk::<4>()?;
        if *first != RowKey::Session {
            return None;
        }
        let mut session = Session::new(u32::from_be_bytes(*expiry), rights);
        session.dirty.clear();
        session.urgent = false;
        session.auth_method = match by {
            [1] => AuthMethod::Restored,
            [2] => AuthMethod::Certificate,
            _ => AuthMethod::None,
        };
        // What was on its way may have been seen under its identifier, without that being in the store: others are taken.
        let jump = u16::try_from(clocks.kept.as_millis() % 60_000).unwrap_or_default();
        session.last_pkid = jump;
        let (mut strange, mut open) = (rows.len() - all.len(), VecDeque::new());
        for (key, row) in all.iter().skip(1) {
            let known = match key {
                RowKey::Session => None,
                RowKey::Subscription(filter) => read_subscription(filter, &row.value).map(|subscription| {
                    session.subscriptions.insert(filter.clone(), subscription);
                }),
                RowKey::Message(seq) => session.restore_message(*seq, &row.value, clocks, &mut open),
                RowKey::OneUnreleased(pkid) => {
                    session.unreleased.restore_one(*pkid);
                    session.dirty.extend([key.clone(), RowKey::Unreleased(qos2::page_of(*pkid))]);
                    Some(())
                }
                RowKey::Unreleased(page) => {
                    let known = session.unreleased.restore(*page, &row.value);
                    session.dirty.extend(known.is_none().then(|| key.clone()));
                    known
                }
            };
            strange += usize::from(known.is_none());
        }
        session.last_seq = session.stored.last().copied().unwrap_or_default();
        (session.handed, session.committed) = (session.last_seq, session.last_seq);
        session.restore_flying(open);
        Some(Restored { session, strange })
    }
}

impl Session {
    fn restore_message(
        &mut self,
        seq: u64,
        value: &[u8],
        clocks: Clocks,
        open: &mut VecDeque<Queued>,
    ) -> Option<()> {
        self.stored.insert(seq);
        if let [RELEASED, high, low] = value {
            let pkid = u16::from_be_bytes([*high, *low]);
            self.used.insert(pkid);
            self.inflight.push_back(Flying { seq, pkid, qos: 2, is_begun: true, queued: None });
            return Some(());
        }
        let Some((message, delivery, pkid)) = read_message(value, clocks) else {
            self.dirty.insert(RowKey::Message(seq));
            return None;
        };
        if message.is_expired(clocks.now) {
            self.dirty.insert(RowKey::Message(seq));
            return Some(());
        }
        let pkid = (pkid > 0 && self.used.insert(pkid)).then_some(pkid);
        open.push_back(Queued { seq, message: Rc::new(message), delivery, pkid });
        Some(())
    }

    /// The first ones may have been on their way: they are sent again as such.
    fn restore_flying(&mut self, open: VecDeque<Queued>) {
        for mut queued in open {
            if self.inflight.len() < plan::INFLIGHT && self.queue.is_empty() {
                let pkid = queued.pkid.take().unwrap_or_else(|| self.free_pkid());
                self.flying += queued.message.size();
                let (seq, qos) = (queued.seq, queued.delivery.qos);
                self.inflight.push_back(Flying { seq, pkid, qos, is_begun: false, queued: Some(queued) });
            } else {
                self.bytes += queued.message.size();
                self.queue.push_back(queued);
            }
        }
    }
}
