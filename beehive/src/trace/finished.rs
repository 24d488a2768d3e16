//! A span that has ended, as it waits to be exported.

use std::time::SystemTime;

use super::context::TraceContext;

/// How a span stands to the one before it, as OpenTelemetry names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpanKind {
    /// Within one process.
    Internal,
    /// A message leaves.
    Producer,
    /// A message has come.
    Consumer,
    /// Something else is called.
    Client,
}

/// A span that has ended.
#[derive(Debug, Clone, PartialEq)]
pub struct FinishedSpan {
    /// What was done.
    pub name: &'static str,
    /// Which it is.
    pub context: TraceContext,
    /// Whose child it is; `None`: the first of its trace.
    pub parent: Option<[u8; 8]>,
    /// How it stands to that one.
    pub kind: SpanKind,
    /// When it began, by the wall clock.
    pub began: SystemTime,
    /// When it ended: that, and what has passed since.
    pub ended: SystemTime,
    /// What is said of it, each text cut off at 256 bytes.
    pub attributes: Vec<(&'static str, String)>,
    /// Why it came to nothing.
    pub error: Option<String>,
}

impl FinishedSpan {
    /// About what it weighs, in memory and in an export.
    pub(super) fn bytes(&self) -> usize {
        let texts = self.attributes.iter().map(|(key, value)| 48 + key.len() + value.len());
        size_of::<FinishedSpan>() + self.error.as_ref().map_or(0, String::len) + texts.sum::<usize>()
    }
}
