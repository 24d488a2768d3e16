//! A CloudCore that starts beside an API server that is away, or that does not take it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use beehive::link::quic::Credentials;
use beehive::link::quic_dialer::QuicDialer;
use beehive::link::{Dialer as _, Hello, Link, Routes};
use beehive::{Clock, Env, Moment, TokioClock};
use cloud::{ApiServer, ApiServerError, CloudCore, StartError, Transport, api_client};
use config::SigningDuration;
use config::cloud::CloudCore as Settings;
use contract::NodeName;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::Secret;
use kube::api::Api;
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};
use noderegistry::{Certificate, NewToken, Registry, TokenClaims};
use secrecy::ExposeSecret as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const LONG: Duration = Duration::from_secs(60);

/// A port that nobody has now.
fn free_port() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

async fn api(folder: &Path, listen: SocketAddr) -> cloud_apiserver::Running {
    let data_dir = folder.join("api");
    let settings = cloud_apiserver::Settings { listen, data_dir, ..cloud_apiserver::Settings::default() };
    cloud_apiserver::start(settings, Env::real()).await.unwrap()
}

/// What CloudCore starts with by this kubeconfig.
async fn start(kubeconfig: Kubeconfig, monitor: SocketAddr) -> Result<CloudCore, StartError> {
    let options = KubeConfigOptions::default();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await.unwrap();
    let url = config.cluster_url.to_string();
    start_by(kube::Client::try_from(config).unwrap(), url, monitor, Env::real()).await
}

async fn start_by(
    client: kube::Client,
    url: String,
    monitor: SocketAddr,
    env: Env,
) -> Result<CloudCore, StartError> {
    let mut settings = Settings::default();
    settings.common_config.monitor_server.bind_address = monitor.to_string();
    let hub = &mut settings.modules.cloud_hub;
    hub.advertise_address = vec!["127.0.0.1".to_owned()];
    // What has ended by the clock gets as far as no hello.
    hub.edge_cert_grace_duration = SigningDuration(Duration::ZERO);
    for listener in [&mut hub.quic, &mut hub.https] {
        (listener.address, listener.port) = ("127.0.0.1".to_owned(), 0);
    }
    hub.websocket.enable = false;
    let endpoint = &mut settings.modules.cloud_stream.kubelet_endpoint;
    (endpoint.bind_address, endpoint.first_port) = ("127.0.0.1".to_owned(), 0);
    let api = ApiServer { url, ..ApiServer::default() };
    CloudCore::start_with(&settings, client, Transport::Quic, env, api).await
}

/// What a node shows that joined with a certificate of an hour, which this CA has signed by a clock that is right.
async fn joined(client: &kube::Client, node: &str) -> Credentials {
    let secret = Api::<Secret>::namespaced(client.clone(), "kubeedge").get("casecret").await.unwrap();
    let data = secret.data.unwrap();
    let text = |key: &str| String::from_utf8(data[key].0.clone()).unwrap();
    let authority = pki::Authority::from_pem(&text("cadata"), &text("cakeydata")).unwrap();
    let request = pki::NodeRequest::new(node).unwrap();
    let (now, life) = (SystemTime::now(), Duration::from_secs(3600));
    let issued = authority.sign_node(&request.csr_der, node, now, life, [3; 16]).unwrap();
    let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let (registry, name) = (Registry::new(client.clone()), NodeName::parse(node).unwrap());
    let (id, ends) = ("a-token".to_owned(), now + 3600);
    let token = NewToken { id: id.clone(), expires_unix: ends, node: Some(name.clone()), uses: 1 };
    registry.add_token(&token, now).await.unwrap();
    let order = noderegistry::EnrolmentRequest {
        claims: TokenClaims { id, node: Some(node.to_owned()) },
        token: None,
        node: name,
        certificate: Certificate { serial: issued.serial.clone(), not_after_unix: ends },
        now_unix: now,
    };
    registry.enrol(&order).await.unwrap();
    Credentials {
        certificate: issued.pem,
        key: request.key_pem.into(),
        authority: authority.cert_pem().to_owned(),
    }
}

/// A clock that is weeks ahead.
struct Ahead(TokioClock);

const AHEAD: Duration = Duration::from_secs(30 * 86_400);

impl Clock for Ahead {
    fn now(&self) -> Moment {
        self.0.now()
    }
    fn wall(&self) -> SystemTime {
        self.0.wall() + AHEAD
    }
    fn sleep(&self, pause: Duration) -> BoxFuture<'static, ()> {
        self.0.sleep(pause)
    }
}

/// The same API, which says what time it is.
fn saying_the_time(inner: kube::Client) -> kube::Client {
    let answer = move |request: http::Request<Body>| {
        let inner = inner.clone();
        async move {
            let date = k8s_openapi::jiff::Timestamp::now().strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
            let mut answer = inner.send(request).await?;
            answer.headers_mut().insert(http::header::DATE, date.parse().unwrap());
            Ok::<_, kube::Error>(answer)
        }
    };
    kube::Client::new(tower::service_fn(answer), "default")
}

async fn get(at: SocketAddr, path: &str) -> String {
    let Ok(mut stream) = tokio::net::TcpStream::connect(at).await else { return String::new() };
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let mut answer = String::new();
    let _ = stream.write_all(request.as_bytes()).await;
    let _ = stream.read_to_string(&mut answer).await;
    answer
}

async fn until(what: &str, is_so: impl AsyncFn() -> bool) {
    let looked = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LONG, looked).await.expect(what);
}

/// The kubeconfig of an API that ran at this address once.
async fn kubeconfig_of_one_that_ran(folder: &Path, at: SocketAddr) -> Kubeconfig {
    let api = api(folder, at).await;
    let kubeconfig = Kubeconfig::read_from(PathBuf::from(api.kubeconfig_path())).unwrap();
    api.stop(LONG).await;
    kubeconfig
}

#[test]
fn one_that_is_away_is_waited_for_and_named() {
    actix_rt::System::new().block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let (at, monitor) = (free_port(), free_port());
        let kubeconfig = kubeconfig_of_one_that_ran(folder.path(), at).await;
        let started = actix_rt::spawn(start(kubeconfig, monitor));
        let url = format!("https://{at}");
        until("it says what it waits for", async || {
            let health = get(monitor, "/healthz").await;
            health.starts_with("HTTP/1.1 503 ") && health.contains(&url) && health.contains("refused")
        })
        .await;
        assert!(get(monitor, "/readyz").await.starts_with("HTTP/1.1 503 "));
        assert!(get(monitor, "/livez").await.starts_with("HTTP/1.1 200 "), "a new start would mend nothing");
        assert!(!started.is_finished());

        let api = api(folder.path(), at).await;
        let core = tokio::time::timeout(LONG, started).await.expect("it starts").unwrap().unwrap();
        until("it is ready", async || get(monitor, "/readyz").await.starts_with("HTTP/1.1 200 ")).await;
        core.stop(LONG).await;
        api.stop(LONG).await;
    });
}

#[test]
fn one_that_does_not_take_cloudcore_ends_the_start_and_says_why() {
    actix_rt::System::new().block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let api = api(folder.path(), "127.0.0.1:0".parse().unwrap()).await;
        let good = || Kubeconfig::read_from(PathBuf::from(api.kubeconfig_path())).unwrap();
        let refused = async |kubeconfig: Kubeconfig| {
            let started = tokio::time::timeout(LONG, start(kubeconfig, free_port())).await;
            match started.expect("waiting mends nothing") {
                Err(StartError::ApiServer(why)) => why,
                Err(other) => panic!("{other}"),
                Ok(_) => panic!("it starts"),
            }
        };

        let mut other_ca = good();
        let authority = pki::Authority::create(std::time::SystemTime::now(), [7; 16]).unwrap();
        let file = folder.path().join("other.crt");
        std::fs::write(&file, authority.cert_pem()).unwrap();
        let cluster = other_ca.clusters[0].cluster.as_mut().unwrap();
        cluster.certificate_authority_data = None;
        cluster.certificate_authority = Some(file.to_string_lossy().into_owned());
        let why = refused(other_ca).await;
        assert!(matches!(why, ApiServerError::ServerCertificate { .. }), "{why}");
        assert!(why.to_string().contains(&format!("https://{}", api.address())), "{why}");

        let mut other_token = good();
        let user = other_token.auth_infos[0].auth_info.as_mut().unwrap();
        user.token = Some("bm9ib2R5".to_owned().into());
        let why = refused(other_token).await;
        assert!(matches!(why, ApiServerError::Unauthorized { .. }), "{why}");

        let mut nobody = good();
        nobody.auth_infos[0].auth_info.as_mut().unwrap().impersonate = Some("nobody".to_owned());
        let why = refused(nobody).await;
        assert!(matches!(why, ApiServerError::Forbidden { .. }), "{why}");
        api.stop(LONG).await;
    });
}

#[test]
fn one_that_starts_with_a_clock_weeks_ahead_compares_it_before_it_dates_anything() {
    actix_rt::System::new().block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let api = api(folder.path(), "127.0.0.1:0".parse().unwrap()).await;
        let client = saying_the_time(api.client());
        let env = Env::real().with_clock(Arc::new(Ahead(TokioClock::real())));
        let url = format!("https://{}", api.address());
        let started = start_by(client.clone(), url, free_port(), env).await.unwrap();
        // The first thing that it dates is its CA.
        let secret = Api::<Secret>::namespaced(client, "kubeedge").get("casecret").await.unwrap();
        let pem = String::from_utf8(secret.data.unwrap()["cadata"].0.clone()).unwrap();
        let made = pki::authorities_of_pem(&pem).unwrap();
        let begins = pki::validity_of(&made[0]).unwrap().not_before;
        assert!(begins <= SystemTime::now(), "{begins:?}");
        started.stop(LONG).await;
        api.stop(LONG).await;
    });
}

#[test]
fn one_whose_clock_is_weeks_ahead_and_in_doubt_lets_its_nodes_in() {
    actix_rt::System::new().block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let api = api(folder.path(), "127.0.0.1:0".parse().unwrap()).await;
        let client = saying_the_time(api.client());
        let env = Env::real().with_clock(Arc::new(Ahead(TokioClock::real())));
        let url = format!("https://{}", api.address());
        let monitor = free_port();
        let started = start_by(client.clone(), url, monitor, env).await.unwrap();
        // Both faults are said by their names, with the cure, and are no reason to start anew.
        let health = get(monitor, "/healthz").await;
        assert!(health.starts_with("HTTP/1.1 200 "), "{health}");
        for words in [
            "Clock: this machine's clock and the API server's are 2",
            "AdvertiseAddress: modules.cloudHub.advertiseAddress is 127.0.0.1 alone",
        ] {
            assert!(health.contains(words), "{words}: {health}");
        }
        let shown = joined(&client, "edge-1").await;
        let port = started.link_address().unwrap().port();
        let connection = QuicDialer::new("127.0.0.1", port, &shown).unwrap().dial().await.unwrap();
        let hello = Hello::of("system:node:edge-1");
        let link = Link::connect(&Env::real(), connection, &hello, Routes::new()).await;
        let link = link.expect("a node whose certificate is good by the API server's clock");
        drop(link);
        started.stop(LONG).await;
        api.stop(LONG).await;
    });
}

/// Editors and `echo` end the line.
#[test]
fn a_token_file_is_taken_as_kubectl_takes_it() {
    actix_rt::System::new().block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let api = api(folder.path(), "127.0.0.1:0".parse().unwrap()).await;
        let (file, token_file) = (folder.path().join("kubeconfig"), folder.path().join("token"));
        let mut kubeconfig = Kubeconfig::read_from(PathBuf::from(api.kubeconfig_path())).unwrap();
        let user = kubeconfig.auth_infos[0].auth_info.as_mut().unwrap();
        let token = user.token.take().unwrap();
        user.token_file = Some(token_file.to_string_lossy().into_owned());
        std::fs::write(&file, serde_json::to_string(&kubeconfig).unwrap()).unwrap();
        let client = async || api_client(&Settings::default(), Some(&file)).await;

        std::fs::write(&token_file, format!("{}\n", token.expose_secret())).unwrap();
        let (client_of_file, server) = client().await.unwrap();
        assert_eq!(server.url, format!("https://{}/", api.address()));
        Api::<Secret>::namespaced(client_of_file, "default").get_opt("none").await.unwrap();

        std::fs::write(&token_file, "two\nlines\n").unwrap();
        let refused = client().await.map(|_| ()).unwrap_err();
        let told = daemon::sentence(&refused);
        for part in [file.to_string_lossy(), token_file.to_string_lossy(), "no HTTP header".into()] {
            assert!(told.contains(&*part), "{part}: {told}");
        }
        api.stop(LONG).await;
    });
}
