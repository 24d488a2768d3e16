//! Which sources these are: the commit, and when it was made.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, anyhow, bail};

use crate::command::output;
use crate::programs::is_commit;

/// Past it no archive can write a time (2^33 - 1, the eleven octal digits of tar).
const TIME_MAX: u64 = (1 << 33) - 1;

/// What a release says of its sources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The commit, with `-dirty` where files were changed; `None` when nobody says it.
    pub commit: Option<String>,
    /// Seconds since 1970: of every file in the archives, and when certificates are valid at the earliest.
    pub time: u64,
}

/// What the releaser says of them.
#[derive(Debug, Clone, Default)]
pub struct Told {
    /// `--revision`.
    pub revision: Option<String>,
    /// `--allow-dirty`.
    pub allow_dirty: bool,
    /// `SOURCE_DATE_EPOCH`.
    pub epoch: Option<String>,
}

/// Of the clone at `root`; of an unpacked archive, what the releaser says.
///
/// # Errors
/// When files were changed and that was not allowed, or nothing says which commit and what time it is.
pub fn find(root: &Path, told: &Told) -> Result<Source> {
    let checkout = checkout(root)?;
    let time = match (&told.epoch, &checkout) {
        (Some(text), _) => parse_time(text)?,
        (None, Some(here)) => here.time,
        (None, None) => bail!(
            "these sources are no clone of git, so that SOURCE_DATE_EPOCH has to say their time (seconds since 1970)"
        ),
    };
    let commit = match (&told.revision, checkout) {
        (Some(commit), _) if !is_commit(commit) => {
            bail!("--revision: `{commit}` is no commit in full (40 hexadecimal digits)")
        }
        (Some(commit), Some(here)) if *commit != here.commit => {
            bail!("--revision: the sources here are those of {}", here.commit)
        }
        (Some(commit), None) => commit.clone(),
        (_, Some(here)) if !here.changed.is_empty() && !told.allow_dirty => bail!(
            "files are changed or not committed ({}), so that no commit is what is built: commit them, or say --allow-dirty",
            here.changed
        ),
        (_, Some(here)) if !here.changed.is_empty() => format!("{}-dirty", here.commit),
        (_, Some(here)) => here.commit,
        (None, None) => bail!("these sources are no clone of git: say their commit with --revision"),
    };
    Ok(Source { commit: Some(commit), time })
}

/// Of ready programs: what the releaser says, else what they say of themselves; and the time of that commit here, or
/// `SOURCE_DATE_EPOCH`.
///
/// # Errors
/// When nothing says the time.
pub fn of_programs(root: &Path, said: Option<String>, told: &Told) -> Result<Source> {
    if let Some(commit) = told.revision.as_ref().filter(|commit| !is_commit(commit)) {
        bail!("--revision: `{commit}` is no commit in full (40 hexadecimal digits)");
    }
    let commit = match (&told.revision, said) {
        (Some(told), Some(said)) if *told != said => {
            bail!("--revision: the programs say that they are of {said}")
        }
        (told, said) => said.or_else(|| told.clone()),
    };
    if let Some(text) = &told.epoch {
        return Ok(Source { commit, time: parse_time(text)? });
    }
    let of = commit.as_deref().map_or("HEAD", |commit| commit.trim_end_matches("-dirty"));
    let time = git(root, &["log", "-1", "--format=%ct", of]).and_then(|text| parse_time(text.trim()));
    let time = time.with_context(|| {
        format!("the time of {of} is not known here: say it with SOURCE_DATE_EPOCH (seconds since 1970)")
    })?;
    Ok(Source { commit, time })
}

/// What git says of a clone.
struct Checkout {
    commit: String,
    time: u64,
    /// The first changed files; empty for none.
    changed: String,
}

fn checkout(root: &Path) -> Result<Option<Checkout>> {
    if !root.join(".git").exists() {
        return Ok(None);
    }
    let said = git(root, &["log", "-1", "--format=%H %ct"])?;
    let (commit, time) = said.trim().split_once(' ').context("git log printed something else")?;
    let changed = git(root, &["status", "--porcelain", "--untracked-files=normal"])?;
    let changed: Vec<&str> = changed.lines().filter_map(|line| line.get(3..)).take(3).collect();
    Ok(Some(Checkout { commit: commit.to_owned(), time: parse_time(time)?, changed: changed.join(", ") }))
}

fn git(root: &Path, arguments: &[&str]) -> Result<String> {
    output(Command::new("git").arg("-C").arg(root).args(arguments))
}

fn parse_time(text: &str) -> Result<u64> {
    let time = text.parse().ok().filter(|time| *time <= TIME_MAX);
    time.ok_or_else(|| anyhow!("SOURCE_DATE_EPOCH: `{text}` is no number of seconds since 1970"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A clone with one commit.
    fn sources() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let run = |arguments: &[&str]| {
            let mut command = Command::new("git");
            command.arg("-C").arg(folder.path()).args([
                "-c",
                "user.name=a",
                "-c",
                "user.email=a@example.com",
            ]);
            output(command.args(arguments).env("GIT_COMMITTER_DATE", "1700000000 +0000")).unwrap()
        };
        run(&["init", "--quiet"]);
        std::fs::write(folder.path().join("a"), "1").unwrap();
        run(&["add", "a"]);
        run(&["commit", "--quiet", "--message", "one"]);
        folder
    }

    #[test]
    fn a_clone_says_its_commit_and_time() {
        let folder = sources();
        let found = find(folder.path(), &Told::default()).unwrap();
        assert!(found.commit.as_deref().is_some_and(is_commit));
        assert_eq!(found.time, 1_700_000_000);
        let told = Told { epoch: Some("12".to_owned()), ..Told::default() };
        assert_eq!(find(folder.path(), &told).unwrap().time, 12);
        let other = Told { revision: Some("a".repeat(40)), ..Told::default() };
        assert!(find(folder.path(), &other).unwrap_err().to_string().contains("the sources here"));
    }

    #[test]
    fn changed_files_are_no_commit() {
        let folder = sources();
        std::fs::write(folder.path().join("b"), "2").unwrap();
        let error = find(folder.path(), &Told::default()).unwrap_err().to_string();
        assert!(error.contains('b') && error.contains("--allow-dirty"), "{error}");
        let told = Told { allow_dirty: true, ..Told::default() };
        assert!(find(folder.path(), &told).unwrap().commit.unwrap().ends_with("-dirty"));
    }

    #[test]
    fn sources_without_git_say_what_is_missing() {
        let folder = tempfile::tempdir().unwrap();
        let error = |told: &Told| find(folder.path(), told).unwrap_err().to_string();
        let revision = Some("a".repeat(40));
        assert!(error(&Told { revision: revision.clone(), ..Told::default() }).contains("SOURCE_DATE_EPOCH"));
        let epoch = Some("1700000000".to_owned());
        assert!(error(&Told { epoch: epoch.clone(), ..Told::default() }).contains("--revision"));
        assert!(error(&Told { epoch: Some("soon".to_owned()), ..Told::default() }).contains("`soon`"));
        let whole =
            find(folder.path(), &Told { revision: revision.clone(), epoch, allow_dirty: false }).unwrap();
        assert_eq!(whole, Source { commit: revision, time: 1_700_000_000 });
    }

    #[test]
    fn ready_programs_are_not_contradicted() {
        let folder = sources();
        let told = Told { revision: Some("a".repeat(40)), epoch: Some("5".to_owned()), allow_dirty: false };
        let other = of_programs(folder.path(), Some("b".repeat(40)), &told);
        assert!(other.unwrap_err().to_string().contains("bbbb"));
        let same = of_programs(folder.path(), None, &told).unwrap();
        assert_eq!(same, Source { commit: told.revision, time: 5 });
        let unknown = of_programs(folder.path(), None, &Told::default()).unwrap();
        assert_eq!(unknown, Source { commit: None, time: 1_700_000_000 });
    }
}
