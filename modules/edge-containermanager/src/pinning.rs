//! Containers that run keep off the CPUs that others have for themselves: as a kubelet does it, over and over, because a
//! container may be made by what was known a moment before.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use cri::Runtime;
use cri::pods::{CONTAINER_NAME, POD_UID};
use cri::v1::{ContainerFilter, ContainerState, ContainerStateValue, LinuxContainerResources};

use crate::events;
use crate::plan::cpus;
use crate::shared::Shared;

/// Whose container it is: several nodes may share one runtime.
const NODE: &str = "kubehive.io/node";

/// Whose containers, and where they run.
#[derive(Clone)]
pub(crate) struct Pinned {
    pub(crate) node: String,
    pub(crate) runtime: Arc<dyn Runtime>,
}

/// Tells the runtime of every container of the node that runs on other CPUs than it should. `before`: which it was told last,
/// by the containers' ids; answered with what it was told now.
pub(crate) async fn pin(
    shared: Rc<Shared>,
    pinned: Pinned,
    before: BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let filter = ContainerFilter {
        state: Some(ContainerStateValue { state: ContainerState::ContainerRunning.into() }),
        label_selector: [(NODE.to_owned(), pinned.node.clone())].into(),
        ..ContainerFilter::default()
    };
    let running = match pinned.runtime.list_containers(filter).await {
        Ok(running) => running,
        Err(error) => {
            tracing::debug!(%error, "which containers run is not known now: CPUs are looked at later");
            return before;
        }
    };
    let mut now = BTreeMap::new();
    for container in running {
        let label = |name: &str| container.labels.get(name).map(String::as_str).unwrap_or_default();
        let wanted = {
            let ledger = shared.ledger.borrow();
            let own = ledger.container(label(POD_UID), label(CONTAINER_NAME));
            let own = own.map(|has| cpus::list(&has.cpus)).filter(|own| !own.is_empty());
            own.unwrap_or_else(|| shared.placement().shared_cpus(&ledger))
        };
        if wanted.is_empty() {
            continue;
        }
        if before.get(&container.id) != Some(&wanted) {
            let resources = LinuxContainerResources { cpuset_cpus: wanted.clone(), ..Default::default() };
            if let Err(error) = pinned.runtime.update_resources(&container.id, resources).await {
                events::not_pinned(&shared.env, &container.id, &error);
                continue;
            }
        }
        now.insert(container.id, wanted);
    }
    now
}
