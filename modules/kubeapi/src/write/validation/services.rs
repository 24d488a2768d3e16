//! Services: what they are told apart by, and how much there may be of it.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::metadata::bad_name;
use super::objects::enumerated;
use crate::error::FieldError;
use crate::kind::NameRule;
use crate::unstructured::{list, text};

/// 20,000 ports of a service, as many as one of its slices may have (Kubernetes: `maxPorts` of discovery's validation): each is
/// resolved for its pods.
const SERVICE_PORTS_MAX: usize = 20_000;

/// What is wrong with a service.
pub(super) fn service(object: &Value, causes: &mut Vec<FieldError>) {
    let spec = &object["spec"];
    let headless = text(spec, "/clusterIP") == "None";
    if list(spec, "/ports").is_empty() && !headless && text(spec, "/type") != "ExternalName" {
        causes.push(FieldError::required("spec.ports", ""));
    }
    service_ports(list(spec, "/ports"), causes);
    for (at, port) in list(spec, "/ports").iter().enumerate() {
        let number = port["port"].as_i64().unwrap_or_default();
        if !(1..=65535).contains(&number) {
            let field = format!("spec.ports[{at}].port");
            causes.push(FieldError::invalid(field, &json!(number), "must be between 1 and 65535, inclusive"));
        }
    }
    if text(spec, "/type") == "ExternalName"
        && (!text(spec, "/clusterIP").is_empty() || !list(spec, "/clusterIPs").is_empty())
    {
        causes.push(FieldError::forbidden("spec.clusterIPs", "may not be set for ExternalName services"));
    }
    enumerated(spec, "spec", "type", &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"], causes);
}

/// Their names and what they are told apart by (Kubernetes: `validateServicePort`, `ValidateService`).
fn service_ports(ports: &[Value], causes: &mut Vec<FieldError>) {
    if ports.len() > SERVICE_PORTS_MAX {
        causes.push(FieldError::too_many("spec.ports", ports.len(), SERVICE_PORTS_MAX));
        return;
    }
    let (mut names, mut numbers) = (BTreeSet::new(), BTreeSet::new());
    for (at, port) in ports.iter().enumerate() {
        let here = format!("spec.ports[{at}]");
        let name = text(port, "/name");
        if name.is_empty() {
            if ports.len() > 1 {
                causes.push(FieldError::required(format!("{here}.name"), ""));
            }
        } else if let Some(what) = bad_name(NameRule::Label, name) {
            causes.push(FieldError::invalid(format!("{here}.name"), &json!(name), what));
        } else if !names.insert(name) {
            causes.push(FieldError::duplicate(format!("{here}.name"), &json!(name)));
        }
        enumerated(port, &here, "protocol", &["SCTP", "TCP", "UDP"], causes);
        let protocol = if text(port, "/protocol").is_empty() { "TCP" } else { text(port, "/protocol") };
        let number = &port["port"];
        if !numbers.insert((protocol, number.as_i64())) {
            causes.push(FieldError::duplicate(here, &json!({ "protocol": protocol, "port": number })));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_of_a_service_are_told_apart_and_not_without_end() {
        let service = |ports: Value| {
            let mut causes = Vec::new();
            service(&json!({"spec": {"ports": ports}}), &mut causes);
            causes.into_iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect::<Vec<_>>()
        };
        assert_eq!(service(json!([{"port": 80}])), Vec::<String>::new());
        let dns = json!([{"name": "a", "port": 53, "protocol": "TCP"}, {"name": "b", "port": 53, "protocol": "UDP"}]);
        assert_eq!(service(dns), Vec::<String>::new());
        let wrong = json!([{"name": "a", "port": 1}, {"port": 2}, {"name": "a", "port": 3}, {"name": "A b", "port": 4},
            {"name": "e", "port": 1, "protocol": "TCP"}, {"name": "f", "port": 1, "protocol": "tcp"}]);
        let messages = service(wrong);
        for part in [
            "spec.ports[1].name: Required value",
            "spec.ports[2].name: Duplicate value: \"a\"",
            "spec.ports[3].name: Invalid value",
            "spec.ports[4]: Duplicate value: {",
            "spec.ports[5].protocol: Unsupported value: \"tcp\"",
        ] {
            assert!(messages.iter().any(|told| told.starts_with(part)), "{part}\n{messages:#?}");
        }
        assert_eq!(messages.len(), 5, "{messages:#?}");
        let many: Vec<Value> =
            (0..=SERVICE_PORTS_MAX).map(|n| json!({"name": format!("p{n}"), "port": n + 1})).collect();
        assert_eq!(service(json!(many)), ["spec.ports: Too many: 20001: must have at most 20000 items"]);
        assert_eq!(service(json!(many[1..])), Vec::<String>::new());
    }
}
