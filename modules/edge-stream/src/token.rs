//! The token of agents on the node: a file that only the node's user reads. Blocks.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rustix::fs::{FileType, fstat};

/// 43 characters and more: what we make has 64.
const LENGTH: std::ops::RangeInclusive<usize> = 43..=1024;

/// A token.
#[derive(Clone)]
pub(crate) struct Token(String);

impl Token {
    /// Whether `shown` is this token; how long that takes says nothing about how much of it is right.
    pub(crate) fn is(&self, shown: &str) -> bool {
        let (own, shown) = (self.0.as_bytes(), shown.as_bytes());
        let differences = own.iter().zip(shown).fold(0, |sum, (own, shown)| sum | (own ^ shown));
        own.len() == shown.len() && std::hint::black_box(differences) == 0
    }

    /// The token in `file`. One that others could read, or that is none, makes way for a new one of `random`; whether that is
    /// so is answered, too.
    pub(crate) fn at(file: &Path, random: &[u8; 32]) -> io::Result<(Token, bool)> {
        match read(file) {
            Ok(Some(token)) => return Ok((token, false)),
            Ok(None) => std::fs::remove_file(file)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let text: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
        made.write_all(text.as_bytes())?;
        made.sync_all()?;
        Ok((Token(text), true))
    }
}

/// `None`: there is something, and it is not to be trusted.
fn read(path: &Path) -> io::Result<Option<Token>> {
    let nofollow = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let flags = i32::try_from(nofollow.bits()).unwrap_or_default();
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(path);
    let file = match opened {
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
            return Ok(None);
        }
        opened => opened?,
    };
    let stat = fstat(&file)?;
    let is_ours = stat.st_uid == rustix::process::geteuid().as_raw() && stat.st_mode & 0o077 == 0;
    if !is_ours || FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Ok(None);
    }
    let text = contents(file)?;
    let token = text.trim();
    let fits = LENGTH.contains(&token.len()) && token.bytes().all(|byte| byte.is_ascii_graphic());
    Ok(fits.then(|| Token(token.to_owned())))
}

fn contents(file: File) -> io::Result<String> {
    let mut bytes = Vec::new();
    file.take(*LENGTH.end() as u64 + 2).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_token_is_made_kept_and_made_anew_when_others_could_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        let (token, made) = Token::at(&file, &[1; 32]).unwrap();
        assert!(
            made && token.is(&"01".repeat(32))
                && !token.is("01")
                && !token.is(&"02".repeat(32))
                && !token.is("")
        );
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let (token, made) = Token::at(&file, &[2; 32]).unwrap();
        assert!(!made && token.is(&"01".repeat(32)));
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
        let (token, made) = Token::at(&file, &[3; 32]).unwrap();
        assert!(made && token.is(&"03".repeat(32)));
        for bad in ["", "short", &"a b".repeat(30)] {
            std::fs::write(&file, bad).unwrap();
            assert!(Token::at(&file, &[4; 32]).unwrap().1, "{bad:?}");
        }
        let elsewhere = dir.path().join("elsewhere");
        std::fs::write(&elsewhere, "f".repeat(64)).unwrap();
        std::fs::remove_file(&file).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &file).unwrap();
        assert!(Token::at(&file, &[5; 32]).unwrap().1, "a link is not followed");
        assert_eq!(std::fs::read_to_string(&elsewhere).unwrap(), "f".repeat(64));
    }
}
