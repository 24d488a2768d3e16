//! Dials over QUIC, whichever family of addresses the other end's name has.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::BoxFuture;
use rustls::pki_types::ServerName;
use s2n_quic::client::Connect;
use s2n_quic::provider::tls::rustls as quic_tls;
use tokio::runtime::Handle;

use super::pending_dials::{ANSWER_WITHIN, PendingDials};
use super::quic::{EndpointEvents, Handshakes, PROTOCOL, QuicConnection, STREAMS, limits, short_ids};
use super::quic_stream::said;
use super::tls;
use super::tls::{Credentials, EndpointError, LiveCredentials};
use super::transport::{Connection, DialError, Dialer};
use crate::{Clock, Lookups, TokioClock};

/// Dials one `host:port`.
pub struct QuicDialer {
    tls: Arc<rustls::ClientConfig>,
    credentials: LiveCredentials,
    /// A socket for each family that was needed so far: a machine may have one of them alone.
    v4: Mutex<Option<s2n_quic::Client>>,
    v6: Mutex<Option<s2n_quic::Client>>,
    host: String,
    port: u16,
    lookups: Lookups,
    received: Arc<AtomicU64>,
    pending: PendingDials,
    /// Which of a name's addresses is dialled: the next one when this one came to nothing.
    turn: AtomicUsize,
}

impl QuicDialer {
    /// [`QuicDialer::by`] the machine's clock.
    ///
    /// # Errors
    /// See [`EndpointError`].
    pub fn new(host: &str, port: u16, credentials: &Credentials) -> Result<Self, EndpointError> {
        QuicDialer::by(host, port, &LiveCredentials::new(credentials)?, Arc::new(TokioClock::real()))
    }

    /// Dials `host:port`, which has to be named in the other end's certificate. Each attempt looks the name up anew, and one after
    /// an attempt in vain takes the name's next address; those of IPv4 come first.
    /// Needs a tokio runtime, whose thread does the protocol's work. `clock` says what is still valid. Each dial goes by the
    /// credentials as they are then.
    ///
    /// # Errors
    /// See [`EndpointError`].
    pub fn by(
        host: &str,
        port: u16,
        credentials: &LiveCredentials,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, EndpointError> {
        if ServerName::try_from(host).is_err() {
            let reason = format!("`{}` is neither a DNS name nor an IP address", host.escape_debug());
            return Err(EndpointError::Unreadable { what: "host to dial", reason });
        }
        let dialer = QuicDialer {
            tls: Arc::new(tls::client_by(credentials, PROTOCOL, clock)?),
            credentials: credentials.clone(),
            v4: Mutex::default(),
            v6: Mutex::default(),
            host: host.trim_matches(['[', ']']).to_owned(),
            port,
            lookups: Lookups::at_most(1),
            received: Arc::default(),
            pending: PendingDials::default(),
            turn: AtomicUsize::new(0),
        };
        // What stands in the way of a socket is said at once where it is known which one is needed.
        if let Ok(address) = dialer.host.parse::<IpAddr>() {
            dialer.client(address.is_ipv6())?;
        }
        Ok(dialer)
    }

    fn target(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// The client of a family.
    fn client(&self, is_v6: bool) -> Result<s2n_quic::Client, EndpointError> {
        let slot = if is_v6 { &self.v6 } else { &self.v4 };
        let mut client = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = &*client {
            return Ok(client.clone());
        }
        let made = self.start(is_v6)?;
        Ok(client.insert(made).clone())
    }

    fn start(&self, is_v6: bool) -> Result<s2n_quic::Client, EndpointError> {
        let any: SocketAddr = match is_v6 {
            true => (Ipv6Addr::UNSPECIFIED, 0).into(),
            false => (Ipv4Addr::UNSPECIFIED, 0).into(),
        };
        let socket = |reason: &dyn std::fmt::Display| EndpointError::Socket {
            address: any,
            reason: reason.to_string(),
        };
        let runtime = self.credentials.handshakes_on()?;
        let _within = runtime.as_ref().map(Handle::enter);
        let handshakes = Handshakes::Dialled(self.pending.clone());
        let events = EndpointEvents { heard: Arc::clone(&self.received), handshakes };
        s2n_quic::Client::builder()
            .with_tls(quic_tls::Client::from(Arc::clone(&self.tls)))
            .map_err(|error| socket(&error))?
            .with_io(any)
            .map_err(|error| socket(&error))?
            .with_connection_id(short_ids()?)
            .map_err(|error| EndpointError::Limits(error.to_string()))?
            .with_limits(limits(STREAMS, STREAMS)?)
            .map_err(|error| EndpointError::Limits(error.to_string()))?
            .with_event(events)
            .map_err(|error| EndpointError::Limits(error.to_string()))?
            .start()
            .map_err(|error| socket(&error))
    }

    async fn connect(&self) -> Result<Box<dyn Connection>, DialError> {
        // A resolver without a network says nothing for long.
        let lookup = self.lookups.of("link", &self.host, self.port);
        let resolved = tokio::time::timeout(ANSWER_WITHIN, lookup).await.ok().and_then(Result::ok);
        let address = resolved.and_then(|found| choose(found, self.turn.load(Ordering::Relaxed)));
        let address = address.ok_or_else(|| DialError::Resolve(self.host.clone()))?;
        let connect = Connect::new(address).with_server_name(self.host.as_str());
        let failed = |reason: String| DialError::Connect { target: self.target(), reason };
        let client = self.client(address.is_ipv6()).map_err(|error| failed(error.to_string()))?;
        let before = self.received.load(Ordering::Relaxed);
        let caller = self.pending.wait();
        let mut attempt = std::pin::pin!(client.connect(connect));
        let connection = match tokio::time::timeout(ANSWER_WITHIN, &mut attempt).await {
            Ok(connection) => connection,
            Err(_) if self.received.load(Ordering::Relaxed) == before => {
                return Err(DialError::Unanswered { target: self.target() });
            }
            // A slow handshake is not a blocked one.
            Err(_) => attempt.await,
        };
        let connection = connection.map_err(|error| failed(said(error.into()).to_string()))?;
        caller.connected();
        let connection = QuicConnection::new(connection)
            .ok_or_else(|| failed("its certificate has no common name".to_owned()))?;
        Ok(Box::new(connection) as Box<dyn Connection>)
    }
}

/// Of a name's addresses the one whose turn it is.
fn choose(mut addresses: Vec<SocketAddr>, turn: usize) -> Option<SocketAddr> {
    // In its own order otherwise.
    addresses.sort_by_key(SocketAddr::is_ipv6);
    let at = turn.checked_rem(addresses.len())?;
    addresses.get(at).copied()
}

impl Dialer for QuicDialer {
    fn heard(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    fn dial(&self) -> BoxFuture<'_, Result<Box<dyn Connection>, DialError>> {
        Box::pin(async {
            let turn = self.turn.load(Ordering::Relaxed);
            let dialled = self.connect().await;
            if dialled.is_err() {
                // Of several dials at once that came to nothing one is enough.
                let next = turn.wrapping_add(1);
                let _ = self.turn.compare_exchange(turn, next, Ordering::Relaxed, Ordering::Relaxed);
            }
            dialled
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_of_a_name_has_its_turn_and_one_family_is_enough() {
        let (six, four): (SocketAddr, SocketAddr) =
            ("[2001:db8::1]:9".parse().unwrap(), "192.0.2.1:9".parse().unwrap());
        let turns = |of: &[SocketAddr]| (0..3).map(|turn| choose(of.to_vec(), turn)).collect::<Vec<_>>();
        assert_eq!(turns(&[six, four]), [Some(four), Some(six), Some(four)]);
        assert_eq!(turns(&[six]), [Some(six); 3], "a name with AAAA records alone");
        assert_eq!(turns(&[]), [None; 3]);
    }

    #[tokio::test]
    async fn a_name_with_addresses_of_one_family_is_dialled() {
        let authority = rcgen::generate_simple_self_signed(vec!["six.test".to_owned()]).unwrap();
        let pem = authority.cert.pem();
        let credentials = Credentials {
            certificate: pem.clone(),
            key: authority.signing_key.serialize_pem().into(),
            authority: pem,
        };
        for address in ["127.0.0.1", "::1"] {
            let mut dialer = QuicDialer::new("six.test", 9, &credentials).unwrap();
            let found: IpAddr = address.parse().unwrap();
            dialer.lookups = Lookups::answering(if found.is_ipv6() {
                |_| Ok(vec![Ipv6Addr::LOCALHOST.into()])
            } else {
                |_| Ok(vec![Ipv4Addr::LOCALHOST.into()])
            });
            // Nobody is there; what counts is that it was asked.
            let error = dialer.dial().await.err().unwrap();
            assert!(!matches!(error, DialError::Resolve(_)), "{address}: {error}");
            assert_eq!(dialer.turn.load(Ordering::Relaxed), 1);
        }
    }
}
