//! The sum of a row: eight bytes of SHA-256 over its table and columns, each with its length before it.

use aws_lc_rs::digest::{Context, SHA256};

/// The first eight bytes of the hash, as SQLite stores integers.
pub(crate) fn sum(table: &str, columns: &[&[u8]], revision: i64) -> i64 {
    let mut hash = Context::new(&SHA256);
    each(table, columns, revision, |bytes| hash.update(bytes));
    first_eight(hash)
}

/// The sum of a row whose last column is sealed. It is another one than [`sum`] gives for the same bytes, so that the
/// sum alone says how to read the row, and a release that knows of no seal takes the row for damaged and not for text.
pub(crate) fn sealed_sum(table: &str, columns: &[&[u8]], revision: i64) -> i64 {
    let mut hash = Context::new(&SHA256);
    hash.update(b"sealed");
    each(table, columns, revision, |bytes| hash.update(bytes));
    first_eight(hash)
}

/// What a seal is bound to: the row without its value.
pub(crate) fn bound_to(table: &str, columns: &[&[u8]], revision: i64) -> Vec<u8> {
    let mut bytes = Vec::new();
    each(table, columns, revision, |part| bytes.extend_from_slice(part));
    bytes
}

fn each(table: &str, columns: &[&[u8]], revision: i64, mut put: impl FnMut(&[u8])) {
    for column in std::iter::once(&table.as_bytes()).chain(columns) {
        put(&(column.len() as u64).to_le_bytes());
        put(column);
    }
    put(&revision.to_le_bytes());
}

fn first_eight(hash: Context) -> i64 {
    let mut first = [0; 8];
    first.copy_from_slice(&hash.finish().as_ref()[..8]);
    i64::from_le_bytes(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_move_between_columns_change_the_sum() {
        assert_ne!(sum("t", &[b"ab", b"c"], 1), sum("t", &[b"a", b"bc"], 1));
        assert_ne!(sum("t", &[b"ab"], 1), sum("u", &[b"ab"], 1));
        assert_ne!(sum("t", &[b"ab"], 1), sum("t", &[b"ab"], 2));
        assert_eq!(sum("t", &[b"ab"], 1), sum("t", &[b"ab"], 1));
        assert_ne!(sum("t", &[b"ab"], 1), sealed_sum("t", &[b"ab"], 1));
        assert_ne!(bound_to("t", &[b"ab", b"c"], 1), bound_to("t", &[b"a", b"bc"], 1));
    }

    #[test]
    fn the_sum_of_version_1_is_frozen() {
        assert_eq!(sum("plain", &[b"facts", b"a", b"", b"v"], 7), -5_758_350_095_782_134_962);
    }
}
