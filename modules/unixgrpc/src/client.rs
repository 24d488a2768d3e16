//! Calls. Whatever their messages are, all go through one piece of code, as bytes.

use futures::future::BoxFuture;
use prost::Message;
use prost::bytes::Bytes;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};

use crate::Method;
use crate::bytes_codec::{BytesCodec, decoded, encoded};

/// Calls a server's methods.
#[derive(Debug, Clone)]
pub struct Client {
    channel: Channel,
    answer_max: usize,
}

/// What a server sends one after the other.
#[derive(Debug)]
pub struct Answers(Streaming<Bytes>);

impl Client {
    /// Calls over `channel`, whose answers have at most `answer_max` bytes each.
    pub fn new(channel: Channel, answer_max: usize) -> Client {
        Client { channel, answer_max }
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

    fn grpc(&self) -> tonic::client::Grpc<Channel> {
        tonic::client::Grpc::new(self.channel.clone()).max_decoding_message_size(self.answer_max)
    }
}

async fn ready(grpc: &mut tonic::client::Grpc<Channel>) -> Result<(), Status> {
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
