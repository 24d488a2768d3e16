//! Users and groups of a pod's processes (Kubernetes: `ValidatePodSecurityContext`, `ValidateSecurityContext`).

use serde_json::Value;

use crate::error::FieldError;
use crate::unstructured::list;

/// What is wrong with the ids in a pod's spec, at `path`.
pub(super) fn ids(spec: &Value, path: &str, causes: &mut Vec<FieldError>) {
    let whole = &spec["securityContext"];
    let here = format!("{path}.securityContext");
    for field in ["runAsUser", "runAsGroup", "fsGroup"] {
        id(&whole[field], || format!("{here}.{field}"), causes);
    }
    for (at, group) in list(whole, "/supplementalGroups").iter().enumerate() {
        id(group, || format!("{here}.supplementalGroups[{at}]"), causes);
    }
    for kind in ["initContainers", "containers", "ephemeralContainers"] {
        for (at, container) in list(spec, &format!("/{kind}")).iter().enumerate() {
            for field in ["runAsUser", "runAsGroup"] {
                let here = || format!("{path}.{kind}[{at}].securityContext.{field}");
                id(&container["securityContext"][field], here, causes);
            }
        }
    }
}

fn id(id: &Value, field: impl FnOnce() -> String, causes: &mut Vec<FieldError>) {
    if !id.is_null() && !id.as_i64().is_some_and(|id| (0..=i64::from(i32::MAX)).contains(&id)) {
        causes.push(FieldError::invalid(field(), id, "must be between 0 and 2147483647, inclusive"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn ids_are_those_that_linux_has() {
        let told = |spec: Value| {
            let mut causes = Vec::new();
            ids(&spec, "spec", &mut causes);
            causes.into_iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect::<Vec<_>>()
        };
        let most = i32::MAX;
        let fine = json!({"securityContext": {"runAsUser": 0, "supplementalGroups": [most]},
            "containers": [{"securityContext": {"runAsUser": most}}, {}]});
        assert_eq!(told(fine), Vec::<String>::new());
        let odd = json!({"securityContext": {"runAsUser": -1, "fsGroup": 1_i64 << 40, "supplementalGroups": [-2]},
            "initContainers": [{"securityContext": {"runAsGroup": -1}}]});
        let what = "must be between 0 and 2147483647, inclusive";
        assert_eq!(
            told(odd),
            [
                format!("spec.securityContext.runAsUser: Invalid value: -1: {what}"),
                format!("spec.securityContext.fsGroup: Invalid value: 1099511627776: {what}"),
                format!("spec.securityContext.supplementalGroups[0]: Invalid value: -2: {what}"),
                format!("spec.initContainers[0].securityContext.runAsGroup: Invalid value: -1: {what}")
            ]
        );
    }
}
