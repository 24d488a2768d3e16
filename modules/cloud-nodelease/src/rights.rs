//! The right to a node, by which admission policies know whose it is.
//!
//! A policy cannot look up a Node by its name without looking at all of them, and an API server does that before it looks who
//! writes. What it can ask by name is the authorizer: whether the ServiceAccount `kubehive-nodes/NODE`, which nobody has, may `own`
//! edge nodes there. So CloudCore binds that right for each of its nodes, once: the RoleBinding NODE in that namespace, which is the
//! Node's and goes with it. `policy.yaml` of the chart judges whether it may, and without the right refuses what CloudCore writes of the
//! node's pods, its Lease and its CSINode. An API server without those policies asks nobody, and one that has no RBAC is not asked.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use beehive::{Env, Moment};
use contract::NodeName;
use k8s_openapi::api::authorization::v1::SubjectAccessReview;
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::api::{Api, PostParams};
use kubewatch::status_code;
use serde_json::{Value, json};

use crate::error::LeaseError;
use crate::events;

/// Where the rights are.
const NAMESPACE: &str = "kubehive-nodes";
/// How often a right is read again when somebody else wrote in between.
const SWAP_TRIES: usize = 8;
/// 100 ms between questions whether the authorizer knows of a new right, 20 of them: its own watch brings it.
const KNOWN_PAUSE: Duration = Duration::from_millis(100);
const KNOWN_TRIES: usize = 20;
/// 60 s before an API server that takes no rights is asked again.
const REFUSED_PAUSE: Duration = Duration::from_secs(60);

/// What the API server answered to the question for a right.
pub(crate) type FoundRight = Result<Option<RoleBinding>, kube::Error>;

/// The rights that this CloudCore has bound or found.
#[derive(Clone)]
pub(crate) struct NodeRights {
    client: kube::Client,
    /// The uid of the Node that the right of each is of; `None`: of none yet.
    bound: Rc<RefCell<BTreeMap<NodeName, Option<String>>>>,
    /// When the API server said that it takes none.
    refused: Rc<Cell<Option<Moment>>>,
}

impl NodeRights {
    pub(crate) fn new(client: kube::Client) -> Self {
        NodeRights { client, bound: Rc::default(), refused: Rc::default() }
    }

    /// The right is looked at again before the next session of the node: something that needs it was refused.
    pub(crate) fn doubt(&self, node: &NodeName) {
        self.bound.borrow_mut().remove(node);
    }

    /// The right as it stands now, for whoever has something else to read meanwhile; `None` where it is known or not asked for.
    pub(crate) async fn read(&self, env: &Env, node: &NodeName) -> Option<FoundRight> {
        if self.bound.borrow().contains_key(node) || self.is_refused(env) {
            return None;
        }
        Some(self.rights().get_opt(node.as_str()).await)
    }

    fn is_refused(&self, env: &Env) -> bool {
        self.refused.get().is_some_and(|at| env.now() < at + REFUSED_PAUSE)
    }

    fn rights(&self) -> Api<RoleBinding> {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    /// Sees to it that there is the right to the node, of the Node with this uid; `None`: there is no Node yet. What was `found` a
    /// moment ago is not read again.
    ///
    /// # Errors
    /// It could not be read or bound now. Where the API server takes no rights at all, there is none, and that is no error: then no
    /// policy asks for it.
    pub(crate) async fn ensure(
        &self,
        env: &Env,
        node: &NodeName,
        uid: Option<&str>,
        found: Option<FoundRight>,
    ) -> Result<(), LeaseError> {
        let is_bound = self.bound.borrow().get(node).is_some_and(|bound| bound.as_deref() == uid);
        if is_bound || self.is_refused(env) {
            return Ok(());
        }
        match self.bind(env, node, uid, found).await {
            Ok(()) => {
                self.refused.set(None);
                self.bound.borrow_mut().insert(node.clone(), uid.map(str::to_owned));
                Ok(())
            }
            Err(LeaseError::Api(error)) if matches!(status_code(&error), Some(403 | 404)) => {
                self.refused.set(Some(env.now()));
                events::right_not_taken(env, &error.to_string(), status_code(&error) == Some(403));
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    async fn bind(
        &self,
        env: &Env,
        node: &NodeName,
        uid: Option<&str>,
        mut found: Option<FoundRight>,
    ) -> Result<(), LeaseError> {
        let rights = self.rights();
        let wanted: RoleBinding =
            serde_json::from_value(right(node, uid)).map_err(kube::Error::SerdeError)?;
        for _ in 0..SWAP_TRIES {
            let mut wanted = wanted.clone();
            let found = match found.take() {
                Some(found) => found?,
                None => rights.get_opt(node.as_str()).await?,
            };
            let written = match found {
                Some(found) if is_right(&found, &wanted) => return Ok(()),
                Some(found) => {
                    wanted.metadata.resource_version = found.metadata.resource_version;
                    rights.replace(node.as_str(), &PostParams::default(), &wanted).await
                }
                None => rights.create(&PostParams::default(), &wanted).await,
            };
            match written {
                Ok(_) => {
                    events::right_bound(env, node);
                    return self.until_known(env, node, uid).await;
                }
                Err(error) if status_code(&error) == Some(409) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(LeaseError::Contended)
    }

    /// Waits for the authorizer, which hears of a new right a moment later. One that does not hear of it at all is no reason to wait
    /// on: whoever writes next is refused then, and says so.
    async fn until_known(&self, env: &Env, node: &NodeName, uid: Option<&str>) -> Result<(), LeaseError> {
        let reviews: Api<SubjectAccessReview> = Api::all(self.client.clone());
        let asked: SubjectAccessReview =
            serde_json::from_value(question(node, uid)).map_err(kube::Error::SerdeError)?;
        for _ in 0..KNOWN_TRIES {
            let review = reviews.create(&PostParams::default(), &asked).await?;
            if review.status.is_some_and(|status| status.allowed) {
                break;
            }
            env.sleep(KNOWN_PAUSE).await;
        }
        Ok(())
    }
}

/// The right to a node of that name, and to be named as its owner by that uid: a ServiceAccount of the node's name in the namespace
/// of the rights, and one in a namespace of the uid's name. Neither is there.
fn right(node: &NodeName, uid: Option<&str>) -> Value {
    let name = node.as_str();
    let subject = |namespace: &str| json!({"kind": "ServiceAccount", "name": name, "namespace": namespace});
    let owner = |uid: &str| json!({"apiVersion": "v1", "kind": "Node", "name": name, "uid": uid});
    let owners: Vec<Value> = uid.into_iter().map(owner).collect();
    let subjects: Vec<Value> = std::iter::once(NAMESPACE).chain(uid).map(subject).collect();
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": name, "namespace": NAMESPACE, "ownerReferences": owners},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "kubehive-own-node"},
        "subjects": subjects,
    })
}

/// What a policy asks the authorizer about the node.
fn question(node: &NodeName, uid: Option<&str>) -> Value {
    let name = node.as_str();
    json!({"spec": {
        "user": format!("system:serviceaccount:{}:{name}", uid.unwrap_or(NAMESPACE)),
        "resourceAttributes": {
            "verb": "own", "group": "kubehive.io", "resource": "edgenodes", "namespace": NAMESPACE, "name": name,
        },
    }})
}

/// Whether `found` is that right already, whatever else an administrator has written on it.
fn is_right(found: &RoleBinding, wanted: &RoleBinding) -> bool {
    let owners = |of: &RoleBinding| {
        let owners = of.metadata.owner_references.iter().flatten();
        owners.map(|owner| owner.uid.clone()).collect::<Vec<_>>()
    };
    let subjects = |of: &RoleBinding| {
        let subjects = of.subjects.iter().flatten();
        subjects.map(|subject| (subject.namespace.clone(), subject.name.clone())).collect::<Vec<_>>()
    };
    found.role_ref == wanted.role_ref
        && owners(found) == owners(wanted)
        && subjects(found) == subjects(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binding(node: &str, uid: Option<&str>) -> RoleBinding {
        serde_json::from_value(right(&NodeName::parse(node).unwrap(), uid)).unwrap()
    }

    #[test]
    fn a_right_is_of_one_name_and_of_one_node_at_a_time() {
        let subjects = |of: &RoleBinding| {
            let subjects = of.subjects.clone().unwrap();
            subjects.into_iter().map(|subject| (subject.namespace.unwrap(), subject.name)).collect::<Vec<_>>()
        };
        let (early, of_node) = (binding("edge-1", None), binding("edge-1", Some("u-1")));
        assert_eq!(subjects(&early), [("kubehive-nodes".to_owned(), "edge-1".to_owned())]);
        assert_eq!(
            subjects(&of_node),
            [("kubehive-nodes".to_owned(), "edge-1".to_owned()), ("u-1".to_owned(), "edge-1".to_owned())]
        );
        let owners = of_node.metadata.owner_references.clone().unwrap();
        assert_eq!((owners.len(), owners[0].kind.as_str(), owners[0].uid.as_str()), (1, "Node", "u-1"));
        assert!(is_right(&of_node, &binding("edge-1", Some("u-1"))));
        for other in [early, binding("edge-1", Some("u-2")), binding("edge-2", Some("u-1"))] {
            assert!(!is_right(&of_node, &other), "{other:?}");
        }
    }

    #[test]
    fn the_authorizer_is_asked_what_a_policy_asks_it() {
        let node = NodeName::parse("edge-1").unwrap();
        let asked = |uid| question(&node, uid)["spec"]["user"].clone();
        assert_eq!(asked(None), "system:serviceaccount:kubehive-nodes:edge-1");
        assert_eq!(asked(Some("u-1")), "system:serviceaccount:u-1:edge-1");
    }
}
