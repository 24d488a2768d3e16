//! A step that is under way.

use std::time::SystemTime;

use super::context::TraceContext;
use super::finished::{FinishedSpan, SpanKind};
use crate::Moment;

/// 256 bytes of a text are kept: names of things are no longer.
const TEXT_MAX: usize = 256;
/// 16: what is said of one span.
const ATTRIBUTES_MAX: usize = 16;

/// Where a span goes when it has ended.
pub(super) trait Recorder {
    fn now(&self) -> Moment;
    fn record(&self, span: FinishedSpan);
}

/// A step that is under way. It ends when it is dropped. One that nobody follows is nothing, and costs nothing.
#[derive(Default)]
pub struct Span(Option<Box<Open>>);

struct Open {
    recorder: Box<dyn Recorder + Send + Sync>,
    finished: FinishedSpan,
    began_at: Moment,
}

impl Span {
    pub(super) fn begin(
        recorder: Box<dyn Recorder + Send + Sync>,
        name: &'static str,
        (context, parent): (TraceContext, Option<[u8; 8]>),
        wall: SystemTime,
    ) -> Self {
        let began_at = recorder.now();
        let finished = FinishedSpan {
            name,
            context,
            parent,
            kind: SpanKind::Internal,
            began: wall,
            ended: wall,
            attributes: Vec::new(),
            error: None,
        };
        Span(Some(Box::new(Open { recorder, finished, began_at })))
    }

    /// One that nobody follows.
    pub fn none() -> Self {
        Span(None)
    }

    /// Whether somebody follows it.
    pub fn is_followed(&self) -> bool {
        self.0.is_some()
    }

    /// Which it is, for its children; `None` where nobody follows it.
    pub fn context(&self) -> Option<TraceContext> {
        self.0.as_ref().map(|open| open.finished.context)
    }

    /// How it stands to the one before it.
    #[must_use]
    pub fn of_kind(mut self, kind: SpanKind) -> Self {
        if let Some(open) = &mut self.0 {
            open.finished.kind = kind;
        }
        self
    }

    /// Says something of it. `value` is asked only where somebody follows it; more than 16 are left out, and texts are cut off at 256
    /// bytes.
    #[must_use]
    pub fn with<T: Into<String>>(mut self, key: &'static str, value: impl FnOnce() -> T) -> Self {
        self.set(key, value);
        self
    }

    /// The same, of one that is under way.
    pub fn set<T: Into<String>>(&mut self, key: &'static str, value: impl FnOnce() -> T) {
        if let Some(open) = &mut self.0
            && open.finished.attributes.len() < ATTRIBUTES_MAX
        {
            open.finished.attributes.push((key, cut(value().into())));
        }
    }

    /// It came to nothing, and why.
    pub fn fail<T: Into<String>>(&mut self, why: impl FnOnce() -> T) {
        if let Some(open) = &mut self.0 {
            open.finished.error = Some(cut(why().into()));
        }
    }
}

fn cut(mut text: String) -> String {
    let end = (0..=TEXT_MAX.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    text.truncate(end);
    text
}

impl Drop for Span {
    fn drop(&mut self) {
        if let Some(open) = self.0.take() {
            let Open { recorder, mut finished, began_at } = *open;
            finished.ended = finished.began + recorder.now().since(began_at);
            recorder.record(finished);
        }
    }
}

impl std::fmt::Debug for Span {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            Some(open) => write!(f, "Span({} {})", open.finished.name, open.finished.context),
            None => f.write_str("Span(none)"),
        }
    }
}
