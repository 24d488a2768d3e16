//! The README's code map names what is there: a stranger follows it without opening a file.

use std::collections::BTreeSet;

use crate::{File, Finding};

/// The page with the map.
const PAGE: &str = "README.md";
/// The heading above it, and the beginning of the one below it.
const HEADING: &str = "\n## Code map\n";
/// What stands in a row as a file does and is none: programs, verbs of `keadm` and subresources of pods.
const OTHER_WORDS: [&str; 15] = [
    "adopt",
    "backup",
    "cloudcore",
    "csidriver",
    "edgecore",
    "exec",
    "free",
    "gettoken",
    "join",
    "log",
    "main",
    "reset",
    "revoke",
    "rollback",
    "src",
];

/// Every place of the map, and every file or folder that a row names, which is not below the row's places (or at the root, by its whole
/// path); and beside the rows, as in the index, every path.
pub fn not_there(files: &[File]) -> Vec<Finding> {
    let Some(page) = files.iter().find(|file| file.path == PAGE) else { return Vec::new() };
    let Some(begin) = page.text.find(HEADING) else {
        return vec![Finding::new(
            PAGE,
            1,
            "there is no code map: a section `## Code map` with rows `| place | what |`",
        )];
    };
    let paths = known(files);
    let first = crate::masked::line_of(&page.text, begin + 1);
    let map = page.text[begin + 1..].lines().enumerate();
    let rows = map.take_while(|(at, line)| *at == 0 || !line.starts_with("## "));
    rows.flat_map(|(at, line)| missing_in(line, &paths).into_iter().map(move |what| (at, what)))
        .map(|(at, what)| Finding::new(PAGE, first + at, what))
        .collect()
}

/// All files without `.rs`, and all folders.
fn known(files: &[File]) -> BTreeSet<&str> {
    let mut known = BTreeSet::new();
    for file in files {
        let path = file.path.strip_suffix(".rs").unwrap_or(&file.path);
        known.insert(path);
        known.extend(path.match_indices('/').map(|(end, _)| &path[..end]));
    }
    known
}

fn missing_in(line: &str, paths: &BTreeSet<&str>) -> Vec<String> {
    let Some((places, what)) = line.strip_prefix("| `").and_then(|row| row.split_once(" | ")) else {
        return missing_paths(line, paths);
    };
    let places: Vec<&str> = places.split('`').step_by(2).map(|place| place.trim_end_matches('/')).collect();
    let gone = places.iter().filter(|place| !paths.contains(**place));
    let mut missing: Vec<String> =
        gone.map(|place| format!("the code map's `{place}` is not there")).collect();
    for name in what.split('`').skip(1).step_by(2).filter(|word| is_name(word) && !OTHER_WORDS.contains(word))
    {
        let name = name.trim_start_matches("../");
        let below = format!("/{name}");
        let is_below =
            |path: &str| path.ends_with(&below) && places.iter().any(|place| path.starts_with(place));
        if !paths.contains(name) && !paths.iter().any(|path| is_below(path)) {
            missing.push(format!(
                "`{name}` is no file or folder of {}: name what is there",
                places.join(" and ")
            ));
        }
    }
    missing
}

/// Of a line that is no row: there a name with a `/` is a path from the root.
fn missing_paths(line: &str, paths: &BTreeSet<&str>) -> Vec<String> {
    let written = line.split('`').skip(1).step_by(2).filter(|word| is_name(word) && word.contains('/'));
    let gone = written.filter(|word| !paths.contains(word.strip_suffix(".rs").unwrap_or(word)));
    gone.map(|word| format!("`{word}` is not there: write its path from the root")).collect()
}

/// What names a file or folder looks so: `^[a-z0-9_./-]+$`.
fn is_name(word: &str) -> bool {
    let of_path = |each: char| each.is_ascii_lowercase() || each.is_ascii_digit() || "_/.-".contains(each);
    word.starts_with(|first: char| first.is_ascii_lowercase() || first == '.')
        && word.chars().all(of_path)
        && (word.contains('/') || !word.contains(['.', '-']))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAP: &str = "# A\n\n## Code map\n\n| Place | What |\n|---|---|\n\
        | `modules/a/src`, `modules/gone` | `plan` (with `maxGap`), `pod/worker`, `left`, `modules/b/src/lib`, `join` |\n\n\
        * **T** things: `modules/b/src/left`, `modules/a/src/plan.rs`; others: `modules/b/src/gone`; no path: `plan`, `and/Or`\n\n\
        ## Limits\n| `nowhere` | `nothing` |\n";

    #[test]
    fn what_the_map_names_and_nobody_finds_is_told_with_its_line() {
        let sources = [
            "modules/a/src/plan.rs",
            "modules/a/src/pod/worker.rs",
            "modules/b/src/lib.rs",
            "modules/b/src/left.rs",
        ];
        let mut files: Vec<File> = sources.iter().map(|path| File::new(path, "")).collect();
        files.push(File::new(PAGE, MAP));
        let found = not_there(&files);
        let told: Vec<(usize, &str)> = found.iter().map(|finding| (finding.line, &*finding.what)).collect();
        assert_eq!(
            told,
            [
                (7, "the code map's `modules/gone` is not there"),
                (7, "`left` is no file or folder of modules/a/src and modules/gone: name what is there"),
                (9, "`modules/b/src/gone` is not there: write its path from the root"),
            ]
        );
    }

    #[test]
    fn a_page_without_a_map_is_told() {
        assert_eq!(not_there(&[File::new(PAGE, "# A\n")]).len(), 1);
    }
}
