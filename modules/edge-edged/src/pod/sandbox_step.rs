//! Making a pod's sandbox: what the node and the runtime have to be able to do for it, and what it is made with.

use std::path::Path;
use std::rc::Rc;
use std::sync::{Arc, PoisonError};

use config::edge::CgroupDriver;
use cri::v1::UserNamespace;

use crate::dependencies::{Dependencies, blocking};
use crate::disk::beneath::{Access, Folder};
use crate::disk::{folders, layout};
use crate::error::StepError;
use crate::node::{cpu_classes, enforcement, runtime_driver};
use crate::pod::dynamic_resources;
use crate::pod::parsed_pod::ParsedPod;
use crate::pod::recorder::EventType;
use crate::runtime::dns::{self, NodeDns};
use crate::runtime::slices::{self, Slices};
use crate::runtime::{cgroup, runtime_class, sandbox, user_namespace};

/// As the kubelet's: collectors of logs pass. The logs themselves are the runtime's, 0640.
const LOGS: u32 = 0o755;

/// Makes the sandbox; answers its id.
pub(crate) async fn run_sandbox(
    deps: Rc<Dependencies>,
    pod: Arc<ParsedPod>,
    attempt: u32,
) -> Result<String, StepError> {
    deps.counts.pod_begun();
    let has_own_users = user_namespace::is_wanted(pod.spec());
    let made = make(&deps, pod, attempt).await;
    if made.is_err() {
        deps.counts.pod_failed();
    }
    if has_own_users {
        deps.counts.user_namespaced_pod(made.is_ok());
    }
    made
}

async fn make(deps: &Rc<Dependencies>, pod: Arc<ParsedPod>, attempt: u32) -> Result<String, StepError> {
    if let Some(why) = dynamic_resources::hindrance(&pod) {
        return Err(StepError::DynamicResources(why));
    }
    let driver = runtime_driver::ask(deps).await;
    if let Some(what) = nodechecks::cgroup_driver_mismatch(deps.settings.cgroup_driver, driver) {
        return Err(StepError::Missing(what));
    }
    let dns = deps.node.borrow().dns.clone();
    record_resolver(deps, &pod, &dns, attempt);
    let mut config = sandbox::config(&pod, attempt, &deps.place(&dns))?;
    let handler = runtime_class::handler(deps, &pod).await?;
    user_namespace::put_into_sandbox(&mut config, &users_of(deps, &pod, &handler).await?);
    let (driver, root) = (deps.settings.cgroup_driver, deps.settings.cgroup_root.clone());
    let sizes = deps.node.borrow().limits.huge_page_sizes.clone();
    let (logs, cgroups) = (deps.settings.logs.clone(), deps.settings.cgroups.clone());
    let (own, slices) = (Arc::clone(&pod), Slices::of(&deps.settings));
    let make = move || {
        Folder::make_root(&logs, LOGS)?.make(&layout::pod_logs(&pod.id), Access::mode(LOGS))?;
        if let Some(slices) = slices {
            slices::say(&pod.id.name, slices.begin(&pod));
        }
        bound(&cgroups, &pod, (driver, &root), &sizes);
        Ok(())
    };
    let begun = deps.now();
    blocking(&deps.env, "make the log folder in", make).await?;
    deps.counts.cgroups_changed("create", deps.now().since(begun));
    let id = deps.runtime.run_sandbox(config, &handler).await.map_err(StepError::Runtime)?;
    if driver == CgroupDriver::Systemd {
        let (root, sizes) =
            (deps.settings.cgroup_root.clone(), deps.node.borrow().limits.huge_page_sizes.clone());
        let cgroups = deps.settings.cgroups.clone();
        let bound = move || {
            bound(&cgroups, &own, (driver, &root), &sizes);
            Ok(())
        };
        blocking(&deps.env, "bound the slice of a pod in", bound).await?;
    }
    cpu_classes::weigh(deps).await;
    if !deps.enforcement.is_done() {
        // Its cgroup is there now, and no container runs in it yet.
        enforcement::enforce(deps).await;
    }
    Ok(id)
}

/// The containers keep their own limits without the pod's.
fn bound(cgroups: &Path, pod: &ParsedPod, place: (CgroupDriver, &str), huge_page_sizes: &[u64]) {
    if let Err(error) = cgroup::make(cgroups, pod, place, huge_page_sizes) {
        tracing::warn!(pod = %pod.id.name, %error, "cgroup of a pod could not be made with its limits");
    }
}

/// Which users of the host the pod's users are.
///
/// # Errors
/// In the kubelet's words, when the runtime can't do what the pod wants.
pub(crate) async fn users_of(
    deps: &Rc<Dependencies>,
    pod: &ParsedPod,
    handler: &str,
) -> Result<UserNamespace, StepError> {
    if !user_namespace::is_wanted(pod.spec()) {
        return Ok(user_namespace::of_node());
    }
    let features = deps.runtime.features().await?.of(handler);
    user_namespace::check(pod.spec(), handler, features)?;
    let (one_at_a_time, pods) = (Arc::clone(&deps.user_namespaces), deps.settings.max_pods);
    let (root, uid) = (deps.settings.root.clone(), pod.id.uid.clone());
    let take = move || {
        let _held = one_at_a_time.lock().unwrap_or_else(PoisonError::into_inner);
        user_namespace::of_pod(&folders::root(&root)?, &uid, pods)
    };
    blocking(&deps.env, "find users for a pod in", take).await
}

/// Says what of the pod's resolver is not as it asks. That there is no DNS of the cluster is said once for a pod, not with each of
/// its sandboxes, and of the node, where it can be changed.
fn record_resolver(deps: &Rc<Dependencies>, pod: &ParsedPod, node: &NodeDns, attempt: u32) {
    if attempt == 0 && dns::misses_cluster_dns(pod.spec(), node) {
        let id = &pod.id;
        let what = "kubelet does not have ClusterDNS IP configured and cannot create Pod using \"ClusterFirst\" policy. \
                    Falling back to \"Default\" policy.";
        let text = format!("pod: \"{}_{}({})\". {what}", id.name, id.namespace, id.uid);
        if !deps.told_no_cluster_dns.replace(true) {
            deps.node_event(EventType::Warning, "MissingClusterDNS", what);
        }
        deps.event(id, EventType::Warning, "MissingClusterDNS", &text);
    }
    for left_out in dns::of_pod(&pod.id.namespace, pod.spec(), node).1 {
        deps.event(&pod.id, EventType::Warning, "DNSConfigForming", &left_out);
    }
}
