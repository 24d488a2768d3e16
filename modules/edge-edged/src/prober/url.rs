//! The URL of an HTTP check, made and resolved as Go's `net/url` does it. Pure.

use std::fmt;

/// Where a request goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Url {
    pub(crate) tls: bool,
    /// A name or an address, an IPv6 address without brackets.
    pub(crate) host: String,
    /// As written; `None`: that of the scheme.
    port: Option<u16>,
    /// Path and query, which begin with `/`.
    pub(crate) target: String,
}

impl Url {
    /// The URL of a probe. A `path` may carry a query, and be a whole URL, of which scheme and host do not count.
    pub(crate) fn new(tls: bool, host: &str, port: u16, path: &str) -> Url {
        let path = match path.split_once("://") {
            Some((scheme, rest)) if is_scheme(scheme) => rest.find(['/', '?']).map_or("", |at| &rest[at..]),
            _ => path,
        };
        Url { tls, host: host.to_owned(), port: Some(port), target: target(path) }
    }

    /// The port that is dialled.
    pub(crate) fn port(&self) -> u16 {
        self.port.unwrap_or(if self.tls { 443 } else { 80 })
    }

    /// `host:port` as a request's `Host` has it.
    pub(crate) fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        self.port.map_or(host.clone(), |port| format!("{host}:{port}"))
    }

    /// Where a `Location` in an answer from here leads; `None` when it is no URL of HTTP.
    pub(crate) fn resolve(&self, location: &str) -> Option<Url> {
        if let Some((scheme, rest)) = location.split_once("://").filter(|(scheme, _)| is_scheme(scheme)) {
            let tls = match scheme.to_ascii_lowercase().as_str() {
                "http" => false,
                "https" => true,
                _ => return None,
            };
            return self.elsewhere(tls, rest);
        }
        if let Some(rest) = location.strip_prefix("//") {
            return self.elsewhere(self.tls, rest);
        }
        let (path, query) = self
            .target
            .split_once('?')
            .map_or((self.target.as_str(), None), |(path, query)| (path, Some(query)));
        let merged = if location.starts_with('/') {
            location.to_owned()
        } else if location.is_empty() || location.starts_with('#') {
            query.map_or(path.to_owned(), |query| format!("{path}?{query}"))
        } else if location.starts_with('?') {
            format!("{path}{location}")
        } else {
            let folder = path.rfind('/').map_or("/", |at| &path[..=at]);
            format!("{folder}{location}")
        };
        Some(Url { target: without_dots(&target(&merged)), ..self.clone() })
    }

    fn elsewhere(&self, tls: bool, rest: &str) -> Option<Url> {
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let authority = rest[..end].rsplit('@').next().unwrap_or_default();
        let (host, port) = match authority.strip_prefix('[') {
            Some(inner) => {
                let (host, after) = inner.split_once(']')?;
                (host, after.strip_prefix(':'))
            }
            None => authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port))),
        };
        let port = match port {
            None | Some("") => None,
            Some(port) => Some(port.parse().ok()?),
        };
        if host.is_empty() {
            return None;
        }
        Some(Url { tls, host: host.to_owned(), port, target: without_dots(&target(&rest[end..])) })
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority(), self.target)
    }
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
}

/// Path and query as they travel: without a fragment, with a `/` in front, and with what is no part of a URL written as
/// `%XX`.
fn target(text: &str) -> String {
    let text = text.split('#').next().unwrap_or_default();
    let mut out = String::with_capacity(text.len() + 1);
    if !text.starts_with('/') {
        out.push('/');
    }
    let bytes = text.as_bytes();
    for (at, byte) in bytes.iter().enumerate() {
        let is_escape = *byte == b'%'
            && bytes.get(at + 1..at + 3).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        let fits = byte.is_ascii_alphanumeric() || b"-._~:/?@!$&'()*+,;=[]".contains(byte);
        if fits || is_escape {
            out.push(char::from(*byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// Without `.` and `..` in the path (RFC 3986, 5.2.4).
fn without_dots(target: &str) -> String {
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    let mut kept: Vec<&str> = Vec::new();
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    let ends_in_folder = matches!(parts.last(), Some(&"" | &"." | &".."));
    for part in parts {
        match part {
            "." => {}
            ".." => {
                kept.pop();
            }
            part => kept.push(part),
        }
    }
    if ends_in_folder && kept.last().is_some_and(|last| !last.is_empty()) {
        kept.push("");
    }
    let path = format!("/{}", kept.join("/"));
    query.map_or(path.clone(), |query| format!("{path}?{query}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probes_path_may_carry_a_query_and_anything_else() {
        let url = |path: &str| Url::new(false, "10.0.0.5", 80, path).to_string();
        assert_eq!(url("/"), "http://10.0.0.5:80/");
        assert_eq!(url("health?full=1"), "http://10.0.0.5:80/health?full=1");
        assert_eq!(url("/a b/%20/%zz/é#f"), "http://10.0.0.5:80/a%20b/%20/%25zz/%C3%A9");
        assert_eq!(url("https://elsewhere:9/x?y"), "http://10.0.0.5:80/x?y");
        assert_eq!(url("http://elsewhere"), "http://10.0.0.5:80/");
        assert_eq!(Url::new(true, "fd00::1", 443, "/x").to_string(), "https://[fd00::1]:443/x");
        assert_eq!(url("/x\r\nHost: y"), "http://10.0.0.5:80/x%0D%0AHost:%20y");
    }

    #[test]
    fn a_location_is_resolved_against_the_url() {
        let base = Url::new(false, "10.0.0.5", 8080, "/a/b?q=1");
        let to = |location: &str| base.resolve(location).map(|url| url.to_string());
        assert_eq!(to("/x").unwrap(), "http://10.0.0.5:8080/x");
        assert_eq!(to("x?y").unwrap(), "http://10.0.0.5:8080/a/x?y");
        assert_eq!(to("../x/./y").unwrap(), "http://10.0.0.5:8080/x/y");
        assert_eq!(to("../../../x/..").unwrap(), "http://10.0.0.5:8080/");
        assert_eq!(to("?z").unwrap(), "http://10.0.0.5:8080/a/b?z");
        assert_eq!(to("").unwrap(), "http://10.0.0.5:8080/a/b?q=1");
        assert_eq!(to("https://10.0.0.5/s").unwrap(), "https://10.0.0.5/s");
        assert_eq!(
            to("https://10.0.0.5/s"),
            base.resolve("HTTPS://user@10.0.0.5:/s").map(|url| url.to_string())
        );
        assert_eq!(to("//[fd00::1]:81").unwrap(), "http://[fd00::1]:81/");
        assert_eq!(base.resolve("https://10.0.0.5/s").unwrap().port(), 443);
        for bad in ["ftp://x/", "http:///x", "http://x:port/", "http://[::1/"] {
            assert_eq!(to(bad), None, "{bad}");
        }
    }
}
