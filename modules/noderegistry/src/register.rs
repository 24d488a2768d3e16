//! The register's objects: read one by one, written by compare-and-swap.

use std::sync::Arc;

use contract::NodeName;
use crd::{EdgeNode, EdgeNodeSpec, JoinToken, REVOKED, REVOKED_LABEL};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, ListParams, PartialObjectMeta, Patch, PatchParams,
    PostParams,
};
use kubewatch::{Interruptions, status_code};
use serde_json::json;
use tokio::sync::Mutex;

use crate::error::{AdmissionError, EnrolmentError, RegistryError};
use crate::plan::{self, AdmittedNode, Certificate, Entry, NodeObject, Refusal, TokenClaims};

/// How often a compare-and-swap is tried when others write, too.
pub(crate) const SWAP_TRIES: usize = 10;
pub(crate) const EDGE_NODE: &str = "EdgeNode";
const NODE: &str = "Node";
const LEASE: &str = "Lease";
const POD: &str = "Pod";
/// Where nodes' Leases live: a kubelet makes its own, and it stays for a while after the Node.
const LEASE_NAMESPACE: &str = "kube-node-lease";

/// A node that wants a certificate.
#[derive(Debug, Clone)]
pub struct EnrolmentRequest {
    /// The token's signed words.
    pub claims: TokenClaims,
    /// The token's object if it was read a moment ago, which spares a call.
    pub token: Option<JoinToken>,
    /// Under which name.
    pub node: NodeName,
    /// The certificate that it is to get.
    pub certificate: Certificate,
    /// Now, in seconds since 1970.
    pub now_unix: u64,
}

/// What [`Registry::revoke`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Revoked {
    /// A node had joined under the name.
    Node,
    /// Nobody had: the name is barred for whoever comes.
    Nobody,
    /// The name was freed before, and these finalizers hold its object: the bar goes with it.
    Ending(Vec<String>),
}

/// What became of an object that was deleted, as the server has it after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removal {
    /// It is no more.
    Gone,
    /// It counts as gone, but these finalizers hold it.
    Held(Vec<String>),
    /// There was none.
    NotThere,
}

/// The register of edge nodes and join tokens behind an API server.
#[derive(Clone)]
pub struct Registry {
    edge_nodes: Api<EdgeNode>,
    /// The same, the metadata alone.
    pub(crate) names: Api<PartialObjectMeta<EdgeNode>>,
    /// The same, whatever is in them.
    name_objects: Api<DynamicObject>,
    pub(crate) tokens: Api<JoinToken>,
    /// The same, whatever is in them.
    pub(crate) token_objects: Api<DynamicObject>,
    nodes: Api<Node>,
    leases: Api<Lease>,
    pods: Api<Pod>,
    /// Where its watch is said that has broken off.
    pub(crate) interruptions: Interruptions,
    /// Joins with one token come one after the other in this process: each would spoil the others' compare-and-swap.
    pub(crate) spending: Arc<Mutex<()>>,
}

impl Registry {
    /// The register behind `client`.
    pub fn new(client: kube::Client) -> Self {
        Registry {
            edge_nodes: Api::all(client.clone()),
            names: Api::all(client.clone()),
            name_objects: Api::all_with(client.clone(), &ApiResource::erase::<EdgeNode>(&())),
            tokens: Api::all(client.clone()),
            token_objects: Api::all_with(client.clone(), &ApiResource::erase::<JoinToken>(&())),
            nodes: Api::all(client.clone()),
            leases: Api::namespaced(client.clone(), LEASE_NAMESPACE),
            pods: Api::all(client),
            interruptions: Interruptions::default(),
            spending: Arc::default(),
        }
    }

    /// The same, whose [`Registry::watch`] says in `interruptions` while it has broken off.
    #[must_use]
    pub fn with_interruptions(self, interruptions: Interruptions) -> Self {
        Registry { interruptions, ..self }
    }

    /// Whether a session of `node` is admitted whose certificate has this serial, and for which Node: one read, and one
    /// write where the register does not say yet whose the Node is, or where the certificate takes the place of an older one, which is
    /// good for nothing from then on. `node_metadata` is that of the Node object as it is
    /// now; `None`: there is none. One from a cache may be late: read the Node before a refusal is taken as said.
    ///
    /// # Errors
    /// See [`AdmissionError`].
    pub async fn admit(
        &self,
        node: &NodeName,
        serial: &str,
        node_metadata: Option<&ObjectMeta>,
    ) -> Result<AdmittedNode, AdmissionError> {
        let object = node_metadata.and_then(NodeObject::of);
        for _ in 0..SWAP_TRIES {
            let found = self.edge_node(node).await?;
            let entry = found.as_ref().map(Entry::of);
            let (admitted, note) = plan::admit(node, serial, entry.as_ref(), object.as_ref())?;
            let Some(mut found) = found else { return Ok(admitted) };
            if let Some(owner) = note {
                found.spec.node_uid.clone_from(&admitted.node_uid);
                found.spec.owner = Some(owner);
                found.spec.had_node = Some(true);
            }
            let used = plan::used(&mut found, serial);
            if !used && note.is_none() {
                return Ok(admitted);
            }
            if self.swap(node, &found).await? {
                if let Some(owner) = note {
                    tracing::info!(%node, uid = admitted.node_uid, ?owner, "the Node is this node's");
                }
                return Ok(admitted);
            }
        }
        Err(RegistryError::contended(EDGE_NODE, node.as_str()).into())
    }

    /// Notes that the Node with this metadata was made for `node`, and answers its uid. CloudCore makes it with
    /// [`crate::ENROLMENT_ANNOTATION`]; one that was there already under the name is taken only if it carries the same.
    ///
    /// # Errors
    /// See [`AdmissionError`]. [`Refusal::Foreign`]: it is somebody else's.
    pub async fn node_made(
        &self,
        node: &NodeName,
        serial: &str,
        node_metadata: &ObjectMeta,
    ) -> Result<String, AdmissionError> {
        let admitted = self.admit(node, serial, Some(node_metadata)).await?;
        admitted.node_uid.ok_or_else(|| Refusal::Foreign(node.clone()).into())
    }

    /// The metadata of the Node of this name.
    ///
    /// # Errors
    /// See [`RegistryError`].
    pub async fn node_metadata(&self, node: &NodeName) -> Result<Option<ObjectMeta>, RegistryError> {
        let found = self.nodes.get_metadata_opt(node.as_str()).await;
        let found = found.map_err(|source| RegistryError::api(NODE, node.as_str(), source))?;
        Ok(found.map(|found| found.metadata))
    }

    /// Whether anything that is left in the cluster says that there was a Node of this name: its Lease, or a pod that is bound
    /// to it. Both outlive a Node, and the pods would be whoever's gets the name.
    async fn is_pointed_to(&self, node: &NodeName) -> Result<bool, RegistryError> {
        let lease = self.leases.get_metadata_opt(node.as_str()).await;
        if lease.map_err(|source| RegistryError::api(LEASE, node.as_str(), source))?.is_some() {
            return Ok(true);
        }
        let bound = ListParams::default().fields(&format!("spec.nodeName={node}")).limit(1);
        let pods = self.pods.list_metadata(&bound).await;
        let pods = pods.map_err(|source| RegistryError::api(POD, node.as_str(), source))?;
        // A page without a pod that is not the last one: there may be more.
        Ok(!pods.items.is_empty() || pods.metadata.continue_.is_some_and(|next| !next.is_empty()))
    }

    /// Enters a certificate that was signed, before it leaves: at most eight calls beside those that a race repeats, however
    /// many nodes there are.
    ///
    /// With a token that is not bound to it a name must be new: no Node, none in the register, no Lease and no pod that
    /// names it.
    ///
    /// # Errors
    /// See [`EnrolmentError`]. The token has one use less if the certificate was entered, and where another write of the name came
    /// between: of two that join under one name at the same time, one has spent a use for nothing.
    pub async fn enrol(&self, order: &EnrolmentRequest) -> Result<(), EnrolmentError> {
        let EnrolmentRequest { claims, node, certificate, now_unix, .. } = order;
        let (mut token, mut spent) = (order.token.clone(), false);
        for _ in 0..SWAP_TRIES {
            let known = match token.take() {
                Some(token) => Some(token),
                None => self.token(&claims.id).await?,
            };
            if !spent {
                plan::may_use(claims, known.as_ref(), node, *now_unix)?;
            }
            let bound = claims.node.is_some() || known.is_some_and(|token| token.spec.node.is_some());
            let object = self.node_metadata(node).await?.as_ref().and_then(NodeObject::of);
            let found = self.edge_node(node).await?;
            let entry = found.as_ref().map(Entry::of);
            let own = plan::may_enrol(node, bound, entry.as_ref(), object.as_ref(), *now_unix)?;
            if !bound && self.is_pointed_to(node).await? {
                return Err(Refusal::NeedsBoundToken(node.clone()).into());
            }
            // Once, however often the entry is tried. A use that made no node is lost: `used` only grows, by the shipped policy, too.
            if !std::mem::replace(&mut spent, true) {
                self.spend(claims, node, *now_unix).await?;
            }
            let mut next = found.unwrap_or_else(|| EdgeNode::new(node.as_str(), EdgeNodeSpec::default()));
            plan::enrolled(&mut next, certificate, own, &claims.id, *now_unix);
            let entered = self.swap(node, &next).await;
            if matches!(&entered, Ok(true)) {
                return Ok(());
            }
            entered?;
        }
        Err(RegistryError::contended(EDGE_NODE, node.as_str()).into())
    }

    /// Whether whoever shows a certificate of this serial is one whose session would be admitted: not barred, not freed, with its own Node
    /// or none yet. Two reads, and nothing is written.
    ///
    /// # Errors
    /// See [`AdmissionError`].
    pub async fn judge(&self, node: &NodeName, serial: &str) -> Result<(), AdmissionError> {
        let object = self.node_metadata(node).await?.as_ref().and_then(NodeObject::of);
        let entry = self.edge_node(node).await?.as_ref().map(Entry::of);
        plan::admit(node, serial, entry.as_ref(), object.as_ref())?;
        Ok(())
    }

    /// Enters a certificate that may take the place of the one that is `shown`, before it leaves. `shown`: the serial that the node's link
    /// was made with, and behind it those that were given over this link since; one of them must be good. Who shows it must be
    /// one whose session would be admitted: see [`Registry::judge`]. All are good until the node shows which it uses.
    ///
    /// # Errors
    /// See [`AdmissionError`].
    pub async fn renew(
        &self,
        node: &NodeName,
        shown: &[String],
        certificate: &Certificate,
    ) -> Result<(), AdmissionError> {
        let first = shown.first().map_or("", String::as_str);
        for _ in 0..SWAP_TRIES {
            let object = self.node_metadata(node).await?.as_ref().and_then(NodeObject::of);
            let found = self.edge_node(node).await?;
            let entry = found.as_ref().map(Entry::of);
            // Its word that it has one that was given over this link may have been noted without anybody here hearing of it.
            let is_good = |serial: &&String| entry.as_ref().is_some_and(|entry| entry.is_good(serial));
            let good = shown.iter().find(is_good).map_or(first, String::as_str);
            plan::admit(node, good, entry.as_ref(), object.as_ref())?;
            let Some(mut found) = found else { break };
            plan::used(&mut found, first);
            plan::renewed(&mut found, certificate);
            if self.swap(node, &found).await? {
                return Ok(());
            }
        }
        Err(RegistryError::contended(EDGE_NODE, node.as_str()).into())
    }

    /// The node has the certificate of this serial on its disk: the one before it is good for nothing any more.
    ///
    /// # Errors
    /// See [`AdmissionError`]. [`Refusal::NotLiving`]: it is not, or no more, a certificate that was to come.
    pub async fn certificate_kept(&self, node: &NodeName, serial: &str) -> Result<(), AdmissionError> {
        for _ in 0..SWAP_TRIES {
            let Some(mut found) = self.edge_node(node).await? else {
                return Err(Refusal::NotRegistered(node.clone()).into());
            };
            if plan::is_barred(&found.metadata) {
                return Err(Refusal::Barred(node.clone()).into());
            }
            if !plan::used(&mut found, serial) {
                let is_living = plan::living(&found.metadata).as_deref() == Some(serial);
                return if is_living { Ok(()) } else { Err(Refusal::NotLiving(node.clone()).into()) };
            }
            if self.swap(node, &found).await? {
                return Ok(());
            }
        }
        Err(RegistryError::contended(EDGE_NODE, node.as_str()).into())
    }

    /// Takes the living certificate of `node` back: the name is free for whoever has a token for it, and the Node stays. Answers whether
    /// the name is barred: then it is free for nobody until [`Registry::free`].
    ///
    /// # Errors
    /// [`Refusal::NothingToGiveBack`]: an older certificate cannot free the name of a newer one.
    pub async fn release(&self, node: &NodeName, serial: &str) -> Result<bool, EnrolmentError> {
        for _ in 0..SWAP_TRIES {
            let found = self.edge_node(node).await?;
            let is_its_own = |found: &EdgeNode| Entry::of(found).is_good(serial);
            let Some(mut found) = found.filter(is_its_own) else {
                return Err(Refusal::NothingToGiveBack(node.clone()).into());
            };
            plan::given_back(&mut found);
            if self.swap(node, &found).await? {
                return Ok(plan::is_barred(&found.metadata));
            }
        }
        Err(RegistryError::contended(EDGE_NODE, node.as_str()).into())
    }

    /// What the Lease of `node` says: the session since which its CloudCore has it, and when it was renewed last, in
    /// microseconds since 1970. `None`: there is no Lease, or it was never renewed.
    ///
    /// # Errors
    /// See [`RegistryError`].
    pub async fn last_renewal(&self, node: &NodeName) -> Result<Option<(u64, i64)>, RegistryError> {
        let found = self.leases.get_opt(node.as_str()).await;
        let found = found.map_err(|source| RegistryError::api(LEASE, node.as_str(), source))?;
        Ok(found.and_then(|lease| lease.spec).and_then(|spec| {
            let session = u64::try_from(spec.lease_transitions.unwrap_or_default()).unwrap_or_default();
            Some((session, spec.renew_time?.0.as_microsecond()))
        }))
    }

    /// Bars a name, whatever is in its object: its links end and nothing is signed for it until [`Registry::free`].
    ///
    /// # Errors
    /// See [`RegistryError`].
    pub async fn revoke(&self, node: &NodeName) -> Result<Revoked, RegistryError> {
        let label = json!({ "metadata": { "labels": { REVOKED_LABEL: REVOKED } } });
        for _ in 0..SWAP_TRIES {
            let patched =
                self.names.patch(node.as_str(), &PatchParams::default(), &Patch::Merge(&label)).await;
            match patched {
                Ok(found) if plan::is_ending(&found.metadata) => {
                    return Ok(Revoked::Ending(found.metadata.finalizers.unwrap_or_default()));
                }
                Ok(_) => return Ok(Revoked::Node),
                Err(error) if status_code(&error) == Some(404) => {}
                Err(source) => return Err(RegistryError::api(EDGE_NODE, node.as_str(), source)),
            }
            let mut barred = EdgeNode::new(node.as_str(), EdgeNodeSpec::default());
            barred.metadata.labels = Some([(REVOKED_LABEL.to_owned(), REVOKED.to_owned())].into());
            if self.swap(node, &barred).await? {
                return Ok(Revoked::Nobody);
            }
        }
        Err(RegistryError::contended(EDGE_NODE, node.as_str()))
    }

    /// Forgets a name and whatever certificate it has, whatever is in its object. Answers what became of that.
    ///
    /// # Errors
    /// See [`RegistryError`].
    pub async fn free(&self, node: &NodeName) -> Result<Removal, RegistryError> {
        remove(&self.name_objects, EDGE_NODE, node.as_str()).await
    }

    /// Lets a node whose Node was deleted come back: CloudCore makes it a new one. That it had one is not forgotten. Answers
    /// whether the name was known.
    ///
    /// # Errors
    /// See [`RegistryError`].
    pub async fn allow_back(&self, node: &NodeName) -> Result<bool, RegistryError> {
        for _ in 0..SWAP_TRIES {
            let Some(mut found) = self.edge_node(node).await? else { return Ok(false) };
            found.spec.had_node = plan::had_node(&found.spec).then_some(true);
            (found.spec.node_uid, found.spec.owner) = (None, None);
            if self.swap(node, &found).await? {
                return Ok(true);
            }
        }
        Err(RegistryError::contended(EDGE_NODE, node.as_str()))
    }

    /// What the register holds of a name.
    ///
    /// # Errors
    /// See [`RegistryError`].
    pub async fn edge_node(&self, node: &NodeName) -> Result<Option<EdgeNode>, RegistryError> {
        let found = self.name_objects.get_opt(node.as_str()).await;
        let found = found.map_err(|source| RegistryError::api(EDGE_NODE, node.as_str(), source))?;
        let odd = |why: kube::core::dynamic::ParseDynamicObjectError| RegistryError::Odd {
            refusal: Refusal::OddName(node.clone()),
            why: why.to_string(),
        };
        found.map(|found| found.try_parse().map_err(odd)).transpose()
    }

    /// Writes an object of the register as it was read and changed, or makes it. `false`: somebody else was first.
    async fn swap(&self, node: &NodeName, object: &EdgeNode) -> Result<bool, RegistryError> {
        let params = PostParams::default();
        let written = match object.metadata.resource_version {
            Some(_) => self.edge_nodes.replace(node.as_str(), &params, object).await,
            None => self.edge_nodes.create(&params, object).await,
        };
        match written {
            Ok(_) => Ok(true),
            Err(error) if matches!(status_code(&error), Some(404 | 409)) => Ok(false),
            Err(source) => Err(RegistryError::api(EDGE_NODE, node.as_str(), source)),
        }
    }
}

/// Deletes an object without a look into it, and reads back what became of it.
pub(crate) async fn remove(
    objects: &Api<DynamicObject>,
    what: &'static str,
    name: &str,
) -> Result<Removal, RegistryError> {
    let at = |source| RegistryError::api(what, name, source);
    match objects.delete(name, &DeleteParams::default()).await {
        Ok(_) => {}
        Err(error) if status_code(&error) == Some(404) => return Ok(Removal::NotThere),
        Err(source) => return Err(at(source)),
    }
    // One of that name that was made since is another one.
    let held = objects.get_opt(name).await.map_err(at)?;
    let held = held.map(|found| found.metadata).filter(plan::is_ending);
    Ok(held.map_or(Removal::Gone, |found| Removal::Held(found.finalizers.unwrap_or_default())))
}
