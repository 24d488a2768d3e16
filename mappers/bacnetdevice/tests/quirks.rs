//! Devices as they are in the field: silent, late, behind routers, twice, or no devices at all.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod device;

use bacnetdevice::{Bacnet, BacnetSession, Visitor};
use device::{Device, Quirks, READ_PROPERTY, READ_PROPERTY_MULTIPLE, WRITE_PROPERTY, unicast};
use dmi::Scalar;
use framework::{Fault, Kind, Property, Protocol as _, Session as _, Settings, Value};

const WARM: Result<Value, Fault> = Ok(Value::Double(21.5));

fn text(text: &str) -> Scalar {
    Scalar::Text(text.to_owned())
}

async fn connect(protocol: &Bacnet, place: &[(&'static str, Scalar)]) -> Result<BacnetSession, Fault> {
    let address = protocol.address(&Settings::from_pairs(place.iter().cloned())).unwrap();
    protocol.connect(&address).await
}

async fn session(device: &Device) -> BacnetSession {
    connect(&Bacnet::default(), &device.place()).await.unwrap()
}

fn visitor(more: &[(&'static str, &str)]) -> Visitor {
    let own = [("objectType", "AV"), ("objectInstance", "1")];
    let pairs = own.iter().chain(more).map(|(key, value)| (*key, text(value)));
    Visitor::read(&Property::new("p", Kind::Double), &Settings::from_pairs(pairs)).unwrap()
}

/// One that takes a request of its own.
fn plain() -> Visitor {
    visitor(&[("statusFlags", "false")])
}

#[test]
fn only_what_is_kept_up_is_relinquished() {
    let read = |writable: bool, cycle: Option<u64>, more: &[(&'static str, &str)]| {
        let own = [("objectType", "AV"), ("objectInstance", "1"), ("relinquish", "true")];
        let pairs = own.iter().chain(more).map(|(key, value)| (*key, text(value)));
        let cycle = cycle.map(std::time::Duration::from_secs);
        let property = Property { writable, cycle, ..Property::new("p", Kind::Double) };
        let visitor = Bacnet::default().visitor(&property, &Settings::from_pairs(pairs));
        visitor.map(|visitor| Bacnet::default().is_released(&visitor)).map_err(|refusal| refusal.to_string())
    };
    assert_eq!(read(true, Some(1), &[]), Ok(true));
    assert_eq!(read(true, None, &[("command", "false")]), Ok(true));
    assert!(read(false, Some(1), &[]).unwrap_err().contains("ReadOnly"));
    for refused in [read(true, None, &[]), read(true, Some(1), &[("command", "true")])] {
        assert!(refused.unwrap_err().contains("`command` to false"));
    }
}

#[tokio::test]
async fn a_read_is_repeated_under_its_number_and_a_write_is_not() {
    let device = Device::start(Quirks::default()).await;
    let mut session = session(&device).await;
    device.quirks(Quirks { silent: vec![READ_PROPERTY, WRITE_PROPERTY], ..Quirks::default() });
    let before = device.count(READ_PROPERTY);
    let fault = session.read(&plain()).await.unwrap_err();
    assert!(matches!(&fault, Fault::Link(reason) if reason.contains("150 ms, 3 times")), "{fault}");
    assert_eq!(device.count(READ_PROPERTY), before + 4, "and a look whether it answers anything at all");
    let asked = device.inside.lock().unwrap().asked[before..before + 3].to_vec();
    assert!(asked.iter().all(|apdu| *apdu == asked[0]), "the device may know a repetition by its number");
    let fault = session.write(&plain(), &Value::Double(1.0)).await.unwrap_err();
    assert!(matches!(fault, Fault::Silent(_)), "whether it was done is not known: {fault}");
    assert_eq!(device.count(WRITE_PROPERTY), 1);
    // Its session is as good as before.
    device.quirks(Quirks::default());
    assert_eq!(session.read(&plain()).await, WARM);
}

#[tokio::test]
async fn a_property_that_it_is_silent_to_is_that_propertys_fault() {
    let device = Device::start(Quirks { is_shy: true, ..Quirks::default() }).await;
    let mut session = session(&device).await;
    let fault = session.read(&plain()).await.unwrap_err();
    assert!(matches!(&fault, Fault::Silent(reason) if reason.contains("150 ms, 3 times")), "{fault}");
}

#[tokio::test]
async fn a_late_answer_is_never_another_ones() {
    let device = Device::start(Quirks::default()).await;
    let mut session = session(&device).await;
    // Three tries of a read and a look are owed, and come with the answer to a write of another number.
    device.quirks(Quirks { late: 4, ..Quirks::default() });
    session.read(&plain()).await.unwrap_err();
    assert_eq!(session.write(&plain(), &Value::Double(1.0)).await, Ok(()));
    assert_eq!(session.read(&plain()).await, WARM);
}

#[tokio::test]
async fn one_that_says_nothing_to_many_at_once_is_asked_one_by_one_from_then_on() {
    let device = Device::start(Quirks { silent: vec![READ_PROPERTY_MULTIPLE], ..Quirks::default() }).await;
    let mut session = session(&device).await;
    for _ in 0..2 {
        assert_eq!(session.read(&visitor(&[])).await, WARM);
    }
    assert_eq!(device.count(READ_PROPERTY_MULTIPLE), 3, "tried once, with its repetitions");
}

#[tokio::test]
async fn what_is_no_answer_is_none() {
    let device = Device::start(Quirks::default()).await;
    let mut session = session(&device).await;
    let npdu = |apdu: &[u8]| unicast(&[&[1, 0][..], apdu].concat());
    let forwarded = {
        let apdu = [0x30, 0xEE, 12, 0x0C, 0, 0x80, 0, 1, 0x19, 85, 0x3E, 0x44, 0x42, 0, 0, 0, 0x3F];
        let length = u8::try_from(4 + 6 + 2 + apdu.len()).unwrap();
        let [high, low] = device.port.to_be_bytes();
        [&[0x81, 4, 0, length, 127, 0, 0, 1, high, low, 1, 0][..], &apdu].concat()
    };
    let before = vec![
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        vec![0x81],
        vec![0x81, 0x0A, 0xFF, 0xFF, 1, 0],
        vec![0xFF; 1600],
        npdu(&[]),
        npdu(&[0x30]),
        npdu(&[0x50, 0xEE, 12]),
        // Another number's, another server's, and one that came by way of somebody else.
        npdu(&[0x30, 0xED, 12, 0x0C, 0, 0x80, 0, 1, 0x19, 85, 0x3E, 0x44, 0x42, 0, 0, 0, 0x3F]),
        npdu(&[0x70, 0xEE, 9]),
        forwarded,
        // Somebody asks us, or tells us what we did not ask for.
        npdu(&[0x00, 5, 1, 12, 0x0C, 2, 0, 0, 1, 0x19, 85]),
        npdu(&[0x00, 5, 1, 1, 0x09, 0xFF]),
        npdu(&[0x10, 2, 0x09, 0x12]),
        npdu(&[0x10, 0, 0xC4]),
    ];
    device.quirks(Quirks { before, ..Quirks::default() });
    for _ in 0..3 {
        assert_eq!(session.read(&plain()).await, WARM);
    }
    // What answers, and wrongly, is there: the property's fault.
    for (instead, said) in [
        (vec![0x30, 0xEE, 12], "in the middle"),
        (vec![0x30, 0xEE, 12, 0x0C, 0, 0x80, 0, 2, 0x19, 85, 0x3E, 0x00, 0x3F], "something else"),
        (vec![0x20, 0xEE, 15], "service 15 instead of 12"),
        (vec![0x3C, 0xEE, 0, 4, 12], "in segments"),
        (vec![0x71, 0xEE, 4], "needs segments"),
        (vec![0x60, 0xEE, 9], "does not have this service"),
        (vec![0x50, 0xEE, 12, 0x91, 2, 0x91, 27], "may not be read"),
    ] {
        device.quirks(Quirks { instead: Some(instead), ..Quirks::default() });
        let fault = session.read(&plain()).await.unwrap_err();
        assert!(matches!(&fault, Fault::Device(reason) if reason.contains(said)), "{said}: {fault}");
    }
}

#[tokio::test]
async fn whoever_asks_us_is_answered_that_we_are_no_device() {
    let device = Device::start(Quirks::default()).await;
    let mut session = session(&device).await;
    let client = device.inside.lock().unwrap().client.unwrap();
    let other = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut answer = [0; 64];
    for (request, wanted) in [
        (&[0x00, 5, 9, 12, 0x0C, 2, 0, 0, 1, 0x19, 85][..], &[0x60, 9, 9][..]),
        (&[0x00, 5, 9, 1, 0x09, 1], &[0x60, 9, 4]),
        (
            &[0x00, 5, 9, 1, 0x09, 1, 0x1C, 2, 0, 0, 4, 0x2C, 0, 0, 0, 1, 0x39, 0, 0x4E, 0x4F],
            &[0x50, 9, 1, 0x91, 5, 0x91, 79],
        ),
    ] {
        other.send_to(&unicast(&[&[1, 4][..], request].concat()), client).await.unwrap();
        let count = other.recv(&mut answer).await.unwrap();
        assert_eq!(answer[6..count], *wanted);
    }
    assert_eq!(session.read(&plain()).await, WARM);
}

#[tokio::test]
async fn a_device_behind_a_router_is_reached_and_a_router_without_a_way_says_so() {
    let router = Device::start(Quirks::default()).await;
    let place = [router.place(), vec![("network", Scalar::Int(2001)), ("mac", text("12"))]].concat();
    let mut session = connect(&Bacnet::default(), &place).await.unwrap();
    assert_eq!(session.read(&plain()).await, WARM);
    router.quirks(Quirks { is_lost: true, ..Quirks::default() });
    let fault = session.read(&plain()).await.unwrap_err();
    assert!(
        matches!(&fault, Fault::Link(reason) if reason.contains("network 2001 is not reached")),
        "{fault}"
    );
}

#[tokio::test]
async fn devices_of_one_port_share_a_socket_and_have_their_answers() {
    let (one, other) = (Device::start(Quirks::default()).await, Device::start(Quirks::default()).await);
    let protocol = Bacnet::default();
    let mut first = connect(&protocol, &one.place()).await.unwrap();
    let mut second = connect(&protocol, &other.place()).await.unwrap();
    let mut again = connect(&protocol, &one.place()).await.unwrap();
    let visitor = plain();
    let read = tokio::join!(first.read(&visitor), second.read(&visitor), again.read(&visitor));
    assert_eq!(read, (WARM, WARM, WARM));
    let client = |device: &Device| device.inside.lock().unwrap().client;
    assert_eq!(client(&one), client(&other));
}

#[tokio::test]
async fn a_port_that_somebody_else_has_is_named() {
    let device = Device::start(Quirks::default()).await;
    let taken = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    let mut place = device.place();
    place[2] = ("localPort", Scalar::Int(taken.local_addr().unwrap().port().into()));
    let fault = connect(&Bacnet::default(), &place).await.unwrap_err();
    assert!(matches!(&fault, Fault::NotSent(reason) if reason.contains("`localPort`")), "{fault}");
}

#[tokio::test]
async fn a_bbmd_that_refuses_or_is_away_is_named() {
    let bbmd = Device::start(Quirks { result: 0x30, ..Quirks::default() }).await;
    let place = |port: u16| {
        [
            ("deviceInstance", Scalar::Int(7)),
            ("bbmd", text(&format!("127.0.0.1:{port}"))),
            ("localPort", Scalar::Int(0)),
            ("timeoutMs", Scalar::Int(150)),
        ]
    };
    let fault = connect(&Bacnet::default(), &place(bbmd.port)).await.unwrap_err();
    assert!(
        matches!(&fault, Fault::NotSent(reason) if reason.contains("does not take foreign devices")),
        "{fault}"
    );
    bbmd.quirks(Quirks::default());
    connect(&Bacnet::default(), &place(bbmd.port)).await.unwrap();
    let [nobody] = testhost::free_ports().unwrap();
    let fault = connect(&Bacnet::default(), &place(nobody)).await.unwrap_err();
    assert!(matches!(&fault, Fault::NotSent(reason) if reason.contains("has not answered")), "{fault}");
}

#[tokio::test]
async fn who_answers_with_a_broadcast_is_found_at_the_port_where_broadcasts_go() {
    let [port, nobody] = testhost::free_ports().unwrap();
    let place = [
        ("deviceInstance", Scalar::Int(9)),
        ("broadcast", text("127.0.0.1")),
        ("port", Scalar::Int(nobody.into())),
        ("localPort", Scalar::Int(port.into())),
    ];
    let device = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    device.set_broadcast(true).unwrap();
    let saying = tokio::spawn(async move {
        let i_am = [0x81, 0x0B, 0, 20, 1, 0, 0x10, 0, 0xC4, 2, 0, 0, 9, 0x22, 1, 0xE0, 0x91, 3, 0x21, 1];
        loop {
            device.send_to(&i_am, ("127.255.255.255", port)).await.unwrap();
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    });
    connect(&Bacnet::default(), &place).await.unwrap();
    saying.abort();
}

#[tokio::test]
async fn two_devices_with_one_instance_are_both_named() {
    let device = Device::start(Quirks::default()).await;
    let place = [
        ("deviceInstance", Scalar::Int(7)),
        ("broadcast", text("127.0.0.1")),
        ("port", Scalar::Int(device.port.into())),
        ("localPort", Scalar::Int(0)),
    ];
    let protocol = Bacnet::default();
    let _session = connect(&protocol, &place).await.unwrap();
    // The other one says it as often as it can, while the first one is asked.
    let client = device.inside.lock().unwrap().client.unwrap();
    let twin = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let at = twin.local_addr().unwrap();
    let saying = tokio::spawn(async move {
        let i_am = unicast(&[1, 0, 0x10, 0, 0xC4, 2, 0, 0, 7, 0x22, 1, 0xE0, 0x91, 3, 0x21, 1]);
        loop {
            twin.send_to(&i_am, client).await.unwrap();
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    });
    let fault = connect(&protocol, &place).await.unwrap_err();
    saying.abort();
    let both = [format!("127.0.0.1:{}", device.port), at.to_string()];
    assert!(matches!(&fault, Fault::NotSent(reason) if both.iter().all(|at| reason.contains(at))), "{fault}");
}
