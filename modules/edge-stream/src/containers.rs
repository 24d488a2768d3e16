//! The containers and sandboxes of a pod, as the runtime has them.

use std::collections::HashMap;

use cri::v1::{
    ContainerFilter, ContainerState, ContainerStateValue, PodSandboxFilter, PodSandboxState,
    PodSandboxStateValue,
};
use cri::{Error, Runtime};

pub(crate) const POD_NAME: &str = "io.kubernetes.pod.name";
pub(crate) const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
pub(crate) const POD_UID: &str = "io.kubernetes.pod.uid";
pub(crate) const CONTAINER_NAME: &str = "io.kubernetes.container.name";

/// The newest running container of this name in the pod: the one of the latest attempt. What the runtime's clock says of it decides
/// nothing, for it may have been set back in between.
pub(crate) async fn running(runtime: &dyn Runtime, uid: &str, name: &str) -> Result<Option<String>, Error> {
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
pub(crate) async fn sandbox(runtime: &dyn Runtime, uid: &str) -> Result<Option<String>, Error> {
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
