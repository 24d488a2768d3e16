//! What the node has too little of, as its conditions and its log say it. Pure.

use std::fmt;

use super::signal::Signal;

/// What there is too little of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shortage {
    pub(crate) signal: Signal,
    /// How much there was when that was told.
    pub(crate) available: u64,
    /// How much there has to be.
    pub(crate) threshold: u64,
}

impl Shortage {
    /// Whether it is to be told in place of `told`: amounts that change with each look would have the Node written each time.
    fn is_much_worse(&self, told: &Shortage) -> bool {
        self.threshold < told.threshold || self.available < told.available / 2
    }
}

impl fmt::Display for Shortage {
    /// True also when it is over and the condition still holds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shortage { signal, available, threshold } = *self;
        let (available, threshold) = (signal.about(available), signal.about(threshold));
        write!(f, "{} fell to {available}, threshold {threshold}", signal.name())
    }
}

/// Takes what was just found into what is told: one word for each signal, the first one until it is much worse.
pub(crate) fn take_in(told: &mut Vec<Shortage>, found: impl Iterator<Item = Shortage>) {
    for found in found {
        match told.iter_mut().find(|told| told.signal == found.signal) {
            Some(before) if found.is_much_worse(before) => *before = found,
            Some(_) => {}
            None => told.push(found),
        }
    }
    told.sort_by_key(|told| told.signal);
}

/// Whether it is something else that there is too little of: not the same at another amount.
pub(crate) fn is_another(before: &[Shortage], now: &[Shortage]) -> bool {
    let signals = |all: &[Shortage]| all.iter().map(|own| own.signal).collect::<Vec<_>>();
    signals(before) != signals(now)
}

/// All in one line.
pub(crate) fn words<'a>(shortages: impl IntoIterator<Item = &'a Shortage>) -> String {
    shortages.into_iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_amount_is_no_other_shortage() {
        let of = |signal, available| Shortage { signal, available, threshold: 8 };
        let (room, less) = (of(Signal::NodefsAvailable, 7), of(Signal::NodefsAvailable, 1));
        let inodes = of(Signal::NodefsInodesFree, 7);
        assert!(!is_another(&[room], &[less]) && !is_another(&[], &[]));
        assert!(is_another(&[room], &[room, inodes]) && is_another(&[room], &[inodes]));
        assert!(is_another(&[], &[room]) && is_another(&[room], &[]));
    }
}
