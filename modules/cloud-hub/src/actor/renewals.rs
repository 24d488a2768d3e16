//! What nodes say about their certificates, and what they are told of the cloud. The register is asked beside the actor.

use std::rc::Rc;
use std::time::Duration;

use beehive::Context;
use contract::NodeName;
use contract::capability;
use contract::certificate::RenewalRefused;
use contract::cloudhub::CloudHubMsg;
use contract::downlink::HubDown;
use contract::nodelease::NodeLeaseMsg;
use contract::uplink::HubUp;

use super::{CloudHub, OpenSession};
use crate::events;

/// 20 s for a node to write what it is to trust.
const TRUST_WITHIN: Duration = Duration::from_secs(20);
/// 10 s, doubled at each time, before a node is told again that has not taken it; 5 times in one session.
const TRUST_AGAIN: Duration = Duration::from_secs(10);
const TRUST_TRIES: u32 = 5;

impl CloudHub {
    /// A node, in a session or with a certificate that has ended, asks for a certificate or says that it has it.
    pub(super) fn up(
        &self,
        node: NodeName,
        session: Option<u64>,
        shown: String,
        message: HubUp,
        cx: &Context<CloudHubMsg>,
    ) {
        let Some(renewals) = self.renewals.clone() else { return };
        // In a session those count as well that were given in it.
        let tracked = session.map(|session| {
            let open = self.open.get(&node).filter(|open| open.session == session)?;
            Some((open.permit.certificate.id, open.permit.certificate.serials()))
        });
        let (tracked, shown) = match tracked {
            None => (None, vec![shown]),
            Some(Some((id, serials))) => (Some(id), serials),
            Some(None) => return over(message),
        };
        let (check, known) = (Rc::clone(&self.check), self.known.clone());
        let (env, myself) = (cx.env().clone(), cx.myself());
        cx.spawn(async move {
            match message {
                HubUp::RenewCertificate { csr_der, reply } => {
                    let renewed = renewals.renew(&env, &node, &shown, &csr_der).await;
                    if let Ok(renewed) = &renewed {
                        // The link that is made with it may be sooner here than the watch's word.
                        known.note(&node, &renewed.serial);
                        if let Some(id) = tracked {
                            check.borrow_mut().renew(&node, id, &renewed.serial, renewed.valid);
                        }
                    }
                    reply.send(renewed.map(|renewed| renewed.answer));
                }
                HubUp::CertificateKept { serial, reply } => {
                    let kept = renewals.kept(&env, &node, &serial).await;
                    if let (Ok(()), Some(id)) = (&kept, tracked) {
                        let is_news = check.borrow_mut().kept(&node, id, &serial);
                        if is_news {
                            let _ = myself.tell(CloudHubMsg::CertificatesChanged).await;
                        }
                    }
                    reply.send(kept);
                }
            }
        });
    }

    /// Tells of the sessions that go on under another certificate.
    pub(super) async fn note_renewed(&mut self) {
        let mut renewed = Vec::new();
        for (node, open) in &mut self.open {
            let certificate = open.permit.certificate.serial();
            if certificate == open.certificate {
                continue;
            }
            let Some(valid) = open.permit.certificate.given_valid() else { continue };
            open.certificate.clone_from(&certificate);
            open.link.certificate_valid = Some(valid);
            let (node, session) = (node.clone(), open.session);
            renewed.push(NodeLeaseMsg::CertificateRenewed { node, session, certificate, valid });
        }
        for renewed in renewed {
            let _ = self.addresses.lease.tell(renewed).await;
        }
    }

    /// Tells a node whom to trust and where the cloud is, until it has taken that or the session is over.
    pub(super) fn tell_trust(&self, node: &NodeName, open: &OpenSession, cx: &Context<CloudHubMsg>) {
        let Some(renewals) = self.renewals.clone() else { return };
        if !open.capabilities.has(capability::TRUST) {
            return;
        }
        open.trusts.set(false);
        let (env, node, hub, trusts) =
            (cx.env().clone(), node.clone(), open.hub.clone(), Rc::clone(&open.trusts));
        cx.spawn(async move {
            let mut pause = TRUST_AGAIN;
            for _ in 0..TRUST_TRIES {
                // As it is then.
                let trust = renewals.trust();
                let told =
                    hub.ask(TRUST_WITHIN, |reply| HubDown::Trust { trust: trust.clone(), reply }).await;
                let reason = match told {
                    // What changed meanwhile is told by a task of its own, and this one has not told it.
                    Ok(Ok(())) => return trusts.set(trusts.get() || renewals.trust() == trust),
                    Ok(Err(reason)) => reason,
                    // The next session is told anew.
                    Err(_) if !hub.is_up() => return,
                    Err(error) => error.to_string(),
                };
                events::trust_not_taken(&env, &node, &reason);
                env.sleep(env.jitter(pause)).await;
                pause *= 2;
            }
        });
    }
}

/// The session is over in which that was said.
fn over(message: HubUp) {
    let reason = "the session is over";
    match message {
        HubUp::RenewCertificate { reply, .. } => {
            reply.send(Err(RenewalRefused { reason: reason.to_owned(), wait: None }));
        }
        HubUp::CertificateKept { reply, .. } => reply.send(Err(reason.to_owned())),
    }
}
