//! What tests of checks share.

use nodechecks::{Finding, Grade};

/// It is as grave, and says the word.
#[track_caller]
pub(crate) fn grade(finding: &Finding, grade: Grade, word: &str) {
    assert!(
        finding.grade == grade && finding.says.contains(word),
        "{finding:?} is not {grade:?} with {word}"
    );
}
