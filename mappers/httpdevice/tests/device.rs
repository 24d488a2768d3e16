//! The mapper against a device on Python's own HTTP server: the suite that every mapper passes, and what devices do wrong.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../../framework/tests/conformance/mod.rs"]
mod conformance;
#[path = "../../framework/tests/edgecore/mod.rs"]
mod edgecore;

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Mutex;

use dmi::Scalar;
use framework::host::Targets;
use framework::{Fault, Kind, Property, Protocol as _, Session as _, Settings, Value};
use httpdevice::{Address, HttpDevice, HttpSession, Visitor};

/// The devices of these tests are where no device may be by itself.
fn on_loopback() -> HttpDevice {
    HttpDevice::new(Targets::new(vec!["127.0.0.0/8".to_owned()]).unwrap())
}

struct Running {
    child: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
}

struct Device {
    port: u16,
    running: Mutex<Option<Running>>,
}

impl Device {
    fn start() -> Self {
        let [port] = testhost::free_ports().unwrap();
        let device = Device { port, running: Mutex::default() };
        device.on();
        device
    }

    fn on(&self) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/server/device.py");
        let mut child = Command::new("python3")
            .arg(script)
            .arg(self.port.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (commands, answers) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut running = Running { child, commands, answers: BufReader::new(answers) };
        let mut line = String::new();
        running.answers.read_line(&mut line).unwrap();
        assert_eq!(line.trim(), "ready");
        *self.running.lock().unwrap() = Some(running);
    }

    fn ask(&self, command: &str) -> String {
        let mut running = self.running.lock().unwrap();
        let running = running.as_mut().unwrap();
        writeln!(running.commands, "{command}").unwrap();
        let mut line = String::new();
        running.answers.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    async fn session(&self, more: &[(&'static str, &str)]) -> HttpSession {
        let url = format!("http://127.0.0.1:{}", self.port);
        let pairs = [("url", url.as_str())].into_iter().chain(more.iter().copied());
        let pairs = pairs.map(|(key, value)| (key, Scalar::Text(value.to_owned())));
        let address = Address::read(&Settings::from_pairs(pairs)).unwrap();
        on_loopback().connect(&address).await.unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn at(name: &str) -> Visitor {
    let property = Property { writable: true, ..Property::new(name, Kind::Int) };
    let pairs = [("path", "/state".to_owned()), ("jsonPointer", format!("/{name}"))];
    let pairs = pairs.map(|(key, value)| (key, Scalar::Text(value)));
    Visitor::read(&property, &Settings::from_pairs(pairs)).unwrap()
}

impl conformance::Peer for Device {
    type Protocol = HttpDevice;

    fn protocol(&self) -> HttpDevice {
        on_loopback()
    }
    fn place(&self) -> Vec<(&'static str, Scalar)> {
        vec![("url", Scalar::Text(format!("http://127.0.0.1:{}", self.port)))]
    }
    fn visitors(&self, property: &str) -> Vec<(&'static str, Scalar)> {
        vec![
            ("path", Scalar::Text("/state".to_owned())),
            ("jsonPointer", Scalar::Text(format!("/{property}"))),
            ("write", Scalar::Text(format!(r#"{{"path": "/set/{property}"}}"#))),
        ]
    }
    fn has(&self, property: &str) -> String {
        self.ask(&format!("get {property}")).trim_matches('"').to_owned()
    }
    fn set(&self, property: &str, value: &str) {
        let json = if property == "string" { format!("\"{value}\"") } else { value.to_owned() };
        assert_eq!(self.ask(&format!("set {property} {json}")), "ok");
    }
    async fn switch(&self, on: bool) -> bool {
        if on {
            self.on()
        } else {
            drop(self.running.lock().unwrap().take())
        }
        true
    }
}

#[tokio::test]
async fn http_conforms() {
    conformance::conforms(&Device::start()).await;
}

#[tokio::test]
async fn what_comes_from_one_path_is_asked_for_once() {
    let device = Device::start();
    for (name, value) in [("a", "1"), ("b", "2"), ("c", "null")] {
        device.ask(&format!("set {name} {value}"));
    }
    let mut session = device.session(&[]).await;
    let visitors = [at("a"), at("b"), at("c"), at("d")];
    let read = session.read_many(&visitors.iter().collect::<Vec<_>>()).await;
    assert_eq!(read[..2], [(0, Ok(Value::Int(1))), (1, Ok(Value::Int(2)))]);
    assert!(matches!(read[2..], [(2, Err(Fault::NoValue(_))), (3, Err(Fault::NoValue(_)))]), "{read:?}");
    assert_eq!(device.ask("get gets"), "1");
}

#[tokio::test]
async fn a_device_that_closes_an_idle_connection_is_asked_on_a_new_one() {
    let device = Device::start();
    device.ask("set a 1");
    let mut session = device.session(&[]).await;
    assert_eq!(session.read(&at("a")).await, Ok(Value::Int(1)));
    // Longer than the second after which it closes.
    tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
    assert_eq!(session.read(&at("a")).await, Ok(Value::Int(1)));
}

#[tokio::test]
async fn what_a_device_does_wrong_is_a_fault_with_its_reason() {
    let device = Device::start();
    device.ask("set a 1");
    let is_link = |fault: &Fault| matches!(fault, Fault::Link(_));
    let refused =
        |fault: &Fault, words: &str| matches!(fault, Fault::Device(reason) if reason.contains(words));
    for (mode, words) in [("broken", ""), ("busy", "503"), ("login", "`auth`"), ("huge", "`maxBytes`")] {
        device.ask(&format!("mode {mode}"));
        let fault = device.session(&[]).await.read(&at("a")).await.unwrap_err();
        assert!(if words.is_empty() { is_link(&fault) } else { refused(&fault, words) }, "{mode}: {fault}");
    }
    device.ask("mode login");
    let mut session = device.session(&[("auth", "bearer"), ("token", "secret")]).await;
    assert_eq!(session.read(&at("a")).await, Ok(Value::Int(1)));
    drop(device.running.lock().unwrap().take());
    assert!(session.read(&at("a")).await.unwrap_err().is_unanswered());
}

#[tokio::test]
async fn what_is_the_machines_alone_is_no_device_by_whatever_name() {
    let device = Device::start();
    let url = |url: String| Settings::from_pairs([("url", Scalar::Text(url))]);
    let closed = HttpDevice::default();
    for host in ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "169.254.169.254", "100.100.100.200"] {
        let refused = closed.address(&url(format!("http://{host}:{}", device.port))).unwrap_err().to_string();
        assert!(refused.contains("setting `url`") && refused.contains("common.allowed_targets"), "{refused}");
    }
    // Whose address is known once it is dialled.
    let named = closed.address(&url(format!("http://127.1:{}", device.port))).unwrap();
    let fault = closed.connect(&named).await.unwrap_err();
    assert!(matches!(&fault, Fault::NotSent(why) if why.contains("`127.1` is 127.0.0.1")), "{fault}");
    assert_eq!(device.ask("get gets"), "0");
    // One port of it, by its own setting.
    device.ask("set a 1");
    let open = HttpDevice::new(Targets::new(vec![format!("127.0.0.1:{}", device.port)]).unwrap());
    let mut session = open.connect(&named).await.unwrap();
    assert_eq!(session.read(&at("a")).await, Ok(Value::Int(1)));
    let agent = device.ask("get agent");
    assert!(agent.starts_with(httpclient::agent::HTTP_MAPPER), "mappers know it by that: {agent}");
}

/// The most memory that this process has had, in KiB.
fn peak() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[tokio::test]
async fn the_largest_answer_of_the_smallest_values_costs_little_more_than_its_length() {
    let device = Device::start();
    device.ask("mode wide");
    let mut session = device.session(&[("maxBytes", "4194304")]).await;
    let visitors: Vec<Visitor> = (0..300).map(|_| at("a")).collect();
    let before = peak();
    let read = session.read_many(&visitors.iter().collect::<Vec<_>>()).await;
    assert_eq!(read.len(), 300);
    assert!(read.iter().all(|(_, value)| *value == Ok(Value::Int(7))), "{:?}", read.first());
    let more = peak() - before;
    assert!(more < 24 << 10, "{more} KiB more for an answer of 4 MiB");
}
