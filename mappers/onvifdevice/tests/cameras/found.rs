//! A camera that is looked for by its endpoint reference.

use framework::{Fault, Protocol as _, Scalar, Session as _, Settings, Value};

use crate::camera::{Camera, LOGIN, REFERENCE, model, protocol};

fn settings(reference: &str) -> Settings {
    let pairs = [("endpointReference", reference)].into_iter().chain(LOGIN);
    Settings::from_pairs(pairs.map(|(key, value)| (key, Scalar::Text(value.to_owned()))))
}

#[tokio::test]
async fn a_camera_is_found_by_its_reference_wherever_it_says_that_it_is() {
    let camera = Camera::start();
    let here = protocol().probing(([127, 0, 0, 1], camera.hears).into());
    // Others answer as well, and this one with an address that is not where it is; the answer's own is.
    let address = here.address(&settings(&REFERENCE.to_ascii_uppercase())).unwrap();
    let mut session = here.connect(&address).await.unwrap();
    assert_eq!(session.read(&model()).await, Ok(Value::Text("M1".to_owned())));
    // The same camera at another port, as after a new lease.
    let moved = Camera::start();
    let there = protocol().probing(([127, 0, 0, 1], moved.hears).into());
    let mut session = there.connect(&address).await.unwrap();
    assert_eq!(session.read(&model()).await, Ok(Value::Text("M1".to_owned())));
    assert_eq!(moved.count("GetDeviceInformation"), 1);
}

#[tokio::test]
async fn one_that_does_not_answer_is_not_reached_and_one_where_no_device_may_be_is_not_asked() {
    let camera = Camera::start();
    let probed = ([127, 0, 0, 1], camera.hears).into();
    let here = protocol().probing(probed);
    let address = here.address(&settings("urn:uuid:5")).unwrap();
    let Err(Fault::NotSent(reason)) = here.connect(&address).await else { panic!() };
    assert!(
        reason.contains("no camera `urn:uuid:5` has answered") && reason.contains("hostNetwork"),
        "{reason}"
    );
    assert!(camera.count("Probe") >= 4, "it was called more than once");
    let closed = onvifdevice::Onvif::beside(std::path::Path::new("/nowhere/m.sock"), Default::default())
        .probing(probed);
    let Err(Fault::NotSent(reason)) = closed.connect(&closed.address(&settings(REFERENCE)).unwrap()).await
    else {
        panic!()
    };
    assert!(reason.contains("common.allowed_targets"), "{reason}");
    assert_eq!(camera.count("GetSystemDateAndTime"), 0);
}
