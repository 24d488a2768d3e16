//! Spans, times and sizes in a person's words. Pure.

/// 2 d 3 h, 5 min, 12 s: the largest unit, and the next one where that tells something.
pub(crate) fn span(seconds: u64) -> String {
    let units = [("d", 86_400), ("h", 3600), ("min", 60), ("s", 1)];
    let first = units.iter().position(|(_, size)| seconds >= *size).unwrap_or(units.len() - 1);
    let of = |at: usize, rest: u64| units.get(at).map(|(name, size)| (rest / size, *name, rest % size));
    let Some((count, name, rest)) = of(first, seconds) else { return String::new() };
    match of(first + 1, rest) {
        Some((next, unit, _)) if next > 0 && count < 10 => format!("{count} {name} {next} {unit}"),
        _ => format!("{count} {name}"),
    }
}

/// How long ago something was at `now`; both in seconds since 1970.
pub(crate) fn ago(unix: i64, now: i64) -> String {
    match u64::try_from(now.saturating_sub(unix)) {
        Ok(seconds) => format!("{} ago", span(seconds)),
        // A clock that was set back.
        Err(_) => "in the future".to_owned(),
    }
}

/// 2026-11-30 13:26:31 UTC.
pub(crate) fn time(unix: i64) -> String {
    let Ok(time) = jiff::Timestamp::from_second(unix) else { return "an unknown time".to_owned() };
    let text = time.to_string().replace('T', " ");
    format!("{} UTC", text.trim_end_matches('Z'))
}

/// The same of a time as Kubernetes writes it, and how long ago that was; what is none stays as it is.
pub(crate) fn time_ago(text: &str, now: i64) -> String {
    match text.parse::<jiff::Timestamp>() {
        Ok(time) => ago(time.as_second(), now),
        Err(_) => text.to_owned(),
    }
}

/// 1.4 GiB, 300 B.
pub(crate) fn bytes(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let power = (bytes.ilog2() / 10).min(6);
    let (whole, tenth) = (bytes >> (10 * power), (bytes >> (10 * (power - 1))) % 1024 * 10 / 1024);
    let unit = units.get(power as usize - 1).copied().unwrap_or_default();
    if whole < 10 { format!("{whole}.{tenth} {unit}") } else { format!("{whole} {unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_two_units_at_the_most() {
        let spans = [0, 59, 60, 61, 600, 3599, 7260, 86_400, 90_000, 950_400, u64::MAX].map(span);
        assert_eq!(
            spans[..10],
            ["0 s", "59 s", "1 min", "1 min 1 s", "10 min", "59 min", "2 h 1 min", "1 d", "1 d 1 h", "11 d"]
        );
        assert!(spans[10].ends_with(" d"));
    }

    #[test]
    fn times_are_in_utc_and_may_be_wrong() {
        assert_eq!(time(1_796_045_191), "2026-11-30 13:26:31 UTC");
        assert_eq!(time(i64::MAX), "an unknown time");
        assert_eq!((ago(10, 75).as_str(), ago(10, 5).as_str()), ("1 min 5 s ago", "in the future"));
        assert_eq!(ago(i64::MIN, i64::MAX), ago(0, i64::MAX));
        assert_eq!(time_ago("1970-01-01T00:00:10Z", 20), "10 s ago");
        assert_eq!(time_ago("<yesterday>", 20), "<yesterday>");
    }

    #[test]
    fn sizes_have_a_tenth_while_they_are_small() {
        let sizes = [0, 1023, 1024, 1536, 20_480, 5 << 30, u64::MAX].map(bytes);
        assert_eq!(sizes, ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "20 KiB", "5.0 GiB", "15 EiB"]);
    }
}
