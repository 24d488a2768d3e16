//! Where the cloud has said that it is, beside what stands in the settings: a row of the node's store.

use beehive::Fault;
use contract::certificate::{SERVER_BYTES_MAX, SERVERS_MAX};
use edge_store::{Store, StoreError, Table, Write};
use rustls_pki_types::ServerName;

/// The keys of the row.
const KEY: (&str, &str) = ("cloud", "servers");

/// What the cloud said last. A row that makes no sense names nobody. Blocks.
///
/// # Errors
/// When the store cannot be read.
pub fn kept_servers(store: &Store) -> Result<Vec<String>, StoreError> {
    let row = store.get_row(Table::Facts, KEY.0, KEY.1)?;
    let text = row.and_then(|value| String::from_utf8(value).ok()).unwrap_or_default();
    Ok(text.lines().filter(|line| is_server(line)).take(SERVERS_MAX).map(str::to_owned).collect())
}

/// Keeps what the cloud says now.
///
/// # Errors
/// When the store cannot be written.
pub(super) async fn keep_servers(store: &Store, servers: &[String]) -> Result<(), Fault> {
    let row = Write::PutRow {
        table: Table::Facts,
        key1: KEY.0.to_owned(),
        key2: KEY.1.to_owned(),
        value: servers.join("\n").into_bytes(),
    };
    store.commit(vec![row]).await.map(drop).map_err(|error| Fault::from_error(&error))
}

/// Whether it is an IP address or a host's name.
pub(super) fn is_server(text: &str) -> bool {
    (1..=SERVER_BYTES_MAX).contains(&text.len()) && ServerName::try_from(text).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use edge_store::Options;

    #[tokio::test]
    async fn what_was_kept_is_read_and_what_makes_no_sense_names_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().join("db"), Options::new([1; 16])).unwrap();
        assert_eq!(kept_servers(&store).unwrap(), [] as [&str; 0]);
        let servers = ["192.0.2.1".to_owned(), "fd00::1".to_owned(), "cloud.example".to_owned()];
        keep_servers(&store, &servers).await.unwrap();
        assert_eq!(kept_servers(&store).unwrap(), servers);
        let odd = ["a b".to_owned(), "x".repeat(300), "good.example".to_owned()];
        keep_servers(&store, &odd).await.unwrap();
        assert_eq!(kept_servers(&store).unwrap(), ["good.example"]);
        keep_servers(&store, &vec!["a.example".to_owned(); 100]).await.unwrap();
        assert_eq!(kept_servers(&store).unwrap().len(), SERVERS_MAX);
    }
}
