//! The messages of OTLP (opentelemetry-proto 1.x) as far as they are used, written by hand: those that all signals share here, those of
//! traces in [`trace`]. The mappers have those of metrics.
//!
//! What they leave out is what nobody here says; a collector takes it as left out.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod trace;

/// The media type of requests and answers.
pub const PROTOBUF: &str = "application/x-protobuf";

/// Who it is about.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Resource {
    /// What is said of it.
    #[prost(message, repeated, tag = "1")]
    pub attributes: Vec<Attribute>,
}

/// A key and its value.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Attribute {
    /// The key, as OpenTelemetry's semantic conventions have it where they do.
    #[prost(string, tag = "1")]
    pub key: String,
    /// The value.
    #[prost(message, optional, tag = "2")]
    pub value: Option<AnyValue>,
}

impl Attribute {
    /// A key with a text.
    pub fn text(key: impl Into<String>, value: impl Into<String>) -> Self {
        Attribute { key: key.into(), value: Some(AnyValue { text: Some(value.into()) }) }
    }
}

/// A value; here always a text.
#[derive(Clone, PartialEq, prost::Message)]
pub struct AnyValue {
    /// The text.
    #[prost(string, optional, tag = "1")]
    pub text: Option<String>,
}

/// Which part of a program says it.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Scope {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its version.
    #[prost(string, tag = "2")]
    pub version: String,
}

/// A collector's answer.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Response {
    /// What it has not taken of what came, or a word beside.
    #[prost(message, optional, tag = "1")]
    pub partial: Option<PartialSuccess>,
}

/// What a collector has not taken.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PartialSuccess {
    /// How many.
    #[prost(int64, tag = "1")]
    pub rejected: i64,
    /// Why.
    #[prost(string, tag = "2")]
    pub message: String,
}
