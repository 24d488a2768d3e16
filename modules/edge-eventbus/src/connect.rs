//! From a connection to a client: TLS, CONNECT, who it is, and whether there is a place for it.

use std::rc::Rc;
use std::sync::Arc;

use beehive::{Env, Moment};
use bytes::BytesMut;
use tokio::io::AsyncWriteExt;

use crate::access::Login;
use crate::error::ConnectionError;
use crate::incoming::{Incoming, fetch};
use crate::packet::{self, Connect, ConnectCode, Packet, ServerLimits, Version, Will};
use crate::peer::Peer;
use crate::session::{ConnectInfo, ConnectionHandle};
use crate::shared::Shared;
use crate::stream::{Reader, Stream, Writer};
use crate::topic::TopicDefect;
use crate::web_socket::Allowance;
use crate::{identity, plan, topic, web_socket};

/// A client that was let in.
pub(crate) struct Accepted {
    pub(crate) reader: Reader,
    pub(crate) writer: Writer,
    pub(crate) incoming: Incoming,
    pub(crate) id: Rc<str>,
    pub(crate) handle: Rc<ConnectionHandle>,
}

/// Lets a client in; `None` when it was told why not. All of it together has one deadline.
pub(crate) async fn accept_client(
    shared: &Shared,
    stream: Stream,
    mut peer: Peer,
) -> Result<Option<Accepted>, ConnectionError> {
    let until = shared.env.now() + plan::CONNECT_DEADLINE;
    let left = || until.since(shared.env.now());
    let stream = match stream {
        Stream::Tcp(socket) if peer.listener.has_tls() => {
            let shaken = shared.env.timeout(left(), shared.tls.accept(&shared.env, socket)).await;
            let (stream, certified) = shaken.ok_or(ConnectionError::Silent)??;
            peer.certified = certified;
            Stream::Tls(Box::new(stream))
        }
        stream => stream,
    };
    let allowance = Allowance::of_newcomer();
    let stream = if peer.listener.has_web_socket() {
        let opened =
            shared.env.timeout(left(), web_socket::accept(stream, &shared.web_socket, &allowance)).await;
        opened.ok_or(ConnectionError::Silent)??
    } else {
        stream
    };
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut buffer = BytesMut::new();
    let heard = first(shared, &mut reader, &mut buffer, until).await;
    let refusal = match heard {
        Ok(Packet::Connect(connect)) => {
            let (version, label, most) = (connect.version, peer.label.clone(), connect.packet_maximum);
            let judged = shared.env.timeout(left(), admit(shared, connect, peer)).await;
            match judged.unwrap_or(Ok(Err(ConnectCode::ServerUnavailable)))? {
                Ok((id, handle)) => {
                    allowance.lift();
                    let limit = shared.packet_bytes;
                    let incoming = Incoming::new(buffer, version, limit, Arc::clone(&shared.large));
                    return Ok(Some(Accepted { reader, writer, incoming, id, handle }));
                }
                Err(code) => {
                    let answer = packet::connack(version, false, code, &ServerLimits::default());
                    // Whoever takes no packet of that size hears no more than the end [MQTT-3.1.2-24].
                    let answer = if answer.len() > most { bytes::Bytes::new() } else { answer };
                    Refusal { answer, code, label }
                }
            }
        }
        Ok(Packet::OtherVersion(level)) => {
            let code = ConnectCode::UnacceptableVersion;
            Refusal { answer: packet::unknown_version(level), code, label: peer.label }
        }
        // Ahead of CONNACK it is CONNACK that says so (MQTT 5, 3.14).
        Err(ConnectionError::MalformedPacket(error)) if is_of_5(&buffer) => {
            shared
                .broker
                .borrow()
                .counts
                .newcomer_ended(&peer.label, &ConnectionError::MalformedPacket(error.clone()));
            let code = ConnectCode::Malformed(error.code());
            let answer = packet::connack(Version::V5, false, code, &ServerLimits::default());
            Refusal { answer, code, label: peer.label }
        }
        Ok(_) => return Err(ConnectionError::Protocol("first packet is not CONNECT")),
        Err(error) => return Err(error),
    };
    let Refusal { answer, code, label } = refusal;
    shared.broker.borrow().counts.connection_refused(&label, code);
    let write = async {
        writer.write_all(&answer).await?;
        writer.shutdown().await
    };
    shared.env.timeout(plan::WRITE_DEADLINE, write).await.ok_or(ConnectionError::Stuck)??;
    Ok(None)
}

struct Refusal {
    answer: bytes::Bytes,
    code: ConnectCode,
    label: String,
}

/// Whether a CONNECT that cannot be read is one of MQTT 5.
fn is_of_5(buffer: &[u8]) -> bool {
    let name = buffer.iter().skip(1).position(|byte| byte & 0x80 == 0).map(|last| last + 2);
    name.and_then(|name| buffer.get(name..)).is_some_and(|rest| rest.starts_with(b"\x00\x04MQTT\x05"))
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
    if buffer.first().is_none_or(|first| first >> 4 != packet::CONNECT >> 4) {
        return Err(ConnectionError::Protocol("first packet is not CONNECT"));
    }
    loop {
        // The version is in the packet itself.
        if let Some(version) = packet::connects_as(buffer)?
            && let Some(packet) = packet::decode(buffer, plan::CONNECT_BYTES, version)?
        {
            return Ok(packet);
        }
        fetch(&shared.env, reader, buffer, Some(until)).await?;
    }
}

type Admitted = (Rc<str>, Rc<ConnectionHandle>);

/// Judges a CONNECT, and takes its client in.
async fn admit(
    shared: &Shared,
    connect: Connect,
    peer: Peer,
) -> Result<Result<Admitted, ConnectCode>, ConnectionError> {
    let Connect { version, client_id, clean, will, .. } = &connect;
    let on = will.as_ref().map(|will| will.publish.topic.as_str());
    match on.and_then(topic::name_defect) {
        Some(TopicDefect::Protocol(_)) if *version == Version::V5 => {
            return Ok(Err(ConnectCode::InvalidTopic));
        }
        Some(TopicDefect::Protocol(what)) => return Err(ConnectionError::Protocol(what)),
        Some(TopicDefect::Policy(_)) | None => {}
    }
    if connect.has_auth_method {
        return Ok(Err(ConnectCode::UnknownAuthMethod));
    }
    let has_id = !client_id.is_empty();
    if !has_id && (*version == Version::V31 || (*version == Version::V311 && !clean)) {
        return Ok(Err(ConnectCode::IdentifierRejected));
    }
    let (user, password) = (connect.user.clone(), connect.password.clone());
    let Login { user, auth_method } = match shared.access.login(&shared.env, &peer, user, password).await {
        Ok(login) => login,
        Err(code) => return Ok(Err(code)),
    };
    let client_id = if has_id { connect.client_id.clone() } else { generated_id(&shared.env) };
    let id = match identity::name(user.as_deref(), &client_id) {
        Ok(id) => id,
        Err(identity::InvalidName(what)) => {
            tracing::debug!(peer = %peer.label, what, "client id refused");
            return Ok(Err(ConnectCode::IdentifierRejected));
        }
    };
    let now = shared.env.now();
    let held = server_keep_alive(connect.version, connect.keep_alive, shared.max_keep_alive);
    let info = ConnectInfo {
        peer,
        auth_method,
        keep_alive: held.unwrap_or(connect.keep_alive),
        at: now,
        version: connect.version,
        is_bridge: connect.is_bridge,
        session_expiry: connect.session_expiry,
        receive_maximum: connect.receive_maximum,
        packet_maximum: connect.packet_maximum,
        alias_maximum: connect.alias_maximum,
        wants_reasons: connect.wants_reasons,
    };
    let limits = ServerLimits {
        assigned_id: (!has_id).then_some(client_id),
        packet: shared.packet_bytes,
        keep_alive: held,
    };
    let welcome = packet::connack(connect.version, false, ConnectCode::Accepted, &limits);
    if welcome.len() > connect.packet_maximum {
        return Ok(Err(ConnectCode::PacketTooLarge));
    }
    Ok(take_in(shared, &id, connect.clean, connect.will, info, &limits))
}

/// Takes a client in whose name is proved, if there is a place for it.
fn take_in(
    shared: &Shared,
    id: &Rc<str>,
    clean: bool,
    will: Option<Will>,
    info: ConnectInfo,
    limits: &ServerLimits,
) -> Result<Admitted, ConnectCode> {
    let mut broker = shared.broker.borrow_mut();
    // mosquitto's bridges bring such a will whether or not anybody wants it. It is dropped like a publish there.
    let will = match will {
        Some(will) if topic::is_brokers_own(&will.publish.topic) => {
            let what = "only the broker publishes there; it is dropped";
            broker.counts.will_refused(id, &will.publish.topic, what);
            None
        }
        will => will,
    };
    // At CONNECT, so that its owner hears of it; and again when it is published, as rights may change until then.
    if let Some(Will { publish, .. }) = &will
        && (topic::name_defect(&publish.topic).is_some() || !broker.may_write(id, &publish.topic))
    {
        broker.counts.will_refused(id, &publish.topic, "its client may not publish it");
        return Err(ConnectCode::NotAuthorized);
    }
    let ends = clean && info.session_expiry.unwrap_or_default() == 0;
    if broker.is_ending || !broker.has_room(id, ends) || !broker.make_place(id, &info, shared.limits, info.at)
    {
        return Err(ConnectCode::ServerUnavailable);
    }
    tracing::debug!(client = ?id, peer = %info.peer.label, version = ?info.version, "client connected");
    let version = info.version;
    let (handle, present) = broker.attach(id, clean, info);
    // In the same commit as its session, and ahead of what it publishes: a message of its that the store has says that the will is there.
    broker.set_will(id, &handle, will);
    handle.send(packet::connack(version, present, ConnectCode::Accepted, limits));
    Ok((Rc::clone(id), handle))
}

/// What a client is to keep to where the settings have a bound (0: none) and it asks for more, in seconds. Before MQTT 5 nothing
/// could tell it.
fn server_keep_alive(version: Version, asked: u16, most: u16) -> Option<u16> {
    let asks_for_more = asked == 0 || asked > most;
    (version == Version::V5 && most > 0 && asks_for_more).then_some(most)
}

fn generated_id(env: &Env) -> String {
    let mut id = String::from("auto-");
    for byte in env.random_id() {
        id.push_str(&format!("{byte:02x}"));
    }
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_of_5_is_told_of_a_shorter_keep_alive() {
        let held = |asked, most| server_keep_alive(Version::V5, asked, most);
        assert_eq!(
            [held(120, 60), held(0, 60), held(60, 60), held(30, 60)],
            [Some(60), Some(60), None, None]
        );
        assert_eq!([held(0, 0), held(u16::MAX, 0)], [None, None]);
        assert_eq!(server_keep_alive(Version::V311, 120, 60), None);
    }
}
