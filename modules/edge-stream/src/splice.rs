//! The bytes of an upgraded connection, both ways, and when that is over.
//!
//! Whoever called has mostly gone without a word: an API server that waits to write notices nothing of it. So no write waits for ever here.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use beehive::{Clock, Moment};
use futures::future::BoxFuture;
use thiserror::Error as ThisError;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// 16 KiB each way.
const BUFFER: usize = 16 << 10;
/// 10 min in which the runtime takes nothing of what waits for it, and nothing comes from it either. Longer than a command takes that
/// reads its input between two long steps (the restore of a database that builds an index); a shell in which nobody types
/// has nothing that waits, and may be idle for as long as it likes.
pub(crate) const RUNTIME_STALLED: Duration = Duration::from_secs(600);
/// 4 h in which the client takes nothing: a person may read in a pager, and a runtime's own bound for idle streams is as long.
pub(crate) const CLIENT_STALLED: Duration = Duration::from_secs(4 * 3600);
/// 60 s in which nothing passes, after one side has ended or broken off: the other one has so long to say the rest.
pub(crate) const LINGERS: Duration = Duration::from_secs(60);
/// 5 s between two looks at a write that waits.
const LOOK: Duration = Duration::from_secs(5);

/// Why the bytes ended before both sides did.
#[derive(Debug, ThisError)]
pub(crate) enum SpliceEnd {
    /// It broke off.
    #[error("the client broke off: {0}")]
    Client(io::Error),
    /// It broke off.
    #[error("the runtime broke off: {0}")]
    Runtime(io::Error),
    /// It takes nothing, for so long.
    #[error("{side} has taken nothing of what waits for it for {} s", .within.as_secs())]
    Stalled { side: &'static str, within: Duration },
    /// It did not end when the other one had.
    #[error("the other side has ended, and nothing has passed to or from {side} for {} s", LINGERS.as_secs())]
    Left { side: &'static str },
}

/// Hands bytes on, both ways. A side that ends, or that takes no more, leaves the other one [`LINGERS`] after its last byte: what a
/// runtime says last, how a command ended, comes behind input that nobody reads any more.
///
/// # Errors
/// It did not end by both sides.
pub(crate) async fn splice(
    client: &mut (impl AsyncRead + AsyncWrite + Unpin),
    runtime: &mut (impl AsyncRead + AsyncWrite + Unpin),
    clock: &dyn Clock,
) -> Result<(), SpliceEnd> {
    let (mut up, mut down) = (Way::new(), Way::new());
    let mut look: Option<BoxFuture<'static, ()>> = None;
    // How much had passed, and for whom it was waited, since when.
    let mut still: Option<(u64, Waits, Moment)> = None;
    poll_fn(|cx| {
        loop {
            // First what comes from the runtime: it is wanted even where the other way breaks.
            match down.poll(cx, runtime, client) {
                // So the kernel says that it has ended with input unread: what it had said before is here.
                Poll::Ready(Err(Broken::From(error))) if error.kind() == io::ErrorKind::ConnectionReset => {
                    down.has_ended = true;
                    continue;
                }
                Poll::Ready(Err(Broken::From(error))) => return Poll::Ready(Err(SpliceEnd::Runtime(error))),
                Poll::Ready(Err(Broken::To(error))) => return Poll::Ready(Err(SpliceEnd::Client(error))),
                Poll::Ready(Ok(())) | Poll::Pending => {}
            }
            match up.poll(cx, client, runtime) {
                Poll::Ready(Err(Broken::From(error))) => return Poll::Ready(Err(SpliceEnd::Client(error))),
                // It takes no more, and may have something to say yet.
                Poll::Ready(Err(Broken::To(_))) => up.is_done = true,
                Poll::Ready(Ok(())) | Poll::Pending => {}
            }
            if up.is_done && down.is_done {
                return Poll::Ready(Ok(()));
            }
            let waits = Waits::of(&up, &down);
            if waits.is_none() && look.is_none() {
                return Poll::Pending;
            }
            ready!(look.get_or_insert_with(|| clock.sleep(LOOK)).as_mut().poll(cx));
            look = None;
            let Some(waits) = waits else {
                still = None;
                continue;
            };
            // A client whose bytes are not read is heard of by nothing but a write.
            if waits == Waits::Runtime
                && !down.is_closing()
                && let Poll::Ready(Err(error)) = Pin::new(&mut *client).poll_write(cx, &[])
            {
                return Poll::Ready(Err(SpliceEnd::Client(error)));
            }
            let (passed, now) = (up.passed + down.passed, clock.now());
            let since = match still {
                Some((before, who, since)) if before == passed && who == waits => since,
                _ => now,
            };
            still = Some((passed, waits, since));
            if now.since(since) >= waits.within() {
                return Poll::Ready(Err(waits.ended()));
            }
        }
    })
    .await
}

/// What keeps a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waits {
    /// Bytes that the runtime does not take.
    Runtime,
    /// Bytes that the client does not take.
    Client,
    /// The end of the runtime's side: the client's has ended.
    EndOfRuntime,
    /// The other way round.
    EndOfClient,
}

impl Waits {
    /// `None`: nothing waits.
    fn of(up: &Way, down: &Way) -> Option<Waits> {
        match (up.is_done, down.is_done) {
            (true, _) => Some(Waits::EndOfRuntime),
            (_, true) => Some(Waits::EndOfClient),
            _ if up.waits() => Some(Waits::Runtime),
            _ => down.waits().then_some(Waits::Client),
        }
    }

    fn within(self) -> Duration {
        match self {
            Waits::Runtime => RUNTIME_STALLED,
            Waits::Client => CLIENT_STALLED,
            Waits::EndOfRuntime | Waits::EndOfClient => LINGERS,
        }
    }

    fn ended(self) -> SpliceEnd {
        let within = self.within();
        match self {
            Waits::Runtime => SpliceEnd::Stalled { side: RUNTIME, within },
            Waits::Client => SpliceEnd::Stalled { side: CLIENT, within },
            Waits::EndOfRuntime => SpliceEnd::Left { side: RUNTIME },
            Waits::EndOfClient => SpliceEnd::Left { side: CLIENT },
        }
    }
}

const RUNTIME: &str = "the runtime";
const CLIENT: &str = "the client";

/// Which side of a way broke off.
enum Broken {
    From(io::Error),
    To(io::Error),
}

/// Bytes one way.
struct Way {
    buffer: Box<[u8]>,
    /// What waits in it.
    waiting: std::ops::Range<usize>,
    passed: u64,
    /// All was read.
    has_ended: bool,
    /// And handed on, with its end; or nobody takes it.
    is_done: bool,
}

impl Way {
    fn new() -> Self {
        Way {
            buffer: vec![0; BUFFER].into_boxed_slice(),
            waiting: 0..0,
            passed: 0,
            has_ended: false,
            is_done: false,
        }
    }

    /// Something is to be written that is not taken.
    fn waits(&self) -> bool {
        !self.is_done && (!self.waiting.is_empty() || self.has_ended)
    }

    /// Whether the end is handed on, or was.
    fn is_closing(&self) -> bool {
        self.is_done || (self.has_ended && self.waiting.is_empty())
    }

    /// As far as it goes. Ready when the end was handed on. Neither end keeps back what was written to it, so nothing is flushed.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<Result<(), Broken>> {
        while !self.is_done {
            if self.waiting.is_empty() && self.has_ended {
                ready!(Pin::new(&mut *to).poll_shutdown(cx)).map_err(Broken::To)?;
                self.is_done = true;
            } else if self.waiting.is_empty() {
                let mut read = ReadBuf::new(&mut self.buffer);
                match ready!(Pin::new(&mut *from).poll_read(cx, &mut read)) {
                    Ok(()) => {
                        self.waiting = 0..read.filled().len();
                        self.has_ended = self.waiting.is_empty();
                    }
                    Err(error) => return Poll::Ready(Err(Broken::From(error))),
                }
            } else {
                let piece = self.buffer.get(self.waiting.clone()).unwrap_or_default();
                let written = ready!(Pin::new(&mut *to).poll_write(cx, piece)).map_err(Broken::To)?;
                if written == 0 {
                    return Poll::Ready(Err(Broken::To(io::ErrorKind::WriteZero.into())));
                }
                self.waiting.start += written;
                self.passed += written as u64;
            }
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use beehive::TokioClock;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
    use tokio::task::JoinHandle;
    use tokio::time::sleep;

    use super::*;

    /// A client, a runtime, and what is between them; of each connection 64 KiB wait at most.
    fn spliced() -> (DuplexStream, DuplexStream, JoinHandle<Result<(), SpliceEnd>>) {
        let ((client, mut ours), (runtime, mut to_runtime)) = (duplex(64 << 10), duplex(64 << 10));
        let spliced = tokio::spawn(async move {
            let clock = TokioClock::real();
            splice(&mut ours, &mut to_runtime, &clock).await
        });
        (client, runtime, spliced)
    }

    /// As many bytes as are taken.
    async fn fill(stream: &mut DuplexStream) {
        let taken = async { while stream.write_all(&[b'y'; 1024]).await.is_ok() {} };
        let _ = tokio::time::timeout(Duration::from_secs(1), taken).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_runtime_that_takes_nothing_ends_the_call_and_one_that_takes_a_byte_in_time_does_not() {
        let (mut client, mut runtime, spliced) = spliced();
        fill(&mut client).await;
        for _ in 0..3 {
            sleep(RUNTIME_STALLED - 4 * LOOK).await;
            assert!(!spliced.is_finished());
            runtime.read_exact(&mut [0; 4096]).await.unwrap();
        }
        let ended = spliced.await.unwrap();
        assert!(matches!(ended, Err(SpliceEnd::Stalled { side: RUNTIME, .. })), "{ended:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_shell_in_which_nobody_types_lives_on_and_a_pager_is_read_for_hours() {
        let (mut client, mut runtime, spliced) = spliced();
        sleep(Duration::from_secs(24 * 3600)).await;
        client.write_all(b"ls").await.unwrap();
        runtime.read_exact(&mut [0; 2]).await.unwrap();
        fill(&mut runtime).await;
        sleep(CLIENT_STALLED - 4 * LOOK).await;
        assert!(!spliced.is_finished());
        let ended = spliced.await.unwrap();
        assert!(matches!(ended, Err(SpliceEnd::Stalled { side: CLIENT, .. })), "{ended:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_broke_off_behind_a_full_pipe_is_noticed() {
        let (mut client, _runtime, spliced) = spliced();
        fill(&mut client).await;
        assert!(!spliced.is_finished());
        drop(client);
        let ended = tokio::time::timeout(3 * LOOK, spliced).await.unwrap().unwrap();
        assert!(matches!(ended, Err(SpliceEnd::Client(_))), "{ended:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_ends_leaves_the_other_time_for_the_rest_and_not_for_ever() {
        let (mut client, mut runtime, spliced) = spliced();
        client.shutdown().await.unwrap();
        assert_eq!(runtime.read(&mut [0; 8]).await.unwrap(), 0);
        sleep(LINGERS - 2 * LOOK).await;
        runtime.write_all(b"rest").await.unwrap();
        client.read_exact(&mut [0; 4]).await.unwrap();
        sleep(LINGERS - 2 * LOOK).await;
        assert!(!spliced.is_finished());
        let ended = spliced.await.unwrap();
        assert!(matches!(ended, Err(SpliceEnd::Left { side: RUNTIME })), "{ended:?}");
    }

    /// Of TCP, because what is unread at its end makes the kernel say so.
    #[tokio::test]
    async fn what_a_runtime_says_last_arrives_though_it_ends_with_input_unread() {
        for _ in 0..20 {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let mut to_runtime =
                tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (mut runtime, _) = listener.accept().await.unwrap();
            let (mut client, mut ours) = duplex(64 << 10);
            let spliced = tokio::spawn(async move {
                let clock = TokioClock::real();
                splice(&mut ours, &mut to_runtime, &clock).await
            });
            let (mut hears, mut says) = tokio::io::split(&mut client);
            let run = async {
                runtime.read_exact(&mut [0; 100]).await.unwrap();
                runtime.write_all(b"status: 3").await.unwrap();
                drop(runtime);
            };
            let yes = async { while says.write_all(&[b'y'; 1024]).await.is_ok() {} };
            let mut heard = Vec::new();
            tokio::select! {
                (read, ()) = async { tokio::join!(hears.read_to_end(&mut heard), run) } => drop(read.unwrap()),
                () = async { yes.await; std::future::pending().await } => {}
            }
            assert_eq!(heard, b"status: 3");
            spliced.await.unwrap().unwrap();
        }
    }
}
