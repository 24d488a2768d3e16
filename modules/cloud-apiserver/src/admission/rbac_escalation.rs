//! RBAC escalation: nobody grants rights that he does not have himself. Roles and bindings are checked against the
//! rules of who writes them.

use apimachinery::{Kind, ObjectKey, kind};
use kubeapi::unstructured::{list, name, namespace, text};
use kubeapi::{ApiError, ApiRequest, Attributes, ReadStore};
use serde_json::{Value, json};

use crate::access::AccessControl;

/// 10,000: how many single rights a role is taken apart into for somebody without `escalate`. Each costs a look at all
/// rules of its writer.
const RIGHTS_MAX: usize = 10_000;

/// 20: how many missing rights a refusal names.
const SHOWN_MAX: usize = 20;

/// A role may give only what its writer has, unless he may `escalate` it.
///
/// # Errors
/// 403 with the rights that are missing.
pub(super) async fn validate_role(
    access: &dyn AccessControl,
    request: &ApiRequest<'_>,
    role: &Value,
) -> Result<(), ApiError> {
    if is_allowed(access, request, "escalate", request.kind(), name(role), namespace(role)).await {
        return Ok(());
    }
    if role["aggregationRule"].is_object() {
        let what = "must have cluster-admin privileges to use the aggregationRule";
        return Err(ApiError::forbidden_by_admission(request.kind(), name(role), what));
    }
    covers(access, request, role, list(role, "/rules")).await
}

/// A binding gives all of its role, unless its writer may `bind` that.
///
/// # Errors
/// 403 with the rights that are missing, 404 without such a role.
pub(super) async fn validate_binding(
    store: &impl ReadStore,
    access: &dyn AccessControl,
    request: &ApiRequest<'_>,
    binding: &Value,
) -> Result<(), ApiError> {
    let (role_kind, role_namespace) = match text(binding, "/roleRef/kind") {
        "Role" => (kind::ROLES, namespace(binding)),
        _ => (kind::CLUSTER_ROLES, ""),
    };
    let role = text(binding, "/roleRef/name");
    if is_allowed(access, request, "bind", &role_kind, role, namespace(binding)).await {
        return Ok(());
    }
    let item = store.get(&ObjectKey::new(role_kind.group_resource(), role_namespace, role)).await?;
    // What does not exist yet could become anything.
    let item = item.ok_or_else(|| ApiError::not_found(&role_kind, role))?;
    let role: Value = serde_json::from_slice(&item.json).unwrap_or_default();
    covers(access, request, binding, list(&role, "/rules")).await
}

async fn is_allowed(
    access: &dyn AccessControl,
    request: &ApiRequest<'_>,
    verb: &str,
    kind: &Kind,
    name: &str,
    namespace: &str,
) -> bool {
    let wanted = Attributes {
        verb: verb.to_owned(),
        group: kind.group.to_string(),
        version: kind.version.to_string(),
        resource: kind.plural.to_string(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        ..Attributes::default()
    };
    access.authorize(request.user, &wanted).await
}

/// Whether the user has all rights of `rules`, which `object` would give.
async fn covers(
    access: &dyn AccessControl,
    request: &ApiRequest<'_>,
    object: &Value,
    rules: &[Value],
) -> Result<(), ApiError> {
    let own = access.rules_for(request.user, namespace(object)).await;
    let missing = missing_rights(&own, rules);
    if missing.is_empty() {
        return Ok(());
    }
    let shown = missing.iter().take(SHOWN_MAX).cloned().collect::<Vec<_>>().join("\n");
    let what = format!(
        "user {:?} (groups={:?}) is attempting to grant RBAC permissions not currently held:\n{shown}",
        request.user.name, request.user.groups
    );
    Err(ApiError::forbidden_by_admission(request.kind(), name(object), &what))
}

/// One right: a verb on a resource of a group, by name or not, or a verb on a path.
struct Permission<'a> {
    verb: &'a str,
    on: PermissionTarget<'a>,
}

enum PermissionTarget<'a> {
    Resource { group: &'a str, resource: &'a str, name: Option<&'a str> },
    Path(&'a str),
}

fn words<'a>(rule: &'a Value, field: &str) -> Vec<&'a str> {
    list(rule, &format!("/{field}")).iter().filter_map(Value::as_str).collect()
}

/// A rule as the single rights that it gives; `None` if they are too many.
fn rights(rule: &Value) -> Option<Vec<Permission<'_>>> {
    let (verbs, groups) = (words(rule, "verbs"), words(rule, "apiGroups"));
    let (resources, paths) = (words(rule, "resources"), words(rule, "nonResourceURLs"));
    let names = words(rule, "resourceNames");
    let names: Vec<Option<&str>> =
        if names.is_empty() { vec![None] } else { names.into_iter().map(Some).collect() };
    let of_resources = [verbs.len(), groups.len(), resources.len(), names.len()];
    let count = of_resources.iter().try_fold(1_usize, |all, many| all.checked_mul(*many));
    let count = count.and_then(|count| count.checked_add(verbs.len().checked_mul(paths.len())?));
    count.filter(|count| *count <= RIGHTS_MAX)?;
    let mut found = Vec::new();
    for verb in verbs {
        for group in &groups {
            for resource in &resources {
                let all =
                    names.iter().map(|name| PermissionTarget::Resource { group, resource, name: *name });
                found.extend(all.map(|on| Permission { verb, on }));
            }
        }
        found.extend(paths.iter().map(|path| Permission { verb, on: PermissionTarget::Path(path) }));
    }
    Some(found)
}

impl Permission<'_> {
    fn is_given_by(&self, rule: &Value) -> bool {
        let has = |field: &str, matches: &dyn Fn(&str) -> bool| words(rule, field).into_iter().any(matches);
        if !has("verbs", &|verb| verb == "*" || verb == self.verb) {
            return false;
        }
        match &self.on {
            PermissionTarget::Path(path) => has("nonResourceURLs", &|own| match own.strip_suffix('*') {
                Some(prefix) => path.starts_with(prefix),
                None => own == *path,
            }),
            PermissionTarget::Resource { group, resource, name } => {
                let of_any = resource.split_once('/').map(|(_, sub)| format!("*/{sub}"));
                let names = words(rule, "resourceNames");
                has("apiGroups", &|own| own == "*" || own == *group)
                    && has("resources", &|own| {
                        own == "*" || own == *resource || of_any.as_deref() == Some(own)
                    })
                    // A right without a name is only in a rule without names.
                    && (names.is_empty() || name.is_some_and(|name| names.contains(&name)))
            }
        }
    }

    fn as_rule(&self) -> String {
        let rule = match &self.on {
            PermissionTarget::Path(path) => json!({ "nonResourceURLs": [path], "verbs": [self.verb] }),
            PermissionTarget::Resource { group, resource, name: None } => {
                json!({ "apiGroups": [group], "resources": [resource], "verbs": [self.verb] })
            }
            PermissionTarget::Resource { group, resource, name: Some(name) } => {
                json!({ "apiGroups": [group], "resources": [resource], "resourceNames": [name], "verbs": [self.verb] })
            }
        };
        rule.to_string()
    }
}

/// What `rules` give that `own` do not, in words; empty if nothing.
fn missing_rights(own: &[Value], rules: &[Value]) -> Vec<String> {
    let mut found = Vec::new();
    let mut left = RIGHTS_MAX;
    for rule in rules {
        let rights = rights(rule).filter(|rights| rights.len() <= left);
        let Some(rights) = rights else {
            found.push(format!("more than {RIGHTS_MAX} single rights, which only who may `escalate` gives"));
            break;
        };
        left -= rights.len();
        let missing = rights.iter().filter(|right| !own.iter().any(|rule| right.is_given_by(rule)));
        found.extend(missing.map(Permission::as_rule));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(groups: &[&str], resources: &[&str], verbs: &[&str], names: &[&str]) -> Value {
        json!({"apiGroups": groups, "resources": resources, "verbs": verbs, "resourceNames": names})
    }

    #[test]
    fn what_one_has_one_may_give() {
        let own = [
            rule(&[""], &["pods", "*/status"], &["get", "list"], &[]),
            rule(&[""], &["secrets"], &["get"], &["mine"]),
            json!({"nonResourceURLs": ["/metrics", "/openapi/*"], "verbs": ["get"]}),
        ];
        let given = |wanted: Value| missing_rights(&own, &[wanted]).is_empty();
        for good in [
            rule(&[""], &["pods"], &["get", "list"], &[]),
            rule(&[""], &["pods"], &["get"], &["one"]),
            rule(&[""], &["nodes/status"], &["get"], &[]),
            rule(&[""], &["secrets"], &["get"], &["mine"]),
            json!({"nonResourceURLs": ["/metrics", "/openapi/v3"], "verbs": ["get"]}),
        ] {
            assert!(given(good.clone()), "{good}");
        }
        for bad in [
            rule(&[""], &["pods"], &["get", "delete"], &[]),
            rule(&["", "apps"], &["pods"], &["get"], &[]),
            rule(&["*"], &["pods"], &["get"], &[]),
            rule(&[""], &["*"], &["get"], &[]),
            rule(&[""], &["pods"], &["*"], &[]),
            rule(&[""], &["pods/log"], &["get"], &[]),
            rule(&[""], &["secrets"], &["get"], &[]),
            rule(&[""], &["secrets"], &["get"], &["mine", "yours"]),
            json!({"nonResourceURLs": ["/metrics/x"], "verbs": ["get"]}),
            json!({"nonResourceURLs": ["*"], "verbs": ["get"]}),
        ] {
            assert!(!given(bad.clone()), "{bad}");
        }
    }

    #[test]
    fn an_empty_name_is_not_every_name() {
        let own = [rule(&[""], &["secrets"], &["get"], &[""])];
        assert_eq!(missing_rights(&own, &[rule(&[""], &["secrets"], &["get"], &[])]).len(), 1);
    }

    #[test]
    fn a_role_that_would_take_forever_is_refused() {
        let many: Vec<String> = (0..200).map(|n| format!("r{n}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let all = [rule(&["*"], &["*"], &["*"], &[])];
        let missing = missing_rights(&all, &[rule(&many, &many, &many, &many)]);
        assert!(missing.len() == 1 && missing[0].contains("escalate"), "{missing:?}");
        // Nor by many rules.
        let missing = missing_rights(&all, &vec![rule(&["a"], &many, &["get"], &[]); 100]);
        assert_eq!(missing.len(), 1, "{missing:?}");
    }
}
