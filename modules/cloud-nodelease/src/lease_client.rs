//! Reads and writes the nodes' Leases.
//!
//! Every write is given the version that was read, or makes what was not there: of two CloudCores that take a node at
//! the same time one comes first and the other reads again.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use beehive::Env;
use beehive::defect::{self, Defect};
use contract::NodeName;
use contract::ids::REPORTED_ANNOTATION;
use contract::nodelease::{NodeHolder, ReportVersion};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kubewatch::status_code;
use serde_json::Value;

use crate::error::LeaseError;
use crate::events;
use crate::lease::{self, LeaseHolder, LeaseOwner, LeaseVersion, NamedCloudCore};
use crate::plan::Sessions;
use crate::rights::{FoundRight, NodeRights};

/// Where nodes' Leases live.
const LEASE_NAMESPACE: &str = "kube-node-lease";
/// How often a Lease is read again when somebody else wrote in between.
const SWAP_TRIES: usize = 8;

/// Who has a node, by its Lease as it is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LeaseOwnership {
    /// This CloudCore, since the session in question.
    Ours,
    /// Another CloudCore, or a later session.
    Lost,
}

/// A node that was taken.
pub(crate) struct LeaseClaim {
    /// The number of the new session.
    pub(crate) session: u64,
    /// The Lease as it was written.
    pub(crate) version: LeaseVersion,
    /// Who had the node until then, and since which session.
    before: Option<(NamedCloudCore, u64)>,
}

/// What a claim begins with: read before it is known whether the node is ours, since nothing of it is written then.
pub(crate) struct FoundClaim {
    lease: Result<Option<LeaseHolder>, LeaseError>,
    right: Option<FoundRight>,
}

/// The nodes' Leases.
#[derive(Clone)]
pub(crate) struct LeaseClient {
    client: kube::Client,
    /// This CloudCore.
    own: Rc<NamedCloudCore>,
    sessions: Rc<RefCell<Sessions>>,
    rights: NodeRights,
}

impl LeaseClient {
    pub(crate) fn new(client: kube::Client, own: NamedCloudCore, sessions: Rc<RefCell<Sessions>>) -> Self {
        let rights = NodeRights::new(client.clone());
        LeaseClient { client, own: Rc::new(own), sessions, rights }
    }

    /// The right to the node, of the Node with this uid, by which policies let CloudCore write about it.
    pub(crate) async fn ensure_right(
        &self,
        env: &Env,
        node: &NodeName,
        uid: Option<&str>,
    ) -> Result<(), LeaseError> {
        self.rights.ensure(env, node, uid, None).await
    }

    /// Reads what a claim begins with, side by side: where the API server is slow, each answer takes its time.
    pub(crate) async fn find(&self, env: &Env, node: &NodeName) -> FoundClaim {
        let (lease, right) = futures::join!(self.read(node), self.rights.read(env, node));
        FoundClaim { lease, right }
    }

    /// Takes the node, of the Node with this uid, whoever has it: the newest link is the one that the node has chosen. Begins no write
    /// of the Lease once `is_late`.
    pub(crate) async fn claim(
        &self,
        env: &Env,
        node: &NodeName,
        uid: Option<&str>,
        found: FoundClaim,
        is_late: &Cell<bool>,
    ) -> Result<LeaseClaim, LeaseError> {
        self.rights.ensure(env, node, uid, found.right).await?;
        let claimed = self.take(node, found.lease, is_late).await;
        if claimed.as_ref().is_err_and(is_refusal) {
            self.rights.doubt(node);
        }
        claimed
    }

    async fn take(
        &self,
        node: &NodeName,
        found: Result<Option<LeaseHolder>, LeaseError>,
        is_late: &Cell<bool>,
    ) -> Result<LeaseClaim, LeaseError> {
        let mut first = Some(found);
        for _ in 0..SWAP_TRIES {
            let found = match first.take() {
                Some(found) => found?,
                None => self.read(node).await?,
            };
            let mut highest = self.sessions.borrow().newest(node).unwrap_or_default();
            let is_counted_here = defect::is_planted(Defect::SessionsFromOne);
            if let (Some(found), false) = (&found, is_counted_here) {
                highest = highest.max(found.session);
            }
            // A Lease that was removed has taken its count with it; the Node remembers.
            if found.as_ref().is_none_or(|found| found.cloudcore.is_none()) && !is_counted_here {
                highest = highest.max(self.session_of_node(node).await?);
            }
            if is_late.get() {
                return Err(LeaseError::Late);
            }
            let exhausted = || LeaseError::Exhausted { node: node.clone(), session: highest };
            let session = lease::next_session(highest).ok_or_else(exhausted)?;
            let written = match &found {
                Some(found) => {
                    let patch = lease::claim_patch(node, &self.own, session, &found.lease.resource_version);
                    self.patch(node, &patch).await?
                }
                None => self.create(node, lease::new_lease(node, &self.own, session, None, None)).await?,
            };
            if let Some(version) = written {
                let before = found.and_then(|LeaseHolder { cloudcore, address, session, .. }| {
                    Some((NamedCloudCore { cloudcore: cloudcore?, address }, session))
                });
                return Ok(LeaseClaim { session, version, before });
            }
        }
        Err(LeaseError::Contended)
    }

    /// Undoes a claim of which nobody was told: whoever had the node has it again, unless somebody has taken it since.
    pub(crate) async fn give_back(&self, node: &NodeName, claim: LeaseClaim) -> Result<(), LeaseError> {
        let Some((holder, session)) = claim.before else { return Ok(()) };
        let patch = lease::claim_patch(node, &holder, session, &claim.version.resource_version);
        self.patch(node, &patch).await.map(drop)
    }

    /// Renews the Lease if this CloudCore has the node since that session, and makes the Node with that uid its owner if it has
    /// none.
    pub(crate) async fn renew(
        &self,
        node: &NodeName,
        session: u64,
        now: jiff::Timestamp,
        uid: &str,
        env: &Env,
    ) -> Result<LeaseOwnership, LeaseError> {
        let mut is_refused = false;
        for _ in 0..SWAP_TRIES {
            let known = self.sessions.borrow_mut().take_lease_version(node, session);
            let version = match known {
                Some(version) => Some(version),
                None => match self.read(node).await? {
                    Some(found) if self.is_ours(&found, session) => Some(found.lease),
                    Some(_) => return Ok(LeaseOwnership::Lost),
                    None => None,
                },
            };
            let held = version.as_ref().map(|version| version.owner).unwrap_or_default();
            is_refused |= held == LeaseOwner::Refused;
            let owner = Some(uid).filter(|_| held == LeaseOwner::Missing && !is_refused);
            let written = match &version {
                Some(LeaseVersion { resource_version, renewed, .. }) => {
                    let at = lease::renewal_time(*renewed, now);
                    self.patch(node, &lease::renewal_patch(node, at, resource_version, owner)).await
                }
                None => {
                    let made = lease::new_lease(node, &self.own, session, Some(now), owner);
                    self.create(node, made).await
                }
            };
            match written {
                Ok(Some(mut version)) => {
                    if is_refused && version.owner == LeaseOwner::Missing {
                        version.owner = LeaseOwner::Refused;
                    }
                    self.sessions.borrow_mut().put_lease_version(node, session, version);
                    return Ok(LeaseOwnership::Ours);
                }
                Ok(None) => {}
                // A node that is alive is said to be, with an owner or without.
                Err(LeaseError::Api(error))
                    if owner.is_some() && matches!(status_code(&error), Some(403 | 422)) =>
                {
                    events::lease_owner_refused(env, node, &error.to_string());
                    is_refused = true;
                }
                // Whoever took its right away took the node, too, or took it by mistake: the next try looks.
                Err(error) if is_refusal(&error) => {
                    self.rights.doubt(node);
                    self.rights.ensure(env, node, Some(uid), None).await?;
                    return Err(error);
                }
                Err(error) => return Err(error),
            }
        }
        Err(LeaseError::Contended)
    }

    /// Whether this CloudCore has the node since that session. A Lease that is no more is nobody else's.
    pub(crate) async fn holds(&self, node: &NodeName, session: u64) -> Result<LeaseOwnership, LeaseError> {
        let is_ours = match self.read(node).await? {
            Some(found) => self.is_ours(&found, session),
            None => self.sessions.borrow().newest(node) == Some(session),
        };
        Ok(if is_ours { LeaseOwnership::Ours } else { LeaseOwnership::Lost })
    }

    /// Whether no other CloudCore has taken the node since: whoever has knows better.
    pub(crate) async fn may_speak_of(&self, node: &NodeName) -> Result<bool, LeaseError> {
        let found = self.read(node).await?;
        let holder = found.as_ref().and_then(|found| found.cloudcore.as_deref());
        Ok(holder.is_none_or(|holder| holder == self.own.cloudcore))
    }

    /// The CloudCore that has the node, whoever that is.
    pub(crate) async fn holder(&self, node: &NodeName) -> Result<Option<NodeHolder>, LeaseError> {
        let Some(LeaseHolder { cloudcore: Some(cloudcore), address, .. }) = self.read(node).await? else {
            return Ok(None);
        };
        let is_here = cloudcore == self.own.cloudcore;
        Ok(Some(NodeHolder { cloudcore, address, is_here }))
    }

    fn is_ours(&self, found: &LeaseHolder, session: u64) -> bool {
        found.cloudcore.as_ref() == Some(&self.own.cloudcore) && found.session == session
    }

    fn leases(&self) -> Api<Lease> {
        Api::namespaced(self.client.clone(), LEASE_NAMESPACE)
    }

    async fn read(&self, node: &NodeName) -> Result<Option<LeaseHolder>, LeaseError> {
        Ok(self.leases().get_opt(node.as_str()).await?.as_ref().map(lease::holder_of))
    }

    /// `None`: somebody else wrote in between.
    async fn patch(&self, node: &NodeName, patch: &Value) -> Result<Option<LeaseVersion>, LeaseError> {
        let patched = self.leases().patch(node.as_str(), &PatchParams::default(), &Patch::Merge(patch)).await;
        match patched {
            Ok(lease) => Ok(Some(lease::holder_of(&lease).lease)),
            Err(error) if matches!(status_code(&error), Some(404 | 409)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// `None`: somebody else was first.
    async fn create(&self, node: &NodeName, lease: Value) -> Result<Option<LeaseVersion>, LeaseError> {
        let lease: Lease = serde_json::from_value(lease).map_err(kube::Error::SerdeError)?;
        match self.leases().create(&PostParams::default(), &lease).await {
            Ok(lease) => Ok(Some(lease::holder_of(&lease).lease)),
            Err(error) if status_code(&error) == Some(409) => {
                tracing::debug!(%node, "another CloudCore made the Lease");
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The session of the newest report that the Node holds.
    async fn session_of_node(&self, node: &NodeName) -> Result<u64, LeaseError> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let Some(found) = nodes.get_metadata_opt(node.as_str()).await? else { return Ok(0) };
        let metadata = found.metadata;
        let text = metadata.annotations.as_ref().and_then(|all| all.get(REPORTED_ANNOTATION));
        let version = ReportVersion::of_object(
            text.map(String::as_str).unwrap_or_default(),
            metadata.uid.as_deref().unwrap_or_default(),
        );
        Ok(version.map_or(0, |version| version.session))
    }
}

/// An admission policy or RBAC forbids it.
fn is_refusal(error: &LeaseError) -> bool {
    matches!(error, LeaseError::Api(error) if matches!(status_code(error), Some(403 | 422)))
}
