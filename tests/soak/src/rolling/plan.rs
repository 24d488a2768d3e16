//! Which pods come and go at which restart. Pure.

/// Deployments that pods come by.
pub(super) const DEPLOYMENTS: usize = 4;

/// What is changed when one CloudCore is started anew.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Step {
    /// How many pods each Deployment wants before it ends.
    pub(super) replicas: [usize; DEPLOYMENTS],
    /// How many of those that run are deleted while it is away.
    pub(super) deleted: usize,
}

impl Step {
    /// How many pods all Deployments want together.
    pub(super) fn pods(&self) -> usize {
        self.replicas.iter().sum()
    }
}

/// A step for each restart: an equal share of all pods comes at each, and a tenth of those that were there goes and comes anew.
pub(super) fn steps(pods: usize, restarts: usize) -> Vec<Step> {
    let wanted = |done: usize| pods * done / restarts;
    let step = |done: usize| {
        let all = wanted(done + 1);
        let share = |at: usize| all / DEPLOYMENTS + usize::from(at < all % DEPLOYMENTS);
        Step { replicas: std::array::from_fn(share), deleted: wanted(done) / 10 }
    };
    (0..restarts).map(step).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_come_at_each_restart_and_all_are_there_at_the_last() {
        let steps = steps(401, 9);
        let pods: Vec<usize> = steps.iter().map(Step::pods).collect();
        assert!(pods.windows(2).all(|pair| pair[0] < pair[1]), "{pods:?}");
        assert_eq!(steps[8], Step { replicas: [101, 100, 100, 100], deleted: 35 });
        assert_eq!((steps.len(), pods[0], steps[0].deleted), (9, 44, 0));
    }
}
