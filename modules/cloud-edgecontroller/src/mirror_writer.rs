//! Writes the mirrors of nodes' static pods to the API server.

use apimachinery::static_pod::mirror_of;
use beehive::Fault;
use contract::NodeName;
use contract::ids::{Namespace, ObjectName};
use fairshare::ReportSender;
use k8s_openapi::api::core::v1::{Namespace as ApiNamespace, Pod};
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, PostParams, Preconditions};
use kubewatch::status_code;
use serde_json::Value;

use crate::error::NodeReportError;
use crate::events;
use crate::mirror_pods::{self, Step};
use crate::status::{NodeReportWriter, Outcome, WRITE_TRIES};

impl NodeReportWriter {
    /// Makes, replaces or removes the mirror of a static pod.
    pub(crate) async fn mirror_pod(
        &self,
        from: &ReportSender,
        node_uid: &str,
        (namespace, name): (&Namespace, &ObjectName),
        text: Option<&str>,
    ) -> Result<Outcome, NodeReportError> {
        let parsed = text.map(|text| mirror_pods::parse(&from.node, node_uid, (namespace, name), text));
        let wanted = match parsed.transpose() {
            Ok(wanted) => wanted,
            Err(why) => return Ok(Outcome::Refused(why)),
        };
        let may_label = match &wanted {
            Some(wanted) if !wanted.labels.is_empty() => self.may_label(from, namespace).await?,
            _ => false,
        };
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace.as_str());
        let mut is_paid = false;
        for _ in 0..WRITE_TRIES {
            let found = pods.get_opt(name.as_str()).await?;
            self.traffic.add(&from.node, &found);
            match mirror_pods::step(found.as_ref(), wanted.as_ref(), may_label, (&from.node, node_uid)) {
                Step::Done => return Ok(Outcome::Done),
                Step::Refuse(why) => return Ok(Outcome::Refused(why)),
                Step::Create => {
                    if !std::mem::replace(&mut is_paid, true) && !self.has_room_for_mirror(&from.node) {
                        return Ok(Outcome::Refused("more mirror pods than a node may have"));
                    }
                    let Some(mirror) = &wanted else { return Ok(Outcome::Done) };
                    if !may_label && !mirror.labels.is_empty() {
                        events::mirror_unlabelled(&self.env, &from.node, namespace, name);
                    }
                    // As the node wrote it: the types here may be older than its fields.
                    let Ok(pod) = serde_json::from_value::<DynamicObject>(mirror.labelled(may_label)) else {
                        return Ok(Outcome::Refused("a mirror pod that is no Pod"));
                    };
                    let resource = ApiResource::erase::<Pod>(&());
                    let made: Api<DynamicObject> =
                        Api::namespaced_with(self.client.clone(), namespace.as_str(), &resource);
                    self.traffic.add(&from.node, &pod);
                    match made.create(&PostParams::default(), &pod).await {
                        Ok(_) => {
                            events::mirror_made(&self.env, &from.node, namespace, name);
                            return Ok(Outcome::Done);
                        }
                        Err(error) if status_code(&error) == Some(409) => {}
                        // As the namespace's pod security has it: the node asks again, and holds up nothing else.
                        Err(error) if status_code(&error) == Some(403) => {
                            let reason = Fault::from_error(&error).reason;
                            events::mirror_refused(&self.env, &from.node, namespace, name, &reason);
                            return Ok(Outcome::Refused("a mirror pod that the API server does not allow"));
                        }
                        Err(error) => return Err(error.into()),
                    }
                }
                Step::Remove => {
                    let uid = found.and_then(|found| found.metadata.uid);
                    let preconditions = Some(Preconditions { uid, resource_version: None });
                    let now = DeleteParams {
                        grace_period_seconds: Some(0),
                        preconditions,
                        ..DeleteParams::default()
                    };
                    match pods.delete(name.as_str(), &now).await {
                        Ok(_) => {}
                        Err(error) if matches!(status_code(&error), Some(404 | 409)) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
            }
        }
        // As of one that a finalizer holds: the node asks again.
        Ok(Outcome::Refused("a mirror pod whose name is not free"))
    }

    /// Whether the namespace lets nodes choose the labels of their mirrors. Who may not ask may not say so.
    async fn may_label(&self, from: &ReportSender, namespace: &Namespace) -> Result<bool, kube::Error> {
        let namespaces: Api<ApiNamespace> = Api::all(self.client.clone());
        match namespaces.get_opt(namespace.as_str()).await {
            Ok(found) => {
                self.traffic.add(&from.node, &found);
                Ok(mirror_pods::may_label(found.and_then(|found| found.metadata.labels).as_ref()))
            }
            Err(error) if status_code(&error) == Some(403) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn has_room_for_mirror(&self, node: &NodeName) -> bool {
        let pods = self.pods.borrow();
        let of_node = pods.objects.values().filter(|pod| {
            mirror_of(&pod.value()).is_some()
                && pod.value().pointer("/spec/nodeName").and_then(Value::as_str) == Some(node.as_str())
        });
        let (count, bytes) =
            of_node.fold((0, 0), |(count, bytes), pod| (count + 1, bytes + pod.object.json.len()));
        count < mirror_pods::MIRRORS_MAX
            && bytes < mirror_pods::BYTES_MAX
            && self.mirrors.borrow_mut().take(node, self.env.now())
    }
}
