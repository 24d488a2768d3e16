//! A program's machine code is memory only while it runs: what its start needed, and nothing since, is given back.
//!
//! A page of code that was touched once, and the fifteen that the kernel maps beside it, count as the process's own until the machine is
//! short of memory. Their mapping is let go; they stay in the page cache while there is room, and the next call into one maps it again.
//! It gains as much as what is used all the time stands together in the file: EdgeCore's does, by `edge/code_order.ld`.
#![allow(unsafe_code)] // One call of the system, which has no safe form: it says why it is sound.

use std::pin::Pin;
use std::time::Duration;

use rustix::mm::{Advice, madvise};
use tokio::time::{Sleep, sleep};

/// 45 s after it is up a daemon has its link, its start, and what it does for the first time after half a minute behind it.
const START_TAKES: Duration = Duration::from_secs(45);
/// 10 minutes later whatever was done once meanwhile (a join, an upgrade, a burst of pods) is over, too. What is used all the time costs
/// some hundred minor faults, less than a millisecond.
const EVERY: Duration = Duration::from_secs(600);

/// When the pages are to be given back.
pub(crate) struct Times(Pin<Box<Sleep>>);

impl Times {
    /// For a daemon that is up now.
    pub(crate) fn begin() -> Times {
        Times(Box::pin(sleep(START_TAKES)))
    }

    /// Waits for the next time. Who stops waiting misses none.
    pub(crate) async fn next(&mut self) {
        self.0.as_mut().await;
        self.0 = Box::pin(sleep(EVERY));
    }
}

/// Gives back the pages of this program's code. Where the kernel does not tell them apart (no `/proc`, no `smaps`), they stay.
pub(crate) fn give_back() {
    let Ok(smaps) = std::fs::read_to_string("/proc/self/smaps") else { return };
    let Some(text) = Text::find(&smaps, give_back as *const () as usize) else { return };
    // SAFETY: the range is one mapping of this process as the kernel has just told it: private, of a file, and not writable, so that no page
    // of it differs from the file, which `Anonymous` confirms. Such a page has the same bytes whenever it is mapped anew (madvise(2)), also for
    // threads that run in it now.
    let given = unsafe {
        madvise(std::ptr::with_exposed_provenance_mut(text.start), text.length, Advice::LinuxDontNeed)
    };
    match given {
        Ok(()) => tracing::debug!(resident_kib = text.resident_kib, "pages of code were given back"),
        Err(error) => tracing::debug!(%error, "pages of code stay"),
    }
}

/// The mapping of a program's code.
#[derive(Debug, PartialEq, Eq)]
struct Text {
    start: usize,
    /// Bytes.
    length: usize,
    resident_kib: u64,
}

impl Text {
    /// The mapping in `smaps` (proc_pid_smaps(5)) that has `address`, if every page of it can be read again from its file: private, never
    /// written, and without a page of its own, as breakpoints of debuggers and of uprobes make them.
    fn find(smaps: &str, address: usize) -> Option<Text> {
        let mut lines = smaps.lines();
        let (start, length) = lines.by_ref().find_map(|line| {
            let (range, rest) = line.split_once(' ')?;
            let (start, end) = range.split_once('-')?;
            let (start, end) = (usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?);
            let mut rest = rest.split_ascii_whitespace();
            let (mode, inode) = (rest.next()?, rest.nth(2)?);
            let of_a_file = mode == "r-xp" && inode != "0";
            ((start..end).contains(&address) && of_a_file).then_some((start, end - start))
        })?;
        let mut resident_kib = None;
        for line in lines {
            let (name, value) = line.split_once(':')?;
            let kib = || value.trim().strip_suffix(" kB")?.parse().ok();
            match name {
                "Rss" => resident_kib = Some(kib()?),
                "Anonymous" => {
                    let none: u64 = kib()?;
                    return (none == 0).then_some(Text { start, length, resident_kib: resident_kib? });
                }
                _ => {}
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPPING: &str = "\
7f85d2800000-7f85d2bdc000 r--p 00000000 fe:00 7323661                    /usr/bin/edgecore
Size:               3952 kB
Rss:                1136 kB
Anonymous:             0 kB
7f85d2bdc000-7f85d38ea000 r-xp 003db000 fe:00 7323661                    /usr/bin/edgecore (deleted)
Size:              13368 kB
Rss:               12788 kB
Anonymous:             0 kB
VmFlags: rd ex mr mw me
7f85d38ea000-7f85d3951000 r--p 010e8000 fe:00 7323661                    /usr/bin/edgecore
";

    #[test]
    fn the_code_is_found_and_nothing_else_is_taken_for_it() {
        let text = Text { start: 0x7f85_d2bd_c000, length: 0xd0_e000, resident_kib: 12_788 };
        assert_eq!(Text::find(MAPPING, 0x7f85_d2bd_c000), Some(text));
        for outside in [0x7f85_d2bd_bfff, 0x7f85_d38e_a000, 0] {
            assert_eq!(Text::find(MAPPING, outside), None);
        }
        for (there, other) in [
            ("r-xp", "rwxp"),
            ("r-xp", "r-xs"),
            ("fe:00 7323661                    /usr/bin/edgecore (", "00:00 0  ("),
            ("12788 kB\nAnonymous:             0", "12788 kB\nAnonymous:             4"),
            ("12788 kB\nAnonymous:             0 kB\n", "12788 kB\n"),
        ] {
            let changed = MAPPING.replacen(there, other, 1);
            assert_ne!(changed, MAPPING);
            assert_eq!(Text::find(&changed, 0x7f85_d2bd_c000), None, "{other}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_time_is_after_the_start_and_waiting_anew_misses_none() {
        let begun = tokio::time::Instant::now();
        let mut times = Times::begin();
        let mut at = Vec::new();
        while at.len() < 3 {
            // As a signal would have it.
            if tokio::time::timeout(Duration::from_secs(7), times.next()).await.is_ok() {
                at.push(begun.elapsed().as_secs());
            }
        }
        assert_eq!(at, [45, 645, 1245]);
    }

    #[test]
    fn code_that_was_given_back_runs_on_and_costs_less() {
        let resident = || {
            let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
            Text::find(&smaps, give_back as *const () as usize).expect("the code of this test").resident_kib
        };
        // All of it, as a long start would have it.
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let text = Text::find(&smaps, give_back as *const () as usize).unwrap();
        // SAFETY: it maps pages of a mapping that is there, and changes none.
        unsafe {
            madvise(std::ptr::with_exposed_provenance_mut(text.start), text.length, Advice::LinuxPopulateRead)
        }
        .unwrap();
        let before = resident();
        give_back();
        let after = resident();
        assert!(after * 2 < before, "{before} KiB before, {after} KiB after");
    }
}
