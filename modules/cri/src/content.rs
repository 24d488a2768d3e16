//! The parts of an image that the runtime has, as its registry had them: of containerd alone, as CRI gives none out.

use std::time::Duration;

use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt as _};
use tonic::Request;
use unixgrpc::Client;

use crate::Error;
use crate::containerd::content::{ReadContentRequest, ReadContentResponse};
use crate::containerd::images::GetImageRequest;
use crate::grpc::{NAMESPACE, channel_of, items};
use crate::methods::{content, images};

/// 4 MiB of one answer: containerd sends a part of a blob in pieces of one.
const MESSAGE_MAX: usize = 4 << 20;
/// 10 s for a question.
const ANSWERS_WITHIN: Duration = Duration::from_secs(10);

/// A document or a layer of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    /// What it is.
    pub media_type: String,
    /// `sha256:` and hexadecimal digits.
    pub digest: String,
    /// In bytes.
    pub size: u64,
}

/// containerd's content store at its socket.
#[derive(Clone)]
pub struct Content {
    client: Client,
    endpoint: String,
}

impl Content {
    /// Of the containerd at `endpoint` (`unix:///path`, or a bare path), which connects when first used. Must be called within a tokio
    /// runtime.
    ///
    /// # Errors
    /// [`Error::BadEndpoint`].
    pub fn new(endpoint: &str) -> Result<Content, Error> {
        Ok(Content { client: Client::new(channel_of(endpoint)?, MESSAGE_MAX), endpoint: endpoint.to_owned() })
    }

    fn request<T>(body: T) -> Request<T> {
        let mut request = Request::new(body);
        let namespace = tonic::metadata::MetadataValue::from_static(NAMESPACE);
        request.metadata_mut().insert("containerd-namespace", namespace);
        request
    }

    /// What an image begins with, by a name that containerd has for it: its index or its manifest.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where the runtime is no containerd.
    pub async fn target(&self, name: &str) -> Result<Descriptor, Error> {
        let mut request = Content::request(GetImageRequest { name: name.to_owned() });
        request.set_timeout(ANSWERS_WITHIN);
        let answer = self.client.call(images::GET, request).await;
        let failed = |status| Error::from_status("containerd Images.Get", &self.endpoint, &status);
        let target = answer.map_err(failed)?.image.and_then(|image| image.target).unwrap_or_default();
        let size = u64::try_from(target.size).unwrap_or_default();
        Ok(Descriptor { media_type: target.media_type, digest: target.digest, size })
    }

    /// A blob, piece by piece, in order.
    ///
    /// # Errors
    /// As the first item, where it is not there.
    pub async fn read(&self, digest: &str) -> Result<BoxStream<'static, Result<Bytes, Error>>, Error> {
        let body = ReadContentRequest { digest: digest.to_owned(), offset: 0, size: 0 };
        let endpoint = self.endpoint.clone();
        let failed = move |status| Error::from_status("containerd Content.Read", &endpoint, &status);
        let opened = self.client.stream(content::READ, Content::request(body)).await.map_err(&failed)?;
        let pieces = items::<ReadContentResponse>(opened);
        Ok(pieces.map(move |piece| piece.map(|piece| Bytes::from(piece.data)).map_err(&failed)).boxed())
    }
}
