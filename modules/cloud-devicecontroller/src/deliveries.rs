//! The reports of nodes about their devices, in a line for each node.
//!
//! A node that waits for its answers has one delivery here. One that does not wait finds its line full: its message is
//! answered at once with nothing, and forgotten.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use beehive::{Address, AskError, Env, Fault, Reply};
use contract::edgecontroller::EdgeControllerMsg;
use contract::parsed::{DeviceName, ParsedReport};
use contract::{Batch, NodeName, Opened, Report, Skipped};
use fairshare::{Bucket, Lines, Serving, is_told};
use futures::StreamExt;

use crate::marks::Row;
use crate::uplink::{UpError, Uplink};

/// 8 devices of one delivery are written at once.
const WRITES_AT_ONCE: usize = 8;
/// 20 s for one delivery; the node sends again what was not confirmed.
const WRITE_DEADLINE: Duration = Duration::from_secs(20);
/// 2 deliveries of a node wait behind the one that is written: as they came, which is at the most 1 MiB each.
const DELIVERIES_WAIT: usize = 2;
/// 1024 reports of a message are taken; a node sends less.
const REPORTS_MAX: usize = 1024;
/// 2,000 devices at once of one node, and then 200 a second, each a write: what is beyond waits.
const WRITES: (u32, Duration) = (2000, Duration::from_millis(5));

/// What a node sent in one message.
pub(crate) struct Delivery {
    pub(crate) epoch: u64,
    pub(crate) reports: Batch<Report>,
    pub(crate) reply: Reply<Vec<i64>>,
}

pub(crate) fn lines() -> Lines<Delivery> {
    Lines::new(DELIVERIES_WAIT)
}

/// The account of one node.
struct Account {
    writes: Bucket,
    refused: u64,
    turned_away: u64,
}

/// What is counted of each node, and what it may still do: over all its sessions. Only nodes that were admitted come here.
#[derive(Clone, Default)]
pub(crate) struct Accounts(Rc<RefCell<BTreeMap<NodeName, Account>>>);

impl Accounts {
    fn with<T>(&self, node: &NodeName, what: impl FnOnce(&mut Account) -> T) -> T {
        let mut accounts = self.0.borrow_mut();
        let fresh = || Account { writes: Bucket::new(WRITES.0, WRITES.1), refused: 0, turned_away: 0 };
        what(accounts.entry(node.clone()).or_insert_with(fresh))
    }

    /// A message found the node's line full.
    pub(crate) fn turn_away(&self, node: &NodeName) {
        let times = self.with(node, |account| {
            account.turned_away += 1;
            account.turned_away
        });
        if is_told(times) {
            tracing::warn!(%node, times, "the node sends more than it waits for");
        }
    }

    fn refuse(&self, node: &NodeName, why: &str) {
        let refused = self.with(node, |account| {
            account.refused += 1;
            account.refused
        });
        if is_told(refused) {
            tracing::warn!(%node, refused, why, "reports of the node were refused");
        }
    }

    /// Reports that were refused, and messages that found the line full, of all nodes.
    pub(crate) fn sums(&self) -> (u64, u64) {
        let accounts = self.0.borrow();
        let sum = |of: fn(&Account) -> u64| accounts.values().map(of).sum();
        (sum(|account| account.refused), sum(|account| account.turned_away))
    }
}

/// Where they are served.
pub(crate) struct Counter {
    pub(crate) client: kube::Client,
    /// Says who has the node, and whether its word counts.
    pub(crate) edge: Address<EdgeControllerMsg>,
    pub(crate) accounts: Accounts,
}

impl Counter {
    /// Writes what stands in the node's line, one delivery after the other.
    pub(crate) async fn deliver(self, node: NodeName, mut line: Serving<Delivery>, env: Env) {
        while let Some(Delivery { epoch, reports, reply }) = line.take() {
            // Whoever asked has gone, and says it again.
            if reply.is_abandoned() {
                continue;
            }
            let Opened { items: mut reports, skipped } = match reports.open() {
                Ok(opened) => opened,
                Err(error) => {
                    self.accounts.refuse(&node, "a message that is none");
                    reply.fail(AskError::Rejected(error.to_string()));
                    continue;
                }
            };
            reports.truncate(REPORTS_MAX);
            let (client, edge) = (self.client.clone(), self.edge.clone());
            let uplink = Uplink { client, edge, node: node.clone(), epoch };
            if !uplink.counts().await {
                tracing::debug!(%node, epoch, "twins of an ended session were not written");
                reply.send(Vec::new());
                continue;
            }
            // Rows that this release does not understand are confirmed, or the node would send them for ever.
            for Skipped { row, reason } in &skipped {
                env.count(reason.event());
                tracing::warn!(event = reason.event(), %node, row, %reason, "report skipped");
            }
            let (by_device, refused) = self.sort(&node, reports);
            let count = u32::try_from(by_device.len()).unwrap_or(u32::MAX);
            let pause = self.accounts.with(&node, |account| account.writes.take_on_credit(count, env.now()));
            if !pause.is_zero() {
                env.sleep(pause).await;
            }
            let skipped = skipped.iter().map(|skipped| skipped.row);
            let done = RefCell::new(skipped.chain(refused).collect::<Vec<i64>>());
            let writes =
                futures::stream::iter(by_device).for_each_concurrent(WRITES_AT_ONCE, |(device, rows)| {
                    let (uplink, done, counter) = (&uplink, &done, &self);
                    async move {
                        if counter.write(uplink, &device, &rows).await {
                            done.borrow_mut().extend(rows.iter().map(|(row, _)| *row));
                        }
                    }
                });
            let _ = env.timeout(WRITE_DEADLINE, writes).await;
            reply.send(done.into_inner());
        }
    }

    /// The reports by their device, and the rows of those that are none.
    fn sort(&self, node: &NodeName, reports: Vec<Report>) -> (BTreeMap<DeviceName, Vec<Row>>, Vec<i64>) {
        let (mut by_device, mut refused) = (BTreeMap::<DeviceName, Vec<Row>>::new(), Vec::new());
        for Report { row, report, .. } in reports {
            match report.parse() {
                Ok(ParsedReport::OfDevice(device, said)) => {
                    by_device.entry(device).or_default().push((row, said))
                }
                Ok(ParsedReport::OfNode(_)) => {
                    self.accounts.refuse(node, "a report for the edge controller");
                    refused.push(row);
                }
                Err(unfit) => {
                    tracing::debug!(%node, row, reason = %unfit, "report refused");
                    self.accounts.refuse(node, "a report with an odd name or size");
                    refused.push(row);
                }
            }
        }
        (by_device, refused)
    }

    /// Answers whether the rows are confirmed.
    async fn write(&self, uplink: &Uplink, device: &DeviceName, rows: &[Row]) -> bool {
        let (node, epoch) = (&uplink.node, uplink.epoch);
        match uplink.write(device, rows).await {
            Ok(None) => true,
            Ok(Some(why)) => {
                self.accounts.refuse(node, why);
                true
            }
            Err(UpError::Superseded) => {
                tracing::debug!(%node, epoch, "twin of an ended session was not written");
                false
            }
            Err(error) => {
                let reason = Fault::from_error(&error).reason;
                tracing::warn!(%node, %reason, "twin not written; the node sends it again");
                false
            }
        }
    }
}
