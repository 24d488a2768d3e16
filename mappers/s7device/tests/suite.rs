//! S7 in the suite that every mapper passes, against the server of python-snap7; and what else that server shows.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../../framework/tests/conformance/mod.rs"]
mod conformance;
#[path = "../../framework/tests/edgecore/mod.rs"]
mod edgecore;
#[path = "../../framework/tests/python/mod.rs"]
mod python;
mod snap7;

use dmi::Scalar;
use framework::{Fault, Kind, Property, Protocol as _, Session as _, Settings, Value};
use s7device::{S7, S7Session, Visitor};
use snap7::Snap7;

/// Where a property is: its address, its type, its area, its first byte and how many there are.
fn at(property: &str) -> (&'static str, &'static str, &'static str, usize, usize) {
    match property {
        "int" => ("DB1.DBB40", "ulint", "DB1", 40, 8),
        "float" => ("DB1.DBD48", "real", "DB1", 48, 4),
        "double" => ("DB1.DBB52", "lreal", "DB1", 52, 8),
        "string" => ("DB1.DBB60", "string", "DB1", 60, 22),
        "boolean" => ("M9.0", "bool", "M", 9, 1),
        "seen" => ("IW2", "word", "I", 2, 2),
        _ => ("QW4", "int", "Q", 4, 2),
    }
}

impl conformance::Peer for Snap7 {
    type Protocol = S7;

    fn protocol(&self) -> S7 {
        S7::default()
    }
    fn place(&self) -> Vec<(&'static str, Scalar)> {
        Snap7::place(self)
    }
    fn visitors(&self, property: &str) -> Vec<(&'static str, Scalar)> {
        let (address, data_type, ..) = at(property);
        let text = |text: &str| Scalar::Text(text.to_owned());
        let mut pairs = vec![("address", text(address)), ("dataType", text(data_type))];
        if property == "string" {
            pairs.push(("length", Scalar::Int(20)));
        }
        pairs
    }
    fn has(&self, property: &str) -> String {
        let (_, _, area, byte, count) = at(property);
        let bytes = self.bytes(area, byte, count);
        match property {
            "int" => u64::from_be_bytes(bytes.try_into().unwrap()).to_string(),
            "float" => f32::from_be_bytes(bytes.try_into().unwrap()).to_string(),
            "double" => f64::from_be_bytes(bytes.try_into().unwrap()).to_string(),
            "string" => String::from_utf8(bytes[2..2 + usize::from(bytes[1])].to_vec()).unwrap(),
            "boolean" => (bytes[0] & 1 == 1).to_string(),
            _ => u16::from_be_bytes(bytes.try_into().unwrap()).to_string(),
        }
    }
    fn set(&self, property: &str, value: &str) {
        let (_, _, area, byte, _) = at(property);
        let bytes = match property {
            "int" => value.parse::<u64>().unwrap().to_be_bytes().to_vec(),
            "float" => value.parse::<f32>().unwrap().to_be_bytes().to_vec(),
            "double" => value.parse::<f64>().unwrap().to_be_bytes().to_vec(),
            "string" => [&[20, u8::try_from(value.len()).unwrap()], value.as_bytes()].concat(),
            "boolean" => vec![u8::from(value == "true")],
            _ => value.parse::<u16>().unwrap().to_be_bytes().to_vec(),
        };
        Snap7::set(self, area, byte, &bytes);
    }
    async fn switch(&self, on: bool) -> bool {
        Snap7::switch(self, on);
        true
    }
}

#[tokio::test]
async fn s7_conforms() {
    conformance::conforms(&Snap7::start()).await;
}

async fn session(plc: &Snap7) -> S7Session {
    let protocol = S7::default();
    let address = protocol.address(&Settings::from_pairs(plc.place())).unwrap();
    protocol.connect(&address).await.unwrap()
}

fn visitor(kind: Kind, address: &str, data_type: &str) -> Visitor {
    let pairs = [("address", address), ("dataType", data_type)];
    let pairs = pairs.map(|(key, value)| (key, Scalar::Text(value.to_owned())));
    Visitor::read(&Property::new("p", kind), &Settings::from_pairs(pairs)).unwrap()
}

#[tokio::test]
async fn many_values_come_at_once_and_what_is_not_there_costs_no_other() {
    let plc = Snap7::start();
    plc.set("DB1", 0, &(0..100).collect::<Vec<u8>>());
    let mut session = session(&plc).await;
    let mut visitors: Vec<Visitor> =
        (0..30).map(|byte| visitor(Kind::Int, &format!("DB1.DBB{byte}"), "byte")).collect();
    visitors[1] = visitor(Kind::Int, "DB7.DBW0", "int");
    visitors[2] = visitor(Kind::Int, "DB1.DBD598", "dint");
    let read = session.read_many(&visitors.iter().collect::<Vec<_>>()).await;
    assert_eq!(read.len(), 20, "as many as one request may have");
    for (at, outcome) in read {
        match (at, outcome) {
            (1, Err(Fault::Device(reason))) => assert!(reason.contains("no such block"), "{reason}"),
            (2, Err(Fault::Device(reason))) => assert!(reason.contains("beyond the end"), "{reason}"),
            (at, outcome) => assert_eq!(outcome, Ok(Value::Int(at.try_into().unwrap()))),
        }
    }
    // What the server refuses as a whole.
    let nowhere = visitor(Kind::Int, "DB7.DBW0", "int");
    let refused = session.write(&nowhere, &Value::Int(1)).await.unwrap_err();
    assert!(matches!(&refused, Fault::Device(reason) if reason.contains("0x8404")), "{refused}");
}

#[tokio::test]
async fn a_string_is_never_longer_than_its_room_and_inputs_are_read_only() {
    let plc = Snap7::start();
    plc.set("DB1", 100, &[5, 3, b'o', b'l', b'd', b'x', b'x', 0xEE]);
    let mut session = session(&plc).await;
    let text = visitor(Kind::Text, "DB1.DBB100", "string");
    assert_eq!(session.read(&text).await, Ok(Value::Text("old".to_owned())), "of 256 bytes");
    session.write(&text, &Value::Text("newer".to_owned())).await.unwrap();
    assert_eq!(plc.bytes("DB1", 100, 8), [5, 5, b'n', b'e', b'w', b'e', b'r', 0xEE]);
    let refused = session.write(&text, &Value::Text("newest".to_owned())).await.unwrap_err();
    assert_eq!(refused, Fault::Unfit("it has 6 letters, and the PLC has room for 5".to_owned()));
    let input = visitor(Kind::Bool, "I0.0", "bool");
    let refused = session.write(&input, &Value::Bool(true)).await.unwrap_err();
    assert!(matches!(&refused, Fault::Unfit(reason) if reason.contains("read only")), "{refused}");
    assert_eq!(plc.bytes("I", 0, 1), [0]);
}
