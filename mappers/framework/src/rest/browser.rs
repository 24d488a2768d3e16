//! What tells a browser's request from a program's. The interface has no login: what a page in somebody's browser asks of it, it asks
//! with the reach of that machine, and no link or picture in a page may switch a device. Pure.

use std::net::IpAddr;

use hyper::header::{HOST, HeaderMap, HeaderName, ORIGIN, REFERER, USER_AGENT};
use hyper::http::uri::Authority;

/// Where a browser has got a request from. It sends this to loopback and over TLS only.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Whether a page asks. What somebody writes into the bar of addresses is their own; no page is of this interface. A browser that does
/// not say which of them it is counts as a page.
pub(super) fn is_a_page(headers: &HeaderMap) -> bool {
    let is_own = match headers.get(SEC_FETCH_SITE) {
        Some(site) => site == "none" || site == "same-origin",
        None => !headers.get(USER_AGENT).is_some_and(|agent| agent.as_bytes().starts_with(b"Mozilla/")),
    };
    !is_own || headers.contains_key(ORIGIN) || headers.contains_key(REFERER)
}

/// Whether it is called by a name that is no domain: by an address, as `edgecore` does, or a name without a dot, as `localhost`. A page
/// has any other name point here, and reads the answers as its own.
pub(super) fn is_called_by_its_name(headers: &HeaderMap, in_uri: Option<&Authority>) -> bool {
    let in_header = |value: &hyper::header::HeaderValue| {
        Authority::try_from(value.as_bytes()).is_ok_and(|authority| is_no_domain(authority.host()))
    };
    headers.get_all(HOST).iter().all(in_header)
        && in_uri.is_none_or(|authority| is_no_domain(authority.host()))
}

fn is_no_domain(host: &str) -> bool {
    let is_address = host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
    is_address || !host.contains('.')
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let header = |&(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        lines.iter().map(header).collect()
    }

    #[test]
    fn a_page_is_told_from_a_program_and_from_who_writes_an_address() {
        let firefox =
            ("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0");
        for (lines, is_page) in [
            (&[][..], false),
            (&[("user-agent", "curl/8.14.1")], false),
            (&[firefox, ("sec-fetch-site", "none")], false),
            (&[firefox, ("sec-fetch-site", "cross-site")], true),
            (&[("sec-fetch-site", "same-site")], true),
            // A picture in a page, over plain HTTP to an address that is not loopback.
            (&[firefox], true),
            (&[("referer", "http://elsewhere/")], true),
            (&[("origin", "null")], true),
            (&[("origin", "http://elsewhere"), ("sec-fetch-site", "none")], true),
        ] {
            assert_eq!(is_a_page(&headers(lines)), is_page, "{lines:?}");
        }
    }

    #[test]
    fn a_domain_is_no_name_of_a_mapper() {
        for (host, is_own) in [
            ("127.0.0.1:7777", true),
            ("[::1]:7777", true),
            ("192.168.1.5", true),
            ("localhost:7777", true),
            ("edge-1:7777", true),
            ("rebound.example:7777", false),
            ("127.0.0.1.example", false),
            ("localhost.:7777", false),
            ("", false),
            ("a b", false),
        ] {
            assert_eq!(is_called_by_its_name(&headers(&[("host", host)]), None), is_own, "{host}");
            let both = headers(&[("host", "127.0.0.1"), ("host", host)]);
            assert_eq!(is_called_by_its_name(&both, None), is_own, "{host}");
        }
        assert!(is_called_by_its_name(&HeaderMap::new(), None), "before HTTP/1.1 nobody named it");
        let other = Authority::from_static("rebound.example");
        assert!(!is_called_by_its_name(&headers(&[("host", "127.0.0.1")]), Some(&other)));
    }
}
