//! The doors of a link, each given bytes as they come from the network. The loops of this crate and the targets for
//! `cargo fuzz` call the same.

use std::sync::Arc;

use beehive::TokioClock;
use beehive::link::memory::{NetworkPath, pair};
use beehive::link::mux::{Egress, Ingress, MuxConnection, Role, over};
use beehive::link::{Connection, IncomingLink, PeerName, Routes, Urgency};
use beehive::{Clock, Env};
use bytes::Bytes;
use cloud_hub::Upgrader;
use futures::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// More than a head may have, and room for its answer.
const SOCKET: usize = 128 << 10;

fn peer() -> PeerName {
    PeerName::verified("edge-1", "01")
}

/// The request for an upgrade to WebSocket. Answers what was said to it; nothing when the service did not start. Needs a tokio
/// runtime of one thread, in a `LocalSet`.
pub async fn head(bytes: &[u8], clock: Arc<dyn Clock>) -> Vec<u8> {
    let (mut client, server) = tokio::io::duplex(SOCKET);
    let Ok(upgrader) = Upgrader::new(clock).await else { return Vec::new() };
    let ask = async {
        let _ = client.write_all(bytes).await;
        let _ = client.shutdown().await;
        let mut answer = Vec::new();
        let _ = client.read_to_end(&mut answer).await;
        answer
    };
    let upgraded = async {
        // Nobody goes on with it.
        drop(upgrader.upgrade(server, peer(), || Ok(())).await);
    };
    let (answer, ()) = futures::join!(ask, upgraded);
    answer
}

/// Messages of a WebSocket, one after the other, each with its length in front of it (two bytes). With `admitted`, as of an
/// end that was let in.
pub fn mux_frames(mut bytes: &[u8], admitted: bool) {
    let (connection, ingress, egress): (MuxConnection, Ingress, Egress) =
        over(Role::Accepted, peer(), Arc::new(TokioClock::real()));
    if admitted {
        connection.admitted();
    }
    let mut egress = std::pin::pin!(egress);
    while let Some((len, rest)) = bytes.split_first_chunk::<2>() {
        let (frame, rest) = rest.split_at(usize::from(u16::from_be_bytes(*len)).min(rest.len()));
        if ingress.take(Bytes::copy_from_slice(frame)).is_err() {
            return;
        }
        while let Some(Some(_)) = futures::FutureExt::now_or_never(egress.next()) {}
        bytes = rest;
    }
}

/// The first stream of a connection: what should be a hello.
pub async fn hello(bytes: &[u8], env: &Env) {
    let (edge, cloud) = pair(&NetworkPath::new(), peer(), PeerName::verified("cloud", "02"));
    let say = async {
        let Ok((mut writer, mut reader)) = edge.open(Urgency::Link).await else { return };
        let _ = writer.write_all(bytes).await;
        drop(writer);
        let mut answer = Vec::new();
        let _ = reader.read_to_end(&mut answer).await;
    };
    let meet = async {
        if let Ok(arrival) = IncomingLink::read_hello(env, Box::new(cloud)).await {
            drop(arrival.admit(Routes::new()).await);
        }
    };
    futures::join!(say, meet);
}
