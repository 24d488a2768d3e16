//! The heads of streams of rules as version 1 writes them.

use serde::{Deserialize, Serialize};

use crate::rule_stream::{HEAD_MAX, RuleStreamAnswer, RuleStreamError, RuleStreamRequest};
use crate::wire::codec;

const PUBLISH: u16 = 1;
const CALL: u16 = 2;
const ANSWER: u16 = 3;

#[derive(Serialize, Deserialize)]
struct PublishV1 {
    topic: String,
}

#[derive(Serialize, Deserialize)]
struct CallV1 {
    port: u16,
    method: String,
    path: String,
    headers: Vec<(String, Vec<u8>)>,
}

#[derive(Serialize, Deserialize)]
struct AnswerV1 {
    status: u16,
    headers: Vec<(String, Vec<u8>)>,
}

fn head<T: Serialize>(kind: u16, value: &T) -> Result<Vec<u8>, RuleStreamError> {
    let body = codec::encode(value).map_err(|_| RuleStreamError::Malformed)?;
    let length = body.len() + 2;
    if length > HEAD_MAX {
        return Err(RuleStreamError::Length(length));
    }
    let prefix = u32::try_from(length).map_err(|_| RuleStreamError::Length(length))?;
    Ok([&prefix.to_le_bytes()[..], &kind.to_le_bytes(), &body].concat())
}

fn split(head: &[u8]) -> Result<(u16, &[u8]), RuleStreamError> {
    if head.len() > HEAD_MAX {
        return Err(RuleStreamError::Length(head.len()));
    }
    let (kind, body) = head.split_first_chunk().ok_or(RuleStreamError::Length(head.len()))?;
    Ok((u16::from_le_bytes(*kind), body))
}

pub(crate) fn encode_request(request: &RuleStreamRequest) -> Result<Vec<u8>, RuleStreamError> {
    match request.clone() {
        RuleStreamRequest::Publish { topic } => head(PUBLISH, &PublishV1 { topic }),
        RuleStreamRequest::Call { port, method, path, headers } => {
            head(CALL, &CallV1 { port, method, path, headers })
        }
    }
}

pub(crate) fn decode_request(bytes: &[u8]) -> Result<RuleStreamRequest, RuleStreamError> {
    match split(bytes)? {
        (PUBLISH, body) => {
            let PublishV1 { topic } = codec::decode(body).map_err(|_| RuleStreamError::Malformed)?;
            Ok(RuleStreamRequest::Publish { topic })
        }
        (CALL, body) => {
            let CallV1 { port, method, path, headers } =
                codec::decode(body).map_err(|_| RuleStreamError::Malformed)?;
            Ok(RuleStreamRequest::Call { port, method, path, headers })
        }
        (kind, _) => Err(RuleStreamError::Kind(kind)),
    }
}

pub(crate) fn encode_answer(answer: &RuleStreamAnswer) -> Result<Vec<u8>, RuleStreamError> {
    let RuleStreamAnswer { status, headers } = answer.clone();
    head(ANSWER, &AnswerV1 { status, headers })
}

pub(crate) fn decode_answer(bytes: &[u8]) -> Result<RuleStreamAnswer, RuleStreamError> {
    match split(bytes)? {
        (ANSWER, body) => {
            let AnswerV1 { status, headers } = codec::decode(body).map_err(|_| RuleStreamError::Malformed)?;
            Ok(RuleStreamAnswer { status, headers })
        }
        (kind, _) => Err(RuleStreamError::Kind(kind)),
    }
}
