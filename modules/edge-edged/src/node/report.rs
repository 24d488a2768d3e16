//! The report of the node: what goes into it, and when it is made. The kubelet's syncNodeStatus.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use beehive::{Env, Moment};
use contract::UpReport;
use contract::csi_node::CsiNodeDriver;
use cri::v1::{Image, RuntimeStatus, VersionResponse};
use serde_json::Value;

use crate::dependencies::{CsiVolumes, Dependencies, NodeInfo, blocking};
use crate::error::StepError;
use crate::events;
use crate::node::cpu_classes;
use crate::node::csi_drivers::DriversSeen;
use crate::node::enforcement;
use crate::node::findings::Findings;
use crate::node::machine::{self, Machine};
use crate::node::node_events;
use crate::node::runtime_driver;
use crate::node::{conditions, status};
use crate::runtime::bounds::NodeLimits;
use crate::runtime::cgroup;
use crate::runtime::dns::{self, NodeDns};
use crate::runtime::swap::Swap;
use crate::settings::CGROUPS;
use crate::settings::Settings;

/// 1 h: a node whose report has not changed is reported again after this, whatever became of the last one in the cloud. The heartbeat that a
/// kubelet writes every five minutes (nodeStatusReportFrequency) CloudCore writes of a node that is alive: a report is a kilobyte.
const REPORT_UNCHANGED_AFTER: Duration = Duration::from_secs(3600);
/// How long the runtime may take to say how it fares.
const RUNTIME_ANSWERS_WITHIN: Duration = Duration::from_secs(8);
/// A report that takes longer has come to a stop.
const REPORT_WITHIN: Duration = Duration::from_secs(60);
/// 30 s, as a kubelet waits (`maxWaitForContainerRuntime`): a runtime that is upgraded is away for seconds.
const RUNTIME_MAY_BE_AWAY: Duration = Duration::from_secs(30);
/// What the runtime is called until it has said so itself.
const DEFAULT_RUNTIME: &str = "containerd";

/// What the runtime is, and how it fares.
type RuntimeAnswer = (VersionResponse, RuntimeStatus);

/// The machine as it was seen last, and the last report. Shared by Edged and the task that makes the report.
#[derive(Default)]
pub(crate) struct NodeReporter {
    machine: RefCell<Machine>,
    /// Since when a report is being made.
    since: Cell<Option<Moment>>,
    last: RefCell<Option<(Value, Moment)>>,
    /// What the runtime answered last, and when.
    answered: RefCell<Option<(RuntimeAnswer, Moment)>>,
    /// The next report is made although nothing has changed.
    forced: Cell<bool>,
    drivers: RefCell<DriversSeen>,
    /// What the runtime had to say against itself.
    complaints: RefCell<BTreeSet<String>>,
    /// The images of the last list that came in time.
    images: RefCell<Vec<Image>>,
}

impl NodeReporter {
    /// The machine as it was seen last.
    pub(crate) fn machine(&self) -> Machine {
        self.machine.borrow().clone()
    }

    /// The status of the node's condition Ready, as it was reported last.
    pub(crate) fn ready(&self) -> Option<Value> {
        let last = self.last.borrow();
        let conditions = last.as_ref()?.0.pointer("/status/conditions")?.as_array()?;
        conditions.iter().find(|condition| condition["type"] == "Ready").map(|ready| ready["status"].clone())
    }

    /// The node's conditions, as they were reported last.
    pub(crate) fn conditions(&self) -> Vec<Value> {
        let last = self.last.borrow();
        let conditions = last.as_ref().and_then(|(node, _)| node.pointer("/status/conditions")?.as_array());
        conditions.cloned().unwrap_or_default()
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.ready().is_some_and(|status| status == "True")
    }

    /// Notes which CSI drivers are registered.
    pub(crate) fn drivers_told(&self, drivers: &[CsiNodeDriver], now: Moment) {
        self.drivers.borrow_mut().told(drivers, now);
    }

    /// Makes the next report although nothing has changed.
    pub(crate) fn force(&self) {
        self.forced.set(true);
    }

    /// Whether a report has been under way for too long.
    pub(crate) fn is_stuck(&self, now: Moment) -> bool {
        self.since.get().is_some_and(|since| now.since(since) > REPORT_WITHIN)
    }

    /// Begins a report. False when one is under way.
    pub(crate) fn begin(&self, now: Moment) -> bool {
        let free = self.since.get().is_none();
        if free {
            self.since.set(Some(now));
        }
        free
    }

    /// Looks at the machine, and answers what pods have to know of it.
    ///
    /// # Errors
    /// When it cannot be looked at.
    pub(crate) async fn look(&self, settings: &Settings, env: &Env) -> Result<NodeInfo, StepError> {
        let (root, ips, resolv_conf) =
            (settings.root.clone(), settings.node_ips.clone(), settings.resolv_conf.clone());
        let look = move || Ok((machine::look(&root, &ips), dns::read_resolv_conf(&resolv_conf)));
        let (machine, resolv_conf) = blocking(env, "look at the machine from", look).await?;
        let (cpu_milli, memory) = status::allocatable(settings, &machine);
        let info = NodeInfo {
            runtime: DEFAULT_RUNTIME.to_owned(),
            features: None,
            cgroup_driver: None,
            host_ips: machine.ips.clone(),
            cpu_milli,
            memory,
            disk: machine.disk,
            limits: NodeLimits {
                memory: machine.memory,
                huge_page_sizes: machine.huge_pages.keys().copied().collect(),
                swap: Swap {
                    control: machine.swap_control,
                    behavior: settings.swap_behavior,
                    capacity: machine.swap,
                },
                has_cgroups_v2: cgroup::is_v2(&settings.cgroups),
            },
            all_pods: enforcement::bounds(settings, &machine),
            dns: NodeDns {
                cluster_servers: settings.cluster_dns.clone(),
                cluster_domain: settings.cluster_domain.clone(),
                resolv_conf,
            },
        };
        self.machine.replace(machine);
        Ok(info)
    }

    /// Makes the report that was begun.
    pub(crate) async fn report(&self, deps: &Rc<Dependencies>) {
        match self.look(&deps.settings, &deps.env).await {
            Ok(info) => {
                let NodeInfo { runtime, features, cgroup_driver, .. } = deps.node.borrow().clone();
                deps.node.replace(NodeInfo { runtime, features, cgroup_driver, ..info });
            }
            Err(error) => events::machine_unreadable(&deps.env, &error),
        }
        cpu_classes::weigh(deps).await;
        self.report_when_changed(deps).await;
        // Behind it: a node's first report makes the Node that the event is about.
        enforcement::enforce(deps).await;
        self.since.set(None);
    }

    /// What is to be told of the runtime: of one that is away for a moment what it said before, as long as the node is ready by that.
    /// The rest of the report is told all the same.
    fn lately(&self, answer: Result<RuntimeAnswer, String>, now: Moment) -> Result<RuntimeAnswer, String> {
        let error = match answer {
            Ok(answer) => {
                self.answered.replace(Some((answer.clone(), now)));
                return Ok(answer);
            }
            Err(error) => error,
        };
        let before = self.answered.borrow();
        let holds = before.as_ref().filter(|(_, at)| now.since(*at) < RUNTIME_MAY_BE_AWAY && self.is_ready());
        holds.map(|(answer, _)| answer.clone()).ok_or(error)
    }

    /// Says once what the runtime has to say against itself.
    fn log_complaints(&self, env: &Env, status: &RuntimeStatus) {
        let complaints = conditions::complaints(status);
        for complaint in complaints.difference(&self.complaints.borrow()) {
            events::runtime_complains(env, complaint);
        }
        self.complaints.replace(complaints);
    }

    /// Asks the runtime how it fares, and reports the node when something has changed.
    async fn report_when_changed(&self, deps: &Rc<Dependencies>) {
        let asked = async {
            let both = futures::future::try_join(deps.runtime.version(), deps.runtime.status());
            let (version, status) = both.await.map_err(|error| error.to_string())?;
            Ok((version, status))
        };
        let runtime = match deps.env.timeout(RUNTIME_ANSWERS_WITHIN, asked).await {
            Some(answer) => answer,
            None => Err(format!("no answer within {} s", RUNTIME_ANSWERS_WITHIN.as_secs())),
        };
        if let Ok((version, status)) = &runtime {
            self.log_complaints(&deps.env, status);
            deps.node.borrow_mut().runtime.clone_from(&version.runtime_name);
            // A runtime that is busy for a while can still do what it could.
            if let Some(Ok(features)) =
                deps.env.timeout(RUNTIME_ANSWERS_WITHIN, deps.runtime.features()).await
            {
                deps.node.borrow_mut().features = Some(features);
            }
            runtime_driver::ask(deps).await;
        } else {
            // It may come back with another configuration.
            deps.node.borrow_mut().cgroup_driver = None;
        }
        if runtime.is_ok()
            && let Some(Ok(images)) =
                deps.env.timeout(RUNTIME_ANSWERS_WITHIN, deps.runtime.list_images()).await
        {
            self.images.replace(images);
        }
        let now = deps.now();
        let runtime = self.lately(runtime, now);
        let wall = deps.wall().to_string();
        let before = self.last.borrow().clone();
        let (shortages, shutting_down) = (deps.shortages.borrow().clone(), deps.shutting_down.get());
        let devices =
            deps.devices.borrow().as_ref().map(|report| report.resources.clone()).unwrap_or_default();
        let (features, cgroup_driver) = {
            let node = deps.node.borrow();
            (node.features.clone().unwrap_or_default(), node.cgroup_driver)
        };
        // The first report after a start goes on from what was reported before it.
        let known = before.as_ref().map(|(node, _)| node.clone()).or_else(|| deps.store.reported.node());
        let csi = deps.csi_volumes.borrow().clone().map(|CsiVolumes { drivers, in_use }| {
            let drivers = self.drivers.borrow().to_report(drivers, known.as_ref(), now);
            CsiVolumes { drivers, in_use }
        });
        let findings = Findings {
            machine: self.machine(),
            runtime,
            features,
            cgroup_driver,
            images: self.images.borrow().clone(),
            shortages,
            shutting_down,
            devices,
            csi,
            mqtt_broker: deps.mqtt_broker.borrow().clone(),
            checks: deps.checks.borrow().clone(),
        };
        let node = status::report(&deps.settings, &findings, known.as_ref(), &wall);
        let is_first = before.is_none();
        let fresh = before
            .is_some_and(|(old, at)| status::same(&old, &node) && now.since(at) < REPORT_UNCHANGED_AFTER);
        if fresh && !self.forced.get() {
            return;
        }
        match deps.report(&UpReport::Node { node_json: node.to_string() }).await {
            Ok(()) => {
                self.forced.set(false);
                // Behind the report: a node's first makes the Node that events are about.
                let mut told =
                    node_events::of_report(&deps.settings.node_name, known.as_ref(), &node, is_first);
                if is_first && !self.machine.borrow().has_cgroups {
                    told.push(node_events::no_cgroups(CGROUPS));
                }
                for event in told {
                    deps.node_event(event.kind, event.reason, &event.message);
                }
                let was_ready = self.is_ready();
                *self.last.borrow_mut() = Some((node, now));
                if self.is_ready() != was_ready {
                    events::node_readiness(&deps.env, !was_ready);
                }
            }
            Err(error) => events::report_not_kept(&deps.env, "node", &error),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_runtime_that_is_away_for_a_moment_is_told_as_it_was() {
        let node = NodeReporter::default();
        let at = |seconds: u64| Moment(Duration::from_secs(seconds));
        let answer = || (VersionResponse::default(), RuntimeStatus::default());
        let away = |now: Moment| node.lately(Err("away".to_owned()), now);
        assert_eq!(away(at(1)), Err("away".to_owned()));
        assert_eq!(node.lately(Ok(answer()), at(10)), Ok(answer()));
        assert_eq!(away(at(20)), Err("away".to_owned()), "the node was never ready");
        let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        node.last.replace(Some((ready, at(20))));
        assert_eq!(away(at(39)), Ok(answer()));
        assert_eq!(away(at(40)), Err("away".to_owned()));
    }
}
