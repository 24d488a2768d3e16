//! How the kubelet's configuration writes times and sizes: `1m30s`, `10Mi`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use apimachinery::Quantity;
use serde::{Deserialize, Serialize};

/// 32 characters: longer ones are nothing that anybody wrote.
const LENGTH_MAX: usize = 32;
/// What a unit of time is in nanoseconds, the longest first.
const UNITS: [(&str, u64); 6] = [
    ("h", 3_600_000_000_000),
    ("ms", 1_000_000),
    ("m", 60_000_000_000),
    ("us", 1000),
    ("ns", 1),
    ("s", 1_000_000_000),
];

/// A time as Go writes it: `2m`, `1h0m30s`, `0s`; a bare 0 is none at all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "TextOrNumber")]
pub struct KubeletDuration(pub Duration);

impl KubeletDuration {
    /// So many seconds.
    pub const fn from_secs(seconds: u64) -> KubeletDuration {
        KubeletDuration(Duration::from_secs(seconds))
    }
}

impl FromStr for KubeletDuration {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let no_time = || format!("`{}` is no time: write 30s, 5m or 1h30m", shown(text));
        if text.len() > LENGTH_MAX || text.is_empty() {
            return Err(no_time());
        }
        let (mut rest, mut nanos) = (text, 0_u64);
        if rest == "0" {
            return Ok(KubeletDuration::default());
        }
        while !rest.is_empty() {
            let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            let (number, tail) = rest.split_at(digits);
            let unit = UNITS.iter().find(|(unit, _)| tail.starts_with(unit));
            let (unit, each) = unit.ok_or_else(no_time)?;
            let number: u64 = number.parse().map_err(|_| no_time())?;
            let part = number.checked_mul(*each).ok_or_else(no_time)?;
            nanos = nanos.checked_add(part).ok_or_else(no_time)?;
            rest = tail.get(unit.len()..).unwrap_or_default();
        }
        Ok(KubeletDuration(Duration::from_nanos(nanos)))
    }
}

impl fmt::Display for KubeletDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let nanos = self.0.subsec_nanos();
        let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
        if hours > 0 {
            write!(f, "{hours}h")?;
        }
        if minutes > 0 {
            write!(f, "{minutes}m")?;
        }
        match (nanos, seconds % 60) {
            (0, 0) if seconds > 0 => Ok(()),
            (0, seconds) => write!(f, "{seconds}s"),
            (nanos, 0) if seconds == 0 && nanos % 1_000_000 == 0 => write!(f, "{}ms", nanos / 1_000_000),
            (nanos, seconds) => write!(f, "{seconds}s{nanos}ns"),
        }
    }
}

impl From<KubeletDuration> for String {
    fn from(duration: KubeletDuration) -> String {
        duration.to_string()
    }
}

/// The size of a file: `10Mi`; a negative one is no bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "TextOrNumber")]
pub struct FileSize(pub Option<u64>);

impl FromStr for FileSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let no_size = || format!("`{}` is no size: write 10Mi, or -1 for no bound", shown(text));
        let amount: Quantity = Some(text)
            .filter(|text| text.len() <= LENGTH_MAX)
            .ok_or_else(no_size)?
            .parse()
            .map_err(|_| no_size())?;
        match amount.units() {
            0 => Err(no_size()),
            units => Ok(FileSize(u64::try_from(units).ok())),
        }
    }
}

impl fmt::Display for FileSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.write_str("-1"),
            Some(bytes) if bytes % (1 << 20) == 0 => write!(f, "{}Mi", bytes >> 20),
            Some(bytes) if bytes % (1 << 10) == 0 => write!(f, "{}Ki", bytes >> 10),
            Some(bytes) => write!(f, "{bytes}"),
        }
    }
}

impl From<FileSize> for String {
    fn from(size: FileSize) -> String {
        size.to_string()
    }
}

fn shown(text: &str) -> String {
    text.chars().take(LENGTH_MAX).collect::<String>().escape_debug().to_string()
}

/// YAML takes `0` and `-1` for numbers.
#[derive(Deserialize)]
#[serde(untagged)]
enum TextOrNumber {
    Text(String),
    Number(i64),
}

impl TryFrom<TextOrNumber> for KubeletDuration {
    type Error = String;

    fn try_from(value: TextOrNumber) -> Result<Self, String> {
        value.text().parse()
    }
}

impl TryFrom<TextOrNumber> for FileSize {
    type Error = String;

    fn try_from(value: TextOrNumber) -> Result<Self, String> {
        value.text().parse()
    }
}

impl TextOrNumber {
    fn text(self) -> String {
        match self {
            TextOrNumber::Text(text) => text,
            TextOrNumber::Number(number) => number.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_go_writes_them() {
        for (text, seconds) in
            [("2m", 120), ("5m0s", 300), ("1h30m10s", 5410), ("0s", 0), ("0", 0), ("90s", 90)]
        {
            let read: KubeletDuration = text.parse().unwrap();
            assert_eq!(read, KubeletDuration::from_secs(seconds), "{text}");
            assert_eq!(read.to_string().parse(), Ok(read), "{text}");
        }
        assert_eq!("300ms".parse(), Ok(KubeletDuration(Duration::from_millis(300))));
        assert_eq!(KubeletDuration::from_secs(120).to_string(), "2m");
        for text in ["", "s", "2", "-1s", "1d", "1.5s", "m2", "9999999999999999h"] {
            assert!(text.parse::<KubeletDuration>().is_err(), "{text}");
        }
        let number: KubeletDuration = serde_saphyr::from_str("0").unwrap();
        assert_eq!(number, KubeletDuration::default());
    }

    #[test]
    fn sizes_are_quantities_and_a_negative_one_is_no_bound() {
        for (text, bytes) in [("10Mi", Some(10 << 20)), ("5k", Some(5000)), ("-1", None), ("1Ki", Some(1024))]
        {
            let read: FileSize = text.parse().unwrap();
            assert_eq!(read, FileSize(bytes), "{text}");
            assert_eq!(read.to_string().parse(), Ok(read), "{text}");
        }
        for text in ["", "0", "Mi", "ten"] {
            assert!(text.parse::<FileSize>().is_err(), "{text}");
        }
        let number: FileSize = serde_saphyr::from_str("-1").unwrap();
        assert_eq!(number, FileSize(None));
    }
}
