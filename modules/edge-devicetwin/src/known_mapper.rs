//! Mappers that had registered with KubeEdge on this node: their rows.

use contract::rows;
use edge_store::{Table, Write};
use serde::{Deserialize, Serialize};

/// The version of a row of a mapper that is written.
const VERSION: u32 = 1;

/// A mapper that had registered with KubeEdge, and does not know that it has another edgecore now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KnownMapper {
    pub(crate) name: String,
    pub(crate) address: String,
    pub(crate) version: String,
}

/// The row of a mapper, frozen.
#[derive(Serialize, Deserialize)]
struct KnownMapperV1 {
    v: u32,
    name: String,
    address: String,
    version: String,
}

impl KnownMapper {
    /// Its row.
    pub(crate) fn put(self, protocol: &str) -> Write {
        let KnownMapper { name, address, version } = self;
        let row = KnownMapperV1 { v: VERSION, name, address, version };
        // Texts under text keys: this cannot fail. An empty row is left out when it is read.
        let value = serde_json::to_vec(&row).unwrap_or_default();
        let (key1, key2) = (rows::KNOWN_MAPPERS_FACT.to_owned(), protocol.to_owned());
        Write::PutRow { table: Table::Facts, key1, key2, value }
    }
}

/// Forgets it: one has registered.
pub(crate) fn forget(protocol: &str) -> Write {
    Write::DeleteRow {
        table: Table::Facts,
        key1: rows::KNOWN_MAPPERS_FACT.to_owned(),
        key2: protocol.to_owned(),
    }
}

/// The mapper of a row; `None`: another release wrote it.
pub(crate) fn read(row: &[u8]) -> Option<KnownMapper> {
    let KnownMapperV1 { v, name, address, version } = serde_json::from_slice(row).ok()?;
    (v == VERSION).then_some(KnownMapper { name, address, version })
}
