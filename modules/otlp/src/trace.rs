//! `trace_service.proto` and `trace.proto`.

use crate::{Attribute, Resource, Scope};

/// What is posted.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Request {
    /// By who they are of.
    #[prost(message, repeated, tag = "1")]
    pub resources: Vec<ResourceSpans>,
}

/// The spans of one program.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ResourceSpans {
    /// Which.
    #[prost(message, optional, tag = "1")]
    pub resource: Option<Resource>,
    /// By the part of it.
    #[prost(message, repeated, tag = "2")]
    pub scopes: Vec<ScopeSpans>,
}

/// The spans of one part.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ScopeSpans {
    /// Which.
    #[prost(message, optional, tag = "1")]
    pub scope: Option<Scope>,
    /// The spans.
    #[prost(message, repeated, tag = "2")]
    pub spans: Vec<Span>,
}

/// A span.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Span {
    /// 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub trace_id: Vec<u8>,
    /// 8 bytes.
    #[prost(bytes = "vec", tag = "2")]
    pub span_id: Vec<u8>,
    /// 8 bytes, or none of the first span of a trace.
    #[prost(bytes = "vec", tag = "4")]
    pub parent_span_id: Vec<u8>,
    /// What was done.
    #[prost(string, tag = "5")]
    pub name: String,
    /// One of [`kind`].
    #[prost(int32, tag = "6")]
    pub kind: i32,
    /// Nanoseconds since 1970.
    #[prost(fixed64, tag = "7")]
    pub start: u64,
    /// The same.
    #[prost(fixed64, tag = "8")]
    pub end: u64,
    /// What is said of it.
    #[prost(message, repeated, tag = "9")]
    pub attributes: Vec<Attribute>,
    /// What became of it.
    #[prost(message, optional, tag = "15")]
    pub status: Option<Status>,
    /// W3C's flags of the trace in the lowest byte.
    #[prost(fixed32, tag = "16")]
    pub flags: u32,
}

/// What became of a span.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Status {
    /// Why it came to nothing.
    #[prost(string, tag = "2")]
    pub message: String,
    /// [`STATUS_ERROR`], or 0.
    #[prost(int32, tag = "3")]
    pub code: i32,
}

/// It came to nothing.
pub const STATUS_ERROR: i32 = 2;

/// How a span stands to the one before it.
pub mod kind {
    /// Within one process.
    pub const INTERNAL: i32 = 1;
    /// Something else is called.
    pub const CLIENT: i32 = 3;
    /// A message leaves.
    pub const PRODUCER: i32 = 4;
    /// A message has come.
    pub const CONSUMER: i32 = 5;
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    /// As `protoc` writes it: `protoc --encode opentelemetry.proto.collector.trace.v1.ExportTraceServiceRequest`.
    #[test]
    fn the_bytes_are_those_of_the_definition() {
        let span = Span {
            trace_id: vec![0xaa; 16],
            span_id: vec![0xbb; 8],
            parent_span_id: vec![0xcc; 8],
            name: "s".to_owned(),
            kind: kind::CONSUMER,
            start: 1,
            end: 2,
            attributes: vec![Attribute::text("k", "v")],
            status: Some(Status { message: "m".to_owned(), code: STATUS_ERROR }),
            flags: 1,
        };
        let bytes = span.encode_to_vec();
        let expected = [
            &[0x0a, 16][..],
            &[0xaa; 16],
            &[0x12, 8],
            &[0xbb; 8],
            &[0x22, 8],
            &[0xcc; 8],
            &[0x2a, 1, b's', 0x30, 5],
            &[0x39, 1, 0, 0, 0, 0, 0, 0, 0, 0x41, 2, 0, 0, 0, 0, 0, 0, 0],
            &[0x4a, 8, 0x0a, 1, b'k', 0x12, 3, 0x0a, 1, b'v'],
            &[0x7a, 5, 0x12, 1, b'm', 0x18, 2],
            &[0x85, 0x01, 1, 0, 0, 0],
        ];
        assert_eq!(bytes, expected.concat());
    }
}
