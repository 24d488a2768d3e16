//! When the node is short of something, and for what it has to act: the kubelet's thresholds. Pure.

use std::time::Duration;

use beehive::Moment;
use config::Threshold;

use super::shortage::{self, Shortage};
use super::signal::{Condition, Observed, Signal};

/// 10 s between two looks at what the node has left: a kubelet's.
pub(crate) const LOOK_EVERY: Duration = Duration::from_secs(10);
/// 5 min for which a condition holds after its reason has gone, where the settings say nothing, as with a kubelet.
pub(crate) const TRANSITION: Duration = Duration::from_secs(300);

/// How much has to be left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bound {
    /// Of what.
    pub(crate) signal: Signal,
    pub(crate) value: Threshold,
    /// How long there may be less; zero: not at all.
    pub(crate) grace: Duration,
    /// How much more has to be left before it counts as kept again.
    pub(crate) reclaim: Option<Threshold>,
}

impl Bound {
    /// Whether pods go at once.
    pub(crate) fn is_hard(&self) -> bool {
        self.grace.is_zero()
    }

    fn quantity(&self, capacity: u64) -> u64 {
        self.value.of(capacity)
    }

    fn is_met(&self, observed: &[Observed], with_reclaim: bool) -> bool {
        let of_signal = observed.iter().find(|observed| observed.signal == self.signal);
        of_signal.is_some_and(|observed| {
            let reclaim = self.reclaim.filter(|_| with_reclaim).map_or(0, |more| more.of(observed.capacity));
            observed.available < self.quantity(observed.capacity).saturating_add(reclaim)
        })
    }
}

/// The bounds of the settings: hard ones of 0% or 100% are none. The hard one of memory holds for what pods together may have, too, as
/// with a kubelet's `enforceNodeAllocatable: [pods]`, its default.
pub(crate) fn bounds(kubelet: &config::edge::TailoredKubeletConfig) -> Vec<Bound> {
    let hard = &kubelet.eviction_hard;
    let (soft, grace, reclaim) =
        (&kubelet.eviction_soft, &kubelet.eviction_soft_grace_period, &kubelet.eviction_minimum_reclaim);
    let all = [
        (
            Signal::Memory,
            hard.memory_available,
            soft.memory_available,
            grace.memory_available,
            reclaim.memory_available,
        ),
        (
            Signal::NodefsAvailable,
            hard.nodefs_available,
            soft.nodefs_available,
            grace.nodefs_available,
            reclaim.nodefs_available,
        ),
        (
            Signal::NodefsInodesFree,
            hard.nodefs_inodes_free,
            soft.nodefs_inodes_free,
            grace.nodefs_inodes_free,
            reclaim.nodefs_inodes_free,
        ),
        (
            Signal::ImagefsAvailable,
            hard.imagefs_available,
            soft.imagefs_available,
            grace.imagefs_available,
            reclaim.imagefs_available,
        ),
        (
            Signal::ImagefsInodesFree,
            hard.imagefs_inodes_free,
            soft.imagefs_inodes_free,
            grace.imagefs_inodes_free,
            reclaim.imagefs_inodes_free,
        ),
        (
            Signal::PidAvailable,
            hard.pid_available,
            soft.pid_available,
            grace.pid_available,
            reclaim.pid_available,
        ),
    ];
    let mut bounds = Vec::new();
    for (signal, hard, soft, grace, reclaim) in all {
        let is_none = matches!(hard, Threshold::Part(0 | 10_000));
        if !is_none {
            let own = Bound { signal, value: hard, grace: Duration::ZERO, reclaim };
            bounds.push(own);
            if signal == Signal::Memory {
                bounds.push(Bound { signal: Signal::AllocatableMemory, ..own });
            }
        }
        if let (Some(value), Some(grace)) = (soft, grace) {
            bounds.push(Bound { signal, value, grace: grace.0, reclaim });
        }
    }
    bounds
}

/// What was seen so far.
#[derive(Debug, Default)]
pub(crate) struct Thresholds {
    /// Bounds that are met, and since when.
    since: Vec<(Bound, Moment)>,
    /// Those of them whose grace was over at the last look.
    met: Vec<Bound>,
    /// When a condition held last.
    last: Vec<(Condition, Moment)>,
    /// What is told of the conditions that hold.
    told: Vec<Shortage>,
}

/// What follows from a look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Decision {
    /// What the node says that it is short of, by its conditions: until a while after that is over.
    pub(crate) shortages: Vec<Shortage>,
    /// For which bound the node has to act.
    pub(crate) act: Option<Bound>,
    /// All that are met beyond their grace.
    pub(crate) met: Vec<Bound>,
}

impl Thresholds {
    /// Takes a look in. `transition`: how long a condition holds after its reason has gone.
    pub(crate) fn look(
        &mut self,
        bounds: &[Bound],
        observed: &[Observed],
        transition: Duration,
        now: Moment,
    ) -> Decision {
        let mut met: Vec<Bound> =
            bounds.iter().filter(|bound| bound.is_met(observed, false)).copied().collect();
        let unresolved: Vec<Bound> = self
            .met
            .iter()
            .filter(|bound| bound.is_met(observed, true) && !met.contains(bound))
            .copied()
            .collect();
        met.extend(unresolved);
        let since = |bound: &Bound| {
            let before = self.since.iter().find(|(own, _)| own == bound);
            (*bound, before.map_or(now, |(_, since)| *since))
        };
        self.since = met.iter().map(since).collect();
        for bound in &met {
            let condition = bound.signal.condition();
            self.last.retain(|(own, _)| *own != condition);
            self.last.push((condition, now));
        }
        let holds = |condition: Condition| {
            self.last
                .iter()
                .any(|(own, last)| *own == condition && (*last == now || now.since(*last) < transition))
        };
        self.told.retain(|told| holds(told.signal.condition()));
        shortage::take_in(&mut self.told, shortages(&met, observed));
        let over = self.since.iter().filter(|(bound, since)| now.since(*since) >= bound.grace);
        let mut over: Vec<Bound> = over.map(|(bound, _)| *bound).collect();
        over.sort_by_key(|bound| (bound.signal, bound.grace));
        self.met.clone_from(&over);
        Decision { shortages: self.told.clone(), act: over.first().copied(), met: over }
    }
}

/// What there is too little of now by these bounds, if they were just set.
pub(crate) fn short_now(bounds: &[Bound], observed: &[Observed]) -> Vec<Shortage> {
    let met: Vec<Bound> = bounds.iter().filter(|bound| bound.is_met(observed, false)).copied().collect();
    let mut told = Vec::new();
    shortage::take_in(&mut told, shortages(&met, observed));
    told
}

/// What is to be told of the bounds that are met.
fn shortages<'a>(met: &'a [Bound], observed: &'a [Observed]) -> impl Iterator<Item = Shortage> + 'a {
    met.iter().filter_map(|bound| {
        let observed = observed.iter().find(|observed| observed.signal == bound.signal)?;
        let (available, threshold) = (observed.available, bound.quantity(observed.capacity));
        Some(Shortage { signal: bound.signal, available, threshold })
    })
}

/// Whether enough is left of everything, with what has to be reclaimed.
pub(crate) fn is_resolved(bounds: &[Bound], observed: &[Observed]) -> bool {
    !bounds.iter().any(|bound| bound.is_met(observed, true))
}

/// The beginning of what is told of an eviction.
pub(crate) fn low_on(act: &Bound, met: &[Bound], observed: &[Observed]) -> String {
    let resource = act.signal.resource();
    let mut text = format!("The node was low on resource: {resource}. ");
    let of_resource = met.iter().find(|bound| bound.signal.resource() == resource);
    let found = of_resource.and_then(|bound| {
        let observed = observed.iter().find(|observed| observed.signal == bound.signal)?;
        Some((bound, observed))
    });
    if let Some((bound, observed)) = found {
        let signal = bound.signal;
        let (quantity, available) =
            (signal.exact(bound.quantity(observed.capacity)), signal.exact(observed.available));
        text.push_str(&format!("Threshold quantity: {quantity}, available: {available}. "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eviction::pressure::Pressure;

    fn pressure(decision: &Decision) -> Pressure {
        Pressure::of(&decision.shortages)
    }

    fn at(seconds: u64) -> Moment {
        Moment(Duration::from_secs(seconds))
    }

    fn memory(available: u64) -> Vec<Observed> {
        vec![Observed { signal: Signal::Memory, available, capacity: 1 << 30 }]
    }

    const TRANSITION: Duration = Duration::from_secs(300);

    #[test]
    fn the_defaults_are_the_kubelets() {
        let kubelet = config::edge::TailoredKubeletConfig::default();
        let all = bounds(&kubelet);
        assert!(all.iter().all(Bound::is_hard));
        let of = |signal: Signal| all.iter().find(|bound| bound.signal == signal).unwrap().value;
        assert_eq!(of(Signal::Memory), Threshold::Amount(100 << 20));
        assert_eq!(of(Signal::AllocatableMemory), Threshold::Amount(100 << 20));
        assert_eq!(of(Signal::NodefsAvailable), Threshold::Part(1000));
        assert_eq!(of(Signal::ImagefsAvailable), Threshold::Part(1500));
        let mut none = kubelet;
        none.eviction_hard.memory_available = Threshold::Part(0);
        let of_memory = |bound: &Bound| matches!(bound.signal, Signal::Memory | Signal::AllocatableMemory);
        assert!(!bounds(&none).iter().any(of_memory));
    }

    #[test]
    fn a_hard_bound_acts_at_once_and_the_condition_outlasts_it() {
        let bound = Bound {
            signal: Signal::Memory,
            value: Threshold::Amount(100 << 20),
            grace: Duration::ZERO,
            reclaim: None,
        };
        let mut seen = Thresholds::default();
        // Exactly the bound is enough.
        let decision = seen.look(&[bound], &memory(100 << 20), TRANSITION, at(0));
        assert_eq!(decision, Decision { shortages: Vec::new(), act: None, met: Vec::new() });
        let decision = seen.look(&[bound], &memory((100 << 20) - 1), TRANSITION, at(10));
        assert!(pressure(&decision).memory && !pressure(&decision).disk);
        assert_eq!(decision.act, Some(bound));
        let decision = seen.look(&[bound], &memory(200 << 20), TRANSITION, at(20));
        assert!(pressure(&decision).memory && decision.act.is_none());
        let mut later = |seconds: u64| seen.look(&[bound], &memory(200 << 20), TRANSITION, at(seconds));
        assert!(pressure(&later(309)).memory && !pressure(&later(310)).memory);
        // What could not be measured is not met.
        assert_eq!(seen.look(&[bound], &[], TRANSITION, at(700)).act, None);
    }

    #[test]
    fn a_soft_bound_acts_after_its_grace_without_a_break() {
        let grace = Duration::from_secs(60);
        let bound = Bound { signal: Signal::Memory, value: Threshold::Part(5000), grace, reclaim: None };
        let mut seen = Thresholds::default();
        let (low, high) = (memory(1 << 28), memory(1 << 30));
        let first = seen.look(&[bound], &low, TRANSITION, at(0));
        assert!(
            pressure(&first).memory && first.act.is_none(),
            "the condition comes before the grace is over"
        );
        assert_eq!(seen.look(&[bound], &low, TRANSITION, at(59)).act, None);
        assert_eq!(seen.look(&[bound], &high, TRANSITION, at(60)).act, None);
        assert_eq!(seen.look(&[bound], &low, TRANSITION, at(61)).act, None, "it begins anew");
        assert_eq!(seen.look(&[bound], &low, TRANSITION, at(121)).act, Some(bound));
    }

    #[test]
    fn a_bound_counts_until_as_much_is_reclaimed_as_is_wanted() {
        let reclaim = Some(Threshold::Amount(50 << 20));
        let bound = Bound {
            signal: Signal::Memory,
            value: Threshold::Amount(100 << 20),
            grace: Duration::ZERO,
            reclaim,
        };
        let mut seen = Thresholds::default();
        assert_eq!(seen.look(&[bound], &memory(120 << 20), TRANSITION, at(0)).act, None, "never met");
        assert_eq!(seen.look(&[bound], &memory(90 << 20), TRANSITION, at(10)).act, Some(bound));
        assert_eq!(seen.look(&[bound], &memory(120 << 20), TRANSITION, at(20)).act, Some(bound));
        assert_eq!(seen.look(&[bound], &memory(150 << 20), TRANSITION, at(30)).act, None);
        assert!(!is_resolved(&[bound], &memory(120 << 20)) && is_resolved(&[bound], &memory(150 << 20)));
    }

    #[test]
    fn memory_goes_first_and_all_is_told() {
        let hard = |signal, value| Bound { signal, value, grace: Duration::ZERO, reclaim: None };
        let bounds = [
            hard(Signal::NodefsAvailable, Threshold::Part(1000)),
            hard(Signal::Memory, Threshold::Amount(100 << 20)),
        ];
        let mut observed = memory(1 << 20);
        observed.push(Observed { signal: Signal::NodefsAvailable, available: 1025, capacity: 1 << 30 });
        let decision = Thresholds::default().look(&bounds, &observed, TRANSITION, at(0));
        assert_eq!(decision.act, Some(bounds[1]));
        assert_eq!(pressure(&decision), Pressure { memory: true, disk: true, pid: false });
        assert_eq!(
            low_on(&bounds[1], &decision.met, &observed),
            "The node was low on resource: memory. Threshold quantity: 100Mi, available: 1Mi. "
        );
        assert_eq!(
            low_on(&bounds[0], &decision.met, &observed),
            "The node was low on resource: ephemeral-storage. Threshold quantity: 107374182, available: 1025. "
        );
    }

    #[test]
    fn what_is_told_of_a_shortage_stays_until_it_is_over_or_much_worse() {
        let mut soft = Bound {
            signal: Signal::Memory,
            value: Threshold::Amount(400 << 20),
            grace: Duration::from_secs(60),
            reclaim: None,
        };
        let hard = Bound { value: Threshold::Amount(100 << 20), grace: Duration::ZERO, ..soft };
        let mut seen = Thresholds::default();
        let mut told = |bounds: &[Bound], mebibytes: u64, seconds: u64| {
            let decision = seen.look(bounds, &memory(mebibytes << 20), TRANSITION, at(seconds));
            decision.shortages.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
        };
        let bounds = [hard, soft];
        assert_eq!(told(&bounds, 500, 0), "");
        let first = "memory.available fell to 390Mi, threshold 400Mi";
        assert_eq!(told(&bounds, 390, 10), first);
        // A Node that says another number each time is another Node each time.
        assert_eq!(told(&bounds, 380, 20), first);
        assert_eq!(told(&bounds, 395, 30), first);
        assert_eq!(told(&bounds, 190, 40), "memory.available fell to 190Mi, threshold 400Mi");
        let worst = "memory.available fell to 99Mi, threshold 100Mi";
        assert_eq!(told(&bounds, 99, 50), worst, "it is the harder one that is told");
        assert_eq!(told(&bounds, 300, 60), worst);
        assert_eq!(told(&bounds, 500, 359), worst, "it was a while ago");
        assert_eq!(told(&bounds, 500, 360), "");
        soft.value = Threshold::Part(10_000);
        let now = short_now(&[soft, hard], &memory(50 << 20));
        assert_eq!(now, [Shortage { signal: Signal::Memory, available: 50 << 20, threshold: 100 << 20 }]);
    }
}
