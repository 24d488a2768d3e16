//! The rows of the file as version 1 of it has them: which columns there are, and in which order a sum goes over them.
//!
//! Frozen: `tests/layout.rs` holds rows and sums of this version byte by byte. What the crate hands out and takes
//! ([`crate::StoredObject`], [`crate::Row`], [`crate::OutboxRow`]) is made of these structs and turned into them, so that
//! a change of the one leaves the other alone. Another layout is another version, with a migration in `schema.rs`.

use crate::{Class, ObjectKey, OutboxQueue, OutboxRow, Row, StoredObject, Table};

/// The tables as they stand in the file, in sums and in [`crate::DamagedRow`].
pub(crate) const OBJECTS_TABLE: &str = "objects";
pub(crate) const ROWS_TABLE: &str = "module_rows";
pub(crate) const OUTBOX_TABLE: &str = "outbox";

/// How many columns of each table, from the first on, are its key.
pub(crate) const KEY_WIDTH: usize = 3;

/// How many columns of each table a sum goes over, the value among them.
pub(crate) const OBJECT_SUMMED: usize = 7;
pub(crate) const MODULE_ROW_SUMMED: usize = 4;
pub(crate) const OUTBOX_SUMMED: usize = 4;

/// A word of a row that this release may not know: a newer one wrote it, and will be back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum KnownOrUnknown<T> {
    Known(T),
    Unknown(String),
}

/// `objects`, version 1. The value, `json`, stands behind these columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ObjectColumns<'a> {
    pub(crate) resource: &'a str,
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
    pub(crate) uid: &'a str,
    pub(crate) content_hash: &'a str,
    pub(crate) resource_version: &'a str,
}

impl<'a> ObjectColumns<'a> {
    pub(crate) fn of(
        key: &'a ObjectKey,
        uid: &'a str,
        content_hash: &'a str,
        resource_version: &'a str,
    ) -> Self {
        let ObjectKey { resource, namespace, name } = key;
        ObjectColumns { resource, namespace, name, uid, content_hash, resource_version }
    }

    /// `None`: a column is not UTF-8.
    pub(crate) fn read(columns: &[&'a [u8]; OBJECT_SUMMED]) -> Option<Self> {
        let [resource, namespace, name, uid, content_hash, resource_version, _] = columns.map(text);
        Some(ObjectColumns {
            resource: resource?,
            namespace: namespace?,
            name: name?,
            uid: uid?,
            content_hash: content_hash?,
            resource_version: resource_version?,
        })
    }

    pub(crate) fn bytes(&self) -> [&'a [u8]; OBJECT_SUMMED - 1] {
        [self.resource, self.namespace, self.name, self.uid, self.content_hash, self.resource_version]
            .map(str::as_bytes)
    }

    pub(crate) fn object(&self, json: Vec<u8>, revision: u64) -> StoredObject {
        StoredObject {
            key: ObjectKey::new(self.resource, self.namespace, self.name),
            uid: self.uid.to_owned(),
            content_hash: self.content_hash.to_owned(),
            resource_version: self.resource_version.to_owned(),
            json,
            revision,
        }
    }
}

/// `module_rows`, version 1. The value stands behind these columns; its layout is the business of the module that put it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ModuleRowColumns<'a> {
    pub(crate) kind: &'a str,
    pub(crate) key1: &'a str,
    pub(crate) key2: &'a str,
}

impl<'a> ModuleRowColumns<'a> {
    /// `None`: a column is not UTF-8.
    pub(crate) fn read(columns: &[&'a [u8]; MODULE_ROW_SUMMED]) -> Option<Self> {
        let [kind, key1, key2, _] = columns.map(text);
        Some(ModuleRowColumns { kind: kind?, key1: key1?, key2: key2? })
    }

    pub(crate) fn bytes(&self) -> [&'a [u8]; MODULE_ROW_SUMMED - 1] {
        [self.kind, self.key1, self.key2].map(str::as_bytes)
    }

    pub(crate) fn table(&self) -> KnownOrUnknown<Table> {
        Table::parse(self.kind)
            .map_or_else(|| KnownOrUnknown::Unknown(self.kind.to_owned()), KnownOrUnknown::Known)
    }

    pub(crate) fn row(&self, value: Vec<u8>, revision: u64) -> Row {
        Row { key1: self.key1.to_owned(), key2: self.key2.to_owned(), value, revision }
    }
}

/// `outbox`, version 1. The body stands behind these columns; its layout is the business of `contract`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OutboxColumns<'a> {
    pub(crate) queue: &'a str,
    pub(crate) class: &'a str,
    pub(crate) key: &'a str,
}

impl<'a> OutboxColumns<'a> {
    pub(crate) fn of(queue: OutboxQueue, class: Class, key: &'a str) -> Self {
        OutboxColumns { queue: queue_name(queue), class: class.as_str(), key }
    }

    /// `None`: a column is not UTF-8.
    pub(crate) fn read(columns: &[&'a [u8]; OUTBOX_SUMMED]) -> Option<Self> {
        let [queue, class, key, _] = columns.map(text);
        Some(OutboxColumns { queue: queue?, class: class?, key: key? })
    }

    pub(crate) fn bytes(&self) -> [&'a [u8]; OUTBOX_SUMMED - 1] {
        [self.queue, self.class, self.key].map(str::as_bytes)
    }

    /// The report; its queue or class may be one that this release does not know.
    pub(crate) fn report(&self, seq: i64, body: &[u8]) -> KnownOrUnknown<OutboxRow> {
        match (queue_by_name(self.queue), Class::parse(self.class)) {
            (Some(queue), Some(class)) => {
                let (key, body) = (self.key.to_owned(), body.to_vec());
                KnownOrUnknown::Known(OutboxRow { seq, queue, class, key, body })
            }
            (None, _) | (_, None) => KnownOrUnknown::Unknown(format!("{}/{}", self.queue, self.class)),
        }
    }
}

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

/// The word of a queue in the file.
pub(crate) fn queue_name(queue: OutboxQueue) -> &'static str {
    match queue {
        OutboxQueue::Node => "node",
        OutboxQueue::Devices => "devices",
        OutboxQueue::Telemetry => "telemetry",
        OutboxQueue::Rules => "rules",
        OutboxQueue::Tasks => "tasks",
    }
}

fn queue_by_name(word: &str) -> Option<OutboxQueue> {
    OutboxQueue::ALL.into_iter().find(|queue| queue_name(*queue) == word)
}
