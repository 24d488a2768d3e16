//! What CloudStream asks of the API server beside calls: to have its certificate signed, and whether it gets through.

use std::rc::Rc;

use beehive::{Context, Fault};
use contract::NodeName;
use contract::cloudstream::CloudStreamMsg;

use super::{CloudStream, Dependencies};
use crate::reach::ASK_AFTER;
use crate::{events, signed_certificate};

impl CloudStream {
    pub(super) fn begin_checks(&self, cx: &Context<CloudStreamMsg>) {
        let Some(running) = &self.running else { return };
        let Dependencies { client, checks, .. } = &self.dependencies;
        if let Some(signer) = running.serving.signer.clone() {
            let wanted = (signer, running.serving.certificate.alt_names().clone());
            let signed = Rc::clone(&running.signed);
            signed_certificate::keep(wanted, client.clone(), checks.clone(), signed, cx);
        }
        if running.serving.checked {
            cx.after(cx.env().jitter(ASK_AFTER), CloudStreamMsg::CheckReach);
        }
    }

    /// The signer's certificate has come or gone: handshakes show it from now on.
    pub(super) fn show(&self, cx: &Context<CloudStreamMsg>) {
        let Some(running) = &self.running else { return };
        match running.shown().tls(running.client_ca.as_deref()) {
            Ok(tls) => running.tls.replace(&tls),
            Err(error) => events::certificate_not_renewed(cx.env(), &Fault::from_error(&error).reason),
        }
    }

    /// By one of the nodes that have a link and a port, beginning with another each time.
    pub(super) fn check_reach(&self, cx: &Context<CloudStreamMsg>) {
        let Some(running) = &self.running else { return };
        let mut open: Vec<NodeName> = self
            .nodes
            .iter()
            .filter(|(_, served)| served.session.is_some() && served.port.is_some())
            .map(|(node, _)| node.clone())
            .collect();
        if open.is_empty() {
            cx.after(cx.env().jitter(ASK_AFTER), CloudStreamMsg::CheckReach);
            return;
        }
        let drawn = cx.env().random_below(open.len() as u64);
        open.rotate_left(usize::try_from(drawn).unwrap_or_default());
        let (reach, env, myself) = (Rc::clone(&running.reach), cx.env().clone(), cx.myself());
        let Dependencies { client, checks, .. } = self.dependencies.clone();
        cx.spawn(async move {
            let pause = reach.lock().await.check(&client, &open, &checks, &env).await;
            env.sleep(env.jitter(pause)).await;
            let _ = myself.tell(CloudStreamMsg::CheckReach).await;
        });
    }
}
