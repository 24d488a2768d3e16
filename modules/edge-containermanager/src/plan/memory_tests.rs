//! Memory of machines of one, two and four NUMA nodes.

use std::time::Duration;

use beehive::Moment;
use contract::containermanager::ContainerKind;

use super::*;
use crate::plan::allocation::ContainerAllocation;

const GI: u64 = 1 << 30;

fn machine(nodes: u32, bytes: u64) -> MemoryNodes {
    let kinds = || BTreeMap::from([(MEMORY.to_owned(), bytes), ("hugepages-2Mi".to_owned(), GI)]);
    MemoryNodes((0..nodes).map(|node| (node, kinds())).collect())
}

fn empty() -> Ledger {
    Ledger::new("b".into(), BTreeMap::new(), BTreeSet::new(), Moment(Duration::ZERO))
}

fn asks(bytes: u64) -> Requests {
    Requests::from([(MEMORY.to_owned(), bytes)])
}

fn mask(nodes: &[u32]) -> NumaMask {
    nodes.iter().copied().collect()
}

/// Gives a pod of one container memory and answers the nodes that it comes from.
fn give(
    machine: &MemoryNodes,
    ledger: &mut Ledger,
    uid: &str,
    requests: &Requests,
    affinity: Option<NumaMask>,
) -> Result<Vec<u32>, String> {
    let taken = machine.take(ledger, requests, &ReusableMemory::default(), (Policy::BestEffort, affinity));
    let taken = taken.map_err(|refusal| match refusal {
        Refusal::Other(words) => words,
        Refusal::Named { message, .. } => message,
    })?;
    let nodes = taken[0].nodes.iter().copied().collect();
    ledger.entry(uid, "d", uid).containers.entry("c".to_owned()).or_default().memory = taken;
    Ok(nodes)
}

#[test]
fn memory_comes_from_one_node_as_long_as_one_has_it_and_comes_back() {
    let (machine, mut ledger) = (machine(2, 4 * GI), empty());
    assert_eq!(give(&machine, &mut ledger, "a", &asks(3 * GI), None), Ok(vec![0]));
    assert_eq!(give(&machine, &mut ledger, "b", &asks(3 * GI), None), Ok(vec![1]));
    let words = "[memorymanager] failed to get the default NUMA affinity, no NUMA nodes with enough memory is available";
    assert_eq!(give(&machine, &mut ledger, "c", &asks(2 * GI), None), Err(words.to_owned()));
    assert_eq!(give(&machine, &mut ledger, "d", &asks(GI), None), Ok(vec![0]));
    ledger.release("a");
    assert_eq!(give(&machine, &mut ledger, "c", &asks(2 * GI), None), Ok(vec![0]));
}

#[test]
fn a_node_is_given_alone_or_in_one_group_and_never_both() {
    let (machine, mut ledger) = (machine(4, 4 * GI), empty());
    assert_eq!(give(&machine, &mut ledger, "wide", &asks(6 * GI), None), Ok(vec![0, 1]));
    // The group's nodes are nobody's alone, and the group has 2 Gi left.
    assert_eq!(give(&machine, &mut ledger, "narrow", &asks(GI), None), Ok(vec![2]));
    assert!(give(&machine, &mut ledger, "same", &asks(5 * GI), None).is_err(), "3 is too small alone");
    let words = "[memorymanager] preferred hint violates NUMA node allocation";
    let crossing = give(&machine, &mut ledger, "crossing", &asks(GI), Some(mask(&[2, 3])));
    assert_eq!(crossing, Err(words.to_owned()));
    ledger.release("wide");
    assert_eq!(give(&machine, &mut ledger, "same", &asks(5 * GI), None), Ok(vec![0, 1]));
}

#[test]
fn what_the_topology_manager_wants_is_widened_where_it_is_too_little() {
    let (machine, mut ledger) = (machine(2, 4 * GI), empty());
    assert_eq!(give(&machine, &mut ledger, "a", &asks(GI), Some(mask(&[1]))), Ok(vec![1]));
    ledger.release("a");
    assert_eq!(give(&machine, &mut ledger, "b", &asks(6 * GI), Some(mask(&[1]))), Ok(vec![0, 1]));
    // Every kind has to be there.
    let both = Requests::from([(MEMORY.to_owned(), GI), ("hugepages-2Mi".to_owned(), 2 * GI)]);
    ledger.release("b");
    assert_eq!(give(&machine, &mut ledger, "c", &both, None), Ok(vec![0, 1]));
    let unknown = Requests::from([("hugepages-1Gi".to_owned(), GI)]);
    assert!(give(&machine, &mut ledger, "d", &unknown, None).is_err());
}

#[test]
fn a_policy_that_wants_the_best_takes_nothing_less() {
    let (machine, mut ledger) = (machine(2, 4 * GI), empty());
    for (uid, node) in [("a", 0), ("b", 1)] {
        assert_eq!(give(&machine, &mut ledger, uid, &asks(3 * GI), Some(mask(&[node]))), Ok(vec![node]));
    }
    let hints = machine.hints(&ledger, &asks(2 * GI), &[], &ReusableMemory::default());
    assert_eq!(hints, [Hints::On(Vec::new())]);
    ledger.release("a");
    let hints = machine.hints(&ledger, &asks(2 * GI), &[], &ReusableMemory::default());
    assert_eq!(hints, [Hints::of(std::iter::once(mask(&[0])), 1)]);
    // One that has its memory says where, and one that asks for none does not care.
    let has = ledger.container("b", "c").unwrap().memory.clone();
    let hints = machine.hints(&ledger, &asks(3 * GI), &has, &ReusableMemory::default());
    assert_eq!(hints, [Hints::of(std::iter::once(mask(&[1])), 1)]);
    assert!(machine.hints(&ledger, &Requests::new(), &[], &ReusableMemory::default()).is_empty());
    assert!(MemoryNodes::default().hints(&ledger, &asks(1), &[], &ReusableMemory::default()).is_empty());
}

#[test]
fn what_an_init_container_had_the_next_one_has() {
    let block = |bytes| MemoryBlock { kind: MEMORY.into(), nodes: [0].into(), bytes };
    let has = |bytes| ContainerAllocation { memory: vec![block(bytes)], ..ContainerAllocation::default() };
    let mut reusable = ReusableMemory::default();
    reusable.passed(ContainerKind::Init, &has(3 * GI));
    reusable.passed(ContainerKind::Init, &has(2 * GI));
    assert_eq!(reusable.of_block(&block(4 * GI)), 3 * GI);
    // All of the node is the init container's, and is enough for the next.
    let (machine, mut ledger) = (machine(1, 3 * GI), empty());
    ledger.entry("p", "d", "p").containers.insert("i".into(), has(3 * GI));
    let all = (Policy::None, None);
    assert!(machine.take(&ledger, &asks(GI), &ReusableMemory::default(), all).is_err());
    assert!(machine.take(&ledger, &asks(3 * GI), &reusable, all).is_ok());
    reusable.passed(ContainerKind::Main, &has(2 * GI));
    assert_eq!(reusable.of_block(&block(4 * GI)), GI);
}
