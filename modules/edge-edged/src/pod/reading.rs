//! Reading what the runtime has of a pod: when, and what is made of it.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use beehive::{Context, Moment};

use crate::pod::message::{PodWorkerMsg, StatusRead};
use crate::pod::runtime_status::Reading;
use crate::pod::worker::{PodWorker, RUNTIME_RETRY};
use crate::runtime::pods::RuntimePod;

/// The runtime tells of an end before its own records show it: when to read it again.
const REREAD_AFTER: [Duration; 6] = [
    Duration::from_millis(15),
    Duration::from_millis(60),
    Duration::from_millis(250),
    Duration::from_millis(1000),
    Duration::from_millis(3000),
    Duration::from_millis(8000),
];
/// So many of these stay when an end has been seen: the runtime may have told of another one, which its records do not show yet.
const LATE_LOOKS: usize = 2;

impl PodWorker {
    /// Whether the runtime is being read.
    pub(crate) fn is_reading(&self) -> bool {
        matches!(self.reading, Reading::UnderWay)
    }

    /// The runtime may have changed: it is read now, and again.
    pub(crate) fn runtime_changed(&mut self) {
        let now = self.deps.now();
        self.stale = true;
        self.reread = REREAD_AFTER.iter().map(|pause| now + *pause).collect();
    }

    /// Reads the runtime's status when it may have changed and nobody reads it.
    pub(crate) fn read_status(&mut self, now: Moment, cx: &Context<PodWorkerMsg>) {
        if !self.stale || self.read_again_at.is_some_and(|at| at > now) {
            return;
        }
        let mut reader = match std::mem::replace(&mut self.reading, Reading::UnderWay) {
            Reading::Idle(reader) => reader,
            Reading::UnderWay => return,
        };
        // What changes while it is read makes it stale again.
        self.stale = false;
        self.read_again_at = None;
        let (deps, id, worker) = (Rc::clone(&self.deps), self.update.pod.id.clone(), cx.myself());
        // Only the first reading of an incarnation finds some.
        let settled = self.effects.settled();
        let is_first = !std::mem::replace(&mut self.has_read, true);
        cx.spawn(async move {
            if is_first {
                settled.await;
            }
            let result = reader.read(&deps, &id).await;
            let read = Box::new(StatusRead { reader, result });
            // A worker that is gone needs no answer.
            let _ = worker.tell(PodWorkerMsg::StatusRead(read)).await;
        });
    }

    pub(crate) fn status_read(&mut self, read: StatusRead) {
        let StatusRead { reader, result } = read;
        self.reading = Reading::Idle(reader);
        let now = self.deps.now();
        let id = &self.update.pod.id;
        let seen = match result {
            Ok(seen) => seen,
            Err(error) => {
                self.stale = true;
                self.read_again_at = Some(now + RUNTIME_RETRY);
                // The PLEG warns of it, once for all pods.
                tracing::debug!(pod = %id.name, %error, "runtime cannot be asked about a pod");
                return;
            }
        };
        take_off(&mut self.reread, &ended_of(&self.seen), &ended_of(&seen));
        self.state.observe(&seen, now);
        let mut probes = std::mem::take(&mut self.state.probes);
        probes.observe(&seen, self.state.known_status(&self.update.pod));
        self.state.probes = probes;
        let sandboxes = seen.sandboxes.iter().map(|sandbox| sandbox.id.clone());
        let ids = sandboxes.chain(seen.containers.iter().map(|container| container.id.clone()));
        self.deps.ids.set(&id.uid, ids.collect());
        self.seen = seen;
    }
}

/// What the runtime told of has arrived in its records. That something which ended before has been removed says nothing of it.
fn take_off(reread: &mut Vec<Moment>, before: &BTreeSet<&str>, now: &BTreeSet<&str>) {
    if !now.is_subset(before) {
        let early = reread.len().saturating_sub(LATE_LOOKS);
        reread.drain(..early);
    }
}

/// What has come to its end.
fn ended_of(seen: &RuntimePod) -> BTreeSet<&str> {
    let containers = seen.containers.iter().filter(|container| container.state.has_ended());
    let sandboxes = seen.sandboxes.iter().filter(|sandbox| !sandbox.ready);
    containers
        .map(|container| container.id.as_str())
        .chain(sandboxes.map(|sandbox| sandbox.id.as_str()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_that_was_told_is_looked_for_until_it_is_seen_whatever_is_removed_meanwhile() {
        let all: Vec<Moment> = REREAD_AFTER.iter().map(|pause| Moment::default() + *pause).collect();
        let left = |before: &[&'static str], now: &[&'static str]| {
            let mut reread = all.clone();
            let of = |ids: &[&'static str]| ids.iter().copied().collect::<BTreeSet<&str>>();
            take_off(&mut reread, &of(before), &of(now));
            reread
        };
        // Of the boot before, and removed as an init container ends.
        assert_eq!(left(&["old", "older"], &["old"]), all);
        assert_eq!(left(&["old"], &["old"]), all);
        assert_eq!(left(&["old", "older"], &["old", "init"]), all[all.len() - LATE_LOOKS..]);
    }
}
