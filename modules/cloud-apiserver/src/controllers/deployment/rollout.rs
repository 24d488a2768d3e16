//! How many pods each replica set of a deployment should have now.

use serde_json::{Value, json};

use crate::controllers::object::{annotation, name, number, text, time};

pub(crate) const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
pub(crate) const MAX: &str = "deployment.kubernetes.io/max-replicas";

/// The numbers that bound a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ReplicaBounds {
    pub(crate) replicas: i64,
    pub(crate) surge: i64,
    pub(crate) unavailable: i64,
}

impl ReplicaBounds {
    /// As the deployment says; a surge is rounded up, an absence down, and one of them is at least 1.
    pub(crate) fn of(deployment: &Value) -> Self {
        let replicas = number(deployment, "/spec/replicas").unwrap_or(1);
        if !is_rolling(deployment) {
            return ReplicaBounds { replicas, surge: 0, unavailable: 0 };
        }
        let rolling = &deployment["spec"]["strategy"]["rollingUpdate"];
        let surge = int_or_percent(&rolling["maxSurge"], replicas, true);
        let mut unavailable = int_or_percent(&rolling["maxUnavailable"], replicas, false);
        if surge == 0 && unavailable == 0 {
            unavailable = 1;
        }
        ReplicaBounds { replicas, surge, unavailable: unavailable.min(replicas) }
    }

    /// The most pods that there may be.
    pub(crate) fn most(self) -> i64 {
        self.replicas.saturating_add(self.surge)
    }

    /// The fewest available pods that there may be.
    pub(crate) fn fewest(self) -> i64 {
        self.replicas - self.unavailable
    }
}

/// Whether pods are replaced one after the other, and not all at once.
pub(crate) fn is_rolling(deployment: &Value) -> bool {
    text(deployment, "/spec/strategy/type") != "Recreate"
}

/// A number, or a percentage of `whole`. Nothing said is a quarter.
fn int_or_percent(value: &Value, whole: i64, up: bool) -> i64 {
    let percent = match value {
        Value::Number(number) => return number.as_i64().unwrap_or_default().max(0),
        Value::String(text) => match text.strip_suffix('%') {
            Some(percent) => percent.parse::<i64>().unwrap_or_default(),
            None => return text.parse::<i64>().unwrap_or_default().max(0),
        },
        _ => 25,
    };
    let product = percent.clamp(0, 1000).saturating_mul(whole);
    if up { product.saturating_add(99) / 100 } else { product / 100 }
}

/// How many pods a set is to have.
pub(crate) fn size(set: &Value) -> i64 {
    number(set, "/spec/replicas").unwrap_or(1)
}

/// How many pods of a set are available.
pub(crate) fn available(set: &Value) -> i64 {
    number(set, "/status/availableReplicas").unwrap_or_default()
}

/// The sum of what they are to have.
pub(crate) fn total(sets: &[&Value]) -> i64 {
    sets.iter().map(|set| size(set)).sum()
}

/// A set and the size that it is to get.
pub(crate) type Resize<'a> = (&'a Value, i64);

fn by_age<'a>(sets: &[&'a Value]) -> Vec<&'a Value> {
    let mut sorted = sets.to_vec();
    sorted.sort_by_cached_key(|set| (time(set, "/metadata/creationTimestamp"), name(set).to_owned()));
    sorted
}

/// The size that the new set gets next, while old ones are there.
pub(crate) fn new_size(deployment: &Value, current: i64, all: i64) -> i64 {
    let bounds = ReplicaBounds::of(deployment);
    if !is_rolling(deployment) {
        return bounds.replicas;
    }
    if current > bounds.replicas {
        return bounds.replicas;
    }
    let room = (bounds.most() - all).max(0);
    current + room.min(bounds.replicas - current)
}

/// Which old sets shrink now: first what is not available anyway, then as far as enough stays available.
pub(crate) fn shrink_old<'a>(deployment: &Value, new: &Value, old: &[&'a Value]) -> Vec<Resize<'a>> {
    let bounds = ReplicaBounds::of(deployment);
    let all = total(old) + size(new);
    let new_missing = size(new) - available(new);
    let may_go = all - bounds.fewest() - new_missing;
    if may_go <= 0 {
        return Vec::new();
    }
    let mut sizes: Vec<(&Value, i64)> = by_age(old).into_iter().map(|set| (set, size(set))).collect();
    let mut left = may_go;
    for (set, size) in &mut sizes {
        let missing = (*size - available(set)).max(0).min(left);
        *size -= missing;
        left -= missing;
    }
    let there: i64 = old.iter().map(|set| available(set)).sum::<i64>() + available(new);
    let mut surplus = (there - bounds.fewest()).max(0).min(left);
    for (_, size) in &mut sizes {
        let less = surplus.min(*size);
        *size -= less;
        surplus -= less;
    }
    sizes.into_iter().filter(|(set, next)| *next != size(set)).collect()
}

/// Whether the deployment was scaled since its sets were sized.
pub(crate) fn is_scaled(deployment: &Value, sets: &[&Value]) -> bool {
    let wanted = number(deployment, "/spec/replicas").unwrap_or(1);
    sets.iter().filter(|set| size(set) > 0).any(|set| {
        let desired = annotation(set, DESIRED).and_then(|text| text.parse::<i64>().ok());
        desired.is_some_and(|desired| desired != wanted)
    })
}

/// Sizes after the deployment was scaled or while it is paused: in the middle of a rollout each set gets its share. One that
/// keeps its size is named, too: its annotations say of which whole that is its share, and until they do, the deployment
/// counts as scaled ([`is_scaled`]) and does not roll on (Kubernetes: `scaleReplicaSet`, `annotationsNeedUpdate`).
pub(crate) fn scale<'a>(deployment: &Value, new: Option<&'a Value>, old: &[&'a Value]) -> Vec<Resize<'a>> {
    let bounds = ReplicaBounds::of(deployment);
    let all: Vec<&Value> = old.iter().copied().chain(new).collect();
    let active: Vec<&Value> = all.iter().copied().filter(|set| size(set) > 0).collect();
    let only = match active.as_slice() {
        [] => new.or_else(|| by_age(old).last().copied()),
        [one] => Some(*one),
        _ => None,
    };
    if let Some(set) = only {
        return vec![(set, bounds.replicas)];
    }
    let is_full = |set: &&Value| size(set) == bounds.replicas && available(set) == bounds.replicas;
    if new.as_ref().is_some_and(is_full) {
        return old.iter().copied().filter(|set| size(set) > 0).map(|set| (set, 0)).collect();
    }
    if !is_rolling(deployment) {
        return active.into_iter().map(|set| (set, size(set))).collect();
    }
    let allowed = if bounds.replicas > 0 { bounds.most() } else { 0 };
    let change = allowed - total(&active);
    // The largest first; among equals the newer one grows and the older one shrinks.
    let mut order = by_age(&active);
    if change > 0 {
        order.reverse();
    }
    order.sort_by_key(|set| std::cmp::Reverse(size(set)));
    let mut left = change;
    let mut sizes: Vec<(&Value, i64)> = Vec::new();
    for set in order {
        let part = fraction(deployment, set, bounds);
        let part = if change > 0 { part.clamp(0, left.max(0)) } else { part.clamp(left.min(0), 0) };
        left -= part;
        sizes.push((set, size(set) + part));
    }
    if let Some((_, largest)) = sizes.first_mut() {
        *largest = (*largest + left).max(0);
    }
    sizes
}

/// What a set gains or loses when it keeps its share of the whole.
fn fraction(deployment: &Value, set: &Value, bounds: ReplicaBounds) -> i64 {
    if bounds.replicas == 0 {
        return -size(set);
    }
    let before = annotation(set, MAX).and_then(|text| text.parse::<i64>().ok()).filter(|max| *max > 0);
    let before = before.or(number(deployment, "/status/replicas")).unwrap_or_default().max(1);
    // Rounded to the nearest.
    let next = (2 * size(set) * bounds.most() + before) / (2 * before);
    next - size(set)
}

/// What a set's annotations say about the size of the whole.
pub(crate) fn size_annotations(deployment: &Value) -> [(&'static str, Value); 2] {
    let bounds = ReplicaBounds::of(deployment);
    [(DESIRED, json!(bounds.replicas.to_string())), (MAX, json!(bounds.most().to_string()))]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployment(replicas: i64, surge: Value, unavailable: Value) -> Value {
        json!({"spec": {"replicas": replicas, "strategy": {"type": "RollingUpdate",
            "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}}})
    }

    fn set(name: &str, size: i64, available: i64) -> Value {
        json!({"metadata": {"name": name, "creationTimestamp": format!("2026-01-0{}T00:00:00Z", name.len())},
            "spec": {"replicas": size}, "status": {"availableReplicas": available}})
    }

    fn sizes(resizes: &[Resize<'_>]) -> Vec<(String, i64)> {
        resizes.iter().map(|(set, size)| (name(set).to_owned(), *size)).collect()
    }

    #[test]
    fn bounds_round_up_and_down_and_are_never_both_nothing() {
        let bounds = |replicas, surge, unavailable| {
            let bounds = ReplicaBounds::of(&deployment(replicas, surge, unavailable));
            (bounds.surge, bounds.unavailable)
        };
        assert_eq!(bounds(10, json!("25%"), json!("25%")), (3, 2));
        assert_eq!(bounds(1, json!("25%"), json!("25%")), (1, 0));
        assert_eq!(bounds(3, json!(0), json!("0%")), (0, 1));
        assert_eq!(bounds(2, json!(1), json!(5)), (1, 2));
        assert_eq!(
            ReplicaBounds::of(&json!({"spec": {"replicas": 4}})),
            ReplicaBounds { replicas: 4, surge: 1, unavailable: 1 }
        );
    }

    #[test]
    fn a_rollout_never_has_too_many_nor_too_few() {
        let deployment = deployment(4, json!(1), json!(1));
        let bounds = ReplicaBounds::of(&deployment);
        // What is wanted comes up and goes down at once; the loop is the controller.
        let (mut old, mut new) = (4, 0);
        let mut steps = 0;
        while (old, new) != (0, 4) {
            let grown = new_size(&deployment, new, old + new);
            assert!(old + grown <= bounds.most());
            new = grown;
            let (was, is) = (set("o", old, old), set("nn", new, new));
            for (_, size) in shrink_old(&deployment, &is, &[&was]) {
                old = size;
            }
            assert!(old + new >= bounds.fewest());
            steps += 1;
            assert!(steps < 10);
        }
    }

    #[test]
    fn what_is_not_available_goes_first() {
        let deployment = deployment(4, json!(1), json!(1));
        let (old, older, new) = (set("bb", 2, 2), set("a", 2, 0), set("ccc", 1, 0));
        assert_eq!(sizes(&shrink_old(&deployment, &new, &[&old, &older])), [("a".to_owned(), 1)]);
        let fresh = set("ccc", 1, 1);
        assert_eq!(sizes(&shrink_old(&deployment, &fresh, &[&old, &older])), [("a".to_owned(), 0)]);
    }

    #[test]
    fn a_status_that_lags_does_not_shrink_twice() {
        let deployment = deployment(3, json!(1), json!(0));
        // Shrunk from 3 to 2, while the status still tells of three.
        let (old, new) = (set("a", 2, 3), set("bb", 1, 1));
        assert!(shrink_old(&deployment, &new, &[&old]).is_empty());
    }

    #[test]
    fn scaling_in_the_middle_of_a_rollout_keeps_the_shares() {
        let wanted = deployment(20, json!("25%"), json!("25%"));
        let sized = |name: &str, size: i64| {
            let mut set = set(name, size, size);
            set["metadata"]["annotations"] = json!({DESIRED: "10", MAX: "13"});
            set
        };
        let (old, new) = (sized("a", 8), sized("bb", 5));
        assert!(is_scaled(&wanted, &[&old, &new]));
        let scaled = scale(&wanted, Some(&new), &[&old]);
        assert_eq!(scaled.iter().map(|(_, size)| size).sum::<i64>(), 25);
        assert_eq!(sizes(&scaled), [("a".to_owned(), 15), ("bb".to_owned(), 10)]);
        let none = deployment(0, json!(1), json!(0));
        assert_eq!(sizes(&scale(&none, Some(&new), &[&old])), [("a".to_owned(), 0), ("bb".to_owned(), 0)]);
    }

    #[test]
    fn one_active_set_is_simply_scaled() {
        let wanted = deployment(3, json!(1), json!(0));
        let (idle, active) = (set("a", 0, 0), set("bb", 1, 1));
        assert_eq!(sizes(&scale(&wanted, Some(&active), &[&idle])), [("bb".to_owned(), 3)]);
        assert_eq!(sizes(&scale(&wanted, None, &[&idle])), [("a".to_owned(), 3)]);
    }
}
