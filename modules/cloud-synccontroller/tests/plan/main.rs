//! The plan against a node in memory that does what MetaManager does.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod node;

use std::sync::Arc;

use bytes::Bytes;
use cloud_synccontroller::plan::{
    BATCH_BYTES, BATCH_OBJECTS, Current, Effect, LIST_OBJECTS, Plan, WINDOW, WRITES_AT_ONCE,
};
use cloud_synccontroller::status::WRITE_EVERY;
use contract::ids::{CONFIG_MAPS, DEVICES, PODS, SECRETS};
use contract::metamanager::Inventory;
use contract::synccontroller::{BatchFailure, RetryOf, Source, SyncState};
use contract::{Change, Digest, NodeName, Object, ObjectKey};
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::node::*;

#[test]
fn only_the_difference_travels_and_needs_go_first_and_leave_last() {
    let (same, old) = (object(PODS, "same", "1"), object(PODS, "changed", "1"));
    let (pod, need) = (object(PODS, "gone", "1"), object(CONFIG_MAPS, "gone-need", "1"));
    let mut fixture = Fixture::new(new_plan([]), Edge::holding(&set(&[&same, &old, &pod, &need])));
    fixture.put(same);
    fixture.put(object(PODS, "changed", "2"));
    fixture.put(object(SECRETS, "z-needed", "1"));
    fixture.up(1);
    assert_eq!(fixture.edge.batches, [["+z-needed@1", "+changed@2", "-gone", "-gone-need"]]);
    assert!(fixture.view().in_sync);
}

#[test]
fn what_a_source_does_not_send_in_a_new_list_is_gone_and_nothing_of_another_source() {
    let mut plan = new_plan(Source::ALL);
    for object in [object(PODS, "web", "1"), object(PODS, "old", "1"), object(DEVICES, "fan", "1")] {
        put(&mut plan, object, at(0));
    }
    for source in Source::ALL {
        plan.list_complete(source, at(0));
    }
    let desired = |plan: &Plan| plan.view(at(0))["edge-1"].desired;
    assert_eq!(desired(&plan), 3);
    plan.list_begins(Source::Edge);
    assert_eq!(desired(&plan), 3, "until the list is complete");
    put(&mut plan, object(PODS, "web", "1"), at(0));
    plan.list_complete(Source::Edge, at(0));
    assert_eq!(desired(&plan), 2);
    plan.list_complete(Source::Edge, at(0));
    assert_eq!(desired(&plan), 2, "the end of a list that this plan has not seen begin says nothing");
}

#[test]
fn a_session_gets_nothing_before_every_source_has_sent_all_and_again_after_one_begins_anew() {
    let mut plan = new_plan(Source::ALL);
    put(&mut plan, object(PODS, "web", "2"), at(0));
    for source in Source::ALL {
        plan.list_complete(source, at(0));
    }
    let mut edge = Edge::holding(&set(&[&object(PODS, "web", "1"), &object(PODS, "newer", "1")]));
    plan.node_up(name(), 4);
    let asked = plan.inventory_answered(&name(), 4, Some(edge.inventory()), at(0));
    let mut sent = Vec::new();
    for effect in asked {
        let Effect::AskObjectVersions { inventory, buckets, .. } = effect else { panic!("{effect:?}") };
        sent.extend(plan.object_versions(
            &name(),
            4,
            (inventory, &buckets),
            Some(edge.list(&buckets)),
            at(0),
        ));
    }
    assert!(sent.is_empty() && !plan.view(at(0))["edge-1"].in_sync, "what the node holds may be newer");
    assert!(plan.current(Source::Edge, &name(), all_of(4), at(0)).is_empty());
    assert!(plan.current(Source::Router, &name(), all_of(4), at(0)).is_empty());
    assert!(plan.current(Source::Task, &name(), all_of(4), at(0)).is_empty());
    assert!(plan.current(Source::Device, &name(), all_of(3), at(0)).is_empty(), "of an older session");
    put(&mut plan, object(PODS, "newer", "1"), at(0));
    let sent = plan.current(Source::Device, &name(), all_of(4), at(0));
    let [Effect::Send { changes, batch, .. }] = sent.as_slice() else { panic!("{sent:?}") };
    assert_eq!(changes.iter().map(describe).collect::<Vec<_>>(), ["+web@2"]);
    plan.applied(&name(), 4, *batch, Ok(()), at(0));
    assert!(plan.view(at(0))["edge-1"].in_sync);

    plan.list_begins(Source::Edge);
    put(&mut plan, object(PODS, "web", "3"), at(0));
    assert!(plan.flush().is_empty() && plan.list_complete(Source::Edge, at(0)).is_empty());
    let sent = plan.current(Source::Edge, &name(), all_of(4), at(0));
    let [Effect::Send { changes, .. }] = sent.as_slice() else { panic!("{sent:?}") };
    assert_eq!(changes.iter().map(describe).collect::<Vec<_>>(), ["+web@3", "-newer"]);
}

#[test]
fn what_a_source_says_of_a_session_is_kept_until_the_session_is_told() {
    type Happening = fn(&mut Plan);
    let forgets: [(&str, Happening); 3] = [
        ("the sessions are told anew", |plan| plan.all_nodes_down()),
        ("a key that nobody holds is deleted", |plan| {
            plan.delete(&name(), &object(PODS, "gone", "1").key, at(0));
        }),
        ("the end of an older session is late", |plan| plan.node_down(&name(), 3)),
    ];
    for (what, happens) in forgets {
        let mut plan = new_plan(Source::ALL);
        for source in Source::ALL {
            plan.list_complete(source, at(0));
            plan.current(source, &name(), all_of(4), at(0));
        }
        happens(&mut plan);
        // The node holds what was deleted while nobody remembered it.
        let mut fixture = Fixture::new(plan, Edge::holding(&set(&[&object(PODS, "left", "1")])));
        let effects = fixture.plan.node_up(name(), 4);
        fixture.settle(effects);
        assert_eq!(fixture.edge.batches, [["-left"]], "{what}");
    }
}

#[test]
fn what_a_source_cannot_read_stays_on_the_node_and_holds_up_nothing_else() {
    let (secret, pod) = (object(SECRETS, "sealed", "1"), object(PODS, "old", "1"));
    let mut plan = new_plan(Source::ALL);
    put(&mut plan, object(PODS, "web", "1"), at(0));
    // What was read of it long ago is not sent either: the node may have what is newer.
    put(&mut plan, object(SECRETS, "stale", "1"), at(0));
    for source in Source::ALL {
        plan.list_complete(source, at(0));
    }
    let unknown = [secret.key.clone(), object(SECRETS, "stale", "1").key.clone()];
    let partly = Current { session: 4, unknown: unknown.into() };
    plan.current(Source::Device, &name(), all_of(4), at(0));
    plan.current(Source::Router, &name(), all_of(4), at(0));
    plan.current(Source::Task, &name(), all_of(4), at(0));
    plan.current(Source::Edge, &name(), partly, at(0));
    let newer = object(SECRETS, "stale", "2");
    let mut fixture = Fixture::new(plan, Edge::holding(&set(&[&secret, &pod, &newer])));
    let effects = fixture.plan.node_up(name(), 4);
    fixture.settle(effects);
    assert_eq!(fixture.edge.batches, [["+web@1", "-old"]]);
    assert!(fixture.view().in_sync);
    // It was read: the one is gone, the other is what it was.
    fixture.put(newer);
    let effects = fixture.plan.current(Source::Edge, &name(), all_of(4), at(1));
    fixture.settle(effects);
    assert_eq!(fixture.edge.batches[1..], [["-sealed"]]);
    assert!(fixture.view().in_sync);
}

#[test]
fn what_a_source_says_of_a_session_that_has_ended_is_not_kept() {
    let mut plan = new_plan(Source::ALL);
    plan.current(Source::Edge, &name(), all_of(4), at(0));
    assert!(plan.view(at(0)).contains_key("edge-1"));
    plan.node_down(&name(), 4);
    assert!(plan.view(at(0)).is_empty());
    plan.current(Source::Edge, &name(), all_of(4), at(0));
    plan.list_begins(Source::Edge);
    assert!(plan.view(at(0)).is_empty());
}

#[test]
fn what_a_node_reported_itself_is_not_sent_back_and_goes_with_the_object_when_that_is_sent_anew() {
    let pod = object(PODS, "web", "1");
    let with_status = Arc::new(Object { json: b"with its status".to_vec().into(), ..Object::clone(&pod) });
    let mut fixture = Fixture::new(Plan::new([]), Edge::default());
    fixture.put(pod);
    fixture.up(1);
    fixture.put(with_status);
    assert_eq!(fixture.edge.batches, [["+web@1"]], "the same version is not sent again");
    assert!(fixture.view().in_sync);
    // The node has lost its store.
    fixture.plan.node_down(&name(), 1);
    fixture.edge = Edge::default();
    fixture.up(2);
    assert_eq!(fixture.edge.batches, [["+web@1"]]);
    assert_eq!(fixture.edge.bodies["web"], b"with its status".as_slice());
}

#[test]
fn nothing_is_deleted_or_shown_before_every_source_is_ready() {
    let kept = object(PODS, "kept", "1");
    let mut fixture = Fixture::new(new_plan([Source::Edge, Source::Device]), Edge::holding(&set(&[&kept])));
    fixture.up(1);
    let effects = fixture.plan.list_complete(Source::Edge, at(0));
    assert!(effects.is_empty());
    fixture.pass(20);
    assert!(!fixture.view().in_sync && fixture.edge.batches.is_empty() && fixture.shown.is_empty());
    let effects = fixture.plan.list_complete(Source::Device, fixture.now());
    fixture.settle(effects);
    assert_eq!(fixture.edge.batches, [["-kept"]]);
}

#[test]
fn a_key_in_flight_waits_and_then_goes_newest() {
    let mut plan = new_plan([]);
    up(&mut plan, name(), 1);
    let mut edge = Edge::default();
    plan.inventory_answered(&name(), 1, Some(edge.inventory()), at(0));
    let first = put(&mut plan, object(DEVICES, "a", "1"), at(0));
    assert!(matches!(&first[..], [Effect::Send { batch: 1, sequence: 1, .. }]));
    assert!(put(&mut plan, object(DEVICES, "a", "2"), at(0)).is_empty());
    assert!(put(&mut plan, object(DEVICES, "a", "3"), at(0)).is_empty());
    let second = plan.applied(&name(), 1, 1, Ok(()), at(0));
    let [Effect::Send { batch: 2, sequence: 2, changes, .. }] = &second[..] else { panic!("{second:?}") };
    assert_eq!(describe(&changes[0]), "+a@3");
    // Back to what it is while that flies: the node ends with it all the same.
    assert!(put(&mut plan, object(DEVICES, "a", "1"), at(1)).is_empty());
    let third = plan.applied(&name(), 1, 2, Ok(()), at(1));
    let [Effect::Send { changes, .. }] = &third[..] else { panic!("{third:?}") };
    assert_eq!(describe(&changes[0]), "+a@1");
}

#[test]
fn an_old_session_is_not_heard() {
    let mut plan = new_plan([]);
    up(&mut plan, name(), 2);
    assert!(up(&mut plan, name(), 1).is_empty());
    let mut edge = Edge::default();
    assert!(plan.inventory_answered(&name(), 1, Some(edge.inventory()), at(0)).is_empty());
    plan.node_down(&name(), 1);
    plan.upsert(&name(), object(PODS, "a", "1"), at(0));
    assert_eq!(plan.inventory_answered(&name(), 2, Some(edge.inventory()), at(0)).len(), 1);
    assert!(plan.retry(&name(), 1, RetryOf::Compare).is_empty());
}

#[test]
fn the_window_bounds_what_flies_and_two_thousand_objects_arrive() {
    let mut plan = new_plan([]);
    for n in 0..2000 {
        plan.upsert(&name(), object(PODS, &format!("p{n}"), "1"), at(0));
    }
    let mut fixture = Fixture::new(plan, Edge::default());
    fixture.up(1);
    assert_eq!(fixture.edge.held.len(), 2000);
    assert_eq!(fixture.edge.batches.len(), 2000_usize.div_ceil(BATCH_OBJECTS));
    assert_eq!((fixture.most_flying, fixture.edge.lists), (WINDOW, 0));
    assert!(fixture.view().in_sync);
}

#[test]
fn a_large_object_flies_alone_and_one_that_fits_no_frame_stands_aside() {
    let large =
        Object { json: Bytes::from(vec![b' '; BATCH_BYTES + 1]), ..Object::clone(&object(PODS, "b", "1")) };
    let mut plan = new_plan([]);
    plan.upsert(&name(), object(PODS, "a", "1"), at(0));
    plan.upsert(&name(), Arc::new(large), at(0));
    up(&mut plan, name(), 1);
    let mut edge = Edge::default();
    let effects = plan.inventory_answered(&name(), 1, Some(edge.inventory()), at(0));
    let [Effect::Send { batch: 1, .. }, Effect::Send { batch: 2, changes, .. }] = &effects[..] else {
        panic!("{effects:?}")
    };
    assert_eq!(changes.len(), 1);
    plan.applied(&name(), 1, 1, Ok(()), at(0));
    let rest = plan.applied(&name(), 1, 2, Err(BatchFailure::TooLarge), at(0));
    assert!(matches!(&rest[..], [Effect::RetryAfter { again: RetryOf::Compare, .. }]), "{rest:?}");
    edge.held = set(&[&object(PODS, "a", "1")]);
    plan.retry(&name(), 1, RetryOf::Compare);
    let effects = plan.inventory_answered(&name(), 1, Some(edge.inventory()), at(1));
    let [Effect::AskObjectVersions { inventory, buckets, .. }] = &effects[..] else { panic!("{effects:?}") };
    let held = edge.list(buckets);
    let effects = plan.object_versions(&name(), 1, (*inventory, buckets), Some(held), at(1));
    assert!(effects.is_empty(), "it is not tried again: {effects:?}");
    let view = plan.view(at(1))["edge-1"].clone();
    assert_eq!((view.waiting, view.refusing), (1, true));
    assert_eq!(view.last_refusal.as_deref(), Some("pods/default/b is too large for the link"));
    assert_eq!(put(&mut plan, object(PODS, "b", "2"), at(1)).len(), 1, "a smaller version is");
}

#[test]
fn changes_that_come_together_go_together() {
    let mut fixture = Fixture::new(new_plan([]), Edge::default());
    fixture.up(1);
    for n in 0..100 {
        let effects = fixture.plan.upsert(&name(), object(PODS, &format!("p{n}"), "1"), at(0));
        assert_eq!(effects.len(), usize::from(n == 0), "{effects:?}");
    }
    fixture.settle(vec![Effect::Flush]);
    assert_eq!(fixture.edge.batches.len(), 2);
}

#[test]
fn a_full_disk_is_seen_at_once_and_heals_by_itself() {
    let mut fixture = Fixture::new(new_plan([]), Edge::default());
    fixture.up(1);
    fixture.pass(15);
    fixture.edge.refuses = Some(|_| true);
    for n in 0..100 {
        fixture.put(object(PODS, &format!("p{n}"), "1"));
    }
    fixture.pass(2);
    let view = fixture.view();
    assert_eq!((view.in_sync, view.refusing, view.waiting), (false, true, 100));
    assert_eq!(view.last_refusal.as_deref(), Some("disk is full"));
    assert_eq!(fixture.states(), [SyncState::InSync, SyncState::Refused]);
    fixture.pass(600);
    assert!(fixture.edge.refused <= 70, "{} tries in ten minutes", fixture.edge.refused);
    assert_eq!(fixture.view().waiting, 100);
    fixture.edge.refuses = None;
    fixture.pass(60);
    assert!(fixture.view().in_sync, "{:?}", fixture.view());
    assert_eq!(fixture.edge.held.len(), 100);
    fixture.pass(10);
    let mut states = fixture.states();
    // When the node last confirmed anything is refreshed every five minutes.
    assert!(states.len() <= 5, "{states:?}");
    states.dedup();
    assert_eq!(states, [SyncState::InSync, SyncState::Refused, SyncState::InSync]);
}

#[test]
fn one_object_that_the_node_cannot_keep_holds_up_no_other() {
    let poison = |changes: &[Change]| changes.iter().any(|change| change.key().name == "p50");
    let mut fixture = Fixture::new(new_plan([]), Edge { refuses: Some(poison), ..Edge::default() });
    for n in 0..200 {
        fixture.put(object(SECRETS, &format!("p{n}"), "1"));
    }
    fixture.up(1);
    fixture.pass(30);
    assert_eq!(fixture.edge.held.len(), 199);
    let view = fixture.view();
    assert_eq!((view.waiting, view.refusing), (1, true));
    assert_eq!(view.oldest.unwrap().object, "secrets/default/p50");
    fixture.put(object(PODS, "later", "1"));
    fixture.pass(1);
    assert_eq!(fixture.edge.held.len(), 200, "others go on");
    fixture.edge.refuses = None;
    fixture.pass(60);
    assert!(fixture.view().in_sync && !fixture.view().refusing);
}

#[test]
fn what_flew_behind_a_refusal_is_sent_again_in_order() {
    let mut plan = new_plan([]);
    for n in 0..(BATCH_OBJECTS * 4) {
        plan.upsert(&name(), object(CONFIG_MAPS, &format!("c{n}"), "1"), at(0));
    }
    plan.upsert(&name(), object(PODS, "needs-them", "1"), at(0));
    let first_only = |changes: &[Change]| changes.len() == BATCH_OBJECTS;
    let mut fixture = Fixture::new(plan, Edge { refuses: Some(first_only), ..Edge::default() });
    fixture.up(1);
    assert_eq!((fixture.edge.refused, fixture.edge.stale), (1, 4));
    assert!(fixture.edge.held.is_empty());
    fixture.edge.refuses = None;
    fixture.pass(2);
    assert!(fixture.view().in_sync);
    assert_eq!(fixture.edge.changes().last().map(String::as_str), Some("+needs-them@1"));
}

#[test]
fn a_node_that_does_not_answer_is_asked_again() {
    let mut plan = new_plan([]);
    up(&mut plan, name(), 1);
    plan.upsert(&name(), object(PODS, "a", "1"), at(0));
    let hostile = Inventory { number: 1, digest: Digest { objects: 7, buckets: vec![0; 3] } };
    for answer in [None, Some(hostile)] {
        let effects = plan.inventory_answered(&name(), 1, answer, at(0));
        assert!(matches!(&effects[..], [Effect::RetryAfter { again: RetryOf::Compare, .. }]), "{effects:?}");
        assert!(matches!(&plan.retry(&name(), 1, RetryOf::Compare)[..], [Effect::AskInventory { .. }]));
    }
    let mut edge = Edge::holding(&set(&[&object(PODS, "b", "1")]));
    let effects = plan.inventory_answered(&name(), 1, Some(edge.inventory()), at(0));
    let [Effect::AskObjectVersions { inventory, buckets, .. }] = &effects[..] else { panic!("{effects:?}") };
    let effects = plan.object_versions(&name(), 1, (*inventory, buckets), None, at(0));
    assert!(matches!(&effects[..], [Effect::RetryAfter { .. }]), "{effects:?}");
}

#[test]
fn during_a_cut_the_gauge_and_the_condition_say_the_same_and_that_the_link_is_down_is_shown() {
    let mut fixture = Fixture::new(new_plan([]), Edge::default());
    fixture.put(object(PODS, "a", "1"));
    fixture.up(1);
    fixture.pass(12);
    assert_eq!((fixture.view().in_sync, fixture.shown.last().unwrap().1.linked), (true, true));
    fixture.plan.node_down(&name(), 1);
    fixture.pass(13);
    let (_, last) = fixture.shown.last().unwrap();
    assert_eq!((last.state, last.linked), (SyncState::InSync, false));
    let view = fixture.view();
    assert_eq!((view.in_sync, view.linked), (true, false));
    fixture.put(object(PODS, "a", "2"));
    fixture.pass(13);
    let (_, last) = fixture.shown.last().unwrap();
    assert_eq!((last.state, last.linked), (SyncState::Waiting, false));
    assert!(!fixture.view().in_sync);
    fixture.up(2);
    fixture.pass(13);
    let (_, last) = fixture.shown.last().unwrap();
    assert_eq!((last.state, last.linked, fixture.view().in_sync), (SyncState::InSync, true, true));
}

#[test]
fn what_waits_while_there_is_no_link_is_shown_by_who_had_it_last() {
    let mut fixture = Fixture::new(new_plan([]), Edge::default());
    fixture.put(object(PODS, "a", "1"));
    fixture.pass(30);
    assert!(fixture.shown.is_empty(), "a node that was never here");
    fixture.up(1);
    fixture.pass(12);
    fixture.plan.node_down(&name(), 1);
    fixture.put(object(PODS, "a", "2"));
    fixture.put(object(PODS, "b", "1"));
    fixture.pass(60);
    assert_eq!(fixture.states(), [SyncState::InSync, SyncState::Waiting]);
    let (when, last) = fixture.shown.last().unwrap();
    assert_eq!((*when, last.waiting, last.linked), (45, 2, false));
    assert_eq!(last.oldest, Some((object(PODS, "a", "2").key.clone(), 1_000_042)));
    let view = fixture.view();
    assert_eq!((view.linked, view.in_sync, view.waiting), (false, false, 2));
    assert_eq!(view.oldest.unwrap().seconds, 60);
    assert_eq!(view.last_confirmed, Some(1_000_030));
    fixture.up(2);
    fixture.pass(10);
    assert_eq!(fixture.states(), [SyncState::InSync, SyncState::Waiting, SyncState::InSync]);
    assert_eq!(fixture.edge.batches.len(), 2);
}

#[test]
fn a_storm_is_shown_a_few_nodes_at_a_time_and_nobody_is_forgotten() {
    let mut plan = new_plan([]);
    for n in 0..(WRITES_AT_ONCE * 3) {
        let node = NodeName::parse(&format!("edge-{n}")).unwrap();
        up(&mut plan, node.clone(), 1);
        plan.inventory_answered(&node, 1, Some(Edge::default().inventory()), at(0));
    }
    let mut shown = std::collections::BTreeSet::new();
    for second in 1..=3 {
        let effects = plan.tick(at(second));
        assert_eq!(effects.len(), WRITES_AT_ONCE);
        for effect in effects {
            let Effect::WriteStatus { node, status } = effect else { panic!("{effect:?}") };
            shown.insert(node.clone());
            // The API server does not take every one.
            plan.status_written(&node, status, !node.as_str().ends_with('0'));
        }
    }
    assert_eq!(shown.len(), WRITES_AT_ONCE * 3);
    assert!(plan.tick(at(4)).is_empty());
    let again = plan.tick(at(3 + WRITE_EVERY.as_secs()));
    assert_eq!(again.len(), 6, "those that were not written");
}

fn random_set(random: &mut StdRng, objects: usize) -> HeldObjects {
    let resources = [PODS, CONFIG_MAPS, SECRETS, DEVICES];
    (0..objects)
        .map(|n| {
            let key = ObjectKey::new(resources[n % 4], "default", format!("object-{n}"));
            (key, (format!("uid-{n}"), random.random_range(1..1_000_000_u32).to_string()))
        })
        .collect()
}

fn plan_of(set: &HeldObjects) -> Plan {
    let mut plan = new_plan([]);
    for (key, (uid, version)) in set {
        let (uid, content_hash) = (uid.clone(), version.clone());
        let (resource_version, json) = ("1".to_owned(), Bytes::from_static(b"{}"));
        let object = Object { key: key.clone(), uid, content_hash, resource_version, json };
        plan.upsert(&name(), Arc::new(object), at(0));
    }
    plan
}

#[test]
fn of_a_thousand_objects_three_changed_ones_cost_a_few_buckets() {
    let mut random = StdRng::seed_from_u64(3);
    let held = random_set(&mut random, 1000);
    let mut desired = held.clone();
    for entry in desired.values_mut().step_by(400) {
        entry.1.push('7');
    }
    let mut fixture = Fixture::new(plan_of(&desired), Edge::holding(&held));
    fixture.up(1);
    assert_eq!(fixture.edge.changes().len(), 3);
    assert_eq!(fixture.edge.lists, 1);
    assert!((3..=40).contains(&fixture.edge.listed), "{}", fixture.edge.listed);
    assert_eq!(fixture.edge.held, desired);
}

#[test]
fn long_lists_come_in_parts() {
    let mut random = StdRng::seed_from_u64(4);
    let held = random_set(&mut random, 5 * LIST_OBJECTS);
    let mut fixture = Fixture::new(new_plan([]), Edge::holding(&held));
    fixture.put(object(PODS, "only", "1"));
    fixture.up(1);
    assert!((5..=7).contains(&fixture.edge.lists), "{}", fixture.edge.lists);
    assert_eq!(fixture.edge.held.len(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn equal_sets_send_nothing_and_any_difference_is_found(
        seed: u64, objects in 0_usize..700, changed in 0_usize..12, gone in 0_usize..12, fresh in 0_usize..12,
        reborn in 0_usize..4,
    ) {
        let mut random = StdRng::seed_from_u64(seed);
        let desired = random_set(&mut random, objects);
        let mut held = desired.clone();
        let keys: Vec<ObjectKey> = desired.keys().cloned().collect();
        let pick = |random: &mut StdRng| {
            (!keys.is_empty()).then(|| keys[random.random_range(0..keys.len())].clone())
        };
        for _ in 0..changed {
            if let Some(entry) = pick(&mut random).and_then(|key| held.get_mut(&key)) {
                // Older or newer: versions do not compare.
                entry.1 = random.random_range(1..1_000_000_u32).to_string();
            }
        }
        for _ in 0..reborn {
            if let Some(entry) = pick(&mut random).and_then(|key| held.get_mut(&key)) {
                entry.0.push_str("-before");
            }
        }
        for _ in 0..gone {
            if let Some(key) = pick(&mut random) {
                held.remove(&key);
            }
        }
        for n in 0..fresh {
            held.insert(ObjectKey::new(PODS, "other", format!("{n}")), (format!("u{n}"), "1".to_owned()));
        }
        let differ = desired.iter().filter(|(key, value)| held.get(*key) != Some(*value)).count()
            + held.keys().filter(|key| !desired.contains_key(*key)).count();
        let mut fixture = Fixture::new(plan_of(&desired), Edge::holding(&held));
        fixture.up(1);
        prop_assert_eq!(&fixture.edge.held, &desired);
        prop_assert_eq!(fixture.edge.changes().len(), differ);
        prop_assert!(fixture.view().in_sync);
        if differ == 0 {
            prop_assert_eq!((fixture.edge.lists, fixture.edge.batches.len()), (0, 0));
        }
        // And once more: nothing is left to say.
        let (lists, batches) = (fixture.edge.lists, fixture.edge.batches.len());
        fixture.up(2);
        prop_assert_eq!((fixture.edge.lists, fixture.edge.batches.len()), (lists, batches));
    }
}
