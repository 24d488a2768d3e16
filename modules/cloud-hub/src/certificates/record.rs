//! What Secret `casecret` of CloudCore's namespace holds, read and written.
//!
//! `cadata` and `cakeydata` are the CA that signs, under KubeEdge's names: a release that knows no others signs with it. Beside them, while
//! a CA gives way: `nextcadata`, `nextcakeydata` and `nextcasignsat`; `previouscadata` and `previouscauntil`; `crosscadata`. `rotate` is
//! written by whoever wants a new CA.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use k8s_openapi::ByteString;
use pki::{Authorities, Authority, AuthorityError};

/// The keys of the Secret.
const CERTIFICATE: &str = "cadata";
const KEY: &str = "cakeydata";
const NEXT_CERTIFICATE: &str = "nextcadata";
const NEXT_KEY: &str = "nextcakeydata";
const NEXT_SIGNS_AT: &str = "nextcasignsat";
const PREVIOUS_CERTIFICATE: &str = "previouscadata";
const PREVIOUS_UNTIL: &str = "previouscauntil";
const CROSS_CERTIFICATE: &str = "crosscadata";
const ROTATE: &str = "rotate";
/// All of them.
const KEYS: [&str; 9] = [
    CERTIFICATE,
    KEY,
    NEXT_CERTIFICATE,
    NEXT_KEY,
    NEXT_SIGNS_AT,
    PREVIOUS_CERTIFICATE,
    PREVIOUS_UNTIL,
    CROSS_CERTIFICATE,
    ROTATE,
];

/// What is in the Secret, by key.
pub(crate) type Data = BTreeMap<String, ByteString>;

/// The CA that signs, and those that are trusted beside it. All PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AuthorityRecord {
    pub(crate) certificate: String,
    pub(crate) key: String,
    pub(crate) next: Option<NextAuthority>,
    pub(crate) previous: Option<PreviousAuthority>,
    /// The successor, signed by its predecessor.
    pub(crate) cross: Option<String>,
    /// Somebody wants another CA.
    pub(crate) is_asked_for: bool,
}

/// The CA that will sign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NextAuthority {
    pub(crate) certificate: String,
    pub(crate) key: String,
    pub(crate) signs_at: SystemTime,
}

/// The CA that has signed before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PreviousAuthority {
    pub(crate) certificate: String,
    pub(crate) until: SystemTime,
}

impl AuthorityRecord {
    /// One CA alone.
    pub(crate) fn of(authority: &Authority) -> Self {
        AuthorityRecord {
            certificate: authority.cert_pem().to_owned(),
            key: authority.key_pem().to_owned(),
            next: None,
            previous: None,
            cross: None,
            is_asked_for: false,
        }
    }

    /// Reads the Secret's data.
    ///
    /// # Errors
    /// The key that holds something else than it should.
    pub(crate) fn read(data: &Data) -> Result<Self, &'static str> {
        let text = |key: &'static str| match data.get(key) {
            None => Ok(None),
            Some(ByteString(bytes)) => String::from_utf8(bytes.clone()).map(Some).map_err(|_| key),
        };
        let must = |key: &'static str| -> Result<String, &'static str> { text(key)?.ok_or(key) };
        let time = |key: &'static str| -> Result<SystemTime, &'static str> {
            let text = must(key)?;
            let time: jiff::Timestamp = text.trim().parse().map_err(|_| key)?;
            let seconds = u64::try_from(time.as_second()).map_err(|_| key)?;
            Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
        };
        let next = match text(NEXT_CERTIFICATE)? {
            None => None,
            Some(certificate) => {
                Some(NextAuthority { certificate, key: must(NEXT_KEY)?, signs_at: time(NEXT_SIGNS_AT)? })
            }
        };
        let previous = match text(PREVIOUS_CERTIFICATE)? {
            None => None,
            Some(certificate) => Some(PreviousAuthority { certificate, until: time(PREVIOUS_UNTIL)? }),
        };
        Ok(AuthorityRecord {
            certificate: must(CERTIFICATE)?,
            key: must(KEY)?,
            next,
            previous,
            cross: text(CROSS_CERTIFICATE)?,
            is_asked_for: data.contains_key(ROTATE),
        })
    }

    /// Writes it into the Secret's data. Keys that are not its own stay.
    pub(crate) fn write(&self, data: &mut Data) {
        data.retain(|key, _| !KEYS.contains(&key.as_str()));
        let mut put =
            |key: &str, text: &str| data.insert(key.to_owned(), ByteString(text.as_bytes().to_vec()));
        put(CERTIFICATE, &self.certificate);
        put(KEY, &self.key);
        if let Some(next) = &self.next {
            put(NEXT_CERTIFICATE, &next.certificate);
            put(NEXT_KEY, &next.key);
            put(NEXT_SIGNS_AT, &rfc3339(next.signs_at));
        }
        if let Some(previous) = &self.previous {
            put(PREVIOUS_CERTIFICATE, &previous.certificate);
            put(PREVIOUS_UNTIL, &rfc3339(previous.until));
        }
        if let Some(cross) = &self.cross {
            put(CROSS_CERTIFICATE, cross);
        }
        if self.is_asked_for {
            put(ROTATE, "now");
        }
    }

    /// The CAs by it.
    ///
    /// # Errors
    /// When one of them is none.
    pub(crate) fn authorities(&self) -> Result<Authorities, AuthorityError> {
        let signing = Authority::from_pem(&self.certificate, &self.key)?;
        let next = self.next.as_ref().map(|next| next.certificate.as_str());
        let previous = self.previous.as_ref().map(|previous| previous.certificate.as_str());
        let others: Vec<&str> = next.into_iter().chain(previous).collect();
        Authorities::with(signing, &others, self.cross.as_deref())
    }
}

/// Whole seconds: an API server's own form.
fn rfc3339(time: SystemTime) -> String {
    let time = jiff::Timestamp::try_from(time).unwrap_or(jiff::Timestamp::MAX);
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_what_it_writes_and_leaves_what_is_not_its_own() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_900_000_000);
        let authority = Authority::create(now, [1; 16]).unwrap();
        let whole = AuthorityRecord {
            next: Some(NextAuthority { certificate: "n".into(), key: "k".into(), signs_at: now }),
            previous: Some(PreviousAuthority { certificate: "p".into(), until: now }),
            cross: Some("x".into()),
            is_asked_for: true,
            ..AuthorityRecord::of(&authority)
        };
        let mut data = Data::from([("of-others".to_owned(), ByteString(b"o".to_vec()))]);
        whole.write(&mut data);
        assert_eq!(AuthorityRecord::read(&data), Ok(whole));
        AuthorityRecord::of(&authority).write(&mut data);
        assert_eq!(data.keys().collect::<Vec<_>>(), ["cadata", "cakeydata", "of-others"]);
        assert_eq!(AuthorityRecord::read(&data), Ok(AuthorityRecord::of(&authority)));
        data.insert(NEXT_CERTIFICATE.to_owned(), ByteString(b"n".to_vec()));
        assert_eq!(AuthorityRecord::read(&data), Err(NEXT_KEY));
        data.remove(CERTIFICATE);
        data.remove(NEXT_CERTIFICATE);
        assert_eq!(AuthorityRecord::read(&data), Err(CERTIFICATE));
    }
}
