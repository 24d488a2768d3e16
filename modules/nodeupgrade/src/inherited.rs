//! What a process has of whoever started it and nobody sees in its arguments: limits of its resources, and the mask of modes. An edgecore
//! that is started anew has those of the one before, and not those of the shell in which somebody upgrades.

use rustix::fs::Mode;
use rustix::process::{Pid, Resource, Rlimit, prlimit, umask};

use crate::journal::{Inherited, Limit};

/// By the kernel's words.
const RESOURCES: [(&str, Resource); 16] = [
    ("Max cpu time", Resource::Cpu),
    ("Max file size", Resource::Fsize),
    ("Max data size", Resource::Data),
    ("Max stack size", Resource::Stack),
    ("Max core file size", Resource::Core),
    ("Max resident set", Resource::Rss),
    ("Max processes", Resource::Nproc),
    ("Max open files", Resource::Nofile),
    ("Max locked memory", Resource::Memlock),
    ("Max address space", Resource::As),
    ("Max file locks", Resource::Locks),
    ("Max pending signals", Resource::Sigpending),
    ("Max msgqueue size", Resource::Msgqueue),
    ("Max nice priority", Resource::Nice),
    ("Max realtime priority", Resource::Rtprio),
    ("Max realtime timeout", Resource::Rttime),
];

/// The limits in the lines of `/proc/PID/limits`; what is not understood is left out.
pub(crate) fn limits_in(text: &str) -> Vec<Limit> {
    let limit = |line: &str| {
        let (name, _) = RESOURCES.iter().find(|(name, _)| line.starts_with(name))?;
        let mut values = line.strip_prefix(name)?.split_whitespace().map(|word| match word {
            "unlimited" => Some(None),
            number => number.parse().ok().map(Some),
        });
        Some(Limit { resource: (*name).to_owned(), soft: values.next()??, hard: values.next()?? })
    };
    text.lines().filter_map(limit).collect()
}

/// The mask in the lines of `/proc/PID/status`.
pub(crate) fn umask_in(text: &str) -> Option<u32> {
    let octal = text.lines().find_map(|line| line.strip_prefix("Umask:"))?;
    u32::from_str_radix(octal.trim(), 8).ok().filter(|mask| *mask <= 0o777)
}

/// What is started while this is kept has the mask; nothing else is to be made meanwhile.
pub(crate) struct Masked(Option<Mode>);

impl Masked {
    pub(crate) fn by(inherited: &Inherited) -> Masked {
        Masked(inherited.umask.map(|mask| umask(Mode::from_raw_mode(mask))))
    }
}

impl Drop for Masked {
    fn drop(&mut self) {
        if let Some(before) = self.0.take() {
            umask(before);
        }
    }
}

/// Gives a process the limits, and answers which could not be given.
pub(crate) fn limit(pid: u32, limits: &[Limit]) -> Vec<String> {
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return Vec::new() };
    let given = |limit: &&Limit| {
        let known = RESOURCES.iter().find(|(name, _)| *name == limit.resource);
        let wanted = Rlimit { current: limit.soft, maximum: limit.hard };
        known.is_some_and(|(_, resource)| prlimit(Some(pid), *resource, wanted).is_ok())
    };
    limits.iter().filter(|limit| !given(limit)).map(|limit| limit.resource.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_and_the_mask_are_read_off_the_kernels_lines() {
        let text = "Limit                     Soft Limit           Hard Limit           Units     \n\
                    Max cpu time              unlimited            unlimited            seconds   \n\
                    Max open files            1024                 524288               files     \n\
                    Max odd things            1                    2                    things    \n\
                    Max nice priority         0                    0                    \n\
                    Max processes             x                    1                    processes \n";
        let of = |resource: &str, soft, hard| Limit { resource: resource.to_owned(), soft, hard };
        let wanted = [
            of("Max cpu time", None, None),
            of("Max open files", Some(1024), Some(524_288)),
            of("Max nice priority", Some(0), Some(0)),
        ];
        assert_eq!(limits_in(text), wanted);
        assert_eq!(umask_in("Name:\tsleep\nUmask:\t0027\n"), Some(0o27));
        for text in ["", "Umask:\t9\n", "Umask:\t7777\n"] {
            assert_eq!(umask_in(text), None);
        }
    }

    #[test]
    fn all_that_this_kernel_says_of_a_process_is_known() {
        let text = std::fs::read_to_string("/proc/self/limits").unwrap();
        assert_eq!(limits_in(&text).len(), text.lines().count() - 1, "{text}");
    }
}
