//! Values: of OPC UA on the one side (Part 6 §5.1), of twins on the other. Nothing is rounded to fit, cut, or guessed.

mod decode;
mod encode;
#[cfg(test)]
mod tests;

pub(crate) use decode::{decode, of_data_value};
pub(crate) use encode::{encode, encode_array, encode_element};

/// 100 ns: what a DateTime counts (Part 6 §5.2.2.5).
const TICK_NANOS: i128 = 100;
/// Seconds from 1601, where a DateTime begins, to 1970.
const EPOCH_SECONDS: i128 = 11_644_473_600;
/// Ticks of a second.
const TICKS: i128 = 1_000_000_000 / TICK_NANOS;
/// 2^53: where whole numbers stop to be exact in 64 bits of a float.
const EXACT: f64 = 9_007_199_254_740_992.0;
