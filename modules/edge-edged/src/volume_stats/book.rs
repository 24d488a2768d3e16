//! What was measured last, and when again. Pure.

use std::collections::{BTreeMap, BTreeSet};

use beehive::Moment;
use contract::volume_stats::{VolumeStats, VolumeUsage, VolumesOfPods};

use super::plan::Measured;

/// The figures of all pods.
#[derive(Debug, Default)]
pub(crate) struct Book {
    pods: BTreeMap<String, PodFigures>,
}

#[derive(Debug, Default)]
struct PodFigures {
    /// Not before then again; `None`: it was never measured.
    next: Option<Moment>,
    volumes: BTreeMap<String, Figures>,
}

#[derive(Debug)]
struct Figures {
    of: Measured,
    /// `None`: it has no figures, or none any more.
    usage: Option<VolumeUsage>,
    /// Somebody measures it, and nobody else does meanwhile: what does not answer is asked once.
    is_measured: bool,
}

impl Book {
    /// Forgets all pods but these.
    pub(crate) fn retain(&mut self, uids: &BTreeSet<String>) {
        self.pods.retain(|uid, _| uids.contains(uid));
    }

    /// Whether a pod's turn has come; its next one is at `next` then. Answers whether it is its first.
    pub(crate) fn begin(&mut self, uid: &str, now: Moment, next: Moment) -> Option<bool> {
        let pod = self.pods.entry(uid.to_owned()).or_default();
        if pod.next.is_some_and(|next| now < next) {
            return None;
        }
        Some(pod.next.replace(next).is_none())
    }

    /// Takes down which volumes a pod has. Answers those that nobody measures already.
    pub(crate) fn volumes(&mut self, uid: &str, all: Vec<Measured>) -> Vec<Measured> {
        let Some(pod) = self.pods.get_mut(uid) else { return Vec::new() };
        pod.volumes.retain(|name, _| all.iter().any(|own| own.volume == *name));
        let mut free = Vec::new();
        for of in all {
            let figures = pod.volumes.entry(of.volume.clone()).or_insert_with(|| Figures {
                of: of.clone(),
                usage: None,
                is_measured: false,
            });
            figures.of = of.clone();
            if !std::mem::replace(&mut figures.is_measured, true) {
                free.push(of);
            }
        }
        free
    }

    /// Takes down what a volume holds.
    pub(crate) fn measured(&mut self, uid: &str, volume: &str, usage: Option<VolumeUsage>) {
        if let Some(figures) = self.pods.get_mut(uid).and_then(|pod| pod.volumes.get_mut(volume)) {
            figures.usage = usage;
            figures.is_measured = false;
        }
    }

    /// What is known.
    pub(crate) fn known(&self) -> VolumesOfPods {
        let stats = |figures: &Figures| {
            Some(VolumeStats {
                name: figures.of.volume.clone(),
                claim: figures.of.claim.clone(),
                is_ephemeral: figures.of.is_ephemeral,
                usage: figures.usage?,
            })
        };
        let of_pod = |pod: &PodFigures| pod.volumes.values().filter_map(stats).collect();
        self.pods.iter().map(|(uid, pod)| (uid.clone(), of_pod(pod))).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::Duration;

    use super::*;
    use crate::volume_stats::plan::How;

    fn volume(name: &str) -> Measured {
        let how = How::Counted(PathBuf::from(name));
        Measured { volume: name.to_owned(), claim: None, is_ephemeral: true, how }
    }

    fn used(bytes: u64) -> Option<VolumeUsage> {
        Some(VolumeUsage { used: bytes, ..VolumeUsage::default() })
    }

    #[test]
    fn a_pod_is_measured_once_in_its_time_and_a_volume_by_one_at_a_time() {
        let mut book = Book::default();
        let now = beehive::Env::seeded(1).now();
        let next = now + Duration::from_secs(90);
        assert_eq!(book.begin("u", now, next), Some(true));
        assert_eq!(book.begin("u", now + Duration::from_secs(89), next), None);
        assert_eq!(book.volumes("u", vec![volume("a"), volume("stuck")]).len(), 2);
        book.measured("u", "a", used(7));
        let known = book.known();
        assert_eq!((known["u"].len(), known["u"][0].usage.used), (1, 7));
        // The next time.
        assert_eq!(book.begin("u", next, next + Duration::from_secs(60)), Some(false));
        assert_eq!(book.volumes("u", vec![volume("a"), volume("stuck")]), [volume("a")]);
        // What it held stays until it is known anew, and no longer than that.
        assert_eq!(book.known()["u"][0].usage.used, 7);
        book.measured("u", "a", None);
        assert_eq!(book.known()["u"], []);
        book.retain(&BTreeSet::new());
        book.measured("u", "stuck", used(1));
        assert!(book.known().is_empty());
    }
}
