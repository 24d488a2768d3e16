//! Which of two reports about one object is the newer one. Pure: everything is in the objects.
//!
//! An object that a node reports about says which report it holds ([`ReportVersion`]): the session and the row of the node's
//! outbox. Rows of one session grow with time, and so do the sessions' numbers: the newer one wins, whoever writes, and no
//! memory is asked.

use contract::ids::REPORTED_ANNOTATION;
use contract::nodelease::ReportVersion;
use contract::pod_status;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};

/// The report that an object holds.
pub fn held_by(metadata: &ObjectMeta) -> Option<ReportVersion> {
    let text = metadata.annotations.as_ref()?.get(REPORTED_ANNOTATION)?;
    ReportVersion::of_object(text, metadata.uid.as_deref()?)
}

/// What becomes of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReportOrder {
    /// It is newer than what the object holds.
    Write,
    /// The object holds it, or a newer one of the same session: it is done.
    Old,
    /// The object holds one of a later session: the node has gone on to another CloudCore, or the Lease that counted those
    /// sessions is no more. The Lease of now decides.
    Later,
}

/// What becomes of the report `ours` about an object that holds `held`.
pub fn compare(held: Option<ReportVersion>, ours: ReportVersion) -> ReportOrder {
    match held {
        None => ReportOrder::Write,
        Some(held) if held.session > ours.session => ReportOrder::Later,
        Some(held) if held >= ours => ReportOrder::Old,
        Some(_) => ReportOrder::Write,
    }
}

/// The metadata of a patch that writes the report `ours`, and fails when the object is no longer the one that was read.
pub fn patch_of(read: &ObjectMeta, ours: ReportVersion) -> Value {
    let uid = read.uid.as_deref().unwrap_or_default();
    json!({
        "uid": read.uid,
        "resourceVersion": read.resource_version,
        "annotations": { REPORTED_ANNOTATION: ours.for_object(uid) },
    })
}

/// The same for a pod that is in phase `held`, when the node says that it is in phase `said` and `status` is written.
pub fn patch_of_pod(read: &ObjectMeta, ours: ReportVersion, held: &str, said: &str, status: &Value) -> Value {
    let before = read.annotations.as_ref().and_then(|all| all.get(REPORTED_ANNOTATION)).map(String::as_str);
    let uid = read.uid.as_deref().unwrap_or_default();
    let end = pod_status::phase_to_record(held, before, uid, said);
    let mut patch = patch_of(read, ours);
    let text = pod_status::annotation(&ours.for_object(uid), &pod_status::fingerprint(status), end);
    patch["annotations"][REPORTED_ANNOTATION] = Value::from(text);
    patch
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(session: u64, row: i64) -> ReportVersion {
        ReportVersion { session, row }
    }

    #[test]
    fn a_report_version_is_of_one_object_alone() {
        let pod = ObjectMeta { uid: Some("u".into()), ..ObjectMeta::default() };
        let patched =
            |read: &ObjectMeta| patch_of(read, version(3, 4))["annotations"][REPORTED_ANNOTATION].clone();
        let with = |text: &str| ObjectMeta {
            annotations: Some([(REPORTED_ANNOTATION.to_owned(), text.to_owned())].into()),
            ..pod.clone()
        };
        assert_eq!(held_by(&with(patched(&pod).as_str().unwrap())), Some(version(3, 4)));
        let ended = patch_of_pod(&pod, version(3, 5), "Running", "Failed", &Value::Null);
        let ended = ended["annotations"][REPORTED_ANNOTATION].as_str().unwrap().to_owned();
        assert!(ended.ends_with("/Failed"), "{ended}");
        assert_eq!(held_by(&with(&ended)), Some(version(3, 5)));
        let other = ObjectMeta { uid: Some("v".into()), ..ObjectMeta::default() };
        assert_eq!(held_by(&with(patched(&other).as_str().unwrap())), None, "copied from there");
        assert_eq!((held_by(&with("3.4")), held_by(&pod)), (None, None));
    }

    #[test]
    fn the_newer_report_wins_and_a_later_session_is_looked_into() {
        let held = Some(version(4, 7));
        assert_eq!(compare(None, version(1, 1)), ReportOrder::Write);
        assert_eq!(compare(held, version(4, 8)), ReportOrder::Write);
        assert_eq!(compare(held, version(5, 1)), ReportOrder::Write, "rows may begin anew, sessions do not");
        assert_eq!(compare(held, version(4, 7)), ReportOrder::Old, "the same one again");
        assert_eq!(compare(held, version(4, 6)), ReportOrder::Old);
        assert_eq!(compare(held, version(3, 9)), ReportOrder::Later);
    }

    proptest::proptest! {
        /// In whatever order reports come, the newest stays; those of an ended session need the Lease's word.
        #[test]
        fn in_any_order_the_newest_stays(writes in proptest::collection::vec((1_u64..4, 1_i64..9), 1..30)) {
            let versions: Vec<ReportVersion> = writes.into_iter().map(|(s, row)| version(s, row)).collect();
            let mut held = None;
            for ours in &versions {
                match compare(held, *ours) {
                    ReportOrder::Write => {
                        proptest::prop_assert!(held.is_none_or(|held| held < *ours));
                        held = Some(*ours);
                    }
                    ReportOrder::Old | ReportOrder::Later => proptest::prop_assert!(held.is_some_and(|held| held >= *ours)),
                }
            }
            proptest::prop_assert_eq!(held, versions.into_iter().max());
        }
    }
}
