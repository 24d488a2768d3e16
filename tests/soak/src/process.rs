//! What a daemon has used, by the kernel's word.

use anyhow::{Context, Result};

/// Resident memory in bytes.
pub(crate) fn resident(pid: u32) -> Result<f64> {
    memory(pid, "VmRSS")
}

/// The most resident memory that it ever had, in bytes.
pub(crate) fn peak(pid: u32) -> Result<f64> {
    memory(pid, "VmHWM")
}

fn memory(pid: u32, what: &'static str) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(what)?.strip_prefix(':'));
    let line = line.with_context(|| format!("no {what}"))?;
    let kib: f64 = line.trim().trim_end_matches("kB").trim().parse().context(what)?;
    Ok(kib * 1024.0)
}

/// Seconds of a core.
pub(crate) fn spent(pid: u32) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // After the name, which may hold anything: user time is the 12th, system time the 13th, in hundredths.
    let (_, rest) = stat.rsplit_once(')').context("no stat")?;
    let ticks: Vec<f64> = rest.split_whitespace().skip(11).take(2).flat_map(str::parse).collect();
    Ok(ticks.iter().sum::<f64>() / 100.0)
}
