//! Watches what the node has left, and acts when it is too little: an actor and a child of Edged's.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;
use std::time::Duration;

use beehive::{Actor, Capacity, Context, Fault, Message, Moment, Policy};
use contract::edged::EdgedMsg;
use contract::edgepage::ResourceView;
use contract::pod_status::is_terminal;
use cri::pods::POD_UID;
use cri::v1::{Container, ContainerFilter, ContainerState, PodSandboxFilter};
use serde_json::{Value, json};

use super::limits;
use super::measure::{self, Observation};
use super::plan::{self, Bound, Decision, Thresholds};
use super::rank;
use super::shortage::{self, Shortage};
use crate::dependencies::{Dependencies, blocking};
use crate::disk::beneath::Folder;
use crate::disk::layout;
use crate::events;
use crate::eviction::pressure::EVICTED;
use crate::images::collector;
use crate::logs::actor::log_of;
use crate::pod::id::PodId;
use crate::pod::recorder::EventType;
use crate::runtime::sandbox::NODE;
use crate::said_lately::SAID_AGAIN_AFTER;

/// Its name among Edged's children.
pub(crate) const EVICTION_MANAGER: &str = "eviction-manager";
/// Of a pod that goes for a hard bound, and the least of any.
const GRACE_MIN: Duration = Duration::from_secs(1);
/// How often it is looked whether a pod that was evicted has gone, and how often at the most.
const CLEANUP_POLL: Duration = Duration::from_secs(1);
const CLEANUP_POLLS: u32 = 30;

/// Messages to the eviction manager.
#[derive(Debug)]
pub(crate) enum EvictionMsg {
    /// It is time to measure what the node has left.
    Measure,
    /// What was measured.
    Observed { observation: Box<Observation> },
    /// What the pods have on the disk was counted; `evicted`: those that used more than they may were told to go.
    Counted { evicted: Vec<String> },
    /// What had to be done is done; `evicted`: a pod has to go, and it is measured again at once.
    Acted { evicted: Option<String> },
}

impl Message for EvictionMsg {
    fn name(&self) -> &'static str {
        match self {
            EvictionMsg::Measure => "Measure",
            EvictionMsg::Observed { .. } => "Observed",
            EvictionMsg::Counted { .. } => "Counted",
            EvictionMsg::Acted { .. } => "Acted",
        }
    }
}

/// Watches what the node has left.
pub(crate) struct EvictionManager {
    deps: Rc<Dependencies>,
    thresholds: Thresholds,
    /// When the log said what the node is short of.
    told: Moment,
    looking: bool,
    /// What pods have on the disk is being counted, which may take minutes: no look waits for it.
    counting: bool,
    /// Pods that were told to go.
    evicted: BTreeSet<String>,
}

impl EvictionManager {
    pub(crate) fn new(deps: Rc<Dependencies>) -> EvictionManager {
        let (thresholds, told, evicted) = (Thresholds::default(), deps.now(), BTreeSet::new());
        EvictionManager { deps, thresholds, told, looking: false, counting: false, evicted }
    }

    /// It fails for itself alone, and is made anew for ever.
    pub(crate) fn policy() -> Policy {
        Policy {
            budget: usize::MAX,
            capacity: Capacity::new(4, "the timer's message and the ends of one look and one count"),
            ..Policy::default()
        }
    }

    fn look(&mut self, cx: &Context<EvictionMsg>) {
        if std::mem::replace(&mut self.looking, true) {
            return;
        }
        let active: BTreeSet<String> =
            self.deps.active_pods.borrow().iter().map(|pod| pod.id.uid.clone()).collect();
        self.evicted.retain(|uid| active.contains(uid));
        let (deps, own) = (Rc::clone(&self.deps), cx.myself());
        cx.spawn(async move {
            let observation = Box::new(measure::observe(&deps).await);
            let _ = own.tell(EvictionMsg::Observed { observation }).await;
        });
    }

    /// Counts beside the looks what pods have on the disk: one at a time.
    fn count(&mut self, own_imagefs: bool, cx: &Context<EvictionMsg>) {
        if std::mem::replace(&mut self.counting, true) {
            return;
        }
        let (deps, own, gone) = (Rc::clone(&self.deps), cx.myself(), self.evicted.clone());
        cx.spawn(async move {
            let evicted = evict_over_limits(&deps, own_imagefs, &gone).await;
            let _ = own.tell(EvictionMsg::Counted { evicted }).await;
        });
    }

    /// The Node says by its conditions what there is too little of; the log says it when that is something else, and now and then.
    fn tell(&mut self, shortages: &[Shortage]) {
        let (deps, now) = (Rc::clone(&self.deps), self.deps.now());
        let before = deps.shortages.replace(Some(shortages.to_vec())).unwrap_or_default();
        let lasts = !shortages.is_empty() && now.since(self.told) >= SAID_AGAIN_AFTER;
        if lasts || shortage::is_another(&before, shortages) {
            self.told = now;
            let words = shortage::words(shortages);
            events::shortages_changed(&deps.env, (!words.is_empty()).then_some(words.as_str()));
        }
        if before != shortages {
            // A full mailbox: the next tick of Edged's reports it.
            let _ = deps.edged.try_tell(EdgedMsg::ReportNode);
        }
    }

    fn observed(&mut self, observation: Observation, cx: &Context<EvictionMsg>) {
        self.count(observation.own_imagefs, cx);
        let measured = observation.observed.iter().map(|own| ResourceView {
            signal: own.signal.name(),
            available: own.available,
            capacity: own.capacity,
        });
        self.deps.measured.replace(measured.collect());
        let settings = &self.deps.settings.eviction_rules;
        let now = self.deps.now();
        let decision =
            self.thresholds.look(&settings.bounds, &observation.observed, settings.transition, now);
        self.tell(&decision.shortages);
        let Some(bound) = decision.act else {
            self.looking = false;
            return;
        };
        let (deps, own, gone) = (Rc::clone(&self.deps), cx.myself(), self.evicted.clone());
        cx.spawn(async move {
            let evicted = act(&deps, bound, &decision, &observation, &gone).await;
            let _ = own.tell(EvictionMsg::Acted { evicted }).await;
        });
    }
}

impl Actor for EvictionManager {
    type Message = EvictionMsg;

    async fn started(&mut self, cx: &mut Context<EvictionMsg>) -> Result<(), Fault> {
        cx.every(self.deps.settings.eviction_rules.every, || EvictionMsg::Measure);
        self.look(cx);
        Ok(())
    }

    async fn handle(&mut self, message: EvictionMsg, cx: &mut Context<EvictionMsg>) -> Result<(), Fault> {
        match message {
            EvictionMsg::Measure => self.look(cx),
            EvictionMsg::Observed { observation } => self.observed(*observation, cx),
            EvictionMsg::Counted { evicted } => {
                self.counting = false;
                self.evicted.extend(evicted);
            }
            EvictionMsg::Acted { evicted } => {
                self.looking = false;
                if let Some(uid) = evicted {
                    self.evicted.insert(uid);
                    self.look(cx);
                }
            }
        }
        Ok(())
    }

    fn snapshot(&self) -> Value {
        json!({"shortages": self.deps.shortages.borrow().as_ref().map(shortage::words), "evicted": self.evicted})
    }
}

/// Has those go that use more of the disk than they may. Answers their uids.
async fn evict_over_limits(
    deps: &Rc<Dependencies>,
    own_imagefs: bool,
    gone: &BTreeSet<String>,
) -> Vec<String> {
    let mut evicted = Vec::new();
    for (pod, words) in measure::over_limits(deps, own_imagefs).await {
        if pod.is_critical() || gone.contains(&pod.id.uid) {
            continue;
        }
        deps.counts.evicted(limits::signal(&words));
        evict(deps, &pod.id, &words, GRACE_MIN).await;
        evicted.push(pod.id.uid.clone());
    }
    evicted
}

async fn evict(deps: &Rc<Dependencies>, pod: &PodId, message: &str, grace: Duration) {
    events::pod_evicted(&deps.env, pod, message);
    let order =
        || EdgedMsg::EvictPod { uid: pod.uid.clone(), reason: EVICTED, message: message.to_owned(), grace };
    deps.edged.tell_with_retry(&deps.env, order).await;
}

/// Makes room, or has a pod go. Answers its uid when it has gone, or enough time has passed for that.
async fn act(
    deps: &Rc<Dependencies>,
    bound: Bound,
    decision: &Decision,
    observation: &Observation,
    gone: &BTreeSet<String>,
) -> Option<String> {
    let resource = bound.signal.resource();
    deps.node_event(EventType::Warning, "EvictionThresholdMet", &format!("Attempting to reclaim {resource}"));
    let rules = &deps.settings.eviction_rules;
    if bound.signal.is_reclaimed_from_images(observation.own_imagefs) {
        remove_dead(deps).await;
        if let Err(error) = collector::remove_unused(deps).await
            && deps.is_news("unused images", &error)
        {
            events::unused_images_stay(&deps.env, &error);
        }
        if plan::is_resolved(&rules.bounds, &measure::observe(deps).await.observed) {
            return None;
        }
    }
    // What is not known gives no order in which pods would go: a kubelet, too, waits for the next look.
    let mut candidates = measure::pods(deps, bound.signal.is_of_disk()).await?;
    candidates.retain(|(pod, _)| !pod.is_critical() && !gone.contains(&pod.id.uid));
    let pods: BTreeMap<String, _> = candidates.iter().map(|(pod, _)| (pod.id.uid.clone(), pod)).collect();
    let uses = candidates.iter().map(|(_, used)| used.clone()).collect();
    let first = rank::ranked(uses, bound.signal, observation.own_imagefs).into_iter().next()?;
    let pod = pods.get(&first.uid)?;
    let message =
        plan::low_on(&bound, &decision.met, &observation.observed) + &rank::offenders(&first, bound.signal);
    let longest = if bound.is_hard() { Duration::ZERO } else { rules.max_grace.min(pod.grace()) };
    let grace = longest.max(GRACE_MIN);
    deps.counts.evicted(bound.signal.name());
    evict(deps, &pod.id, &message, grace).await;
    wait_until_gone(deps, &first.uid).await;
    Some(first.uid)
}

/// What the pod took is measured as free only when it has gone, and what it left behind (kubelet's `PodResourcesAreReclaimed`).
async fn wait_until_gone(deps: &Rc<Dependencies>, uid: &str) {
    for _ in 0..CLEANUP_POLLS {
        let by_uid = HashMap::from([(POD_UID.to_owned(), uid.to_owned())]);
        let filter = PodSandboxFilter { label_selector: by_uid, ..PodSandboxFilter::default() };
        let has_ended = deps.runtime.list_sandboxes(filter).await.is_ok_and(|left| left.is_empty());
        if has_ended && !has_volumes(deps, uid).await {
            return;
        }
        deps.env.sleep(CLEANUP_POLL).await;
    }
}

async fn has_volumes(deps: &Rc<Dependencies>, uid: &str) -> bool {
    let (root, at) = (deps.settings.root.clone(), layout::pod(uid).join("volumes"));
    let look = move || match Folder::find_root(&root)? {
        Some(root) => {
            Ok(root.find(&at)?.is_some_and(|volumes| volumes.names(1).is_ok_and(|left| !left.is_empty())))
        }
        None => Ok(false),
    };
    blocking(&deps.env, "look for the volumes of", look).await.unwrap_or(false)
}

/// Removes dead instances: all of pods that have ended, and those before the newest of others, by which it is known whether
/// a container starts again.
async fn remove_dead(deps: &Rc<Dependencies>) {
    let node = HashMap::from([(NODE.to_owned(), deps.settings.node_name.clone())]);
    let filter = ContainerFilter { label_selector: node, ..ContainerFilter::default() };
    let Ok(all) = deps.runtime.list_containers(filter).await else { return };
    let mut newest: BTreeMap<(String, String), u32> = BTreeMap::new();
    let logs: Vec<_> = all.iter().filter_map(|own| Some((own, log_of(own)?))).collect();
    for (_, log) in &logs {
        let newest = newest.entry((log.pod.uid.clone(), log.container.clone())).or_default();
        *newest = log.attempt.max(*newest);
    }
    let is_dead = |own: &Container| own.state() == ContainerState::ContainerExited;
    for (own, log) in logs {
        let is_newest = newest.get(&(log.pod.uid.clone(), log.container.clone())) == Some(&log.attempt);
        let status = deps.store.reported.of(&log.pod.uid).status;
        let ended = status.is_some_and(|status| status.phase.as_deref().is_some_and(is_terminal));
        if !is_dead(own) || is_newest && !ended || deps.runtime.remove_container(&own.id).await.is_err() {
            continue;
        }
        let (links, folder) = (deps.settings.links.clone(), deps.settings.logs.clone());
        if let Err(error) =
            blocking(&deps.env, "remove the log in", move || log.remove(&links, &folder)).await
        {
            tracing::warn!(%error, "log of a container that is gone stays");
        }
    }
}
