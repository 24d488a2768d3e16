//! What the devices of a node may take of its store and outbox. Pure.
//!
//! A twin is one row in each, whose newer value replaces the older: what can be filled is the number of properties and the
//! length of their values, whoever writes them, mappers or MQTT clients. Properties that a device or its model names are
//! the administrator's wish and count by their values alone; others are taken, as KubeEdge does, and are few.

use std::collections::BTreeMap;

use crate::plan::Touch;
use crate::twin::Twin;

/// 16 MiB of values of a protocol's devices: a quarter of the outbox (64 MiB).
const BYTES_MAX: usize = 16 << 20;
/// 1000 properties of a protocol's devices that neither they nor their models name: a twentieth of the outbox's rows
/// (20,000).
const INVENTED_MAX: usize = 1000;
/// 64 such properties of one device.
const DEVICE_INVENTED_MAX: usize = 64;
/// 64 KiB of them: a `DeviceStatus` of the API stays far below etcd's 1.5 MiB.
const DEVICE_INVENTED_BYTES_MAX: usize = 64 << 10;

/// What twins weigh: of a device, or of all devices of a protocol.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Share {
    bytes: usize,
    invented: usize,
    /// Of `bytes`.
    invented_bytes: usize,
}

impl Share {
    /// Of a device's twins. `named`: whether device or model name a property.
    pub(crate) fn of(twins: &BTreeMap<String, Twin>, named: impl Fn(&str) -> bool) -> Self {
        let mut share = Share::default();
        for (property, twin) in twins {
            share.put(None, weight(property, twin), named(property));
        }
        share
    }

    /// Both together.
    pub(crate) fn and(self, other: Share) -> Self {
        Share {
            bytes: self.bytes + other.bytes,
            invented: self.invented + other.invented,
            invented_bytes: self.invented_bytes + other.invented_bytes,
        }
    }

    /// The share after `touched`.
    pub(crate) fn after(mut self, touched: &[Touch], named: impl Fn(&str) -> bool) -> Self {
        for touch in touched {
            let before = touch.before.as_ref().map(|twin| weight(&touch.property, twin));
            self.put(before, weight(&touch.property, &touch.after), named(&touch.property));
        }
        self
    }

    fn put(&mut self, before: Option<usize>, after: usize, named: bool) {
        let change = |bytes: usize| (bytes + after).saturating_sub(before.unwrap_or_default());
        self.bytes = change(self.bytes);
        if !named {
            self.invented_bytes = change(self.invented_bytes);
            self.invented += usize::from(before.is_none());
        }
    }

    /// Whether the step from `before` to this is within the bounds of one device. What makes a full share no fuller is.
    ///
    /// # Errors
    /// A sentence for whoever wrote.
    pub(crate) fn check_device(self, before: Share) -> Result<(), String> {
        if self.invented > DEVICE_INVENTED_MAX && self.invented > before.invented {
            return Err(format!(
                "the device has {DEVICE_INVENTED_MAX} properties that neither it nor its model names, which is the \
                 most; add them to the model"
            ));
        }
        if self.invented_bytes > DEVICE_INVENTED_BYTES_MAX && self.invented_bytes > before.invented_bytes {
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
    pub(crate) fn check_protocol(self, before: Share) -> Result<(), String> {
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
        let counted = Share::of(&[("speed".to_owned(), twin(9)), ("p".to_owned(), twin(2))].into(), named);
        assert_eq!((stepped, stepped.invented, stepped.invented_bytes), (counted, 1, 3));
        assert_eq!(counted.and(counted).bytes, 2 * counted.bytes);
    }

    #[test]
    fn inventions_end_and_what_is_named_does_not() {
        let fresh = |count: usize| (0..count).map(|n| touch(format!("p{n}"), None, 1)).collect::<Vec<_>>();
        let all = Share::default().after(&fresh(INVENTED_MAX), |_| false);
        assert_eq!(all.check_protocol(Share::default()), Ok(()));
        let over = all.after(&[touch("more".to_owned(), None, 1)], |_| false);
        assert!(over.check_protocol(all).unwrap_err().contains("model"));
        assert_eq!(
            all.after(&[touch("p3".to_owned(), Some(1), 1)], |_| false).check_protocol(all),
            Ok(()),
            "those that are there"
        );
        let named = Share::default().after(&fresh(20_000), |_| true);
        assert_eq!(named.check_protocol(Share::default()), Ok(()));
    }

    #[test]
    fn long_values_end_and_a_full_share_may_shrink() {
        let full = Share { bytes: BYTES_MAX, ..Share::default() };
        let longer = full.after(&[touch("p".to_owned(), Some(1), 2)], |_| true);
        assert!(longer.check_protocol(full).is_err());
        let over = Share { bytes: BYTES_MAX + 100, ..Share::default() };
        assert_eq!(over.after(&[touch("p".to_owned(), Some(9), 1)], |_| true).check_protocol(over), Ok(()));
    }

    #[test]
    fn a_device_alone_takes_little_of_what_nobody_named() {
        let fresh = |count: usize| (0..count).map(|n| touch(format!("p{n}"), None, 1)).collect::<Vec<_>>();
        let empty = Share::default();
        let full = empty.after(&fresh(DEVICE_INVENTED_MAX), |_| false);
        assert_eq!(full.check_device(empty), Ok(()));
        assert!(full.after(&[touch("q".to_owned(), None, 1)], |_| false).check_device(full).is_err());
        assert_eq!(full.after(&fresh(500), |_| true).check_device(full), Ok(()), "named ones");
        let long = empty.after(&[touch("p".to_owned(), None, DEVICE_INVENTED_BYTES_MAX)], |_| false);
        assert!(long.check_device(empty).unwrap_err().contains("64 KiB"));
        let shorter = touch("p".to_owned(), Some(DEVICE_INVENTED_BYTES_MAX), DEVICE_INVENTED_BYTES_MAX - 1);
        assert_eq!(long.after(&[shorter], |_| false).check_device(long), Ok(()));
    }
}
