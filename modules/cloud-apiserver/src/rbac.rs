//! What a user may: Kubernetes' role-based access control over the stored roles and bindings.

use apimachinery::ObjectKey;
use kubeapi::{Attributes, Range, ReadStore, User};
use serde_json::Value;

const GROUP: &str = "rbac.authorization.k8s.io";

/// Whether `user` may do what `attributes` say.
pub(crate) async fn allows(store: &impl ReadStore, user: &User, attributes: &Attributes) -> bool {
    if user.groups.iter().any(|group| group == "system:masters") {
        return true;
    }
    let namespaces = ["", attributes.namespace.as_str()];
    let distinct = if attributes.namespace.is_empty() { 1 } else { 2 };
    for namespace in namespaces.into_iter().take(distinct) {
        let rules = bound_in(store, user, namespace).await;
        if rules.iter().any(|rule| rule_allows(rule, attributes)) {
            return true;
        }
    }
    false
}

/// The rules that `user` has in `namespace`, with those of the whole cluster.
pub(crate) async fn rules_for(store: &impl ReadStore, user: &User, namespace: &str) -> Vec<Value> {
    let mut rules = bound_in(store, user, "").await;
    if !namespace.is_empty() {
        rules.extend(bound_in(store, user, namespace).await);
    }
    rules
}

/// The rules of the bindings of one namespace; an empty one stands for those of the cluster.
async fn bound_in(store: &impl ReadStore, user: &User, namespace: &str) -> Vec<Value> {
    let bindings = match namespace {
        "" => objects(store, "clusterrolebindings", None).await,
        namespace => objects(store, "rolebindings", Some(namespace)).await,
    };
    let mut rules = Vec::new();
    for binding in bindings.iter().filter(|binding| names(binding, user, namespace)) {
        rules.extend(role_rules(store, &binding["roleRef"], namespace).await);
    }
    rules
}

async fn objects(store: &impl ReadStore, plural: &str, namespace: Option<&str>) -> Vec<Value> {
    let range = Range {
        resource: format!("{plural}.{GROUP}"),
        namespace: namespace.map(str::to_owned),
        after: None,
        limit: None,
    };
    // A store that does not answer allows nothing.
    let items = store.list(range).await.map(|page| page.items).unwrap_or_default();
    items.iter().filter_map(|item| serde_json::from_slice(&item.json).ok()).collect()
}

/// Whether the binding is about the user.
fn names(binding: &Value, user: &User, namespace: &str) -> bool {
    let subjects = binding["subjects"].as_array().map(Vec::as_slice).unwrap_or_default();
    subjects.iter().any(|subject| {
        let name = subject["name"].as_str().unwrap_or_default();
        match subject["kind"].as_str() {
            Some("User") => name == user.name,
            Some("Group") => user.groups.iter().any(|group| group == name),
            Some("ServiceAccount") => {
                let of = subject["namespace"].as_str().unwrap_or(namespace);
                user.name == format!("system:serviceaccount:{of}:{name}")
            }
            _ => false,
        }
    })
}

/// The rules of the role that a binding of `namespace` refers to. A binding of the cluster has no Role.
async fn role_rules(store: &impl ReadStore, reference: &Value, namespace: &str) -> Vec<Value> {
    let (plural, namespace) = match reference["kind"].as_str() {
        Some("ClusterRole") => ("clusterroles", String::new()),
        Some("Role") if !namespace.is_empty() => ("roles", namespace.to_owned()),
        _ => return Vec::new(),
    };
    let name = reference["name"].as_str().unwrap_or_default();
    let key = ObjectKey::new(format!("{plural}.{GROUP}"), namespace, name);
    let Ok(Some(item)) = store.get(&key).await else { return Vec::new() };
    let mut role: Value = serde_json::from_slice(&item.json).unwrap_or_default();
    match role["rules"].take() {
        Value::Array(rules) => rules,
        _ => Vec::new(),
    }
}

fn rule_allows(rule: &Value, wanted: &Attributes) -> bool {
    let has = |field: &str, matches: &dyn Fn(&str) -> bool| {
        rule[field].as_array().into_iter().flatten().filter_map(Value::as_str).any(matches)
    };
    if !has("verbs", &|verb| verb == "*" || verb == wanted.verb) {
        return false;
    }
    if wanted.resource.is_empty() {
        return has("nonResourceURLs", &|url| match url.strip_suffix('*') {
            Some(prefix) => wanted.path.starts_with(prefix),
            None => url == wanted.path,
        });
    }
    let resource = if wanted.subresource.is_empty() {
        wanted.resource.clone()
    } else {
        format!("{}/{}", wanted.resource, wanted.subresource)
    };
    let any_of_subresource = format!("*/{}", wanted.subresource);
    has("apiGroups", &|group| group == "*" || group == wanted.group)
        && has("resources", &|r| {
            r == "*" || r == resource || (!wanted.subresource.is_empty() && r == any_of_subresource)
        })
        && (rule["resourceNames"].as_array().is_none_or(Vec::is_empty)
            || has("resourceNames", &|name| name == wanted.name))
}

/// The refusal in Kubernetes' words.
pub(crate) fn refusal(user: &User, wanted: &Attributes) -> String {
    if wanted.resource.is_empty() {
        return format!("forbidden: User \"{}\" cannot {} path \"{}\"", user.name, wanted.verb, wanted.path);
    }
    let mut resource = wanted.resource.clone();
    if !wanted.subresource.is_empty() {
        resource = format!("{resource}/{}", wanted.subresource);
    }
    let group_resource = if wanted.group.is_empty() {
        wanted.resource.clone()
    } else {
        format!("{}.{}", wanted.resource, wanted.group)
    };
    let named = if wanted.name.is_empty() { String::new() } else { format!(" \"{}\"", wanted.name) };
    let place = if wanted.namespace.is_empty() {
        "at the cluster scope".to_owned()
    } else {
        format!("in the namespace \"{}\"", wanted.namespace)
    };
    format!(
        "{group_resource}{named} is forbidden: User \"{}\" cannot {} resource \"{resource}\" in API group \"{}\" {place}",
        user.name, wanted.verb, wanted.group
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn rules_match_as_in_kubernetes() {
        let wanted = |verb: &str, resource: &str, sub: &str, name: &str| Attributes {
            verb: verb.into(),
            resource: resource.into(),
            subresource: sub.into(),
            name: name.into(),
            ..Attributes::default()
        };
        let rule =
            json!({"apiGroups": [""], "resources": ["pods", "nodes/status"], "verbs": ["get", "patch"]});
        assert!(rule_allows(&rule, &wanted("get", "pods", "", "a")));
        assert!(rule_allows(&rule, &wanted("patch", "nodes", "status", "a")));
        assert!(!rule_allows(&rule, &wanted("get", "pods", "log", "a")));
        assert!(!rule_allows(&rule, &wanted("delete", "pods", "", "a")));
        assert!(!rule_allows(&rule, &wanted("get", "nodes", "", "a")));
        let one = json!({"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"], "resourceNames": ["x"]});
        assert!(
            rule_allows(&one, &wanted("get", "pods", "", "x"))
                && !rule_allows(&one, &wanted("get", "pods", "", "y"))
        );
        let path = Attributes { verb: "get".into(), path: "/openapi/v3".into(), ..Attributes::default() };
        assert!(rule_allows(&json!({"nonResourceURLs": ["/openapi*"], "verbs": ["get"]}), &path));
        assert!(!rule_allows(&json!({"nonResourceURLs": ["/version"], "verbs": ["get"]}), &path));
    }
}
