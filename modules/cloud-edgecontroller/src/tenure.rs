//! Takes nodes, renews their Leases, and says whether this CloudCore still has them.
//!
//! Every write is given the version that was read, or makes what was not there: of two CloudCores that take a node at
//! the same time one comes first and the other reads again.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use beehive::Address;
use contract::NodeName;
use contract::cloudhub::CloudHubMsg;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::Value;

use crate::fence::{self, Standing};
use crate::uplink::{UpError, status_code};

/// Where nodes' Leases live.
const LEASE_NAMESPACE: &str = "kube-node-lease";
/// How often a Lease is read again when somebody else wrote in between.
const SWAP_TRIES: usize = 8;

/// A node that this CloudCore took.
struct Taken {
    epoch: u64,
    /// The Lease's version when it was last seen to be ours, so that a renewal is one request.
    version: Option<String>,
    /// When it was last renewed, as it stands there.
    renewed: Option<jiff::Timestamp>,
}

/// The nodes' Leases, as far as this CloudCore has to do with them.
#[derive(Clone)]
pub(crate) struct Tenures {
    client: kube::Client,
    /// This CloudCore.
    cloudcore: Rc<str>,
    /// Is told what was lost.
    hub: Address<CloudHubMsg>,
    taken: Rc<RefCell<BTreeMap<NodeName, Taken>>>,
}

impl Tenures {
    pub(crate) fn new(client: kube::Client, cloudcore: &str, hub: Address<CloudHubMsg>) -> Self {
        Tenures { client, cloudcore: cloudcore.into(), hub, taken: Rc::default() }
    }

    pub(crate) fn cloudcore(&self) -> &str {
        &self.cloudcore
    }

    /// Takes the node, whoever has it: the newest link is the one that the node has chosen. Answers the epoch.
    pub(crate) async fn claim(&self, node: &NodeName) -> Result<u64, UpError> {
        for _ in 0..SWAP_TRIES {
            let found = self.read(node).await?;
            let mut highest = self.epoch_here(node).unwrap_or_default();
            if let Some(found) = &found {
                highest = highest.max(found.epoch);
            }
            // A Lease that was removed has taken its count with it; the Node remembers.
            if found.as_ref().is_none_or(|found| found.holder.is_none()) {
                highest = highest.max(self.epoch_of_node(node).await?);
            }
            let epoch = fence::next_epoch(highest);
            let written = match &found {
                Some(found) => {
                    let patch = fence::claim_patch(node, &self.cloudcore, epoch, &found.version);
                    self.patch(node, &patch).await?
                }
                None => self.create(node, fence::new_lease(node, &self.cloudcore, epoch, None)).await?,
            };
            if let Some(Standing { version, renewed, .. }) = written {
                let taken = Taken { epoch, version: Some(version), renewed };
                self.taken.borrow_mut().insert(node.clone(), taken);
                return Ok(epoch);
            }
        }
        Err(UpError::Contended)
    }

    /// Renews the Lease if this CloudCore has the node since `epoch`. Answers whether it has; if not, the hub is told.
    pub(crate) async fn renew(
        &self,
        node: &NodeName,
        epoch: u64,
        now: jiff::Timestamp,
    ) -> Result<bool, UpError> {
        for _ in 0..SWAP_TRIES {
            let known = self.take_version(node, epoch);
            let found = match known {
                Some(known) => Some(known),
                None => match self.read(node).await? {
                    Some(found) if self.is_ours(&found, epoch) => Some((found.version, found.renewed)),
                    Some(found) => {
                        self.lost(node, epoch, &found);
                        return Ok(false);
                    }
                    None => None,
                },
            };
            let written = match &found {
                Some((version, before)) => {
                    let at = fence::renewal_time(*before, now);
                    self.patch(node, &fence::renewal_patch(node, at, version)).await?
                }
                None => self.create(node, fence::new_lease(node, &self.cloudcore, epoch, Some(now))).await?,
            };
            if let Some(written) = written {
                self.put_version(node, epoch, written);
                return Ok(true);
            }
        }
        Err(UpError::Contended)
    }

    /// Whether this CloudCore has the node since `epoch`; if not, the hub is told. A Lease that is no more is nobody else's.
    pub(crate) async fn holds(&self, node: &NodeName, epoch: u64) -> Result<bool, UpError> {
        match self.read(node).await? {
            Some(found) if !self.is_ours(&found, epoch) => {
                self.lost(node, epoch, &found);
                Ok(false)
            }
            Some(_) => Ok(true),
            None => Ok(self.epoch_here(node) == Some(epoch)),
        }
    }

    /// Whether no other CloudCore has taken the node since: whoever has knows better.
    pub(crate) async fn may_speak_of(&self, node: &NodeName) -> Result<bool, UpError> {
        let found = self.read(node).await?;
        let holder = found.as_ref().and_then(|found| found.holder.as_deref());
        let is_ours = holder.is_none_or(|holder| holder == &*self.cloudcore);
        if let (false, Some(found), Some(epoch)) = (is_ours, &found, self.epoch_here(node)) {
            self.lost(node, epoch, found);
        }
        Ok(is_ours)
    }

    fn is_ours(&self, found: &Standing, epoch: u64) -> bool {
        found.holder.as_deref() == Some(&*self.cloudcore) && found.epoch == epoch
    }

    fn lost(&self, node: &NodeName, epoch: u64, found: &Standing) {
        let (holder, now) = (found.holder.as_deref().unwrap_or("nobody"), found.epoch);
        tracing::debug!(%node, epoch, holder, now, "the node has gone on to a later session");
        // A full mailbox: the next renewal tells it again.
        let _ = self.hub.try_tell(CloudHubMsg::Lost { node: node.clone(), epoch });
    }

    /// The newest epoch in which this CloudCore took the node.
    fn epoch_here(&self, node: &NodeName) -> Option<u64> {
        self.taken.borrow().get(node).map(|taken| taken.epoch)
    }

    fn take_version(&self, node: &NodeName, epoch: u64) -> Option<(String, Option<jiff::Timestamp>)> {
        let mut taken = self.taken.borrow_mut();
        let taken = taken.get_mut(node).filter(|taken| taken.epoch == epoch)?;
        Some((taken.version.take()?, taken.renewed))
    }

    fn put_version(&self, node: &NodeName, epoch: u64, written: Standing) {
        let mut taken = self.taken.borrow_mut();
        if let Some(taken) = taken.get_mut(node).filter(|taken| taken.epoch == epoch) {
            (taken.version, taken.renewed) = (Some(written.version), written.renewed);
        }
    }

    fn leases(&self) -> Api<Lease> {
        Api::namespaced(self.client.clone(), LEASE_NAMESPACE)
    }

    async fn read(&self, node: &NodeName) -> Result<Option<Standing>, UpError> {
        Ok(self.leases().get_opt(node.as_str()).await?.as_ref().map(fence::standing))
    }

    /// `None`: somebody else wrote in between.
    async fn patch(&self, node: &NodeName, patch: &Value) -> Result<Option<Standing>, UpError> {
        let patched = self.leases().patch(node.as_str(), &PatchParams::default(), &Patch::Merge(patch)).await;
        match patched {
            Ok(lease) => Ok(Some(fence::standing(&lease))),
            Err(error) if matches!(status_code(&error), Some(404 | 409)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// `None`: somebody else was first.
    async fn create(&self, node: &NodeName, lease: Value) -> Result<Option<Standing>, UpError> {
        let lease: Lease = serde_json::from_value(lease).map_err(kube::Error::SerdeError)?;
        match self.leases().create(&PostParams::default(), &lease).await {
            Ok(lease) => Ok(Some(fence::standing(&lease))),
            Err(error) if status_code(&error) == Some(409) => {
                tracing::debug!(%node, "another CloudCore made the Lease");
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn epoch_of_node(&self, node: &NodeName) -> Result<u64, UpError> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let found = nodes.get_metadata_opt(node.as_str()).await?;
        Ok(found.and_then(|node| fence::mark_of(&node.metadata)).map_or(0, |mark| mark.epoch))
    }
}
