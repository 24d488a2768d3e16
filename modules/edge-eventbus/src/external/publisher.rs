//! The connection that publishes what `edgecore` says.

use std::rc::Rc;

use beehive::Moment;

use super::ExternalSettings;
use super::fault::LinkFault;
use super::link::{Heard, Part};
use super::outbound::Outbound;
use super::state::Role;
use crate::outbox::Outbox;
use crate::packet::Publish;
use crate::packet::as_client::{FromBroker, Hello};
use crate::session::ConnectionHandle;

/// See the module.
pub(super) struct Publisher {
    outbound: Rc<Outbound>,
}

impl Publisher {
    pub(super) fn new(outbound: Rc<Outbound>) -> Self {
        Publisher { outbound }
    }
}

impl Part for Publisher {
    const ROLE: Role = "publishes";

    fn hello<'a>(&self, settings: &'a ExternalSettings) -> Hello<'a> {
        // What is on its way is kept here, so the broker need not.
        settings.hello(&settings.publishes_as, true)
    }

    fn begin(&self, handle: &Rc<ConnectionHandle>, _is_present: bool) {
        self.outbound.attach(handle);
    }

    fn fill(&self, _handle: &ConnectionHandle, out: &mut Outbox, now: Moment) {
        self.outbound.fill(out, now);
    }

    async fn hear(&self, packet: FromBroker) -> Result<Heard, LinkFault> {
        match packet {
            FromBroker::PubAck(pkid) => self.outbound.acknowledged(pkid),
            FromBroker::PingResp => {}
            FromBroker::ConnAck { .. } | FromBroker::SubAck { .. } | FromBroker::Publish(_) => {
                return Err(LinkFault::Unasked);
            }
        }
        Ok(Heard::Nothing)
    }

    fn too_large(&self, _publish: &Publish, _size: usize) {}

    fn end(&self) {
        self.outbound.detach();
    }
}
