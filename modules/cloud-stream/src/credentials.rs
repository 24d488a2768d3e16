//! What a caller shows. Pure.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use contract::stream::BEARER_PROTOCOL;
use http::{HeaderMap, header};

/// 16 KiB: the longest token that is looked at.
const TOKEN_MAX: usize = 16 << 10;
/// Everybody who is known is in it.
const AUTHENTICATED: &str = "system:authenticated";

/// Who somebody is, as Kubernetes says it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) groups: Vec<String>,
    pub(crate) extra: BTreeMap<String, Vec<String>>,
}

impl User {
    /// The same as one of those who are known.
    pub(crate) fn authenticated(mut self) -> Self {
        if !self.groups.iter().any(|group| group == AUTHENTICATED) {
            self.groups.push(AUTHENTICATED.to_owned());
        }
        self
    }

    /// Of a client certificate that was found good.
    pub(crate) fn of_certificate(der: &[u8]) -> Option<User> {
        let pki::CertificateUser { name, groups } = pki::user_of_certificate(der).ok()?;
        Some(User { name, groups, ..User::default() }.authenticated())
    }
}

/// The bearer tokens that a request shows, in the order in which a kubelet tries them: the header's, and a browser's among the
/// protocols of a WebSocket.
pub(crate) fn tokens(headers: &HeaderMap) -> Vec<String> {
    let text = |value: &http::HeaderValue| value.to_str().ok().map(str::to_owned);
    let header = headers.get(header::AUTHORIZATION).and_then(text).and_then(|value| {
        let (scheme, token) = value.trim().split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
    });
    let protocols = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().filter_map(text);
    let protocols: Vec<String> = protocols.collect();
    let mut browsers = protocols
        .iter()
        .flat_map(|value| value.split(','))
        .filter_map(|protocol| protocol.trim().strip_prefix(BEARER_PROTOCOL));
    // A browser that shows two shows none.
    let browser = browsers.next().filter(|_| browsers.next().is_none()).and_then(|encoded| {
        let bytes = URL_SAFE_NO_PAD.decode(encoded).ok()?;
        String::from_utf8(bytes).ok()
    });
    let usable = |token: &String| !token.is_empty() && token.len() <= TOKEN_MAX;
    header.into_iter().chain(browser).filter(usable).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(all: &[(&'static str, &str)]) -> Vec<String> {
        let headers = all.iter().map(|(name, value)| {
            (http::HeaderName::from_static(name), http::HeaderValue::from_str(value).unwrap())
        });
        tokens(&headers.collect())
    }

    #[test]
    fn a_token_is_found_where_a_kubelet_finds_it() {
        assert_eq!(shown(&[("authorization", "Bearer abc")]), ["abc"]);
        assert_eq!(shown(&[("authorization", "bearer  abc ")]), ["abc"]);
        for none in ["Basic abc", "Bearer", "Bearer ", "abc"] {
            assert_eq!(shown(&[("authorization", none)]), [] as [&str; 0], "{none}");
        }
        let browser = format!("{BEARER_PROTOCOL}YWJj, v4.channel.k8s.io");
        assert_eq!(shown(&[("sec-websocket-protocol", &browser)]), ["abc"]);
        assert_eq!(
            shown(&[("sec-websocket-protocol", &browser), ("authorization", "Bearer x")]),
            ["x", "abc"]
        );
        let two = format!("{BEARER_PROTOCOL}YWJj,{BEARER_PROTOCOL}YWJj");
        assert_eq!(shown(&[("sec-websocket-protocol", &two)]), [] as [&str; 0]);
        let long = format!("Bearer {}", "a".repeat(TOKEN_MAX + 1));
        assert_eq!(shown(&[("authorization", &long)]), [] as [&str; 0]);
    }
}
