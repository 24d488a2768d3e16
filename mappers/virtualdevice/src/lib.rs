//! A mapper of devices that exist nowhere else: the first device of a newcomer, and the template of a mapper.
//!
//! A protocol is three types. [`Address`] says where a device is, [`Visitor`] where a property is within it, and
//! [`VirtualSession`] is a connection that reads and writes; [`VirtualDevice`] makes them from the settings of a Device. All
//! else is the framework's. To write a mapper, copy this crate and put the words of your protocol into these four places.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod generator;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use framework::{Fault, InvalidSetting, Kind, Property, Protocol, Session, Settings, Value, ValueError};
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::time::Instant;

pub use generator::{Generator, Shape};

/// The protocol's name in devices and in the mapper's config.
pub const NAME: &str = "virtual";

/// Where a device is: its number or name. Two Devices with the same one are the same device.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address(pub String);

/// Where a property is within its device, and what it does by itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Visitor {
    name: String,
    initial: Value,
    /// None: it keeps what it was given.
    generator: Option<Generator>,
}

/// The protocol. Its devices live as long as it does.
#[derive(Debug, Clone)]
pub struct VirtualDevice {
    name: String,
    devices: Arc<Mutex<BTreeMap<Address, Memory>>>,
    started: Instant,
}

/// What a device was given, by property.
type Memory = BTreeMap<String, Value>;

/// A connection to a device.
#[derive(Debug)]
pub struct VirtualSession {
    address: Address,
    protocol: VirtualDevice,
    chance: SmallRng,
}

impl VirtualDevice {
    /// For devices whose `protocol.protocolName` is `name`.
    pub fn named(name: impl Into<String>) -> Self {
        VirtualDevice { name: name.into(), devices: Arc::default(), started: Instant::now() }
    }

    /// The memories of its devices.
    pub fn devices(&self) -> MutexGuard<'_, BTreeMap<Address, Memory>> {
        self.devices.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Protocol for VirtualDevice {
    type Address = Address;
    type Visitor = Visitor;
    type Session = VirtualSession;

    fn name(&self) -> &str {
        &self.name
    }

    fn address(&self, settings: &Settings) -> Result<Address, InvalidSetting> {
        // KubeEdge's samples have a number here.
        settings.text("deviceID")?.map(Address).ok_or_else(|| {
            InvalidSetting::new("setting `deviceID` is missing; write any number or name for the device")
        })
    }

    fn visitor(&self, property: &Property, settings: &Settings) -> Result<Visitor, InvalidSetting> {
        // KubeEdge's samples say the type here once more; the model's counts.
        settings.text("dataType")?;
        let text = settings.text("initial")?;
        let initial = match &text {
            Some(text) => Value::parse(property.kind, text).map_err(|error| wrong(&error))?,
            None => zero(property.kind),
        };
        let shape = match settings.text("generate")?.unwrap_or_default().to_ascii_lowercase().as_str() {
            "" if property.writable || text.is_some() => None,
            "none" => None,
            "" | "random" => Some(Shape::Random),
            "counter" => Some(Shape::Counter),
            "sine" => Some(Shape::Sine),
            other => {
                return Err(InvalidSetting::new(format!(
                    "setting `generate` is `{other}`; write random, counter, sine or none"
                )));
            }
        };
        let period = Duration::from_millis(settings.whole_within("periodMs", 60_000, 1..=86_400_000)?);
        let (minimum, maximum) = (property.minimum.unwrap_or(0.0), property.maximum.unwrap_or(100.0));
        let generator = shape.map(|shape| Generator { shape, kind: property.kind, period, minimum, maximum });
        Ok(Visitor { name: property.name.clone(), initial, generator })
    }

    async fn connect(&self, address: &Address) -> Result<VirtualSession, Fault> {
        Ok(VirtualSession {
            address: address.clone(),
            protocol: self.clone(),
            chance: SmallRng::from_os_rng(),
        })
    }
}

impl Session for VirtualSession {
    type Visitor = Visitor;

    async fn read(&mut self, visitor: &Visitor) -> Result<Value, Fault> {
        if let Some(generator) = &visitor.generator {
            return Ok(generator.value(self.protocol.started.elapsed(), self.chance.random()));
        }
        let devices = self.protocol.devices();
        let given = devices.get(&self.address).and_then(|memory| memory.get(&visitor.name));
        Ok(given.unwrap_or(&visitor.initial).clone())
    }

    async fn write(&mut self, visitor: &Visitor, value: &Value) -> Result<(), Fault> {
        if visitor.generator.is_some() {
            return Err(Fault::Unfit("the value is generated; leave out `generate` to set it".to_owned()));
        }
        let mut devices = self.protocol.devices();
        devices.entry(self.address.clone()).or_default().insert(visitor.name.clone(), value.clone());
        Ok(())
    }
}

fn wrong(error: &ValueError) -> InvalidSetting {
    InvalidSetting::new(format!("setting `initial`: {error}"))
}

fn zero(kind: Kind) -> Value {
    match kind {
        Kind::Int => Value::Int(0),
        Kind::Float => Value::Float(0.0),
        Kind::Double => Value::Double(0.0),
        Kind::Text => Value::Text(String::new()),
        Kind::Bool => Value::Bool(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use framework::Scalar;

    fn property(writable: bool) -> Property {
        Property { writable, maximum: Some(9.0), ..Property::new("p", Kind::Int) }
    }

    fn visitor(writable: bool, pairs: &[(&str, Scalar)]) -> Result<Visitor, String> {
        let settings = Settings::from_pairs(pairs.iter().cloned());
        let visitor = VirtualDevice::named(NAME).visitor(&property(writable), &settings);
        visitor.map_err(|refusal| refusal.to_string())
    }

    fn text(text: &str) -> Scalar {
        Scalar::Text(text.to_owned())
    }

    #[test]
    fn what_is_read_only_moves_by_itself_and_what_is_written_stays() {
        assert_eq!(visitor(true, &[]).unwrap().generator, None);
        let generator = visitor(false, &[("dataType", text("int"))]).unwrap().generator.unwrap();
        assert_eq!((generator.shape, generator.minimum, generator.maximum), (Shape::Random, 0.0, 9.0));
        assert_eq!(visitor(false, &[("initial", text("7"))]).unwrap().initial, Value::Int(7));
        assert_eq!(visitor(false, &[("generate", text("none"))]).unwrap().generator, None);
    }

    #[test]
    fn wrong_settings_are_named() {
        for wrong in [("initial", text("many")), ("generate", text("noise")), ("periodMs", Scalar::Int(0))] {
            let said = visitor(true, std::slice::from_ref(&wrong)).unwrap_err();
            assert!(said.contains(wrong.0), "{said}");
        }
        let nowhere = VirtualDevice::named(NAME).address(&Settings::default());
        assert!(nowhere.unwrap_err().to_string().contains("`deviceID` is missing"));
    }
}
