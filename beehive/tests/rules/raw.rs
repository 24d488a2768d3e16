//! An end that writes its frames by hand.

use std::sync::Arc;
use std::time::Duration;

use beehive::Env;
use beehive::link::memory::{MemoryConnection, NetworkPath, pair};
use beehive::link::{
    Connection, Hello, IncomingLink, Link, LinkError, PeerName, Reader, Routes, Urgency, Writer,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Mutex;

pub(crate) const OPEN: u8 = 1;
pub(crate) const TELL: u8 = 2;
pub(crate) const ASK: u8 = 3;
pub(crate) const REPLY: u8 = 4;
pub(crate) const NACK: u8 = 5;
pub(crate) const CREDIT: u8 = 6;
pub(crate) const HELLO: u8 = 7;
pub(crate) const HELLO_ACK: u8 = 8;
pub(crate) const REFUSE: u8 = 9;
const PING: u8 = 10;
const PONG: u8 = 11;

/// A dialling end of ours whose hello is answered by hand with an acknowledgement of this body: its link, the connection and
/// the first stream at the other end.
pub(crate) async fn taken_in(
    env: &Env,
    body: &[u8],
) -> (Result<Link, LinkError>, MemoryConnection, (Writer, Reader)) {
    let (edge, cloud) = ends();
    let greeting = Hello::of("edge-1");
    let greet = Link::connect(env, Box::new(edge), &greeting, Routes::new());
    let answer = async {
        let (mut writer, mut reader) = cloud.accept().await.unwrap();
        assert_eq!(next(&mut reader).await.unwrap().kind, HELLO);
        writer.write_all(&frame(0, HELLO_ACK, 0, 0, body)).await.unwrap();
        (writer, reader)
    };
    let (link, control) = futures::join!(greet, answer);
    (link, cloud, control)
}

/// A frame as bytes.
pub(crate) fn frame(version: u8, kind: u8, id: u64, amount: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(16 + body.len()).unwrap().to_be_bytes().to_vec();
    bytes.extend([version, kind]);
    bytes.extend(id.to_be_bytes());
    bytes.extend(amount.to_be_bytes());
    bytes.extend([0, 0]);
    bytes.extend(body);
    bytes
}

pub(crate) fn hello(oldest: u8, newest: u8) -> Vec<u8> {
    hello_with(oldest, newest, &[0])
}

/// A hello with these bytes behind the name.
pub(crate) fn hello_with(oldest: u8, newest: u8, rest: &[u8]) -> Vec<u8> {
    frame(0, HELLO, 0, 0, &[&[oldest, newest, 6], b"edge-1".as_slice(), rest].concat())
}

/// What a frame says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Said {
    pub version: u8,
    pub kind: u8,
    pub id: u64,
    pub amount: u32,
    pub body: Vec<u8>,
}

impl Said {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

/// The next frame, or `None` at the end of the stream.
pub(crate) async fn next(reader: &mut Reader) -> Option<Said> {
    let len = reader.read_u32().await.ok()?;
    let mut bytes = vec![0; len as usize];
    reader.read_exact(&mut bytes).await.unwrap();
    Some(Said {
        version: bytes[0],
        kind: bytes[1],
        id: u64::from_be_bytes(bytes[2..10].try_into().unwrap()),
        amount: u32::from_be_bytes(bytes[10..14].try_into().unwrap()),
        body: bytes.split_off(16),
    })
}

pub(crate) fn ends() -> (MemoryConnection, MemoryConnection) {
    pair(&NetworkPath::new(), PeerName::verified("edge-1", "01"), PeerName::verified("cloud", "02"))
}

/// A link whose dialling end speaks by hand and whose other end is ours.
pub(crate) struct Raw {
    pub connection: MemoryConnection,
    /// The link's own stream; pings on it are answered.
    pub control: Arc<Mutex<Writer>>,
    pub link: Link,
}

impl Raw {
    /// Says that it speaks `version` alone.
    pub(crate) async fn link(env: &Env, version: u8, routes: Routes) -> Raw {
        let (connection, cloud) = ends();
        let meet = async { IncomingLink::read_hello(env, Box::new(cloud)).await?.admit(routes).await };
        let greet = async {
            let mut control = connection.open(Urgency::Link).await.unwrap();
            control.0.write_all(&hello(version, version)).await.unwrap();
            assert_eq!(next(&mut control.1).await.unwrap().kind, HELLO_ACK);
            control
        };
        let (link, (writer, mut reader)) = futures::join!(meet, greet);
        let control = Arc::new(Mutex::new(writer));
        let answering = Arc::clone(&control);
        env.spawn(async move {
            while let Some(said) = next(&mut reader).await {
                if said.kind == PING {
                    let _ = answering.lock().await.write_all(&frame(version, PONG, 0, 0, &[])).await;
                }
            }
        });
        Raw { connection, control, link: link.unwrap() }
    }

    /// A stream to a mailbox.
    pub(crate) async fn stream(&self, version: u8, mailbox: &str) -> (Writer, Reader) {
        let (mut writer, reader) = self.connection.open(Urgency::Work).await.unwrap();
        writer.write_all(&frame(version, OPEN, 0, 0, mailbox.as_bytes())).await.unwrap();
        (writer, reader)
    }
}

/// Writes until nothing is taken for a second; answers how many bytes were.
pub(crate) async fn write_what_is_taken(env: &Env, writer: &mut Writer, bytes: &[u8]) -> usize {
    let mut taken = 0;
    while taken < bytes.len() {
        match env.timeout(Duration::from_secs(1), writer.write(&bytes[taken..])).await {
            Some(Ok(more)) if more > 0 => taken += more,
            Some(_) | None => break,
        }
    }
    taken
}
