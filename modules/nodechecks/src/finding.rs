//! What a check found, whoever made it: `init`, `join`, `debug` or a running edgecore.

/// How grave it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grade {
    /// All is well.
    Passed,
    /// Something will not work, and the whole does.
    Warned,
    /// The whole does not work: `init` installs nothing, a node is not Ready.
    Failed,
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The name of the check.
    pub check: &'static str,
    /// How grave it is.
    pub grade: Grade,
    /// What was found, and the cure.
    pub says: String,
}

impl Finding {
    /// All is well, and what it looks like.
    #[must_use]
    pub fn passed(check: &'static str, says: impl Into<String>) -> Self {
        Finding { check, grade: Grade::Passed, says: says.into() }
    }

    /// Something will not work, and its cure.
    #[must_use]
    pub fn warned(check: &'static str, says: impl Into<String>) -> Self {
        Finding { check, grade: Grade::Warned, says: says.into() }
    }

    /// The whole does not work, and the cure.
    #[must_use]
    pub fn failed(check: &'static str, says: impl Into<String>) -> Self {
        Finding { check, grade: Grade::Failed, says: says.into() }
    }

    /// As it is shown.
    #[must_use]
    pub fn line(&self) -> String {
        let mark = match self.grade {
            Grade::Passed => "ok",
            Grade::Warned => "WARNING",
            Grade::Failed => "FAIL",
        };
        format!("{mark:<7} {}: {}", self.check, self.says)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// It is as grave, and says the word.
    #[track_caller]
    pub(crate) fn grade(finding: &Finding, grade: Grade, word: &str) {
        assert!(
            finding.grade == grade && finding.says.contains(word),
            "{finding:?} is not {grade:?} with {word}"
        );
    }
}
