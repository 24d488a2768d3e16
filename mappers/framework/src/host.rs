//! Where a device's host is. A name that is not found is no device that is silent: it says so, and what to look at.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

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

#[cfg(test)]
mod tests {
    use super::*;

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
