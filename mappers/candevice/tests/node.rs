//! CANopen in the suite that every mapper passes, against a node of canopen; and what else that node shows.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod canopen;
#[path = "../../framework/tests/conformance/mod.rs"]
mod conformance;
#[path = "../../framework/tests/edgecore/mod.rs"]
mod edgecore;
mod hub;
#[path = "../../framework/tests/python/mod.rs"]
mod python;

use candevice::{Can, CanSession, Visitor};
use canopen::CanOpenNode;
use dmi::Scalar;
use framework::{Fault, Kind, Property, Protocol as _, Session as _, Settings, Value};

fn at(property: &str) -> (&'static str, &'static str) {
    match property {
        "int" => ("0x2000", "unsigned64"),
        "float" => ("0x2001", "real32"),
        "double" => ("0x2002", "real64"),
        "string" => ("0x2003", "visible_string"),
        "boolean" => ("0x2004", "boolean"),
        "seen" => ("8197", "unsigned16"),
        _ => ("0x2006", "integer16"),
    }
}

fn visitors(property: &str) -> Vec<(&'static str, Scalar)> {
    let (index, data_type) = at(property);
    vec![("index", Scalar::Text(index.to_owned())), ("dataType", Scalar::Text(data_type.to_owned()))]
}

impl conformance::Peer for CanOpenNode {
    type Protocol = Can;

    fn protocol(&self) -> Can {
        Can::default()
    }
    fn place(&self) -> Vec<(&'static str, Scalar)> {
        CanOpenNode::place(self)
    }
    fn visitors(&self, property: &str) -> Vec<(&'static str, Scalar)> {
        visitors(property)
    }
    fn has(&self, property: &str) -> String {
        let value = self.ask(&format!("get {property}"));
        match property {
            // Python has one size of floats, and a word of its own for truths.
            "float" => (value.parse::<f64>().unwrap() as f32).to_string(),
            "double" => value.parse::<f64>().unwrap().to_string(),
            "boolean" => value.to_lowercase(),
            _ => value,
        }
    }
    fn set(&self, property: &str, value: &str) {
        assert_eq!(self.ask(&format!("set {property} {value}")), "ok");
    }
    async fn switch(&self, on: bool) -> bool {
        CanOpenNode::switch(self, on).await;
        true
    }
}

#[tokio::test]
async fn canopen_conforms() {
    let node = CanOpenNode::start().await;
    conformance::conforms(&node).await;
    assert_eq!(node.hub.wrong(), Vec::<String>::new());
}

async fn session(node: &CanOpenNode) -> CanSession {
    let protocol = Can::default();
    let address = protocol.address(&Settings::from_pairs(node.place())).unwrap();
    protocol.connect(&address).await.unwrap()
}

fn visitor(kind: Kind, pairs: Vec<(&'static str, Scalar)>) -> Visitor {
    Visitor::read(&Property::new("p", kind), &Settings::from_pairs(pairs)).unwrap()
}

fn object(kind: Kind, index: &str, data_type: &str) -> Visitor {
    let text = |text: &str| Scalar::Text(text.to_owned());
    visitor(kind, vec![("index", text(index)), ("dataType", text(data_type))])
}

#[tokio::test]
async fn long_texts_go_in_segments_and_refusals_say_what_is_wrong() {
    let node = CanOpenNode::start().await;
    let mut session = session(&node).await;
    let text = visitor(Kind::Text, visitors("string"));
    for length in [1, 4, 5, 7, 8, 14, 200] {
        let value = Value::Text("x".repeat(length));
        session.write(&text, &value).await.unwrap();
        assert_eq!(node.ask("get string"), "x".repeat(length));
        assert_eq!(session.read(&text).await, Ok(value));
    }
    for (asked, said) in [
        (object(Kind::Int, "0x2999", "unsigned8"), "no such object"),
        (object(Kind::Int, "0x2007", "unsigned8"), "write only"),
        (object(Kind::Int, "0x2005", "unsigned32"), "the object has 2 bytes, and `dataType` has 4"),
    ] {
        let refused = session.read(&asked).await.unwrap_err();
        assert!(matches!(&refused, Fault::Device(reason) if reason.contains(said)), "{refused}");
    }
    let refused = session.write(&visitor(Kind::Int, visitors("seen")), &Value::Int(1)).await.unwrap_err();
    assert!(matches!(&refused, Fault::Device(reason) if reason.contains("read only")), "{refused}");
    let refused =
        session.write(&visitor(Kind::Int, visitors("level")), &Value::Int(40_000)).await.unwrap_err();
    assert!(matches!(&refused, Fault::Unfit(reason) if reason.contains("-32768 and 32767")), "{refused}");
}

#[tokio::test]
async fn frames_go_both_ways_with_somebody_elses_client() {
    let node = CanOpenNode::start().await;
    let folder = tempfile::tempdir().unwrap();
    let edgecore = edgecore::EdgeCore::at(folder.path());
    let text = |text: &str| Scalar::Text(text.to_owned());
    let speed =
        [("canID", text("0x185")), ("startBit", text("8")), ("length", text("16")), ("scale", text("0.1"))];
    let light =
        [("canID", text("0x186")), ("writeID", text("0x205")), ("startBit", text("3")), ("dlc", text("2"))];
    let properties = vec![
        edgecore::property("speed", "can", &speed),
        edgecore::property("light", "can", &light),
        edgecore::property("seen", "can", &visitors("seen")),
    ];
    let device = edgecore::device("one", "drive", "can", &node.place(), properties);
    {
        let mut objects = edgecore.objects.lock().unwrap();
        let kinds =
            [("speed", "DOUBLE", "ReadOnly"), ("light", "BOOLEAN", "ReadWrite"), ("seen", "INT", "ReadOnly")];
        let properties = kinds.map(|(name, kind, mode)| edgecore::modelled(name, kind, mode));
        objects.models = vec![edgecore::model("drive", properties.to_vec())];
        objects.devices = vec![edgecore::desiring(device, "light", "true")];
    }
    edgecore.start();
    let mapper = edgecore::Mapper::start(folder.path(), Can::default());
    edgecore.until_value("one", "seen", "0").await;
    assert_eq!(node.ask("send 185 ffd200ff"), "ok");
    edgecore.until_value("one", "speed", "21").await;
    edgecore::eventually("the frame at the other end", async || node.ask("last 205") == "0800").await;
    assert_eq!(node.ask("send 186 08"), "ok");
    edgecore.until_value("one", "light", "true").await;
    mapper.stop().await;
    assert_eq!(node.hub.wrong(), Vec::<String>::new());
}
