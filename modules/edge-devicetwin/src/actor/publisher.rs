//! Publications leave in order and beside DeviceTwin: EventBus may be waiting for it.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use beehive::{Actor, Address, Capacity, Context, Fault, Message, Policy, Refusal};
use bytes::Bytes;
use contract::eventbus::EventBusMsg;

/// 8 MiB of payloads may wait for EventBus: messages are a few hundred bytes, unless somebody tries it on.
const BYTES_MAX: usize = 8 << 20;
/// 10 ms before a full EventBus is tried again: it takes hundreds of messages in that time.
const FULL_PAUSE: Duration = Duration::from_millis(10);

/// One publication.
#[derive(Debug)]
pub(super) struct Publish {
    topic: String,
    payload: Bytes,
}

impl Message for Publish {
    fn name(&self) -> &'static str {
        "Publish"
    }
}

/// Hands publications to EventBus, one after the other.
pub(super) struct Publisher {
    bus: Address<EventBusMsg>,
    bytes: Rc<Cell<usize>>,
}

impl Actor for Publisher {
    type Message = Publish;

    async fn handle(&mut self, message: Publish, cx: &mut Context<Publish>) -> Result<(), Fault> {
        let Publish { topic, payload } = message;
        self.bytes.set(self.bytes.get().saturating_sub(payload.len()));
        loop {
            let publish =
                EventBusMsg::Publish { topic: topic.clone(), payload: payload.clone(), retain: false };
            match self.bus.try_tell(publish) {
                Err(Refusal::Full) => cx.env().sleep(FULL_PAUSE).await,
                Ok(()) | Err(_) => return Ok(()),
            }
        }
    }
}

/// The way to the publisher.
pub(super) struct Publications {
    publisher: Address<Publish>,
    bytes: Rc<Cell<usize>>,
}

impl Publications {
    /// Starts a publisher as a child of DeviceTwin.
    pub(super) fn start<M: Message>(bus: &Address<EventBusMsg>, cx: &Context<M>) -> Self {
        let bytes = Rc::<Cell<usize>>::default();
        let (bus, shared) = (bus.clone(), Rc::clone(&bytes));
        let capacity =
            Capacity::new(1024, "what a few hundred devices that report at once make; more is dropped");
        let policy = Policy { capacity, ..Policy::default() };
        let publisher =
            cx.child("publisher", policy, move || Publisher { bus: bus.clone(), bytes: Rc::clone(&shared) });
        Publications { publisher, bytes }
    }

    /// Whether there was room for it.
    pub(super) fn publish(&self, topic: String, payload: Bytes) -> bool {
        let bytes = self.bytes.get() + payload.len();
        if bytes > BYTES_MAX || self.publisher.try_tell(Publish { topic, payload }).is_err() {
            return false;
        }
        self.bytes.set(bytes);
        true
    }
}
