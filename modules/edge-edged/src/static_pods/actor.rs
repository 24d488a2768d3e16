//! Looks at the files of static pods: an actor and a child of Edged's, which is told when other pods should run.

use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use beehive::{Actor, Capacity, Context, Fault, Message, Moment, Policy};
use contract::edged::EdgedMsg;
use serde_json::{Value, json};

use crate::dependencies::Dependencies;
use crate::events;
use crate::pod::recorder::EventType;
use crate::static_pods::folder;
use crate::static_pods::source::FileRead;
use crate::static_pods::watch::Watch;

/// Its name among Edged's children.
pub(crate) const STATIC_PODS: &str = "static-pods";

/// Messages to it.
#[derive(Debug)]
pub(crate) enum StaticPodsMsg {
    /// Something has changed, or it is time to read the files again.
    Read,
}

impl Message for StaticPodsMsg {
    fn name(&self) -> &'static str {
        match self {
            StaticPodsMsg::Read => "Read",
        }
    }
}

/// See the module.
pub(crate) struct StaticPodsSource {
    deps: Rc<Dependencies>,
    watch: Option<Arc<Watch>>,
    /// Why nothing can be said of the files, as it was said last.
    fault: Option<String>,
}

impl StaticPodsSource {
    pub(crate) fn new(deps: Rc<Dependencies>) -> Self {
        StaticPodsSource { deps, watch: None, fault: None }
    }

    /// It fails for itself alone, and is made anew for ever.
    pub(crate) fn policy() -> Policy {
        Policy {
            budget: usize::MAX,
            capacity: Capacity::new(2, "a look that is due and one more"),
            ..Policy::default()
        }
    }
}

impl Actor for StaticPodsSource {
    type Message = StaticPodsMsg;

    async fn started(&mut self, cx: &mut Context<StaticPodsMsg>) -> Result<(), Fault> {
        cx.every(self.deps.settings.static_look_every, || StaticPodsMsg::Read);
        match Watch::new() {
            Ok(watch) => {
                let watch = Arc::new(watch);
                self.watch = Some(Arc::clone(&watch));
                let own = cx.myself();
                cx.spawn(async move {
                    // Where the kernel tells no more the timer goes on. A full mailbox holds a look already.
                    while watch.changed().await.is_ok() {
                        let _ = own.try_tell(StaticPodsMsg::Read);
                    }
                });
            }
            Err(error) => events::static_pods_unwatched(&self.deps.env, &error),
        }
        self.look(cx).await;
        Ok(())
    }

    async fn handle(&mut self, message: StaticPodsMsg, cx: &mut Context<StaticPodsMsg>) -> Result<(), Fault> {
        match message {
            StaticPodsMsg::Read => self.look(cx).await,
        }
        Ok(())
    }

    fn snapshot(&self) -> Value {
        let pods = self.deps.static_pods.borrow();
        json!({"pods": pods.pods().count(), "faults": pods.faults(), "unreadable": self.fault})
    }
}

impl StaticPodsSource {
    async fn look(&mut self, cx: &Context<StaticPodsMsg>) {
        let Some(path) = &self.deps.settings.static_pods else { return };
        // Before it is read: what changes while it is read is heard of.
        if let Some(watch) = &self.watch {
            // One that is not there yet is found at a later look.
            let _ = watch.add(path);
        }
        let fault = match look(&self.deps).await {
            Ok(again) => {
                if let Some(at) = again {
                    cx.after(at.since(cx.now()), StaticPodsMsg::Read);
                }
                None
            }
            Err(why) => Some(why),
        };
        if let Some(why) = fault.as_ref().filter(|why| self.fault.as_ref() != Some(why)) {
            events::static_pods_unreadable(&self.deps.env, why);
            self.deps.node_event(EventType::Warning, "FailedValidation", why);
        }
        self.fault = fault;
    }
}

/// Looks at the files, says what is wrong with them, and tells Edged when other pods should run. Without a path there are none. Answers
/// when to look again.
///
/// # Errors
/// When nothing can be said of the files: the pods stay as they are.
pub(crate) async fn look(deps: &Rc<Dependencies>) -> Result<Option<Moment>, String> {
    let found = match deps.settings.static_pods.clone() {
        Some(path) => {
            let (node, prints) = (deps.settings.node_name.clone(), deps.static_pods.borrow().prints());
            let seen = jiff::Timestamp::try_from(deps.env.wall()).unwrap_or_default().to_string();
            // A file may be as large as a kubelet takes, and reading it takes as long as that.
            let read = move || {
                let each = |file: &Path, content| {
                    FileRead::new(file, content, prints.get(file).copied(), (node.as_str(), seen.as_str()))
                };
                folder::read(&path, each)
            };
            deps.env.blocking(read).await.map_err(|error| error.to_string()).flatten()?
        }
        None => Default::default(),
    };
    let looked = deps.static_pods.borrow_mut().look(found, deps.now());
    for (file, why) in looked.faults {
        let text = format!("static pod file {}: {why}", file.display());
        events::static_pod_refused(&deps.env, &text);
        deps.node_event(EventType::Warning, "FailedValidation", &text);
    }
    if looked.changed {
        // A full mailbox holds a reason to look already.
        let _ = deps.edged.try_tell(EdgedMsg::Reconcile);
    }
    Ok(looked.again)
}
