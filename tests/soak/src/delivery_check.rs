//! Ids that were accepted on the node beside ids that arrived in the cloud. Pure.

use std::collections::{BTreeMap, BTreeSet};

/// What is promised of accepted ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryRule {
    /// The newest one arrives, and none after a newer one: twins.
    Newest,
    /// Each one arrives, first arrivals in order and repeats marked: telemetry.
    Each,
}

#[derive(Debug, Default)]
struct Source {
    accepted: u64,
    last_accepted: Option<u64>,
    arrived: u64,
    last_arrived: Option<u64>,
    /// Only for [`DeliveryRule::Each`]: accepted and not arrived.
    owed: BTreeSet<u64>,
    /// Only for [`DeliveryRule::Each`]: arrived.
    seen: BTreeSet<u64>,
}

/// All sources of one kind. Ids of a source grow.
#[derive(Debug)]
pub struct DeliveryCheck {
    rule: DeliveryRule,
    sources: BTreeMap<String, Source>,
    violations: Vec<String>,
}

impl DeliveryCheck {
    /// An empty one.
    pub fn new(rule: DeliveryRule) -> Self {
        DeliveryCheck { rule, sources: BTreeMap::new(), violations: Vec::new() }
    }

    /// The node has accepted this id.
    pub fn accepted(&mut self, source: &str, id: u64) {
        let of = self.sources.entry(source.to_owned()).or_default();
        of.accepted += 1;
        of.last_accepted = of.last_accepted.max(Some(id));
        if self.rule == DeliveryRule::Each && !of.seen.contains(&id) {
            of.owed.insert(id);
        }
    }

    /// The cloud shows this id; `repeat` when it came with the mark of one.
    pub fn arrived(&mut self, source: &str, id: u64, repeat: bool) {
        let of = self.sources.entry(source.to_owned()).or_default();
        of.arrived += 1;
        let back = of.last_arrived.filter(|last| *last > id);
        match self.rule {
            DeliveryRule::Newest => {
                if let Some(last) = back {
                    self.violations.push(format!("{source}: {id} was seen after {last}"));
                }
            }
            DeliveryRule::Each => {
                let first = of.seen.insert(id);
                of.owed.remove(&id);
                if let Some(last) = back.filter(|_| first) {
                    self.violations.push(format!("{source}: {id} arrived first after {last}"));
                }
                if !first && !repeat {
                    self.violations.push(format!("{source}: {id} arrived again without a mark"));
                }
            }
        }
        of.last_arrived = of.last_arrived.max(Some(id));
    }

    /// What is still to come: a sentence a source.
    pub fn owed(&self) -> Vec<String> {
        let owes = |(name, of): (&String, &Source)| match self.rule {
            DeliveryRule::Newest => (of.last_accepted > of.last_arrived).then(|| {
                let shown = of.last_arrived.map_or("nothing".to_owned(), |id| id.to_string());
                format!("{name}: {} was accepted and {shown} is shown", of.last_accepted.unwrap_or_default())
            }),
            DeliveryRule::Each => of.owed.first().map(|id| {
                format!("{name}: {} accepted ids have not arrived, {id} is the first", of.owed.len())
            }),
        };
        self.sources.iter().filter_map(owes).collect()
    }

    /// What must not have been so far.
    pub fn violations(&self) -> &[String] {
        &self.violations
    }

    /// How many were accepted and how many arrivals were seen.
    pub fn counts(&self) -> (u64, u64) {
        let sources = self.sources.values();
        sources.fold((0, 0), |(accepted, arrived), of| (accepted + of.accepted, arrived + of.arrived))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newest_wins_owes_the_last_one_only() {
        let mut deliveries = DeliveryCheck::new(DeliveryRule::Newest);
        for id in 1..=3 {
            deliveries.accepted("a", id);
        }
        deliveries.arrived("a", 1, false);
        assert_eq!(deliveries.owed(), ["a: 3 was accepted and 1 is shown"]);
        deliveries.arrived("a", 3, false);
        // One that was sent and never acknowledged may be shown.
        deliveries.arrived("a", 4, false);
        assert!(deliveries.owed().is_empty() && deliveries.violations().is_empty());
        deliveries.arrived("a", 3, false);
        assert_eq!(deliveries.violations(), ["a: 3 was seen after 4"]);
        assert_eq!(deliveries.counts(), (3, 4));
    }

    #[test]
    fn each_owes_every_one_in_order_and_repeats_with_a_mark() {
        let mut deliveries = DeliveryCheck::new(DeliveryRule::Each);
        deliveries.arrived("a", 1, false);
        for id in 1..=4 {
            deliveries.accepted("a", id);
        }
        deliveries.arrived("a", 2, false);
        deliveries.arrived("a", 1, true);
        assert_eq!(deliveries.owed(), ["a: 2 accepted ids have not arrived, 3 is the first"]);
        assert!(deliveries.violations().is_empty());
        deliveries.arrived("a", 4, false);
        deliveries.arrived("a", 3, false);
        deliveries.arrived("a", 3, false);
        assert!(deliveries.owed().is_empty());
        assert_eq!(
            deliveries.violations(),
            ["a: 3 arrived first after 4", "a: 3 arrived again without a mark"]
        );
    }
}
