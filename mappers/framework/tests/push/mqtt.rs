//! `pushMethod.mqtt`, against mosquitto.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use dmi::v1beta1::{PushMethod, PushMethodMqtt};
use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS};

use crate::edgecore::eventually;
use crate::mosquitto::Mosquitto;
use crate::pushing::{LARGE, Pushing, device, distinct};

/// Topics, texts, and whether they were kept from before.
type Messages = Arc<Mutex<Vec<(String, String, bool)>>>;

/// Hears all topics.
fn listen(port: u16, login: Option<(&str, &str)>) -> Messages {
    let mut options = MqttOptions::new("listener", "127.0.0.1", port);
    if let Some((user, password)) = login {
        options.set_credentials(user, password);
    }
    let (client, mut events) = AsyncClient::new(options, 16);
    let heard = Messages::default();
    let into = Arc::clone(&heard);
    tokio::spawn(async move {
        loop {
            match events.poll().await {
                Ok(Event::Incoming(Packet::ConnAck(_))) => {
                    client.subscribe("plant/#", QoS::ExactlyOnce).await.unwrap();
                }
                Ok(Event::Incoming(Packet::Publish(message))) => {
                    let text = String::from_utf8(message.payload.to_vec()).unwrap();
                    into.lock().unwrap().push((message.topic, text, message.retain));
                }
                Ok(_) => {}
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    });
    heard
}

fn to(address: String, topic: &str, qos: i32) -> Option<PushMethod> {
    let mqtt = PushMethodMqtt { address, topic: topic.to_owned(), qos, retained: qos == 2 };
    Some(PushMethod { mqtt: Some(mqtt), ..Default::default() })
}

/// The values that came on a topic, each once, in order; their form is checked.
fn values(heard: &Messages, topic: &str) -> Vec<String> {
    let heard = heard.lock().unwrap();
    let values = heard.iter().filter(|(of, ..)| of == topic).map(|(_, text, _)| {
        let (time, value) = text.split_once(&format!("  {topic}: ")).unwrap();
        assert_eq!(time.len(), "time is 2006-01-02 15:04:05".len(), "{text}");
        value.to_owned()
    });
    distinct(values)
}

#[tokio::test]
async fn readings_are_published_in_each_quality_and_in_order() {
    let [port] = testhost::free_ports().unwrap();
    let _broker = Mosquitto::start(port, None).await;
    let heard = listen(port, None);
    let address = format!("tcp://127.0.0.1:{port}");
    let mut pushing =
        Pushing::start(device(to(address.clone(), "plant/level", 0), to(address.clone(), "plant/label", 2)))
            .await;
    eventually("the first ones", async || {
        values(&heard, "plant/level").contains(&"7".to_owned())
            && values(&heard, "plant/label").contains(&"jam".to_owned())
    })
    .await;
    let from = values(&heard, "plant/level").len();
    for level in [LARGE, 9, 10] {
        pushing.level(level).await;
    }
    pushing.label("tea: \"ü\"\n").await;
    eventually("the last ones", async || {
        values(&heard, "plant/level").last().is_some_and(|last| last == "10")
            && values(&heard, "plant/label").last().is_some_and(|last| last == "tea: \"ü\"\n")
    })
    .await;
    assert_eq!(values(&heard, "plant/level")[from..], ["9007199254740993", "9", "10"]);
    assert_eq!(values(&heard, "plant/label"), ["jam", "tea: \"ü\"\n"]);
    pushing.update(device(to(address, "plant/other", 1), None)).await;
    eventually("at its new topic", async || values(&heard, "plant/other") == ["10"]).await;
    // What is retained is there for whoever comes later.
    let later = listen_later(port);
    eventually("what is retained", async || {
        later.lock().unwrap().iter().any(|(topic, _, kept)| topic == "plant/label" && *kept)
    })
    .await;
    pushing.mapper.stop().await;
}

fn listen_later(port: u16) -> Messages {
    let mut options = MqttOptions::new("later", "127.0.0.1", port);
    options.set_clean_session(true);
    let (client, mut events) = AsyncClient::new(options, 16);
    let heard = Messages::default();
    let into = Arc::clone(&heard);
    tokio::spawn(async move {
        client.subscribe("plant/label", QoS::AtLeastOnce).await.unwrap();
        while let Ok(event) = events.poll().await {
            if let Event::Incoming(Packet::Publish(message)) = event {
                into.lock().unwrap().push((message.topic, String::new(), message.retain));
            }
        }
    });
    heard
}

#[tokio::test]
async fn what_waits_for_a_broker_that_is_away_comes_in_order_and_its_restart_heals() {
    let [port] = testhost::free_ports().unwrap();
    let address = format!("127.0.0.1:{port}");
    let pushing = Pushing::start(device(to(address, "plant/level", 1), None)).await;
    pushing.until_said("level", "no connection to 127.0.0.1").await;
    pushing.level(8).await;
    let broker = Mosquitto::start(port, None).await;
    pushing.until_well("level").await;
    drop(broker);
    pushing.until_said("level", "readings wait").await;
    for level in [9, 10] {
        pushing.level(level).await;
    }
    let _broker = Mosquitto::start(port, None).await;
    let heard = listen(port, None);
    pushing.until_well("level").await;
    pushing.level(11).await;
    eventually("the last one", async || {
        values(&heard, "plant/level").last().is_some_and(|last| last == "11")
    })
    .await;
    // Who listens may have come after those that waited.
    // What was not acknowledged before the cut comes again.
    let all = ["8", "9", "10", "11"];
    let values = values(&heard, "plant/level");
    assert!(all.ends_with(&values.iter().map(String::as_str).collect::<Vec<_>>()), "{values:?}");
    pushing.mapper.stop().await;
}

#[tokio::test]
async fn a_login_in_the_address_is_used_and_never_said() {
    let [port] = testhost::free_ports().unwrap();
    let _broker = Mosquitto::start(port, Some(("pump", "p:w"))).await;
    let heard = listen(port, Some(("pump", "p:w")));
    let at = |login: &str| to(format!("tcp://{login}@127.0.0.1:{port}"), "plant/level", 1);
    let mut pushing = Pushing::start(device(at("pump:wrong"), None)).await;
    pushing.until_said("level", "refuses a connection").await;
    let said = pushing.edgecore.heard().fault("one", "level").unwrap();
    assert!(!said.contains("wrong") && !said.contains("pump"), "{said}");
    pushing.update(device(at("pump:p:w"), None)).await;
    eventually("a reading", async || !values(&heard, "plant/level").is_empty()).await;
    pushing.until_well("level").await;
    pushing.mapper.stop().await;
}
