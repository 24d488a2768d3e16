//! A part of a job as its object on the node says it. Pure; what makes no sense ends the part with a sentence.

use std::collections::BTreeMap;
use std::time::Duration;

use contract::ObjectKey;
use contract::node_task::{self, IMAGES_MAX, RETRIES_MAX, Release, SECRET_FIELD, TIMEOUT_SECONDS, TaskKind};
use serde::de::DeserializeOwned;
use serde_json::Value;

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
pub(crate) struct Work {
    /// What is looked at first.
    pub(crate) checks: Vec<CheckItem>,
    /// How long each action may take.
    pub(crate) timeout: Duration,
    /// And then.
    pub(crate) then: Then,
}

/// What is done once the machine was looked at.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Then {
    /// Images are pulled.
    Pull(Pulls),
    /// edgecore is exchanged.
    Upgrade(Upgrade),
    /// These values of its settings, by their keys.
    Configure(BTreeMap<String, String>),
}

/// Images that are pulled.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Pulls {
    /// In this order.
    pub(crate) images: Vec<String>,
    /// The Secret that registries are shown, as JSON.
    pub(crate) secret: Option<String>,
    /// How often a pull is tried again.
    pub(crate) retries: u32,
}

/// A release that edgecore is exchanged for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Upgrade {
    /// The installation package, as it is pulled.
    pub(crate) image: String,
    /// The digest that it has to have.
    pub(crate) digest: Option<String>,
    /// The version that it has to be.
    pub(crate) version: String,
    /// Whether somebody on the node has to confirm it.
    pub(crate) confirm: bool,
}

/// A part of a job.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Task {
    pub(crate) kind: TaskKind,
    pub(crate) job: String,
    pub(crate) uid: String,
    /// What all that is acted upon comes to ([`node_task::acted_upon`]).
    pub(crate) mark: String,
    /// `Err`: a sentence why it makes no sense.
    pub(crate) work: Result<Work, String>,
}

impl Task {
    /// Reads one; `None` where it is no object of a job.
    pub(crate) fn read(key: &ObjectKey, uid: &str, json: &[u8]) -> Option<Task> {
        let kind = TaskKind::of_resource(&key.resource)?;
        let object: Result<Value, _> = serde_json::from_slice(json);
        let mark = node_task::acted_upon(kind, object.as_ref().unwrap_or(&Value::Null));
        let work = object
            .map_err(|error| node_task::sentence(&format!("the job is no JSON: {error}")))
            .and_then(|object| match kind {
                TaskKind::ImagePrePull => image_pre_pull(&object),
                TaskKind::NodeUpgrade => node_upgrade(&object),
                TaskKind::ConfigUpdate => config_update(&object),
            });
        Some(Task { kind, job: key.name.clone(), uid: uid.to_owned(), mark, work })
    }
}

fn checks(words: &[String], of_none: &[CheckItem]) -> Result<Vec<CheckItem>, String> {
    let item =
        |word: &String| CheckItem::of_word(word).ok_or("checkItems: only cpu, mem and disk are looked at");
    let mut checks: Vec<CheckItem> = words.iter().map(item).collect::<Result<_, _>>()?;
    if checks.is_empty() {
        checks.extend(of_none);
    }
    checks.sort_unstable();
    checks.dedup();
    Ok(checks)
}

fn timeout(seconds: Option<i32>) -> Duration {
    let seconds = seconds.and_then(|seconds| u64::try_from(seconds).ok());
    Duration::from_secs(seconds.filter(|seconds| *seconds > 0).unwrap_or(u64::from(TIMEOUT_SECONDS)))
}

fn spec<T: DeserializeOwned>(object: &Value) -> Result<T, String> {
    let spec = object.get("spec").ok_or("the job has no spec")?;
    T::deserialize(spec).map_err(|error| node_task::sentence(&format!("spec: {error}")))
}

fn image_pre_pull(object: &Value) -> Result<Work, String> {
    let template = spec::<crd::ImagePrePullJobSpec>(object)?.image_pre_pull_template;
    if template.images.is_empty() || template.images.len() > IMAGES_MAX {
        return Err(format!("images has {}; 1 to {IMAGES_MAX} are pulled", template.images.len()));
    }
    // The cloud has looked at them, and is not the only one who may have written here.
    for image in &template.images {
        let shown: String = image.chars().take(64).flat_map(char::escape_default).collect();
        node_task::check_image(image).map_err(|error| format!("images: `{shown}` {error}"))?;
    }
    let pulls = Pulls {
        images: template.images,
        secret: object.get(SECRET_FIELD).map(Value::to_string),
        retries: template.retry_times.unwrap_or(0).clamp(0, RETRIES_MAX).unsigned_abs(),
    };
    let checks = checks(&template.check_items, &[CheckItem::Disk])?;
    Ok(Work { checks, timeout: timeout(template.job.timeout_seconds), then: Then::Pull(pulls) })
}

fn node_upgrade(object: &Value) -> Result<Work, String> {
    let spec: crd::NodeUpgradeJobSpec = spec(object)?;
    let digests = spec.image_digest_gatter.unwrap_or_default();
    let release = Release::read(&spec.version, &spec.image, [&digests.amd64, &digests.arm64])?;
    let digest = release.digest(std::env::consts::ARCH)?.map(str::to_owned);
    let upgrade = Upgrade {
        image: match &digest {
            Some(digest) => format!("{}@{digest}", release.repository),
            None => format!("{}:{}", release.repository, release.tag),
        },
        digest,
        version: release.version().to_owned(),
        confirm: spec.require_confirmation,
    };
    let checks = checks(&spec.check_items, &[])?;
    Ok(Work { checks, timeout: timeout(spec.job.timeout_seconds), then: Then::Upgrade(upgrade) })
}

fn config_update(object: &Value) -> Result<Work, String> {
    let spec: crd::ConfigUpdateJobSpec = spec(object)?;
    // The cloud has looked at them, and is not the only one who may have written here.
    node_task::check_fields(&spec.update_fields)?;
    let timeout = timeout(spec.job.timeout_seconds);
    Ok(Work { checks: Vec::new(), timeout, then: Then::Configure(spec.update_fields) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(template: Value) -> Result<Work, String> {
        let key = ObjectKey::new(TaskKind::ImagePrePull.resource(), "", "j");
        let object = json!({"spec": {"imagePrePullTemplate": template}, "imageSecret": {"type": "t"}});
        Task::read(&key, "u", object.to_string().as_bytes()).unwrap().work
    }

    #[test]
    fn a_part_is_read_with_kubeedges_defaults() {
        let work = read(json!({"images": ["a", "b:1"]})).unwrap();
        assert_eq!((work.checks, work.timeout), (vec![CheckItem::Disk], Duration::from_secs(300)));
        let Then::Pull(pulls) = work.then else { panic!() };
        assert_eq!((pulls.images.len(), pulls.retries), (2, 0));
        assert_eq!(pulls.secret.as_deref(), Some(r#"{"type":"t"}"#));
        let work =
            read(json!({"images": ["a"], "checkItems": ["mem", "cpu", "mem"], "retryTimes": 99})).unwrap();
        let Then::Pull(pulls) = work.then else { panic!() };
        assert_eq!((work.checks, pulls.retries), (vec![CheckItem::Cpu, CheckItem::Mem], 10));
    }

    #[test]
    fn an_upgrade_is_pulled_by_its_digest_where_there_is_one() {
        let key = ObjectKey::new(TaskKind::NodeUpgrade.resource(), "", "j");
        let read = |spec: Value| {
            let object = json!({ "spec": spec });
            let work = Task::read(&key, "u", object.to_string().as_bytes()).unwrap().work?;
            let Then::Upgrade(upgrade) = work.then else { panic!() };
            Ok::<_, String>(upgrade)
        };
        let image = "r.example:5000/installation-package";
        let plain = read(json!({"version": "v0.2.0", "image": image, "requireConfirmation": true})).unwrap();
        assert_eq!(
            plain,
            Upgrade {
                image: format!("{image}:v0.2.0"),
                digest: None,
                version: "0.2.0".into(),
                confirm: true
            }
        );
        let digest = format!("sha256:{}", "a".repeat(64));
        let digests = json!({"amd64": digest, "arm64": digest});
        let upgrade =
            read(json!({"version": "0.2.0", "image": image, "imageDigestGatter": digests})).unwrap();
        assert_eq!((upgrade.image, upgrade.digest), (format!("{image}@{digest}"), Some(digest)));
        for spec in [
            json!({"version": "$(reboot)", "image": image}),
            json!({"version": "v0.2.0", "image": "a b"}),
            json!({"version": "v0.2.0", "image": image, "imageDigestGatter": {"amd64": "sha256:x", "arm64": "y"}}),
        ] {
            assert!(read(spec.clone()).is_err(), "{spec}");
        }
    }

    #[test]
    fn values_of_settings_are_one_line_each() {
        let key = ObjectKey::new(TaskKind::ConfigUpdate.resource(), "", "j");
        let read = |fields: Value| {
            let object = json!({"spec": {"updateFields": fields, "timeoutSeconds": 60}});
            Task::read(&key, "u", object.to_string().as_bytes()).unwrap().work
        };
        let work = read(json!({"modules.edgeHub.heartbeat": "20"})).unwrap();
        assert_eq!(work.timeout, Duration::from_secs(60));
        let Then::Configure(fields) = work.then else { panic!() };
        assert_eq!(fields, [("modules.edgeHub.heartbeat".to_owned(), "20".to_owned())].into());
        for fields in
            [json!({}), json!({"--config": "/x"}), json!({"a": "1\nb: 2"}), json!({"a": 1}), json!(null)]
        {
            assert!(read(fields.clone()).is_err(), "{fields}");
        }
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
