//! Amounts as Kubernetes writes them (`resource.Quantity`). Pure.

const BINARY: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
const DECIMAL: [&str; 7] = ["", "k", "M", "G", "T", "P", "E"];

/// Bytes: `100Mi`, `52428Ki`, `1025`.
pub(super) fn bytes(amount: u64) -> String {
    shown(amount, 1024, &BINARY)
}

/// A number of something: `5k`, `1234`.
pub(super) fn number(amount: u64) -> String {
    shown(amount, 1000, &DECIMAL)
}

/// With the largest unit of which it is a whole number.
fn shown(mut amount: u64, step: u64, units: &[&str]) -> String {
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
    fn amounts_are_shown_as_kubernetes_shows_them() {
        let shown: Vec<String> = [0, 1025, 1024, 100 << 20, 52_428 << 10, 1 << 60].map(bytes).into();
        assert_eq!(shown, ["0", "1025", "1Ki", "100Mi", "52428Ki", "1Ei"]);
        assert_eq!([0, 5000, 1234, 32_000_000].map(number), ["0", "5k", "1234", "32M"]);
    }
}
