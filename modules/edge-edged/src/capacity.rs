//! Edged's part: what the node has for its pods, and which of the resizes that are asked for it takes.

use std::collections::BTreeMap;
use std::sync::Arc;

use beehive::Context;
use contract::edged::EdgedMsg;

use crate::actor::Edged;
use crate::node::status;
use crate::pod::admission::Capacity;
use crate::pod::allocation::{self, Asking, NodePolicies};
use crate::pod::entry::PodUpdate;
use crate::pod::parsed_pod::ParsedPod;
use crate::runtime::huge_pages;

impl Edged {
    /// Takes the resizes among `asking` for which there is room beside the pods that hold something of the node; the others wait, and are
    /// looked at again.
    pub(crate) fn settle_resizes(
        &mut self,
        updates: &mut [PodUpdate],
        asking: Asking,
        holding: &[Arc<ParsedPod>],
        capacity: &Capacity,
        cx: &Context<EdgedMsg>,
    ) {
        self.allocations.node = self.node_policies();
        self.allocations.settle(updates, asking, holding, capacity);
        if updates.iter().any(|update| update.resize_pending.is_some()) {
            self.reconcile_at(cx.now() + allocation::AGAIN, cx);
        }
    }

    fn node_policies(&self) -> NodePolicies {
        let devices = self.devices();
        NodePolicies {
            has_static_cpus: devices.as_ref().is_some_and(|told| told.manages_cpus),
            has_static_memory: devices.as_ref().is_some_and(|told| told.manages_memory),
            swap: self.deps.as_ref().map(|deps| deps.node.borrow().limits.swap).unwrap_or_default(),
        }
    }

    /// What all pods together may have.
    pub(crate) fn capacity(&self) -> Capacity {
        let machine = self.node.machine();
        let (cpu_milli, memory) = status::allocatable(&self.settings, &machine);
        let ephemeral_storage = status::allocatable_disk(&self.settings, &machine);
        let devices = self.devices();
        // Until it is known which devices there are, nobody is turned away for want of them.
        let devices_unknown = self.containers.is_some() && devices.is_none();
        let devices = devices.unwrap_or_default().resources;
        let pods = u64::from(self.settings.max_pods);
        let huge_pages =
            machine.huge_pages.iter().map(|(size, bytes)| (huge_pages::resource(*size), *bytes)).collect();
        let of_node = BTreeMap::new();
        Capacity { pods, cpu_milli, memory, ephemeral_storage, huge_pages, devices, devices_unknown, of_node }
    }
}
