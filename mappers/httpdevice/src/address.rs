//! Where a device is, and how one logs in there.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use framework::answers::BYTES_MAX;
use framework::http_device::DeviceUrl;
use framework::{InvalidSetting, Settings};
use hyper::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HOST, HeaderName, HeaderValue, TE,
    TRAILER, TRANSFER_ENCODING, UPGRADE, USER_AGENT,
};

/// 5 s for an answer, unless `timeoutMs` says otherwise.
const ANSWER_MILLIS: i64 = 5000;
/// 1 MiB: the largest answer that is read, unless `maxBytes` says otherwise.
const BYTES: i64 = 1 << 20;

/// Headers that are the mapper's own: who calls, whom, and where a request ends.
const OWN_HEADERS: [HeaderName; 10] = [
    CONNECTION,
    CONTENT_LENGTH,
    CONTENT_TYPE,
    EXPECT,
    HOST,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    USER_AGENT,
];

/// Where a device is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Its address or name.
    pub host: String,
    /// The TCP port.
    pub port: u16,
    /// What all paths begin with.
    pub base: String,
    /// How one logs in.
    pub login: Login,
    /// How long an answer may take.
    pub answer: Duration,
    /// The largest answer that is read.
    pub bytes: usize,
}

/// A header that logs in. It is not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Login(pub Option<(HeaderName, HeaderValue)>);

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "Login(..)" } else { "Login(none)" })
    }
}

impl Address {
    /// From `protocol.configData`.
    ///
    /// # Errors
    /// With the key and the cure.
    pub fn read(settings: &Settings) -> Result<Self, InvalidSetting> {
        let url = settings.text("url")?.unwrap_or_default();
        let DeviceUrl { host, port, path, query } = DeviceUrl::read(&url, "http://192.0.2.7:8080")?;
        if query.is_some() {
            return Err(InvalidSetting::new("setting `url` has a query; write the visitor's `query`"));
        }
        let millis = settings.whole_within("timeoutMs", ANSWER_MILLIS, 10..=60_000)?;
        let most = i64::try_from(BYTES_MAX).unwrap_or(i64::MAX);
        Ok(Address {
            host,
            port,
            base: path.trim_end_matches('/').to_owned(),
            login: Login(login(settings)?),
            answer: Duration::from_millis(millis),
            bytes: settings.whole_within("maxBytes", BYTES, 1..=most)?,
        })
    }

    /// As it stands in a `Host` header.
    pub(crate) fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

fn login(settings: &Settings) -> Result<Option<(HeaderName, HeaderValue)>, InvalidSetting> {
    let text = |key: &str| settings.text(key).map(Option::unwrap_or_default);
    let (user, password, token) = (text("userName")?, text("password")?, text("token")?);
    let name = text("header")?;
    let (header, value) = match text("auth")?.to_ascii_lowercase().as_str() {
        "" | "none" => return Ok(None),
        "basic" => (AUTHORIZATION, format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))),
        "bearer" => (AUTHORIZATION, format!("Bearer {token}")),
        "apikey" => {
            let name = if name.is_empty() { "x-api-key" } else { &name };
            let header = name.to_ascii_lowercase().parse::<HeaderName>();
            let header =
                header.map_err(|_| InvalidSetting::new("setting `header` is no name of a header"))?;
            if OWN_HEADERS.contains(&header) {
                let sentence = format!(
                    "setting `header` is `{header}`, which the mapper itself sends; write the one that the device takes a token in"
                );
                return Err(InvalidSetting::new(sentence));
            }
            (header, token)
        }
        other => {
            return Err(InvalidSetting::new(format!(
                "setting `auth` is `{other}`; write none, basic, bearer or apikey"
            )));
        }
    };
    let mut value = HeaderValue::from_str(&value)
        .map_err(|_| InvalidSetting::new("what logs in has characters that no header can have"))?;
    value.set_sensitive(true);
    Ok(Some((header, value)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use framework::Scalar;

    fn read(pairs: &[(&str, &str)]) -> Result<Address, String> {
        let pairs = pairs.iter().map(|(key, value)| (*key, Scalar::Text((*value).to_owned())));
        Address::read(&Settings::from_pairs(pairs)).map_err(|refusal| refusal.to_string())
    }

    #[test]
    fn a_url_and_a_login_are_read() {
        let found = read(&[
            ("url", "http://device.local:8080/api/"),
            ("auth", "basic"),
            ("userName", "u"),
            ("password", "p"),
        ]);
        let found = found.unwrap();
        assert_eq!((found.host.as_str(), found.port, found.base.as_str()), ("device.local", 8080, "/api"));
        assert_eq!(found.login.0.as_ref().unwrap().1, "Basic dTpw");
        assert!(!format!("{found:?}").contains("dTpw"), "it is not shown");
        let plain = read(&[("url", "http://[2001:db8::7]")]).unwrap();
        assert_eq!((plain.authority().as_str(), plain.login.0.is_none()), ("[2001:db8::7]:80", true));
    }

    #[test]
    fn what_is_wrong_says_what_to_write() {
        for (pairs, said) in [
            (vec![], "`url` is missing"),
            (vec![("url", "192.0.2.7")], "http://192.0.2.7:8080"),
            (vec![("url", "https://h")], "proxy"),
            (vec![("url", "http://u:p@h")], "`userName`"),
            (vec![("url", "http://h?x=1")], "`query`"),
            (vec![("url", "http://h"), ("auth", "ntlm")], "`ntlm`"),
            (vec![("url", "http://h"), ("auth", "bearer"), ("token", "a\nb")], "characters"),
            (
                vec![("url", "http://h"), ("auth", "apikey"), ("header", "User-Agent"), ("token", "curl")],
                "`user-agent`",
            ),
            (vec![("url", "http://h"), ("timeoutMs", "0")], "`timeoutMs`"),
            (vec![("url", "http://h"), ("maxBytes", "4194305")], "between 1 and 4194304"),
        ] {
            let refusal = read(&pairs).unwrap_err();
            assert!(refusal.contains(said), "{refusal}");
        }
    }
}
