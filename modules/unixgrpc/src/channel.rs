//! The way to a server.

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::codegen::Service;
use tonic::transport::{Channel, Endpoint, Error, Uri};

/// A connection's bytes, whatever carries them.
pub trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Duplex for T {}

/// A connection of a channel.
pub(crate) type Connected = TokioIo<Box<dyn Duplex>>;

/// How a channel gets its connections. It is one type for all of them, since the whole of an HTTP/2 client is compiled for each
/// type of connector.
#[derive(Clone)]
pub struct Connector(Arc<dyn Fn() -> BoxFuture<'static, io::Result<Connected>> + Send + Sync>);

impl Connector {
    /// The connections that `connect` makes, whatever the address.
    pub fn new<F, C>(connect: impl Fn() -> F + Send + Sync + 'static) -> Connector
    where
        F: Future<Output = io::Result<C>> + Send + 'static,
        C: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        Connector(Arc::new(move || {
            let connecting = connect();
            Box::pin(async move { Ok(TokioIo::new(Box::new(connecting.await?) as Box<dyn Duplex>)) })
        }))
    }

    /// A channel to `endpoint`: one connection with the first call, and another when that was lost.
    pub fn lazy(self, endpoint: &Endpoint) -> Channel {
        endpoint.connect_with_connector_lazy(self)
    }

    /// A channel to `endpoint` that is connected.
    ///
    /// # Errors
    /// Those of the connection; [`std::error::Error::source`] leads to them.
    pub fn connect(self, endpoint: Endpoint) -> BoxFuture<'static, Result<Channel, Error>> {
        Box::pin(async move { endpoint.connect_with_connector(self).await })
    }
}

impl Service<Uri> for Connector {
    type Response = Connected;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Connected>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        (self.0)()
    }
}

/// A channel over the connections that `connect` makes: one with the first call, and another when that was lost.
pub fn channel_by<F, C>(connect: impl Fn() -> F + Send + Sync + 'static) -> Channel
where
    F: Future<Output = io::Result<C>> + Send + 'static,
    C: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    // The URI only fills a header, which Go's servers want and for which kubelets give this; where the connection goes, the
    // connector says.
    Connector::new(connect).lazy(&Endpoint::from_static("http://localhost"))
}
