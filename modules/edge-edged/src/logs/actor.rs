//! Looks after the logs of containers that run: an actor and a child of Edged's.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;

use beehive::{Actor, Capacity, Context, Fault, Message, Policy};
use cri::pods::{CONTAINER_NAME, POD_NAME, POD_NAMESPACE, POD_UID};
use cri::v1::{Container, ContainerFilter, ContainerState};
use serde_json::{Value, json};

use crate::dependencies::{Dependencies, blocking};
use crate::disk::layout;
use crate::disk::removal::in_turn;
use crate::error::StepError;
use crate::events;
use crate::logs::compression::Compression;
use crate::logs::files::{self, LogOf};
use crate::logs::plan;
use crate::pod::id::PodId;
use crate::pod::parsed_pod::is_path_safe;
use crate::runtime::sandbox::NODE;

/// Its name among Edged's children.
pub(crate) const LOG_MANAGER: &str = "log-manager";
/// A log that has so many times its size is looked at again at once: who writes so fast fills the disk between two looks.
const FAST: u64 = 2;
/// Links are put in order at every so many-th look.
const LINKS_EVERY: u32 = 6;

/// Messages to the log manager.
#[derive(Debug)]
pub(crate) enum LogManagerMsg {
    /// It is time to look which logs are too large.
    Rotate,
    /// All that were too large are rotated; `again`: one grows so fast that it is looked at again at once.
    Rotated { again: bool, failed: BTreeMap<String, String> },
}

impl Message for LogManagerMsg {
    fn name(&self) -> &'static str {
        match self {
            LogManagerMsg::Rotate => "Rotate",
            LogManagerMsg::Rotated { .. } => "Rotated",
        }
    }
}

/// Rotates logs that have become too large, and keeps the links to logs.
pub(crate) struct LogManager {
    deps: Rc<Dependencies>,
    looking: bool,
    looks: u32,
    /// What was said of logs that cannot be rotated, by the container.
    failed: BTreeMap<String, String>,
}

impl LogManager {
    pub(crate) fn new(deps: Rc<Dependencies>) -> LogManager {
        LogManager { deps, looking: false, looks: 0, failed: BTreeMap::new() }
    }

    /// It fails for itself alone, and is made anew for ever.
    pub(crate) fn policy() -> Policy {
        Policy {
            budget: usize::MAX,
            capacity: Capacity::new(4, "the timer's message and the end of one look"),
            ..Policy::default()
        }
    }
}

impl Actor for LogManager {
    type Message = LogManagerMsg;

    async fn started(&mut self, cx: &mut Context<LogManagerMsg>) -> Result<(), Fault> {
        cx.every(self.deps.settings.log_look_every, || LogManagerMsg::Rotate);
        Ok(())
    }

    async fn handle(&mut self, message: LogManagerMsg, cx: &mut Context<LogManagerMsg>) -> Result<(), Fault> {
        match message {
            LogManagerMsg::Rotate => self.look(cx),
            LogManagerMsg::Rotated { again, failed } => {
                self.looking = false;
                self.failed = failed;
                if again {
                    self.look(cx);
                }
            }
        }
        Ok(())
    }

    fn snapshot(&self) -> Value {
        json!({"looks": self.looks, "failed": self.failed})
    }
}

impl LogManager {
    /// Looks at all logs, beside the actor: how long that takes is the containers' choice.
    fn look(&mut self, cx: &Context<LogManagerMsg>) {
        if std::mem::replace(&mut self.looking, true) {
            return;
        }
        let with_links = self.looks.is_multiple_of(LINKS_EVERY);
        self.looks = self.looks.wrapping_add(1);
        let rotation = Rotation { deps: Rc::clone(&self.deps), said: std::mem::take(&mut self.failed) };
        let own = cx.myself();
        cx.spawn(async move {
            let (again, failed) = rotation.run(with_links).await;
            let _ = own.tell(LogManagerMsg::Rotated { again, failed }).await;
        });
    }
}

/// One look at all logs.
struct Rotation {
    deps: Rc<Dependencies>,
    said: BTreeMap<String, String>,
}

impl Rotation {
    /// Whether the next look is due at once, and what was said of logs that cannot be rotated.
    async fn run(self, with_links: bool) -> (bool, BTreeMap<String, String>) {
        let node = HashMap::from([(NODE.to_owned(), self.deps.settings.node_name.clone())]);
        let filter = ContainerFilter { label_selector: node, ..ContainerFilter::default() };
        // The PLEG warns of a runtime that does not answer.
        let Ok(all) = self.deps.runtime.list_containers(filter).await else { return (false, self.said) };
        let running = all.iter().filter(|own| own.state() == ContainerState::ContainerRunning);
        let logs: Vec<LogOf> = running.filter_map(log_of).collect();
        if with_links && let Err(error) = self.order_links(&logs).await {
            tracing::warn!(%error, "links to logs cannot be put in order");
        }
        let Some(max) = self.deps.settings.log_max_size else { return (false, BTreeMap::new()) };
        let (mut again, mut failed) = (false, BTreeMap::new());
        for log in &logs {
            match self.rotate(log, max).await {
                Ok(size) => again |= size >= max.saturating_mul(FAST),
                Err(error) => {
                    let text = error.to_string();
                    if self.said.get(&log.id) != Some(&text) {
                        events::log_not_rotated(&self.deps.env, log, &text);
                    }
                    failed.insert(log.id.clone(), text);
                }
            }
        }
        (again, failed)
    }

    async fn order_links(&self, running: &[LogOf]) -> Result<(), StepError> {
        let (links, logs) = (self.deps.settings.links.clone(), self.deps.settings.logs.clone());
        let running = running.to_vec();
        let order = move || {
            let mut kept = BTreeSet::new();
            for log in running {
                log.link(&links, &logs)?;
                kept.insert(layout::log_link(&log.pod, &log.container, &log.id));
            }
            files::remove_dangling(&links, &logs, &kept)
        };
        blocking(&self.deps.env, "put links in order in", order).await
    }

    /// Rotates a log that has reached `max` bytes; answers how large it was.
    async fn rotate(&self, log: &LogOf, max: u64) -> Result<u64, StepError> {
        let deps = &self.deps;
        let (logs, of) = (deps.settings.logs.clone(), log.clone());
        let look = move || {
            let Some(folder) = of.open(&logs)? else { return Ok(None) };
            let stat = folder.file_stat(of.file().as_ref())?;
            Ok(stat.map(|stat| u64::try_from(stat.st_size).unwrap_or(0)))
        };
        let size = blocking(&deps.env, "look at the log in", look).await?;
        let Some(size) = size else {
            // It was renamed, and then the power went, or the runtime.
            deps.runtime.reopen_log(&log.id).await?;
            return Ok(0);
        };
        if size < max {
            return Ok(size);
        }
        let (renamed, compress) = self.rename(log).await?;
        if let Err(error) = deps.runtime.reopen_log(&log.id).await {
            self.rename_back(log, renamed).await?;
            return Err(error.into());
        }
        events::log_rotated(&deps.env, log, size);
        for name in compress {
            self.compress(log, name).await?;
        }
        Ok(size)
    }

    /// Clears away what is too old, and renames the file that is written. Answers its name, and what is to be compressed. Who
    /// reads the renamed one may go on to its end: it stays as it is until the next time.
    async fn rename(&self, log: &LogOf) -> Result<(String, Vec<String>), StepError> {
        let settings = &self.deps.settings;
        let (logs, max, log) = (settings.logs.clone(), settings.log_max_files, log.clone());
        let now = self.deps.wall();
        let rename = move || {
            let missing = || StepError::file("open folder", &logs.join(log.folder()), &"it is gone");
            let folder = log.open(&logs)?.ok_or_else(missing)?;
            let file = log.file();
            let names = files::rotated(&folder, &file)?;
            let older = plan::older(&names, max);
            for name in &older.remove {
                folder.remove(name.as_ref())?;
            }
            let next = plan::next_name(&file, &names, now);
            folder.rename(&file, &next)?;
            Ok((next, older.compress))
        };
        in_turn(&self.deps.env, rename).await
    }

    /// The container still writes to the renamed file, so it gets its name back.
    async fn rename_back(&self, log: &LogOf, renamed: String) -> Result<(), StepError> {
        let (logs, log) = (self.deps.settings.logs.clone(), log.clone());
        let back = move || match log.open(&logs)? {
            Some(folder) if folder.kind(&log.file())?.is_none() => folder.rename(&renamed, &log.file()),
            Some(_) | None => Ok(()),
        };
        blocking(&self.deps.env, "rename a log in", back).await
    }

    async fn compress(&self, log: &LogOf, name: String) -> Result<(), StepError> {
        let (logs, log) = (self.deps.settings.logs.clone(), log.clone());
        let begin = move || match log.open(&logs)? {
            Some(folder) => Compression::begin(folder, &name),
            None => Ok(None),
        };
        let mut left = in_turn(&self.deps.env, begin).await?;
        while let Some(compression) = left {
            left = in_turn(&self.deps.env, move || compression.go_on()).await?;
        }
        Ok(())
    }
}

/// Where the log of a container of ours lies; `None` for one whose labels are none of ours.
pub(crate) fn log_of(container: &Container) -> Option<LogOf> {
    let label = |key: &str| container.labels.get(key).filter(|name| is_path_safe(name)).cloned();
    let pod = PodId { namespace: label(POD_NAMESPACE)?, name: label(POD_NAME)?, uid: label(POD_UID)? };
    let attempt = container.metadata.as_ref()?.attempt;
    Some(LogOf { pod, container: label(CONTAINER_NAME)?, attempt, id: container.id.clone() })
}
