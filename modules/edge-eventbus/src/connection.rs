//! One client's connection, from CONNECT to its end.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use beehive::{Address, Env, Moment};
use bytes::{Bytes, BytesMut};
use contract::devicetwin::TwinMsg;
use futures::future::LocalBoxFuture;
use futures::stream::{FuturesOrdered, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::{Mutex, Notify, OwnedSemaphorePermit, oneshot, watch};

use crate::broker::Broker;
use crate::error::Broken;
use crate::packet::{self, Connect, ConnectCode, Packet, Publish};
use crate::session::{Cut, Message, Wires};
use crate::sources::Source;
use crate::topic::Defect;
use crate::uploads::{Item, Line, Outcome, Uploads};
use crate::{plan, topic};

/// 1 s: a publisher waits no longer for room in slow queues, so that two clients that wait for each other go on.
const ROOM_WAIT: Duration = Duration::from_secs(1);

/// What all connections share.
pub(crate) struct Shared {
    pub(crate) broker: RefCell<Broker>,
    /// Up to which change the store has the retained messages.
    pub(crate) stored: watch::Sender<u64>,
    /// Held while the store takes some.
    pub(crate) storing: Mutex<()>,
    /// What is on its way into the outbox.
    pub(crate) uploads: Rc<Uploads>,
    /// Connections that have not said who they are, the oldest first.
    pub(crate) strangers: RefCell<VecDeque<Rc<Notify>>>,
    pub(crate) twin: Address<TwinMsg>,
    pub(crate) env: Env,
}

impl Shared {
    /// Sends the oldest stranger away; `false` if there is none.
    pub(crate) fn displace(&self) -> bool {
        let oldest = self.strangers.borrow_mut().pop_front();
        oldest.is_some_and(|leave| {
            leave.notify_one();
            true
        })
    }
}

/// A publish whose handling has ended.
struct Settled {
    qos: u8,
    pkid: u16,
    result: Result<(), Broken>,
}

type Settling = FuturesOrdered<LocalBoxFuture<'static, Settled>>;

/// Serves one connection to its end, and what it set going to the end of that.
pub(crate) fn serve(shared: Rc<Shared>, socket: TcpStream) -> impl Future<Output = ()> {
    // Small packets that are waited for; a refusal only costs time.
    let _ = socket.set_nodelay(true);
    let leave = Rc::<Notify>::default();
    shared.strangers.borrow_mut().push_back(Rc::clone(&leave));
    serve_stranger(shared, socket, leave)
}

async fn serve_stranger(shared: Rc<Shared>, mut socket: TcpStream, leave: Rc<Notify>) {
    let mut buffer = BytesMut::new();
    let greeted = tokio::select! {
        greeted = greet(&shared, &mut socket, &mut buffer) => greeted,
        () = leave.notified() => Err(Broken::Displaced),
    };
    shared.strangers.borrow_mut().retain(|other| !Rc::ptr_eq(other, &leave));
    let connect = match greeted {
        Ok(Some(connect)) => connect,
        Ok(None) => return,
        Err(error) => return note(&shared, "", &error),
    };
    let name = if connect.client_id.is_empty() { generated_id(&shared.env) } else { connect.client_id };
    let id: Rc<str> = name.into();
    let (wires, present) = shared.broker.borrow_mut().attach(&id, connect.clean);
    wires.send(packet::connack(present, ConnectCode::Accepted));
    tracing::debug!(client = %id, present, "client connected");
    let line = Rc::default();
    let mut client = Client { shared, id, wires, line, settling: FuturesOrdered::new() };
    let end = client.run(&mut socket, buffer, connect.keep_alive).await;
    drop(socket);
    client.shared.broker.borrow_mut().detach(&client.id, &client.wires);
    if let Err(error) = end {
        note(&client.shared, &client.id, &error);
        // Clients outlive a broker that ends, and come back to the next one.
        if let (Some(will), false) = (connect.will, matches!(error, Broken::Ending)) {
            client.publish(will, None);
        }
    }
    // A device that sends one value and leaves has still sent it.
    while client.settling.next().await.is_some() {}
}

fn note(shared: &Shared, client: &str, error: &Broken) {
    let reason = beehive::Fault::from_error(error).reason;
    match error {
        Broken::Malformed(_) | Broken::Protocol(_) => {
            let mut broker = shared.broker.borrow_mut();
            broker.counts.malformed += 1;
            let broken = broker.counts.malformed;
            // Whoever sends nonsense shall not fill the log with it.
            if broken.is_power_of_two() {
                tracing::warn!(client, %reason, broken, "connection closed");
            } else {
                tracing::debug!(client, %reason, "connection closed");
            }
        }
        Broken::NotKept(_) => {
            let mut broker = shared.broker.borrow_mut();
            broker.counts.closed_for_uploads += 1;
            let closed = broker.counts.closed_for_uploads;
            // Clients come again and again while the cloud is away.
            if closed.is_power_of_two() {
                tracing::warn!(client, %reason, closed, "connection closed");
            } else {
                tracing::debug!(client, %reason, "connection closed");
            }
        }
        Broken::Unanswered(_) | Broken::Stuck => tracing::warn!(client, %reason, "connection closed"),
        Broken::Socket(_)
        | Broken::Closed
        | Broken::Silent
        | Broken::Displaced
        | Broken::TakenOver
        | Broken::Ending => {
            tracing::debug!(client, %reason, "connection closed");
        }
    }
}

fn generated_id(env: &Env) -> String {
    let mut id = String::from("auto-");
    for byte in env.random_id() {
        id.push_str(&format!("{byte:02x}"));
    }
    id
}

/// Reads CONNECT. `None` when the client was told why it cannot stay.
async fn greet(
    shared: &Shared,
    socket: &mut TcpStream,
    buffer: &mut BytesMut,
) -> Result<Option<Connect>, Broken> {
    let (mut read, mut write) = socket.split();
    let until = Some(shared.env.now() + plan::CONNECT_DEADLINE);
    while buffer.is_empty() {
        // Who speaks something else is known by the first byte, and need not be waited for.
        fetch(&shared.env, &mut read, buffer, until).await?;
    }
    if buffer.first() != Some(&packet::CONNECT) {
        return Err(Broken::Protocol("first packet is not CONNECT"));
    }
    let refusal = match hear(&shared.env, &mut read, buffer, plan::CONNECT_BYTES, until).await? {
        Packet::Connect(connect) => match connect_defect(&connect) {
            None => return Ok(Some(connect)),
            Some(code) => code,
        },
        Packet::OtherVersion(level) => {
            tracing::debug!(level, "client speaks another version of MQTT");
            ConnectCode::UnacceptableVersion
        }
        _ => return Err(Broken::Protocol("first packet is not CONNECT")),
    };
    shared.broker.borrow_mut().counts.refused_connections += 1;
    let answer = packet::connack(false, refusal);
    let written = shared.env.timeout(plan::WRITE_DEADLINE, write.write_all(&answer)).await;
    written.ok_or(Broken::Stuck)??;
    Ok(None)
}

fn connect_defect(connect: &Connect) -> Option<ConnectCode> {
    let id = &connect.client_id;
    let nameless = id.is_empty() && !connect.clean;
    (nameless || id.len() > plan::CLIENT_ID_BYTES).then_some(ConnectCode::IdentifierRejected)
}

/// The next packet. Dropped half-way it has taken nothing out of `buffer`.
async fn hear(
    env: &Env,
    socket: &mut ReadHalf<'_>,
    buffer: &mut BytesMut,
    limit: usize,
    until: Option<Moment>,
) -> Result<Packet, Broken> {
    loop {
        if let Some(packet) = packet::decode(buffer, limit)? {
            return Ok(packet);
        }
        fetch(env, socket, buffer, until).await?;
    }
}

/// Reads what there is.
async fn fetch(
    env: &Env,
    socket: &mut ReadHalf<'_>,
    buffer: &mut BytesMut,
    until: Option<Moment>,
) -> Result<(), Broken> {
    if buffer.is_empty() && buffer.capacity() > plan::BUFFER_BYTES {
        // One large packet is no reason to keep so much for a silent client.
        *buffer = BytesMut::new();
    }
    buffer.reserve(1024);
    let read = socket.read_buf(buffer);
    let count = match until {
        Some(until) => env.timeout(until.since(env.now()), read).await.ok_or(Broken::Silent)??,
        None => read.await?,
    };
    if count == 0 { Err(Broken::Closed) } else { Ok(()) }
}

enum Event {
    Heard(Packet),
    Settled(Settled),
    Room,
}

struct Client {
    shared: Rc<Shared>,
    id: Rc<str>,
    wires: Rc<Wires>,
    line: Rc<Line>,
    /// Publishes that are not acknowledged yet, in their order.
    settling: Settling,
}

impl Client {
    async fn run(
        &mut self,
        socket: &mut TcpStream,
        mut buffer: BytesMut,
        keep_alive: u16,
    ) -> Result<(), Broken> {
        let (mut read, mut write) = socket.split();
        let (shared, id, wires) = (Rc::clone(&self.shared), Rc::clone(&self.id), Rc::clone(&self.wires));
        let writing = write_all(&shared, &id, &wires, &mut write);
        let reading = self.listen(&mut read, &mut buffer, keep_alive);
        tokio::select! {
            biased;
            () = wires.ended.notified() => Err(wires.reason()),
            end = reading => end,
            end = writing => end,
        }
    }

    async fn listen(
        &mut self,
        read: &mut ReadHalf<'_>,
        buffer: &mut BytesMut,
        keep_alive: u16,
    ) -> Result<(), Broken> {
        let silence = plan::silence(keep_alive);
        let env = self.shared.env.clone();
        let mut heard_at = env.now();
        let mut turn = 0;
        loop {
            if turn >= plan::TURN {
                // What is in the buffer already could be thousands of packets; the others' turn comes first.
                turn = 0;
                tokio::task::yield_now().await;
            }
            turn += 1;
            let until = silence.map(|silence| heard_at + silence);
            let room = self.wires.waiting() < plan::CONTROL;
            let may_hear = room && self.settling.len() < plan::PENDING;
            let event = tokio::select! {
                biased;
                Some(settled) = self.settling.next(), if !self.settling.is_empty() => Event::Settled(settled),
                packet = hear(&env, read, buffer, plan::PACKET_BYTES, until), if may_hear => Event::Heard(packet?),
                () = self.wires.room.notified(), if !room => Event::Room,
            };
            match event {
                Event::Settled(settled) => self.acknowledge(settled)?,
                Event::Room => {}
                Event::Heard(packet) => {
                    heard_at = env.now();
                    if self.take(packet).await?.is_none() {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Does what a packet asks for; `None` for DISCONNECT.
    async fn take(&mut self, packet: Packet) -> Result<Option<()>, Broken> {
        match packet {
            Packet::Publish(publish) => self.take_publish(publish).await?,
            Packet::PubAck(pkid) => self.session(|session| session.acknowledged(pkid)),
            Packet::PubRel(pkid) => {
                self.session(|session| session.released(pkid));
                self.wires.send(packet::pubcomp(pkid));
            }
            Packet::Subscribe { pkid, filters } => self.subscribe(pkid, &filters)?,
            Packet::Unsubscribe { pkid, filters } => {
                for filter in &filters {
                    self.shared.broker.borrow_mut().unsubscribe(&self.id, filter);
                }
                self.wires.send(packet::unsuback(pkid));
            }
            Packet::PingReq => self.wires.send(packet::pingresp()),
            Packet::Disconnect => return Ok(None),
            Packet::Connect(_) | Packet::OtherVersion(_) => return Err(Broken::Protocol("second CONNECT")),
        }
        Ok(Some(()))
    }

    fn session<T: Default>(&self, work: impl FnOnce(&mut crate::session::Session) -> T) -> T {
        self.shared.broker.borrow_mut().session_of(&self.id, &self.wires).map(work).unwrap_or_default()
    }

    fn subscribe(&self, pkid: u16, filters: &[(String, u8)]) -> Result<(), Broken> {
        if filters.len() > plan::SUBSCRIPTIONS {
            return Err(Broken::Protocol("SUBSCRIBE with more filters than a client may have"));
        }
        for (filter, _) in filters {
            if let Some(Defect::Protocol(what)) = topic::filter_defect(filter) {
                return Err(Broken::Protocol(what));
            }
        }
        let mut broker = self.shared.broker.borrow_mut();
        let codes: Vec<u8> =
            filters.iter().map(|(filter, qos)| broker.subscribe(&self.id, filter, *qos)).collect();
        self.wires.send(packet::suback(pkid, &codes));
        Ok(())
    }

    async fn take_publish(&mut self, publish: Publish) -> Result<(), Broken> {
        let Publish { qos, pkid, .. } = publish;
        match topic::name_defect(&publish.topic) {
            Some(Defect::Protocol(what)) => return Err(Broken::Protocol(what)),
            Some(Defect::Policy(why)) => {
                // 3.1.1 can only acknowledge what it refuses, or have it sent again for ever.
                let refused = {
                    let counts = &mut self.shared.broker.borrow_mut().counts;
                    counts.refused_topics += 1;
                    counts.refused_topics
                };
                if refused.is_power_of_two() {
                    tracing::warn!(client = %self.id, why, refused, "publish refused");
                }
                self.settled(qos, pkid);
                return Ok(());
            }
            None => {}
        }
        if qos == 2 {
            if self.session(|session| session.has_taken(pkid)) {
                self.settled(qos, pkid);
                return Ok(());
            }
            if self.session(|session| session.open_handshakes()) + self.settling.len() >= plan::QOS2 {
                return Err(Broken::Protocol("too many publishes of QoS 2 are not released"));
            }
        }
        wait_for_room(&self.shared, &self.id, &topic::inside(&publish.topic), qos).await;
        let room = if plan::is_for_the_cloud(&publish.topic) {
            self.shared.uploads.room(publish.topic.len() + publish.payload.len()).await
        } else {
            None
        };
        self.publish(publish, room);
        Ok(())
    }

    fn settled(&mut self, qos: u8, pkid: u16) {
        if qos > 0 {
            self.settling.push_back(Box::pin(async move { Settled { qos, pkid, result: Ok(()) } }));
        }
    }

    /// Subscribers get the message at once; DeviceTwin and the store are waited for by what is pushed here.
    fn publish(&mut self, publish: Publish, room: Option<OwnedSemaphorePermit>) {
        let Publish { topic: name, payload, qos, retain, dup, pkid } = publish;
        if topic::name_defect(&name).is_some() {
            // Only a will gets here with such a topic.
            self.shared.broker.borrow_mut().counts.refused_topics += 1;
            return;
        }
        let for_twin = plan::is_twins(&name).then(|| (name.clone(), payload.clone()));
        let upload = plan::is_for_the_cloud(&name).then(|| {
            let source = Source { client: Rc::clone(&self.id), topic: name.as_str().into() };
            let (payload, line) = (payload.clone(), Rc::clone(&self.line));
            self.shared.uploads.put(Item { source, payload, qos, dup, line, room })
        });
        let message = Message { inside: topic::inside(&name), topic: name, payload, qos };
        let change = self.shared.broker.borrow_mut().publish(message, retain);
        if for_twin.is_none() && qos == 0 {
            return;
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
            Settled { qos, pkid, result }
        }));
    }

    fn acknowledge(&self, settled: Settled) -> Result<(), Broken> {
        let Settled { qos, pkid, result } = settled;
        match (qos, result) {
            (0, _) => {}
            (_, Err(error)) => return Err(error),
            (1, Ok(())) => self.wires.send(packet::puback(pkid)),
            (_, Ok(())) => {
                self.session(|session| session.taken(pkid));
                self.wires.send(packet::pubrec(pkid));
            }
        }
        Ok(())
    }
}

/// Waits until the outbox has a message.
async fn kept(shared: &Shared, upload: oneshot::Receiver<Outcome>) -> Result<(), Broken> {
    match upload.await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(why)) => {
            shared.env.sleep(plan::REFUSAL_PAUSE).await;
            Err(Broken::NotKept(why))
        }
        Err(_) => Err(Broken::Ending),
    }
}

async fn ask_twin(shared: &Shared, client: &str, topic: String, payload: Bytes) -> Result<(), Broken> {
    let asked = topic.clone();
    let ask = shared.twin.ask(plan::TWIN_DEADLINE, |reply| TwinMsg::Mqtt { topic, payload, reply });
    match ask.await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(why)) => {
            let mut broker = shared.broker.borrow_mut();
            broker.counts.refused_by_twin += 1;
            let refused = broker.counts.refused_by_twin;
            if refused.is_power_of_two() {
                tracing::warn!(client, topic = %asked, %why, refused, "DeviceTwin refuses a publish");
            } else {
                tracing::debug!(client, topic = %asked, %why, "DeviceTwin refuses a publish");
            }
            Ok(())
        }
        Err(error) => {
            shared.broker.borrow_mut().counts.unanswered_by_twin += 1;
            tracing::error!(client, topic = %asked, %error, "DeviceTwin does not answer");
            Err(Broken::Unanswered(error))
        }
    }
}

/// Back-pressure: waits while the router or, from QoS 1 on, a subscriber is behind.
async fn wait_for_room(shared: &Shared, publisher: &Rc<str>, inside: &str, qos: u8) {
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
            let subscriber = if qos > 0 { broker.slow_subscriber(publisher, inside) } else { None };
            (broker.backlog_is_long().then(|| Rc::clone(&broker.moved)), subscriber)
        };
        if let Some(moved) = router {
            env.timeout(left, moved.notified()).await;
        } else if let Some(wires) = subscriber {
            if now.since(wires.slow_since(now)) >= plan::SUBSCRIBER_PATIENCE {
                shared.broker.borrow_mut().counts.cut_off += 1;
                wires.cut(Cut::Stuck);
            } else {
                env.timeout(left, wires.room.notified()).await;
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
    wires: &Rc<Wires>,
    socket: &mut WriteHalf<'_>,
) -> Result<(), Broken> {
    let mut out = BytesMut::new();
    loop {
        shared.broker.borrow_mut().fill(client, wires, &mut out);
        if out.is_empty() {
            wires.out.notified().await;
            continue;
        }
        let written = shared.env.timeout(plan::WRITE_DEADLINE, socket.write_all(&out)).await;
        written.ok_or(Broken::Stuck)??;
        // A large message is not held on to for the next small one.
        out = if out.capacity() > 2 * plan::WRITE_BYTES { BytesMut::new() } else { out };
        out.clear();
        wires.moved();
    }
}
