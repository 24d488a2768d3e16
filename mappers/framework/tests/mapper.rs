//! A mapper of a make-believe protocol, against an edgecore on a socket.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod edgecore;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dmi::Scalar;
use dmi::v1beta1::*;
use edgecore::{EdgeCore, Mapper, desiring, device, eventually, model, modelled, property};
use framework::{Fault, InvalidSetting, Property, Protocol, Session, Settings, Subscription, Value};
use tonic::Code;

type Calls = dmi::v1beta1::device_mapper_service_client::DeviceMapperServiceClient<tonic::transport::Channel>;

/// The devices of the make-believe protocol: slots with values.
#[derive(Clone, Default)]
struct FakeProtocol(Arc<Mutex<FakeDevices>>);

#[derive(Default)]
struct FakeDevices {
    slots: BTreeMap<i64, Value>,
    writes: Vec<(i64, Value)>,
    connections: usize,
    reads: usize,
    down: bool,
    delay: Duration,
    panics: usize,
    /// Slots that never answer.
    silent: BTreeSet<i64>,
    /// Slots that answer that they have no value.
    without_value: BTreeSet<i64>,
    /// The link breaks when a write has arrived.
    cuts_at_writes: bool,
    /// It sends by itself what is in the slots, to whom, and at which places.
    pushes: bool,
    subscribed: Option<(Subscription, Vec<i64>)>,
}

impl FakeProtocol {
    fn put(&self, slot: i64, value: Value) {
        self.0.lock().unwrap().slots.insert(slot, value);
    }
    /// The device sends a value by itself.
    fn push(&self, slot: i64, value: Result<Value, Fault>) {
        let inside = self.0.lock().unwrap();
        let (values, slots) = inside.subscribed.as_ref().unwrap();
        values.push(slots.iter().position(|of| *of == slot).unwrap(), value);
    }
    fn set_down(&self, down: bool) {
        self.0.lock().unwrap().down = down;
    }
    fn writes(&self) -> Vec<(i64, Value)> {
        self.0.lock().unwrap().writes.clone()
    }
    fn connections(&self) -> usize {
        self.0.lock().unwrap().connections
    }
}

struct Connection(FakeProtocol);

impl Protocol for FakeProtocol {
    type Address = String;
    type Visitor = i64;
    type Session = Connection;

    fn name(&self) -> &'static str {
        "shelf"
    }
    fn address(&self, settings: &Settings) -> Result<String, InvalidSetting> {
        settings.text("room")?.ok_or_else(|| InvalidSetting::new("setting `room` is missing"))
    }
    fn visitor(&self, _: &Property, settings: &Settings) -> Result<i64, InvalidSetting> {
        settings.whole("slot")?.ok_or_else(|| InvalidSetting::new("setting `slot` is missing"))
    }
    async fn connect(&self, _: &String) -> Result<Connection, Fault> {
        let mut inside = self.0.lock().unwrap();
        if inside.down {
            return Err(Fault::Link("door closed".to_owned()));
        }
        inside.connections += 1;
        drop(inside);
        Ok(Connection(self.clone()))
    }
}

impl Session for Connection {
    type Visitor = i64;

    fn deadline(&self) -> Duration {
        Duration::from_millis(300)
    }

    async fn subscribe(&mut self, slots: &[&i64], values: Subscription) -> Vec<usize> {
        let mut inside = self.0.0.lock().unwrap();
        if !inside.pushes {
            return Vec::new();
        }
        inside.subscribed = Some((values, slots.iter().map(|slot| **slot).collect()));
        // All but the last one.
        (0..slots.len() - 1).collect()
    }

    async fn read(&mut self, slot: &i64) -> Result<Value, Fault> {
        if self.0.0.lock().unwrap().silent.contains(slot) {
            std::future::pending::<()>().await;
        }
        let delay = self.0.0.lock().unwrap().delay;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        let mut inside = self.0.0.lock().unwrap();
        inside.reads += 1;
        if inside.down {
            return Err(Fault::Link("door closed".to_owned()));
        }
        if inside.panics > 0 {
            inside.panics -= 1;
            drop(inside);
            panic!("a defect in a protocol");
        }
        if inside.without_value.contains(slot) {
            return Err(Fault::NoValue("the sensor is not plugged in".to_owned()));
        }
        inside.slots.get(slot).cloned().ok_or_else(|| Fault::Device("empty slot".to_owned()))
    }

    async fn write(&mut self, slot: &i64, value: &Value) -> Result<(), Fault> {
        let mut inside = self.0.0.lock().unwrap();
        if inside.down {
            return Err(Fault::Link("door closed".to_owned()));
        }
        inside.writes.push((*slot, value.clone()));
        inside.slots.insert(*slot, value.clone());
        if inside.cuts_at_writes {
            return Err(Fault::Link("door slammed".to_owned()));
        }
        Ok(())
    }
}

fn levels() -> DeviceModel {
    let mut level = modelled("level", "INT", "ReadWrite");
    level.maximum = "100".to_owned();
    model("box", vec![level, modelled("label", "STRING", "ReadOnly")])
}

fn room(name: &str) -> Device {
    let properties = vec![
        property("level", "shelf", &[("slot", Scalar::Int(1))]),
        property("label", "shelf", &[("slot", Scalar::Float(2.0))]),
    ];
    device(name, "box", "shelf", &[("room", Scalar::Text("cellar".to_owned()))], properties)
}

struct Fixture {
    edgecore: EdgeCore,
    shelf: FakeProtocol,
    mapper: Mapper,
    _folder: tempfile::TempDir,
}

/// An edgecore that hands out one device, a mapper, and a device that answers.
async fn fixture() -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let edgecore = EdgeCore::at(folder.path());
    {
        let mut objects = edgecore.objects.lock().unwrap();
        objects.models = vec![levels()];
        objects.devices = vec![room("one")];
    }
    edgecore.start();
    let shelf = FakeProtocol::default();
    shelf.put(1, Value::Int(7));
    shelf.put(2, Value::Text("jam".to_owned()));
    let mapper = Mapper::start(folder.path(), shelf.clone());
    edgecore.until_value("one", "level", "7").await;
    edgecore.until_value("one", "label", "jam").await;
    Fixture { edgecore, shelf, mapper, _folder: folder }
}

#[tokio::test]
async fn it_registers_as_kubeedge_mappers_do() {
    let fixture = fixture().await;
    let request = fixture.edgecore.heard().registrations[0].clone();
    assert!(request.with_data);
    let info = request.mapper.unwrap();
    assert_eq!((info.name.as_str(), info.protocol.as_str()), ("test-mapper", "shelf"));
    assert_eq!(info.address, fixture.mapper.config.grpc_server.socket_path.to_str().unwrap().as_bytes());
    let socket = fixture.mapper.config.grpc_server.socket_path.clone();
    assert!(socket.exists());
    fixture.mapper.stop().await;
    assert!(!socket.exists(), "it cleans up after itself");
}

#[tokio::test]
async fn what_changes_is_reported_and_what_does_not_is_not() {
    let fixture = fixture().await;
    fixture.shelf.put(1, Value::Int(8));
    fixture.edgecore.until_value("one", "level", "8").await;
    // More than a dozen cycles have passed by the time both are there.
    for value in 9..24 {
        fixture.shelf.put(1, Value::Int(value));
        fixture.edgecore.until_value("one", "level", &value.to_string()).await;
    }
    // What is steady is told again every 10 s, which is not many of these cycles.
    let heard = fixture.edgecore.heard();
    assert!(heard.count("one", "label") * 3 < heard.count("one", "level"), "{heard:?}");
    assert!(heard.states.iter().all(|(_, state)| state == "online"), "{heard:?}");
}

#[tokio::test]
async fn with_a_report_cycle_a_value_and_a_state_are_repeated() {
    let mut fixture = fixture().await;
    let mut device = room("one");
    device.spec.as_mut().unwrap().properties[1].report_cycle = 30;
    device.status.as_mut().unwrap().report_cycle = 30;
    fixture.mapper.calls.update_device(UpdateDeviceRequest { device: Some(device) }).await.unwrap();
    fixture
        .edgecore
        .until("repeated reports", |heard| (heard.count("one", "label") >= 4).then_some(()))
        .await;
    fixture.edgecore.until("repeated states", |heard| (heard.states.len() >= 4).then_some(())).await;
}

#[tokio::test]
async fn a_desired_value_reaches_the_device_and_is_observed() {
    let mut fixture = fixture().await;
    let device = desiring(room("one"), "level", "42");
    fixture.mapper.calls.update_device(UpdateDeviceRequest { device: Some(device.clone()) }).await.unwrap();
    let both = Some(("42".to_owned(), "42".to_owned()));
    fixture.edgecore.until("42 observed", |heard| (heard.last("one", "level") == both).then_some(())).await;
    assert_eq!(fixture.shelf.writes(), [(1, Value::Int(42))]);
    // The same again is written no second time, one beyond the model's maximum not at all.
    fixture.mapper.calls.update_device(UpdateDeviceRequest { device: Some(device) }).await.unwrap();
    let device = desiring(room("one"), "level", "101");
    fixture.mapper.calls.update_device(UpdateDeviceRequest { device: Some(device) }).await.unwrap();
    let device = desiring(room("one"), "level", "43");
    fixture.mapper.calls.update_device(UpdateDeviceRequest { device: Some(device) }).await.unwrap();
    fixture.edgecore.until_value("one", "level", "43").await;
    assert_eq!(fixture.shelf.writes(), [(1, Value::Int(42)), (1, Value::Int(43))]);
    assert_eq!(fixture.shelf.connections(), 1, "and all that over one connection");
}

#[tokio::test]
async fn a_device_may_come_before_its_model_and_a_model_may_change() {
    let mut fixture = fixture().await;
    let properties = vec![property("level", "shelf", &[("slot", Scalar::Int(1))])];
    let late = device("late", "crate", "shelf", &[("room", Scalar::Text("attic".to_owned()))], properties);
    let answer =
        fixture.mapper.calls.register_device(RegisterDeviceRequest { device: Some(late) }).await.unwrap();
    assert_eq!(answer.into_inner().device_name, "late");
    let unhealthy = ("late".to_owned(), "unhealthy".to_owned());
    fixture.edgecore.until("unhealthy", |heard| heard.states.contains(&unhealthy).then_some(())).await;
    let model_of = |kind: &str| Some(model("crate", vec![modelled("level", kind, "ReadWrite")]));
    let request = CreateDeviceModelRequest { model: model_of("INT") };
    fixture.mapper.calls.create_device_model(request).await.unwrap();
    fixture.edgecore.until_value("late", "level", "7").await;
    let request = UpdateDeviceModelRequest { model: model_of("STREAM") };
    fixture.mapper.calls.update_device_model(request).await.unwrap();
    fixture.edgecore.until_fault("late", "level", "type `STREAM` is not served").await;
}

#[tokio::test]
async fn it_waits_for_an_edgecore_that_is_not_there_yet() {
    let folder = tempfile::tempdir().unwrap();
    let edgecore = EdgeCore::at(folder.path());
    let mapper = Mapper::start(folder.path(), FakeProtocol::default());
    // The mapper's socket answers long before it could register anywhere.
    let request = GetDeviceRequest { device_name: "one".to_owned(), device_namespace: String::new() };
    eventually("an answer", async || {
        let mut calls = mapper.calls.clone();
        calls.get_device(request.clone()).await.unwrap_err().code() == Code::NotFound
    })
    .await;
    edgecore.start();
    edgecore.until("a registration", |heard| (!heard.registrations.is_empty()).then_some(())).await;
    mapper.stop().await;
}

#[tokio::test]
async fn a_mapper_whose_socket_somebody_took_away_makes_it_anew_and_learns_what_it_missed() {
    let fixture = fixture().await;
    let socket = fixture.mapper.config.grpc_server.socket_path.clone();
    std::fs::remove_file(&socket).unwrap();
    fixture.edgecore.objects.lock().unwrap().devices = vec![desiring(room("one"), "level", "9")];
    let both = Some(("9".to_owned(), "9".to_owned()));
    fixture.edgecore.until("9 observed", |heard| (heard.last("one", "level") == both).then_some(())).await;
    assert!(socket.exists());
    fixture.mapper.stop().await;
}

#[tokio::test]
async fn an_edgecore_that_restarts_gets_everything_again_and_its_word_counts() {
    let fixture = fixture().await;
    {
        let mut objects = fixture.edgecore.objects.lock().unwrap();
        objects.devices = vec![desiring(room("one"), "level", "9"), room("two")];
    }
    fixture.edgecore.stop().await;
    // What happens meanwhile is told later.
    fixture.shelf.put(2, Value::Text("honey".to_owned()));
    let before = fixture.edgecore.heard();
    fixture.edgecore.start();
    fixture
        .edgecore
        .until("a second registration", |heard| (heard.registrations.len() > 1).then_some(()))
        .await;
    fixture.edgecore.until_value("one", "label", "honey").await;
    fixture.edgecore.until_value("two", "level", "9").await;
    let both = Some(("9".to_owned(), "9".to_owned()));
    fixture.edgecore.until("9 observed", |heard| (heard.last("one", "level") == both).then_some(())).await;
    let states = before.states.len();
    fixture.edgecore.until("the state again", |heard| (heard.states.len() > states + 1).then_some(())).await;
    // A device that edgecore no longer names is gone.
    fixture.edgecore.objects.lock().unwrap().devices = vec![room("two")];
    fixture.edgecore.stop().await;
    fixture.edgecore.start();
    fixture
        .edgecore
        .until("a third registration", |heard| (heard.registrations.len() > 2).then_some(()))
        .await;
    let request = GetDeviceRequest { device_name: "one".to_owned(), device_namespace: "default".to_owned() };
    eventually("the removal", async || {
        fixture.mapper.calls.clone().get_device(request.clone()).await.is_err()
    })
    .await;
}

#[tokio::test]
async fn a_device_that_was_away_is_told_so_and_gets_its_desired_value_again() {
    let mut fixture = fixture().await;
    let device = desiring(room("one"), "level", "42");
    fixture.mapper.calls.update_device(UpdateDeviceRequest { device: Some(device) }).await.unwrap();
    fixture.edgecore.until_value("one", "level", "42").await;
    fixture.shelf.set_down(true);
    let offline = ("one".to_owned(), "offline".to_owned());
    fixture.edgecore.until("offline", |heard| (heard.states.last() == Some(&offline)).then_some(())).await;
    // It was switched off, and starts with what it had from the factory.
    fixture.shelf.put(1, Value::Int(0));
    fixture.shelf.set_down(false);
    let online = ("one".to_owned(), "online".to_owned());
    fixture.edgecore.until("online", |heard| (heard.states.last() == Some(&online)).then_some(())).await;
    eventually("a second write", async || fixture.shelf.writes().len() == 2).await;
    assert_eq!(fixture.shelf.writes(), [(1, Value::Int(42)), (1, Value::Int(42))]);
}

#[tokio::test]
async fn a_removed_device_is_left_alone() {
    let mut fixture = fixture().await;
    let request =
        RemoveDeviceRequest { device_name: "one".to_owned(), device_namespace: "default".to_owned() };
    fixture.mapper.calls.remove_device(request.clone()).await.unwrap();
    fixture.mapper.calls.remove_device(request).await.unwrap();
    // Another device shows that time passes; the removed one is not read any more.
    fixture.mapper.calls.register_device(RegisterDeviceRequest { device: Some(room("two")) }).await.unwrap();
    fixture.shelf.put(1, Value::Int(1000));
    fixture.edgecore.until_value("two", "level", "1000").await;
    assert_eq!(fixture.edgecore.heard().last("one", "level").unwrap().1, "7");
}

#[tokio::test]
async fn a_panic_in_a_protocol_costs_one_device_a_moment() {
    let fixture = fixture().await;
    fixture.shelf.0.lock().unwrap().panics = 1;
    fixture.shelf.put(1, Value::Int(8));
    fixture.edgecore.until_value("one", "level", "8").await;
    assert_eq!(fixture.shelf.connections(), 2);
}

#[tokio::test]
async fn one_refused_value_does_not_hold_up_the_others() {
    let fixture = fixture().await;
    for (code, first) in [(Code::InvalidArgument, 100), (Code::FailedPrecondition, 200), (Code::Unknown, 300)]
    {
        let bad = format!("ja m {first}");
        fixture.edgecore.objects.lock().unwrap().refused_value = Some((bad.clone(), code));
        fixture.shelf.put(2, Value::Text(bad.clone()));
        for value in first..first + 3 {
            fixture.shelf.put(1, Value::Int(value));
            fixture.edgecore.until_value("one", "level", &value.to_string()).await;
        }
        fixture.shelf.put(2, Value::Text(format!("honey {first}")));
        fixture.edgecore.until_value("one", "label", &format!("honey {first}")).await;
    }
}

#[tokio::test]
async fn an_edgecore_that_takes_no_states_still_gets_values() {
    let mut fixture = fixture().await;
    for (code, name) in [(Code::Unimplemented, "two"), (Code::Unknown, "three")] {
        fixture.edgecore.objects.lock().unwrap().refused_states = Some(code);
        let request = RegisterDeviceRequest { device: Some(room(name)) };
        fixture.mapper.calls.register_device(request).await.unwrap();
        fixture.edgecore.until_value(name, "level", "7").await;
    }
    fixture.edgecore.objects.lock().unwrap().refused_states = None;
    let online = ("three".to_owned(), "online".to_owned());
    fixture.edgecore.until("the state", |heard| heard.states.contains(&online).then_some(())).await;
}

#[tokio::test]
async fn a_property_that_cannot_be_read_does_not_hold_up_the_others() {
    let fixture = fixture().await;
    fixture.shelf.0.lock().unwrap().slots.remove(&2);
    fixture.shelf.put(1, Value::Int(8));
    fixture.edgecore.until_value("one", "level", "8").await;
    fixture.shelf.put(2, Value::Text("tea".to_owned()));
    fixture.edgecore.until_value("one", "label", "tea").await;
    assert_eq!(fixture.shelf.connections(), 1);
}

#[tokio::test]
async fn a_property_that_never_answers_starves_nobody_and_is_marked() {
    let fixture = fixture().await;
    fixture.shelf.0.lock().unwrap().silent.insert(1);
    fixture.edgecore.until_fault("one", "level", "no answer").await;
    for jam in 0..20 {
        fixture.shelf.put(2, Value::Text(format!("jam {jam}")));
        fixture.edgecore.until_value("one", "label", &format!("jam {jam}")).await;
    }
    let away = |state: &(String, String)| state.1 != "online";
    assert!(!fixture.edgecore.heard().states.iter().any(away), "the device itself answers");
    fixture.shelf.0.lock().unwrap().silent.clear();
    fixture.edgecore.until_value("one", "level", "7").await;
    assert_eq!(fixture.edgecore.heard().fault("one", "level"), None);
}

#[tokio::test]
async fn a_device_of_which_nothing_answers_is_offline() {
    let fixture = fixture().await;
    fixture.shelf.0.lock().unwrap().silent.extend([1, 2]);
    let offline = ("one".to_owned(), "offline".to_owned());
    fixture.edgecore.until("offline", |heard| (heard.states.last() == Some(&offline)).then_some(())).await;
    fixture.shelf.put(1, Value::Int(8));
    fixture.shelf.0.lock().unwrap().silent.clear();
    fixture.edgecore.until_value("one", "level", "8").await;
    let online = ("one".to_owned(), "online".to_owned());
    fixture.edgecore.until("online", |heard| (heard.states.last() == Some(&online)).then_some(())).await;
}

#[tokio::test]
async fn what_a_device_sends_by_itself_is_not_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let edgecore = EdgeCore::at(folder.path());
    {
        let mut objects = edgecore.objects.lock().unwrap();
        objects.models = vec![levels()];
        objects.devices = vec![room("one")];
    }
    edgecore.start();
    let shelf = FakeProtocol::default();
    shelf.0.lock().unwrap().pushes = true;
    // Asked for, slot 1 would be this, which is never reported.
    shelf.put(1, Value::Int(666));
    shelf.put(2, Value::Text("jam".to_owned()));
    let mapper = Mapper::start(folder.path(), shelf.clone());
    edgecore.until_value("one", "label", "jam").await;
    for value in 1..=5 {
        shelf.push(1, Ok(Value::Int(value)));
        edgecore.until_value("one", "level", &value.to_string()).await;
    }
    shelf.push(1, Err(Fault::NoValue("the sensor is gone".to_owned())));
    edgecore.until_fault("one", "level", "the sensor is gone").await;
    // The session ends, and another one takes its place.
    let connections = shelf.connections();
    shelf.push(1, Err(Fault::Link("the door fell shut".to_owned())));
    eventually("another session", async || shelf.connections() > connections).await;
    eventually("a value of the new session", async || {
        shelf.push(1, Ok(Value::Int(7)));
        edgecore.heard().last("one", "level").is_some_and(|(_, value)| value == "7")
    })
    .await;
    assert!(!edgecore.heard().reports.iter().any(|(.., value)| value == "666"));
    mapper.stop().await;
}

/// The status and the body of what is answered to a GET.
async fn get(port: u16, path: &str, more: &str) -> (u16, String) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\n{more}connection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    if !more.is_empty() {
        assert!(head.contains("x-correlation-id: 42"), "{head}");
    }
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

#[tokio::test]
async fn kubeedges_rest_interface_reads_and_calls_methods() {
    let folder = tempfile::tempdir().unwrap();
    let edgecore = EdgeCore::at(folder.path());
    let mut one = room("one");
    let set_level = DeviceMethod {
        name: "SetLevel".to_owned(),
        property_names: vec!["level".to_owned(), "label".to_owned()],
        ..Default::default()
    };
    one.spec.as_mut().unwrap().methods = vec![set_level];
    {
        let mut objects = edgecore.objects.lock().unwrap();
        objects.models = vec![levels()];
        objects.devices = vec![one];
    }
    edgecore.start();
    let shelf = FakeProtocol::default();
    shelf.put(1, Value::Int(7));
    shelf.put(2, Value::Text("jam".to_owned()));
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut config = edgecore::config(folder.path(), "shelf");
    config.common.http_port = port.to_string();
    let mapper = Mapper::start_with(config.clone(), shelf.clone());
    edgecore.until_value("one", "level", "7").await;
    let (status, body) = get(port, "/api/v1/ping", "x-correlation-id: 42\r\n").await;
    assert!(status == 200 && body.contains(r#""apiVersion":"v1""#) && body.contains("normally"), "{body}");
    let (status, body) = get(port, "/api/v1/device/default/one/level", "").await;
    assert!(status == 200 && body.contains(r#""Value":"7""#) && body.contains(r#""Type":"int""#), "{body}");
    let (status, body) = get(port, "/api/v1/devicemethod/default/one", "").await;
    assert!(status == 200 && body.contains("/api/v1/devicemethod/default/one/SetLevel/"), "{body}");
    let (status, body) = get(port, "/api/v1/meta/model/default/one", "").await;
    assert!(status == 200 && body.contains(r#""dataType":"INT""#), "{body}");
    let set = "/api/v1/devicemethod/default/one/SetLevel";
    assert_eq!(get(port, &format!("{set}/level/9"), "").await.0, 200);
    assert_eq!(shelf.writes(), [(1, Value::Int(9))]);
    edgecore.until_value("one", "level", "9").await;
    for (path, status, said) in [
        (format!("{set}/level/101"), 500, "above the model's maximum"),
        (format!("{set}/label/tea"), 500, "ReadOnly"),
        (format!("{set}/ghost/1"), 500, "does not name"),
        ("/api/v1/devicemethod/default/one/Explode/level/1".to_owned(), 500, "no such method"),
        ("/api/v1/device/default/two/level".to_owned(), 404, "no device default/two"),
        ("/api/v1/device/default/one/%zz".to_owned(), 400, "not understood"),
        ("/metrics".to_owned(), 404, "/api/v1/"),
    ] {
        let (found, body) = get(port, &path, "").await;
        assert!(found == status && body.contains(said), "{path}: {found} {body}");
    }
    let from_a_page = "origin: http://elsewhere\r\nx-correlation-id: 42\r\n";
    assert_eq!(get(port, &format!("{set}/level/1"), from_a_page).await.0, 403);
    assert_eq!(shelf.writes().len(), 1);
    mapper.stop().await;
    // Only reading.
    config.common.http_allow = "read".to_owned();
    let mapper = Mapper::start_with(config, shelf.clone());
    eventually("the device read", async || {
        std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
            && get(port, "/api/v1/device/default/one/level", "").await.0 == 200
    })
    .await;
    assert_eq!(get(port, &format!("{set}/level/1"), "").await.0, 403);
    mapper.stop().await;
}

#[tokio::test]
async fn no_value_is_told_as_such_and_not_as_the_last_one() {
    let fixture = fixture().await;
    fixture.shelf.0.lock().unwrap().without_value.insert(1);
    fixture.edgecore.until_fault("one", "level", "not plugged in").await;
    fixture.shelf.0.lock().unwrap().without_value.clear();
    fixture.edgecore.until_value("one", "level", "7").await;
}

#[tokio::test]
async fn what_is_refused_is_told_to_the_cloud() {
    let mut fixture = fixture().await;
    let update = async |device: Device, calls: &mut Calls| {
        calls.update_device(UpdateDeviceRequest { device: Some(device) }).await.unwrap();
    };
    let calls = &mut fixture.mapper.calls;
    update(desiring(room("one"), "level", "101"), calls).await;
    fixture.edgecore.until_refusal("one", "level", "101 is above the model's maximum 100").await;
    update(desiring(room("one"), "level", "ON"), calls).await;
    fixture.edgecore.until_refusal("one", "level", "`ON` is not a whole number").await;
    update(desiring(room("one"), "label", "honey"), calls).await;
    fixture.edgecore.until_refusal("one", "label", "ReadOnly").await;
    update(desiring(room("one"), "level", "9"), calls).await;
    fixture.edgecore.until_value("one", "level", "9").await;
    let mended = |heard: &edgecore::ReceivedReports| heard.refusal("one", "level").is_none().then_some(());
    fixture.edgecore.until("no refusal", mended).await;
    // A property that no model knows, and a device that cannot be served at all.
    let mut ghost = room("one");
    ghost.spec.as_mut().unwrap().properties.push(property("ghost", "shelf", &[]));
    update(ghost, calls).await;
    fixture.edgecore.until_fault("one", "ghost", "no property of that name").await;
    let homeless = device("two", "box", "shelf", &[], vec![property("level", "shelf", &[])]);
    update(homeless, calls).await;
    fixture.edgecore.until_fault("two", "level", "setting `room` is missing").await;
}

#[tokio::test]
async fn a_command_is_sent_once_over_cuts_and_restarts_of_the_mapper() {
    let mut fixture = fixture().await;
    let mut commanded = desiring(room("one"), "level", "5");
    commanded.spec.as_mut().unwrap().properties[0].report_to_cloud = false;
    fixture.edgecore.objects.lock().unwrap().devices = vec![commanded.clone()];
    fixture.shelf.0.lock().unwrap().cuts_at_writes = true;
    let request = UpdateDeviceRequest { device: Some(commanded.clone()) };
    fixture.mapper.calls.update_device(request).await.unwrap();
    fixture.edgecore.until_refusal("one", "level", "it was sent once").await;
    for cut in 0..5 {
        fixture.shelf.set_down(true);
        let offline = ("one".to_owned(), "offline".to_owned());
        fixture
            .edgecore
            .until("offline", |heard| (heard.states.last() == Some(&offline)).then_some(()))
            .await;
        fixture.shelf.set_down(false);
        fixture.shelf.put(2, Value::Text(format!("after cut {cut}")));
        fixture.edgecore.until_value("one", "label", &format!("after cut {cut}")).await;
    }
    fixture.mapper.stop().await;
    let mut mapper = Mapper::start(fixture._folder.path(), fixture.shelf.clone());
    fixture.shelf.put(2, Value::Text("after a restart".to_owned()));
    fixture.edgecore.until_value("one", "label", "after a restart").await;
    assert_eq!(fixture.shelf.writes(), [(1, Value::Int(5))]);
    // Desired again, it is another one.
    fixture.shelf.0.lock().unwrap().cuts_at_writes = false;
    let metadata = &mut commanded.spec.as_mut().unwrap().properties[0].desired.as_mut().unwrap().metadata;
    metadata.insert("timestamp".to_owned(), "1550000000000".to_owned());
    mapper.calls.update_device(UpdateDeviceRequest { device: Some(commanded) }).await.unwrap();
    let done = |heard: &edgecore::ReceivedReports| {
        let is_done = heard.last("one", "level")?.0 == "5" && heard.refusal("one", "level").is_none();
        is_done.then_some(())
    };
    fixture.edgecore.until("the command done", done).await;
    assert_eq!(fixture.shelf.writes().len(), 2);
    mapper.stop().await;
}

#[tokio::test]
async fn on_a_slow_device_every_property_has_its_turn() {
    let mut fixture = fixture().await;
    // Ten times 100 ms is far beyond the cycle of 20 ms that all of them have.
    fixture.shelf.0.lock().unwrap().delay = Duration::from_millis(100);
    let names: Vec<String> = (0..10).map(|at| format!("p{at}")).collect();
    let modelled = names.iter().map(|name| modelled(name, "INT", "ReadWrite")).collect();
    let request = CreateDeviceModelRequest { model: Some(model("slow", modelled)) };
    fixture.mapper.calls.create_device_model(request).await.unwrap();
    let slot = [("slot", Scalar::Int(1))];
    let properties = names.iter().map(|name| property(name, "shelf", &slot)).collect();
    let slow = device("slow", "slow", "shelf", &[("room", Scalar::Text("attic".to_owned()))], properties);
    fixture.mapper.calls.register_device(RegisterDeviceRequest { device: Some(slow) }).await.unwrap();
    for name in &names {
        fixture.edgecore.until_value("slow", name, "7").await;
    }
    let first = fixture.edgecore.heard();
    let known = names.iter().filter(|name| first.count("slow", name) == 1).count();
    assert_eq!(known, names.len());
}

#[tokio::test]
async fn its_socket_answers_bad_requests_with_the_reason() {
    let mut fixture = fixture().await;
    let calls = &mut fixture.mapper.calls;
    let code = |status: tonic::Status| status.code();
    let none = RegisterDeviceRequest { device: None };
    assert_eq!(code(calls.register_device(none).await.unwrap_err()), Code::InvalidArgument);
    let nameless = UpdateDeviceRequest { device: Some(Device::default()) };
    assert_eq!(code(calls.update_device(nameless).await.unwrap_err()), Code::InvalidArgument);
    let long = RegisterDeviceRequest { device: Some(Device { name: "x".repeat(300), ..Default::default() }) };
    assert_eq!(code(calls.register_device(long).await.unwrap_err()), Code::InvalidArgument);
    let model = CreateDeviceModelRequest { model: None };
    assert_eq!(code(calls.create_device_model(model).await.unwrap_err()), Code::InvalidArgument);
    let huge = Device { name: "x".to_owned(), namespace: "y".repeat(5 << 20), ..Default::default() };
    assert!(calls.register_device(RegisterDeviceRequest { device: Some(huge) }).await.is_err());
    // A device without a spec is kept, and said to be unhealthy by whoever asks for its state.
    let bare =
        RegisterDeviceRequest { device: Some(Device { name: "bare".to_owned(), ..Default::default() }) };
    calls.register_device(bare).await.unwrap();
    let request = GetDeviceRequest { device_name: "one".to_owned(), device_namespace: String::new() };
    let device = calls.get_device(request).await.unwrap().into_inner().device.unwrap();
    let twins = device.status.unwrap().twins;
    let level = twins.iter().find(|twin| twin.property_name == "level").unwrap();
    assert_eq!(level.reported.as_ref().unwrap().value, "7");
}

#[tokio::test]
async fn a_second_mapper_of_the_same_config_does_not_start() {
    let folder = tempfile::tempdir().unwrap();
    let mapper = Mapper::start(folder.path(), FakeProtocol::default());
    let serves = async || std::os::unix::net::UnixStream::connect(&mapper.config.grpc_server.socket_path);
    while serves().await.is_err() {
        tokio::task::yield_now().await;
    }
    let said = framework::run(&mapper.config, FakeProtocol::default(), std::future::pending()).await;
    let said = said.unwrap_err().to_string();
    assert!(said.contains("another mapper") && said.contains("commands.json"), "{said}");
    serves().await.expect("the first one serves its socket as before");
}

#[tokio::test]
async fn a_config_for_another_protocol_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = Mapper::start(folder.path(), FakeProtocol::default()).config.clone();
    config.common.protocol = "opcua".to_owned();
    let said = framework::run(&config, FakeProtocol::default(), std::future::pending())
        .await
        .unwrap_err()
        .to_string();
    assert!(said.contains("`opcua`") && said.contains("`shelf`"), "{said}");
}
