//! What cameras do wrong, on purpose or not: it costs nobody anything, and leads nowhere.

use std::time::{Duration, Instant};

use framework::host::Targets;
use framework::{Fault, Kind, Protocol as _, Scalar, Session as _, Settings, Value};
use onvifdevice::Onvif;

use crate::camera::{Camera, model, visitor};

#[tokio::test]
async fn an_answer_that_is_none_or_goes_too_far_is_a_fault_with_its_reason() {
    for (modes, said) in [
        ("token text", "no end"),
        ("token deep", "deep"),
        ("token entity", "document type"),
        ("token huge", "bytes"),
        ("token cut", "no"),
        ("token faulty", "OutofMemory (too many)"),
    ] {
        let camera = Camera::start();
        let mut session = camera.session(&[]).await;
        assert_eq!(session.read(&model()).await, Ok(Value::Text("M1".to_owned())));
        camera.tell(&format!("mode {modes}"));
        let Err(Fault::Device(reason)) = session.read(&model()).await else { panic!("{modes}") };
        assert!(reason.contains(said), "{modes}: {reason}");
        camera.tell("mode token");
        let again = session.read(&model()).await;
        assert_eq!(again, Ok(Value::Text("M1".to_owned())), "{modes}: it is asked on");
    }
}

#[tokio::test]
async fn a_camera_that_hangs_is_silent_within_its_time_and_no_late_answer_is_anothers() {
    let camera = Camera::start();
    let mut session = camera.session(&[("timeoutMs", "2000")]).await;
    camera.tell("mode token silent");
    let began = Instant::now();
    let fault = session.read(&model()).await.unwrap_err();
    assert!(matches!(fault, Fault::Silent(_)) && began.elapsed() < Duration::from_secs(20), "{fault}");
    camera.tell("mode token");
    let hostname = visitor(
        Kind::Text,
        &[
            ("request", "GetHostname"),
            ("element", "HostnameInformation/Name"),
            ("write", "<tds:A>{{value}}</tds:A>"),
        ],
    );
    assert_eq!(session.read(&hostname).await, Ok(Value::Text("door".to_owned())));
    camera.tell("mode token silent");
    let fault = camera.try_session(&[("timeoutMs", "2000")]).await.unwrap_err();
    assert!(matches!(fault, Fault::NotSent(_)), "{fault}");
    camera.switch(false);
    let fault = session.read(&model()).await.unwrap_err();
    assert!(fault.ends_the_session(), "{fault}");
}

#[tokio::test]
async fn old_firmware_may_write_blanks_before_colons_and_letters_in_latin_1() {
    let hostname = || {
        let pairs = [
            ("request", "GetHostname"),
            ("element", "HostnameInformation/Name"),
            ("write", "<tds:A>{{value}}</tds:A>"),
        ];
        visitor(Kind::Text, &pairs)
    };
    for modes in ["token blanks", "token latin", "token"] {
        let camera = Camera::odd(modes);
        camera.tell("set Name \u{c9}tage");
        let mut session = camera.session(&[]).await;
        let read = session.read(&hostname()).await;
        assert_eq!(read, Ok(Value::Text("\u{c9}tage".to_owned())), "{modes}");
    }
}

#[tokio::test]
async fn addresses_of_somebody_else_lead_to_the_camera_that_was_dialled() {
    for modes in ["token nat", "token nat old", "token old", "token nat media2", "token noptz"] {
        let camera = Camera::odd(modes);
        let mut session = camera.session(&[]).await;
        let stream =
            session.read(&visitor(Kind::Text, &[("method", "GetStreamUri"), ("profile", "second")])).await;
        assert_eq!(stream, Ok(Value::Text("rtsp://192.0.2.7:554/sub?a=1&b=2".to_owned())), "{modes}");
        let pan = session.read(&visitor(Kind::Float, &[("method", "GetStatus"), ("item", "pan")])).await;
        if modes == "token noptz" {
            assert!(matches!(&pan, Err(Fault::Device(why)) if why.contains("no service `ptz`")), "{pan:?}");
        } else {
            assert_eq!(pan, Ok(Value::Float(0.0)), "{modes}");
        }
        let none =
            session.read(&visitor(Kind::Text, &[("method", "GetStreamUri"), ("profile", "third")])).await;
        assert!(
            matches!(&none, Err(Fault::Device(why)) if why.contains("main (first), sub (second)")),
            "{none:?}"
        );
        assert_eq!(camera.ask("faults"), "none", "{modes}");
    }
}

#[tokio::test]
async fn what_is_the_machines_alone_is_no_camera_by_whatever_name_or_port() {
    let camera = Camera::start();
    let folder = std::path::Path::new("/nowhere/mapper.sock");
    let url = |url: String| Settings::from_pairs([("url", Scalar::Text(url))]);
    let closed = Onvif::beside(folder, Targets::default());
    for host in ["127.0.0.1", "[::1]", "169.254.169.254", "100.100.100.200"] {
        let refused = closed
            .address(&url(format!("http://{host}:{}/latest/meta-data", camera.port)))
            .unwrap_err()
            .to_string();
        assert!(refused.contains("setting `url`") && refused.contains("common.allowed_targets"), "{refused}");
    }
    let named = closed.address(&url(format!("127.1:{}", camera.port))).unwrap();
    let fault = closed.connect(&named).await.unwrap_err();
    assert!(matches!(&fault, Fault::NotSent(why) if why.contains("`127.1` is 127.0.0.1")), "{fault}");
    assert_eq!(camera.count("GetSystemDateAndTime"), 0);
    // One port is open: the camera cannot lead to another one of that machine.
    let [other] = testhost::free_ports().unwrap();
    let listener = std::net::TcpListener::bind(("127.0.0.1", other)).unwrap();
    camera.tell("mode token wrongport");
    camera.tell(&format!("set port {other}"));
    let open = Onvif::beside(folder, Targets::new(vec![format!("127.0.0.1:{}", camera.port)]).unwrap());
    let address = open.address(&Settings::from_pairs(camera.place())).unwrap();
    let mut session = open.connect(&address).await.unwrap();
    let property =
        framework::Property { is_stream: true, ..framework::Property::new("saveFrame", Kind::Text) };
    let pictures = open.visitor(&property, &Settings::from_pairs([])).unwrap();
    let fault = session.frames(&pictures).unwrap().next(Duration::ZERO).await.unwrap_err();
    assert!(fault.to_string().contains("common.allowed_targets"), "{fault}");
    listener.set_nonblocking(true).unwrap();
    assert_eq!(listener.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
}

#[tokio::test]
async fn what_is_of_one_request_is_asked_for_once() {
    let camera = Camera::start();
    let mut session = camera.session(&[]).await;
    let of = |item: &str| visitor(Kind::Text, &[("method", "GetDeviceInformation"), ("item", item)]);
    let all = [
        of("Manufacturer"),
        of("Model"),
        of("HardwareId"),
        visitor(Kind::Text, &[("method", "GetStreamUri")]),
    ];
    let read = session.read_many(&all.iter().collect::<Vec<_>>()).await;
    assert_eq!(read.len(), 3);
    assert_eq!(read[0], (0, Ok(Value::Text("Stand & In".to_owned()))));
    assert!(matches!(&read[2], (2, Err(Fault::NoValue(why))) if why.contains("empty")), "{read:?}");
    assert_eq!((camera.count("GetDeviceInformation"), camera.count("GetServices")), (1, 0));
    let clock = session.read(&visitor(Kind::Text, &[("method", "GetSystemDateAndTime")])).await.unwrap();
    assert!(clock.to_string().ends_with('Z'), "{clock}");
}
