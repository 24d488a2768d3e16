//! A node that is cut off keeps its pods, because it runs them. Kubernetes would evict them: its node lifecycle controller gives the
//! Node a `NoExecute` taint, and pods tolerate that for five minutes.
//!
//! Where the API server takes that taint off edge Nodes ([`EvictionRule::Admission`]: the policy of the chart's `eviction.yaml`, and the
//! stand-alone API by itself), no pod is touched, and pods that ask to be evicted all the same
//! ([`plan::KEEP_EVICTION_LABEL`](crate::plan::KEEP_EVICTION_LABEL)) are evicted from here. Elsewhere
//! ([`EvictionRule::Tolerations`]) the end of the pods' tolerations is lifted, and pods that ask to be evicted keep it: then the cluster's
//! own controller evicts them. Which of the two it is, the server is asked ([`probe`]); never are both done.

mod kept;
mod probe;
mod rule;
mod writer;

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use beehive::{Context, Moment};
use contract::edgecontroller::EdgeControllerMsg;
use contract::{NodeName, ObjectKey};
use kubewatch::Readiness;
use serde_json::Value;

use self::kept::KeptPods;
use self::probe::EvictionProbe;
pub(crate) use self::rule::EvictionRule;
use crate::plan;

/// The kind of EdgeController's child that asks the server.
pub const EVICTION_PROBE: &str = "eviction-probe";

/// What EdgeController knows of who evicts, and of the pods that ask for it.
#[derive(Default)]
pub(crate) struct Evictions {
    /// What the probe found last.
    found: Rc<Cell<EvictionRule>>,
    /// By what was acted last.
    applied: EvictionRule,
    kept: KeptPods,
}

impl Evictions {
    /// Begins to ask the server.
    pub(crate) fn start(&self, client: &kube::Client, cx: &Context<EdgeControllerMsg>) {
        let (client, found, parent) = (client.clone(), Rc::clone(&self.found), cx.for_children());
        cx.child(EVICTION_PROBE, EvictionProbe::policy(), move || {
            EvictionProbe::new(client.clone(), Rc::clone(&found), parent.clone())
        });
    }

    /// The rule that holds.
    pub(crate) fn rule(&self) -> EvictionRule {
        self.applied
    }

    /// Takes over what was found. Answers whether another rule holds than before: then every pod is to be looked at.
    pub(crate) fn has_turned(&mut self) -> bool {
        std::mem::replace(&mut self.applied, self.found.get()) != self.applied
    }

    /// A Node came, changed, or went (`Unsaid`).
    pub(crate) fn node(&mut self, name: &str, readiness: Readiness) {
        if let Ok(node) = NodeName::parse(name) {
            self.kept.node(node, readiness);
        }
    }

    /// A pod came, changed, or went (`None`).
    pub(crate) fn pod(&mut self, key: &ObjectKey, pod: Option<&Value>) {
        self.kept.pod(key, pod);
    }

    /// Lifts the end of the tolerations of a pod on an edge node, where that is what keeps it there.
    pub(crate) fn lift(
        &self,
        client: &kube::Client,
        key: &ObjectKey,
        pod: &Value,
        cx: &Context<EdgeControllerMsg>,
    ) {
        if self.applied == EvictionRule::Tolerations
            && let Some(tolerations) = plan::lifted_tolerations(pod)
        {
            let (client, env, key) = (client.clone(), cx.env().clone(), key.clone());
            cx.spawn(async move { writer::lift(&client, &env, &key, tolerations).await });
        }
    }

    /// Evicts the pods that ask for it and whose time is over. Answers when to look again.
    pub(crate) fn evict(
        &mut self,
        client: &kube::Client,
        is_edge: impl Fn(&NodeName) -> bool,
        cx: &Context<EdgeControllerMsg>,
    ) -> Option<Duration> {
        if self.applied != EvictionRule::Admission {
            return None;
        }
        let now: Moment = cx.now();
        let (due, again) = self.kept.due(is_edge, now);
        for eviction in due {
            let (client, env) = (client.clone(), cx.env().clone());
            cx.spawn(async move { writer::evict(&client, &env, &eviction).await });
        }
        again
    }
}
