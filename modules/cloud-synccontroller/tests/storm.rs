//! Two thousand nodes come back at once: what the plan makes of it, and what that costs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
// The figures are what these tests are for.
#![allow(clippy::print_stdout)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use beehive::Moment;
use bytes::Bytes;
use cloud_synccontroller::plan::{Current, Effect, Plan};
use cloud_synccontroller::status::Timestamp;
use contract::digest::buckets_for;
use contract::metamanager::Inventory;
use contract::synccontroller::Source;
use contract::{Change, Digest, NodeName, Object, ObjectKey};

const NODES: usize = 2000;
const OBJECTS: usize = 20;

fn now() -> Timestamp {
    Timestamp { moment: Moment(Duration::from_secs(1)), unix: 1_000_000 }
}

fn node(n: usize) -> NodeName {
    NodeName::parse(&format!("edge-{n:04}")).unwrap()
}

fn object(node: usize, n: usize, version: &str) -> Arc<Object> {
    Arc::new(Object {
        key: ObjectKey::new(
            ["pods", "configmaps", "secrets"][n % 3],
            "default",
            format!("object-{node:04}-{n}"),
        ),
        uid: format!("{node:08}-{n:04}-4444-8555-666677778888"),
        content_hash: format!("{version}d63601adf5af798571dde756f0b470"),
        resource_version: "123456".to_owned(),
        json: Bytes::from(vec![b'x'; 1000]),
    })
}

fn inventory(set: &[Arc<Object>]) -> Option<Inventory> {
    let marks = set.iter().map(|o| (&o.key, o.uid.as_str(), o.content_hash.as_str()));
    Some(Inventory { number: 1, digest: Digest::of(marks, buckets_for(set.len())) })
}

fn per_node(what: &str, began: Instant) {
    let each = began.elapsed().as_micros() / NODES as u128;
    println!("{what}: {each} µs per node of {NODES}, {OBJECTS} objects each");
}

fn plan_of_all() -> Plan {
    let mut plan = Plan::new([Source::Edge]);
    plan.list_begins(Source::Edge);
    for n in 0..NODES {
        for o in 0..OBJECTS {
            plan.upsert(&node(n), object(n, o, "11"), now());
        }
    }
    plan.list_complete(Source::Edge, now());
    for n in 0..NODES {
        plan.current(Source::Edge, &node(n), Current { session: 7, ..Current::default() }, now());
    }
    plan
}

#[test]
fn two_thousand_nodes_that_hold_what_they_should_get_nothing() {
    let mut plan = plan_of_all();
    let offers: Vec<_> = (0..NODES)
        .map(|n| inventory(&(0..OBJECTS).map(|o| object(n, o, "11")).collect::<Vec<_>>()))
        .collect();
    let began = Instant::now();
    for n in 0..NODES {
        assert_eq!(plan.node_up(node(n), 7).len(), 1);
    }
    let mut sent = 0;
    for (n, inventory) in offers.into_iter().enumerate() {
        sent += plan.inventory_answered(&node(n), 7, inventory, now()).len();
    }
    per_node("an inventory of the same", began);
    assert_eq!(sent, 0);
    assert!(plan.view(now()).values().all(|view| view.in_sync));
    let began = Instant::now();
    let shows = plan.tick(now()).len();
    per_node("a tick", began);
    assert!(shows > 0);
}

#[test]
fn two_thousand_empty_nodes_get_what_they_should_each_its_own() {
    let mut plan = plan_of_all();
    for n in 0..NODES {
        plan.node_up(node(n), 7);
    }
    let began = Instant::now();
    let mut batches = Vec::new();
    for n in 0..NODES {
        batches.extend(plan.inventory_answered(&node(n), 7, inventory(&[]), now()));
    }
    per_node("an empty inventory and its batches", began);
    let began = Instant::now();
    for batch in batches {
        let Effect::Send { node, session, batch, changes, .. } = batch else { panic!("{batch:?}") };
        let is_own = |change: &Change| change.key().name.contains(&node.as_str()[5..]);
        assert!(changes.len() == OBJECTS && changes.iter().all(is_own));
        assert!(plan.applied(&node, session, batch, Ok(()), now()).is_empty());
    }
    per_node("their acknowledgements", began);
    assert!(plan.view(now()).values().all(|view| view.in_sync));
}

#[test]
fn one_change_for_all_nodes_is_one_small_batch_each() {
    let mut plan = plan_of_all();
    for n in 0..NODES {
        plan.node_up(node(n), 7);
        plan.inventory_answered(
            &node(n),
            7,
            inventory(&(0..OBJECTS).map(|o| object(n, o, "11")).collect::<Vec<_>>()),
            now(),
        );
    }
    let began = Instant::now();
    let mut flushes = 0;
    for n in 0..NODES {
        flushes += plan.upsert(&node(n), object(n, 3, "22"), now()).len();
    }
    let sent = plan.flush();
    per_node("one changed object", began);
    assert_eq!((flushes, sent.len()), (1, NODES));
}
