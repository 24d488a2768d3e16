//! The broker between a real router and clients without sockets.

mod keeping;
mod model;
mod routing;
mod subscriptions;
mod wills;

use super::*;
use crate::error::RouterError;
use crate::events;
use crate::packet::{FilterRequest, Version};
use crate::rumqttd_router::RouterRx;
use crate::topic;
use bytes::{Bytes, BytesMut};
use edge_store::{Row, Table, Write};

fn message(topic: &str, payload: &str) -> Message {
    Message::of_node(topic.into(), Bytes::copy_from_slice(payload.as_bytes()), 1, false)
}

fn asks(filter: &str, qos: u8) -> FilterRequest {
    let (no_local, retain_as_published, retain_handling) = (false, false, 0);
    FilterRequest { filter: filter.into(), qos, no_local, retain_as_published, retain_handling }
}

fn with_router() -> (Broker, RouterRx) {
    with_small_router(rumqttd_router::CAPS)
}

fn with_small_router(caps: RouterCaps) -> (Broker, RouterRx) {
    let mut broker = Broker::new(Retained::default(), caps, Acl::KubeEdge);
    let (router_tx, router_rx) = rumqttd_router::start().unwrap();
    broker.router_started(router_tx);
    (broker, router_rx)
}

fn client(broker: &mut Broker, name: &str, filters: &[&str]) -> (ClientId, Rc<ConnectionHandle>) {
    let id: ClientId = name.into();
    let (handle, _) = broker.attach(&id, true, ConnectInfo::default());
    for filter in filters {
        assert_eq!(broker.subscribe(&id, &asks(filter, 1), None), 1);
    }
    (id, handle)
}

fn payloads(broker: &mut Broker, (id, handle): &(ClientId, Rc<ConnectionHandle>)) -> Vec<String> {
    let mut seen = Vec::new();
    loop {
        let mut out = BytesMut::new();
        broker.fill(id, handle, &mut out, Moment::default());
        if out.is_empty() {
            return seen;
        }
        while let Some(packet) = crate::packet::decode(&mut out, 1 << 20, Version::V311).unwrap() {
            if let crate::packet::Packet::Publish(publish) = packet {
                seen.push(String::from_utf8_lossy(&publish.payload).into_owned());
                broker.session_of(id, handle).unwrap().acknowledged(publish.pkid);
            }
        }
    }
}

async fn settle(broker: &mut Broker, out: &mut RouterRx) {
    while broker.owed().is_some() {
        let found = tokio::time::timeout(std::time::Duration::from_secs(10), out.next()).await;
        broker.matched(found.unwrap().unwrap());
    }
}

fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
}

/// Settles, and replaces the router whenever it is full, as the actor does.
async fn settle_anew(broker: &mut Broker, out: &mut RouterRx) {
    settle(broker, out).await;
    if broker.router_is_full() {
        let (router_tx, fresh) = rumqttd_router::start().unwrap();
        broker.router_replaced(router_tx);
        *out = fresh;
    }
}
