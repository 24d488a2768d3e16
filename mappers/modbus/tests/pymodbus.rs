//! The mapper against a Modbus device that we did not write: pymodbus, from PyPI.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../../framework/tests/edgecore/mod.rs"]
mod edgecore;
#[path = "../../framework/tests/python/mod.rs"]
mod python;

use std::path::Path;

use dmi::Scalar;
use dmi::v1beta1::UpdateDeviceRequest;
use edgecore::{EdgeCore, Mapper, desiring, device, model, modelled, property};
use modbus::Modbus;
use python::Script;

const PACKAGES: [&str; 2] = ["pymodbus==3.11.4", "pyserial==3.5"];

/// The device, and a way to look into it that is not Modbus. It says first where it is: its port, or the far end of its serial line.
fn pymodbus(mode: &str) -> Script {
    Script::start(&PACKAGES, &Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pymodbus/server.py"), &[mode])
}

fn text(text: &str) -> Scalar {
    Scalar::Text(text.to_owned())
}

#[tokio::test]
async fn a_device_of_other_make_is_read_and_written() {
    let device = pymodbus("tcp");
    let place = [("ip", text("127.0.0.1")), ("port", text(&device.first))];
    is_read_and_written(device, &place).await;
}

#[tokio::test]
async fn a_device_of_other_make_behind_a_serial_server_is_read_and_written() {
    let device = pymodbus("rtuovertcp");
    let place =
        [("communicateMode", text("RTUoverTCP")), ("ip", text("127.0.0.1")), ("port", text(&device.first))];
    is_read_and_written(device, &place).await;
}

#[tokio::test]
async fn a_device_of_other_make_on_a_serial_line_is_read_and_written() {
    let device = pymodbus("serial");
    let place = [
        ("communicateMode", text("RTU")),
        ("serialPort", text(&device.first)),
        ("baudRate", Scalar::Int(115_200)),
        ("slaveID", Scalar::Int(3)),
    ];
    is_read_and_written(device, &place).await;
}

async fn is_read_and_written(mut pymodbus: Script, place: &[(&'static str, Scalar)]) {
    let visit = |name: &str, register: &str, offset: i64, more: &[(&'static str, Scalar)]| {
        let mut pairs =
            vec![("register", Scalar::Text(register.to_owned())), ("offset", Scalar::Int(offset))];
        pairs.extend(more.iter().cloned());
        property(name, "modbus", &pairs)
    };
    let yes = || Scalar::Bool(true);
    let limit = |count| ("limit", Scalar::Int(count));
    let properties = vec![
        visit("coil", "CoilRegister", 3, &[]),
        visit("input", "DiscreteInputRegister", 4, &[]),
        visit("celsius", "InputRegister", 10, &[limit(1), ("scale", Scalar::Float(0.1))]),
        visit("below", "InputRegister", 11, &[]),
        visit("word", "HoldingRegister", 20, &[]),
        visit("wide", "HoldingRegister", 30, &[limit(2)]),
        visit("float", "HoldingRegister", 40, &[]),
        visit("bytes", "HoldingRegister", 50, &[limit(2), ("isSwap", yes())]),
        visit("words", "HoldingRegister", 60, &[limit(2), ("isRegisterSwap", yes())]),
        visit("bit", "HoldingRegister", 80, &[("bit", Scalar::Int(3))]),
        visit("serial", "HoldingRegister", 90, &[limit(8)]),
        visit("total", "HoldingRegister", 100, &[("dataType", text("uint64"))]),
        visit("nothing", "InputRegister", 110, &[("noValue", text("0xFFFF"))]),
        visit("both", "HoldingRegister", 70, &[limit(2), ("isSwap", yes()), ("isRegisterSwap", yes())]),
    ];
    let mut below = modelled("below", "INT", "ReadOnly");
    below.minimum = "-40".to_owned();
    let kinds =
        [("coil", "BOOLEAN"), ("word", "INT"), ("wide", "INT"), ("float", "FLOAT"), ("bit", "BOOLEAN")];
    let swapped =
        [("bytes", "INT"), ("words", "FLOAT"), ("both", "INT"), ("serial", "STRING"), ("total", "INT")];
    let mut modelled_ones = vec![
        modelled("input", "BOOLEAN", "ReadOnly"),
        modelled("celsius", "DOUBLE", "ReadOnly"),
        modelled("nothing", "INT", "ReadOnly"),
        below,
    ];
    modelled_ones.extend(kinds.iter().chain(&swapped).map(|(name, kind)| modelled(name, kind, "ReadWrite")));
    let plc = device("plc", "plc", "modbus", place, properties);

    for command in [
        "set input 4 1",
        "set register 10 235 65496",
        "set holding 20 7",
        "set holding 30 1 2",
        "set holding 40 16828 0",
        "set holding 50 513 1027",
        "set holding 60 0 16828",
        "set holding 70 1027 513",
        "set holding 80 61680",
        "set holding 90 16706 17184",
        "set holding 100 65535 65535 65535 65535",
        "set register 110 65535",
    ] {
        assert_eq!(pymodbus.ask(command), "ok");
    }
    let folder = tempfile::tempdir().unwrap();
    let edgecore = EdgeCore::at(folder.path());
    {
        let mut objects = edgecore.objects.lock().unwrap();
        objects.models = vec![model("plc", modelled_ones)];
        objects.devices = vec![plc.clone()];
    }
    edgecore.start();
    let mut mapper = Mapper::start(folder.path(), Modbus::default());
    for (property, value) in [
        ("coil", "false"),
        ("input", "true"),
        ("celsius", "23.5"),
        ("below", "-40"),
        ("word", "7"),
        ("wide", "65538"),
        ("float", "23.5"),
        ("bytes", "16909060"),
        ("words", "23.5"),
        ("both", "16909060"),
        ("bit", "false"),
        ("serial", "ABC"),
        ("total", "18446744073709551615"),
    ] {
        edgecore.until_value("plc", property, value).await;
    }

    edgecore.until_fault("plc", "nothing", "0xffff").await;

    pymodbus.ask("set register 10 241");
    edgecore.until_value("plc", "celsius", "24.1").await;

    let wishes = [
        ("coil", "true"),
        ("word", "65535"),
        ("wide", "70000"),
        ("float", "-0.5"),
        ("bytes", "67305985"),
        ("words", "-0.5"),
        ("both", "67305985"),
        ("bit", "true"),
        ("serial", "room 7"),
        ("total", "9007199254740993"),
    ];
    let wanted = wishes.iter().fold(plc, |device, (property, value)| desiring(device, property, value));
    mapper.calls.update_device(UpdateDeviceRequest { device: Some(wanted) }).await.unwrap();
    for (property, value) in wishes {
        let both = Some((value.to_owned(), value.to_owned()));
        edgecore.until(property, |heard| (heard.last("plc", property) == both).then_some(())).await;
    }
    // What the device itself says it has.
    assert_eq!(pymodbus.ask("get coil 2 3"), "0 1 0");
    assert_eq!(pymodbus.ask("get holding 20 2"), "65535 0");
    assert_eq!(pymodbus.ask("get holding 30 2"), "1 4464");
    assert_eq!(pymodbus.ask("get holding 40 2"), "48896 0");
    assert_eq!(pymodbus.ask("get holding 50 2"), "772 258");
    assert_eq!(pymodbus.ask("get holding 60 2"), "0 48896");
    assert_eq!(pymodbus.ask("get holding 70 2"), "258 772");
    assert_eq!(pymodbus.ask("get holding 80 1"), "61688", "the other bits are as they were");
    assert_eq!(pymodbus.ask("get holding 100 4"), "32 0 0 1");
    mapper.stop().await;
}
