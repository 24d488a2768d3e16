//! Says what volumes hold: an actor and a child of Edged's.
//!
//! A kubelet measures each pod's volumes once in `volumeStatsAggPeriod` and up to as long again, and answers with what it knows
//! (`pkg/kubelet/server/stats/volume_stat_calculator.go`). So it is here, but that nothing is measured while nobody asks: a node
//! whose figures nobody reads does not go through its disk for them.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use beehive::{Actor, Capacity, Context, Fault, Message, Policy, Reply};
use contract::volume_stats::VolumesOfPods;
use futures::future::join_all;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::book::Book;
use super::measure;
use crate::dependencies::Dependencies;

/// Its name among Edged's children.
pub(crate) const VOLUME_STATS: &str = "volume-stats";
/// 1 s for what was never measured; what takes longer is in a later answer.
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// Messages to it.
#[derive(Debug)]
pub(crate) enum VolumeStatsMsg {
    /// Somebody wants to know.
    Wanted(Reply<VolumesOfPods>),
}

impl Message for VolumeStatsMsg {
    fn name(&self) -> &'static str {
        match self {
            VolumeStatsMsg::Wanted(_) => "Wanted",
        }
    }
}

/// Says what volumes hold.
pub(crate) struct VolumeStatsKeeper {
    deps: Rc<Dependencies>,
    book: Rc<RefCell<Book>>,
}

impl VolumeStatsKeeper {
    pub(crate) fn new(deps: Rc<Dependencies>) -> VolumeStatsKeeper {
        VolumeStatsKeeper { deps, book: Rc::default() }
    }

    /// It fails for itself alone, and is made anew for ever.
    pub(crate) fn policy() -> Policy {
        Policy {
            budget: usize::MAX,
            capacity: Capacity::new(16, "as many agents as ask at once"),
            ..Policy::default()
        }
    }

    /// Begins to measure the pods whose time has come. Answers what is over once those are that were never measured.
    fn begin(&self, cx: &Context<VolumeStatsMsg>) -> Vec<oneshot::Receiver<()>> {
        let pods = self.deps.active_pods.borrow().clone();
        let uids: BTreeSet<String> = pods.iter().map(|pod| pod.id.uid.clone()).collect();
        self.book.borrow_mut().retain(&uids);
        let (now, every) = (self.deps.now(), self.deps.settings.volume_stats_every);
        let mut first = Vec::new();
        for pod in pods {
            let jitter =
                self.deps.env.random_below(u64::try_from(every.as_millis()).unwrap_or(u64::MAX).max(1));
            let next = now + every + Duration::from_millis(jitter);
            let Some(is_first) = self.book.borrow_mut().begin(&pod.id.uid, now, next) else { continue };
            let (over, is_over) = oneshot::channel();
            if is_first {
                first.push(is_over);
            }
            let (deps, book) = (Rc::clone(&self.deps), Rc::clone(&self.book));
            cx.spawn(async move {
                let all = measure::volumes_of(&deps, &pod).await;
                let uid = &pod.id.uid;
                let free = book.borrow_mut().volumes(uid, all);
                let measures = free.iter().map(async |of| {
                    let usage = measure::measure(&deps, uid, of).await;
                    book.borrow_mut().measured(uid, &of.volume, usage);
                });
                join_all(measures).await;
                // Nobody may wait any more.
                let _ = over.send(());
            });
        }
        first
    }
}

impl Actor for VolumeStatsKeeper {
    type Message = VolumeStatsMsg;

    async fn handle(
        &mut self,
        message: VolumeStatsMsg,
        cx: &mut Context<VolumeStatsMsg>,
    ) -> Result<(), Fault> {
        let VolumeStatsMsg::Wanted(reply) = message;
        if self.deps.settings.volume_stats_every.is_zero() {
            reply.send(VolumesOfPods::new());
            return Ok(());
        }
        let first = self.begin(cx);
        let (env, book) = (self.deps.env.clone(), Rc::clone(&self.book));
        cx.spawn(async move {
            if !first.is_empty() {
                let _ = env.timeout(FIRST_WAIT, join_all(first)).await;
            }
            reply.send(book.borrow().known());
        });
        Ok(())
    }

    fn snapshot(&self) -> Value {
        json!({"pods": self.book.borrow().known().len()})
    }
}
