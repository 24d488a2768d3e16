//! Admits nodes by the register and takes their Leases.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use beehive::{Env, Fault, Reply};
use contract::NodeName;
use contract::nodelease::{CLAIM_DEADLINE, CLAIM_WAIT, ClaimRefused, SessionState};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use noderegistry::{AdmissionError, Refusal, Registry};

use crate::error::LeaseError;
use crate::events;
use crate::lease_client::{LeaseClaim, LeaseClient};
use crate::plan::{NodeCheck, Sessions, living_uid};

/// 60 s more for a Lease that was being written then: what was written is undone.
const LATE_DEADLINE: Duration = Duration::from_secs(60);
/// 5 s: what a node is asked to wait while nobody can say whose it is.
const UNKNOWN_WAIT: Duration = Duration::from_secs(5);
/// 60 s: what a node is asked to wait where an administrator has to act.
const ADMINISTRATOR_WAIT: Duration = Duration::from_secs(60);
/// 1 s, half of it at the least, before the register is asked again that did not answer.
const RESOLVE_PAUSE: Duration = Duration::from_secs(1);

pub(crate) fn not_now(reason: &str) -> ClaimRefused {
    ClaimRefused { reason: reason.to_owned(), wait: Some(CLAIM_WAIT) }
}

/// What became of a session that somebody asked the register about.
pub(crate) enum Resolved {
    /// It goes on.
    GoesOn,
    /// It is over, for this reason.
    Over(String),
}

/// What tasks beside the actor need to admit nodes.
#[derive(Clone)]
pub(crate) struct ClaimHandler {
    pub(crate) env: Env,
    pub(crate) registry: Registry,
    pub(crate) leases: LeaseClient,
    pub(crate) sessions: Rc<RefCell<Sessions>>,
}

impl ClaimHandler {
    /// Admits the node and takes it, or says why not in a sentence for the node. A Lease that is written too late says again what
    /// it said before: the node was told that it has no session since, and one that it has goes on.
    pub(crate) async fn claim(
        &self,
        node: &NodeName,
        certificate: &str,
        reply: Reply<Result<u64, ClaimRefused>>,
    ) {
        let is_late = Cell::new(false);
        let mut taking = std::pin::pin!(self.take(node, certificate, &is_late));
        if let Some(taken) = self.env.timeout(CLAIM_DEADLINE, &mut taking).await {
            return reply.send(taken.map(|(uid, LeaseClaim { session, version, .. })| {
                self.sessions.borrow_mut().begin(node, session, certificate, uid, Some(version));
                events::node_claimed(&self.env, node, session);
                session
            }));
        }
        reply.send(Err(not_now("the API server did not answer in time")));
        is_late.set(true);
        if let Some(Ok((_, claim))) = self.env.timeout(LATE_DEADLINE, taking).await
            && let Err(error) = self.leases.give_back(node, claim).await
        {
            events::claim_failed(&self.env, node, &Fault::from_error(&error).reason);
        }
    }

    /// The Node that the session is of, and the Lease. Nothing more is written once it is late.
    async fn take(
        &self,
        node: &NodeName,
        certificate: &str,
        is_late: &Cell<bool>,
    ) -> Result<(Option<String>, LeaseClaim), ClaimRefused> {
        // Nothing is written about a node that is not ours, its Lease included; reading is all the same. One after the other these answers
        // would take most of the time that there is, where the API server has a hundred nodes at once.
        let (admitted, found) =
            futures::join!(self.admit(node, certificate), self.leases.find(&self.env, node));
        let uid = admitted.map_err(|error| self.refused(node, &error))?;
        let claimed = self.leases.claim(&self.env, node, uid.as_deref(), found, is_late).await;
        let claim = claimed.map_err(|error| {
            events::claim_failed(&self.env, node, &Fault::from_error(&error).reason);
            match error {
                LeaseError::Exhausted { .. } => {
                    ClaimRefused { reason: error.to_string(), wait: Some(ADMINISTRATOR_WAIT) }
                }
                LeaseError::Api(_) | LeaseError::Contended | LeaseError::Late => {
                    not_now("the node's Lease cannot be written now")
                }
            }
        })?;
        Ok((uid, claim))
    }

    /// Of which Node a session of the node with this certificate may be; `None`: it is yet to be made.
    async fn admit(&self, node: &NodeName, certificate: &str) -> Result<Option<String>, AdmissionError> {
        // The watch is late at times: a refusal counts only if the API server says so now.
        let in_watch: Option<ObjectMeta> = self.sessions.borrow().node(node).cloned();
        if let Some(metadata) = in_watch {
            match self.registry.admit(node, certificate, Some(&metadata)).await {
                Ok(admitted) => return Ok(admitted.node_uid),
                Err(AdmissionError::Refused(_)) => {}
                Err(error @ AdmissionError::Unavailable(_)) => return Err(error),
            }
        }
        let metadata = self.registry.node_metadata(node).await?;
        let admitted = self.registry.admit(node, certificate, metadata.as_ref()).await?;
        Ok(admitted.node_uid)
    }

    /// Finds out of which Node a session is that began before this actor's last restart.
    pub(crate) async fn resolve(&self, node: &NodeName, session: u64) -> Resolved {
        let mut refused = None;
        loop {
            let certificate = self.sessions.borrow().certificate(node, session);
            let Some(certificate) = certificate else { return Resolved::GoesOn };
            match self.admit(node, &certificate).await {
                Ok(uid) => {
                    self.sessions.borrow_mut().resolved(node, session, uid);
                    return Resolved::GoesOn;
                }
                // It may have been renewed just now, which is said here in a moment.
                Err(AdmissionError::Refused(Refusal::NotLiving(_)))
                    if refused.as_ref() != Some(&certificate) =>
                {
                    refused = Some(certificate);
                    self.env.sleep(RESOLVE_PAUSE).await;
                }
                Err(AdmissionError::Refused(refusal)) => return Resolved::Over(refusal.to_string()),
                Err(AdmissionError::Unavailable(error)) => {
                    events::node_not_checked(&self.env, node, &Fault::from_error(&error).reason);
                    self.env.sleep(self.env.jitter(RESOLVE_PAUSE)).await;
                }
            }
        }
    }

    /// There is a Node now: if it was made for this session, it is noted in the register, and the session is of it from now
    /// on.
    ///
    /// # Errors
    /// Nobody can say now.
    pub(crate) async fn node_created(&self, node: &NodeName, session: u64) -> Result<Resolved, String> {
        let certificate = self.sessions.borrow().certificate(node, session);
        let Some(certificate) = certificate else { return Ok(Resolved::GoesOn) };
        let unavailable = |error: &dyn std::error::Error| Fault::from_error(error).reason;
        let found = self.registry.node_metadata(node).await.map_err(|error| unavailable(&error))?;
        // It is gone again: the next report makes it.
        let Some(metadata) = found else { return Ok(Resolved::GoesOn) };
        match self.registry.node_made(node, &certificate, &metadata).await {
            Ok(uid) => {
                let right = self.leases.ensure_right(&self.env, node, Some(&uid)).await;
                right.map_err(|error| unavailable(&error))?;
                self.sessions.borrow_mut().resolved(node, session, Some(uid));
                Ok(Resolved::GoesOn)
            }
            // It may have been renewed just now: the next report asks again, and the hub ends the session where it was replaced.
            Err(AdmissionError::Refused(refusal @ Refusal::NotLiving(_))) => Err(refusal.to_string()),
            Err(AdmissionError::Refused(refusal)) => Ok(Resolved::Over(refusal.to_string())),
            Err(AdmissionError::Unavailable(error)) => Err(unavailable(&error)),
        }
    }

    /// Asks the API server whether the session's Node is still the one.
    pub(crate) async fn check(&self, node: &NodeName, session: u64) -> Resolved {
        match self.registry.node_metadata(node).await {
            Ok(found) => {
                let found = living_uid(found.as_ref());
                match self.sessions.borrow_mut().checked(node, session, found) {
                    NodeCheck::Over => Resolved::Over(
                        "its Node was deleted from the cluster, or another one took its place".to_owned(),
                    ),
                    NodeCheck::StillThere | NodeCheck::NoSession => Resolved::GoesOn,
                }
            }
            Err(error) => {
                self.sessions.borrow_mut().not_checked(node, session);
                events::node_not_checked(&self.env, node, &Fault::from_error(&error).reason);
                Resolved::GoesOn
            }
        }
    }

    pub(crate) fn state(&self, node: &NodeName, session: u64) -> SessionState {
        self.sessions.borrow_mut().state(node, session)
    }

    /// What the node is told; whatever of the cloud's inside is in it goes to the log alone.
    fn refused(&self, node: &NodeName, error: &AdmissionError) -> ClaimRefused {
        match error {
            AdmissionError::Refused(refusal) => {
                events::node_not_admitted(&self.env, node, &refusal.to_string());
                ClaimRefused { reason: refusal.to_string(), wait: Some(error.wait()) }
            }
            AdmissionError::Unavailable(cause) => {
                events::claim_failed(&self.env, node, &Fault::from_error(cause).reason);
                let reason = "whose this node is cannot be found out now".to_owned();
                ClaimRefused { reason, wait: Some(UNKNOWN_WAIT) }
            }
        }
    }
}
