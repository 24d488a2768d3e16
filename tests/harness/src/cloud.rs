//! The enrolment side of a CloudCore: the real server on a port of its own, its objects behind any client; and joins that need no server.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use beehive::{Address, Capacity, Env, Flow, Hive, Policy};
use cloud_hub::{ClockDoubt, Enrolment, EnrolmentMsg, EnrolmentSettings, LinkedNodes, SecretStore};
use contract::NodeName;
use noderegistry::{Certificate, Entry, NewToken, Registry, TokenClaims};
use pki::{Authorities, CurrentAuthorities};

use crate::account;

/// A day, in seconds.
const DAY: u64 = 86_400;

/// Enrolment's actor in a hive of its own.
pub struct EnrolmentServer {
    /// Where it listens.
    pub address: SocketAddr,
    /// For a fault on purpose.
    pub actor: Address<EnrolmentMsg>,
    /// Its hive.
    pub hive: Hive,
}

impl EnrolmentServer {
    fn start(chain: &str, key: &str, settings: EnrolmentSettings, env: &Env) -> Self {
        let port = Rc::new(https::Port::bind("127.0.0.1:0".parse().unwrap()).unwrap());
        let (address, tls) = (port.address(), settings.tls(chain, key).unwrap());
        let settings = Arc::new(settings);
        let mut hive = Hive::new("enrolment", env.clone());
        let mailbox = hive.mailbox("enrolment", Capacity::new(4, "a test's choice"));
        let actor = hive.grant("a test", &mailbox, Flow::Tell);
        let policy = Policy { backoff_min: Duration::from_millis(10), ..Policy::default() };
        hive.supervise(mailbox, policy, move || {
            Enrolment::new(Rc::clone(&port), tls.clone(), Arc::clone(&settings))
        });
        hive.open().unwrap();
        EnrolmentServer { address, actor, hive }
    }

    /// Stops it in order.
    pub async fn stop(self) {
        self.hive.shutdown(Duration::from_secs(10)).await;
    }
}

/// A running enrolment. Must be made inside an actix system.
pub struct EnrolmentCloud {
    /// The server.
    pub server: EnrolmentServer,
    /// Its CA.
    pub ca_der: Vec<u8>,
    /// The key of its tokens.
    pub token_key: pki::TokenKey,
    /// Who is a node of its.
    pub registry: Registry,
    /// Who is linked to it.
    pub linked: LinkedNodes,
    env: Env,
}

impl EnrolmentCloud {
    /// Starts one on 127.0.0.1.
    pub async fn start(client: kube::Client, env: &Env) -> Self {
        Self::with_token_life(client, env, Duration::from_secs(DAY)).await
    }

    /// Starts one that takes no token which is older than this.
    pub async fn with_token_life(client: kube::Client, env: &Env, token_life: Duration) -> Self {
        let (secrets, registry) = (SecretStore::new(client.clone()), Registry::new(client));
        let authority = secrets.authority(env).await.unwrap();
        let token_key = secrets.token_key(env).await.unwrap();
        let (chain, key) =
            SecretStore::server_certificate(&authority, vec!["127.0.0.1".parse().unwrap()], vec![], env)
                .unwrap();
        let ca_der = authority.cert_der().to_vec();
        let doubt = ClockDoubt::default();
        secrets.compare_clocks(&doubt, env).await.unwrap();
        let linked = LinkedNodes::default();
        let settings = EnrolmentSettings {
            authorities: CurrentAuthorities::new(Authorities::of(authority)),
            token_key: token_key.clone(),
            registry: registry.clone(),
            certificate_life: Duration::from_secs(DAY),
            token_life,
            doubt,
            linked: linked.clone(),
        };
        let server = EnrolmentServer::start(&chain, &key, settings, env);
        EnrolmentCloud { server, ca_der, token_key, registry, linked, env: env.clone() }
    }

    /// A whole token that ends `lifetime` seconds from now: for one name, or for many.
    pub async fn token(&self, lifetime: i64, node: Option<&str>) -> String {
        let id: String = self.env.random_id().iter().map(|byte| format!("{byte:02x}")).collect();
        let expires_unix = unix(self.env.wall()).saturating_add_signed(lifetime);
        let bound = node.map(|node| NodeName::parse(node).unwrap());
        let token = NewToken { id: id.clone(), expires_unix, node: bound, uses: noderegistry::TOKEN_USES };
        self.registry.add_token(&token, 0).await.unwrap();
        self.token_key.mint(&self.ca_der, expires_unix, &id, node).unwrap()
    }
}

/// Enters a certificate into the register, as a join with a token that is bound to its name does; one that lives there is
/// given back first.
pub async fn enter(client: kube::Client, node: &str, serial: &str, now: SystemTime) {
    let (registry, name, now) = (Registry::new(client), NodeName::parse(node).unwrap(), unix(now));
    let found = registry.edge_node(&name).await.unwrap();
    match found.as_ref().and_then(|found| Entry::of(found).living) {
        Some(living) if living == serial => return,
        Some(living) => drop(registry.release(&name, &living).await.unwrap()),
        None => {}
    }
    let id = format!("{node}.{serial}");
    let token = NewToken { id: id.clone(), expires_unix: now + DAY, node: Some(name.clone()), uses: 1 };
    registry.add_token(&token, now).await.unwrap();
    let order = noderegistry::EnrolmentRequest {
        claims: TokenClaims { id, node: Some(node.to_owned()) },
        token: None,
        node: name,
        certificate: Certificate { serial: serial.to_owned(), not_after_unix: now + 365 * DAY },
        now_unix: now,
    };
    registry.enrol(&order).await.unwrap();
}

fn unix(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

/// The stand-alone API with the definitions of the custom resources; it goes with this.
pub struct StandAlone {
    running: cloud_apiserver::Running,
    _folder: tempfile::TempDir,
}

impl StandAlone {
    /// Starts one on 127.0.0.1.
    pub async fn start(env: &Env) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let settings = cloud_apiserver::Settings {
            listen: ([127, 0, 0, 1], 0).into(),
            data_dir: folder.path().join("api"),
            ..cloud_apiserver::Settings::default()
        };
        let running = cloud_apiserver::start(settings, env.clone()).await.unwrap();
        cloud::apply_definitions(&running.client(), env).await.unwrap();
        StandAlone { running, _folder: folder }
    }

    /// A client, as its admin.
    pub fn client(&self) -> kube::Client {
        self.running.client()
    }

    /// The kubeconfig of its admin.
    pub fn kubeconfig(&self) -> std::path::PathBuf {
        self.running.kubeconfig_path().to_owned()
    }

    /// Makes CloudCore's account, and writes a kubeconfig of it for a `cloudcore` that is a process.
    ///
    /// # Panics
    /// When the API refuses a part of it, or the file cannot be written.
    pub async fn write_account(&self, to: &std::path::Path) {
        let admin = self.client();
        account::apply_for_stand_alone(&admin).await;
        account::write_kubeconfig(&admin, self.running.kubeconfig_path(), to).await;
    }
}
