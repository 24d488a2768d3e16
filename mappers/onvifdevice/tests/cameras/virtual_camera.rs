//! A camera that we did not write: ipycam's, from PyPI.

use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use framework::{Fault, Kind, Property, Protocol as _, Scalar, Session as _, Settings, Value};

use crate::camera::{protocol, visitor};
use crate::edgecore::eventually;
use crate::python::Script;

const PACKAGES: [&str; 3] = ["ipycam==1.3.0", "numpy==2.4.6", "opencv-python-headless==5.0.0.93"];

fn settings(pairs: &[(&'static str, &str)]) -> Settings {
    let login = [("userName", "op"), ("password", "secret"), ("allowBasic", "true")];
    let pairs = pairs.iter().copied().chain(login);
    Settings::from_pairs(pairs.map(|(key, value)| (key, Scalar::Text(value.to_owned()))))
}

#[tokio::test]
async fn ipycams_camera_is_found_asked_moved_and_its_picture_is_taken() {
    let [port, hears] = testhost::free_ports().unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ipycam/camera.py");
    let started = Script::start(&PACKAGES, &script, &[&port.to_string(), &hears.to_string()]);
    let reference = started.first.strip_prefix("ready ").unwrap().to_owned();
    let started = Mutex::new(started);
    let place = || started.lock().unwrap().ask("place");

    let mapper = protocol().probing(([127, 0, 0, 1], hears).into());
    let address = mapper.address(&settings(&[("endpointReference", &reference)])).unwrap();
    let mut session = mapper.connect(&address).await.unwrap();
    for (pairs, wanted) in [
        ([("method", "GetDeviceInformation"), ("item", "Manufacturer")], "PythonCam"),
        ([("method", "GetDeviceInformation"), ("item", "SerialNumber")], "PY-000001"),
        ([("method", "GetStreamUri"), ("profile", "MainStream")], "rtsp://127.0.0.1:8554/video_main"),
        ([("method", "GetStatus"), ("item", "zoom")], "0.0"),
    ] {
        let read = session.read(&visitor(Kind::Text, &pairs)).await;
        assert_eq!(read, Ok(Value::Text(wanted.to_owned())), "{pairs:?}");
    }
    assert!(
        session
            .read(&visitor(Kind::Text, &[("method", "GetSystemDateAndTime")]))
            .await
            .is_ok_and(|time| time.to_string().ends_with('Z'))
    );

    let go = |method: &str| visitor(Kind::Text, &[("method", method)]);
    let text = |text: &str| Value::Text(text.to_owned());
    session.write(&go("AbsoluteMove"), &text("0.5,-0.25,0.75")).await.unwrap();
    eventually("the place", async || place() == "0.5 -0.25 0.75 False").await;
    let axis = visitor(Kind::Float, &[("method", "AbsoluteMove"), ("axis", "tilt")]);
    session.write(&axis, &Value::Float(0.125)).await.unwrap();
    eventually("tilt alone", async || place().starts_with("0.5 0.125 ")).await;
    session.write(&go("GotoPreset"), &text("gate")).await.unwrap();
    eventually("the preset", async || place() == "0.25 0.5 0.0 False").await;
    let moving = visitor(Kind::Text, &[("method", "ContinuousMove"), ("moveMs", "50")]);
    session.write(&moving, &text("-1,0")).await.unwrap();
    eventually("it has moved and stopped", async || {
        let place = place();
        !place.starts_with("0.25 ") && place.ends_with("False")
    })
    .await;

    let stream = Property { is_stream: true, ..Property::new("saveFrame", Kind::Text) };
    let pictures = mapper.visitor(&stream, &Settings::from_pairs([])).unwrap();
    let frame = session.frames(&pictures).unwrap().next(Duration::ZERO).await.unwrap();
    assert!(frame.bytes.len() > 300 && frame.bytes.ends_with(b"\xff\xd9"), "{}", frame.bytes.len());

    // A password that is not its own.
    let url = format!("127.0.0.1:{port}");
    let pairs = [("url", url.as_str()), ("userName", "op"), ("password", "wrong")];
    let wrong = Settings::from_pairs(pairs.map(|(key, value)| (key, Scalar::Text(value.to_owned()))));
    let mut session = mapper.connect(&mapper.address(&wrong).unwrap()).await.unwrap();
    let model = visitor(Kind::Text, &[("method", "GetDeviceInformation"), ("item", "Model")]);
    let fault = session.read(&model).await.unwrap_err();
    assert!(
        matches!(&fault, Fault::Device(why) if why.contains("refuses `userName` and `password`")),
        "{fault}"
    );
}
