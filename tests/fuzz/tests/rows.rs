//! Rows of the node's file whose bytes are not what was written: a disk that lies, or somebody who wrote into the file.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use edge_store::{Class, ObjectKey, Options, OutboxQueue, Store, Table, Write};
use fuzz::{SplitMix64, endure};
use rusqlite::{Connection, params};

const ROWS: usize = 64;

fn fill(store: &Store) {
    let mut writes = Vec::new();
    for n in 0..ROWS {
        writes.push(Write::PutObject {
            key: ObjectKey::new("pods", "default", format!("p{n}")),
            uid: format!("u{n}"),
            content_hash: "1".to_owned(),
            resource_version: "1".to_owned(),
            json: format!("{{\"metadata\":{{\"name\":\"p{n}\"}}}}").into_bytes(),
        });
        writes.push(Write::PutRow {
            table: Table::Twins,
            key1: "default/pump".to_owned(),
            key2: format!("t{n}"),
            value: b"{\"reported\":{}}".to_vec(),
        });
        writes.push(Write::Enqueue {
            queue: OutboxQueue::Node,
            class: Class::Event,
            key: format!("e{n}"),
            body: vec![1; 40],
        });
    }
    store.commit_blocking(writes).unwrap();
}

/// Damages one row of one table.
fn damage(file: &Connection, random: &mut SplitMix64) {
    let name = random.below(ROWS);
    let bytes = random.bytes(200);
    let text = random.text(60);
    let number = i64::from_le_bytes(random.bits().to_le_bytes());
    // What the file's own rules forbid is refused by SQLite itself.
    let _ = match random.below(8) {
        0 => file.execute("UPDATE objects SET json = ?1 WHERE name = ?2", params![bytes, format!("p{name}")]),
        1 => file.execute("UPDATE objects SET uid = ?1 WHERE name = ?2", params![text, format!("p{name}")]),
        2 => file.execute(
            "UPDATE objects SET resource_version = ?1, sum = ?2 WHERE name = ?3",
            params![text, number, format!("p{name}")],
        ),
        3 => file
            .execute("UPDATE module_rows SET value = ?1 WHERE key2 = ?2", params![bytes, format!("t{name}")]),
        4 => file
            .execute("UPDATE module_rows SET sum = ?1 WHERE key2 = ?2", params![number, format!("t{name}")]),
        5 => file.execute("UPDATE outbox SET body = ?1 WHERE key = ?2", params![bytes, format!("e{name}")]),
        6 => file.execute("UPDATE outbox SET class = ?1 WHERE key = ?2", params![text, format!("e{name}")]),
        _ => file.execute(
            "UPDATE outbox SET sum = ?1, key = ?2 WHERE key = ?3",
            params![number, text, format!("e{name}")],
        ),
    };
}

#[test]
fn a_damaged_row_is_told_apart_and_leaves_nothing() {
    let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let path = folder.path().join("edgecore.db");
    let store = Store::open(&path, Options::new([1; 16])).unwrap();
    fill(&store);
    let file = Connection::open(&path).unwrap();
    file.pragma_update(None, "synchronous", "OFF").unwrap();
    file.busy_timeout(std::time::Duration::from_secs(10)).unwrap();
    let mut round = 0_u32;
    let left = endure(9, |random| {
        round += 1;
        damage(&file, random);
        let name = random.below(ROWS);
        let _ = store.get_object(&ObjectKey::new("pods", "default", format!("p{name}")));
        let _ = store.get_row(Table::Twins, "default/pump", &format!("t{name}"));
        if round.is_multiple_of(50) {
            let _ = store.object_versions();
            let _ = store.list_rows(Table::Twins, None);
            for queue in OutboxQueue::ALL {
                let _ = store.queue_head(queue, 0, 100, 1 << 20);
            }
            let _ = store.damaged_rows();
        }
        if round.is_multiple_of(2000) {
            // What the cloud and the node send again.
            fill(&store);
        }
    });
    println!("{} KiB are left; {} rows are known to be damaged", left.unwrap(), store.damaged_rows().len());
}
