//! Which trace and which span: W3C's Trace Context, level 1. Pure.

use std::fmt;

/// The version of the format that is written. What a later one adds is not looked at.
const VERSION: u8 = 0;
/// The version that none is.
const NO_VERSION: u8 = 0xff;
/// The only flag that is known.
const SAMPLED: u8 = 1;

/// A span that others may be children of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace.
    pub trace_id: [u8; 16],
    /// The span.
    pub span_id: [u8; 8],
    /// Whether it is recorded, and what follows it is to be.
    pub is_sampled: bool,
}

impl TraceContext {
    /// 26: version, trace, span and flags.
    pub(crate) const BYTES: usize = 1 + 16 + 8 + 1;

    /// As it crosses a link.
    pub(crate) fn to_bytes(self) -> [u8; TraceContext::BYTES] {
        let mut bytes = [0; TraceContext::BYTES];
        let flags = if self.is_sampled { SAMPLED } else { 0 };
        let all = [VERSION].into_iter().chain(self.trace_id).chain(self.span_id).chain([flags]);
        bytes.iter_mut().zip(all).for_each(|(place, byte)| *place = byte);
        bytes
    }

    /// From the bytes of another end. `None`: they are none; ids of zeros are of nothing.
    pub(crate) fn from_bytes(bytes: &[u8; TraceContext::BYTES]) -> Option<TraceContext> {
        let (version, rest) = bytes.split_first()?;
        let (trace_id, rest) = rest.split_first_chunk::<16>()?;
        let (span_id, rest) = rest.split_first_chunk::<8>()?;
        let flags = rest.first()?;
        let is_one = *version != NO_VERSION && *trace_id != [0; 16] && *span_id != [0; 8];
        let is_sampled = flags & SAMPLED != 0;
        is_one.then_some(TraceContext { trace_id: *trace_id, span_id: *span_id, is_sampled })
    }
}

/// As the header `traceparent` has it.
impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{VERSION:02x}-")?;
        self.trace_id.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str("-")?;
        self.span_id.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        write!(f, "-{:02x}", if self.is_sampled { SAMPLED } else { 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sound() -> TraceContext {
        TraceContext { trace_id: [0xab; 16], span_id: [0xcd; 8], is_sampled: true }
    }

    #[test]
    fn a_context_is_read_back_and_written_as_w3c_has_it() {
        assert_eq!(TraceContext::from_bytes(&sound().to_bytes()), Some(sound()));
        let text = "00-abababababababababababababababab-cdcdcdcdcdcdcdcd-01";
        assert_eq!(sound().to_string(), text);
        let other = TraceContext { is_sampled: false, ..sound() };
        assert_eq!(TraceContext::from_bytes(&other.to_bytes()), Some(other));
    }

    #[test]
    fn what_is_no_context_is_none_and_a_later_version_is_read_as_ours() {
        let with = |at: std::ops::Range<usize>, byte: u8| {
            let mut bytes = sound().to_bytes();
            bytes[at].fill(byte);
            TraceContext::from_bytes(&bytes)
        };
        assert_eq!(with(0..1, 0xff), None);
        assert_eq!(with(1..17, 0), None);
        assert_eq!(with(17..25, 0), None);
        assert_eq!(with(0..1, 7), Some(sound()));
        assert_eq!(with(25..26, 0xff), Some(sound()), "unknown flags count for nothing");
    }
}
