//! A mailbox of the hive beside a bare tokio channel and a bare actix address, all on one thread, as in the daemons.
//!
//! Tells are measured in a flood that keeps the queue full, and one by one, each handled before the next.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use beehive::{Address, Capacity, Env, Fault, Flow, Hive, Message, Policy, Reply};
use tokio::sync::{mpsc, oneshot};

use crate::actor_memory;
use crate::stats::Summary;
use crate::table::{Bar, Row, Table, say};

/// What the hive adds may cost as much again as the bare channel, and no more.
const MOST: Bar = Bar::Times(2.0);
/// As EdgeCore's larger mailboxes.
const ROOM: usize = 256;
const ROUNDS: usize = 30;
const TELLS: u32 = 100_000;
/// 20,000 tells one by one a round, and as many asks.
const ASKS: u32 = 20_000;
const SOON: Duration = Duration::from_secs(30);

enum Job {
    Add(u64),
    Total(Reply<u64>),
}

impl Message for Job {
    fn name(&self) -> &'static str {
        match self {
            Job::Add(_) => "Add",
            Job::Total(_) => "Total",
        }
    }
}

struct Adder(u64);

impl beehive::Actor for Adder {
    type Message = Job;
    async fn handle(&mut self, message: Job, _: &mut beehive::Context<Job>) -> Result<(), Fault> {
        match message {
            Job::Add(more) => self.0 += more,
            Job::Total(reply) => reply.send(self.0),
        }
        Ok(())
    }
}

/// The same over a bare channel.
enum ChannelJob {
    Add(u64),
    Total(oneshot::Sender<u64>),
}

/// The same over actix.
struct Add(u64);
struct Total;

impl actix::Message for Add {
    type Result = ();
}

impl actix::Message for Total {
    type Result = u64;
}

impl actix::Actor for Adder {
    type Context = actix::Context<Self>;
    fn started(&mut self, context: &mut Self::Context) {
        context.set_mailbox_capacity(ROOM);
    }
}

impl actix::Handler<Add> for Adder {
    type Result = ();
    fn handle(&mut self, message: Add, _: &mut Self::Context) {
        self.0 += message.0;
    }
}

impl actix::Handler<Total> for Adder {
    type Result = u64;
    fn handle(&mut self, _: Total, _: &mut Self::Context) -> u64 {
        self.0
    }
}

/// Microseconds a message, by rounds.
#[derive(Default)]
struct Samples {
    flood: Vec<f64>,
    ping: Vec<f64>,
    ask: Vec<f64>,
}

pub(crate) fn run() -> Result<Table> {
    say("\nmailbox: three ways to talk to an actor …");
    actix_rt::System::new().block_on(measure())
}

async fn measure() -> Result<Table> {
    let mut hive = Hive::new("bench", Env::real());
    let mailbox = hive.mailbox::<Job>("adder", Capacity::new(ROOM, "a bench's choice"));
    let address = hive.grant("bench", &mailbox, Flow::Ask);
    hive.supervise(mailbox, Policy::default(), || Adder(0));
    hive.open()?;
    let (channel, inbox) = mpsc::channel(ROOM);
    actix_rt::spawn(serve_bare(inbox));
    let actix = actix::Actor::start(Adder(0));

    let (mut hives, mut bares, mut actixes) = (Samples::default(), Samples::default(), Samples::default());
    // The first round warms up and does not count.
    for round in 0..=ROUNDS {
        let flood = [flood_hive(&address).await?, flood_bare(&channel).await?, flood_actix(&actix).await?];
        let ping = [ping_hive(&address).await?, ping_bare(&channel).await?, ping_actix(&actix).await?];
        let ask = [ask_hive(&address).await?, ask_bare(&channel).await?, ask_actix(&actix).await?];
        if round > 0 {
            for (place, samples) in [&mut hives, &mut bares, &mut actixes].into_iter().enumerate() {
                samples.flood.push(flood[place]);
                samples.ping.push(ping[place]);
                samples.ask.push(ask[place]);
            }
        }
    }
    hive.shutdown(SOON).await;

    let mut table = Table::new("mailbox: an actor on the same thread");
    let of = |samples: &[f64]| Summary::of(samples).context("no samples");
    let add = |table: &mut Table, what: &str, ours: &[f64], name, reference: &[f64], bar| -> Result<()> {
        let reference = Some((name, of(reference)?));
        table.add(Row { what: what.to_owned(), unit: "µs", ours: of(ours)?, reference, bar });
        Ok(())
    };
    add(&mut table, "tell, a message of a flood", &hives.flood, "tokio mpsc", &bares.flood, MOST)?;
    add(&mut table, "tell, one after the other", &hives.ping, "tokio mpsc", &bares.ping, MOST)?;
    add(&mut table, "ask, one after the other", &hives.ask, "tokio mpsc + oneshot", &bares.ask, MOST)?;
    add(&mut table, "tell, a message of a flood", &hives.flood, "actix Addr", &actixes.flood, Bar::None)?;
    add(&mut table, "tell, one after the other", &hives.ping, "actix Addr", &actixes.ping, Bar::None)?;
    add(&mut table, "ask, one after the other", &hives.ask, "actix Addr", &actixes.ask, Bar::None)?;
    let costs = actor_memory::measure().await?;
    for (what, kib) in [("an actor, resident", costs.actor), ("a child, resident", costs.child)] {
        let (ours, bar) = (Summary::single(kib), actor_memory::MOST);
        table.add(Row { what: what.to_owned(), unit: "KiB", ours, reference: None, bar });
    }
    table.print();
    say(&format!("tells a second: {:.2} million", 1.0 / of(&hives.flood)?.median));
    Ok(table)
}

async fn serve_bare(mut inbox: mpsc::Receiver<ChannelJob>) {
    let mut total = 0;
    while let Some(message) = inbox.recv().await {
        match message {
            ChannelJob::Add(more) => total += more,
            ChannelJob::Total(reply) => drop(reply.send(total)),
        }
    }
}

/// Microseconds for each of so many messages since then.
fn each(begun: Instant, messages: u32) -> f64 {
    begun.elapsed().as_secs_f64() * 1e6 / f64::from(messages)
}

async fn flood_hive(address: &Address<Job>) -> Result<f64> {
    let begun = Instant::now();
    for _ in 0..TELLS {
        address.tell(Job::Add(1)).await?;
    }
    let total = address.ask(SOON, Job::Total).await?;
    whole(total)?;
    Ok(each(begun, TELLS))
}

async fn flood_bare(channel: &mpsc::Sender<ChannelJob>) -> Result<f64> {
    let begun = Instant::now();
    for _ in 0..TELLS {
        channel.send(ChannelJob::Add(1)).await?;
    }
    let (reply, answer) = oneshot::channel();
    channel.send(ChannelJob::Total(reply)).await?;
    whole(answer.await?)?;
    Ok(each(begun, TELLS))
}

async fn flood_actix(address: &actix::Addr<Adder>) -> Result<f64> {
    let begun = Instant::now();
    for _ in 0..TELLS {
        let mut message = Add(1);
        // It has no tell that waits for room.
        while let Err(refused) = address.try_send(message) {
            let actix::dev::SendError::Full(back) = refused else { bail!("the actor is gone") };
            message = back;
            tokio::task::yield_now().await;
        }
    }
    whole(address.send(Total).await?)?;
    Ok(each(begun, TELLS))
}

/// All that was told has been handled: each round tells the same.
fn whole(total: u64) -> Result<()> {
    if total > 0 && total.is_multiple_of(u64::from(ASKS)) {
        Ok(())
    } else {
        bail!("{total} messages arrived")
    }
}

/// Lets the actor have the thread: it handles what it was told.
async fn handled() {
    tokio::task::yield_now().await;
}

async fn ping_hive(address: &Address<Job>) -> Result<f64> {
    let begun = Instant::now();
    for _ in 0..ASKS {
        address.tell(Job::Add(1)).await?;
        handled().await;
    }
    Ok(each(begun, ASKS))
}

async fn ping_bare(channel: &mpsc::Sender<ChannelJob>) -> Result<f64> {
    let begun = Instant::now();
    for _ in 0..ASKS {
        channel.send(ChannelJob::Add(1)).await?;
        handled().await;
    }
    Ok(each(begun, ASKS))
}

async fn ping_actix(address: &actix::Addr<Adder>) -> Result<f64> {
    let begun = Instant::now();
    for _ in 0..ASKS {
        address.try_send(Add(1)).map_err(|_| anyhow::anyhow!("the actor did not keep up"))?;
        handled().await;
    }
    Ok(each(begun, ASKS))
}

async fn ask_hive(address: &Address<Job>) -> Result<f64> {
    let begun = Instant::now();
    for _ in 0..ASKS {
        address.ask(SOON, Job::Total).await?;
    }
    Ok(each(begun, ASKS))
}

async fn ask_bare(channel: &mpsc::Sender<ChannelJob>) -> Result<f64> {
    let begun = Instant::now();
    for _ in 0..ASKS {
        let (reply, answer) = oneshot::channel();
        channel.send(ChannelJob::Total(reply)).await?;
        answer.await?;
    }
    Ok(each(begun, ASKS))
}

async fn ask_actix(address: &actix::Addr<Adder>) -> Result<f64> {
    let begun = Instant::now();
    for _ in 0..ASKS {
        address.send(Total).await?;
    }
    Ok(each(begun, ASKS))
}
