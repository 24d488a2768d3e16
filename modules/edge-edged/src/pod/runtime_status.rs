//! Reading what the runtime has of one pod, termination messages included.

use std::collections::BTreeMap;

use crate::dependencies::{Dependencies, blocking};
use crate::pod::id::PodId;
use crate::runtime::pods::{self, RuntimeContainer, RuntimePod, StatusCache};
use crate::runtime::termination_message;

/// What was read of a pod's containers before and doesn't change any more.
#[derive(Debug, Default)]
pub(crate) struct StatusReader {
    cache: StatusCache,
    /// Termination messages by the container's id.
    messages: BTreeMap<String, String>,
}

/// How far the reading of the runtime's status is.
pub(crate) enum Reading {
    /// Nobody reads.
    Idle(StatusReader),
    /// A task has the reader.
    UnderWay,
}

impl StatusReader {
    /// Reads what the runtime has of the pod.
    ///
    /// # Errors
    /// When the runtime doesn't answer.
    pub(crate) async fn read(&mut self, deps: &Dependencies, id: &PodId) -> Result<RuntimePod, cri::Error> {
        let mut pod = pods::get_pod(&deps.runtime, &id.uid, &mut self.cache).await?;
        self.read_messages(deps, id, &pod).await;
        for container in &mut pod.containers {
            if let Some(message) = self.messages.get(&container.id).filter(|text| !text.is_empty()) {
                container.message.clone_from(message);
            }
        }
        Ok(pod)
    }

    async fn read_messages(&mut self, deps: &Dependencies, id: &PodId, pod: &RuntimePod) {
        self.messages.retain(|id, _| pod.containers.iter().any(|container| container.id == *id));
        let unread: Vec<RuntimeContainer> = pod
            .containers
            .iter()
            .filter(|container| container.state.has_ended() && !self.messages.contains_key(&container.id))
            .cloned()
            .collect();
        if unread.is_empty() {
            return;
        }
        let (root, logs, id) = (deps.settings.root.clone(), deps.settings.logs.clone(), id.clone());
        let read = blocking(&deps.env, "read termination messages in", move || {
            let message =
                |c: &RuntimeContainer| (c.id.clone(), termination_message::read(&root, &logs, &id, c));
            Ok(unread.iter().map(message).collect::<Vec<_>>())
        });
        match read.await {
            Ok(read) => self.messages.extend(read),
            Err(error) => tracing::error!(%error, "termination messages cannot be read"),
        }
    }
}
