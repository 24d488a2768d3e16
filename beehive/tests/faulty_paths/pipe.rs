//! A pipe of messages on a paused clock, as slow and as deep as a test wants, and a connection over it.

use std::time::Duration;

use beehive::Env;
use beehive::link::mux::{Egress, Ingress, MuxConnection, Role, over};
use beehive::link::{Connection, PeerName};
use futures::StreamExt;
use tokio::sync::mpsc;

/// What a pipe does with messages.
#[derive(Clone, Copy)]
pub(crate) struct Pipe {
    pub bytes_per_second: u64,
    pub one_way: Duration,
    /// Messages that it takes in advance, as a socket's buffer does.
    pub deep: usize,
}

impl Pipe {
    pub(crate) const FAST: Pipe = Pipe { bytes_per_second: 1 << 30, one_way: Duration::ZERO, deep: 4 };
}

/// The two ends of a connection over `pipe`: who dialled, who accepted.
pub(crate) fn ends(env: &Env, pipe: Pipe) -> (Box<dyn Connection>, Box<dyn Connection>) {
    let (edge, edge_in, edge_out) = end(env, Role::Dialled, "cloud");
    let (cloud, cloud_in, cloud_out) = end(env, Role::Accepted, "edge-1");
    carry(env, edge_out, cloud_in, pipe);
    carry(env, cloud_out, edge_in, pipe);
    (Box::new(edge), Box::new(cloud))
}

pub(crate) fn end(env: &Env, role: Role, peer: &str) -> (MuxConnection, Ingress, Egress) {
    let (connection, ingress, egress) = over(role, PeerName::verified(peer, "01"), env.clock());
    // Most say no hello.
    connection.admitted();
    (connection, ingress, egress)
}

fn carry(env: &Env, mut from: Egress, to: Ingress, pipe: Pipe) {
    let (put, mut taken) = mpsc::channel(pipe.deep);
    let (sender, receiver) = (env.clone(), env.clone());
    env.spawn(async move {
        let mut free_at = sender.now();
        while let Some(frame) = from.next().await {
            let micros = frame.len() as u64 * 1_000_000 / pipe.bytes_per_second;
            free_at = free_at.max(sender.now()) + Duration::from_micros(micros);
            if put.send((free_at + pipe.one_way, frame)).await.is_err() {
                return;
            }
        }
    });
    env.spawn(async move {
        while let Some((at, frame)) = taken.recv().await {
            receiver.sleep(at.since(receiver.now())).await;
            if to.take(frame).is_err() {
                return;
            }
        }
    });
}
