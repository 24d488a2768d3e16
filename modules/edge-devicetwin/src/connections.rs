//! The way in for mappers: every connection is somebody's, and nobody takes all of it.
//!
//! A caller is a pod, or a user outside of pods. Whatever he holds counts together: his connections, and his calls that
//! are being answered.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use beehive::Clock;
use contract::devicetwin::DmiCaller;
use futures::Stream;
use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::Response;
use unixgrpc::Answering;

use crate::peer::PeerResolver;

/// 512 connections, half of the files that a daemon may have open by default.
const CONNECTIONS_MAX: usize = 512;
/// 32 calls of a caller are answered at a time, an eighth of the twin's mailbox; others of his wait for their turn.
const CALLS_AT_ONCE: usize = 32;
/// 10 s until a connection has said what it speaks: a client of gRPC speaks first, and at once. After that HTTP/2's own
/// pings tell who is there.
const GREETING_WITHIN: Duration = Duration::from_secs(10);
/// 24 bytes that begin every connection (RFC 9113, 3.4).
const GREETING: usize = 24;
/// 100 ms after the system refused a connection: there are no files left, and there will be.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Whether one more connection is let in. Each caller may have as many as are free, so that one who takes all he can
/// leaves half, and whoever comes anew finds room.
fn has_room(own: usize, all: usize) -> bool {
    own < CONNECTIONS_MAX.saturating_sub(all)
}

/// A pod, or a user outside of pods.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum CallerKey {
    Pod(String),
    User(u32),
}

#[derive(Debug)]
struct CallerUsage {
    connections: usize,
    calls: Arc<Semaphore>,
}

/// Who is connected.
#[derive(Debug, Default)]
pub(crate) struct CallerQuotas {
    caller_quotas: Mutex<HashMap<CallerKey, CallerUsage>>,
    turned_away: AtomicU64,
}

impl CallerQuotas {
    /// Connections that were not let in, since the beginning.
    pub(crate) fn turned_away(&self) -> u64 {
        self.turned_away.load(Ordering::Relaxed)
    }

    fn admit(self: &Arc<Self>, caller: DmiCaller) -> Option<ConnectionCaller> {
        let key = caller.pod.clone().map_or(CallerKey::User(caller.uid), CallerKey::Pod);
        let mut caller_quotas = self.caller_quotas.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = caller_quotas.values().map(|usage| usage.connections).sum();
        let own = caller_quotas.get(&key).map_or(0, |usage| usage.connections);
        if !has_room(own, all) {
            return None;
        }
        let fresh = || CallerUsage { connections: 0, calls: Arc::new(Semaphore::new(CALLS_AT_ONCE)) };
        let usage = caller_quotas.entry(key.clone()).or_insert_with(fresh);
        usage.connections += 1;
        let calls = Arc::clone(&usage.calls);
        let place = Arc::new(ConnectionPermit { caller_quotas: Arc::clone(self), key });
        Some(ConnectionCaller { caller: Arc::new(caller), calls, _place: place })
    }

    fn turn_away(&self, reason: &str) {
        let before = self.turned_away.fetch_add(1, Ordering::Relaxed);
        if (before + 1).is_power_of_two() {
            tracing::warn!(turned_away = before + 1, reason, "a connection to dmi.sock was not taken");
        }
    }
}

/// A connection's place among its caller's.
#[derive(Debug)]
struct ConnectionPermit {
    caller_quotas: Arc<CallerQuotas>,
    key: CallerKey,
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut caller_quotas =
            self.caller_quotas.caller_quotas.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(usage) = caller_quotas.get_mut(&self.key) {
            usage.connections = usage.connections.saturating_sub(1);
            if usage.connections == 0 {
                caller_quotas.remove(&self.key);
            }
        }
    }
}

/// What every request on a connection carries.
#[derive(Debug, Clone)]
pub(crate) struct ConnectionCaller {
    pub(crate) caller: Arc<DmiCaller>,
    calls: Arc<Semaphore>,
    _place: Arc<ConnectionPermit>,
}

/// An accepted connection.
pub(crate) struct Connection {
    stream: UnixStream,
    called: ConnectionCaller,
    /// Until it has greeted.
    silent: Option<BoxFuture<'static, ()>>,
    /// How many bytes of the greeting are missing.
    missing: usize,
}

impl Connection {
    /// Whose it is.
    pub(crate) fn called(&self) -> ConnectionCaller {
        self.called.clone()
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Connection").field(&self.called.caller).finish()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        match Pin::new(&mut self.stream).poll_read(cx, buf) {
            Poll::Pending => {
                if let Some(deadline) = &mut self.silent {
                    ready!(deadline.as_mut().poll(cx));
                    return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                }
                Poll::Pending
            }
            Poll::Ready(done) => {
                if self.silent.is_some() {
                    self.missing = self.missing.saturating_sub(buf.filled().len() - before);
                    if self.missing == 0 {
                        self.silent = None;
                    }
                }
                Poll::Ready(done)
            }
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// The listener, and what it takes to know who comes.
pub(crate) struct Acceptor {
    pub(crate) listener: UnixListener,
    pub(crate) peers: Arc<dyn PeerResolver>,
    pub(crate) caller_quotas: Arc<CallerQuotas>,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Acceptor {
    /// The connections of callers who are known and within their share. Does not end.
    pub(crate) fn connections(self) -> impl Stream<Item = io::Result<Connection>> {
        futures::stream::unfold(self, async |door| {
            loop {
                match door.listener.accept().await {
                    Ok((stream, _)) => match door.admit(stream) {
                        Ok(connection) => return Some((Ok(connection), door)),
                        Err(reason) => door.caller_quotas.turn_away(&reason),
                    },
                    Err(error) => {
                        door.caller_quotas.turn_away(&error.to_string());
                        door.clock.sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        })
    }

    fn admit(&self, stream: UnixStream) -> Result<Connection, String> {
        let caller = self.peers.identify(&stream)?;
        let (pod, uid) = (caller.pod.clone().unwrap_or_default(), caller.uid);
        let called = self
            .caller_quotas
            .admit(caller)
            .ok_or_else(|| format!("too many connections of pod `{pod}`, uid {uid}"))?;
        Ok(Connection { stream, called, silent: Some(self.clock.sleep(GREETING_WITHIN)), missing: GREETING })
    }
}

/// Lets a caller have [`CALLS_AT_ONCE`] calls at a time. It stands before a call's message is read, so that those that
/// wait hold no more than the windows of their connections.
pub(crate) async fn in_turn(called: ConnectionCaller, answer: impl FnOnce() -> Answering) -> Response<Body> {
    match called.calls.acquire_owned().await {
        Ok(_turn) => answer().await,
        Err(_) => Status::unavailable("edgecore ends").into_http(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(pod: Option<&str>, uid: u32) -> DmiCaller {
        DmiCaller { pod: pod.map(str::to_owned), uid, process: String::new() }
    }

    fn take_all(caller_quotas: &Arc<CallerQuotas>, who: &DmiCaller) -> Vec<ConnectionCaller> {
        std::iter::from_fn(|| caller_quotas.admit(who.clone())).collect()
    }

    #[test]
    fn one_who_takes_all_he_can_leaves_room_for_others() {
        let caller_quotas = Arc::new(CallerQuotas::default());
        let (hog, other, newcomer) = (caller(Some("a"), 0), caller(Some("b"), 0), caller(None, 0));
        let held = take_all(&caller_quotas, &hog);
        assert_eq!(held.len(), 256, "half");
        let more = take_all(&caller_quotas, &other);
        assert_eq!(more.len(), 128, "half of the rest");
        assert!(caller_quotas.admit(newcomer).is_some());
        drop(held);
        assert!(take_all(&caller_quotas, &hog).len() > 100, "what was given back is there again");
        drop(more);
        assert!(caller_quotas.caller_quotas.lock().unwrap().is_empty(), "nobody is remembered");
    }

    #[tokio::test(start_paused = true)]
    async fn who_connects_and_says_nothing_is_let_go() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let clock = beehive::Env::seeded(1).clock();
        let caller_quotas = Arc::new(CallerQuotas::default());
        let open = || {
            let (stream, far) = UnixStream::pair().unwrap();
            let called = caller_quotas.admit(caller(None, 0)).unwrap();
            (
                Connection { stream, called, silent: Some(clock.sleep(GREETING_WITHIN)), missing: GREETING },
                far,
            )
        };
        for said in 0..GREETING {
            let (mut silent, mut far) = open();
            let begun = clock.now();
            far.write_all(&vec![7; said]).await.unwrap();
            let mut heard = Vec::new();
            let error = silent.read_to_end(&mut heard).await.unwrap_err();
            assert_eq!((error.kind(), heard.len()), (io::ErrorKind::TimedOut, said));
            assert!(clock.now().since(begun) >= GREETING_WITHIN);
        }
        // One that has spoken may be quiet.
        let (mut quiet, mut far) = open();
        far.write_all(&[7; GREETING]).await.unwrap();
        quiet.read_exact(&mut [0; GREETING]).await.unwrap();
        let waited = tokio::time::timeout(GREETING_WITHIN * 10, quiet.read_u8()).await;
        assert!(waited.is_err(), "{waited:?}");
    }

    #[test]
    fn users_and_pods_are_not_taken_for_each_other() {
        let caller_quotas = Arc::new(CallerQuotas::default());
        let _pod = caller_quotas.admit(caller(Some("0"), 0)).unwrap();
        let _same = caller_quotas.admit(caller(Some("0"), 1000)).unwrap();
        let _user = caller_quotas.admit(caller(None, 0)).unwrap();
        assert_eq!(caller_quotas.caller_quotas.lock().unwrap().len(), 2);
    }
}
