//! TaskManager's actor.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use beehive::{Actor, Address, Context, Fault, Reply};
use contract::cloudhub::{CloudHubMsg, SessionReader};
use contract::cloudtaskmanager::{CloudTaskMsg, JobWrite, TaskUp};
use contract::node_task::TaskKind;
use contract::nodelease::NodeLeaseMsg;
use contract::parsed::TaskReport;
use contract::synccontroller::{Source, SyncMsg};
use contract::{NodeName, Object, ObjectKey};
use fairshare::{Delivery, ReportQueues};
use kubewatch::{Cache, Cached, DesiredObjects, Interruptions, Publisher, SharedCache};

use crate::due::{DueQueue, Rest};
use crate::job::node_phase;
use crate::patience::Patience;
use crate::plan::{self, World};
use crate::read_jobs::{Moved, OpenJob, ReadJobs};
use crate::reports::TaskReports;
use crate::watched::{watched, watched_without_effect};
use crate::whose::{Ownership, Whose};
use crate::writer::{self, Job};
use crate::{desired, events, secret};

/// 2 s between looks whose time is over, whose turn it is, and what could not be written.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// 4 jobs are worked on at once: each costs the API server some requests, and whoever may make jobs decides how many there are.
const AT_ONCE: usize = 4;
/// 100 ms in which what moves is gathered before it is looked at.
const GATHER: Duration = Duration::from_millis(100);
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
    /// The uid of the job that was written last.
    uid: String,
    /// Its status is being written.
    is_busy: bool,
    /// It is due anew since that began.
    is_due: bool,
    /// When it is written again though nothing moved but time.
    rest: Rest,
    /// What nodes have said since.
    reports: BTreeMap<NodeName, (TaskReport, Vec<Reply<bool>>)>,
    /// Of which job of this name, by its uid, this CloudCore has said that it has no effect, or that it is not read. It does so once:
    /// another CloudCore, whose settings are others, may take it back.
    is_told: Option<String>,
}

/// Whose turn it is in jobs on nodes.
pub struct TaskManager {
    dependencies: Dependencies,
    /// All jobs. Where they have no effect each is told so, and that is all.
    caches: Vec<(TaskKind, SharedCache)>,
    reports: Option<ReportQueues<TaskReports>>,
    publisher: Publisher,
    linked: BTreeMap<NodeName, u64>,
    jobs: ReadJobs,
    work: BTreeMap<ObjectKey, Work>,
    whose: Ownership,
    /// The jobs whose status is to be written.
    due: DueQueue,
    /// How many are being written.
    busy: usize,
    patience: Patience,
    /// The Secrets of jobs, by the jobs' uids; `None`: it is being read.
    secrets: BTreeMap<String, Option<String>>,
    /// What moved since the last look.
    moved: BTreeSet<ObjectKey>,
    /// The nodes that hold something else since the last look.
    touched: BTreeSet<NodeName>,
    /// The nodes that were linked since the last look.
    risen: BTreeSet<NodeName>,
    /// A look comes.
    is_gathering: bool,
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
            whose: Ownership::default(),
            due: DueQueue::default(),
            busy: 0,
            patience: Patience::default(),
            secrets: BTreeMap::new(),
            moved: BTreeSet::new(),
            touched: BTreeSet::new(),
            risen: BTreeSet::new(),
            is_gathering: false,
            is_timed: false,
        }
    }
}

impl Actor for TaskManager {
    type Message = CloudTaskMsg;

    async fn started(&mut self, cx: &mut Context<CloudTaskMsg>) -> Result<(), Fault> {
        let Dependencies { client, lease, hub, interruptions, enable, .. } = &self.dependencies;
        let watch = |kind| {
            let what = if *enable { watched(kind) } else { watched_without_effect(kind) };
            kubewatch::watch(client, what, None, interruptions, cx, || CloudTaskMsg::Reconcile)
        };
        self.caches = TaskKind::ALL.map(|kind| (kind, watch(kind))).into();
        cx.every(LOOK_EVERY, || CloudTaskMsg::Tick);
        let reports = TaskReports { myself: cx.myself(), env: cx.env().clone(), traffic: Default::default() };
        self.reports = Some(ReportQueues::new(reports, lease.clone()));
        cx.spawn_tell(hub, CloudHubMsg::TellSessions { to: SessionReader::CloudTaskManager });
        self.look(cx).await;
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
                self.risen.insert(node.clone());
                self.publisher.node_up(node, session, cx.now());
                self.gather(cx);
            }
            CloudTaskMsg::NodeDown { node, session } => {
                self.linked.retain(|linked, open| *linked != node || *open != session);
                self.publisher.node_down(&node, session);
            }
            CloudTaskMsg::ListAgain => {
                if self.publisher.list_again() {
                    self.touched = self.jobs.nodes();
                    self.look(cx).await;
                }
            }
            CloudTaskMsg::Reconcile => {
                self.is_timed = false;
                self.gather(cx);
            }
            CloudTaskMsg::Gathered => {
                self.is_gathering = false;
                self.look(cx).await;
            }
            CloudTaskMsg::Tick => {
                // Only what time moves: nothing is published by it.
                self.consider_time(cx);
            }
            CloudTaskMsg::Reported { node, report, reply } => self.reported(node, *report, reply, cx),
            CloudTaskMsg::StatusWritten { job, outcome } => {
                self.busy = self.busy.saturating_sub(1);
                // What could not be written is tried again when time has passed.
                let is_due = self.work.get_mut(&job).is_some_and(|work| {
                    work.is_busy = false;
                    let is_due = std::mem::take(&mut work.is_due);
                    if outcome == JobWrite::Failed {
                        work.is_told = None;
                    }
                    outcome != JobWrite::Failed && (is_due || !work.reports.is_empty())
                });
                self.learn_whose(&job, outcome, cx);
                if self.is_gone(&job) {
                    self.forget(&job);
                } else if is_due {
                    self.enlist(job);
                }
                self.write_next(cx);
            }
            CloudTaskMsg::SecretRead { uid, secret } => {
                let of_it = self.jobs.open().filter(|(_, job)| job.uid == uid);
                self.touched.extend(of_it.flat_map(|(_, job)| job.under_way.iter().cloned()));
                match secret {
                    Ok(secret) => {
                        // Of a job that is gone it is not kept.
                        self.secrets.entry(uid).and_modify(|known| *known = Some(secret));
                    }
                    Err((why, _)) => {
                        events::secret_unread(cx.env(), &why);
                        self.secrets.remove(&uid);
                        if !std::mem::replace(&mut self.is_timed, true) {
                            cx.after(LOOK_EVERY, CloudTaskMsg::Reconcile);
                        }
                        return Ok(());
                    }
                }
                self.gather(cx);
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
            "leftAlone": self.whose.left_alone(),
            "nodesAtWork": self.publisher.nodes(),
            "waiting": self.due.len(),
            "looks": self.jobs.looks(),
            "deliveries": self.reports.as_ref().map_or(0, ReportQueues::in_work),
        })
    }
}

/// What nodes should hold.
impl TaskManager {
    /// Looks at what moved in a moment, together with what moves until then: each status that is written moves a job.
    fn gather(&mut self, cx: &Context<CloudTaskMsg>) {
        if !std::mem::replace(&mut self.is_gathering, true) {
            cx.after(GATHER, CloudTaskMsg::Gathered);
        }
    }

    /// Compares what nodes should hold with what was sent, and sends the difference; then whose turn it is. What did not move is not looked at.
    /// Where jobs have no effect no node should hold any.
    async fn look(&mut self, cx: &Context<CloudTaskMsg>) {
        // What nodes hold does not wait for jobs that have no effect.
        let has_effect = self.dependencies.enable;
        if has_effect && !self.is_listed() {
            return;
        }
        self.read_moved();
        let not_current = self.publisher.not_current();
        let mut nodes = std::mem::take(&mut self.touched);
        nodes.extend(not_current.iter().cloned());
        if !has_effect {
            nodes.clear();
        }
        let (wanted, mut unknown) = self.wanted(&nodes, cx);
        self.publisher.publish(&wanted, cx.env().traces()).await;
        self.publisher.complete().await;
        let resources: Vec<&str> =
            if has_effect { TaskKind::ALL.map(TaskKind::resource).into() } else { Vec::new() };
        if self.dependencies.interruptions.are_whole(&resources) {
            for node in not_current {
                let unknown = unknown.remove(&node).unwrap_or_default();
                self.publisher.current(&node, unknown).await;
            }
        } else if !not_current.is_empty() && !std::mem::replace(&mut self.is_timed, true) {
            cx.after(AGAIN_AFTER, CloudTaskMsg::Reconcile);
        }
        self.consider_moved(cx);
    }

    fn is_listed(&self) -> bool {
        self.caches.iter().all(|(_, cache)| cache.borrow().listed)
    }

    /// Takes in what moved in the caches, which tell of what moves from now on.
    fn read_moved(&mut self) {
        for (kind, cache) in &self.caches {
            let mut cache = cache.borrow_mut();
            for key in cache.take_moved() {
                let now = cache.objects.get(&key);
                if now.is_some_and(|job| self.jobs.has(&key, &job.object)) {
                    self.moved.insert(key);
                    continue;
                }
                let value = now.map(Cached::value);
                let now = now.zip(value.as_deref()).map(|(job, value)| (&job.object, value));
                let Moved { nodes, ended } = self.jobs.put(*kind, &key, now);
                self.touched.extend(nodes);
                if let Some(uid) = ended {
                    self.patience.forget(&uid);
                    self.whose.forget(&uid);
                    self.secrets.remove(&uid);
                }
                self.moved.insert(key);
            }
        }
    }

    /// What each of these nodes should hold, and what it should hold that is not known yet.
    fn wanted(
        &mut self,
        nodes: &BTreeSet<NodeName>,
        cx: &Context<CloudTaskMsg>,
    ) -> (BTreeMap<NodeName, DesiredObjects>, BTreeMap<NodeName, BTreeSet<ObjectKey>>) {
        let (mut wanted, mut unknown) =
            (BTreeMap::<_, DesiredObjects>::new(), BTreeMap::<_, BTreeSet<_>>::new());
        for node in nodes {
            let held = wanted.entry(node.clone()).or_default();
            for key in self.jobs.on(node) {
                match self.sent(&key, cx) {
                    Ok(object) => held.extend(object.map(|object| (key, object))),
                    Err(NotYetKnown) => drop(unknown.entry(node.clone()).or_default().insert(key)),
                }
            }
        }
        (wanted, unknown)
    }

    /// What goes down of a job; `None`: nothing.
    fn sent(
        &mut self,
        key: &ObjectKey,
        cx: &Context<CloudTaskMsg>,
    ) -> Result<Option<Arc<Object>>, NotYetKnown> {
        let Some(OpenJob { uid, spec: Ok(spec), .. }) = self.jobs.get(key) else { return Ok(None) };
        let secret = match &spec.image_secret {
            None => None,
            Some(named) => match self.secrets.get(uid) {
                Some(Some(secret)) => Some(secret.as_str()),
                Some(None) => return Err(NotYetKnown),
                None => {
                    let (uid, named) = (uid.clone(), named.clone());
                    self.secrets.insert(uid.clone(), None);
                    read_secret(&self.dependencies.client, uid, named, cx);
                    return Err(NotYetKnown);
                }
            },
        };
        let caches = &self.caches;
        Ok(self.jobs.sent(key, |job, version| {
            let version = (job.uid.as_str(), version.resource_version.as_str());
            caches.iter().find_map(|(_, cache)| {
                desired::object(key, version, &cache.borrow().objects.get(key)?.value(), secret)
            })
        }))
    }
}

/// A job's Secret is being read.
struct NotYetKnown;

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
        let cache = self.caches.iter().find(|(kind, _)| *kind == report.kind && self.dependencies.enable);
        let Some((_, cache)) = cache else {
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

    /// Looks which of the jobs that moved, and of those whose nodes are here since, have a status that is to be another one.
    fn consider_moved(&mut self, cx: &Context<CloudTaskMsg>) {
        if !self.is_listed() {
            return;
        }
        let mut keys = std::mem::take(&mut self.moved);
        for key in keys.iter().filter(|key| self.is_gone(key)).cloned().collect::<Vec<_>>() {
            self.forget(&key);
        }
        let risen = std::mem::take(&mut self.risen);
        if !risen.is_empty() {
            let risen: BTreeSet<&str> = risen.iter().map(NodeName::as_str).collect();
            let waits = |job: &OpenJob| {
                let mut nodes = job.status.node_status.iter();
                nodes.any(|node| node.phase == node_phase::PENDING && risen.contains(node.node_name.as_str()))
            };
            keys.extend(self.jobs.open().filter(|(_, job)| waits(job)).map(|(key, _)| key.clone()));
        }
        self.consider(keys, cx);
    }

    /// The same of those that time moves: nodes that say nothing, or are linked elsewhere, and what could not be written.
    fn consider_time(&mut self, cx: &Context<CloudTaskMsg>) {
        if !self.is_listed() {
            return;
        }
        let now = cx.now();
        let rests = |key: &ObjectKey| {
            let version = self.jobs.version(key).unwrap_or_default();
            self.work.get(key).is_some_and(|work| work.rest.holds(version, now))
        };
        let mut keys: BTreeSet<ObjectKey> =
            self.jobs.open().map(|(key, _)| key).filter(|key| !rests(key)).cloned().collect();
        let reported = self.work.iter().filter(|(_, work)| !work.reports.is_empty());
        let reported: Vec<ObjectKey> = reported.map(|(key, _)| key.clone()).collect();
        for key in reported {
            keys.remove(&key);
            self.enlist(key);
        }
        self.consider(keys, cx);
    }

    fn consider(&mut self, keys: BTreeSet<ObjectKey>, cx: &Context<CloudTaskMsg>) {
        let linked: BTreeSet<NodeName> = self.linked.keys().cloned().collect();
        let has_effect = self.dependencies.enable;
        for key in keys {
            let told = self.work.get(&key).and_then(|work| work.is_told.as_ref());
            if let Some((_, uid, _)) = self.unread(&key) {
                if has_effect && told != Some(&uid) {
                    self.enlist(key);
                }
                continue;
            }
            let (patience, whose) = (&mut self.patience, &self.whose);
            let is_due = self.jobs.is_due(&key, |job| match &job.spec {
                _ if whose.is_left_alone(&job.uid, cx.now()) => false,
                _ if !has_effect => told != Some(&job.uid) && plan::without_effect(&job.status) != job.status,
                Err(_) => !job.status.is_over(),
                Ok(spec) => {
                    let silent = patience.silent(&job.uid, &job.status, spec.silence, cx.now());
                    plan::is_due(&job.status, spec, &linked, &silent)
                }
            });
            if is_due {
                self.enlist(key);
            }
        }
        self.write_next(cx);
    }

    fn is_gone(&self, key: &ObjectKey) -> bool {
        let has = |cache: &Cache| cache.objects.contains_key(key) || cache.unreadable.contains_key(key);
        !self.caches.iter().any(|(_, cache)| has(&cache.borrow()))
    }

    /// The kind and the uid of a job that is there and could not be read, and why.
    fn unread(&self, key: &ObjectKey) -> Option<(TaskKind, String, String)> {
        self.caches.iter().find_map(|(kind, cache)| {
            let cache = cache.borrow();
            let is_read = cache.objects.contains_key(key);
            let unread = cache.unreadable.get(key).filter(|unread| !is_read && !unread.uid.is_empty())?;
            Some((*kind, unread.uid.clone(), unread.why.clone()))
        })
    }

    /// Whose the job is whose status was to be written.
    fn learn_whose(&mut self, job: &ObjectKey, outcome: JobWrite, cx: &Context<CloudTaskMsg>) {
        let whose = match outcome {
            JobWrite::Done => Whose::Ours,
            JobWrite::LeftAlone => Whose::Anothers,
            JobWrite::Failed => return,
        };
        let Some(work) = self.work.get(job) else { return };
        if self.whose.found(&work.uid, whose, cx.now()) {
            events::job_left_alone(cx.env(), job);
        }
    }

    /// Who waits for an answer about a job that is gone hears that there is nothing to wait for.
    fn forget(&mut self, key: &ObjectKey) {
        if self.work.get(key).is_some_and(|work| !work.is_busy)
            && let Some(work) = self.work.remove(key)
        {
            confirm(work.reports, true);
        }
    }

    /// The status of this job is to be written when its turn has come.
    fn enlist(&mut self, key: ObjectKey) {
        let work = self.work.entry(key.clone()).or_default();
        if work.is_busy {
            work.is_due = true;
        } else {
            self.due.push(key);
        }
    }

    /// Has the next ones written, as many as may be at once.
    fn write_next(&mut self, cx: &Context<CloudTaskMsg>) {
        while self.busy < AT_ONCE {
            let Some(key) = self.due.pop() else { return };
            self.write(key, cx);
        }
    }

    /// Has the status of a job written, if that is there still.
    fn write(&mut self, key: ObjectKey, cx: &Context<CloudTaskMsg>) {
        let refused = self.unread(&key);
        let Some(work) = self.work.get_mut(&key) else { return };
        if let Some((kind, uid, why)) = refused {
            confirm(std::mem::take(&mut work.reports), true);
            (work.is_busy, work.is_told) = (true, Some(uid.clone()));
            work.uid.clone_from(&uid);
            self.busy += 1;
            let (client, env, myself) = (self.dependencies.client.clone(), cx.env().clone(), cx.myself());
            let is_ours = self.whose.is_ours(&uid);
            let job = Job { kind, key, uid, is_ours };
            cx.spawn(async move {
                let outcome = writer::refuse(&client, &job, &why, &env).await;
                let _ = myself.tell(CloudTaskMsg::StatusWritten { job: job.key, outcome }).await;
            });
            return;
        }
        let found = self.caches.iter().find_map(|(kind, cache)| {
            let cache = cache.borrow();
            let job = cache.objects.get(&key)?;
            let silent = self.jobs.get(&key).map_or_else(BTreeMap::new, |open| {
                let timeout = open.spec.as_ref().map_or(Duration::MAX, |spec| spec.silence);
                self.patience.silent(&open.uid, &open.status, timeout, cx.now())
            });
            work.rest.begin(&job.object.resource_version, cx.now());
            Some((*kind, job.object.uid.clone(), silent))
        });
        let Some((kind, uid, silent)) = found else {
            confirm(std::mem::take(&mut work.reports), true);
            return;
        };
        let linked: BTreeSet<NodeName> = self.linked.keys().cloned().collect();
        let mut world = World { linked, silent, ..World::default() };
        let has_effect = self.dependencies.enable;
        work.is_told = (!has_effect).then(|| uid.clone());
        let mut replies = BTreeMap::new();
        for (node, (report, waiting)) in std::mem::take(&mut work.reports) {
            world.reports.insert(node.clone(), report.clone());
            replies.insert(node, (report, waiting));
        }
        work.is_busy = true;
        work.uid.clone_from(&uid);
        self.busy += 1;
        let (client, env, myself) = (self.dependencies.client.clone(), cx.env().clone(), cx.myself());
        let is_ours = self.whose.is_ours(&uid);
        let job = Job { kind, key, uid, is_ours };
        cx.spawn(async move {
            let outcome = writer::write(&client, &job, has_effect.then_some(world), &env).await;
            confirm(replies, outcome != JobWrite::Failed);
            let _ = myself.tell(CloudTaskMsg::StatusWritten { job: job.key, outcome }).await;
        });
    }
}

/// Answers those who wait: where it is not written their nodes say it again.
fn confirm(reports: BTreeMap<NodeName, (TaskReport, Vec<Reply<bool>>)>, is_written: bool) {
    for (_, waiting) in reports.into_values() {
        waiting.into_iter().for_each(|reply| reply.send(is_written));
    }
}
