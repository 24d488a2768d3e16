//! What is desired: written once or kept up, within limits, and refused aloud.

use dmi::v1beta1::{Device, UpdateDeviceRequest};
use framework::Value;

use crate::edgecore::{Mapper, ReceivedReports, desiring, device, eventually, property};
use crate::shelf::{Calls, fixture, room};

#[tokio::test]
async fn a_desired_value_reaches_the_device_and_is_observed() {
    let mut fixture = fixture().await;
    let device = desiring(room("one"), "level", "42");
    fixture.mapper.calls.update_device(UpdateDeviceRequest { device: Some(device.clone()) }).await.unwrap();
    let both = Some(("42".to_owned(), "42".to_owned()));
    fixture.edgecore.until("42 observed", |heard| (heard.last("one", "level") == both).then_some(())).await;
    assert_eq!(fixture.shelf.writes(), [(1, Value::Int(42))]);
    // The same again is written no second time, one beyond the model's maximum not at all.
    fixture.mapper.calls.update_device(UpdateDeviceRequest { device: Some(device) }).await.unwrap();
    let device = desiring(room("one"), "level", "101");
    fixture.mapper.calls.update_device(UpdateDeviceRequest { device: Some(device) }).await.unwrap();
    let device = desiring(room("one"), "level", "43");
    fixture.mapper.calls.update_device(UpdateDeviceRequest { device: Some(device) }).await.unwrap();
    fixture.edgecore.until_value("one", "level", "43").await;
    assert_eq!(fixture.shelf.writes(), [(1, Value::Int(42)), (1, Value::Int(43))]);
    assert_eq!(fixture.shelf.connections(), 1, "and all that over one connection");
}

#[tokio::test]
async fn a_device_that_was_away_is_told_so_and_gets_its_desired_value_again() {
    let mut fixture = fixture().await;
    let device = desiring(room("one"), "level", "42");
    fixture.mapper.calls.update_device(UpdateDeviceRequest { device: Some(device) }).await.unwrap();
    fixture.edgecore.until_value("one", "level", "42").await;
    fixture.shelf.set_down(true);
    let offline = ("one".to_owned(), "offline".to_owned());
    fixture.edgecore.until("offline", |heard| (heard.states.last() == Some(&offline)).then_some(())).await;
    // It was switched off, and starts with what it had from the factory.
    fixture.shelf.put(1, Value::Int(0));
    fixture.shelf.set_down(false);
    let online = ("one".to_owned(), "online".to_owned());
    fixture.edgecore.until("online", |heard| (heard.states.last() == Some(&online)).then_some(())).await;
    eventually("a second write", async || fixture.shelf.writes().len() == 2).await;
    assert_eq!(fixture.shelf.writes(), [(1, Value::Int(42)), (1, Value::Int(42))]);
}

#[tokio::test]
async fn what_is_refused_is_told_to_the_cloud() {
    let mut fixture = fixture().await;
    let update = async |device: Device, calls: &mut Calls| {
        calls.update_device(UpdateDeviceRequest { device: Some(device) }).await.unwrap();
    };
    let calls = &mut fixture.mapper.calls;
    update(desiring(room("one"), "level", "101"), calls).await;
    fixture.edgecore.until_refusal("one", "level", "101 is above the model's maximum 100").await;
    update(desiring(room("one"), "level", "ON"), calls).await;
    fixture.edgecore.until_refusal("one", "level", "`ON` is not a whole number").await;
    update(desiring(room("one"), "label", "honey"), calls).await;
    fixture.edgecore.until_refusal("one", "label", "ReadOnly").await;
    update(desiring(room("one"), "level", "9"), calls).await;
    fixture.edgecore.until_value("one", "level", "9").await;
    let mended = |heard: &ReceivedReports| heard.refusal("one", "level").is_none().then_some(());
    fixture.edgecore.until("no refusal", mended).await;
    // A property that no model knows, and a device that cannot be served at all.
    let mut ghost = room("one");
    ghost.spec.as_mut().unwrap().properties.push(property("ghost", "shelf", &[]));
    update(ghost, calls).await;
    fixture.edgecore.until_fault("one", "ghost", "no property of that name").await;
    let homeless = device("two", "box", "shelf", &[], vec![property("level", "shelf", &[])]);
    update(homeless, calls).await;
    fixture.edgecore.until_fault("two", "level", "setting `room` is missing").await;
}

#[tokio::test]
async fn what_can_never_be_written_is_refused_for_good_and_told_so() {
    let mut fixture = fixture().await;
    fixture.shelf.0.lock().unwrap().unfit = [1].into();
    let calls = &mut fixture.mapper.calls;
    let request = UpdateDeviceRequest { device: Some(desiring(room("one"), "level", "42")) };
    calls.update_device(request).await.unwrap();
    let words = "42 does not fit into a slot; it is not tried again until another value is desired";
    fixture.edgecore.until_refusal("one", "level", words).await;
    // It would fit by now: what was said holds.
    fixture.shelf.0.lock().unwrap().unfit.clear();
    fixture.shelf.put(2, Value::Text("later".to_owned()));
    fixture.edgecore.until_value("one", "label", "later").await;
    assert_eq!(fixture.shelf.writes(), [(1, Value::Int(42))]);
    let request = UpdateDeviceRequest { device: Some(desiring(room("one"), "level", "43")) };
    calls.update_device(request).await.unwrap();
    fixture.edgecore.until_value("one", "level", "43").await;
    let mended = |heard: &ReceivedReports| heard.refusal("one", "level").is_none().then_some(());
    fixture.edgecore.until("no refusal", mended).await;
    assert_eq!(fixture.shelf.writes(), [(1, Value::Int(42)), (1, Value::Int(43))]);
}

#[tokio::test]
async fn a_command_is_sent_once_over_cuts_and_restarts_of_the_mapper() {
    let mut fixture = fixture().await;
    let mut commanded = desiring(room("one"), "level", "5");
    commanded.spec.as_mut().unwrap().properties[0].report_to_cloud = false;
    fixture.edgecore.objects.lock().unwrap().devices = vec![commanded.clone()];
    fixture.shelf.0.lock().unwrap().cuts_at_writes = true;
    let request = UpdateDeviceRequest { device: Some(commanded.clone()) };
    fixture.mapper.calls.update_device(request).await.unwrap();
    fixture.edgecore.until_refusal("one", "level", "it was sent once").await;
    for cut in 0..5 {
        fixture.shelf.set_down(true);
        let offline = ("one".to_owned(), "offline".to_owned());
        fixture
            .edgecore
            .until("offline", |heard| (heard.states.last() == Some(&offline)).then_some(()))
            .await;
        fixture.shelf.set_down(false);
        fixture.shelf.put(2, Value::Text(format!("after cut {cut}")));
        fixture.edgecore.until_value("one", "label", &format!("after cut {cut}")).await;
    }
    fixture.mapper.stop().await;
    let mut mapper = Mapper::start(fixture.folder.path(), fixture.shelf.clone());
    fixture.shelf.put(2, Value::Text("after a restart".to_owned()));
    fixture.edgecore.until_value("one", "label", "after a restart").await;
    assert_eq!(fixture.shelf.writes(), [(1, Value::Int(5))]);
    // Desired again, it is another one.
    fixture.shelf.0.lock().unwrap().cuts_at_writes = false;
    let metadata = &mut commanded.spec.as_mut().unwrap().properties[0].desired.as_mut().unwrap().metadata;
    metadata.insert("timestamp".to_owned(), "1550000000000".to_owned());
    mapper.calls.update_device(UpdateDeviceRequest { device: Some(commanded) }).await.unwrap();
    let done = |heard: &ReceivedReports| {
        let is_done = heard.last("one", "level")?.0 == "5" && heard.refusal("one", "level").is_none();
        is_done.then_some(())
    };
    fixture.edgecore.until("the command done", done).await;
    assert_eq!(fixture.shelf.writes().len(), 2);
    mapper.stop().await;
}
