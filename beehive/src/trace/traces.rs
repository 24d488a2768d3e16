//! The traces of one environment: who is drawn, what is followed, what waits to be exported.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::carried::{Carried, current};
use super::context::TraceContext;
use super::extension;
use super::finished::{FinishedSpan, SpanKind};
use super::peer_rates::PeerRates;
use super::queue::SpanQueue;
use super::span::{Recorder, Span};
use super::subjects::Subjects;
use crate::{Clock, Metrics, Moment};

/// Counts spans that nobody will see: the queue was full, or no collector took them.
pub const SPANS_DROPPED: &str = "trace_spans_dropped";
/// Counts contexts of other ends of links that were not taken, because there were too many.
pub const CONTEXTS_REFUSED: &str = "trace_contexts_refused";

const MILLION: u128 = 1_000_000;

/// How an environment traces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceSettings {
    /// Of a million things that begin here so many are followed. What was drawn elsewhere is followed in any case.
    pub rate_per_million: u32,
    /// The span of a message that leaves over a link.
    pub send: &'static str,
    /// The span of a message that comes over a link, until its mailbox has it.
    pub receive: &'static str,
}

struct Shared {
    settings: TraceSettings,
    clock: Arc<dyn Clock>,
    ids: Box<dyn Fn() -> [u8; 16] + Send + Sync>,
    metrics: Metrics,
    queue: Mutex<SpanQueue>,
    subjects: Mutex<Subjects>,
    peer_rates: Mutex<PeerRates>,
}

/// The traces of one environment. Cheap to clone; may go to other threads. Off unless [`crate::Env::tracing`]: then nothing is
/// followed, and nothing taken of others.
#[derive(Clone, Default)]
pub struct Traces(Option<Arc<Shared>>);

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Recorder for Arc<Shared> {
    fn now(&self) -> Moment {
        self.clock.now()
    }

    fn record(&self, span: FinishedSpan) {
        let gone = locked(&self.queue).push(span);
        self.dropped(gone);
    }
}

impl Shared {
    fn dropped(&self, spans: u64) {
        if spans > 0 {
            self.metrics.add(SPANS_DROPPED, spans);
        }
    }

    fn begin(self: &Arc<Self>, name: &'static str, trace_id: [u8; 16], parent: Option<[u8; 8]>) -> Span {
        let span_id = (self.ids)().first_chunk().copied().unwrap_or([1; 8]);
        let context = TraceContext { trace_id, span_id, is_sampled: true };
        Span::begin(Box::new(Arc::clone(self)), name, (context, parent), self.clock.wall())
    }

    fn child(self: &Arc<Self>, name: &'static str, parent: TraceContext) -> Span {
        self.begin(name, parent.trace_id, Some(parent.span_id))
    }
}

/// Whether a trace is drawn: by its own random number, so that whoever draws by the same rate draws the same ones. Pure.
fn is_drawn(trace_id: [u8; 16], rate_per_million: u32) -> bool {
    let lot = trace_id.iter().skip(8).fold(0_u128, |sum, byte| (sum << 8) | u128::from(*byte));
    lot * MILLION < u128::from(rate_per_million) << 64
}

impl Traces {
    pub(crate) fn new(
        settings: TraceSettings,
        clock: Arc<dyn Clock>,
        ids: Box<dyn Fn() -> [u8; 16] + Send + Sync>,
        metrics: Metrics,
    ) -> Self {
        let (queue, subjects, peer_rates) = Default::default();
        Traces(Some(Arc::new(Shared { settings, clock, ids, metrics, queue, subjects, peer_rates })))
    }

    /// Whether anything is followed.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Begins a trace, if the lot falls on it.
    pub fn root(&self, name: &'static str) -> Span {
        let Some(shared) = self.0.as_ref().filter(|shared| shared.settings.rate_per_million > 0) else {
            return Span::none();
        };
        let trace_id = (shared.ids)();
        if !is_drawn(trace_id, shared.settings.rate_per_million) || trace_id == [0; 16] {
            return Span::none();
        }
        shared.begin(name, trace_id, None)
    }

    /// A step after `parent`, if there is one.
    pub fn child(&self, name: &'static str, parent: Option<TraceContext>) -> Span {
        match (&self.0, parent) {
            (Some(shared), Some(parent)) if parent.is_sampled => shared.child(name, parent),
            _ => Span::none(),
        }
    }

    /// A step after `parent`; where there is none it begins a trace, if the lot falls on it.
    pub fn step(&self, name: &'static str, parent: Option<TraceContext>) -> Span {
        if parent.is_some() { self.child(name, parent) } else { self.root(name) }
    }

    /// The next step of what is called so will be one after `context`, if there is one. `subject` is asked only then.
    pub fn follow(&self, subject: impl FnOnce() -> String, context: Option<TraceContext>) {
        if let (Some(shared), Some(context)) = (&self.0, context) {
            locked(&shared.subjects).put(subject(), context, shared.clock.now());
        }
    }

    /// After which span the next step of what is called so is. `subject` is asked only where anything is followed.
    pub fn of(&self, subject: impl FnOnce() -> String) -> Option<TraceContext> {
        let shared = self.0.as_ref()?;
        locked(&shared.subjects).get(&subject(), shared.clock.now())
    }

    /// The same, and it is not followed by that name any more.
    pub fn take_of(&self, subject: impl FnOnce() -> String) -> Option<TraceContext> {
        let shared = self.0.as_ref()?;
        locked(&shared.subjects).take(&subject(), shared.clock.now())
    }

    /// Takes the oldest spans that have ended, so many at the most.
    pub fn take(&self, most: usize) -> Vec<FinishedSpan> {
        self.0.as_ref().map(|shared| locked(&shared.queue).take(most)).unwrap_or_default()
    }

    /// Puts those back that nobody took yet, as the oldest.
    pub fn put_back(&self, spans: Vec<FinishedSpan>) {
        if let Some(shared) = &self.0 {
            let gone = locked(&shared.queue).put_back(spans);
            shared.dropped(gone);
        }
    }

    /// So many spans are given up.
    pub fn give_up(&self, spans: usize) {
        if let Some(shared) = &self.0 {
            shared.dropped(spans as u64);
        }
    }

    /// How many spans wait.
    pub fn waiting(&self) -> usize {
        self.0.as_ref().map_or(0, |shared| locked(&shared.queue).len())
    }

    /// What leaves with a message to `peer`, if anything is current: its spans, and what the frame carries.
    pub(crate) fn sending(&self, peer: &str, mailbox: &'static str) -> Option<Sending> {
        let shared = self.0.as_ref()?;
        let (carried, spans) = shared.steps(
            &current()?.of_message()?,
            (shared.settings.send, SpanKind::Producer),
            (peer, mailbox),
        )?;
        Some(Sending { extension: extension::encode(&carried), _spans: spans })
    }

    /// What has come with a message of `peer`, as far as it is taken: what is current for its handler, and the spans that
    /// end when its mailbox has it.
    pub(crate) fn received(
        &self,
        peer: &str,
        mailbox: &'static str,
        extension: &[u8],
    ) -> Option<(Arc<Carried>, Vec<Span>)> {
        let shared = self.0.as_ref().filter(|_| !extension.is_empty())?;
        let Carried { own, parts, .. } = extension::decode(extension)?;
        let (mut refused, now) = (0, shared.clock.now());
        let mut rates = locked(&shared.peer_rates);
        let mut is_taken = |_: &TraceContext| {
            let is_taken = rates.take(peer, now);
            refused += u64::from(!is_taken);
            is_taken
        };
        let own = own.filter(&mut is_taken);
        let parts = parts.into_iter().filter(|(_, context)| is_taken(context)).collect();
        drop(rates);
        if refused > 0 {
            shared.metrics.add(CONTEXTS_REFUSED, refused);
        }
        let names = (shared.settings.receive, SpanKind::Consumer);
        let (carried, spans) = shared.steps(&Carried::of(own, parts)?, names, (peer, mailbox))?;
        Some((Arc::new(carried), spans))
    }
}

impl Shared {
    /// A step of each that is carried, and what is carried after it.
    fn steps(
        self: &Arc<Self>,
        carried: &Carried,
        (name, kind): (&'static str, SpanKind),
        (peer, mailbox): (&str, &'static str),
    ) -> Option<(Carried, Vec<Span>)> {
        let mut spans = Vec::new();
        let mut step = |parent: TraceContext| {
            let span = self.child(name, parent).of_kind(kind);
            let span = span.with("messaging.destination.name", || mailbox).with("network.peer.name", || peer);
            let context = span.context();
            spans.push(span);
            context
        };
        let own = carried.own.and_then(&mut step);
        let parts = carried.parts.iter().take(extension::PARTS_MAX);
        let parts = parts.filter_map(|(place, parent)| Some((*place, step(*parent)?))).collect();
        Some((Carried::of(own, parts)?, spans))
    }
}

/// What leaves with a message.
pub(crate) struct Sending {
    /// The frame's.
    pub(crate) extension: Vec<u8>,
    /// They end when the message is written.
    _spans: Vec<Span>,
}

impl std::fmt::Debug for Traces {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            Some(shared) => f.debug_tuple("Traces").field(&shared.settings).finish(),
            None => f.write_str("Traces(off)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::{Duration, SystemTime};

    use futures::future::{BoxFuture, FutureExt as _};

    use super::*;

    /// A clock that a test sets, in milliseconds.
    #[derive(Default)]
    struct TestClock(AtomicU64);

    impl Clock for TestClock {
        fn now(&self) -> Moment {
            Moment(Duration::from_millis(self.0.load(Ordering::Relaxed)))
        }
        fn wall(&self) -> SystemTime {
            SystemTime::UNIX_EPOCH
        }
        fn sleep(&self, _: Duration) -> BoxFuture<'static, ()> {
            futures::future::pending().boxed()
        }
    }

    fn traces(rate_per_million: u32) -> (Traces, Arc<TestClock>, Metrics) {
        let (clock, metrics) = (Arc::new(TestClock::default()), Metrics::default());
        let settings = TraceSettings { rate_per_million, send: "send", receive: "receive" };
        let last = AtomicU64::new(0);
        let ids = move || {
            let number = last.fetch_add(1, Ordering::Relaxed) + 1;
            // Spread over all lots.
            let lot = number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
            let mut id = [0; 16];
            id[..8].copy_from_slice(&number.to_be_bytes());
            id[8..].copy_from_slice(&lot);
            id
        };
        (Traces::new(settings, Arc::clone(&clock) as _, Box::new(ids), metrics.clone()), clock, metrics)
    }

    #[test]
    fn as_many_are_drawn_as_the_settings_say() {
        let drawn = |rate| {
            let (traces, ..) = traces(rate);
            (0..20_000).filter(|_| traces.root("x").is_followed()).count()
        };
        assert_eq!((drawn(0), drawn(1_000_000)), (0, 20_000));
        let some = drawn(10_000);
        assert!((150..250).contains(&some), "{some} of 20000 at one in a hundred");
        assert!(is_drawn([0; 16], 1) && !is_drawn([0xff; 16], 999_999) && is_drawn([0xff; 16], 1_000_000));
    }

    #[test]
    fn a_span_says_what_it_is_of_and_how_long_it_took() {
        let (traces, clock, _) = traces(1_000_000);
        let mut root = traces.root("first").with("name", || "x".repeat(999));
        let child = traces.child("second", root.context());
        clock.0.store(70, Ordering::Relaxed);
        drop(child);
        root.fail(|| "on purpose");
        let (id, begun) = (root.context().unwrap(), SystemTime::UNIX_EPOCH);
        drop(root);
        let [second, first] = <[FinishedSpan; 2]>::try_from(traces.take(9)).unwrap();
        assert_eq!(
            (second.name, second.parent, second.context.trace_id),
            ("second", Some(id.span_id), id.trace_id)
        );
        assert_eq!((first.parent, first.ended), (None, begun + Duration::from_millis(70)));
        assert_eq!((first.attributes[0].1.len(), first.error.as_deref()), (256, Some("on purpose")));
        assert_ne!(second.context.span_id, first.context.span_id);
    }

    #[test]
    fn off_nothing_is_followed_and_nothing_taken() {
        let (on, ..) = traces(1_000_000);
        let root = on.root("x");
        let off = Traces::default();
        assert!(!off.root("x").is_followed() && !off.child("x", root.context()).is_followed());
        off.follow(|| panic!("asked for nothing"), root.context());
        assert_eq!(off.of(|| panic!("asked for nothing")), None);
        let bytes = extension::encode(&Carried::of(root.context(), Vec::new()).unwrap());
        assert!(off.received("p", "m", &bytes).is_none());
        assert!(on.received("p", "m", &bytes).is_some());
        let unsampled = TraceContext { is_sampled: false, ..root.context().unwrap() };
        assert!(!on.child("x", Some(unsampled)).is_followed());
    }

    #[test]
    fn of_one_end_no_more_is_taken_than_its_rate_allows() {
        let (traces, _, metrics) = traces(0);
        let context = TraceContext { trace_id: [1; 16], span_id: [1; 8], is_sampled: true };
        let parts = (0..64).map(|place| (place, context)).collect();
        let bytes = extension::encode(&Carried::of(None, parts).unwrap());
        let taken = |peer: &str| -> usize {
            (0..100).filter_map(|_| Some(traces.received(peer, "m", &bytes)?.0.parts.len())).sum()
        };
        assert_eq!(taken("captured"), 512);
        assert_eq!(metrics.count_of(CONTEXTS_REFUSED), 6400 - 512);
        assert_eq!(taken("other"), 512);
    }

    proptest::proptest! {
        #[test]
        fn whatever_another_end_sends_costs_it_its_rate_and_nothing_else(
            bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..4096),
        ) {
            let (traces, ..) = traces(0);
            let taken = traces.received("p", "m", &bytes);
            let spans = taken.map_or(0, |(carried, spans)| {
                assert_eq!(spans.len(), carried.parts.len() + usize::from(carried.own.is_some()));
                spans.len()
            });
            proptest::prop_assert!(spans <= 65);
            proptest::prop_assert_eq!(traces.waiting(), spans);
        }
    }

    #[test]
    fn what_waits_too_long_is_counted() {
        let (traces, _, metrics) = traces(1_000_000);
        (0..3000).for_each(|_| drop(traces.root("x")));
        assert_eq!((traces.waiting(), metrics.count_of(SPANS_DROPPED)), (2048, 3000 - 2048));
        let taken = traces.take(512);
        (0..512).for_each(|_| drop(traces.root("x")));
        traces.put_back(taken);
        assert_eq!((traces.waiting(), metrics.count_of(SPANS_DROPPED)), (2048, 3000 - 2048 + 512));
    }
}
