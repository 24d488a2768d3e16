//! Definitions of KubeEdge's, by which this release works while KubeEdge's own CloudCore does. Pure.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, CustomResourceDefinitionSpec as Spec,
    CustomResourceDefinitionVersion as Version,
};

/// The label of each definition that is of a release of this project, and its value.
pub(crate) const PART_OF: (&str, &str) = ("app.kubernetes.io/part-of", "kubehive");

/// The end of KubeEdge's API groups.
const KUBEEDGE_GROUPS: &str = ".kubeedge.io";

/// Whether a definition may be KubeEdge's: it is of one of its groups, and no release of this project has written it.
pub fn is_kubeedges(definition: &CustomResourceDefinition) -> bool {
    let labels = definition.metadata.labels.as_ref();
    let is_marked = labels.and_then(|labels| labels.get(PART_OF.0)).is_some_and(|value| value == PART_OF.1);
    definition.spec.group.ends_with(KUBEEDGE_GROUPS) && !is_marked
}

/// Whether what is read and written by the definition `ours` can be by `theirs`, which is KubeEdge's. What `ours` has beside is not kept
/// then, and what makes no sense is not refused by the API server.
///
/// # Errors
/// What is wrong with it, after the definition's name.
pub fn stands_in(theirs: &CustomResourceDefinition, ours: &CustomResourceDefinition) -> Result<(), String> {
    let (theirs, ours) = (&theirs.spec, &ours.spec);
    let of_names = |spec: &Spec| {
        (spec.group.clone(), spec.names.plural.clone(), spec.names.kind.clone(), spec.scope.clone())
    };
    if of_names(theirs) != of_names(ours) {
        return Err("is of another kind or scope".to_owned());
    }
    let Some(wanted) = ours.versions.iter().find(|version| version.storage) else { return Ok(()) };
    let Some(version) = theirs.versions.iter().find(|version| version.name == wanted.name) else {
        return Err(format!("has no version {}", wanted.name));
    };
    if !version.served || !version.storage {
        return Err(format!("does not serve and store {}", wanted.name));
    }
    let has_status = |version: &Version| {
        version.subresources.as_ref().is_some_and(|subresources| subresources.status.is_some())
    };
    if has_status(version) != has_status(wanted) {
        let state = if has_status(wanted) { "lacks" } else { "has" };
        return Err(format!("{state} the subresource status in {}", wanted.name));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// As KubeEdge's chart has it: the versions, and whether they have a status of their own.
    fn kubeedges(plural: &str, versions: &[(&str, bool, bool)]) -> CustomResourceDefinition {
        let ours = crate::manifests().into_iter().find(|one| one.spec.names.plural == plural).unwrap();
        let mut theirs = serde_json::to_value(ours).unwrap();
        theirs["metadata"] = json!({"name": theirs["metadata"]["name"]});
        let version = |(name, storage, status): &(&str, bool, bool)| {
            let subresources = if *status { json!({"status": {}}) } else { Value::Null };
            json!({"name": name, "served": true, "storage": storage, "subresources": subresources})
        };
        theirs["spec"]["versions"] = versions.iter().map(version).collect();
        serde_json::from_value(theirs).unwrap()
    }

    #[test]
    fn what_a_release_of_this_project_wrote_is_not_kubeedges() {
        for ours in crate::manifests() {
            assert!(!is_kubeedges(&ours), "{:?}", ours.metadata.name);
        }
        assert!(is_kubeedges(&kubeedges("devices", &[("v1beta1", true, false)])));
        // The register is nobody else's.
        assert!(!is_kubeedges(&kubeedges("edgenodes", &[("v1alpha1", true, false)])));
    }

    #[test]
    fn the_definitions_of_kubeedge_1_22_and_1_23_will_do() {
        let of = |plural: &str, versions: &[(&str, bool, bool)]| {
            let ours = crate::manifests().into_iter().find(|one| one.spec.names.plural == plural).unwrap();
            stands_in(&kubeedges(plural, versions), &ours)
        };
        for (plural, older, newer, status) in [
            ("devices", Some("v1alpha2"), "v1beta1", false),
            ("devicemodels", Some("v1alpha2"), "v1beta1", false),
            ("devicestatuses", Some("v1alpha2"), "v1beta1", false),
            ("rules", None, "v1", false),
            ("ruleendpoints", None, "v1", false),
            ("nodeupgradejobs", Some("v1alpha1"), "v1alpha2", true),
            ("imageprepulljobs", Some("v1alpha1"), "v1alpha2", true),
            ("configupdatejobs", None, "v1alpha2", true),
        ] {
            let older = older.map(|name| (name, false, status));
            let versions: Vec<_> = older.into_iter().chain([(newer, true, status)]).collect();
            assert_eq!(of(plural, &versions), Ok(()), "{plural}");
        }
        let why = |versions| of("devices", versions).unwrap_err();
        assert_eq!(why(&[("v1alpha2", true, false)]), "has no version v1beta1");
        assert!(why(&[("v1alpha2", true, false), ("v1beta1", false, false)]).contains("store v1beta1"));
        assert!(why(&[("v1beta1", true, true)]).contains("has the subresource status"));
        assert!(of("nodeupgradejobs", &[("v1alpha2", true, false)]).unwrap_err().contains("lacks"));
    }
}
