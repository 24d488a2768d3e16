//! The virtual device in the suite that every mapper passes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../../framework/tests/conformance/mod.rs"]
mod conformance;
#[path = "../../framework/tests/edgecore/mod.rs"]
mod edgecore;

use dmi::Scalar;
use framework::{Kind, Value};
use virtualdevice::{Address, NAME, VirtualDevice};

struct Peer(VirtualDevice);

fn kind(property: &str) -> Kind {
    match property {
        "float" => Kind::Float,
        "double" => Kind::Double,
        "string" => Kind::Text,
        "boolean" => Kind::Bool,
        _ => Kind::Int,
    }
}

impl conformance::Peer for Peer {
    type Protocol = VirtualDevice;

    fn protocol(&self) -> VirtualDevice {
        self.0.clone()
    }
    fn place(&self) -> Vec<(&'static str, Scalar)> {
        vec![("deviceID", Scalar::Int(1))]
    }
    fn visitors(&self, _: &str) -> Vec<(&'static str, Scalar)> {
        vec![("generate", Scalar::Text("none".to_owned()))]
    }
    fn has(&self, property: &str) -> String {
        self.0.devices()[&Address("1".to_owned())][property].to_string()
    }
    fn set(&self, property: &str, value: &str) {
        let value = Value::parse(kind(property), value).unwrap();
        let mut devices = self.0.devices();
        devices.entry(Address("1".to_owned())).or_default().insert(property.to_owned(), value);
    }
    async fn switch(&self, _: bool) -> bool {
        false
    }
}

#[tokio::test]
async fn a_virtual_device_conforms() {
    conformance::conforms(&Peer(VirtualDevice::named(NAME))).await;
}
