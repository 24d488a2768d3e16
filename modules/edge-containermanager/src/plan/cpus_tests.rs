//! Cases of the kubelet's own tables for its CPU manager.

use super::*;

/// Sockets, nodes per socket, cores per node; a thread's sibling is `cores` further.
pub(crate) fn machine(sockets: u32, nodes: u32, cores: u32, threads: u32) -> CpuTopology {
    let all_cores = sockets * nodes * cores;
    let cpus = (0..all_cores * threads).map(|number| {
        let core = number % all_cores;
        let node = core / cores;
        (number, Cpu { core, socket: node / nodes, node, cache: node * cores })
    });
    CpuTopology(cpus.collect())
}

fn set(text: &str) -> CpuSet {
    parse_list(text).unwrap()
}

fn taken(machine: &CpuTopology, available: &str, wanted: usize) -> String {
    match machine.take(&set(available), wanted, false) {
        Ok(cpus) => list(&cpus),
        Err(error) => error,
    }
}

#[test]
fn lists_are_the_kernels() {
    for text in ["", "0", "0-3,8", "1,3,5-6"] {
        assert_eq!(list(&set(text)), text);
    }
    for bad in ["a", "3-1", "-1", "0-5000", "1-"] {
        assert_eq!(parse_list(bad), None, "{bad}");
    }
}

#[test]
fn one_socket_with_two_threads_a_core() {
    // 0..3 and their siblings 4..7.
    let machine = machine(1, 1, 4, 2);
    assert_eq!(taken(&machine, "0-7", 0), "");
    assert_eq!(taken(&machine, "0-7", 1), "0");
    assert_eq!(taken(&machine, "0-7", 2), "0,4");
    assert_eq!(taken(&machine, "0-7", 3), "0-1,4");
    assert_eq!(taken(&machine, "0-7", 8), "0-7");
    // What is broken up already goes first.
    assert_eq!(taken(&machine, "1,3,5-7", 1), "6");
    assert_eq!(taken(&machine, "1,3,5-7", 3), "1,5-6");
    assert_eq!(
        taken(&machine, "0-1", 3),
        "not enough cpus available to satisfy request: requested=3, available=2"
    );
}

#[test]
fn two_sockets_with_two_threads_a_core() {
    // Socket 0: 0..2 and 6..8; socket 1: 3..5 and 9..11.
    let machine = machine(2, 1, 3, 2);
    assert_eq!(taken(&machine, "0-11", 6), "0-2,6-8", "a whole socket");
    assert_eq!(taken(&machine, "1-11", 6), "3-5,9-11", "the one that is whole");
    assert_eq!(taken(&machine, "1-11", 2), "1,7", "of the one of which less is left");
    assert_eq!(taken(&machine, "0-11", 8), "0-3,6-9", "a socket and a core");
}

#[test]
fn a_cache_is_kept_together_if_that_is_wanted() {
    let mut machine = machine(1, 1, 8, 1);
    for (number, cpu) in &mut machine.0 {
        cpu.cache = number / 4 * 4;
    }
    let aligned = |available: &str, wanted| list(&machine.take(&set(available), wanted, true).unwrap());
    assert_eq!(aligned("0-7", 4), "0-3");
    assert_eq!(aligned("1-7", 4), "4-7", "the whole one, though the other is more broken up");
    assert_eq!(aligned("1-7", 3), "1-3");
    assert_eq!(aligned("2-7", 3), "4-6");
    assert_eq!(aligned("2-7", 6), "2-7");
}

#[test]
fn hints_name_the_nodes_that_suffice() {
    let machine = machine(2, 1, 2, 2);
    let hints = |available: &str, reusable: &str, wanted| match machine.hints(
        &set(available),
        &set(reusable),
        wanted,
    ) {
        Hints::Any => vec![],
        Hints::On(list) => list
            .into_iter()
            .map(|hint| (hint.nodes.unwrap().nodes().collect::<Vec<_>>(), hint.is_preferred))
            .collect::<Vec<_>>(),
    };
    let (zero, one, both) = (vec![0], vec![1], vec![0, 1]);
    assert_eq!(hints("0-7", "", 2), [(zero.clone(), true), (one.clone(), true), (both.clone(), false)]);
    // Node 0 has 0, 1, 4 and 5: three of them would do if they were free.
    assert_eq!(hints("1-7", "", 4), [(one.clone(), true), (both.clone(), false)]);
    assert_eq!(hints("1-2,4", "", 3), [(both.clone(), false)], "one node could hold it, and none does");
    assert_eq!(hints("0-7", "", 5), [(both.clone(), true)]);
    assert_eq!(hints("2-3", "0", 2), [(both, false)], "with what an init container has had");
    assert_eq!(hints("1,4", "0", 3), [(zero, true), (vec![0, 1], false)]);
}
