//! Looking a path up so that it cannot lead out.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Component, Path};
use std::sync::OnceLock;

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, StatxFlags, fstat, openat, openat2, statx,
};
use rustix::io::Errno;

/// The kernel asks to try again when something was moved meanwhile; a container that moves things all the time shall
/// not keep us here.
const TRIES: usize = 128;
/// As in the kernel: so many links on one path.
const LINKS_MAX: usize = 40;
/// As in the kernel: bytes of a path.
const PATH_BYTES: usize = 4096;

const PLACE: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// How paths are looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// `openat2`, since Linux 5.6.
    Kernel,
    /// Name by name, without following anything.
    Walk,
}

/// What this machine can do; found out once.
pub(super) fn way() -> Way {
    static WAY: OnceLock<Way> = OnceLock::new();
    *WAY.get_or_init(|| match openat2(CWD, ".", PLACE, Mode::empty(), strict()) {
        Ok(_) => Way::Kernel,
        Err(_) => Way::Walk,
    })
}

fn strict() -> ResolveFlags {
    ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS
}

/// The names of a relative path; an error when it holds anything but plain names.
pub(super) fn names(at: &Path) -> Result<Vec<&OsStr>, Errno> {
    let plain = |part: Component<'_>| matches!(part, Component::Normal(_));
    let bytes = at.as_os_str().as_bytes();
    if bytes.is_empty() || bytes.len() >= PATH_BYTES || bytes.contains(&0) || !at.components().all(plain) {
        return Err(Errno::INVAL);
    }
    Ok(at.iter().collect())
}

/// Opens `at` below `dir`. No link is followed, not even the last.
pub(super) fn open(
    dir: BorrowedFd<'_>,
    at: &Path,
    flags: OFlags,
    mode: Mode,
    way: Way,
) -> Result<OwnedFd, Errno> {
    let names = names(at)?;
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match way {
        Way::Kernel => again(|| {
            let opened = openat2(dir, at, flags, mode, strict())?;
            not_a_link(opened, flags)
        }),
        Way::Walk => by_names(dir, &names, flags, mode),
    }
}

fn again(mut open: impl FnMut() -> Result<OwnedFd, Errno>) -> Result<OwnedFd, Errno> {
    let mut last = Errno::AGAIN;
    for _ in 0..TRIES {
        match open() {
            Err(Errno::AGAIN | Errno::INTR) => last = Errno::AGAIN,
            other => return other,
        }
    }
    Err(last)
}

fn by_names(dir: BorrowedFd<'_>, names: &[&OsStr], flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
    let Some((last, before)) = names.split_last() else { return Err(Errno::INVAL) };
    let mut at: Option<OwnedFd> = None;
    for name in before {
        let from = at.as_ref().map_or(dir, |fd| fd.as_fd());
        at = Some(openat(from, *name, PLACE | OFlags::DIRECTORY, Mode::empty())?);
    }
    let from = at.as_ref().map_or(dir, |fd| fd.as_fd());
    let opened = openat(from, *last, flags, mode)?;
    not_a_link(opened, flags)
}

/// `O_PATH` with `O_NOFOLLOW` opens a link itself.
fn not_a_link(opened: OwnedFd, flags: OFlags) -> Result<OwnedFd, Errno> {
    let is_link = flags.contains(OFlags::PATH) && kind(opened.as_fd())? == FileType::Symlink;
    if is_link { Err(Errno::LOOP) } else { Ok(opened) }
}

/// What was opened, as the kernel knows it: a server that does not answer is not asked.
fn kind(opened: BorrowedFd<'_>) -> Result<FileType, Errno> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    match statx(opened, "", flags, StatxFlags::TYPE) {
        Ok(found) => Ok(FileType::from_raw_mode(found.stx_mode.into())),
        // Before Linux 4.11, or where a filter forbids it.
        Err(_) => Ok(FileType::from_raw_mode(fstat(opened)?.st_mode)),
    }
}

/// Whether another mount begins at `name` in `dir`. The kernel's look-up stops before it, so that a server that does not answer is
/// not asked. `None`: this kernel cannot tell.
pub(super) fn is_crossed(dir: BorrowedFd<'_>, name: &OsStr, way: Way) -> Result<Option<bool>, Errno> {
    if way == Way::Walk {
        return Ok(None);
    }
    let within = strict() | ResolveFlags::NO_XDEV;
    match again(|| not_a_link(openat2(dir, name, PLACE, Mode::empty(), within)?, PLACE)) {
        Ok(_) => Ok(Some(false)),
        Err(Errno::XDEV) => Ok(Some(true)),
        Err(error) => Err(error),
    }
}

/// Opens `at` below `dir` as a place; links are followed as long as they stay below `dir`. Leading out is
/// [`Errno::XDEV`].
pub(super) fn open_inside(dir: BorrowedFd<'_>, at: &Path, way: Way) -> Result<OwnedFd, Errno> {
    match way {
        Way::Kernel => {
            let inside = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
            again(|| openat2(dir, at, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), inside))
        }
        Way::Walk => inside_by_names(dir, at),
    }
}

/// `..` goes back to the folder that we came from, which is one below `dir` by how we got there.
fn inside_by_names(dir: BorrowedFd<'_>, at: &Path) -> Result<OwnedFd, Errno> {
    let mut left: Vec<OsString> = at.iter().rev().map(OsStr::to_owned).collect();
    let mut stack = vec![openat(dir, ".", PLACE | OFlags::DIRECTORY, Mode::empty())?];
    let mut links = 0;
    while let Some(name) = left.pop() {
        let Some(from) = stack.last() else { return Err(Errno::XDEV) };
        match name.as_bytes() {
            b"" | b"." => continue,
            b".." => {
                stack.pop();
                if stack.is_empty() {
                    return Err(Errno::XDEV);
                }
                continue;
            }
            bytes if bytes.starts_with(b"/") => return Err(Errno::XDEV),
            _ => {}
        }
        let next = openat(from, &name, PLACE, Mode::empty())?;
        if FileType::from_raw_mode(fstat(&next)?.st_mode) != FileType::Symlink {
            stack.push(next);
            continue;
        }
        links += 1;
        if links > LINKS_MAX || left.len() > PATH_BYTES {
            return Err(Errno::LOOP);
        }
        // Of the link that was opened, not of what has its name by now.
        let target = rustix::fs::readlinkat(&next, "", Vec::new())?.into_bytes();
        if target.first() == Some(&b'/') {
            return Err(Errno::XDEV);
        }
        left.extend(Path::new(&OsString::from_vec(target)).iter().rev().map(OsStr::to_owned));
    }
    stack.pop().ok_or(Errno::XDEV)
}
