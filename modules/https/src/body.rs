//! Bodies of answers and of requests.

use std::io;
use std::time::Duration;

use beehive::Clock;
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body::Body as _;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use thiserror::Error;

/// An answer's body: whole ([`whole`]) or a stream (`http_body_util::StreamBody`, boxed). One that fails ends its
/// connection, so that nobody takes half an answer for a whole one.
pub type Body = UnsyncBoxBody<Bytes, io::Error>;

/// Why a request's body was not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BodyError {
    /// It is longer than it may be.
    #[error("the body is too long")]
    TooLong,
    /// It did not arrive in time.
    #[error("the body did not arrive in time")]
    TooSlow,
    /// The client broke off, or sent what is no HTTP.
    #[error("the body broke off")]
    BrokenOff,
}

/// A body of these bytes.
pub fn whole(bytes: impl Into<Bytes>) -> Body {
    UnsyncBoxBody::new(Full::new(bytes.into()).map_err(|never| match never {}))
}

/// An answer of these bytes.
pub fn answer(status: StatusCode, content_type: &'static str, bytes: impl Into<Bytes>) -> Response<Body> {
    let mut answer = Response::new(whole(bytes));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

/// A sentence as an answer.
pub fn sentence(status: StatusCode, text: impl Into<String>) -> Response<Body> {
    answer(status, "text/plain; charset=utf-8", text.into())
}

/// Reads at most `most` bytes, within `within` from now. A length that is declared longer is refused before anything is read.
///
/// # Errors
/// See [`BodyError`].
pub async fn read(
    body: &mut Incoming,
    most: usize,
    within: Duration,
    clock: &dyn Clock,
) -> Result<Bytes, BodyError> {
    if usize::try_from(body.size_hint().lower()).map_or(true, |declared| declared > most) {
        return Err(BodyError::TooLong);
    }
    let read = Limited::new(body, most).collect();
    tokio::select! {
        read = read => match read {
            Ok(body) => Ok(body.to_bytes()),
            Err(error) if error.is::<LengthLimitError>() => Err(BodyError::TooLong),
            Err(_) => Err(BodyError::BrokenOff),
        },
        () = clock.sleep(within) => Err(BodyError::TooSlow),
    }
}

/// Takes what a refused client still sends, at most `most` bytes and no longer than `within`: a connection that is closed on
/// unread bytes can lose the answer on its way.
pub async fn discard(body: Incoming, most: usize, within: Duration, clock: &dyn Clock) {
    tokio::select! {
        _ = Limited::new(body, most).collect() => {}
        () = clock.sleep(within) => {}
    }
}
