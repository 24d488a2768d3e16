//! CloudCore from its first write to its end.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use beehive::link::quic::{Credentials, EndpointError, QuicAcceptor};
use beehive::link::{Acceptor, Acceptors};
use beehive::{Ended, Env, Hive, Message, WiringError};
use cloud_hub::{
    Enrolment, EnrolmentError, EnrolmentServer, Vault, VaultError, WebSocketAcceptor, WebSocketError,
};
use config::cloud::CloudCore as Settings;
use kubewatch::{Reading, ReadingError};
use noderegistry::Registry;
use thiserror::Error;

use crate::crds::{self, CrdError};
use crate::monitor::{Monitor, MonitorError};
use crate::topology::{self, Parts};

/// Why CloudCore did not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// A custom resource is not there.
    #[error(transparent)]
    Definitions(#[from] CrdError),
    /// What pods need cannot be read.
    #[error("Secrets and config maps")]
    Reading(#[from] ReadingError),
    /// The CA or a Secret is not there.
    #[error("certificates")]
    Vault(#[from] VaultError),
    /// Enrolment does not listen.
    #[error("enrolment")]
    Enrolment(#[from] EnrolmentError),
    /// The link does not listen.
    #[error("the link's port (modules.cloudHub.quic)")]
    Link(#[from] EndpointError),
    /// The link's fallback does not listen.
    #[error("the link's TCP port (modules.cloudHub.websocket)")]
    WebSocket(#[from] WebSocketError),
    /// The admin endpoint does not listen.
    #[error("the admin endpoint")]
    Monitor(#[from] MonitorError),
    /// The map is wrong.
    #[error("wiring")]
    Wiring(#[from] WiringError),
    /// A setting that was not validated.
    #[error("setting `{0}` is no IP address")]
    Address(String),
}

/// Where nodes arrive.
pub enum Transport {
    /// QUIC, at the address of the settings.
    Quic,
    /// Something else: a harness brings its own.
    Given(Box<dyn Acceptor>),
}

/// A running CloudCore.
pub struct CloudCore {
    hive: Hive,
    enrolment: EnrolmentServer,
    monitor: Monitor,
    link: Option<SocketAddr>,
    websocket: Option<SocketAddr>,
}

impl CloudCore {
    /// Starts everything, in this order: definitions, certificates, enrolment, the link's port, the actors.
    ///
    /// # Errors
    /// See [`StartError`]: each says what is missing.
    pub async fn start(
        settings: &Settings,
        client: kube::Client,
        transport: Transport,
        env: Env,
    ) -> Result<Self, StartError> {
        let hub = &settings.modules.cloud_hub;
        let identity = identity(&env);
        tracing::info!(identity, "this CloudCore");
        crds::apply(&client, &env).await?;
        tracing::info!("custom resources are served");
        let reading = Reading::probe(&client).await?;
        let (vault, registry) = (Vault::new(client.clone()), Registry::new(client.clone()));
        let authority = vault.authority(&env).await?;
        let token_key = vault.token_key(&env).await?;
        let addresses: Result<Vec<IpAddr>, StartError> =
            hub.advertise_address.iter().map(|address| ip(address)).collect();
        let (chain, key) = Vault::server_certificate(&authority, addresses?, hub.dns_names.clone(), &env)?;
        let credentials = Credentials {
            certificate: chain.clone(),
            key: key.clone(),
            authority: authority.cert_pem().to_owned(),
        };
        let days = u64::from(hub.edge_cert_signing_duration);
        let enrolment = Enrolment {
            authority,
            token_key,
            registry: registry.clone(),
            certificate_life: Duration::from_secs(days * 86_400),
            token_life: Duration::from_secs(2 * 3600 * u64::from(hub.token_refresh_duration)),
        };
        let at = (ip(&hub.https.address)?, hub.https.port).into();
        let enrolment = EnrolmentServer::start(at, &chain, &key, enrolment, &env)?;
        tracing::info!(address = %enrolment.address, "enrolment listens");
        let mut websocket = None;
        let (acceptor, link): (Box<dyn Acceptor>, _) = match transport {
            Transport::Given(acceptor) => (acceptor, None),
            Transport::Quic => {
                let at = (ip(&hub.quic.address)?, hub.quic.port).into();
                let acceptor = QuicAcceptor::bind(at, &credentials)?;
                let address = acceptor.address();
                tracing::info!(%address, "the link listens");
                let mut acceptors: Vec<Box<dyn Acceptor>> = vec![Box::new(acceptor)];
                if hub.websocket.enable {
                    let at = (ip(&hub.websocket.address)?, hub.websocket.port).into();
                    let fallback = WebSocketAcceptor::start(at, &credentials, &env)?;
                    tracing::info!(address = %fallback.address, "the link's fallback listens");
                    websocket = Some(fallback.address);
                    acceptors.push(Box::new(fallback));
                }
                (Box::new(Acceptors::new(acceptors)), Some(address))
            }
        };
        let frequency = u64::from(settings.modules.edge_controller.node_update_frequency);
        let parts = Parts {
            client,
            acceptor,
            registry,
            node_limit: hub.node_limit,
            lease_period: Duration::from_secs(frequency),
            identity,
            reading,
        };
        let mut hive = Hive::new("cloudcore", env.clone());
        let mailboxes = topology::mailboxes(&mut hive);
        topology::actors(&mut hive, mailboxes, parts);
        hive.open()?;
        let monitor = &settings.common_config.monitor_server;
        let healthz = (!monitor.healthz_bind_address.is_empty())
            .then(|| socket(&monitor.healthz_bind_address))
            .transpose()?;
        let monitor = Monitor::start(socket(&monitor.bind_address)?, healthz, hive.inspector(), &env)?;
        Ok(CloudCore { hive, enrolment, monitor, link, websocket })
    }

    /// Where enrolment listens.
    pub fn enrolment_address(&self) -> SocketAddr {
        self.enrolment.address
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
        self.monitor.address
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
        self.enrolment.stop().await;
        self.monitor.stop().await;
        self.hive.shutdown(deadline).await
    }
}

/// A name that no other CloudCore has, nor an earlier life of this one.
pub fn identity(env: &Env) -> String {
    let random = env.random_id().into_iter().take(8).map(|byte| format!("{byte:02x}"));
    format!("cloudcore-{}", random.collect::<String>())
}

fn socket(text: &str) -> Result<SocketAddr, StartError> {
    text.parse().map_err(|_| StartError::Address(text.to_owned()))
}

fn ip(text: &str) -> Result<IpAddr, StartError> {
    text.parse().map_err(|_| StartError::Address(text.to_owned()))
}
