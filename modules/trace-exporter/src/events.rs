//! Named events: each is one log line and one counter.

use beehive::Env;

/// The collector takes spans, for the first time or again.
pub(crate) fn taken(env: &Env, collector: &str) {
    env.count("traceexporter_collector_takes");
    tracing::info!(collector, "traces leave for the collector");
}

/// The collector took nothing; the spans wait.
pub(crate) fn not_taken(env: &Env, collector: &str, why: &str, failures: u32) {
    env.count("traceexporter_not_taken");
    // The first of a row, and then one in a while: it may be away for days.
    if failures == 1 || failures.is_multiple_of(100) {
        tracing::warn!(collector, why, times = failures, "traces wait: the collector does not take them");
    }
}

/// The collector will never take a post.
pub(crate) fn refused(env: &Env, collector: &str, why: &str, spans: usize) {
    env.count("traceexporter_refused");
    tracing::warn!(collector, why, spans, "the collector refuses spans, which are given up");
}

/// The collector has not taken some of a post.
pub(crate) fn rejected(env: &Env, collector: &str, why: &str, spans: u64) {
    env.count("traceexporter_rejected");
    tracing::warn!(collector, why, spans, "the collector rejects some spans of a post, which are given up");
}

/// Spans were given up since this was said last.
pub(crate) fn dropped(env: &Env, spans: u64) {
    env.count("traceexporter_spans_dropped");
    tracing::warn!(spans, "spans were dropped: more came than were taken (trace_spans_dropped)");
}

/// Contexts of other ends of links were not taken.
pub(crate) fn contexts_refused(env: &Env, contexts: u64) {
    env.count("traceexporter_contexts_refused");
    tracing::warn!(
        contexts,
        "another end of a link follows more than is taken of it (trace_contexts_refused)"
    );
}
