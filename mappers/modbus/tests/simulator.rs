//! The mapper against the simulator, and against devices that do not keep to the protocol.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../../framework/tests/edgecore/mod.rs"]
mod edgecore;

use std::net::SocketAddr;
use std::time::Duration;

use dmi::Scalar;
use dmi::v1beta1::{Device, DeviceProperty, UpdateDeviceRequest};
use edgecore::{EdgeCore, Mapper, desiring, device, eventually, model, modelled, property};
use framework::{Fault, Kind, Property, Protocol as _, Session as _, Settings, Value};
use modbus::{Address, Modbus, ModbusSession, Simulator, Visitor};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

struct Served {
    simulator: Simulator,
    address: SocketAddr,
    end: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Served {
    async fn at(address: &str) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let simulator = Simulator::default();
        let (end, ended) = oneshot::channel::<()>();
        let task = tokio::spawn({
            let simulator = simulator.clone();
            async move { simulator.serve(listener, async move { drop(ended.await) }).await.unwrap() }
        });
        Served { simulator, address, end, task }
    }

    /// Its connections end with it.
    async fn stop(self) -> SocketAddr {
        drop(self.end);
        self.task.await.unwrap();
        self.address
    }
}

fn visitor(kind: Kind, register: &str, offset: i64, more: &[(&'static str, Scalar)]) -> Visitor {
    let property = Property { writable: true, ..Property::new("p", kind) };
    let mut pairs = vec![("register", Scalar::Text(register.to_owned())), ("offset", Scalar::Int(offset))];
    pairs.extend(more.iter().cloned());
    Modbus::default().visitor(&property, &Settings::from_pairs(pairs)).unwrap()
}

async fn connect(address: SocketAddr) -> ModbusSession {
    let mut address = Address::tcp(address.ip().to_string(), address.port(), 1);
    address.timing.retries = 0;
    Modbus::default().connect(&address).await.unwrap()
}

#[tokio::test]
async fn every_table_is_read_and_written() {
    let served = Served::at("127.0.0.1:0").await;
    let mut session = connect(served.address).await;
    let tenths = [("limit", Scalar::Int(1)), ("scale", Scalar::Float(0.1))];
    let typed = |name: &str| [("dataType", Scalar::Text(name.to_owned()))];
    for (visitor, before, after) in [
        (visitor(Kind::Bool, "CoilRegister", 0, &[]), Value::Bool(false), Value::Bool(true)),
        (visitor(Kind::Int, "CoilRegister", 8, &[("limit", Scalar::Int(4))]), Value::Int(0), Value::Int(9)),
        (visitor(Kind::Float, "HoldingRegister", 0, &tenths), Value::Float(20.0), Value::Float(21.5)),
        (visitor(Kind::Int, "HoldingRegister", 1, &typed("int16")), Value::Int(-40), Value::Int(-41)),
        (visitor(Kind::Float, "HoldingRegister", 2, &[]), Value::Float(1.5), Value::Float(-0.1)),
        (visitor(Kind::Int, "HoldingRegister", 4, &typed("int32")), Value::Int(-70_000), Value::Int(70_000)),
        (
            visitor(Kind::Text, "HoldingRegister", 8, &[("limit", Scalar::Int(8))]),
            Value::Text("room 1".to_owned()),
            Value::Text("boiler room no 2".to_owned()),
        ),
    ] {
        assert_eq!(session.read(&visitor).await, Ok(before));
        assert_eq!(session.write(&visitor, &after).await, Ok(()));
        assert_eq!(session.read(&visitor).await, Ok(after));
    }
    // One bit of a register, and the others as they were.
    let bit = visitor(Kind::Bool, "HoldingRegister", 20, &[("bit", Scalar::Int(3))]);
    served.simulator.memory().holding_registers[20] = 0xF0F0;
    assert_eq!(session.read(&bit).await, Ok(Value::Bool(false)));
    assert_eq!(session.write(&bit, &Value::Bool(true)).await, Ok(()));
    assert_eq!(served.simulator.memory().holding_registers[20], 0xF0F8);
    {
        let memory = served.simulator.memory();
        assert!(memory.coils[0]);
        assert_eq!(memory.coils[7..13], [false, true, false, false, true, false]);
        assert_eq!(memory.holding_registers[..6], [215, 65_495, 0xBDCC, 0xCCCD, 1, 4464]);
    }
    let heating = visitor(Kind::Bool, "DiscreteInputRegister", 1, &[]);
    assert_eq!(session.read(&heating).await, Ok(Value::Bool(true)));
    assert!(matches!(session.write(&heating, &Value::Bool(false)).await, Err(Fault::Unfit(_))));
    let word = visitor(Kind::Int, "HoldingRegister", 21, &typed("uint16"));
    let told = session.write(&word, &Value::Int(999_990)).await.unwrap_err();
    assert_eq!(
        told.to_string(),
        "not written: 999990 does not fit into uint16",
        "the device refused nothing"
    );
    let temperature = visitor(Kind::Double, "InputRegister", 0, &tenths);
    let Ok(Value::Double(degrees)) = session.read(&temperature).await else { panic!("no temperature") };
    assert!((22.9..=27.1).contains(&degrees), "{degrees}");
    assert!(matches!(session.write(&temperature, &Value::Double(1.0)).await, Err(Fault::Unfit(_))));
    let beyond = visitor(Kind::Int, "HoldingRegister", 5000, &[]);
    assert!(matches!(session.read(&beyond).await, Err(Fault::Device(_))));
    assert!(session.read(&heating).await.is_ok(), "the connection is as good as before");
}

#[tokio::test]
async fn a_port_where_nobody_listens_is_a_lost_link() {
    let [port] = testhost::free_ports().unwrap();
    let address = Address::tcp("127.0.0.1", port, 1);
    let Err(Fault::NotSent(said)) = Modbus::default().connect(&address).await else {
        panic!("somebody listens")
    };
    assert!(said.contains(&format!("127.0.0.1:{port}")), "{said}");
}

/// A device that answers the first request with these bytes after the transaction number, and closes.
async fn stranger(answer: Vec<u8>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 12];
        stream.read_exact(&mut request).await.unwrap();
        stream.write_all(&request[..2]).await.unwrap();
        stream.write_all(&answer).await.unwrap();
    });
    address
}

#[tokio::test]
async fn devices_that_do_not_keep_to_the_protocol_are_faults() {
    let one = visitor(Kind::Int, "HoldingRegister", 0, &[]);
    for (answer, is_silent) in [
        // Another function's answer, and another unit's.
        (vec![0, 0, 0, 5, 1, 4, 2, 0, 7], true),
        (vec![0, 0, 0, 5, 9, 3, 2, 0, 7], true),
        // No register, two registers, half a register, more than the length says.
        (vec![0, 0, 0, 3, 1, 3, 0], false),
        (vec![0, 0, 0, 7, 1, 3, 4, 0, 7, 0, 8], false),
        (vec![0, 0, 0, 4, 1, 3, 1, 0], true),
        (vec![0, 0, 0, 4, 1, 3, 200, 0], true),
        // Another protocol, no length, a length that never comes, nothing.
        (vec![1, 1, 0, 5, 1, 3, 2, 0, 7], true),
        (vec![0, 0, 0, 0, 1, 3, 2, 0, 7], true),
        (vec![0, 0, 0xFF, 0xFF, 1, 3, 2, 0, 7], true),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), true),
        (Vec::new(), true),
        // Exceptions: illegal address, and a gateway that does not reach the device.
        (vec![0, 0, 0, 3, 1, 0x83, 2], false),
        (vec![0, 0, 0, 3, 1, 0x83, 0x0B], true),
    ] {
        let mut session = connect(stranger(answer.clone()).await).await;
        let fault = session.read(&one).await.unwrap_err();
        assert_eq!(fault.is_unanswered(), is_silent, "{answer:?}: {fault}");
    }
    let mut session = connect(stranger(vec![0, 0, 0, 4, 1, 1, 1, 1]).await).await;
    let bit = visitor(Kind::Bool, "CoilRegister", 0, &[]);
    assert_eq!(
        session.read(&bit).await,
        Ok(Value::Bool(true)),
        "a whole byte for one bit is as it should be"
    );
}

fn room(address: SocketAddr) -> Device {
    let visit =
        |name: &str, register: &str, offset: f64, more: &[(&'static str, Scalar)]| -> DeviceProperty {
            let mut pairs =
                vec![("register", Scalar::Text(register.to_owned())), ("offset", Scalar::Float(offset))];
            pairs.extend(more.iter().cloned());
            property(name, "modbus", &pairs)
        };
    let tenths = [("limit", Scalar::Float(1.0)), ("scale", Scalar::Float(0.1))];
    let properties = vec![
        visit("pulses", "InputRegister", 4.0, &[("limit", Scalar::Float(2.0))]),
        visit("setpoint", "HoldingRegister", 0.0, &tenths),
        visit("heating", "CoilRegister", 0.0, &[]),
        visit("works", "DiscreteInputRegister", 1.0, &[]),
    ];
    let place = [
        ("ip", Scalar::Text("127.0.0.1".to_owned())),
        ("port", Scalar::Float(address.port().into())),
        ("slaveID", Scalar::Float(1.0)),
    ];
    device("room-1", "room", "modbus", &place, properties)
}

fn hand_out(edgecore: &EdgeCore, device: Device) {
    let mut setpoint = modelled("setpoint", "FLOAT", "ReadWrite");
    (setpoint.minimum, setpoint.maximum) = ("5".to_owned(), "30".to_owned());
    let properties = vec![
        modelled("pulses", "INT", "ReadOnly"),
        setpoint,
        modelled("heating", "BOOLEAN", "ReadWrite"),
        modelled("works", "BOOLEAN", "ReadOnly"),
    ];
    let mut objects = edgecore.objects.lock().unwrap();
    objects.models = vec![model("room", properties)];
    objects.devices = vec![device];
}

#[tokio::test]
async fn from_register_to_twin_and_back() {
    let folder = tempfile::tempdir().unwrap();
    // It comes back at the same port.
    let [port] = testhost::free_ports().unwrap();
    let served = Served::at(&format!("127.0.0.1:{port}")).await;
    let edgecore = EdgeCore::at(folder.path());
    let room_1 = room(served.address);
    hand_out(&edgecore, room_1.clone());
    edgecore.start();
    let mut mapper = Mapper::start(folder.path(), Modbus::default());
    edgecore.until_value("room-1", "setpoint", "20").await;
    edgecore.until_value("room-1", "works", "false").await;
    edgecore.until("moving pulses", |heard| (heard.count("room-1", "pulses") > 2).then_some(())).await;
    let wanted = desiring(desiring(room_1, "setpoint", "21.5"), "heating", "true");
    mapper.calls.update_device(UpdateDeviceRequest { device: Some(wanted) }).await.unwrap();
    let observed = Some(("21.5".to_owned(), "21.5".to_owned()));
    edgecore
        .until("21.5 observed", |heard| (heard.last("room-1", "setpoint") == observed).then_some(()))
        .await;
    edgecore.until_value("room-1", "works", "true").await;
    assert_eq!(served.simulator.memory().holding_registers[0], 215);
    // The device is switched off, and comes back as it was in the beginning.
    let address = served.stop().await;
    let offline = ("room-1".to_owned(), "offline".to_owned());
    edgecore.until("offline", |heard| (heard.states.last() == Some(&offline)).then_some(())).await;
    let served = Served::at(&address.to_string()).await;
    let online = ("room-1".to_owned(), "online".to_owned());
    edgecore.until("online", |heard| (heard.states.last() == Some(&online)).then_some(())).await;
    edgecore.until_value("room-1", "setpoint", "21.5").await;
    eventually("215 again", async || served.simulator.memory().holding_registers[0] == 215).await;
    mapper.stop().await;
}

/// A program that a test started; it does not outlive the test.
struct Program(std::process::Child);

impl Program {
    fn terminate(&self) {
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.0.id()).unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    }

    async fn exit(&mut self) -> std::process::ExitStatus {
        let wait = async {
            loop {
                if let Some(status) = self.0.try_wait().unwrap() {
                    return status;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), wait).await.unwrap()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[tokio::test]
async fn the_programs_work_together() {
    use std::io::BufRead as _;
    use std::process::{Command, Stdio};

    let folder = tempfile::tempdir().unwrap();
    let mut simulator = Command::new(env!("CARGO_BIN_EXE_modbus-simulator"));
    simulator.args(["--listen", "127.0.0.1:0"]).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut simulator = Program(simulator.spawn().unwrap());
    let mut first = String::new();
    let mut out = std::io::BufReader::new(simulator.0.stdout.take().unwrap());
    out.read_line(&mut first).unwrap();
    let address: SocketAddr = first.trim().strip_prefix("listening on ").unwrap().parse().unwrap();
    let edgecore = EdgeCore::at(folder.path());
    hand_out(&edgecore, desiring(room(address), "setpoint", "7.5"));
    edgecore.start();
    let config = folder.path().join("config.yaml");
    let path = folder.path().display();
    let text = format!(
        "grpc_server:\n  socket_path: {path}/modbus.sock\ncommon:\n  name: modbus-mapper\n  version: v1.0.0\n  \
         api_version: v1.0.0\n  protocol: modbus\n  address: 127.0.0.1\n  edgecore_sock: {path}/dmi.sock\n"
    );
    std::fs::write(&config, text).unwrap();
    let mut mapper = Command::new(env!("CARGO_BIN_EXE_modbus-mapper"));
    mapper.arg("--config-file").arg(&config).stderr(Stdio::null());
    let mut mapper = Program(mapper.spawn().unwrap());
    edgecore.until_value("room-1", "setpoint", "7.5").await;
    edgecore.until("moving pulses", |heard| (heard.count("room-1", "pulses") > 2).then_some(())).await;
    mapper.terminate();
    assert!(mapper.exit().await.success());
    assert!(!folder.path().join("modbus.sock").exists());
    simulator.terminate();
    assert!(simulator.exit().await.success());
}

#[test]
fn the_mapper_says_what_is_wrong_with_its_config() {
    let mut mapper = std::process::Command::new(env!("CARGO_BIN_EXE_modbus-mapper"));
    let output = mapper.args(["--config-file", "/nonexistent/config.yaml"]).output().unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("/nonexistent/config.yaml") && said.contains("--config-file"), "{said}");
}
