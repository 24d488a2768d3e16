//! Amounts of resources: `100m`, `64Mi`, `1e3` (Kubernetes' `resource.Quantity`).

use std::ops::{Add, AddAssign};
use std::str::FromStr;

use serde_json::Value;
use thiserror::Error;

/// 256 characters: longer texts are no amounts that anybody wrote.
const LENGTH_MAX: usize = 256;
/// An amount is kept in billionths, the finest that Kubernetes keeps.
const NANOS: i128 = 1_000_000_000;
/// An amount with a binary suffix is capped here (2^63 - 1), as Kubernetes caps it.
const BINARY_MAX: i128 = i64::MAX as i128 * NANOS;

/// Why a text is no quantity, in the API server's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ParseQuantityError {
    /// It has not the form of one.
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    /// Its suffix is none of Kubernetes'.
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

/// An exact amount. Whatever is finer than a billionth is rounded away from zero, and what is larger than 10^29 is that
/// large.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Quantity {
    nanos: i128,
}

impl Quantity {
    /// No amount at all.
    pub const ZERO: Quantity = Quantity { nanos: 0 };

    /// So many thousandths.
    pub const fn from_millis(millis: i64) -> Self {
        Quantity { nanos: millis as i128 * (NANOS / 1000) }
    }

    /// A JSON text or number; `None` if it is no quantity.
    pub fn from_json(value: &Value) -> Option<Self> {
        match value {
            Value::String(text) => text.parse().ok(),
            Value::Number(number) => number.to_string().parse().ok(),
            _ => None,
        }
    }

    /// The amount as a whole number, rounded away from zero; at the bounds of `i64` when it does not fit.
    pub fn units(self) -> i64 {
        self.rounded(NANOS)
    }

    /// The amount in thousandths, rounded away from zero; at the bounds of `i64` when it does not fit.
    pub fn millis(self) -> i64 {
        self.rounded(NANOS / 1000)
    }

    /// The amount in billionths.
    pub fn nanos(self) -> i128 {
        self.nanos
    }

    fn rounded(self, part: i128) -> i64 {
        let away = self.nanos / part + (self.nanos % part).signum();
        i64::try_from(away).unwrap_or(if away < 0 { i64::MIN } else { i64::MAX })
    }
}

impl Add for Quantity {
    type Output = Quantity;
    fn add(self, more: Quantity) -> Quantity {
        Quantity { nanos: self.nanos.saturating_add(more.nanos) }
    }
}

impl AddAssign for Quantity {
    fn add_assign(&mut self, more: Quantity) {
        *self = *self + more;
    }
}

impl FromStr for Quantity {
    type Err = ParseQuantityError;

    fn from_str(text: &str) -> Result<Self, ParseQuantityError> {
        if text.is_empty() || text.len() > LENGTH_MAX {
            return Err(ParseQuantityError::Format);
        }
        let (negative, unsigned) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let (whole, rest) = digits(unsigned);
        let (fraction, suffix) = rest.strip_prefix('.').map_or(("", rest), digits);
        if !has_suffix_form(suffix) {
            return Err(ParseQuantityError::Format);
        }
        let scale = Scale::of(suffix).ok_or(ParseQuantityError::Suffix)?;
        let nanos = scale.nanos(whole, fraction);
        Ok(Quantity { nanos: if negative { -nanos } else { nanos } })
    }
}

fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

/// Letters of suffixes, then a sign, then digits.
fn has_suffix_form(suffix: &str) -> bool {
    let rest = suffix.trim_start_matches(|c| "eEinumkKMGTP".contains(c));
    let rest = rest.strip_prefix(['+', '-']).unwrap_or(rest);
    rest.bytes().all(|byte| byte.is_ascii_digit())
}

/// What a suffix multiplies by.
enum Scale {
    /// 10 to this power.
    Decimal(i64),
    /// 2 to this power.
    Binary(u32),
}

impl Scale {
    fn of(suffix: &str) -> Option<Scale> {
        Some(match suffix {
            "n" => Scale::Decimal(-9),
            "u" => Scale::Decimal(-6),
            "m" => Scale::Decimal(-3),
            "" => Scale::Decimal(0),
            "k" => Scale::Decimal(3),
            "M" => Scale::Decimal(6),
            "G" => Scale::Decimal(9),
            "T" => Scale::Decimal(12),
            "P" => Scale::Decimal(15),
            "E" => Scale::Decimal(18),
            "Ki" => Scale::Binary(10),
            "Mi" => Scale::Binary(20),
            "Gi" => Scale::Binary(30),
            "Ti" => Scale::Binary(40),
            "Pi" => Scale::Binary(50),
            "Ei" => Scale::Binary(60),
            exponent => Scale::Decimal(i64::from(exponent.strip_prefix(['e', 'E'])?.parse::<i32>().ok()?)),
        })
    }

    /// The amount of `whole`.`fraction` in billionths, rounded up.
    fn nanos(&self, whole: &str, fraction: &str) -> i128 {
        match *self {
            Scale::Decimal(power) => shifted(whole, fraction, power.saturating_add(9)),
            Scale::Binary(power) => {
                let exact = shifted(whole, fraction, 9 + i64::from(BINARY_DIGITS));
                let up = i128::from(exact % BINARY_POWER != 0);
                match exact.checked_mul(1 << power) {
                    Some(scaled) => {
                        (scaled / BINARY_POWER + i128::from(scaled % BINARY_POWER != 0)).min(BINARY_MAX)
                    }
                    // So large that what stands behind the billionths does not count.
                    None => (exact / BINARY_POWER + up).saturating_mul(1 << power).min(BINARY_MAX),
                }
            }
        }
    }
}

/// A binary suffix makes billionths of smaller fractions: 9 more digits are kept for them.
const BINARY_DIGITS: u32 = 9;
const BINARY_POWER: i128 = 10_i128.pow(BINARY_DIGITS);

/// `whole`.`fraction` times 10 to the power of `power` as a whole number, rounded up, at most [`i128::MAX`].
fn shifted(whole: &str, fraction: &str, power: i64) -> i128 {
    let digits = || whole.bytes().chain(fraction.bytes()).map(|digit| i128::from(digit - b'0'));
    if digits().all(|digit| digit == 0) {
        return 0;
    }
    // How many of the digits stand before the point once it has moved.
    let before = i64::try_from(whole.len()).unwrap_or(i64::MAX).saturating_add(power);
    let mut amount = 0_i128;
    let mut at = 0_i64;
    for digit in digits() {
        if at >= before {
            // What is left is a fraction of one.
            let rest = i64::try_from(whole.len() + fraction.len()).unwrap_or(i64::MAX) - at;
            let skip = usize::try_from(at).unwrap_or(usize::MAX);
            let up = rest > 0 && digits().skip(skip).any(|digit| digit != 0);
            return amount.saturating_add(i128::from(up));
        }
        amount = amount.saturating_mul(10).saturating_add(digit);
        at += 1;
    }
    while at < before && amount < i128::MAX {
        amount = amount.saturating_mul(10);
        at += 1;
    }
    amount
}

/// The units of an amount of bytes, and of anything else, a step apart each.
const BINARY_UNITS: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
const DECIMAL_UNITS: [&str; 7] = ["", "k", "M", "G", "T", "P", "E"];

impl Quantity {
    /// Bytes as Kubernetes writes them: `100Mi`, `52428Ki`, `1025`.
    pub fn binary_text(bytes: u64) -> String {
        text(bytes, 1024, &BINARY_UNITS)
    }

    /// Bytes for people: in the largest unit of which there is one, with a tenth of it and no more (`102.3Mi`), rounded down.
    pub fn about(bytes: u64) -> String {
        let (mut at, mut unit) = (0, 1_u64);
        while at + 1 < BINARY_UNITS.len() && bytes / unit >= 1024 {
            unit *= 1024;
            at += 1;
        }
        let name = BINARY_UNITS.get(at).unwrap_or(&"");
        match u128::from(bytes % unit) * 10 / u128::from(unit) {
            0 => format!("{}{name}", bytes / unit),
            tenths => format!("{}.{tenths}{name}", bytes / unit),
        }
    }

    /// A number of something as Kubernetes writes it: `5k`, `1234`.
    pub fn decimal_text(number: u64) -> String {
        text(number, 1000, &DECIMAL_UNITS)
    }
}

/// With the largest unit of which it is a whole number.
fn text(mut amount: u64, step: u64, units: &[&str]) -> String {
    let mut at = 0;
    while amount > 0 && amount.is_multiple_of(step) && at + 1 < units.len() {
        amount /= step;
        at += 1;
    }
    format!("{amount}{}", units.get(at).unwrap_or(&""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_written_as_kubernetes_writes_them() {
        let written: Vec<String> =
            [0, 1025, 1024, 100 << 20, 52_428 << 10, 1 << 60].map(Quantity::binary_text).into();
        assert_eq!(written, ["0", "1025", "1Ki", "100Mi", "52428Ki", "1Ei"]);
        let about = [0, 1023, 1024, 107_374_182, 5 << 29, 2 << 30, u64::MAX].map(Quantity::about);
        assert_eq!(about, ["0", "1023", "1Ki", "102.3Mi", "2.5Gi", "2Gi", "15.9Ei"]);
        assert_eq!([0, 5000, 1234, 32_000_000].map(Quantity::decimal_text), ["0", "5k", "1234", "32M"]);
    }

    use serde_json::json;

    /// Text, and what Kubernetes' own parser makes of it in billionths.
    const TABLE: &[(&str, i128)] = &[
        ("0", 0),
        ("-0", 0),
        ("+1", NANOS),
        ("1", NANOS),
        ("007", 7 * NANOS),
        ("100m", NANOS / 10),
        ("0.5", NANOS / 2),
        (".5", NANOS / 2),
        ("5.", 5 * NANOS),
        (".", 0),
        ("Ki", 0),
        ("m", 0),
        ("e3", 0),
        ("0Ki", 0),
        ("1.5", 3 * NANOS / 2),
        ("-1.5", -3 * NANOS / 2),
        ("1Ki", 1024 * NANOS),
        ("1.5Gi", 1_610_612_736 * NANOS),
        ("0.5Gi", 536_870_912 * NANOS),
        ("64Mi", 67_108_864 * NANOS),
        ("2k", 2000 * NANOS),
        ("1e3", 1000 * NANOS),
        ("1E3", 1000 * NANOS),
        ("1E5", 100_000 * NANOS),
        ("1e+3", 1000 * NANOS),
        ("1e-3", NANOS / 1000),
        ("1.1e1", 11 * NANOS),
        ("1E", 1_000_000_000_000_000_000 * NANOS),
        ("12e-9", 12),
        ("1n", 1),
        ("1u", 1000),
        ("0.1n", 1),
        ("4.5n", 5),
        ("0.001n", 1),
        ("0.0000000001", 1),
        ("-0.0000000001", -1),
        ("1e-10", 1),
        ("1e-999", 1),
        ("1.0000000001", NANOS + 1),
        ("123456789.123456789", 123_456_789_123_456_789),
        ("9223372036854775807", 9_223_372_036_854_775_807 * NANOS),
        ("9223372036854775808", 9_223_372_036_854_775_808 * NANOS),
        ("-9223372036854775809", -9_223_372_036_854_775_809 * NANOS),
        ("9223372036854775807m", 9_223_372_036_854_775_807_000_000),
        ("999999999999999999.999999999", 999_999_999_999_999_999_999_999_999),
        ("1234567890123456789012.5", 1_234_567_890_123_456_789_012_500_000_000),
        ("7Ei", 8_070_450_532_247_928_832 * NANOS),
        ("8Ei", 9_223_372_036_854_775_807 * NANOS),
        ("10E", 10_000_000_000_000_000_000 * NANOS),
    ];

    #[test]
    fn quantities_are_read_as_kubernetes_reads_them() {
        for (text, nanos) in TABLE {
            let read: Quantity = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(read.nanos(), *nanos, "{text}");
        }
    }

    #[test]
    fn what_kubernetes_refuses_is_refused_for_the_same_reason() {
        use ParseQuantityError::{Format, Suffix};
        let format =
            ["", "1.2.3", "1Zi", "1 ", " 1", "1 core", "ten", "1g", "1_0", "1e3k", "0x10", "100e-1m"];
        let suffix = ["1i", "1mi", "0.1mi", "1+1", "-3.01e-", "1e", "++1", "--1", "1K", "1Ki1", "1m1"];
        for text in format {
            assert_eq!(text.parse::<Quantity>(), Err(Format), "{text:?}");
        }
        for text in suffix {
            assert_eq!(text.parse::<Quantity>(), Err(Suffix), "{text:?}");
        }
        assert_eq!("9".repeat(LENGTH_MAX + 1).parse::<Quantity>(), Err(Format));
    }

    #[test]
    fn what_does_not_fit_is_as_large_as_can_be() {
        for text in ["1e40", "1e999", "99999999999999999999999999999999999999999", &"9".repeat(LENGTH_MAX)] {
            let read: Quantity = text.parse().unwrap();
            assert_eq!(read.units(), i64::MAX, "{text}");
            assert_eq!((read + read).millis(), i64::MAX, "{text}");
        }
        assert_eq!("-1e40".parse::<Quantity>().unwrap().units(), i64::MIN);
        assert_eq!("99999999999Ei".parse::<Quantity>().unwrap().units(), i64::MAX);
        assert_eq!("1e2147483647".parse::<Quantity>().unwrap().units(), i64::MAX);
        assert_eq!("1e-2147483648".parse::<Quantity>().unwrap().nanos(), 1);
    }

    #[test]
    fn whole_numbers_and_thousandths_are_rounded_away_from_zero() {
        let read = |text: &str| text.parse::<Quantity>().unwrap();
        assert_eq!((read("100m").units(), read("100m").millis()), (1, 100));
        assert_eq!((read("1.0000000001").units(), read("1.0000000001").millis()), (2, 1001));
        assert_eq!((read("-1.5").units(), read("-1.5").millis()), (-2, -1500));
        assert_eq!(read("0.3Ki").nanos(), 307_200_000_000);
        assert_eq!(read("0.0000000001Ki").nanos(), 103, "102.4 billionths");
        assert!(read("1Gi") > read("1G") && read("1000m") == read("1"));
        assert_eq!(Quantity::from_millis(1500), read("1.5"));
    }

    #[test]
    fn numbers_in_json_are_quantities_too() {
        assert_eq!(Quantity::from_json(&json!(2)), "2".parse().ok());
        assert_eq!(Quantity::from_json(&json!(0.5)), "500m".parse().ok());
        assert_eq!(Quantity::from_json(&json!(null)), None);
        assert_eq!(Quantity::from_json(&json!("1Zi")), None);
    }
}
