//! The mapper's hive against an edgecore on a socket: protocols that panic or block, and a panic at every message.

#[path = "../tests/edgecore/mod.rs"]
mod edgecore;

use std::collections::BTreeMap;
use std::future::pending;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use apimachinery::NamespacedName;
use beehive::testing::{PanicPoint, plan_panic};
use beehive::{Ended, Env, Hive, Name};
use dmi::v1beta1::*;
use tokio::task::LocalSet;
use tonic::Code;

use crate::commands::CommandLog;
use crate::device::{Description, Device as DeviceActor, DeviceInstance, DeviceMsg, policy};
use crate::push::Pushers;
use crate::run::{close, open, run_watched};
use crate::{
    Fault, InvalidSetting, MapperError, Property, Protocol, Scalar, Session, Settings, Subscription, Value,
};
use edgecore::{EdgeCore, Mapper, desiring, device, eventually, model, modelled, property};

/// A protocol whose devices do what their address says: `answers`, `panics`, `blocks`, `breaks-off` (it answers, and ends each
/// session soon after it was subscribed to), or `parse-panics`.
#[derive(Clone, Default)]
struct ScriptedProtocol(Arc<Mutex<Recorded>>, BreaksOff);

/// Whether a session ends soon after it was subscribed to.
type BreaksOff = bool;

#[derive(Default)]
struct Recorded {
    connects: BTreeMap<String, usize>,
    written: Option<Value>,
}

impl ScriptedProtocol {
    fn connects(&self, mood: &str) -> usize {
        self.0.lock().unwrap().connects.get(mood).copied().unwrap_or_default()
    }
}

impl Protocol for ScriptedProtocol {
    type Address = String;
    type Visitor = ();
    type Session = ScriptedProtocol;

    fn name(&self) -> &'static str {
        "moody"
    }
    fn address(&self, settings: &Settings) -> Result<String, InvalidSetting> {
        let mood = settings.text("mood")?.unwrap();
        assert_ne!(mood, "parse-panics", "a defect in a protocol's parser");
        Ok(mood)
    }
    fn visitor(&self, _: &Property, _: &Settings) -> Result<(), InvalidSetting> {
        Ok(())
    }
    async fn connect(&self, mood: &String) -> Result<ScriptedProtocol, Fault> {
        *self.0.lock().unwrap().connects.entry(mood.clone()).or_default() += 1;
        match mood.as_str() {
            "panics" => panic!("a defect in a protocol"),
            "blocks" => std::thread::sleep(Duration::from_secs(30)),
            _ => {}
        }
        Ok(ScriptedProtocol(Arc::clone(&self.0), mood == "breaks-off"))
    }
}

impl Session for ScriptedProtocol {
    type Visitor = ();
    async fn read(&mut self, (): &()) -> Result<Value, Fault> {
        Ok(self.0.lock().unwrap().written.clone().unwrap_or(Value::Int(7)))
    }
    async fn subscribe(&mut self, _: &[&()], values: Subscription) -> Vec<usize> {
        if self.1 {
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(100)).await;
                values.push(0, Err(Fault::Link("reset".to_owned())));
            });
        }
        Vec::new()
    }
    async fn write(&mut self, (): &(), value: &Value) -> Result<(), Fault> {
        self.0.lock().unwrap().written = Some(value.clone());
        Ok(())
    }
}

fn moody(name: &str, mood: &str) -> Device {
    let properties = vec![property("level", "moody", &[])];
    device(name, "box", "moody", &[("mood", Scalar::Text(mood.to_owned()))], properties)
}

fn boxes() -> DeviceModel {
    model("box", vec![modelled("level", "INT", "ReadWrite")])
}

fn edgecore_with(folder: &tempfile::TempDir, devices: Vec<Device>) -> EdgeCore {
    let edgecore = EdgeCore::at(folder.path());
    *edgecore.objects.lock().unwrap() =
        edgecore::EdgeCoreObjects { models: vec![boxes()], devices, ..Default::default() };
    edgecore
}

#[tokio::test]
async fn devices_whose_protocol_panics_again_and_again_are_unhealthy_and_the_others_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let devices = vec![moody("good", "answers"), moody("bad", "panics"), moody("odd", "parse-panics")];
    let edgecore = edgecore_with(&folder, devices);
    edgecore.start();
    let protocol = ScriptedProtocol::default();
    let mut mapper = Mapper::start(folder.path(), protocol.clone());
    for name in ["bad", "odd"] {
        let unhealthy = (name.to_owned(), "unhealthy".to_owned());
        edgecore.until("unhealthy", |heard| heard.states.contains(&unhealthy).then_some(())).await;
    }
    assert_eq!(protocol.connects("panics"), 5, "then it is left alone");
    // The mapper is still the one that registered, and the other device still serves its first connection.
    let good = desiring(moody("good", "answers"), "level", "9");
    mapper.calls.update_device(UpdateDeviceRequest { device: Some(good) }).await.unwrap();
    edgecore.until_value("good", "level", "9").await;
    assert_eq!((edgecore.heard().registrations.len(), protocol.connects("answers")), (1, 1));
    // Described otherwise, both are tried at once.
    for name in ["bad", "odd"] {
        let mended = UpdateDeviceRequest { device: Some(moody(name, "answers")) };
        mapper.calls.update_device(mended).await.unwrap();
        edgecore.until_value(name, "level", "9").await;
    }
    mapper.stop().await;
}

/// Runs a test in virtual time, with one device in this mood.
async fn alone<F: Future<Output = ()>>(mood: &str, test: impl FnOnce(ScriptedProtocol, Env) -> F) {
    let folder = tempfile::tempdir().unwrap();
    let protocol = ScriptedProtocol::default();
    let seen = protocol.clone();
    LocalSet::new()
        .run_until(async move {
            let (client, _) =
                crate::edgecore::EdgeCore::at(&folder.path().join("none").display().to_string());
            let description = Description { device: moody("bad", mood), model: Some(boxes()) };
            let name = NamespacedName::new("default", "bad");
            let instance = Rc::new(DeviceInstance::new(name, description));
            let mut hive = Hive::new("test", Env::seeded(1));
            let commands = CommandLog::open(&folder.path().join("commands.json")).unwrap();
            let mailbox = hive.mailbox::<DeviceMsg>(Name::from("device"), policy().capacity);
            let protocol = Rc::new(protocol);
            hive.supervise(mailbox, policy(), move || {
                DeviceActor::new(
                    Rc::clone(&instance),
                    Rc::clone(&protocol),
                    client.clone(),
                    commands.clone(),
                    Pushers::default(),
                    None,
                )
            });
            hive.open().unwrap();
            test(seen, hive.env().clone()).await;
            hive.shutdown(Duration::from_secs(1)).await;
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn an_unhealthy_device_is_tried_again_every_minute() {
    alone("panics", |seen, env| async move {
        env.sleep(Duration::from_secs(30)).await;
        assert_eq!(seen.connects("panics"), 5);
        env.sleep(Duration::from_secs(600)).await;
        // A minute each, and the hive's pause of at most half a minute.
        let retries = seen.connects("panics") - 5;
        assert!((6..=10).contains(&retries), "{retries}");
        let unhealthy = env.metrics().count_of("mapper_devices_unhealthy");
        assert!((retries..=retries + 1).contains(&usize::try_from(unhealthy).unwrap()), "{unhealthy}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_device_that_answers_and_breaks_off_each_time_is_dialled_ever_later() {
    alone("breaks-off", |seen, env| async move {
        env.sleep(Duration::from_secs(600)).await;
        let connects = seen.connects("breaks-off");
        // At once, after 1 s to 32 s, and then after half a minute to a minute.
        assert!((8..=30).contains(&connects), "{connects}");
        // In between it is offline; not for the one that came at once.
        let offline = env.metrics().count_of("mapper_devices_offline");
        assert!(offline > 0, "{offline}");
    })
    .await;
}

#[tokio::test]
async fn a_protocol_that_blocks_the_thread_is_found_and_ends_the_mapper_with_the_devices_name() {
    let folder = tempfile::tempdir().unwrap();
    let edgecore = edgecore_with(&folder, vec![moody("slow", "blocks")]);
    edgecore.start();
    let config = edgecore::config(folder.path(), "moody");
    let ended = run_watched(&config, ScriptedProtocol::default(), pending(), Duration::from_secs(6)).await;
    let Err(MapperError::Blocked(reason)) = ended else { panic!("{ended:?}") };
    assert!(reason.contains("mapper/device:default/slow"), "{reason}");
}

/// Calls until the mapper, which a planned panic may have taken down for a moment, answers.
macro_rules! until_it_answers {
    ($mapper:ident, $call:ident, $request:expr) => {
        eventually(stringify!($call), async || match $mapper.clone().$call($request).await {
            Ok(_) => true,
            Err(status) => {
                // A mapper that has just started knows no device before edgecore has answered its registration.
                assert!(matches!(status.code(), Code::Unavailable | Code::NotFound), "{status:?}");
                false
            }
        })
        .await
    };
}

async fn is_served_through_a_panic(actor: &str, message: &'static str, awaits: u32) {
    let folder = tempfile::tempdir().unwrap();
    let edgecore = edgecore_with(&folder, vec![moody("one", "answers")]);
    edgecore.start();
    let config = edgecore::config(folder.path(), "moody");
    let mut hive = open(&config, ScriptedProtocol::default()).unwrap();
    let point = PanicPoint { message: Some(message), nth: 1, awaits };
    let planned = plan_panic(&hive.inspector(), actor, point);
    let mapper = edgecore::calls(&config);
    edgecore.until_value("one", "level", "7").await;
    until_it_answers!(mapper, create_device_model, CreateDeviceModelRequest { model: Some(boxes()) });
    let two = moody("two", "answers");
    // What edgecore hands out is what it was told to: the truth, also for a mapper that starts anew, whose registration may be
    // answered after this call.
    edgecore.objects.lock().unwrap().devices = vec![moody("one", "answers"), two.clone()];
    let register = || RegisterDeviceRequest { device: Some(two.clone()) };
    until_it_answers!(mapper, register_device, register());
    let one = desiring(moody("one", "answers"), "level", "9");
    edgecore.objects.lock().unwrap().devices = vec![one.clone(), two.clone()];
    let update = || UpdateDeviceRequest { device: Some(one.clone()) };
    until_it_answers!(mapper, update_device, update());
    for name in ["one", "two"] {
        edgecore.until_value(name, "level", "9").await;
    }
    let get = || GetDeviceRequest { device_name: "one".to_owned(), device_namespace: String::new() };
    until_it_answers!(mapper, get_device, get());
    let model = || RemoveDeviceModelRequest { model_name: "x".to_owned(), model_namespace: String::new() };
    until_it_answers!(mapper, remove_device_model, model());
    edgecore.objects.lock().unwrap().devices = vec![one.clone()];
    let remove = || RemoveDeviceRequest { device_name: "two".to_owned(), device_namespace: String::new() };
    until_it_answers!(mapper, remove_device, remove());
    // edgecore starts anew and is told everything again.
    let registrations = edgecore.heard().registrations.len();
    edgecore.stop().await;
    edgecore.start();
    edgecore
        .until("another registration", |heard| (heard.registrations.len() > registrations).then_some(()))
        .await;
    let reports = edgecore.heard().count("one", "level");
    edgecore.until("the value again", |heard| (heard.count("one", "level") > reports).then_some(())).await;
    assert!(planned.has_happened(), "{actor} has not handled {message}");
    let gave_up = tokio::time::timeout(Duration::ZERO, hive.gave_up()).await;
    assert!(gave_up.is_err(), "{gave_up:?}");
    close(hive, &config, None).await.unwrap();
    assert!(!config.grpc_server.socket_path.exists());
}

#[tokio::test]
async fn the_mapper_and_its_devices_go_on_after_a_panic_at_any_message() {
    for (actor, message) in [
        ("mapper", "Register"),
        ("mapper", "RegistrationAnswered"),
        ("mapper", "EdgeCoreLost"),
        ("mapper", "RegisterDevice"),
        ("mapper", "RegisterModel"),
        ("mapper", "RemoveDevice"),
        ("mapper", "RemoveModel"),
        ("mapper", "GetDevice"),
        ("device", "Due"),
        ("device", "Described"),
        ("device", "Registered"),
    ] {
        LocalSet::new().run_until(is_served_through_a_panic(actor, message, 0)).await;
    }
    // While it waits for edgecore to take a report.
    LocalSet::new().run_until(is_served_through_a_panic("device", "Due", 1)).await;
}

#[tokio::test]
async fn a_mapper_stops_its_devices_first_and_reports_what_was_not_reported() {
    let folder = tempfile::tempdir().unwrap();
    let edgecore = edgecore_with(&folder, vec![moody("one", "answers")]);
    edgecore.start();
    let config = edgecore::config(folder.path(), "moody");
    LocalSet::new()
        .run_until(async {
            let hive = open(&config, ScriptedProtocol::default()).unwrap();
            edgecore.until_value("one", "level", "7").await;
            let report = hive.inspector().report(Duration::from_secs(1)).await;
            let names: Vec<&str> = report.actors.iter().map(|actor| actor.name.as_str()).collect();
            assert_eq!(names, ["mapper", "mapper/device:default/one"]);
            assert_eq!(report.counter("mapper_registrations"), 1);
            assert_eq!(hive.shutdown(Duration::from_secs(10)).await, Ended::InOrder);
        })
        .await;
}
