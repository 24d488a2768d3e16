//! A node that answers byte streams: what it answers goes by the path.

use std::sync::{Arc, Mutex};

use beehive::link::{ByteStream, ByteStreamHandler, ByteStreamRefusal, PeerName, WireVersion};
use contract::stream::{StreamRequest, StreamResponse};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;

/// See the module.
#[derive(Clone, Default)]
pub(crate) struct FakeNode {
    pub(crate) asked: Arc<Mutex<Vec<StreamRequest>>>,
    /// Lets a log go on.
    pub(crate) more: Arc<Notify>,
}

impl ByteStreamHandler for FakeNode {
    fn accept(&self, _: &PeerName, header: Vec<u8>, stream: ByteStream) -> Result<(), ByteStreamRefusal> {
        let request = StreamRequest::decode(&header, WireVersion::ONE).unwrap();
        self.asked.lock().unwrap().push(request.clone());
        if request.target.starts_with("/stats/") {
            let reason = "the node has as many calls as it serves".to_owned();
            return Err(ByteStreamRefusal { code: 429, reason });
        }
        let node = self.clone();
        actix_rt::spawn(async move { drop(node.answer(request, stream).await) });
        Ok(())
    }
}

fn head(status: u16, headers: &[(&str, &str)]) -> Vec<u8> {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    StreamResponse { status, headers }.encode(WireVersion::ONE).unwrap()
}

impl FakeNode {
    async fn answer(&self, request: StreamRequest, mut stream: ByteStream) -> std::io::Result<()> {
        let first = request.target.split(['/', '?']).nth(1).unwrap_or_default();
        match first {
            "containerLogs" => {
                stream.write_all(&head(200, &[])).await?;
                stream.write_all(b"line 1\n").await?;
                loop {
                    self.more.notified().await;
                    stream.write_all(b"line 2\n").await?;
                }
            }
            "exec" => {
                let upgrade = [("connection", "Upgrade"), ("upgrade", "SPDY/3.1")];
                stream.write_all(&head(101, &upgrade)).await?;
                let mut bytes = [0; 1024];
                loop {
                    match stream.read(&mut bytes).await? {
                        0 => break,
                        length => stream.write_all(&bytes[..length]).await?,
                    }
                }
                // The caller has ended his side, and hears this all the same.
                stream.write_all(b"bye").await?;
                stream.shutdown().await
            }
            "run" => {
                let mut body = Vec::new();
                stream.read_to_end(&mut body).await?;
                stream.write_all(&head(200, &[("content-type", "text/plain")])).await?;
                stream.write_all(&body).await?;
                stream.shutdown().await
            }
            "metrics" => {
                stream.write_all(&head(200, &[])).await?;
                stream.write_all(b"half of them").await?;
                self.more.notified().await;
                // Dropped without an end: it is cut.
                Ok(())
            }
            "configz" => {
                stream.write_all(&[0xff; 64]).await?;
                stream.shutdown().await
            }
            _ => {
                stream
                    .write_all(&head(200, &[("content-type", "application/json"), ("content-length", "2")]))
                    .await?;
                stream.write_all(b"{}").await?;
                stream.shutdown().await
            }
        }
    }
}
