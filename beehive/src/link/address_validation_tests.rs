//! Links over real QUIC to an end that validates addresses (Retry, RFC 9000 section 8.1.2), on paths that lose, duplicate
//! and delay packets.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UdpSocket;
use tokio::time::{sleep, timeout};

use super::handshake_limiter::HandshakeLimiter;
use super::quic::QuicAcceptor;
use super::quic_dialer::QuicDialer;
use super::tls::{Credentials, LiveCredentials};
use super::transport::{Acceptor, Connection, Dialer, Urgency};
use crate::{Clock, Moment, TokioClock};

/// A handshake's time and a little: then nothing of it is left.
const OVER: Duration = Duration::from_secs(13);

/// Less than a handshake may take: one that is pending for longer was left behind and ends by its own timeout. A dialer waits
/// no longer than that for a link either.
const LEFT_BEHIND: Duration = Duration::from_millis(9500);

/// What a link takes at the most that waits for nobody. A busy machine makes one slow, and not all of several.
const WAITS_FOR_NOBODY: Duration = Duration::from_millis(1500);

thread_local! {
    static CLOCK: TokioClock = TokioClock::real();
}

/// By one clock within a test.
fn now() -> Moment {
    CLOCK.with(Clock::now)
}

struct Ca(CertifiedIssuer<'static, KeyPair>);

impl Ca {
    fn new() -> Ca {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Ca(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn issue(&self, name: &str) -> Credentials {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.subject_alt_names = vec![SanType::IpAddress([127, 0, 0, 1].into())];
        let certificate = params.signed_by(&key, &self.0).unwrap().pem();
        Credentials { certificate, key: key.serialize_pem().into(), authority: self.0.pem() }
    }
}

/// When the copies of the packet with this number arrive, in ms: none, and it is lost.
type Fate = fn(usize) -> &'static [u64];

/// What happens on the way to the other end, and back.
#[derive(Clone, Copy)]
struct Way {
    name: &'static str,
    up: Fate,
    down: Fate,
}

fn whole(_: usize) -> &'static [u64] {
    &[0]
}

/// 600 ms after the first packet without an answer it is sent again, 1200 ms after that once more.
const WAYS: [Way; 8] = [
    Way { name: "whole", up: whole, down: whole },
    Way { name: "all double", up: |_| &[0, 20], down: |_| &[0, 20] },
    Way { name: "first lost", up: |n| if n == 0 { &[] } else { &[0] }, down: whole },
    Way { name: "with the token lost", up: |n| if n == 1 { &[] } else { &[0] }, down: whole },
    Way { name: "first overtaken by itself", up: |n| if n == 0 { &[650] } else { &[0] }, down: whole },
    Way { name: "answer to the token lost", up: whole, down: |n| if n == 1 { &[] } else { &[0] } },
    // What answers the first comes after it was sent again, and before the answer to that.
    Way { name: "late answers", up: whole, down: |n| if n == 0 { &[700] } else { &[250] } },
    Way { name: "first again much later", up: |n| if n == 0 { &[0, 900] } else { &[0] }, down: whole },
];

/// A way to `to`; answers where it begins, and how many packets had come from there before the first answer.
async fn relay(to: SocketAddr, way: Way) -> (u16, Arc<AtomicUsize>) {
    let (port, hello, _) = relay_of([127, 0, 0, 1], to, way).await;
    (port, hello)
}

/// One whose packets come from `address`; answers as well how many have come to it in all.
async fn relay_of(address: [u8; 4], to: SocketAddr, way: Way) -> (u16, Arc<AtomicUsize>, Arc<AtomicUsize>) {
    let inside = Rc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
    let outside = Rc::new(UdpSocket::bind(SocketAddr::from((address, 0))).await.unwrap());
    outside.connect(to).await.unwrap();
    let port = inside.local_addr().unwrap().port();
    let hello = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&hello);
    let all = Arc::new(AtomicUsize::new(0));
    let counted_all = Arc::clone(&all);
    tokio::task::spawn_local(async move {
        let (mut ups, mut downs, mut client) = (0, 0, None);
        let (mut up, mut down) = ([0; 2048], [0; 2048]);
        loop {
            let (bytes, fate, target) = tokio::select! {
                came = inside.recv_from(&mut up) => {
                    let Ok((len, from)) = came else { continue };
                    client = Some(from);
                    ups += 1;
                    counted_all.store(ups, Ordering::Relaxed);
                    if downs == 0 {
                        counted.store(ups, Ordering::Relaxed);
                    }
                    (up[..len].to_vec(), (way.up)(ups - 1), None)
                }
                came = outside.recv(&mut down) => {
                    let Ok(len) = came else { continue };
                    downs += 1;
                    (down[..len].to_vec(), (way.down)(downs - 1), client)
                }
            };
            for late in fate {
                let (bytes, inside, outside) = (bytes.clone(), Rc::clone(&inside), Rc::clone(&outside));
                tokio::task::spawn_local(async move {
                    if *late > 0 {
                        sleep(Duration::from_millis(*late)).await;
                    }
                    let _ = match target {
                        Some(client) => inside.send_to(&bytes, client).await,
                        None => outside.send(&bytes).await,
                    };
                });
            }
        }
    });
    (port, hello, all)
}

/// Echoes what the first stream of each connection says.
fn echo(mut server: QuicAcceptor) -> Rc<std::cell::Cell<usize>> {
    let came = Rc::new(std::cell::Cell::new(0));
    let counted = Rc::clone(&came);
    tokio::task::spawn_local(async move {
        while let Some(connection) = server.accept().await {
            counted.set(counted.get() + 1);
            tokio::task::spawn_local(async move {
                let (mut writer, mut reader) = connection.accept().await.unwrap();
                let mut said = [0; 4];
                reader.read_exact(&mut said).await.unwrap();
                writer.write_all(&said).await.unwrap();
                // Until the other end goes.
                while connection.accept().await.is_ok() {}
            });
        }
    });
    came
}

async fn link(dialer: &QuicDialer) -> Box<dyn Connection> {
    let connection = dialer.dial().await.unwrap();
    let (mut writer, mut reader) = connection.open(Urgency::Link).await.unwrap();
    writer.write_all(b"here").await.unwrap();
    let mut said = [0; 4];
    reader.read_exact(&mut said).await.unwrap();
    assert_eq!(&said, b"here");
    connection
}

fn run(test: impl AsyncFnOnce(Ca, HandshakeLimiter, SocketAddr, Rc<std::cell::Cell<usize>>)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let (ca, handshakes) = (Ca::new(), HandshakeLimiter::new(Arc::new(TokioClock::real())));
        let credentials = LiveCredentials::new(&ca.issue("cloud")).unwrap();
        let server =
            QuicAcceptor::with_limiter("127.0.0.1:0".parse().unwrap(), &credentials, &handshakes).unwrap();
        let address = server.address();
        let came = echo(server);
        test(ca, handshakes, address, came).await;
    });
}

async fn all_over(handshakes: &HandshakeLimiter) {
    let over = async {
        while handshakes.pending() > 0 {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(OVER, over).await.expect("a handshake is pending that nobody goes on with");
}

#[test]
fn a_hello_is_one_datagram() {
    run(async |ca, _, address, _| {
        let edge = ca.issue("edge");
        let mut hellos = Vec::new();
        // When the answer is late, the first is sent again. Of two that are one hello there are never fewer.
        while !hellos.contains(&1) {
            assert!(hellos.len() < 10, "{hellos:?}");
            let (port, hello) = relay(address, WAYS[0]).await;
            link(&QuicDialer::new("127.0.0.1", port, &edge).unwrap()).await;
            hellos.push(hello.load(Ordering::Relaxed));
        }
    });
}

#[test]
fn two_hundred_links_come_up_in_time_with_address_validation() {
    run(async |ca, handshakes, address, came| {
        handshakes.accept_without_retry(0);
        let edge = ca.issue("edge");
        // One after the other, over one socket.
        let dialer = QuicDialer::new("127.0.0.1", address.port(), &edge).unwrap();
        for _ in 0..13 {
            let mut took = Vec::new();
            for _ in 0..8 {
                let began = now();
                link(&dialer).await;
                took.push(now().since(began));
            }
            assert!(took.iter().any(|took| *took < WAITS_FOR_NOBODY), "{took:?}");
        }
        // And on each way some, at once.
        for _ in 0..6 {
            let mut links = FuturesUnordered::new();
            for way in WAYS.into_iter().cycle().take(2 * WAYS.len()) {
                let edge = &edge;
                links.push(async move {
                    let (port, _) = relay(address, way).await;
                    let dialer = QuicDialer::new("127.0.0.1", port, edge).unwrap();
                    timeout(OVER, link(&dialer)).await.unwrap_or_else(|_| panic!("no link: {}", way.name))
                });
            }
            while links.next().await.is_some() {}
        }
        assert_eq!(came.get(), 200);
        all_over(&handshakes).await;
        // It is still there.
        link(&dialer).await;
    });
}

#[test]
fn a_retry_leaves_no_second_connection_when_validation_is_switched_off_meanwhile() {
    run(async |ca, handshakes, address, came| {
        let edge = ca.issue("edge");
        for _ in 0..3 {
            let began = now();
            handshakes.accept_without_retry(0);
            let mut dialers = Vec::new();
            for way in WAYS {
                let (port, _) = relay(address, way).await;
                dialers.push(QuicDialer::new("127.0.0.1", port, &edge).unwrap());
            }
            let links = futures::future::join_all(dialers.iter().map(link));
            let calm = async {
                // The first packets have been answered; those that are sent again have not come.
                sleep(Duration::from_millis(300)).await;
                handshakes.accept_without_retry(32);
            };
            let (links, ()) = futures::join!(links, calm);
            // Those that came up are not pending; one that was left behind stays for the time of a handshake.
            until_within(left_of(began), "a handshake was left behind", || handshakes.pending() == 0).await;
            drop(links);
        }
        assert_eq!(came.get(), 3 * WAYS.len());
        link(&QuicDialer::new("127.0.0.1", address.port(), &ca.issue("edge")).unwrap()).await;
    });
}

/// The answer to the Retry, and nothing after it.
const HALF_OPEN: Way = Way {
    name: "half open",
    up: |n| if n < 2 { &[0] } else { &[] },
    down: |n| if n == 0 { &[0] } else { &[] },
};

/// Begins `count` handshakes from `address` and goes on with none of them; answers how many packets each has sent.
async fn leave_half_open(ca: &Ca, address: [u8; 4], to: SocketAddr, count: usize) -> Vec<Arc<AtomicUsize>> {
    let stranger = ca.issue("stranger");
    let mut sent = Vec::new();
    for _ in 0..count {
        let (port, _, all) = relay_of(address, to, HALF_OPEN).await;
        sent.push(all);
        let dialer = QuicDialer::new("127.0.0.1", port, &stranger).unwrap();
        tokio::task::spawn_local(async move { dialer.dial().await.is_ok() });
    }
    sent
}

async fn until(what: &str, fact: impl Fn() -> bool) {
    until_within(Duration::from_secs(20), what, fact).await;
}

/// What is left until a handshake that began then would end by its own timeout.
fn left_of(began: Moment) -> Duration {
    LEFT_BEHIND.saturating_sub(now().since(began))
}

async fn until_within(limit: Duration, what: &str, fact: impl Fn() -> bool) {
    let come = async {
        while !fact() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(limit, come).await.unwrap_or_else(|_| panic!("{what}"));
}

#[test]
fn half_open_handshakes_of_a_few_addresses_leave_slots_for_others() {
    run(async |ca, handshakes, address, came| {
        handshakes.accept_without_retry(0);
        handshakes.limit_slots(8, 4);
        let besides = handshakes.open_connections();
        let strangers = Ca::new();
        let dialer = QuicDialer::new("127.0.0.1", address.port(), &ca.issue("edge")).unwrap();
        let (mut links, mut took) = (Vec::new(), Vec::new());
        let mut strangers_came = now();
        for _ in 0..6 {
            strangers_came = now();
            // They take each slot again that the last link has left.
            for stranger in [2, 3, 4] {
                leave_half_open(&strangers, [127, 0, 0, stranger], address, 4).await;
            }
            until("the strangers do not fill the slots", || handshakes.pending() == 8).await;
            let began = now();
            links.push(link(&dialer).await);
            took.push(now().since(began));
            assert!(handshakes.pending() <= 8);
        }
        assert_eq!(came.get(), links.len());
        assert!(took.iter().any(|took| *took < WAITS_FOR_NOBODY), "{took:?}");
        // A handshake that has lost its slot is closed long before its timeout.
        until_within(left_of(strangers_came), "a handshake without a slot is not closed", || {
            handshakes.open_connections() <= besides + 8
        })
        .await;
    });
}

#[test]
fn a_handshake_beyond_the_slots_is_closed_at_once() {
    run(async |ca, handshakes, address, _| {
        handshakes.accept_without_retry(0);
        handshakes.limit_slots(8, 2);
        let besides = handshakes.open_connections();
        let began = now();
        // Those who are asked at once are told the same: there is room.
        let sent = leave_half_open(&ca, [127, 0, 0, 2], address, 8).await;
        // The third packet is the first one or the one with the token again: no answer to that comes through.
        until("some have not come", || sent.iter().all(|sent| sent.load(Ordering::Relaxed) > 2)).await;
        until_within(left_of(began), "more than two go on", || handshakes.open_connections() <= besides + 2)
            .await;
        assert_eq!(handshakes.pending(), 2);
    });
}

/// The first packets of three dials go nowhere; then the way is whole.
const CUT: Way = Way { name: "cut", up: |n| if n < 3 { &[] } else { &[0] }, down: whole };

#[test]
fn of_several_dials_after_an_outage_one_has_its_handshake() {
    run(async |ca, handshakes, address, came| {
        let (port, _, all) = relay_of([127, 0, 0, 1], address, CUT).await;
        let dialer = QuicDialer::new("127.0.0.1", port, &ca.issue("edge")).unwrap();
        // Each sends its first packet again after 600 ms.
        let dial = async |late| {
            sleep(Duration::from_millis(late)).await;
            dialer.dial().await
        };
        let (first, second, third) = futures::join!(dial(0), dial(300), dial(600));
        assert!(first.is_ok() && second.is_err() && third.is_err());
        assert_eq!(came.get(), 1);
        until("half a handshake stays", || handshakes.pending() == 0).await;
        let sent = all.load(Ordering::Relaxed);
        assert!(sent < 20, "{sent} packets");
        // Nothing of it stands in the way of the next one.
        link(&dialer).await;
    });
}
