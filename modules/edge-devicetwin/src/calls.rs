//! The calls of a device's methods that the node remembers: what makes one call of an id, however often it arrives. Pure.

use std::collections::BTreeMap;

use contract::device_call::{CALLS_MAX, sentence};
use contract::ids::DeviceName;
use contract::{CallOrigin, CallOutcome, CallRecord, CallState, MethodCall, UpReport};

use crate::plan::Code;

/// What is said of a call in whose midst edgecore ended.
const INTERRUPTED: &str = "edgecore was restarted while the mapper was at it: whether it was done is not known, and it is not repeated";

/// A call and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Remembered {
    pub(crate) id: String,
    pub(crate) method: String,
    pub(crate) values: BTreeMap<String, String>,
    pub(crate) by: CallOrigin,
    pub(crate) outcome: CallOutcome,
    /// RFC 3339, since when it is so.
    pub(crate) time: String,
}

impl Remembered {
    /// A call that just came.
    pub(crate) fn new(call: &MethodCall, by: CallOrigin, outcome: CallOutcome, time: String) -> Self {
        let (id, method) = (call.id().to_owned(), call.method().to_owned());
        Remembered { id, method, values: call.values().clone(), by, outcome, time }
    }

    fn record(&self) -> CallRecord {
        CallRecord {
            id: self.id.clone(),
            method: self.method.clone(),
            values: self.values.clone(),
            by: self.by.word().to_owned(),
            state: self.outcome.state.word().to_owned(),
            message: sentence(&self.outcome.message),
            time: self.time.clone(),
        }
    }
}

/// An outcome with its sentence within its bound.
pub(crate) fn outcome(state: CallState, code: u16, message: impl AsRef<str>) -> CallOutcome {
    CallOutcome { state, code, message: sentence(message.as_ref()) }
}

/// The last [`CALLS_MAX`] calls of a device, the newest last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Calls(Vec<Remembered>);

impl Calls {
    /// As they were kept, with the word on one in whose midst edgecore ended. Answers whether there was one.
    pub(crate) fn restored(kept: Vec<Remembered>, now: &str) -> (Self, bool) {
        let mut calls = Calls(kept);
        let mut interrupted = false;
        for call in calls.0.iter_mut().filter(|call| call.outcome.state == CallState::Running) {
            (call.outcome, call.time) = (outcome(CallState::Unknown, 504, INTERRUPTED), now.to_owned());
            interrupted = true;
        }
        (calls, interrupted)
    }

    /// What is said to a call that is not made, because its id is known, or because another one is under way.
    pub(crate) fn answer_to(&self, call: &MethodCall) -> Option<CallOutcome> {
        let conflict = |message: String| Some(outcome(CallState::Refused, Code::Conflict.number(), message));
        match self.0.iter().find(|known| known.id == call.id()) {
            Some(_) if !self.has_made(call) => {
                conflict(format!("the id `{}` was another call's: an id makes one call", call.id()))
            }
            Some(known) if known.outcome.state == CallState::Running => {
                conflict(format!("the call `{}` is under way, and is made once", call.id()))
            }
            Some(known) => Some(known.outcome.clone()),
            None if self.is_running() => {
                conflict("another call of this device is under way: one at a time".to_owned())
            }
            None => None,
        }
    }

    /// Whether this very call is known.
    pub(crate) fn has_made(&self, call: &MethodCall) -> bool {
        let is_it = |known: &Remembered| {
            known.id == call.id() && known.method == call.method() && known.values == *call.values()
        };
        self.0.iter().any(is_it)
    }

    /// Whether the id is known.
    pub(crate) fn knows(&self, id: &str) -> bool {
        self.0.iter().any(|known| known.id == id)
    }

    fn is_running(&self) -> bool {
        self.0.iter().any(|call| call.outcome.state == CallState::Running)
    }

    /// Remembers a call. The oldest that was refused makes room, and then the oldest that is over: whoever calls in vain makes no id forgotten
    /// that was called.
    pub(crate) fn put(&mut self, call: Remembered) {
        while self.0.len() >= CALLS_MAX {
            let refused = self.0.iter().position(|call| call.outcome.state == CallState::Refused);
            let over = || self.0.iter().position(|call| call.outcome.state != CallState::Running);
            self.0.remove(refused.or_else(over).unwrap_or_default());
        }
        self.0.push(call);
    }

    /// A call that runs has ended. Answers it.
    pub(crate) fn end(&mut self, id: &str, outcome: CallOutcome, now: &str) -> Option<&Remembered> {
        let running = |call: &&mut Remembered| call.id == id && call.outcome.state == CallState::Running;
        let call = self.0.iter_mut().find(running)?;
        (call.outcome, call.time) = (outcome, now.to_owned());
        Some(call)
    }

    /// All of them.
    pub(crate) fn all(&self) -> &[Remembered] {
        &self.0
    }

    /// What the cloud is to know.
    pub(crate) fn report(&self, id: &DeviceName) -> UpReport {
        let calls = self.0.iter().map(Remembered::record).collect();
        UpReport::MethodCalls { namespace: id.namespace.clone(), name: id.name.clone(), calls }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract::device_call::WITHIN;

    fn call(id: &str, level: &str) -> MethodCall {
        MethodCall::new(id, "SetLevel", [("level".to_owned(), level.to_owned())].into(), WITHIN).unwrap()
    }

    fn began(id: &str) -> Remembered {
        let running = outcome(CallState::Running, 0, "");
        Remembered::new(&call(id, "5"), CallOrigin::Mqtt, running, "t".to_owned())
    }

    #[test]
    fn an_id_makes_one_call_and_a_device_has_one_at_a_time() {
        let mut calls = Calls::default();
        assert_eq!(calls.answer_to(&call("a", "5")), None);
        calls.put(began("a"));
        let said = |calls: &Calls, call: &MethodCall| {
            let CallOutcome { code, message, .. } = calls.answer_to(call).unwrap();
            (code, message)
        };
        assert!(matches!(said(&calls, &call("a", "5")), (409, words) if words.contains("under way")));
        assert!(matches!(said(&calls, &call("b", "5")), (409, words) if words.contains("one at a time")));
        let done = outcome(CallState::Done, 200, "");
        assert!(calls.end("a", done.clone(), "u").is_some());
        assert_eq!(calls.end("a", outcome(CallState::Failed, 502, ""), "v"), None, "an end counts once");
        assert_eq!(calls.answer_to(&call("a", "5")), Some(done));
        assert!(matches!(said(&calls, &call("a", "6")), (409, words) if words.contains("another call's")));
        assert_eq!(calls.answer_to(&call("b", "5")), None);
    }

    #[test]
    fn one_that_was_under_way_is_not_repeated_after_a_restart() {
        let (calls, interrupted) = Calls::restored(vec![began("a")], "later");
        let CallOutcome { state, message, .. } = calls.answer_to(&call("a", "5")).unwrap();
        assert!(interrupted && state == CallState::Unknown && message.contains("restarted"), "{message}");
        assert_eq!(calls.all()[0].time, "later");
        assert!(!Calls::restored(calls.all().to_vec(), "later still").1);
    }

    #[test]
    fn sixteen_are_remembered_and_the_one_under_way_among_them() {
        let mut calls = Calls::default();
        calls.put(began("first"));
        for n in 0..40 {
            let refused = outcome(CallState::Refused, 400, "é".repeat(1000));
            calls.put(Remembered { outcome: refused, ..began(&n.to_string()) });
        }
        assert_eq!(calls.all().len(), CALLS_MAX);
        assert!(calls.knows("first") && calls.knows("39") && !calls.knows("20"));
        let id = DeviceName::parse("d", "pump").unwrap();
        let report = contract::Unparsed::from(calls.report(&id));
        assert!(report.parse().is_ok(), "the cloud takes what the node remembers");
    }
}
