//! Whether a pod may run on this node. Pure.

use std::collections::BTreeMap;

use crate::pod::parsed_pod::ParsedPod;
use crate::pod::plan::Intent;
use crate::runtime::resources;
use crate::runtime::sysctls::Sysctls;

/// What the node has to give, and what is taken.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Capacity {
    pub(crate) pods: u64,
    pub(crate) cpu_milli: u64,
    pub(crate) memory: u64,
}

/// What is known of a pod from before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum History {
    /// Nothing.
    New,
    /// It was admitted here.
    Admitted,
    /// It has ended for good.
    Ended,
}

/// Takes the pods one after another, the ones that have started before first.
#[derive(Debug)]
pub(crate) struct Admission<'a> {
    left: Capacity,
    labels: &'a BTreeMap<String, String>,
    sysctls: &'a Sysctls,
}

impl<'a> Admission<'a> {
    pub(crate) fn new(room: Capacity, labels: &'a BTreeMap<String, String>, sysctls: &'a Sysctls) -> Self {
        Admission { left: room, labels, sysctls }
    }

    /// What is to become of a pod. One that was admitted before stays so.
    pub(crate) fn decide(&mut self, pod: &ParsedPod, history: History) -> Intent {
        if pod.is_terminating() {
            return Intent::Terminate;
        }
        if let Some(message) = pod.review.refused_message() {
            return Intent::Hold { reason: "FieldsNotSupported".to_owned(), message };
        }
        if history == History::Ended {
            return Intent::Run;
        }
        if history == History::New
            && let Some(refusal) = self.refusal(pod)
        {
            return refusal;
        }
        let (cpu, memory) = requests(pod);
        self.left.pods = self.left.pods.saturating_sub(1);
        self.left.cpu_milli = self.left.cpu_milli.saturating_sub(cpu);
        self.left.memory = self.left.memory.saturating_sub(memory);
        Intent::Run
    }

    fn refusal(&self, pod: &ParsedPod) -> Option<Intent> {
        let fail = |reason: &str, message: String| Some(Intent::Fail { reason: reason.to_owned(), message });
        if let Some(forbidden) = self.sysctls.refusal(pod.spec()) {
            return fail("SysctlForbidden", format!("Pod was rejected: {forbidden}"));
        }
        let selector = pod.spec().node_selector.iter().flatten();
        let unmet: Vec<String> = selector
            .filter(|(key, value)| self.labels.get(*key) != Some(*value))
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        if !unmet.is_empty() {
            let unmet = unmet.join(", ");
            return fail("NodeAffinity", format!("Pod was rejected: node does not have the labels {unmet}"));
        }
        let (cpu, memory) = requests(pod);
        let short = |what: &str, wanted: u64, left: u64| {
            format!(
                "Pod was rejected: Node didn't have enough resource: {what}, requested: {wanted}, left: {left}"
            )
        };
        if self.left.pods == 0 {
            return fail("OutOfpods", short("pods", 1, 0));
        }
        if cpu > self.left.cpu_milli {
            return fail("OutOfcpu", short("cpu", cpu, self.left.cpu_milli));
        }
        if memory > self.left.memory {
            return fail("OutOfmemory", short("memory", memory, self.left.memory));
        }
        None
    }
}

fn requests(pod: &ParsedPod) -> (u64, u64) {
    let (cpu, memory) = resources::requests(pod.spec());
    (u64::try_from(cpu).unwrap_or(0), u64::try_from(memory).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::parsed_pod::tests::pod;
    use serde_json::json;

    fn reason(intent: &Intent) -> &str {
        match intent {
            Intent::Fail { reason, .. } | Intent::Hold { reason, .. } => reason,
            Intent::Run => "Run",
            Intent::Terminate => "Leave",
        }
    }

    #[test]
    fn pods_are_taken_while_there_is_room() {
        let labels = BTreeMap::from([("zone".to_owned(), "a".to_owned())]);
        let sysctls = Sysctls::new(&[], "6.1.0");
        let room = Capacity { pods: 3, cpu_milli: 1000, memory: 1 << 30 };
        let mut admission = Admission::new(room, &labels, &sysctls);
        let asks = |cpu: &str| {
            pod(json!({"containers": [{"name": "c", "image": "x", "resources": {"requests": {"cpu": cpu}}}]}))
        };
        assert_eq!(reason(&admission.decide(&asks("600m"), History::New)), "Run");
        assert_eq!(reason(&admission.decide(&asks("600m"), History::New)), "OutOfcpu");
        assert_eq!(reason(&admission.decide(&asks("600m"), History::Admitted)), "Run");
        assert_eq!(
            reason(&admission.decide(&pod(json!({"nodeSelector": {"zone": "b"}})), History::New)),
            "NodeAffinity"
        );
        assert_eq!(
            reason(&admission.decide(&pod(json!({"nodeSelector": {"zone": "a"}})), History::New)),
            "Run"
        );
        assert_eq!(reason(&admission.decide(&pod(json!({})), History::New)), "OutOfpods");
        let unsafe_one =
            pod(json!({"securityContext": {"sysctls": [{"name": "kernel.shmmax", "value": "1"}]}}));
        match admission.decide(&unsafe_one, History::New) {
            Intent::Fail { reason, message } => assert_eq!(
                (reason.as_str(), message.as_str()),
                ("SysctlForbidden", "Pod was rejected: forbidden sysctl: \"kernel.shmmax\" not allowlisted")
            ),
            other => panic!("{other:?}"),
        }
        let refused = pod(json!({"hostUsers": false}));
        assert_eq!(reason(&admission.decide(&refused, History::Admitted)), "FieldsNotSupported");
    }
}
