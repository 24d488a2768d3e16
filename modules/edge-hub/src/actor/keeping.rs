//! The node's certificate and whom it trusts, as the hub keeps them: what is asked for over the link, and what comes over it.

use std::rc::Rc;
use std::time::{Duration, SystemTime};

use beehive::link::Link;
use beehive::{Address, Context, Env, Reply};
use contract::capability;
use contract::certificate::{CloudTrust, SERVERS_MAX};
use contract::edgehub::EdgeHubMsg;
use contract::edgepage::CertificateView;
use contract::uplink::HubUp;
use futures::channel::oneshot;
use futures::future::AbortHandle;

use super::EdgeHub;
use crate::attempt::AttemptFailure;
use crate::certificates::{NodeCertificates, RenewalFailure, RenewalPlan, TrustTaken, judged_by};
use crate::endpoints::NamedServers;
use crate::events;

/// Of servers that the cloud has named while this incarnation lives so many are dialled.
const NAMED_MAX: usize = 2 * SERVERS_MAX;

/// What the hub has of it.
pub(super) struct Keeping {
    pub(super) certificates: Rc<NodeCertificates>,
    named: NamedServers,
    /// The servers that were added, by name.
    added: Vec<String>,
    plan: Option<RenewalPlan>,
    is_renewing: bool,
    /// The next look: there is one at a time.
    next_look: Option<AbortHandle>,
}

impl Keeping {
    pub(super) fn new(certificates: Rc<NodeCertificates>, named: NamedServers) -> Self {
        Keeping { certificates, named, added: Vec::new(), plan: None, is_renewing: false, next_look: None }
    }

    /// The node's certificate as the node's page shows it, as far as it could be read.
    pub(super) fn describe(&self) -> Option<CertificateView> {
        let plan = self.plan.as_ref()?;
        Some(CertificateView {
            ends_unix: unix(plan.not_after()),
            renewed_unix: unix(plan.renew_at()),
            rotates: self.certificates.rotates(),
            is_renewing: self.is_renewing,
        })
    }

    pub(super) fn snapshot(&self) -> serde_json::Value {
        serde_json::json!({
            "rotates": self.certificates.rotates(),
            "endsUnix": self.plan.as_ref().map(|plan| unix(plan.not_after())),
            "renewedAtUnix": self.plan.as_ref().map(|plan| unix(plan.renew_at())),
            "isRenewing": self.is_renewing,
            "namedServers": self.certificates.servers(),
        })
    }
}

/// Seconds since 1970.
fn unix(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// A number from 0 to 1 by lot.
fn part(env: &Env) -> f64 {
    env.random_below(1000) as f64 / 1000.0
}

impl EdgeHub {
    pub(super) fn begin_keeping(&mut self, cx: &Context<EdgeHubMsg>) {
        let Some(keeping) = &mut self.keeping else { return };
        let wall = judged_by(&cx.env().clock());
        let found = keeping.certificates.validity();
        keeping.plan = found.map(|validity| RenewalPlan::found(validity, wall, cx.now(), part(cx.env())));
        let servers = keeping.certificates.servers();
        self.add_servers(&servers);
        self.look_after(Duration::ZERO, cx);
    }

    fn look_after(&mut self, pause: Duration, cx: &Context<EdgeHubMsg>) {
        let Some(keeping) = self.keeping.as_mut().filter(|keeping| keeping.certificates.rotates()) else {
            return;
        };
        let next = cx.after(pause, EdgeHubMsg::LookAtCertificate);
        if let Some(before) = keeping.next_look.replace(next) {
            before.abort();
        }
    }

    /// A link is up. Where the certificate is due, so it may be for a thousand others whose links have come up.
    pub(super) fn look_soon(&mut self, cx: &Context<EdgeHubMsg>) {
        let Some(plan) = self.keeping.as_ref().and_then(|keeping| keeping.plan.as_ref()) else { return };
        let pause = plan.spread().mul_f64(part(cx.env()));
        self.look_after(pause, cx);
    }

    pub(super) fn look_at_certificate(&mut self, cx: &Context<EdgeHubMsg>) {
        let Some(keeping) = &mut self.keeping else { return };
        let Some(plan) = &keeping.plan else { return };
        let (wall, now) = (judged_by(&cx.env().clock()), cx.now());
        let pause = plan.pause(wall, now);
        let links = self.links.borrow();
        let link = self.up.as_ref().and_then(|up| links.get(&up.attempt)).map(|(link, _)| link);
        let link = link.filter(|link| link.capabilities().has(capability::RENEW_CERTIFICATE));
        if let (true, false, Some(link)) = (plan.is_due(wall, now), keeping.is_renewing, link) {
            keeping.is_renewing = true;
            drop(renew_to_its_end(cx.env(), link.remote(), &keeping.certificates, cx.myself()));
        }
        drop(links);
        self.look_after(pause, cx);
    }

    /// What became of it: a new plan, or another try.
    pub(super) fn renewal_ended(
        &mut self,
        is_renewed: bool,
        wait: Option<Duration>,
        cx: &Context<EdgeHubMsg>,
    ) {
        let Some(keeping) = &mut self.keeping else { return };
        keeping.is_renewing = false;
        // What came with it counts, whatever became of the rest.
        let servers = keeping.certificates.servers();
        self.add_servers(&servers);
        let Some(keeping) = &mut self.keeping else { return };
        let (wall, now) = (judged_by(&cx.env().clock()), cx.now());
        if is_renewed {
            let validity = keeping.certificates.validity();
            keeping.plan = validity.map(|validity| RenewalPlan::renewed(validity, wall, now, part(cx.env())));
        } else if let Some(plan) = &mut keeping.plan {
            plan.failed(wait, now, |pause| cx.env().jitter(pause));
        }
        let pause = keeping.plan.as_ref().map_or(Duration::ZERO, |plan| plan.pause(wall, now));
        self.look_after(pause, cx);
    }

    /// The cloud says whom to trust and where it is.
    pub(super) fn trust(
        &self,
        trust: CloudTrust,
        reply: Reply<Result<(), String>>,
        cx: &Context<EdgeHubMsg>,
    ) {
        let Some(keeping) = &self.keeping else {
            return reply.send(Err("this node keeps no certificates of its own".to_owned()));
        };
        let (certificates, env, myself) = (Rc::clone(&keeping.certificates), cx.env().clone(), cx.myself());
        // It goes on when this incarnation ends: what is written then is what the node has.
        cx.env().spawn(async move {
            match certificates.trust(&env, &trust).await {
                Ok(TrustTaken { servers, is_superseded }) => {
                    reply.send(Ok(()));
                    if let Some(servers) = servers {
                        let _ = myself.tell(EdgeHubMsg::ServersChanged { servers }).await;
                    }
                    if is_superseded {
                        let _ = myself.tell(EdgeHubMsg::CertificateSuperseded).await;
                    }
                }
                Err(reason) => {
                    events::trust_refused(&env, &reason);
                    reply.send(Err(reason));
                }
            }
        });
    }

    /// Another CA signs than the one that has signed the node's certificate: it is not waited for the end of that, which may outlive the
    /// trust in its CA.
    pub(super) fn certificate_superseded(&mut self, cx: &Context<EdgeHubMsg>) {
        let Some(plan) = self.keeping.as_mut().and_then(|keeping| keeping.plan.as_mut()) else { return };
        plan.superseded(cx.now(), part(cx.env()));
        let pause = plan.pause(judged_by(&cx.env().clock()), cx.now());
        self.look_after(pause, cx);
    }

    /// Servers that the cloud has named, and that do not stand in the settings. One that is named no more is dialled until the next start.
    pub(super) fn add_servers(&mut self, servers: &[String]) {
        let Some(keeping) = &mut self.keeping else { return };
        for name in servers {
            let is_known = self.endpoints.0.iter().any(|known| known.name == *name);
            if is_known || keeping.added.len() >= NAMED_MAX {
                continue;
            }
            match keeping.named.server(name) {
                Ok(server) => {
                    self.endpoints.0.push(server);
                    self.plan.named();
                    keeping.added.push(name.clone());
                }
                Err(error) => {
                    tracing::warn!(%error, name, "a server that the cloud has named is not dialled")
                }
            }
        }
    }
}

/// Renews, and tells the hub what became of it. It goes on to its end when whoever waits for the answer is gone (the network has changed, the
/// hub has begun anew): the files would be written all the same, and this process would not know of it.
fn renew_to_its_end(
    env: &Env,
    hub: Address<HubUp>,
    certificates: &Rc<NodeCertificates>,
    myself: Address<EdgeHubMsg>,
) -> oneshot::Receiver<Result<(), RenewalFailure>> {
    let (answer, answered) = oneshot::channel();
    let (own_env, certificates) = (env.clone(), Rc::clone(certificates));
    env.spawn(async move {
        let renewed = certificates.renew(&own_env, &hub).await.map(drop);
        let told = match &renewed {
            Ok(()) => {
                events::certificate_renewed(&own_env);
                EdgeHubMsg::RenewalEnded { renewed: true, wait_ms: None }
            }
            Err(RenewalFailure { reason, wait }) => {
                events::certificate_not_renewed(&own_env, reason);
                let wait_ms = wait.map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
                EdgeHubMsg::RenewalEnded { renewed: false, wait_ms }
            }
        };
        let _ = myself.tell(told).await;
        // Nobody may be there who waits.
        let _ = answer.send(renewed);
    });
    answered
}

/// A link over which the certificate can be renewed, which has ended, and nothing else be done. It is not told to anybody: after it
/// the node dials with what it was given.
pub(super) async fn renew_alone(
    env: &Env,
    link: &Link,
    certificates: Option<Rc<NodeCertificates>>,
    myself: &Address<EdgeHubMsg>,
) -> AttemptFailure {
    let failed = AttemptFailure::answered;
    let Some(certificates) = certificates.filter(|certificates| certificates.rotates()) else {
        let words = "this node's certificate has ended, and modules.edgeHub.rotateCertificates is false: put a new one in its place";
        return failed(words.to_owned(), None);
    };
    let renewed = renew_to_its_end(env, link.remote(), &certificates, myself.clone()).await;
    match renewed {
        Ok(Ok(())) => failed(
            "this node's certificate had ended and is renewed: the next dial shows it".to_owned(),
            None,
        ),
        Ok(Err(RenewalFailure { reason, wait })) => {
            failed(format!("this node's certificate has ended and is not renewed: {reason}"), wait)
        }
        Err(oneshot::Canceled) => {
            failed("this node's certificate has ended, and edgecore ends".to_owned(), None)
        }
    }
}

#[cfg(test)]
mod tests {
    use beehive::testing::Probe;
    use pki::serial_of;

    use super::*;
    use crate::certificates::identity_tests::{Fixture, LONG, NODE};

    #[tokio::test]
    async fn a_renewal_goes_to_its_end_though_nobody_waits_for_it_any_more() {
        let story = async {
            let fixture = Fixture::new();
            let env = fixture.env.clone().spawned_by(|task| drop(tokio::task::spawn_local(task)));
            let before = fixture.certificates.validity();
            let (mut hub, address) = Probe::<HubUp>::new(&env, 8);
            let (mut told, myself) = Probe::<EdgeHubMsg>::new(&env, 8);
            // The attempt that asked is given up at once.
            drop(renew_to_its_end(&env, address, &fixture.certificates, myself));
            let Some(HubUp::RenewCertificate { csr_der, reply }) = hub.next(LONG).await else { panic!() };
            let renewed = fixture.signed(&csr_der, NODE, &fixture.authority);
            let serial = serial_of(&renewed.certificate).unwrap();
            reply.send(Ok(renewed));
            let Some(HubUp::CertificateKept { serial: kept, reply }) = hub.next(LONG).await else { panic!() };
            assert_eq!((serial_of(&fixture.on_disk()).unwrap(), kept), (serial.clone(), serial));
            assert_ne!(fixture.certificates.validity(), before, "the next dial shows what is on the disk");
            drop(reply);
            let ended = told.next(LONG).await;
            assert!(matches!(ended, Some(EdgeHubMsg::RenewalEnded { renewed: true, .. })), "{ended:?}");
        };
        tokio::task::LocalSet::new().run_until(story).await;
    }
}
