//! An MQTT client that is not ours, one publish at a time.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Packet, Publish, QoS};

/// What an answer of the broker may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// A connection with a clean session.
pub(crate) struct Client {
    client: AsyncClient,
    events: EventLoop,
}

impl Client {
    /// Connects and subscribes at QoS 1.
    pub(crate) async fn connect(
        (host, port): &(String, u16),
        id: &str,
        filters: &[String],
    ) -> Result<Client> {
        let mut options = MqttOptions::new(id, host, *port);
        options.set_clean_session(true);
        let (client, events) = AsyncClient::new(options, 16);
        let mut connected = Client { client, events };
        connected.hear(|packet| matches!(packet, Packet::ConnAck(_))).await.context("connect")?;
        for filter in filters {
            connected.client.subscribe(filter, QoS::AtLeastOnce).await?;
            connected.hear(|packet| matches!(packet, Packet::SubAck(_))).await.context("subscribe")?;
        }
        Ok(connected)
    }

    /// Publishes at QoS 1 and waits for the PUBACK. Answers what was heard until then.
    pub(crate) async fn publish(&mut self, topic: &str, payload: String) -> Result<Vec<Publish>> {
        self.client.publish(topic, QoS::AtLeastOnce, false, payload).await?;
        self.hear(|packet| matches!(packet, Packet::PubAck(_))).await.context("wait for a PUBACK")
    }

    /// Publishes and answers the first message on `answer`.
    pub(crate) async fn ask(&mut self, topic: &str, payload: String, answer: &str) -> Result<Publish> {
        self.client.publish(topic, QoS::AtLeastOnce, false, payload).await?;
        let heard =
            self.hear(|packet| matches!(packet, Packet::Publish(publish) if publish.topic == answer)).await?;
        heard.into_iter().rfind(|publish| publish.topic == answer).context("no answer")
    }

    async fn hear(&mut self, is_last: impl Fn(&Packet) -> bool) -> Result<Vec<Publish>> {
        let mut heard = Vec::new();
        let listen = async {
            loop {
                let Event::Incoming(packet) = self.events.poll().await? else { continue };
                let last = is_last(&packet);
                if let Packet::Publish(publish) = packet {
                    heard.push(publish);
                }
                if last {
                    return anyhow::Ok(());
                }
            }
        };
        match tokio::time::timeout(ANSWER_WITHIN, listen).await {
            Ok(result) => result.map(|()| heard),
            Err(_) => bail!("no answer within {} s", ANSWER_WITHIN.as_secs()),
        }
    }
}
