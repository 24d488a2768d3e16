//! Where a device's host is, and whether a device may be there. A name that is not found is no device that is silent: it says so, and
//! what to look at.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::Deserialize;
use targets::{Network, TargetAddresses};
use tokio::net::lookup_host;
use tokio::time::timeout;

/// 4 s: less than a connection has by itself ([`crate::DEADLINE`]), so that the name is named. A name server that is away takes the
/// C library 5 s and more.
const FOUND_WITHIN: Duration = Duration::from_secs(4);

/// The addresses of a host, which is an address itself, or a name.
///
/// # Errors
/// A sentence about the name.
pub async fn addresses(host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let why = match timeout(FOUND_WITHIN, lookup_host((host, port))).await {
        Ok(Ok(found)) => match found.collect::<Vec<_>>() {
            found if found.is_empty() => "it has no address".to_owned(),
            found => return Ok(found),
        },
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("the name servers have not answered within {} s", FOUND_WITHIN.as_secs()),
    };
    Err(format!(
        "the name `{host}` is not found ({why}); look at /etc/resolv.conf and /etc/hosts where the mapper runs, or write an address"
    ))
}

/// 64 entries of `common.allowed_targets`.
const ALLOWED_MAX: usize = 64;

/// Where devices may lead a mapper to that speaks a language which others of the machine speak, too: whoever may write a Device has it
/// send requests from where it stands. Loopback, link-local addresses and those where clouds keep metadata are closed, unless
/// `common.allowed_targets` has them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Vec<String>")]
pub struct Targets {
    networks: TargetAddresses,
    /// One port of an address.
    places: Vec<SocketAddr>,
}

impl TryFrom<Vec<String>> for Targets {
    type Error = String;

    fn try_from(allowed: Vec<String>) -> Result<Self, String> {
        Targets::new(allowed)
    }
}

impl Targets {
    /// What is open to all, and beside it these networks (`ADDRESS/BITS`) and ports (`ADDRESS:PORT`).
    ///
    /// # Errors
    /// With the key, what is none of them, and the cure.
    pub fn new(allowed: Vec<String>) -> Result<Self, String> {
        if allowed.len() > ALLOWED_MAX {
            return Err(format!(
                "common.allowed_targets has {} entries; at most {ALLOWED_MAX}",
                allowed.len()
            ));
        }
        let (mut networks, mut places) = (Vec::new(), Vec::new());
        for text in allowed {
            match text.parse::<SocketAddr>() {
                Ok(place) if place.port() != 0 => places.push(canonical(place)),
                Err(_) if Network::parse(&text).is_some() => networks.push(text),
                _ => {
                    return Err(format!(
                        "common.allowed_targets has `{text}`, which is neither ADDRESS:PORT nor ADDRESS/BITS, as 127.0.0.1:8080 or 169.254.7.0/24"
                    ));
                }
            }
        }
        Ok(Targets { networks: TargetAddresses::new(&networks), places })
    }

    /// Whether a device may be there. `host` is as the device has it.
    ///
    /// # Errors
    /// A sentence with the address and the cure.
    pub fn check(&self, host: &str, at: SocketAddr) -> Result<(), String> {
        if self.places.contains(&canonical(at)) {
            return Ok(());
        }
        let ip = at.ip();
        self.networks.check(ip).map_err(|what| {
            format!(
                "`{host}` is {ip}, {what}: closed to devices, unless common.allowed_targets in the mapper's file has `{at}`"
            )
        })
    }

    /// The addresses of a host that are open, to be dialled as they are: the name is not to be asked for again.
    ///
    /// # Errors
    /// A sentence about the name, or about an address where all are closed.
    pub async fn addresses(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
        let (mut open, mut refused) = (Vec::new(), None);
        for at in addresses(host, port).await? {
            match self.check(host, at) {
                Ok(()) => open.push(at),
                Err(sentence) => refused = Some(sentence),
            }
        }
        match refused {
            Some(sentence) if open.is_empty() => Err(sentence),
            _ => Ok(open),
        }
    }
}

/// An address of IPv4 as one, however it is written.
fn canonical(at: SocketAddr) -> SocketAddr {
    SocketAddr::new(at.ip().to_canonical(), at.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets(allowed: &[&str]) -> Targets {
        Targets::new(allowed.iter().map(|text| (*text).to_owned()).collect()).unwrap()
    }

    #[tokio::test]
    async fn what_is_the_machines_alone_is_closed_by_whatever_name() {
        let closed = Targets::default();
        for host in [
            "127.0.0.1",
            "localhost",
            "127.1",
            "2130706433",
            "0x7f000001",
            "::1",
            "::ffff:127.0.0.1",
            "169.254.169.254",
        ] {
            let refused = closed.addresses(host, 7777).await.unwrap_err();
            assert!(refused.starts_with(&format!("`{host}` is ")), "{refused}");
            assert!(refused.contains("common.allowed_targets") && refused.contains(":7777"), "{refused}");
        }
        assert_eq!(closed.addresses("192.0.2.7", 80).await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn the_settings_open_a_port_or_a_network_and_no_others() {
        let one = targets(&["127.0.0.1:8080"]);
        assert_eq!(one.addresses("127.1", 8080).await.unwrap(), ["127.0.0.1:8080".parse().unwrap()]);
        one.addresses("::ffff:127.0.0.1", 8080).await.unwrap();
        for (host, port) in [("127.0.0.1", 7777), ("127.0.0.2", 8080), ("::1", 8080)] {
            one.addresses(host, port).await.unwrap_err();
        }
        let network = targets(&["127.0.0.0/8"]);
        network.addresses("127.0.0.9", 1).await.unwrap();
        network.addresses("169.254.169.254", 80).await.unwrap_err();
    }

    #[tokio::test]
    async fn a_name_that_is_not_found_is_what_is_said_to_be_wrong() {
        for host in ["no-such-device.invalid", ""] {
            let reason = addresses(host, 502).await.unwrap_err();
            assert!(reason.starts_with(&format!("the name `{host}` is not found (")), "{reason}");
            assert!(reason.contains("/etc/resolv.conf"), "{reason}");
        }
    }

    #[tokio::test]
    async fn an_address_is_where_it_says() {
        for (host, shown) in [("192.0.2.1", "192.0.2.1:502"), ("2001:db8::1", "[2001:db8::1]:502")] {
            assert_eq!(addresses(host, 502).await.unwrap()[0].to_string(), shown);
        }
        assert!(!addresses("localhost", 502).await.unwrap().is_empty());
    }
}
