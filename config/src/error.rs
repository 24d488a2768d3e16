//! What is wrong with a config file.

use std::path::PathBuf;

use thiserror::Error;

/// 1 MiB: the largest config file that is read.
pub const FILE_MAX: u64 = 1 << 20;

/// One thing that is wrong, by its dotted key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Defect {
    /// The dotted key, as `modules.edgeHub.heartbeat`.
    pub key: String,
    /// What is wrong with its value, and what would be right.
    pub what: String,
}

impl Defect {
    pub(crate) fn new(key: &str, what: impl Into<String>) -> Self {
        Defect { key: key.to_owned(), what: what.into() }
    }
}

/// The dotted key of a setting that is the kubelet's.
pub(crate) fn kubelet_key(name: &str) -> String {
    format!("modules.edged.tailoredKubeletConfig.{name}")
}

/// Why a config file was not taken.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("cannot read config file `{path}`: check that it exists and may be read")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is too large to be a config file.
    #[error("config file `{path}` has {size} bytes; at most {FILE_MAX} are read")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        size: u64,
    },
    /// It is a folder, a pipe or a device.
    #[error("`{0}` is no regular file, and no config file")]
    NoFile(PathBuf),
    /// It is no YAML of the expected shape.
    #[error("config file `{path}` is not understood: {reason}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        reason: String,
    },
    /// Values are wrong.
    #[error("config file `{path}` has {}: {}", counted(.defects.len()), told(.defects))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// All of them.
        defects: Vec<Defect>,
    },
}

fn counted(defects: usize) -> String {
    if defects == 1 { "1 wrong value".to_owned() } else { format!("{defects} wrong values") }
}

fn told(defects: &[Defect]) -> String {
    let lines: Vec<String> = defects.iter().map(|d| format!("`{}` {}", d.key, d.what)).collect();
    lines.join("; ")
}
