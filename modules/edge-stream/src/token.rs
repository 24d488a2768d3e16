//! The token of agents on the node: a file that only the node's user reads, while the port is served and no longer. Blocks.
//!
//! Any user of the machine can listen at the port while the node does not, and hears the token of each agent that asks there. So a
//! token is worth something from one opening of the port to its closing: it is made when the port is the node's own, and whoever
//! heard the one before has nothing.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// A token.
#[derive(Clone)]
pub(crate) struct Token(String);

impl Token {
    /// Whether `shown` is this token.
    pub(crate) fn is(&self, shown: &str) -> bool {
        https::is_same_secret(&self.0, shown)
    }

    /// A new token of `random` in `file`, whatever is there.
    pub(crate) fn renew(file: &Path, random: &[u8; 32]) -> io::Result<Token> {
        withdraw(file)?;
        let text: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
        made.write_all(text.as_bytes())?;
        made.sync_all()?;
        Ok(Token(text))
    }
}

/// No agent finds a token any more. A link is removed, and not followed.
pub(crate) fn withdraw(file: &Path) -> io::Result<()> {
    match std::fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_token_is_new_whatever_is_there_and_goes() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        let token = Token::renew(&file, &[1; 32]).unwrap();
        assert!(
            token.is(&"01".repeat(32)) && !token.is("01") && !token.is(&"02".repeat(32)) && !token.is("")
        );
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o666)).unwrap();
        assert!(Token::renew(&file, &[2; 32]).unwrap().is(&"02".repeat(32)));
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "02".repeat(32));
        let elsewhere = dir.path().join("elsewhere");
        std::fs::write(&elsewhere, "f".repeat(64)).unwrap();
        std::fs::remove_file(&file).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &file).unwrap();
        Token::renew(&file, &[5; 32]).unwrap();
        assert_eq!(std::fs::read_to_string(&elsewhere).unwrap(), "f".repeat(64), "a link is not followed");
        withdraw(&file).unwrap();
        withdraw(&file).unwrap();
        assert!(!file.exists());
    }
}
