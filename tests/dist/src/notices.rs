//! The licences of what is linked, in their own words: most of them ask that they go with the program.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::crates::{About, Id};

/// What the names of such files begin with, in small letters.
const NAMES: [&str; 6] = ["license", "licence", "copying", "notice", "copyright", "unlicense"];
/// 256 KiB: the longest licence that there is has 40.
const TEXT_MAX: u64 = 256 << 10;

/// The texts of the crates in `linked`, each once, with the crates that it is of; of a crate without one the licence's name.
///
/// # Errors
/// When a crate's folder cannot be read.
pub fn texts<'a>(linked: impl IntoIterator<Item = &'a Id>, about: &BTreeMap<Id, About>) -> Result<Vec<u8>> {
    let mut of_text: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut without = BTreeSet::new();
    for id in linked.into_iter().collect::<BTreeSet<&Id>>() {
        let known = about.get(id).with_context(|| format!("cargo metadata does not know {}", id.name))?;
        // Ours are of one licence, which comes first.
        if known.sha256.is_none() {
            continue;
        }
        let name = format!("{} {}", id.name, id.version);
        let texts = texts_in(&known.folder)?;
        if texts.is_empty() {
            without.insert(format!("{name}: {}", known.license.as_deref().unwrap_or("unknown")));
        }
        for text in texts {
            of_text.entry(text).or_default().insert(name.clone());
        }
    }
    let mut groups: Vec<(String, String)> = of_text
        .into_iter()
        .map(|(text, names)| (names.into_iter().collect::<Vec<String>>().join(", "), text))
        .collect();
    groups.sort();
    let mut page = format!("KubeHive\n\n{}\n", include_str!("../../../LICENSE").trim_end());
    for (names, text) in groups {
        page.push_str(&format!("\n{RULE}\n{names}\n\n{text}\n"));
    }
    if !without.is_empty() {
        page.push_str(&format!("\n{RULE}\nWithout a text of their own\n\n"));
        without.iter().for_each(|line| page.push_str(&format!("{line}\n")));
    }
    Ok(page.into_bytes())
}

const RULE: &str = "----------------------------------------------------------------------";

fn texts_in(folder: &Path) -> Result<BTreeSet<String>> {
    let shown = folder.display();
    let mut texts = BTreeSet::new();
    for entry in std::fs::read_dir(folder).with_context(|| format!("cannot read {shown}"))? {
        let entry = entry.with_context(|| format!("cannot read {shown}"))?;
        let name = entry.file_name().to_string_lossy().to_lowercase();
        let kind = entry.metadata().with_context(|| format!("cannot read {shown}"))?;
        if !kind.is_file() || kind.len() > TEXT_MAX || !NAMES.iter().any(|begin| name.starts_with(begin)) {
            continue;
        }
        let bytes = std::fs::read(entry.path()).with_context(|| format!("cannot read {shown}/{name}"))?;
        // Some are in Latin-1, and differ from others in their ends of lines alone.
        let text = String::from_utf8_lossy(&bytes).replace("\r\n", "\n");
        texts.insert(text.trim_end().to_owned());
    }
    Ok(texts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_text_is_there_once_with_its_crates() {
        let folder = tempfile::tempdir().unwrap();
        let mut about = BTreeMap::new();
        let mut add = |name: &str, sha256: Option<&str>, files: &[(&str, &str)]| {
            let folder = folder.path().join(name);
            std::fs::create_dir(&folder).unwrap();
            for (file, text) in files {
                std::fs::write(folder.join(file), text).unwrap();
            }
            let id = Id { name: name.to_owned(), version: "1.0.0".to_owned() };
            let sha256 = sha256.map(str::to_owned);
            about.insert(id, About { sha256, license: Some("MIT".to_owned()), folder });
        };
        add("a", Some("1"), &[("LICENSE-MIT", "do\r\nas you like\n\n"), ("README", "no licence")]);
        add("b", Some("2"), &[("license.md", "do\nas you like\n")]);
        add("c", Some("3"), &[]);
        add("ours", None, &[("LICENSE", "ours")]);
        let page = String::from_utf8(texts(about.keys(), &about).unwrap()).unwrap();
        assert!(page.contains("\na 1.0.0, b 1.0.0\n\ndo\nas you like\n"), "{page}");
        assert_eq!(page.matches("as you like").count(), 1);
        assert!(
            page.contains("\nc 1.0.0: MIT\n") && !page.contains("no licence") && !page.contains("ours"),
            "{page}"
        );
        assert!(page.starts_with("KubeHive\n\n") && page.contains("Apache License"));
    }
}
