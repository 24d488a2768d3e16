//! Nodes of every kind, of a server that we did not write: read, written in their own type, called, and refused by name.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod asyncua;
#[path = "../../framework/tests/edgecore/mod.rs"]
mod edgecore;
#[path = "../../framework/tests/python/mod.rs"]
mod python;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use asyncua::{Asyncua, node, text};
use dmi::Scalar;
use dmi::v1beta1::{Device, DeviceProperty, UpdateDeviceRequest};
use edgecore::{EdgeCore, Mapper, desiring, device, model, modelled, property};
use opcuadevice::OpcUa;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// A server, a mapper that has its device, and the edgecore that hears of it.
struct Fixture {
    server: Asyncua,
    edgecore: EdgeCore,
    mapper: Mapper,
    device: Device,
    _folder: tempfile::TempDir,
}

/// A property: its name, its type, and what more its visitors say.
type Wanted = (&'static str, &'static str, Vec<(&'static str, Scalar)>);

fn of(name: &'static str, kind: &'static str) -> Wanted {
    (name, kind, node(name))
}

fn with(name: &'static str, kind: &'static str, of: &str, more: &[(&'static str, Scalar)]) -> Wanted {
    (name, kind, [node(of), more.to_vec()].concat())
}

fn fixture(properties: Vec<Wanted>) -> Fixture {
    fixture_of(properties, |protocol| protocol)
}

fn fixture_of(properties: Vec<Wanted>, protocol: impl FnOnce(OpcUa) -> OpcUa) -> Fixture {
    fixture_at(properties, protocol, |server| server.place(&[]))
}

fn fixture_at(
    properties: Vec<Wanted>,
    protocol: impl FnOnce(OpcUa) -> OpcUa,
    place: impl FnOnce(&Asyncua) -> Vec<(&'static str, Scalar)>,
) -> Fixture {
    fixture_with(Asyncua::open(), properties, protocol, place)
}

fn fixture_with(
    server: Asyncua,
    properties: Vec<Wanted>,
    protocol: impl FnOnce(OpcUa) -> OpcUa,
    place: impl FnOnce(&Asyncua) -> Vec<(&'static str, Scalar)>,
) -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let edgecore = EdgeCore::at(folder.path());
    let kinds = properties.iter().map(|(name, kind, _)| modelled(name, kind, "ReadWrite")).collect();
    let each = |(name, _, visitors): &Wanted| -> DeviceProperty { property(name, "opcua", visitors) };
    let device = device("plant", "plant", "opcua", &place(&server), properties.iter().map(each).collect());
    {
        let mut objects = edgecore.objects.lock().unwrap();
        objects.models = vec![model("plant", kinds)];
        objects.devices = vec![device.clone()];
    }
    edgecore.start();
    let mapper = Mapper::start(folder.path(), protocol(OpcUa::with(folder.path().join("pki"))));
    Fixture { server, edgecore, mapper, device, _folder: folder }
}

impl Fixture {
    async fn desire(&mut self, name: &str, value: &str) {
        self.device = desiring(self.device.clone(), name, value);
        let request = UpdateDeviceRequest { device: Some(self.device.clone()) };
        self.mapper.calls.update_device(request).await.unwrap();
    }
    async fn until_value(&self, name: &str, value: &str) {
        self.edgecore.until_value("plant", name, value).await;
    }
}

#[tokio::test]
async fn each_type_of_node_is_read_and_written_as_it_is() {
    let mut fixture = fixture(vec![
        of("sbyte", "INT"),
        of("byte", "INT"),
        of("int64", "INT"),
        of("time", "STRING"),
        of("text", "STRING"),
        of("array", "STRING"),
        of("boolean", "BOOLEAN"),
        with("second", "INT", "array", &[("index", Scalar::Int(1))]),
        with("part", "STRING", "array", &[("index", Scalar::Text("1:2".to_owned()))]),
        with("wide", "DOUBLE", "float", &[]),
        of("empty", "INT"),
    ]);
    for (name, value) in [
        ("time", "2026-01-31T12:00:00Z"),
        ("text", "idle"),
        ("array", "[1,2,3]"),
        ("second", "2"),
        ("part", "[2,3]"),
        ("boolean", "false"),
    ] {
        fixture.until_value(name, value).await;
    }
    fixture.edgecore.until_fault("plant", "empty", "null").await;
    for (name, value, there) in [
        ("sbyte", "-128", "-128"),
        ("byte", "255", "255"),
        ("int64", "9007199254740993", "9007199254740993"),
        ("time", "2026-11-29T08:30:00.25Z", "\"2026-11-29T08:30:00.250000+00:00\""),
        ("text", "runs", "\"runs\""),
        ("boolean", "true", "true"),
        ("wide", "0.5", "0.5"),
        // One that had no value yet takes what its data type says.
        ("empty", "7", "7"),
    ] {
        fixture.desire(name, value).await;
        fixture.until_value(name, value).await;
        let node = if name == "wide" { "float" } else { name };
        assert_eq!(fixture.server.script.ask(&format!("get {node}")), there, "{name}");
    }
    // asyncua heeds no index: what it would take for all of the array is not written.
    fixture.desire("second", "20").await;
    fixture.edgecore.until_refusal("plant", "second", "heeds no index").await;
    assert_eq!(fixture.server.script.ask("get array"), "[1, 2, 3]");
    fixture.desire("array", "[4, 5]").await;
    fixture.until_value("array", "[4,5]").await;
    fixture.until_value("second", "5").await;
}

#[tokio::test]
async fn what_a_server_does_not_do_is_told_by_its_own_name_for_it() {
    let mut fixture = fixture(vec![
        of("level", "INT"),
        of("locked", "INT"),
        of("nowhere", "INT"),
        of("structure", "STRING"),
        of("word", "INT"),
        with("whole", "INT", "array", &[]),
        with("beyond", "INT", "array", &[("index", Scalar::Int(9))]),
        ("lost", "INT", vec![("nodeID", text("nsu=urn:nowhere;s=x"))]),
    ]);
    for (name, said) in [
        ("nowhere", "BadNodeIdUnknown"),
        ("structure", "structure"),
        ("whole", "name one with `index`"),
        ("beyond", "BadIndexRange"),
        ("lost", "urn:nowhere"),
    ] {
        fixture.edgecore.until_fault("plant", name, said).await;
    }
    fixture.until_value("locked", "5").await;
    fixture.desire("locked", "6").await;
    fixture.edgecore.until_refusal("plant", "locked", "BadUserAccessDenied").await;
    fixture.desire("word", "-1").await;
    fixture.edgecore.until_refusal("plant", "word", "not written: -1 does not fit into a UInt16").await;
    // And none of that is another's fault.
    fixture.server.script.tell("set level 7");
    fixture.until_value("level", "7").await;
    assert!(fixture.edgecore.heard().states.iter().all(|(_, state)| state == "online"));
    // A quality goes with its value: a bad one is none, an uncertain one is told with its reason.
    fixture.server.script.tell("status level BadSensorFailure");
    fixture.edgecore.until_fault("plant", "level", "BadSensorFailure").await;
    fixture.server.script.tell("set level 8");
    fixture.until_value("level", "8").await;
    fixture.server.script.tell("status level UncertainLastUsableValue");
    let doubted = |heard: &edgecore::ReceivedReports| {
        let has_value = heard.last("plant", "level")?.1 == "0";
        (has_value && heard.fault("plant", "level")?.contains("UncertainLastUsableValue")).then_some(())
    };
    fixture.edgecore.until("a doubted value", doubted).await;
}

#[tokio::test]
async fn methods_are_called_once_with_what_is_desired() {
    let method = |name| vec![("method", node(name).remove(0).1)];
    let mut fixture = fixture(vec![
        of("level", "INT"),
        with("start", "INT", "plant", &method("start")),
        with("stop", "BOOLEAN", "plant", &method("stop")),
        with("go", "STRING", "plant", &method("go")),
    ]);
    fixture.until_value("level", "0").await;
    fixture.desire("start", "900").await;
    let done = |name: &'static str, value: &'static str| {
        move |heard: &edgecore::ReceivedReports| (heard.last("plant", name)?.0 == value).then_some(())
    };
    fixture.edgecore.until("started", done("start", "900")).await;
    fixture.desire("go", r#"[0.5, "left"]"#).await;
    // It gives back a number, which is what is known of it.
    fixture.until_value("go", "7").await;
    fixture.desire("stop", "true").await;
    fixture.edgecore.until("stopped", done("stop", "true")).await;
    let calls = r#"[["start", 900], ["go", 0.5, "left"], ["stop"]]"#;
    assert_eq!(fixture.server.script.ask("calls"), calls);
    // What the method refuses, and what it cannot be called with.
    fixture.desire("start", "2000").await;
    fixture.edgecore.until_refusal("plant", "start", "BadOutOfRange").await;
    fixture.desire("start", "70000").await;
    fixture.edgecore.until_refusal("plant", "start", "`speed`: 70000 does not fit into a UInt16").await;
    // A server that comes back is not told again.
    fixture.server.script.tell("off");
    fixture.server.script.tell("on");
    fixture.server.script.tell("set level 9");
    fixture.until_value("level", "9").await;
    let calls = r#"[["start", 900], ["go", 0.5, "left"], ["stop"], ["start", 2000]]"#;
    assert_eq!(fixture.server.script.ask("calls"), calls);
}

#[tokio::test]
async fn a_server_that_forgets_or_moves_is_asked_anew() {
    let mut fixture = fixture(vec![of("level", "INT"), of("seen", "INT")]);
    fixture.until_value("level", "0").await;
    // Its subscriptions are gone, without a word.
    fixture.server.until("subscriptions", "1").await;
    fixture.server.script.tell("forget");
    fixture.server.script.tell("set level 1");
    fixture.until_value("level", "1").await;
    // A restart, after which its namespace has another index.
    fixture.server.script.tell("move");
    fixture.server.script.tell("off");
    fixture.server.script.tell("on");
    fixture.server.script.tell("set level 2");
    fixture.until_value("level", "2").await;
}

#[tokio::test]
async fn devices_at_one_server_share_a_session_and_leave_nothing_behind() {
    let mut fixture = fixture(vec![of("level", "INT")]);
    fixture.until_value("level", "0").await;
    let mut other = fixture.device.clone();
    other.name = "other".to_owned();
    let request = dmi::v1beta1::RegisterDeviceRequest { device: Some(other) };
    fixture.mapper.calls.register_device(request).await.unwrap();
    fixture.server.script.tell("set level 3");
    fixture.edgecore.until_value("other", "level", "3").await;
    let script = &mut fixture.server.script;
    assert_eq!((script.ask("sessions"), script.ask("subscriptions")), ("1".to_owned(), "2".to_owned()));
    // One leaves, the other stays.
    let gone = dmi::v1beta1::RemoveDeviceRequest {
        device_name: "other".to_owned(),
        device_namespace: "default".to_owned(),
    };
    fixture.mapper.calls.remove_device(gone).await.unwrap();
    fixture.server.until("subscriptions", "1").await;
    fixture.server.script.tell("set level 4");
    fixture.until_value("level", "4").await;
    // The mapper ends: the server has room for another.
    fixture.mapper.stop().await;
    fixture.server.until("sessions", "0").await;
    assert_eq!(fixture.server.script.ask("subscriptions"), "0");
}

#[tokio::test]
async fn a_node_that_is_deleted_and_made_anew_is_asked_for_anew() {
    let often = |protocol: OpcUa| protocol.looking_every(std::time::Duration::from_millis(200));
    let mut fixture = fixture_of(vec![of("level", "INT"), of("seen", "INT")], often);
    fixture.until_value("level", "0").await;
    fixture.server.script.tell("remake level 5");
    fixture.until_value("level", "5").await;
    fixture.server.script.tell("set level 6");
    fixture.until_value("level", "6").await;
    fixture.server.until("subscriptions", "1").await;
}

/// A way to a server on which a connection ends as soon as `request` is in it, by its number in OPC UA's own namespace (Part 6 §5.2.2.9).
/// The port of this way, and how often that was.
fn ending_at(request: u16, server: u16) -> (u16, Arc<AtomicUsize>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let (port, ended) = (listener.local_addr().unwrap().port(), Arc::new(AtomicUsize::new(0)));
    let (listener, count) = (TcpListener::from_std(listener).unwrap(), Arc::clone(&ended));
    let [low, high] = request.to_le_bytes();
    let number = [1, 0, low, high];
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let count = Arc::clone(&count);
            tokio::spawn(async move {
                let Ok(server) = TcpStream::connect(("127.0.0.1", server)).await else { return };
                let ((mut asking, mut to_client), (mut answering, mut to_server)) =
                    (client.into_split(), server.into_split());
                let asked = async {
                    let mut bytes = vec![0; 64 << 10];
                    while let Ok(length @ 1..) = asking.read(&mut bytes).await {
                        if bytes[..length].windows(number.len()).any(|at| at == number) {
                            count.fetch_add(1, Ordering::Relaxed);
                            return;
                        }
                        to_server.write_all(&bytes[..length]).await.unwrap();
                    }
                };
                tokio::select! {
                    () = asked => {}
                    _ = tokio::io::copy(&mut answering, &mut to_client) => {}
                }
            });
        }
    });
    (port, ended)
}

#[tokio::test]
async fn a_server_that_ends_each_session_with_a_subscription_is_asked_for_none_and_read_in_cycles() {
    // CreateSubscription and CreateMonitoredItems.
    for request in [787, 751] {
        let mut ended = None;
        let mut fixture = fixture_at(
            vec![of("level", "INT")],
            |protocol| protocol,
            |server| {
                let (port, count) = ending_at(request, server.port);
                ended = Some(count);
                vec![("url", text(&format!("opc.tcp://127.0.0.1:{port}/plant"))), ("timeout", Scalar::Int(5))]
            },
        );
        let ended = ended.unwrap();
        let count = || ended.load(Ordering::Relaxed);
        edgecore::eventually("two ended sessions", async || count() >= 2).await;
        for level in 1..=20 {
            fixture.server.script.tell(&format!("set level {level}"));
            fixture.until_value("level", &level.to_string()).await;
        }
        assert_eq!(count(), 2, "{request}");
        fixture.mapper.stop().await;
    }
}

/// A fixture whose server has these nodes filled, each as NAME=COUNT.
fn fixture_filled(nodes: &[&str], properties: Vec<Wanted>, protocol: fn(OpcUa) -> OpcUa) -> Fixture {
    fixture_with(Asyncua::filled(nodes), properties, protocol, |server| server.place(&[]))
}

#[tokio::test]
async fn what_is_too_large_for_an_answer_costs_itself_alone_and_says_so() {
    // Each below 4 MiB, and both not; the array has more elements than are taken.
    for subscribe in ["true", "false"] {
        let of = |name, kind| with(name, kind, name, &[("subscribe", text(subscribe))]);
        let properties = vec![
            of("letters", "STRING"),
            of("level", "INT"),
            of("locked", "INT"),
            of("series", "STRING"),
            of("array", "STRING"),
            of("boolean", "BOOLEAN"),
            of("text", "STRING"),
        ];
        let mut fixture =
            fixture_filled(&["letters=3000000", "series=300000"], properties, |protocol| protocol);
        for (name, value) in
            [("level", "0"), ("locked", "5"), ("array", "[1,2,3]"), ("boolean", "false"), ("text", "idle")]
        {
            fixture.until_value(name, value).await;
        }
        fixture.edgecore.until_fault("plant", "letters", "a text of 3000000 bytes").await;
        fixture.edgecore.until_fault("plant", "series", "65536 elements").await;
        // Also when they change in one moment with others.
        for level in 1..=5 {
            fixture.server.script.tell(&format!("fill letters {} y", 4_999_990 + level));
            fixture.server.script.tell(&format!("fill series 300000 {level}"));
            fixture.server.script.tell(&format!("set level {level}"));
            fixture.until_value("level", &level.to_string()).await;
        }
        fixture.edgecore.until_fault("plant", "letters", "4 MiB in 64 chunks").await;
        // And the server sends no more of it.
        let monitored = if subscribe == "true" { "5" } else { "0" };
        fixture.server.until("monitored", monitored).await;
        let heard = fixture.edgecore.heard();
        assert!(heard.states.iter().all(|(_, state)| state == "online"), "{:?}", heard.states);
        assert_eq!(fixture.server.script.ask("sessions"), "1");
        fixture.mapper.stop().await;
    }
}

#[tokio::test]
async fn what_is_too_large_together_comes_one_by_one() {
    // asyncua sends all of an array of which an element is asked for: ten times 480 kB.
    const NAMES: [&str; 10] = ["e0", "e1", "e2", "e3", "e4", "e5", "e6", "e7", "e8", "e9"];
    let element =
        |(at, name): (i64, &'static str)| with(name, "DOUBLE", "series", &[("index", Scalar::Int(at))]);
    let mut properties: Vec<Wanted> = (0..).zip(NAMES).map(element).collect();
    properties.push(of("locked", "INT"));
    let mut fixture = fixture_filled(&["series=60000"], properties, |protocol| protocol);
    fixture.until_value("locked", "5").await;
    // As many as half an answer has room for.
    fixture.server.until("monitored", "5").await;
    for (fill, value) in [(None, "1"), (Some("fill series 60000 2"), "2"), (Some("fill series 10 3"), "3")] {
        fill.into_iter().for_each(|fill| fixture.server.script.tell(fill));
        for name in NAMES {
            fixture.until_value(name, value).await;
        }
    }
    fixture.server.until("monitored", "11").await;
    assert!(fixture.edgecore.heard().states.iter().all(|(_, state)| state == "online"));
}

#[tokio::test]
async fn what_was_too_large_comes_again_when_it_is_not() {
    let properties = vec![of("letters", "STRING"), of("series", "STRING"), of("level", "INT")];
    let often = |protocol: OpcUa| protocol.looking_every(std::time::Duration::from_secs(1));
    let mut fixture = fixture_filled(&["letters=5000000", "series=300000"], properties, often);
    fixture.until_value("level", "0").await;
    fixture.edgecore.until_fault("plant", "letters", "4 MiB in 64 chunks").await;
    fixture.edgecore.until_fault("plant", "series", "65536 elements").await;
    fixture.server.until("monitored", "1").await;
    fixture.server.script.tell("fill letters 3 z");
    fixture.server.script.tell("fill series 2 0.5");
    fixture.until_value("letters", "zzz").await;
    fixture.until_value("series", "[0.5,0.5]").await;
    fixture.server.until("monitored", "3").await;
}
