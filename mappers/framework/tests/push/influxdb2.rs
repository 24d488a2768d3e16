//! `dbMethod.influxdb2`, against a strict stand-in.

use dmi::v1beta1::{DbMethod, DbMethodInfluxdb2, Influxdb2ClientConfig, Influxdb2DataConfig, PushMethod};

use crate::pushing::{LARGE, Pushing, Target, device, distinct};

fn to(port: u16, bucket: &str) -> Option<PushMethod> {
    let client = Influxdb2ClientConfig {
        url: format!("http://127.0.0.1:{port}"),
        org: "my plant".to_owned(),
        bucket: bucket.to_owned(),
    };
    let data = Influxdb2DataConfig {
        measurement: "room, one".to_owned(),
        tag: [("the place".to_owned(), "a=b, c".to_owned())].into(),
        field_key: "v=1".to_owned(),
    };
    let influxdb2 =
        DbMethodInfluxdb2 { influxdb2_client_config: Some(client), influxdb2_data_config: Some(data) };
    let database = DbMethod { influxdb2: Some(influxdb2), ..Default::default() };
    Some(PushMethod { db_method: Some(database), ..Default::default() })
}

fn has(value: &str) -> impl Fn(&serde_json::Value) -> bool + use<> {
    let value = value.to_owned();
    move |point| point[2]["v=1"] == value.as_str()
}

#[tokio::test]
async fn readings_are_points_and_whatever_is_in_a_text_stays_in_it() {
    let mut target = Target::start(&[], "influxdb2.py");
    let pushing = Pushing::start(device(to(target.port, "b&c"), to(target.port, "b&c"))).await;
    pushing.level(LARGE).await;
    let strange = "a\" 1\nroom,x=y v=\"2\\\" \\";
    pushing.label(strange).await;
    target.until_took("the text", has(strange)).await;
    target.until_took("the number", has("9007199254740993")).await;
    let took = target.took();
    let is_same = |point: &&serde_json::Value| point[0] == "room, one" && point[1]["the place"] == "a=b, c";
    assert_eq!(took.iter().filter(is_same).count(), took.len(), "{took:?}");
    // One odd point is refused, and those beside it are not lost.
    pushing.label("an odd one").await;
    pushing.until_said("label", "lost: it answers 422").await;
    pushing.level(9).await;
    pushing.label("an even one").await;
    target.until_took("the next one", has("an even one")).await;
    pushing.until_well("label").await;
    assert!(pushing.edgecore.heard().fault("one", "level").is_none(), "it is the other one's fault");
    pushing.mapper.stop().await;
}

#[tokio::test]
async fn what_waits_for_a_database_that_is_away_comes_in_order_and_its_restart_heals() {
    let mut target = Target::start(&[], "influxdb2.py");
    target.script.tell("mode login");
    let mut pushing = Pushing::start(device(to(target.port, "b&c"), None)).await;
    pushing.until_said("level", "401 Unauthorized").await;
    let said = pushing.edgecore.heard().fault("one", "level").unwrap();
    assert!(said.contains("environment") && !said.contains("t0ken"), "{said}");
    pushing.level(8).await;
    target.script.tell("mode well");
    target.until_took("what waited", has("8")).await;
    target.script.tell("off");
    pushing.until_said("level", "no connection").await;
    pushing.level(9).await;
    target.script.tell("on");
    pushing.level(10).await;
    target.until_took("the last one", has("10")).await;
    pushing.until_well("level").await;
    let took = target.took();
    assert!(took.is_sorted_by_key(|point| point[3].as_u64().unwrap()));
    let values = distinct(took.iter().map(|point| point[2]["v=1"].as_str().unwrap()));
    assert_eq!(values, ["7", "8", "9", "10"]);
    pushing.update(device(to(target.port, "another"), None)).await;
    pushing.until_said("level", "404 Not Found").await;
    pushing.mapper.stop().await;
}
