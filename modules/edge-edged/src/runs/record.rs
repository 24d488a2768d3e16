//! The record of the run, in the node's store.

use std::path::Path;

use beehive::{Env, Fault};
use edge_store::{Store, StoreError, Table, Write};

use crate::runs::plan::RunRecord;

/// The keys of the row.
const KEY: (&str, &str) = ("edged", "run");
/// Where the kernel says how long the machine has been up.
const UPTIME: &str = "/proc/uptime";

/// Says in the store that a run begins: to be called once, before Edged is made. `boot_id_file`: where the machine's boot id stands.
/// Without that Edged takes each start for an honest one.
///
/// # Errors
/// When the store cannot be read or written.
pub async fn begin_run(store: &Store, env: &Env, boot_id_file: &Path) -> Result<(), Fault> {
    let (reader, file) = (store.clone(), boot_id_file.to_owned());
    let read = env.blocking(move || {
        let boot = std::fs::read_to_string(file).unwrap_or_default();
        Ok::<_, StoreError>((read(&reader)?, boot.trim().to_owned(), since_boot()))
    });
    let (before, boot, since_boot) = read.await?.map_err(|error| Fault::from_error(&error))?;
    keep(store, &RunRecord::begin(before, &boot, since_boot)).await
}

/// Whether no run of this boot has begun yet. Blocks. A store that cannot be read does not say so, and neither does a machine without a boot id.
pub fn is_first_of_boot(store: &Store, boot_id_file: &Path) -> bool {
    let boot = std::fs::read_to_string(boot_id_file).unwrap_or_default();
    let boot = boot.trim();
    let before = read(store).ok().flatten();
    !boot.is_empty() && before.is_none_or(|before| !before.is_of_boot(boot))
}

/// Says in the store that the run was told to end, if it was said that it began.
///
/// # Errors
/// See [`begin_run`].
pub async fn end_run(store: &Store, env: &Env) -> Result<(), Fault> {
    let reader = store.clone();
    let record = env.blocking(move || read(&reader)).await?.map_err(|error| Fault::from_error(&error))?;
    match record {
        Some(record) => keep(store, &record.ended()).await,
        None => Ok(()),
    }
}

/// Blocks. One that makes no sense is none.
pub(crate) fn read(store: &Store) -> Result<Option<RunRecord>, StoreError> {
    let row = store.get_row(Table::Facts, KEY.0, KEY.1)?;
    Ok(row.and_then(|value| serde_json::from_slice(&value).ok()))
}

pub(crate) async fn keep(store: &Store, record: &RunRecord) -> Result<(), Fault> {
    let value = serde_json::to_vec(record).map_err(|error| Fault::from_error(&error))?;
    let row = Write::PutRow { table: Table::Facts, key1: KEY.0.to_owned(), key2: KEY.1.to_owned(), value };
    store.commit(vec![row]).await.map(drop).map_err(|error| Fault::from_error(&error))
}

/// Whole seconds.
fn since_boot() -> u64 {
    let text = std::fs::read_to_string(UPTIME).unwrap_or_default();
    text.split(['.', ' ']).next().and_then(|seconds| seconds.parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use edge_store::Options;

    #[tokio::test]
    async fn runs_are_counted_over_restarts_of_the_process_and_not_over_those_of_the_machine() {
        let dir = tempfile::tempdir().unwrap();
        let (boot, env) = (dir.path().join("boot_id"), Env::seeded(1));
        let firsts = std::cell::RefCell::new(String::new());
        let begin = async |id: &str| {
            std::fs::write(&boot, id).unwrap();
            let store = Store::open(dir.path().join("db"), Options::new([1; 16])).unwrap();
            let was_first = firsts.replace(id.to_owned()) != id;
            assert_eq!(is_first_of_boot(&store, &boot), was_first, "{id}");
            begin_run(&store, &env, &boot).await.unwrap();
            assert!(!is_first_of_boot(&store, &boot));
            let record = read(&store).unwrap().unwrap();
            (store, record.needs_care())
        };
        for _ in 0..3 {
            assert_eq!(begin("one\n").await.1, None);
        }
        let (store, ends) = begin("one\n").await;
        assert_eq!(ends, Some(3));
        end_run(&store, &env).await.unwrap();
        drop(store);
        for _ in 0..3 {
            assert_eq!(begin("one\n").await.1, None, "it was told to end");
        }
        assert_eq!(begin("two\n").await.1, None, "the machine began anew");
        assert!(since_boot() > 0);
    }
}
