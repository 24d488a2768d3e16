//! CloudCore from its first write to its end.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use beehive::link::quic::{LiveCredentials, QuicAcceptor};
use beehive::link::{Acceptor, Acceptors};
use beehive::{Ended, Env, Fault, Hive, Message, WiringError};
use cloud_apiserver::StandAlone;
use cloud_edgecontroller::PodAddresses;
use cloud_hub::{
    KeeperDependencies, KnownCertificates, SecretStore, ServerCertificate, ShownChain, WebSocketListener,
    websocket_queue,
};
use cloud_router::{DoorSettings, PeerSettings};
use cloud_stream::{Check, Checks};
use config::cloud::{CloudCore as Settings, CloudHub as HubSettings};
use kubewatch::{Budget, Interruptions, ReadAs};
use nodecalls::NodeCalls;
use noderegistry::Registry;
use pki::CurrentAuthorities;
use trace_exporter::Service;

use crate::addresses::{bind, ip, socket};
use crate::api_server;
use crate::certificates::{self, Certificates};
use crate::crds;
use crate::kubelet_endpoint;
use crate::listeners::{self, FallbackListener};
use crate::monitor::{MonitorPorts, Watched};
use crate::request_counts::RequestCounts;
use crate::start_checks;
use crate::start_error::StartError;
use crate::start_pages::StartPages;
use crate::topology::{self, Dependencies, RuleSettings};

/// Where nodes arrive.
pub enum Transport {
    /// QUIC, at the address of the settings.
    Quic,
    /// Something else: a harness brings its own.
    Given(Box<dyn Acceptor>),
}

/// What is known of the API server beside the client that asks it.
#[derive(Default)]
pub struct ApiServer {
    /// Where it is, for people; empty: in this process.
    pub url: String,
    /// The stand-alone one, whose actors run in CloudCore's hive.
    pub standalone: Option<StandAlone>,
    /// What the client counts.
    pub requests: RequestCounts,
}

/// A running CloudCore.
pub struct CloudCore {
    hive: Hive,
    enrolment: SocketAddr,
    monitor: MonitorPorts,
    link: Option<SocketAddr>,
    websocket: Option<SocketAddr>,
    calls: NodeCalls,
    door: Option<SocketAddr>,
}

impl CloudCore {
    /// Starts everything, in this order: the admin endpoint's ports, definitions, certificates, the other ports, the actors. It waits for
    /// an API server that is away.
    ///
    /// # Errors
    /// See [`StartError`]: each says what is missing.
    pub async fn start(
        settings: &Settings,
        client: kube::Client,
        transport: Transport,
        env: Env,
    ) -> Result<Self, StartError> {
        Self::start_with(settings, client, transport, env, ApiServer::default()).await
    }

    /// The same, with what is known of the API server that `client` asks. It may be a stand-alone one's: that answers before its
    /// actors run.
    ///
    /// # Errors
    /// See [`StartError`]: each says what is missing.
    pub async fn start_with(
        settings: &Settings,
        client: kube::Client,
        transport: Transport,
        env: Env,
        ApiServer { url, standalone: api, requests }: ApiServer,
    ) -> Result<Self, StartError> {
        let (hub, namespace) = (&settings.modules.cloud_hub, settings.common_config.namespace.as_str());
        let traces = &settings.common_config.tracing;
        let env = trace_exporter::traced(env, traces, ("CloudHub send", "CloudHub receive"));
        let identity = identity(&env);
        tracing::info!(identity, "this CloudCore");
        let monitor = monitor_ports(&settings.common_config.monitor_server)?;
        let budget = daemon::memory::limit().map_or_else(Budget::default, Budget::of_memory);
        let interruptions = Interruptions::within(budget);
        let registry = Registry::new(client.clone()).with_interruptions(interruptions.clone());
        let asked = async || {
            crds::apply(&client, &env).await?;
            tracing::info!("custom resources are served");
            let read_as = ReadAs::probe(&client, namespace).await?;
            Ok((read_as, Certificates::make(hub, (&client, namespace), registry.clone(), &env).await?))
        };
        let mut pages = StartPages::new(monitor.clone());
        let answered = api_server::until_answered(&url, &mut pages, &env, asked).await;
        pages.end().await;
        let (read_as, certificates) = answered?;
        let Certificates { enrolment, credentials, authorities, mut server, chain, doubt } = certificates;
        let Listeners { acceptor, link, fallback } = listen(hub, transport, &credentials)?;
        let websocket = fallback.as_ref().map(|fallback| fallback.port.address());
        let enrolment_address = enrolment.port.address();
        let calls = kubelet_endpoint::calls(settings, &env);
        let serving = kubelet_endpoint::serving(settings, &authorities, api.is_none())?;
        let peers = peers(settings, &identity, &authorities, &env)?;
        let rules = rules(&settings.modules.router, (&chain, &mut server), peers)?;
        let (checks, clock_doubt) = (Checks::default(), doubt.clone());
        if let Some(words) = start_checks::advertise_address(hub) {
            checks.failed(Check::AdvertiseAddress, &words);
            tracing::warn!(check = Check::AdvertiseAddress.name(), "check of this CloudCore fails: {words}");
        }
        let watched = Watched { interruptions: interruptions.clone(), checks, clock_doubt, requests };
        let frequency = u64::from(settings.modules.edge_controller.node_update_frequency);
        let door = rules.door.as_ref().map(DoorSettings::address);
        let (keeper_client, known) = (client.clone(), KnownCertificates::default());
        let dependencies = Dependencies {
            client,
            acceptor,
            registry,
            node_limit: hub.node_limit,
            lease_period: Duration::from_secs(frequency),
            pod_addresses: match settings.modules.edge_controller.pod_addresses {
                config::cloud::PodAddresses::Any => PodAddresses::Any,
                config::cloud::PodAddresses::OfNode => PodAddresses::OfNode,
            },
            identity,
            read_as,
            interruptions,
            calls: calls.clone(),
            checks: watched.checks.clone(),
            serving,
            rules,
            does_jobs: settings.modules.task_manager.enable,
            renewal: Some(certificates::renewal(hub, authorities.clone(), doubt.clone())),
            known: known.clone(),
            linked: enrolment.settings.linked.clone(),
        };
        let csi_socket = hub.unixsocket.path().map(|path| (path.to_owned(), calls.clone()));
        let has_csi_socket = csi_socket.is_some();
        let listening = listeners::ListenerDependencies {
            enrolment,
            fallback,
            monitor: monitor.clone(),
            watched,
            csi_socket,
            known,
        };
        let (secrets, server) = (SecretStore::new(keeper_client).in_namespace(namespace), Rc::new(server));
        let lives = certificates::lives(hub);
        let mut hive = Hive::new("cloudcore", env);
        // First, so that it stops last.
        trace_exporter::supervise(&mut hive, traces, Service { name: "cloudcore", node: None });
        // And before the others, for the same reason.
        if let Some(api) = &api {
            api.reach_nodes(calls.clone());
            let mailboxes = cloud_apiserver::mailboxes(&mut hive);
            cloud_apiserver::actors(&mut hive, mailboxes, api);
        }
        let mailboxes = topology::mailboxes(&mut hive);
        let hub = mailboxes.certificates_to_hub.clone();
        let listeners = listeners::mailboxes(&mut hive, websocket.is_some(), has_csi_socket);
        topology::actors(&mut hive, mailboxes, dependencies);
        let keeper = KeeperDependencies { secrets, lives, authorities, server, hub, doubt };
        listeners::actors(&mut hive, listeners, listening, keeper);
        hive.open()?;
        // Every port is bound: this start does not fail any more.
        if let Some(api) = &api {
            api.write_kubeconfig().map_err(|error| StartError::StandAlone(Box::new(error)))?;
        }
        Ok(CloudCore { hive, enrolment: enrolment_address, monitor, link, websocket, calls, door })
    }

    /// Where enrolment listens.
    pub fn enrolment_address(&self) -> SocketAddr {
        self.enrolment
    }

    /// Where the link listens, if it is QUIC.
    pub fn link_address(&self) -> Option<SocketAddr> {
        self.link
    }

    /// Where the link's fallback listens, if it does.
    pub fn websocket_address(&self) -> Option<SocketAddr> {
        self.websocket
    }

    /// Where the admin endpoint listens.
    pub fn monitor_address(&self) -> SocketAddr {
        self.monitor.address()
    }

    /// Where HTTP clients call what rules lead to nodes, if they may.
    pub fn rule_door_address(&self) -> Option<SocketAddr> {
        self.door
    }

    /// The way to its nodes' kubelet endpoints.
    pub fn calls(&self) -> NodeCalls {
        self.calls.clone()
    }

    /// Reads the state of every actor.
    pub fn inspector(&self) -> beehive::Inspector {
        self.hive.inspector()
    }

    /// Lets a probe look at every message that an actor is handed: see [`Hive::tap`].
    ///
    /// # Errors
    /// See [`Hive::tap`].
    pub fn tap<M: Message>(
        &self,
        mailbox: &str,
        see: impl Fn(&M) + Send + Sync + 'static,
    ) -> Result<(), WiringError> {
        self.hive.tap(mailbox, see)
    }

    /// Waits until an actor has given up, and says why.
    pub async fn gave_up(&mut self) -> String {
        self.hive.gave_up().await
    }

    /// Stops everything in order, within `deadline`.
    pub async fn stop(self, deadline: Duration) -> Ended {
        self.hive.shutdown(deadline).await
    }
}

fn monitor_ports(settings: &config::cloud::MonitorServer) -> Result<MonitorPorts, StartError> {
    let healthz = &settings.healthz_bind_address;
    let healthz = (!healthz.is_empty()).then(|| socket(healthz)).transpose()?;
    Ok(MonitorPorts::bind(socket(&settings.bind_address)?, healthz)?)
}

/// How rules are served: the door's port is bound here, so that a start that cannot have it says so. It shows the same certificate of
/// the own CA as everybody else, unless the settings name another.
fn rules(
    settings: &config::router::Router,
    (chain, server): (&ShownChain, &mut ServerCertificate),
    peers: Option<PeerSettings>,
) -> Result<RuleSettings, StartError> {
    let door = settings.has_door().then(|| DoorSettings::open(settings, (&chain.chain, &chain.key)));
    let door = door.transpose()?;
    if let Some(door) = door.clone() {
        server.show_at("modules.router", move |chain| {
            door.show((&chain.chain, &chain.key)).map_err(|error| Fault::from_error(&error).reason)
        });
    }
    Ok(RuleSettings { settings: settings.clone(), door, peers })
}

/// How other CloudCores are known and reached, if rules have an effect: at the pod's address, or at the first that nodes are told, unless the
/// settings name another.
fn peers(
    settings: &Settings,
    identity: &str,
    authorities: &CurrentAuthorities,
    env: &Env,
) -> Result<Option<PeerSettings>, StartError> {
    let router = &settings.modules.router;
    if !router.has_peers() {
        return Ok(None);
    }
    let address = match router.peers.address.as_str() {
        "" => match kubelet_endpoint::of_environment(kubelet_endpoint::POD_IP)? {
            None => settings.modules.cloud_hub.advertise_address.first().map(|text| ip(text)).transpose()?,
            pod => pod,
        },
        text => Some(ip(text)?),
    };
    Ok(Some(PeerSettings::open(router, address, identity, authorities.clone(), env)?))
}

/// Where nodes arrive.
struct Listeners {
    acceptor: Box<dyn Acceptor>,
    /// QUIC's address.
    link: Option<SocketAddr>,
    fallback: Option<FallbackListener>,
}

fn listen(
    hub: &HubSettings,
    transport: Transport,
    credentials: &LiveCredentials,
) -> Result<Listeners, StartError> {
    if let Transport::Given(acceptor) = transport {
        return Ok(Listeners { acceptor, link: None, fallback: None });
    }
    let acceptor = QuicAcceptor::bind_live((ip(&hub.quic.address)?, hub.quic.port).into(), credentials)?;
    let address = acceptor.address();
    tracing::info!(%address, "the link listens");
    let mut acceptors: Vec<Box<dyn Acceptor>> = vec![Box::new(acceptor)];
    let mut fallback = None;
    if hub.websocket.enable {
        let at = (ip(&hub.websocket.address)?, hub.websocket.port).into();
        let port = bind(at, "the link's fallback", "modules.cloudHub.websocket")?;
        let tls = WebSocketListener::tls(credentials)?;
        let (arrivals, acceptor) = websocket_queue();
        acceptors.push(Box::new(acceptor));
        fallback = Some(FallbackListener { port, tls, arrivals });
    }
    Ok(Listeners { acceptor: Box::new(Acceptors::new(acceptors)), link: Some(address), fallback })
}

/// A name that no other CloudCore has, nor an earlier life of this one.
pub fn identity(env: &Env) -> String {
    let random = env.random_id().into_iter().take(8).map(|byte| format!("{byte:02x}"));
    format!("cloudcore-{}", random.collect::<String>())
}
