//! The files that decide who gets in and what he may do: read at the start, and again when they change.
//!
//! A file that is not understood changes nothing: what was in force stays, and the line is told. While one has never been
//! understood nobody gets in by it, rather than everybody.

use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use beehive::Env;

use crate::access::{Acl, FileDefect, Proof, Users};
use crate::shared::Shared;
use crate::{events, tls};

/// 1 MiB: thousands of users.
const FILE_MAX: u64 = 1 << 20;
/// 2 s: an administrator waits no longer for a change.
const EVERY: Duration = Duration::from_secs(2);

/// What tells one state of a file from the next.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    file: (u64, u64),
    size: u64,
    written: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let found = std::fs::metadata(path).ok()?;
        Some(Stamp {
            file: (found.dev(), found.ino()),
            size: found.size(),
            written: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        })
    }
}

/// A file's content.
pub(crate) struct Content {
    pub(crate) bytes: Vec<u8>,
    /// Whether anybody of the machine may read it.
    open: bool,
}

impl Content {
    fn text(&self) -> Result<&str, FileDefect> {
        std::str::from_utf8(&self.bytes).map_err(|error| {
            let before = self.bytes.get(..error.valid_up_to()).unwrap_or_default();
            let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
            FileDefect::new(line, "is not UTF-8")
        })
    }
}

/// Reads a file, up to a bound.
pub(crate) fn content(path: &Path) -> Result<Content, FileDefect> {
    let failed = |error: std::io::Error| FileDefect::new(0, format!("cannot be read: {error}"));
    let found = std::fs::metadata(path).map_err(failed)?;
    if !found.is_file() {
        return Err(FileDefect::new(0, "is no file"));
    }
    let mut bytes = Vec::new();
    std::fs::File::open(path).map_err(failed)?.take(FILE_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(FileDefect::new(0, "has more than 1 MiB"));
    }
    Ok(Content { bytes, open: found.mode() & 0o007 != 0 })
}

/// What the state of files was before they were read, and what they hold.
type Looked = (Option<Vec<Option<Stamp>>>, Result<Vec<Content>, FileDefect>);

/// What is to be made of files that had these states before and after they were read. Whoever is just writing one is let finish: half a
/// file may be one without some users. At the start that is said, as nothing holds meanwhile.
fn whole(
    is_start: bool,
    before: Vec<Option<Stamp>>,
    after: Vec<Option<Stamp>>,
    read: Result<Vec<Content>, FileDefect>,
) -> Option<Looked> {
    if before == after {
        return Some((Some(before), read));
    }
    is_start.then(|| (None, Err(FileDefect::new(0, "is being written; it is read again"))))
}

/// Files that are read together.
struct Watched {
    key: &'static str,
    paths: Vec<PathBuf>,
    seen: Option<Vec<Option<Stamp>>>,
}

impl Watched {
    fn new(key: &'static str, paths: Vec<PathBuf>) -> Self {
        Watched { key, paths, seen: None }
    }

    /// What they hold, if they have changed.
    async fn news(&mut self, env: &Env) -> Option<Result<Vec<Content>, FileDefect>> {
        let (paths, seen) = (self.paths.clone(), self.seen.clone());
        let looked = env.blocking(move || {
            let stamps = || paths.iter().map(|path| Stamp::of(path)).collect::<Vec<_>>();
            let before = stamps();
            if seen.as_ref() == Some(&before) {
                return None;
            }
            let read = paths.iter().map(|path| {
                content(path).map_err(|defect| FileDefect {
                    what: format!("`{}` {}", path.display(), defect.what),
                    ..defect
                })
            });
            let read: Result<Vec<Content>, FileDefect> = read.collect();
            whole(seen.is_none(), before, stamps(), read)
        });
        let (stamps, read) = looked.await.ok()??;
        self.seen = stamps;
        Some(read)
    }
}

/// The files of a broker.
pub(crate) struct Files {
    users: Option<Watched>,
    acl: Option<Watched>,
    tls: Option<Watched>,
    has_looked: bool,
}

impl Files {
    pub(crate) fn new(config: &config::edge::EventBus) -> Self {
        let one = |key, path: &PathBuf| {
            (!path.as_os_str().is_empty()).then(|| Watched::new(key, vec![path.clone()]))
        };
        let tls = config.tls.enable.then(|| Watched::new("tls", tls::files(&config.tls)));
        Files {
            users: one("passwordFile", &config.password_file),
            acl: one("aclFile", &config.acl_file),
            tls,
            has_looked: false,
        }
    }

    /// Takes what has changed.
    pub(crate) async fn look(&mut self, shared: &Shared) {
        let mut is_new = !std::mem::replace(&mut self.has_looked, true);
        if let Some(watched) = &mut self.users
            && let Some(news) = watched.news(&shared.env).await
        {
            is_new = true;
            settle(shared, watched, news.and_then(|all| take_users(shared, &all)));
        }
        if let Some(watched) = &mut self.acl
            && let Some(news) = watched.news(&shared.env).await
        {
            is_new = true;
            settle(shared, watched, news.and_then(|all| take_acl(shared, &all)));
        }
        if let Some(watched) = &mut self.tls
            && let Some(news) = watched.news(&shared.env).await
        {
            is_new = true;
            settle(shared, watched, news.and_then(|all| shared.tls.take(&all, &shared.broker)));
        }
        if is_new {
            let mut broker = shared.broker.borrow_mut();
            broker.judge_sessions(|client, by| shared.access.judge_session(client, by));
            let verdict = |client: &str, proof: &Proof| shared.access.judge(client, proof, &shared.tls);
            broker.judge_wills(verdict);
        }
    }

    /// Looks again and again until it is dropped.
    pub(crate) async fn keep(mut self, shared: Rc<Shared>) {
        loop {
            shared.env.sleep(EVERY).await;
            self.look(&shared).await;
        }
    }
}

fn settle(shared: &Shared, watched: &Watched, outcome: Result<(), FileDefect>) {
    let key = watched.key;
    let mut problems = shared.access.problems.borrow_mut();
    match outcome {
        Ok(()) => {
            problems.remove(key);
            tracing::info!(key, files = ?watched.paths, "read");
        }
        Err(FileDefect { line, what }) => {
            let told = if line > 0 { format!("line {line}: {what}") } else { what };
            events::file_refused(&shared.env, key, &watched.paths, &told);
            problems.insert(key, told);
        }
    }
}

fn take_users(shared: &Shared, all: &[Content]) -> Result<(), FileDefect> {
    let content = all.first().ok_or_else(|| FileDefect::new(0, "is not there"))?;
    let users = Users::parse(content.text()?)?;
    if content.open {
        tracing::warn!("password file may be read or written by everybody: chmod 0600");
    }
    if let Some(weakness) = users.weakness() {
        tracing::warn!("{weakness}");
    }
    shared.access.set_users(users);
    let mut broker = shared.broker.borrow_mut();
    let cut =
        broker.revoke(
            |user, hash| {
                if shared.access.still(user, hash) { None } else { Some(!shared.access.knows(user)) }
            },
        );
    if cut > 0 {
        tracing::info!(cut, "users that are gone or have another password are disconnected");
    }
    Ok(())
}

fn take_acl(shared: &Shared, all: &[Content]) -> Result<(), FileDefect> {
    let content = all.first().ok_or_else(|| FileDefect::new(0, "is not there"))?;
    let acl = Acl::parse(content.text()?)?;
    shared.broker.borrow_mut().set_acl(acl);
    shared.access.knows_acl.set(true);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_file_or_too_large_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        let what = |path: &Path| content(path).map(|_| ()).unwrap_err().what;
        assert!(what(&path).contains("cannot be read"));
        assert_eq!(what(folder.path()), "is no file");
        std::fs::write(&path, vec![b'#'; 1 << 20]).unwrap();
        assert_eq!(content(&path).unwrap().bytes.len(), 1 << 20);
        std::fs::write(&path, vec![b'#'; (1 << 20) + 1]).unwrap();
        assert_eq!(what(&path), "has more than 1 MiB");
        let bad = Content { bytes: b"a\nb\n\xff".to_vec(), open: false };
        assert_eq!(bad.text().unwrap_err(), FileDefect::new(3, "is not UTF-8"));
    }

    #[test]
    fn half_a_file_is_none() {
        let stamp = |size| {
            let (file, written, changed) = ((1, 2), (3, 4), (3, 4));
            vec![Some(Stamp { file, size, written, changed })]
        };
        let read = || Ok(vec![Content { bytes: b"plc:".to_vec(), open: false }]);
        let looked = |is_start, after| whole(is_start, stamp(4), after, read());
        let (seen, read_whole) = looked(true, stamp(4)).unwrap();
        assert!(seen == Some(stamp(4)) && read_whole.is_ok());
        for after in [stamp(9), vec![None]] {
            assert!(looked(false, after.clone()).is_none());
            // It is told, and looked at again.
            let (seen, refused) = looked(true, after).unwrap();
            assert!(seen.is_none() && refused.is_err_and(|defect| defect.what.contains("being written")));
        }
    }

    #[test]
    fn a_change_is_seen_once_also_when_the_size_stays() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let env = Env::seeded(1);
            let mut watched = Watched::new("k", vec![path.clone()]);
            let text = |news: Option<Result<Vec<Content>, FileDefect>>| {
                news.map(|all| {
                    all.map(|all| String::from_utf8(all[0].bytes.clone()).unwrap()).unwrap_or_default()
                })
            };
            assert_eq!(text(watched.news(&env).await).as_deref(), Some(""));
            assert_eq!(text(watched.news(&env).await), None);
            for now in ["a", "b", "c"] {
                std::fs::write(folder.path().join("new"), now).unwrap();
                std::fs::rename(folder.path().join("new"), &path).unwrap();
                assert_eq!(text(watched.news(&env).await).as_deref(), Some(now));
                assert_eq!(text(watched.news(&env).await), None);
            }
            std::fs::remove_file(&path).unwrap();
            assert_eq!(text(watched.news(&env).await).as_deref(), Some(""));
        });
    }
}
