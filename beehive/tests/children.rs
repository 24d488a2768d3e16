//! The rules of children, each with a test that can fail.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use beehive::testing::Probe;
use beehive::{
    Actor, Address, AskError, Capacity, ChildStop, Context, Ended, Env, Fault, Flow, Hive, Message, Policy,
    Refusal, Reply, Sample,
};

const SOON: Duration = Duration::from_secs(5);
const LONG: Duration = Duration::from_secs(3600);

enum Order {
    Hire(&'static str),
    Pass(&'static str, Work),
    Ask(&'static str, Reply<Result<u64, AskError>>),
    Dismiss(&'static str, Reply<ChildStop>),
    Crash,
    Heard(u64),
}

impl Message for Order {
    fn name(&self) -> &'static str {
        match self {
            Order::Hire(_) => "Hire",
            Order::Pass(..) => "Pass",
            Order::Ask(..) => "Ask",
            Order::Dismiss(..) => "Dismiss",
            Order::Crash => "Crash",
            Order::Heard(_) => "Heard",
        }
    }
}

#[derive(Clone, Copy)]
enum Do {
    Add(u64),
    Crash,
    End,
    Hang,
}

enum Work {
    Do(Do),
    Total(Reply<u64>),
}

impl Message for Work {
    fn name(&self) -> &'static str {
        match self {
            Work::Do(_) => "Do",
            Work::Total(_) => "Total",
        }
    }
}

struct Seen(String);
impl Message for Seen {
    fn name(&self) -> &'static str {
        "Seen"
    }
}

struct Manager {
    workers: std::collections::BTreeMap<&'static str, Address<Work>>,
    seen: Address<Seen>,
    policy: Policy,
}

impl Actor for Manager {
    type Message = Order;
    async fn handle(&mut self, order: Order, cx: &mut Context<Order>) -> Result<(), Fault> {
        match order {
            Order::Hire(name) => {
                let (parent, seen) = (cx.for_children(), self.seen.clone());
                let made = move || Worker { name, total: 0, parent: parent.clone(), seen: seen.clone() };
                self.workers.insert(name, cx.child(("worker", name), self.policy, made));
            }
            Order::Pass(name, work) => {
                let _ = self.workers[name].tell(work).await;
            }
            Order::Ask(name, reply) => reply.send(self.workers[name].ask(SOON, Work::Total).await),
            Order::Dismiss(name, reply) => {
                let stopped = cx.stop_child(("worker", name), SOON);
                cx.spawn(async move { reply.send(stopped.await) });
            }
            Order::Crash => panic!("on purpose"),
            Order::Heard(n) => {
                let _ = self.seen.try_tell(Seen(format!("heard {n}")));
            }
        }
        Ok(())
    }
    async fn stopping(&mut self, _: &mut Context<Order>) {
        let _ = self.seen.try_tell(Seen("the manager stops".into()));
    }
}

struct Worker {
    name: &'static str,
    total: u64,
    parent: Address<Order>,
    seen: Address<Seen>,
}

impl Actor for Worker {
    type Message = Work;
    async fn started(&mut self, _: &mut Context<Work>) -> Result<(), Fault> {
        let _ = self.seen.try_tell(Seen(format!("{} starts", self.name)));
        Ok(())
    }
    async fn handle(&mut self, work: Work, cx: &mut Context<Work>) -> Result<(), Fault> {
        match work {
            Work::Do(Do::Add(n)) => {
                self.total += n;
                cx.env().count("added");
                cx.env().measure("last_added", n as f64);
                assert_eq!(self.parent.tell(Order::Heard(n)).await, Err(Refusal::Undeclared));
                let _ = self.parent.try_tell(Order::Heard(n));
            }
            Work::Do(Do::Crash) => panic!("on purpose"),
            Work::Do(Do::End) => cx.stop(),
            Work::Do(Do::Hang) => cx.env().sleep(LONG).await,
            Work::Total(reply) => reply.send(self.total),
        }
        Ok(())
    }
    async fn stopping(&mut self, _: &mut Context<Work>) {
        let _ = self.seen.try_tell(Seen(format!("{} stops", self.name)));
    }
    fn samples(&self) -> Vec<Sample> {
        vec![Sample::new("worker_total", self.total as f64).of("worker", self.name)]
    }
}

fn run<F: Future>(test: impl FnOnce(Stage) -> F, policy: Policy) -> F::Output {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let env = Env::seeded(7);
        let mut hive = Hive::new("test", env.clone());
        let (seen, told) = Probe::new(&env, 64);
        let mailbox = hive.mailbox::<Order>("manager", Capacity::new(8, "test"));
        let manager = hive.grant("tester", &mailbox, Flow::Ask);
        hive.supervise(mailbox, Policy::default(), move || Manager {
            workers: Default::default(),
            seen: told.clone(),
            policy,
        });
        hive.open().unwrap();
        test(Stage { hive, manager, seen }).await
    })
}

struct Stage {
    hive: Hive,
    manager: Address<Order>,
    seen: Probe<Seen>,
}

impl Stage {
    async fn order(&self, order: Order) {
        self.manager.tell(order).await.unwrap();
    }
    async fn pass(&self, name: &'static str, work: Do) {
        self.order(Order::Pass(name, Work::Do(work))).await;
    }
    async fn total(&self, name: &'static str) -> Result<u64, AskError> {
        self.manager.ask(SOON, |reply| Order::Ask(name, reply)).await.unwrap()
    }
    async fn saw(&mut self, what: &str) {
        assert_eq!(self.seen.next(SOON).await.expect(what).0, what);
    }
    /// These, in any order.
    async fn saw_all<const N: usize>(&mut self, whats: [&str; N]) {
        let mut seen = Vec::new();
        for what in whats {
            seen.push(self.seen.next(SOON).await.expect(what).0);
        }
        seen.sort();
        let mut wanted = whats;
        wanted.sort();
        assert_eq!(seen, wanted);
    }
    async fn names(&self) -> Vec<String> {
        let report = self.hive.inspector().report(SOON).await;
        report.actors.into_iter().map(|actor| actor.name).collect()
    }
}

#[test]
fn a_child_is_an_actor_of_the_hive() {
    run(
        |mut stage| async move {
            stage.order(Order::Hire("a/x")).await;
            stage.pass("a/x", Do::Add(3)).await;
            assert_eq!(stage.total("a/x").await, Ok(3));
            stage.saw("a/x starts").await;
            stage.saw("heard 3").await;
            let report = stage.hive.inspector().report(SOON).await;
            let worker = report.actor("manager/worker:a/x").unwrap();
            assert_eq!((worker.kind, worker.instance.as_deref()), ("worker", Some("a/x")));
            assert_eq!(worker.parent.as_deref(), Some("manager"));
            assert_eq!((worker.handled, worker.capacity), (2, 5));
            assert_eq!(report.counter("added"), 1);
            assert_eq!(report.gauge("last_added"), Some(3.0));
            assert!(report.gauges.contains(&Sample::new("worker_total", 3.0).of("worker", "a/x")));
            assert!(stage.hive.topology().text().contains("manager is the parent of worker"));
        },
        Policy { capacity: Capacity::new(5, "test"), ..Policy::default() },
    );
}

#[test]
fn a_child_that_crashes_is_restarted_alone() {
    run(
        |stage| async move {
            stage.order(Order::Hire("one")).await;
            stage.order(Order::Hire("two")).await;
            stage.pass("one", Do::Add(1)).await;
            stage.pass("two", Do::Add(2)).await;
            stage.pass("one", Do::Crash).await;
            stage.pass("one", Do::Add(10)).await;
            assert_eq!(stage.total("one").await, Ok(10), "its queue survived");
            assert_eq!(stage.total("two").await, Ok(2));
            let report = stage.hive.inspector().report(SOON).await;
            let restarts: Vec<_> = report.actors.iter().map(|actor| (&*actor.name, actor.restarts)).collect();
            assert_eq!(restarts, [("manager", 0), ("manager/worker:one", 1), ("manager/worker:two", 0)]);
        },
        Policy::default(),
    );
}

#[test]
fn a_child_past_its_budget_is_a_fault_of_its_parent_and_all_children_end() {
    run(
        |mut stage| async move {
            stage.order(Order::Hire("one")).await;
            stage.order(Order::Hire("two")).await;
            stage.saw("one starts").await;
            stage.saw("two starts").await;
            stage.pass("one", Do::Crash).await;
            stage.pass("one", Do::Crash).await;
            stage.saw("one starts").await;
            stage.hive.env().sleep(SOON).await;
            let report = stage.hive.inspector().report(SOON).await;
            assert_eq!(report.actors.len(), 1, "children end with the incarnation: {report:?}");
            assert_eq!(report.actors[0].restarts, 1);
            let fault = report.actors[0].last_fault.as_deref().unwrap();
            assert!(fault.contains("manager/worker:one") && fault.contains("2 times"), "{fault}");
            stage.order(Order::Hire("one")).await;
            stage.saw("one starts").await;
        },
        Policy { budget: 1, ..Policy::default() },
    );
}

#[test]
fn a_parent_that_crashes_takes_its_children_along() {
    run(
        |mut stage| async move {
            stage.order(Order::Hire("one")).await;
            stage.pass("one", Do::Add(1)).await;
            assert_eq!(stage.total("one").await, Ok(1));
            stage.order(Order::Crash).await;
            stage.order(Order::Hire("one")).await;
            assert_eq!(stage.total("one").await, Ok(0), "a new child");
            stage.saw("one starts").await;
            stage.saw("heard 1").await;
            stage.saw("one starts").await;
            assert_eq!(stage.names().await, ["manager", "manager/worker:one"]);
        },
        Policy::default(),
    );
}

#[test]
fn a_child_is_stopped_in_order_and_its_name_is_free() {
    run(
        |mut stage| async move {
            stage.order(Order::Hire("one")).await;
            stage.pass("one", Do::Add(1)).await;
            let stopped = stage.manager.ask(SOON, |reply| Order::Dismiss("one", reply)).await;
            assert_eq!(stopped, Ok(ChildStop::InOrder));
            stage.saw("one starts").await;
            stage.saw_all(["heard 1", "one stops"]).await;
            assert_eq!(stage.names().await, ["manager"]);
            let again = stage.manager.ask(SOON, |reply| Order::Dismiss("one", reply)).await;
            assert_eq!(again, Ok(ChildStop::Unknown));
            stage.order(Order::Hire("one")).await;
            assert_eq!(stage.total("one").await, Ok(0));
        },
        Policy::default(),
    );
}

#[test]
fn a_late_child_is_ended_and_its_successor_waits_for_that() {
    run(
        |mut stage| async move {
            stage.order(Order::Hire("one")).await;
            stage.saw("one starts").await;
            stage.pass("one", Do::Hang).await;
            let manager = stage.manager.clone();
            let stop = manager.ask(LONG, |reply| Order::Dismiss("one", reply));
            let next = async {
                stage.order(Order::Hire("one")).await;
                stage.pass("one", Do::Add(4)).await;
                assert!(stage.seen.next(SOON / 2).await.is_none(), "the other has not ended");
                stage.saw("one starts").await;
                stage.saw("heard 4").await;
            };
            let (stopped, ()) = futures::future::join(stop, next).await;
            assert_eq!(stopped, Ok(ChildStop::Late));
            assert_eq!(stage.names().await, ["manager", "manager/worker:one"]);
        },
        Policy::default(),
    );
}

#[test]
fn a_child_ends_itself() {
    run(
        |mut stage| async move {
            stage.order(Order::Hire("one")).await;
            stage.pass("one", Do::End).await;
            stage.saw("one starts").await;
            stage.saw("one stops").await;
            stage.hive.env().sleep(SOON).await;
            assert_eq!(stage.names().await, ["manager"]);
            assert_eq!(stage.hive.shutdown(SOON).await, Ended::InOrder);
        },
        Policy::default(),
    );
}

#[test]
fn a_second_child_of_one_name_is_a_fault_of_the_parent() {
    run(
        |mut stage| async move {
            stage.order(Order::Hire("one")).await;
            stage.saw("one starts").await;
            stage.order(Order::Hire("one")).await;
            stage.hive.env().sleep(SOON).await;
            let report = stage.hive.inspector().report(SOON).await;
            assert_eq!(report.actors.len(), 1);
            assert!(report.actors[0].last_fault.as_deref().unwrap().contains("second child"), "{report:?}");
        },
        Policy::default(),
    );
}

#[test]
fn shutdown_stops_children_before_their_parent() {
    run(
        |mut stage| async move {
            stage.order(Order::Hire("one")).await;
            stage.pass("one", Do::Add(5)).await;
            stage.saw("one starts").await;
            let Stage { hive, manager, seen } = stage;
            assert_eq!(hive.shutdown(SOON).await, Ended::InOrder);
            let mut stage = Stage { hive: Hive::new("test", Env::seeded(1)), manager, seen };
            stage.saw_all(["one stops", "heard 5"]).await;
            stage.saw("the manager stops").await;
        },
        Policy::default(),
    );
}
