//! What comes next of a part, and what its end is. Pure.

use contract::node_task::{self, TaskAction, TaskImage, TaskPhase, TaskProgress};

use crate::task::{CheckItem, Task};

/// KubeEdge's words for the actions.
const CHECK: &str = "Check";
const PULL: &str = "Pull";

/// How far a part is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) phase: TaskPhase,
    pub(crate) reason: String,
    pub(crate) actions: Vec<TaskAction>,
    pub(crate) images: Vec<TaskImage>,
}

/// What is to be done now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Look at the machine.
    Check(Vec<CheckItem>),
    /// Pull this image.
    Pull(String),
}

impl Progress {
    /// Of a part that has just come; `is_enabled`: whether this node does any.
    pub(crate) fn begun(task: &Task, is_enabled: bool) -> Progress {
        let progress = Progress {
            phase: TaskPhase::InProgress,
            reason: String::new(),
            actions: Vec::new(),
            images: Vec::new(),
        };
        match &task.work {
            _ if !is_enabled => progress.failed(
                "this node does no parts of jobs: set modules.taskManager.enable in its edgecore.yaml, and restart edgecore",
            ),
            Err(why) => progress.failed(why),
            Ok(_) => progress,
        }
    }

    fn failed(self, why: &str) -> Progress {
        Progress { phase: TaskPhase::Failure, reason: node_task::sentence(why), ..self }
    }

    /// What comes next; `None`: the part is through.
    pub(crate) fn next(&self, task: &Task) -> Option<Step> {
        if self.phase.is_final() {
            return None;
        }
        let pulls = task.work.as_ref().ok()?;
        if self.actions.is_empty() {
            return Some(Step::Check(pulls.checks.clone()));
        }
        // They are pulled in order, so as many as there are results are through.
        pulls.images.get(self.images.len()).cloned().map(Step::Pull)
    }

    /// The machine was looked at.
    pub(crate) fn checked(&mut self, outcome: Result<(), String>, time: &str) {
        if self.phase.is_final() || !self.actions.is_empty() {
            return;
        }
        self.ended(CHECK, outcome, time);
    }

    /// An image was pulled, or was not. One of another step counts for nothing.
    pub(crate) fn pulled(&mut self, task: &Task, image: TaskImage, time: &str) {
        if self.next(task) != Some(Step::Pull(image.image.clone())) {
            return;
        }
        self.images.push(image);
        if self.next(task).is_some() {
            return;
        }
        let missing: Vec<&str> =
            self.images.iter().filter(|image| !image.succeeded).map(|image| image.image.as_str()).collect();
        let outcome = if missing.is_empty() {
            Ok(())
        } else {
            Err(format!(
                "{} of {} images were not pulled: {}",
                missing.len(),
                self.images.len(),
                missing.join(", ")
            ))
        };
        let is_done = outcome.is_ok();
        self.ended(PULL, outcome, time);
        if is_done {
            self.phase = TaskPhase::Successful;
        }
    }

    fn ended(&mut self, action: &str, outcome: Result<(), String>, time: &str) {
        let reason = outcome.err().map(|why| node_task::sentence(&why));
        self.actions.push(TaskAction {
            action: action.to_owned(),
            succeeded: reason.is_none(),
            reason: reason.clone().unwrap_or_default(),
            time: time.to_owned(),
        });
        if let Some(reason) = reason {
            self.phase = TaskPhase::Failure;
            self.reason = reason;
        }
    }

    /// As it goes up.
    pub(crate) fn report(&self, task: &Task) -> TaskProgress {
        TaskProgress {
            kind: task.kind.word().to_owned(),
            job: task.job.clone(),
            uid: task.uid.clone(),
            phase: self.phase.word().to_owned(),
            reason: self.reason.clone(),
            actions: self.actions.clone(),
            images: self.images.clone(),
            from_version: String::new(),
            to_version: String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract::{ObjectKey, TaskKind};
    use serde_json::json;

    fn task(images: &[&str]) -> Task {
        let key = ObjectKey::new(TaskKind::ImagePrePull.resource(), "", "j");
        let object = json!({"spec": {"imagePrePullTemplate": {"images": images}}});
        Task::read(&key, "u", object.to_string().as_bytes()).unwrap()
    }

    fn image(image: &str, succeeded: bool) -> TaskImage {
        TaskImage { image: image.into(), succeeded, reason: String::new() }
    }

    #[test]
    fn a_part_goes_on_step_by_step() {
        let task = task(&["a", "b"]);
        let mut progress = Progress::begun(&task, true);
        assert_eq!(progress.next(&task), Some(Step::Check(vec![CheckItem::Disk])));
        progress.checked(Ok(()), "t1");
        progress.checked(Err("a second one".into()), "t2");
        assert_eq!(progress.next(&task), Some(Step::Pull("a".into())));
        progress.pulled(&task, image("b", true), "t2");
        assert_eq!(progress.next(&task), Some(Step::Pull("a".into())), "out of turn");
        progress.pulled(&task, image("a", true), "t2");
        assert_eq!((progress.next(&task), progress.actions.len()), (Some(Step::Pull("b".into())), 1));
        progress.pulled(&task, image("b", true), "t3");
        assert_eq!((progress.next(&task), progress.phase), (None, TaskPhase::Successful));
        let flow: Vec<_> =
            progress.actions.iter().map(|a| (a.action.as_str(), a.succeeded, a.time.as_str())).collect();
        assert_eq!(flow, [("Check", true, "t1"), ("Pull", true, "t3")]);
        let before = progress.clone();
        progress.pulled(&task, image("b", false), "t4");
        assert_eq!(progress, before, "what has ended stays");
    }

    #[test]
    fn one_image_that_is_not_there_fails_the_part_and_the_others_are_pulled() {
        let task = task(&["a", "b"]);
        let mut progress = Progress::begun(&task, true);
        progress.checked(Ok(()), "t");
        progress.pulled(&task, image("a", false), "t");
        assert_eq!(progress.next(&task), Some(Step::Pull("b".into())));
        progress.pulled(&task, image("b", true), "t");
        assert_eq!((progress.phase, progress.images.len()), (TaskPhase::Failure, 2));
        assert_eq!(progress.reason, "1 of 2 images were not pulled: a");
        assert_eq!(progress.report(&task).phase, "Failure");
    }

    #[test]
    fn a_machine_that_is_full_or_does_no_jobs_begins_nothing() {
        let task = task(&["a"]);
        let mut progress = Progress::begun(&task, true);
        progress.checked(Err("disk: 93 percent are used".into()), "t");
        assert_eq!((progress.next(&task), progress.phase), (None, TaskPhase::Failure));
        assert_eq!(progress.reason, "disk: 93 percent are used");
        let progress = Progress::begun(&task, false);
        assert!(progress.reason.contains("modules.taskManager.enable"), "{}", progress.reason);
        assert_eq!((progress.next(&task), progress.phase), (None, TaskPhase::Failure));
    }
}
