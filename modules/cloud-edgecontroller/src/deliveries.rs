//! The reports and questions of nodes, in a line for each node.
//!
//! A node that waits for its answers has one delivery here, and a few questions. One that does not wait finds its line full:
//! its message is answered at once with nothing, and forgotten.

use std::cell::RefCell;

use beehive::defect::{self, Defect};
use beehive::{AskError, Env, Fault, Reply};
use contract::parsed::{InvalidReport, ParsedReport};
use contract::{Batch, NodeName, Opened, Report, Skipped, TokenGrant, TokenQuery, Unparsed};
use fairshare::{Lines, Serving};
use futures::StreamExt;
use kubewatch::Shared;

use crate::accounts::Accounts;
use crate::residents::{Residents, Word};
use crate::tenure::Tenures;
use crate::tokens;
use crate::uplink::{self, Outcome, Uplink, WRITE_DEADLINE};

/// 8 writes of one node's reports at once: reports of different objects do not wait for each other.
const WRITES_AT_ONCE: usize = 8;
/// 2 deliveries of a node wait behind the one that is written: as they came, which is at the most 1 MiB each.
const DELIVERIES_WAIT: usize = 2;
/// 1024 reports of a message are taken; a node sends less.
const REPORTS_MAX: usize = 1024;
/// 128 questions of a node wait behind the one that is asked: one for each pod that starts with it.
const QUESTIONS_WAIT: usize = 128;

/// What a node sent in one message.
pub(crate) struct Delivery {
    pub(crate) epoch: u64,
    pub(crate) reports: Batch<Report>,
    pub(crate) reply: Reply<Vec<i64>>,
}

/// A question for a token.
pub(crate) struct Question {
    pub(crate) epoch: u64,
    pub(crate) query: Unparsed<TokenQuery>,
    pub(crate) reply: Reply<Result<TokenGrant, String>>,
}

/// Where both are served.
#[derive(Clone)]
pub(crate) struct Counter {
    pub(crate) client: kube::Client,
    pub(crate) tenures: Tenures,
    pub(crate) residents: Residents,
    pub(crate) accounts: Accounts,
    /// The pods that are bound to any node.
    pub(crate) pods: Option<Shared>,
}

pub(crate) fn lines() -> (Lines<Delivery>, Lines<Question>) {
    (Lines::new(DELIVERIES_WAIT), Lines::new(QUESTIONS_WAIT))
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
                    self.accounts.of(&node).borrow_mut().refuse(&node, "a message that is none");
                    reply.fail(AskError::Rejected(error.to_string()));
                    continue;
                }
            };
            reports.truncate(REPORTS_MAX);
            let account = self.accounts.of(&node);
            let count = u32::try_from(reports.len()).unwrap_or(u32::MAX);
            let pause = account.borrow_mut().reports.take_on_credit(count, env.now());
            if !pause.is_zero() {
                env.sleep(pause).await;
            }
            let uplink = Uplink {
                client: self.client.clone(),
                tenures: self.tenures.clone(),
                residents: self.residents.clone(),
                pods: self.pods.clone(),
                account,
                env: env.clone(),
                node: node.clone(),
                epoch,
            };
            let done = RefCell::new(skip(&uplink, &skipped));
            // What was written in time is confirmed; the rest comes again.
            let _ = env.timeout(WRITE_DEADLINE, write_all(&uplink, reports, &done)).await;
            reply.send(done.into_inner());
        }
    }

    /// Answers the questions in the node's line, one after the other.
    pub(crate) async fn answer(self, node: NodeName, mut line: Serving<Question>) {
        while let Some(Question { epoch, query, reply }) = line.take() {
            if reply.is_abandoned() {
                continue;
            }
            let answer = match (query.parse(), self.residents.word(&node, epoch)) {
                (Err(unfit), _) => {
                    self.accounts.of(&node).borrow_mut().refuse(&node, "a question with an odd name or size");
                    Err(unfit.to_string())
                }
                (Ok(asked), Word::Counts) => tokens::grant(&self.client, &node, asked).await,
                (Ok(_), Word::Unmade | Word::Doubtful | Word::Ended) => {
                    Err("the node's Node is not there, or not its own any more".to_owned())
                }
            };
            reply.send(answer);
        }
    }
}

/// The rows that this release does not understand. They are confirmed, or the node would send them for ever.
fn skip(uplink: &Uplink, skipped: &[Skipped]) -> Vec<i64> {
    for Skipped { row, reason } in skipped {
        uplink.env.count(reason.event());
        tracing::warn!(event = reason.event(), node = %uplink.node, row, %reason, "report skipped");
    }
    skipped.iter().map(|skipped| skipped.row).collect()
}

async fn write_all(uplink: &Uplink, reports: Vec<Report>, done: &RefCell<Vec<i64>>) {
    let mut turns: [Vec<(i64, Result<ParsedReport, InvalidReport>)>; 3] = Default::default();
    for Report { row, report, .. } in reports {
        let said = report.parse();
        if let Some(turn) = turns.get_mut(uplink::turn(&said)) {
            turn.push((row, said));
        }
    }
    for turn in turns {
        let writes =
            futures::stream::iter(turn).for_each_concurrent(WRITES_AT_ONCE, |(row, said)| async move {
                if write(uplink, row, said).await {
                    done.borrow_mut().push(row);
                }
            });
        writes.await;
    }
}

/// Answers whether the row is confirmed.
async fn write(uplink: &Uplink, row: i64, said: Result<ParsedReport, InvalidReport>) -> bool {
    let (node, epoch) = (&uplink.node, uplink.epoch);
    match uplink.write(row, said).await {
        Ok(Outcome::Done) => true,
        Ok(Outcome::Refused(why)) => {
            uplink.account.borrow_mut().refuse(node, why);
            true
        }
        Ok(Outcome::TooMany) => {
            uplink.account.borrow_mut().overflow(node);
            true
        }
        Ok(Outcome::Superseded) => {
            tracing::debug!(%node, epoch, "report of an ended session was not written");
            false
        }
        Err(error) => {
            let reason = Fault::from_error(&error).reason;
            tracing::warn!(%node, %reason, "report not written; the node sends it again");
            defect::is_planted(Defect::ConfirmBeforeWrite)
        }
    }
}
