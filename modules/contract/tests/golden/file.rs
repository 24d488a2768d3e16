//! The golden files: a line each, the name and the bytes.

use std::collections::BTreeMap;

pub(crate) const WIRE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/wire-1.txt");
pub(crate) const ROWS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/rows-1.txt");

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

pub(crate) fn golden(path: &str) -> BTreeMap<String, Vec<u8>> {
    let text = std::fs::read_to_string(path).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let lines = lines.map(|line| line.split_once(' ').unwrap());
    lines.map(|(name, bytes)| (name.to_owned(), unhex(bytes))).collect()
}

/// Compares what is written with the file, or adds to the file what it lacks.
pub(crate) fn compare(path: &str, written: &[(String, Vec<u8>)]) {
    let held = golden(path);
    let missing: Vec<&(String, Vec<u8>)> =
        written.iter().filter(|(name, _)| !held.contains_key(name)).collect();
    if std::env::var_os("GOLDEN").is_some_and(|word| word == "add") {
        let mut text = std::fs::read_to_string(path).unwrap();
        text.extend(missing.iter().map(|(name, bytes)| format!("{name} {}\n", hex(bytes))));
        std::fs::write(path, text).unwrap();
    } else {
        assert!(missing.is_empty(), "{path} lacks {missing:?}");
    }
    for (name, bytes) in written.iter().filter(|(name, _)| !name.starts_with("deflated-")) {
        if let Some(held) = held.get(name) {
            assert_eq!(hex(held), hex(bytes), "{name}");
        }
    }
}
