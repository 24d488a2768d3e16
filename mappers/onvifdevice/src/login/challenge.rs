//! HTTP's logins: what a camera offers, and the answer (RFC 7616, RFC 7617). Pure.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use md5::{Digest as _, Md5};

/// 16 offers are looked at.
const OFFERS_MAX: usize = 16;
/// 1 KiB of each value of an offer: an answer carries them back.
const VALUE_MAX: usize = 1024;

/// A way that a camera offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AuthScheme {
    Digest(Challenge),
    /// The password in clear.
    Basic,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Algorithm {
    Md5,
    Sha256,
}

/// What an answer is made by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Challenge {
    /// None: the password in clear.
    algorithm: Option<Algorithm>,
    /// The answer's secret is of this nonce (`-sess`).
    is_session: bool,
    realm: String,
    nonce: String,
    opaque: Option<String>,
    /// `qop=auth`; without it the answer is that of RFC 2069.
    has_qop: bool,
    /// Only the nonce has grown old.
    pub(crate) is_stale: bool,
}

impl AuthScheme {
    /// Those of one header `WWW-Authenticate`, which may hold several.
    pub(crate) fn read(header: &str) -> Vec<AuthScheme> {
        let mut offers: Vec<(String, Vec<(String, String)>)> = Vec::new();
        for part in parts(header) {
            let (name, value) = match part.split_once('=') {
                // `Digest realm="x"` begins one, `realm="x"` goes on.
                Some((name, value)) => match name.trim().rsplit_once(char::is_whitespace) {
                    Some((scheme, name)) => {
                        offers.push((scheme.trim().to_ascii_lowercase(), Vec::new()));
                        (name, value)
                    }
                    None => (name.trim(), value),
                },
                None => {
                    offers.push((part.trim().to_ascii_lowercase(), Vec::new()));
                    continue;
                }
            };
            if let Some((_, values)) = offers.last_mut() {
                values.push((name.to_ascii_lowercase(), unquoted(value.trim())));
            }
            if offers.len() >= OFFERS_MAX {
                break;
            }
        }
        offers.iter().filter_map(|(scheme, values)| AuthScheme::of(scheme, values)).collect()
    }

    fn of(scheme: &str, values: &[(String, String)]) -> Option<AuthScheme> {
        if scheme == "basic" {
            return Some(AuthScheme::Basic);
        }
        let value = |name: &str| {
            values
                .iter()
                .find(|(of, _)| of == name)
                .map(|(_, value)| value)
                .filter(|value| value.len() <= VALUE_MAX)
        };
        let algorithm = value("algorithm").map_or("md5", String::as_str).to_ascii_lowercase();
        let (name, is_session) = match algorithm.strip_suffix("-sess") {
            Some(name) => (name, true),
            None => (algorithm.as_str(), false),
        };
        let algorithm = match name {
            "md5" => Algorithm::Md5,
            "sha-256" => Algorithm::Sha256,
            _ => return None,
        };
        let has_qop = match value("qop") {
            None => false,
            Some(qop) if qop.split(',').any(|one| one.trim().eq_ignore_ascii_case("auth")) => true,
            // `auth-int` alone.
            Some(_) => return None,
        };
        (scheme == "digest").then_some(())?;
        Some(AuthScheme::Digest(Challenge {
            algorithm: Some(algorithm),
            is_session,
            realm: value("realm")?.clone(),
            nonce: value("nonce")?.clone(),
            opaque: value("opaque").cloned(),
            has_qop,
            is_stale: value("stale").is_some_and(|stale| stale.eq_ignore_ascii_case("true")),
        }))
    }
}

impl Challenge {
    /// The best of those that are offered. None: there is none that may be answered.
    pub(crate) fn best(offers: &[AuthScheme], may_basic: bool) -> Option<Challenge> {
        let digests = offers.iter().filter_map(|offer| match offer {
            AuthScheme::Digest(challenge) => Some(challenge),
            AuthScheme::Basic => None,
        });
        let basic = || Challenge {
            algorithm: None,
            is_session: false,
            realm: String::new(),
            nonce: String::new(),
            opaque: None,
            has_qop: false,
            is_stale: false,
        };
        let best = digests.max_by_key(|challenge| challenge.algorithm).cloned();
        best.or_else(|| (may_basic && offers.contains(&AuthScheme::Basic)).then(basic))
    }

    /// Whether it is the same question again.
    pub(crate) fn is_same(&self, other: &Challenge) -> bool {
        self.algorithm == other.algorithm && self.nonce == other.nonce && self.realm == other.realm
    }

    /// The value of `Authorization`, for the `count`-th request of this challenge.
    pub(crate) fn answer(
        &self,
        (user, password): (&str, &str),
        (method, uri): (&str, &str),
        count: u32,
        own_nonce: &str,
    ) -> String {
        let Some(algorithm) = self.algorithm else {
            return format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
        };
        let hash = |text: &str| algorithm.hash(text);
        let Challenge { realm, nonce, .. } = self;
        let mut secret = hash(&format!("{user}:{realm}:{password}"));
        if self.is_session {
            secret = hash(&format!("{secret}:{nonce}:{own_nonce}"));
        }
        let request = hash(&format!("{method}:{uri}"));
        let response = if self.has_qop {
            hash(&format!("{secret}:{nonce}:{count:08x}:{own_nonce}:auth:{request}"))
        } else {
            hash(&format!("{secret}:{nonce}:{request}"))
        };
        let mut answer = format!(
            "Digest username=\"{}\", realm=\"{}\", nonce=\"{}\", uri=\"{}\", response=\"{response}\"",
            quoted(user),
            quoted(realm),
            quoted(nonce),
            quoted(uri)
        );
        let session = if self.is_session { "-sess" } else { "" };
        answer.push_str(&format!(", algorithm={}{session}", algorithm.name()));
        if self.has_qop {
            answer.push_str(&format!(", qop=auth, nc={count:08x}"));
        }
        if self.has_qop || self.is_session {
            answer.push_str(&format!(", cnonce=\"{own_nonce}\""));
        }
        if let Some(opaque) = &self.opaque {
            answer.push_str(&format!(", opaque=\"{}\"", quoted(opaque)));
        }
        answer
    }
}

impl Algorithm {
    fn name(self) -> &'static str {
        match self {
            Algorithm::Md5 => "MD5",
            Algorithm::Sha256 => "SHA-256",
        }
    }

    fn hash(self, text: &str) -> String {
        match self {
            Algorithm::Md5 => hex::encode(Md5::digest(text.as_bytes())),
            Algorithm::Sha256 => hex::encode(digest(&SHA256, text.as_bytes())),
        }
    }
}

/// What stands between commas that are in no quotes.
fn parts(header: &str) -> Vec<&str> {
    let (mut parts, mut from, mut is_quoted, mut is_escaped) = (Vec::new(), 0, false, false);
    for (at, letter) in header.char_indices() {
        match letter {
            _ if is_escaped => is_escaped = false,
            '\\' if is_quoted => is_escaped = true,
            '"' => is_quoted = !is_quoted,
            ',' if !is_quoted => {
                parts.push(header.get(from..at).unwrap_or_default());
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.push(header.get(from..).unwrap_or_default());
    parts.into_iter().map(str::trim).filter(|part| !part.is_empty()).collect()
}

fn unquoted(value: &str) -> String {
    let Some(inside) = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else {
        return value.to_owned();
    };
    let (mut text, mut is_escaped) = (String::new(), false);
    for letter in inside.chars() {
        if letter == '\\' && !is_escaped {
            is_escaped = true;
        } else {
            text.push(letter);
            is_escaped = false;
        }
    }
    text
}

fn quoted(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn digests(header: &str) -> Vec<Challenge> {
        let only = |offer| match offer {
            AuthScheme::Digest(challenge) => Some(challenge),
            AuthScheme::Basic => None,
        };
        AuthScheme::read(header).into_iter().filter_map(only).collect()
    }

    #[test]
    fn the_answers_of_the_rfcs_are_given() {
        // RFC 7616 §3.9.1.
        let header = "Digest realm=\"http-auth@example.org\", qop=\"auth, auth-int\", algorithm=SHA-256, \
            nonce=\"7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v\", opaque=\"FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS\", \
            Digest realm=\"http-auth@example.org\", qop=\"auth, auth-int\", algorithm=MD5, \
            nonce=\"7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v\", opaque=\"FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS\"";
        let (user, request) = (("Mufasa", "Circle of Life"), ("GET", "/dir/index.html"));
        let own = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ";
        let found = digests(header);
        let answers: Vec<String> = found.iter().map(|one| one.answer(user, request, 1, own)).collect();
        assert!(
            answers[0]
                .contains("response=\"753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1\"")
        );
        assert!(answers[1].contains("response=\"8ca523f5e9506fed4657c9700eebdbec\""));
        assert!(answers[0].contains("nc=00000001") && answers[0].contains("opaque=\"FQhe"), "{}", answers[0]);
        let offers = AuthScheme::read(header);
        assert_eq!(Challenge::best(&offers, true).unwrap().algorithm, Some(Algorithm::Sha256));
        // RFC 2069 §2.4, with the response that its erratum 749 gives.
        let old = "Digest realm=\"testrealm@host.com\", nonce=\"dcd98b7102dd2f0e8b11d0f600bfb0c093\", opaque=\"5ccc069c403ebaf9f0171e9517f40e41\"";
        let answer = digests(old)[0].answer(("Mufasa", "CircleOfLife"), request, 1, own);
        assert!(answer.contains("response=\"1949323746fe6a43ef61f9606e7febea\""), "{answer}");
        assert!(!answer.contains("nc=") && !answer.contains("cnonce"));
        let basic = Challenge::best(&AuthScheme::read("Basic realm=\"x\""), true).unwrap();
        assert_eq!(basic.answer(("u", "p"), request, 1, own), "Basic dTpw");
    }

    #[test]
    fn offers_are_told_apart_and_what_is_none_is_none() {
        let header =
            "Basic realm=\"a, b\", Digest realm=\"say \\\"hi\\\"\", nonce=\"n\", stale=TRUE, Negotiate";
        let offers = AuthScheme::read(header);
        assert_eq!(offers.len(), 2, "{offers:?}");
        let found = Challenge::best(&offers, true).unwrap();
        assert_eq!((found.realm.as_str(), found.is_stale, found.has_qop), ("say \"hi\"", true, false));
        assert!(
            found
                .answer(("a\"b", "p"), ("GET", "/"), 1, "x")
                .contains("username=\"a\\\"b\", realm=\"say \\\"hi\\\"\"")
        );
        assert_eq!(Challenge::best(&[AuthScheme::Basic], false), None, "not in clear");
        for header in [
            "Digest",
            "Digest realm=\"x\"",
            "Digest realm=x, nonce=y, algorithm=NONE",
            "",
            "=,=\"",
            "Bearer x=1",
        ] {
            assert_eq!(digests(header), [], "{header}");
        }
        let long = format!("Digest realm=\"x\", nonce=\"{}\"", "n".repeat(VALUE_MAX + 1));
        assert_eq!(digests(&long), []);
        assert_eq!(digests("Digest realm=x, nonce=y, qop=\"auth-int\""), []);
    }

    proptest! {
        #[test]
        fn whatever_a_header_is_it_is_read(header in any::<String>(), about in "Digest [a-z=\",\\\\ ]{0,60}") {
            for header in [header, about] {
                for offer in AuthScheme::read(&header) {
                    if let AuthScheme::Digest(challenge) = offer {
                        challenge.answer(("u", "p"), ("GET", "/"), 1, "x");
                    }
                }
            }
        }
    }
}
