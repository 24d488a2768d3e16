//! Moves: each done once, and one that goes on comes to its end.

use framework::{Fault, Kind, Session as _, Value};
use onvifdevice::OnvifSession;

use crate::camera::{Camera, visitor};
use crate::edgecore::eventually;

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

async fn until(camera: &Camera, wanted: &str) {
    eventually(wanted, async || camera.ask("ptz") == wanted).await;
}

async fn go(session: &mut OnvifSession, pairs: &[(&str, &str)], value: Value) -> Result<(), Fault> {
    let kind = value.kind();
    session.write(&visitor(kind, pairs), &value).await
}

#[tokio::test]
async fn a_camera_moves_as_is_desired_and_stops_by_itself() {
    let camera = Camera::start();
    let mut session = camera.session(&[]).await;
    let moving = [("method", "ContinuousMove"), ("moveMs", "50")];
    go(&mut session, &moving, text("0.5,-0.25")).await.unwrap();
    until(&camera, "continuous 0.5 -0.25, stop").await;
    // A new move takes the end of the one before with it.
    let long = [("method", "ContinuousMove"), ("moveMs", "60000")];
    go(&mut session, &long, text("0,0,1")).await.unwrap();
    let by = [("method", "RelativeMove"), ("axis", "zoom")];
    go(&mut session, &by, Value::Float(-0.5)).await.unwrap();
    go(&mut session, &[("method", "AbsoluteMove"), ("axis", "pan")], Value::Double(0.75)).await.unwrap();
    go(&mut session, &[("method", "AbsoluteMove"), ("axis", "tilt")], Value::Double(-1.0)).await.unwrap();
    for place in ["gate", "1"] {
        go(&mut session, &[("method", "GotoPreset")], text(place)).await.unwrap();
    }
    go(&mut session, &[("method", "Stop")], Value::Bool(true)).await.unwrap();
    go(&mut session, &[("method", "SystemReboot")], Value::Bool(true)).await.unwrap();
    let done = "continuous 0.5 -0.25, stop, continuous 0 0 zoom 1, relative zoom -0.5, absolute 0.75 0, absolute 0.75 -1, \
                preset 2, preset 1, stop, reboot";
    assert_eq!(camera.ask("ptz"), done);
    for (item, value) in [("pan", 0.75), ("tilt", -1.0), ("zoom", 0.0)] {
        let read = session.read(&visitor(Kind::Double, &[("method", "GetStatus"), ("item", item)])).await;
        assert_eq!(read, Ok(Value::Double(value)), "{item}");
    }
    // What was done last is the value of a command.
    assert_eq!(session.read(&visitor(Kind::Text, &[("method", "GotoPreset")])).await, Ok(text("1")));
    let none = session.read(&visitor(Kind::Text, &[("method", "RelativeMove")])).await;
    assert!(matches!(none, Err(Fault::NoValue(_))), "{none:?}");
    assert_eq!(camera.ask("faults"), "none");
}

#[tokio::test]
async fn what_is_no_move_is_not_sent() {
    let camera = Camera::start();
    let mut session = camera.session(&[]).await;
    for (pairs, value, said) in [
        ([("method", "ContinuousMove"), ("moveMs", "50")], text("1.5,0"), "between -1 and 1"),
        ([("method", "AbsoluteMove"), ("axis", "zoom")], Value::Float(-0.5), "between 0 and 1"),
        ([("method", "GotoPreset"), ("profile", "sub")], text("roof"), "there are 1 (door), 2 (gate)"),
        ([("topic", "a/b"), ("item", "c")], text("x"), "not written"),
    ] {
        let fault = go(&mut session, &pairs, value).await.unwrap_err();
        assert!(matches!(fault, Fault::Unfit(_)) && fault.to_string().contains(said), "{fault}");
    }
    assert_eq!(camera.ask("ptz"), "none");
}

#[tokio::test]
async fn a_move_that_was_not_answered_is_not_sent_again_and_stops_all_the_same() {
    let camera = Camera::start();
    let mut session = camera.session(&[("timeoutMs", "2000")]).await;
    camera.tell("mode token slowptz");
    let fault =
        go(&mut session, &[("method", "ContinuousMove"), ("moveMs", "50")], text("1,0")).await.unwrap_err();
    assert!(fault.is_unanswered() && !matches!(fault, Fault::NotSent(_)), "{fault}");
    until(&camera, "continuous 1 0, stop").await;
}

#[tokio::test]
async fn a_mapper_that_ends_leaves_no_camera_moving() {
    let camera = Camera::start();
    let mut session = camera.session(&[]).await;
    go(&mut session, &[("method", "ContinuousMove"), ("moveMs", "60000")], text("1,0")).await.unwrap();
    session.close().await;
    assert_eq!(camera.ask("ptz"), "continuous 1 0, stop");
}
