//! The PodSecurity plugin: the standards of a namespace, held against its pods.

use std::collections::BTreeMap;

use apimachinery::{Kind, ObjectKey, kind, resource};
use kubeapi::unstructured::{name, namespace};
use kubeapi::{ApiError, ApiRequest, Range, ReadStore};
use serde_json::Value;

use super::{Level, Policy, Standard, Subject, detailed, is_significant, policy, violations};

/// 3,000: how many pods of a namespace are looked at when its level rises.
const PODS_MAX: usize = 3000;

/// # Errors
/// 403 for a pod that breaks what its namespace enforces. Answers warnings.
pub(in crate::admission) async fn validate_pod(
    store: &impl ReadStore,
    old: Option<&Value>,
    new: &Value,
) -> Result<Vec<String>, ApiError> {
    if old.is_some_and(|old| !is_significant(old, new)) {
        return Ok(Vec::new());
    }
    let policy = policy_of(store, namespace(new)).await?;
    let pod = Subject { metadata: &new["metadata"], spec: &new["spec"] };
    enforce(policy.enforce, pod, &kind::PODS, new)?;
    Ok(warnings(policy.warn, pod))
}

/// Warnings about the pods that a workload will make. Nothing is refused yet: the pods will be.
pub(in crate::admission) async fn warn_of_template(
    store: &impl ReadStore,
    workload: &Value,
) -> Result<Vec<String>, ApiError> {
    let policy = policy_of(store, namespace(workload)).await?;
    let template = &workload["spec"]["template"];
    Ok(warnings(policy.warn, Subject { metadata: &template["metadata"], spec: &template["spec"] }))
}

async fn policy_of(store: &impl ReadStore, namespace: &str) -> Result<Policy, ApiError> {
    let item = store.get(&ObjectKey::new(resource::NAMESPACES, "", namespace)).await?;
    let item = item.ok_or_else(|| ApiError::not_found(&kind::NAMESPACES, namespace))?;
    let object = serde_json::from_slice(&item.json).map_err(|error| ApiError::internal(&error))?;
    Ok(policy(&object).0)
}

/// Labels that say no level are refused, and pods that a new level would not let in are named in warnings.
///
/// # Errors
/// 422 for such labels.
pub(in crate::admission) async fn validate_namespace(
    store: &impl ReadStore,
    request: &ApiRequest<'_>,
    old: Option<&Value>,
    new: &Value,
) -> Result<Vec<String>, ApiError> {
    let (wanted, wrong) = policy(new);
    let (before, wrong_before) = match old {
        Some(old) => policy(old),
        None => (wanted, Vec::new()),
    };
    if !wrong.is_empty() && wrong != wrong_before {
        return Err(ApiError::invalid(request.kind(), name(new), &wrong));
    }
    let (enforce, enforced) = (wanted.enforce, before.enforce);
    let relaxed = enforce.version == enforced.version && enforce.level <= enforced.level;
    if enforce.level == Level::Privileged || relaxed {
        return Ok(Vec::new());
    }
    violating_pods(store, name(new), enforce).await
}

async fn violating_pods(
    store: &impl ReadStore,
    namespace: &str,
    enforce: Standard,
) -> Result<Vec<String>, ApiError> {
    let range = Range {
        resource: resource::PODS.to_owned(),
        namespace: Some(namespace.to_owned()),
        after: None,
        limit: Some(PODS_MAX),
    };
    let page = store.list(range).await?;
    // Reasons, the first pod and how many more.
    let mut found: BTreeMap<String, (String, usize)> = BTreeMap::new();
    for item in &page.items {
        let Ok(pod) = serde_json::from_slice::<Value>(&item.json) else { continue };
        let pod = Subject { metadata: &pod["metadata"], spec: &pod["spec"] };
        let found_here = violations(enforce, pod);
        let reasons: Vec<&str> = found_here.iter().map(|violation| violation.reason.as_str()).collect();
        if !reasons.is_empty() {
            let entry = found.entry(reasons.join(", "));
            entry.and_modify(|(_, more)| *more += 1).or_insert((item.key.name.clone(), 0));
        }
    }
    let mut warnings = Vec::new();
    if page.more {
        warnings
            .push(format!("new PodSecurity enforce level only checked against the first {PODS_MAX} pods"));
    }
    if !found.is_empty() {
        warnings.push(format!(
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
    warnings.extend(pods);
    Ok(warnings)
}

fn enforce(standard: Standard, pod: Subject<'_>, kind: &Kind, object: &Value) -> Result<(), ApiError> {
    let found = violations(standard, pod);
    if found.is_empty() {
        return Ok(());
    }
    let what = format!("violates PodSecurity \"{standard}\": {}", detailed(&found));
    Err(ApiError::forbidden_by_admission(kind, name(object), &what))
}

fn warnings(standard: Standard, pod: Subject<'_>) -> Vec<String> {
    let found = violations(standard, pod);
    if found.is_empty() {
        return Vec::new();
    }
    vec![format!("would violate PodSecurity \"{standard}\": {}", detailed(&found))]
}
