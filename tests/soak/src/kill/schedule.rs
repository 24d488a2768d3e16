//! When what breaks and heals. Pure: a seed decides.

use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};

/// A fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    Cut,
    KillEdge,
    KillCloud,
}

impl Fault {
    pub(crate) const ALL: [Fault; 3] = [Fault::Cut, Fault::KillEdge, Fault::KillCloud];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Fault::Cut => "cuts",
            Fault::KillEdge => "kill -9 of edgecore",
            Fault::KillCloud => "kill -9 of cloudcore",
        }
    }

    /// Seconds of peace before it, and of what it breaks: at least and at most. Some cuts are longer than the 10 s in
    /// which a dead link is noticed, and some are not.
    fn spans(self) -> ([f64; 2], [f64; 2]) {
        match self {
            Fault::Cut => ([3.0, 20.0], [0.1, 14.0]),
            Fault::KillEdge => ([2.0, 15.0], [0.0, 3.0]),
            Fault::KillCloud => ([4.0, 25.0], [0.0, 5.0]),
        }
    }
}

/// One thing to do: the fault strikes, or what it broke is started or mended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ScheduledFault {
    pub(crate) at: Duration,
    pub(crate) fault: Fault,
    pub(crate) heals: bool,
}

/// All acts within `length`, in order. Faults of different kinds overlap; each is healed within `length`.
pub(crate) fn schedule(seed: u64, length: Duration) -> Vec<ScheduledFault> {
    let mut scheduled_faults = Vec::new();
    for (number, fault) in Fault::ALL.into_iter().enumerate() {
        let mut dice = SmallRng::seed_from_u64(seed ^ ((number as u64 + 1) << 32));
        let mut span = |[least, most]: [f64; 2]| Duration::from_secs_f64(dice.random_range(least..most));
        let (peace, broken) = fault.spans();
        let mut at = Duration::ZERO;
        loop {
            let strikes = at + span(peace);
            let healed = strikes + span(broken);
            if healed > length {
                break;
            }
            scheduled_faults.push(ScheduledFault { at: strikes, fault, heals: false });
            scheduled_faults.push(ScheduledFault { at: healed, fault, heals: true });
            at = healed;
        }
    }
    scheduled_faults.sort_unstable();
    scheduled_faults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_replays_and_every_fault_strikes_and_is_healed() {
        let length = Duration::from_secs(60);
        for seed in 0..50 {
            let scheduled_faults = schedule(seed, length);
            assert_eq!(scheduled_faults, schedule(seed, length));
            for fault in Fault::ALL {
                let of: Vec<bool> = scheduled_faults
                    .iter()
                    .filter(|scheduled| scheduled.fault == fault)
                    .map(|scheduled| scheduled.heals)
                    .collect();
                assert!(!of.is_empty() && of.len().is_multiple_of(2), "{seed}: {fault:?}");
                assert!(of.chunks(2).all(|two| two == [false, true]), "{seed}: {fault:?}");
            }
            assert!(scheduled_faults.iter().all(|scheduled| scheduled.at <= length));
        }
        assert_ne!(schedule(1, length), schedule(2, length));
    }
}
