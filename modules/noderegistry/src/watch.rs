//! The watch that open links are checked by.

use std::time::Duration;

use beehive::{Env, Fault};
use contract::NodeName;
use crd::EdgeNode;
use futures::StreamExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::api::{Api, ApiResource};
use kube::runtime::watcher::{Config, Event, watcher};
use kubewatch::{Interruption, WatchPause, WatchedMetadata};

use crate::plan;
use crate::register::Registry;

/// 10 s: how long one request of the watch lives. It is taken up where it was, and a connection that died without a word is
/// noticed at most 5 s after it.
const REQUEST_SECONDS: u32 = 10;
/// 200 ms, doubled at each time up to 2 s: the pause before a watch that broke off is taken up again.
const AGAIN_AFTER: Duration = Duration::from_millis(200);
const AGAIN_MAX: Duration = Duration::from_secs(2);
/// 12 s: a watch that is taken up where it was has nothing to say. One that has not failed again for longer than a request
/// lives and the pause before it lasts is whole.
const WHOLE_AFTER: Duration = Duration::from_secs(12);
/// As `kubectl` names the register.
const EDGE_NODES: &str = "edgenodes.kubehive.io";

/// What the register says of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistryStatus {
    /// The serial of its living certificate.
    pub living: Option<String>,
    /// The serials of those that may take its place, and are as good.
    pub next: Vec<String>,
    /// Whether an administrator barred it.
    pub is_barred: bool,
    /// Whether it was freed, though finalizers hold its object.
    pub is_ending: bool,
}

impl RegistryStatus {
    /// Why a link of a name must not be open that the register does not have.
    pub const FORGOTTEN: &str = "the name is not in the register of edge nodes any more";

    fn of(metadata: &ObjectMeta) -> Self {
        RegistryStatus {
            living: plan::living(metadata),
            next: plan::next(metadata),
            is_barred: plan::is_barred(metadata),
            is_ending: plan::is_ending(metadata),
        }
    }

    /// The serials of the certificates that are good for anything now.
    pub fn good(self) -> Vec<String> {
        if self.is_barred || self.is_ending {
            return Vec::new();
        }
        self.living.into_iter().chain(self.next).collect()
    }

    /// Why a link with a certificate of this serial must not be open; `None`: it may.
    pub fn reason_against(&self, serial: &str) -> Option<&'static str> {
        self.reason_against_all(&[serial.to_owned()])
    }

    /// Why a link must not be open whose node has certificates of these serials; `None`: one of them is good.
    pub fn reason_against_all(&self, serials: &[String]) -> Option<&'static str> {
        let is_good = |serial: &String| self.living.iter().chain(&self.next).any(|good| good == serial);
        if self.is_barred {
            Some("an administrator revoked the name")
        } else if self.is_ending {
            Some("an administrator freed the name")
        } else if !serials.iter().any(is_good) {
            Some("its certificate was given back or replaced")
        } else {
            None
        }
    }
}

/// What the watch tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegistryEvent {
    /// A list of all names begins.
    Init,
    /// A name, as it is.
    Apply(NodeName, RegistryStatus),
    /// A name that was forgotten.
    Delete(NodeName),
    /// The list is complete: a name that was not in it is gone.
    InitDone,
}

impl Registry {
    /// Tells `on_event` of every change of a name, for ever. After a break it goes on where it was, or lists everything again.
    pub async fn watch(&self, env: &Env, mut on_event: impl FnMut(RegistryEvent)) {
        let config = Config::default().timeout(REQUEST_SECONDS);
        // One name that cannot be read must not hide the others.
        let names: Api<WatchedMetadata> =
            Api::all_with(self.names.clone().into_client(), &ApiResource::erase::<EdgeNode>(&()));
        let mut events = std::pin::pin!(watcher(names, config));
        let mut pause = WatchPause::new(AGAIN_AFTER, AGAIN_MAX, env.now());
        let mut interruption = None;
        loop {
            let event = match &interruption {
                None => events.next().await,
                Some(_) => match env.timeout(WHOLE_AFTER, events.next()).await {
                    Some(event) => event,
                    None => {
                        end(&mut interruption);
                        continue;
                    }
                },
            };
            match event {
                None => return,
                Some(Ok(event)) => {
                    // A list that begins has not been answered yet.
                    if !matches!(event, Event::Init) {
                        end(&mut interruption);
                    }
                    if let Some(registry_event) = registry_event(event) {
                        on_event(registry_event);
                    }
                }
                Some(Err(error)) => {
                    let reason = Fault::from_error(&error).reason;
                    interruption.get_or_insert_with(|| {
                        // Once: it says nothing new at each attempt.
                        tracing::warn!(%reason, "watch of the register of nodes interrupted");
                        self.interruptions.begin(EDGE_NODES, env.now())
                    });
                    env.sleep(env.jitter(pause.broke(env.now()))).await;
                }
            }
        }
    }
}

fn end(interruption: &mut Option<Interruption>) {
    if interruption.take().is_some() {
        tracing::info!("watch of the register of nodes is whole again");
    }
}

/// A name that cannot be read has no certificate that is known to live, so no link of it stays open.
fn registry_event(event: Event<WatchedMetadata>) -> Option<RegistryEvent> {
    // A name that no node can have has no link either.
    let named = |metadata: &ObjectMeta| metadata.name.as_deref().and_then(|name| NodeName::parse(name).ok());
    match event {
        Event::Init => Some(RegistryEvent::Init),
        Event::InitDone => Some(RegistryEvent::InitDone),
        Event::InitApply(found) | Event::Apply(found) => {
            Some(RegistryEvent::Apply(named(found.meta())?, RegistryStatus::of(found.meta())))
        }
        Event::Delete(found) => Some(RegistryEvent::Delete(named(found.meta())?)),
    }
}
