//! Bytes as they come: a request's body to the node, an answer's body back, and both ways after an upgrade.

use std::convert::Infallible;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use beehive::Metrics;
use beehive::link::ByteStream;
use bytes::Bytes;
use futures::future::{BoxFuture, Either, select};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, StreamBody};
use https::Body;
use hyper::body::Incoming;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};

use crate::error_stream::{self, ErrorStreamTracker};
use crate::events;
use crate::open_call::OpenCall;

/// 16 KiB: what is passed at a time.
const PIECE: usize = 16 << 10;
/// 60 s in which nothing passes, after one side of an upgraded connection has ended: whoever ended it may be gone for good,
/// and a kubelet ends both at once.
const LINGERS: Duration = Duration::from_secs(60);

/// The caller's side of a call.
pub(crate) enum Sending {
    /// It stays open: for an upgrade, or until the caller has the answer or has gone.
    Kept(WriteHalf<ByteStream>),
    /// A body goes there.
    Body(BoxFuture<'static, ()>),
    /// It has ended.
    Done,
}

impl Sending {
    pub(crate) fn kept(writer: WriteHalf<ByteStream>) -> Self {
        Sending::Kept(writer)
    }

    /// Sends a body, and ends the side when it has ended whole. One that breaks off ends the stream: half a body must not be
    /// taken for a whole one.
    pub(crate) fn of(body: Incoming, writer: WriteHalf<ByteStream>, metrics: Metrics) -> Self {
        Sending::Body(Box::pin(async move {
            let mut writer = writer;
            if let Err(reason) = send(body, &mut writer, &metrics).await {
                tracing::debug!(%reason, "a request's body did not reach the node");
                // Not before the node's answer is read: it may be the reason.
                std::future::pending::<()>().await;
            }
        }))
    }

    /// Sends on, for as long as it is polled. It has no end of its own: whoever runs it waits for something else.
    pub(crate) async fn run(&mut self) -> Infallible {
        if let Sending::Body(sending) = self {
            sending.await;
            *self = Sending::Done;
        }
        std::future::pending().await
    }

    /// The side that was kept.
    pub(crate) fn writer(&mut self) -> Option<WriteHalf<ByteStream>> {
        match std::mem::replace(self, Sending::Done) {
            Sending::Kept(writer) => Some(writer),
            other => {
                *self = other;
                None
            }
        }
    }
}

async fn send(mut body: Incoming, writer: &mut WriteHalf<ByteStream>, metrics: &Metrics) -> io::Result<()> {
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(io::Error::other)?;
        if let Ok(bytes) = frame.into_data() {
            writer.write_all(&bytes).await?;
            events::sent(metrics, bytes.len());
        }
    }
    writer.shutdown().await
}

/// What is read of an answer.
struct Answering {
    reader: ReadHalf<ByteStream>,
    sending: Sending,
    open: OpenCall,
    says_cut: bool,
    ended: bool,
}

/// The node's answer as a body. A link that is cut ends it: with a sentence where only text is seen (`says_cut`), else with an
/// error, which breaks the caller's connection off.
pub(crate) fn passed_body(
    reader: ReadHalf<ByteStream>,
    sending: Sending,
    open: OpenCall,
    says_cut: bool,
) -> Body {
    let answering = Answering { reader, sending, open, says_cut, ended: false };
    let pieces = futures::stream::unfold(answering, async |mut answering| {
        if answering.ended {
            return None;
        }
        let piece = answering.piece().await.transpose()?;
        Some((piece.map(Frame::data), answering))
    });
    UnsyncBoxBody::new(StreamBody::new(pieces))
}

impl Answering {
    async fn piece(&mut self) -> io::Result<Option<Bytes>> {
        let mut piece = vec![0; PIECE];
        let read = tokio::select! {
            read = self.reader.read(&mut piece) => read,
            never = self.sending.run() => match never {},
        };
        match read {
            Ok(0) => Ok(None),
            Ok(length) => {
                events::received(self.open.metrics(), length);
                piece.truncate(length);
                // A copy where little came: a follower of a quiet log keeps no 16 KiB for each line.
                let bytes = if length < PIECE / 2 { Bytes::copy_from_slice(&piece) } else { piece.into() };
                Ok(Some(bytes))
            }
            Err(error) => {
                self.ended = true;
                let node = &self.open.node;
                events::cut(self.open.metrics(), node, &error.to_string());
                if !self.says_cut {
                    return Err(error);
                }
                Ok(Some(error_stream::last_line_of_a_cut_log(node, &error).into()))
            }
        }
    }
}

/// Bytes of an upgraded connection, both ways, until both sides have ended or one breaks off: then both end at once. A side that
/// has ended leaves the other its time. What breaks off on the node's side is said by `tracker`. A call in which one side takes
/// nothing ends when another one needs its place; else the node ends it, in its time.
pub(crate) async fn pass_both_ways(
    upgraded: impl AsyncRead + AsyncWrite,
    from_node: impl AsyncRead + Unpin,
    to_node: impl AsyncWrite + Unpin,
    open: OpenCall,
    tracker: Option<ErrorStreamTracker>,
) {
    let (from_caller, to_caller) = tokio::io::split(upgraded);
    let (metrics, passed) = (open.metrics(), AtomicU64::new(0));
    let count = |bytes: usize, event: fn(&Metrics, usize)| {
        passed.fetch_add(bytes as u64, Ordering::Relaxed);
        event(metrics, bytes);
    };
    let ways = async {
        let sent = async {
            let mut to_node = to_node;
            pass(from_caller, &mut to_node, &open, |piece| count(piece.len(), events::sent)).await?;
            to_node.shutdown().await.map_err(Broken::To)
        };
        let sent = std::pin::pin!(sent);
        let received = std::pin::pin!(received(from_node, to_caller, &open, tracker, |bytes| {
            count(bytes, events::received);
        }));
        match select(sent, received).await {
            Either::Left((Ok(()), received)) => lingering(received, &passed, &open).await,
            // The node's side is broken: what it sent is passed on, and the caller is told.
            Either::Left((Err(Broken::To(_)), received)) => lingering(received, &passed, &open).await,
            Either::Right((Ok(()), sent)) => match lingering(sent, &passed, &open).await {
                // The node has said all, and reads no more.
                Err(Broken::To(_)) => Ok(()),
                ended => ended,
            },
            Either::Left((broken, _)) | Either::Right((broken, _)) => broken,
        }
    };
    let ended = tokio::select! {
        ended = ways => ended,
        () = open.progress().to_end() => return events::made_room(metrics, &open.node),
    };
    match ended.map_err(Broken::into_error) {
        Ok(()) => {}
        // A client ends a call by going, mostly without a word of TLS: nothing was cut.
        Err(error) if error.raw_os_error().is_some() || error.kind() == io::ErrorKind::UnexpectedEof => {
            events::left(metrics, &open.node, &error.to_string());
        }
        Err(error) => events::cut(metrics, &open.node, &error.to_string()),
    }
}

/// The way that is left, until it ends too or nothing passes any more.
async fn lingering(
    mut way: impl Future<Output = Result<(), Broken>> + Unpin,
    passed: &AtomicU64,
    open: &OpenCall,
) -> Result<(), Broken> {
    loop {
        let before = passed.load(Ordering::Relaxed);
        tokio::select! {
            ended = &mut way => return ended,
            () = open.sleep(LINGERS) => {
                if passed.load(Ordering::Relaxed) == before {
                    return Ok(());
                }
            }
        }
    }
}

/// Which side of a way broke off.
enum Broken {
    From(io::Error),
    To(io::Error),
}

impl Broken {
    fn into_error(self) -> io::Error {
        match self {
            Broken::From(error) | Broken::To(error) => error,
        }
    }
}

/// The way from the node, and what the caller is told when it is cut, or ends without a word of how the command did.
async fn received(
    from_node: impl AsyncRead + Unpin,
    mut to_caller: impl AsyncWrite + Unpin,
    open: &OpenCall,
    mut tracker: Option<ErrorStreamTracker>,
    count: impl Fn(usize),
) -> Result<(), Broken> {
    let ended = pass(from_node, &mut to_caller, open, |piece| {
        count(piece.len());
        if let Some(tracker) = &mut tracker {
            tracker.pass(piece);
        }
    });
    let ended = ended.await;
    let node = &open.node;
    let said = match (&ended, &tracker) {
        (Err(Broken::From(error)), Some(tracker)) => tracker.say(&format!(
            "the connection to node `{node}` was cut ({error}), and how the command ends is not known"
        )),
        (Ok(()), Some(tracker)) => tracker.say_at_end(&format!(
            "node `{node}` ended the connection without a word of how the command ended: look whether its runtime was restarted"
        )),
        _ => None,
    };
    if let Some(said) = &said {
        to_caller.write_all(said).await.map_err(Broken::To)?;
    }
    if said.is_some() || ended.is_ok() {
        to_caller.shutdown().await.map_err(Broken::To)?;
    }
    ended
}

/// One way, until its end is read.
async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    open: &OpenCall,
    mut passed: impl FnMut(&[u8]),
) -> Result<(), Broken> {
    let mut piece = vec![0; PIECE];
    loop {
        let length = from.read(&mut piece).await.map_err(Broken::From)?;
        let piece = piece.get(..length).unwrap_or_default();
        if piece.is_empty() {
            return Ok(());
        }
        let mut rest = piece;
        while !rest.is_empty() {
            open.progress().waits(open.now());
            let written = to.write(rest).await;
            open.progress().passed(open.now());
            match written.map_err(Broken::To)? {
                0 => return Err(Broken::To(io::ErrorKind::WriteZero.into())),
                written => rest = rest.get(written..).unwrap_or_default(),
            }
        }
        // What is typed is not to wait for more.
        to.flush().await.map_err(Broken::To)?;
        passed(piece);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use beehive::{Clock, TokioClock};
    use contract::NodeName;
    use http::HeaderMap;
    use tokio::io::{DuplexStream, duplex};
    use tokio::time::sleep;

    use super::*;
    use crate::shares::{Limits, Shares};

    struct Calls {
        shares: Arc<Mutex<Shares>>,
        metrics: Metrics,
        clock: Arc<dyn Clock>,
        node: NodeName,
    }

    impl Calls {
        /// Of a node that may have one call that lasts.
        fn of_one() -> Self {
            Calls {
                shares: Arc::new(Mutex::new(Shares::new(Limits { of_node: 1, of_user: 9, all: 9 }))),
                metrics: Metrics::default(),
                clock: Arc::new(TokioClock::real()),
                node: NodeName::parse("n").unwrap(),
            }
        }

        fn open(&self) -> Option<OpenCall> {
            OpenCall::open(&self.shares, (&self.node, None, true), &self.metrics, &self.clock).ok()
        }
    }

    fn spdy() -> Option<ErrorStreamTracker> {
        let headers = [("upgrade", "SPDY/3.1"), ("x-stream-protocol-version", "v4.channel.k8s.io")];
        let headers: HeaderMap = headers
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .into_iter()
            .collect();
        ErrorStreamTracker::of("/exec/d/p/c", &headers)
    }

    /// The caller's end, the node's end, and the call between them.
    fn passing(open: OpenCall) -> (DuplexStream, DuplexStream, tokio::task::JoinHandle<()>) {
        let ((caller, upgraded), (node, ours)) = (duplex(1 << 10), duplex(1 << 10));
        let (from_node, to_node) = tokio::io::split(ours);
        let call = tokio::spawn(pass_both_ways(upgraded, from_node, to_node, open, spdy()));
        (caller, node, call)
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_whose_node_reads_nothing_makes_room_for_another_and_an_idle_one_does_not() {
        let calls = Calls::of_one();
        let (mut caller, _node, call) = passing(calls.open().unwrap());
        sleep(Duration::from_secs(3600)).await;
        assert!(calls.open().is_none(), "it is idle, and nothing waits");
        let fill = async { while caller.write_all(&[0; 512]).await.is_ok() {} };
        let _ = tokio::time::timeout(Duration::from_secs(30), fill).await;
        assert!(calls.open().is_none(), "its node may only be slow");
        sleep(Duration::from_secs(60)).await;
        let next = calls.open().unwrap();
        call.await.unwrap();
        assert_eq!(calls.metrics.count_of("nodecalls_made_room"), 1);
        assert!(calls.open().is_none(), "what made room has not left the place of the next");
        drop(next);
        assert!(calls.open().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn an_end_without_a_word_of_the_command_is_no_success() {
        let calls = Calls::of_one();
        let (mut caller, mut node, call) = passing(calls.open().unwrap());
        node.shutdown().await.unwrap();
        let mut heard = Vec::new();
        caller.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard[..5], [0, 0, 0, 1, 1], "the error stream, and its end");
        let words = String::from_utf8_lossy(&heard[8..]).into_owned();
        assert!(words.contains("node `n` ended the connection without a word"), "{words}");
        drop((caller, node));
        call.await.unwrap();
        let (mut caller, mut node, call) = passing(calls.open().unwrap());
        let success = [&[0, 0, 0, 1, 1, 0, 0, 2][..], b"{}"].concat();
        node.write_all(&success).await.unwrap();
        node.shutdown().await.unwrap();
        let mut heard = Vec::new();
        caller.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, success);
        // It reads no more of what the caller still sends: nothing was cut.
        drop(node);
        let _ = caller.write_all(b"more").await;
        call.await.unwrap();
        assert_eq!(calls.metrics.count_of("nodecalls_cut"), 0);
    }
}
