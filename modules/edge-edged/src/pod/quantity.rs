//! Kubernetes quantities (`100m`, `64Mi`, `1e3`), read exactly enough for limits.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// 64 characters: longer ones are no quantities that anybody wrote.
const LENGTH_MAX: usize = 64;

/// The value in thousandths, rounded up; `None` when the text is no quantity or does not fit.
pub(crate) fn milli(text: &str) -> Option<i128> {
    let text = text.trim();
    if text.is_empty() || text.len() > LENGTH_MAX {
        return None;
    }
    let (negative, text) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let digits: String = format!("{whole}{fraction}");
    let mantissa: i128 = if digits.is_empty() { 0 } else { digits.parse().ok()? };
    let places = u32::try_from(fraction.len()).ok()?;
    let (numerator, denominator) = scale(suffix)?;
    let top = mantissa.checked_mul(numerator)?.checked_mul(1000)?;
    let bottom = denominator.checked_mul(10_i128.checked_pow(places)?)?;
    let value = top / bottom + i128::from(top % bottom != 0);
    Some(if negative { -value } else { value })
}

/// The factor of a suffix as a fraction.
fn scale(suffix: &str) -> Option<(i128, i128)> {
    let binary = |power: u32| Some((1024_i128.checked_pow(power)?, 1));
    let decimal = |power: u32| Some((1000_i128.checked_pow(power)?, 1));
    match suffix {
        "" => Some((1, 1)),
        "n" => Some((1, 1_000_000_000)),
        "u" => Some((1, 1_000_000)),
        "m" => Some((1, 1000)),
        "k" => decimal(1),
        "M" => decimal(2),
        "G" => decimal(3),
        "T" => decimal(4),
        "P" => decimal(5),
        "E" => decimal(6),
        "Ki" => binary(1),
        "Mi" => binary(2),
        "Gi" => binary(3),
        "Ti" => binary(4),
        "Pi" => binary(5),
        "Ei" => binary(6),
        other => {
            let exponent: i32 = other.strip_prefix(['e', 'E'])?.parse().ok()?;
            let power = 10_i128.checked_pow(exponent.unsigned_abs())?;
            Some(if exponent >= 0 { (power, 1) } else { (1, power) })
        }
    }
}

/// The value rounded up to a whole number.
pub(crate) fn units(quantity: &Quantity) -> Option<i64> {
    let milli = milli(&quantity.0)?;
    i64::try_from(milli.div_euclid(1000) + i128::from(milli.rem_euclid(1000) != 0)).ok()
}

/// The value in thousandths.
pub(crate) fn milli_units(quantity: &Quantity) -> Option<i64> {
    i64::try_from(milli(&quantity.0)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_as_kubernetes_writes_them() {
        for (text, want) in [
            ("100m", 100),
            ("1", 1000),
            ("0.5", 500),
            (".5", 500),
            ("2k", 2_000_000),
            ("64Mi", 64 * 1024 * 1024 * 1000),
            ("1e3", 1_000_000),
            ("1E", 1_000_000_000_000_000_000_000),
            ("100n", 1),
            ("-1", -1000),
        ] {
            assert_eq!(milli(text), Some(want), "{text}");
        }
        for text in ["", "x", "1x", "1.2.3", "1e", "e3", "1e999", &"9".repeat(65)] {
            assert_eq!(milli(text), None, "{text}");
        }
    }
}
