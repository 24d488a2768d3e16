//! Rule 1: the runtime has never heard of what runs on it.

use crate::{File, Finding};

const FOREIGN: [&str; 5] = ["kube", "pod", "node", "device", "mqtt"];

/// Every foreign word in beehive's sources, tests and manifest; comments and strings count, and `node_id` and
/// `NodeId` hold the word too.
pub fn foreign_to_beehive(files: &[File]) -> Vec<Finding> {
    files
        .iter()
        .filter(|file| {
            file.path.starts_with("beehive/") && (file.is_rust() || file.path.ends_with("Cargo.toml"))
        })
        .flat_map(|file| {
            file.text.lines().enumerate().flat_map(move |(at, line)| {
                words(line).into_iter().filter(|word| FOREIGN.contains(&word.as_str())).map(move |word| {
                    let what = format!(
                        "beehive must not know the word `{word}` (rule 1): say it in the runtime's words"
                    );
                    Finding::new(&file.path, at + 1, what)
                })
            })
        })
        .collect()
}

/// The words of a line in lower case: runs of letters, cut again where a capital follows a small letter.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut after_small = false;
    for letter in line.chars() {
        if !letter.is_ascii_alphabetic() || (after_small && letter.is_ascii_uppercase()) {
            words.push(std::mem::take(&mut word));
        }
        if letter.is_ascii_alphabetic() {
            word.push(letter.to_ascii_lowercase());
        }
        after_small = letter.is_ascii_lowercase();
    }
    words.push(word);
    words.retain(|word| !word.is_empty());
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> Vec<usize> {
        foreign_to_beehive(&[File::new(path, text)]).iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn a_foreign_word_is_found_wherever_it_stands() {
        let text = "// a Pod\nlet x = \"mqtt\";\nlet node_id = 1;\nstruct DeviceId;\nuse kube::Api;\n";
        assert_eq!(found("beehive/src/link/quic.rs", text), [1, 2, 3, 4, 5]);
        assert_eq!(found("beehive/Cargo.toml", "kube = \"1\"\n"), [1]);
    }

    #[test]
    fn parts_of_words_and_other_crates_are_free() {
        assert_eq!(found("beehive/src/lib.rs", "tripod, kubernetes, nodes, anode, podium"), [] as [usize; 0]);
        assert_eq!(found("modules/cri/src/lib.rs", "pod"), [] as [usize; 0]);
    }
}
