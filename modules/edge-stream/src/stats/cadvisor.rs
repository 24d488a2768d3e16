//! `/metrics/cadvisor`: the families and labels that Prometheus rules and dashboards select by.

use crate::stats::cgroup::{Cgroup, Pressure};
use crate::stats::exposition::Exposition;
use crate::stats::processes::Processes;
use crate::stats::resource::seconds;
use crate::stats::sample::Sample;
use crate::stats::series::{Whose, Writer};
use crate::stats::system::{disks, machine, network, processes};

/// The page. `processes_of`: those in a cgroup.
pub(crate) fn page(sample: &Sample, processes_of: impl Fn(&str) -> Option<Processes>) -> String {
    let mut page = Exposition::default();
    let at = sample.at / 1_000_000;
    for (id, cgroup) in &sample.node.cgroups {
        let mut writer = Writer { page: &mut page, whose: Whose { id, ..Whose::default() }, at };
        of_cgroup(&mut writer, cgroup);
        if id == "/" {
            network(&mut writer, &sample.node.network);
            disks(&mut writer, &sample.node.disks);
        }
    }
    for pod in &sample.pods {
        let named = Whose { namespace: &pod.pod.namespace, pod: &pod.pod.name, ..Whose::default() };
        if let Some((id, cgroup)) = &pod.cgroup {
            of_cgroup(&mut Writer { page: &mut page, whose: Whose { id, ..named }, at }, cgroup);
        }
        let id = pod.sandbox_cgroup.as_ref().map_or("", |(id, _)| id.as_str());
        // The image is what rules tell a sandbox by, and the runtime does not name it.
        let whose = Whose { id, image: "pause", name: &pod.sandbox, ..named };
        let mut writer = Writer { page: &mut page, whose, at };
        if let Some((_, cgroup)) = &pod.sandbox_cgroup {
            of_cgroup(&mut writer, cgroup);
        }
        network(&mut writer, &pod.network);
        started(&mut writer, pod.created);
    }
    for own in &sample.containers {
        let id = own.cgroup.as_ref().map_or("", |(id, _)| id.as_str());
        let whose = Whose {
            container: &own.name,
            id,
            image: &own.image,
            name: &own.id,
            namespace: &own.pod.namespace,
            pod: &own.pod.name,
        };
        let mut writer = Writer { page: &mut page, whose, at };
        match &own.cgroup {
            Some((_, cgroup)) => of_cgroup(&mut writer, cgroup),
            None => of_runtime(&mut writer, own),
        }
        if let Some(own) = processes_of(id) {
            processes(&mut writer, &own);
        }
        let used = own.rootfs.used;
        writer.gauge(
            "container_fs_usage_bytes",
            "Number of bytes that are consumed by the container on this filesystem.",
            used,
        );
        started(&mut writer, own.created);
    }
    machine(&mut page, &sample.node.machine);
    page.gauge(
        "container_scrape_error",
        "1 if there was an error while getting container metrics, 0 otherwise",
    )
    .add(&[], 0.0, None);
    page.text()
}

/// Of a container whose cgroup was not found: what the runtime says.
fn of_runtime(writer: &mut Writer<'_, '_>, own: &crate::stats::sample::ContainerUse) {
    let time = own.cpu.map(|cpu| seconds(cpu.usage));
    writer.counter("container_cpu_usage_seconds_total", CPU_HELP, &[("cpu", "total")], time);
    let memory = own.memory.unwrap_or_default();
    writer.gauge("container_memory_usage_bytes", USAGE_HELP, memory.usage);
    writer.gauge("container_memory_working_set_bytes", WORKING_SET_HELP, memory.working_set);
    writer.gauge("container_memory_rss", "Size of RSS in bytes.", memory.rss);
}

const CPU_HELP: &str = "Cumulative cpu time consumed in seconds.";
const USAGE_HELP: &str =
    "Current memory usage in bytes, including all memory regardless of when it was accessed";
const WORKING_SET_HELP: &str = "Current working set in bytes.";
const FAILURES_HELP: &str = "Cumulative count of memory allocation failures.";

fn of_cgroup(writer: &mut Writer<'_, '_>, own: &Cgroup) {
    processor(writer, own);
    memory(writer, own);
    block_devices(writer, own);
    writer.gauge("container_threads", "Number of threads running inside the container", own.threads);
    writer.gauge(
        "container_threads_max",
        "Maximum number of threads allowed inside the container",
        own.threads_max,
    );
    pressure(writer, own);
    spec(writer, own);
    writer.gauge(
        "container_last_seen",
        "Last time a container was seen by the exporter",
        u64::try_from(writer.at / 1000).ok(),
    );
}

fn processor(writer: &mut Writer<'_, '_>, own: &Cgroup) {
    let time = |nanos: Option<u64>| nanos.map(seconds);
    writer.counter("container_cpu_usage_seconds_total", CPU_HELP, &[("cpu", "total")], time(own.cpu));
    let user = "Cumulative user cpu time consumed in seconds.";
    writer.counter("container_cpu_user_seconds_total", user, &[], time(own.cpu_user));
    let system = "Cumulative system cpu time consumed in seconds.";
    writer.counter("container_cpu_system_seconds_total", system, &[], time(own.cpu_system));
    // Without a quota nothing is counted.
    if own.quota.is_none() {
        return;
    }
    let count = |count: Option<u64>| count.map(|count| count as f64);
    let periods = "Number of elapsed enforcement period intervals.";
    writer.counter("container_cpu_cfs_periods_total", periods, &[], count(own.periods));
    let throttled = "Number of throttled period intervals.";
    writer.counter("container_cpu_cfs_throttled_periods_total", throttled, &[], count(own.throttled_periods));
    let total = "Total time duration the container has been throttled.";
    writer.counter("container_cpu_cfs_throttled_seconds_total", total, &[], time(own.throttled));
}

fn memory(writer: &mut Writer<'_, '_>, own: &Cgroup) {
    for (name, help, value) in [
        ("container_memory_usage_bytes", USAGE_HELP, own.memory),
        ("container_memory_working_set_bytes", WORKING_SET_HELP, own.working_set()),
        ("container_memory_rss", "Size of RSS in bytes.", own.rss),
        ("container_memory_cache", "Number of bytes of page cache memory.", own.cache),
        ("container_memory_mapped_file", "Size of memory mapped files in bytes.", own.mapped),
        ("container_memory_swap", "Container swap usage in bytes.", own.swap),
        ("container_memory_max_usage_bytes", "Maximum memory usage recorded in bytes", own.memory_max),
        ("container_memory_kernel_usage", "Size of kernel memory allocated in bytes.", own.kernel_memory),
        ("container_memory_total_active_file_bytes", "Current total active file in bytes.", own.active_file),
        (
            "container_memory_total_inactive_file_bytes",
            "Current total inactive file in bytes.",
            own.inactive_file,
        ),
    ] {
        writer.gauge(name, help, value);
    }
    let count = |count: Option<u64>| count.map(|count| count as f64);
    writer.counter(
        "container_memory_failcnt",
        "Number of memory usage hits limits",
        &[],
        count(own.failures),
    );
    writer.counter(
        "container_oom_events_total",
        "Count of out of memory events observed for the container",
        &[],
        count(own.oom_kills),
    );
    for (kind, value) in [("pgfault", own.page_faults), ("pgmajfault", own.major_page_faults)] {
        let labels = [("failure_type", kind), ("scope", "hierarchy")];
        writer.counter("container_memory_failures_total", FAILURES_HELP, &labels, count(value));
    }
}

fn block_devices(writer: &mut Writer<'_, '_>, own: &Cgroup) {
    for device in &own.block_devices {
        let (major, minor) = (device.major.to_string(), device.minor.to_string());
        let path = format!("/dev/block/{major}:{minor}");
        let path = std::fs::canonicalize(&path).map_or(path, |path| path.display().to_string());
        let whose = writer.whose;
        let mut add = |name, help, more: &[(&str, &str)], value: u64| {
            let mut labels = whose.labels(&[]);
            labels.push(("device", &path));
            labels.extend_from_slice(more);
            writer.page.counter(name, help).add(&labels, value as f64, Some(writer.at));
        };
        add("container_fs_reads_bytes_total", "Cumulative count of bytes read", &[], device.read_bytes);
        add(
            "container_fs_writes_bytes_total",
            "Cumulative count of bytes written",
            &[],
            device.written_bytes,
        );
        add("container_fs_reads_total", "Cumulative count of reads completed", &[], device.reads);
        add("container_fs_writes_total", "Cumulative count of writes completed", &[], device.writes);
        for (operation, bytes) in [("Read", device.read_bytes), ("Write", device.written_bytes)] {
            let more = [("major", major.as_str()), ("minor", &minor), ("operation", operation)];
            add("container_blkio_device_usage_total", "Blkio Device bytes usage", &more, bytes);
        }
    }
}

fn pressure(writer: &mut Writer<'_, '_>, own: &Cgroup) {
    let micros =
        |of: fn(&Pressure) -> u64, own: &Option<Pressure>| own.as_ref().map(|own| of(own) as f64 / 1e6);
    for (waiting, stalled, own) in [
        (
            "container_pressure_cpu_waiting_seconds_total",
            "container_pressure_cpu_stalled_seconds_total",
            own.cpu_pressure,
        ),
        (
            "container_pressure_memory_waiting_seconds_total",
            "container_pressure_memory_stalled_seconds_total",
            own.memory_pressure,
        ),
        (
            "container_pressure_io_waiting_seconds_total",
            "container_pressure_io_stalled_seconds_total",
            own.io_pressure,
        ),
    ] {
        writer.counter(
            waiting,
            "Total time duration some tasks in the container have waited due to congestion.",
            &[],
            micros(|own| own.some, &own),
        );
        writer.counter(
            stalled,
            "Total time duration no tasks in the container could make progress due to congestion.",
            &[],
            micros(|own| own.full, &own),
        );
    }
}

fn spec(writer: &mut Writer<'_, '_>, own: &Cgroup) {
    writer.spec("container_spec_cpu_shares", "CPU share of the container.", own.shares);
    writer.spec("container_spec_cpu_period", "CPU period of the container.", own.period);
    writer.spec("container_spec_cpu_quota", "CPU quota of the container.", own.quota);
    // 0: no limit.
    let limit = |limit: Option<u64>| Some(limit.unwrap_or(0));
    writer.spec(
        "container_spec_memory_limit_bytes",
        "Memory limit for the container.",
        limit(own.memory_limit),
    );
    writer.spec(
        "container_spec_memory_swap_limit_bytes",
        "Memory swap limit for the container.",
        limit(own.swap_limit),
    );
    let reservation = "Memory reservation limit for the container.";
    writer.spec("container_spec_memory_reservation_limit_bytes", reservation, limit(own.memory_reservation));
}

fn started(writer: &mut Writer<'_, '_>, nanos: i64) {
    let at = u64::try_from(nanos / 1_000_000_000).ok();
    writer.gauge(
        "container_start_time_seconds",
        "Start time of the container since unix epoch in seconds.",
        at,
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::testing::sample;

    #[test]
    fn rules_find_their_families_and_labels() {
        let processes =
            Processes { count: 2, open_files: Some(9), sockets: Some(1), open_files_limit: Some(1024) };
        let of_container = |path: &str| (path == "/kubepods/podu/c1").then_some(processes);
        let text = page(&sample(), of_container);
        let container = "container=\"c\",id=\"/kubepods/podu/c1\",image=\"busybox:1\",name=\"c1\",namespace=\"d\",pod=\"p\"";
        let sandbox =
            "container=\"\",id=\"/kubepods/podu/s1\",image=\"pause\",name=\"s1\",namespace=\"d\",pod=\"p\"";
        let pod = "container=\"\",id=\"/kubepods/podu\",image=\"\",name=\"\",namespace=\"d\",pod=\"p\"";
        let root = "container=\"\",id=\"/\",image=\"\",name=\"\",namespace=\"\",pod=\"\"";
        for line in [
            format!("container_cpu_usage_seconds_total{{{container},cpu=\"total\"}} 2 9000"),
            format!("container_cpu_usage_seconds_total{{{pod},cpu=\"total\"}} 3 9000"),
            format!("container_cpu_usage_seconds_total{{{root},cpu=\"total\"}} 5 9000"),
            format!("container_memory_working_set_bytes{{{container}}} 40 9000"),
            format!("container_memory_usage_bytes{{{container}}} 60 9000"),
            format!("container_memory_rss{{{container}}} 30 9000"),
            format!("container_cpu_cfs_throttled_seconds_total{{{container}}} 1 9000"),
            format!("container_fs_usage_bytes{{{container}}} 11 9000"),
            format!("container_network_receive_bytes_total{{{sandbox},interface=\"eth0\"}} 7 9000"),
            format!("container_network_transmit_packets_total{{{sandbox},interface=\"eth0\"}} 3 9000"),
            format!("container_spec_memory_limit_bytes{{{container}}} 100"),
            format!("container_spec_cpu_quota{{{container}}} 50000"),
            format!("container_spec_memory_limit_bytes{{{pod}}} 0"),
            "machine_cpu_cores{boot_id=\"\",machine_id=\"m\",system_uuid=\"\"} 2".to_owned(),
            "container_scrape_error 0".to_owned(),
            format!("container_fs_usage_bytes{{{root},device=\"/dev/sda1\"}} 70 9000"),
            format!("container_fs_limit_bytes{{{root},device=\"/dev/sda1\"}} 100 9000"),
            format!("container_processes{{{container}}} 2 9000"),
            format!("container_file_descriptors{{{container}}} 9 9000"),
            format!("container_sockets{{{container}}} 1 9000"),
            format!("container_ulimits_soft{{{container},ulimit=\"max_open_files\"}} 1024 9000"),
        ] {
            assert!(text.lines().any(|own| own == line), "{line} in {text}");
        }
        assert!(!text.contains(&format!("container_cpu_cfs_periods_total{{{pod}")), "without a quota");
    }
}
