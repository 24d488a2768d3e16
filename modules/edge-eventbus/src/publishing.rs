//! Publishes of one client.

use std::rc::Rc;
use std::time::Duration;

use futures::future::LocalBoxFuture;

use crate::broker::Published;
use crate::connection::{Client, REFUSED};
use crate::error::ConnectionError;
use crate::held_back::Waiting;
use crate::message::Message;
use crate::outgoing::wait_for_room;
use crate::packet::{Publish, Version};
use crate::qos2::{Progress, Unreleased};
use crate::session::RowKey;
use crate::settling::{Answer, Settled, stored};
use crate::topic::TopicDefect;
use crate::upload_sources::UploadSource;
use crate::uploads::{MemoryPermit, Upload};
use crate::{plan, qos2, topic};

/// Reason codes of MQTT 5, section 2.4.
const NO_SUBSCRIBERS: u8 = 0x10;
const NOT_AUTHORIZED: u8 = 0x87;
const TOPIC_INVALID: u8 = 0x90;
const RECEIVE_MAXIMUM_EXCEEDED: u8 = 0x93;
const ALIAS_INVALID: u8 = 0x94;
const QUOTA_EXCEEDED: u8 = 0x97;

impl Client {
    fn may_write(&self, name: &str) -> bool {
        let router_form = topic::router_form(name);
        let by_session = self.session(|session| Some(session.rights.may_write(&router_form)));
        by_session.unwrap_or_else(|| self.shared.broker.borrow().may_write(&self.id, name))
    }

    /// 3.1.1 can only acknowledge what it refuses, or have it sent again for ever: a publish that is not allowed is
    /// dropped and counted, and with QoS 1 or 2 acknowledged, as mosquitto does it.
    fn count_refused(&self, name: &str) {
        let peer = &self.handle.connect_info.peer.label;
        self.shared.broker.borrow().counts.publish_refused(&self.id, peer, name);
    }

    /// It goes nowhere, and is acknowledged: a client of 3.1.1 would only send it again.
    pub(crate) fn drop_oversized(&mut self, publish: &Publish, size: usize, limit: usize) {
        let counts = self.shared.broker.borrow().counts.clone();
        counts.publish_oversized(&self.id, &publish.topic, size, limit);
        // Of the codes that a PUBACK can have (MQTT 5, 3.4.2.1) the one for a limit that an administrator has set.
        self.answer(Answer::to(publish.qos, publish.pkid), QUOTA_EXCEEDED, None);
    }

    /// The topic of a publish, which may be given by a number that stands for it.
    fn resolve(&mut self, publish: &mut Publish) -> Result<(), ConnectionError> {
        let Some(alias) = publish.alias else { return Ok(()) };
        if alias == 0 || alias > plan::TOPIC_ALIASES {
            return Err(ConnectionError::Coded(ALIAS_INVALID, "topic alias is 0 or above the maximum"));
        }
        if publish.topic.is_empty() {
            let known = self.aliases.get(&alias);
            let known = known.ok_or(ConnectionError::Protocol("topic alias stands for nothing yet"))?;
            publish.topic.clone_from(known);
        } else {
            self.aliases.insert(alias, publish.topic.clone());
        }
        Ok(())
    }

    /// Refuses a publish, or hands it on as soon as there is room for it.
    pub(crate) fn take_publish(&mut self, mut publish: Publish) -> Result<(), ConnectionError> {
        let Publish { qos, pkid, .. } = publish;
        self.resolve(&mut publish)?;
        match topic::name_defect(&publish.topic) {
            Some(TopicDefect::Protocol(what)) if !publish.topic.is_empty() => {
                return Err(ConnectionError::Coded(TOPIC_INVALID, what));
            }
            Some(TopicDefect::Protocol(what)) => return Err(ConnectionError::Protocol(what)),
            Some(TopicDefect::Policy(why)) => {
                self.shared.broker.borrow().counts.topic_refused(&self.id, &publish.topic, why);
                let code = if topic::is_brokers_own(&publish.topic) { NOT_AUTHORIZED } else { TOPIC_INVALID };
                self.answer(Answer::to(qos, pkid), code, None);
                return Ok(());
            }
            None => {}
        }
        if !self.may_write(&publish.topic) {
            self.count_refused(&publish.topic);
            self.answer(Answer::to(qos, pkid), NOT_AUTHORIZED, None);
            return Ok(());
        }
        let queue = self.shared.intake.rule_topics.queue_of(&publish.topic);
        let goes_on = plan::is_twins(&publish.topic) || queue.is_some();
        if goes_on && publish.payload.len() > plan::SMALL_BYTES {
            self.drop_oversized(&publish, publish.payload.len(), plan::SMALL_BYTES);
            return Ok(());
        }
        let mut is_handed_out = false;
        if qos == 2 {
            self.open(pkid)?;
            let unreleased = self.unreleased();
            match unreleased.repeated(&publish) {
                None if unreleased.is_reused(&publish) => {
                    tracing::debug!(client = ?self.id, pkid, "identifier that was not released is used for another message");
                }
                None => {}
                Some(Progress::Taken) => {
                    self.answer(Answer::PubRec(pkid), 0, None);
                    return Ok(());
                }
                Some(Progress::Settling) => {
                    self.await_earlier(unreleased, pkid);
                    return Ok(());
                }
                Some(Progress::HandedOut) => is_handed_out = true,
            }
        }
        let room = self.room_for(&publish, is_handed_out);
        let mut waiting = Waiting { publish, is_handed_out, room };
        match waiting.try_room() {
            Some(permit) => self.go_on(waiting, permit),
            None => self.held.wait(waiting),
        }
        Ok(())
    }

    /// There is room for a publish.
    pub(crate) fn go_on(&mut self, waiting: Waiting, permit: Option<MemoryPermit>) {
        let Waiting { publish, is_handed_out, .. } = waiting;
        if is_handed_out {
            self.settle(publish, permit, Wait::default());
        } else {
            self.publish(publish, permit);
        }
    }

    /// A client of MQTT 5 knows the bound from its CONNACK; one of 3.1.1 would only come back to it.
    fn open(&mut self, pkid: u16) -> Result<(), ConnectionError> {
        if self.version() != Version::V5 {
            return Ok(());
        }
        self.open.insert(pkid);
        if self.open.len() > usize::from(plan::RECEIVE_MAXIMUM) {
            let what = "too many publishes of QoS 2 are not released";
            return Err(ConnectionError::Coded(RECEIVE_MAXIMUM_EXCEEDED, what));
        }
        Ok(())
    }

    pub(crate) fn unreleased(&self) -> Rc<Unreleased> {
        self.session(|session| Rc::clone(&session.unreleased))
    }

    /// Waits for its subscribers, unless they have it, and for its share of the uploads' memory.
    fn room_for(
        &self,
        publish: &Publish,
        is_handed_out: bool,
    ) -> LocalBoxFuture<'static, Option<MemoryPermit>> {
        let (shared, id) = (Rc::clone(&self.shared), Rc::clone(&self.id));
        let (router_form, qos) = (topic::router_form(&publish.topic), publish.qos);
        let bytes = publish.topic.len() + publish.payload.len();
        let is_upload = shared.intake.rule_topics.queue_of(&publish.topic).is_some();
        Box::pin(async move {
            if !is_handed_out {
                wait_for_room(&shared, &id, &router_form, qos).await;
            }
            if is_upload { shared.intake.uploads.room(&id, bytes).await } else { None }
        })
    }

    /// An earlier connection brought it, and what that set going has not ended.
    fn await_earlier(&mut self, unreleased: Rc<Unreleased>, pkid: u16) {
        self.settling.push_back(Box::pin(async move {
            let is_taken = unreleased.settled(pkid).await;
            let result =
                if is_taken { Ok(0) } else { Err(ConnectionError::NotKept("nor at its first try".into())) };
            Settled { answer: Answer::PubRec(pkid), result }
        }));
    }

    /// Subscribers get the message at once; DeviceTwin and the store are waited for.
    pub(crate) fn publish(&mut self, publish: Publish, room: Option<MemoryPermit>) {
        let Publish { qos, retain, .. } = publish;
        let now = self.shared.env.now();
        let message = Message {
            router_form: topic::router_form(&publish.topic),
            topic: publish.topic.clone(),
            payload: publish.payload.clone(),
            qos,
            retain,
            from: Rc::clone(&self.id),
            properties: publish.properties.clone(),
            expires: publish.expiry.map(|seconds| now + Duration::from_secs(seconds.into())),
        };
        let published = self.shared.broker.borrow_mut().publish(message, retain);
        let Published { change, has_subscribers, is_not_retained, looks, queued } = published;
        // With QoS 1 it was looked before whether a subscriber is slow.
        self.looks += looks * (1 + usize::from(qos.min(1)));
        self.settle(publish, room, Wait { change, queued, is_not_retained, is_unheard: !has_subscribers });
    }

    /// What is to be done before a message that subscribers have is acknowledged.
    fn settle(&mut self, publish: Publish, room: Option<MemoryPermit>, wait: Wait) {
        let qos2 = (publish.qos == 2).then(|| {
            let unreleased = self.unreleased();
            let begun = unreleased.begin(&publish);
            (unreleased, begun)
        });
        let row = RowKey::Unreleased(qos2::page_of(publish.pkid));
        let noted = qos2
            .as_ref()
            .and_then(|_| self.shared.broker.borrow_mut().note_row(&self.id, &self.handle, row.clone()));
        let Publish { topic: name, payload, qos, dup, pkid, .. } = publish;
        let for_twin = plan::is_twins(&name).then(|| (name.clone(), payload.clone()));
        let upload = self.shared.intake.rule_topics.queue_of(&name).map(|queue| {
            let source = UploadSource { client: Rc::clone(&self.id), topic: name.as_str().into() };
            let line = Rc::clone(&self.line);
            self.shared.intake.uploads.put(Upload { source, queue, payload, qos, dup, line, room })
        });
        if for_twin.is_none() && qos == 0 {
            return;
        }
        let (shared, id, handle) = (Rc::clone(&self.shared), Rc::clone(&self.id), Rc::clone(&self.handle));
        self.settling.push_back(Box::pin(async move {
            let mut result = Ok(match &upload {
                _ if wait.is_not_retained => QUOTA_EXCEEDED,
                // Of QoS 1 alone, as mosquitto says it.
                None if wait.is_unheard && qos == 1 => NO_SUBSCRIBERS,
                _ => 0,
            });
            if let Some((topic, payload)) = for_twin {
                result = shared.intake.ask_twin(&id, topic, payload).await;
            }
            if let (Some(upload), true) = (upload, qos > 0) {
                result = shared.intake.kept(upload).await.and(result);
            }
            if qos > 0 {
                let queued = match wait.queued {
                    Some(queued) => queued.await.ok(),
                    None => None,
                };
                stored(&shared, wait.change.max(queued).max(noted)).await;
            }
            if let Some((unreleased, begun)) = qos2 {
                let is_v5 = handle.connect_info.version == Version::V5;
                if is_v5 && result.as_ref().is_ok_and(|code| *code >= REFUSED) {
                    // Its client reads that, and what next comes under the identifier is new (MQTT 5, 4.3.3).
                    unreleased.refuse(pkid, begun);
                    shared.broker.borrow_mut().note_row(&id, &handle, row);
                } else {
                    unreleased.settle(pkid, begun, result.is_ok());
                }
            }
            Settled { answer: Answer::to(qos, pkid), result }
        }));
    }
}

/// What the store has to take before a message is acknowledged.
#[derive(Default)]
struct Wait {
    /// As a retained message.
    change: Option<u64>,
    /// Into the queues of sessions.
    queued: Option<tokio::sync::oneshot::Receiver<u64>>,
    is_not_retained: bool,
    /// No client subscribes to it.
    is_unheard: bool,
}
