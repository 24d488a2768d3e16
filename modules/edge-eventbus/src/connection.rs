//! One client's connection, from CONNECT to its end.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use beehive::Moment;
use futures::stream::{FuturesOrdered, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::connect::{self, Accepted};
use crate::error::ConnectionError;
use crate::held_back::{HeldBack, Waiting};
use crate::incoming::Incoming;
use crate::outbox::Outbox;
use crate::outgoing::write_all;
use crate::packet::{self, Packet, Version, Will};
use crate::peer::Peer;
use crate::pending_connects::PendingConnect;
use crate::rate_limit::{Cost, RateAccount};
use crate::session::{ConnectionHandle, RowKey};
use crate::settling::{Answer, Settled, Settling, stored};
use crate::shared::Shared;
use crate::stream::{Reader, Stream, Writer};
use crate::uploads::{MemoryPermit, UploadOrder};
use crate::{plan, qos2};

/// Reason codes from this one on refuse (MQTT 5, section 2.4).
pub(crate) const REFUSED: u8 = 0x80;

/// Serves one connection to its end, and what it set going to the end of that.
pub(crate) async fn serve(shared: Rc<Shared>, stream: Stream, peer: Peer, pending_connect: PendingConnect) {
    let from = peer.label.clone();
    let accepted = tokio::select! {
        accepted = connect::accept_client(&shared, stream, peer) => accepted,
        () = pending_connect.displaced() => Err(ConnectionError::Displaced),
    };
    drop(pending_connect);
    let accepted = match accepted {
        Ok(Some(accepted)) => accepted,
        Ok(None) => return,
        Err(error) => return shared.broker.borrow().counts.newcomer_ended(&from, &error),
    };
    let Accepted { mut reader, mut writer, incoming, id, handle } = accepted;
    let mut client = Client::new(shared, id, handle);
    let end = client.run(&mut reader, &mut writer, incoming).await;
    client.leave(&end);
    if let Err(error) = &end {
        client.say_goodbye(&mut reader, &mut writer, error).await;
    }
    drop((reader, writer));
    // A device that sends one value and leaves has still sent it.
    client.settle_all().await;
}

/// Publishes the will of a client at once. What comes back waits until it is where it is to be, and the store may forget it.
pub(crate) fn publish_will(shared: Rc<Shared>, id: Rc<str>, will: Rc<Will>) -> impl Future<Output = ()> {
    let mut client = Client::new(shared, id, Rc::default());
    client.publish_will(will);
    async move { client.settle_all().await }
}

enum Event {
    Heard(Result<Packet, ConnectionError>),
    /// One that was held back, and its turn has come.
    Due(Packet),
    /// There is room for a publish that has waited.
    Freed(Waiting, Option<MemoryPermit>),
    Settled(Settled),
    Room,
}

/// How a connection ended in peace.
enum Farewell {
    /// Its will is dropped.
    Polite,
    /// It asks for its will.
    WithWill,
}

pub(crate) struct Client {
    pub(crate) shared: Rc<Shared>,
    pub(crate) id: Rc<str>,
    pub(crate) handle: Rc<ConnectionHandle>,
    pub(crate) line: Rc<UploadOrder>,
    account: RateAccount,
    /// What was looked at for the packet that is handled.
    pub(crate) looks: usize,
    /// Packets that are not answered yet, in their order.
    pub(crate) settling: Settling,
    /// Packets that are not handled yet, in their order.
    pub(crate) held: HeldBack,
    /// Topics to which the client has given a number.
    pub(crate) aliases: BTreeMap<u16, String>,
    /// What the receive maximum counts: publishes of QoS 2 of MQTT 5 that came over this connection and are not released.
    pub(crate) open: BTreeSet<u16>,
    /// Its will, which is the last in `settling`.
    said: Option<Rc<Will>>,
}

impl Client {
    fn new(shared: Rc<Shared>, id: Rc<str>, handle: Rc<ConnectionHandle>) -> Self {
        let account =
            shared.broker.borrow_mut().rates.open(&id, handle.connect_info.peer.source, shared.env.now());
        let (line, settling, aliases) = (Rc::default(), FuturesOrdered::new(), BTreeMap::new());
        let (held, open) = (HeldBack::default(), BTreeSet::new());
        Client { shared, id, handle, line, account, looks: 0, settling, held, aliases, open, said: None }
    }

    pub(crate) fn version(&self) -> Version {
        self.handle.connect_info.version
    }

    async fn run(
        &mut self,
        reader: &mut Reader,
        writer: &mut Writer,
        mut incoming: Incoming,
    ) -> Result<Farewell, ConnectionError> {
        let (shared, id, handle) = (Rc::clone(&self.shared), Rc::clone(&self.id), Rc::clone(&self.handle));
        let fill = |out: &mut Outbox, now| shared.broker.borrow_mut().fill(&id, &handle, out, now);
        let writing = write_all(&shared.env, &handle, writer, fill);
        let reading = self.listen(reader, &mut incoming);
        tokio::select! {
            biased;
            () = handle.ended.notified() => Err(handle.reason()),
            end = reading => end,
            end = writing => Err(end),
        }
    }

    /// Tells a client of MQTT 5 why its connection ends, if it is still there to hear it.
    ///
    /// What it still sends is read and dropped for a moment: a socket that is closed with something unread takes back what
    /// the client has not read either.
    async fn say_goodbye(&self, reader: &mut Reader, writer: &mut Writer, error: &ConnectionError) {
        let (Version::V5, Some(code), false) = (self.version(), error.code(), self.handle.writing.get())
        else {
            return;
        };
        let info = &self.handle.connect_info;
        let reason = if info.wants_reasons { error.to_string() } else { String::new() };
        // What it was answered before comes first, be it its CONNACK.
        let mut last = bytes::BytesMut::new();
        self.handle.control().iter().for_each(|packet| last.extend_from_slice(packet));
        last.extend_from_slice(&packet::disconnect(code, &reason, info.packet_maximum));
        let write = async {
            writer.write_all(&last).await?;
            writer.shutdown().await?;
            let mut unheard = [0; 1024];
            while reader.read(&mut unheard).await? > 0 {}
            Ok::<(), std::io::Error>(())
        };
        // Whoever does not take it is gone.
        let _ = self.shared.env.timeout(plan::GOODBYE, write).await;
    }

    /// The connection is over: the session goes its way, and so does the will.
    fn leave(&mut self, end: &Result<Farewell, ConnectionError>) {
        let now = self.shared.env.now();
        if let Err(error) = end {
            self.shared.broker.borrow().counts.connection_ended(&self.id, error);
        }
        let will = self.handle.will.take();
        let expiry = self.session(|session| session.expiry);
        let mut broker = self.shared.broker.borrow_mut();
        broker.rates.close(&self.account, now);
        broker.detach(&self.id, &self.handle, now);
        let Some(will) = will else { return };
        let wait = will.delay.min(expiry);
        match end {
            Ok(Farewell::Polite) => broker.will_done(&self.id, &will),
            // Its client goes on with the session in time.
            Err(ConnectionError::TakenOver { resumed: true }) if will.delay > 0 => {}
            // One that has no delay was published before; the others wait in the store for the next broker.
            Err(ConnectionError::Ending) => {}
            Err(ConnectionError::Revoked) => {
                // A user that is no more has no last word.
                broker.will_done(&self.id, &will);
                broker.counts.will_refused(&self.id, &will.publish.topic, "its client lost the right");
            }
            _ if wait > 0 => {
                broker.delay_will(&self.id, will, now + std::time::Duration::from_secs(wait.into()))
            }
            _ => {
                drop(broker);
                self.publish_will(will);
            }
        }
    }

    /// Another may have lost the right since its CONNECT.
    fn publish_will(&mut self, will: Rc<Will>) {
        let mut broker = self.shared.broker.borrow_mut();
        if !broker.may_write(&self.id, &will.publish.topic) {
            broker.will_done(&self.id, &will);
            broker.counts.will_refused(&self.id, &will.publish.topic, "its client lost the right");
            return;
        }
        drop(broker);
        let earlier = self.settling.len();
        self.publish(will.publish.clone(), None);
        if self.settling.len() > earlier {
            self.said = Some(will);
        } else {
            // Nothing of it is waited for, and what the store has to take of it goes there in the same commit.
            self.shared.broker.borrow_mut().will_done(&self.id, &will);
        }
    }

    /// Waits for all that is not settled yet. A will that was not taken where it was to go stays in the store, for the next start.
    async fn settle_all(&mut self) {
        let mut is_taken = true;
        while let Some(settled) = self.settling.next().await {
            is_taken = settled.result.is_ok();
        }
        if let Some(will) = self.said.take().filter(|_| is_taken) {
            self.shared.broker.borrow_mut().will_done(&self.id, &will);
        }
    }

    /// Hears the client until it ends the connection, and then handles what was held back of it.
    async fn listen(
        &mut self,
        read: &mut Reader,
        incoming: &mut Incoming,
    ) -> Result<Farewell, ConnectionError> {
        let silence = plan::silence(self.handle.connect_info.keep_alive);
        let env = self.shared.env.clone();
        let mut heard_at = env.now();
        let mut turn = Cost::default();
        let mut not_before = heard_at + self.account.pause(heard_at);
        let mut ended = None;
        loop {
            if self.held.is_empty()
                && let Some(end) = ended.take()
            {
                return end;
            }
            self.handle.set_held_up(self.held.is_full() || ended.is_some());
            if turn.work >= plan::TURN_WORK || turn.bytes >= plan::TURN_BYTES {
                // What is in the buffer already could be thousands of packets; the others' turn comes first.
                turn = Cost::default();
                tokio::task::yield_now().await;
            }
            let until = silence.map(|silence| heard_at + silence);
            let room = self.handle.waiting() < plan::CONTROL;
            let pause = not_before.since(env.now());
            let may_go_on = room && pause.is_zero() && self.settling.len() < plan::PENDING;
            let may_hear = may_go_on && !self.held.is_full() && ended.is_none();
            let due = if may_go_on { self.held.next() } else { None };
            let event = match due {
                Some(packet) => Event::Due(packet),
                None => tokio::select! {
                    biased;
                    Some(settled) = self.settling.next(), if !self.settling.is_empty() => Event::Settled(settled),
                    (waiting, permit) = self.held.freed(), if may_go_on => Event::Freed(waiting, permit),
                    packet = incoming.hear(&env, read, until), if may_hear => Event::Heard(packet),
                    () = self.handle.room.notified(), if !room => Event::Room,
                    () = env.sleep(pause), if !pause.is_zero() => Event::Room,
                },
            };
            self.looks = 0;
            match event {
                Event::Settled(settled) => self.acknowledge(settled)?,
                Event::Room => {}
                Event::Heard(Err(error)) => ended = Some(Err(error)),
                Event::Heard(Ok(packet)) => {
                    heard_at = env.now();
                    self.handle.heard(heard_at);
                    let cost = self.cost_of(&packet);
                    if self.held.holds(&packet) {
                        self.held.push(packet);
                    } else {
                        ended = self.take(packet).transpose();
                    }
                    let cost = cost.with_looks(self.looks);
                    turn = turn + cost;
                    not_before = self.pay(cost);
                }
                // It was paid when it was heard, except for what is looked at only now.
                Event::Due(packet) => {
                    turn = turn + self.cost_of(&packet);
                    if let Some(farewell) = self.take(packet)? {
                        return Ok(farewell);
                    }
                    not_before = self.pay(Cost::default().with_looks(self.looks));
                }
                Event::Freed(waiting, permit) => {
                    self.go_on(waiting, permit);
                    let cost = Cost::default().with_looks(self.looks);
                    turn = turn + cost;
                    not_before = self.pay(cost);
                }
            }
        }
    }

    /// What a packet costs by itself.
    fn cost_of(&self, packet: &Packet) -> Cost {
        Cost::of(packet, self.shared.broker.borrow().retained_count())
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

    /// Does what a packet asks for.
    fn take(&mut self, packet: Packet) -> Result<Option<Farewell>, ConnectionError> {
        match packet {
            ref ack @ (Packet::PubAck(_) | Packet::PubRec(..) | Packet::PubComp(_))
                if self.session(|session| session.is_contradicted_by(ack)) =>
            {
                return Err(ConnectionError::Protocol("acknowledgement does not fit the message's QoS"));
            }
            Packet::Publish(publish) => self.take_publish(publish)?,
            Packet::Oversized { publish, size } => {
                let limit = self.shared.packet_bytes;
                self.drop_oversized(&publish, size, limit);
            }
            Packet::PubAck(pkid) => self.session(|session| session.acknowledged(pkid)),
            Packet::PubRec(pkid, code) => self.received(pkid, code),
            Packet::PubComp(pkid) => self.session(|session| session.completed(pkid)),
            Packet::PubRel(pkid) => self.released(pkid),
            Packet::Subscribe { pkid, id, filters } => self.subscribe(pkid, id, filters)?,
            Packet::Unsubscribe { pkid, filters } => self.unsubscribe(pkid, &filters)?,
            Packet::PingReq => self.handle.send(packet::pingresp()),
            Packet::Disconnect { code, session_expiry } => {
                if let Some(expiry) = session_expiry {
                    if self.session(|session| session.expiry) == 0 && expiry > 0 {
                        return Err(ConnectionError::Protocol(
                            "session that ends with its connection is extended",
                        ));
                    }
                    self.shared.broker.borrow_mut().set_expiry(&self.id, expiry);
                }
                return Ok(Some(if code == 0 { Farewell::Polite } else { Farewell::WithWill }));
            }
            Packet::Connect(_) | Packet::OtherVersion(_) => {
                return Err(ConnectionError::Protocol("second CONNECT"));
            }
        }
        Ok(None)
    }

    /// A subscriber has a message of QoS 2. That is in the store before its identifier is released.
    fn received(&mut self, pkid: u16, code: u8) {
        let is_refused = code >= REFUSED;
        let is_known = self.session(|session| Some(session.received(pkid, is_refused))) == Some(true);
        if is_refused {
            return;
        }
        let change =
            if is_known { self.shared.broker.borrow_mut().change_of(&self.id, &self.handle) } else { None };
        // 0x92: no message has that identifier.
        self.answer(Answer::PubRel(pkid), if is_known { 0 } else { 0x92 }, change);
    }

    fn released(&mut self, pkid: u16) {
        self.open.remove(&pkid);
        let is_known = self.unreleased().release(pkid);
        let change = if is_known {
            let row = RowKey::Unreleased(qos2::page_of(pkid));
            self.shared.broker.borrow_mut().note_row(&self.id, &self.handle, row)
        } else {
            None
        };
        self.answer(Answer::PubComp(pkid), if is_known { 0 } else { 0x92 }, change);
    }

    /// Answers in its turn, when the store has `change`.
    pub(crate) fn answer(&mut self, answer: Answer, code: u8, change: Option<u64>) {
        let shared = Rc::clone(&self.shared);
        self.settling.push_back(Box::pin(async move {
            stored(&shared, change).await;
            Settled { answer, result: Ok(code) }
        }));
    }

    pub(crate) fn session<T: Default>(&self, work: impl FnOnce(&mut crate::session::Session) -> T) -> T {
        self.shared.broker.borrow_mut().session_of(&self.id, &self.handle).map(work).unwrap_or_default()
    }

    fn acknowledge(&mut self, settled: Settled) -> Result<(), ConnectionError> {
        let Settled { answer, result } = settled;
        let (version, result) = (self.version(), result);
        let packet = match (answer, result) {
            (Answer::None, _) => return Ok(()),
            (_, Err(error)) => return Err(error),
            (Answer::PubAck(pkid), Ok(code)) => packet::puback(pkid, version, code),
            (Answer::PubRec(pkid), Ok(code)) => {
                if code >= REFUSED {
                    self.open.remove(&pkid);
                }
                packet::pubrec(pkid, version, code)
            }
            (Answer::PubRel(pkid), Ok(code)) => packet::pubrel(pkid, version, code),
            (Answer::PubComp(pkid), Ok(code)) => packet::pubcomp(pkid, version, code),
        };
        self.handle.send(packet);
        Ok(())
    }
}
