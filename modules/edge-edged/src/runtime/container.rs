//! A container in the words of the runtime.

use std::collections::{BTreeMap, HashMap};

use cri::pods::CONTAINER_NAME;
use cri::v1::{ContainerConfig, ContainerMetadata, ImageSpec, KeyValue, LinuxContainerConfig, Mount};
use k8s_openapi::api::core::v1::Container;

use crate::disk::layout;
use crate::pod::parsed_pod::ParsedPod;
use crate::runtime::expansion::{ArgumentSpace, TooLong};
use crate::runtime::{kubelet_hash, sandbox};

/// The kubelet's hash of a container, which it compares as well: so a kubelet that takes the container up leaves it running.
pub(crate) const HASH: &str = "io.kubernetes.container.hash";
/// Edged's own hash, which covers more ([`ParsedPod::hash`]).
pub(crate) const OWN_HASH: &str = "kubehive.io/container.hash";
pub(crate) const RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
pub(crate) const MESSAGE_PATH: &str = "io.kubernetes.container.terminationMessagePath";
pub(crate) const MESSAGE_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
pub(crate) const GRACE: &str = "io.kubernetes.pod.terminationGracePeriod";

/// Kubernetes' own default.
pub(crate) const MESSAGE_PATH_DEFAULT: &str = "/dev/termination-log";

/// Everything about one start of a container that was worked out before.
pub(crate) struct Start<'a> {
    pub(crate) attempt: u32,
    /// The image's reference in the runtime.
    pub(crate) image: &'a str,
    pub(crate) env: &'a [(String, String)],
    pub(crate) mounts: Vec<Mount>,
    pub(crate) linux: LinuxContainerConfig,
    pub(crate) node_name: &'a str,
}

/// # Errors
/// The command and its arguments are more than a process takes that has these variables.
pub(crate) fn config(
    pod: &ParsedPod,
    container: &Container,
    start: Start<'_>,
    mut space: ArgumentSpace,
) -> Result<ContainerConfig, TooLong> {
    let known: BTreeMap<&str, &str> =
        start.env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let mut expanded = |list: &Option<Vec<String>>| {
        let all = list.iter().flatten();
        all.map(|text| space.expand(text, |name| known.get(name).copied())).collect::<Result<Vec<_>, _>>()
    };
    let mut labels = sandbox::labels(&pod.id, start.node_name);
    labels.insert(CONTAINER_NAME.to_owned(), container.name.clone());
    let policy = container.termination_message_policy.clone().unwrap_or_else(|| "File".to_owned());
    let annotations = HashMap::from([
        (HASH.to_owned(), format!("{:x}", kubelet_hash::of(container))),
        (OWN_HASH.to_owned(), format!("{:x}", pod.hash(&container.name))),
        (RESTART_COUNT.to_owned(), start.attempt.to_string()),
        (MESSAGE_PATH.to_owned(), message_path(container).to_owned()),
        (MESSAGE_POLICY.to_owned(), policy),
        (GRACE.to_owned(), pod.grace().as_secs().to_string()),
    ]);
    Ok(ContainerConfig {
        metadata: Some(ContainerMetadata { name: container.name.clone(), attempt: start.attempt }),
        image: Some(ImageSpec { image: start.image.to_owned(), annotations: HashMap::new() }),
        command: expanded(&container.command)?,
        args: expanded(&container.args)?,
        working_dir: container.working_dir.clone().unwrap_or_default(),
        envs: start
            .env
            .iter()
            .map(|(key, value)| KeyValue { key: key.clone(), value: value.clone().into_bytes() })
            .collect(),
        mounts: start.mounts,
        labels,
        annotations,
        log_path: layout::log(&container.name, start.attempt),
        stdin: container.stdin.unwrap_or(false),
        stdin_once: container.stdin_once.unwrap_or(false),
        tty: container.tty.unwrap_or(false),
        linux: Some(start.linux),
        ..ContainerConfig::default()
    })
}

/// Where the container writes its termination message.
pub(crate) fn message_path(container: &Container) -> &str {
    container
        .termination_message_path
        .as_deref()
        .filter(|path| !path.is_empty())
        .unwrap_or(MESSAGE_PATH_DEFAULT)
}
