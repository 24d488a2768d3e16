//! The tasks of byte streams: they open one, answer one, and move its bytes between the transport and the state.

use std::future::poll_fn;
use std::io::ErrorKind;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures::future::{Either, select};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
use tokio::sync::oneshot;

use super::chunk::{self, ChunkError, Decoder, Piece};
use super::state::{Next, Unopened};
use super::{
    ByteStream, ByteStreamError, ByteStreamHandler, ByteStreamRefusal, OpenRequest, REASON_MAX, Shared,
};
use crate::link::frame::{FIXED, Frame, Kind};
use crate::link::transport::{Connection, Reader, Urgency, Writer};

/// 16 KiB: what is read at a time, on the stack: a stream that is idle holds no buffer.
const READ_AT_ONCE: usize = 16 << 10;
/// 1 s: how soon after a stream of its own a link that ends is known to.
const LINK_END_WITHIN: Duration = Duration::from_secs(1);
/// 16 reads: then the other tasks of the thread have their turn.
const READS_A_TURN: usize = 16;

/// Codes of beehive's own are behind those of handlers.
const OWN_CODES: u32 = 1 << 16;
const NO_HANDLER: u32 = OWN_CODES;
const TOO_MANY: u32 = OWN_CODES + 1;
const MALFORMED: u32 = OWN_CODES + 2;

/// The end of a stream's task, however it ends.
struct TaskEnd {
    shared: Arc<Shared>,
    id: u64,
}

impl Drop for TaskEnd {
    fn drop(&mut self) {
        self.shared.note_link_end();
        self.shared.state().task_ended(self.id, self.shared.now());
        self.shared.count();
    }
}

/// Opens a stream, tells who asked for it, and serves it.
pub(super) async fn open(shared: Arc<Shared>, connection: Arc<dyn Connection>, request: OpenRequest) {
    let OpenRequest { id, header, mut answer } = request;
    let _end = TaskEnd { shared: Arc::clone(&shared), id };
    let (mut writer, mut reader) = match connection.open(Urgency::Bulk).await {
        Ok(stream) => stream,
        Err(error) => return broke_off(&shared, answer, error.to_string()).await,
    };
    poll_fn(|cx| shared.state().poll_opening(id, cx, shared.now())).await;
    let open = Frame::new(Kind::StreamOpen, id, header);
    if let Err(error) = shared.core.write(&mut writer, &open).await {
        return broke_off(&shared, answer, error.to_string()).await;
    }
    drop(open);
    let first = {
        let read = std::pin::pin!(shared.core.read(&mut reader, FIXED + REASON_MAX));
        match select(read, std::pin::pin!(answer.closed())).await {
            Either::Left((first, _)) => first,
            Either::Right(((), read)) => {
                // Nobody waits any more: that is all there is to say. What the other end says is still read.
                let _ = writer.shutdown().await;
                read.await
            }
        }
    };
    let broken = |why: &str| ByteStreamError::Broken(why.to_owned());
    let refused = match first {
        Ok(Some(frame)) if frame.kind == Kind::StreamAccept && frame.id == id => None,
        Ok(Some(frame)) if frame.kind == Kind::StreamRefuse => Some(refusal(&frame)),
        Ok(Some(_)) => Some(broken("what came was no answer to its opening")),
        Ok(None) => Some(broken("the stream ended before an answer")),
        Err(error) => return broke_off(&shared, answer, crate::Fault::from_error(&error).reason).await,
    };
    if let Some(error) = refused {
        let _ = writer.shutdown().await;
        return drop(answer.send(Err(error)));
    }
    // Given to nobody, it breaks off.
    drop(answer.send(Ok(ByteStream::new(Arc::clone(&shared), id))));
    serve(&shared, id, writer, reader).await;
}

/// A stream broke off before it was answered. A link that ends shows here first: then that is what the asker hears, for this task ends with the
/// link, and `answer` with it.
async fn broke_off(
    shared: &Shared,
    answer: oneshot::Sender<Result<ByteStream, ByteStreamError>>,
    reason: String,
) {
    tracing::debug!(peer = %shared.core.peer, reason, "a byte stream broke off before it was answered");
    shared.core.clock.sleep(LINK_END_WITHIN).await;
    drop(answer.send(Err(ByteStreamError::Broken(reason))));
}

fn refusal(frame: &Frame) -> ByteStreamError {
    match u16::try_from(frame.amount) {
        Ok(code) => {
            let reason = String::from_utf8_lossy(&frame.body).into_owned();
            ByteStreamError::Refused(ByteStreamRefusal { code, reason })
        }
        Err(_) if frame.amount == TOO_MANY => ByteStreamError::TooMany,
        Err(_) if frame.amount == NO_HANDLER => ByteStreamError::Unsupported,
        Err(_) => ByteStreamError::Broken(String::from_utf8_lossy(&frame.body).into_owned()),
    }
}

/// Answers a stream that the other end opened, and serves it.
pub(super) async fn accept(
    shared: Arc<Shared>,
    handler: Option<Arc<dyn ByteStreamHandler>>,
    first: Frame,
    mut writer: Writer,
    reader: Reader,
) {
    let id = first.id;
    shared.state().opening_arrived(FIXED + first.body.len(), shared.now());
    let opened = match handler {
        None => Err((NO_HANDLER, "no byte streams are served here".to_owned())),
        Some(handler) => shared.state().opened(id).map(|()| handler).map_err(|why| match why {
            Unopened::TooMany => (TOO_MANY, "too many byte streams are open".to_owned()),
            Unopened::Number => (MALFORMED, format!("a byte stream of the number {id}, which is not free")),
        }),
    };
    let end = opened.is_ok().then(|| TaskEnd { shared: Arc::clone(&shared), id });
    let answer = opened.and_then(|handler| {
        shared.count();
        let stream = ByteStream::new(Arc::clone(&shared), id);
        let answer = handler.accept(&shared.core.peer, first.body, stream);
        answer.map_err(|refusal| (u32::from(refusal.code), refusal.reason))
    });
    let frame = match &answer {
        Ok(()) => Frame::new(Kind::StreamAccept, id, Vec::new()),
        Err((code, reason)) => {
            tracing::debug!(peer = %shared.core.peer, code, reason, "refused a byte stream");
            let reason = reason.get(..reason.floor_char_boundary(REASON_MAX)).unwrap_or_default();
            Frame { amount: *code, ..Frame::new(Kind::StreamRefuse, id, reason.as_bytes().to_vec()) }
        }
    };
    if shared.core.write(&mut writer, &frame).await.is_ok() {
        match answer {
            Ok(()) => serve(&shared, id, writer, reader).await,
            Err(_) => drop(writer.shutdown().await),
        }
    }
    drop(end);
}

/// Moves the bytes of a stream until both directions are over.
async fn serve(shared: &Shared, id: u64, writer: Writer, reader: Reader) {
    let Err(error) = futures::future::try_join(send(shared, id, writer), receive(shared, id, reader)).await
    else {
        return;
    };
    match error {
        StreamBroke::Io(error) => {
            tracing::debug!(peer = %shared.core.peer, %error, "a byte stream broke off");
            // A link that ends shows here first. Then that is what its streams say; this task ends with the link.
            shared.core.clock.sleep(LINK_END_WITHIN).await;
        }
        StreamBroke::Chunk(_) | StreamBroke::Window => {
            tracing::warn!(peer = %shared.core.peer, %error, "a byte stream against the rules; it is ended");
        }
    }
}

/// Why a stream broke off.
#[derive(Debug, Error)]
enum StreamBroke {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("{0}")]
    Chunk(#[from] ChunkError),
    #[error("more bytes than its window allows")]
    Window,
}

async fn send(shared: &Shared, id: u64, mut writer: Writer) -> Result<(), StreamBroke> {
    let traffic = &shared.core.traffic;
    loop {
        match poll_fn(|cx| shared.state().poll_next(id, cx, shared.now())).await {
            Next::Chunk(chunk) => {
                writer.write_all(&chunk).await?;
                traffic.add_sent(chunk.len());
                traffic.add_byte_stream_sent(chunk.len() - 2);
            }
            Next::End => {
                writer.write_all(&chunk::END).await?;
                writer.flush().await?;
                traffic.add_sent(chunk::END.len());
                shared.state().end_sent(id);
                break;
            }
            Next::Abort => {
                writer.write_all(&chunk::RESET).await?;
                writer.flush().await?;
                traffic.add_sent(chunk::RESET.len());
                break;
            }
        }
    }
    // The other end may be gone by now, which is no fault.
    let _ = writer.shutdown().await;
    Ok(())
}

/// Reads until the other end's half is over: also what nobody wants any more, for it counts as arrived.
async fn receive(shared: &Shared, id: u64, mut reader: Reader) -> Result<(), StreamBroke> {
    let mut decoder = Decoder::default();
    poll_fn(|cx| {
        let mut scratch = [const { MaybeUninit::uninit() }; READ_AT_ONCE];
        for _ in 0..READS_A_TURN {
            let mut came = ReadBuf::uninit(&mut scratch);
            futures::ready!(Pin::new(&mut reader).poll_read(cx, &mut came))?;
            if came.filled().is_empty() {
                return Poll::Ready(if decoder.has_ended() {
                    Ok(())
                } else {
                    Err(StreamBroke::Io(ErrorKind::UnexpectedEof.into()))
                });
            }
            shared.core.heard(came.filled().len());
            take(shared, id, &mut decoder, came.filled())?;
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await
}

fn take(shared: &Shared, id: u64, decoder: &mut Decoder, mut came: &[u8]) -> Result<(), StreamBroke> {
    let now = shared.now();
    let mut state = shared.state();
    while let Some(piece) = decoder.next(&mut came)? {
        match piece {
            Piece::Echo => state.echo(),
            Piece::Bytes(bytes) => {
                shared.core.traffic.add_byte_stream_received(bytes.len());
                if !state.arrived(id, bytes, now) {
                    return Err(StreamBroke::Window);
                }
            }
            Piece::End => state.completed(id),
            Piece::Reset => state.broke_off(id, now),
        }
    }
    Ok(())
}
