//! What a server bounds.

use std::time::Duration;

/// So many a second, and so many at once.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    /// A second.
    pub per_second: f64,
    /// At once.
    pub burst: f64,
}

/// The bounds of one server. [`Limits::default`] fits a port that a fleet reaches; a server changes what it has reasons for.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections at once that have shown no credential.
    pub strangers: usize,
    /// How many of them one address may hold (of IPv6: one /64).
    pub strangers_per_address: usize,
    /// The age from which such a connection is closed for a newer one of its address that finds no other place. With zero any is. When
    /// all places are taken, the address with most of them loses one to an address with fewer, whatever its age.
    pub yields_after: Duration,
    /// Connections at once whose sender has shown a credential ([`Peer::identify`](crate::Peer::identify)).
    pub users: usize,
    /// How many of them one user may hold, at all ports of the server together, and no more than are free beside: what is left is for
    /// whoever is new. As many as `users`: there is one user, and it has all. A privileged one may hold any number.
    pub connections_per_user: usize,
    /// How many more there are for privileged users, whom others cannot shut out that way.
    pub reserved: usize,
    /// Handshakes of one address; further ones wait for their turn. `None`: no rate.
    pub handshakes: Option<Rate>,
    /// For the TLS handshake, with the wait for its turn.
    pub handshake_within: Duration,
    /// For a connection, after its handshake, to show a credential ([`Peer::identify`](crate::Peer::identify)). `None`: no bound.
    pub credential_within: Option<Duration>,
    /// For the head of a request, from the end of the answer before it: also how long a connection may be idle.
    pub head_within: Duration,
    /// For a handler, until the head of its answer; its body may take any time. `None`: no bound.
    pub answer_within: Option<Duration>,
    /// For the peer to take anything of what is written to it.
    pub taken_within: Duration,
    /// The longest head of a request, in bytes; at least 8192.
    pub head_bytes: usize,
    /// The most header fields of a request.
    pub header_fields: usize,
    /// Whether a connection may carry more than one request.
    pub keep_alive: bool,
    /// Requests at once on one connection of HTTP/2, which is spoken with whoever chooses it in the handshake
    /// ([`Tls::with_http2`](crate::Tls::with_http2)).
    pub streams_per_connection: u32,
}

impl Default for Limits {
    /// 256 strangers, 64 of an address, the oldest goes first; 1024 connections of users, 256 of one; 5 s for a handshake (four round trips of the worst
    /// link that is used, 600 ms each, and its losses), 10 s for a head, 30 s for an answer and for the peer to take bytes; heads
    /// of 16 KiB and 32 fields.
    fn default() -> Self {
        Limits {
            strangers: 256,
            strangers_per_address: 64,
            yields_after: Duration::ZERO,
            users: 1024,
            connections_per_user: 256,
            reserved: 0,
            handshakes: None,
            handshake_within: Duration::from_secs(5),
            credential_within: None,
            head_within: Duration::from_secs(10),
            answer_within: Some(Duration::from_secs(30)),
            taken_within: Duration::from_secs(30),
            head_bytes: 16 << 10,
            header_fields: 32,
            keep_alive: true,
            streams_per_connection: 64,
        }
    }
}
