//! A mailbox of the hive beside a bare tokio channel and a bare actix address, all on one thread, as in the daemons.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use beehive::{Address, Capacity, Env, Fault, Flow, Hive, Message, Policy, Reply};
use tokio::sync::{mpsc, oneshot};

use crate::stats::Summary;
use crate::table::{Bar, Row, Table, say};

/// As EdgeCore's larger mailboxes.
const ROOM: usize = 256;
const ROUNDS: usize = 30;
const TELLS: u32 = 100_000;
const ASKS: u32 = 2_000;
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
enum Bare {
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

/// Seconds a tell by rounds, and seconds an ask one by one.
#[derive(Default)]
struct Samples {
    tell: Vec<f64>,
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
        let told = [tell_hive(&address).await?, tell_bare(&channel).await?, tell_actix(&actix).await?];
        let mut asked = [Vec::new(), Vec::new(), Vec::new()];
        for _ in 0..ASKS {
            asked[0].push(ask_hive(&address).await?);
            asked[1].push(ask_bare(&channel).await?);
            asked[2].push(ask_actix(&actix).await?);
        }
        if round > 0 {
            for ((samples, told), asked) in
                [&mut hives, &mut bares, &mut actixes].into_iter().zip(told).zip(asked)
            {
                samples.tell.push(told);
                samples.ask.extend(asked);
            }
        }
    }
    hive.shutdown(SOON).await;

    let mut table = Table::new("mailbox: an actor on the same thread");
    let of = |samples: &[f64]| Summary::of(samples).context("no samples");
    let mut add = |what: &str, ours: &[f64], name, reference: &[f64]| -> Result<()> {
        let reference = Some((name, of(reference)?));
        table.add(Row { what: what.to_owned(), unit: "µs", ours: of(ours)?, reference, bar: Bar::None });
        Ok(())
    };
    add("tell, a message of a flood", &hives.tell, "tokio mpsc", &bares.tell)?;
    add("tell, a message of a flood", &hives.tell, "actix Addr", &actixes.tell)?;
    add("ask, one after the other", &hives.ask, "tokio mpsc + oneshot", &bares.ask)?;
    add("ask, one after the other", &hives.ask, "actix Addr", &actixes.ask)?;
    table.print();
    say(&format!("tells a second: {:.2} million", 1.0 / of(&hives.tell)?.median));
    Ok(table)
}

async fn serve_bare(mut inbox: mpsc::Receiver<Bare>) {
    let mut total = 0;
    while let Some(message) = inbox.recv().await {
        match message {
            Bare::Add(more) => total += more,
            Bare::Total(reply) => drop(reply.send(total)),
        }
    }
}

/// Microseconds a message, the last one's handling included.
fn a_message(begun: Instant) -> f64 {
    begun.elapsed().as_secs_f64() * 1e6 / f64::from(TELLS)
}

fn micros(begun: Instant) -> f64 {
    begun.elapsed().as_secs_f64() * 1e6
}

async fn tell_hive(address: &Address<Job>) -> Result<f64> {
    let begun = Instant::now();
    for _ in 0..TELLS {
        address.tell(Job::Add(1)).await?;
    }
    let total = address.ask(SOON, Job::Total).await?;
    whole(total)?;
    Ok(a_message(begun))
}

async fn tell_bare(channel: &mpsc::Sender<Bare>) -> Result<f64> {
    let begun = Instant::now();
    for _ in 0..TELLS {
        channel.send(Bare::Add(1)).await?;
    }
    let (reply, answer) = oneshot::channel();
    channel.send(Bare::Total(reply)).await?;
    whole(answer.await?)?;
    Ok(a_message(begun))
}

async fn tell_actix(address: &actix::Addr<Adder>) -> Result<f64> {
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
    Ok(a_message(begun))
}

fn whole(total: u64) -> Result<()> {
    if total > 0 && total.is_multiple_of(u64::from(TELLS)) {
        Ok(())
    } else {
        bail!("{total} messages arrived")
    }
}

async fn ask_hive(address: &Address<Job>) -> Result<f64> {
    let begun = Instant::now();
    address.ask(SOON, Job::Total).await?;
    Ok(micros(begun))
}

async fn ask_bare(channel: &mpsc::Sender<Bare>) -> Result<f64> {
    let begun = Instant::now();
    let (reply, answer) = oneshot::channel();
    channel.send(Bare::Total(reply)).await?;
    answer.await?;
    Ok(micros(begun))
}

async fn ask_actix(address: &actix::Addr<Adder>) -> Result<f64> {
    let begun = Instant::now();
    address.send(Total).await?;
    Ok(micros(begun))
}
