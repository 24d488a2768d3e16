//! An MQTT client that reports for some of the devices, each at its rate: the twin, and the reading beside it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Outgoing, Packet, QoS};
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use super::fleet::{self, Fleet, REPORTED};

/// Messages under way: what comes beyond waits at the client.
const UNDER_WAY: usize = 100;
/// How long the broker may keep back its last acknowledgements.
const LAST_WITHIN: Duration = Duration::from_secs(30);

/// A reading on the full-rate road: the device, and how many of its readings were before this one.
pub(super) type Reading = (usize, u64);

/// A client that is connected.
pub(super) struct Publisher {
    client: AsyncClient,
    events: EventLoop,
    /// Which of the devices are its own.
    first: usize,
    step: usize,
    rate: f64,
}

/// One that publishes.
pub(super) struct Running {
    stop: watch::Sender<bool>,
    task: JoinHandle<Result<Vec<Reading>>>,
}

impl Publisher {
    /// For every `step`th device from `first` on, each `rate` times a second.
    pub(super) async fn connect(
        (host, port): &(String, u16),
        first: usize,
        step: usize,
        rate: f64,
    ) -> Result<Publisher> {
        let mut options = MqttOptions::new(format!("load-{first}"), host, *port);
        options.set_clean_session(true).set_inflight(u16::try_from(UNDER_WAY)?);
        let (client, mut events) = AsyncClient::new(options, UNDER_WAY);
        let connected = async {
            loop {
                if let Event::Incoming(Packet::ConnAck(_)) = events.poll().await? {
                    return anyhow::Ok(());
                }
            }
        };
        tokio::time::timeout(LAST_WITHIN, connected).await.context("no CONNACK")??;
        Ok(Publisher { client, events, first, step, rate })
    }

    pub(super) fn start(self, fleet: Arc<Fleet>) -> Running {
        let (stop, stopped) = watch::channel(false);
        Running { stop, task: tokio::spawn(self.publish(fleet, stopped)) }
    }

    /// The devices take turns, evenly over a period. Answers the readings that the broker acknowledged.
    async fn publish(self, fleet: Arc<Fleet>, mut stop: watch::Receiver<bool>) -> Result<Vec<Reading>> {
        let Publisher { client, events, first, step, rate } = self;
        let own: Vec<usize> = (first..fleet.devices()).step_by(step).collect();
        #[allow(clippy::cast_precision_loss)] // a thousand
        let pause = Duration::from_secs_f64(1.0 / (rate * own.len() as f64));
        let (count_done, mut done) = watch::channel(0);
        let mut acknowledged = tokio::spawn(count_acknowledged(events, count_done));
        let mut turns = tokio::time::interval(pause);
        turns.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let mut readings: Vec<Reading> = Vec::new();
        for count in 0_u64.. {
            for number in own.iter().copied() {
                let ends = tokio::select! {
                    _ = turns.tick() => false,
                    _ = stop.wait_for(|stop| *stop) => true,
                };
                if ends {
                    let accepted = 2 * readings.len();
                    let all = done.wait_for(|done| *done == accepted);
                    tokio::select! {
                        result = &mut acknowledged => result??,
                        all = tokio::time::timeout(LAST_WITHIN, all) => {
                            all.with_context(|| format!("client {first}: the last PUBACK of {accepted}"))??;
                        }
                    }
                    client.disconnect().await.context("end the client")?;
                    return Ok(readings);
                }
                let now = fleet.now();
                let body = json!({"event_id": "", "timestamp": 0, "twin":
                    {REPORTED: {"actual": {"value": now.to_string()}, "metadata": {"type": "int"}}}});
                let topic = fleet::topic(number, "update");
                client.publish(topic, QoS::AtLeastOnce, false, body.to_string()).await?;
                let reading = json!({"device": number, "count": count, "at": now});
                let road = format!("default/{}", fleet::road(number));
                client.publish(road, QoS::AtLeastOnce, false, reading.to_string()).await?;
                readings.push((number, count));
                fleet.said(number, now);
            }
        }
        Ok(readings)
    }
}

/// Until the connection ends, which is an error.
async fn count_acknowledged(mut events: EventLoop, done: watch::Sender<usize>) -> Result<()> {
    let mut sent = VecDeque::new();
    loop {
        match events.poll().await.context("the broker ended the connection")? {
            Event::Outgoing(Outgoing::Publish(id)) => sent.push_back(id),
            // In the order in which they came: MQTT 4.6.
            Event::Incoming(Packet::PubAck(ack)) if sent.pop_front() == Some(ack.pkid) => {
                done.send_modify(|done| *done += 1);
            }
            Event::Incoming(Packet::PubAck(ack)) => bail!("acknowledged out of order: {}", ack.pkid),
            _ => {}
        }
    }
}

impl Running {
    /// Ends it, and answers all readings that were accepted.
    pub(super) async fn end(self) -> Result<Vec<Reading>> {
        self.stop.send_replace(true);
        self.task.await.context("a publisher broke")?
    }
}
