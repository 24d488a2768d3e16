//! What the mapper of one protocol may take of the node's store and outbox. Pure.
//!
//! A twin is one row in each, whose newer value replaces the older: what a mapper can fill is the number of its devices'
//! properties and the length of their values. Properties that a device or its model names are the administrator's wish
//! and count by their values alone.

use std::collections::BTreeMap;

use crate::plan::Touch;
use crate::twin::Twin;

/// 16 MiB of values: a quarter of the outbox (64 MiB).
const BYTES_MAX: usize = 16 << 20;
/// 1000 properties that neither the devices nor their models name: a twentieth of the outbox's rows (20,000).
const INVENTED_MAX: usize = 1000;

/// What the twins of one protocol's devices weigh.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Share {
    bytes: usize,
    invented: usize,
}

impl Share {
    /// Counts one more device's twins. `named`: whether device or model name a property.
    pub(crate) fn add(&mut self, twins: &BTreeMap<String, Twin>, named: impl Fn(&str) -> bool) {
        for (property, twin) in twins {
            self.bytes += weight(property, twin);
            self.invented += usize::from(!named(property));
        }
    }

    /// The share after `touched`.
    pub(crate) fn after(mut self, touched: &[Touch], named: impl Fn(&str) -> bool) -> Self {
        for touch in touched {
            let before = touch.before.as_ref().map_or(0, |twin| weight(&touch.property, twin));
            self.bytes = (self.bytes + weight(&touch.property, &touch.after)).saturating_sub(before);
            self.invented += usize::from(touch.before.is_none() && !named(&touch.property));
        }
        self
    }

    /// Whether the step from `before` to this is within the bounds. What makes a full share no fuller is.
    ///
    /// # Errors
    /// A sentence for the mapper.
    pub(crate) fn check(self, before: Share) -> Result<(), String> {
        if self.invented > INVENTED_MAX && self.invented > before.invented {
            return Err(format!(
                "the devices of this protocol have {INVENTED_MAX} properties that neither they nor their models name, \
                 which is the most; add them to the model"
            ));
        }
        if self.bytes > BYTES_MAX && self.bytes > before.bytes {
            return Err("the values of this protocol's devices have 16 MiB, which is the most".to_owned());
        }
        Ok(())
    }
}

fn weight(property: &str, twin: &Twin) -> usize {
    let side = |side: &Option<crate::twin::Side>| side.as_ref().map_or(0, |side| side.value.len());
    property.len() + side(&twin.expected) + side(&twin.actual) + side(&twin.observed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::twin::Side;

    fn twin(length: usize) -> Twin {
        Twin { actual: Some(Side { value: "x".repeat(length), timestamp: 0 }), ..Twin::new("string") }
    }

    fn touch(property: String, before: Option<usize>, after: usize) -> Touch {
        Touch { property, before: before.map(twin), after: twin(after) }
    }

    #[test]
    fn what_is_counted_at_once_and_step_by_step_is_the_same() {
        let named = |property: &str| property == "speed";
        let steps = [
            touch("speed".to_owned(), None, 9),
            touch("p".to_owned(), None, 5),
            touch("p".to_owned(), Some(5), 2),
        ];
        let stepped = Share::default().after(&steps, named);
        let mut counted = Share::default();
        counted.add(&[("speed".to_owned(), twin(9)), ("p".to_owned(), twin(2))].into(), named);
        assert_eq!((stepped, stepped.invented), (counted, 1));
    }

    #[test]
    fn inventions_end_and_what_is_named_does_not() {
        let fresh = |count: usize| (0..count).map(|n| touch(format!("p{n}"), None, 1)).collect::<Vec<_>>();
        let all = Share::default().after(&fresh(INVENTED_MAX), |_| false);
        assert_eq!(all.check(Share::default()), Ok(()));
        let over = all.after(&[touch("more".to_owned(), None, 1)], |_| false);
        assert!(over.check(all).unwrap_err().contains("model"));
        assert_eq!(
            all.after(&[touch("p3".to_owned(), Some(1), 1)], |_| false).check(all),
            Ok(()),
            "those that are there"
        );
        let named = Share::default().after(&fresh(20_000), |_| true);
        assert_eq!(named.check(Share::default()), Ok(()));
    }

    #[test]
    fn long_values_end_and_a_full_share_may_shrink() {
        let full = Share { bytes: BYTES_MAX, invented: 0 };
        let longer = full.after(&[touch("p".to_owned(), Some(1), 2)], |_| true);
        assert!(longer.check(full).is_err());
        let over = Share { bytes: BYTES_MAX + 100, invented: 0 };
        assert_eq!(over.after(&[touch("p".to_owned(), Some(9), 1)], |_| true).check(over), Ok(()));
    }
}
