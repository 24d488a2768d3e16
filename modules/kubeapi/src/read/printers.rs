//! Printer columns: what `kubectl get` prints, made by the server.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::{AGE, BuiltIn, NAME, age, joined, or_none, or_unknown, or_unset};
use super::jsonpath::{Effort, json_path};
use super::{pod_printers, volume_printers};
use crate::kind::{PrinterColumn, ServedKind, Source};
use crate::unstructured::{list, name, number, text};

/// 3 addresses or ports of an object are printed (Kubernetes: `formatEndpoints`, `formatDiscoveryPorts`).
const SHOWN: usize = 3;

fn columns(group_resource: &str) -> Vec<BuiltIn> {
    let own: &[BuiltIn] = match group_resource {
        "pods" => &[
            ("Ready", "string", 0, |o, _| pod_printers::ready(o)),
            ("Status", "string", 0, |o, _| pod_printers::status(o)),
            ("Restarts", "string", 0, |o, now| pod_printers::restarts(o, now)),
            AGE,
            ("IP", "string", 1, |o, _| or_none(text(o, "/status/podIP"))),
            ("Node", "string", 1, |o, _| or_none(text(o, "/spec/nodeName"))),
            ("Nominated Node", "string", 1, |o, _| or_none(text(o, "/status/nominatedNodeName"))),
            ("Readiness Gates", "string", 1, |o, _| pod_printers::readiness_gates(o)),
        ],
        "nodes" => &[
            ("Status", "string", 0, |o, _| node_status(o)),
            ("Roles", "string", 0, |o, _| node_roles(o)),
            AGE,
            ("Version", "string", 0, |o, _| json!(text(o, "/status/nodeInfo/kubeletVersion"))),
            ("Internal-IP", "string", 1, |o, _| node_address(o, "InternalIP")),
            ("External-IP", "string", 1, |o, _| node_address(o, "ExternalIP")),
            ("OS-Image", "string", 1, |o, _| or_unknown(text(o, "/status/nodeInfo/osImage"))),
            ("Kernel-Version", "string", 1, |o, _| or_unknown(text(o, "/status/nodeInfo/kernelVersion"))),
            ("Container-Runtime", "string", 1, |o, _| {
                or_unknown(text(o, "/status/nodeInfo/containerRuntimeVersion"))
            }),
        ],
        "deployments.apps" => &[
            ("Ready", "string", 0, |o, _| {
                json!(format!("{}/{}", count(o, "/status/readyReplicas"), count(o, "/spec/replicas")))
            }),
            ("Up-to-date", "string", 0, |o, _| json!(count(o, "/status/updatedReplicas"))),
            ("Available", "string", 0, |o, _| json!(count(o, "/status/availableReplicas"))),
            AGE,
            ("Containers", "string", 1, |o, _| containers(o, "/name")),
            ("Images", "string", 1, |o, _| containers(o, "/image")),
            ("Selector", "string", 1, |o, _| json!(selector(&o["spec"]["selector"]))),
        ],
        "replicasets.apps" => &[
            ("Desired", "integer", 0, |o, _| json!(count(o, "/spec/replicas"))),
            ("Current", "integer", 0, |o, _| json!(count(o, "/status/replicas"))),
            ("Ready", "integer", 0, |o, _| json!(count(o, "/status/readyReplicas"))),
            AGE,
            ("Containers", "string", 1, |o, _| containers(o, "/name")),
            ("Images", "string", 1, |o, _| containers(o, "/image")),
            ("Selector", "string", 1, |o, _| json!(selector(&o["spec"]["selector"]))),
        ],
        "services" => &[
            ("Type", "string", 0, |o, _| json!(text(o, "/spec/type"))),
            ("Cluster-IP", "string", 0, |o, _| or_none(text(o, "/spec/clusterIP"))),
            ("External-IP", "string", 0, |o, _| or_none(text(o, "/spec/externalName"))),
            ("Port(s)", "string", 0, |o, _| service_ports(o)),
            AGE,
            ("Selector", "string", 1, |o, _| {
                let pairs = pairs(&o["spec"]["selector"]);
                json!(if pairs.is_empty() { "<none>".to_owned() } else { pairs })
            }),
        ],
        "namespaces" => &[("Status", "string", 0, |o, _| json!(text(o, "/status/phase"))), AGE],
        "configmaps" => &[("Data", "integer", 0, |o, _| json!(keys(o, "data") + keys(o, "binaryData"))), AGE],
        "secrets" => &[
            ("Type", "string", 0, |o, _| json!(text(o, "/type"))),
            ("Data", "integer", 0, |o, _| json!(keys(o, "data"))),
            AGE,
        ],
        "serviceaccounts" => &[("Secrets", "integer", 0, |o, _| json!(list(o, "/secrets").len())), AGE],
        "leases.coordination.k8s.io" => {
            &[("Holder", "string", 0, |o, _| json!(text(o, "/spec/holderIdentity"))), AGE]
        }
        "endpoints" => &[("Endpoints", "string", 0, |o, _| endpoints(o)), AGE],
        "endpointslices.discovery.k8s.io" => &[
            ("AddressType", "string", 0, |o, _| json!(text(o, "/addressType"))),
            ("Ports", "string", 0, |o, _| {
                let ports = list(o, "/ports");
                let shown = ports.iter().take(SHOWN).map(|port| match port["port"].as_i64() {
                    Some(number) => number.to_string(),
                    None => port["name"].as_str().unwrap_or("*").to_owned(),
                });
                or_unset(&first_of(shown.collect(), ports.len()))
            }),
            ("Endpoints", "string", 0, |o, _| {
                let endpoints = list(o, "/endpoints");
                let addresses = endpoints.iter().flat_map(|endpoint| list(endpoint, "/addresses"));
                let shown = addresses.filter_map(Value::as_str).take(SHOWN).map(str::to_owned);
                let count = endpoints.iter().map(|endpoint| list(endpoint, "/addresses").len()).sum();
                or_unset(&first_of(shown.collect(), count))
            }),
            AGE,
        ],
        "customresourcedefinitions.apiextensions.k8s.io" => {
            &[("Created At", "date", 0, |o, _| json!(text(o, "/metadata/creationTimestamp")))]
        }
        "rolebindings.rbac.authorization.k8s.io" | "clusterrolebindings.rbac.authorization.k8s.io" => &[
            ("Role", "string", 0, |o, _| {
                json!(format!("{}/{}", text(o, "/roleRef/kind"), text(o, "/roleRef/name")))
            }),
            AGE,
        ],
        "clusterroles.rbac.authorization.k8s.io" | "roles.rbac.authorization.k8s.io" => {
            &[("Created At", "date", 0, |o, _| json!(text(o, "/metadata/creationTimestamp")))]
        }
        "events" => {
            return vec![
                ("Last Seen", "string", 0, |o, now| json!(age(last_seen(o), now))),
                ("Type", "string", 0, |o, _| json!(text(o, "/type"))),
                ("Reason", "string", 0, |o, _| json!(text(o, "/reason"))),
                ("Object", "string", 0, |o, _| {
                    let kind = text(o, "/involvedObject/kind").to_ascii_lowercase();
                    json!(format!("{kind}/{}", text(o, "/involvedObject/name")))
                }),
                ("Subobject", "string", 1, |o, _| json!(text(o, "/involvedObject/fieldPath"))),
                ("Source", "string", 1, |o, _| {
                    let (component, host) = (text(o, "/source/component"), text(o, "/source/host"));
                    let parts = [component, host].into_iter().filter(|part| !part.is_empty());
                    json!(joined(parts.map(str::to_owned)))
                }),
                ("Message", "string", 0, |o, _| json!(text(o, "/message").trim())),
                ("First Seen", "string", 1, |o, now| json!(age(text(o, "/firstTimestamp"), now))),
                ("Count", "string", 1, |o, _| json!(number(o, "/count").unwrap_or(1))),
                ("Name", "string", 1, |o, _| json!(name(o))),
            ];
        }
        other => volume_printers::columns(other).unwrap_or(&[AGE]),
    };
    [&[NAME], own].concat()
}

/// Renders objects as a `meta.k8s.io/v1` Table. `whole` puts whole objects into the rows instead of their metadata.
pub(super) fn table(
    kind: &ServedKind,
    objects: &[Value],
    meta: Value,
    include: &str,
    now: Timestamp,
) -> Value {
    let (definitions, cells): (Vec<Value>, Vec<Vec<Value>>) = match &kind.source {
        Source::BuiltIn => {
            let columns = columns(&kind.group_resource());
            let definitions = columns.iter().map(|(name, kind, priority, _)| {
                definition(name, kind, *priority, if *name == "Name" { "name" } else { "" })
            });
            let row = |object: &Value| columns.iter().map(|column| column.3(object, now)).collect();
            (definitions.collect(), objects.iter().map(row).collect())
        }
        Source::Custom(custom) => custom_cells(&custom.columns, objects, now),
    };
    let rows: Vec<Value> = objects
        .iter()
        .zip(cells)
        .map(|(object, cells)| {
            let object = match include {
                "None" => Value::Null,
                "Object" => object.clone(),
                _ => partial(object),
            };
            json!({ "cells": cells, "object": object })
        })
        .collect();
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": meta,
        "columnDefinitions": definitions, "rows": rows,
    })
}

/// An object's metadata alone (`PartialObjectMetadata`).
pub(super) fn partial(object: &Value) -> Value {
    json!({ "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"] })
}

fn definition(name: &str, kind: &str, priority: i64, format: &str) -> Value {
    json!({ "name": name, "type": kind, "format": format, "description": name, "priority": priority })
}

fn custom_cells(
    columns: &[PrinterColumn],
    objects: &[Value],
    now: Timestamp,
) -> (Vec<Value>, Vec<Vec<Value>>) {
    let mut definitions = vec![definition("Name", "string", 0, "name")];
    for column in columns {
        let mut of = definition(&column.name, &column.kind, column.priority, "");
        if !column.description.is_empty() {
            of["description"] = json!(column.description);
        }
        definitions.push(of);
    }
    let has_age = !columns.is_empty();
    if !has_age {
        definitions.push(definition("Age", "date", 0, ""));
    }
    let rows = objects.iter().map(|object| {
        let (mut cells, mut effort) = (vec![json!(name(object))], Effort::default());
        cells.extend(columns.iter().map(|column| {
            let found = json_path(object, &column.path, &mut effort);
            match (column.kind.as_str(), found) {
                (_, None | Some(Value::Null)) => Value::Null,
                ("date", Some(Value::String(time))) => json!(age(&time, now)),
                ("string", Some(value)) => match value {
                    Value::String(text) => json!(text),
                    other => json!(other.to_string()),
                },
                (_, Some(value)) => value,
            }
        }));
        if !has_age {
            cells.push(json!(age(text(object, "/metadata/creationTimestamp"), now)));
        }
        cells
    });
    (definitions, rows.collect())
}

fn count(object: &Value, pointer: &str) -> i64 {
    number(object, pointer).unwrap_or_default()
}

fn keys(object: &Value, field: &str) -> usize {
    object[field].as_object().map_or(0, serde_json::Map::len)
}

fn pairs(map: &Value) -> String {
    let pairs = map.as_object().into_iter().flatten();
    joined(pairs.into_iter().map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())))
}

fn selector(selector: &Value) -> String {
    let expressions = list(selector, "/matchExpressions").iter().map(|expression| {
        let values = list(expression, "/values").iter().filter_map(Value::as_str).map(str::to_owned);
        let (key, operator) = (text(expression, "/key"), text(expression, "/operator").to_ascii_lowercase());
        format!("{key} {operator} ({})", joined(values))
    });
    let first = Some(pairs(&selector["matchLabels"])).filter(|pairs| !pairs.is_empty());
    joined(first.into_iter().chain(expressions))
}

fn containers(object: &Value, field: &str) -> Value {
    let all = list(object, "/spec/template/spec/containers").iter();
    json!(joined(all.map(|container| text(container, field).to_owned())))
}

fn node_status(node: &Value) -> Value {
    let ready = list(node, "/status/conditions").iter().find(|c| text(c, "/type") == "Ready");
    let mut word = match ready.map(|condition| text(condition, "/status")) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if node.pointer("/spec/unschedulable") == Some(&json!(true)) {
        word.push_str(",SchedulingDisabled");
    }
    json!(word)
}

fn node_roles(node: &Value) -> Value {
    let labels = node.pointer("/metadata/labels").and_then(Value::as_object).into_iter().flatten();
    let roles = labels
        .into_iter()
        .filter_map(|(key, _)| key.strip_prefix("node-role.kubernetes.io/"))
        .map(str::to_owned);
    or_none(&joined(roles))
}

fn node_address(node: &Value, kind: &str) -> Value {
    let found = list(node, "/status/addresses").iter().find(|address| text(address, "/type") == kind);
    or_none(found.map(|address| text(address, "/address")).unwrap_or_default())
}

fn service_ports(service: &Value) -> Value {
    let ports = list(service, "/spec/ports").iter().map(|port| {
        let (number, protocol) = (port["port"].to_string(), text(port, "/protocol"));
        match port["nodePort"].as_i64() {
            Some(outside) => format!("{number}:{outside}/{protocol}"),
            None => format!("{number}/{protocol}"),
        }
    });
    or_none(&joined(ports))
}

/// The first three, with each port (Kubernetes: `formatEndpoints`). The rest is counted and not made: an object may have tens of
/// thousands of addresses, and as many ports.
fn endpoints(object: &Value) -> Value {
    let (mut shown, mut count) = (Vec::new(), 0_usize);
    for subset in list(object, "/subsets") {
        let (addresses, ports) = (list(subset, "/addresses"), list(subset, "/ports"));
        count = count.saturating_add(addresses.len().saturating_mul(ports.len().max(1)));
        if ports.is_empty() {
            // A service without ports has addresses alone.
            let first = addresses.iter().take(SHOWN - shown.len());
            shown.extend(first.map(|address| text(address, "/ip").to_owned()));
        }
        for port in ports.iter().take(SHOWN - shown.len()) {
            let first = addresses.iter().take(SHOWN - shown.len());
            shown.extend(first.map(|address| match text(address, "/ip") {
                ip if ip.contains(':') => format!("[{ip}]:{}", port["port"]),
                ip => format!("{ip}:{}", port["port"]),
            }));
        }
    }
    or_none(&first_of(shown, count))
}

/// What is shown of `count`, and how many more there are.
fn first_of(shown: Vec<String>, count: usize) -> String {
    let more = count.saturating_sub(shown.len());
    let shown = shown.join(",");
    if more > 0 { format!("{shown} + {more} more...") } else { shown }
}

fn last_seen(event: &Value) -> &str {
    [text(event, "/lastTimestamp"), text(event, "/series/lastObservedTime"), text(event, "/eventTime")]
        .into_iter()
        .find(|time| !time.is_empty())
        .unwrap_or(text(event, "/metadata/creationTimestamp"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A kind that is added says what is seen of it, or that there is nothing to see.
    #[test]
    fn every_built_in_kind_shows_more_than_its_name_and_age() {
        for kind in crate::kind::built_in() {
            assert!(
                columns(&kind.group_resource()).len() > 2
                    || kind.is("customresourcedefinitions.apiextensions.k8s.io")
                    || kind.of.plural.ends_with("roles"),
                "{kind:?}"
            );
        }
    }

    #[test]
    fn endpoints_are_printed_by_the_first_three_and_counted() {
        let cell = |resource: &str, column: &str, object: &Value| {
            let columns = columns(resource);
            let found = columns.iter().find(|(name, ..)| *name == column).unwrap();
            found.3(object, Timestamp::UNIX_EPOCH)
        };
        let subset = |addresses: &[&str], ports: &[i64]| {
            json!({"addresses": addresses.iter().map(|ip| json!({"ip": ip})).collect::<Vec<_>>(),
                "ports": ports.iter().map(|port| json!({"port": port})).collect::<Vec<_>>()})
        };
        let told = |subsets: Value| cell("endpoints", "Endpoints", &json!({"subsets": subsets}));
        assert_eq!(told(json!([])), "<none>");
        assert_eq!(told(json!([subset(&["10.0.0.1", "fd00::1"], &[80])])), "10.0.0.1:80,[fd00::1]:80");
        assert_eq!(told(json!([subset(&["a", "b"], &[1, 2])])), "a:1,b:1,a:2 + 1 more...");
        assert_eq!(
            told(json!([subset(&["a"], &[]), subset(&["b", "c"], &[1]), subset(&["d"], &[1])])),
            "a,b:1,c:1 + 1 more..."
        );
        // Some three thousand million are counted, and none of them is made.
        let many = json!([{"addresses": vec![json!({"ip": "1"}); 60_000], "ports": vec![json!({"port": 1}); 60_000]}]);
        assert_eq!(told(many), "1:1,1:1,1:1 + 3599999997 more...");
        let slice = json!({"ports": [{"port": 1}, {"name": "x"}, {}, {"port": 4}], "endpoints":
            [{"addresses": ["a", "b"]}, {"addresses": ["c", "d", "e"]}]});
        let of_slice = |column: &str| cell("endpointslices.discovery.k8s.io", column, &slice);
        assert_eq!(
            (of_slice("Ports"), of_slice("Endpoints")),
            (json!("1,x,* + 1 more..."), json!("a,b,c + 2 more..."))
        );
        assert_eq!(cell("endpointslices.discovery.k8s.io", "Ports", &json!({})), "<unset>");
    }
}
