//! What is said of a device and not taken is seen in the cloud, until it is said well or nobody says it any more.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod fixture;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use beehive::{Clock, Env, Moment, TokioClock};
use contract::UpReport;
use contract::ids::DEVICE_MODELS;
use dmi::v1beta1 as pb;
use edge_devicetwin::KernelPeerResolver;
use fixture::told::{conditions, told};
use fixture::{Node, options, registration, run, speed, start, start_in, status_report, until};
use futures::future::BoxFuture;
use serde_json::{Value, json};

const UPDATE: &str = "$hw/events/device/default/pump/twin/update";

/// A clock that a test sets on.
struct Ahead {
    clock: TokioClock,
    seconds: Arc<AtomicU64>,
}

impl Clock for Ahead {
    fn now(&self) -> Moment {
        self.clock.now() + Duration::from_secs(self.seconds.load(Ordering::SeqCst))
    }
    fn wall(&self) -> SystemTime {
        self.clock.wall() + Duration::from_secs(self.seconds.load(Ordering::SeqCst))
    }
    fn sleep(&self, pause: Duration) -> BoxFuture<'static, ()> {
        self.clock.sleep(pause)
    }
}

async fn refused(node: &mut Node, twin: Value, words: &str) {
    let said = node.update(twin).await.unwrap_err();
    assert!(said.contains(words), "{said}");
    let result = node.published("twin/update/result").await;
    assert_eq!((&result["code"], &result["event_id"]), (&json!(400), &json!("7c1f")));
    assert!(result["reason"].as_str().unwrap().contains(words), "{result}");
}

async fn taken(node: &mut Node, twin: Value) {
    node.update(twin).await.unwrap();
    assert_eq!(node.published("twin/update/result").await["code"], Value::Null);
}

async fn is_well(node: &Node) {
    until(|| conditions(node) == Some(Vec::new())).await;
}

#[test]
fn a_value_of_another_json_type_stands_on_the_device_until_there_is_a_good_one() {
    run(|folder| async move {
        let mut node = start(&folder, options());
        node.pump("").await;
        let actual = |value: Value| json!({ "speed": { "actual": { "value": value } } });
        taken(&mut node, actual(json!("5"))).await;
        for (wrong, words) in [
            (actual(json!({ "a": 1 })), "the value of `speed` in `actual` is an object"),
            (json!({ "speed": 7 }), "property `speed` is a number"),
        ] {
            refused(&mut node, wrong, words).await;
            let said = told(&node, "Reporting", "NoValue").await;
            assert!(said.contains("`speed`") && said.contains(words), "{said}");
            assert_eq!(speed(&node.reports()), Some((Some(""), None)), "it is the old value no more");
            taken(&mut node, actual(json!("6"))).await;
            is_well(&node).await;
        }
        node.stop().await;
    });
}

#[test]
fn what_no_property_can_show_is_said_of_the_device_until_it_is_said_well() {
    run(|folder| async move {
        let mut node = start(&folder, options());
        node.pump("").await;
        taken(&mut node, json!({ "speed": { "actual": { "value": "5" } } })).await;
        let wish = |value: Value| json!({ "speed": { "expected": { "value": value } } });
        for (wrong, words) in [
            (wish(json!("fast")), "`fast` is no whole number"),
            (wish(json!([1])), "the value of `speed` in `expected` is a list"),
        ] {
            refused(&mut node, wrong, words).await;
            let said = told(&node, "MessagesTaken", "Refused").await;
            assert!(said.starts_with("a twin/update of an MQTT client was not taken: "), "{said}");
            assert!(said.contains("`speed`") && said.contains(words), "{said}");
            taken(&mut node, wish(json!("7"))).await;
            is_well(&node).await;
        }
        let state = "$hw/events/device/default/pump/state/update";
        assert!(node.mqtt(state, r#"{"state":"dancing"}"#).await.is_err());
        let said = told(&node, "MessagesTaken", "Refused").await;
        assert!(said.contains("state/update") && said.contains("online, offline"), "{said}");
        node.mqtt(state, r#"{"state":"online"}"#).await.unwrap();
        is_well(&node).await;
        node.stop().await;
    });
}

#[test]
fn what_names_nothing_and_what_is_said_once_is_not_said_for_ever() {
    run(|folder| async move {
        let seconds = Arc::<AtomicU64>::default();
        let clock = TokioClock::paused_from(SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000));
        let clock = Ahead { clock, seconds: Arc::clone(&seconds) };
        let settings = config::edge::DeviceTwin { dmi_sock_path: folder.clone(), ..Default::default() };
        let env = Env::seeded(1).with_clock(Arc::new(clock));
        let mut node = start_in(env, &folder, options(), settings, Arc::new(KernelPeerResolver));
        node.pump("").await;
        taken(&mut node, json!({ "speed": { "actual": { "value": "5" } } })).await;
        assert!(node.mqtt(UPDATE, "no JSON").await.is_err());
        assert_eq!(node.published("twin/update/result").await["code"], 400);
        assert!(told(&node, "MessagesTaken", "Refused").await.contains("not understood"));
        taken(&mut node, json!({ "speed": { "actual": { "value": "6" } } })).await;
        seconds.fetch_add(30, Ordering::SeqCst);
        is_well(&node).await;
        refused(&mut node, json!({ "speed": { "expected": { "value": "fast" } } }), "whole number").await;
        told(&node, "MessagesTaken", "Refused").await;
        seconds.fetch_add(600, Ordering::SeqCst);
        is_well(&node).await;
        node.stop().await;
    });
}

fn misnamed(property: &str) -> pb::ReportDeviceStatusRequest {
    let mut report = status_report("", "21");
    report.reported_device.as_mut().unwrap().twins[0].property_name = property.to_owned();
    report
}

/// What the cloud has of a property: `None` if nothing, or that it is gone.
fn reported(node: &Node, of: &str) -> Option<String> {
    node.reports().into_iter().rev().find_map(|report| match report {
        UpReport::Twin { property, reported, .. } if property == of => Some(reported?.value),
        _ => None,
    })
}

#[test]
fn a_misnamed_property_is_well_when_the_model_gets_it_or_when_nobody_tells_of_it_any_more() {
    run(|folder| async move {
        let seconds = Arc::<AtomicU64>::default();
        let clock = TokioClock::paused_from(SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000));
        let clock = Ahead { clock, seconds: Arc::clone(&seconds) };
        let settings = config::edge::DeviceTwin { dmi_sock_path: folder.clone(), ..Default::default() };
        let env = Env::seeded(1).with_clock(Arc::new(clock));
        let mut node = start_in(env, &folder, options(), settings, Arc::new(KernelPeerResolver));
        node.pump("").await;
        let mut manager = node.manager().await;
        manager.mapper_register(registration(&folder, false)).await.unwrap();
        manager.report_device_status(misnamed("heat")).await.unwrap();
        manager.report_device_status(misnamed("sped")).await.unwrap();
        let said = told(&node, "Reporting", "FaultBesideValue").await;
        assert!(said.contains("`heat`") && said.contains("correct its name in the mapper"), "{said}");
        // The model gets one of them, and nobody has to report it again.
        let model = json!({ "metadata": { "name": "pumps" }, "spec": { "properties": [
            { "name": "speed", "type": "INT" }, { "name": "heat", "type": "INT" }] } });
        node.put(DEVICE_MODELS, "pumps", "m1", model).await;
        until(|| conditions(&node).is_some_and(|all| all.iter().all(|(.., said)| !said.contains("`heat`"))))
            .await;
        assert!(told(&node, "Reporting", "FaultBesideValue").await.contains("`sped`"));
        // Of the other one nothing is heard any more.
        seconds.fetch_add(60, Ordering::SeqCst);
        is_well(&node).await;
        assert_eq!((reported(&node, "sped"), reported(&node, "heat")), (None, Some("21".to_owned())));
        let gone = loop {
            let document = node.published("twin/update/document").await;
            if document["twin"]["sped"]["current"].is_null() && document["twin"]["sped"].is_object() {
                break document;
            }
        };
        assert_eq!(gone["twin"]["sped"]["last"]["actual"]["value"], "21");
        // Who tells of it again is told again that it is wrong.
        manager.report_device_status(misnamed("sped")).await.unwrap();
        assert!(told(&node, "Reporting", "FaultBesideValue").await.contains("`sped`"));
        node.stop().await;
    });
}

#[test]
fn what_a_mapper_says_under_no_name_is_said_of_the_device() {
    run(|folder| async move {
        let node = start(&folder, options());
        node.pump("").await;
        let mut manager = node.manager().await;
        manager.mapper_register(registration(&folder, false)).await.unwrap();
        manager.report_device_status(status_report("", "5")).await.unwrap();
        assert!(manager.report_device_status(misnamed("a b")).await.is_err());
        let said = told(&node, "MessagesTaken", "Refused").await;
        assert!(said.starts_with("a report of the device's mapper was not taken: property `a b`"), "{said}");
        node.stop().await;
    });
}
