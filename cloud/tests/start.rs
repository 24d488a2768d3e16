//! A CloudCore that starts beside an API server that is away, or that does not take it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use beehive::Env;
use cloud::{ApiServer, ApiServerError, CloudCore, StartError, Transport};
use config::cloud::CloudCore as Settings;
use kube::config::{KubeConfigOptions, Kubeconfig};
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
    let mut settings = Settings::default();
    settings.common_config.monitor_server.bind_address = monitor.to_string();
    let hub = &mut settings.modules.cloud_hub;
    for listener in [&mut hub.quic, &mut hub.https] {
        (listener.address, listener.port) = ("127.0.0.1".to_owned(), 0);
    }
    hub.websocket.enable = false;
    let endpoint = &mut settings.modules.cloud_stream.kubelet_endpoint;
    (endpoint.bind_address, endpoint.first_port) = ("127.0.0.1".to_owned(), 0);
    let options = KubeConfigOptions::default();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await.unwrap();
    let url = config.cluster_url.to_string();
    let client = kube::Client::try_from(config).unwrap();
    let api = ApiServer { url, ..ApiServer::default() };
    CloudCore::start_with(&settings, client, Transport::Quic, Env::real(), api).await
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
