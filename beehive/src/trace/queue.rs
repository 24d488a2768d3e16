//! Spans that wait to be exported. Pure.

use std::collections::VecDeque;

use super::finished::FinishedSpan;

/// 2,048 spans wait: OpenTelemetry's own bound (`OTEL_BSP_MAX_QUEUE_SIZE`).
pub const QUEUE_SPANS: usize = 2048;
/// 1 MiB of them.
pub const QUEUE_BYTES: usize = 1 << 20;

/// The spans that wait, the oldest first.
#[derive(Debug, Default)]
pub(super) struct SpanQueue {
    spans: VecDeque<FinishedSpan>,
    bytes: usize,
}

impl SpanQueue {
    /// Puts one at the end. Answers how many of the oldest had to go.
    pub(super) fn push(&mut self, span: FinishedSpan) -> u64 {
        self.bytes += span.bytes();
        self.spans.push_back(span);
        self.shed()
    }

    fn shed(&mut self) -> u64 {
        let mut gone = 0;
        while self.spans.len() > QUEUE_SPANS || self.bytes > QUEUE_BYTES {
            let Some(oldest) = self.spans.pop_front() else { break };
            self.bytes -= oldest.bytes();
            gone += 1;
        }
        gone
    }

    /// Takes the oldest, so many at the most.
    pub(super) fn take(&mut self, most: usize) -> Vec<FinishedSpan> {
        let taken: Vec<FinishedSpan> = self.spans.drain(..most.min(self.spans.len())).collect();
        self.bytes -= taken.iter().map(FinishedSpan::bytes).sum::<usize>();
        taken
    }

    /// Puts those back that were taken, as the oldest. Answers how many had to go.
    pub(super) fn put_back(&mut self, spans: Vec<FinishedSpan>) -> u64 {
        for span in spans.into_iter().rev() {
            self.bytes += span.bytes();
            self.spans.push_front(span);
        }
        self.shed()
    }

    pub(super) fn len(&self) -> usize {
        self.spans.len()
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::trace::{SpanKind, TraceContext};

    fn span(number: u8, text: usize) -> FinishedSpan {
        FinishedSpan {
            name: "x",
            context: TraceContext { trace_id: [number; 16], span_id: [1; 8], is_sampled: true },
            parent: None,
            kind: SpanKind::Internal,
            began: SystemTime::UNIX_EPOCH,
            ended: SystemTime::UNIX_EPOCH,
            attributes: vec![("k", "v".repeat(text))],
            error: None,
        }
    }

    fn numbers(queue: &mut SpanQueue, most: usize) -> Vec<u8> {
        queue.take(most).iter().map(|span| span.context.trace_id[0]).collect()
    }

    #[test]
    fn at_the_bound_the_oldest_go() {
        let mut queue = SpanQueue::default();
        for number in 0..QUEUE_SPANS {
            assert_eq!(queue.push(span(u8::from(number > 0), 1)), 0);
        }
        assert_eq!(queue.push(span(2, 1)), 1);
        assert_eq!(queue.len(), QUEUE_SPANS);
        assert!(numbers(&mut queue, QUEUE_SPANS - 1).iter().all(|number| *number == 1));
        assert_eq!(numbers(&mut queue, 9), [2]);
        assert_eq!((queue.len(), queue.bytes), (0, 0));
    }

    #[test]
    fn large_ones_take_room_by_their_size() {
        let mut queue = SpanQueue::default();
        let gone: u64 = (0..200).map(|_| queue.push(span(1, 10_000))).sum();
        assert!(gone > 0 && queue.bytes <= QUEUE_BYTES);
        assert_eq!(gone, 200 - queue.len() as u64);
        let before = queue.len() as u64;
        assert_eq!(queue.push(span(1, 2 * QUEUE_BYTES)), before + 1);
        assert_eq!((queue.len(), queue.bytes), (0, 0), "one that fits in no case is dropped, too");
    }

    #[test]
    fn what_was_put_back_is_the_oldest() {
        let mut queue = SpanQueue::default();
        assert_eq!((0..4).map(|number| queue.push(span(number, 1))).sum::<u64>(), 0);
        let taken = queue.take(2);
        assert_eq!(queue.put_back(taken), 0);
        assert_eq!(numbers(&mut queue, 4), [0, 1, 2, 3]);
        // While the queue is full it is they who go.
        let taken = {
            assert_eq!((0..3).map(|number| queue.push(span(number, 1))).sum::<u64>(), 0);
            queue.take(2)
        };
        assert_eq!((0..QUEUE_SPANS).map(|_| queue.push(span(9, 1))).sum::<u64>(), 1);
        assert_eq!(queue.put_back(taken), 2);
        assert_eq!(numbers(&mut queue, 1), [9]);
    }
}
