//! Calls of an application on a node that a rule leads to an HTTP endpoint of the cloud (KubeEdge's ServiceBus), and their answers.

use bytes::Bytes;
use thiserror::Error;

/// 768 KiB of a call's payload, and of an answer's body: both go in one frame of the link.
pub const PAYLOAD_MAX: usize = 768 << 10;
/// 2 KiB: the longest URL.
pub const URL_MAX: usize = 2 << 10;
/// 16: the letters of a method.
pub const METHOD_MAX: usize = 16;
/// 1 KiB: the longest sentence.
pub const MESSAGE_MAX: usize = 1 << 10;

/// A call as the application asked for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleCall {
    /// The method that it named. The rule's target is called by POST, as with KubeEdge, whatever stands here.
    pub method: String,
    /// `target_url` of the rule.
    pub target_url: String,
    /// What is posted.
    pub payload: Bytes,
}

/// What came of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleAnswer {
    /// 200 where the target answered, whatever it said; else an HTTP status that says why it was not asked or has not answered.
    pub code: u16,
    /// A sentence; empty where the target answered.
    pub message: String,
    /// What the target answered.
    pub body: Bytes,
}

/// Why a call is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RuleCallError {
    /// The method is none.
    #[error("`method` is not 1 to 16 letters")]
    Method,
    /// The URL is empty or too long.
    #[error("`targetURL` has 1 to 2048 printable characters")]
    TargetUrl,
    /// The payload is too large.
    #[error("`payload` has more than {PAYLOAD_MAX} bytes")]
    Payload,
}

impl RuleCall {
    /// Whether every field is within its bounds.
    ///
    /// # Errors
    /// The first field that is not.
    pub fn check(&self) -> Result<(), RuleCallError> {
        let letters = self.method.bytes().all(|byte| byte.is_ascii_alphabetic());
        if self.method.is_empty() || self.method.len() > METHOD_MAX || !letters {
            return Err(RuleCallError::Method);
        }
        let is_printable = self.target_url.bytes().all(|byte| byte.is_ascii_graphic());
        if self.target_url.is_empty() || self.target_url.len() > URL_MAX || !is_printable {
            return Err(RuleCallError::TargetUrl);
        }
        if self.payload.len() > PAYLOAD_MAX {
            return Err(RuleCallError::Payload);
        }
        Ok(())
    }
}

impl RuleAnswer {
    /// An answer that is not the target's.
    pub fn failed(code: u16, message: impl Into<String>) -> Self {
        let mut message: String = message.into();
        let mut end = message.len().min(MESSAGE_MAX);
        while !message.is_char_boundary(end) {
            end -= 1;
        }
        message.truncate(end);
        RuleAnswer { code, message, body: Bytes::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call() -> RuleCall {
        RuleCall { method: "POST".into(), target_url: "http://a/b".into(), payload: Bytes::new() }
    }

    #[test]
    fn what_breaks_a_bound_is_no_call() {
        assert_eq!(call().check(), Ok(()));
        let checked = |change: &dyn Fn(&mut RuleCall)| {
            let mut call = call();
            change(&mut call);
            call.check()
        };
        for method in ["", "A B", "ABCDEFGHIJKLMNOPQ"] {
            assert_eq!(checked(&|call| call.method = method.into()), Err(RuleCallError::Method));
        }
        for url in [String::new(), "x".repeat(URL_MAX + 1), "http://a/\nb".into()] {
            assert_eq!(checked(&|call| call.target_url = url.clone()), Err(RuleCallError::TargetUrl));
        }
        let large = Bytes::from(vec![0; PAYLOAD_MAX + 1]);
        assert_eq!(checked(&|call| call.payload = large.clone()), Err(RuleCallError::Payload));
    }

    #[test]
    fn a_sentence_is_cut_at_a_character() {
        let answer = RuleAnswer::failed(500, "ä".repeat(MESSAGE_MAX));
        assert_eq!(answer.message.len(), MESSAGE_MAX);
        assert_eq!(
            RuleAnswer::failed(500, format!("a{}", "ä".repeat(MESSAGE_MAX))).message.len(),
            MESSAGE_MAX - 1
        );
    }
}
