//! What a token wants to know before it does anything.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::OFlags;
use sha2::{Digest as _, Sha256};
use trustedfiles::{ALL, TrustCheck, TrustedEntry};

use crate::error::TokenError;
use crate::uri::TokenUri;

/// 255 bytes of a PIN: tokens have lower bounds of their own.
const PIN_MAX: u64 = 255;
/// 64 tokens whose refusals are remembered.
const TOKENS_MAX: usize = 64;

/// By module and label, the hash of the PIN that was refused. A token locks itself after a few, and a node dials every few seconds.
static REFUSED: Mutex<BTreeMap<(PathBuf, String), [u8; 32]>> = Mutex::new(BTreeMap::new());

/// The PIN for `token`, unless it has refused just that.
pub(crate) fn of(token: &TokenUri) -> Result<String, TokenError> {
    let pin = read(&token.pin)?;
    let refused = REFUSED.lock().unwrap_or_else(PoisonError::into_inner);
    if refused.get(&key(token)) == Some(&hash(&pin)) {
        return Err(TokenError::RefusedPin { token: token.token.clone(), path: token.pin.clone() });
    }
    Ok(pin)
}

/// The token has refused it.
pub(crate) fn refused(token: &TokenUri, pin: &str) {
    let mut refused = REFUSED.lock().unwrap_or_else(PoisonError::into_inner);
    if refused.len() < TOKENS_MAX || refused.contains_key(&key(token)) {
        refused.insert(key(token), hash(pin));
    }
}

fn key(token: &TokenUri) -> (PathBuf, String) {
    (token.module.clone(), token.token.clone())
}

fn hash(pin: &str) -> [u8; 32] {
    Sha256::digest(pin).into()
}

fn read(path: &Path) -> Result<String, TokenError> {
    let entry = TrustedEntry { key: "pin-source", path: path.to_owned(), closed: ALL, may_be_link: false };
    TrustCheck::refusing().path(&entry)?;
    let fault = |reason: String| TokenError::Pin { path: path.to_owned(), reason };
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let opened = File::options().read(true).custom_flags(flags).open(path);
    let opened = opened.map_err(|error| fault(error.to_string()))?;
    if !opened.metadata().is_ok_and(|metadata| metadata.is_file()) {
        return Err(fault("it is no file".to_owned()));
    }
    let mut text = String::new();
    opened.take(PIN_MAX + 2).read_to_string(&mut text).map_err(|error| fault(error.to_string()))?;
    let pin = text.trim_end_matches(['\r', '\n']);
    if pin.is_empty() || pin.len() as u64 > PIN_MAX || pin.contains(['\n', '\0']) {
        return Err(fault(format!("it holds no line of 1 to {PIN_MAX} bytes")));
    }
    Ok(pin.to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_pin_is_a_line_of_a_file_that_nobody_else_reads() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pin");
        let write = |text: &str, mode| {
            let _ = std::fs::remove_file(&path);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        write("1234\n", 0o600);
        assert_eq!(read(&path).unwrap(), "1234");
        write("1234", 0o640);
        let open = read(&path).unwrap_err().to_string();
        assert!(open.contains("pin-source") && open.contains("chmod"), "{open}");
        for text in ["", "\n", "1\n2\n", &"1".repeat(256)] {
            write(text, 0o600);
            assert!(matches!(read(&path), Err(TokenError::Pin { .. })), "{text:?}");
        }
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(read(&path), Err(TokenError::Pin { .. })));
        std::os::unix::fs::symlink("/etc/hostname", &path).unwrap();
        assert!(matches!(read(&path), Err(TokenError::Untrusted(_))));
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("no file"));
    }

    #[test]
    fn a_refused_pin_is_not_shown_again_and_another_one_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pin");
        std::fs::write(&path, "1234").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let token = TokenUri { token: "a".to_owned(), module: "/pin.so".into(), pin: path.clone() };
        assert_eq!(of(&token).unwrap(), "1234");
        refused(&token, "1234");
        let said = of(&token).unwrap_err().to_string();
        assert!(said.contains("would lock itself") && !said.contains("1234"), "{said}");
        assert_eq!(of(&TokenUri { token: "b".to_owned(), ..token.clone() }).unwrap(), "1234");
        std::fs::write(&path, "4321").unwrap();
        assert_eq!(of(&token).unwrap(), "4321");
    }
}
