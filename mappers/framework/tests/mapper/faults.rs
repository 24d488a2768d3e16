//! Devices and protocols that fail: nobody else pays.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dmi::Scalar;
use dmi::v1beta1::{CreateDeviceModelRequest, RegisterDeviceRequest, UpdateDeviceRequest};
use framework::Value;

use crate::edgecore::{DEADLINE, ReceivedReports, desiring, device, model, modelled, property};
use crate::shelf::{fixture, room};

/// The log of all mappers of this process.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn each_reason_why_a_device_is_offline_has_one_line_in_the_log() {
    let log = Log::default();
    let into = log.clone();
    tracing::subscriber::set_global_default(daemon::log::to("info", move || Box::new(into.clone()))).unwrap();
    let fixture = fixture().await;
    let reasons = ["no way to the cellar", "the lock of the cellar is another one"];
    for reason in reasons {
        let before = fixture.shelf.tries();
        fixture.shelf.set_down_because(reason);
        // Of its tries only the first is news.
        let tried = async {
            while fixture.shelf.tries() < before + 2 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(DEADLINE, tried).await.unwrap();
    }
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    for reason in reasons {
        let is_of_device = |line: &&str| line.contains("the device is out of reach") && line.contains(reason);
        assert_eq!(text.lines().filter(is_of_device).count(), 1, "{reason}: {text}");
    }
}

#[tokio::test]
async fn a_panic_in_a_protocol_costs_one_device_a_moment() {
    let fixture = fixture().await;
    fixture.shelf.0.lock().unwrap().panics = 1;
    fixture.shelf.put(1, Value::Int(8));
    fixture.edgecore.until_value("one", "level", "8").await;
    assert_eq!(fixture.shelf.connections(), 2);
}

#[tokio::test]
async fn a_property_that_cannot_be_read_does_not_hold_up_the_others() {
    let fixture = fixture().await;
    fixture.shelf.0.lock().unwrap().slots.remove(&2);
    fixture.shelf.put(1, Value::Int(8));
    fixture.edgecore.until_value("one", "level", "8").await;
    fixture.shelf.put(2, Value::Text("tea".to_owned()));
    fixture.edgecore.until_value("one", "label", "tea").await;
    assert_eq!(fixture.shelf.connections(), 1);
}

#[tokio::test]
async fn a_property_that_never_answers_starves_nobody_and_is_marked() {
    let fixture = fixture().await;
    fixture.shelf.0.lock().unwrap().silent.insert(1);
    fixture.edgecore.until_fault("one", "level", "no answer").await;
    for jam in 0..20 {
        fixture.shelf.put(2, Value::Text(format!("jam {jam}")));
        fixture.edgecore.until_value("one", "label", &format!("jam {jam}")).await;
    }
    let away = |state: &(String, String)| state.1 != "online";
    assert!(!fixture.edgecore.heard().states.iter().any(away), "the device itself answers");
    fixture.shelf.0.lock().unwrap().silent.clear();
    fixture.edgecore.until_value("one", "level", "7").await;
    assert_eq!(fixture.edgecore.heard().fault("one", "level"), None);
}

#[tokio::test]
async fn a_device_of_which_nothing_answers_is_offline() {
    let fixture = fixture().await;
    fixture.shelf.0.lock().unwrap().silent.extend([1, 2]);
    let offline = ("one".to_owned(), "offline".to_owned());
    fixture.edgecore.until("offline", |heard| (heard.states.last() == Some(&offline)).then_some(())).await;
    fixture.shelf.put(1, Value::Int(8));
    fixture.shelf.0.lock().unwrap().silent.clear();
    fixture.edgecore.until_value("one", "level", "8").await;
    let online = ("one".to_owned(), "online".to_owned());
    fixture.edgecore.until("online", |heard| (heard.states.last() == Some(&online)).then_some(())).await;
}

#[tokio::test]
async fn a_setting_of_the_device_that_nobody_knows_stands_beside_its_values_and_a_slip_stops_it() {
    let mut fixture = fixture().await;
    let with = |name: &str, key: Option<&str>| {
        let mut device = room(name);
        let protocol = device.spec.as_mut().unwrap().protocol.as_mut().unwrap();
        let data = &mut protocol.config_data.as_mut().unwrap().data;
        data.extend(key.map(|key| (key.to_owned(), Scalar::Int(5).to_any())));
        device
    };
    let register = |device| RegisterDeviceRequest { device: Some(device) };
    fixture.mapper.calls.register_device(register(with("two", Some("vendor")))).await.unwrap();
    let said = "configData: setting `vendor` is not known";
    let beside = |heard: &ReceivedReports| {
        let has_value = heard.last("two", "level")?.1 == "7";
        (has_value && heard.fault("two", "level")?.contains(said)).then_some(())
    };
    fixture.edgecore.until("a value and what is said beside it", beside).await;
    // Whose default would be another device's: nothing is read or written there.
    let slip = desiring(with("three", Some("flor")), "level", "9");
    fixture.mapper.calls.register_device(register(slip)).await.unwrap();
    fixture.edgecore.until_fault("three", "level", "`flor` is not known; write `floor`").await;
    let unhealthy = ("three".to_owned(), "unhealthy".to_owned());
    fixture.edgecore.until("unhealthy", |heard| heard.states.contains(&unhealthy).then_some(())).await;
    assert_eq!(fixture.shelf.writes(), []);
    for name in ["two", "three"] {
        let request = UpdateDeviceRequest { device: Some(with(name, None)) };
        fixture.mapper.calls.update_device(request).await.unwrap();
        let is_well = move |heard: &ReceivedReports| {
            let has_value = heard.last(name, "level")?.1 == "7";
            (has_value && heard.fault(name, "level").is_none()).then_some(())
        };
        fixture.edgecore.until("the value alone", is_well).await;
    }
}

#[tokio::test]
async fn on_a_slow_device_every_property_has_its_turn() {
    let mut fixture = fixture().await;
    // Ten times 100 ms is far beyond the cycle of 20 ms that all of them have.
    fixture.shelf.0.lock().unwrap().delay = Duration::from_millis(100);
    let names: Vec<String> = (0..10).map(|at| format!("p{at}")).collect();
    let modelled = names.iter().map(|name| modelled(name, "INT", "ReadWrite")).collect();
    let request = CreateDeviceModelRequest { model: Some(model("slow", modelled)) };
    fixture.mapper.calls.create_device_model(request).await.unwrap();
    let slot = [("slot", Scalar::Int(1))];
    let properties = names.iter().map(|name| property(name, "shelf", &slot)).collect();
    let slow = device("slow", "slow", "shelf", &[("room", Scalar::Text("attic".to_owned()))], properties);
    fixture.mapper.calls.register_device(RegisterDeviceRequest { device: Some(slow) }).await.unwrap();
    for name in &names {
        fixture.edgecore.until_value("slow", name, "7").await;
    }
    let first = fixture.edgecore.heard();
    let known = names.iter().filter(|name| first.count("slow", name) == 1).count();
    assert_eq!(known, names.len());
}
