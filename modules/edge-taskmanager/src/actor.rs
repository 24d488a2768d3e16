//! The node's TaskManager.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use beehive::{Actor, Address, Context, Env, Fault};
use contract::edged::EdgedMsg;
use contract::edgetaskmanager::{EdgeTaskMsg, UpgradeEnd};
use contract::metamanager::MetaMsg;
use contract::node_task::{self, TaskImage, TaskKind};
use cri::{Content, Runtime};
use edge_store::{Store, Write};
use futures::future::AbortHandle;

use crate::plan::{Order, Progress, Step};
use crate::task::{Task, Then, Upgrade, Work};
use crate::turns::{self, Place, PullTries};
use crate::upgrade::{self, Keadm, NodePrograms};
use crate::{checks, events, package, packages, settings, store};

/// 5 s before what the store did not take, or could not be read, is tried again.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Whether the node does parts of jobs, and with what.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Whether.
    pub enable: bool,
    /// What edgecore and its settings are exchanged with; `None`: nothing, as it is not known by which file this one was started.
    pub programs: Option<NodePrograms>,
}

/// Does the node's parts of jobs.
pub struct TaskManager {
    settings: Settings,
    store: Store,
    edged: Address<EdgedMsg>,
    meta: Address<MetaMsg>,
    runtime: Arc<dyn Runtime>,
    tasks: BTreeMap<String, (Task, Progress)>,
    /// The steps that are under way.
    busy: BTreeMap<Place, UnderWay>,
    /// Which part had a place last.
    last: BTreeMap<Place, String>,
    /// The pulls that are under way, or are tried again.
    tries: PullTries,
    /// The parts of which the store does not know how far they are.
    unkept: BTreeSet<String>,
    /// The store has to be read.
    is_stale: bool,
    /// Installation packages may lie there that nobody waits for.
    has_packages: bool,
    /// The parts whose step waits for something that was looked for since the last tick.
    looked: BTreeSet<String>,
    /// The parts for which keadm is to be begun, now that it is kept that it is.
    to_exchange: BTreeSet<String>,
}

/// A step that is under way.
struct UnderWay {
    /// The part's job.
    uid: String,
    /// What ends it where it stands.
    step: AbortHandle,
}

impl TaskManager {
    /// One over the jobs in `store`. `edged` must allow asking: it pulls images.
    pub fn new(
        settings: Settings,
        store: Store,
        edged: Address<EdgedMsg>,
        meta: Address<MetaMsg>,
        runtime: Arc<dyn Runtime>,
    ) -> Self {
        TaskManager {
            settings,
            store,
            edged,
            meta,
            runtime,
            tasks: BTreeMap::new(),
            busy: BTreeMap::new(),
            last: BTreeMap::new(),
            tries: PullTries::default(),
            unkept: BTreeSet::new(),
            is_stale: true,
            has_packages: true,
            looked: BTreeSet::new(),
            to_exchange: BTreeSet::new(),
        }
    }
}

impl Actor for TaskManager {
    type Message = EdgeTaskMsg;

    async fn started(&mut self, cx: &mut Context<EdgeTaskMsg>) -> Result<(), Fault> {
        cx.every(LOOK_EVERY, || EdgeTaskMsg::Tick);
        self.look(cx).await
    }

    async fn handle(&mut self, message: EdgeTaskMsg, cx: &mut Context<EdgeTaskMsg>) -> Result<(), Fault> {
        match message {
            EdgeTaskMsg::ObjectsChanged(_) => self.is_stale = true,
            EdgeTaskMsg::Checked { uid, outcome } => {
                self.ended(&uid, cx, |task, progress, time| progress.checked(task, outcome, time));
            }
            EdgeTaskMsg::Pulled { uid, image } => {
                if let Some(pause) = self.pause_of(&uid, &image, cx) {
                    // Others have the place meanwhile.
                    self.free(&uid);
                    cx.after(pause, EdgeTaskMsg::Tick);
                    return self.look(cx).await;
                }
                self.tries.forget(&uid);
                self.ended(&uid, cx, |task, progress, time| progress.pulled(task, image, time));
            }
            EdgeTaskMsg::Fetched { uid, outcome } => {
                self.ended(&uid, cx, |task, progress, time| progress.fetched(task, outcome, time));
            }
            EdgeTaskMsg::Examined { uid, outcome } => {
                self.ended(&uid, cx, |task, progress, time| progress.examined(task, outcome, time));
            }
            EdgeTaskMsg::Confirmed { uid } => {
                self.ended(&uid, cx, |task, progress, time| progress.confirmed(task, time));
            }
            EdgeTaskMsg::Marked { uid, journal } => {
                if self
                    .tasks
                    .get(&uid)
                    .is_some_and(|(task, progress)| progress.next(task) == Some(Step::Mark))
                {
                    self.to_exchange.insert(uid.clone());
                }
                self.ended(&uid, cx, |task, progress, _| progress.marked(task, journal));
            }
            EdgeTaskMsg::Exchanged { uid, end } => {
                self.ended(&uid, cx, |task, progress, _| progress.exchanged(task, *end));
            }
            EdgeTaskMsg::Waits { uid } => {
                self.free(&uid);
                self.looked.insert(uid);
            }
            EdgeTaskMsg::Tick => {
                let waits = !std::mem::take(&mut self.looked).is_empty() || !self.tries.is_empty();
                if !self.is_stale && self.unkept.is_empty() && !waits {
                    return Ok(());
                }
            }
        }
        self.look(cx).await
    }

    fn snapshot(&self) -> serde_json::Value {
        let phases: BTreeMap<&str, &str> =
            self.tasks.iter().map(|(uid, (_, progress))| (uid.as_str(), progress.phase.word())).collect();
        let at_work: BTreeSet<&str> = self.busy.values().map(|under_way| under_way.uid.as_str()).collect();
        serde_json::json!({"enabled": self.settings.enable, "parts": phases, "atWork": at_work})
    }
}

impl TaskManager {
    /// A step has ended.
    fn ended(
        &mut self,
        uid: &str,
        cx: &Context<EdgeTaskMsg>,
        change: impl FnOnce(&Task, &mut Progress, &str),
    ) {
        self.free(uid);
        // Of one that was given up meanwhile nobody wants to know.
        let Some((task, progress)) = self.tasks.get_mut(uid) else { return };
        let phase = progress.phase;
        change(task, progress, &rfc3339(cx.wall()));
        self.unkept.insert(uid.to_owned());
        if progress.phase != phase {
            self.has_packages |= task.kind == TaskKind::NodeUpgrade;
            events::moved(cx.env(), task, progress);
        }
    }

    /// The step of a part is not under way any more.
    fn free(&mut self, uid: &str) {
        self.busy.retain(|_, under_way| under_way.uid != uid);
    }

    /// Ends the step of a part where it stands: nobody wants its end.
    fn abort(&mut self, uid: &str) {
        for under_way in self.busy.values().filter(|under_way| under_way.uid == uid) {
            under_way.step.abort();
        }
        self.free(uid);
        self.tries.forget(uid);
        self.to_exchange.remove(uid);
        self.looked.remove(uid);
    }

    /// After which pause a pull that failed is tried again; `None`: it is not.
    fn pause_of(&mut self, uid: &str, image: &TaskImage, cx: &Context<EdgeTaskMsg>) -> Option<Duration> {
        let (task, progress) = self.tasks.get(uid)?;
        let is_next = progress.next(task) == Some(Step::Pull(image.image.clone()));
        let Then::Pull(pulls) = &task.work.as_ref().ok()?.then else { return None };
        if image.succeeded || !is_next {
            return None;
        }
        self.tries.failed(uid, pulls.retries, cx.now(), |pause| cx.env().jitter(pause))
    }

    /// Brings what is known in line with the store, keeps what has changed, and begins the next step.
    async fn look(&mut self, cx: &Context<EdgeTaskMsg>) -> Result<(), Fault> {
        if self.is_stale {
            self.read(cx).await?;
        }
        self.say_turns(cx);
        if self.keep(cx).await && !self.is_stale {
            self.forget_packages(cx).await?;
            self.begin(cx);
        }
        Ok(())
    }

    /// Removes the installation packages of parts that are over or gone: they are large. What fails now is done the next time.
    async fn forget_packages(&mut self, cx: &Context<EdgeTaskMsg>) -> Result<(), Fault> {
        let Some(programs) = self.settings.programs.clone() else { return Ok(()) };
        if !std::mem::take(&mut self.has_packages) {
            return Ok(());
        }
        let open = |(uid, (_, progress)): (&String, &(Task, Progress))| {
            (!progress.phase.is_final()).then(|| uid.clone())
        };
        let open: BTreeSet<String> = self.tasks.iter().filter_map(open).collect();
        if let Err(error) = cx.env().blocking(move || programs.keep_packages(&open)).await? {
            events::package_stays(cx.env(), &error);
            self.has_packages = true;
        }
        Ok(())
    }

    async fn read(&mut self, cx: &Context<EdgeTaskMsg>) -> Result<(), Fault> {
        let store = self.store.clone();
        let loaded = match cx.env().blocking(move || store::load(&store)).await? {
            Ok(loaded) => loaded,
            Err(error) => {
                events::not_kept(cx.env(), &Fault::from_error(&error).reason);
                return Ok(());
            }
        };
        let store::Loaded { tasks, mut kept } = loaded;
        let mut known = std::mem::take(&mut self.tasks);
        for (uid, task) in tasks {
            let before = match (known.remove(&uid), kept.remove(&uid)) {
                // What was not kept yet is newer.
                (Some((_, progress)), _) | (None, Some(progress)) => Some(progress),
                (None, None) => None,
            };
            let is_enabled = self.settings.enable;
            let progress = match &before {
                Some(before) => {
                    let is_begun = before.is_exchanging() && !self.to_exchange.contains(&uid);
                    before.clone().resumed(&task, is_enabled, is_begun)
                }
                None => Progress::begun(&task, is_enabled),
            };
            if before.as_ref() != Some(&progress) {
                self.has_packages |= task.kind == TaskKind::NodeUpgrade;
                self.abort(&uid);
                events::moved(cx.env(), &task, &progress);
                self.unkept.insert(uid.clone());
            }
            self.tasks.insert(uid, (task, progress));
        }
        // Whoever began to exchange edgecore says how that ended, also when the cloud has not waited for it.
        let to_exchange = &self.to_exchange;
        let is_begun = |uid: &String, (_, progress): &mut (Task, Progress)| {
            progress.is_exchanging() && !to_exchange.contains(uid)
        };
        for (uid, (task, progress)) in known.extract_if(.., is_begun) {
            kept.remove(&uid);
            self.tasks.insert(uid, (task, progress));
        }
        // Of jobs that are gone no step goes on: others wait for the place.
        let gone: BTreeSet<String> = kept.into_keys().chain(known.keys().cloned()).collect();
        for uid in &gone {
            if known.get(uid).is_some_and(|(_, progress)| !progress.phase.is_final()) {
                events::abandoned(cx.env(), uid);
            }
            self.abort(uid);
            self.unkept.remove(uid);
        }
        // Of which kind those were is not known any more.
        self.has_packages |= !gone.is_empty();
        let of = |uid: &String| [store::delete(uid), store::delete_confirmation(uid)];
        let writes: Vec<Write> = gone.iter().flat_map(of).collect();
        if !writes.is_empty()
            && let Err(error) = self.store.commit(writes).await
        {
            // The rows are found again at the next reading.
            events::not_kept(cx.env(), &Fault::from_error(&error).reason);
        }
        self.is_stale = false;
        Ok(())
    }

    /// Answers whether the store knows how far everything is.
    async fn keep(&mut self, cx: &Context<EdgeTaskMsg>) -> bool {
        let mut writes = Vec::new();
        for uid in &self.unkept {
            let Some((task, progress)) = self.tasks.get(uid) else { continue };
            match store::put(task, progress) {
                Ok(of_task) => writes.extend(of_task),
                Err(error) => events::not_kept(cx.env(), &error.to_string()),
            }
        }
        if writes.is_empty() {
            self.unkept.clear();
            return true;
        }
        match self.store.commit(writes).await {
            Ok(_) => {
                self.unkept.clear();
                // A full mailbox looks by itself.
                let _ = self.meta.try_tell(MetaMsg::OutboxGrew);
                true
            }
            Err(error) => {
                events::not_kept(cx.env(), &Fault::from_error(&error).reason);
                false
            }
        }
    }

    /// What is to be done of each part.
    fn steps(&self) -> BTreeMap<String, Step> {
        let steps =
            self.tasks.iter().filter_map(|(uid, (task, progress))| Some((uid.clone(), progress.next(task)?)));
        steps.collect()
    }

    /// Whether a part waits for something of its own.
    fn rests(&self, uid: &str, cx: &Context<EdgeTaskMsg>) -> bool {
        self.looked.contains(uid) || self.tries.rests(uid, cx.now())
    }

    /// Which part begins at each place that is free.
    fn turns(&self, steps: &BTreeMap<String, Step>, cx: &Context<EdgeTaskMsg>) -> Vec<(Place, String)> {
        let free = Place::ALL.into_iter().filter(|place| !self.busy.contains_key(place));
        free.filter_map(|place| {
            let last = self.last.get(&place).map(String::as_str);
            Some((place, turns::next(place, steps, last, |uid| self.rests(uid, cx))?))
        })
        .collect()
    }

    /// Says of each part whether it waits for its turn: the cloud counts no time of one that does.
    fn say_turns(&mut self, cx: &Context<EdgeTaskMsg>) {
        let steps = self.steps();
        let busy = self.busy.values().map(|under_way| under_way.uid.clone());
        let begin = self.turns(&steps, cx).into_iter().map(|(_, uid)| uid);
        let waiting = turns::waiting(&steps, &busy.chain(begin).collect(), |uid| self.rests(uid, cx));
        for (uid, (_, progress)) in &mut self.tasks {
            if progress.waits(waiting.contains(uid)) {
                self.unkept.insert(uid.clone());
            }
        }
    }

    /// Begins the next step at each place that is free.
    fn begin(&mut self, cx: &Context<EdgeTaskMsg>) {
        let steps = self.steps();
        for (place, uid) in self.turns(&steps, cx) {
            let Some(step) = steps.get(&uid) else { continue };
            self.begin_step(place, uid, step.clone(), cx);
        }
    }

    fn begin_step(&mut self, place: Place, uid: String, step: Step, cx: &Context<EdgeTaskMsg>) {
        let Some((task, progress)) = self.tasks.get(&uid) else { return };
        let Ok(work) = task.work.clone() else { return };
        let order = Ordered {
            mark: progress.mark.clone(),
            within: match &step {
                Step::Pull(image) => self.tries.begin(&uid, image, work.timeout, cx.now()),
                _ => work.timeout,
            },
            work,
            begins: self.to_exchange.remove(&uid),
        };
        let performer = Performer {
            edged: self.edged.clone(),
            runtime: Arc::clone(&self.runtime),
            store: self.store.clone(),
            programs: self.settings.programs.clone(),
            env: cx.env().clone(),
        };
        let (myself, of) = (cx.myself(), uid.clone());
        let step = cx.spawn(async move {
            let message = performer.perform(of, step, order).await;
            let _ = myself.tell(message).await;
        });
        self.last.insert(place, uid.clone());
        self.busy.insert(place, UnderWay { uid, step });
    }
}

/// A step as it is to be done.
struct Ordered {
    /// The part's mark.
    mark: String,
    /// How long it may take.
    within: Duration,
    work: Work,
    /// keadm was not begun yet.
    begins: bool,
}

/// What steps are done with.
struct Performer {
    edged: Address<EdgedMsg>,
    runtime: Arc<dyn Runtime>,
    store: Store,
    programs: Option<NodePrograms>,
    env: Env,
}

impl Performer {
    /// Does one step, and answers what became of it.
    async fn perform(&self, uid: String, step: Step, order: Ordered) -> EdgeTaskMsg {
        let Ordered { mark, within, work, begins } = order;
        match step {
            Step::Check(items) => {
                let outcome = checks::look(&self.env, &items).await;
                EdgeTaskMsg::Checked { uid, outcome }
            }
            Step::Pull(image) => {
                let outcome = match &work.then {
                    Then::Pull(pulls) => pull(&self.edged, &image, pulls.secret.clone(), within).await,
                    Then::Upgrade(_) | Then::Configure(_) => Err("a part of another kind".to_owned()),
                };
                let reason = outcome.err().map(|why| node_task::sentence(&why));
                let (succeeded, reason) = (reason.is_none(), reason.unwrap_or_default());
                EdgeTaskMsg::Pulled { uid, image: TaskImage { image, succeeded, reason } }
            }
            Step::Fetch(order) => {
                let outcome = self.fetch(&uid, &order, within).await;
                EdgeTaskMsg::Fetched { uid, outcome }
            }
            Step::Examine(fields) => {
                let Some(programs) = self.programs.clone() else {
                    return EdgeTaskMsg::Examined { uid, outcome: Err(NO_PROGRAMS.to_owned()) };
                };
                let examined = self.env.blocking(move || settings::examine(&programs, &fields)).await;
                let outcome = examined.unwrap_or_else(|fault| Err(fault.reason));
                EdgeTaskMsg::Examined { uid, outcome }
            }
            Step::AwaitConfirmation => {
                let (store, named) = (self.store.clone(), uid.clone());
                match self.env.blocking(move || store::is_confirmed(&store, &named, &mark)).await {
                    Ok(Ok(true)) => EdgeTaskMsg::Confirmed { uid },
                    // What cannot be read now is read with the next look.
                    Ok(Ok(false) | Err(_)) | Err(_) => EdgeTaskMsg::Waits { uid },
                }
            }
            Step::Mark => {
                let Some(programs) = self.programs.clone() else { return without_programs(uid) };
                match self.env.blocking(move || upgrade::mark_of(&programs)).await {
                    Ok(journal) => EdgeTaskMsg::Marked { uid, journal },
                    Err(_) => EdgeTaskMsg::Waits { uid },
                }
            }
            Step::Exchange(order, before) => {
                let Some(programs) = self.programs.clone() else { return without_programs(uid) };
                match self.exchange(programs, &uid, (order, before), within, begins).await {
                    Some(end) => EdgeTaskMsg::Exchanged { uid, end: Box::new(end) },
                    None => EdgeTaskMsg::Waits { uid },
                }
            }
        }
    }

    /// The installation package, in a file: its SHA-256.
    async fn fetch(&self, uid: &str, order: &Upgrade, within: Duration) -> Result<String, String> {
        let programs = self.programs.as_ref().ok_or(NO_PROGRAMS)?;
        // Before anything is pulled for it.
        let (folder, of) = (programs.packages(), uid.to_owned());
        let place = self.env.blocking(move || packages::make_place(&folder, &of)).await;
        let most = place.map_err(|fault| fault.reason)??;
        pull(&self.edged, &order.image, None, within).await?;
        let found = self.runtime.image_status(&order.image).await;
        let image = found.map_err(|error| Fault::from_error(&error).reason)?;
        let image = image.ok_or("the installation package is gone after the pull")?;
        let content = Content::new(&programs.runtime_endpoint);
        let content = content.map_err(|error| Fault::from_error(&error).reason)?;
        package::write(&content, &image.id, (&programs.package(uid), most), &self.env).await
    }

    async fn keadm(
        &self,
        programs: NodePrograms,
        uid: &str,
        order: Order,
        within: Duration,
    ) -> Result<(), String> {
        let uid = uid.to_owned();
        let begun = self.env.blocking(move || Keadm::begin(&programs, &uid, &order, within));
        begun.await.map_err(|fault| fault.reason)??.ended(&self.env).await
    }

    /// Has keadm do it, or sees how that has ended; `None`: it has not.
    async fn exchange(
        &self,
        programs: NodePrograms,
        uid: &str,
        (order, before): (Order, String),
        within: Duration,
        begins: bool,
    ) -> Option<UpgradeEnd> {
        // How keadm ends counts where it ends without a journal of its own.
        let came = if begins { Some(self.keadm(programs.clone(), uid, order, within).await) } else { None };
        let looked = self.env.blocking(move || upgrade::ended(&programs, &before)).await;
        match (looked.ok().flatten(), came) {
            (Some(end), Some(Err(why))) if end.actions.is_empty() => Some(upgrade::not_begun(&why)),
            (Some(end), Some(Ok(()))) if end.actions.is_empty() => Some(upgrade::already()),
            (end, _) => end,
        }
    }
}

/// Why this edgecore exchanges nothing.
const NO_PROGRAMS: &str = "this edgecore does not know by which file it was started: `keadm upgrade edge` and `keadm config-update` on the node do it";

fn without_programs(uid: String) -> EdgeTaskMsg {
    EdgeTaskMsg::Exchanged { uid, end: Box::new(upgrade::not_begun(NO_PROGRAMS)) }
}

/// Has Edged pull an image, once.
async fn pull(
    edged: &Address<EdgedMsg>,
    image: &str,
    secret: Option<String>,
    within: Duration,
) -> Result<(), String> {
    let ask = |reply| EdgedMsg::PullImage { image: image.to_owned(), secret, reply };
    match edged.ask(within, ask).await {
        Ok(pulled) => pulled,
        Err(error) => Err(format!("nobody knows whether it was pulled: {error}")),
    }
}

/// RFC 3339 in whole seconds.
fn rfc3339(now: SystemTime) -> String {
    let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let second = i64::try_from(since.as_secs()).unwrap_or_default();
    jiff::Timestamp::from_second(second).unwrap_or_default().to_string()
}
