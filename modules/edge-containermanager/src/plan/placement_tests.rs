//! Containers on machines of two NUMA nodes.

use std::time::Duration;

use beehive::Moment;
use contract::containermanager::PluginRegistration;

use super::*;
use crate::plan::cpus::tests::machine;
use crate::plan::topology::NotAligned;

const X: &str = "example.com/x";
static NONE: MemoryNodes = MemoryNodes(BTreeMap::new());

fn ledger(devices: &[(&str, &[u32])]) -> Ledger {
    let mut ledger = Ledger::new("b".into(), BTreeMap::new(), BTreeSet::new(), Moment(Duration::ZERO));
    let registration = PluginRegistration {
        resource: X.into(),
        endpoint: "x".into(),
        pre_start_required: false,
        preferred_allocation: false,
    };
    let session = ledger.registered(registration, beehive::Moment::default()).unwrap();
    let device = |nodes: &[u32]| PluginDevice { is_healthy: true, nodes: nodes.iter().copied().collect() };
    ledger.listed(X, session, devices.iter().map(|(id, nodes)| ((*id).to_owned(), device(nodes))).collect());
    ledger
}

fn container(name: &str, kind: ContainerKind, cpus: u32, devices: u64) -> ContainerDemand {
    let devices = (devices > 0).then(|| (X.to_owned(), devices)).into_iter().collect();
    ContainerDemand { name: name.into(), kind, devices, cpus, memory: BTreeMap::new() }
}

fn pod(uid: &str, containers: Vec<ContainerDemand>) -> PodDemand {
    PodDemand { uid: uid.into(), namespace: "d".into(), name: uid.into(), containers }
}

fn fixed(options: Options, reserved: &[u32]) -> CpuPolicy {
    CpuPolicy::Static { options, reserved: reserved.iter().copied().collect() }
}

fn cpus_of(ledger: &Ledger, uid: &str, container: &str) -> String {
    cpus::list(&ledger.container(uid, container).map(|has| has.cpus.clone()).unwrap_or_default())
}

#[test]
fn exclusive_cpus_leave_the_shared_ones_and_come_back() {
    let machine = machine(1, 1, 4, 2);
    let policy = fixed(Options::default(), &[0]);
    let placement = Placement { machine: &machine, cpus: &policy, memory: &NONE, policy: Policy::None };
    let mut ledger = ledger(&[]);
    let take = |ledger: &mut Ledger, uid: &str, cpus: u32| {
        let demand = pod(uid, vec![container("c", ContainerKind::Main, cpus, 0)]);
        placement.take_cpus(ledger, &demand, &demand.containers[0], &CpuSet::new(), None)
    };
    assert_eq!(placement.shared_cpus(&ledger), "0-7");
    take(&mut ledger, "p", 2).unwrap();
    assert_eq!(cpus_of(&ledger, "p", "c"), "1,5");
    assert_eq!(placement.shared_cpus(&ledger), "0,2-4,6-7", "what is reserved is shared");
    take(&mut ledger, "p", 2).unwrap();
    assert_eq!(cpus_of(&ledger, "p", "c"), "1,5", "once");
    take(&mut ledger, "none", 0).unwrap();
    assert_eq!(cpus_of(&ledger, "none", "c"), "");
    assert_eq!(
        take(&mut ledger, "q", 6).unwrap_err(),
        Refusal::Other("not enough cpus available to satisfy request: requested=6, available=5".into())
    );
    ledger.release("p");
    assert_eq!(placement.shared_cpus(&ledger), "0-7");
    let strict = fixed(Options { strict_reservation: true, ..Options::default() }, &[0, 4]);
    let placement = Placement { machine: &machine, cpus: &strict, memory: &NONE, policy: Policy::None };
    assert_eq!(placement.shared_cpus(&ledger), "1-3,5-7");
}

#[test]
fn whole_cores_are_whole() {
    let machine = machine(1, 1, 4, 2);
    let policy = fixed(Options { full_cores: true, ..Options::default() }, &[0]);
    let placement = Placement { machine: &machine, cpus: &policy, memory: &NONE, policy: Policy::None };
    let mut ledger = ledger(&[]);
    let mut take = |cpus: u32| {
        let demand = pod(&format!("p{cpus}"), vec![container("c", ContainerKind::Main, cpus, 0)]);
        placement.take_cpus(&mut ledger, &demand, &demand.containers[0], &CpuSet::new(), None)
    };
    let smt = |message: &str| Refusal::Named { reason: "SMTAlignmentError", message: message.into() };
    assert_eq!(
        take(3).unwrap_err(),
        smt("SMT Alignment Error: requested 3 cpus not multiple cpus per core = 2")
    );
    assert_eq!(
        take(8).unwrap_err(),
        smt(
            "SMT Alignment Error: not enough free physical CPUs: available physical CPUs = 6, requested CPUs = 8, CPUs per core = 2"
        )
    );
    take(2).unwrap();
    take(4).unwrap();
    assert_eq!(cpus_of(&ledger, "p2", "c"), "1,5");
    assert_eq!(cpus_of(&ledger, "p4", "c"), "2-3,6-7");
}

#[test]
fn cpus_and_devices_come_from_one_node_or_the_pod_is_refused() {
    let machine = machine(2, 1, 2, 1);
    let policy = fixed(Options::default(), &[]);
    let placement =
        Placement { machine: &machine, cpus: &policy, memory: &NONE, policy: Policy::SingleNumaNode };
    let ledger = ledger(&[("a", &[1]), ("b", &[1]), ("c", &[0])]);
    let of = |cpus, devices| {
        let demand = pod("p", vec![container("c", ContainerKind::Main, cpus, devices)]);
        placement.of_container(&ledger, &demand, &demand.containers[0], &Reusable::default())
    };
    let node = |node: u32| Ok(Some([node].into_iter().collect()));
    assert_eq!(of(2, 2), node(1));
    assert_eq!(of(2, 1), node(0));
    assert_eq!(of(0, 0), Ok(None));
    let refused = of(3, 1).unwrap_err();
    assert_eq!(refused, Refusal::from(NotAligned));
    assert_eq!(of(1, 3), Err(Refusal::from(NotAligned)));
    let restricted = Placement { policy: Policy::Restricted, ..placement };
    let demand = pod("p", vec![container("c", ContainerKind::Main, 3, 3)]);
    let both = restricted.of_container(&ledger, &demand, &demand.containers[0], &Reusable::default());
    assert_eq!(both, Ok(Some([0, 1].into_iter().collect())), "as few nodes as can be");
}

#[test]
fn a_pod_as_a_whole_is_placed_by_what_it_needs_at_a_time() {
    let machine = machine(2, 1, 4, 1);
    let policy = fixed(Options::default(), &[]);
    let placement =
        Placement { machine: &machine, cpus: &policy, memory: &NONE, policy: Policy::SingleNumaNode };
    let ledger = ledger(&[]);
    let of = |init: u32, sidecar: u32, main: u32| {
        let demand = pod(
            "p",
            vec![
                container("s", ContainerKind::Sidecar, sidecar, 0),
                container("i", ContainerKind::Init, init, 0),
                container("m", ContainerKind::Main, main, 0),
            ],
        );
        placement.of_pod(&ledger, &demand).is_ok()
    };
    assert!(of(3, 1, 3));
    assert!(!of(4, 1, 1));
    assert!(!of(1, 1, 4));
}

#[test]
fn the_nodes_that_are_wanted_come_first_and_an_init_containers_cpus_are_taken_again() {
    let machine = machine(2, 1, 2, 1);
    let policy = fixed(Options::default(), &[]);
    let placement = Placement { machine: &machine, cpus: &policy, memory: &NONE, policy: Policy::BestEffort };
    let mut ledger = ledger(&[]);
    let demand =
        pod("p", vec![container("i", ContainerKind::Init, 2, 0), container("m", ContainerKind::Main, 3, 0)]);
    let one: NumaMask = [1].into_iter().collect();
    placement.take_cpus(&mut ledger, &demand, &demand.containers[0], &CpuSet::new(), Some(one)).unwrap();
    assert_eq!(cpus_of(&ledger, "p", "i"), "2-3");
    let mut reusable = Reusable::default();
    reusable.passed(ContainerKind::Init, ledger.container("p", "i").unwrap());
    placement.take_cpus(&mut ledger, &demand, &demand.containers[1], &reusable.cpus, Some(one)).unwrap();
    assert_eq!(cpus_of(&ledger, "p", "m"), "0,2-3");
}
