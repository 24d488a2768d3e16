//! What tells a browser's request from a program's. The interface has no login: what a page in somebody's browser asks of it, it asks
//! with the reach of that machine, and no link, picture or redirect may switch a device. Nor does a rule on the node, which sets devices
//! of its own namespace by `set`; nor a Device of a mapper that speaks HTTP, which has a path of
//! its own choice asked for, of whatever namespace. Pure.

use std::net::{Ipv4Addr, Ipv6Addr};

use httpclient::agent;
use hyper::header::{HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN, REFERER, USER_AGENT};
use hyper::http::uri::Authority;

/// What no page can send here: it would ask for leave first (Fetch, "CORS-preflight"), and gets none.
const MEANT: HeaderName = HeaderName::from_static("x-kubehive");
/// Headers that begin so are set by browsers alone, and by no page (Fetch, "forbidden request-header").
const OF_BROWSERS: &str = "sec-";
/// How a browser begins to say what it is.
const BROWSER: &[u8] = b"Mozilla/";
/// 63 letters of a name (RFC 1035).
const LABEL_MAX: usize = 63;

/// Who asks, as far as a request says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sender {
    /// A program, or a person who means it.
    Program,
    /// A page, or a browser that cannot say whether a page has sent it here: an address that somebody writes may lead to a page that
    /// leads here.
    Browser,
    /// A rule of devices.
    Rule,
    /// A Device that has a mapper of devices that speak HTTP call.
    Device,
}

impl Sender {
    /// Whether it is answered at all.
    ///
    /// # Errors
    /// With the cure.
    pub(super) fn check(self) -> Result<(), String> {
        match self {
            Sender::Device => Err(
                "no Device leads a mapper to a mapper: its `url` is to be the device's own; `pushMethod` and rules lead from one device to another"
                    .to_owned(),
            ),
            Sender::Program | Sender::Browser | Sender::Rule => Ok(()),
        }
    }

    /// Whether it may write.
    ///
    /// # Errors
    /// With the cure.
    pub(super) fn check_write(self) -> Result<(), String> {
        self.check()?;
        match self {
            Sender::Program | Sender::Device => Ok(()),
            Sender::Browser => Err(format!(
                "writing from a browser is not allowed, since a page may have led it here; use curl, or send the header `{MEANT}: 1`"
            )),
            Sender::Rule => {
                Err("a rule writes no device over this interface; let it `set` one of its own namespace"
                    .to_owned())
            }
        }
    }
}

/// Who has sent this.
pub(super) fn sender(headers: &HeaderMap) -> Sender {
    let calls_itself =
        |begin: &[u8]| headers.get_all(USER_AGENT).iter().any(|agent| agent.as_bytes().starts_with(begin));
    let is_of_browser =
        || calls_itself(BROWSER) || headers.keys().any(|name| name.as_str().starts_with(OF_BROWSERS));
    if [agent::HTTP_MAPPER, agent::ONVIF_MAPPER].iter().any(|mapper| calls_itself(mapper.as_bytes())) {
        Sender::Device
    } else if calls_itself(agent::RULES.as_bytes()) {
        Sender::Rule
    } else if headers.contains_key(ORIGIN)
        || headers.contains_key(REFERER)
        || (is_of_browser() && !headers.contains_key(MEANT))
    {
        Sender::Browser
    } else {
        Sender::Program
    }
}

/// Whether it is called by a name that is no domain: by an address, as `edgecore` does, or a name without a dot, as `localhost`. A page
/// has any other name point here, and reads the answers as its own.
pub(super) fn is_called_by_its_name(headers: &HeaderMap, in_uri: Option<&Authority>) -> bool {
    let mut hosts = headers.get_all(HOST).iter();
    let (host, another) = (hosts.next(), hosts.next());
    let is_own = |host: &HeaderValue| host.to_str().is_ok_and(is_no_domain);
    another.is_none()
        && host.is_none_or(is_own)
        && in_uri.is_none_or(|authority| is_no_domain(authority.as_str()))
}

/// `HOST` or `HOST:PORT` (RFC 9110, section 7.2) and nothing else: what one reader takes for a user or a port, another takes for the host.
fn is_no_domain(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, port)) => (address.parse::<Ipv6Addr>().is_ok(), port),
        None => {
            let (host, port) = text.split_at(text.find(':').unwrap_or(text.len()));
            (host.parse::<Ipv4Addr>().is_ok() || is_label(host), port)
        }
    };
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok();
    host && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port))
}

/// A name without a dot that nobody takes for a number: browsers and resolvers read `2130706433` and `0x7f000001` as 127.0.0.1.
fn is_label(host: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let is_hexadecimal = |host: &str| host.bytes().all(|byte| byte.is_ascii_hexdigit());
    let is_number = host.bytes().all(|byte| byte.is_ascii_digit())
        || host.strip_prefix("0x").or(host.strip_prefix("0X")).is_some_and(is_hexadecimal);
    (1..=LABEL_MAX).contains(&host.len()) && host.bytes().all(is_letter) && !is_number
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let header = |&(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        lines.iter().map(header).collect()
    }

    #[test]
    fn a_browser_writes_nothing_unless_it_is_meant_and_a_rule_never() {
        let firefox =
            ("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0");
        let (typed, meant) = (("sec-fetch-site", "none"), ("x-kubehive", "1"));
        for (lines, who) in [
            (&[][..], Sender::Program),
            (&[("user-agent", "curl/8.14.1")], Sender::Program),
            // What was written into the bar may have led to a page that leads here.
            (&[firefox, typed], Sender::Browser),
            (&[firefox, ("sec-purpose", "prefetch"), typed], Sender::Browser),
            (&[("sec-purpose", "prefetch")], Sender::Browser),
            (&[("sec-fetch-site", "same-origin")], Sender::Browser),
            (&[firefox, ("sec-fetch-site", "cross-site")], Sender::Browser),
            // A picture in a page, over plain HTTP to an address that is not loopback.
            (&[firefox], Sender::Browser),
            (&[("referer", "http://elsewhere/")], Sender::Browser),
            (&[("origin", "null")], Sender::Browser),
            (&[firefox, typed, meant], Sender::Program),
            (&[firefox, meant, ("origin", "http://elsewhere")], Sender::Browser),
            (&[meant, ("referer", "http://elsewhere/")], Sender::Browser),
            (&[("user-agent", "edgecore-rules")], Sender::Rule),
            (&[("user-agent", "edgecore-rules"), meant], Sender::Rule),
            (&[("user-agent", "kubehive-http-mapper/0.1.0")], Sender::Device),
            (&[("user-agent", "kubehive-onvif-mapper/0.1.0")], Sender::Device),
            (
                &[("user-agent", "curl/8.14.1"), ("user-agent", "kubehive-http-mapper/0.1.0"), meant],
                Sender::Device,
            ),
        ] {
            assert_eq!(sender(&headers(lines)), who, "{lines:?}");
            assert_eq!(who.check_write().is_ok(), who == Sender::Program);
            assert_eq!(who.check().is_ok(), who != Sender::Device);
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
            ("user@localhost", false),
            ("localhost:7799@evil", false),
            ("localhost:", false),
            ("localhost:+77", false),
            ("localhost:77777", false),
            ("localhost:7777:80", false),
            ("::1", false),
            ("[127.0.0.1]", false),
            ("[::1", false),
            ("[::1]7777", false),
            ("2130706433", false),
            ("0x7f000001:7777", false),
            ("127.1", false),
            ("3rd-floor", true),
        ] {
            assert_eq!(is_called_by_its_name(&headers(&[("host", host)]), None), is_own, "{host}");
            let both: HeaderMap =
                ["127.0.0.1", host].map(|host| (HOST, HeaderValue::from_static(host))).into_iter().collect();
            assert!(!is_called_by_its_name(&both, None), "{host}");
        }
        assert!(is_called_by_its_name(&HeaderMap::new(), None), "before HTTP/1.1 nobody named it");
        let other = Authority::from_static("rebound.example");
        assert!(!is_called_by_its_name(&headers(&[("host", "127.0.0.1")]), Some(&other)));
    }
}
