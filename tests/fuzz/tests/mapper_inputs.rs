//! A mapper's doors: the settings of devices and properties, which anybody wrote who may write a Device, and the bytes of a
//! device that is not what it seems.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use std::collections::BTreeMap;
use std::time::Duration;

use dmi::v1beta1::CustomizedValue;
use framework::{Fault, Kind, Property, Protocol, Scalar, Session, Settings, Value};
use fuzz::{SplitMix64, endure};
use modbus::{Address, Modbus, ModbusSession, Visitor};
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// Connections of a mapper to a device that lies.
const LIES: usize = 3000;
/// For a machine that is busy with other things.
const LONG: Duration = Duration::from_secs(60);

fn encoded(pairs: &[(&str, Scalar)]) -> Vec<u8> {
    let data: BTreeMap<_, _> = pairs.iter().map(|(key, value)| ((*key).to_owned(), value.to_any())).collect();
    CustomizedValue { data }.encode_to_vec()
}

fn valid() -> Vec<Vec<u8>> {
    let text = |text: &str| Scalar::Text(text.to_owned());
    vec![
        encoded(&[("ip", text("10.0.0.1")), ("port", Scalar::Int(502)), ("slaveID", Scalar::Float(1.0))]),
        encoded(&[
            ("register", text("HoldingRegister")),
            ("offset", Scalar::Float(2.0)),
            ("limit", Scalar::Int(2)),
            ("scale", Scalar::Float(0.1)),
            ("isSwap", Scalar::Bool(true)),
        ]),
        encoded(&[("register", text("CoilRegister")), ("offset", Scalar::Int(65_535)), ("limit", text("1"))]),
        encoded(&[
            ("register", text("inputregister")),
            ("limit", Scalar::Int(8)),
            ("dataType", text("string")),
        ]),
    ]
}

fn property(random: &mut SplitMix64) -> Property {
    let kind = *random.of(&[Kind::Int, Kind::Float, Kind::Double, Kind::Bool, Kind::Text]);
    let minimum = *random.of(&[None, Some(-1.0), Some(f64::NAN), Some(f64::INFINITY)]);
    let name = random.text(20);
    Property { writable: random.below(2) == 0, minimum, ..Property::new(&name, kind) }
}

fn value(random: &mut SplitMix64) -> Value {
    match random.below(5) {
        0 => Value::Int(random.bits().cast_signed().into()),
        1 => Value::Float(f32::from_bits(u32::try_from(random.bits() >> 32).unwrap())),
        2 => Value::Double(f64::from_bits(random.bits())),
        3 => Value::Bool(true),
        _ => Value::Text(random.text(300)),
    }
}

/// Registers of a length that belongs to the visitor, and of others.
fn registers(random: &mut SplitMix64, words: u16) -> Vec<u16> {
    let length = if random.below(3) == 0 { random.below(200) } else { usize::from(words) };
    (0..length).map(|_| u16::try_from(random.bits() >> 48).unwrap()).collect()
}

#[test]
fn settings_are_taken_or_refused_and_leave_nothing() {
    let valid = valid();
    let valid: Vec<&[u8]> = valid.iter().map(Vec::as_slice).collect();
    let (mut addresses, mut visitors) = (0_u32, 0_u32);
    let left = endure(21, |random| {
        let bytes = if random.below(10) == 0 { random.bytes(200) } else { random.damaged(&valid) };
        let Ok(config) = CustomizedValue::decode(bytes.as_slice()) else { return };
        let settings = Settings::from_wire(&config.data);
        addresses += u32::from(Address::read(&settings).is_ok());
        if let Ok(visitor) = Visitor::read(&property(random), &settings) {
            visitors += 1;
            assert!(u32::from(visitor.offset) + u32::from(visitor.count) <= 65_536 && visitor.count <= 125);
            if let Ok(value) = visitor.encoding.decode(&registers(random, visitor.encoding.words)) {
                assert!(!matches!(value, Value::Double(number) if !number.is_finite()));
            }
            if let Ok(words) = visitor.encoding.encode(&value(random)) {
                assert_eq!(words.len(), usize::from(visitor.encoding.words));
            }
        }
    });
    println!("{} KiB are left; {addresses} addresses and {visitors} visitors were taken", left.unwrap());
    assert!(addresses > 0 && visitors > 0, "some damage lets pass");
}

/// What a device may answer to a request: noise, an answer that is damaged, a head that promises more than comes.
fn answer(random: &mut SplitMix64, request: &[u8]) -> Vec<u8> {
    let mut good = request.get(..8).unwrap_or(request).to_vec();
    good.extend_from_slice(&[4, 0, 7, 0, 9]);
    if let Some(length) = good.get_mut(5) {
        *length = 7;
    }
    match random.below(8) {
        0 => random.bytes(400),
        1 => good,
        2 => {
            let mut long = good[..4].to_vec();
            long.extend_from_slice(&[0xff, 0xff]);
            long.extend(random.bytes(2000));
            long
        }
        _ => random.damaged(&[&good]),
    }
}

async fn read_once(address: &Address, visitor: &Visitor) -> Result<Value, Fault> {
    let mut session: ModbusSession = Modbus::default().connect(address).await?;
    session.read(visitor).await
}

#[tokio::test]
async fn a_device_that_lies_is_a_fault_and_no_more() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut address = Address::tcp("127.0.0.1", listener.local_addr().unwrap().port(), 1);
    address.timing.retries = 0;
    let device = tokio::spawn(async move {
        let mut random = SplitMix64::new(22);
        loop {
            let (mut line, _) = listener.accept().await.unwrap();
            let mut request = [0; 12];
            let _ = line.read_exact(&mut request).await;
            // The end of the connection is the end of the answer; the mapper may have gone before.
            let _ = line.write_all(&answer(&mut random, &request)).await;
        }
    });
    let settings = Settings::from_pairs([
        ("register", Scalar::Text("HoldingRegister".to_owned())),
        ("limit", Scalar::Int(2)),
    ]);
    let speed = Property { writable: true, ..Property::new("speed", Kind::Int) };
    let visitor = Modbus::default().visitor(&speed, &settings).unwrap();
    let mut read = 0;
    for _ in 0..LIES {
        let got = tokio::time::timeout(LONG, read_once(&address, &visitor)).await.expect("an end");
        read += u32::from(got.is_ok());
    }
    println!("{read} of {LIES} answers were values");
    assert!(read > 0, "the honest ones are");
    device.abort();
}
