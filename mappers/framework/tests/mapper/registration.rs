//! Registration at edgecore, what either side's restarts cost, and what the mapper's own socket answers.

use dmi::Scalar;
use dmi::v1beta1::{
    CreateDeviceModelRequest, Device, GetDeviceRequest, RegisterDeviceRequest, RemoveDeviceRequest,
    UpdateDeviceModelRequest, UpdateDeviceRequest,
};
use framework::Value;
use tonic::Code;

use crate::edgecore::{EdgeCore, Mapper, desiring, device, eventually, model, modelled, property};
use crate::shelf::{FakeProtocol, fixture, room};

#[tokio::test]
async fn it_registers_as_kubeedge_mappers_do() {
    let fixture = fixture().await;
    let request = fixture.edgecore.heard().registrations[0].clone();
    assert!(request.with_data);
    let info = request.mapper.unwrap();
    assert_eq!((info.name.as_str(), info.protocol.as_str()), ("test-mapper", "shelf"));
    assert_eq!(info.address, fixture.mapper.config.grpc_server.socket_path.to_str().unwrap().as_bytes());
    let socket = fixture.mapper.config.grpc_server.socket_path.clone();
    assert!(socket.exists());
    fixture.mapper.stop().await;
    assert!(!socket.exists(), "it cleans up after itself");
}

#[tokio::test]
async fn it_waits_for_an_edgecore_that_is_not_there_yet() {
    let folder = tempfile::tempdir().unwrap();
    let edgecore = EdgeCore::at(folder.path());
    let mapper = Mapper::start(folder.path(), FakeProtocol::default());
    // The mapper's socket answers long before it could register anywhere.
    let request = GetDeviceRequest { device_name: "one".to_owned(), device_namespace: String::new() };
    eventually("an answer", async || {
        let mut calls = mapper.calls.clone();
        calls.get_device(request.clone()).await.unwrap_err().code() == Code::NotFound
    })
    .await;
    edgecore.start();
    edgecore.until("a registration", |heard| (!heard.registrations.is_empty()).then_some(())).await;
    mapper.stop().await;
}

#[tokio::test]
async fn a_mapper_whose_socket_somebody_took_away_makes_it_anew_and_learns_what_it_missed() {
    let fixture = fixture().await;
    let socket = fixture.mapper.config.grpc_server.socket_path.clone();
    std::fs::remove_file(&socket).unwrap();
    fixture.edgecore.objects.lock().unwrap().devices = vec![desiring(room("one"), "level", "9")];
    let both = Some(("9".to_owned(), "9".to_owned()));
    fixture.edgecore.until("9 observed", |heard| (heard.last("one", "level") == both).then_some(())).await;
    assert!(socket.exists());
    fixture.mapper.stop().await;
}

#[tokio::test]
async fn an_edgecore_that_restarts_gets_everything_again_and_its_word_counts() {
    let fixture = fixture().await;
    {
        let mut objects = fixture.edgecore.objects.lock().unwrap();
        objects.devices = vec![desiring(room("one"), "level", "9"), room("two")];
    }
    fixture.edgecore.stop().await;
    // What happens meanwhile is told later.
    fixture.shelf.put(2, Value::Text("honey".to_owned()));
    let before = fixture.edgecore.heard();
    fixture.edgecore.start();
    fixture
        .edgecore
        .until("a second registration", |heard| (heard.registrations.len() > 1).then_some(()))
        .await;
    fixture.edgecore.until_value("one", "label", "honey").await;
    fixture.edgecore.until_value("two", "level", "9").await;
    let both = Some(("9".to_owned(), "9".to_owned()));
    fixture.edgecore.until("9 observed", |heard| (heard.last("one", "level") == both).then_some(())).await;
    let states = before.states.len();
    fixture.edgecore.until("the state again", |heard| (heard.states.len() > states + 1).then_some(())).await;
    // A device that edgecore no longer names is gone.
    fixture.edgecore.objects.lock().unwrap().devices = vec![room("two")];
    fixture.edgecore.stop().await;
    fixture.edgecore.start();
    fixture
        .edgecore
        .until("a third registration", |heard| (heard.registrations.len() > 2).then_some(()))
        .await;
    let request = GetDeviceRequest { device_name: "one".to_owned(), device_namespace: "default".to_owned() };
    eventually("the removal", async || {
        fixture.mapper.calls.clone().get_device(request.clone()).await.is_err()
    })
    .await;
}

#[tokio::test]
async fn a_device_may_come_before_its_model_and_a_model_may_change() {
    let mut fixture = fixture().await;
    let properties = vec![property("level", "shelf", &[("slot", Scalar::Int(1))])];
    let late = device("late", "crate", "shelf", &[("room", Scalar::Text("attic".to_owned()))], properties);
    let answer =
        fixture.mapper.calls.register_device(RegisterDeviceRequest { device: Some(late) }).await.unwrap();
    assert_eq!(answer.into_inner().device_name, "late");
    let unhealthy = ("late".to_owned(), "unhealthy".to_owned());
    fixture.edgecore.until("unhealthy", |heard| heard.states.contains(&unhealthy).then_some(())).await;
    let model_of = |kind: &str| Some(model("crate", vec![modelled("level", kind, "ReadWrite")]));
    let request = CreateDeviceModelRequest { model: model_of("INT") };
    fixture.mapper.calls.create_device_model(request).await.unwrap();
    fixture.edgecore.until_value("late", "level", "7").await;
    let request = UpdateDeviceModelRequest { model: model_of("STREAM") };
    fixture.mapper.calls.update_device_model(request).await.unwrap();
    fixture.edgecore.until_fault("late", "level", "type `STREAM` is not served").await;
}

#[tokio::test]
async fn a_removed_device_is_left_alone() {
    let mut fixture = fixture().await;
    let request =
        RemoveDeviceRequest { device_name: "one".to_owned(), device_namespace: "default".to_owned() };
    fixture.mapper.calls.remove_device(request.clone()).await.unwrap();
    fixture.mapper.calls.remove_device(request).await.unwrap();
    // Another device shows that time passes; the removed one is not read any more.
    fixture.mapper.calls.register_device(RegisterDeviceRequest { device: Some(room("two")) }).await.unwrap();
    fixture.shelf.put(1, Value::Int(1000));
    fixture.edgecore.until_value("two", "level", "1000").await;
    assert_eq!(fixture.edgecore.heard().last("one", "level").unwrap().1, "7");
}

#[tokio::test]
async fn its_socket_answers_bad_requests_with_the_reason() {
    let mut fixture = fixture().await;
    let calls = &mut fixture.mapper.calls;
    let code = |status: tonic::Status| status.code();
    let none = RegisterDeviceRequest { device: None };
    assert_eq!(code(calls.register_device(none).await.unwrap_err()), Code::InvalidArgument);
    let nameless = UpdateDeviceRequest { device: Some(Device::default()) };
    assert_eq!(code(calls.update_device(nameless).await.unwrap_err()), Code::InvalidArgument);
    let long = RegisterDeviceRequest { device: Some(Device { name: "x".repeat(300), ..Default::default() }) };
    assert_eq!(code(calls.register_device(long).await.unwrap_err()), Code::InvalidArgument);
    let model = CreateDeviceModelRequest { model: None };
    assert_eq!(code(calls.create_device_model(model).await.unwrap_err()), Code::InvalidArgument);
    let huge = Device { name: "x".to_owned(), namespace: "y".repeat(5 << 20), ..Default::default() };
    assert!(calls.register_device(RegisterDeviceRequest { device: Some(huge) }).await.is_err());
    // A device without a spec is kept, and said to be unhealthy by whoever asks for its state.
    let bare =
        RegisterDeviceRequest { device: Some(Device { name: "bare".to_owned(), ..Default::default() }) };
    calls.register_device(bare).await.unwrap();
    let request = GetDeviceRequest { device_name: "one".to_owned(), device_namespace: String::new() };
    let device = calls.get_device(request).await.unwrap().into_inner().device.unwrap();
    let twins = device.status.unwrap().twins;
    let level = twins.iter().find(|twin| twin.property_name == "level").unwrap();
    assert_eq!(level.reported.as_ref().unwrap().value, "7");
}

#[tokio::test]
async fn a_second_mapper_of_the_same_config_does_not_start() {
    let folder = tempfile::tempdir().unwrap();
    let mapper = Mapper::start(folder.path(), FakeProtocol::default());
    let serves = async || std::os::unix::net::UnixStream::connect(&mapper.config.grpc_server.socket_path);
    while serves().await.is_err() {
        tokio::task::yield_now().await;
    }
    let said = framework::run(&mapper.config, FakeProtocol::default(), std::future::pending()).await;
    let said = said.unwrap_err().to_string();
    assert!(said.contains("another mapper") && said.contains("commands.json"), "{said}");
    serves().await.expect("the first one serves its socket as before");
}

#[tokio::test]
async fn a_config_for_another_protocol_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = Mapper::start(folder.path(), FakeProtocol::default()).config.clone();
    config.common.protocol = "opcua".to_owned();
    let said = framework::run(&config, FakeProtocol::default(), std::future::pending())
        .await
        .unwrap_err()
        .to_string();
    assert!(said.contains("`opcua`") && said.contains("`shelf`"), "{said}");
}
