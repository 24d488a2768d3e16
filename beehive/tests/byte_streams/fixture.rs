//! Two ends of a link whose byte streams arrive in a channel.

use std::sync::Arc;

use beehive::Env;
use beehive::link::memory::{NetworkPath, pair};
use beehive::link::{
    ByteStream, ByteStreamHandler, ByteStreamRefusal, Connection, Hello, IncomingLink, Link, PeerName, Routes,
};
use tokio::sync::mpsc;

/// Hands on what arrives; refuses every header that begins with `no`.
pub(crate) struct Arrivals(mpsc::Sender<(Vec<u8>, ByteStream)>);

impl ByteStreamHandler for Arrivals {
    fn accept(&self, peer: &PeerName, header: Vec<u8>, stream: ByteStream) -> Result<(), ByteStreamRefusal> {
        if header.starts_with(b"no") {
            return Err(ByteStreamRefusal { code: 404, reason: format!("nothing here for {peer}") });
        }
        self.0
            .try_send((header, stream))
            .map_err(|_| ByteStreamRefusal { code: 503, reason: "nobody takes it".to_owned() })
    }
}

/// One end, and the streams that arrive there.
pub(crate) struct End {
    pub(crate) link: Link,
    incoming: tokio::sync::Mutex<mpsc::Receiver<(Vec<u8>, ByteStream)>>,
}

impl End {
    pub(crate) async fn arrival(&self) -> (Vec<u8>, ByteStream) {
        self.incoming.lock().await.recv().await.expect("the handler is gone")
    }
}

fn arrivals() -> (Arc<Arrivals>, mpsc::Receiver<(Vec<u8>, ByteStream)>) {
    let (to, incoming) = mpsc::channel(2000);
    (Arc::new(Arrivals(to)), incoming)
}

/// A link over two ends of a connection, with `routes` for what arrives at the one that accepted.
pub(crate) async fn link_with(
    env: &Env,
    dialled: Box<dyn Connection>,
    accepted: Box<dyn Connection>,
    routes: Routes,
) -> (End, End) {
    let ((edge_handler, edge_incoming), (cloud_handler, cloud_incoming)) = (arrivals(), arrivals());
    let greeting = Hello::of(accepted.peer().as_str());
    let greet = Link::connect(env, dialled, &greeting, Routes::new().byte_streams(edge_handler));
    let meet = async {
        IncomingLink::read_hello(env, accepted).await?.admit(routes.byte_streams(cloud_handler)).await
    };
    let (edge, cloud) = futures::join!(greet, meet);
    let end = |link, incoming| End { link, incoming: tokio::sync::Mutex::new(incoming) };
    (end(edge.unwrap(), edge_incoming), end(cloud.unwrap(), cloud_incoming))
}

pub(crate) fn in_memory(network_path: &NetworkPath) -> (Box<dyn Connection>, Box<dyn Connection>) {
    let (edge, cloud) =
        pair(network_path, PeerName::verified("edge-1", "01"), PeerName::verified("cloud", "02"));
    (Box::new(edge), Box::new(cloud))
}

/// A stream from the first end to the other one.
pub(crate) async fn stream(from: &End, to: &End) -> (ByteStream, ByteStream) {
    let streams = from.link.byte_streams();
    let (opened, (header, arrived)) = futures::join!(streams.open(b"header".to_vec()), to.arrival());
    assert_eq!(header, b"header");
    (opened.unwrap(), arrived)
}

/// Bytes that show when one is lost, doubled or out of place.
pub(crate) fn pattern(len: usize, seed: u32) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    (0..len).map(|_| next()).collect()
}
