//! Which pods make room for a critical one that finds too little: the kubelet's preemption. Pure.

use std::cmp::Ordering;
use std::fmt::Write as _;

use crate::pod::parsed_pod::ParsedPod;
use crate::runtime::demand::{self, Amounts};
use crate::runtime::resources::Qos;

/// The resource that is a place on the node.
pub(crate) const PODS: &str = "pods";
/// The reason of a pod that had to make room for a critical one.
pub(crate) const PREEMPTED: &str = "Preempting";
/// How a pod stands among the others.
#[derive(Debug, Clone)]
pub(crate) struct Standing {
    qos: Qos,
    priority: Option<i32>,
    is_critical: bool,
    /// What it takes from the node, its place among the pods included.
    pub(crate) has: Amounts,
}

impl Standing {
    pub(crate) fn of(pod: &ParsedPod) -> Standing {
        let mut has = demand::of_pod(pod.spec());
        has.insert(PODS.to_owned(), 1);
        Standing { qos: pod.qos, priority: pod.spec().priority, is_critical: pod.is_critical(), has }
    }

    fn gives_way_to(&self, other: &Standing) -> bool {
        let lower = matches!((self.priority, other.priority), (Some(own), Some(other)) if own < other);
        (other.is_critical && !self.is_critical) || lower
    }
}

/// One that could give way, with what it has.
struct Candidate<'a> {
    at: usize,
    has: &'a Amounts,
}

/// The places in `running` of those that give way so that `short`, what is missing of each resource, is there for `pod`: none
/// that asked for something before those that asked for nothing, and as few as are enough.
///
/// # Errors
/// In the kubelet's words, when all of them together are not enough.
pub(crate) fn victims(pod: &Standing, running: &[&Standing], short: &Amounts) -> Result<Vec<usize>, String> {
    let of_class = |class: Qos| -> Vec<Candidate<'_>> {
        let own = running.iter().enumerate();
        let own = own.filter(|(_, own)| own.qos == class && own.gives_way_to(pod));
        own.map(|(at, own)| Candidate { at, has: &own.has }).collect()
    };
    let (best_effort, burstable, guaranteed) =
        (of_class(Qos::BestEffort), of_class(Qos::Burstable), of_class(Qos::Guaranteed));
    let after = |short: &Amounts, others: &[Candidate<'_>]| {
        others.iter().fold(short.clone(), |left, other| less(&left, other.has))
    };
    let missing = after(&after(&after(short, &best_effort), &burstable), &guaranteed);
    if !missing.is_empty() {
        return Err(format!(
            "preemption: error finding a set of pods to preempt: no set of running pods found to reclaim resources: {}",
            shown(&missing)
        ));
    }
    // Those of the better classes that would have to go even if all of the lesser ones did.
    let guaranteed = nearest(guaranteed, after(&after(short, &best_effort), &burstable));
    let burstable = nearest(burstable, after(&after(short, &best_effort), &guaranteed));
    let best_effort = nearest(best_effort, after(&after(short, &burstable), &guaranteed));
    let all = best_effort.into_iter().chain(burstable).chain(guaranteed);
    Ok(all.map(|candidate| candidate.at).collect())
}

/// What is missing still when somebody gives this.
fn less(short: &Amounts, given: &Amounts) -> Amounts {
    let left = short
        .iter()
        .map(|(name, amount)| (name.clone(), amount.saturating_sub(given.get(name).copied().unwrap_or(0))));
    left.filter(|(_, amount)| *amount > 0).collect()
}

/// The ones that come closest to what is missing, until nothing is.
fn nearest(mut candidates: Vec<Candidate<'_>>, mut short: Amounts) -> Vec<Candidate<'_>> {
    let mut chosen = Vec::new();
    while !short.is_empty() {
        let better = |a: &&Candidate<'_>, b: &&Candidate<'_>| {
            let near = distance(&short, a.has).total_cmp(&distance(&short, b.has));
            near.then_with(|| smaller(a.has, b.has))
        };
        let Some(at) = candidates.iter().min_by(better).map(|best| best.at) else { break };
        let Some(index) = candidates.iter().position(|candidate| candidate.at == at) else { break };
        let best = candidates.remove(index);
        short = less(&short, best.has);
        chosen.push(best);
    }
    chosen
}

/// How much of what is missing would be missing still, each resource as a share, squared.
fn distance(short: &Amounts, has: &Amounts) -> f64 {
    let share = |(name, wanted): (&String, &i64)| {
        let left = wanted.saturating_sub(has.get(name).copied().unwrap_or(0)).max(0);
        (left as f64 / (*wanted).max(1) as f64).powi(2)
    };
    short.iter().map(share).sum()
}

/// Of two that are as good the one that has less: memory counts before CPU.
fn smaller(a: &Amounts, b: &Amounts) -> Ordering {
    let of = |own: &Amounts, name: &str| own.get(name).copied().unwrap_or(0);
    let by = |name: &str| of(a, name).cmp(&of(b, name));
    by("memory").then_with(|| by("cpu"))
}

fn shown(short: &Amounts) -> String {
    let mut text = String::from("[");
    for (name, amount) in short {
        // Writing into a text cannot fail.
        let _ = write!(text, "(res: {name}, q: {amount}), ");
    }
    text.push(']');
    text
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::pod::parsed_pod::CRITICAL;
    use crate::pod::parsed_pod::tests::pod;

    fn with(priority: i32, resources: Value) -> ParsedPod {
        let container = json!({"name": "c", "image": "x", "resources": resources});
        pod(json!({"priority": priority, "containers": [container]}))
    }

    fn asks(priority: i32, cpu: &str) -> ParsedPod {
        with(priority, json!({"requests": {"cpu": cpu}}))
    }

    fn choose(pod: &ParsedPod, running: &[ParsedPod], short: &Amounts) -> Result<Vec<usize>, String> {
        let standing: Vec<Standing> = running.iter().map(Standing::of).collect();
        victims(&Standing::of(pod), &standing.iter().collect::<Vec<_>>(), short)
    }

    fn short(cpu: i64) -> Amounts {
        Amounts::from([("cpu".to_owned(), cpu)])
    }

    #[test]
    fn as_few_as_are_enough_give_way_and_never_a_critical_one() {
        let guaranteed = with(0, json!({"limits": {"cpu": "900m", "memory": "1Mi"}}));
        let running = [asks(0, "100m"), asks(0, "500m"), asks(0, "400m"), guaranteed, asks(CRITICAL, "3")];
        let critical = asks(CRITICAL, "1");
        let of = |cpu: i64| choose(&critical, &running, &short(cpu));
        assert_eq!(of(300), Ok(vec![2]), "the smallest that is enough alone");
        assert_eq!(of(450), Ok(vec![1]));
        assert_eq!(of(600), Ok(vec![1, 0]));
        assert_eq!(of(1100), Ok(vec![2, 3]), "the guaranteed one only because it has to");
        let words = "preemption: error finding a set of pods to preempt: no set of running pods found to reclaim \
                     resources: [(res: cpu, q: 100), ]";
        assert_eq!(of(2000), Err(words.to_owned()));
        // A higher priority is enough, an equal one is not.
        assert_eq!(choose(&asks(7, "1"), &[asks(6, "1")], &short(1)), Ok(vec![0]));
        assert!(choose(&asks(7, "1"), &[asks(7, "1")], &short(1)).is_err());
    }

    #[test]
    fn who_asked_for_nothing_gives_its_place_first() {
        let running = [asks(0, "1"), pod(json!({}))];
        let places = Amounts::from([("pods".to_owned(), 1)]);
        assert_eq!(choose(&asks(CRITICAL, "1"), &running, &places), Ok(vec![1]));
    }

    #[test]
    fn a_pod_is_critical_by_its_priority_and_not_by_what_its_maker_wrote() {
        assert!(asks(CRITICAL, "1").is_critical() && !asks(CRITICAL - 1, "1").is_critical());
        for (key, value) in [("kubernetes.io/config.source", "file"), ("kubernetes.io/config.mirror", "x")] {
            let mut pod = asks(0, "1");
            pod.pod.metadata.annotations = Some([(key.to_owned(), value.to_owned())].into());
            assert!(!pod.is_critical(), "{key}");
        }
    }
}
