//! Calls over the link: byte streams that CloudCore opened, and nobody else.

use std::io;
use std::sync::Arc;

use beehive::link::WireVersion;
use contract::csi_call::CsiCall;
use contract::stream::{RESPONSE_HEADERS, StreamRequest, StreamResponse, passes};
use futures::StreamExt as _;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::answer::{Body, Reply};
use crate::budget::{Origin, TAKEN_WITHIN};
use crate::handler::{Kubelet, LONGEST};
use crate::log::copy::LogError;
use crate::pieces::{self, Pieces};
use crate::splice::SpliceEnd;
use crate::{driver_calls, events};

/// 1 KiB of a request's body at a time; none of the calls that come here reads it.
const BODY: usize = 1 << 10;

/// Serves one stream to its end. The stream is cut when this ends early.
pub(crate) async fn serve(
    kubelet: Arc<Kubelet>,
    request: StreamRequest,
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
) {
    if CsiCall::is_target(&request.target) {
        let reply = driver_calls::answer(&kubelet, &request, &mut stream).await;
        if let Err(error) = send(&kubelet, driver_calls::NAME, reply, &mut stream).await {
            events::cut(kubelet.metrics(), driver_calls::NAME, &error);
        }
        return;
    }
    let (name, reply) = {
        // What a client that has gone asked for is not done.
        let (mut reading, _writing) = tokio::io::split(&mut stream);
        let watch = async {
            if contract::stream::header(&request.headers, "upgrade").is_some() {
                std::future::pending::<io::Error>().await
            } else {
                client_gone(&mut reading).await
            }
        };
        tokio::select! {
            answer = kubelet.answer(&request, Origin::Link) => answer,
            error = watch => return events::cut(kubelet.metrics(), "none", &error),
        }
    };
    if let Err(error) = send(&kubelet, name, reply, &mut stream).await {
        events::cut(kubelet.metrics(), name, &error);
    }
}

/// Completes when the client breaks off, as one does that has no body to send. What another sends and that it has sent all says
/// nothing.
async fn client_gone(client: &mut (impl AsyncRead + Unpin)) -> io::Error {
    let mut body = [0; BODY];
    loop {
        match client.read(&mut body).await {
            Ok(0) => return std::future::pending().await,
            Ok(_) => {}
            Err(error) => return error,
        }
    }
}

async fn send(
    kubelet: &Kubelet,
    name: &str,
    reply: Reply,
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
) -> io::Result<()> {
    let allowed = |(name, value): &(String, String)| passes(RESPONSE_HEADERS, name, value);
    let headers = reply.headers.into_iter().filter(allowed).collect();
    let head = StreamResponse { status: reply.status, headers };
    stream.write_all(&head.encode(WireVersion::ONE).map_err(io::Error::other)?).await?;
    if let Body::Upgraded(upgraded) = reply.body {
        let ended = upgraded.splice(stream, &**kubelet.clock()).await;
        if let Err(stalled @ SpliceEnd::Stalled { .. }) = &ended {
            events::stalled(kubelet.metrics(), name, stalled);
        }
        return ended.map_err(io::Error::other);
    }
    let (mut reading, mut writing) = tokio::io::split(stream);
    let written = async {
        match reply.body {
            Body::Whole(bytes) => take(kubelet, pieces::whole(bytes, reply.held), &mut writing).await?,
            Body::Pods(list) => take(kubelet, list.pieces(), &mut writing).await?,
            Body::Content(file, length) => copy_file(kubelet, file, length, &mut writing).await?,
            Body::Log(instance, options) => {
                let copied = tokio::select! {
                    copied = kubelet.logs.copy(&instance, &options, &mut writing) => copied,
                    () = kubelet.clock().sleep(LONGEST) => Ok(()),
                };
                match copied {
                    Ok(()) => {}
                    Err(LogError::Client(error)) => return Err(error),
                    Err(LogError::Said(text)) => writing.write_all(text.as_bytes()).await?,
                }
            }
            // Handed on above.
            Body::Upgraded(_) => {}
        }
        writing.shutdown().await
    };
    tokio::select! {
        // Whoever has heard all of it goes at once.
        biased;
        written = written => written,
        error = client_gone(&mut reading) => Err(error),
    }
}

/// What is held for the client, who has to take it: others wait for the room.
async fn take(kubelet: &Kubelet, mut pieces: Pieces, out: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
    while let Some(piece) = pieces.next().await {
        let piece = piece?;
        tokio::select! {
            written = out.write_all(&piece) => written?,
            () = kubelet.clock().sleep(TAKEN_WITHIN) => {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes nothing of an answer"));
            }
        }
    }
    Ok(())
}

/// As many bytes as the answer's head says: a file that has become shorter cuts the answer.
async fn copy_file(
    kubelet: &Kubelet,
    file: std::fs::File,
    length: u64,
    out: &mut (impl AsyncWrite + Unpin),
) -> io::Result<()> {
    use std::os::unix::fs::FileExt as _;
    let (file, mut at) = (Arc::new(file), 0);
    while at < length {
        let chunk = kubelet.budget().chunk();
        let most = usize::try_from(length - at).unwrap_or(usize::MAX).min(chunk.length);
        let file = Arc::clone(&file);
        let read = kubelet.disk().blocking(move || {
            let mut bytes = vec![0; most];
            let read = file.read_at(&mut bytes, at)?;
            bytes.truncate(read);
            Ok(bytes)
        });
        let bytes = read.await?;
        if bytes.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        at += bytes.len() as u64;
        out.write_all(&bytes).await?;
    }
    Ok(())
}
