//! Real QUIC through a relay whose address changes, as behind a NAT that forgets. A connection of s2n-quic goes silent
//! after the fifth change; the link notices and is made anew. The link's clock runs four times as fast as the machine's, so
//! that ten seconds of silence are two and a half.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use beehive::link::quic::{Credentials, QuicAcceptor};
use beehive::link::quic_dialer::QuicDialer;
use beehive::link::{Acceptor, IncomingLink, Link, Routes};
use beehive::testing::Probe;
use beehive::{Capacity, Clock, Env, Hive, Moment, Policy, TokioClock};
use contract::edgehub::EdgeHubMsg;
use contract::metamanager::{MetaDown, MetaMsg};
use edge_hub::EdgeHub;
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::net::UdpSocket;

const FASTER: u32 = 4;
const REBINDINGS: u32 = 8;

struct FastClock(TokioClock);

impl Clock for FastClock {
    fn now(&self) -> Moment {
        Moment(self.0.now().0 * FASTER)
    }
    fn wall(&self) -> SystemTime {
        self.0.wall()
    }
    fn sleep(&self, pause: Duration) -> BoxFuture<'static, ()> {
        self.0.sleep(pause / FASTER).boxed()
    }
}

/// Carries packets between one client and the server, from an address of its own that can change.
struct Relay {
    near: Arc<UdpSocket>,
    far: Rc<RefCell<Arc<UdpSocket>>>,
    server: SocketAddr,
    rebound: tokio::sync::watch::Sender<u32>,
}

impl Relay {
    async fn to(server: SocketAddr) -> Rc<Relay> {
        let near = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        let far = Rc::new(RefCell::new(Arc::new(Relay::socket().await)));
        let relay = Rc::new(Relay { near, far, server, rebound: tokio::sync::watch::channel(0).0 });
        tokio::task::spawn_local(Rc::clone(&relay).carry());
        relay
    }

    async fn socket() -> UdpSocket {
        UdpSocket::bind("127.0.0.1:0").await.unwrap()
    }

    fn port(&self) -> u16 {
        self.near.local_addr().unwrap().port()
    }

    async fn rebind(&self) {
        *self.far.borrow_mut() = Arc::new(Relay::socket().await);
        self.rebound.send_modify(|count| *count += 1);
    }

    async fn carry(self: Rc<Self>) {
        let (mut up, mut down) = (vec![0; 65_536], vec![0; 65_536]);
        let (mut client, mut rebound) = (None, self.rebound.subscribe());
        loop {
            let far = Arc::clone(&self.far.borrow());
            tokio::select! {
                Ok((len, from)) = self.near.recv_from(&mut up) => {
                    client = Some(from);
                    let far = Arc::clone(&self.far.borrow());
                    let _ = far.send_to(&up[..len], self.server).await;
                }
                Ok((len, _)) = far.recv_from(&mut down) => {
                    if let Some(client) = client {
                        let _ = self.near.send_to(&down[..len], client).await;
                    }
                }
                _ = rebound.changed() => {}
            }
        }
    }
}

fn credentials(env: &Env) -> (Credentials, Credentials) {
    let day = Duration::from_secs(86_400);
    let authority = pki::Authority::create(env.wall(), env.random_id()).unwrap();
    let alt_names = pki::SubjectAltNames { addresses: vec!["127.0.0.1".parse().unwrap()], names: Vec::new() };
    let (server, key) = authority.server(&alt_names, env.wall(), day, env.random_id()).unwrap();
    let cloud =
        Credentials { certificate: server.pem, key: key.into(), authority: authority.cert_pem().to_owned() };
    let request = pki::NodeRequest::new("a").unwrap();
    let issued = authority.sign_node(&request.csr_der, "a", env.wall(), day, env.random_id()).unwrap();
    let edge = Credentials {
        certificate: issued.pem,
        key: request.key_pem.clone().into(),
        authority: authority.cert_pem().to_owned(),
    };
    (cloud, edge)
}

#[test]
fn a_link_survives_eight_changes_of_its_address() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let env = Env::new(Arc::new(FastClock(TokioClock::real())), 7, |task| {
            tokio::task::spawn_local(task);
        });
        let (cloud, edge) = credentials(&env);
        let mut server = QuicAcceptor::bind("127.0.0.1:0".parse().unwrap(), &cloud).unwrap();
        let relay = Relay::to(server.address()).await;
        let dialer = Rc::new(QuicDialer::new("127.0.0.1", relay.port(), &edge).unwrap());
        let (mut meta, meta_address) = Probe::<MetaMsg>::new(&env, 64);
        let mut hive = Hive::new("test", env.clone());
        let mailbox = hive.mailbox::<EdgeHubMsg>("edge-hub", Capacity::new(16, "a test's choice"));
        hive.supervise(mailbox, Policy::default(), move || {
            EdgeHub::new(dialer.clone(), "system:node:a", meta_address.clone())
        });
        hive.open().unwrap();
        // The cloud keeps the newest link, as CloudHub does.
        let newest: Rc<RefCell<Option<Link>>> = Rc::default();
        let (kept, accepting) = (Rc::clone(&newest), env.clone());
        let links = Rc::new(RefCell::new(0));
        let counted = Rc::clone(&links);
        tokio::task::spawn_local(async move {
            while let Some(connection) = server.accept().await {
                if let Ok(arrival) = IncomingLink::read_hello(&accepting, connection).await
                    && let Ok(link) = arrival.admit(Routes::new()).await
                {
                    *counted.borrow_mut() += 1;
                    *kept.borrow_mut() = Some(link);
                }
            }
        });
        tokio::task::spawn_local({
            // MetaManager answers what it is asked.
            async move {
                while let Some(message) = meta.next(Duration::from_secs(100_000)).await {
                    if let MetaMsg::Down(MetaDown::ObjectVersions { reply, .. }) = message {
                        reply.send(Vec::new());
                    }
                }
            }
        });
        let mut kept_by = Vec::new();
        for change in 0..=REBINDINGS {
            let before = *links.borrow();
            if change > 0 {
                relay.rebind().await;
            }
            // An ask that the cloud makes is answered by the edge: both directions work.
            let answered = async {
                loop {
                    let meta = newest.borrow().as_ref().map(|link| link.remote::<MetaDown>());
                    if let Some(meta) = meta
                        && meta
                            .ask(Duration::from_secs(2), |reply| MetaDown::ObjectVersions {
                                inventory: 1,
                                buckets: vec![0],
                                reply,
                            })
                            .await
                            .is_ok()
                    {
                        return;
                    }
                    env.sleep(Duration::from_millis(200)).await;
                }
            };
            assert!(
                env.timeout(Duration::from_secs(300), answered).await.is_some(),
                "nothing passes after change {change}"
            );
            if *links.borrow() == before {
                kept_by.push(change);
            }
        }
        let made = *links.borrow();
        // At least one change was fatal, and not every one was. A busy machine may cost links more.
        assert!(made >= 2 && !kept_by.is_empty(), "{made} links, kept by the changes {kept_by:?}");
    });
}
