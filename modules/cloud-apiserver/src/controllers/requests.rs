//! What a pod requests of a node, and what a node has.

use std::collections::BTreeMap;

use apimachinery::Quantity;
use serde_json::Value;

use super::object::list;

/// Amounts in billionths, by resource.
pub(crate) type Amounts = BTreeMap<String, i128>;

/// One of anything, in [`Amounts`].
pub(crate) const ONE: i128 = 1_000_000_000;

/// What a pod asks for: the larger of what its containers need together and what each init container needs in its turn, unless it
/// says what it needs as a whole.
pub(crate) fn requests(pod: &Value) -> Amounts {
    let spec = &pod["spec"];
    let mut running = Amounts::new();
    let mut starting = Amounts::new();
    for container in list(spec, "/initContainers") {
        let own = amounts(&container["resources"]["requests"]);
        if container["restartPolicy"] == "Always" {
            // A sidecar goes on beside everything that comes after it, so that in the end no less runs than now.
            add(&mut running, &own);
        } else {
            // Only what it asks for itself: a pod may have thousands of these, and sidecars that ask for as much else.
            for (name, amount) in &own {
                let beside = running.get(name).copied().unwrap_or_default();
                let kept = starting.entry(name.clone()).or_default();
                *kept = (*kept).max(beside.saturating_add(*amount));
            }
        }
    }
    for container in list(spec, "/containers") {
        add(&mut running, &amounts(&container["resources"]["requests"]));
    }
    larger(&mut running, &starting);
    // What the pod asks for as a whole counts instead of its containers' sum.
    let of_whole = |name: &str| matches!(name, "cpu" | "memory") || name.starts_with("hugepages-");
    running.extend(amounts(&spec["resources"]["requests"]).into_iter().filter(|(name, _)| of_whole(name)));
    add(&mut running, &amounts(&spec["overhead"]));
    running
}

/// A map of amounts; what is no amount is left out.
pub(crate) fn amounts(map: &Value) -> Amounts {
    let entries = map.as_object().into_iter().flatten();
    entries.filter_map(|(name, value)| Some((name.clone(), Quantity::from_json(value)?.nanos()))).collect()
}

pub(crate) fn add(to: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        let sum = to.entry(name.clone()).or_default();
        *sum = sum.saturating_add(*amount);
    }
}

fn larger(to: &mut Amounts, other: &Amounts) {
    for (name, amount) in other {
        let kept = to.entry(name.clone()).or_default();
        *kept = (*kept).max(*amount);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn init_containers_count_by_the_largest_and_sidecars_all_along() {
        let ask = |cpu: &str| json!({"resources": {"requests": {"cpu": cpu}}});
        let mut sidecar = ask("100m");
        sidecar["restartPolicy"] = json!("Always");
        let pod = json!({"spec": {
            "initContainers": [ask("1"), sidecar, ask("2")],
            "containers": [ask("500m"), ask("500m")],
            "overhead": {"cpu": "10m"},
        }});
        assert_eq!(requests(&pod)["cpu"], 2110 * ONE / 1000);
        let mut whole = pod.clone();
        whole["spec"]["resources"] = json!({"requests": {"cpu": "3", "memory": "1", "example.com/x": "1"}});
        let wanted = [("cpu", 3010 * ONE / 1000), ("memory", ONE)];
        assert_eq!(requests(&whole), wanted.map(|(name, amount)| (name.to_owned(), amount)).into());
    }
}
