//! From a connection to a client: TLS, CONNECT, who it is, and whether there is a place for it.

use std::rc::Rc;

use beehive::{Env, Moment};
use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::access::Login;
use crate::error::ConnectionError;
use crate::packet::{self, Connect, ConnectCode, Packet, Publish};
use crate::peer::Peer;
use crate::session::{ConnectInfo, ConnectionHandle};
use crate::shared::Shared;
use crate::stream::{Reader, Stream, Writer};
use crate::topic::TopicDefect;
use crate::{identity, plan, topic};

/// A client that was let in.
pub(crate) struct Accepted {
    pub(crate) reader: Reader,
    pub(crate) writer: Writer,
    /// What it sent behind its CONNECT.
    pub(crate) buffer: BytesMut,
    pub(crate) id: Rc<str>,
    pub(crate) handle: Rc<ConnectionHandle>,
    pub(crate) will: Option<Publish>,
}

/// Lets a client in; `None` when it was told why not. All of it together has one deadline.
pub(crate) async fn accept_client(
    shared: &Shared,
    stream: Stream,
    mut peer: Peer,
) -> Result<Option<Accepted>, ConnectionError> {
    let until = shared.env.now() + plan::CONNECT_DEADLINE;
    let left = || until.since(shared.env.now());
    let stream = match (stream, peer.listener) {
        (Stream::Tcp(socket), crate::peer::ListenerKind::Tls) => {
            let shaken = shared.env.timeout(left(), shared.tls.accept(&shared.env, socket)).await;
            let (stream, user) = shaken.ok_or(ConnectionError::Silent)??;
            peer.certified = user;
            Stream::Tls(Box::new(stream))
        }
        (stream, _) => stream,
    };
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut buffer = BytesMut::new();
    let admitted = match first(shared, &mut reader, &mut buffer, until).await? {
        Packet::Connect(connect) => {
            let label = peer.label.clone();
            let judged = shared.env.timeout(left(), admit(shared, connect, peer)).await;
            let admitted = judged.unwrap_or(Ok(Err(ConnectCode::ServerUnavailable)))?;
            admitted.map_err(|code| (code, label))
        }
        Packet::OtherVersion(level) => {
            tracing::debug!(level, "client speaks another version of MQTT");
            Err((ConnectCode::UnacceptableVersion, peer.label))
        }
        _ => return Err(ConnectionError::Protocol("first packet is not CONNECT")),
    };
    match admitted {
        Ok((id, handle, will)) => Ok(Some(Accepted { reader, writer, buffer, id, handle, will })),
        Err((code, label)) => {
            shared.broker.borrow().counts.connection_refused(&label, code);
            let answer = packet::connack(false, code);
            let write = async {
                writer.write_all(&answer).await?;
                writer.shutdown().await
            };
            shared.env.timeout(plan::WRITE_DEADLINE, write).await.ok_or(ConnectionError::Stuck)??;
            Ok(None)
        }
    }
}

/// The first packet.
async fn first(
    shared: &Shared,
    reader: &mut Reader,
    buffer: &mut BytesMut,
    until: Moment,
) -> Result<Packet, ConnectionError> {
    while buffer.is_empty() {
        // Who speaks something else is known by the first byte, and need not be waited for.
        fetch(&shared.env, reader, buffer, Some(until)).await?;
    }
    if buffer.first() != Some(&packet::CONNECT) {
        return Err(ConnectionError::Protocol("first packet is not CONNECT"));
    }
    hear(&shared.env, reader, buffer, plan::CONNECT_BYTES, Some(until)).await
}

type Admitted = (Rc<str>, Rc<ConnectionHandle>, Option<Publish>);

/// Judges a CONNECT, and takes its client in.
async fn admit(
    shared: &Shared,
    connect: Connect,
    peer: Peer,
) -> Result<Result<Admitted, ConnectCode>, ConnectionError> {
    let Connect { client_id, clean, keep_alive, will, user, password } = connect;
    if let Some(TopicDefect::Protocol(what)) = will.as_ref().and_then(|will| topic::name_defect(&will.topic))
    {
        return Err(ConnectionError::Protocol(what));
    }
    if client_id.is_empty() && !clean {
        return Ok(Err(ConnectCode::IdentifierRejected));
    }
    let Login { user, auth_method } = match shared.access.login(&shared.env, &peer, user, password).await {
        Ok(login) => login,
        Err(code) => return Ok(Err(code)),
    };
    let client_id = if client_id.is_empty() { generated_id(&shared.env) } else { client_id };
    let id = match identity::name(user.as_deref(), &client_id) {
        Ok(id) => id,
        Err(identity::InvalidName(what)) => {
            tracing::debug!(peer = %peer.label, what, "client id refused");
            return Ok(Err(ConnectCode::IdentifierRejected));
        }
    };
    let mut broker = shared.broker.borrow_mut();
    // mosquitto's bridges bring such a will whether or not anybody wants it. It is dropped like a publish there.
    let will = match will {
        Some(will) if topic::is_brokers_own(&will.topic) => {
            broker.counts.will_refused(&id, &will.topic, "only the broker publishes there; it is dropped");
            None
        }
        will => will,
    };
    // At CONNECT, so that its owner hears of it; and again when it is published, as rights may change until then.
    if let Some(will) = &will
        && (topic::name_defect(&will.topic).is_some() || !broker.may_write(&id, &will.topic))
    {
        broker.counts.will_refused(&id, &will.topic, "its client may not publish it");
        return Ok(Err(ConnectCode::NotAuthorized));
    }
    if !broker.has_room(&id, clean) {
        return Ok(Err(ConnectCode::ServerUnavailable));
    }
    let now = shared.env.now();
    let connect_info = ConnectInfo { peer, auth_method, keep_alive, at: now };
    if !broker.make_place(&id, &connect_info, shared.limits, now) {
        return Ok(Err(ConnectCode::ServerUnavailable));
    }
    tracing::debug!(client = ?id, peer = %connect_info.peer.label, "client connected");
    let (handle, present) = broker.attach(&id, clean, connect_info);
    handle.send(packet::connack(present, ConnectCode::Accepted));
    Ok(Ok((id, handle, will)))
}

fn generated_id(env: &Env) -> String {
    let mut id = String::from("auto-");
    for byte in env.random_id() {
        id.push_str(&format!("{byte:02x}"));
    }
    id
}

/// The next packet. Dropped half-way it has taken nothing out of `buffer`.
pub(crate) async fn hear(
    env: &Env,
    socket: &mut Reader,
    buffer: &mut BytesMut,
    limit: usize,
    until: Option<Moment>,
) -> Result<Packet, ConnectionError> {
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
    socket: &mut Reader,
    buffer: &mut BytesMut,
    until: Option<Moment>,
) -> Result<(), ConnectionError> {
    if buffer.is_empty() && buffer.capacity() > plan::BUFFER_BYTES {
        // One large packet is no reason to keep so much for a silent client.
        *buffer = BytesMut::new();
    }
    buffer.reserve(1024);
    let read = socket.read_buf(buffer);
    let count = match until {
        Some(until) => env.timeout(until.since(env.now()), read).await.ok_or(ConnectionError::Silent)??,
        None => read.await?,
    };
    if count == 0 { Err(ConnectionError::Closed) } else { Ok(()) }
}
