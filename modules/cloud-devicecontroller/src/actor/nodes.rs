//! Looks whether the nodes are there that Devices name and that are not linked here.

use std::time::Duration;

use beehive::Context;
use contract::NodeName;
use contract::devicecontroller::{DeviceControllerMsg, NodePresence};
use k8s_openapi::api::core::v1::Node;
use kube::api::Api;

use super::DeviceController;
use crate::nodes::presence_of;
use crate::plan;

/// 30 s until those that are not linked here are looked for again.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

impl DeviceController {
    /// Begins a round, if any node is in doubt and none is under way; `again`: of those, too, that were looked for before.
    pub(super) fn look_for_nodes(&mut self, again: bool, cx: &Context<DeviceControllerMsg>) {
        let unlinked = self.index.nodes().filter(|node| !self.twins.contains_key(*node));
        let round = self.nodes.next_round(unlinked, again);
        if round.is_empty() {
            return;
        }
        let (nodes, myself) = (Api::<Node>::all(self.dependencies.client.clone()), cx.myself());
        cx.spawn(async move {
            let mut found = Vec::with_capacity(round.len());
            for node in round {
                // What the API server does not say now, it is asked for again.
                let Ok(object) = nodes.get_opt(node.as_str()).await else { continue };
                found.push((node, presence_of(object.as_ref())));
            }
            let _ = myself.tell(DeviceControllerMsg::NodesLookedUp { found }).await;
        });
    }

    /// A round has ended.
    pub(super) fn nodes_found(
        &mut self,
        found: Vec<(NodeName, NodePresence)>,
        cx: &Context<DeviceControllerMsg>,
    ) {
        let changed = self.nodes.found(found);
        let named: Vec<NodeName> = self.index.nodes().cloned().collect();
        self.nodes.retain(|node| named.binary_search(node).is_ok());
        let is_any_unlinked = named.iter().any(|node| !self.twins.contains_key(node));
        if is_any_unlinked && !std::mem::replace(&mut self.nodes.is_due_soon, true) {
            cx.after(LOOK_AGAIN, DeviceControllerMsg::LookForNodes);
        }
        self.say_of_nodes(&changed, cx);
    }

    /// Says of the devices of these nodes what is known of them now.
    pub(super) fn say_of_nodes(&mut self, nodes: &[NodeName], cx: &Context<DeviceControllerMsg>) {
        let Some(informers) = &self.informers else { return };
        let (devices, models) = (informers.devices.borrow(), informers.models.borrow());
        let mut to_write = Vec::new();
        let keys = nodes.iter().flat_map(|node| self.index.on(node)).map(|(key, _)| key);
        for key in keys.cloned().collect::<Vec<_>>() {
            let Some(device) = devices.objects.get(&key) else { continue };
            let (uid, value) = (device.object.uid.clone(), device.value());
            let model = plan::model_of(&key, &value);
            let word = self.word(&key, &uid, &value, (&*devices, &*models));
            to_write.extend(self.devices.put(key, uid, model, word));
        }
        drop((devices, models));
        for device in to_write {
            self.write(device, cx);
        }
    }
}
