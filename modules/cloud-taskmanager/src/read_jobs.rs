//! The jobs as they were read: each is taken apart once for each of its versions, however often somebody looks at it. Whoever may make
//! jobs makes thousands of them, and of those that are over nothing is kept. Pure.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use contract::node_task::TaskKind;
use contract::{NodeName, Object, ObjectKey};
use kubewatch::Cached;
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

/// All jobs that the caches have.
#[derive(Debug, Default)]
pub(crate) struct ReadJobs(BTreeMap<ObjectKey, (Arc<Object>, ReadJob)>);

impl ReadJobs {
    /// The job as it is there, read anew if it is another version.
    pub(crate) fn read(&mut self, kind: TaskKind, job: &Cached) -> &ReadJob {
        self.read_version(kind, &job.object, || job.value())
    }

    fn read_version<'a>(
        &mut self,
        kind: TaskKind,
        object: &Arc<Object>,
        job: impl FnOnce() -> Cow<'a, Value>,
    ) -> &ReadJob {
        let key = &object.key;
        let is_known = self.0.get(key).is_some_and(|(known, _)| Arc::ptr_eq(known, object));
        if !is_known {
            let job = ReadJob::of(kind, &object.uid, &job());
            self.0.insert(key.clone(), (Arc::clone(object), job));
        }
        self.0.get(key).map_or(&ReadJob::Over, |(_, job)| job)
    }

    /// Forgets those that are not among these.
    pub(crate) fn retain(&mut self, keys: &BTreeSet<ObjectKey>) {
        self.0.retain(|key, _| keys.contains(key));
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

    fn version(version: &str) -> Arc<Object> {
        Arc::new(Object {
            key: ObjectKey::new(KIND.resource(), "", "j"),
            uid: "u".to_owned(),
            content_hash: version.to_owned(),
            resource_version: version.to_owned(),
            json: Bytes::new(),
        })
    }

    fn job(phase: &str, node: &str) -> Value {
        json!({
            "spec": {"imagePrePullTemplate": {"images": ["a:1"], "nodeNames": ["n"]}},
            "status": {"phase": phase, "nodeStatus": [{"nodeName": "n", "phase": node}]},
        })
    }

    fn read<'a>(jobs: &'a mut ReadJobs, object: &Arc<Object>, job: Value) -> &'a ReadJob {
        jobs.read_version(KIND, object, || Cow::Owned(job))
    }

    fn open(job: &ReadJob) -> &OpenJob {
        let ReadJob::Open(open) = job else { panic!("it is over") };
        open
    }

    #[test]
    fn a_job_is_read_once_for_each_version_and_nothing_is_kept_of_one_that_is_over() {
        let mut jobs = ReadJobs::default();
        let first = version("1");
        let running = open(read(&mut jobs, &first, job("InProgress", "InProgress")));
        assert_eq!((running.uid.as_str(), running.under_way.len(), running.spec.is_ok()), ("u", 1, true));
        // The same version is not read again.
        assert!(open(read(&mut jobs, &first, json!({}))).spec.is_ok());
        // One that failed while a node is at it is heard to its end.
        assert_eq!(open(read(&mut jobs, &version("2"), job("Failure", "InProgress"))).under_way.len(), 1);
        assert_eq!(read(&mut jobs, &version("3"), job("Failure", "Unknown")), &ReadJob::Over);
        assert!(open(read(&mut jobs, &version("4"), json!({"spec": {}}))).spec.is_err());
        jobs.retain(&BTreeSet::new());
        assert!(jobs.0.is_empty());
    }
}
