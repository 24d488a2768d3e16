use std::net::IpAddr;

use nodechecks::Grade::{Failed, Passed, Warned};
use pki::{Authority, SubjectAltNames};

use super::*;
use crate::debug::testing::grade;

const DAY: Duration = Duration::from_secs(86_400);

/// 2033.
fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(2_000_000_000)
}

fn target(host: &str) -> Target {
    Target { host: host.to_owned(), port: 10_002, what: "modules.edgeHub.httpServer" }
}

/// The chain that a CloudCore at 192.0.2.10 shows, as of now, and its CA.
fn shown_by(authority: &Authority) -> Vec<CertificateDer<'static>> {
    let names = SubjectAltNames {
        addresses: vec![IpAddr::from([192, 0, 2, 10])],
        names: vec!["cloud.example".to_owned()],
    };
    let (issued, _) = authority.server(&names, now(), 30 * DAY, [1; 16]).unwrap();
    vec![CertificateDer::from(issued.der), CertificateDer::from(authority.cert_der().to_vec())]
}

fn of<'a>(findings: &'a [Finding], check: &str) -> &'a Finding {
    findings.iter().find(|finding| finding.check == check).unwrap()
}

#[test]
fn a_certificate_is_held_against_name_ca_and_clock() {
    let authority = Authority::create(now(), [2; 16]).unwrap();
    let chain = shown_by(&authority);
    let trusted = Trusted::Authorities(vec![authority.cert_der().to_vec()]);
    let pinned = Trusted::Pin(pki::pin_of(authority.cert_der()));
    let look = |host: &str, trusted: &Trusted, at| judge(&target(host), Ok(&chain), trusted, at);
    for trusted in [&trusted, &pinned, &Trusted::Anything] {
        for host in ["192.0.2.10", "cloud.example"] {
            let found = look(host, trusted, now());
            grade(of(&found, CERTIFICATE), Passed, host);
            grade(of(&found, CLOCK), Passed, "within the life");
        }
        let found = look("192.0.2.11", trusted, now());
        grade(of(&found, CERTIFICATE), Failed, "is not for 192.0.2.11 (it is for 192.0.2.10");
        assert!(of(&found, CERTIFICATE).says.contains("advertiseAddress"));
    }
    // Another cluster's, or something between.
    let other = Authority::create(now(), [3; 16]).unwrap();
    let strangers =
        [Trusted::Authorities(vec![other.cert_der().to_vec()]), Trusted::Pin(pki::pin_of(other.cert_der()))];
    for stranger in &strangers {
        grade(of(&look("192.0.2.10", stranger, now()), CERTIFICATE), Failed, "of another CA");
    }
    assert!(of(&look("192.0.2.10", &strangers[1], now()), CERTIFICATE).says.contains("keadm gettoken"));
    // A clock at its beginning, and one that is years ahead: the certificate itself is well.
    for (at, word) in [(UNIX_EPOCH, "the clock is behind"), (now() + 1000 * DAY, "the clock is ahead")] {
        let found = look("192.0.2.10", &trusted, at);
        grade(of(&found, CLOCK), Failed, word);
        grade(of(&found, CERTIFICATE), Passed, "192.0.2.10");
    }
}

#[test]
fn what_is_no_cloudcore_is_said() {
    grade(
        &judge(&target("a"), Err("received corrupt message"), &Trusted::Anything, now())[0],
        Failed,
        "is no CloudCore (received",
    );
    grade(&judge(&target("a"), Ok(&[]), &Trusted::Anything, now())[0], Failed, "no certificate");
    let junk = [CertificateDer::from(vec![1, 2, 3])];
    grade(&judge(&target("a"), Ok(&junk), &Trusted::Anything, now())[0], Failed, "cannot be read");
}

#[test]
fn where_one_port_of_several_answers_there_is_a_link() {
    let targets = [target("a"), target("2001:db8::1")];
    let well = || Ok(Ok(Vec::new()));
    let refused = || Err("Connection refused".to_owned());
    grade(&ports(&targets, &[well(), well()]), Passed, "a:10002, [2001:db8::1]:10002");
    grade(
        &ports(&targets, &[refused(), well()]),
        Warned,
        "a:10002 (modules.edgeHub.httpServer): Connection refused",
    );
    grade(&ports(&targets, &[refused(), refused()]), Failed, "firewall");
}

#[test]
fn the_ports_and_names_are_those_of_the_settings() {
    let mut settings = EdgeCore::default();
    let hub = &mut settings.modules.edge_hub;
    hub.http_server = "https://cloud.example:10002".to_owned();
    hub.websocket.server = "192.0.2.1:10000, cloud.example:10000".to_owned();
    let found = targets(&settings);
    let shown: Vec<String> = found.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["cloud.example:10002", "192.0.2.1:10000", "cloud.example:10000"]);
    assert_eq!(host_names(&found), ["cloud.example"]);
    settings.modules.edge_hub.websocket.enable = false;
    assert_eq!(targets(&settings).len(), 1);
}

/// The faults are real ones: a port where nobody listens, one that speaks no TLS, and one that says nothing at all.
#[actix_rt::test]
async fn ports_that_are_no_cloudcores_are_found_in_time() {
    let env = Env::real();
    let begun = env.now();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let plain = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let at = |port: u16| Target { host: "127.0.0.1".to_owned(), port, what: "k" };
    let of_plain = at(plain.local_addr().unwrap().port());
    actix_rt::spawn(async move {
        while let Ok((mut stream, _)) = plain.accept().await {
            let _ =
                tokio::io::AsyncWriteExt::write_all(&mut stream, b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    let found = look(&[at(closed.port())], &Trusted::Anything, &env).await;
    grade(of(&found, PORTS), Failed, "refused");
    let found = look(&[of_plain], &Trusted::Anything, &env).await;
    grade(of(&found, PORTS), Passed, "TCP answers");
    grade(of(&found, CERTIFICATE), Failed, "is no CloudCore");
    let found = look(&[at(silent.local_addr().unwrap().port())], &Trusted::Anything, &env).await;
    grade(of(&found, CERTIFICATE), Failed, "says nothing within 3 s");
    assert!(env.now().since(begun) < Duration::from_secs(9));
    grade(&look(&[], &Trusted::Anything, &env).await[0], Passed, "--cloud-hub-server");
}
