//! Which of two reports about one object is the newer one, and who has a node. Pure: everything is in the objects.
//!
//! A node's Lease says which CloudCore has the node and since which epoch; a new session is a new epoch. An object that a
//! node reports about says which report it holds: the epoch of the session and the row of the node's outbox. Rows of one
//! session grow with time, and so do epochs: the newer mark wins, whoever writes, and no memory is asked.

use std::str::FromStr;

use contract::NodeName;
use contract::ids::REPORTED_ANNOTATION;
use contract::pod_status;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use serde_json::{Value, json};

/// On a node's Lease: the CloudCore that has the node. `spec.holderIdentity` is the node's own name, as Kubernetes has it.
pub const CLOUDCORE_ANNOTATION: &str = "kubehive.io/cloudcore";
/// 40 s: how long a Lease counts (kubelet's default).
const LEASE_SECONDS: i32 = 40;
/// `spec.leaseTransitions`, which holds the epoch, has 32 bits.
const EPOCH_MAX: u64 = i32::MAX as u64;

/// Which report an object holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    /// The epoch of the session in which it was sent.
    pub epoch: u64,
    /// The row of the node's outbox.
    pub row: i64,
}

impl std::fmt::Display for Mark {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.epoch, self.row)
    }
}

/// A text that is no mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not `EPOCH.ROW`")]
pub struct NoMark;

impl FromStr for Mark {
    type Err = NoMark;

    fn from_str(text: &str) -> Result<Self, NoMark> {
        let (epoch, row) = text.split_once('.').ok_or(NoMark)?;
        Ok(Mark { epoch: epoch.parse().map_err(|_| NoMark)?, row: row.parse().map_err(|_| NoMark)? })
    }
}

/// The mark of an object, which stands there as `EPOCH.ROW/UID`, in a pod that has ended with `/PHASE` behind it. What was
/// copied from another object, or written by somebody else, counts as none.
pub fn mark_of(metadata: &ObjectMeta) -> Option<Mark> {
    let (mark, rest) = metadata.annotations.as_ref()?.get(REPORTED_ANNOTATION)?.split_once('/')?;
    let uid = rest.split_once('/').map_or(rest, |(uid, _)| uid);
    if metadata.uid.as_deref() != Some(uid) {
        return None;
    }
    mark.parse().ok()
}

/// What becomes of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is newer than what the object holds.
    Write,
    /// The object holds it, or a newer one of the same session: it is done.
    Old,
    /// The object holds one of a later session: the node has gone on to another CloudCore, or the Lease that counted those
    /// sessions is no more. The Lease of now decides.
    Later,
}

/// What becomes of the report `ours` about an object that holds `held`.
pub fn judge(held: Option<Mark>, ours: Mark) -> Verdict {
    match held {
        None => Verdict::Write,
        Some(held) if held.epoch > ours.epoch => Verdict::Later,
        Some(held) if held >= ours => Verdict::Old,
        Some(_) => Verdict::Write,
    }
}

/// The metadata of a patch that writes the report `mark`, and fails when the object is no longer the one that was read.
pub fn stamp(read: &ObjectMeta, mark: Mark) -> Value {
    json!({
        "uid": read.uid,
        "resourceVersion": read.resource_version,
        "annotations": { REPORTED_ANNOTATION: format!("{mark}/{}", read.uid.as_deref().unwrap_or_default()) },
    })
}

/// The same for a pod that is in phase `held`, when the node says that it is in phase `said`.
pub fn stamp_pod(read: &ObjectMeta, mark: Mark, held: &str, said: &str) -> Value {
    let before = read.annotations.as_ref().and_then(|all| all.get(REPORTED_ANNOTATION)).map(String::as_str);
    let uid = read.uid.as_deref().unwrap_or_default();
    let end = pod_status::end_to_note(held, before, uid, said);
    let mut stamp = stamp(read, mark);
    let text = pod_status::mark_with_end(&format!("{mark}/{uid}"), end);
    stamp["annotations"][REPORTED_ANNOTATION] = Value::from(text);
    stamp
}

/// Who has a node, as its Lease says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The CloudCore; `None` before one has taken the node.
    pub holder: Option<String>,
    /// The epoch.
    pub epoch: u64,
    /// The Lease's version.
    pub version: String,
    /// When it was renewed last.
    pub renewed: Option<jiff::Timestamp>,
}

/// What a Lease says.
pub fn standing(lease: &Lease) -> Standing {
    let holder = lease.metadata.annotations.as_ref().and_then(|all| all.get(CLOUDCORE_ANNOTATION)).cloned();
    let transitions = lease.spec.as_ref().and_then(|spec| spec.lease_transitions).unwrap_or_default();
    Standing {
        holder,
        epoch: u64::try_from(transitions).unwrap_or_default(),
        version: lease.metadata.resource_version.clone().unwrap_or_default(),
        renewed: lease.spec.as_ref().and_then(|spec| spec.renew_time.as_ref()).map(|time| time.0),
    }
}

/// The epoch of a new session, given the highest that is known. A new count begins where the field ends: a mark above
/// the Lease's epoch is then found to be of no session.
pub fn next_epoch(highest: u64) -> u64 {
    if highest >= EPOCH_MAX { 1 } else { highest + 1 }
}

/// The patch that takes a node over. It does not renew: that is Edged's word.
pub fn claim_patch(node: &NodeName, cloudcore: &str, epoch: u64, version: &str) -> Value {
    json!({
        "metadata": { "resourceVersion": version, "annotations": { CLOUDCORE_ANNOTATION: cloudcore } },
        "spec": {
            "holderIdentity": node.as_str(),
            "leaseDurationSeconds": LEASE_SECONDS,
            "leaseTransitions": epoch,
        },
    })
}

/// The time of a renewal at `now`, given that of the one before. It always grows: Kubernetes' node lifecycle controller takes
/// a Lease whose time has not grown for one that was not renewed, so a clock that is set back would make the node NotReady
/// for as long as it was set back by.
pub fn renewal_time(before: Option<jiff::Timestamp>, now: jiff::Timestamp) -> jiff::Timestamp {
    // The API keeps microseconds.
    let after = before.and_then(|before| before.checked_add(jiff::SignedDuration::from_micros(1)).ok());
    after.map_or(now, |after| after.max(now))
}

/// The patch that renews a Lease, given the version at which it was ours.
pub fn renewal_patch(node: &NodeName, now: jiff::Timestamp, version: &str) -> Value {
    json!({
        "metadata": { "resourceVersion": version },
        "spec": {
            "holderIdentity": node.as_str(),
            "leaseDurationSeconds": LEASE_SECONDS,
            "renewTime": MicroTime(now),
        },
    })
}

/// A Lease where there is none. It always has a time of renewal: Kubernetes' node lifecycle controller compares each one that it
/// sees with the one before, and a Lease that it has seen without is never younger than anything, for as long as it runs. Before
/// the first renewal that time is 1970, which is no sign of life.
pub fn new_lease(node: &NodeName, cloudcore: &str, epoch: u64, renewed: Option<jiff::Timestamp>) -> Value {
    let mut lease = claim_patch(node, cloudcore, epoch, "");
    lease["apiVersion"] = json!("coordination.k8s.io/v1");
    lease["kind"] = json!("Lease");
    lease["metadata"] = json!({ "name": node.as_str(), "annotations": { CLOUDCORE_ANNOTATION: cloudcore } });
    lease["spec"]["renewTime"] = json!(MicroTime(renewed.unwrap_or(jiff::Timestamp::UNIX_EPOCH)));
    lease
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_renewal_grows_whatever_the_clock_does() {
        let at = |seconds| jiff::Timestamp::from_second(seconds).unwrap();
        assert_eq!(renewal_time(None, at(100)), at(100));
        assert_eq!(renewal_time(Some(at(100)), at(110)), at(110));
        let mut last = at(4000);
        for now in [at(400), at(410), at(0), at(4000)] {
            let next = renewal_time(Some(last), now);
            assert!(next > last && next < at(4001), "{next}");
            last = next;
        }
        let most = jiff::Timestamp::MAX;
        assert_eq!(renewal_time(Some(most), at(1)), at(1), "what can't grow begins anew");
    }

    fn mark(text: &str) -> Mark {
        text.parse().unwrap()
    }

    #[test]
    fn a_mark_is_two_numbers_and_compares_as_such() {
        assert_eq!(mark("3.17").to_string(), "3.17");
        assert!(mark("3.9") < mark("3.10") && mark("9.99") < mark("10.1"));
        for bad in ["", "3", "3.", ".3", "a.b", "3.4.5", "-1.2", "3,4"] {
            assert_eq!(bad.parse::<Mark>(), Err(NoMark), "{bad}");
        }
    }

    #[test]
    fn a_mark_is_of_one_object_alone() {
        let pod = ObjectMeta { uid: Some("u".into()), ..ObjectMeta::default() };
        let stamped =
            |read: &ObjectMeta| stamp(read, mark("3.4"))["annotations"][REPORTED_ANNOTATION].clone();
        let with = |text: &str| ObjectMeta {
            annotations: Some([(REPORTED_ANNOTATION.to_owned(), text.to_owned())].into()),
            ..pod.clone()
        };
        assert_eq!(mark_of(&with(stamped(&pod).as_str().unwrap())), Some(mark("3.4")));
        let other = ObjectMeta { uid: Some("v".into()), ..ObjectMeta::default() };
        assert_eq!(mark_of(&with(stamped(&other).as_str().unwrap())), None, "copied from there");
        let ended =
            stamp_pod(&pod, mark("3.5"), "Running", "Failed")["annotations"][REPORTED_ANNOTATION].clone();
        assert!(ended.as_str().unwrap().ends_with("/Failed"), "{ended}");
        assert_eq!(mark_of(&with(ended.as_str().unwrap())), Some(mark("3.5")));
        assert_eq!((mark_of(&with("3.4")), mark_of(&pod)), (None, None));
    }

    #[test]
    fn the_newer_report_wins_and_a_later_session_is_looked_into() {
        let held = Some(mark("4.7"));
        assert_eq!(judge(None, mark("1.1")), Verdict::Write);
        assert_eq!(judge(held, mark("4.8")), Verdict::Write);
        assert_eq!(judge(held, mark("5.1")), Verdict::Write, "rows may begin anew, sessions do not");
        assert_eq!(judge(held, mark("4.7")), Verdict::Old, "the same one again");
        assert_eq!(judge(held, mark("4.6")), Verdict::Old);
        assert_eq!(judge(held, mark("3.9")), Verdict::Later);
    }

    proptest::proptest! {
        #[test]
        fn no_text_is_trusted_and_a_mark_comes_back_as_it_was(text in ".{0,40}", epoch: u64, row: i64) {
            let _ = text.parse::<Mark>();
            let ours = Mark { epoch, row };
            proptest::prop_assert_eq!(ours.to_string().parse(), Ok(ours));
        }

        /// In whatever order reports come, the newest stays; those of an ended session need the Lease's word.
        #[test]
        fn in_any_order_the_newest_stays(writes in proptest::collection::vec((1_u64..4, 1_i64..9), 1..30)) {
            let marks: Vec<Mark> = writes.into_iter().map(|(epoch, row)| Mark { epoch, row }).collect();
            let mut held = None;
            for ours in &marks {
                match judge(held, *ours) {
                    Verdict::Write => {
                        proptest::prop_assert!(held.is_none_or(|held| held < *ours));
                        held = Some(*ours);
                    }
                    Verdict::Old | Verdict::Later => proptest::prop_assert!(held.is_some_and(|held| held >= *ours)),
                }
            }
            proptest::prop_assert_eq!(held, marks.into_iter().max());
        }
    }

    #[test]
    fn a_lease_says_who_has_the_node_and_a_kubelets_says_nobody() {
        let node = NodeName::parse("edge-1").unwrap();
        let mut lease = new_lease(&node, "cloudcore-a", 3, None);
        lease["metadata"]["resourceVersion"] = json!("9");
        let held: Lease = serde_json::from_value(lease).unwrap();
        let expected = Standing {
            holder: Some("cloudcore-a".into()),
            epoch: 3,
            version: "9".into(),
            renewed: Some(jiff::Timestamp::UNIX_EPOCH),
        };
        assert_eq!(standing(&held), expected);
        let renewed = held.spec.unwrap().renew_time.unwrap().0;
        assert_eq!(
            renewed,
            jiff::Timestamp::UNIX_EPOCH,
            "a link is no sign of life, and a Lease always has a time"
        );
        assert_eq!(
            standing(&Lease::default()),
            Standing { holder: None, epoch: 0, version: String::new(), renewed: None }
        );
    }

    #[test]
    fn epochs_grow_to_the_end_of_the_field() {
        assert_eq!((next_epoch(0), next_epoch(41)), (1, 42));
        assert_eq!((next_epoch(EPOCH_MAX - 1), next_epoch(EPOCH_MAX)), (EPOCH_MAX, 1));
    }
}
