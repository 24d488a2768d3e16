//! A look that tests know.

use apimachinery::NamespacedName;
use contract::volume_stats::{VolumeStats, VolumeUsage, VolumesOfPods};

use crate::stats::cgroup::{BlockDevice, Cgroup};
use crate::stats::proc::{Disk, Interface, Machine};
use crate::stats::sample::{ContainerUse, Cpu, Memory, NodeUse, PodUse, Sample};

const SECOND: u64 = 1_000_000_000;

/// An emptyDir and a claim's volume of that node's pod, and one of a pod that does not run.
pub(crate) fn volumes() -> VolumesOfPods {
    let usage = VolumeUsage {
        at: 9_000_000_000,
        available: 900,
        capacity: 1000,
        used: 100,
        inodes_free: 7,
        inodes: 10,
        inodes_used: 3,
    };
    let volume = |name: &str, claim: Option<&str>| VolumeStats {
        name: name.to_owned(),
        claim: claim.map(str::to_owned),
        is_ephemeral: claim.is_none(),
        usage,
    };
    let all = vec![volume("scratch", None), volume("v", Some("data"))];
    [("u".to_owned(), all), ("gone".to_owned(), vec![volume("v", Some("other"))])].into()
}

/// A node with one pod of one container.
pub(crate) fn sample() -> Sample {
    let (at, looked) = (9_000_000_000, 8_000_000_000);
    let name = NamespacedName::new("d", "p");
    let memory = |working_set| Memory { at: looked, working_set: Some(working_set), ..Memory::default() };
    let cgroup = |cpu: u64| Cgroup {
        cpu: Some(cpu * SECOND),
        memory: Some(60),
        inactive_file: Some(20),
        rss: Some(30),
        cache: Some(25),
        shares: Some(102),
        period: Some(100_000),
        ..Cgroup::default()
    };
    let container = Cgroup {
        quota: Some(50_000),
        periods: Some(6),
        throttled: Some(SECOND),
        memory_limit: Some(100),
        block_devices: vec![BlockDevice {
            major: 8,
            minor: 0,
            read_bytes: 1,
            written_bytes: 2,
            reads: 3,
            writes: 4,
        }],
        ..cgroup(2)
    };
    let network = vec![Interface { name: "eth0".into(), rx_bytes: 7, tx_packets: 3, ..Interface::default() }];
    let used = |bytes| Disk { used: Some(bytes), ..Disk::default() };
    Sample {
        at,
        node: NodeUse {
            machine: Machine { cores: 2, memory: 4096, machine_id: "m".into(), ..Machine::default() },
            cpu: Some(Cpu { at, usage: 5 * SECOND, rate: None }),
            memory: Memory { at, working_set: Some(100), ..Memory::default() },
            cgroups: [("/".to_owned(), cgroup(5)), ("/kubepods".to_owned(), cgroup(3))].into(),
            network: network.clone(),
            disks: vec![("/dev/sda1".into(), Disk { capacity: Some(100), ..used(70) })],
            ..NodeUse::default()
        },
        images: Disk::default(),
        pods: vec![PodUse {
            pod: name.clone(),
            uid: "u".into(),
            sandbox: "s1".into(),
            created: 3_000_000_000,
            cpu: Some(Cpu { at: looked, usage: 3 * SECOND, rate: Some(300) }),
            memory: Some(memory(50)),
            processes: Some(2),
            network,
            cgroup: Some(("/kubepods/podu".into(), cgroup(3))),
            sandbox_cgroup: Some(("/kubepods/podu/s1".into(), cgroup(1))),
            logs: Disk::default(),
        }],
        containers: vec![ContainerUse {
            pod: name,
            uid: "u".into(),
            name: "c".into(),
            id: "c1".into(),
            image: "busybox:1".into(),
            created: 4_000_000_000,
            cpu: Some(Cpu { at: looked, usage: 2 * SECOND, rate: Some(250) }),
            memory: Some(memory(40)),
            swap: None,
            rootfs: used(11),
            logs: used(5),
            cgroup: Some(("/kubepods/podu/c1".into(), container)),
        }],
    }
}
