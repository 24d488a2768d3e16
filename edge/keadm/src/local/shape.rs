//! In which shape objects are shown: columns as kubectl has them, JSON or YAML. Pure.

use anyhow::Result;
use clap::ValueEnum;
use serde_json::{Value, json};

use crate::node_socket::for_terminal;

/// `-o`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shape {
    /// More columns
    Wide,
    /// The objects, as JSON
    Json,
    /// The objects, as YAML
    Yaml,
    /// Their kinds and names
    Name,
}

/// Columns three spaces apart, as kubectl prints them.
pub(crate) fn columns(heads: &[&str], rows: &[Vec<String>]) -> Vec<String> {
    let rows: Vec<Vec<String>> = std::iter::once(heads.iter().map(|head| (*head).to_owned()).collect())
        .chain(rows.iter().map(|row| row.iter().map(|cell| plain(cell)).collect()))
        .collect();
    let width = |at: usize| {
        let cells = rows.iter().filter_map(|row| row.get(at));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..heads.len()).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("   ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

/// One line without what a terminal takes for a command: names and texts are others'.
pub(crate) fn plain(text: &str) -> String {
    for_terminal(text).replace(['\n', '\t'], " ")
}

/// Objects as a document: one that was named alone, else a `List`.
///
/// # Errors
/// When it cannot be written as YAML.
pub(crate) fn document(shape: Shape, mut objects: Vec<Value>, is_named: bool) -> Result<String> {
    let document = match (is_named, objects.len()) {
        (true, 1) => objects.remove(0),
        _ => {
            json!({ "apiVersion": "v1", "kind": "List", "metadata": { "resourceVersion": "" }, "items": objects })
        }
    };
    Ok(match shape {
        Shape::Yaml => for_terminal(&serde_saphyr::to_string(&document)?),
        _ => for_terminal(&serde_json::to_string_pretty(&document)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_kubectls() {
        let rows = [
            vec!["till".to_owned(), "1/1".to_owned()],
            vec!["a\u{1b}[2J-long-one".to_owned(), "0/1".to_owned()],
        ];
        assert_eq!(
            columns(&["NAME", "READY"], &rows),
            ["NAME            READY", "till            1/1", "a[2J-long-one   0/1"]
        );
    }

    #[test]
    fn one_that_was_named_stands_alone() {
        let one = || vec![json!({"kind": "Pod"})];
        assert_eq!(document(Shape::Yaml, one(), true).unwrap(), "kind: Pod");
        assert!(document(Shape::Json, one(), false).unwrap().contains("\"kind\": \"List\""));
    }
}
