use super::*;

fn deployment() -> Value {
    json!({
        "metadata": {"name": "web", "namespace": "d", "uid": "d1", "generation": 1, "resourceVersion": "1",
            "annotations": {"note": "x", "kubectl.kubernetes.io/last-applied-configuration": "{}"}},
        "spec": {"replicas": 2, "revisionHistoryLimit": 1, "progressDeadlineSeconds": 600,
            "selector": {"matchLabels": {"app": "web"}},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"image": "a"}]}}},
    })
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

/// A replica set as it is stored after the plan asked for it.
fn stored(plan: &Plan, count: i64) -> Value {
    let mut set = plan
        .steps
        .iter()
        .find_map(|step| match step {
            RolloutStep::Create(set) => Some(set.clone()),
            RolloutStep::Patch { .. }
            | RolloutStep::Scale { .. }
            | RolloutStep::Delete(_)
            | RolloutStep::Revision(_) => None,
        })
        .unwrap();
    set["metadata"]["uid"] = json!(format!("uid-{}", name(&set)));
    set["metadata"]["creationTimestamp"] = json!(seconds(at(count)));
    with_pods(&mut set, 0);
    set
}

fn with_pods(set: &mut Value, count: i64) {
    set["status"] = json!({"replicas": count, "readyReplicas": count, "availableReplicas": count});
}

fn said(deployment: &mut Value, plan: &Plan) {
    deployment["status"] = plan.status.clone();
    for step in &plan.steps {
        if let RolloutStep::Revision(patch) = step {
            deployment["metadata"]["annotations"][REVISION] =
                patch["metadata"]["annotations"][REVISION].clone();
        }
    }
}

fn progressing(plan: &Plan) -> (String, String) {
    let status = json!({"status": plan.status});
    let found = condition(&status, "Progressing").unwrap();
    (text(found, "/status").to_owned(), text(found, "/reason").to_owned())
}

#[test]
fn a_new_deployment_gets_a_replica_set_and_then_is_complete() {
    let mut deployment = deployment();
    let first = plan(&deployment, &[], false, at(0));
    let mut set = stored(&first, 1);
    assert_eq!(size(&set), 2);
    assert_eq!(annotation(&set, REVISION), Some("1"));
    assert_eq!(annotation(&set, "note"), Some("x"));
    assert_eq!(annotation(&set, OWN[0]), None);
    assert_eq!(progressing(&first), ("True".to_owned(), "NewReplicaSetCreated".to_owned()));
    assert_eq!(condition_status(&json!({"status": first.status}), "Available"), "False");
    said(&mut deployment, &first);
    assert_eq!(annotation(&deployment, REVISION), Some("1"));

    with_pods(&mut set, 1);
    let second = plan(&deployment, &[&set], false, at(1));
    assert_eq!(second.steps, []);
    assert_eq!(progressing(&second), ("True".to_owned(), "ReplicaSetUpdated".to_owned()));
    assert_eq!(second.status["unavailableReplicas"], 1);
    said(&mut deployment, &second);

    with_pods(&mut set, 2);
    let third = plan(&deployment, &[&set], false, at(2));
    assert_eq!(progressing(&third), ("True".to_owned(), "NewReplicaSetAvailable".to_owned()));
    assert_eq!(
        (&third.status["updatedReplicas"], &third.status["availableReplicas"]),
        (&json!(2), &json!(2))
    );
    assert_eq!(third.wake, None);
    said(&mut deployment, &third);
    let again = plan(&deployment, &[&set], false, at(3));
    assert!(again.steps.is_empty() && is_said(&deployment, &again.status));

    // A pod is away: that is no rollout, and no deadline runs.
    with_pods(&mut set, 1);
    let away = plan(&deployment, &[&set], false, at(4));
    assert_eq!(condition_status(&json!({"status": away.status}), "Available"), "False");
    assert_eq!(away.wake, None);
}

#[test]
fn a_rollout_that_stands_still_is_told_after_the_deadline() {
    let mut deployment = deployment();
    let first = plan(&deployment, &[], false, at(0));
    let set = stored(&first, 1);
    said(&mut deployment, &first);
    let waiting = plan(&deployment, &[&set], false, at(10));
    assert_eq!(waiting.wake, Some(Duration::from_secs(590)));
    said(&mut deployment, &waiting);
    let late = plan(&deployment, &[&set], false, at(600));
    assert_eq!(progressing(&late), ("False".to_owned(), "ProgressDeadlineExceeded".to_owned()));
}

#[test]
fn another_template_rolls_and_old_sets_beyond_the_history_go() {
    let mut deployment = deployment();
    let first = plan(&deployment, &[], false, at(0));
    let mut one = stored(&first, 1);
    with_pods(&mut one, 2);
    said(&mut deployment, &first);

    deployment["spec"]["template"]["spec"]["containers"][0]["image"] = json!("b");
    let second = plan(&deployment, &[&one], true, at(10));
    let mut two = stored(&second, 2);
    assert_eq!(size(&two), 1, "one more than wanted at a time");
    assert_eq!(annotation(&two, REVISION), Some("2"));
    said(&mut deployment, &second);

    with_pods(&mut two, 1);
    let third = plan(&deployment, &[&one, &two], true, at(11));
    assert!(
        matches!(third.steps.as_slice(), [RolloutStep::Scale { from: 2, to: 1, .. }]),
        "{:?}",
        third.steps
    );

    // Rolled over, and rolled back: the old set gets a new number and remembers its old one.
    one["spec"]["replicas"] = json!(0);
    with_pods(&mut one, 0);
    two["spec"]["replicas"] = json!(2);
    with_pods(&mut two, 2);
    deployment["spec"]["template"]["spec"]["containers"][0]["image"] = json!("a");
    let back = plan(&deployment, &[&one, &two], true, at(20));
    let Some(RolloutStep::Scale { patch, to: 1, .. }) =
        back.steps.iter().find(|step| matches!(step, RolloutStep::Scale { .. }))
    else {
        panic!("{:?}", back.steps)
    };
    assert_eq!(patch["metadata"]["annotations"][REVISION], "3");
    assert_eq!(patch["metadata"]["annotations"][HISTORY], "1");

    // Two idle old sets, and one is kept.
    let mut three = two.clone();
    three["metadata"]["name"] = json!("web-three");
    three["metadata"]["uid"] = json!("uid-three");
    three["metadata"]["annotations"][REVISION] = json!("4");
    three["spec"]["template"]["spec"]["containers"][0]["image"] = json!("c");
    deployment["spec"]["template"]["spec"]["containers"][0]["image"] = json!("c");
    two["spec"]["replicas"] = json!(0);
    with_pods(&mut two, 0);
    let done = plan(&deployment, &[&one, &two, &three], false, at(30));
    assert!(done.steps.contains(&RolloutStep::Delete(name(&one).to_owned())), "{:?}", done.steps);
    assert!(!done.steps.contains(&RolloutStep::Delete(name(&two).to_owned())));
}

#[test]
fn recreate_waits_for_the_old_pods() {
    let mut deployment = deployment();
    let first = plan(&deployment, &[], false, at(0));
    let mut one = stored(&first, 1);
    said(&mut deployment, &first);
    deployment["spec"]["strategy"] = json!({"type": "Recreate"});
    deployment["spec"]["template"]["spec"]["containers"][0]["image"] = json!("b");
    let down = plan(&deployment, &[&one], true, at(1));
    assert!(matches!(down.steps.as_slice(), [RolloutStep::Scale { to: 0, .. }]), "{:?}", down.steps);
    one["spec"]["replicas"] = json!(0);
    assert!(plan(&deployment, &[&one], true, at(2)).steps.is_empty());
    let up = plan(&deployment, &[&one], false, at(3));
    assert_eq!(size(&stored(&up, 2)), 2);
}

#[test]
fn a_paused_deployment_scales_and_does_not_roll() {
    let mut deployment = deployment();
    let first = plan(&deployment, &[], false, at(0));
    let mut one = stored(&first, 1);
    with_pods(&mut one, 2);
    said(&mut deployment, &first);
    deployment["spec"]["paused"] = json!(true);
    deployment["spec"]["replicas"] = json!(5);
    deployment["spec"]["template"]["spec"]["containers"][0]["image"] = json!("b");
    let paused = plan(&deployment, &[&one], true, at(1));
    assert!(
        matches!(paused.steps.as_slice(), [RolloutStep::Scale { from: 2, to: 5, .. }]),
        "{:?}",
        paused.steps
    );
    assert_eq!(progressing(&paused), ("Unknown".to_owned(), "DeploymentPaused".to_owned()));
}

#[test]
fn a_scaled_deployment_scales_its_set() {
    let mut deployment = deployment();
    let first = plan(&deployment, &[], false, at(0));
    let mut one = stored(&first, 1);
    with_pods(&mut one, 2);
    said(&mut deployment, &first);
    for (replicas, to) in [(4, 4), (1, 1), (0, 0)] {
        deployment["spec"]["replicas"] = json!(replicas);
        let scaled = plan(&deployment, &[&one], false, at(1));
        let Some(RolloutStep::Scale { to: planned, .. }) = scaled.steps.first() else {
            panic!("{:?}", scaled.steps)
        };
        assert_eq!(*planned, to);
    }
}

/// The replica set as it is after the plan's steps.
fn carried_out(plan: &Plan, set: &mut Value) {
    for step in &plan.steps {
        let RolloutStep::Scale { set: scaled, patch, to, .. } = step else { continue };
        if scaled == name(set) {
            set["spec"]["replicas"] = json!(to);
            for (key, value) in patch["metadata"]["annotations"].as_object().unwrap() {
                set["metadata"]["annotations"][key] = value.clone();
            }
        }
    }
}

#[test]
fn a_rollout_that_is_scaled_goes_on_though_one_share_does_not_move() {
    for strategy in ["RollingUpdate", "Recreate"] {
        let mut deployment = deployment();
        deployment["spec"]["replicas"] = json!(3);
        let first = plan(&deployment, &[], false, at(0));
        let mut old = stored(&first, 1);
        with_pods(&mut old, 3);
        said(&mut deployment, &first);
        deployment["spec"]["template"]["spec"]["containers"][0]["image"] = json!("b");
        let second = plan(&deployment, &[&old], true, at(1));
        let mut new = stored(&second, 2);
        said(&mut deployment, &second);
        assert_eq!((size(&old), size(&new)), (3, 1));
        // The new pod is not ready yet. The old set's share of 4 is one more, the new one's is what it has.
        deployment["spec"]["replicas"] = json!(4);
        deployment["spec"]["strategy"]["type"] = json!(strategy);
        let scaled = plan(&deployment, &[&old, &new], true, at(2));
        carried_out(&scaled, &mut old);
        carried_out(&scaled, &mut new);
        if strategy == "RollingUpdate" {
            assert_eq!((size(&old), size(&new)), (4, 1));
        }
        for second in 3..20 {
            for set in [&mut old, &mut new] {
                let pods = size(set);
                with_pods(set, pods);
            }
            let next = plan(&deployment, &[&old, &new], size(&old) > 0, at(second));
            carried_out(&next, &mut old);
            carried_out(&next, &mut new);
        }
        assert_eq!((size(&old), size(&new)), (0, 4), "{strategy}");
        assert!(plan(&deployment, &[&old, &new], false, at(30)).steps.is_empty());
    }
}

#[test]
fn one_set_that_has_its_size_already_is_told_the_new_whole() {
    let mut deployment = deployment();
    let first = plan(&deployment, &[], false, at(0));
    let mut set = stored(&first, 1);
    with_pods(&mut set, 5);
    said(&mut deployment, &first);
    // Somebody scaled the set by hand, and then the deployment to the same.
    set["spec"]["replicas"] = json!(5);
    deployment["spec"]["replicas"] = json!(5);
    let scaled = plan(&deployment, &[&set], false, at(1));
    carried_out(&scaled, &mut set);
    assert_eq!(annotation(&set, rollout::DESIRED), Some("5"));
    deployment["spec"]["template"]["spec"]["containers"][0]["image"] = json!("b");
    let next = plan(&deployment, &[&set], true, at(2));
    assert!(next.steps.iter().any(|step| matches!(step, RolloutStep::Create(_))), "{:?}", next.steps);
}
