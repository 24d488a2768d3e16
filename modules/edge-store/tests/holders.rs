//! Another program that lets nobody in: it is named.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod rerun;

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Stdio};

use edge_store::{Options, Store, StoreError, Table, Write};
use rusqlite::Connection;

const TEST: &str = "who_lets_nobody_in_is_named";

fn open(path: &Path) -> Result<Store, StoreError> {
    Store::open(path, Options::new([1; 16]))
}

/// Runs `statements` in a process of its own, which keeps what it has until it is killed.
fn holder(path: &Path, statements: &str) -> Child {
    let mut command = rerun::this_test(TEST, &format!("{} {statements}", path.display()));
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let said = BufReader::new(child.stdout.take().unwrap());
    assert!(said.lines().any(|line| line.unwrap().contains("held")), "the other process has it");
    child
}

fn hold(path: &str, statements: &str) {
    let conn = Connection::open(path).unwrap();
    conn.execute_batch(statements).unwrap();
    println!("held");
    std::io::stdout().flush().unwrap();
    loop {
        std::thread::park();
    }
}

#[test]
fn who_lets_nobody_in_is_named() {
    if let Some(given) = rerun::given() {
        let (path, statements) = given.split_once(' ').unwrap();
        return hold(path, statements);
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("edgecore.db");
    let named = |error: StoreError, child: &mut Child| {
        child.kill().unwrap();
        child.wait().unwrap();
        let program = std::env::current_exe().unwrap();
        let by = format!("is held by {} (pid {}), which lets nobody in", program.display(), child.id());
        let said = error.to_string();
        assert!(matches!(error, StoreError::Busy { .. }) && said.contains(&by), "{said}");
    };
    let store = open(&path).unwrap();
    // As `sqlite3` with `BEGIN IMMEDIATE`, beside a running edgecore.
    let mut child = holder(&path, "BEGIN IMMEDIATE");
    let put = Write::PutRow {
        table: Table::Facts,
        key1: "k".to_owned(),
        key2: String::new(),
        value: b"v".to_vec(),
    };
    named(store.commit_blocking(vec![put]).unwrap_err(), &mut child);
    drop(store);
    let mut child = holder(&path, "PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE");
    named(open(&path).unwrap_err(), &mut child);
    open(&path).unwrap();
}
