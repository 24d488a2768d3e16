//! A node for the tests, with the faults that they plan: of Edged at its messages, and of whoever calls the runtime.

use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use beehive::testing::{self, PanicPoint, PlannedPanic};
use beehive::{ActorReport, Env, Policy};
use cri::Runtime;
use edge_edged::Settings;
use edge_store::Store;
use serde_json::Value;
pub(crate) use testnode::{
    Machine, SOON, WAITS, condition, container, container_id, deleted, eventually, first, forget, pod, put,
    run, text,
};

use crate::faults::{Faults, FaultyEdged, FaultyRuntime};

/// Edged and what it works with.
pub(crate) struct Node {
    node: testnode::Node,
    /// Panics of Edged at its messages.
    pub(crate) edged_faults: Rc<Faults>,
    /// Panics of Edged and its workers at their calls of the runtime; `runtime` itself has none.
    pub(crate) runtime_faults: Arc<Faults>,
}

impl Deref for Node {
    type Target = testnode::Node;
    fn deref(&self) -> &testnode::Node {
        &self.node
    }
}

impl Node {
    /// A node with an empty store.
    pub(crate) fn start(host: &Machine) -> Node {
        Node::planned(host, testnode::Plan::of(host))
    }

    /// The same with other settings.
    pub(crate) fn start_set(host: &Machine, set: impl FnOnce(&mut Settings)) -> Node {
        Node::planned(host, testnode::Plan::of(host).set(set))
    }

    /// The same in another environment, with something between Edged and the runtime.
    pub(crate) fn start_with(
        host: &Machine,
        env: Env,
        between: impl FnOnce(Arc<dyn Runtime>) -> Arc<dyn Runtime>,
    ) -> Node {
        Node::planned(host, testnode::Plan::of(host).within(env).between(between))
    }

    fn planned(host: &Machine, plan: testnode::Plan) -> Node {
        let (edged_faults, runtime_faults): (Rc<Faults>, Arc<Faults>) = (Rc::default(), Arc::default());
        let faults = Arc::clone(&runtime_faults);
        let faulty = |runtime| -> Arc<dyn Runtime> { Arc::new(FaultyRuntime { runtime, faults }) };
        let faults = Rc::clone(&edged_faults);
        // More than a test's faults on purpose.
        let policy = Policy { budget: 100, backoff_max: Duration::from_millis(200), ..Policy::default() };
        let around = move |edged| FaultyEdged { edged, faults: Rc::clone(&faults) };
        let node = plan.between_edged(faulty).around(policy, around).start(host);
        Node { node, edged_faults, runtime_faults }
    }

    /// Ends Edged as a daemon ends, does something, and starts it again on the store as it is then.
    pub(crate) async fn restart(
        self,
        host: &Machine,
        meanwhile: impl AsyncFnOnce(&Store, &dyn Runtime),
    ) -> Node {
        let Node { node, edged_faults, runtime_faults } = self;
        Node { node: node.restart(host, meanwhile).await, edged_faults, runtime_faults }
    }

    /// Ends Edged as a daemon ends. The store is open again then.
    pub(crate) async fn stop(self, host: &Machine) -> Stopped {
        let Node { node, edged_faults, runtime_faults } = self;
        Stopped { stopped: node.stop(host).await, edged_faults, runtime_faults }
    }

    /// What Edged tells of itself.
    pub(crate) async fn snapshot(&self) -> Value {
        self.hive.inspector().report(SOON).await.actors[0].snapshot.clone()
    }

    /// Plans a panic of an actor of that full name or kind when it is handed the next message of that name.
    pub(crate) fn plan_panic(&self, actor: &str, message: &'static str) -> PlannedPanic {
        let point = PanicPoint { message: Some(message), nth: 1, awaits: 0 };
        testing::plan_panic(&self.hive.inspector(), actor, point)
    }

    /// How an actor fares, by its full name.
    pub(crate) async fn actor(&self, name: &str) -> ActorReport {
        let report = self.hive.inspector().report(SOON).await;
        report.actors.into_iter().find(|actor| actor.name == name).unwrap()
    }
}

/// A node whose Edged was ended.
pub(crate) struct Stopped {
    stopped: testnode::Stopped,
    edged_faults: Rc<Faults>,
    runtime_faults: Arc<Faults>,
}

impl Stopped {
    /// It starts with other settings.
    pub(crate) fn set(self, set: impl FnOnce(&mut Settings)) -> Stopped {
        Stopped { stopped: self.stopped.set(set), ..self }
    }

    /// The runtime does not say what pods use until it is told to.
    pub(crate) fn without_stats(self) -> Stopped {
        self.runtime_faults.refuse_stats();
        self
    }

    /// Starts Edged again.
    pub(crate) fn start(self) -> Node {
        let Stopped { stopped, edged_faults, runtime_faults } = self;
        Node { node: stopped.start(), edged_faults, runtime_faults }
    }
}
