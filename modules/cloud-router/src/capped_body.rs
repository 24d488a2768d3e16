//! A body that is passed on as it comes, up to a bound.

use std::any::Any;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

/// Passes on what `body` has, without trailers. One that has more than it may breaks off there.
pub(crate) struct CappedBody<B> {
    body: B,
    left: u64,
    is_too_long: Arc<AtomicBool>,
    _kept: Option<Box<dyn Any + Send>>,
}

impl<B> CappedBody<B> {
    /// At most `most` bytes of `body`.
    pub(crate) fn new(body: B, most: u64) -> Self {
        CappedBody { body, left: most, is_too_long: Arc::default(), _kept: None }
    }

    /// The same, which keeps what the body needs.
    pub(crate) fn keeping(self, kept: impl Send + 'static) -> Self {
        CappedBody { _kept: Some(Box::new(kept)), ..self }
    }

    /// Says, later, whether it had more.
    pub(crate) fn is_too_long(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.is_too_long)
    }
}

impl<B> Body for CappedBody<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let Some(frame) = ready!(Pin::new(&mut self.body).poll_frame(cx)) else { return Poll::Ready(None) };
        let frame = match frame {
            Ok(frame) => frame,
            Err(error) => return Poll::Ready(Some(Err(io::Error::other(error)))),
        };
        // Trailers are the last of a body, and headers of one connection.
        let Ok(bytes) = frame.into_data() else { return Poll::Ready(None) };
        match self.left.checked_sub(bytes.len() as u64) {
            Some(left) => {
                self.left = left;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            None => {
                self.is_too_long.store(true, Ordering::Relaxed);
                Poll::Ready(Some(Err(io::Error::other("the body is longer than it may be"))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::{BodyExt as _, StreamBody};

    #[tokio::test]
    async fn a_body_passes_up_to_its_bound_and_breaks_off_beyond_it() {
        let of = async |pieces: &'static [&'static str]| {
            let frames = pieces.iter().map(|piece| Ok::<_, io::Error>(Frame::data(Bytes::from(*piece))));
            let body = CappedBody::new(StreamBody::new(futures::stream::iter(frames)), 4);
            let is_too_long = body.is_too_long();
            let read = body.collect().await.map(|read| read.to_bytes());
            (read.ok(), is_too_long.load(Ordering::Relaxed))
        };
        assert_eq!(of(&["ab", "cd"]).await, (Some(Bytes::from("abcd")), false));
        assert_eq!(of(&["ab", "cde"]).await, (None, true));
        assert_eq!(of(&[]).await, (Some(Bytes::new()), false));
    }
}
