//! What is counted of each node, and what it may still do: over all its sessions, so that a new one is no fresh start.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use contract::NodeName;
use fairshare::{Bucket, is_told};

use crate::events::EventRates;

/// 2,000 reports at once of one node, and then 200 a second: what is beyond waits.
const REPORTS: (u32, Duration) = (2000, Duration::from_millis(5));

/// The account of one node.
#[derive(Debug)]
pub(crate) struct Account {
    /// Of events.
    pub(crate) events: EventRates,
    /// Of all reports.
    pub(crate) reports: Bucket,
    refused: u64,
    too_many: u64,
    turned_away: u64,
}

/// The accounts of all nodes that said anything.
#[derive(Clone, Default)]
pub(crate) struct Accounts(Rc<RefCell<BTreeMap<NodeName, Rc<RefCell<Account>>>>>);

impl Accounts {
    /// That of one node. Only nodes that were admitted come here: there are no more than are in the register.
    pub(crate) fn of(&self, node: &NodeName) -> Rc<RefCell<Account>> {
        let mut accounts = self.0.borrow_mut();
        if let Some(account) = accounts.get(node) {
            return Rc::clone(account);
        }
        let account = Account {
            events: EventRates::new(),
            reports: Bucket::new(REPORTS.0, REPORTS.1),
            refused: 0,
            too_many: 0,
            turned_away: 0,
        };
        let account = Rc::new(RefCell::new(account));
        accounts.insert(node.clone(), Rc::clone(&account));
        account
    }

    /// Reports that were refused, events that were too many, and messages that found the line full, of all nodes.
    pub(crate) fn sums(&self) -> (u64, u64, u64) {
        let accounts = self.0.borrow();
        let sum = |of: fn(&Account) -> u64| accounts.values().map(|account| of(&account.borrow())).sum();
        (sum(|account| account.refused), sum(|account| account.too_many), sum(|account| account.turned_away))
    }
}

impl Account {
    /// Something was not the node's to say.
    pub(crate) fn refuse(&mut self, node: &NodeName, why: &str) {
        self.refused += 1;
        if is_told(self.refused) {
            tracing::warn!(%node, refused = self.refused, why, "reports of the node were refused");
        }
    }

    /// An event was one too many.
    pub(crate) fn overflow(&mut self, node: &NodeName) {
        self.too_many += 1;
        if is_told(self.too_many) {
            tracing::warn!(%node, dropped = self.too_many, "the node says more events than it may");
        }
    }

    /// A message found the node's line full.
    pub(crate) fn turn_away(&mut self, node: &NodeName) {
        self.turned_away += 1;
        if is_told(self.turned_away) {
            tracing::warn!(%node, times = self.turned_away, "the node sends more than it waits for");
        }
    }
}
