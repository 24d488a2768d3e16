//! The watch of Nodes: of their metadata alone.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use beehive::{Address, Env, Fault};
use contract::NodeName;
use contract::nodelease::NodeLeaseMsg;
use futures::StreamExt;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::api::{Api, ApiResource};
use kube::runtime::watcher::{Event, watcher};
use kubewatch::{WatchPause, WatchedMetadata, watch_config};

use crate::plan::Sessions;

/// 1 s, doubled at each time up to 8 s: the pause before a watch that broke off is taken up again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
const AGAIN_MAX: Duration = Duration::from_secs(8);

/// Follows the Nodes for ever, and has a session looked into whose Node is gone or another one.
pub(crate) async fn watch(
    client: kube::Client,
    env: Env,
    sessions: Rc<RefCell<Sessions>>,
    lease: Address<NodeLeaseMsg>,
) {
    // One Node that cannot be read must not hide the others.
    let nodes: Api<WatchedMetadata> = Api::all_with(client, &ApiResource::erase::<Node>(&()));
    let mut pause = WatchPause::new(AGAIN_AFTER, AGAIN_MAX, env.now());
    let (mut listed, mut is_broken) = (BTreeSet::new(), false);
    let mut events = std::pin::pin!(watcher(nodes, watch_config(None)));
    while let Some(event) = events.next().await {
        let changed = match event {
            Ok(event) => {
                // A list that begins has not been answered yet.
                is_broken &= matches!(event, Event::Init);
                take(&sessions, event, &mut listed)
            }
            Err(error) => {
                let is_first = !std::mem::replace(&mut is_broken, true);
                crate::events::watch_interrupted(&env, &Fault::from_error(&error).reason, is_first);
                env.sleep(env.jitter(pause.broke(env.now()))).await;
                continue;
            }
        };
        for node in changed {
            let session_in_doubt = sessions.borrow().session_in_doubt(&node);
            if let Some(session) = session_in_doubt {
                let _ = lease.tell(NodeLeaseMsg::NodeMissing { node, session }).await;
            }
        }
    }
}

/// Takes an event in. Answers the Nodes that it is about.
fn take(
    sessions: &RefCell<Sessions>,
    event: Event<WatchedMetadata>,
    listed: &mut BTreeSet<NodeName>,
) -> Vec<NodeName> {
    let mut sessions = sessions.borrow_mut();
    match event {
        Event::Init => {
            listed.clear();
            Vec::new()
        }
        Event::InitApply(found) => {
            let name = apply(&mut sessions, found);
            listed.extend(name.clone());
            name.into_iter().collect()
        }
        Event::Apply(found) => apply(&mut sessions, found).into_iter().collect(),
        Event::Delete(found) => {
            let name = name_of(found.meta());
            name.iter().for_each(|name| sessions.node_deleted(name));
            name.into_iter().collect()
        }
        Event::InitDone => {
            let gone: Vec<NodeName> =
                sessions.node_names().filter(|name| !listed.contains(*name)).cloned().collect();
            gone.iter().for_each(|name| sessions.node_deleted(name));
            sessions.nodes_listed();
            listed.clear();
            gone
        }
    }
}

/// A name that no node of ours can have has no session either.
fn name_of(metadata: &ObjectMeta) -> Option<NodeName> {
    NodeName::parse(metadata.name.as_deref()?).ok()
}

/// Of a Node that cannot be read what was known last goes on to hold.
fn apply(sessions: &mut Sessions, found: WatchedMetadata) -> Option<NodeName> {
    let name = name_of(found.meta())?;
    match found.into_read() {
        Ok(metadata) => sessions.node_applied(name.clone(), &metadata),
        Err(unreadable) => tracing::warn!(node = %name, why = unreadable.why, "the Node cannot be read"),
    }
    Some(name)
}
