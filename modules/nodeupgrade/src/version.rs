//! Which version a program says it is of, and which may follow which. Pure.

use std::cmp::Ordering;

/// What a version may be long: it names a folder.
const LENGTH_MAX: usize = 80;
/// What stands for a version that nobody knows.
const UNKNOWN: &str = "unknown";

/// A version as semver.org has it, with the commit behind a `+`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    text: String,
    numbers: [u64; 3],
    pre: Option<String>,
}

impl Version {
    /// From `1.2.3`, `v1.2.3`, with a `-rc.1` or a `+commit` behind it.
    pub fn parse(text: &str) -> Option<Version> {
        let text = text.strip_prefix('v').unwrap_or(text);
        let fits = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '-' | '+');
        if text.len() > LENGTH_MAX || !text.chars().all(fits) {
            return None;
        }
        let release = text.split_once('+').map_or(text, |(release, _)| release);
        let (numbers, pre) = match release.split_once('-') {
            Some((_, "")) => return None,
            Some((numbers, pre)) => (numbers, Some(pre.to_owned())),
            None => (release, None),
        };
        let mut parts = numbers.split('.').map(|part| part.parse::<u64>().ok());
        let numbers = [parts.next()??, parts.next()??, parts.next()??];
        parts.next().is_none().then(|| Version { text: text.to_owned(), numbers, pre })
    }

    /// One that nobody knows, by this word.
    pub(crate) fn unknown(text: &str) -> Version {
        Version { text: text.to_owned(), numbers: [0; 3], pre: Some(UNKNOWN.to_owned()) }
    }

    /// Whether its program has said it.
    pub(crate) fn is_known(&self) -> bool {
        self.pre.as_deref() != Some(UNKNOWN)
    }

    /// From what `PROGRAM --version` prints: `PROGRAM 1.2.3 (commit 00f9c82c…)`.
    pub fn said(line: &str, program: &str) -> Option<Version> {
        let rest = line.trim().strip_prefix(program)?.strip_prefix(' ')?;
        let (version, commit) = match rest.split_once(" (commit ") {
            Some((version, commit)) => (version, commit.strip_suffix(')')?),
            None => (rest, "unknown"),
        };
        let is_dirty = commit.ends_with("-dirty");
        let commit = commit.strip_suffix("-dirty").unwrap_or(commit);
        let short = commit.get(..12).filter(|short| short.bytes().all(|byte| byte.is_ascii_hexdigit()));
        Version::parse(&match short {
            Some(short) if is_dirty => format!("{version}+{short}.dirty"),
            Some(short) => format!("{version}+{short}"),
            None => version.to_owned(),
        })
    }

    /// As it is written, without a `v`.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it is the one that a person names: in full, or without the commit.
    pub fn is(&self, named: &Version) -> bool {
        self == named || (!named.text.contains('+') && self.numbers == named.numbers && self.pre == named.pre)
    }

    /// Which is the newer release; of one release every commit is as new.
    pub fn newness(&self, other: &Version) -> Ordering {
        let by_numbers = self.numbers.cmp(&other.numbers);
        by_numbers.then_with(|| match (&self.pre, &other.pre) {
            (None, None) => Ordering::Equal,
            (None, Some(_)) => Ordering::Greater,
            (Some(_), None) => Ordering::Less,
            (Some(own), Some(other)) => pre_releases(own, other),
        })
    }

    /// Why `to` may not follow this one without `--force`: a store, and a wire, are read by the release before and the one after.
    pub fn refusal(&self, to: &Version) -> Option<String> {
        let ([major, minor, _], [to_major, to_minor, _]) = (self.numbers, to.numbers);
        if to.newness(self) == Ordering::Less {
            return Some(format!(
                "{} is older than {}, which runs: what the newer one has written the older one may not know",
                to.text, self.text
            ));
        }
        if to_major != major || to_minor > minor.saturating_add(1) {
            return Some(format!(
                "{} is more than one minor release after {}: go by each release between them",
                to.text, self.text
            ));
        }
        None
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

/// As semver.org orders them.
fn pre_releases(own: &str, other: &str) -> Ordering {
    let (mut own, mut other) = (own.split('.'), other.split('.'));
    loop {
        let (a, b) = match (own.next(), other.next()) {
            (None, None) => return Ordering::Equal,
            (None, Some(_)) => return Ordering::Less,
            (Some(_), None) => return Ordering::Greater,
            (Some(a), Some(b)) => (a, b),
        };
        let ordered = match (a.parse::<u64>(), b.parse::<u64>()) {
            (Ok(a), Ok(b)) => a.cmp(&b),
            (Ok(_), Err(_)) => Ordering::Less,
            (Err(_), Ok(_)) => Ordering::Greater,
            (Err(_), Err(_)) => a.cmp(b),
        };
        if ordered != Ordering::Equal {
            return ordered;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Version {
        Version::parse(text).unwrap()
    }

    #[test]
    fn what_a_program_prints_is_a_version_or_none() {
        for (line, version) in [
            ("edgecore 0.1.0 (commit 00f9c82cd0ab77)\n", "0.1.0+00f9c82cd0ab"),
            ("edgecore 0.1.0 (commit 00f9c82cd0ab77-dirty)", "0.1.0+00f9c82cd0ab.dirty"),
            ("edgecore 0.1.0 (commit unknown)", "0.1.0"),
            ("edgecore 1.2.3-rc.1", "1.2.3-rc.1"),
        ] {
            assert_eq!(Version::said(line, "edgecore").unwrap().as_str(), version, "{line}");
        }
        for line in [
            "keadm 0.1.0 (commit unknown)",
            "edgecore",
            "edgecore 1.2",
            "edgecore 1.2.3.4",
            "edgecore 1.2.3-",
            "edgecore ../../etc",
            "edgecore 1.2.3+a/b",
            "edgecore 1.2.99999999999999999999",
            &format!("edgecore 1.2.3+{}", "a".repeat(100)),
        ] {
            assert_eq!(Version::said(line, "edgecore"), None, "{line}");
        }
    }

    #[test]
    fn a_person_may_leave_the_commit_and_the_v_out() {
        assert!(of("0.1.0+abc").is(&of("v0.1.0")) && of("0.1.0+abc").is(&of("0.1.0+abc")));
        assert!(!of("0.1.0+abc").is(&of("0.1.0+abd")) && !of("0.1.0-rc.1").is(&of("0.1.0")));
    }

    #[test]
    fn the_next_release_follows_and_others_need_force() {
        for (from, to) in
            [("1.2.3", "1.2.4"), ("1.2.3+a", "1.2.3+b"), ("1.2.3", "1.3.0"), ("1.2.3-rc.1", "1.2.3")]
        {
            assert_eq!(of(from).refusal(&of(to)), None, "{from} {to}");
        }
        for (from, to, word) in [
            ("1.2.3", "1.2.2", "older"),
            ("1.2.3", "1.2.3-rc.10", "older"),
            ("1.2.3-rc.10", "1.2.3-rc.9", "older"),
            ("1.2.3", "1.4.0", "more than one minor release"),
            ("1.9.3", "2.0.0", "more than one minor release"),
        ] {
            assert!(of(from).refusal(&of(to)).is_some_and(|said| said.contains(word)), "{from} {to}");
        }
    }
}
