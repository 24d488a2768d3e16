//! Links over real QUIC on loopback, with certificates made for each test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod authority;
mod wire;

use authority::Ca;
use beehive::Env;
use beehive::link::quic::QuicAcceptor;
use beehive::link::quic_dialer::QuicDialer;
use beehive::link::{Acceptor, DialError, Dialer, Hello, IncomingLink, Link, LinkError, Routes, Urgency};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use wire::{LONG, Talk};

fn run(test: impl AsyncFnOnce(Env)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async { test(Env::seeded(1)).await });
}

#[test]
fn each_end_knows_the_other_by_its_certificate() {
    run(async |env| {
        let ca = Ca::new();
        let mut server = QuicAcceptor::bind("127.0.0.1:0".parse().unwrap(), &ca.issue("cloud")).unwrap();
        let dialer = QuicDialer::new("127.0.0.1", server.address().port(), &ca.issue("edge-1")).unwrap();
        let (edge, cloud) = futures::join!(dialer.dial(), server.accept());
        let (edge, cloud, mut probe) = wire::link(&env, edge.unwrap(), cloud.unwrap(), 1).await;
        let (edge, cloud) = (edge.unwrap(), cloud.unwrap());
        assert_eq!((edge.peer().as_str(), cloud.peer().as_str()), ("cloud", "edge-1"));
        let talk = edge.remote::<Talk>();
        // More than every window together.
        for number in 0..40_u8 {
            let large = vec![number; 300_000];
            let (told, heard) = futures::join!(talk.tell(Talk::Say(large.clone())), probe.next(LONG));
            told.unwrap();
            let heard = heard.unwrap();
            assert_eq!(heard.from, "edge-1");
            assert!(matches!(heard.talk, Talk::Say(text) if text == large));
        }
        let ended = cloud.ended();
        drop(edge);
        assert!(env.timeout(LONG, ended).await.is_some());
    });
}

#[test]
fn the_end_of_a_connection_is_said_in_our_words() {
    run(async |_env| {
        let ca = Ca::new();
        let mut server = QuicAcceptor::bind("127.0.0.1:0".parse().unwrap(), &ca.issue("cloud")).unwrap();
        let dialer = QuicDialer::new("127.0.0.1", server.address().port(), &ca.issue("edge-1")).unwrap();
        let (edge, cloud) = futures::join!(dialer.dial(), server.accept());
        let (edge, cloud) = (edge.unwrap(), cloud.unwrap());
        let (mut writer, mut reader) = edge.open(Urgency::Bulk).await.unwrap();
        writer.write_all(b"x").await.unwrap();
        let (_, mut other_reader) = cloud.accept().await.unwrap();
        other_reader.read_u8().await.unwrap();
        edge.close();
        let (here, there) = ("this end closed the connection", "the other end closed the connection");
        assert_eq!(reader.read_u8().await.unwrap_err().to_string(), here);
        assert_eq!(writer.write_all(b"x").await.unwrap_err().to_string(), here);
        assert_eq!(edge.open(Urgency::Bulk).await.err().unwrap().to_string(), here);
        assert_eq!(edge.accept().await.err().unwrap().to_string(), here);
        assert_eq!(other_reader.read_u8().await.unwrap_err().to_string(), there);
        assert_eq!(cloud.accept().await.err().unwrap().to_string(), there);
    });
}

#[test]
fn an_unknown_certificate_is_refused_at_both_ends() {
    run(async |env| {
        let (ca, other) = (Ca::new(), Ca::new());
        let mut server = QuicAcceptor::bind("127.0.0.1:0".parse().unwrap(), &ca.issue("cloud")).unwrap();
        let port = server.address().port();
        // The server is not who the client trusts.
        let dialer = QuicDialer::new("127.0.0.1", port, &other.issue("edge-1")).unwrap();
        assert!(dialer.dial().await.is_err());
        // The client trusts the server, and the server does not trust the client: the hello is never answered.
        let mut half = other.issue("edge-1");
        half.authority = ca.issue("x").authority;
        let dialer = QuicDialer::new("127.0.0.1", port, &half).unwrap();
        let refused = match dialer.dial().await {
            Err(_) => true,
            Ok(connection) => {
                let greeted = Link::connect(&env, connection, &Hello::of("edge-1"), Routes::new()).await;
                matches!(greeted, Err(LinkError::Broke(_)))
            }
        };
        assert!(refused);
        // Nobody has arrived.
        let nobody = env.timeout(std::time::Duration::from_millis(200), async {
            IncomingLink::read_hello(&env, server.accept().await.unwrap()).await.is_ok()
        });
        assert!(nobody.await.is_none());
    });
}

#[test]
fn credentials_that_cannot_be_used_are_named() {
    run(async |_env| {
        let ca = Ca::new();
        let mut bad = ca.issue("cloud");
        bad.key = "nonsense".to_owned().into();
        let error = QuicAcceptor::bind("127.0.0.1:0".parse().unwrap(), &bad).err().unwrap();
        assert!(error.to_string().starts_with("the key cannot be read"), "{error}");
        let error = QuicDialer::new("not a host", 1, &ca.issue("edge")).err().unwrap();
        assert!(error.to_string().contains("neither a DNS name nor an IP address"), "{error}");
    });
}

#[test]
fn an_unanswered_dial_is_told_apart_from_a_refused_one() {
    run(async |_env| {
        let ca = Ca::new();
        // Takes every packet and says nothing, as a wall in between does.
        let wall = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let port = wall.local_addr().unwrap().port();
        let dialer = QuicDialer::new("127.0.0.1", port, &ca.issue("edge-1")).unwrap();
        let error = dialer.dial().await.err().unwrap();
        assert!(matches!(error, DialError::Unanswered { .. }), "{error}");
        // Who answers is reached.
        let mut server = QuicAcceptor::bind("127.0.0.1:0".parse().unwrap(), &ca.issue("cloud")).unwrap();
        let dialer = QuicDialer::new("127.0.0.1", server.address().port(), &ca.issue("edge-1")).unwrap();
        let (edge, cloud) = futures::join!(dialer.dial(), server.accept());
        assert!(edge.is_ok() && cloud.is_some());
    });
}
