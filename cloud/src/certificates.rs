//! Everything that goes by the CA at the start: enrolment, and what the link's ends show.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use beehive::link::quic::{Credentials, LiveCredentials};
use beehive::{Env, Fault};
use cloud_hub::{
    AuthorityLives, ClockDoubt, EnrolmentSettings, LinkedNodes, RenewalSettings, SecretStore,
    ServerCertificate, ShownChain,
};
use config::cloud::CloudHub as Settings;
use noderegistry::Registry;
use pki::{CurrentAuthorities, SubjectAltNames};

use crate::addresses::{bind, ip};
use crate::listeners::EnrolmentListener;
use crate::start_checks;
use crate::start_error::StartError;

/// What a start has of them.
pub(crate) struct Certificates {
    pub(crate) enrolment: EnrolmentListener,
    /// What the link shows, over whatever it comes.
    pub(crate) credentials: LiveCredentials,
    pub(crate) authorities: CurrentAuthorities,
    /// Makes what is shown anew, and knows where that is.
    pub(crate) server: ServerCertificate,
    /// What is shown first.
    pub(crate) chain: ShownChain,
    /// Whether the clock by which all are dated is in doubt.
    pub(crate) doubt: ClockDoubt,
}

impl Certificates {
    /// Reads or makes, in CloudCore's namespace, the CA and the key of the join tokens, makes what CloudCore shows, and binds enrolment's port.
    ///
    /// # Errors
    /// See [`StartError`].
    pub(crate) async fn make(
        hub: &Settings,
        (client, namespace): (&kube::Client, &str),
        registry: Registry,
        env: &Env,
    ) -> Result<Self, StartError> {
        let doubt = ClockDoubt::default();
        let secrets = SecretStore::new(client.clone()).in_namespace(namespace).doubting(doubt.clone());
        // Before anything is dated: nodes take from a certificate what time it is.
        secrets.compare_clocks(&doubt, env).await?;
        let authorities = CurrentAuthorities::new(secrets.authorities(&lives(hub), env).await?);
        let token_key = secrets.token_key(env).await?;
        let addresses: Result<Vec<IpAddr>, StartError> =
            hub.advertise_address.iter().map(|address| ip(address)).collect();
        let alt_names = SubjectAltNames { addresses: addresses?, names: hub.dns_names.clone() };
        let life = hub.server_cert_signing_duration.0;
        let mut server = ServerCertificate::new(authorities.clone(), alt_names, life, doubt.clone());
        let chain = server.issue(env)?;
        let settings = Arc::new(EnrolmentSettings {
            authorities: authorities.clone(),
            token_key,
            registry,
            certificate_life: hub.edge_cert_signing_duration.0,
            token_life: Duration::from_secs(2 * 3600 * u64::from(hub.token_refresh_duration)),
            doubt: doubt.clone(),
            linked: LinkedNodes::default(),
        });
        let at = (ip(&hub.https.address)?, hub.https.port).into();
        let port = bind(at, "enrolment", "modules.cloudHub.https")?;
        let tls = settings.tls(&chain.chain, &chain.key)?;
        let grace = hub.edge_cert_grace_duration.0;
        let (judge, clock) = (doubt.clone(), env.clock());
        let credentials = LiveCredentials::new(&credentials_of(&chain))?
            .letting_ended(grace)
            .judging_by(move || judge.judged_by(&*clock));
        let live = credentials.clone();
        server.show_at("the link", move |chain| {
            live.replace(&credentials_of(chain)).map_err(|error| Fault::from_error(&error).reason)
        });
        let (shown, enrolling) = (tls.clone(), Arc::clone(&settings));
        server.show_at("enrolment", move |chain| {
            let tls =
                enrolling.tls(&chain.chain, &chain.key).map_err(|error| Fault::from_error(&error).reason)?;
            shown.replace(&tls);
            Ok(())
        });
        let enrolment = EnrolmentListener { port, tls, settings };
        Ok(Certificates { enrolment, credentials, authorities, server, chain, doubt })
    }
}

fn credentials_of(chain: &ShownChain) -> Credentials {
    let ShownChain { chain, key, authorities } = chain.clone();
    Credentials { certificate: chain, key: key.into(), authority: authorities }
}

/// How long CAs live by the settings. A CA is trusted after its successor signs for as long as a node may come back by a certificate that
/// it has signed.
pub(crate) fn lives(hub: &Settings) -> AuthorityLives {
    AuthorityLives {
        own: hub.ca_signing_duration.0,
        lead: hub.ca_lead_duration.0,
        trail: hub.edge_cert_signing_duration.0 + hub.edge_cert_grace_duration.0,
    }
}

/// How nodes' certificates are renewed by the settings, and where nodes are told that CloudCore is.
pub(crate) fn renewal(hub: &Settings, authorities: CurrentAuthorities, doubt: ClockDoubt) -> RenewalSettings {
    RenewalSettings {
        authorities,
        certificate_life: hub.edge_cert_signing_duration.0,
        servers: start_checks::servers(hub),
        doubt,
    }
}
