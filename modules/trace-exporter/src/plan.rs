//! What is posted, what an answer means, and when it is tried again. Pure.

use std::time::{Duration, SystemTime};

use beehive::trace::{FinishedSpan, SpanKind};
use contract::traceexporter::ExportOutcome;
use otlp::trace::{Request, ResourceSpans, STATUS_ERROR, ScopeSpans, Span, Status, kind};
use otlp::{Attribute, Resource, Response, Scope};
use prost::Message as _;

use crate::Service;

/// 512 spans in a post: OpenTelemetry's own (`OTEL_BSP_MAX_EXPORT_BATCH_SIZE`).
pub(crate) const BATCH: usize = 512;
/// 5 s: the first pause after a collector took nothing; doubles up to [`PAUSE_MAX`].
pub(crate) const PAUSE_MIN: Duration = Duration::from_secs(5);
/// 5 min: the longest, and the longest that a collector may ask for.
pub(crate) const PAUSE_MAX: Duration = Duration::from_secs(300);
/// 200 characters of what a collector says are shown.
const SAID_MAX: usize = 200;
const SCOPE: &str = "kubehive";

fn nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

fn span(span: &FinishedSpan) -> Span {
    let attributes = span.attributes.iter().map(|(key, value)| Attribute::text(*key, value.as_str()));
    let status = span.error.as_ref().map(|why| Status { message: why.clone(), code: STATUS_ERROR });
    Span {
        trace_id: span.context.trace_id.to_vec(),
        span_id: span.context.span_id.to_vec(),
        parent_span_id: span.parent.map(|parent| parent.to_vec()).unwrap_or_default(),
        name: span.name.to_owned(),
        kind: match span.kind {
            SpanKind::Internal => kind::INTERNAL,
            SpanKind::Producer => kind::PRODUCER,
            SpanKind::Consumer => kind::CONSUMER,
            SpanKind::Client => kind::CLIENT,
        },
        start: nanos(span.began),
        end: nanos(span.ended),
        attributes: attributes.collect(),
        status,
        flags: u32::from(span.context.is_sampled),
    }
}

/// The body of a post.
pub(crate) fn request(service: &Service, spans: &[FinishedSpan]) -> Vec<u8> {
    let named = [("service.name", service.name), ("service.version", buildinfo::VERSION)];
    let mut attributes: Vec<Attribute> =
        named.into_iter().map(|(key, value)| Attribute::text(key, value)).collect();
    attributes.extend(service.node.as_ref().map(|node| Attribute::text("k8s.node.name", node.as_str())));
    let scope = Scope { name: SCOPE.to_owned(), version: buildinfo::VERSION.to_owned() };
    let scopes = vec![ScopeSpans { scope: Some(scope), spans: spans.iter().map(span).collect() }];
    let resource = Some(Resource { attributes });
    Request { resources: vec![ResourceSpans { resource, scopes }] }.encode_to_vec()
}

/// What a collector has answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The header `Retry-After`.
    pub(crate) retry_after: Option<String>,
    /// `None`: longer than anybody reads, or broken off.
    pub(crate) body: Option<Vec<u8>>,
}

/// What an answer means for the spans, as OTLP has it: 429, 502, 503 and 504 are for later, all else is for good.
pub(crate) fn judge(answer: &Answer) -> ExportOutcome {
    let said = || {
        let body = String::from_utf8_lossy(answer.body.as_deref().unwrap_or_default()).into_owned();
        let text: String = body.chars().filter(|c| !c.is_control()).take(SAID_MAX).collect();
        format!("it answers {} {}", answer.status, text.trim()).trim_end().to_owned()
    };
    match answer.status {
        200..=299 => {
            let response = answer.body.as_deref().and_then(|body| Response::decode(body).ok());
            let partial = response.and_then(|response| response.partial).unwrap_or_default();
            let shown: String = partial.message.chars().filter(|c| !c.is_control()).take(SAID_MAX).collect();
            let rejected = u64::try_from(partial.rejected).ok().filter(|count| *count > 0);
            ExportOutcome::Taken { rejected: rejected.map(|count| (count.min(BATCH as u64), shown)) }
        }
        429 | 502 | 503 | 504 => {
            // A date would be by its clock, and ours may be years off.
            let seconds = answer.retry_after.as_deref().and_then(|text| text.trim().parse::<u64>().ok());
            ExportOutcome::Later { why: said(), retry_after: seconds.map(Duration::from_secs) }
        }
        300..=399 => {
            let why = said();
            ExportOutcome::Later {
                why: format!(
                    "{why}; it wants to be asked elsewhere, which is not followed: write that address"
                ),
                retry_after: None,
            }
        }
        _ => ExportOutcome::Refused(said()),
    }
}

/// How long a collector is left alone that took nothing so many times in a row.
pub(crate) fn pause(failures: u32, retry_after: Option<Duration>) -> Duration {
    let own = (PAUSE_MIN * 2_u32.pow(failures.saturating_sub(1).min(6))).min(PAUSE_MAX);
    retry_after.map_or(own, |asked| asked.clamp(own, PAUSE_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use beehive::trace::TraceContext;
    use otlp::PartialSuccess;

    fn answer(status: u16, body: &[u8]) -> Answer {
        Answer { status, retry_after: None, body: Some(body.to_vec()) }
    }

    #[test]
    fn a_post_says_whose_spans_they_are() {
        let own = FinishedSpan {
            name: "EdgeController send",
            context: TraceContext { trace_id: [1; 16], span_id: [2; 8], is_sampled: true },
            parent: Some([3; 8]),
            kind: SpanKind::Producer,
            began: SystemTime::UNIX_EPOCH + Duration::from_nanos(5),
            ended: SystemTime::UNIX_EPOCH + Duration::from_nanos(7),
            attributes: vec![("k8s.node.name", "edge-1".to_owned())],
            error: Some("no".to_owned()),
        };
        let service = Service { name: "edgecore", node: Some("edge-1".to_owned()) };
        let read = Request::decode(&*request(&service, &[own])).unwrap();
        let resource = &read.resources[0];
        let of = |key: &str| {
            let found = resource.resource.as_ref().unwrap().attributes.iter().find(|own| own.key == key);
            found.and_then(|own| own.value.clone()?.text)
        };
        assert_eq!(of("service.name").as_deref(), Some("edgecore"));
        assert_eq!(of("service.version").as_deref(), Some(buildinfo::VERSION));
        assert_eq!(of("k8s.node.name").as_deref(), Some("edge-1"));
        let span = &resource.scopes[0].spans[0];
        assert_eq!((span.kind, span.start, span.end, span.flags), (kind::PRODUCER, 5, 7, 1));
        assert_eq!((span.trace_id.len(), span.parent_span_id.as_slice()), (16, &[3; 8][..]));
        assert_eq!(span.status.as_ref().map(|status| status.code), Some(STATUS_ERROR));
    }

    #[test]
    fn an_answer_is_for_good_or_for_later() {
        let partial = |rejected, message: &str| {
            let partial = PartialSuccess { rejected, message: message.to_owned() };
            Response { partial: Some(partial) }.encode_to_vec()
        };
        let taken = |rejected| ExportOutcome::Taken { rejected };
        assert_eq!(judge(&answer(200, &[])), taken(None));
        assert_eq!(judge(&answer(200, b"{not protobuf")), taken(None));
        assert_eq!(judge(&Answer { body: None, ..answer(202, &[]) }), taken(None));
        assert_eq!(judge(&answer(200, &partial(0, "a hint"))), taken(None));
        assert_eq!(judge(&answer(200, &partial(-1, "odd"))), taken(None));
        assert_eq!(judge(&answer(200, &partial(2, "old\n"))), taken(Some((2, "old".to_owned()))));
        assert!(matches!(
            judge(&answer(200, &partial(i64::MAX, ""))),
            ExportOutcome::Taken { rejected: Some((512, _)) }
        ));
        for status in [429, 502, 503, 504] {
            assert!(
                matches!(judge(&answer(status, b"busy")), ExportOutcome::Later { why, .. } if why.ends_with("busy"))
            );
        }
        for status in [400, 401, 404, 413, 500, 501, 100] {
            assert!(
                matches!(judge(&answer(status, &[b'x'; 9999])), ExportOutcome::Refused(why) if why.len() < 300)
            );
        }
        assert!(
            matches!(judge(&answer(302, &[])), ExportOutcome::Later { why, .. } if why.contains("elsewhere"))
        );
        let asked =
            |text: &str| match judge(&Answer { retry_after: Some(text.to_owned()), ..answer(503, &[]) }) {
                ExportOutcome::Later { retry_after, .. } => retry_after,
                other => panic!("{other:?}"),
            };
        assert_eq!(asked(" 30 "), Some(Duration::from_secs(30)));
        for odd in ["-1", "Wed, 21 Oct 2026 07:28:00 GMT", "", "99999999999999999999999"] {
            assert_eq!(asked(odd), None, "{odd}");
        }
    }

    #[test]
    fn a_collector_is_left_alone_for_longer_and_longer_and_never_for_ever() {
        let seconds =
            |failures, asked: Option<u64>| pause(failures, asked.map(Duration::from_secs)).as_secs();
        assert_eq!([1, 2, 3, 7, 99].map(|failures| seconds(failures, None)), [5, 10, 20, 300, 300]);
        assert_eq!(seconds(1, Some(60)), 60);
        assert_eq!(seconds(3, Some(1)), 20, "a collector that asks for less is not hurried to");
        assert_eq!(seconds(1, Some(u64::MAX)), 300);
    }
}
