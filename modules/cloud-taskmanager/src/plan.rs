//! Whose turn it is, and what follows from what is heard. Pure: every CloudCore comes to the same from the same status.

use std::collections::{BTreeMap, BTreeSet};

use contract::NodeName;
use contract::node_task::TaskPhase;
use contract::parsed::TaskReport;
use crd::{ActionStatus, ImageStatus};

use crate::job::{Heard, JobSpec, JobStatus, NodeStatus, job_phase, node_phase};

/// 512 KiB for what nodes say in the status of one job; an object may have 1.5 MiB.
pub const STATUS_BYTES_MAX: usize = 512 << 10;
/// 400 bytes of a node stay in any case: its name, its phase, and a short flow.
const NODE_BYTES_MIN: usize = 400;
/// 16 Nodes are asked for in one look.
const LOOK_UPS_MAX: usize = 16;
/// 256 letters of why a node failed stand in the reason of its job.
const FIRST_REASON_MAX: usize = 256;

/// What is said of a job where jobs have no effect: whoever made it waits for something that does not come.
pub const WITHOUT_EFFECT: &str = "nothing is done: modules.taskManager.enable is false in cloudcore.yaml (cloudCore.modules.taskManager.enable in the chart); set it, and restart CloudCore";

/// What is known of a node that a job names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fitness {
    /// It is an edge node, and Ready.
    Fit,
    /// It is not, and why.
    Unfit(String),
}

/// What a job's status is to be brought in line with.
#[derive(Debug, Default)]
pub struct World {
    /// What nodes said of their parts, the newest of each.
    pub reports: BTreeMap<NodeName, TaskReport>,
    /// The nodes that are linked to this CloudCore.
    pub linked: BTreeSet<NodeName>,
    /// The nodes that have said nothing new of their part for as long as an action may take, each with what was heard of it then.
    pub silent: BTreeMap<NodeName, Heard>,
    /// Nodes that are not linked to this CloudCore, as the API server has them.
    pub looked_up: BTreeMap<NodeName, Fitness>,
}

/// The status of a job that nobody has looked at yet, over the nodes that it names, in this order.
pub fn begun(nodes: Vec<(NodeName, Fitness)>) -> JobStatus {
    if nodes.is_empty() {
        return failed("no edge node has these labels");
    }
    let of = |(node, fitness): (NodeName, Fitness)| {
        let (phase, reason) = match fitness {
            Fitness::Fit => (node_phase::PENDING, String::new()),
            Fitness::Unfit(reason) => (node_phase::FAILURE, reason),
        };
        NodeStatus { node_name: node.to_string(), phase: phase.to_owned(), reason, ..NodeStatus::default() }
    };
    let node_status = nodes.into_iter().map(of).collect();
    JobStatus { phase: job_phase::INIT.to_owned(), node_status, ..JobStatus::default() }
}

/// The status of a job that makes no sense, and why.
pub fn failed(reason: &str) -> JobStatus {
    JobStatus { phase: job_phase::FAILURE.to_owned(), reason: reason.to_owned(), ..JobStatus::default() }
}

/// The status of a job where jobs have no effect. Its phase stays: the job goes on where it was when they have one.
pub fn without_effect(status: &JobStatus) -> JobStatus {
    let reason = if status.is_over() { status.reason.clone() } else { WITHOUT_EFFECT.to_owned() };
    JobStatus { reason, ..status.clone() }
}

/// The nodes whose turn it is and that are not linked here: what the API server says of them decides whether they are waited for.
pub fn to_look_up(status: &JobStatus, spec: &JobSpec, linked: &BTreeSet<NodeName>) -> Vec<NodeName> {
    if status.is_over() {
        return Vec::new();
    }
    let free = spec.concurrency.saturating_sub(status.under_way().count());
    let pending = status.node_status.iter().filter(|node| node.phase == node_phase::PENDING);
    let next = pending.filter_map(|node| NodeName::parse(&node.node_name).ok()).take(free.min(LOOK_UPS_MAX));
    next.filter(|node| !linked.contains(node)).collect()
}

/// The nodes that have said for as long as an action may take that they wait for their turn, and are not linked here: what the API server says
/// of them decides whether they are waited for.
pub fn waiting_to_look_up(world: &World) -> Vec<NodeName> {
    let waiting = world.silent.iter().filter(|(_, heard)| heard.waits).map(|(node, _)| node);
    waiting.filter(|node| !world.linked.contains(*node)).take(LOOK_UPS_MAX).cloned().collect()
}

/// Whether [`advance`] may come to another status by what this CloudCore knows without asking.
pub fn is_due(
    status: &JobStatus,
    spec: &JobSpec,
    linked: &BTreeSet<NodeName>,
    silent: &BTreeMap<NodeName, Heard>,
) -> bool {
    // One that is here and waits for its turn has said all that there is to say.
    let is_silent = silent.iter().any(|(node, heard)| !heard.waits || !linked.contains(node));
    if is_silent || status.phase.is_empty() || status.reason == WITHOUT_EFFECT {
        return true;
    }
    if verdict(status, spec).is_some() {
        return true;
    }
    if status.is_over() || status.under_way().count() >= spec.concurrency {
        return false;
    }
    // Whoever is not linked here is asked for, whoever is begins.
    let mut pending = status.node_status.iter().filter(|node| node.phase == node_phase::PENDING);
    pending.any(|node| NodeName::parse(&node.node_name).is_ok_and(|name| linked.contains(&name)))
        || !to_look_up(status, spec, linked).is_empty()
}

/// What the status is to be.
pub fn advance(status: &JobStatus, spec: &JobSpec, world: &World) -> JobStatus {
    let mut next = status.clone();
    if next.reason == WITHOUT_EFFECT {
        next.reason.clear();
    }
    for node in &mut next.node_status {
        let Ok(name) = NodeName::parse(&node.node_name) else { continue };
        if let Some(report) = world.reports.get(&name) {
            take(node, report);
        }
        // What was heard by now was not known when the time was over.
        let heard = node.heard();
        let is_silent = world.silent.get(&name) == Some(&heard) && !world.reports.contains_key(&name);
        // The time of what waits for its turn on a node that is there does not run.
        let is_there = world.linked.contains(&name) || world.looked_up.get(&name) == Some(&Fitness::Fit);
        let is_late = is_silent && !(heard.waits && is_there);
        if node.phase == node_phase::IN_PROGRESS && is_late {
            node.phase = node_phase::UNKNOWN.to_owned();
            node.reason = silence(spec);
        }
    }
    judge(&mut next, spec);
    if !next.is_over() {
        dispatch(&mut next, spec, world);
        judge(&mut next, spec);
    }
    bound(&mut next);
    next
}

/// Why nobody waits for a node any more: in the numbers that stand in the job.
fn silence(spec: &JobSpec) -> String {
    let (silence, timeout) = (spec.silence.as_secs(), spec.timeout.as_secs());
    if silence == timeout {
        format!("nothing new was heard of it for {timeout} s (timeoutSeconds)")
    } else {
        // Several actions are told together.
        format!("nothing new was heard of it for {silence} s, three times the {timeout} s of timeoutSeconds")
    }
}

/// What a node says of its part. What has ended stays ended, and of two reports that one counts in which more has ended: whichever
/// CloudCore writes, a status never goes back.
fn take(node: &mut NodeStatus, report: &TaskReport) {
    let is_heard = match node.phase.as_str() {
        node_phase::IN_PROGRESS => report.phase.is_final() || report.actions.len() >= node.action_flow.len(),
        // It was given up too soon.
        node_phase::UNKNOWN => report.phase.is_final(),
        _ => false,
    };
    if !is_heard {
        return;
    }
    let word = |succeeded: bool| if succeeded { "True" } else { "False" }.to_owned();
    node.phase = match report.phase {
        TaskPhase::InProgress => node_phase::IN_PROGRESS,
        TaskPhase::Successful => node_phase::SUCCESSFUL,
        TaskPhase::Failure => node_phase::FAILURE,
    }
    .to_owned();
    node.reason.clone_from(&report.reason);
    node.historic_version.clone_from(&report.from_version);
    node.current_version.clone_from(&report.to_version);
    let action = |action: &contract::TaskAction| ActionStatus {
        action: action.action.clone(),
        status: word(action.succeeded),
        reason: action.reason.clone(),
        time: action.time.clone(),
    };
    node.action_flow = report.actions.iter().map(action).collect();
    let image = |image: &contract::TaskImage| ImageStatus {
        image: image.image.clone(),
        status: word(image.succeeded),
        reason: image.reason.clone(),
    };
    node.image_status = report.images.iter().map(image).collect();
}

/// Which nodes begin now: in their order, as many as may at once. One that is not Ready when its turn has come fails, as one that was
/// not when the job began; one that is Ready and linked elsewhere is that CloudCore's to begin.
fn dispatch(status: &mut JobStatus, spec: &JobSpec, world: &World) {
    let mut free = spec.concurrency.saturating_sub(status.under_way().count());
    for node in status.node_status.iter_mut().filter(|node| node.phase == node_phase::PENDING) {
        if free == 0 {
            return;
        }
        let Ok(name) = NodeName::parse(&node.node_name) else { continue };
        if world.linked.contains(&name) {
            node.phase = node_phase::IN_PROGRESS.to_owned();
            free -= 1;
        } else if let Some(Fitness::Unfit(reason)) = world.looked_up.get(&name) {
            node.phase = node_phase::FAILURE.to_owned();
            node.reason.clone_from(reason);
        }
    }
}

/// What the nodes come to. A job that has failed stays so, whatever those that are still at it come to.
fn judge(status: &mut JobStatus, spec: &JobSpec) {
    if let Some((phase, reason)) = verdict(status, spec) {
        status.phase = phase.to_owned();
        if let Some(reason) = reason {
            status.reason = reason;
        }
    }
}

/// The phase that a job has by its nodes, and why it failed; `None`: the one that it has.
fn verdict(status: &JobStatus, spec: &JobSpec) -> Option<(&'static str, Option<String>)> {
    if status.is_over() {
        return None;
    }
    let of = |phases: &[&str]| {
        status.node_status.iter().filter(|node| phases.contains(&node.phase.as_str())).count()
    };
    let total = status.node_status.len();
    let failed = of(&[node_phase::FAILURE, node_phase::UNKNOWN]);
    let ended = failed + of(&[node_phase::SUCCESSFUL]);
    // Rounded to two places, as KubeEdge does.
    let rate = ((failed * 100 + total / 2) / total.max(1)) as f64 / 100.0;
    if rate > spec.failure_tolerate {
        let tolerate = spec.failure_tolerate;
        let reason = format!("{failed} of {total} nodes failed, and failureTolerate is {tolerate}");
        return Some((job_phase::FAILURE, Some(reason + &first_failed(status))));
    }
    let phase = if ended == total {
        job_phase::COMPLETED
    } else if ended > 0 || of(&[node_phase::IN_PROGRESS]) > 0 {
        job_phase::IN_PROGRESS
    } else {
        return None;
    };
    (status.phase != phase).then_some((phase, None))
}

/// Which node is the first in the list that failed, and why: `kubectl get` shows nothing else of nodes.
fn first_failed(status: &JobStatus) -> String {
    let is_failed =
        |node: &&NodeStatus| [node_phase::FAILURE, node_phase::UNKNOWN].contains(&node.phase.as_str());
    let Some(node) = status.node_status.iter().find(is_failed) else { return String::new() };
    // Which images were not pulled is less than why.
    let of_image = node.image_status.iter().map(|image| &image.reason).find(|reason| !reason.is_empty());
    let why = of_image.unwrap_or(&node.reason);
    let mut shown: String = why.chars().take(FIRST_REASON_MAX).collect();
    if shown.len() < why.len() {
        shown.push('…');
    }
    let shown = if shown.is_empty() { node.phase.as_str() } else { &shown };
    format!(": {}: {shown}", node.node_name)
}

/// Shortens what is said of each node to its share, what is needed least first: images that are there, then sentences about images,
/// images, and sentences about actions.
fn bound(status: &mut JobStatus) {
    let share = (STATUS_BYTES_MAX / status.node_status.len().max(1)).max(NODE_BYTES_MIN);
    for node in &mut status.node_status {
        let shorten: [fn(&mut NodeStatus); 4] = [
            |node| node.image_status.retain(|image| image.status != "True"),
            |node| node.image_status.iter_mut().for_each(|image| image.reason.clear()),
            |node| node.image_status.clear(),
            |node| {
                node.action_flow.iter_mut().for_each(|action| action.reason.clear());
                node.reason = node.reason.chars().take(64).collect();
            },
        ];
        for shorten in shorten {
            if bytes(node) <= share {
                break;
            }
            shorten(node);
        }
    }
}

fn bytes(node: &NodeStatus) -> usize {
    fairshare::json_bytes(node)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::NodeChoice;
    use contract::ids::{ObjectName, Uid};
    use contract::node_task::WAITS_FOR_TURN;
    use contract::{TaskAction, TaskImage, TaskKind};
    use std::time::Duration;

    fn name(name: &str) -> NodeName {
        NodeName::parse(name).unwrap()
    }

    fn names(all: &[&str]) -> BTreeSet<NodeName> {
        all.iter().map(|one| name(one)).collect()
    }

    fn spec(concurrency: usize, failure_tolerate: f64) -> JobSpec {
        let (nodes, timeout) = (NodeChoice::Names(Vec::new()), Duration::from_secs(300));
        JobSpec { nodes, concurrency, timeout, silence: timeout, failure_tolerate, image_secret: None }
    }

    fn job(nodes: &[&str]) -> JobStatus {
        begun(nodes.iter().map(|node| (name(node), Fitness::Fit)).collect())
    }

    fn linked(nodes: &[&str]) -> World {
        World { linked: names(nodes), ..World::default() }
    }

    fn report(phase: TaskPhase, actions: &[&str]) -> TaskReport {
        let action = |action: &&str| TaskAction {
            action: (*action).to_owned(),
            succeeded: true,
            reason: String::new(),
            time: "t".to_owned(),
        };
        TaskReport {
            kind: TaskKind::ImagePrePull,
            job: ObjectName::parse("j").unwrap(),
            uid: Uid::parse("u").unwrap(),
            phase,
            reason: String::new(),
            actions: actions.iter().map(action).collect(),
            images: Vec::new(),
            from_version: String::new(),
            to_version: String::new(),
        }
    }

    fn said(nodes: &[&str], node: &str, report: TaskReport) -> World {
        World { reports: [(name(node), report)].into(), ..linked(nodes) }
    }

    fn heard(actions: usize) -> Heard {
        Heard { actions, images: 0, waits: false }
    }

    fn phases(status: &JobStatus) -> Vec<&str> {
        status.node_status.iter().map(|node| node.phase.as_str()).collect()
    }

    #[test]
    fn nodes_take_their_turns_whichever_cloudcore_they_are_linked_to() {
        let (spec, all) = (spec(2, 0.0), ["a", "b", "c", "d"]);
        let status = job(&all);
        assert_eq!((status.phase.as_str(), phases(&status)), ("Init", vec!["Pending"; 4]));
        // One CloudCore has a and d, the other b and c; together they begin two.
        let status = advance(&status, &spec, &linked(&["a", "d"]));
        assert_eq!(phases(&status), ["InProgress", "Pending", "Pending", "InProgress"]);
        let status = advance(&status, &spec, &linked(&["b", "c"]));
        assert_eq!(phases(&status), ["InProgress", "Pending", "Pending", "InProgress"], "two at once");
        assert_eq!(to_look_up(&status, &spec, &names(&["a", "d"])), []);
        let done = report(TaskPhase::Successful, &["Check", "Pull"]);
        let status = advance(&status, &spec, &said(&["a", "d"], "a", done.clone()));
        assert_eq!(phases(&status), ["Successful", "Pending", "Pending", "InProgress"], "not its to begin");
        assert_eq!(to_look_up(&status, &spec, &names(&["a", "d"])), [name("b")]);
        let status = advance(&status, &spec, &linked(&["b", "c"]));
        assert_eq!(phases(&status), ["Successful", "InProgress", "Pending", "InProgress"]);
        let status = advance(&status, &spec, &said(&["a", "d"], "d", done.clone()));
        let status = advance(&status, &spec, &said(&["b", "c"], "b", done.clone()));
        assert_eq!((status.phase.as_str(), phases(&status)[2]), ("InProgress", "InProgress"));
        let status = advance(&status, &spec, &said(&["b", "c"], "c", done));
        assert_eq!((status.phase.as_str(), phases(&status)), ("Completed", vec!["Successful"; 4]));
        assert_eq!(advance(&status, &spec, &linked(&all)), status, "nothing more to be done");
    }

    #[test]
    fn a_job_is_due_when_something_may_follow() {
        let (spec, status, nobody) = (spec(1, 0.0), job(&["a", "b"]), BTreeSet::new());
        let due =
            |status: &JobStatus, linked: &BTreeSet<NodeName>| is_due(status, &spec, linked, &BTreeMap::new());
        assert!(due(&JobStatus::default(), &nobody), "nobody has looked at it");
        assert!(due(&status, &names(&["a"])) && due(&status, &nobody), "it begins, or is asked for");
        let gone = begun(vec![(name("gone"), Fitness::Unfit("no Node".to_owned()))]);
        assert!(due(&gone, &nobody), "nobody is left, and that is still to be said");
        let running = advance(&status, &spec, &linked(&["a"]));
        assert!(!due(&running, &names(&["a", "b"])), "one at once");
        assert!(is_due(&running, &spec, &nobody, &[(name("a"), heard(0))].into()), "it is silent");
        let failed = advance(&running, &spec, &said(&["a"], "a", report(TaskPhase::Failure, &["Check"])));
        assert!(failed.is_over() && !due(&failed, &names(&["b"])));
    }

    #[test]
    fn a_job_without_effect_says_so_until_it_has_one() {
        let spec = spec(1, 0.0);
        let fresh = without_effect(&JobStatus::default());
        assert_eq!((fresh.phase.as_str(), fresh.reason.as_str()), ("", WITHOUT_EFFECT));
        assert!(WITHOUT_EFFECT.len() <= contract::node_task::REASON_MAX);
        let running = advance(&job(&["a"]), &spec, &linked(&["a"]));
        let off = without_effect(&running);
        assert_eq!(JobStatus { reason: String::new(), ..off.clone() }, running);
        assert_eq!(without_effect(&off), off);
        let due = |status: &JobStatus| is_due(status, &spec, &names(&["a"]), &BTreeMap::new());
        assert!(due(&off) && !due(&running));
        assert_eq!(advance(&off, &spec, &linked(&["a"])), running);
        let over = failed("it makes no sense");
        assert_eq!(without_effect(&over), over);
    }

    #[test]
    fn a_node_that_is_not_fit_fails_and_the_next_one_has_its_turn() {
        let unfit = |reason: &str| Fitness::Unfit(reason.to_owned());
        let status = begun(vec![
            (name("gone"), unfit("no Node")),
            (name("a"), Fitness::Fit),
            (name("b"), Fitness::Fit),
        ]);
        assert_eq!(phases(&status), ["Failure", "Pending", "Pending"]);
        let mut world = linked(&["b"]);
        world.looked_up.insert(name("a"), unfit("not Ready"));
        let status = advance(&status, &spec(1, 0.7), &world);
        assert_eq!(phases(&status), ["Failure", "Failure", "InProgress"]);
        assert_eq!(status.node_status[1].reason, "not Ready");
        assert_eq!(begun(Vec::new()), failed("no edge node has these labels"));
    }

    #[test]
    fn too_many_failures_end_a_job_and_those_that_are_at_it_are_still_heard() {
        let all = ["a", "b", "c", "d"];
        let status = advance(&job(&all), &spec(2, 0.2), &linked(&all));
        let status =
            advance(&status, &spec(2, 0.2), &said(&all, "a", report(TaskPhase::Failure, &["Check"])));
        assert_eq!(
            (status.phase.as_str(), phases(&status)),
            ("Failure", vec!["Failure", "InProgress", "Pending", "Pending"])
        );
        let begins = "1 of 4 nodes failed, and failureTolerate is 0.2: a: ";
        assert!(status.reason.starts_with(begins) && status.reason.len() > begins.len(), "{}", status.reason);
        let done = report(TaskPhase::Successful, &["Check", "Pull"]);
        let status = advance(&status, &spec(2, 0.2), &said(&all, "b", done));
        assert_eq!((status.phase.as_str(), phases(&status)[1]), ("Failure", "Successful"));
        assert_eq!(phases(&status)[2..], ["Pending", "Pending"], "nobody begins any more");
        assert_eq!(to_look_up(&status, &spec(2, 0.2), &BTreeSet::new()), []);
        // What may fail, may: a quarter, rounded to two places.
        let status = advance(&job(&all), &spec(1, 0.25), &linked(&all));
        let status =
            advance(&status, &spec(1, 0.25), &said(&all, "a", report(TaskPhase::Failure, &["Check"])));
        assert_eq!((status.phase.as_str(), phases(&status)[1]), ("InProgress", "InProgress"));
    }

    #[test]
    fn the_reason_of_a_job_has_why_an_image_was_not_pulled_within_a_bound() {
        let status = advance(&job(&["a"]), &spec(1, 0.0), &linked(&["a"]));
        let mut failed = report(TaskPhase::Failure, &["Check", "Pull"]);
        let image = |image: &str, succeeded, reason: &str| TaskImage {
            image: image.to_owned(),
            succeeded,
            reason: reason.to_owned(),
        };
        failed.images = vec![image("here:1", true, ""), image("absent:1", false, &"no route ".repeat(40))];
        let status = advance(&status, &spec(1, 0.0), &said(&["a"], "a", failed));
        let why = status.reason.strip_prefix("1 of 1 nodes failed, and failureTolerate is 0: a: no route ");
        assert!(why.is_some_and(|why| why.ends_with('…') && why.len() < 260), "{}", status.reason);
    }

    #[test]
    fn silence_is_unknown_until_the_node_says_how_it_ended() {
        let (spec, all) = (spec(1, 0.6), ["a", "b"]);
        let status = advance(&job(&all), &spec, &linked(&all));
        let silent = World { silent: [(name("a"), heard(0))].into(), ..linked(&all) };
        let other = World { silent: [(name("a"), heard(1))].into(), ..linked(&all) };
        assert_eq!(advance(&status, &spec, &other), status, "it has said something since");
        let status = advance(&status, &spec, &silent);
        assert_eq!(phases(&status), ["Unknown", "InProgress"]);
        assert_eq!(status.node_status[0].reason, "nothing new was heard of it for 300 s (timeoutSeconds)");
        let together = JobSpec { silence: spec.timeout * 3, ..spec.clone() };
        let told = advance(&advance(&job(&all), &spec, &linked(&all)), &together, &silent);
        let sentence = "nothing new was heard of it for 900 s, three times the 300 s of timeoutSeconds";
        assert_eq!(told.node_status[0].reason, sentence);
        let late = said(&all, "a", report(TaskPhase::InProgress, &["Check"]));
        assert_eq!(phases(&advance(&status, &spec, &late)), ["Unknown", "InProgress"]);
        let late = said(&all, "a", report(TaskPhase::Successful, &["Check", "Pull"]));
        assert_eq!(phases(&advance(&status, &spec, &late)), ["Successful", "InProgress"]);
    }

    #[test]
    fn what_waits_for_its_turn_on_a_node_that_is_there_does_not_fail() {
        let (spec, all) = (spec(2, 0.6), ["a", "b"]);
        let mut waits = report(TaskPhase::InProgress, &["Check"]);
        waits.reason = WAITS_FOR_TURN.to_owned();
        let status = advance(&job(&all), &spec, &linked(&all));
        let status = advance(&status, &spec, &said(&all, "a", waits));
        assert_eq!(status.node_status[0].reason, WAITS_FOR_TURN, "whoever looks sees why nothing moves");
        let silent: BTreeMap<NodeName, Heard> = [(name("a"), status.node_status[0].heard())].into();
        let here = World { silent: silent.clone(), ..linked(&all) };
        assert_eq!((advance(&status, &spec, &here), waiting_to_look_up(&here)), (status.clone(), Vec::new()));
        assert!(
            !is_due(&status, &spec, &names(&all), &silent) && is_due(&status, &spec, &names(&["b"]), &silent)
        );
        // Another CloudCore asks for it, and waits with the one that has it; one that is away has failed as ever.
        let mut elsewhere = World { silent, ..linked(&["b"]) };
        assert_eq!(waiting_to_look_up(&elsewhere), [name("a")]);
        elsewhere.looked_up.insert(name("a"), Fitness::Fit);
        assert_eq!(advance(&status, &spec, &elsewhere), status);
        elsewhere.looked_up.insert(name("a"), Fitness::Unfit("not Ready".to_owned()));
        assert_eq!(phases(&advance(&status, &spec, &elsewhere)), ["Unknown", "InProgress"]);
        // It has begun: that is its time.
        let status = advance(&status, &spec, &said(&all, "a", report(TaskPhase::InProgress, &["Check"])));
        assert_eq!(status.node_status[0].reason, "");
        let late = World { silent: [(name("a"), heard(1))].into(), ..linked(&all) };
        assert_eq!(phases(&advance(&status, &spec, &late)), ["Unknown", "InProgress"]);
    }

    #[test]
    fn a_status_never_goes_back() {
        let (spec, all) = (spec(1, 1.0), ["a"]);
        let status = advance(&job(&all), &spec, &linked(&all));
        let newer = said(&all, "a", report(TaskPhase::InProgress, &["Check", "Pull"]));
        let status = advance(&status, &spec, &newer);
        assert_eq!(status.node_status[0].action_flow.len(), 2);
        let older = said(&all, "a", report(TaskPhase::InProgress, &["Check"]));
        assert_eq!(advance(&status, &spec, &older), status);
        let failed = said(&all, "a", report(TaskPhase::Failure, &["Check", "Pull"]));
        let status = advance(&status, &spec, &failed);
        let done = said(&all, "a", report(TaskPhase::Successful, &["Check", "Pull"]));
        assert_eq!(advance(&status, &spec, &done), status);
        // A node that was never given a part has none to speak of.
        let pending = job(&["a", "b"]);
        let foreign =
            World { reports: [(name("z"), report(TaskPhase::Failure, &[]))].into(), ..World::default() };
        assert_eq!(advance(&pending, &spec, &foreign), pending);
        let early =
            World { reports: [(name("a"), report(TaskPhase::Failure, &[]))].into(), ..World::default() };
        assert_eq!(advance(&pending, &spec, &early), pending);
    }

    #[test]
    fn a_status_stays_within_its_bound_and_says_what_matters() {
        let all: Vec<String> = (0..1000).map(|n| format!("node-{n:04}")).collect();
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        let spec = spec(1000, 1.0);
        let mut status = advance(&job(&all), &spec, &linked(&all));
        let mut report = report(TaskPhase::Failure, &["Check", "Pull"]);
        report.actions[1].reason = "x".repeat(512);
        report.reason = "y".repeat(512);
        report.images = (0..32)
            .map(|n| TaskImage {
                image: format!("registry.example/team/image-{n}:1"),
                succeeded: n != 7,
                reason: if n == 7 { "z".repeat(512) } else { String::new() },
            })
            .collect();
        let reports = all.iter().map(|node| (name(node), report.clone())).collect();
        status = advance(&status, &spec, &World { reports, ..World::default() });
        assert!(serde_json::to_vec(&status).unwrap().len() <= STATUS_BYTES_MAX + (64 << 10));
        let first = &status.node_status[0];
        assert_eq!((first.phase.as_str(), first.action_flow.len()), ("Failure", 2));
        // Of a few nodes nothing is left out.
        let few = advance(&job(&["a"]), &spec, &linked(&["a"]));
        let few = advance(&few, &spec, &said(&["a"], "a", report));
        assert_eq!(few.node_status[0].image_status.len(), 32);
    }
}
