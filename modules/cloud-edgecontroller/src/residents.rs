//! Whose word counts: for which Node each node's session was admitted, and whether that Node is still there.
//!
//! Whose a Node is, the register decides ([`noderegistry`]). A session is of one Node uid. When the Node of that name goes or
//! another one takes its place, nothing that is said in the session counts any more, and the hub is told to end the link.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use beehive::{Address, Fault};
use contract::cloudhub::CloudHubMsg;
use contract::edgecontroller::ClaimRefused;
use contract::ids::NODES;
use contract::{NodeName, ObjectKey};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kubewatch::Shared;
use noderegistry::{NotAdmitted, Registry};

use crate::plan;

/// 5 s: what a node is asked to wait while nobody can say whose it is.
const UNKNOWN_WAIT: Duration = Duration::from_secs(5);

/// What a node's word is worth in a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Word {
    /// It counts.
    Counts,
    /// The Node is yet to be made: by a report of the node about itself, and nothing else counts before.
    Unmade,
    /// The Node that the caches have is another one, or there is none: it is being looked into.
    Doubtful,
    /// The session is not the newest one here, or was ended: the node says it again in another one, if it may.
    Ended,
}

/// A session that was admitted.
struct Resident {
    epoch: u64,
    /// The serial of the certificate.
    certificate: Rc<str>,
    /// Of the Node; `None`: it is yet to be made.
    uid: Option<String>,
    /// Whether the watch has shown that Node.
    seen: bool,
    /// Whether somebody looks into it.
    looking: bool,
}

/// The newest session of each node here. A node that has gone to another CloudCore keeps its place: its Lease says so.
#[derive(Clone)]
pub(crate) struct Residents {
    registry: Registry,
    hub: Address<CloudHubMsg>,
    nodes: Rc<RefCell<Option<Shared>>>,
    held: Rc<RefCell<BTreeMap<NodeName, Resident>>>,
}

impl Residents {
    pub(crate) fn new(client: kube::Client, hub: Address<CloudHubMsg>) -> Self {
        Residents { registry: Registry::new(client), hub, nodes: Rc::default(), held: Rc::default() }
    }

    /// From now on the Nodes are known from this watch.
    pub(crate) fn watch(&self, nodes: &Shared) {
        *self.nodes.borrow_mut() = Some(Rc::clone(nodes));
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.held.borrow().len()
    }

    /// Whether a session of the node with this certificate may be, and of which Node; `None`: it is yet to be made.
    ///
    /// # Errors
    /// Why not, in a sentence for the node.
    pub(crate) async fn admit(
        &self,
        node: &NodeName,
        certificate: &str,
    ) -> Result<Option<String>, ClaimRefused> {
        // The watch is late at times: a refusal counts only if the API server says so now.
        if let Some(metadata) = self.cached(node) {
            match self.registry.admit(node, certificate, Some(&metadata)).await {
                Ok(admitted) => return Ok(admitted.node_uid),
                Err(NotAdmitted::Refused(_)) => {}
                Err(error @ NotAdmitted::Unavailable(_)) => return Err(refused(node, &error)),
            }
        }
        let metadata = match self.registry.node_metadata(node).await {
            Ok(metadata) => metadata,
            Err(error) => return Err(refused(node, &error.into())),
        };
        let admitted = self.registry.admit(node, certificate, metadata.as_ref()).await;
        admitted.map(|admitted| admitted.node_uid).map_err(|error| refused(node, &error))
    }

    /// A session begins.
    pub(crate) fn begin(&self, node: &NodeName, epoch: u64, certificate: &str, uid: Option<String>) {
        let resident = Resident { epoch, certificate: certificate.into(), uid, seen: false, looking: false };
        let mut held = self.held.borrow_mut();
        // Two claims of one node may end in any order; the Lease has put them in one.
        if held.get(node).is_none_or(|held| held.epoch < epoch || epoch == 1) {
            held.insert(node.clone(), resident);
        }
    }

    /// What the node's word is worth in the session of that epoch.
    pub(crate) fn word(&self, node: &NodeName, epoch: u64) -> Word {
        let cached = self.cached_uid(node);
        let mut held = self.held.borrow_mut();
        let Some(resident) = held.get_mut(node).filter(|held| held.epoch == epoch) else {
            return Word::Ended;
        };
        match (&resident.uid, cached) {
            (None, _) => Word::Unmade,
            (Some(uid), Some(cached)) if *uid == cached => {
                resident.seen = true;
                Word::Counts
            }
            // The watch has yet to show it.
            (Some(_), _) if !resident.seen => Word::Counts,
            (Some(_), _) => Word::Doubtful,
        }
    }

    /// The uid of the Node that the session is of: `Err`: there is no such session.
    pub(crate) fn uid(&self, node: &NodeName, epoch: u64) -> Result<Option<String>, ()> {
        let held = self.held.borrow();
        held.get(node).filter(|held| held.epoch == epoch).map(|held| held.uid.clone()).ok_or(())
    }

    /// Whether the Node with this metadata is the one of the node's session; where there is none here, whether it is one of ours
    /// by what stands on it.
    pub(crate) fn is_of(&self, node: &NodeName, metadata: &ObjectMeta) -> bool {
        match self.held.borrow().get(node).map(|held| &held.uid) {
            Some(Some(uid)) => metadata.uid.as_ref() == Some(uid) && !noderegistry::plan::is_ending(metadata),
            Some(None) => false,
            None => plan::is_ours(metadata),
        }
    }

    /// Whether what the node is linked for is over, as far as the caches know: its Node went or was replaced, or the session
    /// was ended for that already.
    pub(crate) fn is_over(&self, node: &NodeName) -> bool {
        let cached = self.cached_uid(node);
        match self.held.borrow().get(node).map(|held| &held.uid) {
            Some(Some(uid)) => cached.as_ref() != Some(uid),
            Some(None) => false,
            None => true,
        }
    }

    /// The serial of the session's certificate.
    pub(crate) fn certificate(&self, node: &NodeName, epoch: u64) -> Option<Rc<str>> {
        let held = self.held.borrow();
        held.get(node).filter(|held| held.epoch == epoch).map(|held| Rc::clone(&held.certificate))
    }

    /// There is a Node now: if it was made for this session, it is noted in the register, and the session is of it from now on.
    ///
    /// # Errors
    /// It is somebody else's, or nobody can say now.
    pub(crate) async fn made(
        &self,
        node: &NodeName,
        epoch: u64,
        metadata: &ObjectMeta,
    ) -> Result<(), NotAdmitted> {
        let Some(certificate) = self.certificate(node, epoch) else { return Ok(()) };
        let uid = self.registry.node_made(node, &certificate, metadata).await?;
        let mut held = self.held.borrow_mut();
        if let Some(resident) = held.get_mut(node).filter(|held| held.epoch == epoch) {
            (resident.uid, resident.seen) = (Some(uid), false);
        }
        Ok(())
    }

    /// Whether somebody has to look into it; from now on somebody does.
    pub(crate) fn is_in_doubt(&self, node: &NodeName) -> bool {
        let cached = self.cached_uid(node);
        let mut held = self.held.borrow_mut();
        let Some(resident) = held.get_mut(node).filter(|held| held.uid.is_some() && !held.looking) else {
            return false;
        };
        resident.looking = resident.uid != cached;
        resident.looking
    }

    /// Asks the API server whether the node's Node is still the one, and ends the session if it is not.
    pub(crate) async fn look_into(&self, node: &NodeName) {
        let found = self.registry.node_metadata(node).await;
        let gone = {
            let mut held = self.held.borrow_mut();
            let Some(resident) = held.get_mut(node) else { return };
            resident.looking = false;
            match found {
                Ok(found) if living_uid(found.as_ref()) != resident.uid.as_ref() => resident.epoch,
                // It was the watch that is late.
                Ok(_) => {
                    resident.seen = false;
                    return;
                }
                Err(error) => {
                    let reason = Fault::from_error(&error).reason;
                    tracing::warn!(%node, %reason, "whether the Node is still there is not known");
                    return;
                }
            }
        };
        self.disown(node, gone, "its Node was deleted from the cluster, or another one took its place").await;
    }

    /// Nothing that is said in the session counts any more, and its link is ended.
    pub(crate) async fn disown(&self, node: &NodeName, epoch: u64, reason: &str) {
        {
            let mut held = self.held.borrow_mut();
            if held.get(node).is_none_or(|held| held.epoch != epoch) {
                return;
            }
            held.remove(node);
        }
        tracing::warn!(%node, epoch, reason, "the node's session is ended");
        let told = CloudHubMsg::Disowned { node: node.clone(), reason: reason.to_owned() };
        let _ = self.hub.tell(told).await;
    }

    fn cached<T: serde::de::DeserializeOwned>(&self, node: &NodeName) -> Option<T> {
        let nodes = self.nodes.borrow();
        let cache = nodes.as_ref()?.borrow();
        let found = cache.objects.get(&ObjectKey::new(NODES, "", node.as_str()))?;
        serde_json::from_value(found.value.get("metadata")?.clone()).ok()
    }

    /// Of the Node that the watch has, unless it was deleted.
    fn cached_uid(&self, node: &NodeName) -> Option<String> {
        let nodes = self.nodes.borrow();
        let cache = nodes.as_ref()?.borrow();
        let found = cache.objects.get(&ObjectKey::new(NODES, "", node.as_str()))?;
        let is_ending = found.value.pointer("/metadata/deletionTimestamp").is_some();
        (!is_ending).then(|| found.object.uid.clone())
    }
}

/// The uid of a Node that nobody has deleted: one that finalizers hold counts as gone.
fn living_uid(found: Option<&ObjectMeta>) -> Option<&String> {
    found.filter(|found| !noderegistry::plan::is_ending(found))?.uid.as_ref()
}

/// What the node is told; whatever of the cloud's inside is in it goes to the log alone.
fn refused(node: &NodeName, error: &NotAdmitted) -> ClaimRefused {
    match error {
        NotAdmitted::Refused(refusal) => {
            tracing::warn!(%node, reason = %refusal, "node not admitted");
            ClaimRefused { reason: refusal.to_string(), wait: Some(error.wait()) }
        }
        NotAdmitted::Unavailable(cause) => {
            tracing::error!(%node, reason = %Fault::from_error(cause), "whose the node is cannot be found out");
            let reason = "whose this node is cannot be found out now".to_owned();
            ClaimRefused { reason, wait: Some(UNKNOWN_WAIT) }
        }
    }
}
