use super::*;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

/// A server that answers one connection after another with what it is given, and tells what it was asked.
async fn server(answers: Vec<String>) -> (u16, tokio::task::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked = tokio::spawn(async move {
        let mut asked = Vec::new();
        for answer in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                if stream.read(&mut byte).await.unwrap() == 0 {
                    break;
                }
                head.push(byte[0]);
            }
            stream.write_all(answer.replace("PORT", &port.to_string()).as_bytes()).await.unwrap();
            asked.push(String::from_utf8(head).unwrap());
        }
        asked
    });
    (port, asked)
}

fn answer(status: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n{headers}\r\n{body}")
}

fn of_pod() -> PodDialer<'static> {
    static LOOKUPS: std::sync::LazyLock<beehive::Lookups> =
        std::sync::LazyLock::new(|| beehive::Lookups::at_most(1));
    PodDialer { lookups: &LOOKUPS, namespace: "d" }
}

async fn ask(port: u16, action: Value) -> Tried {
    let mut action = action;
    action["port"] = json!(port);
    let action: HTTPGetAction = serde_json::from_value(action).unwrap();
    let request = HttpRequest::new(&action, port, "127.0.0.1", "kube-probe").unwrap();
    probe(&Env::real(), of_pod(), &request, Duration::from_secs(5)).await
}

#[tokio::test]
async fn headers_are_sent_as_a_kubelet_sends_them() {
    let (port, asked) = server(vec![answer("204 No Content", "", ""), answer("200 OK", "", "")]).await;
    assert_eq!(ask(port, json!({"path": "/x?y=z"})).await, Ok(Answer::Success));
    let headers = json!([{"name": "Accept", "value": ""}, {"name": "host", "value": "example.com"},
        {"name": "X-A", "value": "1"}, {"name": "x-a", "value": "2"}, {"name": "User-Agent", "value": "me"}]);
    assert_eq!(ask(port, json!({"httpHeaders": headers})).await, Ok(Answer::Success));
    let asked = asked.await.unwrap();
    let lines = |at: usize| {
        let mut lines: Vec<&str> = asked[at].trim_end().split("\r\n").collect();
        lines[1..].sort_unstable();
        lines
    };
    let host = format!("Host: 127.0.0.1:{port}");
    assert_eq!(
        lines(0),
        ["GET /x?y=z HTTP/1.1", "Accept: */*", "Connection: close", &host, "User-Agent: kube-probe/1.36"]
    );
    assert_eq!(
        lines(1),
        ["GET / HTTP/1.1", "Connection: close", "Host: example.com", "User-Agent: me", "X-A: 1", "X-A: 2"]
    );
}

#[tokio::test]
async fn the_status_decides() {
    for (status, want) in [
        ("200 OK", Answer::Success),
        ("399 Odd", Answer::Warning("Probe terminated redirects, Response body: b".into())),
        ("400 Bad", Answer::Failure("HTTP probe failed with statuscode: 400".into())),
        ("503 Down", Answer::Failure("HTTP probe failed with statuscode: 503".into())),
    ] {
        let (port, _asked) = server(vec![answer(status, "", "b")]).await;
        assert_eq!(ask(port, json!({"path": "/"})).await, Ok(want), "{status}");
    }
}

#[tokio::test]
async fn redirects_are_followed_on_the_same_host_only() {
    let to = |location: &str| answer("302 Found", &format!("Location: {location}\r\n"), "moved");
    let (port, asked) =
        server(vec![to("http://127.0.0.1:PORT/b"), to("c?d"), answer("500 No", "", "")]).await;
    let failed = Answer::Failure("HTTP probe failed with statuscode: 500".into());
    assert_eq!(ask(port, json!({"path": "/a"})).await, Ok(failed));
    let paths: Vec<String> =
        asked.await.unwrap().iter().map(|head| head.split(' ').nth(1).unwrap().to_owned()).collect();
    assert_eq!(paths, ["/a", "/b", "/c?d"]);

    let (port, _asked) = server(vec![to("http://0.0.0.0:PORT/")]).await;
    let warned = Answer::Warning("Probe terminated redirects, Response body: moved".into());
    assert_eq!(ask(port, json!({"path": "/a"})).await, Ok(warned));

    let (port, _asked) = server(vec![to("/again"); 20]).await;
    let Ok(Answer::Failure(text)) = ask(port, json!({"path": "/"})).await else {
        panic!("followed for ever")
    };
    assert_eq!(text, format!("Get \"http://127.0.0.1:{port}/\": stopped after 10 redirects"));
}

#[tokio::test]
async fn a_server_that_drops_the_connection_is_told_of_in_gos_words() {
    let dropped = async |resets: bool| {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = tokio::spawn(async move {
            let (stream, from) = listener.accept().await.unwrap();
            if resets {
                stream.set_zero_linger().unwrap();
            }
            from
        });
        let Ok(Answer::Failure(text)) = ask(port, json!({"path": "/"})).await else { panic!("it answered") };
        let from = server.await.unwrap();
        let said = text.strip_prefix(&format!("Get \"http://127.0.0.1:{port}/\": ")).unwrap();
        (said.replace(&format!("tcp {from}->127.0.0.1:{port}"), "tcp ENDS"), text.clone())
    };
    let reset = "read tcp ENDS: read: connection reset by peer";
    for _ in 0..20 {
        let (said, text) = dropped(true).await;
        assert_eq!(said, reset, "{text}");
        // The kernel answers what comes after the end as it likes.
        let (said, text) = dropped(false).await;
        assert!([reset, "EOF", "write tcp ENDS: write: broken pipe"].contains(&said.as_str()), "{text}");
    }
}

#[tokio::test]
async fn no_answer_is_a_failure_in_gos_words() {
    let [free] = testhost::free_ports().unwrap();
    let refused =
        format!("Get \"http://127.0.0.1:{free}/\": dial tcp 127.0.0.1:{free}: connect: connection refused");
    assert_eq!(ask(free, json!({"path": "/"})).await, Ok(Answer::Failure(refused)));
    let (port, _asked) = server(vec![String::new()]).await;
    let ended = format!("Get \"http://127.0.0.1:{port}/\": EOF");
    assert_eq!(ask(port, json!({"path": "/"})).await, Ok(Answer::Failure(ended)));
    // HTTPS of a server that speaks HTTP.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let plain = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        stream.shutdown().await.unwrap();
    });
    let Ok(Answer::Failure(text)) = ask(plain, json!({"scheme": "HTTPS", "path": "/"})).await else {
        panic!("HTTP is no HTTPS")
    };
    assert!(text.ends_with("http: server gave HTTP response to HTTPS client"), "{text}");
}

/// A kubelet has no bound in between: an answer with many cookies, or a session in a header, is one.
#[tokio::test]
async fn an_answer_may_have_a_long_head_and_one_without_end_is_a_failure_in_gos_words() {
    let of = |count: usize, length: usize| format!("Set-Cookie: {}\r\n", "c".repeat(length)).repeat(count);
    for headers in [of(1, 200_000), of(200, 1000), of(1000, 20)] {
        let (port, _asked) = server(vec![answer("200 OK", &headers, "")]).await;
        assert_eq!(ask(port, json!({"path": "/"})).await, Ok(Answer::Success), "{} bytes", headers.len());
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut begins = b"HTTP/1.1 200 OK\r\nX-Long: ".to_vec();
        // Until it is hung up on.
        while stream.write_all(&begins).await.is_ok() {
            begins = vec![b'a'; 4096];
        }
    });
    let exceeded = "net/http: HTTP/1.x transport connection broken: net/http: server response headers exceeded 1048576 bytes; aborted";
    let failed = Answer::Failure(format!("Get \"http://127.0.0.1:{port}/\": {exceeded}"));
    assert_eq!(ask(port, json!({"path": "/"})).await, Ok(failed));
}

#[tokio::test]
async fn a_server_that_goes_on_informing_is_a_failure() {
    let (port, _asked) = server(vec!["HTTP/1.1 100 Continue\r\n\r\n".repeat(100)]).await;
    let informs = "the peer answers with more than 5 informational heads";
    let failed = Answer::Failure(format!("Get \"http://127.0.0.1:{port}/\": {informs}"));
    assert_eq!(ask(port, json!({"path": "/"})).await, Ok(failed));
}

#[tokio::test]
async fn a_silent_server_costs_the_timeout_and_a_body_without_end_ten_kibibytes() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let action: HTTPGetAction = serde_json::from_value(json!({"port": port})).unwrap();
    let request = HttpRequest::new(&action, port, "127.0.0.1", "kube-probe").unwrap();
    let tried = probe(&Env::real(), of_pod(), &request, Duration::from_millis(50)).await;
    let Ok(Answer::Failure(text)) = tried else { panic!("{tried:?}") };
    assert!(text.ends_with("context deadline exceeded (Client.Timeout exceeded while awaiting headers)"));

    let endless = "HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n".to_owned() + &"x".repeat(BODY_MAX);
    let (port, _asked) = server(vec![endless]).await;
    assert_eq!(ask(port, json!({"path": "/"})).await, Ok(Answer::Success));
}

/// One that breaks off says nothing of the container (pkg/probe/http/http.go, where the body is read).
#[tokio::test]
async fn a_body_that_breaks_off_counts_for_nothing_and_is_told_in_gos_words() {
    for (torn, why) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nx", "unexpected EOF"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nab", "unexpected EOF"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nab", "invalid byte in chunk length"),
    ] {
        let (port, _asked) = server(vec![torn.to_owned()]).await;
        let want = TryError { state: "failure", why: why.to_owned() };
        assert_eq!(ask(port, json!({"path": "/"})).await, Err(want), "{torn}");
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let action: HTTPGetAction = serde_json::from_value(json!({"port": port})).unwrap();
    let request = HttpRequest::new(&action, port, "127.0.0.1", "kube-probe").unwrap();
    let stalls = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nx").await.unwrap();
        std::future::pending::<()>().await;
    };
    let env = Env::real();
    let tried = tokio::select! {
        tried = probe(&env, of_pod(), &request, Duration::from_secs(1)) => tried,
        () = stalls => unreachable!(),
    };
    let why = "context deadline exceeded (Client.Timeout or context cancellation while reading body)";
    assert_eq!(tried, Err(TryError { state: "failure", why: why.to_owned() }));
    // What is no HTTP at all is a failure.
    let (port, _asked) = server(vec!["garbage\r\n\r\n".to_owned()]).await;
    let Ok(Answer::Failure(text)) = ask(port, json!({"path": "/"})).await else { panic!("it is no HTTP") };
    assert!(
        text.contains("net/http: HTTP/1.x transport connection broken: malformed HTTP response"),
        "{text}"
    );
    let (port, _asked) =
        server(vec!["HTTP/1.1 200 OK\r\nServer : odd\r\nContent-Length: 0\r\n\r\n".to_owned()]).await;
    assert_eq!(ask(port, json!({"path": "/"})).await, Ok(Answer::Success));
}

#[tokio::test]
async fn no_certificate_is_verified() {
    let made = rcgen::generate_simple_self_signed(vec!["somebody.else".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = acceptor.accept(stream).await.unwrap();
        let mut head = [0; 4096];
        assert!(stream.read(&mut head).await.unwrap() > 0);
        stream.write_all(answer("200 OK", "", "well").as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
    });
    assert_eq!(ask(port, json!({"scheme": "HTTPS", "path": "/"})).await, Ok(Answer::Success));
}
