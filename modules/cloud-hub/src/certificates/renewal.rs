//! Signs for nodes over their links: for the name of the link that asks, and for no other.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use beehive::link::Refused;
use beehive::link::accept_limiter::RateLimiter;
use beehive::{Env, Fault};
use contract::NodeName;
use contract::certificate::{CloudTrust, RenewalRefused, RenewedCertificate, SERVERS_MAX};
use noderegistry::{AdmissionError, Certificate, Registry};
use pki::{CurrentAuthorities, node_of_request, validity_of};
use tokio::sync::Semaphore;

use super::clock_doubt::ClockDoubt;
use crate::events;

/// One in 5 s and 10 at once of one node: each costs the API server three calls.
const OF_NODE: (f64, f64) = (0.2, 10.0);
/// The same for words that a certificate is kept: each costs two.
const OF_KEPT: (f64, f64) = (0.2, 10.0);
/// 32 at once: the nodes of a fleet that joined together come together, within a fifth of a life.
const AT_ONCE: usize = 32;
/// 20 s for a turn and the register: the node waits longer.
const WITHIN: Duration = Duration::from_secs(20);
/// 30 s before a node asks again where nobody could say now.
const LATER: Duration = Duration::from_secs(30);

/// By what nodes' certificates are renewed, and what nodes are told of the cloud.
#[derive(Clone)]
pub struct RenewalSettings {
    /// Who signs.
    pub authorities: CurrentAuthorities,
    /// How long a certificate lives.
    pub certificate_life: Duration,
    /// Where the cloud is: what its certificate names. Those that are this machine's own to each machine are left out.
    pub servers: Vec<String>,
    /// Whether this machine's clock is in doubt.
    pub doubt: ClockDoubt,
}

/// Renews.
#[derive(Clone)]
pub(crate) struct Renewals {
    settings: Rc<RenewalSettings>,
    registry: Registry,
    rates: Rc<RefCell<RateLimiter<String>>>,
    kept: Rc<RefCell<RateLimiter<String>>>,
    turns: Arc<Semaphore>,
}

/// A certificate that was signed and stands in the register.
pub(crate) struct Renewed {
    pub(crate) answer: RenewedCertificate,
    pub(crate) serial: String,
    /// When it begins and ends, in seconds since 1970.
    pub(crate) valid: (u64, u64),
}

impl Renewals {
    pub(crate) fn new(settings: RenewalSettings, registry: Registry) -> Self {
        Renewals {
            settings: Rc::new(settings),
            registry,
            rates: Rc::new(RefCell::new(RateLimiter::new(OF_NODE.0, OF_NODE.1))),
            kept: Rc::new(RefCell::new(RateLimiter::new(OF_KEPT.0, OF_KEPT.1))),
            turns: Arc::new(Semaphore::new(AT_ONCE)),
        }
    }

    /// By which time it is judged whether a node's certificate has ended.
    pub(crate) fn judged_by(&self, env: &Env) -> SystemTime {
        self.settings.doubt.judged_by(&*env.clock())
    }

    /// By what nodes know the cloud, and where they find it.
    pub(crate) fn trust(&self) -> CloudTrust {
        let servers = self.settings.servers.iter().take(SERVERS_MAX).cloned().collect();
        CloudTrust { authorities: self.settings.authorities.get().trusted(), servers }
    }

    /// Whether a node that shows this certificate may have it renewed, by what the register says now.
    pub(crate) async fn judge(&self, node: &NodeName, serial: &str) -> Result<(), Refused> {
        let judged = self.registry.judge(node, serial).await;
        judged.map_err(|error| {
            let RenewalRefused { reason, wait } = of_register(&error);
            Refused { reason, wait }
        })
    }

    /// Signs the key in a request of `node`, which has shown the certificate with the first serial of `shown`, and was given the others over
    /// its link since. Before it is answered the new certificate stands in the register.
    pub(crate) async fn renew(
        &self,
        env: &Env,
        node: &NodeName,
        shown: &[String],
        csr_der: &[u8],
    ) -> Result<Renewed, RenewalRefused> {
        let refused = self.rates.borrow_mut().take(&node.to_string(), env.now());
        refused.map_err(|wait| RenewalRefused {
            reason: "this node asks for certificates too often".to_owned(),
            wait: Some(wait),
        })?;
        let entered = env.timeout(WITHIN, self.enter(env, node, shown, csr_der)).await;
        let renewed = entered.unwrap_or_else(|| Err(later("the register did not answer in time")));
        match &renewed {
            Ok(renewed) => {
                let shown = shown.first().map_or("", String::as_str);
                events::certificate_renewed(env, node, shown, &renewed.serial);
            }
            Err(refused) => events::renewal_refused(env, node, &refused.reason),
        }
        renewed
    }

    async fn enter(
        &self,
        env: &Env,
        node: &NodeName,
        shown: &[String],
        csr_der: &[u8],
    ) -> Result<Renewed, RenewalRefused> {
        let _turn = self.turns.acquire().await.map_err(|_| later("CloudCore ends"))?;
        let never = |reason: String| RenewalRefused { reason, wait: None };
        let named = node_of_request(csr_der).map_err(|error| never(error.to_string()))?;
        if let Some(other) = named.filter(|named| named != node.as_str()) {
            let other: String = other.chars().take(64).collect();
            return Err(never(format!(
                "the request is for `{}`, and the link is `{node}`'s",
                other.escape_debug()
            )));
        }
        if self.settings.doubt.is(&*env.clock()) {
            return Err(later(
                "CloudCore's clock and the API server's are apart: an administrator sets them",
            ));
        }
        let authorities = self.settings.authorities.get();
        let life = self.settings.certificate_life;
        let issued = authorities
            .signing()
            .sign_node(csr_der, node.as_str(), env.wall(), life, env.random_id())
            .map_err(|error| never(Fault::from_error(&error).reason))?;
        let validity = validity_of(&issued.der).map_err(|error| never(Fault::from_error(&error).reason))?;
        let valid = (unix(validity.not_before), unix(validity.not_after));
        let certificate = Certificate { serial: issued.serial.clone(), not_after_unix: valid.1 };
        self.registry.renew(node, shown, &certificate).await.map_err(|error| of_register(&error))?;
        let answer = RenewedCertificate { certificate: issued.der, trust: self.trust() };
        Ok(Renewed { answer, serial: issued.serial, valid })
    }

    /// The certificate of this serial is on the node's disk.
    pub(crate) async fn kept(&self, env: &Env, node: &NodeName, serial: &str) -> Result<(), String> {
        if self.kept.borrow_mut().take(&node.to_string(), env.now()).is_err() {
            return Err("this node says too often that it has a certificate".to_owned());
        }
        let noted = env.timeout(WITHIN, self.registry.certificate_kept(node, serial)).await;
        match noted {
            Some(Ok(())) => {
                events::certificate_kept(env, node, serial);
                Ok(())
            }
            Some(Err(error)) => Err(of_register(&error).reason),
            None => Err("the register did not answer in time".to_owned()),
        }
    }
}

fn later(reason: &str) -> RenewalRefused {
    RenewalRefused { reason: reason.to_owned(), wait: Some(LATER) }
}

/// What the node is told; whatever of the cloud's inside is in it goes to the log alone.
fn of_register(error: &AdmissionError) -> RenewalRefused {
    match error {
        AdmissionError::Refused(refusal) => {
            RenewalRefused { reason: refusal.to_string(), wait: Some(error.wait()) }
        }
        AdmissionError::Unavailable(cause) => {
            tracing::error!(reason = %Fault::from_error(cause).reason, "a certificate is not renewed");
            later("the cloud cannot write into its register now")
        }
    }
}

fn unix(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}
