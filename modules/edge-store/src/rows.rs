//! What goes in and what comes out.

use apimachinery::ObjectKey;
use contract::report::OutboxQueue;

/// An object as the cloud sent it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredObject {
    /// Which object.
    pub key: ObjectKey,
    /// `metadata.uid`.
    pub uid: String,
    /// What the content comes to, as the cloud says: compared for equality only.
    pub content_hash: String,
    /// `metadata.resourceVersion` as the API server gave it: it moves with every write there, also with those that leave
    /// the content as it is for a node.
    pub resource_version: String,
    /// The bytes that the cloud sent.
    pub json: Vec<u8>,
    /// The store's revision at which this version was committed.
    pub revision: u64,
}

/// What a store has under the key of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup {
    /// The object.
    Found(StoredObject),
    /// A row that cannot be read: whether the object is wanted is not known.
    Damaged,
    /// Nothing.
    Absent,
}

/// How rows of the outbox treat their older siblings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Newest per key: a later one takes the place of an earlier one, under a new seq.
    Status,
    /// Appended; each one counts.
    Event,
    /// Appended; each one counts.
    Telemetry,
}

impl Class {
    /// The word that stands in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Class::Status => "status",
            Class::Event => "event",
            Class::Telemetry => "telemetry",
        }
    }

    pub(crate) fn parse(word: &str) -> Option<Self> {
        [Class::Status, Class::Event, Class::Telemetry].into_iter().find(|class| class.as_str() == word)
    }
}

/// Rows of a kind that this release does not know, as a newer one leaves them that was rolled back. They are kept and
/// nobody reads them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnknownRows {
    /// Their table in the file.
    pub table: &'static str,
    /// Their kind, or queue and class of a report.
    pub kind: String,
    /// How many there were when the store was opened.
    pub rows: u64,
}

/// One report that the cloud has not confirmed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxRow {
    /// Never used twice in one file. A status that is replaced gets a new one.
    pub seq: i64,
    /// The queue that it leaves in.
    pub queue: OutboxQueue,
    /// The row's class.
    pub class: Class,
    /// What the report is about.
    pub key: String,
    /// The report.
    pub body: Vec<u8>,
}

/// The tables of plain rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// A twin: (device, property).
    Twins,
    /// The state of a device: (device, "").
    DeviceStates,
    /// A registered mapper: (name, "").
    Mappers,
    /// A retained MQTT message: (topic, "").
    Retained,
    /// An MQTT session that outlives its connection: (client, ""); and its subscriptions and messages: (client, what). The will of an MQTT
    /// client, whether it has such a session or not: (client, "w").
    MqttSessions,
    /// A service-account token: (what it was asked for, "").
    Tokens,
    /// The status of a pod as it was reported last: (uid, ""); and how long it has been active: (uid, "active").
    PodStatuses,
    /// What a pod has of the node's devices, CPUs and memory: (uid, ""); and which devices there were: ("", resource).
    Allocations,
    /// Facts of the node itself.
    Facts,
}

impl Table {
    pub(crate) const ALL: [Table; 9] = [
        Table::Twins,
        Table::DeviceStates,
        Table::Mappers,
        Table::Retained,
        Table::MqttSessions,
        Table::Tokens,
        Table::PodStatuses,
        Table::Allocations,
        Table::Facts,
    ];

    /// The word that stands in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Table::Twins => "twins",
            Table::DeviceStates => "device_state",
            Table::Mappers => "mappers",
            Table::Retained => "mqtt_retained",
            Table::MqttSessions => "mqtt_session",
            Table::Tokens => "tokens",
            Table::PodStatuses => "pod_status",
            Table::Allocations => "allocations",
            Table::Facts => "facts",
        }
    }

    pub(crate) fn parse(word: &str) -> Option<Self> {
        Table::ALL.into_iter().find(|table| table.as_str() == word)
    }
}

/// A row of one of the plain tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// First part of the key.
    pub key1: String,
    /// Second part of the key; may be empty.
    pub key2: String,
    /// What was put. Its layout, and the version of it, are the business of the module.
    pub value: Vec<u8>,
    /// The store's revision at which it was put.
    pub revision: u64,
}

/// One step of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Holds this version of an object in place of any other.
    PutObject {
        /// Which object.
        key: ObjectKey,
        /// Its uid.
        uid: String,
        /// What its content comes to.
        content_hash: String,
        /// Its resourceVersion, as the API server gave it.
        resource_version: String,
        /// Its bytes.
        json: Vec<u8>,
    },
    /// Forgets an object; one that is not there is no error.
    DeleteObject {
        /// Which object.
        key: ObjectKey,
        /// With a uid only the object that has it goes. A row that fails its checksum goes in any case.
        uid: Option<String>,
    },
    /// Puts a plain row in place of any other under its keys.
    PutRow {
        /// Its table.
        table: Table,
        /// First part of the key.
        key1: String,
        /// Second part of the key; may be empty.
        key2: String,
        /// The value.
        value: Vec<u8>,
    },
    /// Deletes a plain row; one that is not there is no error.
    DeleteRow {
        /// Its table.
        table: Table,
        /// First part of the key.
        key1: String,
        /// Second part of the key.
        key2: String,
    },
    /// Deletes all plain rows under a first key.
    DeleteRows {
        /// Their table.
        table: Table,
        /// First part of their keys.
        key1: String,
    },
    /// Puts a report into the outbox.
    Enqueue {
        /// The queue that it leaves in.
        queue: OutboxQueue,
        /// Its class.
        class: Class,
        /// What it is about.
        key: String,
        /// The report.
        body: Vec<u8>,
    },
    /// Deletes reports that the cloud confirmed: exactly these rows, and none that replaced them.
    Confirm {
        /// Their seqs.
        seqs: Vec<i64>,
    },
}

/// The answer to a batch that is on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Committed {
    /// The store's revision after the batch. An empty batch leaves it as it is.
    pub revision: u64,
}
