//! The bearer tokens that callers show at the door, in a file that is read again when it changes.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

use beehive::link::accept_limiter::address_prefix;
use http::{HeaderMap, header};
use sha2::{Digest as _, Sha256};

use crate::error::DoorError;

/// 16 characters of a token at least.
const TOKEN_MIN: usize = 16;
/// 1 KiB of one at the most.
const TOKEN_MAX: usize = 1 << 10;
/// 1024 tokens.
const TOKENS_MAX: usize = 1024;
/// 1 MiB of the file.
const FILE_MAX: u64 = 1 << 20;

/// Who may call.
#[derive(Clone)]
pub(crate) enum Callers {
    /// Whoever reaches the port.
    Anyone,
    /// Whoever shows one of these.
    Holders(Tokens),
}

impl Callers {
    /// Whose connections are counted together: who has shown the same token, or comes from one address (of IPv6: one /64) where
    /// nobody is asked for one. `None`: he may not call. A name tells nothing of a token.
    pub(crate) fn caller(&self, headers: &HeaderMap, address: IpAddr) -> Option<String> {
        match self {
            Callers::Anyone => Some(address_prefix(address).to_string()),
            Callers::Holders(tokens) => {
                let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
                let hash = tokens.known(token.trim())?;
                scheme.eq_ignore_ascii_case("bearer").then(|| hex::encode(hash))
            }
        }
    }
}

/// Tokens by their hashes: how long a comparison takes says nothing of any of them.
#[derive(Clone)]
pub(crate) struct Tokens {
    file: PathBuf,
    read: Arc<RwLock<ReadTokens>>,
}

#[derive(Default)]
struct ReadTokens {
    hashes: Vec<[u8; 32]>,
    changed: Option<(SystemTime, u64)>,
}

fn hash(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

/// When the file was changed last, and its length.
fn changed(file: &Path) -> std::io::Result<(SystemTime, u64)> {
    let metadata = std::fs::metadata(file)?;
    Ok((metadata.modified()?, metadata.len()))
}

impl Tokens {
    /// Of this file, which is read: on a thread that may wait.
    ///
    /// # Errors
    /// [`DoorError::Tokens`].
    pub(crate) fn read(file: &Path) -> Result<Self, DoorError> {
        let tokens = Tokens { file: file.to_owned(), read: Arc::default() };
        tokens.read_again()?;
        Ok(tokens)
    }

    /// Reads the file if it has changed. Answers whether it had. One that cannot be read changes nothing: who may call goes on.
    ///
    /// # Errors
    /// [`DoorError::Tokens`].
    pub(crate) fn read_again(&self) -> Result<bool, DoorError> {
        let failed = |reason: String| DoorError::Tokens { path: self.file.display().to_string(), reason };
        let now = changed(&self.file).map_err(|error| failed(error.to_string()))?;
        if self.read.read().unwrap_or_else(PoisonError::into_inner).changed == Some(now) {
            return Ok(false);
        }
        if now.1 > FILE_MAX {
            return Err(failed(format!("has {} bytes; at most {FILE_MAX} are read", now.1)));
        }
        let text = std::fs::read_to_string(&self.file).map_err(|error| failed(error.to_string()))?;
        let hashes = parse(&text).map_err(failed)?;
        *self.read.write().unwrap_or_else(PoisonError::into_inner) =
            ReadTokens { hashes, changed: Some(now) };
        Ok(true)
    }

    /// The token's hash, if it is one of these.
    fn known(&self, token: &str) -> Option<[u8; 32]> {
        let shown = hash(token);
        let read = self.read.read().unwrap_or_else(PoisonError::into_inner);
        read.hashes.contains(&shown).then_some(shown)
    }
}

fn parse(text: &str) -> Result<Vec<[u8; 32]>, String> {
    let mut hashes = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let token = line.trim();
        if token.is_empty() || token.starts_with('#') {
            continue;
        }
        let is_good = (TOKEN_MIN..=TOKEN_MAX).contains(&token.len())
            && token.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_good {
            return Err(format!(
                "line {}: a token has {TOKEN_MIN} to {TOKEN_MAX} printable characters without spaces",
                number + 1
            ));
        }
        hashes.push(hash(token));
    }
    match hashes.len() {
        0 => Err("holds no token: write one a line, as `openssl rand -hex 32` makes them".to_owned()),
        count if count > TOKENS_MAX => Err(format!("holds {count} tokens; at most {TOKENS_MAX} are taken")),
        _ => Ok(hashes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    const GOOD: &str = "0123456789abcdef";

    fn shows(callers: &Callers, authorization: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, HeaderValue::from_str(authorization).unwrap());
        callers.caller(&headers, [192, 0, 2, 1].into()).is_some()
    }

    #[test]
    fn one_of_the_files_tokens_opens_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tokens");
        std::fs::write(&file, format!("# mine\n\n{GOOD}\n")).unwrap();
        let tokens = Tokens::read(&file).unwrap();
        let callers = Callers::Holders(tokens.clone());
        assert!(shows(&callers, &format!("Bearer {GOOD}")) && shows(&callers, &format!("bearer {GOOD}")));
        for wrong in
            [GOOD, "Bearer", "Bearer ", "Bearer # mine", "Basic 0123456789abcdef", "Bearer 0123456789abcdeg"]
        {
            assert!(!shows(&callers, wrong), "{wrong}");
        }
        let nothing = HeaderMap::new();
        let caller = |callers: &Callers, from: &str| callers.caller(&nothing, from.parse().unwrap());
        assert_eq!(caller(&callers, "192.0.2.1"), None);
        let of_an_address = caller(&Callers::Anyone, "2001:db8::1");
        assert!(of_an_address.is_some() && of_an_address == caller(&Callers::Anyone, "2001:db8::2"));
        assert_ne!(of_an_address, caller(&Callers::Anyone, "2001:db8:0:1::1"));
        assert!(!tokens.read_again().unwrap());
        std::fs::write(&file, "another-token-of-24-byte\n").unwrap();
        assert!(tokens.read_again().unwrap());
        assert!(
            !shows(&callers, &format!("Bearer {GOOD}")) && shows(&callers, "Bearer another-token-of-24-byte")
        );
        std::fs::remove_file(&file).unwrap();
        assert!(tokens.read_again().is_err());
        assert!(shows(&callers, "Bearer another-token-of-24-byte"), "who may call goes on");
    }

    #[test]
    fn what_is_no_file_of_tokens_is_refused_with_its_line() {
        for (text, said) in [
            ("", "no token"),
            ("# x\n", "no token"),
            ("a\nshort\n", "line 1"),
            ("0123456789abcdef x\n", "line 1"),
        ] {
            assert!(parse(text).unwrap_err().contains(said), "{text}");
        }
        let many = format!("{GOOD}\n").repeat(TOKENS_MAX + 1);
        assert!(parse(&many).unwrap_err().contains("at most"));
    }
}
