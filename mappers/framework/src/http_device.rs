//! Devices that speak HTTP: where one is, as its Device says it, and the connection to it.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use httpclient::{Dialect, SendRequest, handshake_as};
use hyper::Uri;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::error::InvalidSetting;

/// The port where a URL has none.
const PORT: u16 = 80;

/// Where a device is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceUrl {
    /// Its address or name.
    pub host: String,
    /// The TCP port.
    pub port: u16,
    /// The path, as it is written; `/` where there is none.
    pub path: String,
    /// The query.
    pub query: Option<String>,
}

impl DeviceUrl {
    /// From the setting `url`. `example` is how one is written.
    ///
    /// # Errors
    /// With the cure.
    pub fn read(url: &str, example: &str) -> Result<Self, InvalidSetting> {
        let wrong = |what: &str| InvalidSetting::new(format!("setting `url` {what}"));
        if url.is_empty() {
            return Err(wrong(&format!("is missing; write it as {example}")));
        }
        let uri: Uri = url.parse().map_err(|_| wrong(&format!("is no URL; write it as {example}")))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => {
                return Err(wrong(
                    "is https, which this mapper does not speak; put a proxy on the node before the device",
                ));
            }
            _ => return Err(wrong(&format!("is no URL of http; write it as {example}"))),
        }
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(|| wrong("names no host"))?;
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err(wrong("has a user; write `userName` and `password`"));
        }
        Ok(DeviceUrl {
            host: host.trim_matches(['[', ']']).to_owned(),
            port: uri.port_u16().unwrap_or(PORT),
            path: uri.path().to_owned(),
            query: uri.query().map(str::to_owned),
        })
    }
}

/// A connection to a device at the first of these addresses that answers within this time. Whether it may be there has been asked.
///
/// # Errors
/// A sentence.
pub async fn connect(at: &[SocketAddr], within: Duration) -> Result<SendRequest<Full<Bytes>>, String> {
    let stream = match timeout(within, TcpStream::connect(at)).await {
        Ok(stream) => stream.map_err(|error| error.to_string())?,
        Err(_) => return Err("nobody answers".to_owned()),
    };
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    let (sender, connection) =
        handshake_as(Dialect::AsGo, stream).await.map_err(|error| error.to_string())?;
    // It ends with the sender, or with the device's end of it.
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection to a device broke off");
        }
    });
    Ok(sender)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_where_a_device_is() {
        let read = |url| DeviceUrl::read(url, "http://192.0.2.7:8080");
        let found = read("http://[2001:db8::7]:8899/a/b/?x=1").unwrap();
        let (host, path, query) = ("2001:db8::7".to_owned(), "/a/b/".to_owned(), Some("x=1".to_owned()));
        assert_eq!(found, DeviceUrl { host, port: 8899, path, query });
        let found = read("http://device.local").unwrap();
        assert_eq!((found.port, found.path.as_str(), found.query), (80, "/", None));
        for (url, said) in [
            ("", "is missing; write it as http://192.0.2.7:8080"),
            ("a b", "no URL; write it as http://192.0.2.7:8080"),
            ("192.0.2.7", "no URL of http"),
            ("ftp://h", "no URL of http"),
            ("https://h", "proxy"),
            ("http://u:p@h", "`userName`"),
        ] {
            let refusal = read(url).unwrap_err().to_string();
            assert!(refusal.contains(said), "{url}: {refusal}");
        }
    }

    #[tokio::test]
    async fn a_device_that_is_not_there_is_said_to_be_so() {
        let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let refusal = connect(&[gone], Duration::from_secs(5)).await.unwrap_err();
        assert!(refusal.contains("refused"), "{refusal}");
    }
}
