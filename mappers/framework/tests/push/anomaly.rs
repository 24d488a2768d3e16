//! `pushMethod.anomalyDetection`: what becomes of readings that a detector finds odd, by each action, and of a mapper's own detector.

use std::collections::BTreeMap;

use dmi::Scalar;
use dmi::v1beta1::{AnomalyDetection, PushMethod, PushMethodHttp};

use crate::pushing::{Pushing, Target, device, distinct};

fn watched(port: u16, pairs: &[(&str, Scalar)]) -> Option<PushMethod> {
    let http = PushMethodHttp {
        hostname: "http://127.0.0.1".to_owned(),
        port: port.into(),
        requestpath: "/".to_owned(),
        timeout: 1,
    };
    let data: BTreeMap<_, _> = pairs.iter().map(|(key, value)| ((*key).to_owned(), value.to_any())).collect();
    let anomaly_detection = Some(AnomalyDetection { data });
    Some(PushMethod { http: Some(http), anomaly_detection, ..Default::default() })
}

fn text(text: &str) -> Scalar {
    Scalar::Text(text.to_owned())
}

fn has(value: &'static str) -> impl Fn(&serde_json::Value) -> bool {
    move |form| form[1][0][1] == value
}

/// The values that were posted, each once, in order.
fn posted(target: &mut Target) -> Vec<String> {
    distinct(target.took().iter().map(|form| form[1][0][1].as_str().unwrap().to_owned()))
}

#[tokio::test]
async fn an_anomaly_is_told_with_its_reason_and_pushed_with_all_others() {
    let mut target = Target::start(&[], "form.py");
    let pushing = Pushing::start(device(watched(target.port, &[("high", text("90"))]), None)).await;
    pushing.level(93).await;
    pushing.until_said("level", "anomaly: 93 is above 90").await;
    assert_eq!(pushing.edgecore.heard().last("one", "level").unwrap().1, "93", "it is told all the same");
    pushing.level(12).await;
    pushing.until_well("level").await;
    target.until_took("the last one", has("12")).await;
    assert_eq!(posted(&mut target), ["7", "93", "12"]);
    pushing.mapper.stop().await;
}

#[tokio::test]
async fn an_anomaly_alone_is_pushed_or_it_alone_is_not() {
    let mut target = Target::start(&[], "form.py");
    let to = |target: &Target, action: &str| {
        watched(target.port, &[("low", Scalar::Int(5)), ("action", text(action))])
    };
    let mut pushing = Pushing::start(device(to(&target, "push"), None)).await;
    pushing.level(3).await;
    pushing.level(8).await;
    pushing.level(4).await;
    target.until_took("the second one", has("4")).await;
    assert_eq!(posted(&mut target), ["3", "4"]);
    pushing.update(device(to(&target, "block"), None)).await;
    pushing.edgecore.until_fault("one", "level", "anomaly: 4 is below 5").await;
    pushing.level(9).await;
    pushing.shelf.put(1, framework::Value::Int(2));
    pushing.edgecore.until_fault("one", "level", "anomaly: 2 is below 5").await;
    pushing.level(10).await;
    target.until_took("the last one", has("10")).await;
    assert_eq!(posted(&mut target)[2..], ["9", "10"], "neither 2 nor 4 once more");
    pushing.mapper.stop().await;
}

#[tokio::test]
async fn a_mapper_may_bring_its_own_detector_and_what_nobody_understands_is_said() {
    let target = Target::start(&[], "form.py");
    let mut pushing = Pushing::start(device(watched(target.port, &[("rule", text("odd"))]), None)).await;
    pushing.until_said("level", "anomaly: 7 is odd").await;
    for (pairs, said) in [
        (
            vec![("hihg", Scalar::Int(5)), ("low", Scalar::Int(5))],
            "anomalyDetection: setting `hihg` is not known",
        ),
        (vec![("low", Scalar::Int(5)), ("action", text("drop"))], "`action` is `drop`"),
        (vec![("action", text("mark"))], "nothing says what an anomaly is"),
    ] {
        pushing.update(device(watched(target.port, &pairs), None)).await;
        pushing.until_said("level", said).await;
        assert_eq!(pushing.edgecore.heard().last("one", "level").unwrap().1, "7", "it is read all the same");
    }
    pushing
        .update(device(
            watched(target.port, &[("rule", text("odd")), ("enabled", Scalar::Bool(false))]),
            None,
        ))
        .await;
    pushing.until_well("level").await;
    pushing.mapper.stop().await;
}

/// What is neither told nor pushed is read for its detector all the same, and what a detector knows outlives a new desired value.
#[tokio::test]
async fn a_property_that_is_only_watched_is_read_and_a_detector_keeps_what_it_knows() {
    let target = Target::start(&[], "form.py");
    let mut first = watched(target.port, &[("rule", text("first"))]).unwrap();
    first.http = None;
    let mut one = device(Some(first), None);
    one.spec.as_mut().unwrap().properties[0].report_to_cloud = false;
    let mut pushing = Pushing::start(one.clone()).await;
    pushing.label("read").await;
    let desiring = crate::edgecore::desiring(one, "level", "50");
    pushing.update(desiring).await;
    // From 7, which was read before the description changed, to 50.
    pushing.until_said("level", "anomaly: 50 is not 7, which came first").await;
    pushing.mapper.stop().await;
}
