//! The stand-alone API from its folder to its end: what it is made of, and its actors.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use beehive::{Capacity, Ended, Env, Hive, Inspector, Mailbox, Policy};
use https::{Port, Tls};
use jiff::Timestamp;
use kubeapi::{Api, Options, VersionInfo};
use nodecalls::NodeCalls;

use crate::access::AccessControl;
use crate::actor::{ApiServer, ApiServerMsg};
use crate::admission::ClusterPolicy;
use crate::authenticator::Authenticator;
use crate::bootstrap;
use crate::certificate::ServerCertificate;
use crate::controllers::{self, ControllerManagerMsg};
use crate::error::StartError;
use crate::event_ttl::{self, EventTtl, EventTtlMsg};
use crate::folder;
use crate::handler::ApiHandler;
use crate::keys::{self, Keys};
use crate::kubelets::Kubelets;
use crate::loopback::client_of;
use crate::store::SqliteStore;

const API_SERVER: &str = "cloud-apiserver";
const CONTROLLER_MANAGER: &str = "controller-manager";
const EVENT_TTL: &str = "event-ttl";

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
    pub controllers: controllers::ControllerSettings,
    /// How long an Event lives after it was last written, with one sixtieth of that as the error (Kubernetes: `--event-ttl`).
    pub event_ttl: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            listen: ([127, 0, 0, 1], 6443).into(),
            data_dir: PathBuf::from("/var/lib/kubehive"),
            advertise: Vec::new(),
            controllers: controllers::ControllerSettings::default(),
            event_ttl: event_ttl::LIFE,
        }
    }
}

/// The stand-alone API before its actors run: everything that outlives their incarnations. Requests of [`StandAlone::client`] are
/// answered from now on, and what connects to its port waits there.
pub struct StandAlone {
    port: Rc<Port>,
    tls: Tls,
    certificate: Rc<ServerCertificate>,
    kubeconfig: PathBuf,
    store: Arc<SqliteStore>,
    kubeconfig_text: String,
    api: Api<SqliteStore>,
    handler: ApiHandler,
    kubelets: Kubelets,
    controllers: controllers::ControllerSettings,
    event_ttl: Duration,
}

impl StandAlone {
    /// Opens the folder, writes the first objects and binds the port.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn open(settings: Settings, env: &Env) -> Result<Self, StartError> {
        let (lock, repaired) = folder::open(&settings.data_dir)?;
        for repaired in repaired {
            tracing::warn!("{repaired}");
        }
        let keys = Keys::load(&settings.data_dir, env)?;
        let database = settings.data_dir.join("api.db");
        // SQLite gives its log and its shared memory the mode of the database.
        folder::make_private(&database)?;
        let store = Arc::new(SqliteStore::open(&database)?.locked(lock));
        let (clock, random) = (env.clock(), Arc::from(env.id_source()));
        let authenticator = Authenticator::new(
            Arc::clone(&store),
            Arc::clone(&clock),
            Arc::clone(&random),
            &keys.token_key,
            &keys.admin_token,
        );
        let authenticator =
            Arc::new(authenticator.map_err(|error| StartError::Certificate(error.to_string()))?);
        let (wall, sleeper) = (Arc::clone(&clock), clock);
        let options = Options {
            now: Arc::new(move || Timestamp::try_from(wall.wall()).unwrap_or_default()),
            random,
            sleep: Arc::new(move |pause| sleeper.sleep(pause)),
            version: VersionInfo {
                major: "1".to_owned(),
                minor: "36".to_owned(),
                git_version: format!("v1.36.0+kubehive.{}", env!("CARGO_PKG_VERSION")),
            },
        };
        let access = Arc::clone(&authenticator) as Arc<dyn AccessControl>;
        let policy = ClusterPolicy::new(Arc::clone(&store), access, Arc::clone(&options.random));
        let api = Api::new(Arc::clone(&store), options, Arc::new(policy));
        bootstrap::run(&api).await.map_err(StartError::Bootstrap)?;

        let port = Port::bind(settings.listen)
            .map_err(|source| StartError::Listen { address: settings.listen, source })?;
        let address = port.address();
        let host = if address.ip().is_unspecified() { IpAddr::from([127, 0, 0, 1]) } else { address.ip() };
        let server = format!("https://{}", SocketAddr::new(host, address.port()));
        let kubeconfig = settings.data_dir.join("admin.kubeconfig");
        let kubeconfig_text = keys::kubeconfig(&server, &keys.authority, &keys.admin_token);
        let controllers = controllers::ControllerSettings {
            ca_pem: keys.authority.cert_pem().to_owned(),
            ..settings.controllers
        };
        let certificate = ServerCertificate::new(keys.authority, &settings.advertise);
        let tls = certificate.issue(env)?;
        let kubelets = Kubelets::default();
        let handler = ApiHandler::new(api.clone(), authenticator, kubelets.clone(), env.metrics().clone());
        Ok(StandAlone {
            port: Rc::new(port),
            tls,
            certificate: Rc::new(certificate),
            kubeconfig,
            kubeconfig_text,
            store,
            api,
            handler,
            kubelets,
            controllers,
            event_ttl: settings.event_ttl,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Where the admin's kubeconfig is, once it was written.
    pub fn kubeconfig_path(&self) -> &Path {
        &self.kubeconfig
    }

    /// From now on logs, commands and whatever else is asked of a node go by these calls: of the CloudCore in this process.
    pub fn reach_nodes(&self, calls: NodeCalls) {
        self.kubelets.set(calls);
    }

    /// Writes the admin's kubeconfig. Whoever starts the daemon does so when nothing can go wrong any more: one that a start
    /// that failed left behind would name a server that is not there.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write_kubeconfig(&self) -> Result<(), StartError> {
        Ok(keys::write(&self.kubeconfig, &self.kubeconfig_text)?)
    }

    /// A client inside this process, as `system:masters`.
    pub fn client(&self) -> kube::Client {
        client_of(&self.api, bootstrap::loopback())
    }
}

/// The mailboxes of its actors.
pub struct StandAloneMailboxes {
    /// The API server's: for a fault on purpose.
    pub api_server: Mailbox<ApiServerMsg>,
    controller_manager: Mailbox<ControllerManagerMsg>,
    event_ttl: Mailbox<EventTtlMsg>,
}

/// Registers its mailboxes: an API server, a controller manager and one who lets events end, whom nobody tells anything.
pub fn mailboxes(hive: &mut Hive) -> StandAloneMailboxes {
    let api_server = hive.mailbox(API_SERVER, Capacity::new(2, "its server ends once, and its own timer"));
    let controller_manager = hive.mailbox(CONTROLLER_MANAGER, Capacity::new(1, "nobody tells it anything"));
    controllers::declare_children(hive, CONTROLLER_MANAGER);
    let event_ttl = hive.mailbox(EVENT_TTL, Capacity::new(1, "its own timer"));
    StandAloneMailboxes { api_server, controller_manager, event_ttl }
}

/// Makes its actors. They cannot go on without the writer of its database, and no one makes another: the daemon ends with it.
pub fn actors(hive: &mut Hive, mailboxes: StandAloneMailboxes, api: &StandAlone) {
    hive.depend_on(api.store.writer_ended());
    let (port, tls, handler) = (Rc::clone(&api.port), api.tls.clone(), api.handler.clone());
    let certificate = Rc::clone(&api.certificate);
    hive.supervise(mailboxes.api_server, Policy::default(), move || {
        ApiServer::new(Rc::clone(&port), tls.clone(), Rc::clone(&certificate), handler.clone())
    });
    let client = client_of(&api.api, bootstrap::controllers());
    controllers::supervise(hive, mailboxes.controller_manager, client, api.controllers.clone());
    let (store, ttl) = (Arc::clone(&api.store), api.event_ttl);
    hive.supervise(mailboxes.event_ttl, EventTtl::<SqliteStore>::policy(), move || {
        EventTtl::new(Arc::clone(&store), ttl)
    });
}

/// The stand-alone API in a hive of its own: beside a CloudCore that comes and goes, as in tests.
pub struct Running {
    api: StandAlone,
    hive: Hive,
}

/// Opens it and starts its actors in a hive of their own.
///
/// # Errors
/// See [`StartError`].
pub async fn start(settings: Settings, env: Env) -> Result<Running, StartError> {
    let api = StandAlone::open(settings, &env).await?;
    let mut hive = Hive::new("apiserver", env);
    let mailboxes = mailboxes(&mut hive);
    actors(&mut hive, mailboxes, &api);
    hive.open()?;
    api.write_kubeconfig()?;
    Ok(Running { api, hive })
}

impl Running {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.api.address()
    }

    /// The admin's kubeconfig.
    pub fn kubeconfig_path(&self) -> &Path {
        self.api.kubeconfig_path()
    }

    /// See [`StandAlone::reach_nodes`].
    pub fn reach_nodes(&self, calls: NodeCalls) {
        self.api.reach_nodes(calls);
    }

    /// A client inside this process, as `system:masters`.
    pub fn client(&self) -> kube::Client {
        self.api.client()
    }

    /// Reads the state of its actors.
    pub fn inspector(&self) -> Inspector {
        self.hive.inspector()
    }

    /// Stops its actors in order, within `deadline`. What was answered is on disk.
    pub async fn stop(self, deadline: Duration) -> Ended {
        self.hive.shutdown(deadline).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[actix_rt::test]
    async fn events_that_nobody_writes_again_end() {
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings {
            listen: ([127, 0, 0, 1], 0).into(),
            data_dir: folder.path().join("api"),
            event_ttl: Duration::from_millis(600),
            ..Settings::default()
        };
        let api = start(settings, Env::real()).await.unwrap();
        let events: kube::Api<k8s_openapi::api::core::v1::Event> =
            kube::Api::default_namespaced(api.client());
        let event =
            serde_json::json!({"metadata": {"name": "e"}, "involvedObject": {"kind": "Node", "name": "n"}});
        events
            .create(&kube::api::PostParams::default(), &serde_json::from_value(event).unwrap())
            .await
            .unwrap();
        let wait = async {
            while events.get_opt("e").await.unwrap().is_some() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(120), wait).await.unwrap();
        api.stop(Duration::from_secs(10)).await;
    }

    #[actix_rt::test]
    async fn the_daemon_ends_with_the_writer_of_the_database() {
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings {
            listen: ([127, 0, 0, 1], 0).into(),
            data_dir: folder.path().join("api"),
            ..Settings::default()
        };
        let env = Env::real();
        let mut api = StandAlone::open(settings, &env).await.unwrap();
        let store = SqliteStore::open(&folder.path().join("other.db")).unwrap();
        api.store = Arc::new(store.with_a_dead_writer());
        let mut hive = Hive::new("apiserver", env);
        let mailboxes = mailboxes(&mut hive);
        actors(&mut hive, mailboxes, &api);
        hive.open().unwrap();
        assert_eq!(hive.gave_up().await, "the thread `api-writer` panicked: a test planned it");
        hive.shutdown(Duration::from_secs(5)).await;
    }
}
