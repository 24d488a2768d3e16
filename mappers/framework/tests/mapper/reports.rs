//! What edgecore is told of values: when, and what one that it does not take costs the others.

use dmi::v1beta1::{RegisterDeviceRequest, UpdateDeviceRequest};
use framework::{Fault, Value};
use tonic::Code;

use crate::edgecore::{EdgeCore, Mapper, eventually};
use crate::shelf::{FakeProtocol, fixture, levels, room};

#[tokio::test]
async fn what_changes_is_reported_and_what_does_not_is_not() {
    let fixture = fixture().await;
    fixture.shelf.put(1, Value::Int(8));
    fixture.edgecore.until_value("one", "level", "8").await;
    // More than a dozen cycles have passed by the time both are there.
    for value in 9..24 {
        fixture.shelf.put(1, Value::Int(value));
        fixture.edgecore.until_value("one", "level", &value.to_string()).await;
    }
    // What is steady is told again every 10 s, which is not many of these cycles.
    let heard = fixture.edgecore.heard();
    assert!(heard.count("one", "label") * 3 < heard.count("one", "level"), "{heard:?}");
    assert!(heard.states.iter().all(|(_, state)| state == "online"), "{heard:?}");
}

#[tokio::test]
async fn with_a_report_cycle_a_value_and_a_state_are_repeated() {
    let mut fixture = fixture().await;
    let mut device = room("one");
    device.spec.as_mut().unwrap().properties[1].report_cycle = 30;
    device.status.as_mut().unwrap().report_cycle = 30;
    fixture.mapper.calls.update_device(UpdateDeviceRequest { device: Some(device) }).await.unwrap();
    fixture
        .edgecore
        .until("repeated reports", |heard| (heard.count("one", "label") >= 4).then_some(()))
        .await;
    fixture.edgecore.until("repeated states", |heard| (heard.states.len() >= 4).then_some(())).await;
}

#[tokio::test]
async fn one_refused_value_does_not_hold_up_the_others() {
    let fixture = fixture().await;
    for (code, first) in [(Code::InvalidArgument, 100), (Code::FailedPrecondition, 200), (Code::Unknown, 300)]
    {
        let bad = format!("ja m {first}");
        fixture.edgecore.objects.lock().unwrap().refused_value = Some((bad.clone(), code));
        fixture.shelf.put(2, Value::Text(bad.clone()));
        for value in first..first + 3 {
            fixture.shelf.put(1, Value::Int(value));
            fixture.edgecore.until_value("one", "level", &value.to_string()).await;
        }
        fixture.shelf.put(2, Value::Text(format!("honey {first}")));
        fixture.edgecore.until_value("one", "label", &format!("honey {first}")).await;
    }
}

#[tokio::test]
async fn of_a_value_that_no_message_holds_the_reason_is_told_and_the_others_go_on() {
    let fixture = fixture().await;
    for (turn, length) in [(10, dmi::VALUE_MAX + 1), (20, dmi::CALL_MAX), (30, 900_000)] {
        fixture.shelf.put(2, Value::Text("x".repeat(length)));
        fixture.shelf.put(1, Value::Int(turn));
        let words = "edgecore does not take the value: a value of `label` has more than 4096 bytes";
        fixture.edgecore.until_fault("one", "label", words).await;
        fixture.edgecore.until_value("one", "level", &turn.to_string()).await;
        let fits = "x".repeat(dmi::VALUE_MAX - turn as usize);
        fixture.shelf.put(2, Value::Text(fits.clone()));
        fixture.edgecore.until_value("one", "label", &fits).await;
    }
}

#[tokio::test]
async fn an_edgecore_that_takes_no_states_still_gets_values() {
    let mut fixture = fixture().await;
    for (code, name) in [(Code::Unimplemented, "two"), (Code::Unknown, "three")] {
        fixture.edgecore.objects.lock().unwrap().refused_states = Some(code);
        let request = RegisterDeviceRequest { device: Some(room(name)) };
        fixture.mapper.calls.register_device(request).await.unwrap();
        fixture.edgecore.until_value(name, "level", "7").await;
    }
    fixture.edgecore.objects.lock().unwrap().refused_states = None;
    let online = ("three".to_owned(), "online".to_owned());
    fixture.edgecore.until("the state", |heard| heard.states.contains(&online).then_some(())).await;
}

#[tokio::test]
async fn what_a_device_sends_by_itself_is_not_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let edgecore = EdgeCore::at(folder.path());
    {
        let mut objects = edgecore.objects.lock().unwrap();
        objects.models = vec![levels()];
        objects.devices = vec![room("one")];
    }
    edgecore.start();
    let shelf = FakeProtocol::default();
    shelf.0.lock().unwrap().pushes = true;
    // Asked for, slot 1 would be this, which is never reported.
    shelf.put(1, Value::Int(666));
    shelf.put(2, Value::Text("jam".to_owned()));
    let mapper = Mapper::start(folder.path(), shelf.clone());
    edgecore.until_value("one", "label", "jam").await;
    for value in 1..=5 {
        shelf.push(1, Ok(Value::Int(value)));
        edgecore.until_value("one", "level", &value.to_string()).await;
    }
    shelf.push(1, Err(Fault::NoValue("the sensor is gone".to_owned())));
    edgecore.until_fault("one", "level", "the sensor is gone").await;
    // The session ends, and another one takes its place.
    let connections = shelf.connections();
    shelf.push(1, Err(Fault::Link("the door fell shut".to_owned())));
    eventually("another session", async || shelf.connections() > connections).await;
    eventually("a value of the new session", async || {
        shelf.push(1, Ok(Value::Int(7)));
        edgecore.heard().last("one", "level").is_some_and(|(_, value)| value == "7")
    })
    .await;
    assert!(!edgecore.heard().reports.iter().any(|(.., value)| value == "666"));
    mapper.stop().await;
}

#[tokio::test]
async fn no_value_is_told_as_such_and_not_as_the_last_one() {
    let fixture = fixture().await;
    fixture.shelf.0.lock().unwrap().without_value.insert(1);
    fixture.edgecore.until_fault("one", "level", "not plugged in").await;
    fixture.shelf.0.lock().unwrap().without_value.clear();
    fixture.edgecore.until_value("one", "level", "7").await;
}
