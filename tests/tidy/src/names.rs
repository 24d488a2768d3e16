//! Rule 9: a name says what is inside, in the field's words; and the owner's visible root.

use crate::masked;
use crate::{File, Finding};

const EMPTY: [&str; 8] = ["common", "util", "utils", "helper", "helpers", "misc", "types", "constants"];

/// Names that types and files had once and that said nothing to a stranger, with the field's word for what they meant. Each of
/// several meant something else in every file.
const PRIVATE: [(&str, &str); 26] = [
    ("Aside", "quarantined"),
    ("Board", "what it is a table of"),
    ("Desk", "what it keeps"),
    ("Gate", "a sequencer, a semaphore or an admission"),
    ("Ground", "what it stands on"),
    ("Heads", "object versions"),
    ("Held", "a permit, a lock or what is kept"),
    ("LastWords", "a termination message, or an error stream"),
    ("Look", "reconcile, sync, probe, measure or read"),
    ("LookNow", "reconcile"),
    ("Mark", "what is marked"),
    ("Met", "what was found"),
    ("Offer", "an inventory, or candidates"),
    ("Peek", "an inspector"),
    ("Placed", "a node index"),
    ("Posted", "an ordered watch"),
    ("Road", "an outbox queue"),
    ("Seats", "a limiter or permits"),
    ("Shown", "what is shown"),
    ("Standing", "a status or state of something named"),
    ("Station", "an actor or what it serves"),
    ("Tenures", "node leases"),
    ("Told", "last sent, or whose answer it is"),
    ("Touch", "a change"),
    ("Ways", "endpoints or a dial schedule"),
    ("Wish", "a desired state"),
];
/// Where such names still are, each until the file is changed next.
const LEFT: [(&str, &str); 9] = [
    ("modules/edge-csi/src/stats.rs", "Told"),
    ("modules/contract/src/csi.rs", "Look"),
    ("modules/edge-edged/src/pod/event_series.rs", "Told"),
    ("modules/edge-edged/src/pod/held.rs", "Held"),
    ("modules/edge-edged/src/pod/preemption.rs", "Standing"),
    ("modules/edge-edged/src/pod/resource_admission.rs", "Standing"),
    ("modules/edge-edged/src/pod/resource_admission.rs", "Gate"),
    ("modules/edge-edged/src/pod/starting.rs", "Look"),
    ("modules/edge-edged/src/volumes/claims.rs", "Look"),
];

const ROOT: [&str; 13] = [
    "Cargo.toml",
    "Cargo.lock",
    "README.md",
    "LICENSE",
    "CHANGELOG.md",
    "beehive",
    "modules",
    "cloud",
    "edge",
    "mappers",
    "config",
    "tests",
    "benches",
];

/// Files and folders whose name says nothing.
pub fn say_nothing(files: &[File]) -> Vec<Finding> {
    let mut found = Vec::new();
    for file in files {
        for part in file.path.split('/') {
            let stem = part.split('.').next().unwrap_or(part).to_ascii_lowercase();
            if EMPTY.contains(&stem.as_str()) {
                let what = format!("the name `{part}` says nothing (rule 9): name it after what is inside");
                found.push(Finding::new(&file.path, 1, what));
            }
        }
    }
    found
}

/// Types, messages and files of shipped code that have a name of [`PRIVATE`].
pub fn private_language(files: &[File]) -> Vec<Finding> {
    let shipped = files.iter().filter(|file| file.is_rust() && !crate::restricted_calls::is_test(&file.path));
    let mut found = Vec::new();
    for file in shipped {
        for (name, line) in names_in(file) {
            let Some((_, word)) = PRIVATE.iter().find(|(private, _)| *private == name) else { continue };
            if !LEFT.contains(&(file.path.as_str(), name.as_str())) {
                let what = format!("the name `{name}` is a private language (rule 9): say {word}");
                found.push(Finding::new(&file.path, line, what));
            }
        }
    }
    found
}

/// Entries of [`LEFT`] where the name is no more.
pub fn left_and_gone(files: &[File]) -> Vec<Finding> {
    let is_there = |path: &str, name: &str| {
        let file = files.iter().find(|file| file.path == path);
        file.is_some_and(|file| names_in(file).iter().any(|(found, _)| found == name))
    };
    let gone = LEFT.iter().filter(|(path, name)| !is_there(path, name));
    gone.map(|(path, name)| Finding::new(path, 1, format!("`{name}` is no more: take it off the list")))
        .collect()
}

/// What a file declares, with its line: types and traits, names under which it imports something, and its own name. Of an enum of
/// messages the messages, too.
fn names_in(file: &File) -> Vec<(String, usize)> {
    let code = masked::code(&file.text);
    let tests = masked::test_ranges(&code);
    let stem = file.path.rsplit('/').next().unwrap_or_default().trim_end_matches(".rs");
    let mut found = vec![(camel(stem), 1)];
    for keyword in ["struct ", "enum ", "type ", "trait ", "union ", " as "] {
        for (at, _) in code.match_indices(keyword) {
            let is_start = at == 0 || keyword.starts_with(' ') || !masked::is_word(code.as_bytes()[at - 1]);
            if !is_start || tests.iter().any(|range| range.contains(&at)) {
                continue;
            }
            let name = word_at(&code, at + keyword.len());
            found.push((name.to_owned(), masked::line_of(&code, at)));
            if keyword == "enum " && name.ends_with("Msg") {
                found.extend(
                    variants(&code, at).map(|(name, at)| (name.to_owned(), masked::line_of(&code, at))),
                );
            }
        }
    }
    found
}

/// The variants of the enum that begins at `start`: words that open a line of its body.
fn variants(code: &str, start: usize) -> impl Iterator<Item = (&str, usize)> {
    let open = code[start..].find('{').map_or(code.len(), |length| start + length + 1);
    let end = code[open..].find("\n}").map_or(code.len(), |length| open + length);
    let lines = code[open..end].split_inclusive('\n').scan(open, |at, line| {
        let begin = *at;
        *at += line.len();
        Some((line, begin))
    });
    lines
        .filter(|(line, _)| line.starts_with("    ") && !line.starts_with("     "))
        .map(|(line, at)| (word_at(line, 4), at))
}

fn word_at(code: &str, at: usize) -> &str {
    let rest = &code[at..];
    &rest[..rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len())]
}

/// `last_words` as `LastWords`.
fn camel(stem: &str) -> String {
    let capital = |part: &str| {
        let mut letters = part.chars();
        letters
            .next()
            .map(|first| first.to_ascii_uppercase().to_string() + letters.as_str())
            .unwrap_or_default()
    };
    stem.split('_').map(capital).collect()
}

/// Visible entries of the root that the owner did not list.
pub fn at_the_root(files: &[File]) -> Vec<Finding> {
    let mut found: Vec<Finding> = Vec::new();
    for file in files {
        let top = file.path.split('/').next().unwrap_or_default();
        let listed = ROOT.contains(&top) || top.starts_with('.');
        if !listed && found.iter().all(|finding| finding.path != top) {
            let what = "does not belong to the visible root: put it into one of its folders, or begin its name with a dot";
            found.push(Finding::new(top, 1, what));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(paths: &[&str]) -> Vec<File> {
        paths.iter().map(|path| File::new(path, "")).collect()
    }

    #[test]
    fn a_name_that_says_nothing_is_found_as_file_and_as_folder() {
        let bad = files(&[
            "modules/x/src/util.rs",
            "modules/common/src/lib.rs",
            "beehive/src/Types.rs",
            "edge/misc",
        ]);
        assert_eq!(say_nothing(&bad).len(), 4);
        assert!(say_nothing(&files(&["beehive/src/utility.rs", "tests/harness/src/commonly.rs"])).is_empty());
    }

    #[test]
    fn a_private_name_is_found_wherever_it_is_declared() {
        let found = |path: &str, text: &str| private_language(&[File::new(path, text)]).len();
        for (name, word) in PRIVATE {
            assert!(!word.is_empty());
            for text in [
                format!("struct {name};"),
                format!("pub(crate) enum {name}<'a> {{ A }}"),
                format!("type {name} = u8;"),
                format!("use csi::v1::{{A, Usage as {name}}};"),
                format!("enum XMsg {{\n    /// It.\n    A,\n    {name} {{ a: u8 }},\n}}\n"),
            ] {
                assert_eq!(found("modules/x/src/plan.rs", &text), 1, "{text}");
                assert_eq!(found("modules/x/tests/plan.rs", &text), 0, "{text}");
                let inner = format!("#[cfg(test)]\nmod tests {{ {text} }}\n");
                assert_eq!(found("modules/x/src/plan.rs", &inner), 0, "{text}");
            }
            for text in [format!("// struct {name}"), format!("struct {name}s; fn f() -> Own{name} {{}}")] {
                assert_eq!(found("modules/x/src/plan.rs", &text), 0, "{text}");
            }
        }
        assert_eq!(found("modules/x/src/last_words.rs", ""), 1);
    }

    #[test]
    fn a_stray_entry_at_the_root_is_told_once() {
        let found = at_the_root(&files(&[
            "scripts/a.py",
            "scripts/b.py",
            "notes.md",
            ".ci/run",
            "benches/src/lib.rs",
        ]));
        let paths: Vec<&str> = found.iter().map(|finding| finding.path.as_str()).collect();
        assert_eq!(paths, ["scripts", "notes.md"]);
    }
}
