//! TaskManager's actor.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use beehive::{Actor, Address, Context, Fault, Reply};
use contract::cloudhub::{CloudHubMsg, SessionReader};
use contract::cloudtaskmanager::{CloudTaskMsg, TaskUp};
use contract::node_task::TaskKind;
use contract::nodelease::NodeLeaseMsg;
use contract::parsed::TaskReport;
use contract::synccontroller::{Source, SyncMsg};
use contract::{NodeName, ObjectKey};
use fairshare::{Delivery, ReportQueues};
use kubewatch::{DesiredObjects, Interruptions, Publisher, SharedCache};

use crate::patience::Patience;
use crate::plan::{self, World};
use crate::read_jobs::{OpenJob, ReadJob, ReadJobs};
use crate::reports::TaskReports;
use crate::watched::watched;
use crate::writer::{self, Job};
use crate::{desired, events, secret};

/// 2 s between looks whose time is over, whose turn it is, and what could not be written.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// 4 jobs are worked on at once: each costs the API server some requests, and whoever may make jobs decides how many there are.
const AT_ONCE: usize = 4;
/// 500 ms before a session is looked at again that is not current because a watch has broken off.
const AGAIN_AFTER: Duration = Duration::from_millis(500);

/// What a TaskManager is made of.
#[derive(Clone)]
pub struct Dependencies {
    /// The API server.
    pub client: kube::Client,
    /// SyncController, which is told what nodes should hold.
    pub sync: Address<SyncMsg>,
    /// NodeLease, which says what sessions are worth.
    pub lease: Address<NodeLeaseMsg>,
    /// CloudHub, which is asked who is linked.
    pub hub: Address<CloudHubMsg>,
    /// Counts the watches that have broken off.
    pub interruptions: Interruptions,
    /// Whether jobs have an effect.
    pub enable: bool,
}

/// What is done about one job.
#[derive(Default)]
struct Work {
    /// Its status is being written.
    is_busy: bool,
    /// It waits for its turn to be written.
    is_waiting: bool,
    /// What nodes have said since.
    reports: BTreeMap<NodeName, (TaskReport, Vec<Reply<bool>>)>,
}

/// Whose turn it is in jobs on nodes.
pub struct TaskManager {
    dependencies: Dependencies,
    /// Empty: jobs have no effect.
    caches: Vec<(TaskKind, SharedCache)>,
    reports: Option<ReportQueues<TaskReports>>,
    publisher: Publisher,
    linked: BTreeMap<NodeName, u64>,
    jobs: ReadJobs,
    work: BTreeMap<ObjectKey, Work>,
    /// The jobs whose status is to be written, in the order in which that was found.
    due: VecDeque<ObjectKey>,
    /// How many are being written.
    busy: usize,
    patience: Patience,
    /// The Secrets of jobs, by the jobs' uids; `None`: it is being read.
    secrets: BTreeMap<String, Option<String>>,
    /// The nodes that were to hold jobs when that was published last.
    published: BTreeSet<NodeName>,
    is_timed: bool,
}

impl TaskManager {
    /// One that has listed nothing yet.
    pub fn new(dependencies: Dependencies) -> Self {
        TaskManager {
            publisher: Publisher::new(Source::Task, dependencies.sync.clone()),
            dependencies,
            caches: Vec::new(),
            reports: None,
            linked: BTreeMap::new(),
            jobs: ReadJobs::default(),
            work: BTreeMap::new(),
            due: VecDeque::new(),
            busy: 0,
            patience: Patience::default(),
            secrets: BTreeMap::new(),
            published: BTreeSet::new(),
            is_timed: false,
        }
    }
}

impl Actor for TaskManager {
    type Message = CloudTaskMsg;

    async fn started(&mut self, cx: &mut Context<CloudTaskMsg>) -> Result<(), Fault> {
        let Dependencies { client, lease, hub, interruptions, enable, .. } = &self.dependencies;
        if *enable {
            let watch = |kind| {
                let what = watched(kind);
                kubewatch::watch(client, what, None, interruptions, cx, || CloudTaskMsg::Reconcile)
            };
            self.caches = TaskKind::ALL.map(|kind| (kind, watch(kind))).into();
            cx.every(LOOK_EVERY, || CloudTaskMsg::Tick);
        }
        let reports = TaskReports { myself: cx.myself(), env: cx.env().clone(), traffic: Default::default() };
        self.reports = Some(ReportQueues::new(reports, lease.clone()));
        cx.spawn_tell(hub, CloudHubMsg::TellSessions { to: SessionReader::CloudTaskManager });
        self.reconcile(cx).await;
        Ok(())
    }

    async fn handle(&mut self, message: CloudTaskMsg, cx: &mut Context<CloudTaskMsg>) -> Result<(), Fault> {
        match message {
            CloudTaskMsg::Up { node, session, message: TaskUp::Reports { reports, reply } } => {
                if let Some(queues) = &self.reports {
                    queues.put(&node, Delivery { session, reports, reply }, cx);
                }
            }
            CloudTaskMsg::AllNodesDown => {
                self.linked.clear();
                self.publisher.all_nodes_down();
            }
            CloudTaskMsg::NodeUp { node, session } => {
                self.linked.insert(node.clone(), session);
                self.publisher.node_up(node, session, cx.now());
                self.reconcile(cx).await;
            }
            CloudTaskMsg::NodeDown { node, session } => {
                self.linked.retain(|linked, open| *linked != node || *open != session);
                self.publisher.node_down(&node, session);
            }
            CloudTaskMsg::ListAgain => self.list_again(cx).await,
            CloudTaskMsg::Reconcile => {
                self.is_timed = false;
                self.reconcile(cx).await;
            }
            CloudTaskMsg::Tick => {
                // Only what time moves: nothing is published by it.
                self.consider_all(cx);
            }
            CloudTaskMsg::Reported { node, report, reply } => self.reported(node, *report, reply, cx),
            CloudTaskMsg::StatusWritten { job, is_written } => {
                self.busy = self.busy.saturating_sub(1);
                // What could not be written is tried again at the next look.
                let is_due = self.work.get_mut(&job).is_some_and(|work| {
                    work.is_busy = false;
                    is_written && !work.reports.is_empty()
                });
                if is_due {
                    self.enlist(job);
                }
                self.write_next(cx);
            }
            CloudTaskMsg::SecretRead { uid, secret } => {
                match secret {
                    Ok(secret) => drop(self.secrets.insert(uid, Some(secret))),
                    Err((why, _)) => {
                        events::secret_unread(cx.env(), &why);
                        self.secrets.remove(&uid);
                        if !std::mem::replace(&mut self.is_timed, true) {
                            cx.after(LOOK_EVERY, CloudTaskMsg::Reconcile);
                        }
                        return Ok(());
                    }
                }
                self.reconcile(cx).await;
            }
        }
        Ok(())
    }

    fn snapshot(&self) -> serde_json::Value {
        let jobs: usize = self.caches.iter().map(|(_, cache)| cache.borrow().objects.len()).sum();
        let unreadable: usize = self.caches.iter().map(|(_, cache)| cache.borrow().unreadable.len()).sum();
        serde_json::json!({
            "enabled": self.dependencies.enable,
            "jobs": jobs,
            "unreadable": unreadable,
            "nodesAtWork": self.published.len(),
            "waiting": self.due.len(),
            "deliveries": self.reports.as_ref().map_or(0, ReportQueues::in_work),
        })
    }
}

/// What nodes should hold.
impl TaskManager {
    async fn list_again(&mut self, cx: &Context<CloudTaskMsg>) {
        if !self.publisher.list_again() {
            return;
        }
        self.published.clear();
        self.reconcile(cx).await;
    }

    /// Compares what nodes should hold with what was sent, and sends the difference; then whose turn it is. Where jobs have no effect no
    /// node should hold any.
    async fn reconcile(&mut self, cx: &Context<CloudTaskMsg>) {
        if !self.is_listed() {
            return;
        }
        for (_, cache) in &self.caches {
            // It is told of what moves from now on.
            cache.borrow_mut().take_moved();
        }
        let (mut wanted, unknown) = self.wanted(cx);
        let holding: BTreeSet<NodeName> = wanted.keys().cloned().collect();
        for node in self.published.difference(&holding) {
            wanted.entry(node.clone()).or_default();
        }
        self.publisher.publish(&wanted, cx.env().traces()).await;
        self.published = holding;
        self.publisher.complete().await;
        let resources: Vec<&str> = self.caches.iter().map(|(kind, _)| kind.resource()).collect();
        if self.dependencies.interruptions.are_whole(&resources) {
            for node in self.publisher.not_current() {
                let unknown = unknown.get(&node).cloned().unwrap_or_default();
                self.publisher.current(&node, unknown).await;
            }
        } else if !self.publisher.not_current().is_empty() && !std::mem::replace(&mut self.is_timed, true) {
            cx.after(AGAIN_AFTER, CloudTaskMsg::Reconcile);
        }
        self.consider_all(cx);
    }

    fn is_listed(&self) -> bool {
        self.caches.iter().all(|(_, cache)| cache.borrow().listed)
    }

    /// What each node should hold, and what it should hold that is not known yet.
    fn wanted(
        &mut self,
        cx: &Context<CloudTaskMsg>,
    ) -> (BTreeMap<NodeName, DesiredObjects>, BTreeMap<NodeName, BTreeSet<ObjectKey>>) {
        let (mut wanted, mut unknown) = (BTreeMap::<_, DesiredObjects>::new(), BTreeMap::new());
        let mut uids = BTreeSet::new();
        for (kind, cache) in &self.caches {
            for (key, job) in &cache.borrow().objects {
                let ReadJob::Open(open) = self.jobs.read(*kind, &job.object, &job.value) else { continue };
                let OpenJob { uid, spec: Ok(spec), under_way, .. } = &**open else { continue };
                uids.insert(uid.clone());
                if under_way.is_empty() {
                    continue;
                }
                let secret = match &spec.image_secret {
                    None => None,
                    Some(named) => match self.secrets.get(uid) {
                        Some(Some(secret)) => Some(secret.as_str()),
                        known => {
                            if known.is_none() {
                                self.secrets.insert(uid.clone(), None);
                                read_secret(&self.dependencies.client, uid.clone(), named.clone(), cx);
                            }
                            for node in under_way {
                                unknown.entry(node.clone()).or_insert_with(BTreeSet::new).insert(key.clone());
                            }
                            continue;
                        }
                    },
                };
                let version = (uid.as_str(), job.object.resource_version.as_str());
                let Some(object) = desired::object(key, version, &job.value, secret) else { continue };
                for node in under_way {
                    wanted.entry(node.clone()).or_default().insert(key.clone(), object.clone());
                }
            }
        }
        self.secrets.retain(|uid, _| uids.contains(uid));
        (wanted, unknown)
    }
}

fn read_secret(
    client: &kube::Client,
    uid: String,
    (namespace, name): (String, String),
    cx: &Context<CloudTaskMsg>,
) {
    let (client, myself) = (client.clone(), cx.myself());
    cx.spawn(async move {
        let secret = secret::read(&client, &namespace, &name).await;
        let _ = myself.tell(CloudTaskMsg::SecretRead { uid, secret }).await;
    });
}

/// How far jobs are.
impl TaskManager {
    /// Takes the word of a node whose session is open. Who names a job that is not there is confirmed: there is nobody to tell.
    fn reported(
        &mut self,
        node: NodeName,
        report: TaskReport,
        reply: Reply<bool>,
        cx: &Context<CloudTaskMsg>,
    ) {
        let Some((_, cache)) = self.caches.iter().find(|(kind, _)| *kind == report.kind) else {
            reply.send(true);
            return;
        };
        let key = ObjectKey::new(report.kind.resource(), "", report.job.as_str());
        let is_there = {
            let cache = cache.borrow();
            // Before the first list nobody knows.
            match cache.objects.get(&key) {
                _ if !cache.listed => None,
                found => Some(found.is_some_and(|job| job.object.uid == report.uid.as_str())),
            }
        };
        match is_there {
            None => reply.send(false),
            Some(false) => reply.send(true),
            Some(true) => {
                let work = self.work.entry(key.clone()).or_default();
                let (newest, replies) = work.reports.entry(node).or_insert((report.clone(), Vec::new()));
                *newest = report;
                replies.push(reply);
                self.enlist(key);
                self.write_next(cx);
            }
        }
    }

    /// Looks which jobs' status is to be another one.
    fn consider_all(&mut self, cx: &Context<CloudTaskMsg>) {
        if !self.is_listed() {
            return;
        }
        let linked: BTreeSet<NodeName> = self.linked.keys().cloned().collect();
        let (mut keys, mut open, mut due) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
        for (kind, cache) in &self.caches {
            for (key, job) in &cache.borrow().objects {
                keys.insert(key.clone());
                let ReadJob::Open(job) = self.jobs.read(*kind, &job.object, &job.value) else { continue };
                let timeout = job.spec.as_ref().map_or(Duration::MAX, |spec| spec.timeout);
                let silent = self.patience.silent(&job.uid, &job.status, timeout, cx.now());
                let is_due = match &job.spec {
                    Err(_) => !job.status.is_over(),
                    Ok(spec) => plan::is_due(&job.status, spec, &linked, &silent),
                };
                if is_due {
                    due.push(key.clone());
                }
                open.insert(job.uid.clone());
            }
        }
        self.jobs.retain(&keys);
        self.patience.retain(&open.iter().map(String::as_str).collect());
        // Who waits for an answer about a job that is gone hears that there is nothing to wait for.
        self.work.retain(|key, work| {
            let is_kept = work.is_busy || keys.contains(key);
            if !is_kept {
                confirm(std::mem::take(&mut work.reports), true);
            }
            is_kept
        });
        self.due.retain(|key| keys.contains(key));
        let reported = self.work.iter().filter(|(_, work)| !work.reports.is_empty());
        due.extend(reported.map(|(key, _)| key.clone()));
        due.into_iter().for_each(|key| self.enlist(key));
        self.write_next(cx);
    }

    /// The status of this job is to be written when its turn has come.
    fn enlist(&mut self, key: ObjectKey) {
        let work = self.work.entry(key.clone()).or_default();
        if !work.is_busy && !std::mem::replace(&mut work.is_waiting, true) {
            self.due.push_back(key);
        }
    }

    /// Has the next ones written, as many as may be at once.
    fn write_next(&mut self, cx: &Context<CloudTaskMsg>) {
        while self.busy < AT_ONCE {
            let Some(key) = self.due.pop_front() else { return };
            self.write(key, cx);
        }
    }

    /// Has the status of a job written, if that is there still.
    fn write(&mut self, key: ObjectKey, cx: &Context<CloudTaskMsg>) {
        let Some(work) = self.work.get_mut(&key) else { return };
        work.is_waiting = false;
        let found = self.caches.iter().find_map(|(kind, cache)| {
            let cache = cache.borrow();
            let job = cache.objects.get(&key)?;
            let silent = match self.jobs.read(*kind, &job.object, &job.value) {
                ReadJob::Over => BTreeMap::new(),
                ReadJob::Open(open) => {
                    let timeout = open.spec.as_ref().map_or(Duration::MAX, |spec| spec.timeout);
                    self.patience.silent(&open.uid, &open.status, timeout, cx.now())
                }
            };
            Some((*kind, job.object.uid.clone(), silent))
        });
        let Some((kind, uid, silent)) = found else {
            confirm(std::mem::take(&mut work.reports), true);
            return;
        };
        let linked: BTreeSet<NodeName> = self.linked.keys().cloned().collect();
        let mut world = World { linked, silent, ..World::default() };
        let mut replies = BTreeMap::new();
        for (node, (report, waiting)) in std::mem::take(&mut work.reports) {
            world.reports.insert(node.clone(), report.clone());
            replies.insert(node, (report, waiting));
        }
        work.is_busy = true;
        self.busy += 1;
        let (client, env, myself) = (self.dependencies.client.clone(), cx.env().clone(), cx.myself());
        let job = Job { kind, key, uid };
        cx.spawn(async move {
            let is_written = writer::write(&client, &job, world, &env).await;
            confirm(replies, is_written);
            let _ = myself.tell(CloudTaskMsg::StatusWritten { job: job.key, is_written }).await;
        });
    }
}

/// Answers those who wait: where it is not written their nodes say it again.
fn confirm(reports: BTreeMap<NodeName, (TaskReport, Vec<Reply<bool>>)>, is_written: bool) {
    for (_, waiting) in reports.into_values() {
        waiting.into_iter().for_each(|reply| reply.send(is_written));
    }
}
