//! Discovery: which groups, versions and resources there are.

use std::collections::BTreeMap;

use apimachinery::resource;
use serde_json::{Value, json};

use crate::kind::{ServedKind, StatusSubresource};

/// A resource or a subresource that is no stored kind, as discovery lists it.
#[derive(Debug, Clone, Copy)]
pub struct ExtraResource {
    /// The group that it is under; empty for the core group. The version is `v1`.
    pub group: &'static str,
    /// `tokenreviews`, `pods/binding`.
    pub name: &'static str,
    /// Whether it has a namespace.
    pub namespaced: bool,
    /// The kind of its body.
    pub kind: &'static str,
    /// What can be done with it.
    pub verbs: &'static [&'static str],
    /// Group and version of that kind, where they are not those that it is under.
    pub kind_is_of: Option<(&'static str, &'static str)>,
}

const VERBS: [&str; 8] = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

/// `/api`
pub(super) fn core_versions() -> Value {
    json!({ "kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": [] })
}

fn group(name: &str, versions: &[String]) -> Value {
    let of = |version: &String| json!({ "groupVersion": format!("{name}/{version}"), "version": version });
    let versions: Vec<Value> = versions.iter().map(of).collect();
    let preferred = versions.first().cloned();
    json!({ "name": name, "versions": versions, "preferredVersion": preferred })
}

fn versions(kinds: &[ServedKind], extra: &[ExtraResource]) -> BTreeMap<String, Vec<String>> {
    let mut groups: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let extra = extra.iter().map(|resource| (resource.group, "v1"));
    let all = kinds.iter().map(|kind| (&*kind.group, &*kind.version)).chain(extra);
    for (group, version) in all.filter(|(group, _)| !group.is_empty()) {
        let versions = groups.entry(group.to_owned()).or_default();
        if !versions.iter().any(|known| known == version) {
            versions.push(version.to_owned());
        }
    }
    for versions in groups.values_mut() {
        // A stable version goes before a beta, a beta before an alpha, the higher before the lower.
        versions.sort_by_key(|version| std::cmp::Reverse(rank(version)));
    }
    groups
}

fn rank(version: &str) -> (u8, u64, u64) {
    let Some(rest) = version.strip_prefix('v') else { return (0, 0, 0) };
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (major, rest) = rest.split_at(end);
    let major = major.parse().unwrap_or_default();
    let number = |text: &str| text.parse().unwrap_or_default();
    match (rest.strip_prefix("beta"), rest.strip_prefix("alpha")) {
        (Some(minor), _) => (2, major, number(minor)),
        (_, Some(minor)) => (1, major, number(minor)),
        _ if rest.is_empty() => (3, major, 0),
        _ => (0, 0, 0),
    }
}

/// `/apis`
pub(super) fn groups(kinds: &[ServedKind], extra: &[ExtraResource]) -> Value {
    let groups: Vec<Value> =
        versions(kinds, extra).iter().map(|(name, versions)| group(name, versions)).collect();
    json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups })
}

/// `/apis/<group>`
pub(super) fn one_group(kinds: &[ServedKind], extra: &[ExtraResource], name: &str) -> Option<Value> {
    let mut found = group(name, versions(kinds, extra).get(name)?);
    found["kind"] = json!("APIGroup");
    found["apiVersion"] = json!("v1");
    Some(found)
}

/// `/api/v1`, `/apis/<group>/<version>`
pub(super) fn resources(
    kinds: &[ServedKind],
    extra: &[ExtraResource],
    group: &str,
    version: &str,
) -> Option<Value> {
    let mut resources = Vec::new();
    let of_version = kinds.iter().filter(|kind| &*kind.group == group && &*kind.version == version);
    for kind in of_version {
        resources.extend(of_kind(kind));
    }
    for resource in extra.iter().filter(|resource| resource.group == group && version == "v1") {
        let mut entry = entry(resource.name, resource.namespaced, resource.kind, resource.verbs);
        if !resource.name.contains('/') {
            entry["singularName"] = json!(resource.kind.to_ascii_lowercase());
        }
        if let Some((group, version)) = resource.kind_is_of {
            entry["group"] = json!(group);
            entry["version"] = json!(version);
        }
        resources.push(entry);
    }
    if resources.is_empty() {
        return None;
    }
    let group_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    Some(
        json!({ "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources }),
    )
}

fn entry(name: &str, namespaced: bool, kind: &str, verbs: &[&str]) -> Value {
    json!({ "name": name, "singularName": "", "namespaced": namespaced, "kind": kind, "verbs": verbs })
}

/// A kind and its subresources.
fn of_kind(kind: &ServedKind) -> Vec<Value> {
    let mut main = entry(&kind.plural, kind.namespaced, &kind.kind, &VERBS);
    main["singularName"] = json!(&*kind.singular);
    if !kind.short_names.is_empty() {
        main["shortNames"] = kind.short_names.iter().map(|name| Value::from(&**name)).collect();
    }
    if !kind.categories.is_empty() {
        main["categories"] = kind.categories.iter().map(|name| Value::from(&**name)).collect();
    }
    let mut resources = vec![main];
    let subresource = |name: &str, of: &str, verbs: &[&str]| {
        entry(&format!("{}/{name}", kind.plural), kind.namespaced, of, verbs)
    };
    if kind.status != StatusSubresource::None {
        resources.push(subresource("status", &kind.kind, &["get", "patch", "update"]));
    }
    if kind.scale {
        let mut scale = subresource("scale", "Scale", &["get", "patch", "update"]);
        scale["group"] = json!("autoscaling");
        scale["version"] = json!("v1");
        resources.push(scale);
    }
    if kind.is(resource::PODS) {
        for name in ["ephemeralcontainers", "resize"] {
            resources.push(subresource(name, "Pod", &["get", "patch", "update"]));
        }
    }
    if kind.is(resource::NAMESPACES) {
        resources.push(subresource("finalize", "Namespace", &["update"]));
    }
    resources
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_and_every_extra_resource_is_discovered_once() {
        let kinds = crate::kind::built_in();
        let extra = [
            ExtraResource {
                group: "",
                name: "pods/eviction",
                namespaced: true,
                kind: "Eviction",
                verbs: &["create"],
                kind_is_of: Some(("policy", "v1")),
            },
            ExtraResource {
                group: "authorization.k8s.io",
                name: "subjectaccessreviews",
                namespaced: false,
                kind: "SubjectAccessReview",
                verbs: &["create"],
                kind_is_of: None,
            },
        ];
        let core = resources(&kinds, &extra, "", "v1").unwrap();
        let of = |name: &str| -> Vec<Value> {
            core["resources"].as_array().unwrap().iter().filter(|r| r["name"] == name).cloned().collect()
        };
        for name in [
            "pods",
            "pods/status",
            "pods/resize",
            "pods/ephemeralcontainers",
            "pods/eviction",
            "nodes",
            "namespaces/finalize",
        ] {
            assert_eq!(of(name).len(), 1, "{name}");
        }
        assert_eq!(
            (&of("pods/eviction")[0]["group"], &of("pods/eviction")[0]["version"]),
            (&json!("policy"), &json!("v1"))
        );
        assert!(resources(&kinds, &extra, "apps", "v2").is_none());
        assert!(one_group(&kinds, &extra, "apps").is_some() && one_group(&kinds, &extra, "nope").is_none());
        let reviews = resources(&kinds, &extra, "authorization.k8s.io", "v1").unwrap();
        assert_eq!(reviews["resources"][0]["singularName"], "subjectaccessreview");
        assert!(resources(&kinds, &[], "authorization.k8s.io", "v1").is_none());
    }

    #[test]
    fn stable_versions_go_first() {
        let mut versions = ["v1alpha1", "v2", "v1beta1", "v1", "v1beta2"];
        versions.sort_by_key(|v| std::cmp::Reverse(rank(v)));
        assert_eq!(versions, ["v2", "v1", "v1beta2", "v1beta1", "v1alpha1"]);
    }
}
