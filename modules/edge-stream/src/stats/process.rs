//! What EdgeCore itself takes: the families that Prometheus' clients tell of their process, and what was built.

use std::time::Duration;

use crate::stats::exposition::Exposition;
use crate::stats::proc;

/// What the kernel says of this process. 0: it does not say.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Process {
    pub(crate) cpu: Duration,
    /// Bytes.
    pub(crate) resident: u64,
    /// Bytes.
    pub(crate) virtual_memory: u64,
    pub(crate) open_files: u64,
    pub(crate) most_files: u64,
    /// Since 1970.
    pub(crate) started: Duration,
}

impl Process {
    /// Looks at it. Blocks.
    pub(crate) fn look() -> Process {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let (resident, virtual_memory) = memory(&read("/proc/self/status"));
        let open_files = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
        Process {
            cpu: proc::worked_by(&read("/proc/self/stat")),
            resident,
            virtual_memory,
            // The one by which they are counted is among them.
            open_files: u64::try_from(open_files).unwrap_or(u64::MAX).saturating_sub(1),
            most_files: most_files(&read("/proc/self/limits")),
            started: proc::process_started(),
        }
    }
}

/// Resident and virtual memory by `/proc/self/status`, in bytes.
fn memory(status: &str) -> (u64, u64) {
    let kilobytes = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0)
    };
    (kilobytes("VmRSS:").saturating_mul(1024), kilobytes("VmSize:").saturating_mul(1024))
}

/// How many files may be open by `/proc/self/limits`: the soft limit, which is behind the name.
fn most_files(limits: &str) -> u64 {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// Puts it on a page.
pub(crate) fn put(page: &mut Exposition, own: &Process) {
    let help = "Total user and system CPU time spent in seconds.";
    page.counter("process_cpu_seconds_total", help).add(&[], own.cpu.as_secs_f64(), None);
    let gauges = [
        ("process_resident_memory_bytes", "Resident memory size in bytes.", own.resident as f64),
        ("process_virtual_memory_bytes", "Virtual memory size in bytes.", own.virtual_memory as f64),
        ("process_open_fds", "Number of open file descriptors.", own.open_files as f64),
        ("process_max_fds", "Maximum number of open file descriptors.", own.most_files as f64),
        (
            "process_start_time_seconds",
            "Start time of the process since unix epoch in seconds.",
            own.started.as_secs_f64(),
        ),
    ];
    for (name, help, value) in gauges {
        page.gauge(name, help).add(&[], value, None);
    }
}

/// What was built: dashboards tell the versions of kubelets by it. `version` as the Node says it.
pub(crate) fn put_build(page: &mut Exposition, version: &str) {
    let mut numbers = version.trim_start_matches('v').split(['.', '-']);
    let (major, minor) = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let platform = format!("linux/{arch}");
    let labels = [
        ("build_date", ""),
        ("compiler", "rustc"),
        ("git_commit", buildinfo::COMMIT),
        ("git_tree_state", ""),
        ("git_version", version),
        ("go_version", ""),
        ("major", major),
        ("minor", minor),
        ("platform", &platform),
    ];
    let help = "A metric with a constant '1' value labeled by major, minor, git version, git commit, git tree state, \
                build date, Go version, and compiler from which Kubernetes was built, and platform on which it is running.";
    page.gauge("kubernetes_build_info", help).add(&labels, 1.0, None);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_knows_what_it_takes() {
        let status = "Name:\tx\nVmSize:\t    2048 kB\nVmRSS:\t    1024 kB\n";
        assert_eq!(memory(status), (1 << 20, 2 << 20));
        assert_eq!(
            most_files("Max open files            1024                 4096                 files\n"),
            1024
        );
        let own = Process::look();
        assert!(own.resident > 0 && own.open_files > 2 && own.most_files > 0 && !own.started.is_zero());
        let mut page = Exposition::default();
        put(&mut page, &Process { cpu: Duration::from_millis(1500), resident: 4096, ..own });
        put_build(&mut page, "v1.36.0-kubehive-0.1.0");
        let text = page.text();
        for part in [
            "# TYPE process_cpu_seconds_total counter\nprocess_cpu_seconds_total 1.5\n",
            "process_resident_memory_bytes 4096\n",
            "git_version=\"v1.36.0-kubehive-0.1.0\",go_version=\"\",major=\"1\",minor=\"36\",platform=\"linux/",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
