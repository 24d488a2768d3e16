//! All pods together have what is not reserved and no more, also where a kubelet's `enforceNodeAllocatable` has its default, `[pods]`: the
//! cgroup above theirs is bounded as soon as it is there, and kept so.

use std::rc::Rc;

use crate::dependencies::{Dependencies, blocking};
use crate::events;
use crate::node::machine::Machine;
use crate::pod::recorder::EventType;
use crate::runtime::kubepods::{self, NodeBounds};
use crate::runtime::slices::Slices;
use crate::runtime::{huge_pages, resources};
use crate::settings::Settings;

/// 64 KiB: the largest page of a kernel that runs here. It keeps whole pages, and what it is asked for is compared with what it has.
const PAGE: i64 = 64 << 10;

/// What all pods together may have of a machine.
pub(crate) fn bounds(settings: &Settings, machine: &Machine) -> NodeBounds {
    let left = |all: u64, reserved: u64| i64::try_from(all.saturating_sub(reserved)).unwrap_or(i64::MAX);
    let memory = left(machine.memory, settings.reserved.memory) / PAGE * PAGE;
    let pids = left(machine.pids_max, 0);
    let sizes = machine.huge_pages.iter();
    NodeBounds {
        shares: resources::shares(left(machine.cpus.saturating_mul(1000), settings.reserved.cpu_milli)),
        memory: Some(memory).filter(|memory| *memory > 0),
        pids: Some(pids).filter(|pids| *pids > 0),
        huge_pages: sizes.map(|(size, bytes)| (huge_pages::kernel_name(*size), left(*bytes, 0))).collect(),
    }
}

/// Bounds them, as far as they have other bounds. What cannot be done now is done with the node's next report.
pub(crate) async fn enforce(deps: &Rc<Dependencies>) {
    let (driver, root) = (deps.settings.cgroup_driver, deps.settings.cgroup_root.clone());
    let (cgroups, bounds) = (deps.settings.cgroups.clone(), deps.node.borrow().all_pods.clone());
    let slices = Slices::of(&deps.settings);
    let (own, is_told) = (&deps.enforcement, deps.enforcement.is_done());
    let bound = move || {
        let bound = kubepods::bound(&cgroups, (driver, &root), &bounds);
        if let (Some(slices), Ok(Some(is_other))) = (slices, &bound)
            && (*is_other || !is_told)
            && let Err(error) = slices.bound_all(&bounds)
        {
            return Ok(Err(format!("systemd was not told: {error}")));
        }
        Ok(bound)
    };
    let bound = blocking(&deps.env, "bound all pods together in", bound).await;
    match bound.unwrap_or_else(|error| Err(error.to_string())) {
        Ok(None) => {}
        // A sandbox and a report may have come to it together.
        Ok(Some(_)) if own.set_done(true) => {}
        Ok(Some(_)) => {
            let text = "Updated Node Allocatable limit across pods";
            deps.node_event(EventType::Normal, "NodeAllocatableEnforced", text);
        }
        Err(error) => {
            own.set_done(false);
            events::pods_not_bounded(&deps.env, &error);
            if own.is_failure_told(deps.now()) {
                let text = format!(
                    "Failed to update Node Allocatable Limits {:?}: {error}",
                    deps.settings.cgroup_root
                );
                deps.node_event(EventType::Warning, "FailedNodeAllocatableEnforcement", &text);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::node::findings::tests::settings;
    use crate::settings::Reserved;

    #[test]
    fn pods_have_what_is_not_reserved_and_what_eviction_keeps_free_is_theirs() {
        let mut settings = settings();
        settings.reserved = Reserved { cpu_milli: 500, memory: 100 << 20, ephemeral_storage: 0 };
        settings.eviction.memory_available = config::Threshold::Amount(100 << 20);
        let machine = Machine {
            cpus: 2,
            memory: (1 << 30) + 12_345,
            pids_max: 32_768,
            huge_pages: BTreeMap::from([(2 << 20, 8 << 20)]),
            ..Machine::default()
        };
        let wanted = NodeBounds {
            shares: 1536,
            memory: Some(924 << 20),
            pids: Some(32_768),
            huge_pages: vec![("2MB".to_owned(), 8 << 20)],
        };
        assert_eq!(bounds(&settings, &machine), wanted);
        let unknown = bounds(&settings, &Machine { cpus: 2, ..Machine::default() });
        assert_eq!((unknown.memory, unknown.pids), (None, None), "what is not known bounds nobody");
    }
}
