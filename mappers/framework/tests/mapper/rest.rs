//! KubeEdge's REST interface of mappers.

use dmi::v1beta1::DeviceMethod;
use framework::Value;

use crate::edgecore::{EdgeCore, Mapper, config, eventually};
use crate::shelf::{FakeProtocol, levels, room};

/// The status and the body of what is answered to a GET.
async fn get(port: u16, path: &str, more: &str) -> (u16, String) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let host = if more.contains("host: ") { "" } else { "host: 127.0.0.1\r\n" };
    let request = format!("GET {path} HTTP/1.1\r\n{host}{more}connection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    if more.contains("x-correlation-id") {
        assert!(head.contains("x-correlation-id: 42"), "{head}");
    }
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

#[tokio::test]
async fn kubeedges_rest_interface_reads_and_calls_methods() {
    let folder = tempfile::tempdir().unwrap();
    let edgecore = EdgeCore::at(folder.path());
    let mut one = room("one");
    let set_level = DeviceMethod {
        name: "SetLevel".to_owned(),
        property_names: vec!["level".to_owned(), "label".to_owned()],
        ..Default::default()
    };
    one.spec.as_mut().unwrap().methods = vec![set_level];
    {
        let mut objects = edgecore.objects.lock().unwrap();
        objects.models = vec![levels()];
        objects.devices = vec![one];
    }
    edgecore.start();
    let shelf = FakeProtocol::default();
    shelf.put(1, Value::Int(7));
    shelf.put(2, Value::Text("jam".to_owned()));
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut config = config(folder.path(), "shelf");
    config.common.http_port = port.to_string();
    let mapper = Mapper::start_with(config.clone(), shelf.clone());
    edgecore.until_value("one", "level", "7").await;
    let (status, body) = get(port, "/api/v1/ping", "x-correlation-id: 42\r\n").await;
    assert!(status == 200 && body.contains(r#""apiVersion":"v1""#) && body.contains("normally"), "{body}");
    let (status, body) = get(port, "/api/v1/device/default/one/level", "").await;
    assert!(status == 200 && body.contains(r#""Value":"7""#) && body.contains(r#""Type":"int""#), "{body}");
    let (status, body) = get(port, "/api/v1/devicemethod/default/one", "").await;
    assert!(status == 200 && body.contains("/api/v1/devicemethod/default/one/SetLevel/"), "{body}");
    let (status, body) = get(port, "/api/v1/meta/model/default/one", "").await;
    assert!(status == 200 && body.contains(r#""dataType":"INT""#), "{body}");
    let set = "/api/v1/devicemethod/default/one/SetLevel";
    assert_eq!(get(port, &format!("{set}/level/9"), "").await.0, 200);
    assert_eq!(shelf.writes(), [(1, Value::Int(9))]);
    edgecore.until_value("one", "level", "9").await;
    for (path, status, said) in [
        (format!("{set}/level/101"), 500, "above the model's maximum"),
        (format!("{set}/label/tea"), 500, "ReadOnly"),
        (format!("{set}/ghost/1"), 500, "does not name"),
        ("/api/v1/devicemethod/default/one/Explode/level/1".to_owned(), 500, "no such method"),
        ("/api/v1/device/default/two/level".to_owned(), 404, "no device default/two"),
        ("/api/v1/device/default/one/%zz".to_owned(), 400, "not understood"),
        ("/metrics".to_owned(), 404, "/api/v1/"),
    ] {
        let (found, body) = get(port, &path, "").await;
        assert!(found == status && body.contains(said), "{path}: {found} {body}");
    }
    // A request and a picture of a page, and a page that calls it by a name of its own.
    for (more, status) in [
        ("origin: http://elsewhere\r\nx-correlation-id: 42\r\n", 403),
        ("user-agent: Mozilla/5.0\r\nsec-fetch-site: cross-site\r\n", 403),
        // A page to which a written address led, and which leads here; and a rule.
        ("user-agent: Mozilla/5.0\r\nsec-fetch-site: none\r\n", 403),
        ("user-agent: edgecore-rules\r\n", 403),
        // A Device of the HTTP mapper whose `url` is this one.
        ("user-agent: kubehive-http-mapper/0.1.0\r\n", 403),
        ("host: user@localhost\r\n", 421),
        ("host: rebound.example\r\n", 421),
    ] {
        assert_eq!(get(port, &format!("{set}/level/1"), more).await.0, status, "{more}");
    }
    assert_eq!(get(port, "/api/v1/device/default/one/level", "host: rebound.example\r\n").await.0, 421);
    assert_eq!(shelf.writes().len(), 1);
    mapper.stop().await;
    // Only reading.
    config.common.http_allow = "read".to_owned();
    let mapper = Mapper::start_with(config, shelf.clone());
    eventually("the device read", async || {
        std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
            && get(port, "/api/v1/device/default/one/level", "").await.0 == 200
    })
    .await;
    assert_eq!(get(port, &format!("{set}/level/1"), "").await.0, 403);
    mapper.stop().await;
}

#[tokio::test]
async fn half_requests_shut_nobody_out() {
    use tokio::io::AsyncWriteExt as _;
    let folder = tempfile::tempdir().unwrap();
    let edgecore = EdgeCore::at(folder.path());
    edgecore.start();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut config = config(folder.path(), "shelf");
    config.common.http_port = port.to_string();
    let mapper = Mapper::start_with(config, FakeProtocol::default());
    eventually("the port", async || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()).await;
    let mut held = Vec::new();
    for _ in 0..400 {
        let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        // One that has given way already is none that is wanted.
        let _ = stream.write_all(b"GET /api/v1/pi").await;
        held.push(stream);
    }
    let (status, _) = tokio::time::timeout(std::time::Duration::from_secs(5), get(port, "/api/v1/ping", ""))
        .await
        .expect("an answer before the deadline of half requests");
    assert_eq!(status, 200);
    drop(held);
    mapper.stop().await;
}

/// As many as no client of one mapper is, while the device answers nobody: each hears something, and soon.
#[tokio::test]
async fn many_callers_at_once_are_answered_or_told_to_come_again() {
    let folder = tempfile::tempdir().unwrap();
    let edgecore = EdgeCore::at(folder.path());
    {
        let mut objects = edgecore.objects.lock().unwrap();
        objects.models = vec![levels()];
        objects.devices = vec![room("one")];
    }
    edgecore.start();
    let shelf = FakeProtocol::default();
    shelf.put(1, Value::Int(7));
    shelf.put(2, Value::Text("jam".to_owned()));
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut config = config(folder.path(), "shelf");
    config.common.http_port = port.to_string();
    let mapper = Mapper::start_with(config, shelf.clone());
    edgecore.until_value("one", "level", "7").await;
    let call = |_| get(port, "/api/v1/device/default/one/level", "");
    let answers = futures::future::join_all((0..150).map(call)).await;
    for (status, body) in &answers {
        assert!(*status == 200 && body.contains(r#""Value":"7""#), "{status} {body}");
    }
    // Each reading takes as long as it may: most of those who ask have no turn.
    shelf.0.lock().unwrap().delay = std::time::Duration::from_millis(100);
    let answers = futures::future::join_all((0..240).map(call)).await;
    let told = answers.iter().filter(|(status, _)| *status == 503);
    let mut told_to_come_again = 0;
    for (_, body) in told {
        assert!(body.contains("too many ask at once") && body.contains("ask again"), "{body}");
        told_to_come_again += 1;
    }
    assert!(told_to_come_again >= 240 - 160, "{told_to_come_again}");
    assert!(answers.iter().any(|(status, _)| *status == 200), "{answers:?}");
    assert!(answers.iter().all(|(status, _)| matches!(status, 200 | 503 | 504)), "{answers:?}");
    mapper.stop().await;
}
