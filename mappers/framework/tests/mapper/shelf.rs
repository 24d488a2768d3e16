//! The make-believe protocol, an edgecore, and a mapper that has registered.
#![allow(dead_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dmi::Scalar;
use dmi::v1beta1::{Device, DeviceModel};
use framework::anomaly::Spread;
use framework::{
    AnomalyDetector, Fault, InvalidSetting, Property, Protocol, Session, Settings, Subscription, Value,
    Verdict,
};

use crate::edgecore::{EdgeCore, Mapper, device, model, modelled, property};

/// edgecore's calls to a mapper.
pub(crate) type Calls =
    dmi::v1beta1::device_mapper_service_client::DeviceMapperServiceClient<tonic::transport::Channel>;

/// The devices of the make-believe protocol: slots with values.
#[derive(Clone, Default)]
pub(crate) struct FakeProtocol(pub(crate) Arc<Mutex<FakeDevices>>);

#[derive(Default)]
pub(crate) struct FakeDevices {
    pub(crate) slots: BTreeMap<i64, Value>,
    pub(crate) writes: Vec<(i64, Value)>,
    pub(crate) connections: usize,
    pub(crate) reads: usize,
    pub(crate) down: bool,
    /// Why, where tests look at the words.
    pub(crate) down_because: Option<&'static str>,
    /// Connections that were tried, in vain or not.
    pub(crate) tries: usize,
    pub(crate) delay: Duration,
    pub(crate) panics: usize,
    /// Slots that never answer.
    pub(crate) silent: BTreeSet<i64>,
    /// Slots that answer that they have no value.
    pub(crate) without_value: BTreeSet<i64>,
    /// Slots into which nothing fits, whatever the device would say.
    pub(crate) unfit: BTreeSet<i64>,
    /// The link breaks when a write has arrived.
    pub(crate) cuts_at_writes: bool,
    /// It sends by itself what is in the slots, to whom, and at which places.
    pub(crate) pushes: bool,
    pub(crate) subscribed: Option<(Subscription, Vec<i64>)>,
}

impl FakeDevices {
    fn link_fault(&self) -> Fault {
        Fault::Link(self.down_because.unwrap_or("door closed").to_owned())
    }
}

impl FakeProtocol {
    pub(crate) fn put(&self, slot: i64, value: Value) {
        self.0.lock().unwrap().slots.insert(slot, value);
    }
    /// The device sends a value by itself.
    pub(crate) fn push(&self, slot: i64, value: Result<Value, Fault>) {
        let inside = self.0.lock().unwrap();
        let (values, slots) = inside.subscribed.as_ref().unwrap();
        values.push(slots.iter().position(|of| *of == slot).unwrap(), value);
    }
    pub(crate) fn set_down(&self, down: bool) {
        self.0.lock().unwrap().down = down;
    }
    /// Nobody gets in any more, for this reason.
    pub(crate) fn set_down_because(&self, why: &'static str) {
        let mut inside = self.0.lock().unwrap();
        (inside.down, inside.down_because) = (true, Some(why));
    }
    pub(crate) fn tries(&self) -> usize {
        self.0.lock().unwrap().tries
    }
    pub(crate) fn writes(&self) -> Vec<(i64, Value)> {
        self.0.lock().unwrap().writes.clone()
    }
    pub(crate) fn connections(&self) -> usize {
        self.0.lock().unwrap().connections
    }
}

pub(crate) struct Connection(FakeProtocol);

/// Detectors of the protocol's own.
struct Odd;
/// One that remembers what came first.
struct First(Option<Value>);

impl AnomalyDetector for Odd {
    fn judge(&mut self, value: &Value, _: std::time::SystemTime) -> Verdict {
        match value {
            Value::Int(number) if number % 2 != 0 => Verdict::Anomaly(format!("{number} is odd")),
            _ => Verdict::Normal,
        }
    }
}

impl Protocol for FakeProtocol {
    type Address = String;
    type Visitor = i64;
    type Session = Connection;

    fn name(&self) -> &'static str {
        "shelf"
    }
    fn address(&self, settings: &Settings) -> Result<String, InvalidSetting> {
        settings.whole("floor")?;
        settings.text("room")?.ok_or_else(|| InvalidSetting::new("setting `room` is missing"))
    }
    fn visitor(&self, _: &Property, settings: &Settings) -> Result<i64, InvalidSetting> {
        settings.whole("slot")?.ok_or_else(|| InvalidSetting::new("setting `slot` is missing"))
    }
    fn detector(
        &self,
        property: &Property,
        settings: &Settings,
    ) -> Result<Box<dyn AnomalyDetector>, InvalidSetting> {
        match settings.text("rule")?.as_deref() {
            Some("odd") => Ok(Box::new(Odd)),
            Some("first") => Ok(Box::new(First(None))),
            _ => Ok(Box::new(Spread::read(property, settings)?)),
        }
    }
    async fn connect(&self, _: &String) -> Result<Connection, Fault> {
        let mut inside = self.0.lock().unwrap();
        inside.tries += 1;
        if inside.down {
            return Err(inside.link_fault());
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
            return Err(inside.link_fault());
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
            return Err(inside.link_fault());
        }
        inside.writes.push((*slot, value.clone()));
        if inside.unfit.contains(slot) {
            return Err(Fault::Unfit(format!("{value} does not fit into a slot")));
        }
        inside.slots.insert(*slot, value.clone());
        if inside.cuts_at_writes {
            return Err(Fault::Link("door slammed".to_owned()));
        }
        Ok(())
    }
}

impl AnomalyDetector for First {
    fn judge(&mut self, value: &Value, _: std::time::SystemTime) -> Verdict {
        let first = self.0.get_or_insert_with(|| value.clone());
        if first == value {
            Verdict::Normal
        } else {
            Verdict::Anomaly(format!("{value} is not {first}, which came first"))
        }
    }
}

pub(crate) fn levels() -> DeviceModel {
    let mut level = modelled("level", "INT", "ReadWrite");
    level.maximum = "100".to_owned();
    model("box", vec![level, modelled("label", "STRING", "ReadOnly")])
}

pub(crate) fn room(name: &str) -> Device {
    let properties = vec![
        property("level", "shelf", &[("slot", Scalar::Int(1))]),
        property("label", "shelf", &[("slot", Scalar::Float(2.0))]),
    ];
    device(name, "box", "shelf", &[("room", Scalar::Text("cellar".to_owned()))], properties)
}

pub(crate) struct Fixture {
    pub(crate) edgecore: EdgeCore,
    pub(crate) shelf: FakeProtocol,
    pub(crate) mapper: Mapper,
    pub(crate) folder: tempfile::TempDir,
}

/// An edgecore that hands out one device, a mapper, and a device that answers.
pub(crate) async fn fixture() -> Fixture {
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
    Fixture { edgecore, shelf, mapper, folder }
}
