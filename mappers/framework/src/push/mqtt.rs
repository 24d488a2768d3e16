//! `pushMethod.mqtt`: each reading is a message, `time is 2006-01-02 15:04:05  TOPIC: VALUE`, as KubeEdge's framework publishes it.
//!
//! rumqttc's codec over a connection of ours, because rumqttc's own TLS comes with a library that `.deny.toml` refuses. A
//! batch is published and acknowledged before the next; what was not acknowledged is sent again, so that it may come twice.

use std::time::Duration;

use beehive::{Env, Moment};
use dmi::v1beta1::PushMethodMqtt;
use futures::{SinkExt as _, StreamExt as _};
use httpclient::tls::Stream;
use rumqttc::mqttbytes::v4::{Codec, Connect, ConnectReturnCode, Packet, PubRel, Publish};
use rumqttc::mqttbytes::{QoS, qos, valid_topic};
use serde::{Deserialize, Serialize};
use tokio_util::codec::Framed;

use crate::push::endpoint::Endpoint;
use crate::push::reading::Reading;
use crate::push::stream::{Tls, dial};
use crate::push::trouble::{Sent, Trouble};

/// 20 s for what a batch is acknowledged with.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(20);
/// 20 messages on their way at once: the smallest window that brokers have by default.
pub(crate) const WINDOW: usize = 20;
/// 30 s: a connection that was idle for longer is made anew, since nobody keeps it alive meanwhile.
const IDLE_MAX: Duration = Duration::from_secs(30);
/// 120 s: the broker may drop a connection that is silent for longer than one and a half of that.
const KEEP_ALIVE_SECONDS: u16 = 120;
/// 1 MiB: more than any reading.
const PACKET_MAX: usize = 1 << 20;

/// A broker.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct MqttTarget {
    endpoint: Endpoint,
    /// A user and a password, as the address has them.
    login: Option<(String, String)>,
}

/// How a property is published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Topic {
    name: String,
    #[serde(with = "level")]
    qos: QoS,
    is_retained: bool,
}

/// A quality of service as its number.
mod level {
    use rumqttc::mqttbytes::{QoS, qos};
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(level: &QoS, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(*level as u8)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<QoS, D::Error> {
        qos(u8::deserialize(deserializer)?).map_err(|_| D::Error::custom("no quality of service"))
    }
}

impl MqttTarget {
    /// From `pushMethod.mqtt`.
    pub(crate) fn read(mqtt: &PushMethodMqtt) -> Result<(Self, Topic), String> {
        let (endpoint, login) = Endpoint::with_schemes(
            "`address`",
            &mqtt.address,
            (&["tcp", "mqtt"], 1883),
            (&["ssl", "tls", "mqtts", "tcps"], 8883),
        )?;
        let login = login.map(|login| match login.split_once(':') {
            Some((user, password)) => (user.to_owned(), password.to_owned()),
            None => (login, String::new()),
        });
        let name = mqtt.topic.trim().to_owned();
        if name.is_empty() || name.len() > 1024 || !valid_topic(&name) || name.contains('\0') {
            return Err("`topic` is missing, too long, or has a + or # in it".to_owned());
        }
        let quality = u8::try_from(mqtt.qos).ok().and_then(|number| qos(number).ok());
        let qos = quality.ok_or_else(|| format!("`qos` is {}; write 0, 1 or 2", mqtt.qos))?;
        Ok((MqttTarget { endpoint, login }, Topic { name, qos, is_retained: mqtt.retained }))
    }

    /// How it is named to people.
    pub(crate) fn shown(&self) -> String {
        let scheme = if self.endpoint.is_tls { "ssl" } else { "tcp" };
        format!("{scheme}://{}", self.endpoint)
    }
}

/// Publishes readings.
pub(crate) struct MqttClient {
    target: MqttTarget,
    tls: Tls,
    connection: Option<Framed<Stream, Codec>>,
    used_at: Moment,
}

impl MqttClient {
    pub(crate) fn to(target: &MqttTarget, tls: Tls) -> Self {
        MqttClient { target: target.clone(), tls, connection: None, used_at: Moment::default() }
    }

    /// Publishes the first of these, as many as have one quality of service.
    pub(crate) async fn send(&mut self, batch: &[(&Topic, &Reading)], env: &Env) -> Sent {
        let Some(qos) = batch.first().map(|(topic, _)| topic.qos) else {
            return Sent { taken: 0, trouble: None };
        };
        let same = batch.iter().take(WINDOW).take_while(|(topic, _)| topic.qos == qos);
        let packets: Vec<Packet> = same
            .zip(1..)
            .map(|((topic, reading), id)| Packet::Publish(message(topic, reading, id)))
            .collect();
        if env.now().since(self.used_at) > IDLE_MAX {
            self.connection = None;
        }
        let was_kept = self.connection.is_some();
        let mut sent = self.publish(&packets, qos, env).await;
        if sent.taken == 0 && sent.trouble.is_some() && was_kept {
            // It was closed while it was idle, or the broker has started anew.
            sent = self.publish(&packets, qos, env).await;
        }
        self.used_at = env.now();
        sent
    }

    /// Publishes these, and waits until the broker has them. The connection is kept if all went well.
    async fn publish(&mut self, packets: &[Packet], qos: QoS, env: &Env) -> Sent {
        let connection = match self.connection.take() {
            Some(connection) => Ok(connection),
            None => self.connect(env).await,
        };
        let mut taken = 0;
        let outcome = match connection {
            Ok(mut connection) => {
                let exchange = exchange(&mut connection, packets, qos, &mut taken);
                let outcome = env.timeout(ACKNOWLEDGED_WITHIN, exchange).await;
                let late = || Err(format!("no acknowledgement within {} s", ACKNOWLEDGED_WITHIN.as_secs()));
                let outcome = outcome.unwrap_or_else(late);
                self.connection = outcome.is_ok().then_some(connection);
                outcome
            }
            Err(reason) => Err(reason),
        };
        Sent { taken, trouble: outcome.err().map(Trouble::Away) }
    }

    async fn connect(&self, env: &Env) -> Result<Framed<Stream, Codec>, String> {
        let stream = dial(&self.target.endpoint, &self.tls, env).await?;
        let codec = Codec { max_incoming_size: PACKET_MAX, max_outgoing_size: PACKET_MAX };
        let mut connection = Framed::new(stream, codec);
        // A name of its own comes from the broker: two with one name throw each other out.
        let mut connect = Connect::new("");
        connect.keep_alive = KEEP_ALIVE_SECONDS;
        if let Some((user, password)) = &self.target.login {
            connect.set_login(user.clone(), password.clone());
        }
        let asked = async {
            write(&mut connection, Packet::Connect(connect)).await?;
            flush(&mut connection).await?;
            next(&mut connection).await
        };
        match env.timeout(ACKNOWLEDGED_WITHIN, asked).await {
            Some(Ok(Packet::ConnAck(answer))) if answer.code == ConnectReturnCode::Success => Ok(connection),
            Some(Ok(Packet::ConnAck(answer))) => {
                Err(format!("the broker refuses a connection: {:?}", answer.code))
            }
            Some(Ok(_)) => Err("what answers is no MQTT broker".to_owned()),
            Some(Err(reason)) => Err(reason),
            None => Err(format!("{} takes the connection and says nothing", self.target.endpoint)),
        }
    }
}

/// Publishes, and counts what the broker has. It acknowledges in order, says the standard.
async fn exchange(
    connection: &mut Framed<Stream, Codec>,
    packets: &[Packet],
    qos: QoS,
    taken: &mut usize,
) -> Result<(), String> {
    for packet in packets {
        write(connection, packet.clone()).await?;
    }
    if qos == QoS::AtMostOnce {
        // Nothing acknowledges those; the answer to a ping behind them says that the broker has read them.
        write(connection, Packet::PingReq).await?;
    }
    flush(connection).await?;
    while *taken < packets.len() {
        let acknowledged = match next(connection).await? {
            Packet::PubAck(answer) if qos == QoS::AtLeastOnce => answer.pkid,
            Packet::PubComp(answer) if qos == QoS::ExactlyOnce => answer.pkid,
            Packet::PubRec(answer) if qos == QoS::ExactlyOnce => {
                write(connection, Packet::PubRel(PubRel::new(answer.pkid))).await?;
                flush(connection).await?;
                continue;
            }
            Packet::PingResp if qos == QoS::AtMostOnce => {
                *taken = packets.len();
                return Ok(());
            }
            _ => continue,
        };
        if usize::from(acknowledged) != *taken + 1 {
            return Err("the broker acknowledges what was not sent, or out of order".to_owned());
        }
        *taken += 1;
    }
    Ok(())
}

async fn write(connection: &mut Framed<Stream, Codec>, packet: Packet) -> Result<(), String> {
    connection.feed(packet).await.map_err(|error| format!("the broker is gone: {error}"))
}

async fn flush(connection: &mut Framed<Stream, Codec>) -> Result<(), String> {
    connection
        .flush()
        .await
        .map_err(|error: rumqttc::mqttbytes::Error| format!("the broker is gone: {error}"))
}

async fn next(connection: &mut Framed<Stream, Codec>) -> Result<Packet, String> {
    match connection.next().await {
        Some(Ok(packet)) => Ok(packet),
        Some(Err(error)) => Err(format!("the broker's answer is not understood: {error}")),
        None => Err("the broker has closed the connection".to_owned()),
    }
}

fn message(topic: &Topic, reading: &Reading, id: u16) -> Publish {
    let text = format!("time is {}  {}: {}", reading.seconds(), topic.name, reading.value);
    let mut message = Publish::new(topic.name.clone(), topic.qos, text);
    message.retain = topic.is_retained;
    message.pkid = if topic.qos == QoS::AtMostOnce { 0 } else { id };
    message
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::push::reading::reading;
    use crate::value::Value;

    fn read(address: &str, topic: &str, qos: i32) -> Result<(MqttTarget, Topic), String> {
        let (address, topic) = (address.to_owned(), topic.to_owned());
        MqttTarget::read(&PushMethodMqtt { address, topic, qos, retained: true })
    }

    #[test]
    fn a_broker_and_a_topic_are_read_and_a_login_is_not_shown() {
        let (target, topic) = read("tcp://user:secret@h:1884", "a/b", 2).unwrap();
        assert_eq!(target.shown(), "tcp://h:1884");
        assert_eq!(target.login, Some(("user".to_owned(), "secret".to_owned())));
        assert_eq!((topic.qos, topic.is_retained), (QoS::ExactlyOnce, true));
        assert_eq!(read("h", "t", 0).unwrap().0.shown(), "tcp://h:1883");
        for (address, topic, qos, said) in [
            ("", "t", 0, "`address` is missing"),
            ("ws://h", "t", 0, "`address`"),
            ("h", "", 0, "`topic`"),
            ("h", "a/#", 0, "`topic`"),
            ("h", "t", 3, "`qos` is 3"),
        ] {
            let Err(refusal) = read(address, topic, qos) else { panic!("{address} {topic}") };
            assert!(refusal.contains(said), "{refusal}");
        }
    }

    #[test]
    fn a_message_is_kubeedges() {
        let (_, topic) = read("h", "a/b", 1).unwrap();
        let message = message(&topic, &reading("p", Value::Text("x\ny".to_owned())), 7);
        assert_eq!(&*message.payload, b"time is 2026-11-29 10:20:30  a/b: x\ny");
        assert_eq!((message.pkid, message.retain, message.topic.as_str()), (7, true, "a/b"));
    }
}
