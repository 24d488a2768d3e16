//! The kubelet's eviction bounds: `10%` of the whole, or an amount like `100Mi`.

use std::fmt;
use std::str::FromStr;

use apimachinery::Quantity;
use serde::{Deserialize, Serialize};

/// 32 characters: longer ones are no bounds that anybody wrote.
const LENGTH_MAX: usize = 32;
/// A whole in hundredths of a percent.
const WHOLE: u64 = 10_000;

/// How much has to be left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Threshold {
    /// A part of the whole, in hundredths of a percent: 0 to 10,000.
    Part(u64),
    /// An amount: bytes, inodes or processes.
    Amount(u64),
}

impl Threshold {
    /// How much that is of `whole`.
    pub fn of(self, whole: u64) -> u64 {
        match self {
            Threshold::Part(part) => {
                u64::try_from(u128::from(whole) * u128::from(part) / u128::from(WHOLE)).unwrap_or(whole)
            }
            Threshold::Amount(amount) => amount,
        }
    }
}

impl FromStr for Threshold {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        read(text).ok_or_else(|| {
            let shown: String = text.chars().take(LENGTH_MAX).collect();
            format!(
                "`{}` is no bound: write a percentage like 10%, an amount like 100Mi, or 0% for none",
                shown.escape_debug()
            )
        })
    }
}

fn read(text: &str) -> Option<Threshold> {
    if text.len() > LENGTH_MAX {
        return None;
    }
    if let Some(percent) = text.strip_suffix('%') {
        let (whole, fraction) = percent.split_once('.').unwrap_or((percent, ""));
        let fraction = format!("{fraction:0<2}");
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || fraction.len() != 2 || !digits(whole) || !digits(&fraction) {
            return None;
        }
        let part = whole.parse::<u64>().ok()?.checked_mul(100)? + fraction.parse::<u64>().ok()?;
        return (part <= WHOLE).then_some(Threshold::Part(part));
    }
    let amount: Quantity = text.parse().ok()?;
    // As the kubelet: `0%` takes a bound away, an amount has to be one.
    u64::try_from(amount.units()).ok().filter(|amount| *amount > 0).map(Threshold::Amount)
}

impl fmt::Display for Threshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Threshold::Part(part) if part % 100 == 0 => write!(f, "{}%", part / 100),
            Threshold::Part(part) => write!(f, "{}.{:02}%", part / 100, part % 100),
            Threshold::Amount(amount) if *amount > 0 && amount % (1 << 20) == 0 => {
                write!(f, "{}Mi", amount >> 20)
            }
            Threshold::Amount(amount) => write!(f, "{amount}"),
        }
    }
}

impl From<Threshold> for String {
    fn from(threshold: Threshold) -> String {
        threshold.to_string()
    }
}

impl TryFrom<String> for Threshold {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// The kubelet's `evictionHard`. Below a bound the node says that it is pressed, and gets no new pods.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvictionHard {
    /// Memory.
    #[serde(rename = "memory.available")]
    pub memory_available: Threshold,
    /// Room on the file system of `rootDirectory`.
    #[serde(rename = "nodefs.available")]
    pub nodefs_available: Threshold,
    /// Inodes of that file system.
    #[serde(rename = "nodefs.inodesFree")]
    pub nodefs_inodes_free: Threshold,
    /// Room on the file system of the runtime's images.
    #[serde(rename = "imagefs.available")]
    pub imagefs_available: Threshold,
    /// Inodes of that file system.
    #[serde(rename = "imagefs.inodesFree")]
    pub imagefs_inodes_free: Threshold,
    /// Processes that may still start.
    #[serde(rename = "pid.available")]
    pub pid_available: Threshold,
}

impl Default for EvictionHard {
    fn default() -> Self {
        EvictionHard {
            memory_available: Threshold::Amount(100 << 20),
            nodefs_available: Threshold::Part(1000),
            nodefs_inodes_free: Threshold::Part(500),
            imagefs_available: Threshold::Part(1500),
            imagefs_inodes_free: Threshold::Part(500),
            pid_available: Threshold::Part(500),
        }
    }
}

/// One value for each of some signals, by the kubelet's names of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, bound(deserialize = "T: Deserialize<'de>"))]
pub struct EvictionSignals<T> {
    /// Memory.
    #[serde(rename = "memory.available", skip_serializing_if = "Option::is_none")]
    pub memory_available: Option<T>,
    /// Room on the file system of `rootDirectory`.
    #[serde(rename = "nodefs.available", skip_serializing_if = "Option::is_none")]
    pub nodefs_available: Option<T>,
    /// Inodes of that file system.
    #[serde(rename = "nodefs.inodesFree", skip_serializing_if = "Option::is_none")]
    pub nodefs_inodes_free: Option<T>,
    /// Room on the file system of the runtime's images.
    #[serde(rename = "imagefs.available", skip_serializing_if = "Option::is_none")]
    pub imagefs_available: Option<T>,
    /// Inodes of that file system.
    #[serde(rename = "imagefs.inodesFree", skip_serializing_if = "Option::is_none")]
    pub imagefs_inodes_free: Option<T>,
    /// Processes that may still start.
    #[serde(rename = "pid.available", skip_serializing_if = "Option::is_none")]
    pub pid_available: Option<T>,
}

impl<T> Default for EvictionSignals<T> {
    fn default() -> Self {
        EvictionSignals {
            memory_available: None,
            nodefs_available: None,
            nodefs_inodes_free: None,
            imagefs_available: None,
            imagefs_inodes_free: None,
            pid_available: None,
        }
    }
}

impl<T> EvictionSignals<T> {
    /// The values with the kubelet's names of their signals.
    pub fn named(&self) -> [(&'static str, Option<&T>); 6] {
        [
            ("memory.available", self.memory_available.as_ref()),
            ("nodefs.available", self.nodefs_available.as_ref()),
            ("nodefs.inodesFree", self.nodefs_inodes_free.as_ref()),
            ("imagefs.available", self.imagefs_available.as_ref()),
            ("imagefs.inodesFree", self.imagefs_inodes_free.as_ref()),
            ("pid.available", self.pid_available.as_ref()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_read_as_the_kubelet_reads_them() {
        for (text, of_a_million) in [
            ("10%", 100_000),
            ("0%", 0),
            ("2.5%", 25_000),
            ("100%", 1_000_000),
            ("100Mi", 100 << 20),
            ("7k", 7000),
            ("1e3", 1000),
        ] {
            let threshold: Threshold = text.parse().unwrap();
            assert_eq!(threshold.of(1_000_000), of_a_million, "{text}");
            assert_eq!(threshold.to_string().parse(), Ok(threshold), "{text}");
        }
        for text in ["", "%", "101%", "-1%", "1.234%", "1.x%", "Mi", "1 Mi", "0", "0Mi", "-1Gi"] {
            assert!(text.parse::<Threshold>().is_err(), "{text}");
        }
    }
}
