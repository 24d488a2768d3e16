//! Raw frames and what goes wrong on a bus, against a stand-in of a socketcand.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../../framework/tests/edgecore/mod.rs"]
mod edgecore;
mod hub;

use std::time::Duration;

use candevice::Can;
use dmi::Scalar;
use dmi::v1beta1::UpdateDeviceRequest;
use framework::{Fault, Protocol as _, Settings};
use hub::Hub;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;

use edgecore::{EdgeCore, Mapper, desiring, device, eventually, model, modelled, property};

fn text(text: &str) -> Scalar {
    Scalar::Text(text.to_owned())
}

fn bus(port: u16, more: &[(&'static str, Scalar)]) -> Vec<(&'static str, Scalar)> {
    let place = [("interface", text("can0")), ("gateway", text(&format!("127.0.0.1:{port}")))];
    place.into_iter().chain(more.iter().cloned()).collect()
}

#[tokio::test]
async fn a_frame_that_does_not_come_is_missed_and_with_all_of_them_the_device() {
    let hub = Hub::start().await;
    let folder = tempfile::tempdir().unwrap();
    let edgecore = EdgeCore::at(folder.path());
    let place = bus(hub.port, &[("protocol", text("raw")), ("timeoutMs", Scalar::Int(400))]);
    let properties = vec![
        property("speed", "can", &[("canID", text("0x123")), ("length", Scalar::Int(16))]),
        property("level", "can", &[("canID", text("0x18FF0102")), ("extended", text("true"))]),
    ];
    let one = device("one", "drive", "can", &place, properties);
    {
        let mut objects = edgecore.objects.lock().unwrap();
        let properties = vec![modelled("speed", "INT", "ReadOnly"), modelled("level", "INT", "ReadWrite")];
        objects.models = vec![model("drive", properties)];
        objects.devices = vec![one.clone()];
    }
    edgecore.start();
    let mut mapper = Mapper::start(folder.path(), Can::default());
    let state = |wanted: &'static str| {
        edgecore.until(wanted, move |heard| {
            heard.states.last().is_some_and(|(_, state)| state == wanted).then_some(())
        })
    };
    state("offline").await;
    let said = edgecore.heard().reasons["one"].clone().unwrap();
    assert!(said.contains("no frame of it has come within 400 ms"), "{said}");
    // Both come again and again, and the device is there; a standard frame of the same number is another one.
    let sender = |ids: &'static [(&'static str, &'static str)]| {
        let hub = hub.clone();
        tokio::spawn(async move {
            loop {
                ids.iter().for_each(|(id, data)| hub.put(id, data));
                hub.put("00000123", "FFFF");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
    };
    let both = sender(&[("123", "0201FF"), ("18FF0102", "2A")]);
    edgecore.until_value("one", "speed", "258").await;
    edgecore.until_value("one", "level", "42").await;
    state("online").await;
    both.abort();
    let alone = sender(&[("123", "0301")]);
    edgecore.until_fault("one", "level", "no frame 0x18FF0102 has come within 400 ms").await;
    edgecore.until_value("one", "speed", "259").await;
    assert_eq!(edgecore.heard().states.last().unwrap().1, "online", "of one that is missed, nothing follows");
    // What is too short has no value, and says so.
    alone.abort();
    let short = sender(&[("123", "03")]);
    edgecore.until_fault("one", "speed", "the frame has 1 bytes").await;
    short.abort();

    // A value goes into the frame that was seen last, beside its other bits.
    let whole = sender(&[("123", "0301"), ("18FF0102", "2A01020304050607")]);
    edgecore.until_value("one", "level", "42").await;
    let device = Some(desiring(one, "level", "7"));
    mapper.calls.update_device(UpdateDeviceRequest { device }).await.unwrap();
    eventually("a frame with 7", async || {
        hub.sent("18FF0102").last().is_some_and(|data| data == "0701020304050607")
    })
    .await;
    whole.abort();
    mapper.stop().await;
    assert_eq!(hub.wrong(), Vec::<String>::new());
}

#[tokio::test]
async fn a_node_that_never_answers_holds_up_no_other_and_is_told_that_it_is_late() {
    let hub = Hub::start().await;
    let address = |node: i64| {
        let place = bus(hub.port, &[("nodeID", Scalar::Int(node)), ("timeoutMs", Scalar::Int(200))]);
        Can::default().address(&Settings::from_pairs(place)).unwrap()
    };
    let (silent, protocol) = (address(9), Can::default());
    let fault = protocol.connect(&silent).await.unwrap_err();
    assert!(
        matches!(&fault, Fault::NotSent(reason) if reason.contains("node 9 has not answered within 200 ms")),
        "{fault}"
    );
    eventually("asked, and given up aloud", async || {
        hub.sent("609") == ["4000100000000000", "8000100000000405"]
    })
    .await;
    // One that answers, if only that it has no such object.
    let answering = hub.clone();
    tokio::spawn(async move {
        loop {
            if !answering.sent("605").is_empty() {
                // Another client's answers before ours.
                answering.put("585", "4F00200001000000");
                answering.put("585", "8000100000000206");
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    let other = address(5);
    let (there, away) = tokio::join!(protocol.connect(&other), protocol.connect(&silent));
    there.unwrap();
    away.unwrap_err();
}

#[tokio::test]
async fn what_is_no_socketcand_is_said_and_read_no_further() {
    for (says, said) in [
        (b"x".repeat(1 << 20), "no word of a socketcand"),
        (b"< error unknown command >".to_vec(), "instead of its greeting"),
        (b"< hi >< error could not open bus >".to_vec(), "instead of that it has opened can0"),
        (Vec::new(), "closed the connection"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            drop(stream.write_all(&says).await);
            let is_end = says.is_empty();
            if !is_end {
                tokio::time::sleep(Duration::from_secs(60)).await;
            }
        });
        let protocol = Can::default();
        let place = bus(port, &[("protocol", text("raw"))]);
        let address = protocol.address(&Settings::from_pairs(place)).unwrap();
        let fault = protocol.connect(&address).await.unwrap_err();
        assert!(matches!(&fault, Fault::NotSent(reason) if reason.contains(said)), "{said}: {fault}");
    }
}

/// Here as on any node: with an interface, without it, or without CAN in the kernel.
#[tokio::test]
async fn a_bus_that_this_machine_has_not_is_said_with_what_to_do() {
    let protocol = Can::default();
    let place = [("interface", text("no-such-bus")), ("protocol", text("raw"))];
    let address = protocol.address(&Settings::from_pairs(place)).unwrap();
    let fault = protocol.connect(&address).await.unwrap_err().to_string();
    assert!(fault.contains("modprobe can can_raw") || fault.contains("`ip link` shows"), "{fault}");
}
