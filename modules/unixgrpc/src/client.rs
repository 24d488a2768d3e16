//! Calls. Whatever their messages are, all go through one piece of code, as bytes.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::{BoxFuture, poll_fn};
use http_body::Frame;
use http_body_util::BodyExt as _;
use prost::Message;
use prost::bytes::Bytes;
use tonic::body::Body;
use tonic::codec::CompressionEncoding;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::codegen::{Service, StdError, http};
use tonic::{Request, Status, Streaming};

use crate::Method;
use crate::bytes_codec::{BytesCodec, decoded, encoded};
use crate::details::without_unsound;

/// Calls a server's methods.
#[derive(Clone)]
pub struct Client {
    channel: AnyChannel,
    answer_max: usize,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("answer_max", &self.answer_max).finish_non_exhaustive()
    }
}

type HttpAnswer = Result<http::Response<Body>, StdError>;

/// A channel, or what stands before one. It is one type for all of them, since the whole of a gRPC client is compiled for each.
#[derive(Clone)]
struct AnyChannel(Arc<dyn Fn(http::Request<Body>) -> BoxFuture<'static, HttpAnswer> + Send + Sync>);

impl AnyChannel {
    fn new<S>(channel: S) -> AnyChannel
    where
        S: Service<http::Request<Body>, Response = http::Response<Body>> + Clone + Send + Sync + 'static,
        S::Error: Into<StdError>,
        S::Future: Send,
    {
        AnyChannel(Arc::new(move |request| {
            let mut channel = channel.clone();
            Box::pin(async move {
                poll_fn(|cx| channel.poll_ready(cx)).await.map_err(Into::into)?;
                Ok(sound(channel.call(request).await.map_err(Into::into)?))
            })
        }))
    }
}

/// An answer of which tonic can read the status, whatever the server has sent for one.
fn sound(answer: http::Response<Body>) -> http::Response<Body> {
    let (mut head, body) = answer.into_parts();
    without_unsound(&mut head.headers);
    let body = body.map_frame(|frame| match frame.into_trailers() {
        Ok(mut trailers) => {
            without_unsound(&mut trailers);
            Frame::trailers(trailers)
        }
        Err(frame) => frame,
    });
    http::Response::from_parts(head, Body::new(body))
}

impl Service<http::Request<Body>> for AnyChannel {
    type Response = http::Response<Body>;
    type Error = StdError;
    type Future = BoxFuture<'static, HttpAnswer>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), StdError>> {
        // The call waits for it.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        (self.0)(request)
    }
}

/// What a server sends one after the other.
#[derive(Debug)]
pub struct Answers(Streaming<Bytes>);

impl Client {
    /// Calls over `channel`, whose answers have at most `answer_max` bytes each.
    pub fn new<S>(channel: S, answer_max: usize) -> Client
    where
        S: Service<http::Request<Body>, Response = http::Response<Body>> + Clone + Send + Sync + 'static,
        S::Error: Into<StdError>,
        S::Future: Send,
    {
        Client { channel: AnyChannel::new(channel), answer_max }
    }

    /// One message, and one for an answer.
    ///
    /// # Errors
    /// The server's, `Unavailable` where there is none, and `Internal` for an answer that is not understood.
    pub fn call<Q: Message, A: Message + Default>(
        &self,
        method: Method<Q, A>,
        request: Request<Q>,
    ) -> impl Future<Output = Result<A, Status>> + Send + use<Q, A> {
        let answer = self.exchange(method.path(), request.map(|message| encoded(&message)));
        async move { decoded(&answer.await?) }
    }

    /// One message, and any number for an answer; [`Answers::next`] reads them.
    ///
    /// # Errors
    /// See [`Client::call`].
    pub fn stream<Q: Message, A>(
        &self,
        method: Method<Q, A>,
        request: Request<Q>,
    ) -> BoxFuture<'static, Result<Answers, Status>> {
        let request = request.map(|message| encoded(&message));
        let (path, mut grpc) = (method.path(), self.grpc());
        Box::pin(async move {
            ready(&mut grpc).await?;
            let path = PathAndQuery::from_static(path);
            Ok(Answers(grpc.server_streaming(request, path, BytesCodec).await?.into_inner()))
        })
    }

    /// The same client, whose answers have at most `answer_max` bytes each.
    #[must_use]
    pub fn answers_up_to(self, answer_max: usize) -> Client {
        Client { answer_max, ..self }
    }

    /// The method at `path`, whose message and answer are not looked into.
    ///
    /// # Errors
    /// See [`Client::call`].
    pub fn call_bytes(
        &self,
        path: &'static str,
        request: Request<Bytes>,
    ) -> impl Future<Output = Result<Bytes, Status>> + Send + use<> {
        self.exchange(path, request)
    }

    fn exchange(
        &self,
        path: &'static str,
        request: Request<Bytes>,
    ) -> BoxFuture<'static, Result<Bytes, Status>> {
        let mut grpc = self.grpc();
        Box::pin(async move {
            ready(&mut grpc).await?;
            Ok(grpc.unary(request, PathAndQuery::from_static(path), BytesCodec).await?.into_inner())
        })
    }

    fn grpc(&self) -> tonic::client::Grpc<AnyChannel> {
        // The bound is of what was unpacked.
        tonic::client::Grpc::new(self.channel.clone())
            .max_decoding_message_size(self.answer_max)
            .accept_compressed(CompressionEncoding::Gzip)
    }
}

async fn ready(grpc: &mut tonic::client::Grpc<AnyChannel>) -> Result<(), Status> {
    // In the words of generated clients.
    grpc.ready().await.map_err(|error| Status::unknown(format!("Service was not ready: {error}")))
}

impl Answers {
    /// The next one, as bytes; `None` at the end.
    ///
    /// # Errors
    /// Those of the server and of the connection.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        self.0.message().await
    }

    /// The next one; `None` at the end.
    ///
    /// # Errors
    /// Those of the server and of the connection, and `Internal` for what is not understood.
    pub async fn next_as<A: Message + Default>(&mut self) -> Result<Option<A>, Status> {
        self.next().await?.as_ref().map(decoded).transpose()
    }
}
