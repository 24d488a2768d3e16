//! One connection to an external broker: made, held and made again.

use std::rc::Rc;
use std::time::Duration;

use beehive::{Env, Moment};
use bytes::BytesMut;
use futures::future::LocalBoxFuture;
use futures::stream::{FuturesOrdered, StreamExt};
use tokio::io::AsyncWriteExt;

use super::fault::LinkFault;
use super::state::{LinkStates, Role};
use super::{ExternalSettings, dial};
use crate::error::{ConnectionError, MalformedPacket};
use crate::incoming::{Skipped, fetch};
use crate::outbox::Outbox;
use crate::outgoing::write_all;
use crate::packet::as_client::{self, FromBroker, Hello};
use crate::packet::{Publish, Version, puback};
use crate::plan;
use crate::session::{ConnectInfo, ConnectionHandle};
use crate::stream::{Reader, Writer};

/// 30 s, as KubeEdge's clients have it; a broker closes the connection of who is silent for half as long again.
pub(super) const KEEP_ALIVE: u16 = 30;
const PING_EVERY: Duration = Duration::from_secs(20);
/// 45 s: a broker that has not answered two pings is gone.
const SILENCE: Duration = Duration::from_secs(45);
/// 1 s before a broker is tried again, doubled at each time up to a minute.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
const AGAIN_MAX: Duration = Duration::from_secs(60);
/// 30 s: a connection that lasted so long was a good one, and the next is tried soon.
const LASTED: Duration = Duration::from_secs(30);

/// What was heard, when it has been kept: the identifier to acknowledge, if any.
pub(super) type Settling = LocalBoxFuture<'static, Result<Option<u16>, ConnectionError>>;

/// What a packet sets going.
pub(super) enum Heard {
    Nothing,
    /// To be acknowledged, in its turn.
    Settle(Settling),
    /// The broker does not let it read these.
    Denied(Vec<String>),
}

/// What one of the connections does.
pub(super) trait Part {
    /// In a word, for logs.
    const ROLE: Role;

    /// Who it is.
    fn hello<'a>(&self, settings: &'a ExternalSettings) -> Hello<'a>;

    /// It was let in; `is_present`: the broker has its session of before.
    fn begin(&self, handle: &Rc<ConnectionHandle>, is_present: bool);

    /// Writes what is to be said, what was sent by `handle` first.
    fn fill(&self, handle: &ConnectionHandle, out: &mut Outbox, now: Moment);

    /// The broker says something.
    async fn hear(&self, packet: FromBroker) -> Result<Heard, LinkFault>;

    /// The broker said something too large to be kept.
    fn too_large(&self, publish: &Publish, size: usize);

    /// The connection is gone.
    fn end(&self);
}

/// How long until the next attempt, after one that lasted for so long.
fn pause_after(pause: Duration, lasted: Duration) -> Duration {
    if lasted >= LASTED { AGAIN_AFTER } else { (2 * pause).min(AGAIN_MAX) }
}

/// Connects again and again, until `edgecore` ends.
pub(super) async fn keep<P: Part>(settings: Rc<ExternalSettings>, part: P, links: Rc<LinkStates>, env: Env) {
    let mut pause = AGAIN_AFTER / 2;
    loop {
        let began = env.now();
        let fault = match open(&settings, &part, &env).await {
            Ok(link) => converse(link, &part, &links, &env).await,
            Err(fault) => fault,
        };
        part.end();
        links.down(P::ROLE, &fault);
        if links.is_ending() {
            return;
        }
        pause = pause_after(pause, env.now().since(began));
        env.sleep(env.jitter(pause)).await;
    }
}

/// A connection over which the broker has let `edgecore` in.
struct Link {
    /// It has the session of before.
    is_present: bool,
    listener: Listener,
    reader: Reader,
    writer: Writer,
}

async fn open<P: Part>(settings: &ExternalSettings, part: &P, env: &Env) -> Result<Link, LinkFault> {
    let stream = env.timeout(plan::CONNECT_DEADLINE, dial::connect(settings, env)).await;
    let (mut reader, mut writer) = tokio::io::split(stream.ok_or(LinkFault::Silent)??);
    let hello = as_client::connect(part.hello(settings));
    let greet = async {
        writer.write_all(&hello).await?;
        writer.flush().await
    };
    let written = env.timeout(plan::CONNECT_DEADLINE, greet).await.ok_or(LinkFault::Silent)?;
    written.map_err(LinkFault::Socket)?;
    let mut listener = Listener::default();
    let until = env.now() + plan::CONNECT_DEADLINE;
    match listener.next(env, &mut reader, until).await {
        Ok(Said::Packet(FromBroker::ConnAck { is_present, code: 0 })) => {
            Ok(Link { is_present, listener, reader, writer })
        }
        Ok(Said::Packet(FromBroker::ConnAck { code, .. })) => Err(LinkFault::Refused(code)),
        Ok(_) => Err(LinkFault::Unasked),
        Err(LinkFault::Closed) => Err(LinkFault::Dismissed),
        Err(fault) => Err(fault),
    }
}

async fn converse<P: Part>(link: Link, part: &P, links: &LinkStates, env: &Env) -> LinkFault {
    let Link { is_present, listener, mut reader, mut writer } = link;
    let handle = ConnectionHandle::of(ConnectInfo::default());
    part.begin(&handle, is_present);
    links.up(P::ROLE, &handle);
    let fill = |out: &mut Outbox, now| {
        part.fill(&handle, out, now);
        false
    };
    let end = tokio::select! {
        biased;
        () = handle.ended.notified() => LinkFault::from(handle.reason()),
        fault = listen(part, links, env, &handle, listener, &mut reader) => fault,
        end = write_all(env, &handle, &mut writer, fill) => end.into(),
        never = ping(env, &handle) => match never {},
    };
    if !handle.writing.get() {
        // A broker that does not take it hears it from the socket.
        let goodbye = async {
            writer.write_all(&as_client::disconnect()).await?;
            writer.shutdown().await
        };
        let _ = env.timeout(plan::GOODBYE / 2, goodbye).await;
    }
    end
}

async fn ping(env: &Env, handle: &ConnectionHandle) -> std::convert::Infallible {
    loop {
        env.sleep(PING_EVERY).await;
        handle.send(as_client::pingreq());
    }
}

/// Listens until the connection, or what is said over it, is at fault.
async fn listen<P: Part>(
    part: &P,
    links: &LinkStates,
    env: &Env,
    handle: &ConnectionHandle,
    mut listener: Listener,
    reader: &mut Reader,
) -> LinkFault {
    let mut settling: FuturesOrdered<Settling> = FuturesOrdered::new();
    loop {
        let until = env.now() + SILENCE;
        let said = tokio::select! {
            biased;
            Some(settled) = settling.next(), if !settling.is_empty() => {
                match settled {
                    Ok(Some(pkid)) => handle.send(puback(pkid, Version::V311, 0)),
                    Ok(None) => {}
                    Err(error) => return error.into(),
                }
                continue;
            }
            said = listener.next(env, reader, until), if settling.len() < plan::PENDING => said,
        };
        let heard = match said {
            Ok(Said::Packet(packet)) => part.hear(packet).await,
            // Not acknowledged it would come again for ever.
            Ok(Said::TooLarge(Skipped { publish, size, .. })) => {
                part.too_large(&publish, size);
                let pkid = (publish.qos > 0).then_some(publish.pkid);
                Ok(Heard::Settle(Box::pin(std::future::ready(Ok(pkid)))))
            }
            Err(fault) => return fault,
        };
        match heard {
            Ok(Heard::Nothing) => {}
            Ok(Heard::Settle(one)) => settling.push_back(one),
            Ok(Heard::Denied(filters)) => links.denied(P::ROLE, filters),
            Err(fault) => return fault,
        }
    }
}

/// What a broker said.
enum Said {
    Packet(FromBroker),
    TooLarge(Skipped),
}

/// What has come of a broker's packets.
#[derive(Default)]
struct Listener {
    buffer: BytesMut,
    skipped: Option<Skipped>,
}

impl Listener {
    /// The next packet. Dropped half-way it has lost nothing.
    async fn next(&mut self, env: &Env, reader: &mut Reader, until: Moment) -> Result<Said, LinkFault> {
        loop {
            if let Some(said) = self.take()? {
                return Ok(said);
            }
            fetch(env, reader, &mut self.buffer, Some(until)).await?;
        }
    }

    fn take(&mut self) -> Result<Option<Said>, MalformedPacket> {
        if self.skipped.is_none() {
            match as_client::decode(&mut self.buffer, plan::SMALL_BYTES + plan::CONNECT_BYTES) {
                Err(MalformedPacket::TooLarge { size, limit }) if is_publish(&self.buffer) => {
                    let Some((header, _)) = as_client::lengths(&self.buffer)? else { return Ok(None) };
                    self.skipped = Skipped::begin(&mut self.buffer, header, size, limit)?;
                }
                decoded => return Ok(decoded?.map(Said::Packet)),
            }
        }
        let Some(mut skipped) = self.skipped.take() else { return Ok(None) };
        if skipped.drop_more(&mut self.buffer) {
            return Ok(Some(Said::TooLarge(skipped)));
        }
        self.skipped = Some(skipped);
        Ok(None)
    }
}

fn is_publish(buffer: &[u8]) -> bool {
    buffer.first().is_some_and(|first| first >> 4 == 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_until_a_connection_has_lasted() {
        let seconds = Duration::from_secs;
        let mut pause = AGAIN_AFTER / 2;
        let mut all = Vec::new();
        for _ in 0..8 {
            pause = pause_after(pause, seconds(2));
            all.push(pause.as_secs());
        }
        assert_eq!(all, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(pause_after(pause, LASTED), AGAIN_AFTER);
    }

    #[test]
    fn a_message_that_is_too_large_is_read_to_its_end_whatever_pieces_it_comes_in() {
        let size = 400 << 10;
        let mut all = vec![0x32];
        let mut length = BytesMut::new();
        crate::packet::put_length(&mut length, size + 5);
        all.extend_from_slice(&length);
        all.extend(b"\x00\x01t\x00\x07");
        all.extend(vec![b'x'; size]);
        all.extend([0xd0, 0]);
        let mut listener = Listener::default();
        let mut said = Vec::new();
        for piece in all.chunks(1000) {
            listener.buffer.extend_from_slice(piece);
            while let Some(one) = listener.take().unwrap() {
                said.push(one);
            }
        }
        let [Said::TooLarge(skipped), Said::Packet(FromBroker::PingResp)] = said.as_slice() else { panic!() };
        assert_eq!((skipped.publish.pkid, skipped.size), (7, size + 5));
    }
}
