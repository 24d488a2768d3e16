//! The URL that a rule calls from the node. Pure.
//!
//! Whoever may write a Device has edgecore send requests from where it stands. Open is what rules are for: services on the node's own
//! loopback and machines of its private networks (RFC 1918). All else is closed, the link-local addresses and all others where clouds
//! keep the metadata of their machines among it. An address is written as such: a rule works while no DNS server is in reach, and a
//! name cannot become another address.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use http::uri::PathAndQuery;

/// 1 KiB of a URL.
const URL_MAX: usize = 1 << 10;

/// An HTTP URL in reach of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalUrl {
    /// Where it is.
    pub address: SocketAddr,
    /// Path and query, from the first `/`.
    pub path: PathAndQuery,
}

impl std::fmt::Display for LocalUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "http://{}{}", self.address, self.path)
    }
}

impl LocalUrl {
    /// Reads one: `http://ADDRESS[:PORT][/PATH]`.
    ///
    /// # Errors
    /// What it is instead, and what to write.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > URL_MAX || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("a url has at most 1024 visible characters of ASCII".to_owned());
        }
        let Some(rest) = text.strip_prefix("http://") else {
            return Err(format!(
                "url `{text}` does not begin with http://: a rule calls plain HTTP on the spot"
            ));
        };
        let rest = rest.split('#').next().unwrap_or_default();
        let (authority, path) = rest.find(['/', '?']).map_or((rest, ""), |at| rest.split_at(at));
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        // Here, where who writes the rule is told: at the call it would be an action that fails.
        let path = PathAndQuery::try_from(path).map_err(|_| {
            format!("the path of url `{text}` has a character that is written in percent, as %3C for <")
        })?;
        let address = address_of(authority).ok_or_else(|| {
            format!("url `{text}` names no address: write it in numbers, as http://192.168.7.9:8080/, for no DNS server may be in reach")
        })?;
        if address.port() == 0 {
            return Err(format!("url `{text}` has the port 0"));
        }
        match is_open(address.ip()) {
            true => Ok(LocalUrl { address, path }),
            false => Err(format!(
                "url `{text}` leads to an address that no rule calls: open are 127.0.0.0/8, ::1, 10.0.0.0/8, 172.16.0.0/12 and 192.168.0.0/16"
            )),
        }
    }
}

fn address_of(authority: &str) -> Option<SocketAddr> {
    if let Some(port) = authority.strip_prefix("localhost") {
        let port = port.strip_prefix(':').map_or(port.is_empty().then_some(80), |port| port.parse().ok())?;
        return Some(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    }
    let bare = authority.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(authority);
    let without_port = || bare.parse().ok().map(|address: IpAddr| SocketAddr::new(address, 80));
    authority.parse().ok().or_else(without_port)
}

fn is_open(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_private(),
        IpAddr::V6(v6) => v6.is_loopback(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_is_the_node_and_its_private_networks_alone() {
        for (text, address, path) in [
            ("http://192.168.7.9/horn?on=1#top", "192.168.7.9:80", "/horn?on=1"),
            ("http://127.0.0.1:8080", "127.0.0.1:8080", "/"),
            ("http://localhost:81/a", "127.0.0.1:81", "/a"),
            ("http://[::1]:81?a=b", "[::1]:81", "/?a=b"),
            ("http://[::1]/", "[::1]:80", "/"),
            ("http://10.1.2.3/", "10.1.2.3:80", "/"),
            ("http://10.1.2.3/a{b}%3C", "10.1.2.3:80", "/a{b}%3C"),
        ] {
            let url = LocalUrl::parse(text).unwrap();
            assert_eq!((url.address.to_string().as_str(), url.path.as_str()), (address, path), "{text}");
        }
        for (text, words) in [
            ("http://169.254.169.254/latest/meta-data/", "leads to an address that no rule calls"),
            ("http://100.100.100.200/", "no rule calls"),
            ("http://168.63.129.16/", "no rule calls"),
            ("http://192.0.0.192/", "no rule calls"),
            ("http://[fd00:ec2::254]/", "no rule calls"),
            ("http://[::ffff:169.254.169.254]/", "no rule calls"),
            ("http://[::ffff:127.0.0.1]/", "no rule calls"),
            ("http://0.0.0.0/", "no rule calls"),
            ("http://8.8.8.8/", "no rule calls"),
            ("https://192.168.7.9/", "plain HTTP"),
            ("http://plc.local/", "in numbers"),
            ("http://192.168.7.9@8.8.8.8/", "in numbers"),
            ("http://0x7f000001/", "in numbers"),
            ("http://localhost.evil/", "in numbers"),
            ("http://192.168.7.9:0/", "port 0"),
            ("http://192.168.7.9:65536/", "in numbers"),
            ("http://10.0.0.1/a<b>", "in percent"),
            ("http://10.0.0.1/a?b=<c>", "in percent"),
            ("http://192.168.7.9/a b", "visible characters"),
            ("http://192.168.7.9/a\r\nHost: x", "visible characters"),
        ] {
            let refused = LocalUrl::parse(text).unwrap_err();
            assert!(refused.contains(words), "{text}: {refused}");
        }
    }
}
