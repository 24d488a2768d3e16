//! Programs out of a folder, whoever filled it: regular files of a bounded size, for the right machine, that need nothing beside
//! themselves, and that say of which commit they are.

use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, anyhow, bail};
use elf::Unfit;
use sha2::{Digest as _, Sha256};

use crate::parts::Program;
use crate::target::Target;

/// 256 MiB: ten times what the largest is.
pub const PROGRAM_MAX: u64 = 256 << 20;

/// A program, read once: what is looked at is what is packed.
#[derive(Debug, Clone)]
pub struct Binary {
    /// Which it is.
    pub program: Program,
    /// The file.
    pub bytes: Vec<u8>,
}

impl Binary {
    /// SHA-256 of the file, in hexadecimal.
    pub fn sha256(&self) -> String {
        hex::encode(Sha256::digest(&self.bytes))
    }
}

/// Reads `programs` out of `folder`.
///
/// # Errors
/// A sentence that names the file, what is wrong with it, and what to do.
pub fn read(folder: &Path, programs: &[Program], target: Target) -> Result<Vec<Binary>> {
    programs
        .iter()
        .map(|program| {
            let path = folder.join(program.name);
            let bytes = bytes_of(&path)?;
            elf::check(&bytes, target.machine, target.is_64_bit)
                .map_err(|unfit| anyhow!("{}: {}", path.display(), sentence(&unfit, target)))?;
            Ok(Binary { program: *program, bytes })
        })
        .collect()
}

fn bytes_of(path: &Path) -> Result<Vec<u8>> {
    let shown = path.display();
    // Neither a link nor, by waiting for its other end, a pipe is read.
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let file = std::fs::OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path);
    let file = match file {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            bail!("{shown} is not there: build it, or leave it out with --only");
        }
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
            bail!("{shown} is a symbolic link, and none is followed: put the program itself there");
        }
        Err(error) => return Err(error).with_context(|| format!("cannot read {shown}")),
    };
    let found = file.metadata().with_context(|| format!("cannot read {shown}"))?;
    if !found.is_file() {
        bail!("{shown} is not a regular file: put the program itself there");
    }
    let too_large = || anyhow!("{shown} has more than {} MiB: that is no program of ours", PROGRAM_MAX >> 20);
    if found.len() > PROGRAM_MAX {
        return Err(too_large());
    }
    let mut bytes = Vec::with_capacity(usize::try_from(found.len())?);
    // It may grow meanwhile.
    file.take(PROGRAM_MAX + 1).read_to_end(&mut bytes).with_context(|| format!("cannot read {shown}"))?;
    if bytes.len() as u64 > PROGRAM_MAX { Err(too_large()) } else { Ok(bytes) }
}

fn sentence(unfit: &Unfit, target: Target) -> String {
    match unfit {
        Unfit::NotElf => "is not a program of Linux (no ELF file, or a part of one)".to_owned(),
        Unfit::NotProgram => "is an ELF file, but nothing that can be started".to_owned(),
        Unfit::Machine(machine) => format!(
            "is for {}, and images for {} are wanted: say the other with --target",
            Target::name_of_machine(*machine),
            target.architecture
        ),
        Unfit::Loader(loader) => format!(
            "needs {loader} and the libraries that it loads, and an image holds the program alone: programs of `cargo dist` need none"
        ),
    }
}

/// What a program says of its commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// It is of this commit: 40 or 64 hexadecimal digits, with `-dirty` where files were changed.
    Commit(String),
    /// It is of another version.
    OtherVersion,
    /// It does not know, or was built before programs said it.
    Nothing,
}

/// What stands in each program behind its version (`buildinfo::TEXT`).
const BEFORE_COMMIT: &[u8] = b" (commit ";

/// Which commit of `version` these bytes say that they are of.
pub fn said(bytes: &[u8], version: &str) -> Said {
    let mut other = false;
    let mut rest = bytes;
    let mut behind = 0;
    while let Some(at) = rest.windows(BEFORE_COMMIT.len()).position(|window| window == BEFORE_COMMIT) {
        let (begin, end) = (behind + at, behind + at + BEFORE_COMMIT.len());
        behind = end;
        rest = &bytes[end..];
        let Some(commit) = commit_at(rest) else { continue };
        if bytes[..begin].ends_with(version.as_bytes()) {
            return Said::Commit(commit);
        }
        other = true;
    }
    if other { Said::OtherVersion } else { Said::Nothing }
}

fn commit_at(bytes: &[u8]) -> Option<String> {
    let end = bytes.iter().take(80).position(|byte| *byte == b')')?;
    let text = std::str::from_utf8(&bytes[..end]).ok()?;
    is_commit(text.strip_suffix("-dirty").unwrap_or(text)).then(|| text.to_owned())
}

/// Whether this is a commit's name in full: SHA-1 or SHA-256 in lower-case hexadecimal.
pub fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64)
        && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: &str = "00f9c82cd00f9c82cd00f9c82cd00f9c82cd0123";

    #[test]
    fn a_program_says_its_commit_wherever_it_stands() {
        let of = |text: &str| said(text.as_bytes(), "0.1.0");
        assert_eq!(of(&format!("\0edgecore 0.1.0 (commit {COMMIT})\n")), Said::Commit(COMMIT.to_owned()));
        let dirty = format!("{COMMIT}-dirty");
        assert_eq!(
            of(&format!("a (commit unknown) other words0.1.0 (commit {dirty})x")),
            Said::Commit(dirty.clone())
        );
        assert_eq!(of(&format!("0.2.0 (commit {COMMIT})")), Said::OtherVersion);
        for text in ["0.1.0 (commit unknown)", "", "0.1.0 (commit ", "0.1.0 (commit 12ab)"] {
            assert_eq!(of(text), Said::Nothing, "{text}");
        }
    }

    #[test]
    fn a_commit_is_written_in_full() {
        assert!(is_commit(COMMIT) && is_commit(&"a".repeat(64)));
        for text in ["", "00f9c82", &COMMIT.to_uppercase(), &"g".repeat(40)] {
            assert!(!is_commit(text), "{text}");
        }
    }
}
