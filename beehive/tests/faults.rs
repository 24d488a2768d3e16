//! What goes wrong in an actor, and what the hive makes of it: each with a test that can fail.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::cell::RefCell;
use std::future::Future;
use std::rc::Rc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use beehive::testing::{PanicPoint, plan_panic};
use beehive::{
    Actor, Address, AskError, Capacity, Context, Ended, Env, Fault, Flow, Hive, Message, Policy, Refusal,
    Reply, WiringError,
};

const SOON: Duration = Duration::from_secs(5);
const LONG: Duration = Duration::from_secs(3600);

enum Job {
    /// Notes the number, after a pause if there is one.
    Note(u64, Duration),
    Count(Reply<u64>),
    SpawnAndPanic,
    Spawn(u32, Reply<Duration>),
    Block(Duration),
    /// Tells itself that, waiting for room.
    TellMyself(Reply<Result<(), Refusal>>),
    /// Has a task tell it that, waiting for room.
    HaveTold(Reply<Result<(), Refusal>>),
    Crash,
}

impl Message for Job {
    fn name(&self) -> &'static str {
        match self {
            Job::Note(..) => "Note",
            Job::Count(_) => "Count",
            Job::SpawnAndPanic => "SpawnAndPanic",
            Job::Spawn(..) => "Spawn",
            Job::Block(_) => "Block",
            Job::TellMyself(_) => "TellMyself",
            Job::HaveTold(_) => "HaveTold",
            Job::Crash => "Crash",
        }
    }
}

type Log = Rc<RefCell<Vec<String>>>;

struct Noter {
    name: &'static str,
    noted: u64,
    log: Log,
}

impl Noter {
    fn log(&self, what: &str) {
        self.log.borrow_mut().push(format!("{} {what}", self.name));
    }
}

impl Actor for Noter {
    type Message = Job;
    async fn handle(&mut self, job: Job, cx: &mut Context<Job>) -> Result<(), Fault> {
        match job {
            Job::Note(number, pause) => {
                cx.env().sleep(pause).await;
                self.noted += 1;
                self.log(&number.to_string());
            }
            Job::Count(reply) => reply.send(self.noted),
            Job::SpawnAndPanic => {
                cx.spawn(async { panic!("in a task") });
            }
            Job::Spawn(tasks, reply) => {
                let begun = Instant::now();
                for _ in 0..tasks {
                    cx.spawn(std::future::pending());
                }
                reply.send(begun.elapsed());
            }
            Job::Block(span) => std::thread::sleep(span),
            Job::TellMyself(reply) => reply.send(cx.myself().tell(Job::Note(1, Duration::ZERO)).await),
            Job::HaveTold(reply) => {
                let myself = cx.myself();
                cx.spawn(async move { reply.send(myself.tell(Job::Note(1, Duration::ZERO)).await) });
            }
            Job::Crash => panic!("on purpose"),
        }
        Ok(())
    }
    async fn stopping(&mut self, _: &mut Context<Job>) {
        self.log("stops");
    }
}

struct Stage {
    env: Env,
    hive: Hive,
    log: Log,
}

impl Stage {
    fn new(env: Env) -> Stage {
        Stage { hive: Hive::new("test", env.clone()), env, log: Log::default() }
    }

    fn noter(&mut self, name: &'static str, policy: Policy) -> Address<Job> {
        let mailbox = self.hive.mailbox::<Job>(name, Capacity::new(64, "test"));
        let address = self.hive.grant("tester", &mailbox, Flow::Ask);
        let log = Rc::clone(&self.log);
        self.hive.supervise(mailbox, policy, move || Noter { name, noted: 0, log: Rc::clone(&log) });
        address
    }

    fn logged(&self) -> Vec<String> {
        std::mem::take(&mut *self.log.borrow_mut())
    }

    async fn last_fault(&self, actor: &str) -> (u64, String) {
        let report = self.hive.inspector().report(SOON).await;
        let actor = report.actor(actor).unwrap();
        (actor.restarts, actor.last_fault.clone().unwrap_or_default())
    }
}

/// On a virtual clock.
fn run<F: Future>(test: impl FnOnce(Stage) -> F) -> F::Output {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async { test(Stage::new(Env::seeded(7))).await })
}

/// As in a daemon.
fn run_for_real<F: Future>(test: impl FnOnce(Stage) -> F) -> F::Output {
    actix_rt::System::new().block_on(async { test(Stage::new(Env::real())).await })
}

#[test]
fn a_panic_in_a_spawned_task_is_a_fault_of_the_incarnation() {
    run(|mut stage| async move {
        let noter = stage.noter("noter", Policy::default());
        stage.hive.open().unwrap();
        noter.tell(Job::Note(1, Duration::ZERO)).await.unwrap();
        noter.tell(Job::SpawnAndPanic).await.unwrap();
        stage.env.sleep(SOON).await;
        assert_eq!(noter.ask(SOON, Job::Count).await, Ok(0), "a new incarnation");
        let (restarts, fault) = stage.last_fault("noter").await;
        assert_eq!((restarts, &*fault), (1, "a task of the actor panicked: in a task"));
    });
}

#[test]
fn spawning_costs_the_same_whatever_runs_already() {
    run(|mut stage| async move {
        let noter = stage.noter("noter", Policy::default());
        stage.hive.open().unwrap();
        let spawn = |tasks| noter.ask(LONG, move |reply| Job::Spawn(tasks, reply));
        let mut first = Duration::MAX;
        for _ in 0..5 {
            first = first.min(spawn(1000).await.unwrap());
        }
        spawn(100_000).await.unwrap();
        let mut later = Duration::MAX;
        for _ in 0..5 {
            later = later.min(spawn(1000).await.unwrap());
        }
        // A list that is walked would take some fifty times as long.
        assert!(later < first * 10, "{first:?} at first, {later:?} beside 100,000 others");
    });
}

#[test]
fn a_planned_panic_comes_at_its_message_and_its_await() {
    run(|mut stage| async move {
        let noter = stage.noter("noter", Policy::default());
        let point = PanicPoint { message: Some("Note"), nth: 2, awaits: 1 };
        let planned = plan_panic(&stage.hive.inspector(), "noter", point);
        stage.hive.open().unwrap();
        noter.tell(Job::Note(1, SOON)).await.unwrap();
        noter.tell(Job::Note(2, SOON)).await.unwrap();
        noter.tell(Job::Note(3, SOON)).await.unwrap();
        assert_eq!(noter.ask(LONG, Job::Count).await, Ok(1), "the queue survived");
        assert_eq!(stage.logged(), ["noter 1", "noter 3"]);
        assert!(planned.has_happened());
        assert_eq!(stage.last_fault("noter").await, (1, "panicked: a test planned it".to_owned()));
    });
}

#[test]
fn the_asker_of_a_lost_message_is_told_and_queued_askers_wait() {
    run(|mut stage| async move {
        let noter = stage.noter("noter", Policy::default());
        let point = PanicPoint { message: None, nth: 1, awaits: 0 };
        plan_panic(&stage.hive.inspector(), "noter", point);
        stage.hive.open().unwrap();
        let (lost, queued) =
            futures::future::join(noter.ask(LONG, Job::Count), noter.ask(LONG, Job::Count)).await;
        assert_eq!((lost, queued), (Err(AskError::Crashed), Ok(0)));
    });
}

#[test]
fn a_fault_while_draining_ends_that_actor_and_the_rest_stops_in_order() {
    run(|mut stage| async move {
        let first = stage.noter("first", Policy::default());
        let second = stage.noter("second", Policy::default());
        stage.hive.open().unwrap();
        first.tell(Job::Note(1, SOON)).await.unwrap();
        second.tell(Job::Note(2, SOON)).await.unwrap();
        second.tell(Job::Crash).await.unwrap();
        first.tell(Job::Note(3, Duration::ZERO)).await.unwrap();
        let log = Rc::clone(&stage.log);
        assert_eq!(stage.hive.shutdown(Duration::from_secs(60)).await, Ended::InOrder);
        // Both had begun before the stop; the first is stopped when the second has ended.
        let mut before_the_stop = log.borrow_mut();
        assert_eq!(before_the_stop.pop().as_deref(), Some("first stops"));
        before_the_stop.sort();
        assert_eq!(*before_the_stop, ["first 1", "first 3", "second 2"]);
        assert_eq!(second.try_tell(Job::Crash), Err(Refusal::Closed));
    });
}

#[test]
fn each_actor_has_its_share_of_the_deadline_and_one_that_uses_it_up_is_named() {
    run(|mut stage| async move {
        let _first = stage.noter("first", Policy::default());
        let stuck = stage.noter("stuck", Policy::default());
        let slow = stage.noter("slow", Policy::default());
        stage.hive.open().unwrap();
        // The last stops first: 3 of 10 s; 3.5 of 7 s are the share of the next; the rest is the first's.
        slow.tell(Job::Note(1, Duration::from_secs(3))).await.unwrap();
        stuck.tell(Job::Note(2, LONG)).await.unwrap();
        tokio::task::yield_now().await;
        let (env, log) = (stage.env.clone(), Rc::clone(&stage.log));
        let begun = env.now();
        let ended = stage.hive.shutdown(Duration::from_secs(10)).await;
        assert_eq!(ended, Ended::Late(vec!["stuck".to_owned()]));
        assert_eq!(*log.borrow(), ["slow 1", "slow stops", "first stops"]);
        let took = env.now().since(begun).as_millis();
        assert!((6500..6600).contains(&took), "{took} ms");
    });
}

#[test]
fn a_stop_does_not_wait_for_the_pause_before_a_restart() {
    run(|mut stage| async move {
        let policy = Policy { backoff_min: LONG, backoff_max: LONG, ..Policy::default() };
        let noter = stage.noter("noter", policy);
        stage.hive.open().unwrap();
        noter.tell(Job::Crash).await.unwrap();
        noter.tell(Job::Note(1, Duration::ZERO)).await.unwrap();
        stage.env.sleep(SOON).await;
        let log = Rc::clone(&stage.log);
        assert_eq!(stage.hive.shutdown(SOON).await, Ended::InOrder);
        assert_eq!(*log.borrow(), ["noter 1", "noter stops"]);
    });
}

#[test]
fn an_actor_does_not_wait_for_itself_and_its_tasks_may() {
    run(|mut stage| async move {
        let noter = stage.noter("noter", Policy::default());
        stage.hive.open().unwrap();
        assert_eq!(noter.ask(SOON, Job::TellMyself).await, Ok(Err(Refusal::Undeclared)));
        assert_eq!(noter.ask(SOON, Job::HaveTold).await, Ok(Ok(())));
        assert_eq!(noter.ask(SOON, Job::Count).await, Ok(1));
    });
}

#[test]
fn a_hive_whose_actors_wait_in_a_circle_does_not_open() {
    run(|mut stage| async move {
        let one = stage.hive.mailbox::<Job>("one", Capacity::new(1, "test"));
        let two = stage.hive.mailbox::<Job>("two", Capacity::new(1, "test"));
        stage.hive.grant("one", &two, Flow::Tell);
        stage.hive.grant("two", &one, Flow::Ask);
        let log = Rc::clone(&stage.log);
        stage.hive.supervise(one, Policy::default(), move || Noter {
            name: "",
            noted: 0,
            log: Rc::clone(&log),
        });
        let log = Rc::clone(&stage.log);
        stage.hive.supervise(two, Policy::default(), move || Noter {
            name: "",
            noted: 0,
            log: Rc::clone(&log),
        });
        let circle = ["one", "two", "one"].map(str::to_owned).to_vec();
        assert_eq!(stage.hive.open(), Err(WiringError::Circle(circle)));
    });
}

#[test]
fn the_watchdogs_thread_has_a_stuck_actor_replaced() {
    run_for_real(|mut stage| async move {
        let policy = Policy { stuck_after: Duration::from_secs(1), ..Policy::default() };
        let noter = stage.noter("noter", policy);
        stage.hive.open().unwrap();
        noter.tell(Job::Note(1, LONG)).await.unwrap();
        assert_eq!(noter.ask(Duration::from_secs(30), Job::Count).await, Ok(0));
        let (restarts, fault) = stage.last_fault("noter").await;
        assert!(restarts == 1 && fault.starts_with("stuck in `Note` for "), "{restarts}: {fault}");
    });
}

#[test]
fn who_takes_no_messages_is_named_until_it_does_again() {
    run_for_real(|mut stage| async move {
        let noter = stage.noter("noter", Policy::default());
        let liveness = stage.hive.inspector().liveness();
        assert_eq!(liveness.down(), ["noter"]);
        stage.hive.open().unwrap();
        assert_eq!(noter.ask(SOON, Job::Count).await, Ok(0));
        assert_eq!(liveness.down(), [] as [&str; 0]);
        noter.tell(Job::Crash).await.unwrap();
        let begun = Instant::now();
        while liveness.down().is_empty() {
            assert!(begun.elapsed() < Duration::from_secs(30), "it is between two starts");
            stage.env.sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(noter.ask(Duration::from_secs(30), Job::Count).await, Ok(0));
        assert_eq!(liveness.down(), [] as [&str; 0]);
    });
}

#[test]
fn a_blocked_hive_is_seen_from_another_thread_and_its_blocker_named() {
    let (said, heard) = mpsc::sync_channel(1);
    let begun = Instant::now();
    run_for_real(|mut stage| async move {
        let noter = stage.noter("noter", Policy::default());
        stage.hive.open().unwrap();
        let liveness = stage.hive.inspector().liveness();
        let seen = liveness.clone();
        stage.hive.inspector().when_blocked(Duration::from_secs(5), move |blocked| {
            let _ = said.send((blocked, seen.blocked()));
        });
        assert_eq!(liveness.blocked(), None);
        noter.tell(Job::Block(Duration::from_secs(9))).await.unwrap();
        assert_eq!(noter.ask(Duration::from_secs(30), Job::Count).await, Ok(0));
        while liveness.blocked().is_some() {
            assert!(begun.elapsed() < Duration::from_secs(30), "the hive runs again");
            stage.env.sleep(Duration::from_millis(50)).await;
        }
    });
    let (blocked, seen) = heard.try_recv().expect("it was called while the thread was blocked");
    assert_eq!(blocked.actor.as_deref(), Some("noter"));
    assert_eq!(blocked.message, Some("Block"));
    assert_eq!(seen, Some(blocked));
}
