//! A message on its way through the broker, and its form in the store. Pure.

use std::rc::Rc;
use std::time::Duration;

use beehive::Moment;
use bytes::Bytes;

use crate::held_bytes::HeldBytes;
use crate::topic;

/// A message on its way through the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) topic: String,
    /// The topic in the router's form.
    pub(crate) router_form: String,
    pub(crate) payload: Bytes,
    pub(crate) qos: u8,
    /// As its publisher set it.
    pub(crate) retain: bool,
    /// The name of the client that published it; empty for the node itself.
    pub(crate) from: Rc<str>,
    /// Properties of MQTT 5 that are handed on as they came and in their order, encoded; empty for most.
    pub(crate) properties: Bytes,
    /// When nobody wants it any more.
    pub(crate) expires: Option<Moment>,
}

impl Message {
    /// One of the node itself.
    pub(crate) fn of_node(topic: String, payload: Bytes, qos: u8, retain: bool) -> Self {
        Message {
            router_form: topic::router_form(&topic),
            topic,
            payload,
            qos,
            retain,
            from: "".into(),
            properties: Bytes::new(),
            expires: None,
        }
    }

    /// The same message, whose bytes count in `held` for as long as a client has not got them.
    pub(crate) fn counted_in(self, held: &HeldBytes) -> Message {
        let size = self.size();
        Message { payload: held.count(self.payload, size), ..self }
    }

    /// Bytes that it holds beside its topic.
    pub(crate) fn size(&self) -> usize {
        self.payload.len() + self.properties.len()
    }

    pub(crate) fn is_expired(&self, now: Moment) -> bool {
        self.expires.is_some_and(|at| at <= now)
    }

    /// What is left of its time, in seconds, at least 1.
    pub(crate) fn expires_in(&self, now: Moment) -> Option<u32> {
        let left = self.expires?.since(now);
        Some(u32::try_from(left.as_millis().div_ceil(1000)).unwrap_or(u32::MAX).max(1))
    }
}

/// The two clocks of one moment: times go into the store by the one that goes on over restarts, as the other one begins anew with each
/// start.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Clocks {
    pub(crate) now: Moment,
    /// The time of `kept_time.rs`.
    pub(crate) kept: Duration,
}

/// Its form in the store: QoS and RETAIN, publisher, expiry, properties, payload. The topic is in the row's key, or before it.
///
/// The expiry is what was left when it was written, and the kept time of then. A time that has gone back since takes nothing away.
pub(crate) fn to_bytes(message: &Message, clocks: Clocks) -> Vec<u8> {
    // Names are capped at 128 bytes when clients connect.
    let length = u8::try_from(message.from.len()).unwrap_or_default();
    let name = message.from.as_bytes().get(..usize::from(length)).unwrap_or_default();
    let left = message.expires_in(clocks.now).unwrap_or_default();
    let written = u64::try_from(clocks.kept.as_millis()).unwrap_or_default();
    // Properties are capped with their packet.
    let properties = u32::try_from(message.properties.len()).unwrap_or_default();
    let mut bytes = Vec::with_capacity(32 + name.len() + message.size());
    bytes.extend([message.qos | u8::from(message.retain) << 2, length]);
    bytes.extend(name);
    bytes.extend(left.to_be_bytes());
    bytes.extend(written.to_be_bytes());
    bytes.extend(properties.to_be_bytes());
    bytes.extend(&message.properties);
    bytes.extend(&message.payload);
    bytes
}

/// The message of [`to_bytes`], if it is one.
pub(crate) fn from_bytes(topic: &str, bytes: &[u8], clocks: Clocks) -> Option<Message> {
    let ([flags, length], rest) = bytes.split_first_chunk()?;
    let (name, rest) = rest.split_at_checked(usize::from(*length))?;
    let (left, rest) = rest.split_first_chunk::<4>()?;
    let (written, rest) = rest.split_first_chunk::<8>()?;
    let (size, rest) = rest.split_first_chunk::<4>()?;
    let (properties, payload) = rest.split_at_checked(usize::try_from(u32::from_be_bytes(*size)).ok()?)?;
    let qos = flags & 3;
    if qos > 2 || *flags > 7 || topic::name_fault(topic).is_some() {
        return None;
    }
    let left = u32::from_be_bytes(*left);
    let passed = clocks.kept.saturating_sub(Duration::from_millis(u64::from_be_bytes(*written)));
    let expires = (left > 0).then(|| clocks.now + Duration::from_secs(left.into()).saturating_sub(passed));
    Some(Message {
        router_form: topic::router_form(topic),
        topic: topic.to_owned(),
        payload: Bytes::copy_from_slice(payload),
        qos,
        retain: flags & 4 != 0,
        from: std::str::from_utf8(name).ok()?.into(),
        properties: Bytes::copy_from_slice(properties),
        expires,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(now: u64, kept: u64) -> Clocks {
        Clocks { now: Moment(Duration::from_secs(now)), kept: Duration::from_secs(kept) }
    }

    #[test]
    fn the_time_that_a_message_has_left_passes_while_the_node_is_off_and_never_grows() {
        let message = Message {
            expires: Some(Moment(Duration::from_secs(110))),
            ..Message::of_node("t".into(), Bytes::from_static(b"x"), 1, true)
        };
        let bytes = to_bytes(&message, at(100, 5_000));
        let left = |clocks: Clocks| {
            let read = from_bytes("t", &bytes, clocks).unwrap();
            (read.expires_in(clocks.now), read.is_expired(clocks.now))
        };
        assert_eq!(left(at(3, 5_004)), (Some(6), false));
        assert_eq!(left(at(3, 5_010)), (Some(1), true));
        assert_eq!(left(at(3, 9_000)), (Some(1), true));
        assert_eq!(left(at(3, 0)), (Some(10), false));
    }

    proptest! {
        #[test]
        fn what_was_written_is_read_again_and_no_bytes_panic(
            payload in proptest::collection::vec(any::<u8>(), 0..40),
            properties in proptest::collection::vec(any::<u8>(), 0..40),
            from in "[a-zé=;]{0,40}", qos in 0u8..3, retain: bool,
            noise in proptest::collection::vec(any::<u8>(), 0..60),
        ) {
            let message = Message {
                from: from.as_str().into(),
                properties: properties.into(),
                ..Message::of_node("a/b".into(), payload.into(), qos, retain)
            };
            let bytes = to_bytes(&message, Clocks::default());
            prop_assert_eq!(from_bytes("a/b", &bytes, Clocks::default()), Some(message));
            let _ = from_bytes("a/b", &noise, Clocks::default());
            prop_assert_eq!(from_bytes("a/#", &bytes, Clocks::default()), None);
        }
    }
}
