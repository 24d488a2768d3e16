//! A reply as HTTP has it, for who asks on the node.

use futures::StreamExt as _;
use http::{HeaderName, HeaderValue, StatusCode, header};
use http_body_util::StreamBody;
use https::{Answer, body};
use hyper::body::Frame;

use crate::answer::{Body, Reply};
use crate::pieces;

/// A reply as HTTP has it; of a log and the like: not found, they have ways of their own.
pub(crate) fn http_answer(reply: Reply) -> Answer {
    let (length, pieces) = match reply.body {
        Body::Whole(bytes) => (Some(bytes.len()), pieces::whole(bytes, reply.held)),
        Body::Pods(list) => (None, list.pieces()),
        // No other call is answered here.
        Body::Log(..) | Body::Content(..) | Body::Upgraded(_) => {
            return body::sentence(StatusCode::NOT_FOUND, "404 page not found\n");
        }
    };
    let frames = StreamBody::new(pieces.map(|piece| piece.map(Frame::data)));
    let mut answer = Answer::new(https::Body::new(frames));
    *answer.status_mut() = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in reply.headers {
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(&value))
        {
            answer.headers_mut().append(name, value);
        }
    }
    if let Some(length) = length {
        answer.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    answer
}
