//! Where a target is, as a Device's author writes it. Pure.

use std::fmt;

use hyper::Uri;

/// A host and a port, with TLS or without.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Endpoint {
    pub(crate) is_tls: bool,
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl Endpoint {
    /// As it stands in a `Host` header.
    pub(crate) fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// From an `http` or `https` URL and its path with its query, which begins with a slash. `what` names the setting.
    pub(crate) fn http(what: &str, url: &str) -> Result<(Self, String), String> {
        let wrong = |why: &str| format!("{what} {why}");
        if url.is_empty() {
            return Err(wrong("is missing"));
        }
        let url: Uri =
            url.parse().map_err(|_| wrong("is no URL; write one as http://192.0.2.7:8080/path"))?;
        let is_tls = match url.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(wrong("is no http or https URL; write one as http://192.0.2.7:8080/path")),
        };
        let endpoint = Endpoint::of(what, &url, is_tls, if is_tls { 443 } else { 80 })?;
        let path = url.path_and_query().map_or("/", |path| path.as_str());
        Ok((endpoint, if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }))
    }

    /// From `SCHEME://HOST:PORT` or `HOST:PORT`, of which these schemes say plain, and those TLS, each with its port where none is
    /// written; and what stands before an `@`.
    pub(crate) fn with_schemes(
        what: &str,
        address: &str,
        (plain, plain_port): (&[&str], u16),
        (tls, tls_port): (&[&str], u16),
    ) -> Result<(Self, Option<String>), String> {
        let wrong = |why: String| format!("{what} {why}");
        if address.trim().is_empty() {
            return Err(wrong("is missing".to_owned()));
        }
        let (scheme, rest) = match address.trim().split_once("://") {
            Some((scheme, rest)) => (scheme.to_ascii_lowercase(), rest),
            None => (plain.first().copied().unwrap_or_default().to_owned(), address.trim()),
        };
        let known = [plain, tls].concat().join("://, ");
        let is_tls = match scheme.as_str() {
            scheme if plain.contains(&scheme) => false,
            scheme if tls.contains(&scheme) => true,
            _ => return Err(wrong(format!("begins with a scheme that is not served; {known}:// are"))),
        };
        let (login, place) = match rest.trim_end_matches('/').rsplit_once('@') {
            Some((login, place)) => (Some(login.to_owned()), place),
            None => (None, rest.trim_end_matches('/')),
        };
        let url: Uri = format!("http://{place}")
            .parse()
            .map_err(|_| wrong("is no address; write one as 192.0.2.7:1883".to_owned()))?;
        if url.path() != "/" || url.query().is_some() {
            return Err(wrong("has a path, which has no meaning there; write HOST:PORT".to_owned()));
        }
        let endpoint = Endpoint::of(what, &url, is_tls, if is_tls { tls_port } else { plain_port })?;
        Ok((endpoint, login))
    }

    fn of(what: &str, url: &Uri, is_tls: bool, default_port: u16) -> Result<Self, String> {
        let authority = url.authority().map(|authority| authority.as_str()).unwrap_or_default();
        if authority.contains('@') {
            return Err(format!("{what} has a login in it, which everybody would see; leave it out"));
        }
        let host = url.host().unwrap_or_default().trim_matches(['[', ']']);
        let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| !port.contains(']'));
        let port = match url.port_u16() {
            Some(0) => None,
            Some(port) => Some(port),
            None if has_port => None,
            None => Some(default_port),
        };
        match port {
            Some(port) if !host.is_empty() => Ok(Endpoint { is_tls, host: host.to_owned(), port }),
            None => Err(format!("{what} has a port that is none; ports are 1 to 65535")),
            Some(_) => Err(format!("{what} names no host")),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.authority())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_and_addresses_are_understood() {
        let http =
            |url: &str| Endpoint::http("`url`", url).map(|(at, path)| (at.is_tls, at.authority(), path));
        let found = |is_tls, at: &str, path: &str| Ok((is_tls, at.to_owned(), path.to_owned()));
        assert_eq!(http("http://h"), found(false, "h:80", "/"));
        assert_eq!(http("https://h/v1?a=b"), found(true, "h:443", "/v1?a=b"));
        assert_eq!(http("http://[2001:db8::7]:8080/x"), found(false, "[2001:db8::7]:8080", "/x"));
        let mqtt = |address: &str| {
            let found =
                Endpoint::with_schemes("`address`", address, (&["tcp", "mqtt"], 1883), (&["ssl"], 8883));
            found.map(|(at, login)| (at.is_tls, at.authority(), login))
        };
        assert_eq!(mqtt("10.0.0.1"), Ok((false, "10.0.0.1:1883".to_owned(), None)));
        assert_eq!(mqtt("SSL://h/"), Ok((true, "h:8883".to_owned(), None)));
        assert_eq!(mqtt("tcp://u:p@h:9"), Ok((false, "h:9".to_owned(), Some("u:p".to_owned()))));
    }

    #[test]
    fn what_is_wrong_names_the_setting() {
        for (url, said) in [
            ("", "is missing"),
            ("h:80", "no http or https URL"),
            ("ftp://h", "no http or https URL"),
            ("http://u:p@h", "a login"),
            ("http://h:0", "a port that is none"),
            ("http://h:99999", "`url`"),
            ("http://", "`url`"),
        ] {
            let refusal = Endpoint::http("`url`", url).unwrap_err();
            assert!(refusal.contains(said) && !refusal.contains("u:p"), "{url}: {refusal}");
        }
        for (address, said) in [
            ("ws://h", "tcp://, ssl://"),
            ("tcp://h/path", "a path"),
            ("tcp://h:70000", "`address`"),
            (" ", "is missing"),
        ] {
            let refusal =
                Endpoint::with_schemes("`address`", address, (&["tcp"], 1883), (&["ssl"], 8883)).unwrap_err();
            assert!(refusal.contains(said), "{address}: {refusal}");
        }
    }
}
