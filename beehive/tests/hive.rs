//! The promises of the hive, each with a test that can fail.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use beehive::testing::Probe;
use beehive::{
    Actor, AskError, Capacity, Context, Ended, Env, Fault, Flow, Hive, Lane, Message, Policy, Refusal, Reply,
    Thread,
};

enum Job {
    Add(u64),
    Total(Reply<u64>),
    Crash,
    Fail,
    Hang,
    First(u64),
}

impl Message for Job {
    fn name(&self) -> &'static str {
        match self {
            Job::Add(_) => "Add",
            Job::Total(_) => "Total",
            Job::Crash => "Crash",
            Job::Fail => "Fail",
            Job::Hang => "Hang",
            Job::First(_) => "First",
        }
    }
    fn lane(&self) -> Lane {
        match self {
            Job::First(_) => Lane::Control,
            Job::Add(_) | Job::Total(_) | Job::Crash | Job::Fail | Job::Hang => Lane::Work,
        }
    }
}

struct Adder {
    total: u64,
    echo: beehive::Address<Seen>,
}

struct Seen(u64);
impl Message for Seen {
    fn name(&self) -> &'static str {
        "Seen"
    }
}

impl Actor for Adder {
    type Message = Job;
    async fn handle(&mut self, message: Job, cx: &mut Context<Job>) -> Result<(), Fault> {
        match message {
            Job::Add(n) | Job::First(n) => {
                self.total += n;
                let _ = self.echo.tell(Seen(n)).await;
            }
            Job::Total(reply) => reply.send(self.total),
            Job::Crash => panic!("on purpose"),
            Job::Fail => return Err(Fault::new("on purpose")),
            Job::Hang => cx.env().sleep(Duration::from_secs(3600)).await,
        }
        Ok(())
    }
    fn snapshot(&self) -> serde_json::Value {
        serde_json::json!({ "total": self.total })
    }
}

fn run<F: Future>(test: impl FnOnce(Env) -> F) -> F::Output {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async { test(Env::seeded(7)).await })
}

fn adder(env: &Env, policy: Policy) -> (Hive, beehive::Address<Job>, Probe<Seen>) {
    let mut hive = Hive::new("test", env.clone());
    let (probe, echo) = Probe::new(env, 64);
    let mailbox = hive.mailbox::<Job>("adder", Capacity::new(8, "test"));
    let address = hive.grant("tester", &mailbox, Flow::Ask);
    hive.supervise(mailbox, policy, move || Adder { total: 0, echo: echo.clone() });
    (hive, address, probe)
}

const SOON: Duration = Duration::from_secs(5);

#[test]
fn a_mailbox_holds_exactly_its_bound_and_clones_gain_nothing() {
    run(|env| async move {
        let (_hive, address, _probe) = adder(&env, Policy::default());
        // Not open yet: nothing is taken out.
        for n in 0..8 {
            assert_eq!(address.clone().try_tell(Job::Add(n)), Ok(()));
        }
        assert_eq!(address.clone().try_tell(Job::Add(9)), Err(Refusal::Full));
        assert_eq!(address.try_tell(Job::First(1)), Ok(()), "control has room of its own");
    });
}

#[test]
fn a_tap_sees_what_the_actor_is_handed_and_takes_nothing_away() {
    run(|env| async move {
        let (mut hive, address, mut probe) = adder(&env, Policy::default());
        let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let notes = std::sync::Arc::clone(&seen);
        hive.tap("adder", move |job: &Job| notes.lock().unwrap().push(job.name())).unwrap();
        address.try_tell(Job::Add(1)).unwrap();
        address.try_tell(Job::First(2)).unwrap();
        assert!(seen.lock().unwrap().is_empty(), "nothing was handled yet");
        hive.open().unwrap();
        assert_eq!(probe.next(SOON).await.unwrap().0, 2);
        assert_eq!(probe.next(SOON).await.unwrap().0, 1);
        assert_eq!(*seen.lock().unwrap(), ["First", "Add"]);
        let again = hive.tap("adder", |_: &Job| ());
        assert_eq!(again, Err(beehive::WiringError::Tapped("adder".to_owned())));
        let other = hive.tap("adder", |_: &Seen| ());
        assert_eq!(other, Err(beehive::WiringError::NoMailbox("adder".to_owned())));
    });
}

#[test]
fn control_overtakes_work() {
    run(|env| async move {
        let (mut hive, address, mut probe) = adder(&env, Policy::default());
        address.try_tell(Job::Add(1)).unwrap();
        address.try_tell(Job::First(2)).unwrap();
        hive.open().unwrap();
        assert_eq!(probe.next(SOON).await.unwrap().0, 2);
        assert_eq!(probe.next(SOON).await.unwrap().0, 1);
    });
}

#[test]
fn the_queue_survives_a_panic_and_the_asker_hears_of_it() {
    run(|env| async move {
        let (mut hive, address, mut probe) = adder(&env, Policy::default());
        address.try_tell(Job::Add(1)).unwrap();
        address.try_tell(Job::Crash).unwrap();
        address.try_tell(Job::Add(3)).unwrap();
        hive.open().unwrap();
        assert_eq!(probe.next(SOON).await.unwrap().0, 1);
        assert_eq!(probe.next(SOON).await.unwrap().0, 3);
        // The new incarnation began from its factory.
        assert_eq!(address.ask(SOON, Job::Total).await, Ok(3));
        let report = hive.inspector().report(SOON).await;
        assert_eq!(report.actors[0].restarts, 1);
        assert_eq!(report.actors[0].snapshot["total"], 3);
    });
}

#[test]
fn a_spent_budget_ends_the_hive_with_a_reason() {
    run(|env| async move {
        let (mut hive, address, _probe) = adder(&env, Policy { budget: 2, ..Policy::default() });
        hive.open().unwrap();
        for _ in 0..3 {
            address.tell(Job::Fail).await.unwrap();
        }
        let reason = hive.gave_up().await;
        assert!(reason.contains("`adder` failed 3 times") && reason.contains("on purpose"), "{reason}");
    });
}

#[test]
fn a_stuck_actor_is_replaced_and_a_late_answer_is_a_deadline() {
    run(|env| async move {
        let (mut hive, address, _probe) = adder(&env, Policy::default());
        hive.open().unwrap();
        address.tell(Job::Hang).await.unwrap();
        assert_eq!(address.ask(SOON, Job::Total).await, Err(AskError::Deadline));
        assert_eq!(address.ask(Duration::from_secs(120), Job::Total).await, Ok(0));
        assert_eq!(hive.inspector().report(SOON).await.actors[0].restarts, 1);
    });
}

#[test]
fn an_undeclared_ask_is_refused() {
    run(|env| async move {
        let mut hive = Hive::new("test", env.clone());
        let mailbox = hive.mailbox::<Job>("adder", Capacity::new(1, "test"));
        let address = hive.grant("tester", &mailbox, Flow::Tell);
        assert_eq!(address.ask(SOON, Job::Total).await, Err(AskError::Undeclared));
        assert!(hive.open().is_err(), "a mailbox without an actor is a wiring error");
    });
}

#[test]
fn shutdown_empties_the_queue_and_then_refuses() {
    run(|env| async move {
        let (mut hive, address, mut probe) = adder(&env, Policy::default());
        hive.open().unwrap();
        for n in 1..=3 {
            address.try_tell(Job::Add(n)).unwrap();
        }
        assert_eq!(hive.shutdown(SOON).await, Ended::InOrder);
        for n in 1..=3 {
            assert_eq!(probe.next(SOON).await.unwrap().0, n);
        }
        assert_eq!(address.try_tell(Job::Add(4)), Err(Refusal::Closed));
        assert!(!address.is_up());
    });
}

#[test]
fn shutdown_names_who_is_late() {
    run(|env| async move {
        let (mut hive, address, _probe) = adder(&env, Policy::default());
        hive.open().unwrap();
        address.tell(Job::Hang).await.unwrap();
        assert_eq!(hive.shutdown(Duration::from_secs(2)).await, Ended::Late(vec!["adder".to_owned()]));
    });
}

#[test]
fn a_thread_that_the_daemon_depends_on_ends_it_when_it_dies() {
    let system = actix_rt::System::new();
    system.block_on(async {
        let mut hive = Hive::new("test", Env::real());
        hive.open().unwrap();
        let thread = Thread::start("writer", || panic!("on purpose")).unwrap();
        hive.depend_on(thread.ended());
        assert_eq!(hive.gave_up().await, "the thread `writer` panicked: on purpose");
        assert_eq!(hive.shutdown(SOON).await, Ended::InOrder);
    });
}
