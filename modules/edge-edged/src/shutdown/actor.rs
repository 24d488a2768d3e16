//! Ends pods in order before the machine ends: an actor and a child of Edged's, which tells Edged what to end.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use beehive::{Actor, Address, Capacity, Context, Fault, Message, Policy};
use contract::edged::EdgedMsg;
use cri::pods::POD_UID;
use cri::v1::{ContainerFilter, ContainerState, ContainerStateValue};
use futures::future::AbortHandle;
use serde_json::{Value, json};

use crate::dependencies::Dependencies;
use crate::events;
use crate::pod::end_reason::TERMINATED;
use crate::pod::recorder::EventType;
use crate::shutdown::logind::{self, Logind};
use crate::shutdown::plan::{self, Group, Silence, WORDS};

/// Its name among Edged's children.
pub(crate) const NODE_SHUTDOWN: &str = "node-shutdown";
/// 30 s before logind is looked for again.
const AGAIN: Duration = Duration::from_secs(30);
/// 5 s after it was heard last: the bus begins anew within that, or the machine ends.
const SOON: Duration = Duration::from_secs(5);
/// So often the runtime is asked whether a group has ended.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// So often and so long it is looked whether logind has read its configuration.
const RELOADED: (u32, Duration) = (5, Duration::from_millis(200));

/// Messages to it.
#[derive(Debug)]
pub(crate) enum NodeShutdownMsg {
    /// The machine is to end, or is not any more.
    Changed {
        /// Which of the two.
        begins: bool,
        /// Which end of the machine's: they are counted.
        round: u64,
    },
    /// All pods have ended, or have had their time.
    Ended {
        /// For which end of the machine's.
        round: u64,
    },
}

impl Message for NodeShutdownMsg {
    fn name(&self) -> &'static str {
        match self {
            NodeShutdownMsg::Changed { .. } => "Changed",
            NodeShutdownMsg::Ended { .. } => "Ended",
        }
    }
}

/// What logind has said last, and what it waits for. Who hears of it and who ends pods for it share this: what one does for an end
/// that was called off by then takes nothing from the next.
#[derive(Default)]
struct Inhibitor {
    /// While it is open logind waits.
    lock: RefCell<Option<OwnedFd>>,
    ends: Cell<bool>,
    /// How many ends there were.
    round: Cell<u64>,
}

impl Inhibitor {
    /// logind says whether the machine ends. Answers the number of that end.
    fn heard(&self, begins: bool) -> u64 {
        if begins && !self.ends.get() {
            self.round.set(self.round.get() + 1);
        }
        self.ends.set(begins);
        self.round.get()
    }

    fn is_held(&self) -> bool {
        self.lock.borrow().is_some()
    }

    /// Nothing is left to wait for before that end. False when it was called off.
    fn release(&self, round: u64) -> bool {
        let is_now = self.ends.get() && self.round.get() == round;
        if is_now {
            self.lock.take();
        }
        is_now
    }
}

/// See the module.
pub(crate) struct NodeShutdown {
    deps: Rc<Dependencies>,
    inhibitor: Rc<Inhibitor>,
    /// What ends the pods.
    ending: Option<AbortHandle>,
}

impl NodeShutdown {
    pub(crate) fn new(deps: Rc<Dependencies>) -> Self {
        NodeShutdown { deps, inhibitor: Rc::default(), ending: None }
    }

    /// It fails for itself alone, and is made anew for ever.
    pub(crate) fn policy() -> Policy {
        Policy {
            budget: usize::MAX,
            capacity: Capacity::new(4, "the machine ends once, and thinks better of it"),
            ..Policy::default()
        }
    }
}

impl Actor for NodeShutdown {
    type Message = NodeShutdownMsg;

    async fn started(&mut self, cx: &mut Context<NodeShutdownMsg>) -> Result<(), Fault> {
        if !self.deps.settings.shutdown.is_empty() {
            let watch = Watch {
                deps: Rc::clone(&self.deps),
                inhibitor: Rc::clone(&self.inhibitor),
                own: cx.myself(),
            };
            cx.spawn(watch.run());
        }
        Ok(())
    }

    async fn handle(
        &mut self,
        message: NodeShutdownMsg,
        cx: &mut Context<NodeShutdownMsg>,
    ) -> Result<(), Fault> {
        match message {
            NodeShutdownMsg::Changed { begins, round } => self.changed(begins, round, cx),
            NodeShutdownMsg::Ended { round } => {
                if self.inhibitor.release(round) {
                    events::shutdown_pods_ended(&self.deps.env);
                }
            }
        }
        Ok(())
    }

    fn snapshot(&self) -> Value {
        json!({"shuttingDown": self.deps.shutting_down.get(), "inhibits": self.inhibitor.is_held()})
    }
}

impl NodeShutdown {
    fn changed(&mut self, begins: bool, round: u64, cx: &Context<NodeShutdownMsg>) {
        let deps = &self.deps;
        if deps.shutting_down.replace(begins) == begins {
            return;
        }
        events::shutdown_changed(&deps.env, begins);
        let text = if begins {
            "Shutdown manager detected shutdown event"
        } else {
            "Shutdown manager detected shutdown cancellation"
        };
        deps.node_event(EventType::Normal, "Shutdown", text);
        // The Node is told now, and pods that come are turned away.
        let told = Rc::clone(deps);
        cx.spawn(async move {
            if !begins {
                told.edged.tell_with_retry(&told.env, || EdgedMsg::ShutdownCancelled).await;
            }
            told.edged.tell_with_retry(&told.env, || EdgedMsg::ReportNode).await;
            told.edged.tell_with_retry(&told.env, || EdgedMsg::Reconcile).await;
        });
        if let Some(ending) = self.ending.take() {
            ending.abort();
        }
        if begins {
            let (deps, own) = (Rc::clone(deps), cx.myself());
            self.ending = Some(cx.spawn(async move {
                end_pods(&deps).await;
                let _ = own.tell(NodeShutdownMsg::Ended { round }).await;
            }));
        }
    }
}

/// Ends the pods, group by group, each within its time.
async fn end_pods(deps: &Rc<Dependencies>) {
    let pods = deps.active_pods.borrow().clone();
    for (Group { period, .. }, pods) in plan::assign(&deps.settings.shutdown, &pods) {
        if pods.is_empty() {
            continue;
        }
        for pod in &pods {
            let order = || EdgedMsg::EvictPod {
                uid: pod.id.uid.clone(),
                reason: TERMINATED,
                message: WORDS.to_owned(),
                grace: period.min(pod.grace()),
            };
            deps.edged.tell_with_retry(&deps.env, order).await;
        }
        let uids = pods.iter().map(|pod| pod.id.uid.clone()).collect();
        let _ = deps.env.timeout(period, until_ended(deps, &uids)).await;
    }
}

/// Waits until nothing of these pods runs.
async fn until_ended(deps: &Rc<Dependencies>, uids: &BTreeSet<String>) {
    loop {
        deps.env.sleep(LOOK_EVERY).await;
        let filter = ContainerFilter {
            state: Some(ContainerStateValue { state: ContainerState::ContainerRunning.into() }),
            ..ContainerFilter::default()
        };
        let Ok(running) = deps.runtime.list_containers(filter).await else { continue };
        let is_one = |labels: &std::collections::HashMap<String, String>| {
            labels.get(POD_UID).is_some_and(|uid| uids.contains(uid))
        };
        if !running.iter().any(|container| is_one(&container.labels)) {
            return;
        }
    }
}

/// Hears of the machine's end.
struct Watch {
    deps: Rc<Dependencies>,
    inhibitor: Rc<Inhibitor>,
    own: Address<NodeShutdownMsg>,
}

impl Watch {
    async fn run(self) {
        let mut silence = Silence::default();
        loop {
            let mut was_heard = false;
            if let Err(error) = self.follow(&mut was_heard).await
                && silence.is_news(&error.to_string(), was_heard, self.inhibitor.ends.get())
            {
                events::logind_lost(&self.deps.env, &error);
            }
            self.inhibitor.lock.take();
            let pause = if was_heard { SOON } else { AGAIN };
            self.deps.env.sleep(self.deps.env.jitter(pause)).await;
        }
    }

    /// Hears of logind until the connection breaks off. `was_heard`: it waits for the node's pods from then on.
    async fn follow(&self, was_heard: &mut bool) -> std::io::Result<()> {
        let settings = &self.deps.settings;
        let mut logind = Logind::connect(&settings.system_bus, &self.deps.env).await?;
        self.ensure_delay(&mut logind).await?;
        self.inhibitor.lock.replace(Some(logind.inhibit().await?));
        *was_heard = true;
        events::shutdown_inhibited(&self.deps.env, plan::total(&settings.shutdown));
        loop {
            let begins = logind.changed().await?;
            let round = self.inhibitor.heard(begins);
            let _ = self.own.tell(NodeShutdownMsg::Changed { begins, round }).await;
            if !begins && !self.inhibitor.is_held() {
                self.inhibitor.lock.replace(Some(logind.inhibit().await?));
            }
        }
    }

    /// Has logind wait for as long as the pods may need.
    async fn ensure_delay(&self, logind: &mut Logind) -> std::io::Result<()> {
        let wanted = plan::total(&self.deps.settings.shutdown);
        if logind.longest_delay().await? >= wanted {
            return Ok(());
        }
        let folder = self.deps.settings.logind_config.clone();
        let write = move || logind::allow_delay(&folder, wanted);
        self.deps.env.blocking(write).await.map_err(std::io::Error::other)??;
        logind.reload().await?;
        let (tries, mut pause) = RELOADED;
        for _ in 0..tries {
            if logind.longest_delay().await? >= wanted {
                return Ok(());
            }
            self.deps.env.sleep(pause).await;
            pause *= 2;
        }
        events::shutdown_delay_short(&self.deps.env, logind.longest_delay().await?, wanted);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock() -> OwnedFd {
        std::fs::File::open("/dev/null").unwrap().into()
    }

    #[test]
    fn an_end_that_was_called_off_takes_nothing_from_the_next() {
        let inhibitor = Inhibitor::default();
        inhibitor.lock.replace(Some(lock()));
        let first = inhibitor.heard(true);
        inhibitor.heard(false);
        assert!(!inhibitor.release(first) && inhibitor.is_held(), "its pods have ended too late");
        let second = inhibitor.heard(true);
        assert_eq!(inhibitor.heard(true), second, "said twice");
        assert!(!inhibitor.release(first) && inhibitor.is_held());
        assert!(inhibitor.release(second) && !inhibitor.is_held());
    }
}
