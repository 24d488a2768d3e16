//! A part of a job as its object on the node says it. Pure; what makes no sense ends the part with a sentence.

use std::time::Duration;

use contract::ObjectKey;
use contract::node_task::{self, IMAGES_MAX, SECRET_FIELD, TaskKind};
use serde::Deserialize;
use serde_json::Value;

/// 10: how often a pull is tried again.
const RETRIES_MAX: i32 = 10;
/// KubeEdge's: how long an action may take, in seconds, where the job does not say.
const TIMEOUT_SECONDS: u64 = 300;

/// What may be looked at on the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum CheckItem {
    /// Its processors.
    Cpu,
    /// Its memory.
    Mem,
    /// The disk that `/` is on.
    Disk,
}

impl CheckItem {
    fn of_word(word: &str) -> Option<Self> {
        match word {
            "cpu" => Some(CheckItem::Cpu),
            "mem" => Some(CheckItem::Mem),
            "disk" => Some(CheckItem::Disk),
            _ => None,
        }
    }
}

/// What is to be done.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Pulls {
    /// In this order.
    pub(crate) images: Vec<String>,
    /// The Secret that registries are shown, as JSON.
    pub(crate) secret: Option<String>,
    /// How often a pull is tried again.
    pub(crate) retries: u32,
    /// What is looked at first.
    pub(crate) checks: Vec<CheckItem>,
    /// How long each action may take.
    pub(crate) timeout: Duration,
}

/// A part of a job.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Task {
    pub(crate) kind: TaskKind,
    pub(crate) job: String,
    pub(crate) uid: String,
    /// `Err`: a sentence why it makes no sense.
    pub(crate) work: Result<Pulls, String>,
}

impl Task {
    /// Reads one; `None` where it is no object of a job.
    pub(crate) fn read(key: &ObjectKey, uid: &str, json: &[u8]) -> Option<Task> {
        let kind = TaskKind::of_resource(&key.resource)?;
        let work = serde_json::from_slice(json)
            .map_err(|error| node_task::sentence(&format!("the job is no JSON: {error}")))
            .and_then(|object: Value| match kind {
                TaskKind::ImagePrePull => image_pre_pull(&object),
                TaskKind::NodeUpgrade | TaskKind::ConfigUpdate => {
                    Err(format!("this edgecore does no {}", kind.word()))
                }
            });
        Some(Task { kind, job: key.name.clone(), uid: uid.to_owned(), work })
    }
}

fn image_pre_pull(object: &Value) -> Result<Pulls, String> {
    let spec = object.get("spec").ok_or("the job has no spec")?;
    let spec = crd::ImagePrePullJobSpec::deserialize(spec)
        .map_err(|error| node_task::sentence(&format!("spec: {error}")))?;
    let template = spec.image_pre_pull_template;
    if template.images.is_empty() || template.images.len() > IMAGES_MAX {
        return Err(format!("images has {}; 1 to {IMAGES_MAX} are pulled", template.images.len()));
    }
    // The cloud has looked at them, and is not the only one who may have written here.
    for image in &template.images {
        let shown: String = image.chars().take(64).flat_map(char::escape_default).collect();
        node_task::check_image(image).map_err(|error| format!("images: `{shown}` {error}"))?;
    }
    let item =
        |word: &String| CheckItem::of_word(word).ok_or("checkItems: only cpu, mem and disk are looked at");
    let mut checks: Vec<CheckItem> = template.check_items.iter().map(item).collect::<Result<_, _>>()?;
    if checks.is_empty() {
        checks.push(CheckItem::Disk);
    }
    checks.sort_unstable();
    checks.dedup();
    let seconds = template.timeout_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    let seconds = seconds.filter(|seconds| *seconds > 0).unwrap_or(TIMEOUT_SECONDS);
    Ok(Pulls {
        images: template.images,
        secret: object.get(SECRET_FIELD).map(Value::to_string),
        retries: template.retry_times.unwrap_or(0).clamp(0, RETRIES_MAX).unsigned_abs(),
        checks,
        timeout: Duration::from_secs(seconds),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(template: Value) -> Result<Pulls, String> {
        let key = ObjectKey::new(TaskKind::ImagePrePull.resource(), "", "j");
        let object = json!({"spec": {"imagePrePullTemplate": template}, "imageSecret": {"type": "t"}});
        Task::read(&key, "u", object.to_string().as_bytes()).unwrap().work
    }

    #[test]
    fn a_part_is_read_with_kubeedges_defaults() {
        let pulls = read(json!({"images": ["a", "b:1"]})).unwrap();
        assert_eq!((pulls.checks, pulls.timeout), (vec![CheckItem::Disk], Duration::from_secs(300)));
        assert_eq!((pulls.images.len(), pulls.retries), (2, 0));
        assert_eq!(pulls.secret.as_deref(), Some(r#"{"type":"t"}"#));
        let pulls =
            read(json!({"images": ["a"], "checkItems": ["mem", "cpu", "mem"], "retryTimes": 99})).unwrap();
        assert_eq!((pulls.checks, pulls.retries), (vec![CheckItem::Cpu, CheckItem::Mem], 10));
    }

    #[test]
    fn what_makes_no_sense_is_refused_here_as_well() {
        for (template, said) in [
            (json!({"images": []}), "1 to 32 are pulled"),
            (json!({"images": ["$(reboot)"]}), "is no image"),
            (json!({"images": ["--help"]}), "is no image"),
            (json!({"images": ["a"], "checkItems": ["gpu"]}), "only cpu, mem and disk"),
            (json!({"images": 1}), "spec: "),
        ] {
            let why = read(template).err().unwrap();
            assert!(why.contains(said), "{why}");
        }
        let key = ObjectKey::new(TaskKind::ImagePrePull.resource(), "", "j");
        assert!(Task::read(&key, "u", b"{").unwrap().work.is_err());
        assert!(Task::read(&ObjectKey::new("pods", "d", "p"), "u", b"{}").is_none());
    }
}
