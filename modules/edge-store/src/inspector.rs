//! A look into the file for a person: read-only, beside a running EdgeCore or without one.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use apimachinery::resource;
use rusqlite::Connection;

use crate::error::{is_not_ours, is_of_disk};
use crate::files::{beside, check_regular, size};
use crate::layout::{
    KnownOrUnknown, MODULE_ROW_SUMMED, OBJECT_SUMMED, OBJECTS_TABLE, OUTBOX_TABLE, ROWS_TABLE,
};
use crate::node_key::{KeyFile, NodeKey};
use crate::read::{self, IntactRow};
use crate::schema::{self, Meta, SchemaError};
use crate::soundness::header;
use crate::state::Damage;
use crate::{StoreError, Table, connection, kubeedge, plan};

/// The resources whose objects a node is given.
const RESOURCES: [&str; 14] = [
    resource::CONFIG_MAPS,
    resource::CSI_DRIVERS,
    resource::DEVICES,
    resource::DEVICE_MODELS,
    resource::NODES,
    resource::PERSISTENT_VOLUME_CLAIMS,
    resource::PERSISTENT_VOLUMES,
    resource::PODS,
    resource::RULES,
    resource::RULE_ENDPOINTS,
    resource::RUNTIME_CLASSES,
    resource::SECRETS,
    resource::SERVICES,
    resource::VOLUME_ATTACHMENTS,
];

/// One row, without its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InspectedRow {
    /// An object's resource or a row of a module's table.
    pub class: String,
    /// The key below it: namespace and name of an object, both parts of a row of a module's key.
    pub key: (String, String),
    /// An object's resourceVersion, or `#` and the store's revision at which a row of a module was put.
    pub version: String,
    /// What an object's content comes to; empty for other rows.
    pub content_hash: String,
    /// Bytes of the value as it stands in the file.
    pub size: usize,
    /// Whether the value is sealed.
    pub sealed: bool,
    /// Whether it is one that has to be sealed, and so is not for every eye.
    pub secret: bool,
    /// Whether this release knows its kind; one that it does not know was written by a newer one.
    pub known: bool,
    /// What is wrong with the row.
    pub damage: Option<Damage>,
    /// The value, if it was asked for and can be read. Secrets are in the open here.
    pub value: Option<Vec<u8>>,
}

/// One report that waits for the cloud, without its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InspectedReport {
    /// Its place in the outbox.
    pub seq: i64,
    /// The queue that it leaves in.
    pub queue: String,
    /// Its class.
    pub class: String,
    /// What it is about.
    pub key: String,
    /// Bytes of its body.
    pub size: usize,
    /// When it was queued, in seconds since 1970; `None` if that was not noted.
    pub queued: Option<i64>,
    /// Whether this release knows its queue and class.
    pub known: bool,
    /// What is wrong with the row.
    pub damage: Option<Damage>,
}

/// A store that is looked at by somebody who does not own it.
#[derive(Debug)]
pub struct StoreInspector {
    path: PathBuf,
    conn: Connection,
    node_key: NodeKey,
    key: KeyFile,
    meta: Meta,
}

impl StoreInspector {
    /// Opens the store at `path` for a look. Nothing is written and nobody is kept waiting.
    ///
    /// # Errors
    /// When there is no file, it is no store, or it cannot be read.
    pub fn open(path: impl AsRef<Path>) -> Result<StoreInspector, StoreError> {
        let path = path.as_ref().to_owned();
        if !path.exists() {
            return Err(StoreError::Missing { path });
        }
        check_regular(&path)?;
        let not_ours = |reason| StoreError::NotAStore { path: path.clone(), reason };
        if size(&path)? == 0 {
            let had_one = NodeKey::new(&path).path().exists();
            let beside = if had_one { ", though its key lies beside it: what it held is lost" } else { "" };
            return Err(not_ours(format!("it is empty{beside}")));
        }
        if let Some(reason) = header(&path)? {
            return Err(not_ours(reason));
        }
        if kubeedge::is_kubeedges(&path) {
            return Err(StoreError::OfKubeEdge { path });
        }
        let (conn, meta) = connect(&path).map_err(|unfit| match unfit {
            SchemaError::Broken(reason) => not_ours(reason),
            SchemaError::OtherNode(of) => not_ours(format!("it is node `{of}`'s")),
            SchemaError::Sql(error) if is_not_ours(&error) => not_ours(error.to_string()),
            SchemaError::Sql(error) => StoreError::sqlite(&path, error),
        })?;
        let node_key = NodeKey::new(&path);
        let key = node_key.load()?;
        Ok(StoreInspector { path, conn, node_key, key, meta })
    }

    /// The revision of the last commit.
    pub fn revision(&self) -> u64 {
        self.meta.revision
    }

    /// The node that the store is of; `None` where it names none that can be read.
    pub fn node(&self) -> Option<String> {
        schema::noted_node(&self.conn).ok().flatten()
    }

    /// What is wrong with the node key; `None` if it is there.
    pub fn key_trouble(&self) -> Option<String> {
        let path = self.node_key.path().display();
        match self.key {
            KeyFile::Kept => None,
            KeyFile::Missing => {
                Some(format!("the node key {path} does not exist: sealed rows cannot be opened"))
            }
            KeyFile::Unreadable => Some(format!("{path} holds no node key: sealed rows cannot be opened")),
        }
    }

    /// Objects and row of a modules by their keys; with `kind` those of a resource or table, with `name` those of that name,
    /// and with `values` what they hold.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn entries(
        &self,
        kind: Option<&str>,
        name: Option<&str>,
        values: bool,
    ) -> Result<Vec<InspectedRow>, StoreError> {
        let mut entries = Vec::new();
        self.each(values, |entry| {
            if is_kind(&entry.class, kind) && is_named(&entry.key, name) {
                entries.push(entry);
            }
        })
        .map_err(|e| StoreError::sqlite(&self.path, e))?;
        Ok(entries)
    }

    /// The kinds that can be asked for, without their groups: those that a store may have, and what a newer release has put into this one.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn kinds(&self) -> Result<BTreeSet<String>, StoreError> {
        let known = RESOURCES.into_iter().chain(Table::ALL.map(Table::as_str)).chain([InspectedReport::KIND]);
        let mut kinds: BTreeSet<String> = known.map(|class| word(class).to_owned()).collect();
        self.each(false, |entry| {
            kinds.insert(word(&entry.class).to_owned());
        })
        .map_err(|error| StoreError::sqlite(&self.path, error))?;
        Ok(kinds)
    }

    fn each(&self, values: bool, mut keep: impl FnMut(InspectedRow)) -> rusqlite::Result<()> {
        let mut statement = self.conn.prepare(read::ALL_OBJECTS)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            keep(self.object(row, values)?);
        }
        let mut statement = self.conn.prepare(read::ALL_ROWS)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            keep(self.row(row, values)?);
        }
        Ok(())
    }

    /// The reports that wait, oldest first; with `name` those whose key has it in it.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn reports(&self, name: Option<&str>) -> Result<Vec<InspectedReport>, StoreError> {
        let fail = |e| StoreError::sqlite(&self.path, e);
        let mut statement = self.conn.prepare(read::OUTBOX).map_err(fail)?;
        let reports = statement.query_map([], report).map_err(fail)?;
        let named =
            |report: &InspectedReport| name.is_none_or(|name| report.key.split('/').any(|part| part == name));
        let all: rusqlite::Result<Vec<InspectedReport>> = reports.collect();
        Ok(all.map_err(fail)?.into_iter().filter(named).collect())
    }

    fn object(&self, row: &rusqlite::Row<'_>, values: bool) -> rusqlite::Result<InspectedRow> {
        let checked = read::intact::<OBJECT_SUMMED>(row, OBJECTS_TABLE)?;
        let class = text(row, 0);
        let secret = plan::seals_objects(&class);
        let key = (text(row, 1), text(row, 2));
        Ok(self.entry(
            checked.ok(),
            values,
            InspectedRow {
                content_hash: text(row, 4),
                version: text(row, 5),
                ..bare(class, key, length(row, 6), secret)
            },
        ))
    }

    fn row(&self, row: &rusqlite::Row<'_>, values: bool) -> rusqlite::Result<InspectedRow> {
        let checked = read::intact::<MODULE_ROW_SUMMED>(row, ROWS_TABLE)?;
        let class = text(row, 0);
        let table = Table::parse(&class);
        // What a newer release keeps under a kind of its own may be anything.
        let secret = table.is_none_or(plan::seals_rows);
        let version = checked.as_ref().map_or_else(|_| String::new(), |row| format!("#{}", row.stamp()));
        let key = (text(row, 1), text(row, 2));
        let bare = bare(class, key, length(row, 3), secret);
        Ok(self.entry(checked.ok(), values, InspectedRow { version, known: table.is_some(), ..bare }))
    }

    fn entry<const N: usize>(
        &self,
        intact: Option<IntactRow<'_, N>>,
        values: bool,
        entry: InspectedRow,
    ) -> InspectedRow {
        let Some(intact) = intact else {
            return InspectedRow { damage: Some(Damage::Checksum), ..entry };
        };
        let value = intact.value(&self.node_key);
        let damage = match value {
            None => Some(Damage::Sealed),
            Some(_) if entry.secret && entry.known && !intact.sealed => Some(Damage::Unsealed),
            Some(_) => None,
        };
        InspectedRow { sealed: intact.sealed, damage, value: value.filter(|_| values), ..entry }
    }
}

/// Beside a running EdgeCore the log's index is there and is used. A file that was closed has neither log nor index and
/// must not get them from whoever only looks, and on a disk that takes no writes they cannot be made.
fn connect(path: &Path) -> Result<(Connection, Meta), SchemaError> {
    let is_closed = !beside(path, "-wal").exists() && !beside(path, "-shm").exists();
    if !is_closed {
        let beside = connection::reader(path).map_err(SchemaError::from);
        let error = match beside.and_then(|conn| Ok((schema::readable(&conn)?, conn))) {
            Ok((meta, conn)) => return Ok((conn, meta)),
            Err(error) => error,
        };
        if !matches!(&error, SchemaError::Sql(error) if is_of_disk(error)) {
            return Err(error);
        }
    }
    let conn = connection::without_writes(path)?;
    let meta = schema::readable(&conn)?;
    Ok((conn, meta))
}

fn bare(class: String, key: (String, String), size: usize, secret: bool) -> InspectedRow {
    InspectedRow {
        class,
        key,
        version: String::new(),
        content_hash: String::new(),
        size,
        sealed: false,
        secret,
        known: true,
        damage: None,
        value: None,
    }
}

fn report(row: &rusqlite::Row<'_>) -> rusqlite::Result<InspectedReport> {
    let (seq, checked) = read::outbox_of(row)?;
    let queued: i64 = row.get(7).unwrap_or(0);
    Ok(InspectedReport {
        seq,
        queue: text(row, 0),
        class: text(row, 1),
        key: text(row, 2),
        size: length(row, 3),
        queued: (queued > 0).then_some(queued),
        known: !matches!(checked, Ok(KnownOrUnknown::Unknown(_))),
        damage: checked.err().map(|damaged| damaged.damage),
    })
}

/// The kind is the class, or the class without its group.
fn is_kind(class: &str, kind: Option<&str>) -> bool {
    kind.is_none_or(|kind| class == kind || word(class) == kind)
}

/// A class without its group.
fn word(class: &str) -> &str {
    class.split_once('.').map_or(class, |(word, _)| word)
}

fn is_named((first, second): &(String, String), name: Option<&str>) -> bool {
    name.is_none_or(|name| first == name || second == name || format!("{first}/{second}") == name)
}

/// A column as text, cut and made harmless: a damaged one holds anything.
fn text(row: &rusqlite::Row<'_>, at: usize) -> String {
    let bytes = row.get_ref(at).ok().and_then(|value| value.as_bytes().ok()).unwrap_or_default();
    String::from_utf8_lossy(&bytes[..bytes.len().min(512)])
        .chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

fn length(row: &rusqlite::Row<'_>, at: usize) -> usize {
    row.get_ref(at).ok().and_then(|value| value.as_bytes().ok()).map_or(0, <[u8]>::len)
}

impl InspectedReport {
    /// The word under which a person asks for reports, as for a kind of object.
    pub const KIND: &'static str = OUTBOX_TABLE;
}
