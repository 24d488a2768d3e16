//! What a user may: Kubernetes' role-based access control over the stored roles and bindings.

use std::sync::Arc;

use apimachinery::ObjectKey;
use k8s_openapi::api::rbac::v1::RoleRef;
use kubeapi::{Attributes, Range, ReadStore, User};
use serde_json::Value;

use crate::rbac_cache::{Binding, RbacCache};

const GROUP: &str = "rbac.authorization.k8s.io";

/// Whether `user` may do what `attributes` say.
pub(crate) async fn allows(
    store: &impl ReadStore,
    cache: &RbacCache,
    user: &User,
    attributes: &Attributes,
) -> bool {
    if user.groups.iter().any(|group| group == "system:masters") {
        return true;
    }
    let namespaces = ["", attributes.namespace.as_str()];
    let distinct = if attributes.namespace.is_empty() { 1 } else { 2 };
    for namespace in namespaces.into_iter().take(distinct) {
        for binding in bindings_of(store, cache, user, namespace).await {
            let rules = role_rules(store, cache, &binding.role_ref, namespace).await;
            if rules.iter().any(|rule| rule_allows(rule, attributes)) {
                return true;
            }
        }
    }
    false
}

/// The rules that `user` has in `namespace`, with those of the whole cluster.
pub(crate) async fn rules_for(
    store: &impl ReadStore,
    cache: &RbacCache,
    user: &User,
    namespace: &str,
) -> Vec<Value> {
    let mut all = Vec::new();
    let namespaces = ["", namespace];
    for namespace in namespaces.into_iter().take(if namespace.is_empty() { 1 } else { 2 }) {
        for binding in bindings_of(store, cache, user, namespace).await {
            let rules = role_rules(store, cache, &binding.role_ref, namespace).await;
            all.extend(rules.iter().cloned());
        }
    }
    all
}

/// The bindings of one namespace that are about the user; an empty one stands for those of the cluster.
async fn bindings_of(
    store: &impl ReadStore,
    cache: &RbacCache,
    user: &User,
    namespace: &str,
) -> Vec<Arc<Binding>> {
    let (plural, within) = match namespace {
        "" => ("clusterrolebindings", None),
        namespace => ("rolebindings", Some(namespace.to_owned())),
    };
    let range = Range { resource: format!("{plural}.{GROUP}"), namespace: within, after: None, limit: None };
    // A store that does not answer allows nothing.
    let items = store.list(range).await.map(|page| page.items).unwrap_or_default();
    let bindings = items.iter().map(|item| cache.binding(item));
    bindings.filter(|binding| names(binding, user, namespace)).collect()
}

/// Whether the binding is about the user.
fn names(binding: &Binding, user: &User, namespace: &str) -> bool {
    binding.subjects.iter().any(|subject| match subject.kind.as_str() {
        "User" => subject.name == user.name,
        "Group" => user.groups.contains(&subject.name),
        "ServiceAccount" => {
            let of = subject.namespace.as_deref().unwrap_or(namespace);
            let account = user.name.strip_prefix("system:serviceaccount:");
            account.and_then(|account| account.split_once(':')) == Some((of, &subject.name))
        }
        _ => false,
    })
}

/// The rules of the role that a binding of `namespace` refers to. A binding of the cluster has no Role.
async fn role_rules(
    store: &impl ReadStore,
    cache: &RbacCache,
    reference: &RoleRef,
    namespace: &str,
) -> Arc<Vec<Value>> {
    let (plural, namespace) = match reference.kind.as_str() {
        "ClusterRole" => ("clusterroles", String::new()),
        "Role" if !namespace.is_empty() => ("roles", namespace.to_owned()),
        _ => return Arc::default(),
    };
    let key = ObjectKey::new(format!("{plural}.{GROUP}"), namespace, &reference.name);
    match store.get(&key).await {
        Ok(Some(item)) => cache.rules(&item),
        Ok(None) | Err(_) => Arc::default(),
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
