//! Traces: which messages, in this process and beyond its links, belong to one thing that somebody follows.
//!
//! A trace is a number of 16 bytes, as W3C's Trace Context has it, and a span is one step on its way. Whoever begins something
//! worth following begins a [`Span`] ([`Traces::root`]), by lot as often as the settings say; whoever does the next step of it makes
//! a child of that. What is not drawn costs a branch and allocates nothing: only sampled contexts travel.
//!
//! A context travels in two ways:
//! * With messages. What is told or asked while a context is current ([`with_context`], [`with_parts`]) carries it to the handler,
//!   whose context it then is ([`context`], [`part`]); so does a task that a handler spawns, and a link ([`extension`]) to an end
//!   that says that it takes contexts. A message with many things in it has a context for each of them that is followed: its parts. A
//!   context that nobody makes a span of ends after 16 handlers, so that an actor which tells itself goes on without it.
//! * By what it is about. Where an actor looks at its state, and a message says no more than that there is something new, the
//!   context waits under a name ([`Traces::follow`], [`Traces::of`]): bounded, for ten minutes, and for 64 steps.
//!
//! Spans that have ended wait for whoever exports them ([`Traces::take`]), 2,048 and 1 MiB at the most; then the oldest go, and are
//! counted. What another end of a link says is hostile: its bytes are bounded before they are looked at, and of one end some contexts
//! are taken at once and then a few a second.

mod carried;
mod context;
mod extension;
mod finished;
mod peer_rates;
mod queue;
mod span;
mod subjects;
mod traces;

pub(crate) use carried::{Carried, Letter, current, enter, within};
pub use carried::{context, part, parts, with_context, with_parts};
pub use context::TraceContext;
pub(crate) use extension::CAPABILITY;
pub use extension::PARTS_MAX;
pub use finished::{FinishedSpan, SpanKind};
pub use queue::{QUEUE_BYTES, QUEUE_SPANS};
pub use span::Span;
pub(crate) use traces::Sending;
pub use traces::{CONTEXTS_REFUSED, SPANS_DROPPED, TraceSettings, Traces};
