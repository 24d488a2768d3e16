//! One client's connection, from CONNECT to its end.

use std::rc::Rc;
use std::time::Duration;

use beehive::Moment;
use bytes::BytesMut;
use futures::stream::{FuturesOrdered, StreamExt};
use tokio::io::AsyncWriteExt;

use crate::broker::Published;
use crate::connect::{self, Accepted, hear};
use crate::error::ConnectionError;
use crate::packet::{self, Packet, Publish};
use crate::peer::Peer;
use crate::pending_connects::PendingConnect;
use crate::qos2::{Progress, Unreleased};
use crate::rate_limit::{Cost, RateAccount};
use crate::session::{CloseReason, ConnectionHandle, Message};
use crate::settling::{Settled, Settling, ask_twin, kept};
use crate::shared::Shared;
use crate::stream::{Reader, Stream, Writer};
use crate::topic::TopicDefect;
use crate::upload_sources::UploadSource;
use crate::uploads::{MemoryPermit, Upload, UploadOrder};
use crate::{plan, topic};

/// 1 s: a publisher waits no longer for room in slow queues, so that two clients that wait for each other go on.
const ROOM_WAIT: Duration = Duration::from_secs(1);

/// Serves one connection to its end, and what it set going to the end of that.
pub(crate) async fn serve(shared: Rc<Shared>, stream: Stream, peer: Peer, pending_connect: PendingConnect) {
    let accepted = tokio::select! {
        accepted = connect::accept_client(&shared, stream, peer) => accepted,
        () = pending_connect.displaced() => Err(ConnectionError::Displaced),
    };
    drop(pending_connect);
    let accepted = match accepted {
        Ok(Some(accepted)) => accepted,
        Ok(None) => return,
        Err(error) => return shared.broker.borrow().counts.connection_ended("", &error),
    };
    let Accepted { mut reader, mut writer, buffer, id, handle, will } = accepted;
    let keep_alive = handle.connect_info.keep_alive;
    let line = Rc::default();
    let account = RateAccount::new(&id, handle.connect_info.peer.source);
    let mut client = Client { shared, id, handle, line, account, looks: 0, settling: FuturesOrdered::new() };
    let end = client.run(&mut reader, &mut writer, buffer, keep_alive).await;
    drop((reader, writer));
    client.shared.broker.borrow_mut().detach(&client.id, &client.handle);
    if let Err(error) = end {
        client.shared.broker.borrow().counts.connection_ended(&client.id, &error);
        // Clients outlive a broker that ends, and come back to the next one.
        if let (Some(will), false) = (will, matches!(error, ConnectionError::Ending)) {
            // A user that is no more has no last word, and another may have lost the right since its CONNECT.
            let may = client.shared.broker.borrow().may_write(&client.id, &will.topic);
            if may && !matches!(error, ConnectionError::Revoked) {
                client.publish(will, None);
            } else {
                let counts = client.shared.broker.borrow().counts.clone();
                counts.will_refused(&client.id, &will.topic, "its client lost the right");
            }
        }
    }
    // A device that sends one value and leaves has still sent it.
    while client.settling.next().await.is_some() {}
}

enum Event {
    Heard(Packet),
    Settled(Settled),
    Room,
}

struct Client {
    shared: Rc<Shared>,
    id: Rc<str>,
    handle: Rc<ConnectionHandle>,
    line: Rc<UploadOrder>,
    account: RateAccount,
    /// What was looked at for the packet that is handled.
    looks: usize,
    /// Publishes that are not acknowledged yet, in their order.
    settling: Settling,
}

impl Client {
    async fn run(
        &mut self,
        reader: &mut Reader,
        writer: &mut Writer,
        mut buffer: BytesMut,
        keep_alive: u16,
    ) -> Result<(), ConnectionError> {
        let (shared, id, handle) = (Rc::clone(&self.shared), Rc::clone(&self.id), Rc::clone(&self.handle));
        let writing = write_all(&shared, &id, &handle, writer);
        let reading = self.listen(reader, &mut buffer, keep_alive);
        tokio::select! {
            biased;
            () = handle.ended.notified() => Err(handle.reason()),
            end = reading => end,
            end = writing => end,
        }
    }

    async fn listen(
        &mut self,
        read: &mut Reader,
        buffer: &mut BytesMut,
        keep_alive: u16,
    ) -> Result<(), ConnectionError> {
        let silence = plan::silence(keep_alive);
        let env = self.shared.env.clone();
        let mut heard_at = env.now();
        let mut turn = Cost::default();
        let mut not_before = heard_at;
        loop {
            if turn.work >= plan::TURN_WORK || turn.bytes >= plan::TURN_BYTES {
                // What is in the buffer already could be thousands of packets; the others' turn comes first.
                turn = Cost::default();
                tokio::task::yield_now().await;
            }
            let until = silence.map(|silence| heard_at + silence);
            let room = self.handle.waiting() < plan::CONTROL;
            let pause = not_before.since(env.now());
            let may_hear = room && pause.is_zero() && self.settling.len() < plan::PENDING;
            let event = tokio::select! {
                biased;
                Some(settled) = self.settling.next(), if !self.settling.is_empty() => Event::Settled(settled),
                packet = hear(&env, read, buffer, plan::PACKET_BYTES, until), if may_hear => Event::Heard(packet?),
                () = self.handle.room.notified(), if !room => Event::Room,
                () = env.sleep(pause), if !pause.is_zero() => Event::Room,
            };
            match event {
                Event::Settled(settled) => self.acknowledge(settled)?,
                Event::Room => {}
                Event::Heard(packet) => {
                    heard_at = env.now();
                    self.handle.heard(heard_at);
                    let cost = Cost::of(&packet, self.shared.broker.borrow().retained_count());
                    self.looks = 0;
                    if self.take(packet).await?.is_none() {
                        return Ok(());
                    }
                    let cost = cost.with_looks(self.looks);
                    turn = Cost { work: turn.work + cost.work, bytes: turn.bytes + cost.bytes };
                    not_before = self.pay(cost);
                }
            }
        }
    }

    /// Pays for a packet; returns before when nothing more is to be read.
    fn pay(&mut self, cost: Cost) -> Moment {
        let now = self.shared.env.now();
        let mut broker = self.shared.broker.borrow_mut();
        let pause = broker.rates.charge(&mut self.account, cost, now);
        if !pause.is_zero() {
            broker.counts.client_slowed(&self.id, &self.handle.connect_info.peer.label);
        }
        now + pause
    }

    /// Does what a packet asks for; `None` for DISCONNECT.
    async fn take(&mut self, packet: Packet) -> Result<Option<()>, ConnectionError> {
        match packet {
            Packet::Publish(publish) => self.take_publish(publish).await?,
            Packet::PubAck(pkid) => self.session(|session| session.acknowledged(pkid)),
            Packet::PubRel(pkid) => {
                self.unreleased().release(pkid);
                self.handle.send(packet::pubcomp(pkid));
            }
            Packet::Subscribe { pkid, filters } => self.subscribe(pkid, &filters)?,
            Packet::Unsubscribe { pkid, filters } => {
                for filter in &filters {
                    self.shared.broker.borrow_mut().unsubscribe(&self.id, filter);
                }
                self.handle.send(packet::unsuback(pkid));
            }
            Packet::PingReq => self.handle.send(packet::pingresp()),
            Packet::Disconnect => return Ok(None),
            Packet::Connect(_) | Packet::OtherVersion(_) => {
                return Err(ConnectionError::Protocol("second CONNECT"));
            }
        }
        Ok(Some(()))
    }

    fn session<T: Default>(&self, work: impl FnOnce(&mut crate::session::Session) -> T) -> T {
        self.shared.broker.borrow_mut().session_of(&self.id, &self.handle).map(work).unwrap_or_default()
    }

    fn subscribe(&self, pkid: u16, filters: &[(String, u8)]) -> Result<(), ConnectionError> {
        for (filter, _) in filters {
            if let Some(TopicDefect::Protocol(what)) = topic::filter_defect(filter) {
                return Err(ConnectionError::Protocol(what));
            }
        }
        let mut broker = self.shared.broker.borrow_mut();
        let codes: Vec<u8> =
            filters.iter().map(|(filter, qos)| broker.subscribe(&self.id, filter, *qos)).collect();
        self.handle.send(packet::suback(pkid, &codes));
        Ok(())
    }

    fn may_write(&self, name: &str) -> bool {
        let router_form = topic::router_form(name);
        let by_session = self.session(|session| Some(session.rights.may_write(&router_form)));
        by_session.unwrap_or_else(|| self.shared.broker.borrow().may_write(&self.id, name))
    }

    /// 3.1.1 can only acknowledge what it refuses, or have it sent again for ever: a publish that is not allowed is
    /// dropped and counted, and with QoS 1 or 2 acknowledged, as mosquitto does it.
    fn refuse_publish(&self, name: &str) {
        let peer = &self.handle.connect_info.peer.label;
        self.shared.broker.borrow().counts.publish_refused(&self.id, peer, name);
    }

    async fn take_publish(&mut self, publish: Publish) -> Result<(), ConnectionError> {
        let Publish { qos, pkid, .. } = publish;
        match topic::name_defect(&publish.topic) {
            Some(TopicDefect::Protocol(what)) => return Err(ConnectionError::Protocol(what)),
            Some(TopicDefect::Policy(why)) => {
                self.shared.broker.borrow().counts.topic_refused(&self.id, &publish.topic, why);
                self.settled(qos, pkid);
                return Ok(());
            }
            None => {}
        }
        if !self.may_write(&publish.topic) {
            self.refuse_publish(&publish.topic);
            self.settled(qos, pkid);
            return Ok(());
        }
        if qos == 2 {
            let unreleased = self.unreleased();
            match unreleased.progress(pkid) {
                None if unreleased.len() >= plan::QOS2 => {
                    return Err(ConnectionError::Protocol("too many publishes of QoS 2 are not released"));
                }
                None => {}
                Some(Progress::Taken) => {
                    self.settled(qos, pkid);
                    return Ok(());
                }
                Some(Progress::Settling) => {
                    self.await_earlier(unreleased, pkid);
                    return Ok(());
                }
                Some(Progress::HandedOut) => {
                    let room = self.room_of(&publish).await;
                    self.settle(publish, room, None);
                    return Ok(());
                }
            }
        }
        wait_for_room(&self.shared, &self.id, &topic::router_form(&publish.topic), qos).await;
        let room = self.room_of(&publish).await;
        self.publish(publish, room);
        Ok(())
    }

    fn unreleased(&self) -> Rc<Unreleased> {
        self.session(|session| Rc::clone(&session.unreleased))
    }

    async fn room_of(&self, publish: &Publish) -> Option<MemoryPermit> {
        if !plan::is_for_the_cloud(&publish.topic) {
            return None;
        }
        self.shared.uploads.room(&self.id, publish.topic.len() + publish.payload.len()).await
    }

    /// An earlier connection brought it, and what that set going has not ended.
    fn await_earlier(&mut self, unreleased: Rc<Unreleased>, pkid: u16) {
        self.settling.push_back(Box::pin(async move {
            let is_taken = unreleased.settled(pkid).await;
            let result =
                if is_taken { Ok(()) } else { Err(ConnectionError::NotKept("nor at its first try".into())) };
            Settled { qos: 2, pkid, result }
        }));
    }

    /// It is acknowledged and goes nowhere. Nothing is noted of it: one that is refused is refused again when it comes again.
    fn settled(&mut self, qos: u8, pkid: u16) {
        if qos > 0 {
            self.settling.push_back(Box::pin(async move { Settled { qos, pkid, result: Ok(()) } }));
        }
    }

    /// Subscribers get the message at once; DeviceTwin and the store are waited for.
    fn publish(&mut self, publish: Publish, room: Option<MemoryPermit>) {
        let Publish { qos, retain, .. } = publish;
        let message = Message {
            router_form: topic::router_form(&publish.topic),
            topic: publish.topic.clone(),
            payload: publish.payload.clone(),
            qos,
            from: Rc::clone(&self.id),
        };
        let Published { change, looks } = self.shared.broker.borrow_mut().publish(message, retain);
        // With QoS 1 it was looked before whether a subscriber is slow.
        self.looks += looks * (1 + usize::from(qos.min(1)));
        self.settle(publish, room, change);
    }

    /// What is to be done before a message that subscribers have is acknowledged.
    fn settle(&mut self, publish: Publish, room: Option<MemoryPermit>, change: Option<u64>) {
        let Publish { topic: name, payload, qos, dup, pkid, .. } = publish;
        let for_twin = plan::is_twins(&name).then(|| (name.clone(), payload.clone()));
        let upload = plan::is_for_the_cloud(&name).then(|| {
            let source = UploadSource { client: Rc::clone(&self.id), topic: name.as_str().into() };
            let line = Rc::clone(&self.line);
            self.shared.uploads.put(Upload { source, payload, qos, dup, line, room })
        });
        if for_twin.is_none() && qos == 0 {
            return;
        }
        let unreleased = (qos == 2).then(|| self.unreleased());
        if let Some(unreleased) = &unreleased {
            unreleased.begin(pkid);
        }
        let (shared, id) = (Rc::clone(&self.shared), Rc::clone(&self.id));
        self.settling.push_back(Box::pin(async move {
            let mut result = Ok(());
            if let Some((topic, payload)) = for_twin {
                result = ask_twin(&shared, &id, topic, payload).await;
            }
            if let (Some(upload), true) = (upload, qos > 0) {
                result = kept(&shared, upload).await;
            }
            if let (Some(change), true) = (change, qos > 0) {
                // The sender lives as long as this.
                let _ = shared.stored.subscribe().wait_for(|stored| *stored >= change).await;
            }
            if let Some(unreleased) = unreleased {
                unreleased.settle(pkid, result.is_ok());
            }
            Settled { qos, pkid, result }
        }));
    }

    fn acknowledge(&self, settled: Settled) -> Result<(), ConnectionError> {
        let Settled { qos, pkid, result } = settled;
        match (qos, result) {
            (0, _) => {}
            (_, Err(error)) => return Err(error),
            (1, Ok(())) => self.handle.send(packet::puback(pkid)),
            (_, Ok(())) => self.handle.send(packet::pubrec(pkid)),
        }
        Ok(())
    }
}

/// Back-pressure: waits while the router or, from QoS 1 on, a subscriber is behind.
async fn wait_for_room(shared: &Shared, publisher: &Rc<str>, router_form: &str, qos: u8) {
    let env = &shared.env;
    let began = env.now();
    loop {
        let now = env.now();
        let left = ROOM_WAIT.saturating_sub(now.since(began));
        if left.is_zero() {
            return;
        }
        let (router, subscriber) = {
            let broker = shared.broker.borrow();
            let subscriber = if qos > 0 { broker.slow_subscriber(publisher, router_form) } else { None };
            (broker.backlog_is_long().then(|| Rc::clone(&broker.moved)), subscriber)
        };
        if let Some(moved) = router {
            env.timeout(left, moved.notified()).await;
        } else if let Some(handle) = subscriber {
            if now.since(handle.slow_since(now)) >= plan::SUBSCRIBER_PATIENCE {
                shared.broker.borrow().counts.client_cut_off(&handle.connect_info.peer.label);
                handle.close(CloseReason::Stuck);
            } else {
                env.timeout(left, handle.room.notified()).await;
            }
        } else {
            return;
        }
    }
}

/// Writes what the session has for the client, until the socket fails.
async fn write_all(
    shared: &Shared,
    client: &Rc<str>,
    handle: &Rc<ConnectionHandle>,
    socket: &mut Writer,
) -> Result<(), ConnectionError> {
    let mut out = BytesMut::new();
    loop {
        shared.broker.borrow_mut().fill(client, handle, &mut out);
        if out.is_empty() {
            handle.out.notified().await;
            continue;
        }
        let write = async {
            socket.write_all(&out).await?;
            socket.flush().await
        };
        let written = shared.env.timeout(plan::WRITE_DEADLINE, write).await;
        written.ok_or(ConnectionError::Stuck)??;
        // A large message is not held on to for the next small one.
        out = if out.capacity() > 2 * plan::WRITE_BYTES { BytesMut::new() } else { out };
        out.clear();
        handle.moved();
    }
}
