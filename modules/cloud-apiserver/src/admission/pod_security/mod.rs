//! The Pod Security Standards as Kubernetes 1.36 has them: what the labels `pod-security.kubernetes.io/…` of a namespace
//! ask for, and what a pod does against it.
//!
//! Pure. Levels, checks, their versions and their words are those of `k8s.io/pod-security-admission`. There is no audit
//! log here, so that the `audit` labels are checked and have no other effect.

mod baseline;
mod plugin;
mod restricted;
#[cfg(test)]
mod tests;

pub(super) use plugin::{validate_namespace, validate_pod, warn_of_template};

use kubeapi::FieldError;
use kubeapi::unstructured::text;
use serde_json::{Map, Value, json};

/// The newest policy that is known: a later one is taken for it, and `latest` means it.
const NEWEST: u32 = 36;
const PREFIX: &str = "pod-security.kubernetes.io/";

/// How strict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Privileged,
    Baseline,
    Restricted,
}

/// Of which minor release of Kubernetes 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    Latest,
    Minor(u32),
}

/// A level as of a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Standard {
    level: Level,
    version: Version,
}

impl Standard {
    const NONE: Standard = Standard { level: Level::Privileged, version: Version::Latest };
}

impl std::fmt::Display for Standard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let level = match self.level {
            Level::Privileged => "privileged",
            Level::Baseline => "baseline",
            Level::Restricted => "restricted",
        };
        match self.version {
            Version::Latest => write!(f, "{level}:latest"),
            Version::Minor(minor) => write!(f, "{level}:v1.{minor}"),
        }
    }
}

/// What a namespace asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Policy {
    /// What pods are refused for.
    enforce: Standard,
    /// What a user is warned of.
    warn: Standard,
}

/// The policy of a namespace, and what is wrong with its labels. A wrong level to enforce counts as the strictest.
fn policy(namespace: &Value) -> (Policy, Vec<FieldError>) {
    let mut labels = Labels { of: namespace.pointer("/metadata/labels"), causes: Vec::new() };
    let mut policy = Policy { enforce: Standard::NONE, warn: Standard::NONE };
    let enforce = labels.level("enforce");
    policy.enforce.level = enforce.map_or(Level::Privileged, |level| level.unwrap_or(Level::Restricted));
    policy.enforce.version = labels.version("enforce").unwrap_or(Version::Latest);
    let (_, _) = (labels.level("audit"), labels.version("audit"));
    let (warn, version) = (labels.level("warn"), labels.version("warn"));
    policy.warn.level = warn.and_then(Result::ok).unwrap_or(Level::Privileged);
    policy.warn.version = version.unwrap_or(Version::Latest);
    // Who enforces without a word about warnings is warned of the same, also for what makes pods.
    if let (None, Some(Ok(level @ (Level::Baseline | Level::Restricted)))) = (warn, enforce) {
        policy.warn.level = level;
        if version.is_none() {
            policy.warn.version = policy.enforce.version;
        }
    }
    (policy, labels.causes)
}

struct Labels<'a> {
    of: Option<&'a Value>,
    causes: Vec<FieldError>,
}

impl Labels<'_> {
    fn value(&self, label: &str) -> Option<String> {
        self.of?.get(format!("{PREFIX}{label}"))?.as_str().map(str::to_owned)
    }

    fn level(&mut self, mode: &str) -> Option<Result<Level, ()>> {
        let value = self.value(mode)?;
        Some(match value.as_str() {
            "privileged" => Ok(Level::Privileged),
            "baseline" => Ok(Level::Baseline),
            "restricted" => Ok(Level::Restricted),
            _ => {
                self.wrong(mode, &value, "must be one of privileged, baseline, restricted");
                Err(())
            }
        })
    }

    fn version(&mut self, mode: &str) -> Option<Version> {
        let label = format!("{mode}-version");
        let value = self.value(&label)?;
        let digits = value.strip_prefix("v1.");
        let digits = digits.filter(|digits| digits.len() == 1 || !digits.starts_with('0'));
        let digits = digits.filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
        let minor = digits.and_then(|digits| digits.parse().ok());
        Some(match (value.as_str(), minor) {
            ("latest", _) => Version::Latest,
            (_, Some(minor)) => Version::Minor(minor),
            (_, None) => {
                self.wrong(&label, &value, "must be \"latest\" or \"v1.x\"");
                Version::Latest
            }
        })
    }

    fn wrong(&mut self, label: &str, value: &str, what: &str) {
        let field = format!("metadata.labels[{PREFIX}{label}]");
        self.causes.push(FieldError::invalid(field, &json!(value), what));
    }
}

/// A pod, or a template of pods.
#[derive(Clone, Copy)]
struct Subject<'a> {
    metadata: &'a Value,
    spec: &'a Value,
}

/// What a check has against a pod.
struct Violation {
    reason: String,
    detail: String,
}

impl Violation {
    fn new(reason: impl Into<String>, detail: impl Into<String>) -> Option<Violation> {
        Some(Violation { reason: reason.into(), detail: detail.into() })
    }
}

/// Everything that `standard` has against a pod, in its order.
fn violations(standard: Standard, pod: Subject<'_>) -> Vec<Violation> {
    let minor = match standard.version {
        Version::Latest => NEWEST,
        Version::Minor(minor) => minor.min(NEWEST),
    };
    match standard.level {
        Level::Privileged => Vec::new(),
        Level::Baseline => baseline::violations(pod, minor, &[]),
        Level::Restricted => {
            let mut found = baseline::violations(pod, minor, &restricted::overrides(minor));
            found.extend(restricted::violations(pod, minor));
            found
        }
    }
}

/// The reasons with their details in parentheses, as an API server tells them.
fn detailed(violations: &[Violation]) -> String {
    let told = violations.iter().map(|violation| match violation.detail.as_str() {
        "" => violation.reason.clone(),
        detail => format!("{} ({detail})", violation.reason),
    });
    told.collect::<Vec<_>>().join(", ")
}

/// Whether an update of a pod changes what is checked: its containers or their images. The rest of a spec is fixed.
fn is_significant(old: &Value, new: &Value) -> bool {
    let images = |pod: &Value| -> Vec<(String, String)> {
        let subject = Subject { metadata: &pod["metadata"], spec: &pod["spec"] };
        let of =
            |container: &Value| (text(container, "/name").to_owned(), text(container, "/image").to_owned());
        subject.containers().map(of).collect()
    };
    images(old) != images(new)
}

impl<'a> Subject<'a> {
    /// Init containers, containers and ephemeral ones.
    fn containers(self) -> impl Iterator<Item = &'a Value> {
        let fields = ["initContainers", "containers", "ephemeralContainers"];
        fields.into_iter().flat_map(move |field| self.spec[field].as_array().into_iter().flatten())
    }

    fn annotations(self) -> impl Iterator<Item = (&'a String, &'a str)> {
        let all = self.metadata["annotations"].as_object().into_iter().flat_map(Map::iter);
        all.map(|(key, value)| (key, value.as_str().unwrap_or_default()))
    }

    /// Names of the containers that `is_bad` says so of.
    fn bad(self, mut is_bad: impl FnMut(&'a Value) -> bool) -> Vec<&'a str> {
        self.containers().filter(|container| is_bad(container)).map(|c| text(c, "/name")).collect()
    }

    fn is_windows(self) -> bool {
        text(self.spec, "/os/name") == "windows"
    }

    /// Root in a user namespace is not root of the node.
    fn has_own_users(self) -> bool {
        self.spec["hostUsers"] == json!(false)
    }
}

fn quoted<T: AsRef<str>>(words: impl IntoIterator<Item = T>) -> String {
    let words: Vec<String> = words.into_iter().map(|word| format!("\"{}\"", word.as_ref())).collect();
    words.join(", ")
}

fn plural<'a>(one: &'a str, many: &'a str, count: usize) -> &'a str {
    if count == 1 { one } else { many }
}

fn containers(names: &[&str]) -> String {
    format!("{} {}", plural("container", "containers", names.len()), quoted(names))
}

/// Who said it: `pod`, `container "a"` or both.
fn setters(pod: bool, names: &[&str]) -> Option<String> {
    let mut all = Vec::new();
    if pod {
        all.push("pod".to_owned());
    }
    if !names.is_empty() {
        all.push(containers(names));
    }
    (!all.is_empty()).then(|| all.join(" and "))
}
