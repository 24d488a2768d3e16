//! A controller as an actor: when it reconciles, and what a restart of it means.

use std::rc::Rc;
use std::time::Duration;

use beehive::{Actor, Capacity, Context, Fault, Message, Moment, Policy, Sample};
use futures::future::AbortHandle;
use serde_json::{Value, json};

use super::ControllerContext;
use super::informer::{InformerMsg, Lister};
use crate::events;

/// 5 ms: the changes of one `kubectl apply` are reconciled together.
const BATCH_PAUSE: Duration = Duration::from_millis(5);
/// To reconcile thousands of objects takes its time; it is followed by a pause of this many times that, so that changes that
/// never end leave the thread to others, and 1 s at the most.
const PAUSE_TIMES: u32 = 9;
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// 30 s that a controller which begins anew waits for the requests of its predecessor: the server answers them or is gone.
const ANSWERED_WITHIN: Duration = Duration::from_secs(30);
/// 10 minutes for one pass over all objects, with all its requests.
const STUCK_AFTER: Duration = Duration::from_secs(600);

/// Brings the objects of one kind to their desired state, by what the informer caches hold now (level-triggered): whatever it
/// missed, it sees the next time.
pub(super) trait Reconciler: 'static {
    /// The caches that it reads; a change of any of them is told to it.
    fn listers(&self) -> Vec<Rc<Lister>>;
    /// Does what is missing, and answers when to reconcile again if nothing changes.
    async fn reconcile(&mut self) -> Option<Duration>;
    /// How many objects wait to be tried again.
    fn backing_off(&self) -> usize;
}

/// Messages to a controller.
#[derive(Debug)]
pub(super) enum ControllerMsg {
    /// A cache that it reads has changed.
    Changed,
    /// It is time to reconcile: from itself.
    Reconcile,
}

impl Message for ControllerMsg {
    fn name(&self) -> &'static str {
        match self {
            ControllerMsg::Changed => "Changed",
            ControllerMsg::Reconcile => "Reconcile",
        }
    }
}

/// A controller. It keeps nothing across its restart: what it has written and not seen come back is found by waiting for the answers
/// of its requests, and then for lists that began after them.
pub(super) struct Controller<R> {
    reconciler: R,
    context: Rc<ControllerContext>,
    is_restart: bool,
    /// Its caches, and the number of the list that each of them has to have.
    reads: Vec<(Rc<Lister>, u64)>,
    timer: Option<(Moment, AbortHandle)>,
    not_before: Moment,
    passes: u64,
    last_pass: Duration,
}

impl<R: Reconciler> Controller<R> {
    pub(super) fn new(reconciler: R, context: Rc<ControllerContext>, is_restart: bool) -> Self {
        let reads = reconciler.listers().into_iter().map(|lister| (lister, 0)).collect();
        Controller {
            reconciler,
            context,
            is_restart,
            reads,
            timer: None,
            not_before: Moment::default(),
            passes: 0,
            last_pass: Duration::ZERO,
        }
    }

    /// How controllers are supervised.
    pub(super) fn policy() -> Policy {
        let capacity = Capacity::new(2, "one change says it all, and its own timer");
        Policy { capacity, stuck_after: STUCK_AFTER, ..super::policy() }
    }

    fn is_ready(&self) -> bool {
        self.reads.iter().all(|(lister, number)| lister.cache().has_listed(*number))
    }

    /// Reconciles at `at`, or when it was going to anyway before that.
    fn schedule(&mut self, at: Moment, cx: &mut Context<ControllerMsg>) {
        let at = at.max(self.not_before);
        match &self.timer {
            Some((due, _)) if *due <= at => return,
            Some((_, timer)) => timer.abort(),
            None => {}
        }
        let timer = cx.after(at.since(cx.now()), ControllerMsg::Reconcile);
        self.timer = Some((at, timer));
    }

    async fn reconcile(&mut self, cx: &mut Context<ControllerMsg>) {
        self.timer = None;
        if !self.is_ready() {
            // The end of the list is told as a change.
            return;
        }
        let begun = cx.now();
        let next = self.reconciler.reconcile().await;
        let now = cx.now();
        self.passes += 1;
        self.last_pass = now.since(begun);
        self.not_before = now + (PAUSE_TIMES * self.last_pass).clamp(BATCH_PAUSE, PAUSE_MAX);
        if let Some(pause) = next {
            self.schedule(now + pause, cx);
        }
    }
}

impl<R: Reconciler> Actor for Controller<R> {
    type Message = ControllerMsg;

    async fn started(&mut self, cx: &mut Context<ControllerMsg>) -> Result<(), Fault> {
        if self.is_restart {
            if cx.env().timeout(ANSWERED_WITHIN, self.context.in_flight.idle()).await.is_none() {
                events::requests_unanswered(cx.env(), self.context.name);
            }
            for (lister, number) in &mut self.reads {
                *number = lister.cache().want_list();
                cx.spawn_tell(lister.informer(), InformerMsg::List);
            }
        }
        self.schedule(cx.now(), cx);
        Ok(())
    }

    async fn handle(&mut self, message: ControllerMsg, cx: &mut Context<ControllerMsg>) -> Result<(), Fault> {
        match message {
            ControllerMsg::Changed => self.schedule(cx.now() + BATCH_PAUSE, cx),
            ControllerMsg::Reconcile => self.reconcile(cx).await,
        }
        Ok(())
    }

    fn snapshot(&self) -> Value {
        json!({
            "ready": self.is_ready(), "passes": self.passes, "backingOff": self.reconciler.backing_off(),
        })
    }

    fn samples(&self) -> Vec<Sample> {
        let name = || self.context.name.to_owned();
        let backing_off = u32::try_from(self.reconciler.backing_off()).unwrap_or(u32::MAX);
        vec![
            Sample::new("kubehive_apiserver_controller_backing_off", f64::from(backing_off))
                .of("controller", name()),
            Sample::new("kubehive_apiserver_controller_pass_seconds", self.last_pass.as_secs_f64())
                .of("controller", name()),
        ]
    }
}
