//! The node's certificate and whom it trusts, as the hub keeps them: what is asked for over the link, and what comes over it.

use std::rc::Rc;
use std::time::{Duration, SystemTime};

use beehive::link::Link;
use beehive::{Address, Context, Env, Reply};
use contract::capability;
use contract::certificate::{CloudTrust, SERVERS_MAX};
use contract::edgehub::EdgeHubMsg;
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

    pub(super) fn snapshot(&self) -> serde_json::Value {
        let unix = |at: SystemTime| at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        serde_json::json!({
            "rotates": self.certificates.rotates(),
            "endsUnix": self.plan.as_ref().map(|plan| unix(plan.not_after())),
            "renewedAtUnix": self.plan.as_ref().map(|plan| unix(plan.renew_at())),
            "isRenewing": self.is_renewing,
            "namedServers": self.certificates.servers(),
        })
    }
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
            let (env, hub, myself) = (cx.env().clone(), link.remote(), cx.myself());
            let certificates = Rc::clone(&keeping.certificates);
            cx.spawn(async move {
                let renewed = certificates.renew(&env, &hub).await;
                let ended = ended(&env, renewed.map(|_| ()));
                let _ = myself.tell(ended).await;
            });
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
        cx.spawn(async move {
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

fn ended(env: &Env, renewed: Result<(), RenewalFailure>) -> EdgeHubMsg {
    match renewed {
        Ok(()) => {
            events::certificate_renewed(env);
            EdgeHubMsg::RenewalEnded { renewed: true, wait_ms: None }
        }
        Err(RenewalFailure { reason, wait }) => {
            events::certificate_not_renewed(env, &reason);
            let wait_ms = wait.map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
            EdgeHubMsg::RenewalEnded { renewed: false, wait_ms }
        }
    }
}

/// A link over which the certificate can be renewed, which has ended, and nothing else be done. It is not told to anybody: after it
/// the node dials with what it was given.
pub(super) async fn renew_alone(
    env: &Env,
    link: &Link,
    certificates: Option<Rc<NodeCertificates>>,
    myself: &Address<EdgeHubMsg>,
) -> AttemptFailure {
    let failed = |reason: String, wait| AttemptFailure { reason, wait, answered: true };
    let Some(certificates) = certificates.filter(|certificates| certificates.rotates()) else {
        let words = "this node's certificate has ended, and modules.edgeHub.rotateCertificates is false: put a new one in its place";
        return failed(words.to_owned(), None);
    };
    match certificates.renew(env, &link.remote()).await {
        Ok(_) => {
            let _ = myself.tell(ended(env, Ok(()))).await;
            failed(
                "this node's certificate had ended and is renewed: the next dial shows it".to_owned(),
                None,
            )
        }
        Err(failure) => {
            let (reason, wait) = (failure.reason.clone(), failure.wait);
            let _ = myself.tell(ended(env, Err(failure))).await;
            failed(format!("this node's certificate has ended and is not renewed: {reason}"), wait)
        }
    }
}
