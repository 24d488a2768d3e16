//! Which token: a URI as RFC 7512 writes it.

use std::fmt;
use std::path::{Path, PathBuf};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::error::TokenError;

const SCHEME: &str = "pkcs11:";
/// 1 KiB: two paths, a label and what names a key.
const LENGTH_MAX: usize = 1024;
/// A label of a token has 32 bytes (PKCS#11, `CK_TOKEN_INFO`).
const TOKEN_MAX: usize = 32;
/// 128 bytes of a key's label.
const OBJECT_MAX: usize = 128;
/// 64 bytes of a key's id.
const ID_MAX: usize = 64;
/// What RFC 3986 calls unreserved stays, and the slash of paths.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

/// A token, and how it is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenUri {
    /// Its label.
    pub token: String,
    /// The shared object that speaks to it; absolute.
    pub module: PathBuf,
    /// The file that holds the user's PIN; absolute.
    pub pin: PathBuf,
}

/// A key in a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyUri {
    pub(crate) token: TokenUri,
    /// Its label; keys that follow one another have one.
    pub(crate) object: String,
    /// What tells it from others of its label.
    pub(crate) id: Vec<u8>,
}

impl TokenUri {
    /// Reads `pkcs11:token=LABEL?module-path=FILE&pin-source=file:FILE`.
    ///
    /// # Errors
    /// [`TokenError::Uri`] names what is missing, unknown or too long.
    pub fn parse(uri: &str) -> Result<Self, TokenError> {
        let (token, key) = read(uri)?;
        match key {
            (None, None) => Ok(token),
            _ => Err(wrong(uri, "object and id name a key, which is made here".to_owned())),
        }
    }
}

impl fmt::Display for TokenUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write(f, self, "")
    }
}

impl KeyUri {
    pub(crate) fn parse(uri: &str) -> Result<Self, TokenError> {
        let (token, key) = read(uri)?;
        let (Some(object), Some(id)) = key else {
            return Err(wrong(uri, "object and id are missing, which name the key".to_owned()));
        };
        Ok(KeyUri { token, object, id })
    }
}

impl fmt::Display for KeyUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id: String = self.id.iter().map(|byte| format!("%{byte:02X}")).collect();
        let object = utf8_percent_encode(&self.object, ESCAPED);
        write(f, &self.token, &format!(";object={object};id={id};type=private"))
    }
}

fn write(f: &mut fmt::Formatter<'_>, token: &TokenUri, key: &str) -> fmt::Result {
    let path = |path: &Path| utf8_percent_encode(&path.to_string_lossy(), ESCAPED).to_string();
    let label = utf8_percent_encode(&token.token, ESCAPED);
    let (module, pin) = (path(&token.module), path(&token.pin));
    write!(f, "{SCHEME}token={label}{key}?module-path={module}&pin-source=file:{pin}")
}

fn wrong(uri: &str, reason: String) -> TokenError {
    // Whoever has put a PIN into it does not find it in a log.
    let shown = uri.split_once("pin-value").map_or(uri, |(before, _)| before);
    let shown: String = shown.escape_debug().take(LENGTH_MAX).collect();
    TokenError::Uri { uri: shown, reason }
}

/// A key's label and id, if they are said.
type Key = (Option<String>, Option<Vec<u8>>);

fn read(uri: &str) -> Result<(TokenUri, Key), TokenError> {
    let wrong = |reason: String| wrong(uri, reason);
    if uri.len() > LENGTH_MAX {
        return Err(wrong(format!("it has more than {LENGTH_MAX} bytes")));
    }
    let Some(rest) = uri.strip_prefix(SCHEME) else {
        return Err(wrong(format!("it does not begin with {SCHEME}")));
    };
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (mut token, mut object, mut id, mut module, mut pin) = (None, None, None, None, None);
    let parts = path.split(';').map(|part| (part, false));
    let parts = parts.chain(query.split('&').map(|part| (part, true)));
    for (part, is_query) in parts.filter(|(part, _)| !part.is_empty()) {
        let (name, value) = part.split_once('=').ok_or_else(|| wrong(format!("`{part}` has no value")))?;
        let text = || {
            let text = percent_decode_str(value).decode_utf8();
            let text = text.map_err(|_| wrong(format!("{name} is not written in UTF-8")))?;
            let is_fine = !text.is_empty() && !text.contains(char::is_control);
            is_fine.then(|| text.into_owned()).ok_or_else(|| wrong(format!("{name} is empty or unprintable")))
        };
        let short = |text: String, most: usize| {
            let fits = text.len() <= most && !text.starts_with('-');
            fits.then_some(text)
                .ok_or_else(|| wrong(format!("{name} has more than {most} bytes, or begins with -")))
        };
        let absolute = |text: String| {
            let path = PathBuf::from(text);
            path.is_absolute().then_some(path).ok_or_else(|| wrong(format!("{name} is no absolute path")))
        };
        let is_new = match (name, is_query) {
            ("token", false) => token.replace(short(text()?, TOKEN_MAX)?).is_none(),
            ("object", false) => object.replace(short(text()?, OBJECT_MAX)?).is_none(),
            ("id", false) => {
                let bytes: Vec<u8> = percent_decode_str(value).collect();
                if bytes.is_empty() || bytes.len() > ID_MAX {
                    return Err(wrong(format!("id has not 1 to {ID_MAX} bytes")));
                }
                id.replace(bytes).is_none()
            }
            ("type", false) if value == "private" => true,
            ("module-path", true) => module.replace(absolute(text()?)?).is_none(),
            ("pin-source", true) => {
                let source = text()?;
                let file = source.strip_prefix("file:").unwrap_or(&source);
                let file = file.strip_prefix("//").unwrap_or(file).to_owned();
                pin.replace(absolute(file)?).is_none()
            }
            ("pin-value", _) => {
                return Err(wrong("a PIN does not belong there: put it into a file of mode 0600, and name that with pin-source".to_owned()));
            }
            _ => return Err(wrong(format!("`{}` has no meaning here", name.escape_debug()))),
        };
        if !is_new {
            return Err(wrong(format!("{name} is there twice")));
        }
    }
    let missing = |name: &str| wrong(format!("{name} is missing"));
    let token = TokenUri {
        token: token.ok_or_else(|| missing("token"))?,
        module: module.ok_or_else(|| missing("module-path"))?,
        pin: pin.ok_or_else(|| missing("pin-source"))?,
    };
    Ok((token, (object, id)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_as_it_is_written() {
        let uri = "pkcs11:token=My%20edge?module-path=/usr/lib/a.so&pin-source=file:/etc/kubeedge/pin";
        let token = TokenUri::parse(uri).unwrap();
        let wanted = TokenUri {
            token: "My edge".to_owned(),
            module: "/usr/lib/a.so".into(),
            pin: "/etc/kubeedge/pin".into(),
        };
        assert_eq!(token, wanted);
        assert_eq!(token.to_string(), uri);
        // What pin-source may be besides: a path, and a URI with an empty host.
        for source in ["/etc/kubeedge/pin", "file:///etc/kubeedge/pin", "file:%2Fetc/kubeedge/pin"] {
            let uri = format!("pkcs11:token=My%20edge?pin-source={source}&module-path=/usr/lib/a.so");
            assert_eq!(TokenUri::parse(&uri).unwrap(), wanted, "{source}");
        }
    }

    #[test]
    fn a_key_is_read_as_it_is_written() {
        let token = TokenUri { token: "ä;b".to_owned(), module: "/a?b.so".into(), pin: "/p&q".into() };
        let key = KeyUri { token, object: "kubehive edge-1".to_owned(), id: vec![0, 59, 255] };
        let uri = key.to_string();
        assert_eq!(KeyUri::parse(&uri).unwrap(), key, "{uri}");
        assert!(TokenUri::parse(&uri).unwrap_err().to_string().contains("made here"));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let rest = "?module-path=/m.so&pin-source=file:/p";
        for (uri, words) in [
            ("token=a".to_owned(), "does not begin"),
            (format!("pkcs11:{rest}"), "token is missing"),
            ("pkcs11:token=a?module-path=/m.so".to_owned(), "pin-source is missing"),
            ("pkcs11:token=a?pin-source=/p".to_owned(), "module-path is missing"),
            ("pkcs11:token=a?module-path=m.so&pin-source=/p".to_owned(), "module-path is no absolute path"),
            (format!("pkcs11:token=a;slot-id=1{rest}"), "`slot-id` has no meaning"),
            (format!("pkcs11:token=a;type=cert{rest}"), "`type` has no meaning"),
            (format!("pkcs11:token=a;token=b{rest}"), "token is there twice"),
            (format!("pkcs11:token={rest}"), "token is empty"),
            (format!("pkcs11:token=%ff{rest}"), "not written in UTF-8"),
            (format!("pkcs11:token=a%00{rest}"), "unprintable"),
            (format!("pkcs11:token=--so-pin{rest}"), "begins with -"),
            (format!("pkcs11:token={}{rest}", "a".repeat(33)), "more than 32 bytes"),
            (format!("pkcs11:token={}{rest}", "a".repeat(2000)), "more than 1024 bytes"),
            ("pkcs11:token=a?module-name=softhsm".to_owned(), "`module-name` has no meaning"),
        ] {
            let error = TokenUri::parse(&uri).unwrap_err().to_string();
            assert!(error.contains(words), "{uri}: {error}");
        }
    }

    #[test]
    fn a_pin_in_it_is_refused_and_not_repeated() {
        let error =
            TokenUri::parse("pkcs11:token=a?module-path=/m.so&pin-value=1234").unwrap_err().to_string();
        assert!(error.contains("pin-source") && !error.contains("1234"), "{error}");
    }
}
