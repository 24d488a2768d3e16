//! New pods that wait for their devices and CPUs: ContainerManager is asked, beside Edged, and until it has answered nothing of
//! such a pod is begun.

use std::collections::{BTreeMap, BTreeSet};

use contract::containermanager::Rejection;
use futures::future::AbortHandle;

use crate::pod::plan::Intent;

/// How far a pod is.
enum Standing {
    /// ContainerManager is asked.
    Asking(AbortHandle),
    Given,
    Rejected(Rejection),
}

/// What is to be done with a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Gate {
    /// It goes on, as what this says.
    Passes(Intent),
    /// ContainerManager has to be asked.
    Ask,
    /// It is being asked.
    Waits,
}

/// By the pods' uids.
#[derive(Default)]
pub(crate) struct ResourceAdmission(BTreeMap<String, Standing>);

impl ResourceAdmission {
    /// What is to be done with a pod that is to run and that asks for something.
    pub(crate) fn gate(&self, uid: &str) -> Gate {
        match self.0.get(uid) {
            None => Gate::Ask,
            Some(Standing::Asking(_)) => Gate::Waits,
            Some(Standing::Given) => Gate::Passes(Intent::Run),
            Some(Standing::Rejected(Rejection { reason, message })) => Gate::Passes(Intent::Fail {
                reason: reason.clone(),
                message: format!("Pod was rejected: {message}"),
            }),
        }
    }

    /// The task that asks for a pod.
    pub(crate) fn asking(&mut self, uid: &str, task: AbortHandle) {
        self.0.insert(uid.to_owned(), Standing::Asking(task));
    }

    /// The answer. One for a pod that is gone is passed over.
    pub(crate) fn decided(&mut self, uid: &str, outcome: Result<(), Rejection>) {
        if let Some(standing) = self.0.get_mut(uid) {
            *standing = match outcome {
                Ok(()) => Standing::Given,
                Err(rejection) => Standing::Rejected(rejection),
            };
        }
    }

    /// Forgets all pods but these, and asks for none of the others any more.
    pub(crate) fn retain(&mut self, wanted: &BTreeSet<String>) {
        self.0.retain(|uid, standing| {
            let stays = wanted.contains(uid);
            if let (false, Standing::Asking(task)) = (stays, standing) {
                task.abort();
            }
            stays
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_waits_for_its_answer_and_keeps_it() {
        let mut admission = ResourceAdmission::default();
        assert_eq!(admission.gate("a"), Gate::Ask);
        let (task, _registration) = AbortHandle::new_pair();
        admission.asking("a", task.clone());
        assert_eq!(admission.gate("a"), Gate::Waits);
        admission.decided("a", Ok(()));
        assert_eq!(admission.gate("a"), Gate::Passes(Intent::Run));
        let (other, _registration) = AbortHandle::new_pair();
        admission.asking("b", other.clone());
        let rejection = Rejection { reason: "UnexpectedAdmissionError".into(), message: "no".into() };
        admission.decided("b", Err(rejection));
        let failed = Intent::Fail {
            reason: "UnexpectedAdmissionError".into(),
            message: "Pod was rejected: no".into(),
        };
        assert_eq!(admission.gate("b"), Gate::Passes(failed));
        let (gone, _registration) = AbortHandle::new_pair();
        admission.asking("c", gone.clone());
        admission.retain(&BTreeSet::from(["a".to_owned()]));
        assert!(gone.is_aborted() && !task.is_aborted());
        admission.decided("c", Ok(()));
        assert_eq!(admission.gate("c"), Gate::Ask, "an answer for a pod that is gone");
    }
}
