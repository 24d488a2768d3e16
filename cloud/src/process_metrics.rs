//! What `/metrics` says of the process and of the program, under the names that Prometheus' client libraries and Kubernetes' own
//! components have for it.

use std::fmt::Write as _;
use std::path::Path;

/// Ticks a second in /proc (USER_HZ: the same on every architecture that Linux has today).
const TICKS: f64 = 100.0;

/// What the kernel says of this process.
#[derive(Debug, Clone, Copy, PartialEq)]
struct ProcessSample {
    cpu_seconds: f64,
    start_seconds: f64,
    resident_bytes: f64,
    virtual_bytes: f64,
    open_fds: f64,
    max_fds: f64,
}

/// The series of the program, and of the process where the kernel says what it is asked.
pub(crate) fn text() -> String {
    let mut text = String::new();
    let (version, commit) = (buildinfo::VERSION, buildinfo::COMMIT);
    let labels = format!(
        "{{version=\"{version}\",commit=\"{commit}\",platform=\"{}/{}\"}}",
        std::env::consts::OS,
        std::env::consts::ARCH
    );
    series(&mut text, "kubehive_build_info", "gauge", "Which program this is", &labels, 1.0);
    let Some(sample) = read(Path::new("/proc")) else { return text };
    for (name, kind, help, value) in [
        (
            "process_cpu_seconds_total",
            "counter",
            "Total user and system CPU time spent in seconds",
            sample.cpu_seconds,
        ),
        ("process_max_fds", "gauge", "Maximum number of open file descriptors", sample.max_fds),
        ("process_open_fds", "gauge", "Number of open file descriptors", sample.open_fds),
        ("process_resident_memory_bytes", "gauge", "Resident memory size in bytes", sample.resident_bytes),
        (
            "process_start_time_seconds",
            "gauge",
            "Start time of the process since unix epoch in seconds",
            sample.start_seconds,
        ),
        ("process_virtual_memory_bytes", "gauge", "Virtual memory size in bytes", sample.virtual_bytes),
    ] {
        series(&mut text, name, kind, help, "", value);
    }
    text
}

fn series(text: &mut String, name: &str, kind: &str, help: &str, labels: &str, value: f64) {
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name}{labels} {value}");
}

fn read(proc: &Path) -> Option<ProcessSample> {
    let file = |name: &str| std::fs::read_to_string(proc.join(name)).ok();
    let open = std::fs::read_dir(proc.join("self/fd")).ok()?.count();
    parsed(&file("self/stat")?, &file("self/status")?, &file("self/limits")?, &file("stat")?, open)
}

/// The files of proc(5): `self/stat`, `self/status`, `self/limits`, `stat`, and how many files are open.
fn parsed(own: &str, status: &str, limits: &str, machine: &str, open: usize) -> Option<ProcessSample> {
    // The name of the program may have blanks and brackets; what follows its last bracket begins with the third field.
    let fields: Vec<&str> = own.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |field: usize| fields.get(field - 3)?.parse::<f64>().ok();
    let line = |text: &'_ str, start: &str| {
        text.lines().find_map(|line| line.strip_prefix(start)).map(|rest| rest.trim().to_owned())
    };
    let kib = |start: &str| {
        let value = line(status, start)?;
        value.split_whitespace().next()?.parse::<f64>().ok().map(|kib| kib * 1024.0)
    };
    let booted: f64 = line(machine, "btime ")?.parse().ok()?;
    let most = line(limits, "Max open files")?;
    let most = most.split_whitespace().next()?.parse().unwrap_or(f64::INFINITY);
    Some(ProcessSample {
        cpu_seconds: (ticks(14)? + ticks(15)?) / TICKS,
        start_seconds: booted + ticks(22)? / TICKS,
        resident_bytes: kib("VmRSS:")?,
        virtual_bytes: kib("VmSize:")?,
        open_fds: open as f64,
        max_fds: most,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_files_are_read_as_they_are_written() {
        let own =
            "77 (cloud) core) S 1 77 77 0 -1 4194560 900 0 3 0 250 50 0 0 20 0 9 0 12345 1000 200 1844674407";
        let status = "Name:\tcloudcore\nVmSize:\t   2048 kB\nVmRSS:\t  1024 kB\n";
        let limits = "Limit  Soft Limit  Hard Limit  Units\nMax open files            1024                 524288               files\n";
        let sample = parsed(own, status, limits, "cpu 1 2\nbtime 1700000000\n", 9).unwrap();
        let expected = ProcessSample {
            cpu_seconds: 3.0,
            start_seconds: 1_700_000_123.45,
            resident_bytes: 1_048_576.0,
            virtual_bytes: 2_097_152.0,
            open_fds: 9.0,
            max_fds: 1024.0,
        };
        assert_eq!(sample, expected);
        assert_eq!(parsed("", status, limits, "btime 1", 9), None);
    }

    #[test]
    fn this_process_has_every_series_once() {
        let text = text();
        for name in [
            "kubehive_build_info{version=\"",
            "process_resident_memory_bytes ",
            "process_start_time_seconds ",
        ] {
            assert_eq!(text.lines().filter(|line| line.starts_with(name)).count(), 1, "{name}\n{text}");
        }
        assert_eq!(text.matches("# HELP ").count(), 7, "{text}");
    }
}
