//! The way to a server.

use std::io;

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

/// A channel over the connections that `connect` makes: one with the first call, and another when that was lost.
pub fn channel_by<F>(connect: impl Fn() -> F + Send + Sync + 'static) -> Channel
where
    F: Future<Output = io::Result<UnixStream>> + Send + 'static,
{
    // The URI only fills a header; where the connection goes, the connector says.
    Endpoint::from_static("http://localhost").connect_with_connector_lazy(service_fn(move |_: Uri| {
        let connecting = connect();
        async move { connecting.await.map(TokioIo::new) }
    }))
}
