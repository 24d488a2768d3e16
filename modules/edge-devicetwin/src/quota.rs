//! What the devices of a node may take of its store and outbox. Pure.
//!
//! A twin is one row in each, whose newer value replaces the older: what can be filled is the number of properties and the
//! length of their values, whoever writes them, mappers or MQTT clients. Properties that a device or its model names are
//! the administrator's value and count by their values alone; others are taken, as KubeEdge does, and are few.

use std::collections::BTreeMap;

use crate::plan::TwinChange;
use crate::twin::Twin;

/// 16 MiB of values of a protocol's devices: a quarter of the outbox (64 MiB).
const BYTES_MAX: usize = 16 << 20;
/// 1000 properties of a protocol's devices that neither they nor their models name: a twentieth of the outbox's rows
/// (20,000).
const UNDECLARED_MAX: usize = 1000;
/// 64 such properties of one device.
const DEVICE_UNDECLARED_MAX: usize = 64;
/// 64 KiB of them: a `DeviceStatus` of the API stays far below etcd's 1.5 MiB.
const DEVICE_UNDECLARED_BYTES_MAX: usize = 64 << 10;

/// What twins weigh: of a device, or of all devices of a protocol.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    bytes: usize,
    undeclared: usize,
    /// Of `bytes`.
    undeclared_bytes: usize,
}

impl Usage {
    /// Of a device's twins. `named`: whether device or model name a property.
    pub(crate) fn of(twins: &BTreeMap<String, Twin>, named: impl Fn(&str) -> bool) -> Self {
        let mut share = Usage::default();
        for (property, twin) in twins {
            share.put(None, weight(property, twin), named(property));
        }
        share
    }

    /// Both together.
    pub(crate) fn and(self, other: Usage) -> Self {
        Usage {
            bytes: self.bytes + other.bytes,
            undeclared: self.undeclared + other.undeclared,
            undeclared_bytes: self.undeclared_bytes + other.undeclared_bytes,
        }
    }

    /// Without `other`, which is a part of it.
    pub(crate) fn without(self, other: Usage) -> Self {
        Usage {
            bytes: self.bytes.saturating_sub(other.bytes),
            undeclared: self.undeclared.saturating_sub(other.undeclared),
            undeclared_bytes: self.undeclared_bytes.saturating_sub(other.undeclared_bytes),
        }
    }

    /// The share after `changes`.
    pub(crate) fn after(mut self, changes: &[TwinChange], named: impl Fn(&str) -> bool) -> Self {
        for change in changes {
            let before = change.before.as_ref().map(|twin| weight(&change.property, twin));
            self.put(before, weight(&change.property, &change.after), named(&change.property));
        }
        self
    }

    fn put(&mut self, before: Option<usize>, after: usize, named: bool) {
        let change = |bytes: usize| (bytes + after).saturating_sub(before.unwrap_or_default());
        self.bytes = change(self.bytes);
        if !named {
            self.undeclared_bytes = change(self.undeclared_bytes);
            self.undeclared += usize::from(before.is_none());
        }
    }

    /// Whether the step from `before` to this is within the bounds of one device. What makes a full share no fuller is.
    ///
    /// # Errors
    /// A sentence for whoever wrote.
    pub(crate) fn check_device(self, before: Usage) -> Result<(), String> {
        if self.undeclared > DEVICE_UNDECLARED_MAX && self.undeclared > before.undeclared {
            return Err(format!(
                "the device has {DEVICE_UNDECLARED_MAX} properties that neither it nor its model names, which is the \
                 most; add them to the model"
            ));
        }
        if self.undeclared_bytes > DEVICE_UNDECLARED_BYTES_MAX
            && self.undeclared_bytes > before.undeclared_bytes
        {
            return Err(
                "the device's properties that neither it nor its model names have 64 KiB, which is the \
                        most; add them to the model"
                    .to_owned(),
            );
        }
        Ok(())
    }

    /// Whether the step from `before` to this is within the bounds of a protocol. What makes a full share no fuller is.
    ///
    /// # Errors
    /// A sentence for whoever wrote.
    pub(crate) fn check_protocol(self, before: Usage) -> Result<(), String> {
        if self.undeclared > UNDECLARED_MAX && self.undeclared > before.undeclared {
            return Err(format!(
                "the devices of this protocol have {UNDECLARED_MAX} properties that neither they nor their models name, \
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

    fn change(property: String, before: Option<usize>, after: usize) -> TwinChange {
        TwinChange { property, before: before.map(twin), after: twin(after) }
    }

    #[test]
    fn what_is_counted_at_once_and_step_by_step_is_the_same() {
        let named = |property: &str| property == "speed";
        let steps = [
            change("speed".to_owned(), None, 9),
            change("p".to_owned(), None, 5),
            change("p".to_owned(), Some(5), 2),
        ];
        let stepped = Usage::default().after(&steps, named);
        let counted = Usage::of(&[("speed".to_owned(), twin(9)), ("p".to_owned(), twin(2))].into(), named);
        assert_eq!((stepped, stepped.undeclared, stepped.undeclared_bytes), (counted, 1, 3));
        assert_eq!(counted.and(counted).bytes, 2 * counted.bytes);
    }

    #[test]
    fn inventions_end_and_what_is_named_does_not() {
        let fresh = |count: usize| (0..count).map(|n| change(format!("p{n}"), None, 1)).collect::<Vec<_>>();
        let all = Usage::default().after(&fresh(UNDECLARED_MAX), |_| false);
        assert_eq!(all.check_protocol(Usage::default()), Ok(()));
        let over = all.after(&[change("more".to_owned(), None, 1)], |_| false);
        assert!(over.check_protocol(all).unwrap_err().contains("model"));
        assert_eq!(
            all.after(&[change("p3".to_owned(), Some(1), 1)], |_| false).check_protocol(all),
            Ok(()),
            "those that are there"
        );
        let named = Usage::default().after(&fresh(20_000), |_| true);
        assert_eq!(named.check_protocol(Usage::default()), Ok(()));
    }

    #[test]
    fn long_values_end_and_a_full_share_may_shrink() {
        let full = Usage { bytes: BYTES_MAX, ..Usage::default() };
        let longer = full.after(&[change("p".to_owned(), Some(1), 2)], |_| true);
        assert!(longer.check_protocol(full).is_err());
        let over = Usage { bytes: BYTES_MAX + 100, ..Usage::default() };
        assert_eq!(over.after(&[change("p".to_owned(), Some(9), 1)], |_| true).check_protocol(over), Ok(()));
    }

    #[test]
    fn a_device_alone_takes_little_of_what_nobody_named() {
        let fresh = |count: usize| (0..count).map(|n| change(format!("p{n}"), None, 1)).collect::<Vec<_>>();
        let empty = Usage::default();
        let full = empty.after(&fresh(DEVICE_UNDECLARED_MAX), |_| false);
        assert_eq!(full.check_device(empty), Ok(()));
        assert!(full.after(&[change("q".to_owned(), None, 1)], |_| false).check_device(full).is_err());
        assert_eq!(full.after(&fresh(500), |_| true).check_device(full), Ok(()), "named ones");
        let long = empty.after(&[change("p".to_owned(), None, DEVICE_UNDECLARED_BYTES_MAX)], |_| false);
        assert!(long.check_device(empty).unwrap_err().contains("64 KiB"));
        let shorter =
            change("p".to_owned(), Some(DEVICE_UNDECLARED_BYTES_MAX), DEVICE_UNDECLARED_BYTES_MAX - 1);
        assert_eq!(long.after(&[shorter], |_| false).check_device(long), Ok(()));
    }
}
