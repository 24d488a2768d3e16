use super::*;
use crate::plan::EDGE_LABEL;
use Presence::{Absent, Present, Unknown};
use contract::ids::{CONFIG_MAPS, NODES, PODS, SERVICES};
use noderegistry::ENROLMENT_ANNOTATION;
use proptest::prelude::*;
use serde_json::json;

fn at(milliseconds: u64) -> Moment {
    Moment(Duration::from_millis(milliseconds))
}

fn edge_node() -> Value {
    json!({ "metadata": { "labels": { EDGE_LABEL: "" }, "annotations": { ENROLMENT_ANNOTATION: "0a" } } })
}

fn pod(uid: &str, node: &str, maps: &[&str]) -> Value {
    let volumes: Vec<Value> = maps.iter().map(|map| json!({ "configMap": { "name": map } })).collect();
    json!({
        "metadata": { "namespace": "d", "uid": uid },
        "spec": { "nodeName": node, "volumes": volumes, "enableServiceLinks": false },
    })
}

/// The same with variables for the Services of its namespace.
fn linked(uid: &str, node: &str) -> Value {
    let mut pod = pod(uid, node, &[]);
    pod["spec"]["enableServiceLinks"] = json!(true);
    pod
}

fn service(ip: &str) -> Value {
    json!({ "metadata": { "namespace": "d" }, "spec": { "clusterIP": ip, "ports": [{ "port": 80 }] } })
}

fn key(name: &str) -> ObjectKey {
    ObjectKey::new(PODS, "d", name)
}

fn node_key(name: &str) -> ObjectKey {
    ObjectKey::new(NODES, "", name)
}

fn map(name: &str) -> ObjectKey {
    ObjectKey::new(CONFIG_MAPS, "d", name)
}

fn shown(found: &Reconciled) -> Vec<String> {
    let keys = |(node, keys): (&NodeName, &BTreeSet<ObjectKey>)| {
        let names: Vec<&str> = keys.iter().map(|key| key.name.as_str()).collect();
        format!("{node}: {}", names.join(" "))
    };
    found.desired_keys.iter().map(keys).collect()
}

/// Of everything.
fn all(presence: Presence) -> impl Fn(&ObjectKey) -> Presence {
    move |_| presence
}

fn needs(found: &Reconciled) -> Vec<String> {
    let needs = found.needs.iter();
    needs.map(|(need, nodes)| format!("{} by {}", need.name, nodes.len())).collect()
}

fn index_with_edge_1() -> PodIndex {
    let mut index = PodIndex::default();
    index.node(&node_key("edge-1"), Some(&edge_node()), at(0));
    assert!(index.reconcile(all(Unknown), at(0)).is_complete);
    index
}

/// While nodes move over from KubeEdge one by one its CloudCore has the others.
#[test]
fn of_pods_on_a_node_that_is_kubeedges_nothing_is_asked_for_changed_or_sent_until_it_is_adopted() {
    let mut index = index_with_edge_1();
    let theirs = |annotations: Value| json!({ "metadata": { "uid": "n", "labels": { EDGE_LABEL: "" }, "annotations": annotations } });
    index.node(&node_key("old-1"), Some(&theirs(Value::Null)), at(1));
    index.pod(&key("web"), Some(&pod("u1", "old-1", &["page"])), &|_| None, at(1));
    let found = index.reconcile(all(Present), at(1));
    assert!(found.pods.is_empty(), "no toleration of it is lifted");
    assert!(found.needs.is_empty(), "no config map is read for it");
    assert!(found.desired_keys.values().all(BTreeSet::is_empty), "{:?}", shown(&found));
    assert!(!index.is_edge_node(&NodeName::parse("old-1").unwrap()), "nobody is evicted there");
    // Adopted, and back again.
    let adopted = theirs(json!({ "kubehive.io/adopted": "n" }));
    index.node(&node_key("old-1"), Some(&adopted), at(2));
    let found = index.reconcile(all(Present), at(2));
    assert_eq!((needs(&found), found.pods), (vec!["page by 1".to_owned()], BTreeSet::from([key("web")])));
    index.node(&node_key("old-1"), Some(&theirs(Value::Null)), at(3));
    let found = index.reconcile(all(Present), at(3));
    assert_eq!((needs(&found), found.pods), (vec!["page by 0".to_owned()], BTreeSet::new()));
}

#[test]
fn a_new_pod_goes_when_all_that_it_needs_is_answered() {
    let mut index = index_with_edge_1();
    index.pod(&key("web"), Some(&pod("u1", "edge-1", &["page", "extra"])), &|_| None, at(1000));
    let found = index.reconcile(all(Unknown), at(1000));
    assert_eq!((shown(&found), found.again), (vec!["edge-1: ".to_owned()], Some(TIMEOUT)));
    assert_eq!(needs(&found), ["extra by 1", "page by 1"]);
    assert_eq!(found.pods, BTreeSet::from([key("web")]));

    index.need(&map("page"));
    let presence = |need: &ObjectKey| if need.name == "page" { Present } else { Unknown };
    let found = index.reconcile(presence, at(1020));
    assert_eq!(shown(&found), ["edge-1: page"], "what it needs goes ahead");
    assert_eq!(found.again, Some(TIMEOUT - Duration::from_millis(20)));
    let presence = |need: &ObjectKey| if need.name == "page" { Present } else { Absent };
    let found = index.reconcile(presence, at(1021));
    assert_eq!((shown(&found), found.again), (vec!["edge-1: page web".to_owned()], None));
    assert_eq!(index.reconcile(presence, at(1051)).desired_keys, DesiredKeys::new(), "nothing moved");
    index.pod(&key("next"), Some(&pod("u2", "edge-1", &["page"])), &|_| None, at(1060));
    assert_eq!(shown(&index.reconcile(presence, at(1060))), ["edge-1: page next web"], "its need is known");
}

#[test]
fn a_pod_that_waits_in_vain_goes_and_one_that_has_gone_never_waits_again() {
    let mut index = index_with_edge_1();
    index.pod(&key("web"), Some(&pod("u1", "edge-1", &["never"])), &|_| None, at(1000));
    assert_eq!(shown(&index.reconcile(all(Unknown), at(5999))), ["edge-1: "]);
    assert_eq!(shown(&index.reconcile(all(Unknown), at(6000))), ["edge-1: web"]);
    index.pod(&key("web"), Some(&pod("u1", "edge-1", &["never", "neither"])), &|_| None, at(6300));
    assert_eq!(shown(&index.reconcile(all(Unknown), at(6300))), ["edge-1: web"]);
    index.pod(&key("web"), Some(&pod("u2", "edge-1", &["never"])), &|_| None, at(6400));
    assert_eq!(
        shown(&index.reconcile(all(Unknown), at(6400))),
        ["edge-1: "],
        "another pod of that name is new"
    );
    index.pod(&key("web"), None, &|_| None, at(6410));
    let found = index.reconcile(all(Unknown), at(6410));
    assert_eq!((shown(&found), found.again), (vec!["edge-1: ".to_owned()], None));
    index.pod(&key("bare"), Some(&pod("u3", "edge-1", &[])), &|_| None, at(6500));
    assert_eq!(
        shown(&index.reconcile(all(Unknown), at(6500))),
        ["edge-1: bare"],
        "what needs nothing waits for nothing"
    );
}

#[test]
fn nothing_is_known_to_be_missing_before_the_first_needs_are_answered() {
    let first = || {
        let mut index = PodIndex::default();
        index.node(&node_key("edge-1"), Some(&edge_node()), at(0));
        index.pod(&key("web"), Some(&pod("u1", "edge-1", &["page"])), &|_| None, at(1000));
        index.pod(&key("else"), Some(&pod("u1", "cloud-1", &["never"])), &|_| None, at(1000));
        assert!(!index.reconcile(all(Unknown), at(1000)).is_complete);
        index
    };
    let mut index = first();
    let presence = |need: &ObjectKey| if need.name == "page" { Absent } else { Unknown };
    index.pod(&key("later"), Some(&pod("u2", "edge-1", &["slow"])), &|_| None, at(1150));
    let found = index.reconcile(presence, at(1150));
    assert!(found.is_complete, "whatever came since");
    assert_eq!(shown(&found), ["edge-1: web"]);

    let mut index = first();
    assert!(!index.reconcile(all(Unknown), at(50_000)).is_complete, "though the pod went");
    let found = index.reconcile(all(Unknown), at(61_000));
    assert!(found.is_complete, "one that is never answered holds up its own nodes only");
    let edge = NodeName::parse("edge-1").unwrap();
    assert_eq!(index.blocked_by(&edge, |_| false), Some(&map("page")));

    let mut index = first();
    index.pod(&key("web"), None, &|_| None, at(1200));
    assert!(index.reconcile(all(Unknown), at(1200)).is_complete, "nobody needs it any more");
}

#[test]
fn a_node_is_blocked_by_a_pod_that_waits_and_by_a_need_that_is_not_whole() {
    let mut index = index_with_edge_1();
    let edge = NodeName::parse("edge-1").unwrap();
    let other = NodeName::parse("edge-2").unwrap();
    assert_eq!(index.blocked_by(&edge, |_| false), None, "nothing is there");
    index.pod(&key("web"), Some(&pod("u1", "edge-1", &["page"])), &|_| None, at(1000));
    index.reconcile(all(Unknown), at(1000));
    assert_eq!(index.blocked_by(&edge, |_| false), Some(&key("web")));
    index.reconcile(all(Absent), at(1010));
    assert_eq!(index.blocked_by(&edge, |_| true), None);
    assert_eq!(index.blocked_by(&edge, |_| false), Some(&map("page")), "its watch is broken");
    assert_eq!(index.blocked_by(&other, |_| false), None);
}

#[test]
fn a_node_that_turns_to_the_edge_gets_its_pods_and_one_that_turns_away_nothing() {
    let mut index = PodIndex::default();
    index.pod(&key("web"), Some(&pod("u1", "edge-1", &["page"])), &|_| None, at(0));
    let found = index.reconcile(all(Unknown), at(0));
    assert_eq!((found.again, needs(&found).len()), (None, 0), "nobody waits for a pod of the cloud's nodes");
    index.node(&node_key("edge-1"), Some(&edge_node()), at(900));
    let found = index.reconcile(all(Unknown), at(1000));
    assert_eq!((shown(&found), found.pods.len()), (vec!["edge-1: ".to_owned()], 1));
    assert_eq!(needs(&found), ["page by 1"]);
    assert_eq!(shown(&index.reconcile(all(Present), at(1001))), ["edge-1: page web"]);
    index.node(&node_key("edge-1"), Some(&edge_node()), at(1002));
    assert_eq!(
        index.reconcile(all(Present), at(1002)),
        Reconciled { is_complete: true, ..Reconciled::default() }
    );
    index.node(&node_key("edge-1"), Some(&json!({ "metadata": {} })), at(1003));
    let found = index.reconcile(all(Present), at(1003));
    assert_eq!((shown(&found), needs(&found)), (vec!["edge-1: ".to_owned()], vec!["page by 0".to_owned()]));
}

#[test]
fn the_services_of_a_namespace_go_once_to_each_node_with_a_pod_that_wants_links() {
    let at_web = |name: &str| ObjectKey::new(SERVICES, "d", name);
    let mut index = index_with_edge_1();
    index.node(&node_key("edge-2"), Some(&edge_node()), at(0));
    index.service(&at_web("db"), Some(&service("10.0.0.1")));
    index.service(&at_web("headless"), Some(&service("None")));
    index.service(&ObjectKey::new(SERVICES, "other", "far"), Some(&service("10.0.0.2")));
    index.pod(&key("plain"), Some(&pod("u1", "edge-2", &[])), &|_| None, at(1000));
    index.pod(&key("web"), Some(&linked("u2", "edge-1")), &|_| None, at(1000));
    let found = index.reconcile(all(Unknown), at(1000));
    assert_eq!(shown(&found), ["edge-1: ", "edge-2: plain"], "the Services are not listed yet");
    assert_eq!(needs(&found), Vec::<String>::new(), "nobody watches a Service by its name");
    let edge = NodeName::parse("edge-1").unwrap();
    assert_eq!(index.blocked_by(&edge, |_| true), Some(&key("web")));
    let found = index.reconcile(all(Present), at(1010));
    assert_eq!(shown(&found), ["edge-1: web db"]);
    assert_eq!(index.blocked_by(&edge, |_| false), Some(&service_links::need_in("d")));
    index.pod(&key("next"), Some(&linked("u3", "edge-1")), &|_| None, at(1020));
    assert_eq!(shown(&index.reconcile(all(Present), at(1020))), ["edge-1: next web db"]);
    // One that changes so that a variable would is sent again, to whom it is of use.
    index.service(&at_web("db"), Some(&service("10.0.0.1")));
    assert_eq!(shown(&index.reconcile(all(Present), at(1030))), ["edge-1: next web db"]);
    index.service(&at_web("headless"), None);
    assert!(shown(&index.reconcile(all(Present), at(1040))).is_empty(), "it was never sent");
    index.service(&at_web("db"), Some(&service("")));
    assert_eq!(shown(&index.reconcile(all(Present), at(1050))), ["edge-1: next web"]);
    index.service(&at_web("db"), Some(&service("10.0.0.1")));
    index.pod(&key("web"), None, &|_| None, at(1060));
    index.pod(&key("next"), None, &|_| None, at(1060));
    assert_eq!(shown(&index.reconcile(all(Present), at(1060))), ["edge-1: "]);
}

/// The rail behind a claim: the volume when the claim is bound, and what that one needs when it says whose it is.
#[test]
fn what_stands_behind_a_claim_goes_with_the_pod_as_it_comes() {
    use apimachinery::resource::{PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, SECRETS};
    let mut index = index_with_edge_1();
    let web = json!({ "metadata": { "namespace": "d", "name": "web", "uid": "u1" }, "spec": { "nodeName": "edge-1",
        "volumes": [{ "name": "v", "persistentVolumeClaim": { "claimName": "data" } }] } });
    let claim_key = ObjectKey::new(PERSISTENT_VOLUME_CLAIMS, "d", "data");
    let mut objects: BTreeMap<ObjectKey, Value> = BTreeMap::new();
    let is_there = |objects: &BTreeMap<ObjectKey, Value>, need: &ObjectKey| match objects.contains_key(need) {
        true => Present,
        false => Absent,
    };
    index.pod(&key("web"), Some(&web), &|need| objects.get(need), at(1000));
    let found = index.reconcile(|need| is_there(&objects, need), at(1000));
    assert_eq!(shown(&found), ["edge-1: web"], "a claim that is not there is the node's to tell");

    let mut moves = |objects: &mut BTreeMap<ObjectKey, Value>, key_of: &ObjectKey, value: Value| {
        objects.insert(key_of.clone(), value);
        for pod in index.needing(key_of) {
            index.pod(&pod, Some(&web), &|need| objects.get(need), at(2000));
        }
        index.need(key_of);
        let found = index.reconcile(|need| is_there(objects, need), at(2000));
        (shown(&found), found.needs.keys().map(|need| need.resource.clone()).collect::<BTreeSet<_>>())
    };
    let claim = json!({ "metadata": { "namespace": "d", "name": "data", "uid": "c1" }, "spec": { "volumeName": "pv" } });
    let (told, needs) = moves(&mut objects, &claim_key, claim);
    assert_eq!(told, ["edge-1: data web"]);
    assert_eq!(needs, BTreeSet::from([PERSISTENT_VOLUMES.to_owned()]));
    let volume = |uid: &str| {
        json!({ "metadata": { "name": "pv" }, "spec": {
        "claimRef": { "namespace": "d", "name": "data", "uid": uid },
        "csi": { "driver": "x", "volumeHandle": "h", "nodeStageSecretRef": { "namespace": "k", "name": "s" } } } })
    };
    let pv = ObjectKey::new(PERSISTENT_VOLUMES, "", "pv");
    let (told, needs) = moves(&mut objects, &pv, volume("another claim's"));
    assert_eq!((told, needs.len()), (vec!["edge-1: data pv web".to_owned()], 0), "its Secrets go nowhere");
    let (_, needs) = moves(&mut objects, &pv, volume("c1"));
    assert!(needs.contains(SECRETS) && needs.len() == 3, "{needs:?}");
}

#[derive(Debug, Clone)]
enum Step {
    Node(usize, Option<bool>),
    Pod(usize, Option<(usize, usize, Vec<usize>)>),
    /// What the API server holds.
    Need(usize, bool),
    /// It answers what is asked of a need.
    Answer(usize),
    Reconcile(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let placed = (0_usize..3, 0_usize..5, prop::collection::vec(0_usize..4, 0..3));
    let step = prop_oneof![
        (0_usize..4, prop::option::of(any::<bool>())).prop_map(|(node, edge)| Step::Node(node, edge)),
        (0_usize..6, prop::option::of(placed)).prop_map(|(pod, place)| Step::Pod(pod, place)),
        (0_usize..4, any::<bool>()).prop_map(|(need, there)| Step::Need(need, there)),
        (0_usize..4).prop_map(Step::Answer),
        (0_u64..3000).prop_map(Step::Reconcile),
    ];
    prop::collection::vec(step, 1..60)
}

/// Takes what a look says as what the nodes hold.
fn follow(told: &mut DesiredKeys, found: Reconciled) {
    for (node, keys) in found.desired_keys {
        if keys.is_empty() {
            told.remove(&node)
        } else {
            told.insert(node, keys)
        };
    }
}

/// The API server and the named watches, by a few lines.
#[derive(Default)]
struct FakeWatches {
    there: BTreeSet<ObjectKey>,
    /// Those that are watched, and whether each was answered.
    watched: BTreeMap<ObjectKey, bool>,
}

impl FakeWatches {
    fn presence(&self, need: &ObjectKey) -> Presence {
        match (self.watched.get(need), self.there.contains(need)) {
            (Some(true), true) => Present,
            (Some(true), false) => Absent,
            _ => Unknown,
        }
    }

    fn follow(&mut self, needs: &BTreeMap<ObjectKey, Vec<NodeName>>) {
        for (need, nodes) in needs {
            if nodes.is_empty() {
                self.watched.remove(need);
            } else {
                self.watched.entry(need.clone()).or_default();
            }
        }
    }
}

proptest! {
    /// However things moved: exactly what a pod on an edge node needs is watched; once everything is answered what was
    /// told is what a look at everything would say; and before that a pod is late at the most, and nothing else is
    /// missing or too much.
    #[test]
    fn the_index_comes_to_what_all_pods_say(steps in steps()) {
        let (mut index, mut told, mut now) = (PodIndex::default(), DesiredKeys::new(), at(0));
        let (mut nodes, mut pods) = (BTreeSet::new(), BTreeMap::new());
        let mut watches = FakeWatches::default();
        let answers = (0..4).map(Step::Answer);
        let all = [Step::Reconcile(0)].into_iter().chain(answers).chain([Step::Reconcile(0)]);
        for step in steps.into_iter().chain(all) {
            match step {
                Step::Node(n, edge) => {
                    let name = format!("n{n}");
                    let value = edge.map(|edge| if edge { edge_node() } else { json!({}) });
                    index.node(&node_key(&name), value.as_ref(), now);
                    let name = NodeName::parse(&name).unwrap();
                    if edge == Some(true) { nodes.insert(name) } else { nodes.remove(&name) };
                }
                Step::Pod(n, place) => {
                    // Node 4 stands for a pod that is bound to none.
                    let value = place.map(|(uid, node, maps)| {
                        let node = if node == 4 { String::new() } else { format!("n{node}") };
                        let maps: Vec<String> = maps.iter().map(|map| format!("m{map}")).collect();
                        let maps: Vec<&str> = maps.iter().map(String::as_str).collect();
                        pod(&uid.to_string(), &node, &maps)
                    });
                    let key = key(&format!("p{n}"));
                    index.pod(&key, value.as_ref(), &|_| None, now);
                    match value {
                        Some(value) => pods.insert(key, value),
                        None => pods.remove(&key),
                    };
                }
                Step::Need(n, there) => {
                    let key = map(&format!("m{n}"));
                    if there { watches.there.insert(key.clone()) } else { watches.there.remove(&key) };
                    index.need(&key);
                }
                Step::Answer(n) => {
                    let key = map(&format!("m{n}"));
                    if let Some(answered) = watches.watched.get_mut(&key) {
                        *answered = true;
                        index.need(&key);
                    }
                }
                Step::Reconcile(milliseconds) => {
                    now = now + Duration::from_millis(milliseconds);
                    let found = index.reconcile(|need| watches.presence(need), now);
                    watches.follow(&found.needs);
                    follow(&mut told, found);
                    let needed: BTreeSet<ObjectKey> =
                        plan::desired_keys(&nodes, &pods, &|_| None, |_| true).into_values().flatten()
                            .filter(|key| key.resource != PODS).collect();
                    prop_assert!(watches.watched.keys().eq(&needed));
                    let full = plan::desired_keys(&nodes, &pods, &|_| None, |need| watches.presence(need) == Present);
                    for (node, keys) in &full {
                        let here = told.get(node).cloned().unwrap_or_default();
                        prop_assert!(here.is_subset(keys));
                        let late: Vec<&ObjectKey> = keys.difference(&here).collect();
                        prop_assert!(late.iter().all(|key| index.waiting.contains_key(*key)), "{late:?}");
                    }
                    prop_assert!(told.keys().all(|node| full.contains_key(node)));
                }
            }
        }
        prop_assert!(index.waiting.is_empty(), "everything is answered");
        prop_assert_eq!(told, plan::desired_keys(&nodes, &pods, &|_| None, |need| watches.presence(need) == Present));
    }
}
