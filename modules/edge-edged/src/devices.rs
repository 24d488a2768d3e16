//! Edged and ContainerManager: which pods are here, which of them wait for what they ask for, and how their devices fare.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use beehive::Context;
use contract::containermanager::{ActivePod, ContainerManagerMsg, DeviceHealth, DeviceReport, PodDemand};
use contract::edged::EdgedMsg;
use k8s_openapi::api::core::v1::{PodStatus, ResourceHealth, ResourceStatus};

use crate::actor::Edged;
use crate::plan::StoredPods;
use crate::pod::admission::History;
use crate::pod::entry::PodUpdate;
use crate::pod::parsed_pod::ParsedPod;
use crate::pod::plan::Intent;
use crate::pod::resource_admission::Gate;
use crate::pod::resource_demand;

/// 10 min for an answer, and then it is asked again: a plugin may take as long as it likes, as with a kubelet.
const ASKED_AGAIN_AFTER: Duration = Duration::from_secs(600);
/// 1 s after an answer that did not come.
const RETRY: Duration = Duration::from_secs(1);

impl Edged {
    /// Whether a new pod waits for the devices and CPUs that it asks for. One that can't have them fails.
    pub(crate) fn waits_for_resources(
        &mut self,
        update: &mut PodUpdate,
        stored: &StoredPods,
        cx: &Context<EdgedMsg>,
    ) -> bool {
        if update.intent != Intent::Run || stored.history(&update.pod) != History::New {
            return false;
        }
        // Those that make room for it have to have left; what they had is not free before.
        if update.pod.is_critical() && self.pods.makes_room() {
            return true;
        }
        if self.containers.is_none() {
            return false;
        }
        // Until it is known whether memory is given, those that would ask for some wait.
        let with_memory = self.devices().is_none_or(|devices| devices.manages_memory);
        let demand = resource_demand::of(&update.pod, with_memory);
        if resource_demand::is_none(&demand) {
            return false;
        }
        match self.resources.gate(&update.pod.id.uid) {
            Gate::Passes(intent) => {
                update.intent = intent;
                false
            }
            Gate::Waits => true,
            // Which devices there are is not known yet; Edged hears of it.
            Gate::Ask if self.devices().is_none() => true,
            Gate::Ask => {
                self.ask_for(demand, cx);
                true
            }
        }
    }

    fn ask_for(&mut self, demand: PodDemand, cx: &Context<EdgedMsg>) {
        let Some(containers) = self.containers.clone() else { return };
        let (env, myself, uid) = (cx.env().clone(), cx.myself(), demand.uid.clone());
        let own = uid.clone();
        let task = cx.spawn(async move {
            let outcome = loop {
                let pod = demand.clone();
                let asked =
                    containers.ask(ASKED_AGAIN_AFTER, |reply| ContainerManagerMsg::Admit { pod, reply });
                match asked.await {
                    Ok(outcome) => break outcome,
                    Err(_) => env.sleep(env.jitter(RETRY)).await,
                }
            };
            let _ = myself.tell(EdgedMsg::ResourcesDecided { uid: own, outcome }).await;
        });
        self.resources.asking(&uid, task);
    }

    /// Tells ContainerManager which pods are not to lose what they have: those that hold something of the node. And whether there may
    /// be others: after a loss of rows, and while the files of static pods were never read.
    pub(crate) fn tell_active(&mut self, holding: &[Arc<ParsedPod>]) {
        let Some(containers) = &self.containers else { return };
        let active: BTreeMap<String, ActivePod> =
            holding.iter().map(|pod| (pod.id.uid.clone(), resource_demand::active(pod))).collect();
        let is_known = self.deps.as_ref().is_some_and(|deps| deps.static_pods.borrow().is_known);
        let are_all = is_known && self.store.names_all();
        let told = (are_all, active);
        if self.told_active.as_ref() == Some(&told) {
            return;
        }
        let pods = told.1.clone();
        let message = if are_all {
            ContainerManagerMsg::ActivePods(pods)
        } else {
            ContainerManagerMsg::KnownPods(pods)
        };
        if containers.try_tell(message).is_ok() {
            self.told_active = Some(told);
        }
    }

    /// The node has other devices, or they fare differently.
    pub(crate) async fn devices_changed(&mut self, report: DeviceReport, cx: &mut Context<EdgedMsg>) {
        let Some(deps) = self.deps.clone() else { return };
        let before = deps.devices.replace(Some(report.clone()));
        let before = before.unwrap_or_default();
        let uids = report.health.keys().chain(before.health.keys());
        for uid in uids.filter(|uid| report.health.get(*uid) != before.health.get(*uid)) {
            self.pods.runtime_changed(uid);
        }
        // A new incarnation of it has not heard which pods there are.
        self.told_active = None;
        if report.resources != before.resources {
            self.node.force();
            self.tick(cx);
        }
        self.reconcile(cx).await;
    }

    pub(crate) fn devices(&self) -> Option<DeviceReport> {
        self.deps.as_ref().and_then(|deps| deps.devices.borrow().clone())
    }
}

/// Says in a pod's status how the devices of its containers fare (`allocatedResourcesStatus`).
pub(crate) fn put_health(status: &mut PodStatus, health: &[DeviceHealth]) {
    for container in status.container_statuses.iter_mut().flatten() {
        let mut resources: BTreeMap<&str, Vec<ResourceHealth>> = BTreeMap::new();
        for device in health.iter().filter(|device| device.container == container.name) {
            let word = if device.is_healthy { "Healthy" } else { "Unhealthy" };
            let shown = ResourceHealth { resource_id: device.id.clone(), health: Some(word.to_owned()) };
            resources.entry(&device.resource).or_default().push(shown);
        }
        let shown: Vec<ResourceStatus> = resources
            .into_iter()
            .map(|(name, devices)| ResourceStatus { name: name.to_owned(), resources: Some(devices) })
            .collect();
        container.allocated_resources_status = (!shown.is_empty()).then_some(shown);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_status_names_each_device_of_each_container() {
        let mut status: PodStatus = serde_json::from_value(json!({"containerStatuses": [
            {"name": "a", "image": "x", "imageID": "", "ready": true, "restartCount": 0},
            {"name": "b", "image": "x", "imageID": "", "ready": true, "restartCount": 0}]}))
        .unwrap();
        let device = |id: &str, is_healthy| DeviceHealth {
            container: "a".into(),
            resource: "example.com/x".into(),
            id: id.into(),
            is_healthy,
        };
        put_health(&mut status, &[device("0", true), device("1", false)]);
        let shown = serde_json::to_value(&status).unwrap();
        assert_eq!(
            shown.pointer("/containerStatuses/0/allocatedResourcesStatus").unwrap(),
            &json!([{"name": "example.com/x", "resources": [
                {"resourceID": "0", "health": "Healthy"}, {"resourceID": "1", "health": "Unhealthy"}]}])
        );
        assert_eq!(shown.pointer("/containerStatuses/1/allocatedResourcesStatus"), None);
    }
}
