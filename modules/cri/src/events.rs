//! What a runtime tells of its own accord.

use futures::stream::BoxStream;
use prost::Message as _;

use crate::Error;
use crate::containerd::service::Envelope;
use crate::containerd::task;
use crate::v1::{ContainerEventResponse, ContainerEventType};

/// Something happened to a container or sandbox. Level-triggered readers look at the runtime then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The container's or sandbox's id.
    pub id: String,
    /// What happened.
    pub kind: EventKind,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// It was created.
    Created,
    /// It runs.
    Started,
    /// It has ended.
    Stopped,
    /// It is gone.
    Deleted,
    /// A process in it was killed for want of memory.
    OutOfMemory,
}

/// Events as they come. It ends with an error and then has to be asked for anew.
pub type EventStream = BoxStream<'static, Result<Event, Error>>;

pub(crate) fn from_cri(event: ContainerEventResponse) -> Event {
    let kind = match event.container_event_type() {
        ContainerEventType::ContainerCreatedEvent => EventKind::Created,
        ContainerEventType::ContainerStartedEvent => EventKind::Started,
        ContainerEventType::ContainerStoppedEvent => EventKind::Stopped,
        ContainerEventType::ContainerDeletedEvent => EventKind::Deleted,
    };
    Event { id: event.container_id, kind }
}

/// `None` for what says nothing about a container as a whole.
pub(crate) fn from_containerd(envelope: Envelope) -> Option<Event> {
    let any = envelope.event?;
    let bytes = any.value.as_slice();
    // The type's name stands alone or behind a host.
    let name = any.type_url.rsplit('/').next().unwrap_or_default();
    let event = |id: String, kind| Some(Event { id, kind });
    match name {
        "containerd.events.TaskCreate" => {
            event(task::TaskCreate::decode(bytes).ok()?.container_id, EventKind::Created)
        }
        "containerd.events.TaskStart" => {
            event(task::TaskStart::decode(bytes).ok()?.container_id, EventKind::Started)
        }
        "containerd.events.TaskOOM" => {
            event(task::TaskOom::decode(bytes).ok()?.container_id, EventKind::OutOfMemory)
        }
        "containerd.events.TaskExit" => {
            let exit = task::TaskExit::decode(bytes).ok()?;
            let whole = exit.id.is_empty() || exit.id == exit.container_id;
            if whole { event(exit.container_id, EventKind::Stopped) } else { None }
        }
        "containerd.events.TaskDelete" => {
            let delete = task::TaskDelete::decode(bytes).ok()?;
            let whole = delete.id.is_empty() || delete.id == delete.container_id;
            if whole { event(delete.container_id, EventKind::Deleted) } else { None }
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envelope(name: &str, bytes: Vec<u8>) -> Envelope {
        Envelope {
            timestamp: None,
            namespace: "k8s.io".into(),
            topic: "/tasks/exit".into(),
            event: Some(prost_types::Any { type_url: name.into(), value: bytes }),
        }
    }

    #[test]
    fn the_end_of_an_exec_is_not_the_end_of_its_container() {
        let exit = |id: &str| {
            let exit = task::TaskExit { container_id: "c".into(), id: id.into(), pid: 7, exit_status: 1 };
            from_containerd(envelope("containerd.events.TaskExit", exit.encode_to_vec()))
        };
        assert_eq!(exit("c"), Some(Event { id: "c".into(), kind: EventKind::Stopped }));
        assert_eq!(exit("exec-1"), None);
    }

    #[test]
    fn broken_and_unknown_events_are_skipped() {
        assert_eq!(from_containerd(envelope("containerd.events.TaskExit", vec![0xff, 0xff])), None);
        assert_eq!(from_containerd(envelope("containerd.events.Other", vec![])), None);
    }
}
