//! Requests against ONVIF's own schemas, as the package onvif-zeep-async has them.

use std::path::Path;
use std::time::Duration;

use dmi::Scalar;
use framework::{Kind, Session as _, Value};
use onvifdevice::NAME;

use crate::camera::{Camera, on_loopback, visitor};
use crate::edgecore::{EdgeCore, Mapper, device, eventually, model, modelled, property};
use crate::python::Script;

const PACKAGES: [&str; 2] = ["onvif-zeep-async==4.3.0", "lxml==6.1.3"];

#[tokio::test]
async fn what_is_asked_for_is_as_the_schemas_have_it() {
    let camera = Camera::odd("token old");
    let mut session = camera.session(&[]).await;
    for pairs in [
        [("method", "GetDeviceInformation"), ("item", "Model")],
        [("method", "GetStreamUri"), ("profile", "sub")],
        [("method", "GetSnapshotUri"), ("profile", "sub")],
        [("method", "GetStatus"), ("item", "zoom")],
    ] {
        session.read(&visitor(Kind::Text, &pairs)).await.unwrap();
    }
    for (method, value) in [
        ("ContinuousMove", "0.5,0,1"),
        ("AbsoluteMove", "0.5,0,1"),
        ("RelativeMove", "0.5,-0.25"),
        ("GotoPreset", "gate"),
        ("Stop", "now"),
        ("SystemReboot", "now"),
    ] {
        session
            .write(&visitor(Kind::Text, &[("method", method)]), &Value::Text(value.to_owned()))
            .await
            .unwrap();
    }
    listened_to(&camera).await;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/schemas/validate.py");
    let mut schemas = Script::start(&PACKAGES, &script, &[]);
    assert_eq!(schemas.first, "ready");
    let bodies = camera.ask("bodies");
    assert_eq!(bodies.split(' ').count(), 20, "each operation once");
    for body in bodies.split(' ') {
        assert_eq!(schemas.ask(body), "ok");
    }
    // It does find what is wrong.
    let stop = visitor(
        Kind::Text,
        &[
            ("request", "<tptz:Stop/>"),
            ("service", "ptz"),
            ("element", "x"),
            ("write", "<tptz:Stop>{{value}}</tptz:Stop>"),
        ],
    );
    drop(session.read(&stop).await);
    let said: Vec<String> =
        camera.ask("bodies").split(' ').map(|body| schemas.ask(body)).filter(|said| said != "ok").collect();
    assert!(matches!(said.as_slice(), [one] if one.contains("ProfileToken")), "{said:?}");
}

/// Its messages are pulled, its pull point is renewed and given back.
async fn listened_to(camera: &Camera) {
    let folder = tempfile::tempdir().unwrap();
    let edgecore = EdgeCore::at(folder.path());
    let motion = property("motion", NAME, &[("topic", Scalar::Text("a/b".to_owned()))]);
    {
        let mut objects = edgecore.objects.lock().unwrap();
        objects.models = vec![model("camera", vec![modelled("motion", "BOOLEAN", "ReadOnly")])];
        objects.devices = vec![device("door", "camera", NAME, &camera.place(), vec![motion])];
    }
    edgecore.start();
    let mapper = Mapper::start(folder.path(), on_loopback(folder.path()).keeping(Duration::from_secs(1)));
    eventually("a renewal", async || camera.count("Renew") >= 1).await;
    mapper.stop().await;
    assert!(camera.count("Unsubscribe") >= 1);
}
