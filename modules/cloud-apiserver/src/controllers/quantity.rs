//! Amounts of resources: `100m`, `1Gi`, `1e3`.

use std::collections::BTreeMap;

use serde_json::Value;

/// Amounts in thousandths, by resource.
pub(crate) type Amounts = BTreeMap<String, i128>;

/// The amount in thousandths, rounded up; `None` if it is none.
pub(crate) fn thousandths(value: &Value) -> Option<i128> {
    match value {
        Value::String(text) => parse(text),
        Value::Number(number) => parse(&number.to_string()),
        _ => None,
    }
}

fn parse(text: &str) -> Option<i128> {
    let (sign, text) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (digits, suffix) = text.split_at(end);
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    // More digits than 18 before and 9 behind the point are no amount of anything.
    if whole.len() + part.len() == 0 || whole.len() > 18 || part.len() > 9 || part.contains('.') {
        return None;
    }
    let scaled: i128 = format!("{whole}{part}").parse().ok()?;
    let (factor, divisor) = scale(suffix)?;
    let below = 10_i128.checked_pow(u32::try_from(part.len()).ok()?)?.checked_mul(divisor)?;
    let above = scaled.checked_mul(1000)?.checked_mul(factor)?;
    let up = above.checked_add(below - 1)? / below;
    Some(sign * up)
}

/// What a suffix multiplies by, and divides by.
fn scale(suffix: &str) -> Option<(i128, i128)> {
    let factor = match suffix {
        "" => 1,
        "n" => return Some((1, 1_000_000_000)),
        "u" => return Some((1, 1_000_000)),
        "m" => return Some((1, 1000)),
        "k" => 1000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "T" => 1_000_000_000_000,
        "P" => 1_000_000_000_000_000,
        "E" => 1_000_000_000_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        "Pi" => 1 << 50,
        "Ei" => 1 << 60,
        other => {
            let exponent: i32 = other.strip_prefix(['e', 'E'])?.parse().ok()?;
            let power = 10_i128.checked_pow(exponent.unsigned_abs().min(18))?;
            return Some(if exponent < 0 { (1, power) } else { (power, 1) });
        }
    };
    Some((factor, 1))
}

/// What a pod asks for: the larger of what its containers need together and what each init container needs in its turn.
pub(crate) fn requests(pod: &Value) -> Amounts {
    let spec = &pod["spec"];
    let mut running = Amounts::new();
    let mut starting = Amounts::new();
    for container in crate::controllers::object::list(spec, "/initContainers") {
        let own = amounts(&container["resources"]["requests"]);
        if container["restartPolicy"] == "Always" {
            // A sidecar goes on beside everything that comes after it.
            add(&mut running, &own);
            larger(&mut starting, &running);
        } else {
            let mut together = running.clone();
            add(&mut together, &own);
            larger(&mut starting, &together);
        }
    }
    for container in crate::controllers::object::list(spec, "/containers") {
        add(&mut running, &amounts(&container["resources"]["requests"]));
    }
    larger(&mut running, &starting);
    add(&mut running, &amounts(&spec["overhead"]));
    running
}

/// A map of amounts; what is no amount is left out.
pub(crate) fn amounts(map: &Value) -> Amounts {
    let entries = map.as_object().into_iter().flatten();
    entries.filter_map(|(name, value)| Some((name.clone(), thousandths(value)?))).collect()
}

pub(crate) fn add(to: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        let sum = to.entry(name.clone()).or_default();
        *sum = sum.saturating_add(*amount);
    }
}

fn larger(to: &mut Amounts, other: &Amounts) {
    for (name, amount) in other {
        let kept = to.entry(name.clone()).or_default();
        *kept = (*kept).max(*amount);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn amounts_are_read_as_kubernetes_writes_them() {
        let cases = [
            ("1", 1000),
            ("100m", 100),
            ("1.5", 1500),
            ("0.5Gi", 536_870_912_000),
            ("1Ki", 1_024_000),
            ("2e3", 2_000_000),
            ("1E2", 100_000),
            ("1n", 1),
            ("-1", -1000),
            ("1E", 1_000_000_000_000_000_000_000),
        ];
        for (text, wanted) in cases {
            assert_eq!(thousandths(&json!(text)), Some(wanted), "{text}");
        }
        assert_eq!(thousandths(&json!(2)), Some(2000));
        for bad in ["", "x", "1.2.3", "1Zi", ".", "1e", "99999999999999999999999"] {
            assert_eq!(thousandths(&json!(bad)), None, "{bad}");
        }
    }

    #[test]
    fn init_containers_count_by_the_largest_and_sidecars_all_along() {
        let ask = |cpu: &str| json!({"resources": {"requests": {"cpu": cpu}}});
        let mut sidecar = ask("100m");
        sidecar["restartPolicy"] = json!("Always");
        let pod = json!({"spec": {
            "initContainers": [ask("1"), sidecar, ask("2")],
            "containers": [ask("500m"), ask("500m")],
            "overhead": {"cpu": "10m"},
        }});
        assert_eq!(requests(&pod)["cpu"], 2100 + 10);
    }
}
