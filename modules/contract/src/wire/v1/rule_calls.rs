//! Calls of rules' targets, and their answers, as version 1 writes them.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::telemetry::run;
use crate::rule_call::{RuleAnswer, RuleCall};

#[derive(Serialize, Deserialize)]
pub(super) struct RuleCallV1 {
    method: String,
    target_url: String,
    #[serde(with = "run")]
    payload: Bytes,
}

#[derive(Serialize, Deserialize)]
pub(super) struct RuleAnswerV1 {
    code: u16,
    message: String,
    #[serde(with = "run")]
    body: Bytes,
}

impl From<RuleCall> for RuleCallV1 {
    fn from(RuleCall { method, target_url, payload }: RuleCall) -> Self {
        RuleCallV1 { method, target_url, payload }
    }
}

impl From<RuleCallV1> for RuleCall {
    fn from(RuleCallV1 { method, target_url, payload }: RuleCallV1) -> Self {
        RuleCall { method, target_url, payload }
    }
}

impl From<RuleAnswer> for RuleAnswerV1 {
    fn from(RuleAnswer { code, message, body }: RuleAnswer) -> Self {
        RuleAnswerV1 { code, message, body }
    }
}

impl From<RuleAnswerV1> for RuleAnswer {
    fn from(RuleAnswerV1 { code, message, body }: RuleAnswerV1) -> Self {
        RuleAnswer { code, message, body }
    }
}
