//! The mapper in the suite that every mapper passes, against mosquitto and a device that speaks MQTT.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../../framework/tests/conformance/mod.rs"]
mod conformance;
#[path = "../../framework/tests/edgecore/mod.rs"]
mod edgecore;
#[path = "../../framework/tests/mosquitto/mod.rs"]
mod mosquitto;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dmi::Scalar;
use edgecore::eventually;
use framework::{Fault, Kind, Property, Protocol as _, Session as _, Settings, Value};
use mosquitto::Mosquitto;
use mqttdevice::{Address, MqttDevice, Visitor};
use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS};

/// A device that publishes what it has, retained, and takes what is published to it.
struct Device {
    port: u16,
    broker: Mutex<Option<Mosquitto>>,
    client: AsyncClient,
    has: Arc<Mutex<BTreeMap<String, String>>>,
}

impl Device {
    async fn start() -> Self {
        let [port] = testhost::free_ports().unwrap();
        let broker = Mosquitto::start(port, None).await;
        let (client, mut events) = AsyncClient::new(MqttOptions::new("device", "127.0.0.1", port), 64);
        let has = Arc::new(Mutex::new(BTreeMap::<String, String>::new()));
        let (own, known) = (client.clone(), Arc::clone(&has));
        tokio::spawn(async move {
            loop {
                match events.poll().await {
                    Ok(Event::Incoming(Packet::ConnAck(_))) => {
                        own.subscribe("device/set/+", QoS::AtLeastOnce).await.unwrap();
                        let all = known.lock().unwrap().clone();
                        for (name, value) in all {
                            publish(&own, &name, &value);
                        }
                    }
                    Ok(Event::Incoming(Packet::Publish(message))) => {
                        let name = message.topic.rsplit('/').next().unwrap().to_owned();
                        let value = String::from_utf8(message.payload.to_vec()).unwrap();
                        known.lock().unwrap().insert(name.clone(), value.clone());
                        publish(&own, &name, &value);
                    }
                    Ok(_) => {}
                    Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                }
            }
        });
        Device { port, broker: Mutex::new(Some(broker)), client, has }
    }

    fn address(&self) -> Address {
        Address::read(&Settings::from_pairs(conformance::Peer::place(self))).unwrap()
    }
}

fn publish(client: &AsyncClient, name: &str, value: &str) {
    client.try_publish(format!("device/state/{name}"), QoS::AtLeastOnce, true, value).unwrap();
}

impl conformance::Peer for Device {
    type Protocol = MqttDevice;

    fn protocol(&self) -> MqttDevice {
        MqttDevice
    }
    fn place(&self) -> Vec<(&'static str, Scalar)> {
        vec![("brokerURL", Scalar::Text(format!("tcp://127.0.0.1:{}", self.port)))]
    }
    fn visitors(&self, property: &str) -> Vec<(&'static str, Scalar)> {
        vec![
            ("stateTopic", Scalar::Text(format!("device/state/{property}"))),
            ("commandTopic", Scalar::Text(format!("device/set/{property}"))),
        ]
    }
    fn has(&self, property: &str) -> String {
        self.has.lock().unwrap().get(property).cloned().unwrap_or_default()
    }
    fn set(&self, property: &str, value: &str) {
        self.has.lock().unwrap().insert(property.to_owned(), value.to_owned());
        publish(&self.client, property, value);
    }
    async fn switch(&self, on: bool) -> bool {
        if on {
            let broker = Mosquitto::start(self.port, None).await;
            *self.broker.lock().unwrap() = Some(broker);
        } else {
            drop(self.broker.lock().unwrap().take());
        }
        true
    }
}

#[tokio::test]
async fn mqtt_conforms() {
    conformance::conforms(&Device::start().await).await;
}

#[tokio::test]
async fn without_a_broker_nothing_is_sent_and_without_a_word_there_is_no_value() {
    let device = Device::start().await;
    let property = Property { writable: true, ..Property::new("p", Kind::Int) };
    let visitor = |pairs: &[(&'static str, &str)]| {
        let pairs = pairs.iter().map(|(key, value)| (*key, Scalar::Text((*value).to_owned())));
        Visitor::read(&property, &Settings::from_pairs(pairs)).unwrap()
    };
    let mut session = MqttDevice.connect(&device.address()).await.unwrap();
    let mute = visitor(&[("stateTopic", "nobody/says")]);
    assert!(matches!(session.read(&mute).await, Err(Fault::NoValue(_))));
    assert!(matches!(session.write(&mute, &Value::Int(1)).await, Err(Fault::Unfit(_))), "no command topic");
    let silent = visitor(&[("stateTopic", "nobody/says"), ("commandTopic", "nobody/hears")]);
    assert_eq!(session.write(&silent, &Value::Int(1)).await, Ok(()), "the broker has it");
    drop(device.broker.lock().unwrap().take());
    let ended = async {
        while !session.read(&mute).await.unwrap_err().is_unanswered() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), ended).await.unwrap();
    assert!(session.write(&silent, &Value::Int(1)).await.unwrap_err().is_unanswered());
    let Err(Fault::NotSent(said)) = MqttDevice.connect(&device.address()).await else { panic!("connected") };
    assert!(said.contains("no connection to 127.0.0.1"), "{said}");
}

#[tokio::test]
async fn a_device_that_has_left_is_not_spoken_to_at_each_connection_to_its_broker() {
    let device = Device::start().await;
    let topic = "device/availability";
    let place = conformance::Peer::place(&device);
    let place = place.into_iter().chain([("availabilityTopic", Scalar::Text(topic.to_owned()))]);
    let address = Address::read(&Settings::from_pairs(place)).unwrap();
    drop(MqttDevice.connect(&address).await.unwrap());
    device.client.publish(topic, QoS::AtLeastOnce, true, "offline").await.unwrap();
    eventually("the broker has kept that it has left", async || {
        matches!(MqttDevice.connect(&address).await, Err(Fault::NotSent(said)) if said.contains("has left"))
    })
    .await;
    device.client.publish(topic, QoS::AtLeastOnce, true, "online").await.unwrap();
    eventually("it is back", async || MqttDevice.connect(&address).await.is_ok()).await;
}
