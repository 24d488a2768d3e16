//! What of a node's reports is a status of a Node or of a pod, as a kubelet writes it. Pure.
//!
//! It is made of the fields that were understood: what else stands in the text (a directive of a strategic merge, say) has no
//! effect, and what an API server would refuse is left out by itself.

use std::net::IpAddr;

use contract::pod_status::{BY_KUBELET, DISRUPTION_TARGET, NODE_CONDITIONS, POD_CONDITIONS};
use k8s_openapi::api::core::v1::{
    ContainerImage, ContainerStatus, HostIP, NodeAddress, NodeCondition, NodeRuntimeHandler, NodeStatus,
    PodCondition, PodIP, PodStatus,
};
use serde_json::{Map, Value, json};

use crate::reported_fields::{Fields, LeftOut, are_amounts};
use crate::status_texts;

/// 1 KiB of the message of a condition.
const MESSAGE_MAX: usize = 1 << 10;
/// 16 addresses.
const ADDRESSES_MAX: usize = 16;
/// 253 characters of an address that is a name.
const HOST_MAX: usize = 253;
/// 50 images, as kubelets tell them (`nodeStatusMaxImages`), with 5 names each.
const IMAGES_MAX: (usize, usize) = (50, 5);
/// 16 features, each of at most 63 letters and digits.
const FEATURES_MAX: (usize, usize) = (16, 63);
/// 64 resources.
const RESOURCES_MAX: usize = 64;
/// What a condition may be.
const CONDITION_STATUSES: [&str; 3] = ["True", "False", "Unknown"];
/// What a pod may be.
const PHASES: [&str; 5] = ["Pending", "Running", "Succeeded", "Failed", "Unknown"];
/// How much a pod may count on its resources.
const QOS_CLASSES: [&str; 3] = ["Guaranteed", "Burstable", "BestEffort"];
/// What a resource of a container may be.
const HEALTH: [&str; 3] = ["Healthy", "Unhealthy", "Unknown"];

/// Whether a condition of a pod is its node's to say.
fn is_own(condition: &PodCondition) -> bool {
    let kind = condition.type_.as_str();
    let by_node = condition.reason.as_deref() == Some(BY_KUBELET);
    POD_CONDITIONS.contains(&kind) || (kind == DISRUPTION_TARGET && by_node)
}

/// What a node declares that it can do (Kubernetes 1.35: `declaredFeatures`), by which the scheduler keeps pods away that need
/// more. The types of the API that are built here are older.
pub(crate) fn declared_features(said: &Value) -> Vec<String> {
    let said = said["declaredFeatures"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let fits = |name: &&str| {
        !name.is_empty()
            && name.len() <= FEATURES_MAX.1
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric())
    };
    // The API server takes a sorted list without doubles alone.
    let names: std::collections::BTreeSet<&str> = said.filter(fits).take(FEATURES_MAX.0).collect();
    names.into_iter().map(str::to_owned).collect()
}

/// Of the status that a node reports what a kubelet writes. `None`: it is none.
pub(crate) fn node_status(said: &Value, left_out: &mut LeftOut) -> Option<NodeStatus> {
    let mut said = Fields::of(said, left_out)?;
    let conditions = said.list(
        "conditions",
        |one: &mut NodeCondition| {
            one.message = one.message.take().map(cut);
            one.reason = one.reason.take().map(cut);
            CONDITION_STATUSES.contains(&one.status.as_str())
        },
        |one| one.type_.clone(),
    );
    // The others' are no fault of the report: an administrator may have told a node's agent to say them.
    let conditions = conditions.map(|mut all| {
        all.retain(|one| NODE_CONDITIONS.contains(&one.type_.as_str()));
        all
    });
    let images = said.list("images", |_: &mut ContainerImage| true, |one| format!("{:?}", one.names));
    let images = images.map(|mut all| {
        all.truncate(IMAGES_MAX.0);
        for image in &mut all {
            image.names.iter_mut().for_each(|names| names.truncate(IMAGES_MAX.1));
        }
        all
    });
    let addresses = said.list(
        "addresses",
        |one: &mut NodeAddress| match one.type_.as_str() {
            "InternalIP" | "ExternalIP" => one.address.parse::<IpAddr>().is_ok(),
            "Hostname" | "InternalDNS" | "ExternalDNS" => one.address.len() <= HOST_MAX,
            _ => false,
        },
        |one| format!("{} {}", one.type_, one.address),
    );
    let addresses = addresses.map(|mut all| {
        all.truncate(ADDRESSES_MAX);
        all
    });
    Some(NodeStatus {
        addresses,
        allocatable: said.amounts("allocatable", RESOURCES_MAX),
        capacity: said.amounts("capacity", RESOURCES_MAX),
        conditions,
        features: said.take("features"),
        images,
        node_info: said.take("nodeInfo"),
        runtime_handlers: said.list(
            "runtimeHandlers",
            |_: &mut NodeRuntimeHandler| true,
            |one| one.name.clone().unwrap_or_default(),
        ),
        volumes_in_use: said.list("volumesInUse", |_: &mut String| true, Clone::clone),
        ..NodeStatus::default()
    })
}

/// What a pod has and is given as a whole (Kubernetes 1.35: `resources` and `allocatedResources`). The types of the API that are built
/// here are older.
pub(crate) fn whole_resources(said: &Value, left_out: &mut LeftOut) -> Map<String, Value> {
    let mut taken = Map::new();
    if let Some(mut said) = Fields::of(said, left_out)
        && let Some(amounts) = said.amounts("allocatedResources", RESOURCES_MAX)
    {
        taken.insert("allocatedResources".to_owned(), json!(amounts));
    }
    if let Some(mut said) = Fields::of(&said["resources"], left_out) {
        let lists = ["limits", "requests"].map(|name| (name, said.amounts(name, RESOURCES_MAX)));
        let lists: Map<String, Value> = lists
            .into_iter()
            .filter_map(|(name, amounts)| Some((name.to_owned(), json!(amounts?))))
            .collect();
        taken.insert("resources".to_owned(), Value::Object(lists));
    }
    taken
}

/// Of the status of a pod that a node reports what a kubelet writes. `None`: it is none.
pub(crate) fn pod_status(said: &Value, left_out: &mut LeftOut) -> Option<PodStatus> {
    let mut said = Fields::of(said, left_out)?;
    let is_count = |count: Option<i64>| count.is_none_or(|count| count >= 0);
    let conditions = said.list(
        "conditions",
        |one: &mut PodCondition| {
            CONDITION_STATUSES.contains(&one.status.as_str()) && is_count(one.observed_generation)
        },
        |one| one.type_.clone(),
    );
    let mut status = PodStatus {
        conditions: conditions.map(|mut all| {
            all.retain(is_own);
            all
        }),
        container_statuses: containers(&mut said, "containerStatuses"),
        ephemeral_container_statuses: containers(&mut said, "ephemeralContainerStatuses"),
        host_ip: said.address("hostIP"),
        host_ips: said.list("hostIPs", |one: &mut HostIP| is_address(&one.ip), |one| one.ip.clone()),
        init_container_statuses: containers(&mut said, "initContainerStatuses"),
        message: said.take("message"),
        observed_generation: said.take_if("observedGeneration", |count: &i64| *count >= 0),
        phase: said.word("phase", &PHASES),
        pod_ip: said.address("podIP"),
        pod_ips: said.list("podIPs", |one: &mut PodIP| is_address(&one.ip), |one| one.ip.clone()),
        qos_class: said.word("qosClass", &QOS_CLASSES),
        reason: said.take("reason"),
        start_time: said.take("startTime"),
        ..PodStatus::default()
    };
    status_texts::cut(&mut status);
    Some(status)
}

fn is_address(text: &str) -> bool {
    text.parse::<IpAddr>().is_ok()
}

/// Those that are of the type. What is odd of one beside its state is left out of it.
fn containers(said: &mut Fields<'_>, list: &str) -> Option<Vec<ContainerStatus>> {
    let mut odd = Vec::new();
    let taken = said.list(
        list,
        |one: &mut ContainerStatus| {
            if !are_amounts(one.allocated_resources.as_ref()) {
                one.allocated_resources = None;
                odd.push(format!("{list}.allocatedResources"));
            }
            let asked = one.resources.as_ref();
            if !asked.is_none_or(|asked| {
                are_amounts(asked.limits.as_ref()) && are_amounts(asked.requests.as_ref())
            }) {
                one.resources = None;
                odd.push(format!("{list}.resources"));
            }
            let states = one.allocated_resources_status.iter().flatten().flat_map(|one| &one.resources);
            let is_word =
                |health: &Option<String>| health.as_deref().is_none_or(|word| HEALTH.contains(&word));
            if !states.into_iter().flatten().all(|one| is_word(&one.health)) {
                one.allocated_resources_status = None;
                odd.push(format!("{list}.allocatedResourcesStatus"));
            }
            let user = one.user.as_ref().and_then(|user| user.linux.as_ref());
            let ids = user.map(|user| {
                [user.uid, user.gid].into_iter().chain(user.supplemental_groups.iter().flatten().copied())
            });
            if !ids.into_iter().flatten().all(|id| u32::try_from(id).is_ok()) {
                one.user = None;
                odd.push(format!("{list}.user"));
            }
            one.restart_count >= 0
        },
        |one| one.name.clone(),
    );
    for field in odd {
        said.leave_out(field);
    }
    taken
}

fn cut(text: String) -> String {
    status_texts::cut_to(text, MESSAGE_MAX)
}

#[cfg(test)]
#[path = "reported_status_tests.rs"]
mod tests;
