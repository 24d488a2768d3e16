//! A node's part of a job (KubeEdge's NodeUpgradeJob, ImagePrePullJob and ConfigUpdateJob), and what the node says of it.
//!
//! A job goes down as an object of its own kind, without its status, to each node whose turn it is, and is taken away from the node when
//! that has ended. Beside the job's `spec` that object may have the Secret of its `imageSecrets` ([`SECRET_FIELD`]), so the rows of these
//! kinds are sealed on the node.

use thiserror::Error;

use crate::ids::{CONFIG_UPDATE_JOBS, IMAGE_PRE_PULL_JOBS, NODE_UPGRADE_JOBS};

/// Where the object that goes down has the Secret that registries are shown, as the API server has it.
pub const SECRET_FIELD: &str = "imageSecret";
/// 16 actions of one node: the longest flow has five.
pub const ACTIONS_MAX: usize = 16;
/// 32 images of one job.
pub const IMAGES_MAX: usize = 32;
/// 512 bytes of an image's name: longer ones are none.
pub const IMAGE_MAX: usize = 512;
/// 512 bytes of a sentence.
pub const REASON_MAX: usize = 512;
/// 64 bytes of an action's name, a time or a version.
pub const WORD_MAX: usize = 64;

/// Which kind of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TaskKind {
    /// A new release on the node.
    NodeUpgrade,
    /// Images that are pulled before they are needed.
    ImagePrePull,
    /// Settings of the node.
    ConfigUpdate,
}

impl TaskKind {
    /// All of them.
    pub const ALL: [TaskKind; 3] = [TaskKind::NodeUpgrade, TaskKind::ImagePrePull, TaskKind::ConfigUpdate];

    /// The kind of the job's object.
    pub fn word(self) -> &'static str {
        match self {
            TaskKind::NodeUpgrade => "NodeUpgradeJob",
            TaskKind::ImagePrePull => "ImagePrePullJob",
            TaskKind::ConfigUpdate => "ConfigUpdateJob",
        }
    }

    /// The kind that a word is for.
    pub fn of_word(word: &str) -> Option<Self> {
        TaskKind::ALL.into_iter().find(|kind| kind.word() == word)
    }

    /// The GroupResource of the jobs.
    pub fn resource(self) -> &'static str {
        match self {
            TaskKind::NodeUpgrade => NODE_UPGRADE_JOBS,
            TaskKind::ImagePrePull => IMAGE_PRE_PULL_JOBS,
            TaskKind::ConfigUpdate => CONFIG_UPDATE_JOBS,
        }
    }

    /// The kind whose jobs have this GroupResource.
    pub fn of_resource(resource: &str) -> Option<Self> {
        TaskKind::ALL.into_iter().find(|kind| kind.resource() == resource)
    }
}

/// How far a node is with its part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskPhase {
    /// It is at it.
    InProgress,
    /// All is done.
    Successful,
    /// It is not, and will not be.
    Failure,
}

impl TaskPhase {
    const ALL: [TaskPhase; 3] = [TaskPhase::InProgress, TaskPhase::Successful, TaskPhase::Failure];

    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            TaskPhase::InProgress => "InProgress",
            TaskPhase::Successful => "Successful",
            TaskPhase::Failure => "Failure",
        }
    }

    /// The phase that a word is for.
    pub fn of_word(word: &str) -> Option<Self> {
        TaskPhase::ALL.into_iter().find(|phase| phase.word() == word)
    }

    /// Whether nothing follows it.
    pub fn is_final(self) -> bool {
        self != TaskPhase::InProgress
    }
}

/// An action that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskAction {
    /// Check, Pull and the like.
    pub action: String,
    /// Whether it was done.
    pub succeeded: bool,
    /// Why not, at most [`REASON_MAX`].
    pub reason: String,
    /// RFC 3339, when it ended, by the node's clock.
    pub time: String,
}

/// What became of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskImage {
    /// The image, as the job names it.
    pub image: String,
    /// Whether it is on the node.
    pub succeeded: bool,
    /// Why not, at most [`REASON_MAX`].
    pub reason: String,
}

/// How far a node is with its part of a job, all of it: the newest counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskProgress {
    /// A word of [`TaskKind`].
    pub kind: String,
    /// The job's name.
    pub job: String,
    /// The job's uid: another job of its name is not meant.
    pub uid: String,
    /// A word of [`TaskPhase`].
    pub phase: String,
    /// Why, at most [`REASON_MAX`].
    pub reason: String,
    /// What has ended, in order, at most [`ACTIONS_MAX`].
    pub actions: Vec<TaskAction>,
    /// Of an ImagePrePullJob, at most [`IMAGES_MAX`].
    pub images: Vec<TaskImage>,
    /// Of a NodeUpgradeJob: the release before; empty: not known yet.
    pub from_version: String,
    /// Of a NodeUpgradeJob: the release that it is to have; empty: not known yet.
    pub to_version: String,
}

/// A sentence within [`REASON_MAX`], without what a terminal would obey.
pub fn sentence(text: &str) -> String {
    let mut text: String = text.chars().filter(|c| !c.is_control()).take(REASON_MAX).collect();
    while text.len() > REASON_MAX {
        text.pop();
    }
    text
}

/// Why something is no name of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("is no image: HOST/NAME:TAG or @sha256:…, of a-z A-Z 0-9 and . _ - / : @, at most 512")]
pub struct NoImage;

/// Whether a text can be the name of an image: what it says is for the runtime to judge.
///
/// # Errors
/// When it has anything in it that no such name has.
pub fn check_image(image: &str) -> Result<(), NoImage> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/:@".contains(&byte);
    let begins = image.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    if begins && image.len() <= IMAGE_MAX && image.bytes().all(fits) { Ok(()) } else { Err(NoImage) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_back() {
        for kind in TaskKind::ALL {
            assert_eq!(TaskKind::of_word(kind.word()), Some(kind));
            assert_eq!(TaskKind::of_resource(kind.resource()), Some(kind));
        }
        for phase in TaskPhase::ALL {
            assert_eq!(TaskPhase::of_word(phase.word()), Some(phase));
        }
        assert_eq!((TaskKind::of_word("Job"), TaskKind::of_resource("pods")), (None, None));
        assert_eq!(TaskPhase::of_word("Unknown"), None, "that is the cloud's word");
    }

    #[test]
    fn names_of_images_reach_no_shell_and_no_flag() {
        let digest = format!("r.example:5000/a/b@sha256:{}", "0".repeat(64));
        for image in ["a", "nginx:1.27", "registry.example/team/app:v1.0_x", digest.as_str()] {
            assert_eq!(check_image(image), Ok(()), "{image}");
        }
        let long = "a".repeat(IMAGE_MAX + 1);
        for none in ["", "-a", "--output=/etc/passwd", "a b", "a;reboot", "$(id)", "a\n", "`a`", "ä", &long]
        {
            assert_eq!(check_image(none), Err(NoImage), "{none}");
        }
    }

    #[test]
    fn a_sentence_is_bounded_in_bytes() {
        assert_eq!(sentence("a\u{1b}[31mb\n"), "a[31mb");
        assert!(sentence(&"é".repeat(1000)).len() <= REASON_MAX);
    }
}
