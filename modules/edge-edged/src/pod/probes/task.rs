//! One probe of one container: a task of the pod's worker, which hears of it only when what the probe says changes.

use std::rc::Rc;
use std::time::Duration;

use beehive::Address;
use futures::future::{Either, select};
use k8s_openapi::api::core::v1::{Container, Probe};
use tokio::sync::watch;

use crate::dependencies::Dependencies;
use crate::pod::id::PodId;
use crate::pod::message::PodWorkerMsg;
use crate::pod::parsed_pod::ParsedPod;
use crate::pod::probes::counters::ProbeCounters;
use crate::pod::probes::plan::{ProbeKind, ProbePlan, Step, Target, Timing, Verdict};
use crate::pod::recorder::{About, EventType};
use crate::prober::{Answer, Check, PodDialer, Tried};

/// A check that comes to an error is made so often at once (Kubernetes: `maxProbeRetries`).
const TRIES: usize = 3;

/// What the task has.
pub(crate) struct ProbeTask {
    pod: PodId,
    /// How events name the container.
    field_path: String,
    kind: ProbeKind,
    timing: Timing,
    check: Check,
    counters: ProbeCounters,
    deps: Rc<Dependencies>,
    worker: Address<PodWorkerMsg>,
}

impl ProbeTask {
    pub(crate) fn new(
        pod: &ParsedPod,
        container: &Container,
        kind: ProbeKind,
        probe: &Probe,
        deps: &Rc<Dependencies>,
        worker: Address<PodWorkerMsg>,
    ) -> ProbeTask {
        ProbeTask {
            pod: pod.id.clone(),
            field_path: pod.field_path(&container.name),
            kind,
            timing: Timing::of(probe),
            check: Check::of(probe, container),
            counters: ProbeCounters::new(deps.env.metrics(), &pod.id, &container.name, kind),
            deps: Rc::clone(deps),
            worker,
        }
    }

    /// Probes until the worker ends.
    pub(crate) async fn run(self, mut target: watch::Receiver<Target>) {
        let period = u64::try_from(self.timing.period.as_millis()).unwrap_or(u64::MAX);
        let spread = Duration::from_millis(self.deps.env.random_below(period));
        let mut plan = ProbePlan::new(self.kind, self.timing, spread, self.deps.now());
        // Of this container.
        let mut said: Option<(String, Verdict)> = None;
        loop {
            let step = plan.next(&target.borrow_and_update(), self.deps.now());
            match step {
                Step::Probe => {
                    let now = target.borrow().clone();
                    // Most of the time nobody probes, and nothing is held for it.
                    let begun = self.deps.now();
                    let tried = Box::pin(self.try_check(&now)).await;
                    self.counters.made(&tried, self.deps.now().since(begun));
                    if self.kind != ProbeKind::Readiness && target.borrow().ending {
                        continue;
                    }
                    let Some(outcome) = self.outcome(tried) else { continue };
                    let Some(verdict) = plan.probed(&now.id, outcome) else { continue };
                    let says = (now.id, verdict);
                    if said.as_ref() != Some(&says) {
                        said = Some(says.clone());
                        let (id, verdict) = says;
                        let message = PodWorkerMsg::Probed { id, kind: self.kind, verdict };
                        if self.worker.tell(message).await.is_err() {
                            return;
                        }
                    }
                }
                Step::Until(at) => {
                    let pause = self.deps.env.sleep(at.since(self.deps.now()));
                    let changed = std::pin::pin!(target.changed());
                    if let Either::Right((Err(_), _)) = select(pause, changed).await {
                        return;
                    }
                }
                Step::Wait => {
                    if target.changed().await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// Says what is to be said of a check. `None`: it found nothing out.
    fn outcome(&self, tried: Tried) -> Option<Verdict> {
        let word = self.kind.word();
        match tried {
            Ok(Answer::Success) => Some(Verdict::Success),
            Ok(Answer::Warning(text)) => {
                self.event("ProbeWarning", &format!("{word} probe warning: {text}"));
                Some(Verdict::Success)
            }
            Ok(Answer::Failure(text)) => {
                self.event("Unhealthy", &format!("{word} probe failed: {text}"));
                Some(Verdict::Failure)
            }
            Err(error) => {
                let text =
                    format!("{word} probe errored and resulted in {} state: {}", error.state, error.why);
                self.event("Unhealthy", &text);
                None
            }
        }
    }

    async fn try_check(&self, target: &Target) -> Tried {
        let mut tried = Err(String::new().into());
        for _ in 0..TRIES {
            let (env, runtime) = (&self.deps.env, &self.deps.runtime);
            let dialer = PodDialer { lookups: &self.deps.lookups, namespace: &self.pod.namespace };
            tried =
                self.check.make((env, dialer), runtime, &target.id, &target.ip, self.timing.timeout).await;
            if tried.is_ok() {
                break;
            }
        }
        tried
    }

    fn event(&self, reason: &str, text: &str) {
        let about = About { pod: &self.pod, field_path: &self.field_path };
        self.deps.event_of(&about, EventType::Warning, reason, text);
    }
}
