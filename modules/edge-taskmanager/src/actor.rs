//! The node's TaskManager.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use beehive::{Actor, Address, Context, Fault};
use contract::edged::EdgedMsg;
use contract::edgetaskmanager::EdgeTaskMsg;
use contract::metamanager::MetaMsg;
use contract::node_task::{self, TaskImage};
use edge_store::{Store, Write};

use crate::plan::{Progress, Step};
use crate::task::{Pulls, Task};
use crate::{checks, events, store};

/// 5 s before what the store did not take, or could not be read, is tried again.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// 2 s before a pull is tried again, doubled at each time.
const PULL_AGAIN: Duration = Duration::from_secs(2);

/// Whether the node does parts of jobs.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Whether.
    pub enable: bool,
}

/// Does the node's parts of jobs.
pub struct TaskManager {
    settings: Settings,
    store: Store,
    edged: Address<EdgedMsg>,
    meta: Address<MetaMsg>,
    tasks: BTreeMap<String, (Task, Progress)>,
    /// Of which part a step is under way.
    busy: Option<String>,
    /// The parts of which the store does not know how far they are.
    unkept: BTreeSet<String>,
    /// The store has to be read.
    is_stale: bool,
}

impl TaskManager {
    /// One over the jobs in `store`. `edged` must allow asking: it pulls images.
    pub fn new(settings: Settings, store: Store, edged: Address<EdgedMsg>, meta: Address<MetaMsg>) -> Self {
        TaskManager {
            settings,
            store,
            edged,
            meta,
            tasks: BTreeMap::new(),
            busy: None,
            unkept: BTreeSet::new(),
            is_stale: true,
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
                self.ended(&uid, cx, |_, progress, time| progress.checked(outcome, time));
            }
            EdgeTaskMsg::Pulled { uid, image } => {
                self.ended(&uid, cx, |task, progress, time| progress.pulled(task, image, time));
            }
            EdgeTaskMsg::Tick if !self.is_stale && self.unkept.is_empty() => return Ok(()),
            EdgeTaskMsg::Tick => {}
        }
        self.look(cx).await
    }

    fn snapshot(&self) -> serde_json::Value {
        let phases: BTreeMap<&str, &str> =
            self.tasks.iter().map(|(uid, (_, progress))| (uid.as_str(), progress.phase.word())).collect();
        serde_json::json!({"enabled": self.settings.enable, "parts": phases, "atWork": self.busy})
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
        if self.busy.as_deref() == Some(uid) {
            self.busy = None;
        }
        // Of one that was given up meanwhile nobody wants to know.
        let Some((task, progress)) = self.tasks.get_mut(uid) else { return };
        let phase = progress.phase;
        change(task, progress, &rfc3339(cx.wall()));
        self.unkept.insert(uid.to_owned());
        if progress.phase != phase {
            events::moved(cx.env(), task, progress);
        }
    }

    /// Brings what is known in line with the store, keeps what has changed, and begins the next step.
    async fn look(&mut self, cx: &Context<EdgeTaskMsg>) -> Result<(), Fault> {
        if self.is_stale {
            self.read(cx).await?;
        }
        if self.keep(cx).await && !self.is_stale {
            self.begin(cx);
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
            let progress = match (known.remove(&uid), kept.remove(&uid)) {
                // What was not kept yet is newer.
                (Some((_, progress)), _) | (None, Some(progress)) => progress,
                (None, None) => {
                    let progress = Progress::begun(&task, self.settings.enable);
                    events::moved(cx.env(), &task, &progress);
                    self.unkept.insert(uid.clone());
                    progress
                }
            };
            self.tasks.insert(uid, (task, progress));
        }
        // Of jobs that are gone: the step that is under way ends for nobody.
        let gone: BTreeSet<String> = kept.into_keys().chain(known.keys().cloned()).collect();
        for uid in &gone {
            if known.get(uid).is_some_and(|(_, progress)| !progress.phase.is_final()) {
                events::abandoned(cx.env(), uid);
            }
            self.unkept.remove(uid);
        }
        let writes: Vec<Write> = gone.iter().map(|uid| store::delete(uid)).collect();
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

    /// Begins the next step of the first part that has one, unless one is under way.
    fn begin(&mut self, cx: &Context<EdgeTaskMsg>) {
        if self.busy.is_some() {
            return;
        }
        let next = self
            .tasks
            .values()
            .find_map(|(task, progress)| Some((task, progress.next(task)?, task.work.as_ref().ok()?)));
        let Some((task, step, pulls)) = next else { return };
        let (uid, env, myself) = (task.uid.clone(), cx.env().clone(), cx.myself());
        self.busy = Some(uid.clone());
        match step {
            Step::Check(items) => {
                cx.spawn(async move {
                    let outcome = checks::look(&env, &items).await;
                    let _ = myself.tell(EdgeTaskMsg::Checked { uid, outcome }).await;
                });
            }
            Step::Pull(image) => {
                let (edged, pulls) = (self.edged.clone(), pulls.clone());
                cx.spawn(async move {
                    let outcome = pull(&edged, &image, &pulls, &env).await;
                    let reason = outcome.err().map(|why| node_task::sentence(&why));
                    let (succeeded, reason) = (reason.is_none(), reason.unwrap_or_default());
                    let image = TaskImage { image, succeeded, reason };
                    let _ = myself.tell(EdgeTaskMsg::Pulled { uid, image }).await;
                });
            }
        }
    }
}

/// Has Edged pull an image, and again as often as the job allows, within the time that an action has.
async fn pull(
    edged: &Address<EdgedMsg>,
    image: &str,
    pulls: &Pulls,
    env: &beehive::Env,
) -> Result<(), String> {
    let ends = env.now() + pulls.timeout;
    let mut pause = PULL_AGAIN;
    let mut tries = 0;
    loop {
        let within = ends.since(env.now());
        let ask =
            |reply| EdgedMsg::PullImage { image: image.to_owned(), secret: pulls.secret.clone(), reply };
        let why = match edged.ask(within, ask).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(why)) => why,
            Err(error) => format!("nobody knows whether it was pulled: {error}"),
        };
        if tries == pulls.retries || env.now() + pause >= ends {
            return Err(why);
        }
        tries += 1;
        env.sleep(env.jitter(pause)).await;
        pause *= 2;
    }
}

/// RFC 3339 in whole seconds.
fn rfc3339(now: SystemTime) -> String {
    let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let second = i64::try_from(since.as_secs()).unwrap_or_default();
    jiff::Timestamp::from_second(second).unwrap_or_default().to_string()
}
