//! Many starts at once. How long one takes, beside the same calls made bare, is for `benches`.

use std::time::Instant;

use serde_json::json;

use crate::node::{Machine, Node, WAITS, pod, run};

#[test]
fn many_pods_start_beside_each_other() {
    const MANY: usize = 12;
    run(async {
        let host = Machine::new("many");
        let node = Node::start(&host);
        let names: Vec<String> = (0..MANY).map(|number| format!("p{number}")).collect();
        let pods: Vec<_> = names.iter().map(|name| pod(name, WAITS, json!({}))).collect();
        let start = Instant::now();
        node.apply(&pods).await;
        for name in &names {
            node.until_ready(name).await;
        }
        eprintln!("{MANY} pods in {:?}", start.elapsed());
        let before = node.store.snapshot().batches;
        // Nothing changed: looking again tells nothing.
        node.apply(&[]).await;
        assert_eq!(node.snapshot().await["pods"], json!({"Running": MANY}));
        let reports = node.reports().len();
        assert!(node.store.snapshot().batches - before <= 3, "{reports} reports");
    });
}
