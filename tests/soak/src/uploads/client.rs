//! A client that publishes ever higher ids at QoS 1, and sends again what was not acknowledged.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Result;
use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Outgoing, Packet, Publish, QoS, Request};
use tokio::sync::watch;

use super::{Uploads, source};

/// 8 messages of a client are sent and not acknowledged, not more.
const WINDOW: usize = 8;
/// Before another try to connect.
const AGAIN: Duration = Duration::from_millis(100);

/// Sent, or about to be.
struct Sent {
    topic: usize,
    id: u64,
    /// Its number on this connection, as soon as it went out.
    packet: Option<u16>,
    /// It went out on an earlier connection.
    dup: bool,
}

struct InFlight {
    topics: [String; 3],
    ids: [u64; 3],
    turn: usize,
    sent: VecDeque<Sent>,
}

type Shared = Arc<Mutex<InFlight>>;

fn open(in_flight: &Shared) -> MutexGuard<'_, InFlight> {
    in_flight.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Publishes for as long as it is polled, to each kind of topic that is for the cloud, in turn. While it is `paused` it
/// makes no new messages.
pub(crate) async fn publish(
    broker: (String, u16),
    id: String,
    every: Duration,
    uploads: Uploads,
    paused: watch::Receiver<bool>,
) {
    let topics = [
        format!("$hw/events/upload/{id}"),
        "SYS/dis/upload_records".to_owned(),
        format!("{id}/user/reading"),
    ];
    let in_flight = Arc::new(Mutex::new(InFlight { topics, ids: [0; 3], turn: 0, sent: VecDeque::new() }));
    loop {
        // It ends when the connection does.
        let _ = connection(&broker, &id, every, &uploads, &in_flight, &paused).await;
        tokio::time::sleep(AGAIN).await;
    }
}

async fn connection(
    (host, port): &(String, u16),
    id: &str,
    every: Duration,
    uploads: &Uploads,
    in_flight: &Shared,
    paused: &watch::Receiver<bool>,
) -> Result<()> {
    let mut options = MqttOptions::new(id, host, *port);
    options.set_clean_session(false);
    let (client, mut events) = AsyncClient::new(options, 2 * WINDOW);
    while !matches!(events.poll().await?, Event::Incoming(Packet::ConnAck(_))) {}
    uploads.open().connections += 1;
    events.pending = again(&mut open(in_flight));
    let result = tokio::select! {
        result = make(&client, every, uploads, in_flight, paused) => result,
        result = listen(&mut events, id, uploads, in_flight) => result,
    };
    // What it sent last may not have been told.
    for event in std::mem::take(&mut events.state.events) {
        note(&event, id, uploads, in_flight);
    }
    result
}

/// What was sent and not acknowledged, in order.
fn again(in_flight: &mut InFlight) -> VecDeque<Request> {
    let topics = in_flight.topics.clone();
    let sent = in_flight.sent.iter_mut().map(|sent| {
        sent.dup |= sent.packet.take().is_some();
        let mut publish = Publish::new(&topics[sent.topic], QoS::AtLeastOnce, sent.id.to_string());
        publish.dup = sent.dup;
        Request::Publish(publish)
    });
    sent.collect()
}

async fn make(
    client: &AsyncClient,
    every: Duration,
    uploads: &Uploads,
    in_flight: &Shared,
    paused: &watch::Receiver<bool>,
) -> Result<()> {
    let mut paused = paused.clone();
    loop {
        tokio::time::sleep(every).await;
        paused.wait_for(|paused| !paused).await?;
        let next = {
            let mut in_flight = open(in_flight);
            if in_flight.sent.len() >= WINDOW {
                continue;
            }
            let topic = in_flight.turn;
            in_flight.turn = (topic + 1) % in_flight.topics.len();
            in_flight.ids[topic] += 1;
            let id = in_flight.ids[topic];
            in_flight.sent.push_back(Sent { topic, id, packet: None, dup: false });
            uploads.open().in_flight += 1;
            (in_flight.topics[topic].clone(), id.to_string())
        };
        client.publish(next.0, QoS::AtLeastOnce, false, next.1).await?;
    }
}

async fn listen(events: &mut EventLoop, id: &str, uploads: &Uploads, in_flight: &Shared) -> Result<()> {
    loop {
        let event = events.poll().await?;
        note(&event, id, uploads, in_flight);
    }
}

/// Packets go out in the order of the flight, so that each takes the next number; acknowledgements name it.
fn note(event: &Event, client: &str, uploads: &Uploads, in_flight: &Shared) {
    let mut in_flight = open(in_flight);
    match event {
        Event::Outgoing(Outgoing::Publish(packet)) => {
            if let Some(sent) = in_flight.sent.iter_mut().find(|sent| sent.packet.is_none()) {
                sent.packet = Some(*packet);
            }
        }
        Event::Incoming(Packet::PubAck(ack)) => {
            let at = in_flight.sent.iter().position(|sent| sent.packet == Some(ack.pkid));
            if let Some(sent) = at.and_then(|at| in_flight.sent.remove(at)) {
                let source = source(client, &in_flight.topics[sent.topic]);
                let mut log = uploads.open();
                log.in_flight -= 1;
                log.ids.accepted(&source, sent.id);
            }
        }
        Event::Incoming(_) | Event::Outgoing(_) => {}
    }
}
