//! OPC UA in the suite that every mapper passes, against a server of asyncua: sent by the server, and read in cycles.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod asyncua;
#[path = "../../framework/tests/conformance/mod.rs"]
mod conformance;
#[path = "../../framework/tests/edgecore/mod.rs"]
mod edgecore;
#[path = "../../framework/tests/python/mod.rs"]
mod python;

use std::path::PathBuf;
use std::sync::Mutex;

use asyncua::{Asyncua, node};
use dmi::Scalar;
use opcuadevice::OpcUa;

struct Peer {
    server: Mutex<Asyncua>,
    place: Vec<(&'static str, Scalar)>,
    pki: PathBuf,
    is_subscribed: bool,
}

impl conformance::Peer for Peer {
    type Protocol = OpcUa;

    fn protocol(&self) -> OpcUa {
        OpcUa::with(self.pki.clone())
    }
    fn place(&self) -> Vec<(&'static str, Scalar)> {
        self.place.clone()
    }
    fn visitors(&self, property: &str) -> Vec<(&'static str, Scalar)> {
        [node(property), vec![("subscribe", Scalar::Bool(self.is_subscribed))]].concat()
    }
    fn has(&self, property: &str) -> String {
        let value = self.server.lock().unwrap().script.ask(&format!("get {property}"));
        match property {
            // Python has one size of floats.
            "float" => (value.parse::<f64>().unwrap() as f32).to_string(),
            "double" => value.parse::<f64>().unwrap().to_string(),
            _ => value,
        }
    }
    fn set(&self, property: &str, value: &str) {
        self.server.lock().unwrap().script.tell(&format!("set {property} {value}"));
    }
    async fn switch(&self, on: bool) -> bool {
        self.server.lock().unwrap().script.tell(if on { "on" } else { "off" });
        true
    }
}

async fn conforms(is_subscribed: bool) {
    let server = Asyncua::open();
    let place = server.place(&[]);
    let pki = server.folder.path().join("pki");
    let peer = Peer { server: Mutex::new(server), place, pki, is_subscribed };
    conformance::conforms(&peer).await;
}

#[tokio::test]
async fn opc_ua_conforms_with_what_the_server_sends() {
    conforms(true).await;
}

#[tokio::test]
async fn opc_ua_conforms_with_what_is_read_in_cycles() {
    conforms(false).await;
}
