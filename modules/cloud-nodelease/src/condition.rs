//! Shows on a Node whether it holds what it should, what carries its link, and until when its certificate is good: the conditions
//! `kubehive.io/Synced`, `kubehive.io/Link` and `kubehive.io/Certificate`. Of a node that was shut out it says beside them that nobody hears
//! of it: its Lease, by which Kubernetes would see that, goes on counting for 40 s.

mod certificate;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use beehive::link::Transport;
use beehive::{Env, Fault};
use contract::NodeName;
use contract::synccontroller::{SyncState, SyncStatus};
use k8s_openapi::api::core::v1::{Node, NodeCondition};
use kube::api::{Api, Patch, PatchParams};
use kubewatch::status_code;
use serde_json::{Value, json};

use crate::error::LeaseError;
use crate::lease_client::LeaseClient;
use crate::plan::Sessions;

pub(crate) use certificate::CertificateState;

/// 512 bytes of a node's own words.
const REFUSAL_MAX: usize = 512;

/// How often the condition is written again when somebody else wrote in between.
const WRITE_TRIES: usize = 5;
/// The condition's type.
const SYNCED: &str = "kubehive.io/Synced";
/// The type of the condition that says what carries the link.
const LINK: &str = "kubehive.io/Link";
/// The type of Kubernetes' own condition, and why it is Unknown of a node whose certificate is good for nothing any more.
const READY: &str = "Ready";
const REVOKED: &str = "NodeRevoked";

/// What the condition of a node is to say.
pub(crate) struct Synced {
    /// How the node stands.
    pub(crate) status: SyncStatus,
    /// What carries the link of its session, if it has one, and the bytes that came and went over it.
    pub(crate) link: Option<(Transport, u64, u64)>,
    /// When the certificate begins and ends that it has in that session, in seconds since 1970.
    pub(crate) certificate_valid: Option<(u64, u64)>,
    /// Why its link was ended, if its certificate is good for nothing any more.
    pub(crate) revoked: Option<&'static str>,
    /// The time of the writing.
    pub(crate) now: jiff::Timestamp,
}

impl Synced {
    /// What it says beside the status.
    pub(crate) fn content(&self) -> Content {
        let certificate = self.certificate_valid.map(|valid| CertificateState::of(valid, self.now));
        Content { transport: self.link.map(|(transport, ..)| transport), certificate }
    }
}

/// What the conditions say beside [`SyncStatus`], as far as it is a reason to write them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Content {
    /// What carries the link.
    pub(crate) transport: Option<Transport>,
    /// Of the certificate.
    pub(crate) certificate: Option<CertificateState>,
}

/// Which writing of each node's conditions was asked for last. An API server that is slow may still be busy with an older one:
/// that one must not come after it.
#[derive(Debug, Clone, Default)]
pub(crate) struct NewestWrites(Rc<RefCell<(u64, BTreeMap<NodeName, u64>)>>);

impl NewestWrites {
    /// A writing is asked for: those before it are old. Answers its number.
    fn begin(&self, node: &NodeName) -> u64 {
        let (last, newest) = &mut *self.0.borrow_mut();
        *last += 1;
        newest.insert(node.clone(), *last);
        *last
    }

    /// Whether one is under way: what it writes is to be seen first.
    pub(crate) fn is_any(&self, node: &NodeName) -> bool {
        self.0.borrow().1.contains_key(node)
    }

    fn is_newest(&self, node: &NodeName, number: u64) -> bool {
        self.0.borrow().1.get(node) == Some(&number)
    }

    /// It is over: nothing is kept of it.
    fn end(&self, node: &NodeName, number: u64) {
        if self.is_newest(node, number) {
            self.0.borrow_mut().1.remove(node);
        }
    }
}

/// What became of a writing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The Node says so already, at this resourceVersion.
    Said(Option<String>),
    /// It is written.
    Written,
    /// It is not ours to write, or a newer writing sees to it.
    NotOurs,
    /// There is no Node to write it on yet.
    Later,
}

/// Writes the condition.
pub(crate) struct ConditionWriter {
    pub(crate) client: kube::Client,
    pub(crate) leases: LeaseClient,
    pub(crate) sessions: Rc<RefCell<Sessions>>,
    pub(crate) newest: NewestWrites,
}

impl ConditionWriter {
    /// Writes it on the Node, where that says something else. `None`: it failed.
    pub(crate) async fn write(&self, env: &Env, node: &NodeName, synced: &Synced) -> Option<Outcome> {
        let number = self.newest.begin(node);
        let written = self.try_write(node, synced, number).await;
        self.newest.end(node, number);
        written
            .inspect_err(|error| {
                crate::events::condition_not_written(env, node, &Fault::from_error(error).reason);
            })
            .ok()
    }

    async fn try_write(&self, node: &NodeName, synced: &Synced, number: u64) -> Result<Outcome, LeaseError> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        for _ in 0..WRITE_TRIES {
            // It is registered when it first reports.
            let Some(found) = nodes.get_opt(node.as_str()).await? else { return Ok(Outcome::Later) };
            if !self.sessions.borrow().is_of(node, &found.metadata) {
                // A session that has not been told of its Node yet is about to be.
                let awaits_node = self.sessions.borrow().awaits_node(node);
                return Ok(if awaits_node { Outcome::Later } else { Outcome::NotOurs });
            }
            // What is newer is written over the Node as it was read here, or sees to it that this is not.
            if !self.newest.is_newest(node, number) {
                return Ok(Outcome::NotOurs);
            }
            let conditions = found.status.and_then(|status| status.conditions).unwrap_or_default();
            let before = |kind: &str| conditions.iter().find(|condition| condition.type_ == kind);
            let changed = [
                condition(synced, before(SYNCED)),
                link_condition(synced, before(LINK)),
                certificate::condition(synced, before(certificate::CERTIFICATE)),
                revoked_condition(synced, before(READY)),
            ];
            let changed: Vec<Value> = changed.into_iter().flatten().collect();
            if changed.is_empty() {
                return Ok(Outcome::Said(found.metadata.resource_version));
            }
            // The Node is read before the Lease, and written as it was read: nobody can have come between.
            if !self.leases.may_speak_of(node).await? {
                return Ok(Outcome::NotOurs);
            }
            let patch = json!({
                "metadata": { "resourceVersion": found.metadata.resource_version },
                "status": { "conditions": changed },
            });
            let patch = Patch::Strategic(&patch);
            match nodes.patch_status(node.as_str(), &PatchParams::default(), &patch).await {
                Ok(_) => return Ok(Outcome::Written),
                Err(error) if matches!(status_code(&error), Some(404 | 409)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(LeaseError::Contended)
    }
}

/// The condition, unless `before` says the same already.
fn condition(synced: &Synced, before: Option<&NodeCondition>) -> Option<Value> {
    let Synced { status: of, now, .. } = synced;
    let (status, reason) = match of.state {
        SyncState::InSync => ("True", "InSync"),
        SyncState::Waiting => ("False", "Waiting"),
        SyncState::Refused => ("False", "EdgeRefused"),
    };
    let message = message(synced);
    let same = before.is_some_and(|before| {
        before.status == status
            && before.reason.as_deref() == Some(reason)
            && before.message.as_deref().is_some_and(|before| {
                // Bytes of a session that is over are no reason to keep the words, and more bytes are none to write.
                lasting(before) == lasting(&message) && before.contains(BYTES) == message.contains(BYTES)
            })
    });
    if same {
        return None;
    }
    Some(written(SYNCED, (status, reason, &message), before, *now))
}

/// What carries the node's link, unless `before` says the same already. `True` is QUIC; `False` is the fallback, or that there is
/// no link: written by the CloudCore that had it, as long as no other has the node.
fn link_condition(synced: &Synced, before: Option<&NodeCondition>) -> Option<Value> {
    let (status, reason, message) = match synced.link.map(|(transport, ..)| transport) {
        Some(Transport::Quic | Transport::Memory) => ("True", "QUIC", "the link runs over QUIC".to_owned()),
        Some(Transport::WebSocket) => (
            "False",
            "WebSocketFallback",
            "the link runs over WebSocket: let the node reach CloudCore's QUIC port by UDP".to_owned(),
        ),
        // The session has begun, and NodeLease has not heard of its link yet.
        None if synced.status.linked => return None,
        None => {
            let since = whole_seconds(synced.now);
            ("False", "LinkDown", format!("the link is down; CloudCore has had none since {since}"))
        }
    };
    let same =
        before.is_some_and(|before| before.status == status && before.reason.as_deref() == Some(reason));
    // A fallback and no link are both `False`, and each has a beginning of its own.
    (!same).then(|| written(LINK, (status, reason, &message), None, synced.now))
}

/// That nobody hears of the node any more, of one that was shut out; its own next report says otherwise, if it is let in again. Of one that never
/// said that it is Ready, or of which that is not known already, there is nothing to say.
fn revoked_condition(synced: &Synced, before: Option<&NodeCondition>) -> Option<Value> {
    let why = synced.revoked.filter(|_| !synced.status.linked && synced.link.is_none())?;
    let before = before.filter(|before| before.status != "Unknown")?;
    let message = format!("CloudCore has ended the node's link and lets it in no more: {why}");
    let mut said = written(READY, ("Unknown", REVOKED, &message), Some(before), synced.now);
    // Nothing was heard of it since.
    said["lastHeartbeatTime"] = json!(before.last_heartbeat_time.as_ref().map(|time| whole_seconds(time.0)));
    Some(said)
}

/// Kubernetes' own times have whole seconds.
fn whole_seconds(time: jiff::Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn written(
    kind: &str,
    (status, reason, message): (&str, &str, &str),
    before: Option<&NodeCondition>,
    now: jiff::Timestamp,
) -> Value {
    let text = whole_seconds;
    let unmoved = before.filter(|before| before.status == status);
    let since = unmoved.and_then(|before| before.last_transition_time.as_ref()).map_or(now, |time| time.0);
    json!({
        "type": kind, "status": status, "reason": reason, "message": message,
        "lastHeartbeatTime": text(now), "lastTransitionTime": text(since),
    })
}

/// What stands before the bytes.
const BYTES: &str = "; link ";

/// A message without its bytes: they alone are no reason to write.
fn lasting(message: &str) -> (&str, &str) {
    let Some((before, rest)) = message.split_once(BYTES) else { return (message, "") };
    (before, rest.split_once("; ").map_or("", |(_, refusal)| refusal))
}

/// In parts with `; ` between them, as `keadm sync` takes them apart: how many wait, the oldest, when the node last confirmed
/// anything, the bytes of this session, why it refuses. The last is the node's own text and may hold anything.
fn message(Synced { status, link, .. }: &Synced) -> String {
    let time = |unix: i64| jiff::Timestamp::from_second(unix).unwrap_or_default();
    let mut text = match &status.oldest {
        None => "the node has confirmed all that it should hold".to_owned(),
        Some((key, unix)) => format!("{} waiting; oldest {key} since {}", status.waiting, time(*unix)),
    };
    if let Some(unix) = status.last_confirmed {
        text.push_str(&format!("; last confirmed {}", time(unix)));
    }
    if let Some((_, received, sent)) = link {
        text.push_str(&format!("{BYTES}{received} bytes in, {sent} bytes out"));
    }
    if let Some(refusal) = &status.refusal {
        text.push_str("; refused: ");
        text.push_str(&refusal[..refusal.floor_char_boundary(REFUSAL_MAX)]);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract::ObjectKey;

    fn synced(state: SyncState, second: i64, received: u64) -> Synced {
        let waits = state != SyncState::InSync;
        let status = SyncStatus {
            state,
            waiting: usize::from(waits),
            oldest: waits.then(|| (ObjectKey::new("pods", "default", "web"), 1_700_000_000)),
            refusal: (state == SyncState::Refused).then(|| "disk is full".to_owned()),
            last_confirmed: Some(1_700_000_060),
            linked: true,
        };
        Synced {
            status,
            link: Some((Transport::Quic, received, 7)),
            certificate_valid: None,
            revoked: None,
            now: jiff::Timestamp::from_second(second).unwrap(),
        }
    }

    #[test]
    fn only_the_writing_that_was_asked_for_last_goes_on_also_when_it_was_the_first_to_end() {
        let newest = NewestWrites::default();
        let [one, other] = ["edge-1", "edge-2"].map(|name| NodeName::parse(name).unwrap());
        let (first, of_other) = (newest.begin(&one), newest.begin(&other));
        assert!(newest.is_newest(&one, first) && newest.is_newest(&other, of_other));
        let second = newest.begin(&one);
        assert!(!newest.is_newest(&one, first) && newest.is_newest(&one, second));
        newest.end(&one, second);
        assert!(!newest.is_newest(&one, first), "the older one is still under way");
        newest.end(&one, first);
        newest.end(&other, of_other);
        assert!(newest.0.borrow().1.is_empty());
        assert!(newest.begin(&one) > second);
    }

    #[test]
    fn it_is_written_on_a_change_and_keeps_the_time_of_the_last_one() {
        let first = condition(&synced(SyncState::Waiting, 0, 0), None).unwrap();
        assert_eq!((&first["status"], &first["reason"]), (&json!("False"), &json!("Waiting")));
        assert_eq!(
            first["message"],
            "1 waiting; oldest pods/default/web since 2023-11-14T22:13:20Z; last confirmed 2023-11-14T22:14:20Z; link 0 bytes in, 7 bytes out"
        );
        let before: NodeCondition = serde_json::from_value(first.clone()).unwrap();
        assert_eq!(condition(&synced(SyncState::Waiting, 9, 9), Some(&before)), None);
        let second = condition(&synced(SyncState::Refused, 9, 9), Some(&before)).unwrap();
        assert_eq!(second["reason"], "EdgeRefused");
        assert!(second["message"].as_str().unwrap().ends_with("; refused: disk is full"), "{second}");
        assert_eq!(second["lastTransitionTime"], first["lastTransitionTime"], "False it was before");
        let before: NodeCondition = serde_json::from_value(second).unwrap();
        let third = condition(&synced(SyncState::InSync, 20, 20), Some(&before)).unwrap();
        assert_eq!((&third["status"], &third["reason"]), (&json!("True"), &json!("InSync")));
        assert_eq!(third["lastTransitionTime"], "1970-01-01T00:00:20Z");
    }

    #[test]
    fn of_a_node_that_is_shut_out_it_is_said_at_once_that_nobody_hears_of_it() {
        let cut = |linked, revoked| {
            let of = synced(SyncState::InSync, 30, 1);
            Synced { link: None, status: SyncStatus { linked, ..of.status }, revoked, ..of }
        };
        let ready = |status: &str| -> NodeCondition {
            serde_json::from_value(json!({
                "type": "Ready", "status": status, "reason": "EdgeReady",
                "lastHeartbeatTime": "1970-01-01T00:00:10Z", "lastTransitionTime": "1970-01-01T00:00:05Z",
            }))
            .unwrap()
        };
        let why = Some("an administrator revoked the name");
        let said = revoked_condition(&cut(false, why), Some(&ready("True"))).unwrap();
        assert_eq!((&said["status"], &said["reason"]), (&json!("Unknown"), &json!("NodeRevoked")));
        assert!(said["message"].as_str().unwrap().ends_with("an administrator revoked the name"), "{said}");
        assert_eq!(said["lastHeartbeatTime"], "1970-01-01T00:00:10Z");
        assert_eq!(said["lastTransitionTime"], "1970-01-01T00:00:30Z");
        for (synced, before) in [
            (cut(false, None), Some(ready("True"))),
            // It has a session again.
            (cut(true, why), Some(ready("True"))),
            (cut(false, why), Some(ready("Unknown"))),
            (cut(false, why), None),
        ] {
            assert_eq!(revoked_condition(&synced, before.as_ref()), None);
        }
    }

    #[test]
    fn a_fallback_is_said_once_and_so_is_its_end() {
        let over = |transport| Synced { link: Some((transport, 1, 2)), ..synced(SyncState::InSync, 30, 1) };
        let quic = link_condition(&over(Transport::Quic), None).unwrap();
        assert_eq!((&quic["status"], &quic["reason"]), (&json!("True"), &json!("QUIC")));
        let before: NodeCondition = serde_json::from_value(quic).unwrap();
        assert_eq!(link_condition(&over(Transport::Quic), Some(&before)), None);
        let fallback = link_condition(&over(Transport::WebSocket), Some(&before)).unwrap();
        assert_eq!(
            (&fallback["status"], &fallback["reason"]),
            (&json!("False"), &json!("WebSocketFallback"))
        );
        let none = |second| {
            let cut = synced(SyncState::InSync, second, 1);
            Synced { link: None, status: SyncStatus { linked: false, ..cut.status }, ..cut }
        };
        let before: NodeCondition = serde_json::from_value(fallback).unwrap();
        let down = link_condition(&none(90), Some(&before)).unwrap();
        assert_eq!((&down["status"], &down["reason"]), (&json!("False"), &json!("LinkDown")));
        assert_eq!(
            down["lastTransitionTime"], "1970-01-01T00:01:30Z",
            "since the link is down, not since the fallback"
        );
        assert_eq!(down["message"], "the link is down; CloudCore has had none since 1970-01-01T00:01:30Z");
        let before: NodeCondition = serde_json::from_value(down).unwrap();
        assert_eq!(link_condition(&none(99), Some(&before)), None);
        assert_eq!(link_condition(&over(Transport::Quic), Some(&before)).unwrap()["status"], "True");

        let linked = condition(&synced(SyncState::InSync, 30, 1), None).unwrap();
        let before: NodeCondition = serde_json::from_value(linked).unwrap();
        let cut = condition(&none(40), Some(&before)).unwrap();
        assert!(!cut["message"].as_str().unwrap().contains("link"), "the session's bytes go with it: {cut}");
    }
}
