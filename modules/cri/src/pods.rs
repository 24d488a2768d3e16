//! The containers and sandboxes of a pod, as the runtime has them by the labels that a kubelet gives them (`pkg/kubelet/types/labels.go`).

use std::collections::HashMap;

use crate::v1::{
    ContainerFilter, ContainerState, ContainerStateValue, PodSandboxFilter, PodSandboxState,
    PodSandboxStateValue,
};
use crate::{Error, Runtime};

/// The label of a sandbox and of a container with the pod's name.
pub const POD_NAME: &str = "io.kubernetes.pod.name";
/// The one with the pod's namespace.
pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
/// The one with the pod's uid.
pub const POD_UID: &str = "io.kubernetes.pod.uid";
/// The label of a container with its name in the pod.
pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";

/// The newest running container of this name in the pod: the one of the latest attempt. What the runtime's clock says of it decides
/// nothing, for it may have been set back in between.
///
/// # Errors
/// The runtime's.
pub async fn running_container(
    runtime: &dyn Runtime,
    uid: &str,
    name: &str,
) -> Result<Option<String>, Error> {
    let labels = [(POD_UID.to_owned(), uid.to_owned()), (CONTAINER_NAME.to_owned(), name.to_owned())];
    let filter = ContainerFilter {
        state: Some(ContainerStateValue { state: ContainerState::ContainerRunning.into() }),
        label_selector: HashMap::from(labels),
        ..ContainerFilter::default()
    };
    let found = runtime.list_containers(filter).await?;
    let newest = found.into_iter().max_by_key(|container| {
        (container.metadata.as_ref().map_or(0, |metadata| metadata.attempt), container.id.clone())
    });
    Ok(newest.map(|container| container.id))
}

/// The newest sandbox of the pod that is ready: the one of the latest attempt.
///
/// # Errors
/// The runtime's.
pub async fn ready_sandbox(runtime: &dyn Runtime, uid: &str) -> Result<Option<String>, Error> {
    let filter = PodSandboxFilter {
        state: Some(PodSandboxStateValue { state: PodSandboxState::SandboxReady.into() }),
        label_selector: HashMap::from([(POD_UID.to_owned(), uid.to_owned())]),
        ..PodSandboxFilter::default()
    };
    let found = runtime.list_sandboxes(filter).await?;
    let newest = found.into_iter().max_by_key(|sandbox| {
        (sandbox.metadata.as_ref().map_or(0, |metadata| metadata.attempt), sandbox.id.clone())
    });
    Ok(newest.map(|sandbox| sandbox.id))
}
