//! Gives a pod what it asks for, or says why it can't have it. A task of its own for each pod: a plugin that hangs holds up
//! nobody else.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use contract::containermanager::{ContainerDemand, ContainerGrant, GrantRefusal, PodDemand, Rejection};
use prost::Message as _;

use crate::error::PluginError;
use crate::events;
use crate::plan::allocation::ContainerAllocation;
use crate::plan::choice::{Choice, Ids};
use crate::plan::grant;
use crate::plan::ledger::{Changes, Presence, Reusable};
use crate::plan::refusal::Refusal;
use crate::plan::topology::{NumaMask, Scope};
use crate::shared::Shared;

/// 1 s before a plugin is asked again whose connection has broken, though it has not gone.
const AGAIN: Duration = Duration::from_secs(1);
/// So often in a row.
const TRIES: u32 = 5;

/// Gives a pod all it asks for and keeps that, or nothing. One that has it already keeps what it has.
pub(crate) async fn admit(shared: Rc<Shared>, pod: PodDemand) -> Result<(), Rejection> {
    let before = shared.ledger.borrow().pod(&pod.uid).cloned();
    shared.ledger.borrow_mut().entry(&pod.uid, &pod.namespace, &pod.name);
    let given = give(&shared, &pod).await;
    let given = match given {
        Ok(()) if shared.ledger.borrow().pod(&pod.uid) == before.as_ref() => return Ok(()),
        // Nothing of what it asks for is given by the piece here.
        Ok(()) if has_nothing(&shared, &pod.uid) => {
            shared.ledger.borrow_mut().release(&pod.uid);
            return Ok(());
        }
        Ok(()) => {
            let changed = Changes { changed: BTreeSet::from([pod.uid.clone()]), ..Changes::default() };
            shared
                .keep(changed)
                .await
                .map_err(|error| unexpected(&format!("failed to write checkpoint: {error}")))
        }
        Err(rejection) => Err(rejection),
    };
    if let Err(rejection) = &given {
        events::pod_rejected(&shared.env, &pod.namespace, &pod.name, &rejection.message);
        // What it had before it keeps: it may run.
        let mut ledger = shared.ledger.borrow_mut();
        match before {
            Some(before) => *ledger.entry(&pod.uid, &pod.namespace, &pod.name) = before,
            None => ledger.release(&pod.uid),
        }
    }
    given
}

fn has_nothing(shared: &Shared, uid: &str) -> bool {
    shared
        .ledger
        .borrow()
        .pod(uid)
        .is_none_or(|pod| pod.containers.values().all(ContainerAllocation::is_empty))
}

/// The kubelet's words for what it has no word for.
fn unexpected(error: &str) -> Rejection {
    Rejection {
        reason: "UnexpectedAdmissionError".to_owned(),
        message: format!("Allocate failed due to {error}, which is unexpected"),
    }
}

fn rejection(refusal: Refusal) -> Rejection {
    match refusal {
        Refusal::Named { reason, message } => Rejection { reason: reason.to_owned(), message },
        Refusal::Other(error) => unexpected(&error),
    }
}

async fn give(shared: &Shared, pod: &PodDemand) -> Result<(), Rejection> {
    for resource in pod.containers.iter().flat_map(|container| container.devices.keys()) {
        if !has_all(shared, pod, resource) {
            wait_for(shared, resource).await;
        }
    }
    let mut reusable = Reusable::default();
    let of_pod = match shared.settings.scope {
        Scope::Pod => shared.placement().of_pod(&shared.ledger.borrow(), pod).map_err(rejection)?,
        Scope::Container => None,
    };
    for container in &pod.containers {
        let affinity = match shared.settings.scope {
            Scope::Pod => of_pod,
            Scope::Container => {
                let ledger = shared.ledger.borrow();
                shared.placement().of_container(&ledger, pod, container, &reusable).map_err(rejection)?
            }
        };
        for (resource, wanted) in &container.devices {
            let wanted = usize::try_from(*wanted).unwrap_or(usize::MAX);
            if wanted > 0 {
                devices(shared, pod, container, resource, wanted, &reusable, affinity)
                    .await
                    .map_err(|error| unexpected(&error))?;
            }
        }
        let mut ledger = shared.ledger.borrow_mut();
        let placement = shared.placement();
        placement.take_cpus(&mut ledger, pod, container, &reusable.cpus, affinity).map_err(rejection)?;
        placement.take_memory(&mut ledger, pod, container, &reusable.memory, affinity).map_err(rejection)?;
        if let Some(has) = ledger.container(&pod.uid, &container.name) {
            reusable.passed(container.kind, has);
        }
    }
    Ok(())
}

/// Whether all of a pod's containers that ask for a resource have it.
fn has_all(shared: &Shared, pod: &PodDemand, resource: &str) -> bool {
    let ledger = shared.ledger.borrow();
    let mut asking = pod.containers.iter().filter(|container| container.devices.contains_key(resource));
    asking.all(|container| {
        let has = ledger.container(&pod.uid, &container.name);
        has.is_some_and(|has| has.devices.contains_key(resource))
    })
}

/// Waits until a plugin is here that may come, at most for its grace.
async fn wait_for(shared: &Shared, resource: &str) {
    let mut changes = shared.hears();
    while shared.ledger.borrow().presence(resource) == Presence::MayCome {
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// Gives a container its devices of one resource.
async fn devices(
    shared: &Shared,
    pod: &PodDemand,
    container: &ContainerDemand,
    resource: &str,
    wanted: usize,
    reusable: &Reusable,
    affinity: Option<NumaMask>,
) -> Result<(), String> {
    let (uid, name) = (&pod.uid, &container.name);
    let has = shared
        .ledger
        .borrow()
        .container(uid, name)
        .and_then(|has| has.devices.get(resource))
        .map(|own| own.devices.len());
    if let Some(has) = has {
        if has != wanted {
            return Err(format!(
                "pod {uid:?} container {name:?} changed request for resource {resource:?} from {has} to {wanted}"
            ));
        }
        return Ok(());
    }
    let mut tries = 0;
    loop {
        wait_for(shared, resource).await;
        // Of a resource that was never a plugin's the node has none to give, and asks for none either.
        if !shared.ledger.borrow().is_known(resource) {
            return Ok(());
        }
        match try_devices(shared, pod, container, resource, wanted, &reusable.devices(resource), affinity)
            .await
        {
            Ok(()) => return Ok(()),
            // It went while it was asked: it may come back, as after its own restart.
            Err(PluginError::Away(_)) if tries < TRIES => {
                tries += 1;
                shared.env.sleep(shared.env.jitter(AGAIN)).await;
            }
            Err(error) => {
                events::call_failed(&shared.env, resource, "Allocate", &error);
                return Err(error.to_string());
            }
        }
    }
}

async fn try_devices(
    shared: &Shared,
    pod: &PodDemand,
    container: &ContainerDemand,
    resource: &str,
    wanted: usize,
    reusable: &Ids,
    affinity: Option<NumaMask>,
) -> Result<(), PluginError> {
    let (uid, name) = (&pod.uid, &container.name);
    let mut preferred = None;
    let ids = loop {
        let choice = shared.ledger.borrow().choose(resource, wanted, reusable, affinity, preferred.as_ref());
        match choice.map_err(PluginError::Nonsense)? {
            Choice::Take(ids) => break ids,
            Choice::AskPlugin { available, must_include, size } => {
                let (client, _) = shared.client(resource).ok_or_else(|| gone(resource))?;
                let says = client.prefers(&shared.env, available, must_include, size).await;
                preferred = Some(says.map_err(|error| match error {
                    PluginError::Away(_) => error,
                    other => PluginError::Nonsense(format!(
                        "device plugin GetPreferredAllocation rpc failed with err: {other}"
                    )),
                })?);
            }
        }
    };
    let (client, _) = shared.client(resource).ok_or_else(|| gone(resource))?;
    shared.ledger.borrow_mut().reserve(uid, name, resource, &ids);
    match client.allocate(&ids).await {
        Ok(answer) => {
            let kept = shared.ledger.borrow_mut().answered(uid, name, resource, answer.encode_to_vec());
            if kept { Ok(()) } else { Err(PluginError::Nonsense("the pod is gone".to_owned())) }
        }
        Err(error) => {
            shared.ledger.borrow_mut().unreserve(uid, name, resource);
            Err(error)
        }
    }
}

fn gone(resource: &str) -> PluginError {
    PluginError::Away(format!("unknown Device Plugin {resource}"))
}

/// What a container is made with; its plugins are told before, if they want to be.
pub(crate) async fn grant(
    shared: Rc<Shared>,
    pod: PodDemand,
    container: String,
) -> Result<ContainerGrant, GrantRefusal> {
    let demand = pod.containers.iter().find(|one| one.name == container).cloned();
    let missing = |resource: &String| {
        let ledger = shared.ledger.borrow();
        let has = ledger.container(&pod.uid, &container);
        ledger.is_known(resource) && !has.is_some_and(|has| has.devices.contains_key(resource))
    };
    if demand
        .iter()
        .flat_map(|demand| &demand.devices)
        .any(|(resource, wanted)| *wanted > 0 && missing(resource))
    {
        // What it was given is not known any more, as after a loss of the store.
        let given = admit(Rc::clone(&shared), pod.clone()).await;
        given.map_err(|rejection| GrantRefusal::Failed(rejection.message))?;
    }
    let has = shared.ledger.borrow().container(&pod.uid, &container).cloned().unwrap_or_default();
    for (resource, allocation) in &has.devices {
        let ids: Ids = allocation.devices.keys().cloned().collect();
        if allocation.boot != shared.ledger.borrow().boot() {
            return Err(GrantRefusal::NotYet(format!(
                "the device plugin of {resource} has not come back since the machine started"
            )));
        }
        let Some((client, registration)) = shared.client(resource) else { continue };
        if registration.pre_start_required {
            client.pre_start(&shared.env, &ids).await.map_err(|error| {
                events::call_failed(&shared.env, resource, "PreStartContainer", &error);
                GrantRefusal::Failed(format!("device plugin PreStartContainer rpc failed with err: {error}"))
            })?;
        }
    }
    let mut grant = grant::of_container(&has).map_err(GrantRefusal::Failed)?;
    if grant.cpus.is_empty() {
        grant.cpus = shared.placement().shared_cpus(&shared.ledger.borrow());
    }
    Ok(grant)
}
