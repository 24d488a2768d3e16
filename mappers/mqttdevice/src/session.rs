//! A connection to a device's broker.

use std::time::Duration;

use framework::{Fault, Session, Subscription, Value};
use rumqttc::{
    AsyncClient, ConnectionError, Event, EventLoop, MqttOptions, Packet, QoS, SubscribeFilter,
    SubscribeReasonCode,
};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::address::{Address, Visitor};
use crate::topics::Topics;

/// 5 s for the broker's answer to a publish.
const ACKNOWLEDGE_WITHIN: Duration = Duration::from_secs(5);
/// 1 s for what the broker has kept of a device's availability. A device of which nothing is kept is taken to be there.
const AVAILABILITY_WITHIN: Duration = Duration::from_secs(1);
/// Why a session ends of a device that has left.
const HAS_LEFT: &str = "the device has left: its availability topic says so";
/// 1 MiB: the largest message that is taken.
const MESSAGE_MAX: usize = 1 << 20;
/// 30 s between two signs of life.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// 16 requests on their way to the task that speaks with the broker.
const REQUESTS: usize = 16;

/// A connection to a device's broker.
#[derive(Debug)]
pub struct MqttSession {
    client: AsyncClient,
    topics: Topics,
    availability: Option<String>,
    hearing: JoinHandle<()>,
}

impl Drop for MqttSession {
    fn drop(&mut self) {
        self.hearing.abort();
    }
}

impl MqttSession {
    /// Connects.
    ///
    /// # Errors
    /// When the broker is out of reach or refuses.
    pub async fn open(address: &Address) -> Result<Self, Fault> {
        // A name of its own where none is given: two with one name throw each other out.
        let id = address.client_id.clone().unwrap_or_default();
        let mut options = MqttOptions::new(id, address.host.clone(), address.port);
        options
            .set_keep_alive(KEEP_ALIVE)
            .set_clean_session(true)
            .set_max_packet_size(MESSAGE_MAX, MESSAGE_MAX);
        if let Some((user, password)) = &address.login {
            options.set_credentials(user, password);
        }
        let (client, mut events) = AsyncClient::new(options, REQUESTS);
        let failed = |error: &ConnectionError| {
            let words = match error {
                ConnectionError::ConnectionRefused(code) => format!(
                    "the broker refuses user `{}`: {code:?}",
                    address.login.as_ref().map_or("", |(user, _)| user)
                ),
                other => other.to_string(),
            };
            Fault::NotSent(format!("no connection to {}:{}: {words}", address.host, address.port))
        };
        let found = framework::host::addresses(&address.host, address.port).await;
        found.map_err(|reason| {
            Fault::NotSent(format!("no connection to {}:{}: {reason}", address.host, address.port))
        })?;
        loop {
            match events.poll().await {
                Ok(Event::Incoming(Packet::ConnAck(_))) => break,
                Ok(_) => {}
                Err(error) => return Err(failed(&error)),
            }
        }
        if let Some((topic, offline)) = &address.availability {
            // The broker is there, which says nothing of the device: one that has left must not be spoken to at each connection.
            let left = has_left(&client, &mut events, topic, offline);
            if timeout(AVAILABILITY_WITHIN, left)
                .await
                .unwrap_or(Ok(false))
                .map_err(|error| failed(&error))?
            {
                return Err(Fault::NotSent(HAS_LEFT.to_owned()));
            }
        }
        let topics = Topics::new();
        let hearing = tokio::spawn(hear(events, topics.clone(), address.availability.clone()));
        let availability = address.availability.as_ref().map(|(topic, _)| topic.clone());
        Ok(MqttSession { client, topics, availability, hearing })
    }
}

/// Whether the broker has kept that the device has left. Ends with the first word of it.
async fn has_left(
    client: &AsyncClient,
    events: &mut EventLoop,
    topic: &str,
    offline: &str,
) -> Result<bool, ConnectionError> {
    if client.subscribe(topic, QoS::AtLeastOnce).await.is_err() {
        return Ok(false);
    }
    loop {
        if let Event::Incoming(Packet::Publish(publish)) = events.poll().await?
            && publish.topic == topic
        {
            return Ok(publish.payload == offline.as_bytes());
        }
    }
}

/// Passes on what the broker says, until the connection ends.
async fn hear(mut events: EventLoop, topics: Topics, availability: Option<(String, String)>) {
    loop {
        match events.poll().await {
            Ok(Event::Incoming(Packet::Publish(publish))) => {
                let is_gone = |(topic, offline): &(String, String)| {
                    *topic == publish.topic && publish.payload == offline.as_bytes()
                };
                if availability.as_ref().is_some_and(is_gone) {
                    topics.ended(HAS_LEFT);
                }
                topics.published(&publish.topic, &publish.payload);
            }
            Ok(Event::Incoming(Packet::SubAck(answer))) => {
                let is_granted = |code: &SubscribeReasonCode| matches!(code, SubscribeReasonCode::Success(_));
                topics.granted(&answer.return_codes.iter().map(is_granted).collect::<Vec<_>>());
            }
            Ok(Event::Incoming(Packet::PubAck(_))) => topics.acknowledged.send_modify(|count| *count += 1),
            Ok(_) => {}
            Err(error) => return topics.ended(&format!("the broker is gone: {error}")),
        }
    }
}

impl Session for MqttSession {
    type Visitor = Visitor;

    fn deadline(&self) -> Duration {
        ACKNOWLEDGE_WITHIN * 2
    }

    /// What came last: a device is not asked, it says.
    async fn read(&mut self, visitor: &Visitor) -> Result<Value, Fault> {
        if self.hearing.is_finished() {
            return Err(Fault::Link("the broker is gone".to_owned()));
        }
        self.topics.value(visitor)
    }

    async fn subscribe(&mut self, visitors: &[&Visitor], values: Subscription) -> Vec<usize> {
        let mut topics = self.topics.want(visitors, values);
        topics.extend(self.availability.clone());
        let filters = topics.into_iter().map(|topic| SubscribeFilter::new(topic, QoS::AtLeastOnce));
        let filters: Vec<SubscribeFilter> = filters.collect();
        if !filters.is_empty() && self.client.subscribe_many(filters).await.is_err() {
            self.topics.ended("the broker is gone");
        }
        (0..visitors.len()).collect()
    }

    async fn write(&mut self, visitor: &Visitor, value: &Value) -> Result<(), Fault> {
        let Some(topic) = &visitor.command else {
            return Err(Fault::Unfit("there is no `commandTopic` to publish it on".to_owned()));
        };
        if self.hearing.is_finished() {
            return Err(Fault::NotSent("the broker is gone".to_owned()));
        }
        let body = visitor.template.replace("{{json}}", &visitor.payload.json(value));
        let body = body.replace("{{value}}", &visitor.payload.text(value));
        let mut acknowledged = self.topics.acknowledged.subscribe();
        acknowledged.borrow_and_update();
        let published = self.client.publish(topic, QoS::AtLeastOnce, visitor.retain, body).await;
        published.map_err(|error| Fault::NotSent(error.to_string()))?;
        // One is under way at a time, so that the next acknowledgement is its.
        match timeout(ACKNOWLEDGE_WITHIN, acknowledged.changed()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Fault::Link("the broker is gone".to_owned())),
            Err(_) => Err(Fault::Link("the broker has not acknowledged it".to_owned())),
        }
    }
}
