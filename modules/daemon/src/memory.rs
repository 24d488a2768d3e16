//! What memory the process may have, and what it gives back.
//!
//! The C library keeps what was freed, for what is wanted next: a daemon that held large objects once would have their memory for
//! ever. It has to be told to give it back.
#![allow(unsafe_code)] // One call of the C library, which has no safe form: it says why it is sound.

use std::time::Duration;

/// 60 s between looks whether memory is to be given back.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// 8 MiB: less is not worth the work.
const WORTH: usize = 8 << 20;
/// Pages of 4 KiB, in which the kernel counts; larger ones make less work, and the same decisions later.
const PAGE: usize = 4096;

/// The bytes that this process may have: the bound of its control group, or of the machine, whichever is less. `None`: nobody says.
pub fn limit() -> Option<usize> {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let group =
        read("/sys/fs/cgroup/memory.max").or_else(|| read("/sys/fs/cgroup/memory/memory.limit_in_bytes"));
    let machine = read("/proc/meminfo");
    least(group.as_deref(), machine.as_deref())
}

fn least(group: Option<&str>, machine: Option<&str>) -> Option<usize> {
    let group = group.and_then(|text| text.trim().parse().ok());
    let kib =
        |line: &str| line.strip_prefix("MemTotal:")?.trim().strip_suffix("kB")?.trim().parse::<usize>().ok();
    let machine = machine.and_then(|text| text.lines().find_map(kib)).map(|kib| kib.saturating_mul(1024));
    group.into_iter().chain(machine).min()
}

fn resident() -> Option<usize> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    Some(text.split(' ').nth(1)?.parse::<usize>().ok()?.saturating_mul(PAGE))
}

/// Gives back now and then what was freed, as long as it is awaited.
pub(crate) async fn keep_giving_back() {
    let mut kept = Kept::default();
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let Some(resident) = self::resident() else { continue };
        if kept.is_due(resident) {
            give_back();
            kept.gave_back(self::resident().unwrap_or(resident));
        }
    }
}

/// How much the process had when memory was given back last.
#[derive(Debug, Default)]
struct Kept {
    after: usize,
    /// What it had at the last look; what grows still is in use.
    before: usize,
}

impl Kept {
    /// Whether it has grown since, and grows no more.
    fn is_due(&mut self, resident: usize) -> bool {
        let grows = resident > self.before.saturating_add(WORTH);
        self.before = resident;
        !grows && resident > self.after.saturating_add(WORTH)
    }

    fn gave_back(&mut self, resident: usize) {
        (self.after, self.before) = (resident, resident);
    }
}

/// Gives back what was freed.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim (malloc.h) takes the locks of the heap itself, and frees nothing that is in use.
    unsafe {
        malloc_trim(0);
    }
}

#[cfg(target_env = "gnu")]
unsafe extern "C" {
    fn malloc_trim(pad: usize) -> std::ffi::c_int;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_bound_counts() {
        let machine = Some("MemTotal:        1024 kB\nMemFree: 7 kB\n");
        assert_eq!(least(Some("max\n"), machine), Some(1 << 20));
        assert_eq!(least(Some("4096\n"), machine), Some(4096));
        assert_eq!((least(None, Some("x")), least(Some("9"), None)), (None, Some(9)));
    }

    #[test]
    fn what_grows_still_is_waited_for_and_what_is_in_use_is_looked_at_once() {
        let mut kept = Kept::default();
        let mib = |count: usize| count << 20;
        assert!(!kept.is_due(mib(20)), "it starts");
        assert!(kept.is_due(mib(20)));
        kept.gave_back(mib(18));
        assert!(!kept.is_due(mib(25)) && !kept.is_due(mib(500)), "little, and then much at once");
        assert!(kept.is_due(mib(480)));
        kept.gave_back(mib(470));
        assert!(!kept.is_due(mib(470)) && !kept.is_due(mib(475)));
    }

    #[cfg(target_env = "gnu")]
    #[test]
    fn what_was_freed_is_given_back() {
        // Blocks that the C library takes from its heap, with one behind them that stays.
        let blocks: Vec<Vec<u8>> = (0..100_000).map(|_| vec![1; 1000]).collect();
        let stays = vec![1u8; 1000];
        let full = resident().unwrap();
        drop(blocks);
        give_back();
        let left = resident().unwrap();
        assert!(left + (64 << 20) < full, "{left} of {full}");
        assert_eq!(stays.len(), 1000);
    }
}
