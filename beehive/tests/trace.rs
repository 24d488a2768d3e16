//! What is followed stays so: over tell, ask, tasks, children and links; and what is not followed costs and says nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod authority;
#[allow(dead_code, reason = "its messages alone")]
mod wire;

use std::time::Duration;

use authority::Ca;
use beehive::link::quic::QuicAcceptor;
use beehive::link::quic_dialer::QuicDialer;
use beehive::link::{Acceptor as _, Connection, Dialer as _, Hello, IncomingLink, Link, PeerName, Routes};
use beehive::testing::Probe;
use beehive::trace::{self, FinishedSpan, TraceContext, TraceSettings};
use beehive::{Actor, Address, Capacity, Context, Env, Fault, Flow, Hive, Message, Policy, Reply};
use wire::{LONG, Talk};

/// What an actor found current, as it says it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Found {
    place: &'static str,
    own: Option<TraceContext>,
    second: Option<TraceContext>,
}

impl Message for Found {
    fn name(&self) -> &'static str {
        "Found"
    }
}

fn found(place: &'static str) -> Found {
    Found { place, own: trace::context(), second: trace::part(2) }
}

enum Order {
    Tell,
    Ask(Reply<Found>),
    Spawn,
    Later,
    Child,
    /// A message from another end.
    Heard,
}

impl Message for Order {
    fn name(&self) -> &'static str {
        "Order"
    }
}

struct Worker {
    says: Address<Found>,
}

impl Actor for Worker {
    type Message = Order;

    async fn handle(&mut self, order: Order, cx: &mut Context<Order>) -> Result<(), Fault> {
        match order {
            Order::Tell => {
                let _ = self.says.try_tell(found("told"));
            }
            Order::Ask(reply) => reply.send(found("asked")),
            Order::Spawn => {
                let (env, says) = (cx.env().clone(), self.says.clone());
                cx.spawn(async move {
                    env.sleep(Duration::from_millis(1)).await;
                    let _ = says.try_tell(found("in a task"));
                });
            }
            Order::Later => {
                cx.after(Duration::from_millis(1), Order::Tell);
            }
            Order::Child => {
                let says = self.says.clone();
                let child = cx.child("child", Policy::default(), move || Worker { says: says.clone() });
                let _ = child.try_tell(Order::Tell);
            }
            Order::Heard => {
                let _ = self.says.try_tell(found("heard"));
            }
        }
        Ok(())
    }
}

fn settings(rate_per_million: u32) -> TraceSettings {
    TraceSettings { rate_per_million, send: "send", receive: "receive" }
}

fn run(test: impl AsyncFnOnce(Env)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async { test(Env::seeded(1)).await });
}

fn worker(env: &Env) -> (Hive, Address<Order>, Probe<Found>) {
    let mut hive = Hive::new("test", env.clone());
    let (probe, says) = Probe::new(env, 64);
    let mailbox = hive.mailbox::<Order>("worker", Capacity::new(8, "test"));
    let address = hive.grant("tester", &mailbox, Flow::Ask);
    hive.supervise(mailbox, Policy::default(), move || Worker { says: says.clone() });
    hive.open().unwrap();
    (hive, address, probe)
}

#[test]
fn what_is_followed_stays_so_over_tell_ask_tasks_and_children_and_not_over_timers() {
    run(async |env| {
        let env = env.tracing(settings(1_000_000));
        let (_hive, worker, mut probe) = worker(&env);
        let root = env.traces().root("begin");
        let own = root.context();
        assert!(own.is_some());
        let told = async |order| {
            trace::with_context(own, worker.tell(order)).await.unwrap();
        };
        told(Order::Tell).await;
        assert_eq!(probe.next(LONG).await.unwrap(), Found { place: "told", own, second: None });
        let asked = trace::with_context(own, worker.ask(LONG, Order::Ask)).await.unwrap();
        assert_eq!(asked, Found { place: "asked", own, second: None });
        told(Order::Spawn).await;
        assert_eq!(probe.next(LONG).await.unwrap().own, own);
        told(Order::Child).await;
        assert_eq!(probe.next(LONG).await.unwrap().own, own);
        // What goes on by itself is another matter.
        told(Order::Later).await;
        assert_eq!(probe.next(LONG).await.unwrap().own, None);
        // And nothing of it stays behind.
        worker.tell(Order::Tell).await.unwrap();
        assert_eq!(probe.next(LONG).await.unwrap().own, None);
        trace::with_parts([(2, own.unwrap())], worker.tell(Order::Tell)).await.unwrap();
        assert_eq!(probe.next(LONG).await.unwrap(), Found { place: "told", own: None, second: own });
    });
}

/// Both ends of a link of these environments. What `cloud` is told goes to an actor that says what it found.
async fn linked(
    (edge_env, cloud_env): (&Env, &Env),
    edge: Box<dyn Connection>,
    cloud: Box<dyn Connection>,
) -> (Link, Link, Hive, Probe<Found>) {
    let (hive, worker, probe) = worker(cloud_env);
    let open = Routes::new().accept(worker, |talk: Talk, _: &PeerName| match talk {
        Talk::Length(text, reply) => {
            reply.send(text.len());
            Order::Heard
        }
        Talk::Say(_) | Talk::Hurry => Order::Heard,
    });
    let greeting = Hello::of(cloud.peer().as_str());
    let greet = Link::connect(edge_env, edge, &greeting, Routes::new());
    let meet = async { IncomingLink::read_hello(cloud_env, cloud).await?.admit(open).await };
    let (edge, cloud) = futures::join!(greet, meet);
    (edge.unwrap(), cloud.unwrap(), hive, probe)
}

async fn over_quic(edge_env: &Env, cloud_env: &Env) -> (Link, Link, Hive, Probe<Found>) {
    let ca = Ca::new();
    let mut server = QuicAcceptor::bind("127.0.0.1:0".parse().unwrap(), &ca.issue("cloud")).unwrap();
    let dialer = QuicDialer::new("127.0.0.1", server.address().port(), &ca.issue("edge-1")).unwrap();
    let (edge, cloud) = futures::join!(dialer.dial(), server.accept());
    linked((edge_env, cloud_env), edge.unwrap(), cloud.unwrap()).await
}

/// The spans that have ended, as soon as there are so many.
async fn spans(env: &Env, count: usize) -> Vec<FinishedSpan> {
    let waited = env.timeout(LONG, async {
        while env.traces().waiting() < count {
            env.sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(waited.await.is_some(), "{} of {count} spans", env.traces().waiting());
    env.traces().take(usize::MAX)
}

#[test]
fn what_is_followed_crosses_a_link_of_quic_between_two_hives_with_what_is_in_the_message() {
    run(async |env| {
        let edge_env = env.clone().tracing(settings(1_000_000));
        // Follows what others have drawn, and draws nothing itself.
        let cloud_env = Env::seeded(2).tracing(settings(0));
        let (edge, _cloud, _hive, mut probe) = over_quic(&edge_env, &cloud_env).await;
        let talk = edge.remote::<Talk>();
        let (root, other) = (edge_env.traces().root("begin"), edge_env.traces().root("other"));
        let (own, part) = (root.context().unwrap(), other.context().unwrap());
        trace::with_context(Some(own), talk.tell(Talk::Say(vec![1]))).await.unwrap();
        let [sent] = <[_; 1]>::try_from(spans(&edge_env, 1).await).unwrap();
        let heard = probe.next(LONG).await.unwrap().own.unwrap();
        let [received] = <[_; 1]>::try_from(spans(&cloud_env, 1).await).unwrap();
        assert_eq!((sent.name, received.name), ("send", "receive"));
        assert_eq!((heard.trace_id, heard.span_id), (own.trace_id, received.context.span_id));
        assert_eq!(received.parent, Some(sent.context.span_id));
        assert_eq!(sent.parent, Some(own.span_id));
        assert!(received.attributes.contains(&("network.peer.name", "edge-1".to_owned())));

        // In the other lane, by an ask, and for a thing in the message.
        trace::with_context(Some(own), talk.tell(Talk::Hurry)).await.unwrap();
        assert_eq!(probe.next(LONG).await.unwrap().own.unwrap().trace_id, own.trace_id);
        let ask = talk.ask(LONG, |reply| Talk::Length(vec![0; 9], reply));
        assert_eq!(trace::with_parts([(2, part)], ask).await, Ok(9));
        let heard = probe.next(LONG).await.unwrap();
        assert_eq!((heard.own, heard.second.unwrap().trace_id), (None, part.trace_id));
        talk.tell(Talk::Say(vec![])).await.unwrap();
        assert_eq!(probe.next(LONG).await.unwrap(), Found { place: "heard", own: None, second: None });
    });
}

#[test]
fn an_end_that_follows_nothing_is_sent_nothing_and_takes_nothing() {
    run(async |env| {
        for (edge_rate, cloud_rate) in [(Some(1_000_000), None), (None, Some(1_000_000))] {
            let with = |env: Env, rate: Option<u32>| match rate {
                Some(rate) => env.tracing(settings(rate)),
                None => env,
            };
            let (edge_env, cloud_env) = (with(env.clone(), edge_rate), with(Env::seeded(2), cloud_rate));
            let (edge, cloud, _hive, mut probe) = over_quic(&edge_env, &cloud_env).await;
            assert_eq!(edge.capabilities().has("trace-context"), cloud_rate.is_some());
            assert_eq!(cloud.capabilities().has("trace-context"), edge_rate.is_some());
            let own = TraceContext { trace_id: [1; 16], span_id: [1; 8], is_sampled: true };
            let talk = edge.remote::<Talk>();
            trace::with_context(Some(own), talk.tell(Talk::Say(vec![1]))).await.unwrap();
            assert_eq!(probe.next(LONG).await.unwrap().own, None);
            assert_eq!(edge_env.traces().waiting() + cloud_env.traces().waiting(), 0);
        }
    });
}

#[test]
fn contexts_count_as_what_they_are_of_the_lanes_credits() {
    run(async |env| {
        let (edge_env, cloud_env) = (env.tracing(settings(1_000_000)), Env::seeded(2).tracing(settings(0)));
        let (edge, _cloud, _hive, mut probe) = over_quic(&edge_env, &cloud_env).await;
        let talk = edge.remote::<Talk>();
        let own = TraceContext { trace_id: [1; 16], span_id: [1; 8], is_sampled: true };
        let parts = || (0..64).map(|place| (place, own));
        // A body that leaves no room beside it in a lane goes without contexts.
        for (size, is_followed) in
            [((1 << 20) - 1, false), ((1 << 20) - 100, false), ((1 << 20) - 2000, true)]
        {
            let tell = trace::with_parts(parts(), talk.tell(Talk::Say(vec![7; size])));
            let (told, heard) = futures::join!(tell, probe.next(LONG));
            told.unwrap();
            assert_eq!(heard.unwrap().second.is_some(), is_followed, "{size}");
        }
    });
}

#[test]
fn without_settings_nothing_is_followed() {
    run(async |env| {
        let (_hive, worker, mut probe) = worker(&env);
        assert!(!env.traces().is_on());
        let root = env.traces().root("begin");
        trace::with_context(root.context(), worker.tell(Order::Tell)).await.unwrap();
        assert_eq!(probe.next(LONG).await.unwrap().own, None);
    });
}
