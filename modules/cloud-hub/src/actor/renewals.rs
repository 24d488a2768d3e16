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
        // In a session the certificate counts that was given in it last.
        let tracked = session.map(|session| {
            let open = self.open.get(&node).filter(|open| open.session == session)?;
            Some((session, open.permit.certificate.id, open.permit.certificate.serial()))
        });
        let (tracked, shown) = match tracked {
            None => (None, shown),
            Some(Some((session, id, serial))) => (Some((session, id)), serial),
            Some(None) => return over(message),
        };
        let (check, env, myself) = (Rc::clone(&self.check), cx.env().clone(), cx.myself());
        cx.spawn(async move {
            match message {
                HubUp::RenewCertificate { csr_der, reply } => {
                    let renewed = renewals.renew(&env, &node, &shown, &csr_der).await;
                    if let (Ok(renewed), Some((_, id))) = (&renewed, tracked) {
                        check.borrow_mut().renew(&node, id, &renewed.serial, renewed.valid);
                    }
                    reply.send(renewed.map(|renewed| renewed.answer));
                }
                HubUp::CertificateKept { serial, reply } => {
                    let kept = renewals.kept(&env, &node, &serial).await;
                    if let (Ok(()), Some((session, id))) = (&kept, tracked) {
                        let valid = check.borrow_mut().kept(&node, id, &serial);
                        if let Some(valid) = valid {
                            let (node, certificate) = (node.clone(), serial);
                            let noted = CloudHubMsg::RenewalNoted { node, session, certificate, valid };
                            let _ = myself.tell(noted).await;
                        }
                    }
                    reply.send(kept);
                }
            }
        });
    }

    /// The session goes on under another certificate.
    pub(super) async fn renewal_noted(
        &mut self,
        node: NodeName,
        session: u64,
        certificate: String,
        valid: (u64, u64),
    ) {
        let Some(open) = self.open.get_mut(&node).filter(|open| open.session == session) else { return };
        open.link.certificate_valid = Some(valid);
        let renewed = NodeLeaseMsg::CertificateRenewed { node, session, certificate, valid };
        let _ = self.addresses.lease.tell(renewed).await;
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
