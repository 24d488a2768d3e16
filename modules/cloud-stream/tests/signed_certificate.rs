//! A certificate that a signer of the cluster signs, from the request to the handshake, and across restarts.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod fixture;

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use beehive::Env;
use cloud_stream::Signer;
use fixture::{Api, Fixture, LONG};
use rcgen::{CertificateParams, CertificateSigningRequestParams, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};

const SERVING: &str = "kubernetes.io/kubelet-serving";
const DAY: Duration = Duration::from_secs(86_400);

/// The cluster's CA, which signs what an administrator has approved.
struct Cluster {
    certificate: rcgen::Certificate,
    issuer: Issuer<'static, KeyPair>,
}

impl Cluster {
    fn new() -> Cluster {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        let issuer = Issuer::from_ca_cert_der(certificate.der(), key).unwrap();
        Cluster { certificate, issuer }
    }

    fn der(&self) -> &[u8] {
        self.certificate.der()
    }

    /// The status of an approved request: a certificate with what was asked for, which began and ends so long from now.
    fn sign(&self, spec: &Value, began: Duration, ends: Duration) -> Value {
        let pem = decoded(&spec["request"]);
        let mut request = CertificateSigningRequestParams::from_pem(&pem).unwrap();
        let now = std::time::SystemTime::now();
        (request.params.not_before, request.params.not_after) = ((now - began).into(), (now + ends).into());
        let signed = request.signed_by(&self.issuer).unwrap().pem();
        json!({ "conditions": [{ "type": "Approved", "status": "True" }], "certificate": encoded(&signed) })
    }
}

fn decoded(value: &Value) -> String {
    use base64::Engine as _;
    let bytes = base64::engine::general_purpose::STANDARD.decode(value.as_str().unwrap()).unwrap();
    String::from_utf8(bytes).unwrap()
}

fn encoded(text: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(text)
}

fn signer(folder: &Path) -> Signer {
    Signer { name: SERVING.to_owned(), folder: folder.join("kubelet-endpoint") }
}

/// The certificate that a port shows, if it is of this CA.
async fn shown(fixture: &Fixture, port: u16, authority: &[u8]) -> Option<Vec<u8>> {
    fixture.certificate(port, &[authority.to_vec()]).await
}

async fn made(fixture: &Fixture, count: usize) -> String {
    fixture.until("it is asked for", async || fixture.api.requests().len() == count).await;
    fixture.api.requests().pop().unwrap()
}

#[actix_rt::test]
async fn a_certificate_is_shown_once_it_is_approved_and_kept_across_a_restart() {
    let (cluster, folder) = (Cluster::new(), tempfile::tempdir().unwrap());
    let api = Api::new(&Env::real(), Vec::new());
    let mut fixture = Fixture::signed_by(api.clone(), signer(folder.path())).await;
    let _link = fixture.link("edge-1", 1).await;
    let port = fixture.endpoint("edge-1", 1).await.port;
    let name = made(&fixture, 1).await;
    let spec = api.request(&name);
    assert_eq!(spec["signerName"], SERVING);
    // Nobody has approved it: our own CA's is shown, and it is said what is waited for.
    let words = format!("KubeletEndpointCertificate: CertificateSigningRequest `{name}` waits for approval");
    fixture
        .until("it is said", async || fixture.checks.said().iter().any(|said| said.starts_with(&words)))
        .await;
    assert!(shown(&fixture, port, fixture.ours.cert_der()).await.is_some());
    api.decide(&name, cluster.sign(&spec, DAY, DAY * 9));
    fixture
        .until("the cluster's is shown", async || shown(&fixture, port, cluster.der()).await.is_some())
        .await;
    assert_eq!(fixture.checks.said(), [] as [&str; 0]);
    let first = shown(&fixture, port, cluster.der()).await;
    let kept = folder.path().join("kubelet-endpoint/current.pem");
    assert_eq!(std::fs::metadata(&kept).unwrap().mode() & 0o777, 0o600);
    fixture.hive.shutdown(LONG).await;
    // Another life: the same certificate at once, and nothing is asked for.
    let mut again = Fixture::signed_by(api.clone(), signer(folder.path())).await;
    let _link = again.link("edge-1", 2).await;
    let port = again.endpoint("edge-1", 2).await.port;
    again.until("it is shown", async || shown(&again, port, cluster.der()).await == first).await;
    assert_eq!(api.requests(), [name]);
}

#[actix_rt::test]
async fn one_that_is_about_to_end_is_asked_for_anew_with_another_key_and_shown_until_then() {
    let (cluster, folder) = (Cluster::new(), tempfile::tempdir().unwrap());
    let api = Api::new(&Env::real(), Vec::new());
    let mut fixture = Fixture::signed_by(api.clone(), signer(folder.path())).await;
    let _link = fixture.link("edge-1", 1).await;
    let port = fixture.endpoint("edge-1", 1).await.port;
    let name = made(&fixture, 1).await;
    // Beyond nine tenths of its life.
    api.decide(&name, cluster.sign(&api.request(&name), DAY * 99, DAY));
    fixture.until("it is shown", async || shown(&fixture, port, cluster.der()).await.is_some()).await;
    let first = shown(&fixture, port, cluster.der()).await;
    fixture.hive.shutdown(LONG).await;
    let mut again = Fixture::signed_by(api.clone(), signer(folder.path())).await;
    let _link = again.link("edge-1", 2).await;
    let port = again.endpoint("edge-1", 2).await.port;
    made(&again, 2).await;
    let second = api.requests().into_iter().find(|other| *other != name).unwrap();
    assert_eq!(shown(&again, port, cluster.der()).await, first, "the one before is good still");
    api.decide(&second, cluster.sign(&api.request(&second), DAY, DAY * 9));
    let is_new = async || {
        let now = shown(&again, port, cluster.der()).await;
        now.is_some() && now != first
    };
    again.until("another is shown", is_new).await;
}

#[actix_rt::test]
async fn a_refusal_and_a_certificate_that_does_not_fit_are_said_and_our_own_is_shown() {
    let (cluster, folder) = (Cluster::new(), tempfile::tempdir().unwrap());
    let api = Api::new(&Env::real(), Vec::new());
    let mut fixture = Fixture::signed_by(api.clone(), signer(folder.path())).await;
    let _link = fixture.link("edge-1", 1).await;
    let port = fixture.endpoint("edge-1", 1).await.port;
    let name = made(&fixture, 1).await;
    // Signed for somebody else's key.
    let key = pki::ServerKey::new().unwrap();
    let foreign = key.request(&pki::ServerSubject::Plain("x".to_owned()), &pki::SubjectAltNames::default());
    let spec = json!({ "request": encoded(&foreign.unwrap()) });
    api.decide(&name, cluster.sign(&spec, DAY, DAY * 9));
    let is_said = async |words: &str| fixture.checks.said().iter().any(|said| said.contains(words));
    fixture.until("it is said", async || is_said("is not shown: it is for another key").await).await;
    assert!(shown(&fixture, port, fixture.ours.cert_der()).await.is_some());
    fixture.hive.shutdown(LONG).await;
    // A new start asks with another key.
    let fixture = Fixture::signed_by(api.clone(), signer(folder.path())).await;
    made(&fixture, 2).await;
    let second = api.requests().into_iter().find(|other| *other != name).unwrap();
    let denied = json!([{ "type": "Denied", "status": "True", "message": "who is that?" }]);
    api.decide(&second, json!({ "conditions": denied }));
    let words = "is refused (Denied: who is that?)";
    fixture.until("it is said", async || fixture.checks.said().iter().any(|said| said.contains(words))).await;
}
