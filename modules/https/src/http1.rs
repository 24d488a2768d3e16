//! HTTP/1.1 over a connection: requests to a handler, answers back, and upgrades.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use beehive::Clock;
use futures::future::{FutureExt as _, LocalBoxFuture};
use http::{HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::WaitForCancellationFutureOwned;

use crate::body::{self, Body};
use crate::events::Event;
use crate::http2;
use crate::server::EventHandler;
use crate::{Limits, Peer, Protocol, Stream};

/// An answer.
pub type Answer = Response<Body>;

/// Answers requests. Runs on the server's thread: what takes long there keeps the other connections of the server waiting.
pub trait Handler: 'static {
    /// Answers one request. It is dropped when its connection ends or it takes longer than [`Limits::answer_within`]; a panic
    /// ends its connection and nothing else.
    fn handle(&self, request: Request<Incoming>, peer: &Peer) -> impl Future<Output = Answer>;

    /// As [`Protocol::admits`].
    fn admits(&self, _peer: &Peer) -> bool {
        true
    }
}

/// Any [`Handler`]: a program carries the machinery of HTTP once, however many servers it has.
trait AnyHandler {
    fn answer<'a>(&'a self, request: Request<Incoming>, peer: &'a Peer) -> LocalBoxFuture<'a, Answer>;

    fn admits(&self, peer: &Peer) -> bool;
}

impl<H: Handler> AnyHandler for H {
    fn answer<'a>(&'a self, request: Request<Incoming>, peer: &'a Peer) -> LocalBoxFuture<'a, Answer> {
        self.handle(request, peer).boxed_local()
    }

    fn admits(&self, peer: &Peer) -> bool {
        Handler::admits(self, peer)
    }
}

/// HTTP/1.1 with a [`Handler`], and HTTP/2 where a client has chosen it in its TLS handshake.
pub struct Http(Http1);

/// HTTP/1.1 alone with a [`Handler`], for servers without TLS: nobody can choose HTTP/2 there, and a program that has no other
/// servers does not carry it.
pub struct Http1 {
    handler: Box<dyn AnyHandler>,
}

impl Http {
    /// Requests go to `handler`.
    pub fn new(handler: impl Handler) -> Self {
        Http(Http1::new(handler))
    }
}

impl Http1 {
    /// Requests go to `handler`.
    pub fn new(handler: impl Handler) -> Self {
        Http1 { handler: Box::new(handler) }
    }
}

impl Protocol for Http {
    fn admits(&self, peer: &Peer) -> bool {
        self.0.admits(peer)
    }

    async fn serve(&self, stream: Stream, peer: Peer, context: &crate::server::ServerContext) {
        if stream.is_http2() {
            let answer = |request| self.0.answer(request, &peer, context);
            return http2::serve(answer, stream, &peer, context).await;
        }
        self.0.serve(stream, peer, context).await;
    }
}

impl Protocol for Http1 {
    fn admits(&self, peer: &Peer) -> bool {
        self.handler.admits(peer)
    }

    async fn serve(&self, stream: Stream, peer: Peer, context: &crate::server::ServerContext) {
        let served = Rc::new(peer);
        let service = {
            let peer = Rc::clone(&served);
            service_fn(move |request| {
                let peer = Rc::clone(&peer);
                async move { Ok::<_, Infallible>(self.answer(request, &peer, context).await) }
            })
        };
        let Limits { head_within, head_bytes, header_fields, keep_alive, .. } = context.limits;
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(head_within)
            .max_buf_size(head_bytes)
            .max_headers(header_fields)
            .keep_alive(keep_alive)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        let mut connection = std::pin::pin!(connection);
        let mut stopping = std::pin::pin!(served.stopping());
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = stopping.as_mut() => {
                // What is in hand is answered; an idle connection ends at once.
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(server = context.name, %error, "connection broke off");
        }
    }
}

impl Http1 {
    async fn answer(
        &self,
        request: Request<Incoming>,
        peer: &Peer,
        context: &crate::server::ServerContext,
    ) -> Answer {
        peer.counters().request();
        let answer = self.handler.answer(request, peer);
        let Some(within) = context.limits.answer_within else { return answer.await };
        let (clock, on_event): (&Arc<dyn Clock>, &EventHandler) = (&context.clock, &context.on_event);
        tokio::select! {
            answer = answer => answer,
            () = clock.sleep(within) => {
                peer.counters().event(Event::AnswerLate);
                on_event(Event::AnswerLate);
                tracing::warn!(server = context.name, seconds = within.as_secs(), "a request was not answered in time");
                let words = format!("no answer within {} s: try again\n", within.as_secs());
                let mut late = body::sentence(StatusCode::SERVICE_UNAVAILABLE, words);
                late.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                late
            }
        }
    }
}

/// A connection after its upgrade: bytes. It holds its place, and ends with its server.
pub struct Upgraded {
    bytes: TokioIo<hyper::upgrade::Upgraded>,
    end: Pin<Box<WaitForCancellationFutureOwned>>,
    _peer: Peer,
}

impl Peer {
    /// The connection's bytes, once `request` has been answered with 101. To be awaited in a task of its own.
    pub fn upgrade(
        &self,
        request: &mut Request<Incoming>,
    ) -> impl Future<Output = Result<Upgraded, hyper::Error>> + Send + use<> {
        let (upgrade, peer) = (hyper::upgrade::on(request), self.clone());
        async move {
            let bytes = TokioIo::new(upgrade.await?);
            Ok(Upgraded { bytes, end: Box::pin(peer.end()), _peer: peer })
        }
    }
}

impl Upgraded {
    fn ended(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.end.as_mut().poll(cx) {
            Poll::Ready(()) => {
                Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the server has stopped"))
            }
            Poll::Pending => Ok(()),
        }
    }
}

impl AsyncRead for Upgraded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.ended(cx)?;
        Pin::new(&mut self.bytes).poll_read(cx, into)
    }
}

impl AsyncWrite for Upgraded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.ended(cx)?;
        Pin::new(&mut self.bytes).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.ended(cx)?;
        Pin::new(&mut self.bytes).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.bytes).poll_shutdown(cx)
    }
}
