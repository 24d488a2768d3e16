//! What MQTT clients of a node publish for the cloud arrives there: each one, in order per source, repeats marked,
//! whatever becomes of the link and of the node in the meantime.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use beehive::link::memory::Direction;
use contract::router::{RouterMsg, RouterUp};
use contract::wire::ROUTER_MAILBOX;
use edge_store::Class;
use harness::{Cluster, LONG, Node, Recorded, run};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Client, topic, and how many messages: 500.
const SOURCES: [(&str, &str, u16); 3] = [
    ("press", "$hw/events/upload/press", 167),
    ("oven", "SYS/dis/upload_records", 167),
    ("gate", "gate/user/opened", 166),
];
/// 10 are on the way of one client at once.
const WINDOW: u16 = 10;

/// What the clients share: where the broker is while there is one, and how far they may go.
#[derive(Default)]
struct SharedState {
    broker: Cell<Option<SocketAddr>>,
    limit: Cell<u16>,
    acknowledged: RefCell<BTreeMap<&'static str, u16>>,
}

impl SharedState {
    fn go_on(&self, limit: u16) {
        self.limit.set(limit);
    }

    /// Whether all have been acknowledged what they may send.
    fn is_reached(&self) -> bool {
        let acknowledged = self.acknowledged.borrow();
        SOURCES.iter().all(|(client, _, count)| {
            acknowledged.get(client).copied().unwrap_or_default() == self.limit.get().min(*count)
        })
    }
}

/// A client as the specification wants it: what was not acknowledged is sent again after a break, with DUP.
struct Client {
    shared: Rc<SharedState>,
    name: &'static str,
    topic: &'static str,
    count: u16,
    /// The first number that was never sent.
    fresh: u16,
    acknowledged: u16,
}

impl Client {
    async fn publish_all(mut self) {
        while self.acknowledged < self.count {
            if let Some(broker) = self.shared.broker.get()
                && let Ok(socket) = TcpStream::connect(broker).await
            {
                let _ = self.talk(socket).await;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn talk(&mut self, mut socket: TcpStream) -> std::io::Result<()> {
        let connect = [b"\x00\x04MQTT\x04\x02\x00\x00".as_slice(), &text(self.name)].concat();
        socket.write_all(&packet(0x10, &connect)).await?;
        socket.read_exact(&mut [0; 4]).await?;
        let mut next = self.acknowledged;
        while self.acknowledged < self.count {
            let limit = self.shared.limit.get().min(self.count).min(self.acknowledged + WINDOW);
            while next < limit {
                let dup = if next < self.fresh { 0x08 } else { 0 };
                let body =
                    [text(self.topic), (next + 1).to_be_bytes().to_vec(), next.to_string().into_bytes()]
                        .concat();
                self.fresh = self.fresh.max(next + 1);
                socket.write_all(&packet(0x32 | dup, &body)).await?;
                next += 1;
            }
            if next == self.acknowledged {
                tokio::time::sleep(Duration::from_millis(5)).await;
                continue;
            }
            let mut puback = [0; 4];
            socket.read_exact(&mut puback).await?;
            assert_eq!(puback[..2], *b"\x40\x02");
            self.acknowledged += 1;
            assert_eq!(u16::from_be_bytes([puback[2], puback[3]]), self.acknowledged, "{}", self.name);
            self.shared.acknowledged.borrow_mut().insert(self.name, self.acknowledged);
        }
        Ok(())
    }
}

fn text(text: &str) -> Vec<u8> {
    [u16::try_from(text.len()).unwrap().to_be_bytes().as_slice(), text.as_bytes()].concat()
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    [&[first, u8::try_from(body.len()).unwrap()], body].concat()
}

async fn listening(cluster: &Cluster, node: &Node) -> SocketAddr {
    let found = RefCell::new(None);
    cluster
        .until_async("the broker listens", async || {
            let view = node.snapshot("edge-eventbus").await;
            *found.borrow_mut() = view["listening"].as_str().map(|address| address.parse().unwrap());
            found.borrow().is_some()
        })
        .await;
    found.into_inner().unwrap()
}

#[derive(Debug)]
struct Arrived {
    source: (String, String),
    number: u16,
    marked: bool,
}

/// What the router is handed, and the end of the way back when it is asked for.
fn arrivals(cluster: &Cluster, node: &Node, lose_an_answer: &Arc<AtomicBool>) -> Recorded<Vec<Arrived>> {
    let (network_path, lose) = (node.network_path().clone(), Arc::clone(lose_an_answer));
    cluster.probe(ROUTER_MAILBOX, move |message: &RouterMsg| {
        let RouterMsg::Up { node, message: RouterUp::Telemetry { uploads, .. } } = message else {
            return None;
        };
        assert_eq!(node.as_str(), "edge-1");
        if lose.swap(false, Ordering::SeqCst) {
            network_path.cut_direction(Direction::ToDialler);
        }
        let arrived = |upload: &contract::Upload| {
            let telemetry = &upload.telemetry;
            Arrived {
                source: (telemetry.client.clone(), telemetry.topic.clone()),
                number: std::str::from_utf8(&telemetry.payload).unwrap().parse().unwrap(),
                marked: upload.repeat || telemetry.dup,
            }
        };
        Some(uploads.clone().open().unwrap().items.iter().map(arrived).collect())
    })
}

async fn restart(cluster: &Cluster, node: &mut Node, shared: &SharedState) {
    shared.broker.set(None);
    node.stop().await;
    node.start().await;
    shared.broker.set(Some(listening(cluster, node).await));
}

async fn until_linked(cluster: &Cluster, node: &Node, linked: bool) {
    let what = if linked { "the link is up" } else { "the link is down" };
    cluster.until_async(what, async || node.snapshot("edge-hub").await["up"] == linked).await;
}

#[test]
fn every_message_arrives_in_order_per_source_and_repeats_are_marked() {
    run(async || {
        let mut cluster = Cluster::spawn().await;
        let mut node = cluster.node("edge-1").await;
        let lose_an_answer = Arc::new(AtomicBool::new(false));
        let arrived = arrivals(&cluster, &node, &lose_an_answer);
        until_linked(&cluster, &node, true).await;
        let shared = Rc::new(SharedState::default());
        shared.broker.set(Some(listening(&cluster, &node).await));
        let clients = SOURCES.map(|(name, topic, count)| {
            let shared = Rc::clone(&shared);
            actix_rt::spawn(Client { shared, name, topic, count, fresh: 0, acknowledged: 0 }.publish_all())
        });

        shared.go_on(20);
        cluster.until("the first are acknowledged", || shared.is_reached()).await;
        // The router has it, and its answer does not come back.
        lose_an_answer.store(true, Ordering::SeqCst);
        shared.go_on(50);
        cluster.until("the network path is cut", || !lose_an_answer.load(Ordering::SeqCst)).await;
        cluster.until("they are acknowledged without the cloud", || shared.is_reached()).await;
        until_linked(&cluster, &node, false).await;
        node.network_path().cut();
        // The node ends in the middle of their sending, and comes back without a link.
        shared.go_on(100);
        restart(&cluster, &mut node, &shared).await;
        cluster.until("they go on behind the cut", || shared.is_reached()).await;
        assert!(node.core().store().snapshot().outbox_rows >= 150);
        node.network_path().mend();
        // Once more, while it empties its outbox.
        shared.go_on(130);
        let so_far = arrived.len();
        cluster.until("the rest begins to arrive", || arrived.len() > so_far).await;
        restart(&cluster, &mut node, &shared).await;
        shared.go_on(u16::MAX);
        cluster.until("all is acknowledged", || shared.is_reached()).await;
        cluster
            .until("the outbox is empty", || {
                let rows = node.core().store().outbox_head(usize::MAX, usize::MAX).unwrap();
                rows.iter().all(|row| row.class != Class::Telemetry)
            })
            .await;
        for client in clients {
            tokio::time::timeout(LONG, client).await.unwrap().unwrap();
        }

        let (mut next, mut repeats) = (BTreeMap::<(String, String), u16>::new(), 0);
        for message in arrived.take().into_iter().flatten() {
            let next = next.entry(message.source.clone()).or_default();
            assert!(message.number <= *next, "{message:?} came before {next}");
            if message.number == *next {
                *next += 1;
            } else {
                repeats += 1;
                assert!(message.marked, "{message:?} came again without a mark");
            }
        }
        let wanted = SOURCES.map(|(client, topic, count)| ((client.to_owned(), topic.to_owned()), count));
        assert_eq!(next, BTreeMap::from(wanted));
        assert!(repeats > 0, "nothing came again, so nothing was tried");

        // What a person sees.
        let report = cluster.state().await;
        let router = report.actors.into_iter().find(|actor| actor.name == ROUTER_MAILBOX).unwrap().snapshot;
        assert_eq!((&router["missing"], &router["refused"]), (&0.into(), &0.into()), "{router}");
        assert!(router["received"].as_u64().unwrap() >= 500, "{router}");
        let sources = router["nodes"]["edge-1"]["sources"].as_array().unwrap();
        let clients: BTreeSet<&str> =
            sources.iter().map(|source| source["client"].as_str().unwrap()).collect();
        assert_eq!(clients, SOURCES.map(|(client, ..)| client).into());
        assert!(sources.iter().all(|source| source["unmarkedRepeats"] == 0), "{router}");
    });
}
