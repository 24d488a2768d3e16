//! The streams that the other end of a link opens: what each is for, and how many there may be.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use super::accept_limiter::RateLimiter;
use super::byte_stream::{self, BYTE_STREAM_HEADER_MAX, BYTE_STREAMS_MAX};
use super::close_reason::CloseReason;
use super::core::Core;
use super::frame::{Frame, Kind};
use super::inbound::{self, Purpose, Routes};
use super::receive_budget::{LinkBudget, STREAMS_MAX};
use super::transport::{Connection, Reader, Writer};
use crate::Env;

/// 200 streams a second, and 1,400 at once: an end opens a byte stream for each call.
const STREAM_RATE: (f64, f64) = (200.0, 1400.0);
/// 20 of them a second, and 128 at once, that are none: an end opens a few for each mailbox, once.
const MAILBOX_RATE: (f64, f64) = (20.0, 128.0);
/// 1 MiB of headers of byte streams are being read at a time.
const HEADERS_AT_ONCE: usize = 32 * BYTE_STREAM_HEADER_MAX;

/// Serves each stream that the other end opens.
pub(super) async fn take_streams(
    env: Env,
    core: Arc<Core>,
    connection: Arc<dyn Connection>,
    bytes: Arc<byte_stream::Shared>,
    routes: Routes,
) {
    let streams = Rc::new(IncomingStreams {
        env: env.clone(),
        core: Arc::clone(&core),
        bytes,
        routes,
        budget: LinkBudget::new(),
        headers: Semaphore::new(HEADERS_AT_ONCE),
        unnamed: Cell::new(0),
        mailboxes: Cell::new(0),
        pace: RefCell::new(RateLimiter::new(MAILBOX_RATE.0, MAILBOX_RATE.1)),
    });
    let (per_second, burst) = STREAM_RATE;
    let mut pace = RateLimiter::new(per_second, burst);
    loop {
        let next = connection.accept().await;
        // Streams that come and go cost a task each.
        while let Err(wait) = pace.take(&(), env.now()) {
            env.sleep(wait).await;
        }
        match next {
            Ok((writer, reader)) => {
                env.spawn(Arc::clone(&core).until_end(Rc::clone(&streams).take(writer, reader)));
            }
            Err(error) => {
                core.end(CloseReason::Broken(error.to_string()));
                return;
            }
        }
    }
}

/// The streams that the other end opens, and what bounds them.
struct IncomingStreams {
    env: Env,
    core: Arc<Core>,
    bytes: Arc<byte_stream::Shared>,
    routes: Routes,
    budget: LinkBudget,
    headers: Semaphore,
    /// Streams that have not yet said what they are for, and those of mailboxes.
    unnamed: Cell<usize>,
    mailboxes: Cell<usize>,
    pace: RefCell<RateLimiter<()>>,
}

/// One more in a count, as long as it lives; `None` when there are so many already.
struct Counted<'a>(&'a Cell<usize>);

impl<'a> Counted<'a> {
    fn one_more(count: &'a Cell<usize>, most: usize) -> Option<Self> {
        if count.get() >= most {
            return None;
        }
        count.set(count.get() + 1);
        Some(Counted(count))
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl IncomingStreams {
    /// Reads what a stream is for, and serves it.
    async fn take(self: Rc<Self>, mut writer: Writer, mut reader: Reader) {
        let core = &self.core;
        let purpose = match Counted::one_more(&self.unnamed, STREAMS_MAX + BYTE_STREAMS_MAX) {
            Some(_unnamed) => inbound::purpose(core, &self.routes, &self.headers, &mut reader).await,
            None => Err(format!("more than {STREAMS_MAX} streams that do not say what they are for")),
        };
        if let Ok(Purpose::Bytes(first)) = purpose {
            let handler = self.routes.byte_stream_handler();
            return self.bytes.accept(&self.env, handler, first, writer, reader);
        }
        // Others cost more, and a line of the log where they are refused.
        while let Err(wait) = self.later() {
            self.env.sleep(wait).await;
        }
        let refused = match purpose {
            Ok(Purpose::Bytes(_)) => return,
            Ok(Purpose::Mailbox(route)) => match Counted::one_more(&self.mailboxes, STREAMS_MAX) {
                // In memory of its own: what byte streams need none of.
                Some(_open) => {
                    return Box::pin(inbound::serve(core, route, self.budget.lane(), writer, reader)).await;
                }
                None => format!("more than {STREAMS_MAX} streams of mailboxes"),
            },
            Err(sentence) => sentence,
        };
        tracing::warn!(peer = %core.peer, reason = refused, "refused a stream");
        let nack = Frame::new(Kind::Nack, 0, refused.into_bytes());
        let _ = core.write(&mut writer, &nack).await;
    }

    fn later(&self) -> Result<(), Duration> {
        self.pace.borrow_mut().take(&(), self.env.now())
    }
}
