//! Writes the status of a job by compare-and-swap: read, decided, written, and from the beginning where somebody else wrote in between.

use std::collections::BTreeMap;

use beehive::{Env, Fault};
use contract::ObjectKey;
use contract::cloudtaskmanager::JobWrite;
use contract::node_task::TaskKind;
use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use kubewatch::{WatchedObject, status_code};
use serde_json::{Value, json};

use crate::job::{JobSpec, JobStatus, nodes_of};
use crate::nodes::{self, Unfound};
use crate::plan::{self, World};
use crate::watched::watched;
use crate::whose::Whose;
use crate::{events, secret};

/// How often a write is tried when others write, too.
const TRIES: usize = 8;

/// The job that is written.
pub(crate) struct Job {
    pub(crate) kind: TaskKind,
    pub(crate) key: ObjectKey,
    pub(crate) uid: String,
    /// It is known that no node of it is another CloudCore's.
    pub(crate) is_ours: bool,
}

/// Brings the status in line with `world`, if the job is ours; `None`: jobs have no effect. Done is also what never can be.
pub(crate) async fn write(client: &kube::Client, job: &Job, mut world: Option<World>, env: &Env) -> JobWrite {
    match try_write(client, job, world.as_mut(), env).await {
        Ok(outcome) => outcome,
        Err(error) => {
            events::status_not_written(env, &job.key, &Fault::from_error(&error).reason);
            JobWrite::Failed
        }
    }
}

/// Says of a job that is not read that it has failed, and why. Nothing of it is read for that: it may be large. Answers whether that is
/// written, or never can be.
pub(crate) async fn refuse(client: &kube::Client, job: &Job, why: &str, env: &Env) -> JobWrite {
    let jobs: Api<WatchedObject> = Api::all_with(client.clone(), &watched(job.kind).api_resource());
    let reason = format!("CloudCore does not read the job: {why}");
    let failed = plan::failed(&reason);
    // With the uid, so that it is of no other job of this name.
    let patch = json!({
        "metadata": { "uid": job.uid },
        "status": { "phase": failed.phase, "reason": failed.reason },
    });
    match jobs.patch_status(&job.key.name, &PatchParams::default(), &Patch::Merge(&patch)).await {
        Ok(_) => {
            events::job_moved(env, &job.key, &failed.phase, &reason);
            JobWrite::Done
        }
        Err(error) if matches!(status_code(&error), Some(404 | 409 | 422)) => JobWrite::Done,
        Err(error) => {
            events::status_not_written(env, &job.key, &Fault::from_error(&error).reason);
            JobWrite::Failed
        }
    }
}

async fn try_write(
    client: &kube::Client,
    job: &Job,
    mut world: Option<&mut World>,
    env: &Env,
) -> Result<JobWrite, kube::Error> {
    let jobs: Api<DynamicObject> = Api::all_with(client.clone(), &watched(job.kind).api_resource());
    for _ in 0..TRIES {
        let Some(mut held) = jobs.get_opt(&job.key.name).await? else { return Ok(JobWrite::Done) };
        if held.metadata.uid.as_deref() != Some(job.uid.as_str())
            || held.metadata.deletion_timestamp.is_some()
        {
            return Ok(JobWrite::Done);
        }
        let status = JobStatus::of(&held.data);
        if !job.is_ours {
            let choice = nodes_of(job.kind, &held.data);
            if nodes::whose(client, choice.as_ref(), &status).await? == Whose::Anothers {
                return Ok(JobWrite::LeftAlone);
            }
        }
        let next = match &mut world {
            Some(world) => next(client, job, &held.data, &status, world).await?,
            None => plan::without_effect(&status),
        };
        if next == status {
            return Ok(JobWrite::Done);
        }
        held.data["status"] = serde_json::to_value(&next).unwrap_or(Value::Null);
        match jobs.replace_status(&job.key.name, &PostParams::default(), &held).await {
            Ok(_) => {
                if (&next.phase, &next.reason) != (&status.phase, &status.reason) {
                    events::job_moved(env, &job.key, &next.phase, &next.reason);
                }
                return Ok(JobWrite::Done);
            }
            // Another CloudCore was faster, or a person.
            Err(error) if status_code(&error) == Some(409) => {}
            Err(error) if status_code(&error) == Some(404) => return Ok(JobWrite::Done),
            Err(error) => return Err(error),
        }
    }
    Ok(JobWrite::Failed)
}

async fn next(
    client: &kube::Client,
    job: &Job,
    data: &Value,
    status: &JobStatus,
    world: &mut World,
) -> Result<JobStatus, kube::Error> {
    let spec = match JobSpec::read(job.kind, data) {
        Ok(spec) => spec,
        // What began before somebody changed it is heard to its end.
        Err(_) if status.is_over() => return Ok(status.clone()),
        Err(why) => return Ok(JobStatus { node_status: status.node_status.clone(), ..plan::failed(&why) }),
    };
    if status.phase.is_empty() {
        return begun(client, &spec).await;
    }
    // Its nodes come back, or not, between two tries.
    world.looked_up = BTreeMap::new();
    let mut to_look_up = plan::to_look_up(status, &spec, &world.linked);
    to_look_up.extend(plan::waiting_to_look_up(world));
    world.looked_up = nodes::looked_up(client, &to_look_up).await?;
    Ok(plan::advance(status, &spec, world))
}

async fn begun(client: &kube::Client, spec: &JobSpec) -> Result<JobStatus, kube::Error> {
    if let Some((namespace, name)) = &spec.image_secret {
        match secret::read(client, namespace, name).await {
            // What cannot be asked now is asked again before anything goes to a node.
            Ok(_) | Err((_, true)) => {}
            Err((why, false)) => return Ok(plan::failed(&why)),
        }
    }
    match nodes::chosen(client, &spec.nodes).await {
        Ok(found) => Ok(plan::begun(found)),
        Err(Unfound::Senseless(why)) => Ok(plan::failed(&why)),
        Err(Unfound::Api(error)) => Err(error),
    }
}
