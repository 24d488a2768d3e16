//! What the node shows and trusts now: changed on the disk first, then for the next dial.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use beehive::link::tls::{Credentials, EndpointError, LiveCredentials};
use beehive::{Address, Clock, Env, Fault};
use contract::NodeName;
use contract::certificate::{CloudTrust, RenewedCertificate};
use contract::uplink::HubUp;
use edge_store::Store;
use pki::{
    NodeRequest, Validity, is_authority, is_pair, node_of_certificate, pem_of, serial_of, validity_of,
};

use super::files::{IdentityFiles, StoredIdentity};
use super::renewal_plan::first_of_pem;
use super::servers::{is_server, keep_servers};

/// 40 s for the cloud to sign: it gives itself half of that.
const SIGNED_WITHIN: Duration = Duration::from_secs(40);
/// 30 s for it to note that the certificate is here.
const NOTED_WITHIN: Duration = Duration::from_secs(30);

/// Why there is no new certificate.
#[derive(Debug)]
pub(crate) struct RenewalFailure {
    /// For a person.
    pub(crate) reason: String,
    /// What the cloud asked to wait.
    pub(crate) wait: Option<Duration>,
}

impl RenewalFailure {
    fn of(reason: impl Into<String>) -> Self {
        RenewalFailure { reason: reason.into(), wait: None }
    }
}

/// The node's certificate, key and CAs.
pub struct NodeCertificates {
    node: NodeName,
    files: IdentityFiles,
    live: LiveCredentials,
    now: RefCell<StoredIdentity>,
    /// What the cloud has said of where it is.
    servers: RefCell<Vec<String>>,
    store: Store,
    rotates: bool,
}

impl NodeCertificates {
    /// What `files` held when they were read: `stored`. `servers` is what the store held. Where `rotates` is not set, nothing is ever
    /// asked for; whom to trust is learned all the same.
    ///
    /// # Errors
    /// See [`EndpointError`].
    pub fn new(
        node: NodeName,
        (files, stored): (IdentityFiles, StoredIdentity),
        (store, servers): (Store, Vec<String>),
        rotates: bool,
    ) -> Result<Self, EndpointError> {
        let live = LiveCredentials::new(&credentials(&stored))?;
        let (now, servers) = (RefCell::new(stored), RefCell::new(servers));
        Ok(NodeCertificates { node, files, live, now, servers, store, rotates })
    }

    /// For whoever dials.
    pub fn live(&self) -> &LiveCredentials {
        &self.live
    }

    /// Whether the certificate is renewed over the link.
    pub(crate) fn rotates(&self) -> bool {
        self.rotates
    }

    /// When the certificate of now begins and ends.
    pub(crate) fn validity(&self) -> Option<Validity> {
        validity_of(&first_of_pem(&self.now.borrow().certificate)?).ok()
    }

    /// Has a new certificate signed for a new key, which is made here, and keeps both.
    pub(crate) async fn renew(&self, env: &Env, hub: &Address<HubUp>) -> Result<Validity, RenewalFailure> {
        let request =
            NodeRequest::new(self.node.as_str()).map_err(|error| RenewalFailure::of(error.to_string()))?;
        let csr_der = request.csr_der.clone();
        let asked =
            hub.ask(SIGNED_WITHIN, |reply| HubUp::RenewCertificate { csr_der: csr_der.clone(), reply }).await;
        let RenewedCertificate { certificate, trust } = asked
            .map_err(|error| RenewalFailure::of(error.to_string()))?
            .map_err(|refused| RenewalFailure { reason: refused.reason, wait: refused.wait })?;
        let validity = self.check(&certificate, &request.key_pem).map_err(RenewalFailure::of)?;
        let serial = serial_of(&certificate).map_err(|error| RenewalFailure::of(error.to_string()))?;
        // It may be signed by a CA that is new here.
        self.trust(env, &trust).await.map_err(RenewalFailure::of)?;
        let (files, pem, key) = (self.files.clone(), pem_of("CERTIFICATE", &certificate), request.key_pem);
        let (kept_pem, kept_key) = (pem.clone(), key.clone());
        let kept = env.blocking(move || files.keep(&kept_pem, &kept_key)).await;
        let kept = kept.map_err(|fault| RenewalFailure::of(fault.reason))?;
        kept.map_err(|error| RenewalFailure::of(Fault::from_error(&error).reason))?;
        let next = StoredIdentity { certificate: pem, key, ..self.now.borrow().clone() };
        self.show(next).map_err(RenewalFailure::of)?;
        // If this is lost, the next link says the same by being made with it.
        let noted =
            hub.ask(NOTED_WITHIN, |reply| HubUp::CertificateKept { serial: serial.clone(), reply }).await;
        match noted {
            Ok(Ok(())) => {}
            Ok(Err(reason)) => tracing::warn!(reason, "the cloud has not noted the node's new certificate"),
            Err(error) => {
                tracing::info!(%error, "the cloud did not hear that the node has its new certificate")
            }
        }
        Ok(validity)
    }

    /// Whether what the cloud has signed is for this node and this key.
    fn check(&self, certificate: &[u8], key: &str) -> Result<Validity, String> {
        let named = node_of_certificate(certificate).map_err(|error| error.to_string())?;
        if named != self.node.as_str() {
            return Err(format!("the cloud answered with the certificate of `{}`", named.escape_debug()));
        }
        if !is_pair(certificate, key).map_err(|error| error.to_string())? {
            return Err("the cloud answered with a certificate of another key".to_owned());
        }
        validity_of(certificate).map_err(|error| error.to_string())
    }

    /// Trusts these CAs from now on, and no others, and knows where the cloud is. Answers that, if it is news.
    pub(crate) async fn trust(&self, env: &Env, trust: &CloudTrust) -> Result<Option<Vec<String>>, String> {
        let CloudTrust { authorities, servers } = trust;
        if !trust.fits() || authorities.is_empty() || !authorities.iter().all(|der| is_authority(der)) {
            return Err("what the cloud says is no list of 1 to 8 authorities".to_owned());
        }
        let bundle: String = authorities.iter().map(|der| pem_of("CERTIFICATE", der)).collect();
        if bundle != self.now.borrow().authorities {
            let (files, kept) = (self.files.clone(), bundle.clone());
            let kept =
                env.blocking(move || files.keep_authorities(&kept)).await.map_err(|fault| fault.reason)?;
            kept.map_err(|error| Fault::from_error(&error).reason)?;
            let next = StoredIdentity { authorities: bundle, ..self.now.borrow().clone() };
            self.show(next)?;
            tracing::info!(
                authorities = authorities.len(),
                "the authorities by which the cloud is known have changed"
            );
        }
        let mut servers: Vec<String> = servers.iter().filter(|server| is_server(server)).cloned().collect();
        servers.sort();
        servers.dedup();
        if servers == *self.servers.borrow() {
            return Ok(None);
        }
        keep_servers(&self.store, &servers).await.map_err(|fault| fault.reason)?;
        self.servers.replace(servers.clone());
        Ok(Some(servers))
    }

    /// The next dial goes by it.
    fn show(&self, next: StoredIdentity) -> Result<(), String> {
        self.live.replace(&credentials(&next)).map_err(|error| Fault::from_error(&error).reason)?;
        self.now.replace(next);
        Ok(())
    }

    /// What the cloud has said of where it is.
    pub(crate) fn servers(&self) -> Vec<String> {
        self.servers.borrow().clone()
    }
}

fn credentials(stored: &StoredIdentity) -> Credentials {
    let StoredIdentity { certificate, key, authorities } = stored.clone();
    Credentials { certificate, key, authority: authorities }
}

/// The time by which a certificate is judged: that of the clock, but not earlier than what is known to have passed.
pub(crate) fn judged_by(clock: &Arc<dyn Clock>) -> std::time::SystemTime {
    clock.wall().max(clock.earliest())
}
