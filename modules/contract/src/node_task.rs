//! A node's part of a job (KubeEdge's NodeUpgradeJob, ImagePrePullJob and ConfigUpdateJob), and what the node says of it.
//!
//! A job goes down as an object of its own kind, without its status, to each node whose turn it is, and is taken away from the node when
//! that has ended. Beside the job's `spec` that object may have the Secret of its `imageSecrets` ([`SECRET_FIELD`]), so the rows of these
//! kinds are sealed on the node.

use std::collections::BTreeMap;

use serde_json::Value;
use thiserror::Error;

use crate::content_hash;
use crate::ids::{CONFIG_UPDATE_JOBS, IMAGE_PRE_PULL_JOBS, NODE_UPGRADE_JOBS};

/// Where the object that goes down has the Secret that registries are shown, as the API server has it.
pub const SECRET_FIELD: &str = "imageSecret";
/// 16 actions of one node: the longest flow has five.
pub const ACTIONS_MAX: usize = 16;
/// 32 images of one job.
pub const IMAGES_MAX: usize = 32;
/// 512 bytes of an image's name: longer ones are none.
pub const IMAGE_MAX: usize = 512;
/// 10: how often a pull is tried again at the most.
pub const RETRIES_MAX: i32 = 10;
/// KubeEdge's: how long an action may take, in seconds, where the job does not say.
pub const TIMEOUT_SECONDS: u16 = 300;
/// 64 values of one ConfigUpdateJob.
pub const FIELDS_MAX: usize = 64;
/// 256 bytes of the key of a value.
pub const FIELD_KEY_MAX: usize = 256;
/// 4 KiB of a value.
pub const FIELD_VALUE_MAX: usize = 4 << 10;
/// 512 bytes of a sentence.
pub const REASON_MAX: usize = 512;
/// What a node says of a part while other parts have the place of its next step. Nothing of it fails by that: the time of what waits does not
/// run, and begins when the node says it no more.
pub const WAITS_FOR_TURN: &str = "waits for its turn on the node, behind other jobs";
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

/// What of a job's `spec` is the cloud's alone: on which nodes, how many at once, and how many may fail.
const OF_THE_CLOUD: [&str; 4] = ["nodeNames", "labelSelector", "concurrency", "failureTolerate"];

/// A mark of all that a node acts upon in a job: its `spec` but for what is the cloud's. What a node has looked at, and what somebody there has
/// confirmed, is this and nothing else. It is kept over restarts and releases: neither defaults nor what this release knows of a field have a
/// part in it, nor has the Secret of registries, which may be a newer one.
pub fn acted_upon(kind: TaskKind, job: &Value) -> String {
    let mut spec = job.get("spec").cloned().unwrap_or_default();
    let fields = match kind {
        TaskKind::ImagePrePull => spec.get_mut("imagePrePullTemplate"),
        TaskKind::NodeUpgrade | TaskKind::ConfigUpdate => Some(&mut spec),
    };
    if let Some(Value::Object(fields)) = fields {
        fields.retain(|name, _| !OF_THE_CLOUD.contains(&name.as_str()));
    }
    content_hash(&spec)
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

/// Whether these can be values of `edgecore.yaml` by their keys: what they say, and whether a job may say it, is for the node to judge.
///
/// # Errors
/// A sentence, which names the key and what it has to be.
pub fn check_fields(fields: &BTreeMap<String, String>) -> Result<(), String> {
    if fields.is_empty() || fields.len() > FIELDS_MAX {
        return Err(format!("updateFields has {}; write 1 to {FIELDS_MAX}", fields.len()));
    }
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/\\".contains(&byte);
    for (key, value) in fields {
        let shown: String = key.chars().take(64).flat_map(char::escape_default).collect();
        let begins = key.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic());
        if !begins || key.len() > FIELD_KEY_MAX || !key.bytes().all(fits) {
            return Err(format!(
                "updateFields: `{shown}` is no key such as modules.edgeHub.heartbeat, of at most {FIELD_KEY_MAX} bytes"
            ));
        }
        if value.len() > FIELD_VALUE_MAX {
            let bytes = value.len();
            return Err(format!("updateFields: `{shown}` has {bytes} bytes, and may have {FIELD_VALUE_MAX}"));
        }
        if value.contains(char::is_control) {
            return Err(format!("updateFields: `{shown}` has a line break or another control character"));
        }
    }
    Ok(())
}

/// 64 bytes of a version.
const VERSION_MAX: usize = 64;
/// KubeEdge's repository, where its own programs are.
const OF_KUBEEDGE: &str = "kubeedge/installation-package";

/// A release and the image that holds it, as a NodeUpgradeJob names them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// The image without its tag.
    pub repository: String,
    /// Its tag: the version as it is written.
    pub tag: String,
    /// `sha256:…` for amd64 and arm64; empty: whatever the tag leads to.
    digests: [String; 2],
}

impl Release {
    /// Reads one; `digests` are those for amd64 and arm64, empty where there is none.
    ///
    /// # Errors
    /// A sentence, which names the field and what it has to be.
    pub fn read(version: &str, image: &str, digests: [&str; 2]) -> Result<Release, String> {
        if !is_version(version) {
            return Err("version is no release such as v0.2.0".to_owned());
        }
        if image.is_empty() || image == OF_KUBEEDGE {
            return Err(format!(
                "image: write the installation package of `cargo dist`, REGISTRY/installation-package; {OF_KUBEEDGE} holds KubeEdge's programs"
            ));
        }
        let has_tag = image.rsplit('/').next().is_some_and(|name| name.contains([':', '@']));
        if has_tag || check_image(image).is_err() {
            return Err("image is no REGISTRY/NAME without a tag: the tag is the version".to_owned());
        }
        let is_digest = |digest: &str| {
            let digits = digest.strip_prefix("sha256:").unwrap_or_default();
            digits.len() == 64
                && digits.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
        };
        if !digests.iter().all(|digest| digest.is_empty() || is_digest(digest)) {
            return Err("imageDigestGatter: amd64 and arm64 are sha256: and 64 digits".to_owned());
        }
        let digests = digests.map(str::to_owned);
        Ok(Release { repository: image.to_owned(), tag: version.to_owned(), digests })
    }

    /// The version without its v.
    pub fn version(&self) -> &str {
        self.tag.strip_prefix('v').unwrap_or(&self.tag)
    }

    /// The digest for an architecture, in Rust's word for it; `None`: none is asked for.
    ///
    /// # Errors
    /// When there are digests, and none for this one.
    pub fn digest(&self, architecture: &str) -> Result<Option<&str>, String> {
        let [amd64, arm64] = &self.digests;
        let digest = match architecture {
            "x86_64" => amd64.as_str(),
            "aarch64" => arm64.as_str(),
            _ => "",
        };
        match (digest, amd64.is_empty() && arm64.is_empty()) {
            ("", true) => Ok(None),
            ("", false) => Err(format!("imageDigestGatter has no digest for this node ({architecture})")),
            (digest, _) => Ok(Some(digest)),
        }
    }
}

/// `v1.2.3`, `1.2.3-rc.1`: what can be a tag as well.
fn is_version(text: &str) -> bool {
    let plain = text.strip_prefix('v').unwrap_or(text);
    let (numbers, rest) = plain.split_once('-').unwrap_or((plain, "0"));
    let is_number =
        |part: &str| (1..=9).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
    text.len() <= VERSION_MAX
        && numbers.split('.').count() == 3
        && numbers.split('.').all(is_number)
        && !rest.is_empty()
        && rest.bytes().all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_release_is_a_version_and_an_image_and_nothing_else() {
        let image = "r.example:5000/installation-package";
        let digest = format!("sha256:{}", "0a".repeat(32));
        let release = Release::read("v0.2.0-rc.1", image, [&digest, ""]).unwrap();
        assert_eq!((release.version(), release.tag.as_str()), ("0.2.0-rc.1", "v0.2.0-rc.1"));
        assert_eq!(release.digest("x86_64"), Ok(Some(digest.as_str())));
        assert!(release.digest("aarch64").is_err() && release.digest("riscv64").is_err());
        assert_eq!(Release::read("0.2.0", image, ["", ""]).unwrap().digest("aarch64"), Ok(None));
        let long = format!("1.2.3-{}", "a".repeat(64));
        for version in [
            "",
            "v",
            "1.2",
            "1.2.3.4",
            "1.2.x",
            "v1.2.3;reboot",
            "$(id)",
            "1.2.3-",
            "1.2.3+a",
            "--help",
            &long,
        ] {
            assert!(Release::read(version, image, ["", ""]).is_err(), "{version}");
        }
        for image in ["", OF_KUBEEDGE, "a:1", "a@sha256:0", "-a", "a b", "$(id)", "a\nb"] {
            assert!(Release::read("1.2.3", image, ["", ""]).is_err(), "{image}");
        }
        for digest in ["sha256:0", "md5:0", &digest.to_uppercase()] {
            assert!(Release::read("1.2.3", image, [digest, ""]).is_err(), "{digest}");
        }
    }

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
    fn the_mark_of_a_job_moves_with_what_a_node_acts_upon_alone() {
        let of = |spec: Value| acted_upon(TaskKind::NodeUpgrade, &json!({ "spec": spec }));
        let before = of(json!({"version": "v0.2.0", "image": "r/p", "nodeNames": ["a"]}));
        assert_eq!(before, "3b6951d2be597878d0cbccb737153472", "it is kept by releases before this one");
        assert_eq!(before, of(json!({"image": "r/p", "version": "v0.2.0", "concurrency": 9})));
        for other in [
            json!({"version": "v0.3.0", "image": "r/p"}),
            json!({"version": "v0.2.0", "image": "r/q"}),
            json!({"version": "v0.2.0", "image": "r/p", "requireConfirmation": false}),
            json!({"version": "v0.2.0", "image": "r/p", "imageDigestGatter": {"amd64": "sha256:0"}}),
            json!({"version": "v0.2.0", "image": "r/p", "timeoutSeconds": 1}),
            json!(null),
        ] {
            assert_ne!(before, of(other.clone()), "{other}");
        }
        let pull = |template: Value, secret: &str| {
            let job = json!({"spec": {"imagePrePullTemplate": template}, SECRET_FIELD: secret});
            acted_upon(TaskKind::ImagePrePull, &job)
        };
        assert_eq!(
            pull(json!({"images": ["a"], "nodeNames": ["n"]}), "s"),
            pull(json!({"images": ["a"]}), "newer")
        );
        assert_ne!(pull(json!({"images": ["a"]}), "s"), pull(json!({"images": ["b"]}), "s"));
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
    fn values_of_settings_are_bounded_and_one_line_each() {
        let check = |key: &str, value: &str| check_fields(&[(key.to_owned(), value.to_owned())].into());
        for (key, value) in [
            ("modules.edgeHub.heartbeat", "20"),
            ("modules.edged.tailoredKubeletConfig.evictionHard.memory\\.available", "5%"),
            ("a", ""),
            ("a", "é; $(reboot) `id` \"&*!|>"),
        ] {
            assert_eq!(check(key, value), Ok(()), "{key}");
        }
        let (long_key, long_value) = ("a".repeat(FIELD_KEY_MAX + 1), "a".repeat(FIELD_VALUE_MAX + 1));
        for (key, value, said) in [
            ("", "1", "is no key"),
            ("--config", "1", "is no key"),
            ("a b", "1", "is no key"),
            ("a=b", "1", "is no key"),
            ("a: {b", "1", "is no key"),
            ("a\nb", "1", "`a\\nb` is no key"),
            (&long_key, "1", "is no key"),
            ("a", "1\nkind: CloudCore", "`a` has a line break"),
            ("a", "\0", "control character"),
            ("a", "\u{85}", "control character"),
            ("a", &long_value, "may have 4096"),
        ] {
            let why = check(key, value).unwrap_err();
            assert!(why.contains(said) && !why.contains(char::is_control), "{why}");
        }
        let many = (0..=FIELDS_MAX).map(|n| (format!("a{n}"), String::new())).collect();
        assert!(check_fields(&many).is_err() && check_fields(&BTreeMap::new()).is_err());
    }

    #[test]
    fn a_sentence_is_bounded_in_bytes() {
        assert_eq!(sentence("a\u{1b}[31mb\n"), "a[31mb");
        assert!(sentence(&"é".repeat(1000)).len() <= REASON_MAX);
    }
}
