//! How much an answer may have, and what is left out of one so that the rest comes. Pure.

use opcua_types::{DataValue, Variant};

/// 4 MiB of an answer, in chunks of 64 KiB.
pub(crate) const MESSAGE_MAX: usize = 4 << 20;
/// 64 chunks of an answer.
pub(crate) const CHUNKS_MAX: usize = 64;
/// 65,536 elements of an array: each takes more memory than it has bytes.
pub(crate) const ELEMENTS_MAX: usize = 1 << 16;
/// 64 KiB of a value, from which on it is read alone.
pub(crate) const LARGE: usize = 64 << 10;
/// 2 MiB of all values that a server sends by itself, once an answer was too large: half of one, for they grow.
const SENT_MAX: usize = MESSAGE_MAX / 2;
/// 8 bytes of a value that is no text, and beside each text and array: as many as a number has.
const SCALAR: usize = 8;
/// 8 variants in one another are looked into.
const DEPTH_MAX: u32 = 8;

/// Why a value that no answer can bring is none.
pub(crate) fn too_large(status: &str) -> String {
    format!(
        "its value is too large for an answer ({status}): at most {} MiB in {CHUNKS_MAX} chunks and {ELEMENTS_MAX} elements of an array are \
         taken; name a part of it with `index`, or remove the property; it is tried again once a minute",
        MESSAGE_MAX >> 20
    )
}

/// About how many bytes a value has in an answer.
pub(crate) fn of(data: &DataValue) -> usize {
    data.value.as_ref().map_or(SCALAR, |value| of_variant(value, DEPTH_MAX))
}

fn of_variant(value: &Variant, depth: u32) -> usize {
    let text = |text: &opcua_types::UAString| text.value().as_ref().map_or(0, String::len);
    match value {
        Variant::String(one) => SCALAR.saturating_add(text(one)),
        Variant::XmlElement(one) => SCALAR.saturating_add(one.to_string().len()),
        Variant::LocalizedText(one) => SCALAR.saturating_add(text(&one.text)),
        Variant::QualifiedName(one) => SCALAR.saturating_add(text(&one.name)),
        Variant::ByteString(bytes) => SCALAR.saturating_add(bytes.value.as_ref().map_or(0, Vec::len)),
        Variant::Variant(inside) if depth > 0 => of_variant(inside, depth - 1),
        Variant::Array(array) if depth > 0 => {
            let each = array.values.iter().map(|one| of_variant(one, depth - 1));
            each.fold(SCALAR, usize::saturating_add)
        }
        _ => SCALAR,
    }
}

/// A property that a server may send by itself.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Sent {
    pub(crate) place: usize,
    /// Of its value. None: it is too large for any answer.
    pub(crate) bytes: Option<usize>,
    /// How many values the server keeps until it sends them.
    pub(crate) queue: u32,
}

/// The places of those that fit into one answer together, the smallest first: so those that are too large cost themselves alone.
pub(crate) fn fitting(sent: impl IntoIterator<Item = Sent>) -> Vec<usize> {
    let mut weighed: Vec<(usize, usize)> = sent
        .into_iter()
        .filter_map(|one| {
            let bytes = one.bytes?;
            // Many values of a small one are seldom there, and the newest counts.
            let times =
                if bytes > LARGE { usize::try_from(one.queue).unwrap_or(usize::MAX).max(1) } else { 1 };
            Some((bytes.saturating_mul(times), one.place))
        })
        .collect();
    weighed.sort_unstable();
    let mut sum = 0_usize;
    let is_within = |(bytes, _): &(usize, usize)| {
        sum = sum.saturating_add(*bytes);
        sum <= SENT_MAX
    };
    weighed.into_iter().take_while(is_within).map(|(_, place)| place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(place: usize, bytes: Option<usize>, queue: u32) -> Sent {
        Sent { place, bytes, queue }
    }

    #[test]
    fn what_is_too_large_by_itself_or_together_is_left_out_and_nothing_else() {
        let all = [
            sent(0, Some(3_000_016), 1),
            sent(1, Some(20), 1),
            sent(2, None, 1),
            sent(3, Some(20), 1000),
            sent(4, Some(SENT_MAX - 40), 1),
        ];
        let mut kept = fitting(all);
        kept.sort_unstable();
        assert_eq!(kept, [1, 3, 4]);
        // One byte more, or a second value of it kept: it does not fit any more.
        assert_eq!(fitting([sent(1, Some(20), 1), sent(4, Some(SENT_MAX - 19), 1)]), [1]);
        assert_eq!(fitting([sent(1, Some(20), 1), sent(4, Some(SENT_MAX - 40), 2)]), [1]);
        assert_eq!(
            fitting([sent(1, Some(usize::MAX), 3), sent(2, Some(usize::MAX), 1)]),
            Vec::<usize>::new()
        );
    }

    #[test]
    fn a_value_has_about_the_bytes_that_it_has_in_an_answer() {
        let of = |value: Variant| of(&DataValue::value_only(value));
        assert!((300_000..300_100).contains(&of(Variant::from("x".repeat(300_000)))));
        assert!(of(Variant::from(vec![0.5_f64; 10_000])) >= 80_000);
        assert_eq!(of(Variant::Variant(Box::new(Variant::from(1_i32)))), SCALAR);
        assert_eq!(super::of(&DataValue::default()), SCALAR);
    }
}
