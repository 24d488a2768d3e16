//! The seal of a row: eight bytes of SHA-256 over its table and columns, each with its length before it.

use sha2::{Digest, Sha256};

/// The first eight bytes of the hash, as SQLite stores integers.
pub(crate) fn seal(table: &str, columns: &[&[u8]], revision: i64) -> i64 {
    let mut hash = Sha256::new();
    for column in std::iter::once(&table.as_bytes()).chain(columns) {
        hash.update((column.len() as u64).to_le_bytes());
        hash.update(column);
    }
    hash.update(revision.to_le_bytes());
    let digest = hash.finalize();
    let mut first = [0; 8];
    first.copy_from_slice(&digest[..8]);
    i64::from_le_bytes(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_move_between_columns_change_the_seal() {
        assert_ne!(seal("t", &[b"ab", b"c"], 1), seal("t", &[b"a", b"bc"], 1));
        assert_ne!(seal("t", &[b"ab"], 1), seal("u", &[b"ab"], 1));
        assert_ne!(seal("t", &[b"ab"], 1), seal("t", &[b"ab"], 2));
        assert_eq!(seal("t", &[b"ab"], 1), seal("t", &[b"ab"], 1));
    }
}
