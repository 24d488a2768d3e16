//! What an actor and a child cost in memory: resident bytes of many of them, by the number.

use std::time::Duration;

use anyhow::{Context as _, Result};
use beehive::{Actor, Capacity, Context, Env, Fault, Flow, Hive, Message, Policy, Reply};

use crate::proc;
use crate::table::{Bar, say};

/// 10,000: what is kept once does not show in them.
const MANY: u32 = 10_000;
/// 64 messages, as a child's mailbox holds by default.
const ROOM: Capacity = Capacity::new(64, "as a child's by default");
const SOON: Duration = Duration::from_secs(60);
/// 16 KiB: 110 pods of a node cost less than 2 MiB, and 2000 sessions of a CloudCore 32 MiB.
pub(crate) const MOST: Bar = Bar::AtMost(16.0);

/// KiB of each.
pub(crate) struct Costs {
    pub(crate) actor: f64,
    pub(crate) child: f64,
}

enum Job {
    /// Starts so many children, and answers when each has handled a message.
    Start(u32, Reply<()>),
    Noted(Reply<()>),
}

impl Message for Job {
    fn name(&self) -> &'static str {
        match self {
            Job::Start(..) => "Start",
            Job::Noted(_) => "Noted",
        }
    }
}

struct Idle;

impl Actor for Idle {
    type Message = Job;
    async fn handle(&mut self, message: Job, cx: &mut Context<Job>) -> Result<(), Fault> {
        match message {
            Job::Start(count, reply) => {
                for number in 0..count {
                    let name = ("child", number.to_string());
                    let child = cx.child(name, Policy::default(), || Idle);
                    child.ask(SOON, Job::Noted).await.map_err(|error| Fault::from_error(&error))?;
                }
                reply.send(());
            }
            Job::Noted(reply) => reply.send(()),
        }
        Ok(())
    }
}

fn resident() -> Result<u64> {
    Ok(proc::memory(std::process::id())?.resident)
}

/// KiB that each of `MANY` has cost since `before`.
fn each(before: u64) -> Result<f64> {
    Ok(resident()?.saturating_sub(before) as f64 / f64::from(MANY) / 1024.0)
}

/// Starts many of both, one kind after the other, and lets each handle a message.
pub(crate) async fn measure() -> Result<Costs> {
    let mut hive = Hive::new("bench", Env::real());
    let parent = hive.mailbox::<Job>("parent", ROOM);
    let address = hive.grant("bench", &parent, Flow::Ask);
    hive.supervise(parent, Policy::default(), || Idle);
    let before = resident()?;
    let mut actors = Vec::new();
    for number in 0..MANY {
        let mailbox = hive.mailbox::<Job>(("actor", number.to_string()), ROOM);
        actors.push(hive.grant("bench", &mailbox, Flow::Ask));
        hive.supervise(mailbox, Policy::default(), || Idle);
    }
    hive.open()?;
    for actor in &actors {
        actor.ask(SOON, Job::Noted).await.context("an actor does not answer")?;
    }
    let actor = each(before)?;
    let before = resident()?;
    address.ask(SOON, |reply| Job::Start(MANY, reply)).await.context("the children do not answer")?;
    let child = each(before)?;
    hive.shutdown(SOON).await;
    let kib = |count: f64| count * child;
    say(&format!(
        "children: 110 pods of a node take {:.2} MiB, 2000 sessions of a CloudCore {:.1} MiB",
        kib(110.0) / 1024.0,
        kib(2000.0) / 1024.0
    ));
    Ok(Costs { actor, child })
}
