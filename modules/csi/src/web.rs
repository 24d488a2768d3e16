//! Calls as gRPC-Web has them, for ways that carry a body there and a body back, and no trailers: one message, and one answer with its
//! status behind it (github.com/grpc/grpc, `doc/PROTOCOL-WEB.md`).
//!
//! A frame is `flags u8 | length u32, big-endian | bytes`. The message is a frame with the flags 0; the status is one with the flag
//! 0x80, whose bytes are lines of HTTP/1 headers.

use prost::bytes::Bytes;
use thiserror::Error;
use tonic::codegen::http::{HeaderMap, HeaderName, HeaderValue};
use tonic::{Code, Status};

const HEAD: usize = 5;
const MESSAGE: u8 = 0;
const TRAILERS: u8 = 0x80;
/// Trailers that are read: code, words, details.
const READ: [&str; 3] = ["grpc-status", "grpc-message", "grpc-status-details-bin"];

/// Why bytes are no call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum WebError {
    /// A frame is cut short.
    #[error("a frame of gRPC-Web is cut short")]
    Short,
    /// It is compressed, or another frame than is expected here.
    #[error("a frame of gRPC-Web has flags {0:#x}, which are not expected here")]
    Flags(u8),
    /// There is more behind it.
    #[error("there is more behind the last frame of gRPC-Web")]
    More,
    /// It has no status.
    #[error("the answer has no status of gRPC")]
    NoStatus,
}

fn frame(flags: u8, bytes: &[u8]) -> Vec<u8> {
    // Nothing here is as long as 4 GiB.
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    [&[flags][..], &length.to_be_bytes(), bytes].concat()
}

fn split(bytes: &[u8]) -> Result<(u8, &[u8], &[u8]), WebError> {
    let (head, rest) = bytes.split_first_chunk::<HEAD>().ok_or(WebError::Short)?;
    let [flags, length @ ..] = head;
    let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
    let (own, rest) = rest.split_at_checked(length).ok_or(WebError::Short)?;
    Ok((*flags, own, rest))
}

/// The body of a call with this message.
pub fn request(message: &[u8]) -> Vec<u8> {
    frame(MESSAGE, message)
}

/// The message of a call.
///
/// # Errors
/// See [`WebError`].
pub fn message(body: &[u8]) -> Result<Bytes, WebError> {
    match split(body)? {
        (MESSAGE, own, []) => Ok(Bytes::copy_from_slice(own)),
        (MESSAGE, ..) => Err(WebError::More),
        (flags, ..) => Err(WebError::Flags(flags)),
    }
}

/// The body of an answer.
pub fn answer(answered: &Result<Bytes, Status>) -> Vec<u8> {
    let ok = Status::new(Code::Ok, "");
    let (mut bytes, status) = match answered {
        Ok(message) => (frame(MESSAGE, message), &ok),
        Err(status) => (Vec::new(), status),
    };
    let mut headers = HeaderMap::new();
    if status.add_header(&mut headers).is_err() {
        // Its details are none that a header holds.
        headers.clear();
        headers.insert(READ[0], HeaderValue::from(i32::from(status.code())));
    }
    let lines = headers.iter().filter(|(name, _)| READ.contains(&name.as_str()));
    let lines =
        lines.flat_map(|(name, value)| [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    bytes.extend(frame(TRAILERS, &lines.collect::<Vec<u8>>()));
    bytes
}

/// What an answer says: its message, or its status.
///
/// # Errors
/// The status; `Internal` for what is no answer of gRPC-Web.
pub fn answered(body: &[u8]) -> Result<Bytes, Status> {
    read(body).unwrap_or_else(|error| Err(Status::internal(error.to_string())))
}

fn read(body: &[u8]) -> Result<Result<Bytes, Status>, WebError> {
    let (message, trailers) = match split(body)? {
        (MESSAGE, message, rest) => match split(rest)? {
            (TRAILERS, trailers, []) => (Some(message), trailers),
            (TRAILERS, ..) => return Err(WebError::More),
            (flags, ..) => return Err(WebError::Flags(flags)),
        },
        (TRAILERS, trailers, []) => (None, trailers),
        (TRAILERS, ..) => return Err(WebError::More),
        (flags, ..) => return Err(WebError::Flags(flags)),
    };
    let status = status(trailers).ok_or(WebError::NoStatus)?;
    match (status.code(), message) {
        (Code::Ok, Some(message)) => Ok(Ok(Bytes::copy_from_slice(message))),
        (Code::Ok, None) => Err(WebError::Short),
        _ => Ok(Err(status)),
    }
}

fn status(trailers: &[u8]) -> Option<Status> {
    let mut headers = HeaderMap::new();
    for line in trailers.split(|byte| *byte == b'\n') {
        let line = line.trim_ascii();
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let (name, value) = line.split_at(colon);
        let name = HeaderName::from_bytes(name).ok()?;
        if READ.contains(&name.as_str()) {
            headers.insert(name, HeaderValue::from_bytes(value.get(1..)?.trim_ascii()).ok()?);
        }
    }
    unixgrpc::without_unsound(&mut headers);
    let status = Status::from_header_map(&headers)?;
    Some(Status::with_details(status.code(), status.message(), Bytes::copy_from_slice(status.details())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_and_an_answer_are_read_back() {
        let bytes = Bytes::from_static(b"\x0a\x01v");
        assert_eq!(request(&bytes), b"\0\0\0\0\x03\x0a\x01v");
        assert_eq!(message(&request(&bytes)), Ok(bytes.clone()));
        assert_eq!(answer(&Ok(bytes.clone())), b"\0\0\0\0\x03\x0a\x01v\x80\0\0\0\x10grpc-status: 0\r\n");
        assert_eq!(answered(&answer(&Ok(bytes.clone()))).unwrap(), bytes);
        assert_eq!(answered(&answer(&Ok(Bytes::new()))).unwrap(), Bytes::new());
    }

    #[test]
    fn a_status_comes_over_whole() {
        let said = Status::with_details(
            Code::FailedPrecondition,
            "volume \"ü\" is\r\nin use: 5%",
            Bytes::from_static(b"\0\x01\xff"),
        );
        let read = answered(&answer(&Err(said))).unwrap_err();
        assert_eq!(read.code(), Code::FailedPrecondition);
        assert_eq!((read.message(), read.details()), ("volume \"ü\" is\r\nin use: 5%", &b"\0\x01\xff"[..]));
        for code in 1..=16 {
            let read = answered(&answer(&Err(Status::new(Code::from(code), "w")))).unwrap_err();
            assert_eq!(read.code(), Code::from(code));
        }
        // As others write them.
        let other = frame(TRAILERS, b"Grpc-Status:5\ngrpc-message:no%20such\nx-other: y\n");
        let read = answered(&other).unwrap_err();
        assert_eq!((read.code(), read.message()), (Code::NotFound, "no such"));
    }

    #[test]
    fn what_is_no_call_is_no_answer() {
        for (body, why) in [
            (&b""[..], WebError::Short),
            (b"\0\0\0\0", WebError::Short),
            (b"\0\xff\xff\xff\xffx", WebError::Short),
            (b"\x01\0\0\0\0", WebError::Flags(1)),
            (b"\x80\0\0\0\0", WebError::Flags(0x80)),
            (b"\0\0\0\0\0x", WebError::More),
        ] {
            assert_eq!(message(body), Err(why), "{body:?}");
        }
        let ok = answer(&Ok(Bytes::new()));
        let twice = [request(b""), request(b"")].concat();
        let more = [&ok[..], b"x"].concat();
        let without = frame(TRAILERS, b"x: y\r\n");
        let no_message = frame(TRAILERS, b"grpc-status: 0\r\n");
        for body in [&ok[..ok.len() - 1], &request(b"a"), &twice, &more, &without, &no_message, b"<html>"] {
            assert_eq!(answered(body).unwrap_err().code(), Code::Internal, "{body:?}");
        }
    }
}
