//! Wills that are still to be published, and their rows in the store: that of a client that is connected, and one that waits for its
//! delay. Pure.
//!
//! Each has one row beside those of its client's session, or alone where no session outlives its connection. It is written at CONNECT and
//! goes when the will is dropped, or when what it said is where an acknowledged publish would be. A client that comes again with the same
//! will, and one without a will, costs nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use bytes::Bytes;
use edge_store::{Row, Table, Write};

use crate::access::Proof;
use crate::packet::{Publish, Will};
use crate::peer::Chain;
use crate::quotas::{Quotas, Usage};
use crate::{identity, plan, topic};

/// The row's second key; those of the session's own rows begin otherwise.
const KEY: &str = "w";
/// What a row begins with. Another layout is another version.
const VERSION: u8 = 1;
/// Beside the QoS in the second byte.
const RETAIN: u8 = 1 << 2;
const BY_PASSWORD: u8 = 1 << 3;
const EXPIRES: u8 = 1 << 4;
/// The certificates of its client stand before what it says.
const CERTIFIED: u8 = 1 << 5;
/// What a row takes beside what it says.
const OVERHEAD: usize = 256;

type ClientId = Rc<str>;

/// See the module.
#[derive(Default)]
pub(crate) struct Wills {
    kept: BTreeMap<ClientId, Kept>,
    /// Clients whose row is not what is kept here.
    dirty: BTreeSet<ClientId>,
    /// Of those, some are to be written, and not only deleted.
    urgent: bool,
    /// Clients that have a row.
    stored: BTreeSet<ClientId>,
    quotas: Quotas,
    bytes: usize,
    bytes_of: Usage,
}

struct Kept {
    will: Rc<Will>,
    /// What proved who its client is.
    proof: Proof,
}

impl Kept {
    fn weight(&self) -> usize {
        let Publish { topic, payload, properties, .. } = &self.will.publish;
        let certificates = match &self.proof {
            Proof::Certificate(chain) => chain.iter().map(Vec::len).sum(),
            Proof::None | Proof::Password => 0,
        };
        OVERHEAD + topic.len() + payload.len() + properties.len() + certificates
    }
}

impl Wills {
    /// Shared like that from now on.
    pub(crate) fn quota(&mut self, quotas: Quotas) {
        self.quotas = quotas;
    }

    /// Keeps the will of a client that comes, in the place of what it left before. Says whether there was room.
    pub(crate) fn put(&mut self, client: &ClientId, will: Rc<Will>, proof: Proof) -> bool {
        let fresh = Kept { will, proof };
        let is_known = |old: &Kept| old.will == fresh.will && old.proof == fresh.proof;
        let is_known = self.kept.get(client).is_some_and(is_known);
        let had = self.take(client);
        let (owner, size) = (identity::owner(client), fresh.weight());
        let quota = self.quotas.quota(&owner, plan::WILL_BYTES);
        if self.bytes_of.of(&owner) + size > quota || self.bytes + size > plan::WILL_BYTES {
            if had {
                self.dirty.insert(Rc::clone(client));
            }
            return false;
        }
        self.insert(client, fresh);
        if !is_known {
            self.dirty.insert(Rc::clone(client));
            self.urgent = true;
        }
        true
    }

    /// Nothing of a client is to be published any more.
    pub(crate) fn remove(&mut self, client: &ClientId) {
        if self.take(client) {
            self.dirty.insert(Rc::clone(client));
        }
    }

    /// This will of a client is published or dropped. One that it has left since stays.
    pub(crate) fn done(&mut self, client: &ClientId, will: &Rc<Will>) {
        if self.kept.get(client).is_some_and(|kept| Rc::ptr_eq(&kept.will, will)) {
            self.remove(client);
        }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.kept.len()
    }

    /// What a client has left, and what proved who it is.
    pub(crate) fn get(&self, client: &ClientId) -> Option<(&Rc<Will>, &Proof)> {
        self.kept.get(client).map(|kept| (&kept.will, &kept.proof))
    }

    /// Takes up the row of an earlier run. One that cannot be read is to be deleted.
    pub(crate) fn restore(&mut self, client: &ClientId, row: &Row) -> Option<Rc<Will>> {
        self.stored.insert(Rc::clone(client));
        let Some((will, proof)) = from_bytes(&row.value) else {
            self.dirty.insert(Rc::clone(client));
            return None;
        };
        let will = Rc::new(will);
        // An earlier edgecore kept no certificates.
        let is_users = identity::parts(client).0.is_some();
        let proof =
            if proof == Proof::None && is_users { Proof::Certificate(Chain::default()) } else { proof };
        self.insert(client, Kept { will: Rc::clone(&will), proof });
        Some(will)
    }

    /// Whether there is something for the store, and whether that is more than to delete.
    pub(crate) fn to_store(&self) -> (bool, bool) {
        (!self.dirty.is_empty(), self.urgent)
    }

    /// What the store has to take, and of which clients. It deletes all rows of `forgotten` before.
    pub(crate) fn take_writes(&mut self, forgotten: &[ClientId], into: &mut Vec<Write>) -> Vec<ClientId> {
        self.dirty.extend(forgotten.iter().filter(|client| self.kept.contains_key(*client)).map(Rc::clone));
        self.urgent = false;
        let clients: Vec<ClientId> = std::mem::take(&mut self.dirty).into_iter().collect();
        for client in &clients {
            let (table, key1, key2) = (Table::MqttSessions, client.to_string(), KEY.to_owned());
            if let Some(Kept { will, proof }) = self.kept.get(client) {
                self.stored.insert(Rc::clone(client));
                into.push(Write::PutRow { table, key1, key2, value: to_bytes(will, proof) });
            } else if self.stored.remove(client) {
                into.push(Write::DeleteRow { table, key1, key2 });
            }
        }
        clients
    }

    /// The store did not take these: they are to be tried again.
    pub(crate) fn not_written(&mut self, clients: Vec<ClientId>) {
        self.urgent |= !clients.is_empty();
        // Whether there is a row nobody knows; to delete one that is not there is no error.
        self.stored.extend(clients.iter().map(Rc::clone));
        self.dirty.extend(clients);
    }

    fn insert(&mut self, client: &ClientId, kept: Kept) {
        let size = kept.weight();
        self.bytes += size;
        self.bytes_of.add(&identity::owner(client), size);
        self.kept.insert(Rc::clone(client), kept);
    }

    /// Says whether there was one.
    fn take(&mut self, client: &ClientId) -> bool {
        let Some(old) = self.kept.remove(client) else { return false };
        let size = old.weight();
        self.bytes = self.bytes.saturating_sub(size);
        self.bytes_of.take(&identity::owner(client), size);
        true
    }
}

/// Whether a row of [`Table::MqttSessions`] is a will.
pub(crate) fn is_will(row: &Row) -> bool {
    row.key2 == KEY
}

/// Version; QoS, RETAIN, what proved its client, whether it expires; delay and expiry in seconds; topic; properties; of a client with
/// certificates their number, and each with its length; payload.
fn to_bytes(will: &Will, proof: &Proof) -> Vec<u8> {
    let Publish { topic, payload, qos, retain, expiry, properties, .. } = &will.publish;
    let flag = |is_set: bool, bit: u8| if is_set { bit } else { 0 };
    let proved = match proof {
        Proof::None => 0,
        Proof::Password => BY_PASSWORD,
        Proof::Certificate(_) => CERTIFIED,
    };
    let flags = qos | flag(*retain, RETAIN) | proved | flag(expiry.is_some(), EXPIRES);
    let mut bytes = Vec::with_capacity(16 + topic.len() + properties.len() + payload.len());
    bytes.extend([VERSION, flags]);
    bytes.extend(will.delay.to_be_bytes());
    bytes.extend(expiry.unwrap_or_default().to_be_bytes());
    // Topics are capped at 1 KiB when they come in, and properties with their packet.
    bytes.extend(u16::try_from(topic.len()).unwrap_or_default().to_be_bytes());
    bytes.extend(topic.as_bytes());
    bytes.extend(u32::try_from(properties.len()).unwrap_or_default().to_be_bytes());
    bytes.extend(properties);
    if let Proof::Certificate(chain) = proof {
        // Together they are capped at 8 KiB at the handshake.
        bytes.push(u8::try_from(chain.len()).unwrap_or_default());
        for one in chain.iter().take(u8::MAX.into()) {
            bytes.extend(u16::try_from(one.len()).unwrap_or_default().to_be_bytes());
            bytes.extend(one);
        }
    }
    bytes.extend(payload);
    bytes
}

/// The will of [`to_bytes`], if it is one, and what proved its client.
fn from_bytes(bytes: &[u8]) -> Option<(Will, Proof)> {
    let ([version, flags], rest) = bytes.split_first_chunk()?;
    let (delay, rest) = rest.split_first_chunk()?;
    let (expiry, rest) = rest.split_first_chunk()?;
    let (length, rest) = rest.split_first_chunk()?;
    let (name, rest) = rest.split_at_checked(u16::from_be_bytes(*length).into())?;
    let (length, rest) = rest.split_first_chunk()?;
    let (properties, rest) = rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
    let (proof, payload) = match flags & (BY_PASSWORD | CERTIFIED) {
        0 => (Proof::None, rest),
        BY_PASSWORD => (Proof::Password, rest),
        CERTIFIED => chain(rest).map(|(chain, payload)| (Proof::Certificate(chain), payload))?,
        _ => return None,
    };
    let (name, qos) = (std::str::from_utf8(name).ok()?, flags & 3);
    let is_ours = *version == VERSION && qos < 3 && *flags < CERTIFIED << 1;
    if !is_ours || topic::name_defect(name).is_some() {
        return None;
    }
    let publish = Publish {
        topic: name.to_owned(),
        payload: Bytes::copy_from_slice(payload),
        qos,
        retain: flags & RETAIN != 0,
        dup: false,
        pkid: 0,
        alias: None,
        expiry: (flags & EXPIRES != 0).then_some(u32::from_be_bytes(*expiry)),
        properties: Bytes::copy_from_slice(properties),
    };
    Some((Will { publish, delay: u32::from_be_bytes(*delay) }, proof))
}

/// Certificates, and what stands behind them.
fn chain(bytes: &[u8]) -> Option<(Chain, &[u8])> {
    let (count, mut rest) = bytes.split_first()?;
    let mut all = Vec::new();
    for _ in 0..*count {
        let (length, more) = rest.split_first_chunk()?;
        let (one, behind) = more.split_at_checked(u16::from_be_bytes(*length).into())?;
        all.push(one.to_vec());
        rest = behind;
    }
    Some((all.into(), rest))
}

#[cfg(test)]
mod tests;
