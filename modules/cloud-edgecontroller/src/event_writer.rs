//! Writes the events that nodes report.

use apimachinery::static_pod::mirror_of;
use contract::ids::{DeviceName, Namespace, ObjectName, PODS, Uid};
use contract::parsed::PodId;
use contract::{NodeName, ObjectKey};
use fairshare::ReportSender;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams, PostParams};
use kubewatch::status_code;
use serde_json::Value;

use crate::error::{NodeReportError, is_final};
use crate::event_reports::{self, DEVICE_GROUP, DEVICE_VERSION, InvolvedObject, ParsedEvent};
use crate::status::{FOREIGN, NodeReportWriter, Outcome, PodBinding, WRITE_TRIES, binding_of};

impl NodeReportWriter {
    /// Writes an event of a node's, if there is room for it among the node's and it is the node's to say.
    pub(crate) async fn event(
        &self,
        from: &ReportSender,
        node_uid: Option<String>,
        namespace: &Namespace,
        name: &ObjectName,
        text: &str,
    ) -> Result<Outcome, NodeReportError> {
        let node = &from.node;
        let draft = match event_reports::parse(node, namespace, text) {
            Ok(draft) => draft,
            Err(why) => return Ok(Outcome::Refused(why)),
        };
        // Before anything is read for it.
        let now = self.env.now();
        let series = draft.series();
        let has_room = self.rates.borrow().get(node).is_none_or(|rates| rates.has_room(&series, now));
        if !has_room {
            return Ok(Outcome::TooMany);
        }
        let result = self.known_event(from, node_uid, (namespace, name), draft).await;
        let comes_again = match &result {
            Ok(_) => false,
            Err(NodeReportError::Api(error)) => !is_final(error),
            Err(_) => true,
        };
        // While the API server is away, one event does not use up the places of all.
        if !comes_again {
            self.rates.borrow_mut().entry(node.clone()).or_default().charge(&series, now);
        }
        result
    }

    /// Writes an event for which there is room, if it is the node's to say.
    async fn known_event(
        &self,
        from: &ReportSender,
        node_uid: Option<String>,
        (namespace, name): (&Namespace, &ObjectName),
        draft: ParsedEvent,
    ) -> Result<Outcome, NodeReportError> {
        let node = &from.node;
        let uid = match &draft.involved_object {
            InvolvedObject::Node => node_uid,
            InvolvedObject::Device { device, uid } => match self.is_device_of(from, device, uid).await? {
                Some(true) => None,
                Some(false) => return Ok(Outcome::Refused("an event about a device of another node")),
                None => return Ok(Outcome::Done),
            },
            InvolvedObject::Pod(pod) if self.is_known_here(node, pod) => None,
            InvolvedObject::Pod(pod) => {
                let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace.as_str());
                match binding_of(&pods, node, pod).await? {
                    PodBinding::Here(_) | PodBinding::Mirror => None,
                    PodBinding::Gone => return Ok(Outcome::Done),
                    PodBinding::Elsewhere => return Ok(Outcome::Refused(FOREIGN)),
                }
            }
        };
        let event = event_reports::event(draft, node, (namespace, name), uid);
        self.write_event(from, &event, namespace, name).await
    }

    /// Makes the Event, or has the one of its name count on.
    async fn write_event(
        &self,
        from: &ReportSender,
        event: &Event,
        namespace: &Namespace,
        name: &ObjectName,
    ) -> Result<Outcome, NodeReportError> {
        let events: Api<Event> = Api::namespaced(self.client.clone(), namespace.as_str());
        for _ in 0..WRITE_TRIES {
            self.traffic.add(&from.node, event);
            match events.create(&PostParams::default(), event).await {
                Ok(_) => return Ok(Outcome::Done),
                // A repeat, or more of a series.
                Err(error) if status_code(&error) == Some(409) => {}
                Err(error) => return Err(error.into()),
            }
            let Some(held) = events.get_opt(name.as_str()).await? else { continue };
            let patch = match event_reports::continuation(&held, event) {
                Ok(Some(patch)) => Patch::Merge(patch),
                Ok(None) => return Ok(Outcome::Done),
                Err(why) => return Ok(Outcome::Refused(why)),
            };
            match events.patch(name.as_str(), &PatchParams::default(), &patch).await {
                Ok(_) => return Ok(Outcome::Done),
                Err(error) if matches!(status_code(&error), Some(404 | 409)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(NodeReportError::Contended)
    }

    /// Whether the watch has shown the pod as one of this node.
    /// Whether the device is the node's; `None`: there is no such device any more.
    async fn is_device_of(
        &self,
        from: &ReportSender,
        device: &DeviceName,
        uid: &Uid,
    ) -> Result<Option<bool>, kube::Error> {
        let resource = ApiResource {
            group: DEVICE_GROUP.to_owned(),
            version: DEVICE_VERSION.to_owned(),
            api_version: format!("{DEVICE_GROUP}/{DEVICE_VERSION}"),
            kind: "Device".to_owned(),
            plural: "devices".to_owned(),
        };
        let devices: Api<DynamicObject> =
            Api::namespaced_with(self.client.clone(), &device.namespace, &resource);
        let found = devices.get_opt(&device.name).await?;
        self.traffic.add(&from.node, &found);
        let found = found.filter(|found| found.metadata.uid.as_deref() == Some(uid.as_str()));
        let node = |found: &DynamicObject| {
            found.data.pointer("/spec/nodeName").and_then(Value::as_str) == Some(from.node.as_str())
        };
        Ok(found.as_ref().map(node))
    }

    fn is_known_here(&self, node: &NodeName, pod: &PodId) -> bool {
        let pods = self.pods.borrow();
        let key = ObjectKey::new(PODS, pod.namespace.as_str(), pod.name.as_str());
        pods.objects.get(&key).is_some_and(|known| {
            let value = known.value();
            let bound = value.pointer("/spec/nodeName").and_then(Value::as_str);
            // Of a static pod an event names its own uid, which its mirror says (Kubernetes).
            let is_it = known.object.uid == pod.uid.as_str() || mirror_of(&value) == Some(pod.uid.as_str());
            is_it && bound == Some(node.as_str())
        })
    }
}
