//! What a pod asks for as a whole (`spec.resources`): its defaults, and what is wrong with it. The rules are those of
//! `pkg/apis/core/v1/defaults.go` and `pkg/apis/core/validation`.

use std::collections::BTreeMap;

use apimachinery::Quantity;
use serde_json::{Map, Value, json};

use crate::error::FieldError;
use crate::unstructured::{as_fields, entry, list, text};

/// How the resources begin that are huge pages.
const HUGE_PAGES: &str = "hugepages-";
/// What may be said for a pod as a whole.
const SUPPORTED: [&str; 3] = ["cpu", HUGE_PAGES, "memory"];

type Amounts = BTreeMap<String, Quantity>;

fn is_supported(name: &str) -> bool {
    matches!(name, "cpu" | "memory") || name.starts_with(HUGE_PAGES)
}

/// What a pod's containers ask for (`requests`) or may have (`limits`) together, as they run beside and after each other.
fn of_containers(spec: &Value, part: &str) -> Amounts {
    let amounts = |container: &Value| -> Amounts {
        let all = container.pointer(&format!("/resources/{part}")).and_then(Value::as_object);
        let read = |(name, value): (&String, &Value)| Some((name.clone(), Quantity::from_json(value)?));
        all.into_iter().flatten().filter_map(read).collect()
    };
    let add = |sum: &mut Amounts, more: &Amounts| {
        for (name, amount) in more {
            *sum.entry(name.clone()).or_default() += *amount;
        }
    };
    let raise = |most: &mut Amounts, other: &Amounts| {
        for (name, amount) in other {
            let own = most.entry(name.clone()).or_default();
            *own = (*own).max(*amount);
        }
    };
    let (mut running, mut most) = (Amounts::new(), Amounts::new());
    for container in list(spec, "/initContainers") {
        let mut beside = running.clone();
        add(&mut beside, &amounts(container));
        raise(&mut most, &beside);
        if text(container, "/restartPolicy") == "Always" {
            running = beside;
        }
    }
    for container in list(spec, "/containers") {
        add(&mut running, &amounts(container));
    }
    raise(&mut running, &most);
    running
}

/// An amount as Kubernetes writes it.
fn written(name: &str, amount: Quantity) -> Value {
    if name == "cpu" {
        let millis = amount.millis();
        return json!(if millis % 1000 == 0 { (millis / 1000).to_string() } else { format!("{millis}m") });
    }
    json!(Quantity::binary_text(u64::try_from(amount.units()).unwrap_or(0)))
}

fn part(whole: &Value, name: &str) -> Map<String, Value> {
    whole.get(name).and_then(Value::as_object).cloned().unwrap_or_default()
}

/// Fills in what a pod asks for as a whole, where it says anything of that: a limit of huge pages, and requests, from those of its
/// containers; else requests from the limits.
pub(super) fn fill(spec: &mut Value) {
    let Some(whole) = spec.get("resources").filter(|whole| whole.is_object()) else { return };
    let (mut limits, mut requests) = (part(whole, "limits"), part(whole, "requests"));
    if limits.is_empty() && requests.is_empty() {
        return;
    }
    for (name, amount) in of_containers(spec, "limits") {
        if name.starts_with(HUGE_PAGES) && !requests.contains_key(&name) {
            limits.entry(name.clone()).or_insert_with(|| written(&name, amount));
        }
    }
    for (name, amount) in of_containers(spec, "requests") {
        if matches!(name.as_str(), "cpu" | "memory") {
            requests.entry(name.clone()).or_insert_with(|| written(&name, amount));
        }
    }
    for (name, amount) in limits.iter().filter(|(name, _)| is_supported(name)) {
        requests.entry(name.clone()).or_insert_with(|| amount.clone());
    }
    let whole = entry(spec, "resources");
    for (part, amounts) in [("limits", limits), ("requests", requests)] {
        if !amounts.is_empty() {
            as_fields(whole).insert(part.to_owned(), Value::Object(amounts));
        }
    }
}

/// What is wrong with the amounts of a container or a pod at `path`: what is none, and requests above their limits.
pub(super) fn amounts_causes(resources: &Value, path: &str, causes: &mut Vec<FieldError>) {
    for which in ["limits", "requests"] {
        for (name, amount) in part(resources, which) {
            let field = || format!("{path}.{which}[{name}]");
            match shown(&amount).parse::<Quantity>() {
                Err(error) => causes.push(FieldError::invalid(field(), &amount, &error.to_string())),
                Ok(found) if found < Quantity::default() => {
                    let what = "must be greater than or equal to 0";
                    causes.push(FieldError::invalid(field(), &json!(shown(&amount)), what));
                }
                // Extended resources and huge pages are counted.
                Ok(found)
                    if found.millis() % 1000 != 0 && (name.contains('/') || name.starts_with(HUGE_PAGES)) =>
                {
                    causes.push(FieldError::invalid(field(), &json!(shown(&amount)), "must be an integer"));
                }
                Ok(_) => {}
            }
        }
    }
    let limits = part(resources, "limits");
    for (name, request) in part(resources, "requests") {
        let Some(limit) = limits.get(&name) else { continue };
        let of = |value: &Value| Quantity::from_json(value);
        if let (Some(asked), Some(most)) = (of(&request), of(limit))
            && asked > most
        {
            let what = format!("must be less than or equal to {name} limit of {}", shown(limit));
            causes.push(FieldError::invalid(format!("{path}.requests"), &json!(shown(&request)), &what));
        }
    }
}

fn shown(amount: &Value) -> String {
    amount.as_str().map_or_else(|| amount.to_string(), str::to_owned)
}

/// What is wrong with what a pod with this spec, at `path`, asks for as a whole.
pub(super) fn causes(spec: &Value, path: &str, causes: &mut Vec<FieldError>) {
    let Some(whole) = spec.get("resources").filter(|whole| whole.is_object()) else { return };
    let here = format!("{path}.resources");
    if whole.get("claims").is_some_and(|claims| !claims.is_null()) {
        let what = "claims may not be set for Resources at pod-level";
        causes.push(FieldError::forbidden(format!("{here}.claims"), what));
    }
    amounts_causes(whole, &here, causes);
    let (limits, requests) = (part(whole, "limits"), part(whole, "requests"));
    for (which, amounts) in [("limits", &limits), ("requests", &requests)] {
        for name in amounts.keys().filter(|name| !is_supported(name)) {
            causes.push(FieldError::unsupported(format!("{here}.{which}[{name}]"), &json!(name), &SUPPORTED));
        }
    }
    let mut below = |own: &Map<String, Value>, which: &str, of: Amounts, only: fn(&str) -> bool| {
        for (name, needed) in of.into_iter().filter(|(name, _)| only(name)) {
            let Some(has) = own.get(&name) else { continue };
            if Quantity::from_json(has).is_some_and(|has| needed > has) {
                let needed = written(&name, needed);
                let what = format!(
                    "must be greater than or equal to aggregate container {which} of {}",
                    shown(&needed)
                );
                causes.push(FieldError::invalid(
                    format!("{here}.{which}[{name}]"),
                    &json!(shown(has)),
                    &what,
                ));
            }
        }
    };
    below(&requests, "requests", of_containers(spec, "requests"), |_| true);
    below(&limits, "limits", of_containers(spec, "limits"), |name| name.starts_with(HUGE_PAGES));
    for (at, container) in list(spec, "/containers").iter().enumerate() {
        for (name, own) in part(&container["resources"], "limits") {
            let Some(most) = limits.get(&name) else { continue };
            if Quantity::from_json(&own) > Quantity::from_json(most) {
                let what = format!("must be less than or equal to pod limits of {}", shown(most));
                let field = format!("{here}.containers[{at}][{name}].limits");
                causes.push(FieldError::invalid(field, &json!(shown(&own)), &what));
            }
        }
    }
}

/// Why a pod may not be given another thing as a whole: a node has to declare that it can.
pub(super) fn resize_cause(old: &Value, new: &Value) -> Option<FieldError> {
    (old["spec"]["resources"] != new["spec"]["resources"]).then(|| {
        let node = text(old, "/spec/nodeName");
        let what = format!(
            "pod update requires features InPlacePodLevelResourcesVerticalScaling which are not available on node {node:?}"
        );
        FieldError::forbidden("spec.resources", &what)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(whole: Value, containers: Value) -> Value {
        let mut spec = json!({"resources": whole, "containers": containers});
        fill(&mut spec);
        spec["resources"].clone()
    }

    #[test]
    fn requests_of_the_whole_come_from_containers_first_and_then_from_limits() {
        let bare = json!([{"name": "a"}]);
        let limits = json!({"cpu": "2", "memory": "1Gi"});
        assert_eq!(
            filled(json!({"limits": limits}), bare.clone()),
            json!({"limits": limits, "requests": limits})
        );
        let containers = json!([
            {"resources": {"requests": {"cpu": "250m"}, "limits": {"hugepages-2Mi": "4Mi"}}},
            {"resources": {"requests": {"cpu": "0.5", "memory": "64Mi", "ephemeral-storage": "1Gi"}}}]);
        assert_eq!(
            filled(json!({"limits": limits}), containers.clone()),
            json!({"limits": {"cpu": "2", "memory": "1Gi", "hugepages-2Mi": "4Mi"},
                "requests": {"cpu": "750m", "memory": "64Mi", "hugepages-2Mi": "4Mi"}})
        );
        assert_eq!(
            filled(json!({"requests": {"cpu": "2"}}), bare)["requests"],
            json!({"cpu": "2"}),
            "nothing else is said"
        );
        assert_eq!(filled(json!({}), containers), json!({}));
    }

    #[test]
    fn init_containers_count_beside_the_sidecars_before_them() {
        let asks = |cpu: &str| json!({"resources": {"requests": {"cpu": cpu}}});
        let mut sidecar = asks("100m");
        sidecar["restartPolicy"] = json!("Always");
        let spec = json!({"initContainers": [asks("1"), sidecar, asks("2")], "containers": [asks("500m")]});
        assert_eq!(written("cpu", of_containers(&spec, "requests")["cpu"]), "2100m");
    }

    #[test]
    fn what_contradicts_itself_is_refused_in_a_servers_words() {
        let messages = |whole: Value, container: Value| {
            let mut found = Vec::new();
            causes(
                &json!({"resources": whole, "containers": [{"resources": container}]}),
                "spec",
                &mut found,
            );
            found.into_iter().map(|one| format!("{}: {}", one.field, one.message)).collect::<Vec<_>>()
        };
        assert!(messages(json!({"limits": {"cpu": "1"}, "requests": {"cpu": "1"}}), json!({})).is_empty());
        assert_eq!(
            messages(json!({"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}), json!({})),
            ["spec.resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1"]
        );
        assert_eq!(
            messages(json!({"requests": {"cpu": "1"}}), json!({"requests": {"cpu": "1500m"}})),
            [
                "spec.resources.requests[cpu]: Invalid value: \"1\": must be greater than or equal to aggregate container requests of 1500m"
            ]
        );
        assert_eq!(
            messages(json!({"limits": {"cpu": "1"}}), json!({"limits": {"cpu": "2"}})),
            [
                "spec.resources.containers[0][cpu].limits: Invalid value: \"2\": must be less than or equal to pod limits of 1"
            ]
        );
        let odd = messages(json!({"claims": [], "limits": {"nvidia.com/gpu": "1", "cpu": "x"}}), json!({}));
        assert_eq!(odd.len(), 3, "{odd:#?}");
    }

    #[test]
    fn nobody_asks_for_less_than_nothing_or_for_half_a_device() {
        let messages = |limits: Value| {
            let mut found = Vec::new();
            amounts_causes(&json!({ "limits": limits }), "r", &mut found);
            found.into_iter().map(|one| format!("{}: {}", one.field, one.message)).collect::<Vec<_>>()
        };
        let negative = "r.limits[memory]: Invalid value: \"-1\": must be greater than or equal to 0";
        assert_eq!(messages(json!({ "memory": "-1" })), [negative]);
        let half = "r.limits[example.com/gpu]: Invalid value: \"500m\": must be an integer";
        assert_eq!(messages(json!({ "example.com/gpu": "500m" })), [half]);
        let fine = json!({ "cpu": "500m", "memory": 0, "example.com/gpu": 2, "hugepages-2Mi": "4Mi" });
        assert!(messages(fine).is_empty());
    }

    #[test]
    fn what_a_pod_has_as_a_whole_is_not_resized() {
        let pod = |cpu: &str| json!({"spec": {"nodeName": "n", "resources": {"requests": {"cpu": cpu}}}});
        assert_eq!(resize_cause(&pod("1"), &pod("1")), None);
        let cause = resize_cause(&pod("1"), &pod("2")).unwrap();
        assert!(cause.message.ends_with("not available on node \"n\""), "{}", cause.message);
    }
}
