//! The server from its folder to its end.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use beehive::Env;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::AbortHandle;
use http::Request;
use http_body_util::{BodyExt, Limited};
use jiff::Timestamp;
use kubeapi::{Api, BODY_MAX, Options, User, VersionInfo};
use pki::Reach;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use crate::access::AccessControl;
use crate::admission::ClusterPolicy;
use crate::authority::Gate;
use crate::bootstrap;
use crate::controllers;
use crate::folder::{self, FolderError};
use crate::keys::{self, KeyError, Keys};
use crate::serve::{self, Desk};
use crate::store::{OpenError, SqliteStore};

/// A year: the certificate is made anew at each start.
const SERVER_LIFE: Duration = Duration::from_secs(365 * 86_400);

/// How the server is set up.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where it listens; port 0: any.
    pub listen: SocketAddr,
    /// Where it keeps everything.
    pub data_dir: PathBuf,
    /// Addresses and names under which it is reached, beside those of this host.
    pub advertise: Vec<String>,
    /// What the controllers go by.
    pub controllers: controllers::Settings,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            listen: ([127, 0, 0, 1], 6443).into(),
            data_dir: PathBuf::from("/var/lib/kubehive"),
            advertise: Vec::new(),
            controllers: controllers::Settings::default(),
        }
    }
}

/// Why the server did not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// Others could read or exchange what is in the folder.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// A key is not usable.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// The database is not usable.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// Its certificate could not be made.
    #[error("server certificate: {0}")]
    Certificate(String),
    /// The port is taken or the address is not ours.
    #[error("cannot listen at {address}: free the port, or give another --standalone-listen")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The first objects could not be written.
    #[error("the first objects were refused: {0}")]
    Bootstrap(String),
}

/// The running server.
pub struct Running {
    address: SocketAddr,
    kubeconfig: PathBuf,
    api: Api<SqliteStore>,
    stop: watch::Sender<bool>,
    thread: Option<std::thread::JoinHandle<()>>,
    controllers: AbortHandle,
}

/// Starts the server, its first objects and its controllers.
///
/// # Errors
/// See [`StartError`].
pub async fn start(settings: Settings, env: Env) -> Result<Running, StartError> {
    for repaired in folder::secure(&settings.data_dir)? {
        tracing::warn!("{repaired}");
    }
    let keys = Keys::load(&settings.data_dir, &env)?;
    let database = settings.data_dir.join("api.db");
    // SQLite gives its log and its shared memory the mode of the database.
    folder::make_private(&database)?;
    let store = Arc::new(SqliteStore::open(&database)?);
    let (clock, random) = (env.clock(), Arc::from(env.id_source()));
    let certificate = |error: &dyn std::fmt::Display| StartError::Certificate(error.to_string());
    let gate = Gate::new(
        Arc::clone(&store),
        Arc::clone(&clock),
        Arc::clone(&random),
        &keys.token_key,
        &keys.admin_token,
    )
    .map_err(|error| certificate(&error))?;
    let gate = Arc::new(gate);
    let (wall, sleeper) = (Arc::clone(&clock), clock);
    let options = Options {
        now: Arc::new(move || Timestamp::try_from(wall.wall()).unwrap_or_default()),
        random,
        sleep: Arc::new(move |pause| sleeper.sleep(pause)),
        version: VersionInfo {
            major: "1".to_owned(),
            minor: "33".to_owned(),
            git_version: format!("v1.33.0+kubehive.{}", env!("CARGO_PKG_VERSION")),
        },
    };
    let access = Arc::clone(&gate) as Arc<dyn AccessControl>;
    let policy = ClusterPolicy::new(Arc::clone(&store), access, Arc::clone(&options.random));
    let api = Api::new(store, options, Arc::new(policy));
    bootstrap::run(&api).await.map_err(StartError::Bootstrap)?;

    let listening = |source| StartError::Listen { address: settings.listen, source };
    let listener = std::net::TcpListener::bind(settings.listen).map_err(listening)?;
    listener.set_nonblocking(true).map_err(listening)?;
    let address = listener.local_addr().map_err(listening)?;
    let tls = tls(&keys, &settings.advertise, &env)?;
    let (stop, stopped) = watch::channel(false);
    let desk = Desk::new(api.clone(), gate);
    // A thread of its own: a large list must not hold up the links of the nodes.
    let thread = std::thread::Builder::new()
        .name("apiserver".to_owned())
        .spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let served = runtime.and_then(|runtime| {
                runtime.block_on(async {
                    serve::serve(TcpListener::from_std(listener)?, tls, desk, stopped).await;
                    Ok(())
                })
            });
            if let Err(error) = served {
                tracing::error!(%error, "the stand-alone API has ended");
            }
        })
        .map_err(listening)?;

    let host = if address.ip().is_unspecified() { IpAddr::from([127, 0, 0, 1]) } else { address.ip() };
    let server = format!("https://{}", SocketAddr::new(host, address.port()));
    let kubeconfig = settings.data_dir.join("admin.kubeconfig");
    keys::write(&kubeconfig, &keys::kubeconfig(&server, &keys.authority, &keys.admin_token))?;

    let (task, registration) = AbortHandle::new_pair();
    let run = controllers::run(
        client_of(&api, bootstrap::controllers()),
        env.clone(),
        controllers::Settings { ca_pem: keys.authority.cert_pem().to_owned(), ..settings.controllers },
    );
    env.spawn(futures::future::Abortable::new(run, registration).map(|_| ()));
    Ok(Running { address, kubeconfig, api, stop, thread: Some(thread), controllers: task })
}

impl Running {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The admin's kubeconfig.
    pub fn kubeconfig_path(&self) -> &Path {
        &self.kubeconfig
    }

    /// A client inside this process, as `system:masters`.
    pub fn client(&self) -> kube::Client {
        client_of(&self.api, bootstrap::loopback())
    }

    /// Stops listening, ends what is open and the controllers. What was answered is on disk.
    pub async fn stop(mut self, deadline: Duration) {
        self.controllers.abort();
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take() {
            let joined = tokio::task::spawn_blocking(move || thread.join());
            if tokio::time::timeout(deadline, joined).await.is_err() {
                tracing::warn!("the stand-alone API did not end in time");
            }
        }
    }
}

/// A client whose requests go to the rules without a socket.
pub(crate) fn client_of(api: &Api<SqliteStore>, user: User) -> kube::Client {
    let (api, user) = (api.clone(), Arc::new(user));
    let service = tower::service_fn(move |request: Request<kube::client::Body>| {
        let (api, user) = (api.clone(), Arc::clone(&user));
        async move {
            let (parts, body) = request.into_parts();
            let body = Limited::new(body, BODY_MAX + 1).collect().await;
            let body = body.map_or_else(|_| Bytes::from(vec![0; BODY_MAX + 1]), |body| body.to_bytes());
            let response = api.handle(Request::from_parts(parts, body), &user).await;
            Ok::<_, Infallible>(serve::reply(response))
        }
    });
    kube::Client::new(service, "default")
}

fn tls(keys: &Keys, advertise: &[String], env: &Env) -> Result<TlsAcceptor, StartError> {
    let certificate = |error: &dyn std::fmt::Display| StartError::Certificate(error.to_string());
    let own = [
        "127.0.0.1",
        "::1",
        "10.96.0.1",
        "localhost",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
    ];
    let all = own.into_iter().chain(advertise.iter().map(String::as_str));
    let (mut addresses, mut names) = (Vec::new(), Vec::new());
    for reached in all {
        match reached.parse::<IpAddr>() {
            Ok(address) => addresses.push(address),
            Err(_) => names.push(reached.to_owned()),
        }
    }
    let (issued, key) = keys
        .authority
        .server(&Reach { addresses, names }, env.wall(), SERVER_LIFE, env.random_id())
        .map_err(|error| certificate(&error))?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|error| certificate(&error))?;
    let chain =
        vec![CertificateDer::from(issued.der), CertificateDer::from(keys.authority.cert_der().to_vec())];
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| certificate(&error))?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| certificate(&error))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
