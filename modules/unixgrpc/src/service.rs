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
use tonic::codec::CompressionEncoding;
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
            let mut grpc = grpc(self.message_max);
            grpc.streaming(Questions(interface), self.request).await
        })
    }

    fn exchange(self, handle: Handle) -> Answering {
        Box::pin(async move {
            let mut grpc = grpc(self.message_max);
            grpc.unary(Once(Some(handle)), self.request).await
        })
    }
}

/// Takes messages of at most so many bytes, also after they were unpacked, plainly or by gzip as servers in Go take them that link its
/// codec. Answers are plain.
fn grpc(message_max: usize) -> tonic::server::Grpc<BytesCodec> {
    tonic::server::Grpc::new(BytesCodec)
        .max_decoding_message_size(message_max)
        .accept_compressed(CompressionEncoding::Gzip)
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

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::net::UnixStream;
    use tonic::Code;
    use tonic::codegen::http::uri::PathAndQuery;

    use super::*;
    use crate::{Bounds, Connector, serve_connection};

    /// What is answered to `message`, which is sent by gzip; the server sends back what it got, and takes `most` bytes.
    async fn answered(message: Bytes, most: usize) -> Result<Response<Bytes>, Status> {
        let (client, server) = UnixStream::pair().unwrap();
        let client = Mutex::new(Some(client));
        let connect = move || {
            let client = client.lock().unwrap().take();
            async move { client.ok_or_else(|| std::io::ErrorKind::ConnectionRefused.into()) }
        };
        let channel =
            Connector::new(connect).lazy(&tonic::transport::Endpoint::from_static("http://localhost"));
        let calls: Calls = Rc::new(move |request| {
            Call::new(request, most).answer_bytes(|request| async { Ok(request.into_inner()) })
        });
        let mut grpc = tonic::client::Grpc::new(channel)
            .send_compressed(CompressionEncoding::Gzip)
            .accept_compressed(CompressionEncoding::Gzip)
            .max_decoding_message_size(usize::MAX);
        let asked = async {
            grpc.ready().await.unwrap();
            grpc.unary(Request::new(message), PathAndQuery::from_static("/a/B"), BytesCodec).await
        };
        tokio::select! {
            answer = asked => answer,
            () = serve_connection(server, Bounds::DEFAULT, calls) => panic!("the server ended"),
        }
    }

    #[tokio::test]
    async fn a_message_may_come_by_gzip_and_is_bounded_by_what_it_is_unpacked() {
        let most = 1 << 20;
        let message = Bytes::from(vec![b'a'; most]);
        let answer = answered(message.clone(), most).await.unwrap();
        assert_eq!(*answer.get_ref(), message);
        assert_eq!(answer.metadata().get("grpc-encoding"), None, "answers are plain");
        let bomb = Bytes::from(vec![0; 8 << 20]);
        let refused = answered(bomb, most).await.unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    }
}
