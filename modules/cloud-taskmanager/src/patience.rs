//! How long nodes have said nothing new of their parts. No clock is compared with another one: each CloudCore counts for itself from when it
//! saw the last word, and begins anew when it is restarted. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use beehive::Moment;
use contract::NodeName;

use crate::job::{Heard, JobStatus};

/// Since when each part is as it is.
#[derive(Debug, Default)]
pub(crate) struct Patience {
    /// By the job's uid, and by the node: what was heard of it, and since when.
    since: BTreeMap<String, BTreeMap<NodeName, (Heard, Moment)>>,
}

impl Patience {
    /// The nodes of a job that have said nothing new for `timeout`, each with what was heard of it.
    pub(crate) fn silent(
        &mut self,
        uid: &str,
        status: &JobStatus,
        timeout: Duration,
        now: Moment,
    ) -> BTreeMap<NodeName, Heard> {
        let mut silent = BTreeMap::new();
        let before = self.since.remove(uid).unwrap_or_default();
        let mut since = BTreeMap::new();
        for (node, entry) in status.under_way() {
            let heard = entry.heard();
            let known = before.get(&node).filter(|known| known.0 == heard).copied();
            let known = known.unwrap_or((heard, now));
            if now.since(known.1) >= timeout {
                silent.insert(node.clone(), heard);
            }
            since.insert(node, known);
        }
        if !since.is_empty() {
            self.since.insert(uid.to_owned(), since);
        }
        silent
    }

    /// Forgets a job.
    pub(crate) fn forget(&mut self, uid: &str) {
        self.since.remove(uid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use beehive::Env;
    use contract::node_task::WAITS_FOR_TURN;
    use serde_json::json;

    #[test]
    fn the_time_counts_anew_with_each_action_and_each_turn() {
        let mut patience = Patience::default();
        let begin = Env::seeded(1).now();
        let after = |seconds| begin + Duration::from_secs(seconds);
        let timeout = Duration::from_secs(300);
        let status = |phase: &str, actions: usize| {
            let flow: Vec<_> = (0..actions).map(|_| json!({"action": "a", "status": "True"})).collect();
            JobStatus::of(&json!({"status": {"phase": "InProgress", "nodeStatus": [
                {"nodeName": "n", "phase": phase, "actionFlow": flow},
            ]}}))
        };
        let node = NodeName::parse("n").unwrap();
        let heard = |actions| Heard { actions, images: 0, waits: false };
        let mut silent = |status: &JobStatus, seconds| patience.silent("u", status, timeout, after(seconds));
        assert!(silent(&status("InProgress", 0), 0).is_empty());
        assert!(silent(&status("InProgress", 0), 299).is_empty());
        assert_eq!(silent(&status("InProgress", 0), 300), [(node.clone(), heard(0))].into());
        assert!(silent(&status("InProgress", 1), 301).is_empty());
        assert_eq!(silent(&status("InProgress", 1), 601), [(node, heard(1))].into());
        assert!(silent(&status("Unknown", 1), 602).is_empty());
        assert!(silent(&status("InProgress", 1), 603).is_empty(), "another turn");
        patience.forget("u");
        assert!(patience.since.is_empty());
    }

    #[test]
    fn the_time_of_what_waits_for_its_turn_begins_when_it_begins_and_with_each_image() {
        let mut patience = Patience::default();
        let begin = Env::seeded(1).now();
        let status = |reason: &str, images: usize| {
            let images: Vec<_> = (0..images).map(|_| json!({"image": "a", "status": "True"})).collect();
            JobStatus::of(&json!({"status": {"phase": "InProgress", "nodeStatus": [
                {"nodeName": "n", "phase": "InProgress", "reason": reason, "imageStatus": images},
            ]}}))
        };
        let mut is_silent = |status: &JobStatus, seconds| {
            let timeout = Duration::from_secs(20);
            !patience.silent("u", status, timeout, begin + Duration::from_secs(seconds)).is_empty()
        };
        assert!(!is_silent(&status(WAITS_FOR_TURN, 0), 0) && is_silent(&status(WAITS_FOR_TURN, 0), 25));
        assert!(!is_silent(&status("", 0), 26) && !is_silent(&status("", 0), 45), "from when it begins");
        assert!(is_silent(&status("", 0), 46) && !is_silent(&status("", 1), 47));
        assert!(!is_silent(&status("", 1), 66) && is_silent(&status("", 1), 67));
    }
}
