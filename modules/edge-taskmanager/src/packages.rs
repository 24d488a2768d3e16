//! The installation packages that wait on this node, each in a file with its job's uid for a name: how many, how large together, and which
//! of them go.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder};
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

/// 4 packages wait at a time.
const WAITING_MAX: usize = 4;
/// 2 GiB of all of them together.
const ROOM_MAX: u64 = 2 << 30;
/// So many files are looked at in one go: nobody but this module puts any there.
const FILES_MAX: usize = 1024;

/// Their folder, in that of the journal.
pub(crate) fn folder(journals: &Path) -> PathBuf {
    journals.join("packages")
}

/// The package of a job.
pub(crate) fn of_job(journals: &Path, uid: &str) -> PathBuf {
    folder(journals).join(name(uid))
}

/// What the package of a job is called. A uid as API servers give them is its own name, and any other its hash: it is no path.
fn name(uid: &str) -> String {
    let is_plain = !uid.is_empty() && uid.len() <= 64;
    if is_plain && uid.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
        return format!("{uid}.tar");
    }
    let hash: String = Sha256::digest(uid.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256_{hash}.tar")
}

/// Makes place for the package of a job, and answers how many bytes it may have. Blocks.
///
/// # Errors
/// A sentence, where too many wait already, or the disk takes none.
pub(crate) fn make_place(folder: &Path, uid: &str) -> Result<u64, String> {
    let at = |error: io::Error| format!("{}: {error}", folder.display());
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(at)?;
    let own = name(uid);
    let (mut others, mut taken) = (0, 0_u64);
    for file in fs::read_dir(folder).map_err(at)?.take(FILES_MAX) {
        let file = file.map_err(at)?;
        if file.file_name() != own.as_str() {
            others += 1;
            taken = taken.saturating_add(file.metadata().map_or(0, |file| file.len()));
        }
    }
    let left = ROOM_MAX.saturating_sub(taken);
    if others >= WAITING_MAX || left == 0 {
        return Err(format!(
            "{others} installation packages wait on this node already: confirm one (`keadm ctl confirm`), or delete its job, and make this one again"
        ));
    }
    Ok(left)
}

/// Removes all but the packages of these jobs, what an earlier release left included. Blocks.
///
/// # Errors
/// When the disk does not let go of one.
pub(crate) fn keep_only(journals: &Path, uids: &BTreeSet<String>) -> io::Result<()> {
    gone_is_fine(fs::remove_file(journals.join("package.tar")))?;
    let kept: BTreeSet<String> = uids.iter().map(|uid| name(uid)).collect();
    let files = match fs::read_dir(folder(journals)) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        files => files?,
    };
    for file in files.take(FILES_MAX) {
        let file = file?;
        if !file.file_name().to_str().is_some_and(|name| kept.contains(name)) {
            gone_is_fine(fs::remove_file(file.path()))?;
        }
    }
    Ok(())
}

fn gone_is_fine(removed: io::Result<()>) -> io::Result<()> {
    removed.or_else(|error| if error.kind() == ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_job_has_its_own_file_and_no_uid_is_a_path() {
        let journals = Path::new("/j");
        let uid = "6f1c3c0e-0b1e-4d3f-9f0a-1b2c3d4e5f60";
        assert_eq!(of_job(journals, uid), Path::new("/j/packages").join(format!("{uid}.tar")));
        let names: BTreeSet<String> = ["a", "b", "../../etc/cron.d/x", "a/b", "", "."].map(name).into();
        assert!(names.len() == 6 && names.iter().all(|name| !name.contains('/')), "{names:?}");
    }

    #[test]
    fn packages_are_few_and_go_with_their_jobs() {
        let dir = tempfile::tempdir().unwrap();
        let journals = dir.path();
        let put = |uid: &str| fs::write(of_job(journals, uid), "x").unwrap();
        for uid in ["a", "b", "c"] {
            make_place(&folder(journals), uid).unwrap();
            put(uid);
        }
        assert_eq!(make_place(&folder(journals), "d"), Ok(ROOM_MAX - 3));
        put("d");
        assert!(make_place(&folder(journals), "e").unwrap_err().starts_with("4 installation packages wait"));
        assert_eq!(make_place(&folder(journals), "d"), Ok(ROOM_MAX - 3), "its own it may write anew");
        fs::write(journals.join("package.tar"), "of an earlier release").unwrap();
        keep_only(journals, &["b".to_owned(), "gone".to_owned()].into()).unwrap();
        let left = |uid: &str| of_job(journals, uid).exists();
        assert_eq!(["a", "b", "c", "d"].map(left), [false, true, false, false]);
        assert!(!journals.join("package.tar").exists());
        fs::File::options().write(true).open(of_job(journals, "b")).unwrap().set_len(ROOM_MAX).unwrap();
        assert!(make_place(&folder(journals), "e").is_err(), "they are as large together as they may be");
    }
}
