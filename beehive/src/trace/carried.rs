//! What a message carries, and what is current on this thread.

use std::cell::{Cell, RefCell};
use std::pin::pin;
use std::sync::Arc;

use super::context::TraceContext;

/// 16 handlers: what goes on for longer without a span of its own is another matter.
const HOPS_MAX: u8 = 16;

/// The contexts of one message. There is at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Carried {
    /// Of the message as a whole.
    pub(crate) own: Option<TraceContext>,
    /// Of things in it, by their places there.
    pub(crate) parts: Vec<(u16, TraceContext)>,
    /// How many handlers it has come through.
    hops: u8,
}

impl Carried {
    /// Those that are sampled; `None` where none is.
    pub(crate) fn of(own: Option<TraceContext>, mut parts: Vec<(u16, TraceContext)>) -> Option<Carried> {
        let own = own.filter(|context| context.is_sampled);
        parts.retain(|(_, context)| context.is_sampled);
        (own.is_some() || !parts.is_empty()).then_some(Carried { own, parts, hops: 0 })
    }

    /// What a message carries that is sent now; `None`: nothing. The things in a message are in no other one.
    pub(super) fn of_message(&self) -> Option<Carried> {
        let parts = if self.hops == 0 { self.parts.clone() } else { Vec::new() };
        Some(Carried { hops: self.hops, ..Carried::of(self.own, parts)? })
    }

    /// The same for the next handler here; `None` past the last.
    fn onward(&self) -> Option<Carried> {
        let hops = self.hops + 1;
        (hops <= HOPS_MAX).then_some(Carried { hops, ..self.of_message()? })
    }
}

thread_local! {
    /// Whether there is any: asked of every message, and nothing else where there is none.
    static IS_SET: Cell<bool> = const { Cell::new(false) };
    static CURRENT: RefCell<Option<Arc<Carried>>> = const { RefCell::new(None) };
}

/// What is current.
pub(crate) fn current() -> Option<Arc<Carried>> {
    if IS_SET.get() { CURRENT.with_borrow(Clone::clone) } else { None }
}

/// The context of the message in hand, if it is followed.
pub fn context() -> Option<TraceContext> {
    current()?.own
}

/// The context of the thing at this place in the message in hand, if it is followed.
pub fn part(place: usize) -> Option<TraceContext> {
    let place = u16::try_from(place).ok()?;
    current()?.parts.iter().find(|(of, _)| *of == place).map(|(_, context)| *context)
}

/// The contexts of all things in the message in hand that are followed, with their places.
pub fn parts() -> Vec<(usize, TraceContext)> {
    let carried = current();
    let parts = carried.iter().flat_map(|carried| &carried.parts);
    parts.map(|(place, context)| (usize::from(*place), *context)).collect()
}

/// Does `work` with this context as the current one; `None`: with none.
pub async fn with_context<F: Future>(context: Option<TraceContext>, work: F) -> F::Output {
    within(Carried::of(context, Vec::new()).map(Arc::new), work).await
}

/// Does `work` with these contexts as those of the things in the messages that it sends, by their places there. At most
/// [`super::PARTS_MAX`] of them cross a link.
pub async fn with_parts<F: Future>(
    parts: impl IntoIterator<Item = (usize, TraceContext)>,
    work: F,
) -> F::Output {
    let parts = parts.into_iter().filter_map(|(place, context)| Some((u16::try_from(place).ok()?, context)));
    within(Carried::of(None, parts.collect()).map(Arc::new), work).await
}

/// Does `work` with these as the current ones.
pub(crate) async fn within<F: Future>(carried: Option<Arc<Carried>>, work: F) -> F::Output {
    let mut work = pin!(work);
    std::future::poll_fn(|task| {
        let _entered = enter(carried.as_ref());
        work.as_mut().poll(task)
    })
    .await
}

/// Until it is dropped, something is current.
pub(crate) struct Entered {
    before: Option<Option<Arc<Carried>>>,
}

/// Makes these the current ones.
pub(crate) fn enter(carried: Option<&Arc<Carried>>) -> Entered {
    if carried.is_none() && !IS_SET.get() {
        return Entered { before: None };
    }
    Entered { before: Some(set(carried.cloned())) }
}

fn set(carried: Option<Arc<Carried>>) -> Option<Arc<Carried>> {
    IS_SET.set(carried.is_some());
    CURRENT.replace(carried)
}

impl Drop for Entered {
    fn drop(&mut self) {
        if let Some(before) = self.before.take() {
            set(before);
        }
    }
}

/// A message in its mailbox.
pub(crate) struct Letter<M> {
    pub(crate) message: M,
    pub(crate) carried: Option<Arc<Carried>>,
}

impl<M> Letter<M> {
    /// With what is current.
    pub(crate) fn new(message: M) -> Self {
        let carried = current().and_then(|carried| carried.onward()).map(Arc::new);
        Letter { message, carried }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;

    fn context_of(byte: u8) -> TraceContext {
        TraceContext { trace_id: [byte; 16], span_id: [byte; 8], is_sampled: true }
    }

    #[test]
    fn what_is_current_is_so_within_its_work_alone() {
        let (one, two) = (context_of(1), context_of(2));
        let work = with_context(Some(one), async {
            assert_eq!(context(), Some(one));
            with_parts([(3, two)], async {
                assert_eq!((context(), part(3), part(4)), (None, Some(two), None));
                with_context(None, async { assert_eq!((context(), part(3)), (None, None)) }).await;
                assert_eq!(parts(), [(3, two)]);
                assert_eq!(part(3), Some(two));
            })
            .await;
            assert_eq!(context(), Some(one));
        });
        work.now_or_never().unwrap();
        assert_eq!(context(), None);
        assert!(!IS_SET.get());
    }

    #[test]
    fn what_is_not_sampled_is_not_carried() {
        let unsampled = TraceContext { is_sampled: false, ..context_of(1) };
        assert_eq!(Carried::of(Some(unsampled), vec![(0, unsampled)]), None);
        let kept = Carried::of(Some(unsampled), vec![(0, unsampled), (1, context_of(2))]).unwrap();
        assert_eq!((kept.own, kept.parts), (None, vec![(1, context_of(2))]));
    }

    #[test]
    fn things_in_a_message_are_in_no_other() {
        let (one, two) = (context_of(1), context_of(2));
        let sent = Carried::of(Some(one), vec![(3, two)]).map(Arc::new);
        let _sending = enter(sent.as_ref());
        let first = Letter::new(()).carried.unwrap();
        assert_eq!(first.parts, [(3, two)]);
        let _handling = enter(Some(&first));
        assert_eq!(parts(), [(3, two)]);
        let next = Letter::new(()).carried.unwrap();
        assert_eq!((next.own, next.parts.len()), (Some(one), 0));
    }

    #[test]
    fn a_context_ends_after_many_handlers() {
        let mut carried = Carried::of(Some(context_of(1)), Vec::new()).map(Arc::new);
        let mut handlers = 0;
        while carried.is_some() {
            let _entered = enter(carried.as_ref());
            carried = Letter::new(()).carried;
            handlers += usize::from(carried.is_some());
        }
        assert_eq!(handlers, usize::from(HOPS_MAX));
        assert!(Letter::new(()).carried.is_none());
    }
}
