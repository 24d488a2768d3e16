//! `/metrics/cadvisor`: networks, file systems, processes and the machine.

use crate::stats::exposition::Exposition;
use crate::stats::proc::{Disk, Interface, Machine};
use crate::stats::processes::Processes;
use crate::stats::series::Writer;

pub(crate) fn network(writer: &mut Writer<'_, '_>, interfaces: &[Interface]) {
    for own in interfaces {
        let whose = writer.whose;
        for (name, help, value) in [
            ("container_network_receive_bytes_total", "Cumulative count of bytes received", own.rx_bytes),
            (
                "container_network_receive_packets_total",
                "Cumulative count of packets received",
                own.rx_packets,
            ),
            (
                "container_network_receive_errors_total",
                "Cumulative count of errors encountered while receiving",
                own.rx_errors,
            ),
            (
                "container_network_receive_packets_dropped_total",
                "Cumulative count of packets dropped while receiving",
                own.rx_dropped,
            ),
            ("container_network_transmit_bytes_total", "Cumulative count of bytes transmitted", own.tx_bytes),
            (
                "container_network_transmit_packets_total",
                "Cumulative count of packets transmitted",
                own.tx_packets,
            ),
            (
                "container_network_transmit_errors_total",
                "Cumulative count of errors encountered while transmitting",
                own.tx_errors,
            ),
            (
                "container_network_transmit_packets_dropped_total",
                "Cumulative count of packets dropped while transmitting",
                own.tx_dropped,
            ),
        ] {
            let mut labels = whose.labels(&[]);
            labels.push(("interface", &own.name));
            writer.page.counter(name, help).add(&labels, value as f64, Some(writer.at));
        }
    }
}

/// The file systems that lie on devices.
pub(crate) fn disks(writer: &mut Writer<'_, '_>, disks: &[(String, Disk)]) {
    for (device, own) in disks {
        let more = [("device", device.as_str())];
        writer.gauge_of(
            "container_fs_usage_bytes",
            "Number of bytes that are consumed by the container on this filesystem.",
            &more,
            own.used,
        );
        writer.gauge_of(
            "container_fs_limit_bytes",
            "Number of bytes that can be consumed by the container on this filesystem.",
            &more,
            own.capacity,
        );
        writer.gauge_of("container_fs_inodes_total", "Number of Inodes", &more, own.inodes);
        writer.gauge_of("container_fs_inodes_free", "Number of available Inodes", &more, own.inodes_free);
    }
}

/// What the processes of a container hold.
pub(crate) fn processes(writer: &mut Writer<'_, '_>, own: &Processes) {
    let help = "Number of processes running inside the container.";
    writer.gauge("container_processes", help, Some(own.count));
    let help = "Number of open file descriptors for the container.";
    writer.gauge("container_file_descriptors", help, own.open_files);
    writer.gauge("container_sockets", "Number of open sockets for the container.", own.sockets);
    let help = "Soft ulimit values for the container root process. Unlimited if -1, except priority and nice";
    writer.gauge_of("container_ulimits_soft", help, &[("ulimit", "max_open_files")], own.open_files_limit);
}

pub(crate) fn machine(page: &mut Exposition, own: &Machine) {
    let labels =
        [("boot_id", &*own.boot_id), ("machine_id", &*own.machine_id), ("system_uuid", &*own.system_uuid)];
    for (name, help, value) in [
        ("machine_cpu_cores", "Number of logical CPU cores.", own.cores),
        ("machine_cpu_physical_cores", "Number of physical CPU cores.", own.physical_cores),
        ("machine_cpu_sockets", "Number of CPU sockets.", own.sockets),
        ("machine_memory_bytes", "Amount of memory installed on the machine.", own.memory),
        ("machine_swap_bytes", "Amount of swap memory available on the machine.", own.swap),
    ] {
        page.gauge(name, help).add(&labels, value as f64, None);
    }
    let versions = [
        ("cadvisorRevision", ""),
        ("cadvisorVersion", ""),
        ("dockerVersion", ""),
        ("kernelVersion", &*own.kernel),
        ("osVersion", &*own.os),
    ];
    let help = "A metric with a constant '1' value labeled by kernel version, OS version, docker version, cadvisor version & cadvisor revision.";
    page.gauge("cadvisor_version_info", help).add(&versions, 1.0, None);
}
