//! Panics of actors: planned by lot, few enough that no actor spends its restart budget, and read at the end.

use std::collections::BTreeMap;

use beehive::Ended;
use beehive::testing::{PanicPoint, TASK, plan_panic, plan_task_panic};
use rand::Rng;

use crate::actors::{ACTORS, ActorKind, ActorMessage, Daemon};
use crate::fault::Fault;
use crate::run::{PanicPlan, Run};
use crate::violations::note;
use crate::world::Process;

/// Half of what an actor's restart budget allows in five minutes; a run is hardly longer.
const PANICS_MAX: usize = 5;

impl Run {
    /// An actor panics at one of the next messages of a kind, while it begins anew, or in a task.
    pub(crate) fn plan_a_panic(&mut self) {
        let kind = ACTORS[self.random.random_range(0..ACTORS.len())];
        let process = self.some_process(kind.daemon);
        let Some(inspector) = self.world.inspector(process) else { return };
        let planned = |plan: &&PanicPlan| plan.process == process && plan.actor == kind.name;
        if self.plans.iter().filter(planned).count() >= PANICS_MAX {
            return;
        }
        let awaits = self.random.random_range(0..=2);
        let panic = if self.random.random_range(0..5) == 0 {
            plan_task_panic(&inspector, kind.name, awaits)
        } else {
            let point = self.some_point(&kind, awaits);
            plan_panic(&inspector, kind.name, point)
        };
        self.say(format!("a panic of {} of {process:?} is planned", kind.name));
        self.plans.push(PanicPlan { process, actor: kind.name, panic });
    }

    fn some_point(&mut self, kind: &ActorKind, awaits: u32) -> PanicPoint {
        let names = kind.messages.len();
        match self.random.random_range(0..names + 2) {
            // Rare messages are named; whatever comes next is what a daemon does all the time.
            number if number < names => {
                let nth = self.random.random_range(1..=2);
                PanicPoint { message: Some(kind.messages[number]), nth, awaits }
            }
            number if number == names => PanicPoint { message: Some("started"), nth: 1, awaits },
            _ => PanicPoint { message: None, nth: self.random.random_range(1..=8), awaits },
        }
    }

    fn some_process(&mut self, daemon: Daemon) -> Process {
        match daemon {
            Daemon::Cloud => Process::Cloud(self.random.random_range(0..self.world.clouds.len())),
            Daemon::Edge => Process::Node(self.random.random_range(0..self.world.nodes.len())),
        }
    }

    /// A daemon is told to stop, and one of its actors panics on the way: it ends all the same, and so do the others.
    pub(crate) async fn panic_while_stopping(&mut self) -> bool {
        let tops: Vec<ActorKind> = ACTORS.into_iter().filter(|kind| kind.is_top).collect();
        let kind = tops[self.random.random_range(0..tops.len())];
        let process = self.some_process(kind.daemon);
        let Some(inspector) = self.world.inspector(process) else { return false };
        let message = [Some("stopping"), None][self.random.random_range(0..2)];
        let panic = plan_panic(&inspector, kind.name, PanicPoint { message, nth: 1, awaits: 0 });
        self.say(format!("{process:?} is stopped, and {} panics at {message:?}", kind.name));
        let ended = self.world.stop(process).await;
        let name = kind.name.to_owned();
        match ended {
            Some(Ended::Late(late)) if panic.has_happened() && late.contains(&name) => {
                let what = format!("{name} of {process:?} panicked while it stopped, and did not end");
                note(&self.world.violations, what);
            }
            _ => {}
        }
        self.stay_away().await;
        self.world.start(process).await;
        panic.has_happened()
    }

    /// Which actor has panicked at what, and how often.
    pub(crate) fn panics(&self) -> BTreeMap<ActorMessage, usize> {
        let mut panics = BTreeMap::new();
        for plan in &self.plans {
            if let Some(at) = plan.panic.happened_at() {
                *panics.entry((plan.actor, at)).or_default() += 1;
            }
        }
        panics
    }

    /// Counts them as faults.
    pub(crate) fn count_panics(&mut self) {
        for ((_, at), times) in self.panics() {
            self.struck(if at == TASK { Fault::TaskPanicked } else { Fault::ActorPanicked }, times);
        }
    }
}
