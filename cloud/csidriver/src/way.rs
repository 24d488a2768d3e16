//! The way to the node: the same request, at CloudCore's socket or at the API server.

use std::path::{Path, PathBuf};

use contract::csi_call::{BODY_MAX, CONTENT_TYPE};
use futures::future::{Either, select};
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use prost::bytes::Bytes;
use tokio::net::UnixStream;

/// By whom the node is reached.
#[derive(Clone)]
pub enum Way {
    /// CloudCore, at its socket on this machine.
    Socket(PathBuf),
    /// The API server, whose node proxy finds the CloudCore that has the node.
    ApiServer(kube::Client),
}

/// What comes back.
pub(crate) struct Answered {
    pub(crate) status: StatusCode,
    pub(crate) content_type: Option<String>,
    pub(crate) body: Bytes,
}

impl Way {
    /// Whether CloudCore itself is asked.
    pub(crate) fn is_socket(&self) -> bool {
        matches!(self, Way::Socket(_))
    }

    /// Asks the node.
    ///
    /// # Errors
    /// A sentence: nobody was reached, or an answer broke off or is longer than any may be.
    pub(crate) async fn ask(&self, node: &str, target: &str, body: Vec<u8>) -> Result<Answered, String> {
        let request = Request::post(format!("/api/v1/nodes/{node}/proxy{target}"))
            .header(header::HOST, "localhost")
            .header(header::CONTENT_TYPE, CONTENT_TYPE);
        match self {
            Way::Socket(path) => {
                let request =
                    request.body(Full::new(Bytes::from(body))).map_err(|error| error.to_string())?;
                at_socket(path, request)
                    .await
                    .map_err(|error| format!("CloudCore at {}: {error}", path.display()))
            }
            Way::ApiServer(client) => {
                let mut request = request.body(body.into()).map_err(|error| error.to_string())?;
                // That of its URL.
                request.headers_mut().remove(header::HOST);
                let answer =
                    client.send(request).await.map_err(|error| format!("API server: {}", whole(&error)))?;
                read(answer).await
            }
        }
    }
}

async fn at_socket(path: &Path, request: Request<Full<Bytes>>) -> Result<Answered, String> {
    let stream = UnixStream::connect(path).await.map_err(|error| {
        format!("{error}: see modules.cloudHub.unixsocket there, and whether its folder is mounted here")
    })?;
    let (mut sender, connection) = httpclient::handshake(stream).await.map_err(|error| whole(&error))?;
    let exchange = async {
        let answer = sender.send_request(request).await.map_err(|error| whole(&error))?;
        read(answer).await
    };
    // The connection may have ended before all is read that came on it.
    match select(std::pin::pin!(exchange), std::pin::pin!(connection)).await {
        Either::Left((answered, _)) => answered,
        Either::Right((_, exchange)) => exchange.await,
    }
}

async fn read<B>(answer: Response<B>) -> Result<Answered, String>
where
    B: http_body::Body,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (parts, body) = answer.into_parts();
    let content_type = parts.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let body =
        Limited::new(body, BODY_MAX).collect().await.map_err(|error| format!("the answer: {error}"))?;
    Ok(Answered {
        status: parts.status,
        content_type: content_type.map(str::to_owned),
        body: body.to_bytes(),
    })
}

/// An error with what caused it.
fn whole(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        words = format!("{words}: {inner}");
        source = inner.source();
    }
    words
}
