//! Many ends at once: the runtime works for a few pods at a time, and what waits for a container takes nobody's turn.

use serde_json::json;

use crate::node::{Machine, Node, WAITS, deleted, eventually, pod, run};

/// Never ends by itself.
const STUBBORN: &str = "trap '' TERM; while :; do sleep 1; done";
/// 120 s, longer than the test waits for anything.
const GRACE: u32 = 120;

#[test]
fn containers_that_wait_out_their_grace_hold_up_neither_each_other_nor_a_pod_that_starts() {
    run(async {
        let host = Machine::new("stubborn");
        let node = Node::start(&host);
        // More than have a turn at a time, where the machine is small.
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let many = (4 * processors + 2).min(18);
        let names: Vec<String> = (0..many).map(|number| format!("p{number}")).collect();
        let pods: Vec<_> = names.iter().map(|name| pod(name, STUBBORN, json!({}))).collect();
        node.apply(&pods).await;
        for name in &names {
            node.until_ready(name).await;
        }
        let all_deleted = |grace| pods.iter().map(|pod| deleted(pod, grace)).collect::<Vec<_>>();
        node.apply(&all_deleted(GRACE)).await;
        let told = eventually(async || (node.runtime_faults.stops() == many).then_some(())).await;
        assert!(told.is_some(), "{} of {many} containers were told to end", node.runtime_faults.stops());
        node.apply(&[pod("late", WAITS, json!({}))]).await;
        node.until_ready("late").await;
        assert_eq!(node.runtime_faults.stops(), many, "they have their time still");
        node.apply(&all_deleted(1)).await;
        for name in &names {
            node.until_gone(name).await;
        }
    });
}
