//! The heads of byte streams as version 1 writes them.

use serde::{Deserialize, Serialize};

use crate::stream::{HEAD_MAX, StreamHeadError, StreamRequest, StreamResponse};
use crate::wire::codec;

const REQUEST: u16 = 1;
const RESPONSE: u16 = 2;

#[derive(Serialize, Deserialize)]
struct RequestV1 {
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    user: String,
}

#[derive(Serialize, Deserialize)]
struct ResponseV1 {
    status: u16,
    headers: Vec<(String, String)>,
}

fn head<T: Serialize>(kind: u16, value: &T) -> Result<Vec<u8>, StreamHeadError> {
    let body = codec::encode(value).map_err(|_| StreamHeadError::Malformed)?;
    let head = [&kind.to_le_bytes()[..], &body].concat();
    if head.len() <= HEAD_MAX { Ok(head) } else { Err(StreamHeadError::Length(head.len())) }
}

fn body(head: &[u8], kind: u16) -> Result<&[u8], StreamHeadError> {
    if head.len() > HEAD_MAX {
        return Err(StreamHeadError::Length(head.len()));
    }
    let (held, body) = head.split_first_chunk().ok_or(StreamHeadError::Length(head.len()))?;
    match u16::from_le_bytes(*held) {
        held if held == kind => Ok(body),
        other => Err(StreamHeadError::Kind(other)),
    }
}

pub(crate) fn encode_request(request: &StreamRequest) -> Result<Vec<u8>, StreamHeadError> {
    let StreamRequest { method, target, headers, user } = request.clone();
    head(REQUEST, &RequestV1 { method, target, headers, user })
}

pub(crate) fn decode_request(head: &[u8]) -> Result<StreamRequest, StreamHeadError> {
    let RequestV1 { method, target, headers, user } =
        codec::decode(body(head, REQUEST)?).map_err(|_| StreamHeadError::Malformed)?;
    Ok(StreamRequest { method, target, headers, user })
}

pub(crate) fn encode_response(response: &StreamResponse) -> Result<Vec<u8>, StreamHeadError> {
    let StreamResponse { status, headers } = response.clone();
    let head = head(RESPONSE, &ResponseV1 { status, headers })?;
    let length = u32::try_from(head.len()).map_err(|_| StreamHeadError::Length(head.len()))?;
    Ok([&length.to_le_bytes()[..], &head].concat())
}

pub(crate) fn decode_response(head: &[u8]) -> Result<StreamResponse, StreamHeadError> {
    let ResponseV1 { status, headers } =
        codec::decode(body(head, RESPONSE)?).map_err(|_| StreamHeadError::Malformed)?;
    Ok(StreamResponse { status, headers })
}
