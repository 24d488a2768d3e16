//! Admission: what a valid object may not do here. Escalation of rights, and the Pod Security Standards.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::api::{Api, Call};
use crate::escalation;
use crate::failure::{Failure, Names};
use crate::field::{list, name, namespace, text};
use crate::podsecurity::{self, Level, Policy, Standard, Subject};
use crate::priority;
use crate::request::Attributes;
use crate::store::{Key, Range, Store};

const RBAC: &str = "rbac.authorization.k8s.io";
/// 3,000: how many pods of a namespace are looked at when its level rises.
const PODS_MAX: usize = 3000;
/// 20: how many missing rights a refusal names.
const TOLD_MAX: usize = 20;

impl<S: Store> Api<S> {
    /// Whether the user of `call` may make `new` of `old` (nothing: a create). Answers warnings.
    ///
    /// # Errors
    /// 403 with what is against it; 422 for labels of a namespace that say no level.
    pub(crate) async fn admit(
        &self,
        call: &Call<'_>,
        old: Option<&Value>,
        new: &Value,
    ) -> Result<Vec<String>, Failure> {
        if call.kind.is("pods") {
            priority::admit_mirror(call.user, old, new)
                .map_err(|what| Failure::refused(&call.kind.names_of(), name(new), what))?;
        }
        if !call.attributes.subresource.is_empty() {
            // Those that write the object's main part change a number or a finalizer.
            return Ok(Vec::new());
        }
        let differs = |pointer: &str| old.is_none_or(|old| old.pointer(pointer) != new.pointer(pointer));
        match call.kind.group_resource().as_str() {
            "roles.rbac.authorization.k8s.io" | "clusterroles.rbac.authorization.k8s.io" => {
                if differs("/rules") || differs("/aggregationRule") {
                    self.admit_role(call, new).await?;
                }
                Ok(Vec::new())
            }
            "rolebindings.rbac.authorization.k8s.io" | "clusterrolebindings.rbac.authorization.k8s.io" => {
                if differs("/subjects") || differs("/roleRef") {
                    self.admit_binding(call, new).await?;
                }
                Ok(Vec::new())
            }
            "namespaces" => self.admit_namespace(call, old, new).await,
            "pods" if old.is_none_or(|old| podsecurity::is_significant(old, new)) => {
                let policy = self.policy_of(namespace(new)).await?;
                let pod = Subject { metadata: &new["metadata"], spec: &new["spec"] };
                enforce(policy.enforce, pod, &call.kind.names_of(), new)?;
                Ok(warnings(policy.warn, pod))
            }
            // Nothing is refused yet: the pods will be.
            "deployments.apps" | "replicasets.apps" => {
                let policy = self.policy_of(namespace(new)).await?;
                let template = &new["spec"]["template"];
                Ok(warnings(
                    policy.warn,
                    Subject { metadata: &template["metadata"], spec: &template["spec"] },
                ))
            }
            _ => Ok(Vec::new()),
        }
    }

    /// A role may give only what its writer has, unless he may `escalate` it.
    async fn admit_role(&self, call: &Call<'_>, role: &Value) -> Result<(), Failure> {
        if self.may(call, "escalate", &call.kind.plural, name(role), namespace(role)).await {
            return Ok(());
        }
        if role["aggregationRule"].is_object() {
            let what = "must have cluster-admin privileges to use the aggregationRule";
            return Err(Failure::refused(&call.kind.names_of(), name(role), what));
        }
        self.confirm(call, role, list(role, "/rules")).await
    }

    /// A binding gives all of its role, unless its writer may `bind` that.
    async fn admit_binding(&self, call: &Call<'_>, binding: &Value) -> Result<(), Failure> {
        let (plural, kind, space) = match text(binding, "/roleRef/kind") {
            "Role" => ("roles", "Role", namespace(binding)),
            _ => ("clusterroles", "ClusterRole", ""),
        };
        let role = text(binding, "/roleRef/name");
        if self.may(call, "bind", plural, role, namespace(binding)).await {
            return Ok(());
        }
        let names = Names { group: RBAC, plural, kind };
        let key =
            Key { resource: names.group_resource(), namespace: space.to_owned(), name: role.to_owned() };
        let item = self.inner.store.get(&key).await?;
        // What does not exist yet could become anything.
        let item = item.ok_or_else(|| Failure::not_found(&names, role))?;
        let role: Value = serde_json::from_slice(&item.json).unwrap_or_default();
        self.confirm(call, binding, list(&role, "/rules")).await
    }

    async fn may(&self, call: &Call<'_>, verb: &str, plural: &str, name: &str, namespace: &str) -> bool {
        let wanted = Attributes {
            verb: verb.to_owned(),
            group: RBAC.to_owned(),
            version: "v1".to_owned(),
            resource: plural.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            ..Attributes::default()
        };
        self.inner.options.hooks.authorize(call.user, &wanted).await
    }

    async fn confirm(&self, call: &Call<'_>, object: &Value, rules: &[Value]) -> Result<(), Failure> {
        let own = self.inner.options.hooks.rules_of(call.user, namespace(object)).await;
        let beyond = escalation::beyond(&own, rules);
        if beyond.is_empty() {
            return Ok(());
        }
        let told = beyond.iter().take(TOLD_MAX).cloned().collect::<Vec<_>>().join("\n");
        let what = format!(
            "user {:?} (groups={:?}) is attempting to grant RBAC permissions not currently held:\n{told}",
            call.user.name, call.user.groups
        );
        Err(Failure::refused(&call.kind.names_of(), name(object), &what))
    }

    async fn policy_of(&self, namespace: &str) -> Result<Policy, Failure> {
        let key =
            Key { resource: "namespaces".to_owned(), namespace: String::new(), name: namespace.to_owned() };
        let item = self.inner.store.get(&key).await?;
        let names = Names { group: "", plural: "namespaces", kind: "Namespace" };
        let item = item.ok_or_else(|| Failure::not_found(&names, namespace))?;
        let object = serde_json::from_slice(&item.json).map_err(|error| Failure::internal(&error))?;
        Ok(podsecurity::policy(&object).0)
    }

    /// Labels that say no level are refused, and pods that a new level would not let in are told.
    async fn admit_namespace(
        &self,
        call: &Call<'_>,
        old: Option<&Value>,
        new: &Value,
    ) -> Result<Vec<String>, Failure> {
        let (policy, wrong) = podsecurity::policy(new);
        let (before, wrong_before) = match old {
            Some(old) => podsecurity::policy(old),
            None => (policy, Vec::new()),
        };
        if !wrong.is_empty() && wrong != wrong_before {
            return Err(Failure::invalid(&call.kind.names_of(), name(new), &wrong));
        }
        let (enforce, enforced) = (policy.enforce, before.enforce);
        let relaxed = enforce.version == enforced.version && enforce.level <= enforced.level;
        if enforce.level == Level::Privileged || relaxed {
            return Ok(Vec::new());
        }
        self.pods_against(name(new), enforce).await
    }

    async fn pods_against(&self, namespace: &str, enforce: Standard) -> Result<Vec<String>, Failure> {
        let range = Range {
            resource: "pods".to_owned(),
            namespace: Some(namespace.to_owned()),
            after: None,
            limit: Some(PODS_MAX),
        };
        let page = self.inner.store.list(range).await?;
        // Reasons, the first pod and how many more.
        let mut found: BTreeMap<String, (String, usize)> = BTreeMap::new();
        for item in &page.items {
            let Ok(pod) = serde_json::from_slice::<Value>(&item.json) else { continue };
            let pod = Subject { metadata: &pod["metadata"], spec: &pod["spec"] };
            let violations = podsecurity::violations(enforce, pod);
            let reasons: Vec<&str> = violations.iter().map(|violation| violation.reason.as_str()).collect();
            if !reasons.is_empty() {
                let entry = found.entry(reasons.join(", "));
                entry.and_modify(|(_, more)| *more += 1).or_insert((item.key.name.clone(), 0));
            }
        }
        let mut told = Vec::new();
        if page.more {
            told.push(format!(
                "new PodSecurity enforce level only checked against the first {PODS_MAX} pods"
            ));
        }
        if !found.is_empty() {
            told.push(format!(
                "existing pods in namespace \"{namespace}\" violate the new PodSecurity enforce level \"{enforce}\""
            ));
        }
        let mut pods: Vec<String> = found
            .into_iter()
            .map(|(reasons, (first, more))| match more {
                0 => format!("{first}: {reasons}"),
                1 => format!("{first} (and 1 other pod): {reasons}"),
                more => format!("{first} (and {more} other pods): {reasons}"),
            })
            .collect();
        pods.sort();
        told.extend(pods);
        Ok(told)
    }
}

fn enforce(standard: Standard, pod: Subject<'_>, names: &Names<'_>, object: &Value) -> Result<(), Failure> {
    let violations = podsecurity::violations(standard, pod);
    if violations.is_empty() {
        return Ok(());
    }
    let what = format!("violates PodSecurity \"{standard}\": {}", podsecurity::detailed(&violations));
    Err(Failure::refused(names, name(object), &what))
}

fn warnings(standard: Standard, pod: Subject<'_>) -> Vec<String> {
    let violations = podsecurity::violations(standard, pod);
    if violations.is_empty() {
        return Vec::new();
    }
    vec![format!("would violate PodSecurity \"{standard}\": {}", podsecurity::detailed(&violations))]
}
