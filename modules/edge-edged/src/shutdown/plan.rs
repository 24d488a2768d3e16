//! In which order pods end when the machine does, and how long each group has: the kubelet's
//! (`pkg/kubelet/nodeshutdown`). Pure.

use std::sync::Arc;
use std::time::Duration;

use config::edge::TailoredKubeletConfig;

use crate::pod::parsed_pod::{CRITICAL, ParsedPod};

/// What is said of a pod that has ended for it, beside [`TERMINATED`](crate::pod::end_reason::TERMINATED).
pub(crate) const WORDS: &str = "Pod was terminated in response to imminent node shutdown.";
/// Why a pod is not taken, and the words beside.
pub(crate) const REFUSED: (&str, &str) = ("NodeShutdown", "Pod was rejected as the node is shutting down.");

/// Pods of this priority and above, up to the next group's, and how long they have together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) priority: i32,
    pub(crate) period: Duration,
}

/// The groups, the lowest first; none: pods are not ended for that.
pub(crate) fn groups(kubelet: &TailoredKubeletConfig) -> Vec<Group> {
    let given = &kubelet.shutdown_grace_period_by_pod_priority;
    let mut groups: Vec<Group> = given
        .iter()
        .map(|given| Group {
            priority: given.priority,
            period: Duration::from_secs(u64::from(given.shutdown_grace_period_seconds)),
        })
        .collect();
    let (total, critical) = (kubelet.shutdown_grace_period.0, kubelet.shutdown_grace_period_critical_pods.0);
    if groups.is_empty() && !total.is_zero() {
        groups = vec![
            Group { priority: 0, period: total.saturating_sub(critical) },
            Group { priority: CRITICAL, period: critical },
        ];
    }
    groups.sort_by_key(|group| group.priority);
    groups
}

/// How long all of them take at the most.
pub(crate) fn total(groups: &[Group]) -> Duration {
    groups.iter().map(|group| group.period).sum()
}

/// The pods of each group, in the order in which the groups end.
pub(crate) fn assign(groups: &[Group], pods: &[Arc<ParsedPod>]) -> Vec<(Group, Vec<Arc<ParsedPod>>)> {
    let mut assigned: Vec<(Group, Vec<Arc<ParsedPod>>)> =
        groups.iter().map(|group| (*group, Vec::new())).collect();
    for pod in pods {
        let priority = pod.spec().priority.unwrap_or_default();
        // Below all of them it is the lowest's.
        let at = groups.iter().rposition(|group| group.priority <= priority).unwrap_or(0);
        if let Some((_, own)) = assigned.get_mut(at) {
            own.push(Arc::clone(pod));
        }
    }
    assigned
}

/// Whether it is to be said that logind cannot be reached. Not while the machine ends, and not when a connection has just broken off: the
/// bus that begins anew takes another one, and one that goes with the machine needs none.
#[derive(Debug, Default)]
pub(crate) struct Silence {
    said: String,
}

impl Silence {
    /// A try has come to nothing, and `why`. `was_heard`: logind waited for the node until then; `ends`: the machine is about to.
    pub(crate) fn is_news(&mut self, why: &str, was_heard: bool, ends: bool) -> bool {
        if was_heard || ends {
            // What comes next is another silence.
            self.said.clear();
            return false;
        }
        if self.said == why {
            return false;
        }
        why.clone_into(&mut self.said);
        true
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::pod::parsed_pod::tests::pod;

    fn of(text: &str) -> Vec<Group> {
        let document = config::yaml_document(text).unwrap();
        let mut kubelet = serde_json::to_value(TailoredKubeletConfig::default()).unwrap();
        for (key, value) in document.as_object().unwrap() {
            kubelet[key] = value.clone();
        }
        groups(&serde_json::from_value(kubelet).unwrap())
    }

    fn seconds(groups: &[Group]) -> Vec<(i32, u64)> {
        groups.iter().map(|group| (group.priority, group.period.as_secs())).collect()
    }

    #[test]
    fn two_periods_make_two_groups_and_a_list_as_many_as_it_has() {
        assert!(of("{}").is_empty());
        let two = of("{shutdownGracePeriod: 30s, shutdownGracePeriodCriticalPods: 10s}");
        assert_eq!((seconds(&two), total(&two).as_secs()), (vec![(0, 20), (CRITICAL, 10)], 30));
        let list = of(
            "shutdownGracePeriodByPodPriority: [{priority: 100, shutdownGracePeriodSeconds: 7}, {priority: -5, shutdownGracePeriodSeconds: 3}]",
        );
        assert_eq!(seconds(&list), [(-5, 3), (100, 7)]);
    }

    #[test]
    fn a_bus_that_goes_with_the_machine_or_begins_anew_is_no_fault_and_one_that_stays_away_is_said_once() {
        let mut silence = Silence::default();
        let (eof, gone) = ("unexpected end of file", "No such file or directory");
        assert!(!silence.is_news(eof, true, false), "it was there a moment ago");
        assert!(silence.is_news(gone, false, false) && !silence.is_news(gone, false, false));
        assert!(silence.is_news("Permission denied", false, false), "another reason");
        assert!(!silence.is_news(eof, true, true) && !silence.is_news(gone, false, true), "the machine ends");
        assert!(
            !silence.is_news(eof, true, false) && silence.is_news("Permission denied", false, false),
            "anew"
        );
    }

    #[test]
    fn a_pod_ends_with_the_highest_group_that_its_priority_reaches() {
        let with = |priority: serde_json::Value| Arc::new(pod(json!({"priority": priority})));
        let pods =
            [with(json!(null)), with(json!(-9)), with(json!(150)), with(json!(CRITICAL)), with(json!(99))];
        let groups = [(0, 1), (100, 1), (CRITICAL, 1)]
            .map(|(priority, period)| Group { priority, period: Duration::from_secs(period) });
        let counts: Vec<usize> = assign(&groups, &pods).iter().map(|(_, own)| own.len()).collect();
        assert_eq!(counts, [3, 1, 1]);
    }
}
