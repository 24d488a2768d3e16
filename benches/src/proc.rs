//! What the kernel says of a process (proc(5)).

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result};

/// Memory of a process, in bytes.
pub(crate) struct Memory {
    pub(crate) resident: u64,
    /// Resident, shared pages counted by their share.
    pub(crate) proportional: u64,
    /// Resident and backed by no file: heap, stacks, data that was written.
    pub(crate) anonymous: u64,
    pub(crate) threads: u64,
}

pub(crate) fn memory(pid: u32) -> Result<Memory> {
    let status = read(pid, "status")?;
    let rollup = read(pid, "smaps_rollup")?;
    let size = |text: &str, key: &str| {
        number_after(text, key).map(|kib| kib * 1024).with_context(|| format!("no {key} of process {pid}"))
    };
    Ok(Memory {
        resident: size(&status, "VmRSS:")?,
        proportional: size(&rollup, "Pss:")?,
        anonymous: size(&rollup, "Anonymous:")?,
        threads: number_after(&status, "Threads:").context("no number of threads")?,
    })
}

/// The most that was ever resident, in bytes.
pub(crate) fn peak(pid: u32) -> Result<u64> {
    let status = read(pid, "status")?;
    number_after(&status, "VmHWM:").map(|kib| kib * 1024).with_context(|| format!("no peak of process {pid}"))
}

/// Seconds of user and of system time by the names of threads.
pub(crate) fn threads(pid: u32) -> Result<BTreeMap<String, (f64, f64)>> {
    let mut sums: BTreeMap<String, (f64, f64)> = BTreeMap::new();
    for thread in fs::read_dir(format!("/proc/{pid}/task")).context("threads of the process")? {
        // A thread may end while it is looked at.
        let Ok(stat) = fs::read_to_string(thread?.path().join("stat")) else { continue };
        if let Some((name, user, system)) = times(&stat) {
            let sum = sums.entry(name).or_default();
            *sum = (sum.0 + user, sum.1 + system);
        }
    }
    Ok(sums)
}

/// Name, user and system time of a line of `stat`, whose ticks are a hundred a second on Linux.
fn times(stat: &str) -> Option<(String, f64, f64)> {
    let (before, after) = stat.rsplit_once(')')?;
    let (_, name) = before.split_once('(')?;
    let mut fields = after.split_whitespace();
    let user: u32 = fields.nth(11)?.parse().ok()?;
    let system: u32 = fields.next()?.parse().ok()?;
    Some((name.to_owned(), f64::from(user) / 100.0, f64::from(system) / 100.0))
}

/// Resident bytes by what is mapped: the program's own file, the heap, stacks, libraries, the rest.
pub(crate) fn by_mapping(pid: u32) -> Result<BTreeMap<String, u64>> {
    let program = fs::read_link(format!("/proc/{pid}/exe")).context("name of the program")?;
    Ok(sum_mappings(&read(pid, "smaps")?, &program.display().to_string()))
}

fn read(pid: u32, file: &str) -> Result<String> {
    fs::read_to_string(format!("/proc/{pid}/{file}")).with_context(|| format!("read {file} of process {pid}"))
}

fn number_after(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.starts_with(key))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

fn sum_mappings(smaps: &str, program: &str) -> BTreeMap<String, u64> {
    let mut sums = BTreeMap::new();
    let mut current = String::new();
    for line in smaps.lines() {
        let mut words = line.split_whitespace();
        let first = words.next().unwrap_or_default();
        if first.ends_with(':') {
            if first == "Rss:"
                && let Some(Ok(kib)) = words.next().map(str::parse::<u64>)
            {
                *sums.entry(current.clone()).or_default() += kib * 1024;
            }
            continue;
        }
        // address perms offset device inode path
        let rights = words.next().unwrap_or_default();
        let name = words.nth(3).unwrap_or_default();
        current = match name {
            name if name == program && rights.contains('x') => "program, code".to_owned(),
            name if name == program && rights.contains('w') => "program, written data".to_owned(),
            name if name == program => "program, constants".to_owned(),
            "[heap]" => "heap".to_owned(),
            "[stack]" => "first stack".to_owned(),
            "" => "anonymous maps (arenas, stacks of threads, buffers)".to_owned(),
            name if name.contains(".so") => "libraries".to_owned(),
            name if name.contains(".db") => "the store's shared index".to_owned(),
            _ => "the rest".to_owned(),
        };
    }
    sums.retain(|_, bytes| *bytes > 0);
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mappings_are_summed_by_kind() {
        let smaps = "5500-5600 r-xp 00000000 fd:00 12 /bin/x\nSize: 8 kB\nRss:   4 kB\nVmFlags: rd ex\n\
                     5600-5700 rw-p 00000000 fd:00 12 /bin/x\nRss: 8 kB\n\
                     7000-7100 rw-p 00000000 00:00 0 \nRss: 16 kB\n\
                     7100-7200 rw-p 00000000 00:00 0 \nRss: 16 kB\n\
                     7200-7300 rw-p 00000000 00:00 0 [heap]\nRss: 0 kB\n";
        let sums = sum_mappings(smaps, "/bin/x");
        assert_eq!(sums["program, code"], 4096);
        assert_eq!(sums["program, written data"], 8192);
        assert_eq!(sums["anonymous maps (arenas, stacks of threads, buffers)"], 32768);
        assert_eq!(sums.len(), 3);
    }

    #[test]
    fn times_of_a_thread_are_read_behind_its_name() {
        let stat = "7 (a (b) c) S 1 7 7 0 -1 4194560 1 2 3 4 250 50 0 0 20 0 1 0 9 0 0";
        assert_eq!(times(stat), Some(("a (b) c".to_owned(), 2.5, 0.5)));
        assert_eq!(times("7 (x"), None);
    }

    #[test]
    fn a_number_is_found_by_its_key() {
        let text = "Name:\tx\nVmRSS:\t   123 kB\nThreads:\t7\n";
        assert_eq!(number_after(text, "VmRSS:"), Some(123));
        assert_eq!(number_after(text, "Pss:"), None);
    }
}
