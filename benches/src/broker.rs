//! The node's MQTT broker beside mosquitto, each in a process of its own, with one client program for both: its connections
//! subscribe to a topic of their own and publish there, so that what is measured is the way through the broker and back.
//!
//! The topics are such as the node itself has no part in: nothing waits for a commit. Latency is taken at a pace that neither broker
//! is short of time at; messages a second with a window of messages on the way. Our broker has no bound on a client's rate for that
//! (`maxMessagesPerSecond: 0`), as mosquitto has none.

mod client;
mod serve;

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use testhost::free_ports;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::stats::Summary;
use crate::table::{Bar, Row, Table, say};
use client::{Load, Measured};

pub(crate) use serve::serve;

const ROUNDS: usize = 5;
/// What ours may cost beside mosquitto's: as much, and a tenth for what a shared machine adds.
const MOST: Bar = Bar::Times(1.1);
const SOON: Duration = Duration::from_secs(20);
/// Where Debian has it.
const MOSQUITTO: &str = "/usr/sbin/mosquitto";

/// One client and a hundred, at 500 and at 2,000 messages a second in all.
const PACES: [(usize, Duration); 2] = [(1, Duration::from_millis(2)), (100, Duration::from_millis(50))];

pub(crate) fn run() -> Result<Table> {
    say("\nbroker: messages through the node's broker and through mosquitto …");
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(measure())
}

/// A broker that is measured.
struct Broker {
    address: SocketAddr,
    _child: Child,
}

impl Broker {
    async fn started(command: &mut Command, port: u16, need: &str) -> Result<Broker> {
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| need.to_owned())?;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let listens = async {
            while TcpStream::connect(address).await.is_err() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(SOON, listens).await.with_context(|| format!("{need}: nothing listens"))?;
        Ok(Broker { address, _child: child })
    }

    async fn ours(folder: &Path, port: u16) -> Result<Broker> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("serve-broker").arg(port.to_string()).arg(folder);
        Broker::started(&mut command, port, "this program serves the node's broker").await
    }

    async fn mosquitto(folder: &Path, port: u16) -> Result<Broker> {
        let config = folder.join("mosquitto.conf");
        // As ours: nothing small waits for something to be sent along.
        let text = format!("listener {port} 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\n");
        std::fs::write(&config, text)?;
        let mut command = Command::new(MOSQUITTO);
        command.arg("-c").arg(config);
        Broker::started(&mut command, port, "mosquitto is needed (Debian: mosquitto)").await
    }
}

/// What the rounds of one load came to at one broker.
#[derive(Default)]
struct Samples {
    /// Of each message, in microseconds.
    latencies: Vec<f64>,
    /// Of each round.
    p99: Vec<f64>,
    /// Microseconds a message, of each round.
    cost: Vec<f64>,
}

impl Samples {
    fn add(&mut self, measured: Measured) {
        self.p99.extend(measured.percentile(99));
        self.cost.push(measured.a_message());
        self.latencies.extend(measured.latencies);
    }
}

async fn measure() -> Result<Table> {
    let folder = tempfile::tempdir()?;
    let [our_port, its_port] = free_ports()?;
    let brokers =
        [Broker::ours(folder.path(), our_port).await?, Broker::mosquitto(folder.path(), its_port).await?];
    let mut table = Table::new("broker: the node's beside mosquitto");
    for qos in 0..=2 {
        for (clients, pause) in PACES {
            let [ours, its] = both(&brokers, Load::paced(qos, clients, pause)).await?;
            let what = |figure: &str| format!("QoS {qos}, {}: {figure}", shown(clients));
            add(&mut table, what("latency"), &ours.latencies, &its.latencies)?;
            add(&mut table, what("latency, p99 of a round"), &ours.p99, &its.p99)?;
            let [ours, its] = both(&brokers, Load::flood(qos, clients)).await?;
            add(&mut table, what("time a message in a flood"), &ours.cost, &its.cost)?;
            let a_second = |samples: &[f64]| Summary::of(samples).map_or(0.0, |cost| 1e6 / cost.median);
            say(&format!(
                "  QoS {qos}, {}: {:.0} messages a second, mosquitto {:.0}",
                shown(clients),
                a_second(&ours.cost),
                a_second(&its.cost)
            ));
        }
    }
    table.print();
    Ok(table)
}

fn shown(clients: usize) -> String {
    if clients == 1 { "1 client".to_owned() } else { format!("{clients} clients") }
}

fn add(table: &mut Table, what: String, ours: &[f64], its: &[f64]) -> Result<()> {
    let (Some(ours), Some(its)) = (Summary::of(ours), Summary::of(its)) else {
        bail!("no samples of {what}")
    };
    table.add(Row { what, unit: "µs", ours, reference: Some(("mosquitto", its)), bar: MOST });
    Ok(())
}

/// Both in turn, round by round; the first round warms up and does not count.
async fn both(brokers: &[Broker; 2], load: Load) -> Result<[Samples; 2]> {
    let mut samples = [Samples::default(), Samples::default()];
    for round in 0..=ROUNDS {
        for (broker, samples) in brokers.iter().zip(&mut samples) {
            let measured = client::measure(broker.address, load).await?;
            if round > 0 {
                samples.add(measured);
            }
        }
    }
    Ok(samples)
}
