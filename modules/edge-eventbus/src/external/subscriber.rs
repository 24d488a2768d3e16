//! The connection that listens to what devices and applications publish for DeviceTwin and for the cloud.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use beehive::Moment;

use super::ExternalSettings;
use super::fault::LinkFault;
use super::link::{Heard, Part, Settling};
use super::state::Role;
use crate::identity::EXTERNAL;
use crate::intake::Intake;
use crate::outbox::{Outbox, PacketSink as _};
use crate::packet::Publish;
use crate::packet::as_client::{self, FromBroker, Hello};
use crate::plan;
use crate::session::ConnectionHandle;
use crate::upload_sources::UploadSource;
use crate::uploads::{Upload, UploadOrder};

/// See the module.
pub(super) struct Subscriber {
    intake: Rc<Intake>,
    /// The broker had the session of before: what it sends because of a subscription was sent before.
    is_resumed: Cell<bool>,
    /// Of the connection that is there.
    line: RefCell<Rc<UploadOrder>>,
}

impl Subscriber {
    pub(super) fn new(intake: Rc<Intake>) -> Self {
        Subscriber { intake, is_resumed: Cell::new(false), line: RefCell::default() }
    }

    /// What is to be done before a message is acknowledged.
    async fn settle(&self, publish: Publish) -> Heard {
        let Publish { topic, payload, qos, pkid, dup, retain, .. } = publish;
        let acknowledge = (qos > 0).then_some(pkid);
        if retain && self.is_resumed.get() {
            return settled(acknowledge);
        }
        if payload.len() > plan::SMALL_BYTES {
            self.intake.counts.publish_oversized(EXTERNAL, &topic, payload.len(), plan::SMALL_BYTES);
            return settled(acknowledge);
        }
        self.intake.counts.message_in();
        let intake = Rc::clone(&self.intake);
        let kept: Settling = if plan::is_twins(&topic) {
            Box::pin(async move {
                let answer = intake.ask_twin(EXTERNAL, topic, payload).await;
                // Of QoS 0 nothing comes again.
                if acknowledge.is_some() { answer.map(|_| acknowledge) } else { Ok(None) }
            })
        } else if let Some(queue) = intake.rule_topics.queue_of(&topic) {
            let room = intake.uploads.room(EXTERNAL, topic.len() + payload.len()).await;
            let source = UploadSource { client: EXTERNAL.into(), topic: topic.as_str().into() };
            let line = Rc::clone(&self.line.borrow());
            let upload = intake.uploads.put(Upload { source, queue, payload, qos, dup, line, room });
            if acknowledge.is_none() {
                return Heard::Nothing;
            }
            Box::pin(async move { intake.kept(upload).await.map(|()| acknowledge) })
        } else {
            return settled(acknowledge);
        };
        Heard::Settle(kept)
    }
}

/// To what it listens. Those of rules stand behind those that are always there.
fn filters(intake: &Intake) -> Vec<String> {
    plan::from_clients().into_iter().chain(intake.rule_topics.all()).collect()
}

/// All of it each time: what a rule that is gone had is heard and let go.
fn subscribe(intake: &Intake, handle: &ConnectionHandle) {
    handle.send(as_client::subscribe(1, filters(intake).iter().map(String::as_str)));
}

/// Nothing is to be done.
fn settled(acknowledge: Option<u16>) -> Heard {
    Heard::Settle(Box::pin(std::future::ready(Ok(acknowledge))))
}

impl Part for Subscriber {
    const ROLE: Role = "listens";

    fn hello<'a>(&self, settings: &'a ExternalSettings) -> Hello<'a> {
        // The broker keeps what comes while nobody listens.
        settings.hello(&settings.listens_as, false)
    }

    fn begin(&self, handle: &Rc<ConnectionHandle>, is_present: bool) {
        self.is_resumed.set(is_present);
        self.line.replace(Rc::default());
        // Also in a session of before: another release may listen to other topics, and a broker may have lost some.
        subscribe(&self.intake, handle);
        let (intake, handle) = (Rc::downgrade(&self.intake), Rc::clone(handle));
        self.intake.rule_topics.when_changed(move || {
            intake.upgrade().iter().for_each(|intake| subscribe(intake, &handle));
        });
    }

    fn fill(&self, handle: &ConnectionHandle, out: &mut Outbox, _now: Moment) {
        for packet in handle.control() {
            out.head().extend_from_slice(&packet);
        }
    }

    async fn hear(&self, packet: FromBroker) -> Result<Heard, LinkFault> {
        match packet {
            FromBroker::Publish(publish) => Ok(self.settle(publish).await),
            FromBroker::SubAck { codes } => {
                let denied = filters(&self.intake).into_iter().zip(codes).filter(|(_, code)| *code > 2);
                let denied: Vec<String> = denied.map(|(filter, _)| filter).collect();
                Ok(if denied.is_empty() { Heard::Nothing } else { Heard::Denied(denied) })
            }
            FromBroker::PingResp => Ok(Heard::Nothing),
            FromBroker::ConnAck { .. } | FromBroker::PubAck(_) => Err(LinkFault::Unasked),
        }
    }

    fn too_large(&self, publish: &Publish, size: usize) {
        self.intake.counts.publish_oversized(EXTERNAL, &publish.topic, size, plan::SMALL_BYTES);
    }

    fn end(&self) {}
}
