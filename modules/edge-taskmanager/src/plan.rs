//! What comes next of a part, and what its end is. Pure.

use std::collections::BTreeMap;

use contract::edgetaskmanager::UpgradeEnd;
use contract::node_task::{self, TaskAction, TaskImage, TaskPhase, TaskProgress, WAITS_FOR_TURN};

use crate::task::{CheckItem, Task, Then, Upgrade};

/// KubeEdge's words for the actions.
const CHECK: &str = "Check";
const PULL: &str = "Pull";
const CONFIRM: &str = "WaitingConfirmation";
/// What is said while it is waited.
const WAITS: &str = "waits until somebody on the node says `keadm ctl confirm`";

/// What is said where nothing had to be done.
const ALREADY: &str = "the settings are so already: nothing was changed, and edgecore not restarted";

/// Why a part ends whose job says something else now.
const CHANGED: &str = "the job says something else than when this node began it, and nothing more of it was done: make another job";

/// How far a part is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Progress {
    /// What it is about: the job's mark when the part began. What was looked at, and confirmed, is that and nothing else. Empty: a
    /// release that kept no mark began it.
    pub(crate) mark: String,
    pub(crate) phase: TaskPhase,
    pub(crate) reason: String,
    pub(crate) actions: Vec<TaskAction>,
    pub(crate) images: Vec<TaskImage>,
    /// Of an upgrade, and of other settings: how far it is beside its actions.
    pub(crate) upgrade: UpgradeProgress,
}

/// How far an upgrade is, beside its actions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct UpgradeProgress {
    /// The machine was looked at.
    pub(crate) is_fit: bool,
    /// keadm was begun; what told the journal that was there before. Kept before it is begun.
    pub(crate) begun_after: Option<String>,
    /// The release before.
    pub(crate) from: String,
    /// The release that it is to have.
    pub(crate) to: String,
    /// The SHA-256 of the installation package that was fetched; empty: none was, or a release that kept no sum did.
    pub(crate) sum: String,
}

/// What is to be done now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Look at the machine.
    Check(Vec<CheckItem>),
    /// Pull this image.
    Pull(String),
    /// Pull the installation package, and write it into a file.
    Fetch(Upgrade),
    /// Hold the settings against these values.
    Examine(BTreeMap<String, String>),
    /// See whether somebody has confirmed it.
    AwaitConfirmation,
    /// Note which journal there is.
    Mark,
    /// Have keadm do it, or see how that has ended; with what told the journal that was there before.
    Exchange(Order, String),
}

/// What keadm is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Order {
    /// Exchange edgecore, by the package that has this SHA-256.
    Upgrade(Upgrade, String),
    /// Write these values into its settings, and restart it.
    Configure(BTreeMap<String, String>),
}

impl Progress {
    /// Of a part that has just come; `is_enabled`: whether this node does any.
    pub(crate) fn begun(task: &Task, is_enabled: bool) -> Progress {
        let progress = Progress {
            mark: task.mark.clone(),
            phase: TaskPhase::InProgress,
            reason: String::new(),
            actions: Vec::new(),
            images: Vec::new(),
            upgrade: UpgradeProgress::default(),
        };
        match &task.work {
            _ if !is_enabled => progress.failed(
                "this node does no parts of jobs: set modules.taskManager.enable in its edgecore.yaml, and restart edgecore",
            ),
            Err(why) => progress.failed(why),
            Ok(_) => progress,
        }
    }

    /// As it goes on with the job as that is now. A job that says something else ends the part before anything of that is done; once keadm is
    /// begun (`is_begun`) how that ends is told, whatever the job says.
    pub(crate) fn resumed(self, task: &Task, is_enabled: bool, is_begun: bool) -> Progress {
        if self.phase.is_final() || is_begun || self.mark == task.mark {
            return self;
        }
        if self.mark.is_empty() {
            // Nobody knows what was looked at: it is looked at once more.
            return Progress::begun(task, is_enabled);
        }
        self.failed(CHANGED)
    }

    fn failed(self, why: &str) -> Progress {
        Progress { phase: TaskPhase::Failure, reason: node_task::sentence(why), ..self }
    }

    /// What comes next; `None`: the part is through.
    pub(crate) fn next(&self, task: &Task) -> Option<Step> {
        if self.phase.is_final() {
            return None;
        }
        let work = task.work.as_ref().ok()?;
        match &work.then {
            Then::Pull(_) if self.actions.is_empty() => Some(Step::Check(work.checks.clone())),
            // They are pulled in order, so as many as there are results are through.
            Then::Pull(pulls) => pulls.images.get(self.images.len()).cloned().map(Step::Pull),
            Then::Upgrade(upgrade) => Some(self.next_of_upgrade(upgrade, &work.checks)),
            Then::Configure(fields) => Some(match &self.upgrade.begun_after {
                Some(before) => Step::Exchange(Order::Configure(fields.clone()), before.clone()),
                None if self.actions.is_empty() => Step::Examine(fields.clone()),
                None => Step::Mark,
            }),
        }
    }

    fn next_of_upgrade(&self, upgrade: &Upgrade, checks: &[CheckItem]) -> Step {
        if let Some(before) = &self.upgrade.begun_after {
            return Step::Exchange(Order::Upgrade(upgrade.clone(), self.upgrade.sum.clone()), before.clone());
        }
        match (self.actions.len(), self.upgrade.is_fit) {
            (0, false) => Step::Check(checks.to_vec()),
            (0, true) => Step::Fetch(upgrade.clone()),
            (1, _) if upgrade.confirm => Step::AwaitConfirmation,
            _ => Step::Mark,
        }
    }

    /// Whether edgecore, or what it is started with, is being exchanged.
    pub(crate) fn is_exchanging(&self) -> bool {
        !self.phase.is_final() && self.upgrade.begun_after.is_some()
    }

    /// Others have the place of its next step, or have it no more. Answers whether that is news.
    pub(crate) fn waits(&mut self, waits: bool) -> bool {
        if self.phase.is_final() || (self.reason == WAITS_FOR_TURN) == waits {
            return false;
        }
        self.reason = if waits { WAITS_FOR_TURN.to_owned() } else { String::new() };
        true
    }

    /// The machine was looked at.
    pub(crate) fn checked(&mut self, task: &Task, outcome: Result<(), String>, time: &str) {
        if !matches!(self.next(task), Some(Step::Check(_))) {
            return;
        }
        let is_upgrade = task.work.as_ref().is_ok_and(|work| matches!(work.then, Then::Upgrade(_)));
        if is_upgrade && outcome.is_ok() {
            // The package is a part of it.
            self.upgrade.is_fit = true;
        } else {
            self.ended(CHECK, outcome, time);
        }
    }

    /// The package with this SHA-256 is on the disk, or is not.
    pub(crate) fn fetched(&mut self, task: &Task, outcome: Result<String, String>, time: &str) {
        if matches!(self.next(task), Some(Step::Fetch(_))) {
            let outcome = outcome.map(|sum| self.upgrade.sum = sum);
            self.ended(CHECK, outcome, time);
            if self.next(task) == Some(Step::AwaitConfirmation) {
                self.reason = WAITS.to_owned();
            }
        }
    }

    /// The settings were held against what is wanted of them: whether they are to be others, or why they cannot be.
    pub(crate) fn examined(&mut self, task: &Task, outcome: Result<bool, String>, time: &str) {
        if !matches!(self.next(task), Some(Step::Examine(_))) {
            return;
        }
        let is_so_already = outcome == Ok(false);
        self.ended(CHECK, outcome.map(drop), time);
        if is_so_already {
            self.phase = TaskPhase::Successful;
            self.reason = ALREADY.to_owned();
        }
    }

    /// Somebody has confirmed it.
    pub(crate) fn confirmed(&mut self, task: &Task, time: &str) {
        if self.next(task) == Some(Step::AwaitConfirmation) {
            self.reason.clear();
            self.ended(CONFIRM, Ok(()), time);
        }
    }

    /// This journal is there before keadm begins.
    pub(crate) fn marked(&mut self, task: &Task, journal: String) {
        if self.next(task) == Some(Step::Mark) {
            self.upgrade.begun_after = Some(journal);
        }
    }

    /// The exchange has ended. keadm looks at things itself: its word on that takes the place of ours.
    pub(crate) fn exchanged(&mut self, task: &Task, end: UpgradeEnd) {
        if !matches!(self.next(task), Some(Step::Exchange(..))) {
            return;
        }
        for action in end.actions {
            match self.actions.iter_mut().find(|known| known.action == action.action) {
                Some(known) => *known = action,
                None => self.actions.push(action),
            }
        }
        (self.upgrade.from, self.upgrade.to) = (end.from_version, end.to_version);
        match end.outcome {
            Ok(()) => self.phase = TaskPhase::Successful,
            Err(why) => {
                self.phase = TaskPhase::Failure;
                self.reason = node_task::sentence(&why);
            }
        }
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
            from_version: self.upgrade.from.clone(),
            to_version: self.upgrade.to.clone(),
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
        progress.checked(&task, Ok(()), "t1");
        progress.checked(&task, Err("a second one".into()), "t2");
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
        progress.checked(&task, Ok(()), "t");
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
        progress.checked(&task, Err("disk: 93 percent are used".into()), "t");
        assert_eq!((progress.next(&task), progress.phase), (None, TaskPhase::Failure));
        assert_eq!(progress.reason, "disk: 93 percent are used");
        let progress = Progress::begun(&task, false);
        assert!(progress.reason.contains("modules.taskManager.enable"), "{}", progress.reason);
        assert_eq!((progress.next(&task), progress.phase), (None, TaskPhase::Failure));
    }

    fn upgrade(confirm: bool) -> Task {
        let key = ObjectKey::new(TaskKind::NodeUpgrade.resource(), "", "j");
        let spec = json!({"version": "v0.2.0", "image": "r/p", "requireConfirmation": confirm, "checkItems": ["mem"]});
        Task::read(&key, "u", json!({ "spec": spec }).to_string().as_bytes()).unwrap()
    }

    fn end(outcome: Result<(), String>, actions: &[(&str, bool)]) -> UpgradeEnd {
        let action = |(action, succeeded): &(&str, bool)| TaskAction {
            action: (*action).to_owned(),
            succeeded: *succeeded,
            reason: String::new(),
            time: "t9".to_owned(),
        };
        UpgradeEnd {
            outcome,
            actions: actions.iter().map(action).collect(),
            from_version: "0.1.0".into(),
            to_version: "0.2.0".into(),
        }
    }

    #[test]
    fn an_upgrade_is_fetched_confirmed_and_begun_once() {
        let task = upgrade(true);
        let mut progress = Progress::begun(&task, true);
        assert_eq!(progress.next(&task), Some(Step::Check(vec![CheckItem::Mem])));
        progress.confirmed(&task, "too early");
        progress.checked(&task, Ok(()), "t1");
        assert!(matches!(progress.next(&task), Some(Step::Fetch(_))) && progress.actions.is_empty());
        progress.fetched(&task, Ok("5a".to_owned()), "t2");
        assert_eq!(progress.next(&task), Some(Step::AwaitConfirmation));
        assert!(progress.reason.contains("keadm ctl confirm"));
        progress.confirmed(&task, "t3");
        assert_eq!((progress.next(&task), progress.reason.as_str()), (Some(Step::Mark), ""));
        progress.marked(&task, "before".to_owned());
        let Some(Step::Exchange(Order::Upgrade(_, sum), before)) = progress.next(&task) else { panic!() };
        assert_eq!(
            (sum.as_str(), before.as_str()),
            ("5a", "before"),
            "the package that was there is what is taken"
        );
        progress.marked(&task, "another".to_owned());
        let Some(Step::Exchange(_, before)) = progress.next(&task) else { panic!() };
        assert_eq!(before, "before", "it is begun once");
        progress.exchanged(&task, end(Ok(()), &[("Check", true), ("BackUp", true), ("Upgrade", true)]));
        let flow: Vec<&str> = progress.actions.iter().map(|one| one.action.as_str()).collect();
        assert_eq!(flow, ["Check", "WaitingConfirmation", "BackUp", "Upgrade"]);
        assert_eq!((progress.phase, progress.next(&task)), (TaskPhase::Successful, None));
        let report = progress.report(&task);
        assert_eq!((report.from_version.as_str(), report.to_version.as_str()), ("0.1.0", "0.2.0"));
    }

    fn update() -> Task {
        let key = ObjectKey::new(TaskKind::ConfigUpdate.resource(), "", "j");
        let spec = json!({"updateFields": {"modules.edgeHub.heartbeat": "20"}});
        Task::read(&key, "u", json!({ "spec": spec }).to_string().as_bytes()).unwrap()
    }

    #[test]
    fn a_job_that_says_something_else_ends_its_part_before_keadm_is_begun() {
        let key = ObjectKey::new(TaskKind::ConfigUpdate.resource(), "", "j");
        let changed =
            json!({"spec": {"updateFields": {"modules.edged.tailoredKubeletConfig.staticPodPath": "/x"}}});
        let (before, now) = (update(), Task::read(&key, "u", changed.to_string().as_bytes()).unwrap());
        let examined = || {
            let mut progress = Progress::begun(&before, true);
            progress.examined(&before, Ok(true), "t");
            progress
        };
        let mut marked = examined();
        marked.marked(&before, "before".to_owned());
        for progress in [Progress::begun(&before, true), examined(), marked.clone()] {
            assert_eq!(progress.clone().resumed(&before, true, false), progress);
            let ended = progress.resumed(&now, true, false);
            assert_eq!((ended.phase, ended.next(&now)), (TaskPhase::Failure, None));
            assert!(ended.reason.contains("says something else"), "{}", ended.reason);
        }
        assert_eq!(marked.clone().resumed(&now, true, true), marked, "how keadm ends is told");
        // A confirmation is no more of another release than a look at it.
        let (shown, now) = (upgrade(true), {
            let spec = json!({"version": "v0.3.0", "image": "r/p", "requireConfirmation": true, "checkItems": ["mem"]});
            let key = ObjectKey::new(TaskKind::NodeUpgrade.resource(), "", "j");
            Task::read(&key, "u", json!({ "spec": spec }).to_string().as_bytes()).unwrap()
        });
        let mut progress = Progress::begun(&shown, true);
        progress.checked(&shown, Ok(()), "t");
        progress.fetched(&shown, Ok(String::new()), "t");
        assert_eq!(progress.clone().resumed(&now, true, false).next(&now), None);
        progress.mark.clear();
        assert_eq!(
            progress.resumed(&now, true, false),
            Progress::begun(&now, true),
            "of a part that kept no mark nothing counts"
        );
    }

    #[test]
    fn other_settings_are_examined_and_written_once() {
        let task = update();
        let mut progress = Progress::begun(&task, true);
        let Some(Step::Examine(fields)) = progress.next(&task) else { panic!() };
        assert_eq!(fields.len(), 1);
        progress.checked(&task, Ok(()), "of another step");
        progress.marked(&task, "too early".to_owned());
        progress.examined(&task, Ok(true), "t1");
        assert_eq!((progress.next(&task), progress.is_exchanging()), (Some(Step::Mark), false));
        progress.examined(&task, Err("a second one".to_owned()), "t2");
        progress.marked(&task, "before".to_owned());
        assert_eq!(progress.next(&task), Some(Step::Exchange(Order::Configure(fields), "before".to_owned())));
        assert!(progress.is_exchanging());
        let mut back = progress.clone();
        let (from_version, to_version) = (String::new(), String::new());
        let end = UpgradeEnd {
            from_version,
            to_version,
            ..end(Ok(()), &[("Check", true), ("BackUp", true), ("Update", true)])
        };
        progress.exchanged(&task, end.clone());
        let flow: Vec<&str> = progress.actions.iter().map(|one| one.action.as_str()).collect();
        assert_eq!(flow, ["Check", "BackUp", "Update"]);
        assert_eq!((progress.phase, progress.report(&task).to_version.as_str()), (TaskPhase::Successful, ""));
        back.exchanged(&task, UpgradeEnd { outcome: Err("not linked in time".to_owned()), ..end });
        assert_eq!((back.phase, back.reason.as_str()), (TaskPhase::Failure, "not linked in time"));
    }

    #[test]
    fn settings_that_are_so_already_or_cannot_be_are_not_touched() {
        let task = update();
        let mut progress = Progress::begun(&task, true);
        progress.examined(&task, Ok(false), "t");
        assert_eq!((progress.phase, progress.next(&task)), (TaskPhase::Successful, None));
        assert!(progress.reason.contains("nothing was changed"));
        let mut progress = Progress::begun(&task, true);
        progress.examined(&task, Err("`modules.x` is no setting".to_owned()), "t");
        assert_eq!((progress.phase, progress.next(&task)), (TaskPhase::Failure, None));
        assert_eq!(
            (progress.actions[0].succeeded, progress.reason.as_str()),
            (false, "`modules.x` is no setting")
        );
    }

    #[test]
    fn that_a_part_waits_for_its_turn_is_said_until_it_begins_and_not_of_one_that_is_over() {
        let task = task(&["a:1"]);
        let mut progress = Progress::begun(&task, true);
        assert!(!progress.waits(false) && progress.waits(true) && !progress.waits(true), "said once");
        assert_eq!(
            (progress.phase, progress.report(&task).reason.as_str()),
            (TaskPhase::InProgress, WAITS_FOR_TURN)
        );
        assert!(progress.waits(false) && progress.reason.is_empty());
        progress.checked(&task, Ok(()), "t");
        progress.pulled(&task, image("a:1", true), "t");
        assert!(!progress.waits(true) && progress.reason.is_empty());
    }

    #[test]
    fn an_upgrade_that_goes_back_or_is_refused_is_a_failure_with_its_cause() {
        let task = upgrade(false);
        let begun = || {
            let mut progress = Progress::begun(&task, true);
            progress.checked(&task, Ok(()), "t");
            progress.fetched(&task, Ok(String::new()), "t");
            progress.marked(&task, String::new());
            progress
        };
        let mut progress = begun();
        let back = [("Check", true), ("BackUp", true), ("Upgrade", false), ("RollBack", true)];
        progress.exchanged(&task, end(Err("not linked in time".into()), &back));
        assert_eq!((progress.phase, progress.reason.as_str()), (TaskPhase::Failure, "not linked in time"));
        assert_eq!(progress.actions.len(), 4);
        let mut progress = begun();
        progress.exchanged(&task, end(Err("VersionSkew: …".into()), &[("Check", false)]));
        assert_eq!((progress.actions.len(), progress.actions[0].succeeded), (1, false));
        let mut progress = Progress::begun(&task, true);
        progress.checked(&task, Ok(()), "t");
        progress.fetched(&task, Err("no route".into()), "t");
        assert_eq!((progress.phase, progress.next(&task)), (TaskPhase::Failure, None));
    }
}
