//! Calls of devices' methods that stand on Devices (annotation `kubehive.io/method-call`), and what is said of those of which no node
//! says anything. Pure.
//!
//! A call is sent once, to the node that is linked here when the annotation is seen to change, and never later: nobody wants a valve
//! opened that somebody asked for yesterday. What was there before this CloudCore looked may have been sent by an earlier one.

use std::collections::BTreeMap;

use contract::device_call::{CALLS_MAX, ID_MAX, METHOD_CALL_ANNOTATION, sentence};
use contract::{CallRecord, CallState, MethodCall};
use serde_json::{Value, json};

/// 256 calls are on their way at a time.
const SENDING_MAX: usize = 256;
/// 4 calls of a device that no node knows are kept.
const OWN_MAX: usize = 4;
/// Marks what CloudCore itself says of a call.
const SAID_BY: &str = "saidBy";
const CLOUD_CORE: &str = "CloudCore";

/// A call that no node may know of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnsentCall {
    id: String,
    method: String,
    values: BTreeMap<String, String>,
    state: CallState,
    message: String,
}

/// What a Device's annotation asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// Nothing.
    Nothing,
    /// A call.
    Call(MethodCall),
    /// Something that is none: a mark of it, and why.
    Malformed(String, String),
}

/// What is to be done about a Device's call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Nothing.
    None,
    /// Send it to the node.
    Send(MethodCall),
    /// Its node is not linked here: if no other CloudCore has it in a while, nothing comes of the call with this id.
    Wait(String),
}

/// What the annotation of a device says.
pub fn asked(device: &Value) -> Asked {
    let annotations = device.pointer("/metadata/annotations");
    let text = annotations.and_then(|all| all.get(METHOD_CALL_ANNOTATION)).and_then(Value::as_str);
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Asked::Nothing };
    match MethodCall::read(text.as_bytes(), String::new) {
        Ok(call) => Asked::Call(call),
        Err(error) => {
            let id = serde_json::from_str::<Value>(text).ok();
            let id = id.and_then(|json| json["id"].as_str().map(str::to_owned)).unwrap_or_default();
            Asked::Malformed(
                id.chars().filter(char::is_ascii_graphic).take(ID_MAX).collect(),
                error.to_string(),
            )
        }
    }
}

#[derive(Debug)]
struct Known {
    asked: Asked,
    is_sending: bool,
    unsent: Option<UnsentCall>,
}

/// The calls of all devices, by the device's uid.
#[derive(Debug, Default)]
pub struct Calls(BTreeMap<String, Known>);

impl Calls {
    /// What a device's annotation says now, and what follows from it.
    pub fn put(&mut self, uid: &str, asked: Asked, is_linked: bool) -> Step {
        let sending = self.0.values().filter(|known| known.is_sending).count();
        let Some(known) = self.0.get_mut(uid) else {
            let unsent = match &asked {
                Asked::Nothing => None,
                Asked::Malformed(id, reason) => Some(malformed(id, reason)),
                Asked::Call(call) => Some(unsent(
                    call,
                    CallState::Unknown,
                    "it stood on the Device before this CloudCore watched it: whether it was sent is not known, and it is not sent now",
                )),
            };
            self.0.insert(uid.to_owned(), Known { asked, is_sending: false, unsent });
            return Step::None;
        };
        if known.asked == asked {
            return Step::None;
        }
        (known.asked, known.unsent, known.is_sending) = (asked, None, false);
        match &known.asked {
            Asked::Nothing => Step::None,
            Asked::Malformed(id, reason) => {
                known.unsent = Some(malformed(id, reason));
                Step::None
            }
            Asked::Call(call) if sending >= SENDING_MAX => {
                let words = "256 calls are on their way to nodes, as many as may be: try again";
                known.unsent = Some(unsent(call, CallState::Refused, words));
                Step::None
            }
            Asked::Call(call) if is_linked => {
                known.is_sending = true;
                Step::Send(call.clone())
            }
            Asked::Call(call) => Step::Wait(call.id().to_owned()),
        }
    }

    /// What came of a call: `Some`, nothing as far as is known here, and why. Answers whether that is news.
    pub fn sent(&mut self, uid: &str, id: &str, failure: Option<(CallState, String)>) -> bool {
        let Some(known) = self.0.get_mut(uid) else { return false };
        let Asked::Call(call) = &known.asked else { return false };
        if call.id() != id {
            return false;
        }
        known.is_sending = false;
        known.unsent = failure.map(|(state, reason)| unsent(call, state, &reason));
        known.unsent.is_some()
    }

    /// What is to be said of a device's call.
    pub fn unsent(&self, uid: &str) -> Option<UnsentCall> {
        self.0.get(uid)?.unsent.clone()
    }

    /// A device has gone.
    pub fn remove(&mut self, uid: &str) {
        self.0.remove(uid);
    }
}

fn unsent(call: &MethodCall, state: CallState, reason: &str) -> UnsentCall {
    let (id, method, values) = (call.id().to_owned(), call.method().to_owned(), call.values().clone());
    UnsentCall { id, method, values, state, message: sentence(reason) }
}

fn malformed(id: &str, reason: &str) -> UnsentCall {
    let message = sentence(&format!("annotation {METHOD_CALL_ANNOTATION}: {reason}"));
    let (method, values) = (String::new(), BTreeMap::new());
    UnsentCall { id: id.to_owned(), method, values, state: CallState::Refused, message }
}

fn held(status: &Value) -> Vec<Value> {
    status.pointer("/extensions/methodCalls").and_then(Value::as_array).cloned().unwrap_or_default()
}

fn put(status: &mut Value, calls: Vec<Value>) {
    if !status.is_object() {
        *status = json!({});
    }
    if !status["extensions"].is_object() {
        status["extensions"] = json!({});
    }
    status["extensions"]["methodCalls"] = Value::Array(calls);
}

/// CloudCore's own words, the last of them.
fn own(held: &[Value]) -> impl Iterator<Item = &Value> {
    let count = held.iter().filter(|call| call[SAID_BY] == CLOUD_CORE).count();
    held.iter().filter(|call| call[SAID_BY] == CLOUD_CORE).skip(count.saturating_sub(OWN_MAX))
}

/// Takes over the calls that the node remembers. Of those that it knows its word counts.
pub(crate) fn take(status: &mut Value, reported: &[CallRecord]) {
    let before = held(status);
    let is_known = |call: &&Value| !reported.iter().any(|said| call["id"] == said.id.as_str());
    let mut all: Vec<Value> = own(&before).filter(is_known).cloned().collect();
    all.extend(reported.iter().map(|call| {
        let CallRecord { id, method, values, by, state, message, time } = call;
        json!({ "id": id, "method": method, "values": values, "by": by, "state": state, "message": message, "time": time })
    }));
    put(status, all);
}

/// Takes over what CloudCore says of a call, unless the node knows it. Answers whether anything has changed.
pub(crate) fn take_own(status: &mut Value, word: Option<&UnsentCall>, now: &str) -> bool {
    let Some(UnsentCall { id, method, values, state, message }) = word else { return false };
    let before = held(status);
    let of_node = |call: &&Value| call[SAID_BY] != CLOUD_CORE;
    let same = |call: &Value| call["message"] == message.as_str() && call["state"] == state.word();
    if before.iter().any(|call| call["id"] == id.as_str() && (of_node(&call) || same(call))) {
        return false;
    }
    let said = json!({
        "id": id, "method": method, "values": values, "by": "cloud", "state": state.word(), "message": message,
        "time": now, SAID_BY: CLOUD_CORE,
    });
    let kept: Vec<Value> = own(&before).filter(|call| call["id"] != id.as_str()).cloned().collect();
    let mut all: Vec<Value> = kept.into_iter().chain([said]).collect();
    all.drain(..all.len().saturating_sub(OWN_MAX));
    all.extend(before.iter().filter(of_node).take(CALLS_MAX).cloned());
    put(status, all);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(call: &str) -> Value {
        json!({ "metadata": { "annotations": { METHOD_CALL_ANNOTATION: call } } })
    }

    fn call(id: &str) -> Asked {
        asked(&device(&format!(r#"{{"id":"{id}","method":"SetLevel","values":{{"level":"5"}}}}"#)))
    }

    #[test]
    fn what_stands_on_a_device_is_a_call_or_says_why_it_is_none() {
        assert_eq!(asked(&json!({})), Asked::Nothing);
        assert_eq!(asked(&device("")), Asked::Nothing);
        assert!(matches!(call("a"), Asked::Call(call) if call.id() == "a"));
        for (text, id, words) in [
            ("x", "", "not a call"),
            (r#"{"method":"m","values":{"a":"1"}}"#, "", "the id of a call"),
            (r#"{"id":"7","method":"m","values":{}}"#, "7", "writes 0 properties"),
        ] {
            let Asked::Malformed(found, reason) = asked(&device(text)) else { panic!("{text}") };
            assert!(found == id && reason.contains(words), "{reason}");
        }
    }

    #[test]
    fn a_call_is_sent_once_and_only_while_its_node_is_linked() {
        let mut calls = Calls::default();
        assert_eq!(calls.put("u", Asked::Nothing, true), Step::None);
        assert!(matches!(calls.put("u", call("a"), true), Step::Send(call) if call.id() == "a"));
        assert_eq!(calls.put("u", call("a"), true), Step::None, "another change of the Device");
        assert!(!calls.sent("u", "a", None));
        assert_eq!(calls.put("u", call("b"), false), Step::Wait("b".to_owned()));
        assert_eq!(calls.put("u", call("b"), true), Step::None, "the node came back: it is not sent late");
        assert!(calls.sent("u", "b", Some((CallState::Refused, "not linked".to_owned()))));
        assert_eq!(calls.unsent("u").unwrap().message, "not linked");
        assert!(!calls.sent("u", "a", Some((CallState::Unknown, "late".to_owned()))), "of an earlier call");
        assert!(matches!(calls.put("u", call("c"), true), Step::Send(_)));
        assert_eq!(calls.unsent("u"), None);
        calls.remove("u");
        // As after a restart of CloudCore.
        assert_eq!(calls.put("u", call("c"), true), Step::None);
        assert_eq!(calls.unsent("u").unwrap().state, CallState::Unknown);
        assert_eq!(calls.put("u", Asked::Malformed("d".into(), "why".into()), true), Step::None);
        assert!(calls.unsent("u").unwrap().message.ends_with("kubehive.io/method-call: why"));
    }

    #[test]
    fn more_than_256_calls_do_not_wait_at_once() {
        let mut calls = Calls::default();
        for n in 0..=SENDING_MAX {
            calls.put(&n.to_string(), Asked::Nothing, true);
        }
        let sent = (0..=SENDING_MAX).filter(|n| calls.put(&n.to_string(), call("a"), true) != Step::None);
        assert_eq!(sent.count(), SENDING_MAX);
        assert!(calls.unsent(&SENDING_MAX.to_string()).unwrap().message.contains("256 calls"));
    }

    #[test]
    fn the_nodes_word_counts_and_what_it_does_not_know_stays() {
        let mut status = Value::Null;
        let refused = |id: &str| {
            let Asked::Call(call) = call(id) else { panic!() };
            unsent(&call, CallState::Refused, "the node is not linked")
        };
        assert!(take_own(&mut status, Some(&refused("a")), "1"));
        assert!(!take_own(&mut status, Some(&refused("a")), "2"), "the same again");
        let done = CallRecord {
            id: "b".into(),
            method: "SetLevel".into(),
            values: BTreeMap::new(),
            by: "cloud".into(),
            state: "Done".into(),
            message: String::new(),
            time: "3".into(),
        };
        take(&mut status, std::slice::from_ref(&done));
        let ids = |status: &Value| -> Vec<String> {
            held(status).iter().map(|call| call["id"].as_str().unwrap().to_owned()).collect()
        };
        assert_eq!(ids(&status), ["a", "b"]);
        assert!(!take_own(&mut status, Some(&refused("b")), "4"), "the node knows it");
        take(&mut status, &[done, CallRecord { id: "a".into(), ..of_word("Done") }]);
        assert_eq!(ids(&status), ["b", "a"]);
        for n in 0..10 {
            assert!(take_own(&mut status, Some(&refused(&n.to_string())), "5"));
        }
        assert_eq!(ids(&status), ["6", "7", "8", "9", "b", "a"]);
        assert!(!take_own(&mut status, None, "6"));
    }

    fn of_word(state: &str) -> CallRecord {
        CallRecord {
            id: String::new(),
            method: "SetLevel".into(),
            values: BTreeMap::new(),
            by: "mqtt".into(),
            state: state.into(),
            message: String::new(),
            time: "3".into(),
        }
    }
}
