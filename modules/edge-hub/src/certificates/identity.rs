//! What the node shows and trusts now: changed on the disk first, then for the next dial.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use beehive::link::tls::{EndpointError, LiveCredentials};
use beehive::{Address, Clock, Env, Fault};
use contract::NodeName;
use contract::certificate::{CloudTrust, RenewedCertificate};
use contract::uplink::HubUp;
use edge_store::Store;
use futures::lock::Mutex;
use pkcs11key::TokenKey;
use pki::{
    NodeRequest, Validity, is_authority, is_pair, is_signed_by, node_of_certificate, pem_of, serial_of,
    validity_of,
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
    /// One certificate is asked for at a time, over whatever link: of two the cloud takes the later, and the disk has to.
    renewing: Mutex<()>,
    /// And one list of CAs is written at a time.
    trusting: Mutex<()>,
}

/// What has changed with what the cloud says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TrustTaken {
    /// Where the cloud is, if it is elsewhere than before.
    pub(crate) servers: Option<Vec<String>>,
    /// The node's certificate is not of the CA that signs now: that one's predecessor is going to be forgotten.
    pub(crate) is_superseded: bool,
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
        let live = LiveCredentials::new(&stored.credentials()?)?;
        let (now, servers) = (RefCell::new(stored), RefCell::new(servers));
        let (renewing, trusting) = (Mutex::default(), Mutex::default());
        Ok(NodeCertificates { node, files, live, now, servers, store, rotates, renewing, trusting })
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

    /// Has a new certificate signed for a new key, which is made where the present one is, and keeps both.
    pub(crate) async fn renew(&self, env: &Env, hub: &Address<HubUp>) -> Result<Validity, RenewalFailure> {
        let _turn = self.renewing.lock().await;
        let (node, present, id) = (self.node.clone(), self.now.borrow().key.clone(), env.random_id());
        let request = env.blocking(move || following(&node, &present, id)).await;
        let request =
            request.map_err(|fault| RenewalFailure::of(fault.reason))?.map_err(RenewalFailure::of)?;
        let renewed = self.renew_by(env, hub, request).await;
        let (files, used) = (self.files.clone(), self.now.borrow().key.clone());
        let forgotten =
            env.blocking(move || forget_others(&files, &used)).await.map_err(|fault| fault.reason).flatten();
        if let Err(reason) = forgotten {
            tracing::warn!(reason, "keys that are used no more stay in the node's token");
        }
        renewed
    }

    async fn renew_by(
        &self,
        env: &Env,
        hub: &Address<HubUp>,
        request: NodeRequest,
    ) -> Result<Validity, RenewalFailure> {
        let csr_der = request.csr_der.clone();
        let asked =
            hub.ask(SIGNED_WITHIN, |reply| HubUp::RenewCertificate { csr_der: csr_der.clone(), reply }).await;
        let RenewedCertificate { certificate, trust } = asked
            .map_err(|error| RenewalFailure::of(error.to_string()))?
            .map_err(|refused| RenewalFailure { reason: refused.reason, wait: refused.wait })?;
        let validity = self.check(&certificate, &request.key_pem).map_err(RenewalFailure::of)?;
        if !trust.authorities.iter().any(|authority| is_signed_by(&certificate, authority)) {
            return Err(RenewalFailure::of(
                "the cloud answered with a certificate of none of its authorities",
            ));
        }
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

    /// Whether what the cloud has signed is for this node and this key. Its times are not judged: this machine's clock may be off.
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

    /// Trusts these CAs from now on, and no others, and knows where the cloud is. The first of them is the one that signs.
    pub(crate) async fn trust(&self, env: &Env, trust: &CloudTrust) -> Result<TrustTaken, String> {
        let _turn = self.trusting.lock().await;
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
        let own = first_of_pem(&self.now.borrow().certificate);
        let is_of = |authority: &Vec<u8>| own.as_ref().is_some_and(|own| is_signed_by(own, authority));
        let is_superseded = !authorities.first().is_some_and(is_of);
        let mut servers: Vec<String> = servers.iter().filter(|server| is_server(server)).cloned().collect();
        servers.sort();
        servers.dedup();
        if servers == *self.servers.borrow() {
            return Ok(TrustTaken { servers: None, is_superseded });
        }
        keep_servers(&self.store, &servers).await.map_err(|fault| fault.reason)?;
        self.servers.replace(servers.clone());
        Ok(TrustTaken { servers: Some(servers), is_superseded })
    }

    /// The next dial goes by it.
    fn show(&self, next: StoredIdentity) -> Result<(), String> {
        let credentials = next.credentials().map_err(|error| Fault::from_error(&error).reason)?;
        self.live.replace(&credentials).map_err(|error| Fault::from_error(&error).reason)?;
        self.now.replace(next);
        Ok(())
    }

    /// What the cloud has said of where it is.
    pub(crate) fn servers(&self) -> Vec<String> {
        self.servers.borrow().clone()
    }
}

/// A request with a new key, made where the one in `present` is. Blocks.
fn following(node: &NodeName, present: &str, id: [u8; 16]) -> Result<NodeRequest, String> {
    let said = |error: &dyn std::fmt::Display| error.to_string();
    let Some(present) = TokenKey::of_pem(present).map_err(|error| said(&error))? else {
        return NodeRequest::new(node.as_str()).map_err(|error| said(&error));
    };
    let key = TokenKey::make(present.token(), present.name(), id).map_err(|error| said(&error))?;
    NodeRequest::signed_by(node.as_str(), &key, key.pem()).map_err(|error| said(&error))
}

/// Of the keys in the token that were the node's in turn, the one in use stays, if it is the one that the files name. Blocks.
fn forget_others(files: &IdentityFiles, used: &str) -> Result<(), String> {
    let stored = files.look().map_err(|error| Fault::from_error(&error).reason)?;
    if stored.key != used {
        return Ok(());
    }
    match TokenKey::of_pem(used) {
        Ok(None) => Ok(()),
        Ok(Some(key)) => key.destroy_others().map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    }
}

/// The time by which a certificate is judged: that of the clock, but not earlier than what is known to have passed.
pub(crate) fn judged_by(clock: &Arc<dyn Clock>) -> SystemTime {
    clock.wall().max(clock.earliest())
}

#[cfg(test)]
pub(crate) mod tests {
    use std::rc::Rc;

    use super::*;
    use beehive::testing::Probe;
    use contract::certificate::RenewalRefused;
    use edge_store::Options;
    use futures::future::join;
    use pki::Authority;

    pub(crate) const NODE: &str = "edge-1";
    pub(crate) const LONG: Duration = Duration::from_secs(20);
    const DAY: Duration = Duration::from_secs(86_400);

    /// What the cloud makes of a request.
    type Answer<'a> = dyn Fn(&[u8]) -> Result<RenewedCertificate, RenewalRefused> + 'a;

    pub(crate) struct Fixture {
        pub(crate) env: Env,
        pub(crate) authority: Authority,
        pub(crate) certificates: Rc<NodeCertificates>,
        files: IdentityFiles,
        _folder: tempfile::TempDir,
    }

    impl Fixture {
        pub(crate) fn new() -> Fixture {
            let (env, folder) = (Env::real(), tempfile::tempdir().unwrap());
            let authority = Authority::create(env.wall(), env.random_id()).unwrap();
            let files = IdentityFiles {
                certificate: folder.path().join("server.crt"),
                key: folder.path().join("server.key"),
                authorities: folder.path().join("rootCA.crt"),
            };
            let request = NodeRequest::new(NODE).unwrap();
            let issued = authority
                .sign_node(&request.csr_der, NODE, env.wall() - DAY / 4, DAY, env.random_id())
                .unwrap();
            files.keep_authorities(authority.cert_pem()).unwrap();
            files.keep(&issued.pem, &request.key_pem).unwrap();
            let stored = files.read().unwrap();
            let store = Store::open(folder.path().join("db"), Options::new([1; 16])).unwrap();
            let node = NodeName::parse(NODE).unwrap();
            let certificates =
                NodeCertificates::new(node, (files.clone(), stored), (store, Vec::new()), true).unwrap();
            let certificates = Rc::new(certificates);
            Fixture { env, authority, certificates, files, _folder: folder }
        }

        /// What the cloud answers.
        pub(crate) fn signed(&self, csr_der: &[u8], node: &str, by: &Authority) -> RenewedCertificate {
            let issued = by.sign_node(csr_der, node, self.env.wall(), DAY, self.env.random_id()).unwrap();
            let authorities = vec![self.authority.cert_der().to_vec()];
            let trust = CloudTrust { authorities, servers: Vec::new() };
            RenewedCertificate { certificate: issued.der, trust }
        }

        pub(crate) fn on_disk(&self) -> Vec<u8> {
            first_of_pem(&self.files.read().unwrap().certificate).unwrap()
        }
    }

    #[tokio::test]
    async fn of_two_that_ask_at_once_the_second_asks_when_the_first_has_kept_what_it_was_given() {
        let fixture = Fixture::new();
        let Fixture { env, authority, certificates, .. } = &fixture;
        let (mut hub, address) = Probe::<HubUp>::new(env, 8);
        let both = join(certificates.renew(env, &address), certificates.renew(env, &address));
        let cloud = async {
            for _ in 0..2 {
                let Some(HubUp::RenewCertificate { csr_der, reply }) = hub.next(LONG).await else { panic!() };
                let renewed = fixture.signed(&csr_der, NODE, authority);
                let serial = serial_of(&renewed.certificate).unwrap();
                reply.send(Ok(renewed));
                let Some(HubUp::CertificateKept { serial: kept, reply }) = hub.next(LONG).await else {
                    panic!("another is asked for before this one is kept")
                };
                assert_eq!(kept, serial);
                assert_eq!(
                    serial_of(&fixture.on_disk()).unwrap(),
                    serial,
                    "it was on the disk before it was said"
                );
                reply.send(Ok(()));
            }
        };
        let ((first, second), ()) = join(both, cloud).await;
        assert!(first.is_ok() && second.is_ok());
    }

    #[tokio::test]
    async fn what_is_another_nodes_of_another_key_or_of_no_authority_of_the_cloud_is_not_taken() {
        let fixture = Fixture::new();
        let Fixture { env, authority, certificates, .. } = &fixture;
        let (before, foreign) = (fixture.on_disk(), Authority::create(env.wall(), [9; 16]).unwrap());
        let (mut hub, address) = Probe::<HubUp>::new(env, 8);
        let other_key = NodeRequest::new(NODE).unwrap();
        let answers: [(&str, &Answer<'_>); 4] = [
            ("of `edge-2`", &|csr| Ok(fixture.signed(csr, "edge-2", authority))),
            ("another key", &|_| Ok(fixture.signed(&other_key.csr_der, NODE, authority))),
            ("none of its authorities", &|csr| Ok(fixture.signed(csr, NODE, &foreign))),
            ("not today", &|_| Err(RenewalRefused { reason: "not today".to_owned(), wait: Some(LONG) })),
        ];
        for (words, answer) in answers {
            let cloud = async {
                let Some(HubUp::RenewCertificate { csr_der, reply }) = hub.next(LONG).await else { panic!() };
                reply.send(answer(&csr_der));
            };
            let (renewed, ()) = join(certificates.renew(env, &address), cloud).await;
            let failure = renewed.unwrap_err();
            assert!(failure.reason.contains(words), "{}", failure.reason);
            assert_eq!(failure.wait.is_some(), words == "not today");
            assert_eq!(fixture.on_disk(), before);
        }
    }

    #[tokio::test]
    async fn it_is_told_when_another_ca_signs_than_its_certificates() {
        let fixture = Fixture::new();
        let Fixture { env, authority, certificates, files, .. } = &fixture;
        let successor = Authority::create(env.wall(), [9; 16]).unwrap();
        let of = |authorities: &[&Authority]| CloudTrust {
            authorities: authorities.iter().map(|authority| authority.cert_der().to_vec()).collect(),
            servers: vec!["192.0.2.1".to_owned()],
        };
        let taken = certificates.trust(env, &of(&[authority, &successor])).await.unwrap();
        assert_eq!(taken, TrustTaken { servers: Some(vec!["192.0.2.1".to_owned()]), is_superseded: false });
        let taken = certificates.trust(env, &of(&[&successor, authority])).await.unwrap();
        assert_eq!(taken, TrustTaken { servers: None, is_superseded: true });
        assert_eq!(files.read().unwrap().authorities.matches("BEGIN CERTIFICATE").count(), 2);
        assert!(certificates.trust(env, &of(&[])).await.is_err(), "nobody is not to be trusted");
        assert_eq!(files.read().unwrap().authorities.matches("BEGIN CERTIFICATE").count(), 2);
    }
}
