//! Devices as they are in the field, against one that has their quirks.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../../framework/tests/edgecore/mod.rs"]
mod edgecore;
mod quirky;

use std::time::Duration;

use dmi::Scalar;
use dmi::v1beta1::{Device, UpdateDeviceRequest};
use edgecore::{EdgeCore, Mapper, desiring, device, eventually, model, modelled, property};
use framework::{Fault, Kind, Property, Protocol as _, Session as _, Settings, Value};
use modbus::{Address, Modbus, ModbusSession, Visitor};
use quirky::{Quirks, Quirky};

const HOLDING: &str = "HoldingRegister";

fn place(quirky: &Quirky, more: &[(&'static str, Scalar)]) -> Vec<(&'static str, Scalar)> {
    let own =
        [("ip", Scalar::Text("127.0.0.1".to_owned())), ("port", Scalar::Int(quirky.address.port().into()))];
    [own.as_slice(), more].concat()
}

async fn session(quirky: &Quirky, more: &[(&'static str, Scalar)]) -> ModbusSession {
    let address = Address::read(&Settings::from_pairs(place(quirky, more))).unwrap();
    Modbus::default().connect(&address).await.unwrap()
}

fn visitor(kind: Kind, register: &str, offset: i64, more: &[(&'static str, Scalar)]) -> Visitor {
    let property = Property { writable: true, ..Property::new("p", kind) };
    let own = [("register", Scalar::Text(register.to_owned())), ("offset", Scalar::Int(offset))];
    Visitor::read(&property, &Settings::from_pairs([own.as_slice(), more].concat())).unwrap()
}

fn word(offset: i64) -> Visitor {
    visitor(Kind::Int, HOLDING, offset, &[])
}

async fn read_all(session: &mut ModbusSession, visitors: &[Visitor]) -> Vec<(usize, Result<Value, Fault>)> {
    let mut read = session.read_many(&visitors.iter().collect::<Vec<_>>()).await;
    read.sort_by_key(|(at, _)| *at);
    read
}

/// A model and a device with holding registers, read every 20 ms.
fn plc(name: &str, place: &[(&'static str, Scalar)], registers: &[(&str, i64)]) -> Device {
    let properties = registers.iter().map(|(name, offset)| {
        let visitors = [("register", Scalar::Text(HOLDING.to_owned())), ("offset", Scalar::Int(*offset))];
        property(name, "modbus", &visitors)
    });
    device(name, "plc", "modbus", place, properties.collect())
}

fn hand_out(edgecore: &EdgeCore, names: &[&str], devices: Vec<Device>) {
    let mut objects = edgecore.objects.lock().unwrap();
    objects.models =
        vec![model("plc", names.iter().map(|name| modelled(name, "INT", "ReadWrite")).collect())];
    objects.devices = devices;
}

#[tokio::test]
async fn one_register_that_never_answers_starves_nobody() {
    let quirky = Quirky::start(Quirks { silent: [10].into(), ..Quirks::default() }).await;
    let folder = tempfile::tempdir().unwrap();
    let edgecore = EdgeCore::at(folder.path());
    let names = ["first", "silent", "third", "setpoint"];
    let at = place(&quirky, &[("timeoutMs", Scalar::Int(200))]);
    let registers = [("first", 0), ("silent", 10), ("third", 20), ("setpoint", 30)];
    hand_out(&edgecore, &names, vec![desiring(plc("e10", &at, &registers), "setpoint", "42")]);
    edgecore.start();
    let mapper = Mapper::start(folder.path(), Modbus::default());
    edgecore.until_fault("e10", "silent", "has not answered within 200 ms").await;
    edgecore.until_value("e10", "setpoint", "42").await;
    for value in 1..=10 {
        quirky.set(0, value);
        quirky.set(20, value);
        edgecore.until_value("e10", "first", &value.to_string()).await;
        edgecore.until_value("e10", "third", &value.to_string()).await;
    }
    assert!(
        edgecore.heard().states.iter().all(|(_, state)| state == "online"),
        "{:?}",
        edgecore.heard().states
    );
    mapper.stop().await;
}

#[tokio::test]
async fn four_devices_share_one_connection_and_a_dead_one_harms_nobody() {
    let quirks = Quirks { takes_one: true, unreached: [4].into(), ..Quirks::default() };
    let quirky = Quirky::start(quirks).await;
    quirky.set(0, 7);
    let folder = tempfile::tempdir().unwrap();
    let edgecore = EdgeCore::at(folder.path());
    let device = |unit: i64| {
        let at = place(&quirky, &[("slaveID", Scalar::Int(unit))]);
        plc(&format!("unit-{unit}"), &at, &[("first", 0)])
    };
    hand_out(&edgecore, &["first"], (1..=4).map(device).collect());
    edgecore.start();
    let mapper = Mapper::start(folder.path(), Modbus::default());
    for unit in 1..=3 {
        edgecore.until_value(&format!("unit-{unit}"), "first", "7").await;
    }
    let offline = ("unit-4".to_owned(), "offline".to_owned());
    edgecore.until("the dead one offline", |heard| heard.states.contains(&offline).then_some(())).await;
    quirky.set(0, 8);
    for unit in 1..=3 {
        edgecore.until_value(&format!("unit-{unit}"), "first", "8").await;
    }
    let others = |state: &&(String, String)| state.0 != "unit-4" && state.1 != "online";
    assert_eq!(edgecore.heard().states.iter().find(others), None);
    assert_eq!(quirky.inside.lock().unwrap().connections, 1);
    mapper.stop().await;
}

#[tokio::test]
async fn a_device_that_closes_idle_connections_stays_online() {
    let quirks = Quirks { closes_idle: Some(Duration::from_millis(50)), ..Quirks::default() };
    let quirky = Quirky::start(quirks).await;
    let folder = tempfile::tempdir().unwrap();
    let edgecore = EdgeCore::at(folder.path());
    let mut idle = plc("idle", &place(&quirky, &[]), &[("first", 0)]);
    idle.spec.as_mut().unwrap().properties[0].collect_cycle = 150;
    hand_out(&edgecore, &["first"], vec![idle]);
    edgecore.start();
    let mapper = Mapper::start(folder.path(), Modbus::default());
    for value in 1..=5 {
        quirky.set(0, value);
        edgecore.until_value("idle", "first", &value.to_string()).await;
    }
    assert!(quirky.inside.lock().unwrap().connections >= 5, "it has closed them");
    assert!(
        edgecore.heard().states.iter().all(|(_, state)| state == "online"),
        "{:?}",
        edgecore.heard().states
    );
    mapper.stop().await;
}

#[tokio::test]
async fn a_device_gets_the_pauses_that_it_wants() {
    let quirks = Quirks {
        deaf_after_connect: Duration::from_millis(300),
        deaf_between: Duration::from_millis(100),
        ..Quirks::default()
    };
    let quirky = Quirky::start(quirks).await;
    quirky.set(0, 7);
    let millis = |key, millis| (key, Scalar::Int(millis));
    let short = [millis("timeoutMs", 100), millis("retries", 0)];
    let mut hasty = session(&quirky, &short).await;
    assert!(matches!(hasty.read(&word(0)).await, Err(Fault::Silent(_))), "it is deaf at first");
    let pauses = [millis("connectDelayMs", 400), millis("requestDelayMs", 200)];
    let mut patient = session(&quirky, &pauses).await;
    for _ in 0..3 {
        assert_eq!(patient.read(&word(0)).await, Ok(Value::Int(7)));
    }
    // 400 ms for the connection and 200 ms between the three.
    assert_eq!(quirky.asked(3), 3, "each was heard at once");
}

#[tokio::test]
async fn a_device_that_knows_only_the_functions_for_many_is_written_by_those_and_the_other_way_round() {
    let quirky = Quirky::start(Quirks { unknown: [5, 6].into(), ..Quirks::default() }).await;
    let mut one = session(&quirky, &[]).await;
    let coil = visitor(Kind::Bool, "CoilRegister", 4, &[]);
    for value in [1, 2] {
        assert_eq!(one.write(&word(3), &Value::Int(value)).await, Ok(()));
    }
    assert_eq!(one.write(&coil, &Value::Bool(true)).await, Ok(()));
    assert_eq!((quirky.get(3), quirky.inside.lock().unwrap().coils[&4]), (2, true));
    assert_eq!((quirky.asked(6), quirky.asked(16)), (1, 2), "what works is remembered");
    quirky.change(|quirks| quirks.unknown = [15, 16].into());
    assert_eq!(one.write(&word(3), &Value::Int(9)).await, Ok(()));
    assert_eq!(quirky.get(3), 9);
    // A value over two registers is never written in two halves.
    let wide = visitor(Kind::Int, HOLDING, 6, &[("limit", Scalar::Int(2))]);
    assert!(matches!(one.write(&wide, &Value::Int(70_000)).await, Err(Fault::Device(_))));
    assert_eq!((quirky.get(6), quirky.get(7)), (0, 0));
}

#[tokio::test]
async fn a_bit_of_a_register_leaves_the_others_as_they_are() {
    let quirky = Quirky::start(Quirks::default()).await;
    quirky.set(8, 0xA5A5);
    let mut one = session(&quirky, &[]).await;
    let bit = visitor(Kind::Bool, HOLDING, 8, &[("bit", Scalar::Int(3))]);
    assert_eq!(one.write(&bit, &Value::Bool(true)).await, Ok(()));
    assert_eq!((quirky.get(8), quirky.asked(22)), (0xA5AD, 1));
    quirky.change(|quirks| quirks.unknown = [22].into());
    for (value, word) in [(false, 0xA5A5), (true, 0xA5AD)] {
        assert_eq!(one.write(&bit, &Value::Bool(value)).await, Ok(()));
        assert_eq!(quirky.get(8), word);
    }
    assert_eq!(quirky.asked(22), 2, "it is not tried again");
    // Without a bit, a register that holds more than a truth is left alone.
    let plain = visitor(Kind::Bool, HOLDING, 8, &[]);
    let Err(Fault::Device(said)) = one.write(&plain, &Value::Bool(false)).await else { panic!("written") };
    assert!(said.contains("0xa5ad") && said.contains("`bit`"), "{said}");
    quirky.set(8, 1);
    assert_eq!(one.write(&plain, &Value::Bool(false)).await, Ok(()));
    assert_eq!(quirky.get(8), 0);
}

#[tokio::test]
async fn neighbours_come_in_one_request_and_a_hole_among_them_is_found() {
    let quirky = Quirky::start(Quirks { missing: [2].into(), ..Quirks::default() }).await;
    (0..6).for_each(|at| quirky.set(at, at * 10));
    let mut one = session(&quirky, &[]).await;
    let visitors: Vec<Visitor> = (0..6).map(word).collect();
    // Until everything was asked once: the whole, then each alone.
    let mut known = std::collections::BTreeMap::new();
    for turn in 0..6 {
        let mut order: Vec<&Visitor> = visitors.iter().collect();
        order.rotate_left(turn);
        for (place, outcome) in one.read_many(&order).await {
            known.insert((place + turn) % 6, outcome);
        }
    }
    assert!(matches!(known.remove(&2), Some(Err(Fault::Device(_)))), "{known:?}");
    for (at, outcome) in known {
        assert_eq!(outcome, Ok(Value::Int(i128::try_from(at * 10).unwrap())));
    }
    // Now the good ones come together on both sides of the hole.
    let before = quirky.asked(3);
    assert_eq!(read_all(&mut one, &visitors).await.len(), 2);
    assert_eq!(read_all(&mut one, &visitors[3..]).await.len(), 3);
    assert_eq!(quirky.asked(3), before + 2);
}

#[tokio::test]
async fn a_device_that_takes_short_requests_only_is_asked_in_short_ones() {
    for exception in [2, 3] {
        let quirky = Quirky::start(Quirks { most: Some((4, exception)), ..Quirks::default() }).await;
        let mut one = session(&quirky, &[]).await;
        let visitors: Vec<Visitor> = (0..16).map(word).collect();
        for visitor in &visitors {
            one.read(visitor).await.unwrap();
        }
        for _ in 0..3 {
            read_all(&mut one, &visitors).await;
        }
        let before = quirky.asked(3);
        assert_eq!(read_all(&mut one, &visitors).await.len(), 4, "exception {exception}");
        assert_eq!(quirky.asked(3), before + 1);
    }
}

#[tokio::test]
async fn a_busy_device_is_asked_again_and_never_read_as_0() {
    let quirky = Quirky::start(Quirks { busy: 2, ..Quirks::default() }).await;
    quirky.set(0, 7);
    let mut one = session(&quirky, &[]).await;
    assert_eq!(one.read(&word(0)).await, Ok(Value::Int(7)));
    quirky.change(|quirks| quirks.busy = 2);
    assert_eq!(one.write(&word(0), &Value::Int(8)).await, Ok(()));
    assert_eq!(quirky.get(0), 8);
    quirky.change(|quirks| quirks.busy = 10);
    assert!(matches!(one.read(&word(0)).await, Err(Fault::Device(_))));
}

#[tokio::test]
async fn a_device_that_answers_under_its_own_transaction_id_says_so_and_may_be_taken_as_it_is() {
    for id in [0, 77] {
        let quirky = Quirky::start(Quirks { answers_under: Some(id), ..Quirks::default() }).await;
        quirky.set(0, 7);
        let short = ("timeoutMs", Scalar::Int(100));
        let mut strict = session(&quirky, std::slice::from_ref(&short)).await;
        for _ in 0..2 {
            let Err(Fault::Silent(said)) = strict.read(&word(0)).await else { panic!("id {id} was taken") };
            assert!(said.contains(&format!("({id} in place of 1)")), "{said}");
            assert!(said.contains("`ignoreTransactionId`"), "{said}");
        }
        drop(strict);
        let mut lenient = session(&quirky, &[short, ("ignoreTransactionId", Scalar::Bool(true))]).await;
        for value in 1..=3 {
            assert_eq!(lenient.write(&word(0), &Value::Int(value)).await, Ok(()));
            assert_eq!(lenient.read(&word(0)).await, Ok(Value::Int(value)), "id {id}");
        }
    }
}

#[tokio::test]
async fn a_device_that_answers_under_id_0_is_offline_for_that_reason_and_not_there_now_and_then() {
    let quirky = Quirky::start(Quirks { answers_under: Some(0), ..Quirks::default() }).await;
    let folder = tempfile::tempdir().unwrap();
    let edgecore = EdgeCore::at(folder.path());
    let at = place(&quirky, &[("timeoutMs", Scalar::Int(50)), ("retries", Scalar::Int(0))]);
    hand_out(&edgecore, &["first", "second"], vec![plc("odd", &at, &[("first", 0), ("second", 10)])]);
    edgecore.start();
    let mapper = Mapper::start(folder.path(), Modbus::default());
    edgecore.until_fault("odd", "second", "under another transaction id").await;
    let connections = quirky.inside.lock().unwrap().connections;
    eventually("dialled again", async || quirky.inside.lock().unwrap().connections >= connections + 2).await;
    assert!(edgecore.heard().states.iter().all(|(_, state)| state == "offline"), "{:?}", edgecore.heard());
    mapper.stop().await;
}

#[tokio::test]
async fn a_late_answer_is_never_taken_for_another_questions() {
    for is_rtu in [false, true] {
        let quirky = Quirky::start(Quirks { is_rtu, ..Quirks::default() }).await;
        quirky.set(0, 100);
        quirky.set(1, 200);
        let mode = if is_rtu { "RTUoverTCP" } else { "TCP" };
        let settings = [
            ("communicateMode", Scalar::Text(mode.to_owned())),
            ("timeoutMs", Scalar::Int(500)),
            ("retries", Scalar::Int(0)),
        ];
        let mut one = session(&quirky, &settings).await;
        assert_eq!(one.read(&word(0)).await, Ok(Value::Int(100)));
        quirky.change(|quirks| quirks.late = Duration::from_millis(700));
        assert!(matches!(one.read(&word(0)).await, Err(Fault::Silent(_))), "{mode}");
        for _ in 0..3 {
            assert_eq!(one.read(&word(1)).await, Ok(Value::Int(200)), "{mode}");
        }
    }
}

#[tokio::test]
async fn rtu_frames_go_over_tcp_for_every_function() {
    let quirky = Quirky::start(Quirks { is_rtu: true, ..Quirks::default() }).await;
    quirky.set(0, 235);
    let mut one = session(&quirky, &[("communicateMode", Scalar::Text("RTUoverTCP".to_owned()))]).await;
    let celsius = [
        ("dataType", Scalar::Text("float".to_owned())),
        ("limit", Scalar::Int(1)),
        ("scale", Scalar::Float(0.1)),
    ];
    let celsius = visitor(Kind::Float, HOLDING, 0, &celsius);
    assert_eq!(one.read(&celsius).await, Ok(Value::Float(23.5)));
    assert_eq!(one.write(&celsius, &Value::Float(-0.0)).await, Ok(()));
    assert_eq!(one.write(&celsius, &Value::Float(24.1)).await, Ok(()));
    assert_eq!(quirky.get(0), 241);
    let wide = visitor(
        Kind::Int,
        HOLDING,
        4,
        &[("limit", Scalar::Int(4)), ("dataType", Scalar::Text("uint64".to_owned()))],
    );
    assert_eq!(one.write(&wide, &Value::Int(u64::MAX.into())).await, Ok(()));
    assert_eq!(one.read(&wide).await, Ok(Value::Int(18_446_744_073_709_551_615)));
    let coils = visitor(Kind::Int, "CoilRegister", 0, &[("limit", Scalar::Int(4))]);
    assert_eq!(one.write(&coils, &Value::Int(0b1010)).await, Ok(()));
    assert_eq!(one.read(&coils).await, Ok(Value::Int(0b1010)));
}

#[tokio::test]
async fn a_command_whose_answer_never_comes_is_sent_once_over_five_cuts() {
    let quirky = Quirky::start(Quirks { cuts_at_writes: true, ..Quirks::default() }).await;
    let folder = tempfile::tempdir().unwrap();
    let edgecore = EdgeCore::at(folder.path());
    let mut e15 =
        desiring(plc("e15", &place(&quirky, &[]), &[("first", 0), ("command", 40)]), "command", "5");
    e15.spec.as_mut().unwrap().properties[1].report_to_cloud = false;
    hand_out(&edgecore, &["first", "command"], vec![e15.clone()]);
    edgecore.start();
    let mut mapper = Mapper::start(folder.path(), Modbus::default());
    edgecore.until_refusal("e15", "command", "it was sent once").await;
    for cut in 1..=5u16 {
        // Nothing answers until it is offline, then everything does.
        quirky.change(|quirks| quirks.silent = [0].into());
        let offline = ("e15".to_owned(), "offline".to_owned());
        edgecore.until("offline", |heard| (heard.states.last() == Some(&offline)).then_some(())).await;
        quirky.set(0, cut);
        quirky.change(|quirks| quirks.silent.clear());
        edgecore.until_value("e15", "first", &cut.to_string()).await;
    }
    mapper.calls.update_device(UpdateDeviceRequest { device: Some(e15) }).await.unwrap();
    quirky.set(0, 99);
    edgecore.until_value("e15", "first", "99").await;
    assert_eq!((quirky.asked(6), quirky.asked(16), quirky.get(40)), (1, 0, 5));
    mapper.stop().await;
}

#[tokio::test]
async fn no_value_is_told_as_such() {
    let quirky = Quirky::start(Quirks::default()).await;
    let folder = tempfile::tempdir().unwrap();
    let edgecore = EdgeCore::at(folder.path());
    let visit = |offset: i64, more: &[(&'static str, Scalar)]| {
        let own = [("register", Scalar::Text(HOLDING.to_owned())), ("offset", Scalar::Int(offset))];
        [own.as_slice(), more].concat()
    };
    let properties = vec![
        property("flow", "modbus", &visit(0, &[("limit", Scalar::Int(2))])),
        property("level", "modbus", &visit(2, &[("noValue", Scalar::Text("0xFFFF".to_owned()))])),
    ];
    let tank = device("tank", "tank", "modbus", &place(&quirky, &[]), properties);
    edgecore.objects.lock().unwrap().models = vec![model(
        "tank",
        vec![modelled("flow", "FLOAT", "ReadOnly"), modelled("level", "INT", "ReadOnly")],
    )];
    edgecore.objects.lock().unwrap().devices = vec![tank];
    for (register, word) in [(0, 0x41BC), (2, 5)] {
        quirky.set(register, word);
    }
    edgecore.start();
    let mapper = Mapper::start(folder.path(), Modbus::default());
    edgecore.until_value("tank", "flow", "23.5").await;
    edgecore.until_value("tank", "level", "5").await;
    quirky.set(0, 0x7FC0);
    quirky.set(2, 0xFFFF);
    edgecore.until_fault("tank", "flow", "NaN").await;
    edgecore.until_fault("tank", "level", "0xffff").await;
    quirky.set(2, 6);
    edgecore.until_value("tank", "level", "6").await;
    mapper.stop().await;
}

#[tokio::test]
async fn an_exception_is_told_with_its_code_its_place_and_what_to_look_at_known_or_not() {
    let quirky = Quirky::start(Quirks::default()).await;
    let mut one = session(&quirky, &[("slaveID", Scalar::Int(3))]).await;
    for (exception, words) in [
        (0, "exception 0 (which Modbus does not know) of unit 3 at reading holding register 40: "),
        (99, "exception 99 (which Modbus does not know) of unit 3 at reading holding register 40: "),
        (
            2,
            "exception 2 (illegal data address) of unit 3 at reading holding register 40: the device has nothing there",
        ),
    ] {
        quirky.change(|quirks| quirks.refuses_with = Some(exception));
        let Err(Fault::Device(said)) = one.read(&word(40)).await else { panic!("exception {exception}") };
        assert!(said.starts_with(words), "{said}");
    }
    let Err(Fault::Device(said)) = one.write(&word(40), &Value::Int(7)).await else { panic!("written") };
    assert!(said.starts_with("exception 2 (") && said.contains("at writing holding register 40: "), "{said}");
}

#[tokio::test]
async fn a_device_that_closes_the_connection_at_once_says_so_in_words() {
    for mode in ["TCP", "RTUoverTCP"] {
        let quirky = Quirky::start(Quirks { closes_at_once: true, ..Quirks::default() }).await;
        let mut one = session(&quirky, &[("communicateMode", Scalar::Text(mode.to_owned()))]).await;
        for _ in 0..3 {
            let Err(Fault::Silent(said)) = one.read(&word(0)).await else { panic!("{mode}: read") };
            assert!(
                said.starts_with("the device has closed the connection; many take one client"),
                "{mode}: {said}"
            );
        }
    }
}

#[tokio::test]
async fn what_comes_and_is_no_answer_is_not_told_as_silence() {
    let rtu = Quirks { is_rtu: true, spoils_the_end: true, ..Quirks::default() };
    let http = Quirks { says: Some(b"HTTP/1.1 400 Bad Request\r\n\r\n"), ..Quirks::default() };
    for (quirks, mode, came, words) in [
        (rtu, "RTUoverTCP", "7 bytes came", "unit 1 with a right checksum; look whether"),
        (http, "TCP", "28 bytes came", "no whole answer of Modbus TCP; look whether another service"),
    ] {
        let quirky = Quirky::start(quirks).await;
        let settings = [
            ("communicateMode", Scalar::Text(mode.to_owned())),
            ("timeoutMs", Scalar::Int(300)),
            ("retries", Scalar::Int(0)),
        ];
        let mut one = session(&quirky, &settings).await;
        let Err(Fault::Silent(said)) = one.read(&word(0)).await else { panic!("{mode}: read") };
        assert!(said.starts_with(came) && said.contains(words), "{mode}: {said}");
        // It is a device as any other as soon as it says what it should.
        quirky.change(|quirks| (quirks.spoils_the_end, quirks.says) = (false, None));
        assert_eq!(one.read(&word(0)).await, Ok(Value::Int(0)), "{mode}");
    }
}
