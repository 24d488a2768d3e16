//! The tree of a table read without SQLite, which gives up at the first page that it cannot read. Pure.
//!
//! Only pages that the table's root leads to are looked at. A page that was given back is in no table's tree, whatever
//! rows its bytes still show, so nothing that was removed is found here.
//! <https://www.sqlite.org/fileformat2.html#b_tree_pages>

use std::collections::BTreeSet;

/// Bytes of a page: every store has SQLite's default.
pub(crate) const PAGE: usize = 4096;

const INTERIOR: u8 = 5;
const LEAF: u8 = 13;
/// A node's table never has this many rows.
const ROWS: usize = 1_000_000;

/// What a table's tree says of its rows.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct TableTree {
    /// The rows that its leaves name, from the first leaf to the last.
    pub(crate) rowids: Vec<i64>,
    /// Pages of it that cannot be read, in whole or in part: nobody knows how many rows they held.
    pub(crate) unreadable: u64,
}

enum Content {
    Rows(Vec<Option<i64>>),
    Children(Vec<Option<u32>>),
}

/// Walks from `root` through every page that can be read. `page`: the page of that number, from 1 on, if the file has it.
pub(crate) fn walk(root: u32, mut page: impl FnMut(u32) -> Option<[u8; PAGE]>) -> TableTree {
    let mut tree = TableTree::default();
    // A broken tree may lead in circles.
    let mut seen = BTreeSet::new();
    let mut ahead = vec![root];
    while let Some(number) = ahead.pop() {
        let read = if seen.insert(number) { page(number) } else { None };
        let is_whole;
        match read.and_then(|bytes| content(&bytes, number == root)) {
            None => is_whole = false,
            Some(Content::Rows(rows)) => {
                is_whole = rows.iter().all(Option::is_some) && tree.rowids.len() + rows.len() <= ROWS;
                let room = ROWS - tree.rowids.len();
                tree.rowids.extend(rows.into_iter().flatten().take(room));
            }
            Some(Content::Children(children)) => {
                is_whole = children.iter().all(Option::is_some);
                ahead.extend(children.into_iter().rev().flatten());
            }
        }
        tree.unreadable += u64::from(!is_whole);
    }
    tree
}

/// `None`: it is no page of a table.
fn content(page: &[u8; PAGE], is_root: bool) -> Option<Content> {
    let cells = usize::from(short(page, 3)?);
    let header = if page[0] == INTERIOR { 12 } else { 8 };
    let behind = header + 2 * cells;
    // Only a root may be empty.
    if behind > PAGE || (cells == 0 && !is_root) {
        return None;
    }
    let starts = (0..cells).map(|cell| {
        let at = usize::from(short(page, header + 2 * cell)?);
        (at >= behind).then_some(at)
    });
    match page[0] {
        LEAF => {
            let rowid = |at: usize| {
                let (_, length) = varint(page, at)?;
                Some(varint(page, at + length)?.0)
            };
            Some(Content::Rows(starts.map(|at| at.and_then(rowid)).collect()))
        }
        INTERIOR => {
            let children = starts.map(|at| at.and_then(|at| child(page, at)));
            Some(Content::Children(children.chain([child(page, 8)]).collect()))
        }
        _ => None,
    }
}

fn short(page: &[u8], at: usize) -> Option<u16> {
    let bytes = page.get(at..at + 2)?;
    Some(u16::from_be_bytes([bytes[0], bytes[1]]))
}

/// Page 0 is none, and page 1 is nobody's child.
fn child(page: &[u8], at: usize) -> Option<u32> {
    let bytes = page.get(at..at + 4)?;
    Some(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])).filter(|number| *number > 1)
}

/// SQLite's integer of one to nine bytes, and how many they are.
fn varint(page: &[u8], at: usize) -> Option<(i64, usize)> {
    let mut value = 0_u64;
    for (index, byte) in page.get(at..)?.iter().take(9).enumerate() {
        if index == 8 {
            return Some(((value << 8 | u64::from(*byte)).cast_signed(), 9));
        }
        value = value << 7 | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            return Some((value.cast_signed(), index + 1));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;

    /// The pages of a table with these rowids, and its root.
    fn table(rowids: &[i64]) -> (Vec<u8>, u32) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        let conn = Connection::open(&path).unwrap();
        conn.execute_batch("CREATE TABLE t (x); BEGIN").unwrap();
        for rowid in rowids {
            conn.execute("INSERT INTO t (rowid, x) VALUES (?1, zeroblob(200))", [rowid]).unwrap();
        }
        conn.execute_batch("COMMIT").unwrap();
        let root = conn.query_row("SELECT rootpage FROM sqlite_schema", [], |row| row.get(0)).unwrap();
        (std::fs::read(&path).unwrap(), root)
    }

    fn walked(file: &[u8], root: u32) -> TableTree {
        walk(root, |number| {
            let from = (number as usize - 1) * PAGE;
            file.get(from..from + PAGE)?.try_into().ok()
        })
    }

    #[test]
    fn it_finds_the_rows_that_sqlite_wrote_whatever_their_numbers() {
        for rowids in
            [vec![], vec![1], vec![i64::MIN, -1, 0, 127, 128, 1 << 21, 1 << 56, i64::MAX], (0..900).collect()]
        {
            let (file, root) = table(&rowids);
            assert_eq!(walked(&file, root), TableTree { rowids, unreadable: 0 });
        }
    }

    #[test]
    fn a_page_that_cannot_be_read_costs_what_it_held_and_is_counted() {
        let (file, root) = table(&(0..900).collect::<Vec<_>>());
        let pages = u32::try_from(file.len() / PAGE).unwrap();
        for number in 2..=pages {
            for fill in [0, 0xa5] {
                let mut file = file.clone();
                file[(number as usize - 1) * PAGE..][..PAGE].fill(fill);
                let tree = walked(&file, root);
                assert_eq!(tree.unreadable, 1, "page {number}");
                let lost = 900 - tree.rowids.len();
                assert!(
                    if number == root { lost == 900 } else { (1..30).contains(&lost) },
                    "{number}: {lost}"
                );
            }
        }
        // Cut off at every page, and led in circles.
        for left in 1..pages {
            assert!(walked(&file[..left as usize * PAGE], root).unreadable > 0);
        }
        let mut circle = file;
        let right = (root as usize - 1) * PAGE + 8;
        circle[right..right + 4].copy_from_slice(&root.to_be_bytes());
        let tree = walked(&circle, root);
        assert_eq!(tree.unreadable, 1);
        assert!(tree.rowids.len() > 800);
    }
}
