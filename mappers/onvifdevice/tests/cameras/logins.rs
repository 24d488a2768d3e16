//! Who asks, and how that is said.

use framework::{Fault, Kind, Session as _, Value};

use crate::camera::{Camera, model, visitor};

fn is_model(read: &Result<Value, Fault>) -> bool {
    *read == Ok(Value::Text("M1".to_owned()))
}

#[tokio::test]
async fn a_token_has_the_cameras_own_time_and_digest_is_answered_where_it_is_asked_for() {
    for (modes, more) in [
        ("token", [].as_slice()),
        ("token hour", &[]),
        ("token closes", &[]),
        ("token noclock hour", &[]),
        ("token local hour", &[]),
        ("digest", &[]),
        ("digest closes", &[("auth", "digest")]),
        ("both hour", &[("auth", "usernameToken")]),
        ("both digest", &[]),
    ] {
        let camera = Camera::odd(modes);
        let mut session = camera.session(more).await;
        for _ in 0..3 {
            let read = session.read(&model()).await;
            if modes == "token noclock hour" {
                // Nothing says what its clock is: what it says of itself in each answer's head is the hour that is not its own.
                assert!(matches!(read, Err(Fault::Device(_))), "{read:?}");
                continue;
            }
            assert!(is_model(&read), "{modes}: {read:?}");
        }
        assert_eq!(camera.ask("faults"), "none", "{modes}");
    }
}

#[tokio::test]
async fn a_wrong_password_is_tried_a_few_times_and_then_no_more() {
    for modes in ["token", "digest", "token digest"] {
        let camera = Camera::odd(modes);
        let mut session = camera.session(&[("password", "wrong")]).await;
        let mut said = Vec::new();
        for _ in 0..5 {
            let Err(Fault::Device(reason)) = session.read(&model()).await else { panic!("{modes}") };
            assert!(
                reason.contains("refuses `userName` and `password`") && !reason.contains("wrong"),
                "{reason}"
            );
            said.push(reason);
        }
        assert!(said.windows(2).all(|two| two[0] == two[1]));
        let asked = camera.count("GetDeviceInformation");
        assert!((1..=3).contains(&asked), "{modes}: it was asked {asked} times");
    }
    let camera = Camera::odd("token");
    let mut session = camera.session(&[("userName", ""), ("password", "")]).await;
    let Err(Fault::Device(reason)) = session.read(&model()).await else { panic!() };
    assert!(reason.contains("write `userName` and `password`"), "{reason}");
}

#[tokio::test]
async fn a_clock_that_is_not_understood_is_named_where_a_login_fails() {
    let camera = Camera::odd("token local hour");
    camera.tell("set zone Mitteleuropa");
    let mut session = camera.session(&[]).await;
    let Err(Fault::Device(reason)) = session.read(&model()).await else { panic!() };
    assert!(reason.contains("`password`") && reason.contains("set the camera's clock"), "{reason}");
    camera.tell("mode token");
    let mut session = camera.session(&[("password", "wrong")]).await;
    let Err(Fault::Device(reason)) = session.read(&model()).await else { panic!() };
    assert!(!reason.contains("clock"), "{reason}");
}

#[tokio::test]
async fn a_clock_that_is_set_meanwhile_is_read_again() {
    let camera = Camera::start();
    let mut session = camera.session(&[]).await;
    assert!(is_model(&session.read(&model()).await));
    camera.tell("mode token hour");
    let read = session.read(&model()).await;
    assert!(is_model(&read), "{read:?}");
    assert_eq!(camera.ask("faults"), "none");
}

#[tokio::test]
async fn what_this_user_may_not_do_keeps_nothing_else_from_being_done() {
    let camera = Camera::odd("token forbidden");
    let mut session = camera.session(&[]).await;
    assert!(is_model(&session.read(&model()).await));
    let stop = visitor(Kind::Bool, &[("method", "Stop")]);
    let Err(Fault::Device(reason)) = session.write(&stop, &Value::Bool(true)).await else { panic!() };
    assert!(reason.contains("may `userName` do this"), "{reason}");
    assert!(is_model(&session.read(&model()).await));
}

#[tokio::test]
async fn a_password_may_lie_in_a_file_of_the_mappers_own_folder() {
    use framework::{Protocol as _, Scalar, Settings};
    let camera = Camera::start();
    let folder = tempfile::tempdir().unwrap();
    let protocol = crate::camera::on_loopback(folder.path());
    std::fs::create_dir(folder.path().join("onvif")).unwrap();
    let file = folder.path().join("onvif/door");
    std::fs::write(&file, "p<&\">w\r\n").unwrap();
    let settings = |file: &std::path::Path| {
        let mut pairs = camera.place();
        pairs.retain(|(key, _)| *key != "password");
        pairs.push(("passwordFile", Scalar::Text(file.display().to_string())));
        Settings::from_pairs(pairs)
    };
    let mut session = protocol.connect(&protocol.address(&settings(&file)).unwrap()).await.unwrap();
    assert!(is_model(&session.read(&model()).await));
    let elsewhere = folder.path().join("token");
    std::fs::write(&elsewhere, "node's own").unwrap();
    let refused = protocol.address(&settings(&elsewhere)).unwrap_err().to_string();
    assert!(refused.contains("has to lie in that folder"), "{refused}");
}
