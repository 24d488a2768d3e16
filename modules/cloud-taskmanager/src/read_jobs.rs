//! The jobs as they were read: each is taken apart once for each of its versions, however often somebody looks at it, and what moved is all that
//! is looked at. Whoever may make jobs makes thousands of them, and of those that are over nothing is kept. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use contract::node_task::TaskKind;
use contract::{NodeName, Object, ObjectKey};
use serde_json::Value;

use crate::job::{JobSpec, JobStatus};

/// What there is to know of a job.
#[derive(Debug, PartialEq)]
pub(crate) enum ReadJob {
    /// No node begins any more, and none is at it.
    Over,
    /// Something is still to be done, or heard.
    Open(Box<OpenJob>),
}

/// A job that is not over, or that nodes are at.
#[derive(Debug, PartialEq)]
pub(crate) struct OpenJob {
    pub(crate) uid: String,
    pub(crate) status: JobStatus,
    /// What it asks for; or why that makes no sense.
    pub(crate) spec: Result<JobSpec, String>,
    /// The nodes that are at it.
    pub(crate) under_way: Vec<NodeName>,
}

/// The jobs that are open, and who is at them.
#[derive(Debug, Default)]
pub(crate) struct ReadJobs {
    jobs: BTreeMap<ObjectKey, KnownJob>,
    /// By the nodes that are at them.
    on: BTreeMap<NodeName, BTreeSet<ObjectKey>>,
    /// How many jobs were looked at so far: what this costs is counted by it.
    looks: u64,
}

/// An open job.
#[derive(Debug)]
struct KnownJob {
    version: Arc<Object>,
    job: Box<OpenJob>,
    /// What goes down of it, once that is known.
    sent: Option<Arc<Object>>,
}

/// What follows where a job came, changed or went.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Moved {
    /// The nodes that hold something else by it.
    pub(crate) nodes: BTreeSet<NodeName>,
    /// The uid of a job that is open no more.
    pub(crate) ended: Option<String>,
}

impl ReadJobs {
    /// Takes in what is there of a job now; `None`: it is gone. A version that is known is not read again.
    pub(crate) fn put(
        &mut self,
        kind: TaskKind,
        key: &ObjectKey,
        now: Option<(&Arc<Object>, &Value)>,
    ) -> Moved {
        if now.is_some_and(|(object, _)| self.has(key, object)) {
            return Moved::default();
        }
        let mut moved = Moved::default();
        if let Some(before) = self.jobs.remove(key) {
            for node in before.job.under_way {
                if let Some(keys) = self.on.get_mut(&node) {
                    keys.remove(key);
                }
                if self.on.get(&node).is_some_and(BTreeSet::is_empty) {
                    self.on.remove(&node);
                }
                moved.nodes.insert(node);
            }
            moved.ended = Some(before.job.uid);
        }
        let Some((object, value)) = now else { return moved };
        self.looks += 1;
        let ReadJob::Open(job) = ReadJob::of(kind, &object.uid, value) else { return moved };
        moved.ended.take_if(|ended| *ended == job.uid);
        for node in &job.under_way {
            self.on.entry(node.clone()).or_default().insert(key.clone());
            moved.nodes.insert(node.clone());
        }
        self.jobs.insert(key.clone(), KnownJob { version: Arc::clone(object), job, sent: None });
        moved
    }

    /// Whether this version of an open job is known.
    pub(crate) fn has(&self, key: &ObjectKey, version: &Arc<Object>) -> bool {
        self.jobs.get(key).is_some_and(|held| Arc::ptr_eq(&held.version, version))
    }

    /// One that is open.
    pub(crate) fn get(&self, key: &ObjectKey) -> Option<&OpenJob> {
        self.jobs.get(key).map(|held| &*held.job)
    }

    /// The version of one that is open.
    pub(crate) fn version(&self, key: &ObjectKey) -> Option<&str> {
        self.jobs.get(key).map(|held| held.version.resource_version.as_str())
    }

    /// Those that are open.
    pub(crate) fn open(&self) -> impl Iterator<Item = (&ObjectKey, &OpenJob)> {
        self.jobs.iter().map(|(key, held)| (key, &*held.job))
    }

    /// The nodes that are at any.
    pub(crate) fn nodes(&self) -> BTreeSet<NodeName> {
        self.on.keys().cloned().collect()
    }

    /// The jobs that a node is at.
    pub(crate) fn on(&self, node: &NodeName) -> Vec<ObjectKey> {
        self.on.get(node).into_iter().flatten().cloned().collect()
    }

    /// What goes down of a job, made once for each of its versions; `None`: nothing, or it is not known yet.
    pub(crate) fn sent(
        &mut self,
        key: &ObjectKey,
        make: impl FnOnce(&OpenJob, &Object) -> Option<Arc<Object>>,
    ) -> Option<Arc<Object>> {
        let held = self.jobs.get_mut(key)?;
        if held.sent.is_none() {
            held.sent = make(&held.job, &held.version);
        }
        held.sent.clone()
    }

    /// Looks whether a job is due.
    pub(crate) fn is_due(&mut self, key: &ObjectKey, judge: impl FnOnce(&OpenJob) -> bool) -> bool {
        self.looks += 1;
        self.jobs.get(key).is_some_and(|held| judge(&held.job))
    }

    /// How many looks there were.
    pub(crate) fn looks(&self) -> u64 {
        self.looks
    }
}

impl ReadJob {
    fn of(kind: TaskKind, uid: &str, job: &Value) -> ReadJob {
        let status = JobStatus::of(job);
        if status.is_ended() {
            return ReadJob::Over;
        }
        let under_way: Vec<NodeName> = status.under_way().map(|(node, _)| node).collect();
        let spec = JobSpec::read(kind, job);
        ReadJob::Open(Box::new(OpenJob { uid: uid.to_owned(), status, spec, under_way }))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::json;

    use super::*;

    const KIND: TaskKind = TaskKind::ImagePrePull;

    fn version(name: &str, version: &str) -> Arc<Object> {
        Arc::new(Object {
            key: key(name),
            uid: format!("u-{name}"),
            content_hash: version.to_owned(),
            resource_version: version.to_owned(),
            json: Bytes::new(),
        })
    }

    fn key(name: &str) -> ObjectKey {
        ObjectKey::new(KIND.resource(), "", name)
    }

    fn job(phase: &str, node: &str) -> Value {
        json!({
            "spec": {"imagePrePullTemplate": {"images": ["a:1"], "nodeNames": ["n"]}},
            "status": {"phase": phase, "nodeStatus": [{"nodeName": "n", "phase": node}]},
        })
    }

    fn node() -> NodeName {
        NodeName::parse("n").unwrap()
    }

    #[test]
    fn a_job_is_read_once_for_each_version_and_nothing_is_kept_of_one_that_is_over() {
        let (mut jobs, key) = (ReadJobs::default(), key("j"));
        let first = version("j", "1");
        let moved = jobs.put(KIND, &key, Some((&first, &job("InProgress", "InProgress"))));
        assert_eq!(moved, Moved { nodes: [node()].into(), ended: None });
        let running = jobs.get(&key).unwrap();
        assert_eq!((running.uid.as_str(), running.under_way.len(), running.spec.is_ok()), ("u-j", 1, true));
        assert_eq!((jobs.on(&node()), jobs.nodes()), (vec![key.clone()], [node()].into()));
        // The same version is not read again, and what goes down of it is made once.
        assert_eq!(jobs.put(KIND, &key, Some((&first, &json!({})))), Moved::default());
        assert!(jobs.get(&key).unwrap().spec.is_ok());
        assert!(jobs.sent(&key, |_, version| Some(Arc::new(version.clone()))).is_some());
        assert!(jobs.sent(&key, |_, _| panic!("it is made")).is_some());
        // One that failed while a node is at it is heard to its end.
        jobs.put(KIND, &key, Some((&version("j", "2"), &job("Failure", "InProgress"))));
        assert!(jobs.get(&key).is_some_and(|job| job.under_way.len() == 1));
        assert!(jobs.sent(&key, |_, _| None).is_none(), "another version");
        let over = jobs.put(KIND, &key, Some((&version("j", "3"), &job("Failure", "Unknown"))));
        assert_eq!(over, Moved { nodes: [node()].into(), ended: Some("u-j".to_owned()) });
        assert!(jobs.get(&key).is_none() && jobs.nodes().is_empty());
        jobs.put(KIND, &key, Some((&version("j", "4"), &json!({"spec": {}}))));
        assert!(jobs.get(&key).is_some_and(|job| job.spec.is_err()));
        assert_eq!(jobs.put(KIND, &key, None).ended.as_deref(), Some("u-j"));
        assert!(jobs.open().next().is_none());
    }

    /// Whoever may make jobs makes thousands: what one of them costs is not for all others to pay.
    #[test]
    fn three_thousand_jobs_cost_as_many_looks_as_they_have_versions() {
        let mut jobs = ReadJobs::default();
        let steps =
            [("", ""), ("Init", "Pending"), ("InProgress", "InProgress"), ("Completed", "Successful")];
        for (at, (phase, of_node)) in steps.into_iter().enumerate() {
            for n in 0..3000 {
                let (key, version) = (key(&format!("j{n}")), version(&format!("j{n}"), &at.to_string()));
                // As the actor does with what has moved.
                jobs.put(KIND, &key, Some((&version, &job(phase, of_node))));
                jobs.is_due(&key, |job| job.status.phase.is_empty());
            }
        }
        assert_eq!(jobs.looks(), 2 * 3000 * 4);
        assert!(jobs.open().next().is_none());
    }
}
