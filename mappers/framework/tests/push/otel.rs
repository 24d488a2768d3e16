//! `pushMethod.otel`, against a collector that reads with OpenTelemetry's own messages.

use dmi::v1beta1::{PushMethod, PushMethodOtel};
use framework::Value;

use crate::pushing::{LARGE, Pushing, Target, device, distinct};

/// The messages, what they stand on, and what that stands on.
const PACKAGES: [&str; 2] = ["opentelemetry-proto==1.45.2", "protobuf==7.36.2"];

fn to(port: u16) -> Option<PushMethod> {
    let otel = PushMethodOtel { endpoint_url: format!("http://127.0.0.1:{port}/v1/metrics") };
    Some(PushMethod { otel: Some(otel), ..Default::default() })
}

fn has(number: i128) -> impl Fn(&serde_json::Value) -> bool {
    move |point| point[3] == number.to_string().as_str()
}

#[tokio::test]
async fn readings_are_points_of_a_gauge_and_exact() {
    let mut target = Target::start(&PACKAGES, "otel.py");
    let pushing = Pushing::start(device(to(target.port), to(target.port))).await;
    pushing.until_said("label", "a gauge holds numbers, and the property is a STRING").await;
    for level in [LARGE, i64::MIN.into()] {
        pushing.level(level).await;
    }
    target.until_took("the last one", has(i64::MIN.into())).await;
    let took = target.took();
    let wanted = ["7".to_owned(), LARGE.to_string(), i64::MIN.to_string()];
    assert_eq!(distinct(took.iter().map(|point| point[3].as_str().unwrap().to_owned())), wanted);
    let first = &took[0];
    assert_eq!((&first[0], &first[2]), (&"default/one".into(), &"level".into()));
    assert!(took.is_sorted_by_key(|point| point[4].as_u64().unwrap()));
    // What no point can hold is said, and the next one goes.
    pushing.level(u64::MAX.into()).await;
    pushing.until_said("level", "2^63-1").await;
    pushing.level(8).await;
    target.until_took("the next one", has(8)).await;
    pushing.until_well("level").await;
    pushing.mapper.stop().await;
}

#[tokio::test]
async fn what_waits_for_a_collector_that_is_away_comes_in_order_and_its_restart_heals() {
    let mut target = Target::start(&PACKAGES, "otel.py");
    target.script.tell("off");
    let pushing = Pushing::start(device(to(target.port), None)).await;
    pushing.until_said("level", "no connection").await;
    pushing.level(8).await;
    target.script.tell("on");
    target.until_took("what waited", has(8)).await;
    target.script.tell("off");
    pushing.until_said("level", "readings wait").await;
    pushing.level(9).await;
    target.script.tell("on");
    target.until_took("what waited again", has(9)).await;
    pushing.until_well("level").await;
    // What a collector rejects in an answer that is well is said in its words.
    target.script.tell("mode partial");
    pushing.shelf.put(1, Value::Int(101));
    pushing.until_said("level", "that is too much").await;
    pushing.level(10).await;
    target.until_took("the next one", has(10)).await;
    pushing.until_well("level").await;
    let values = distinct(target.took().iter().map(|point| point[3].as_str().unwrap().to_owned()));
    assert_eq!(values, ["7", "8", "9", "10"]);
    pushing.mapper.stop().await;
}
