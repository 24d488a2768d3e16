//! Calls at a server. Whatever their messages are, all go through one piece of code, as bytes.

use std::rc::Rc;
use std::task::{Context, Poll};

use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use hyper::body::Incoming;
use prost::Message;
use prost::bytes::Bytes;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http::Response as HttpResponse;
use tonic::{Request, Response, Status, Streaming};

use crate::bytes_codec::{BytesCodec, decoded, encoded};
use crate::{Interface, Method, reflection};

/// An answer that is being made.
pub type Answering = BoxFuture<'static, HttpResponse<Body>>;

/// Answers each call of a connection.
pub type Calls = Rc<dyn Fn(hyper::Request<Incoming>) -> Answering>;

/// One call that came in. Nothing of its message has been read.
pub struct Call {
    request: hyper::Request<Incoming>,
    message_max: usize,
}

type Handle = Box<dyn FnOnce(Request<Bytes>) -> BoxFuture<'static, Result<Bytes, Status>> + Send>;

impl Call {
    /// A call whose message may have `message_max` bytes.
    pub fn new(request: hyper::Request<Incoming>, message_max: usize) -> Call {
        Call { request, message_max }
    }

    /// The path of the method that is called.
    pub fn path(&self) -> &str {
        self.request.uri().path()
    }

    /// Answers it as `method` by `handle`.
    pub fn answer<Q, A, F>(
        self,
        _: Method<Q, A>,
        handle: impl FnOnce(Request<Q>) -> F + Send + 'static,
    ) -> Answering
    where
        Q: Message + Default + 'static,
        A: Message + 'static,
        F: Future<Output = Result<A, Status>> + Send + 'static,
    {
        self.exchange(Box::new(move |request| {
            let (metadata, extensions, bytes) = request.into_parts();
            let request = decoded(&bytes).map(|message| Request::from_parts(metadata, extensions, message));
            let answer = request.map(handle);
            Box::pin(async move { Ok(encoded(&answer?.await?)) })
        }))
    }

    /// Answers it by `handle`, which takes the message as bytes and answers with bytes, whatever they are.
    pub fn answer_bytes<F>(self, handle: impl FnOnce(Request<Bytes>) -> F + Send + 'static) -> Answering
    where
        F: Future<Output = Result<Bytes, Status>> + Send + 'static,
    {
        self.exchange(Box::new(move |request| Box::pin(handle(request))))
    }

    /// Answers that there is no such method.
    pub fn unknown(self) -> Answering {
        Box::pin(async { Status::unimplemented("").into_http() })
    }

    /// Answers what tools ask of the server's interface, by gRPC's server reflection, and of anything else that there is no such method.
    pub fn reflected(self, interface: &'static Interface) -> Answering {
        if !Interface::is_asked_at(self.path()) {
            return self.unknown();
        }
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(BytesCodec).max_decoding_message_size(self.message_max);
            grpc.streaming(Questions(interface), self.request).await
        })
    }

    fn exchange(self, handle: Handle) -> Answering {
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(BytesCodec).max_decoding_message_size(self.message_max);
            grpc.unary(Once(Some(handle)), self.request).await
        })
    }
}

/// The questions of a call, one after the other.
struct Questions(&'static Interface);

impl Service<Request<Streaming<Bytes>>> for Questions {
    type Response = Response<BoxStream<'static, Result<Bytes, Status>>>;
    type Error = Status;
    type Future = std::future::Ready<Result<Self::Response, Status>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        let interface = self.0;
        let answers = request.into_inner().map(move |question| reflection::answered(interface, &question?));
        std::future::ready(Ok(Response::new(answers.boxed())))
    }
}

/// A handler as the library takes it.
struct Once(Option<Handle>);

impl Service<Request<Bytes>> for Once {
    type Response = Response<Bytes>;
    type Error = Status;
    type Future = BoxFuture<'static, Result<Response<Bytes>, Status>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let answer = self.0.take().map(|handle| handle(request));
        Box::pin(async move {
            match answer {
                Some(answer) => answer.await.map(Response::new),
                None => Err(Status::internal("called twice")),
            }
        })
    }
}
