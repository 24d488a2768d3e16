//! Plugins come and go, and pods keep what they have.

use super::*;

const X: &str = "example.com/x";

fn at(seconds: u64) -> Moment {
    Moment(Duration::from_secs(seconds))
}

fn registration(resource: &str) -> PluginRegistration {
    PluginRegistration {
        resource: resource.to_owned(),
        endpoint: "x.sock".to_owned(),
        pre_start_required: false,
        preferred_allocation: false,
    }
}

fn devices(text: &str) -> BTreeMap<String, PluginDevice> {
    let device = |name: &str| PluginDevice { is_healthy: !name.ends_with('!'), nodes: BTreeSet::new() };
    text.split_whitespace().map(|name| (name.trim_end_matches('!').to_owned(), device(name))).collect()
}

fn ids(text: &str) -> Ids {
    text.split_whitespace().map(str::to_owned).collect()
}

fn with(text: &str) -> (Ledger, u64) {
    let mut ledger = Ledger::new("boot".into(), BTreeMap::new(), BTreeSet::new(), at(0));
    let session = ledger.registered(registration(X), at(0)).unwrap();
    ledger.listed(X, session, devices(text));
    (ledger, session)
}

fn count(ledger: &Ledger) -> (u64, u64, bool) {
    let count = ledger.report().resources[X];
    (count.capacity, count.allocatable, count.is_awaited)
}

fn give(ledger: &mut Ledger, uid: &str, text: &str) {
    ledger.entry(uid, "default", uid);
    ledger.reserve(uid, "c", X, &ids(text));
    assert!(ledger.answered(uid, "c", X, Vec::new()));
}

#[test]
fn a_plugin_that_goes_leaves_its_devices_unhealthy_and_after_a_while_none() {
    let (mut ledger, session) = with("a b c!");
    assert_eq!(count(&ledger), (3, 2, false));
    assert!(ledger.plugin_gone(X, session, at(10)));
    assert_eq!(count(&ledger), (3, 0, false));
    assert_eq!(ledger.presence(X), Presence::MayCome);
    assert_eq!(ledger.expire(at(309)), Vec::<String>::new());
    assert_eq!(ledger.expire(at(310)), [X]);
    assert_eq!(
        count(&ledger),
        (0, 0, false),
        "a capacity of 0 is said, and not that there is no such resource"
    );
    assert_eq!(ledger.presence(X), Presence::Absent);
    assert_eq!(ledger.expire(at(1000)), Vec::<String>::new());
}

#[test]
fn a_newer_plugin_takes_the_place_of_an_older_one() {
    let (mut ledger, old) = with("a");
    let new = ledger.registered(registration(X), at(0)).unwrap();
    ledger.listed(X, old, devices("z"));
    assert!(!ledger.plugin_gone(X, old, at(5)), "the end of the older one says nothing");
    ledger.listed(X, new, devices("a b"));
    assert_eq!(count(&ledger), (2, 2, false));
}

#[test]
fn pods_keep_their_devices_over_a_restart_of_either_side() {
    let (mut ledger, session) = with("a b c");
    give(&mut ledger, "p", "b");
    // Of the plugin.
    ledger.plugin_gone(X, session, at(1));
    let session = ledger.registered(registration(X), at(0)).unwrap();
    ledger.listed(X, session, devices("a b c"));
    assert_eq!(ledger.choose(X, 2, &Ids::new(), None, None), Ok(Choice::Take(ids("a c"))));
    // Of the daemon.
    let kept = ledger.pods.clone();
    let mut ledger = Ledger::new("boot".into(), kept, ledger.known().cloned().collect(), at(0));
    assert_eq!(count(&ledger), (0, 0, true));
    assert_eq!(ledger.presence(X), Presence::MayCome);
    assert_eq!(
        ledger.choose(X, 1, &Ids::new(), None, None).unwrap_err(),
        "no healthy devices present; cannot allocate unhealthy devices example.com/x"
    );
    let session = ledger.registered(registration(X), at(0)).unwrap();
    assert_eq!(count(&ledger), (0, 0, true), "registered, and has not said which devices there are");
    assert_eq!(ledger.listed(X, session, devices("a b c")), Changes::default());
    assert_eq!(ledger.used(X), ids("b"));
}

#[test]
fn after_a_boot_of_the_machine_devices_are_a_pods_again_once_they_are_healthy() {
    let (mut ledger, _) = with("a b");
    give(&mut ledger, "p", "a b");
    let mut ledger = Ledger::new("next".into(), ledger.pods.clone(), BTreeSet::new(), at(0));
    assert!(ledger.is_known(X), "by the pod that has some");
    let session = ledger.registered(registration(X), at(0)).unwrap();
    assert_eq!(ledger.listed(X, session, devices("a b!")), Changes::default());
    assert_eq!(ledger.container("p", "c").unwrap().devices[X].boot, "boot");
    assert_eq!(ledger.listed(X, session, devices("a b")).changed, ids("p"));
    assert_eq!(ledger.container("p", "c").unwrap().devices[X].boot, "next");
}

#[test]
fn what_pods_had_that_are_gone_is_free() {
    let (mut ledger, _) = with("a b c");
    give(&mut ledger, "p", "a");
    give(&mut ledger, "q", "b");
    give(&mut ledger, "new", "c");
    let active = |uid: &str| {
        let pod = ActivePod { namespace: "default".into(), name: uid.into(), containers: vec!["c".into()] };
        BTreeMap::from([(uid.to_owned(), pod)])
    };
    let freed = ledger.set_active(active("q"), true, &ids("new")).freed;
    assert_eq!(freed, ids("p"));
    assert_eq!(ledger.used(X), ids("b c"), "one that is being admitted keeps what it has so far");
    ledger.release("new");
    assert_eq!(ledger.used(X), ids("b"));
    assert!(!ledger.answered("new", "c", X, Vec::new()), "an answer that comes too late is for nobody");
}

#[test]
fn the_health_of_a_pods_devices_is_told() {
    let (mut ledger, session) = with("a b");
    give(&mut ledger, "p", "a b");
    ledger.listed(X, session, devices("a b!"));
    let health = ledger.report().health;
    let told: Vec<_> = health["p"].iter().map(|device| (device.id.as_str(), device.is_healthy)).collect();
    assert_eq!(told, [("a", true), ("b", false)]);
}

#[test]
fn there_is_a_bound_for_resources() {
    let mut ledger = Ledger::new("boot".into(), BTreeMap::new(), BTreeSet::new(), at(0));
    for number in 0..RESOURCES_MAX {
        assert!(ledger.registered(registration(&format!("example.com/x{number}")), at(0)).is_some());
    }
    assert_eq!(ledger.registered(registration("example.com/one-more"), at(0)), None);
    assert!(
        ledger.registered(registration("example.com/x0"), at(0)).is_some(),
        "those that are there may come again"
    );
}

#[test]
fn who_was_never_named_keeps_what_he_has_while_it_is_not_known_who_is_here() {
    let (mut ledger, _) = with("a b c");
    for (uid, device) in [("p", "a"), ("orphan", "b"), ("new", "c")] {
        give(&mut ledger, uid, device);
    }
    let active = |uids: &str| {
        let pod = |uid: String| {
            let pod =
                ActivePod { namespace: "default".into(), name: uid.clone(), containers: vec!["c".into()] };
            (uid, pod)
        };
        ids(uids).into_iter().map(pod).collect::<BTreeMap<_, _>>()
    };
    let none = BTreeSet::new();
    assert_eq!(ledger.set_active(active("p new"), false, &none).freed, none);
    assert_eq!(
        ledger.set_active(active("new"), false, &none).freed,
        ids("p"),
        "it was here, and is not any more"
    );
    assert_eq!(ledger.used(X), ids("b c"));
    assert_eq!(ledger.set_active(active("new"), true, &none).freed, ids("orphan"));
}

#[test]
fn a_plugin_that_never_says_which_devices_it_has_is_waited_for_as_long_as_one_that_is_away() {
    let mut ledger = Ledger::new("boot".into(), BTreeMap::new(), BTreeSet::new(), at(0));
    let session = ledger.registered(registration(X), at(100)).unwrap();
    assert_eq!(ledger.expire(at(399)), Vec::<String>::new());
    assert_eq!((ledger.presence(X), count(&ledger)), (Presence::MayCome, (0, 0, true)));
    assert_eq!(ledger.expire(at(400)), [X]);
    assert_eq!((ledger.presence(X), count(&ledger)), (Presence::Absent, (0, 0, false)));
    assert_eq!(ledger.expire(at(500)), Vec::<String>::new());
    ledger.listed(X, session, devices("a"));
    assert_eq!((ledger.presence(X), count(&ledger)), (Presence::Here, (1, 1, false)));
}

#[test]
fn a_resource_that_is_gone_and_nobodys_makes_room_for_another() {
    let mut ledger = Ledger::new("boot".into(), BTreeMap::new(), BTreeSet::new(), at(0));
    let name = |number: usize| format!("example.com/x{number:02}");
    for number in 0..RESOURCES_MAX {
        let session = ledger.registered(registration(&name(number)), at(0)).unwrap();
        ledger.listed(&name(number), session, devices("a"));
        if number < 2 {
            ledger.plugin_gone(&name(number), session, at(0));
        }
    }
    let other = "example.com/y";
    assert_eq!(ledger.make_room(other), None, "they may come back");
    ledger.entry("p", "default", "p");
    ledger.reserve("p", "c", &name(0), &ids("a"));
    ledger.expire(at(300));
    assert_eq!(ledger.make_room(&name(5)), None, "it has its place");
    assert_eq!(ledger.make_room(other), Some(name(1)), "a pod has one of the other");
    assert!(ledger.registered(registration(other), at(300)).is_some());
    assert_eq!(ledger.make_room("example.com/z"), None);
}

#[test]
fn init_containers_hand_on_what_they_had() {
    let has = |text: &str| ContainerAllocation {
        devices: [(
            X.to_owned(),
            DeviceAllocation {
                devices: ids(text).into_iter().map(|id| (id, BTreeSet::new())).collect(),
                ..Default::default()
            },
        )]
        .into(),
        ..Default::default()
    };
    let mut reusable = Reusable::default();
    reusable.passed(ContainerKind::Init, &has("a b"));
    assert_eq!(reusable.devices(X), ids("a b"));
    reusable.passed(ContainerKind::Sidecar, &has("a"));
    assert_eq!(reusable.devices(X), ids("b"), "a sidecar stays");
    reusable.passed(ContainerKind::Init, &has("c"));
    reusable.passed(ContainerKind::Main, &has("b c"));
    assert_eq!(reusable.devices(X), Ids::new());
}
