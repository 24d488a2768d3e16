//! Modbus in the suite that every mapper passes, against the simulator.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../../framework/tests/conformance/mod.rs"]
mod conformance;
#[path = "../../framework/tests/edgecore/mod.rs"]
mod edgecore;

use std::sync::Mutex;

use dmi::Scalar;
use dmi::v1beta1::UpdateDeviceRequest;
use modbus::{Modbus, Simulator};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

struct Peer {
    simulator: Simulator,
    port: u16,
    running: Mutex<Option<(oneshot::Sender<()>, JoinHandle<()>)>>,
}

/// Where a property is, and in how many registers; `boolean` is a coil.
fn at(property: &str) -> (usize, usize) {
    match property {
        "int" => (40, 4),
        "float" => (44, 2),
        "double" => (48, 4),
        "string" => (52, 8),
        "boolean" => (9, 1),
        "seen" => (62, 1),
        _ => (64, 1),
    }
}

impl conformance::Peer for Peer {
    type Protocol = Modbus;

    fn protocol(&self) -> Modbus {
        Modbus::default()
    }
    fn place(&self) -> Vec<(&'static str, Scalar)> {
        vec![("ip", Scalar::Text("127.0.0.1".to_owned())), ("port", Scalar::Int(self.port.into()))]
    }
    fn visitors(&self, property: &str) -> Vec<(&'static str, Scalar)> {
        let (offset, limit) = at(property);
        let register = if property == "boolean" { "CoilRegister" } else { "HoldingRegister" };
        let mut pairs = vec![
            ("register", Scalar::Text(register.to_owned())),
            ("offset", Scalar::Int(offset.try_into().unwrap())),
            ("limit", Scalar::Int(limit.try_into().unwrap())),
        ];
        if property == "int" {
            pairs.push(("dataType", Scalar::Text("uint64".to_owned())));
        }
        pairs
    }
    fn has(&self, property: &str) -> String {
        let memory = self.simulator.memory();
        let (offset, count) = at(property);
        if property == "boolean" {
            return memory.coils[offset].to_string();
        }
        let bytes: Vec<u8> = memory.holding_registers[offset..offset + count]
            .iter()
            .flat_map(|word| word.to_be_bytes())
            .collect();
        match property {
            "int" => u64::from_be_bytes(bytes.try_into().unwrap()).to_string(),
            "float" => f32::from_be_bytes(bytes.try_into().unwrap()).to_string(),
            "double" => f64::from_be_bytes(bytes.try_into().unwrap()).to_string(),
            "string" => String::from_utf8(bytes).unwrap().trim_end_matches('\0').to_owned(),
            _ => u16::from_be_bytes(bytes.try_into().unwrap()).to_string(),
        }
    }
    fn set(&self, property: &str, value: &str) {
        let mut memory = self.simulator.memory();
        let (offset, count) = at(property);
        let mut bytes = match property {
            "boolean" => {
                memory.coils[offset] = value == "true";
                return;
            }
            "int" => value.parse::<u64>().unwrap().to_be_bytes().to_vec(),
            "float" => value.parse::<f32>().unwrap().to_be_bytes().to_vec(),
            "double" => value.parse::<f64>().unwrap().to_be_bytes().to_vec(),
            "string" => value.as_bytes().to_vec(),
            _ => value.parse::<u16>().unwrap().to_be_bytes().to_vec(),
        };
        bytes.resize(count * 2, 0);
        for (register, two) in memory.holding_registers[offset..].iter_mut().zip(bytes.chunks_exact(2)) {
            *register = u16::from_be_bytes([two[0], two[1]]);
        }
    }
    async fn switch(&self, on: bool) -> bool {
        if !on {
            let (end, task) = self.running.lock().unwrap().take().unwrap();
            drop(end);
            task.await.unwrap();
            return true;
        }
        let listener = TcpListener::bind(("127.0.0.1", self.port)).await.unwrap();
        let (end, ended) = oneshot::channel::<()>();
        let simulator = self.simulator.clone();
        let task = tokio::spawn(async move {
            simulator.serve(listener, async move { drop(ended.await) }).await.unwrap();
        });
        *self.running.lock().unwrap() = Some((end, task));
        true
    }
}

/// A slip in `slaveID` would mean unit 1, which is somebody else's.
#[tokio::test]
async fn a_slip_in_the_units_key_is_said_and_nothing_is_read_or_written() {
    let [port] = testhost::free_ports().unwrap();
    let peer = Peer { simulator: Simulator::default(), port, running: Mutex::default() };
    assert!(conformance::Peer::switch(&peer, true).await);
    let folder = tempfile::tempdir().unwrap();
    let edgecore = edgecore::EdgeCore::at(folder.path());
    let with = |more: &[(&'static str, Scalar)]| {
        let visitors = conformance::Peer::visitors(&peer, "level");
        let place: Vec<_> = conformance::Peer::place(&peer).into_iter().chain(more.iter().cloned()).collect();
        let level = edgecore::property("level", "modbus", &visitors);
        edgecore::desiring(edgecore::device("one", "levels", "modbus", &place, vec![level]), "level", "42")
    };
    {
        let mut objects = edgecore.objects.lock().unwrap();
        let level = edgecore::modelled("level", "INT", "ReadWrite");
        objects.models = vec![edgecore::model("levels", vec![level])];
        objects.devices = vec![with(&[("slavId", Scalar::Int(5))])];
    }
    edgecore.start();
    let mut mapper = edgecore::Mapper::start(folder.path(), Modbus::default());
    let said = "configData: setting `slavId` is not known; write `slaveID`";
    edgecore.until_fault("one", "level", said).await;
    let unhealthy = ("one".to_owned(), "unhealthy".to_owned());
    edgecore.until("unhealthy", |heard| (heard.states.last() == Some(&unhealthy)).then_some(())).await;
    assert_eq!(conformance::Peer::has(&peer, "level"), "0", "unit 1 has what it had");
    // All that KubeEdge's mapper knows is known.
    let right = with(&[
        ("SlaveID", Scalar::Int(5)),
        ("timeout", Scalar::Int(5)),
        ("communicateMode", Scalar::Text("TCP".to_owned())),
        ("serialName", Scalar::Text(String::new())),
    ]);
    let request = UpdateDeviceRequest { device: Some(right) };
    mapper.calls.update_device(request).await.unwrap();
    edgecore.until_value("one", "level", "42").await;
    assert_eq!(edgecore.heard().fault("one", "level"), None);
    mapper.stop().await;
}

#[tokio::test]
async fn modbus_conforms() {
    let [port] = testhost::free_ports().unwrap();
    let peer = Peer { simulator: Simulator::default(), port, running: Mutex::default() };
    assert!(conformance::Peer::switch(&peer, true).await);
    conformance::conforms(&peer).await;
}
