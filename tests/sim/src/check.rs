//! What has to hold in every run.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use contract::ids::RULES;
use contract::wire::ROUTER_MAILBOX;
use edge_store::Class;
use serde_json::Value;

use crate::actors::{ACTORS, SILENT};
use crate::api::objects;
use crate::run::{Job, Run, device};
use crate::story::RULES_VERSION;
use crate::violations::note;
use crate::world::OUTBOX_ROWS;

/// An eighth of the outbox is left to events.
const TELEMETRY_ROWS: u64 = OUTBOX_ROWS - OUTBOX_ROWS / 8;

/// 5 min of the simulated clock: once faults have stopped, everything is as it should be within this.
const LIMIT: Duration = Duration::from_secs(300);
/// 500 ms of the simulated clock between looks.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Every queue is within its bound, and every actor is one whose panics are planned. Held at any time.
pub(crate) async fn bounds(run: &mut Run) {
    let mut reports = Vec::new();
    for node in &run.world.nodes {
        if let Some(core) = node.core() {
            reports.push(core.inspector().report(Duration::from_secs(1)).await);
        }
        if let Some(store) = node.store() {
            // A status is always taken: it replaces its elder.
            let rows = store.outbox_head(usize::MAX, usize::MAX).unwrap_or_default();
            let count = |class: Class| rows.iter().filter(|row| row.class == class).count() as u64;
            let (events, telemetry) = (count(Class::Event), count(Class::Telemetry));
            run.outcome.fullest = run.outcome.fullest.max(events + telemetry);
            if events + telemetry > OUTBOX_ROWS || telemetry > TELEMETRY_ROWS {
                let what =
                    format!("the outbox of {} holds {events} events, {telemetry} of telemetry", node.name);
                note(&run.world.violations, what);
            }
        }
    }
    reports.extend(run.world.cloud_reports().await);
    for actor in reports.iter().flat_map(|report| &report.actors) {
        let is_named = ACTORS.iter().any(|kind| kind.name == actor.kind);
        if !is_named && !SILENT.contains(&actor.kind) || SILENT.contains(&actor.kind) && actor.handled > 0 {
            let what = format!("{} is not in `actors::ACTORS`: no panic of it is ever planned", actor.name);
            note(&run.world.violations, what);
        }
        if actor.queued > actor.capacity {
            let (name, queued) = (&actor.name, actor.queued);
            note(&run.world.violations, format!("{name} queues {queued} of {}", actor.capacity));
        }
    }
}

/// Once faults have stopped: the nodes' sets are the cloud's, containers and statuses are as they should be, and no
/// accepted report is missing.
pub(crate) async fn converges(run: &mut Run) {
    let until = run.world.env.now() + LIMIT;
    loop {
        let wrong = differences(run).await;
        if wrong.is_empty() {
            break;
        }
        if run.world.env.now() > until {
            for what in wrong {
                note(&run.world.violations, format!("after {} s: {what}", LIMIT.as_secs()));
            }
            return;
        }
        run.world.env.sleep(LOOK_EVERY).await;
        run.no_daemon_gives_up().await;
    }
    needless_restarts(run);
    unmarked_repeats(run).await;
    if let Some(what) = run.world.authority.defect().await {
        note(&run.world.violations, what);
    }
}

/// The routers' own counts say so, too.
async fn unmarked_repeats(run: &Run) {
    let reports = run.world.cloud_reports().await;
    let routers =
        reports.iter().flat_map(|report| &report.actors).filter(|actor| actor.name == ROUTER_MAILBOX);
    for node in
        routers.filter_map(|router| router.snapshot["nodes"].as_object()).flat_map(|nodes| nodes.values())
    {
        for source in node["sources"].as_array().into_iter().flatten() {
            if source["unmarkedRepeats"] != 0 {
                note(&run.world.violations, format!("a router saw repeats without a mark: {source}"));
            }
        }
    }
}

async fn differences(run: &Run) -> Vec<String> {
    let mut wrong = Vec::new();
    for number in 0..run.world.nodes.len() {
        held(run, number, &mut wrong).await;
        in_sync(run, number, &mut wrong).await;
        reported(run, number, &mut wrong).await;
        uploaded(run, number, &mut wrong);
    }
    wrong
}

type Contents = BTreeMap<(String, String), (String, String)>;

/// uid, and what is in it. A pod's spec is set once here, and its status is the node's own.
fn content(object: &Value) -> (String, String) {
    (object["metadata"]["uid"].as_str().unwrap_or_default().to_owned(), object["data"].to_string())
}

/// The node holds its pods and what they need, as the API does, and nothing else; and they run.
async fn held(run: &Run, number: usize, wrong: &mut Vec<String>) {
    let node = &run.world.nodes[number];
    let pods = run.pods_of(number).await;
    let mut should = Contents::new();
    let mut maps = BTreeSet::new();
    for pod in &pods {
        let name = pod["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        if !run.pods.contains_key(&name) {
            wrong.push(format!("{name} was deleted and is still in the API"));
        }
        let phase = pod["status"]["phase"].as_str().unwrap_or_default();
        if !phases(run, &name).contains(&phase) {
            wrong.push(format!("{name} is {phase} in the API"));
        }
        should.insert(("pods".to_owned(), name), content(pod));
        let map = pod.pointer("/spec/containers/0/env/0/valueFrom/configMapKeyRef/name");
        maps.extend(map.and_then(Value::as_str).map(str::to_owned));
    }
    for name in run.pods.iter().filter(|(_, on)| **on == number).map(|(name, _)| name) {
        if !should.contains_key(&("pods".to_owned(), name.clone())) {
            wrong.push(format!("{name} is not in the API"));
        }
    }
    let listed = objects(&run.world.client, "v1", "ConfigMap").list(&kube::api::ListParams::default()).await;
    for map in listed.map(|list| list.items).unwrap_or_default() {
        let map = serde_json::to_value(map).unwrap_or_default();
        let name = map["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        if maps.contains(&name) {
            should.insert(("configmaps".to_owned(), name), content(&map));
        }
    }
    let listed =
        objects(&run.world.client, RULES_VERSION, "Rule").list(&kube::api::ListParams::default()).await;
    for rule in listed.map(|list| list.items).unwrap_or_default() {
        let rule = serde_json::to_value(rule).unwrap_or_default();
        let name = rule["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        if run.rules.get(&name) == Some(&number) {
            should.insert((RULES.to_owned(), name), content(&rule));
        }
    }
    let Some(store) = node.store() else { return wrong.push(format!("{} does not run", node.name)) };
    let mut holds = Contents::new();
    for resource in ["pods", "configmaps", RULES] {
        let objects = match store.list_objects(resource, None) {
            Ok(objects) => objects,
            Err(error) => return wrong.push(format!("the store of {} is not read: {error}", node.name)),
        };
        for object in objects {
            let held = serde_json::from_slice(&object.json).unwrap_or_default();
            holds.insert((resource.to_owned(), object.key.name), content(&held));
        }
    }
    for (key, there) in &should {
        match holds.get(key) {
            Some(held) if held == there => {}
            Some(held) => wrong.push(format!("{} holds {} as {}, not {}", node.name, key.1, held.1, there.1)),
            None => wrong.push(format!("{} does not hold {}", node.name, key.1)),
        }
    }
    for key in holds.keys().filter(|key| !should.contains_key(*key)) {
        wrong.push(format!("{} holds {} that it should not", node.name, key.1));
    }
    let is_open = |name: &str| run.jobs.get(name).is_some_and(|job| job.is_open);
    let running = node.runtime.running().into_iter().map(|seen| seen.pod);
    let running: BTreeSet<String> = running.filter(|name| !is_open(name)).collect();
    let pods = should.keys().filter(|(resource, _)| resource == "pods").map(|(_, name)| name.clone());
    let wanted: BTreeSet<String> =
        pods.filter(|name| !is_open(name) && !run.jobs.get(name).is_some_and(|job| job.has_ended)).collect();
    if running != wanted {
        wrong.push(format!("{} runs {running:?}, not {wanted:?}", node.name));
    }
}

/// The phases that a pod may be in.
fn phases(run: &Run, pod: &str) -> &'static [&'static str] {
    match run.jobs.get(pod) {
        Some(Job { is_open: true, .. }) => &["Running", "Succeeded", "Failed"],
        Some(Job { has_ended: true, .. }) => &["Succeeded", "Failed"],
        Some(_) | None => &["Running"],
    }
}

/// The Node says that it holds what it should.
async fn in_sync(run: &Run, number: usize, wrong: &mut Vec<String>) {
    let name = &run.world.nodes[number].name;
    let found = objects(&run.world.client, "v1", "Node").get_opt(name.as_str()).await.ok().flatten();
    let conditions = found.and_then(|node| node.data.pointer("/status/conditions")?.as_array().cloned());
    let synced = conditions.into_iter().flatten().find(|condition| condition["type"] == "kubehive.io/Synced");
    if !synced.as_ref().is_some_and(|synced| synced["status"] == "True") {
        wrong.push(format!("{name} is not said to be in sync: {synced:?}"));
    }
}

/// What a node's broker accepted has arrived. That it did so in order, the upload_log has seen.
fn uploaded(run: &Run, number: usize, wrong: &mut Vec<String>) {
    let name = &run.world.nodes[number].name;
    for ((_, topic), accepted) in run.kept.iter().filter(|((node, _), _)| *node == number) {
        let newest = run.world.upload_log.newest(name, topic);
        if newest < *accepted {
            wrong.push(format!("{name} {topic} arrived up to {newest}; {accepted} was accepted"));
        }
    }
}

/// What a node accepted from its device is in the API.
async fn reported(run: &Run, number: usize, wrong: &mut Vec<String>) {
    let name = device(number);
    let Some(accepted) = run.accepted.get(&name) else { return };
    let statuses = objects(&run.world.client, "devices.kubeedge.io/v1beta1", "DeviceStatus");
    let status = statuses.get_opt(&name).await.ok().flatten();
    let value = status.as_ref().and_then(|status| {
        let twins = status.data.pointer("/status/twins")?.as_array()?;
        let twin = twins.iter().find(|twin| twin["propertyName"] == "speed")?;
        twin.pointer("/reported/value")?.as_str()?.parse::<u64>().ok()
    });
    // A later one may have been committed without its answer having been heard.
    if value.is_none_or(|value| value < *accepted) {
        wrong.push(format!("{name} turns at {value:?} in the API; {accepted} was accepted"));
    }
}

/// A container is started once, and once more for each time that it was killed; that of a job once.
fn needless_restarts(run: &Run) {
    for node in &run.world.nodes {
        let mut started: BTreeMap<String, (String, usize)> = BTreeMap::new();
        for seen in node.runtime.started() {
            started.entry(seen.uid).or_insert((seen.pod, 0)).1 += 1;
        }
        for (uid, (pod, times)) in started {
            let killed = run.kills.get(&uid).copied().unwrap_or_default();
            let is_once = run.jobs.get(&pod).is_some_and(|job| !job.is_open);
            if is_once && times > 1 {
                note(&run.world.violations, format!("{pod} is not restarted, and was started {times} times"));
            }
            if times > killed + 1 {
                note(
                    &run.world.violations,
                    format!("{pod} was started {times} times and killed {killed} times"),
                );
            }
        }
    }
}
