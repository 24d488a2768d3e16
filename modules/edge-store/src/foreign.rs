//! What no store has: what runs by itself, and what refuses the rows that a store writes.
//!
//! Tables and columns that we do not know are a newer release's and stay, and so does a plain index. An index or a constraint that
//! can refuse a row is nobody's but the store's own: with one that somebody has planted each write would fail, for ever.

use std::collections::BTreeSet;

use rusqlite::{Connection, OptionalExtension};

/// The first thing in a file that is neither table nor index: triggers, views and virtual tables, which run what whoever
/// planted them wants. Their text says what they are; the columns beside it may say anything.
const PROGRAM: &str = "SELECT substr(sql, 1, 80) FROM sqlite_schema WHERE sql IS NOT NULL \
    AND sql NOT LIKE 'CREATE TABLE %' AND sql NOT LIKE 'CREATE INDEX %' AND sql NOT LIKE 'CREATE UNIQUE INDEX %' LIMIT 1";
const TABLES: &str = "SELECT name FROM sqlite_schema WHERE type = 'table'";
const TABLE: &str = "SELECT sql FROM sqlite_schema WHERE type = 'table' AND lower(name) = ?1";
const COLUMNS: &str = "SELECT name, type || ' ' || \"notnull\" || ' ' || pk, \
    hidden > 0 OR coalesce(dflt_value LIKE '%(%', \"notnull\" AND NOT pk) FROM pragma_table_xinfo(?1)";
/// An index by its text, or by its name where a table's own text makes it; and whether a row can fail at it: a key that is
/// there already, or an expression that has no value.
const INDEXES: &str = "SELECT coalesce(text.sql, each.name), each.\"unique\" OR each.partial \
    OR EXISTS (SELECT 1 FROM pragma_index_xinfo(each.name) WHERE cid = -2) \
    FROM pragma_index_list(?1) AS each LEFT JOIN sqlite_schema AS text ON text.type = 'index' AND text.name = each.name";
/// Words that stand in the text of a table only for a constraint of it, or for a column with one.
const CONSTRAINTS: [&str; 3] = ["CHECK", "COLLATE", "CONFLICT"];

/// No number of a row that is gone is given again.
const COUNTS_ON: &str = "AUTOINCREMENT";

/// What runs by itself in a file; `None`: nothing.
pub(crate) fn program(conn: &Connection) -> rusqlite::Result<Option<String>> {
    conn.query_row(PROGRAM, [], |row| row.get(0)).optional()
}

/// What refuses rows that a store of these migrations writes; `None`: nothing.
pub(crate) fn refusal(conn: &Connection, migrations: &[&str]) -> rusqlite::Result<Option<String>> {
    let ours = Connection::open_in_memory()?;
    migrations.iter().try_for_each(|step| ours.execute_batch(step))?;
    for table in ours.prepare(TABLES)?.query_map([], |row| row.get::<_, String>(0))? {
        let table = table?;
        let text: Option<String> = conn.query_row(TABLE, [&table], |row| row.get(0)).optional()?;
        if let Some(word) = text.as_deref().and_then(constraint) {
            return Ok(Some(format!("{word} in table {table}")));
        }
        // A number that is given twice would be known in the cloud already, and its report lost.
        let counts_on = |conn: &Connection| -> rusqlite::Result<bool> {
            let text: Option<String> = conn.query_row(TABLE, [&table], |row| row.get(0)).optional()?;
            Ok(text.is_none_or(|text| has_word(&text, COUNTS_ON)))
        };
        if counts_on(&ours)? && !counts_on(conn)? {
            return Ok(Some(format!("table {table} without {COUNTS_ON}")));
        }
        let own = traits(&ours, COLUMNS, &table)?;
        let found = traits(conn, COLUMNS, &table)?;
        let (own_names, found_names) = (names(&own), names(&found));
        let is_plain = |(name, _, refuses): &&(String, String, bool)| own_names.contains(name) || !refuses;
        let changed = own.iter().find(|column| !found.contains(column) && found_names.contains(&column.0));
        if let Some((name, ..)) = changed.or_else(|| found.iter().find(|column| !is_plain(column))) {
            return Ok(Some(format!("column {name} of table {table}")));
        }
        let own = names(&indexes(&ours, &table)?);
        let strange =
            indexes(conn, &table)?.into_iter().find(|(name, _, refuses)| *refuses && !own.contains(name));
        if let Some((name, ..)) = strange {
            return Ok(Some(name.chars().take(80).collect()));
        }
    }
    Ok(None)
}

/// What there is of a table by its name, how it is, and whether it refuses rows that know nothing of it.
type Trait = (String, String, bool);

fn traits(conn: &Connection, sql: &str, table: &str) -> rusqlite::Result<BTreeSet<Trait>> {
    conn.prepare(sql)?.query_map([table], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?.collect()
}

fn indexes(conn: &Connection, table: &str) -> rusqlite::Result<BTreeSet<Trait>> {
    let each = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, String::new(), row.get(1)?));
    conn.prepare(INDEXES)?.query_map([table], each)?.collect()
}

fn names(traits: &BTreeSet<Trait>) -> BTreeSet<String> {
    traits.iter().map(|(name, ..)| name.clone()).collect()
}

/// The words of a text. Split as SQLite does it, so that a column named `checked` is none of `CHECK`.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let is_of_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '$' || !c.is_ascii();
    text.split(move |c| !is_of_word(c))
}

fn has_word(text: &str, wanted: &str) -> bool {
    words(text).any(|word| word.eq_ignore_ascii_case(wanted))
}

/// The first word in a table's text that makes a constraint.
fn constraint(text: &str) -> Option<&'static str> {
    CONSTRAINTS.into_iter().find(|constraint| has_word(text, constraint))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: &str = "CREATE TABLE t (a TEXT NOT NULL PRIMARY KEY, b INTEGER) STRICT; CREATE UNIQUE INDEX i ON t (b) WHERE a = 'x'";

    fn found(sql: &str) -> Option<String> {
        let conn = Connection::open_in_memory().unwrap();
        conn.execute_batch(sql).unwrap();
        refusal(&conn, &[OURS]).unwrap()
    }

    #[test]
    fn what_a_newer_release_adds_refuses_nothing() {
        for more in [
            "",
            "ALTER TABLE t ADD COLUMN checked INTEGER",
            "ALTER TABLE t ADD COLUMN c TEXT NOT NULL DEFAULT 'none'; CREATE INDEX j ON t (c, b)",
            "CREATE TABLE u (x TEXT PRIMARY KEY CHECK (x > 'a') COLLATE NOCASE, y UNIQUE); CREATE UNIQUE INDEX k ON u (y)",
        ] {
            assert_eq!(found(&format!("{OURS}; {more}")), None, "{more}");
        }
    }

    #[test]
    fn a_table_that_gives_numbers_twice_is_found() {
        let ours = "CREATE TABLE n (seq INTEGER PRIMARY KEY AUTOINCREMENT, a TEXT)";
        let conn = Connection::open_in_memory().unwrap();
        conn.execute_batch("CREATE TABLE n (seq INTEGER PRIMARY KEY, a TEXT)").unwrap();
        assert_eq!(refusal(&conn, &[ours]).unwrap().as_deref(), Some("table n without AUTOINCREMENT"));
        conn.execute_batch(&format!("DROP TABLE n; {ours}")).unwrap();
        assert_eq!(refusal(&conn, &[ours]).unwrap(), None);
    }

    #[test]
    fn whatever_a_row_of_ours_can_fail_at_is_found() {
        for (more, what) in [
            ("CREATE UNIQUE INDEX j ON t (b)", "CREATE UNIQUE INDEX j"),
            ("CREATE INDEX j ON t (1 / length(a))", "CREATE INDEX j"),
            ("CREATE INDEX j ON t (b) WHERE 1 / length(a) > 1", "CREATE INDEX j"),
            ("DROP INDEX i; CREATE UNIQUE INDEX i ON t (b)", "CREATE UNIQUE INDEX i"),
            ("ALTER TABLE t ADD COLUMN c TEXT CHECK (c = 'x')", "CHECK in table t"),
            ("ALTER TABLE t ADD COLUMN c INTEGER AS (length(a))", "column c of table t"),
            ("ALTER TABLE t ADD COLUMN c INTEGER DEFAULT (abs(-9223372036854775808))", "column c of table t"),
        ] {
            let said = found(&format!("{OURS}; {more}"));
            assert!(said.as_ref().is_some_and(|said| said.starts_with(what)), "{more}: {said:?}");
        }
        for (other, what) in [
            ("a TEXT NOT NULL PRIMARY KEY, b INTEGER UNIQUE", "sqlite_autoindex_t_2"),
            ("a TEXT NOT NULL PRIMARY KEY ON CONFLICT IGNORE, b INTEGER", "CONFLICT in table t"),
            ("a TEXT NOT NULL PRIMARY KEY COLLATE NOCASE, b INTEGER", "COLLATE in table t"),
            ("a TEXT NOT NULL PRIMARY KEY, b TEXT", "column b of table t"),
            ("a TEXT NOT NULL PRIMARY KEY, b INTEGER, c TEXT NOT NULL", "column c of table t"),
        ] {
            assert_eq!(found(&format!("CREATE TABLE t ({other}) STRICT")).as_deref(), Some(what), "{other}");
        }
    }
}
