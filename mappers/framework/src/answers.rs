//! What devices answer, bounded over all of them, and read beside the thread that serves them all.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::Body;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::fault::Fault;
use crate::payload::{Payload, values};
use crate::value::Value;

/// 4 MiB: the largest `maxBytes`.
pub const BYTES_MAX: usize = 4 << 20;
/// 8 MiB of large answers at a time: with what they become, and all else, less than the 64 MiB of the DaemonSet.
const ALL_MAX: usize = 2 * BYTES_MAX;
/// 16 KiB of an answer wait for nobody: a connection takes about as much anyway.
const SMALL: usize = 16 << 10;
/// 5 s that a larger answer waits for others.
pub const TURN_WITHIN: Duration = Duration::from_secs(5);
/// 10 s for the rest of it: others wait.
const REST_WITHIN: Duration = Duration::from_secs(10);

/// The room for answers of all devices of a mapper. Its clones are one.
#[derive(Debug, Clone)]
pub struct Answers {
    bytes: Arc<Semaphore>,
    /// One large answer is read at a time.
    turns: Arc<Semaphore>,
}

impl Default for Answers {
    fn default() -> Self {
        Answers { bytes: Arc::new(Semaphore::new(ALL_MAX)), turns: Arc::new(Semaphore::new(1)) }
    }
}

/// A whole answer, and its place among those that are large.
#[derive(Debug)]
pub struct Said {
    /// The answer.
    pub body: Vec<u8>,
    place: Option<OwnedSemaphorePermit>,
}

impl Answers {
    /// The whole of an answer of at most `most` bytes.
    ///
    /// # Errors
    /// When it has more, breaks off or goes on too long, or when others leave it no room.
    pub async fn whole<B>(&self, mut body: B, most: usize) -> Result<Said, Fault>
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: std::fmt::Display,
    {
        let announced = body.size_hint().exact().map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
        if announced.is_some_and(|bytes| bytes > most) {
            return Err(too_long(most));
        }
        let mut said = Vec::new();
        if fill(&mut body, &mut said, SMALL, most).await? && said.len() <= SMALL {
            return Ok(Said { body: said, place: None });
        }
        let bytes = u32::try_from(announced.unwrap_or(most)).unwrap_or(u32::MAX);
        let place = timeout(TURN_WITHIN, Arc::clone(&self.bytes).acquire_many_owned(bytes)).await;
        let place = place.ok().and_then(Result::ok).ok_or_else(|| {
            Fault::Device(format!(
                "the answer has more than {} KiB, and those of other devices have the room for such; ask for less at a time",
                SMALL >> 10
            ))
        })?;
        match timeout(REST_WITHIN, fill(&mut body, &mut said, usize::MAX, most)).await {
            Ok(filled) => filled.map(|_| Said { body: said, place: Some(place) }),
            Err(_) => Err(Fault::Device(format!(
                "the answer has more than {} KiB, and was not there within {} s; ask for less at a time",
                SMALL >> 10,
                REST_WITHIN.as_secs()
            ))),
        }
    }

    /// The values in an answer, in the order of `payloads`.
    pub async fn values(&self, said: Said, payloads: Vec<Arc<Payload>>) -> Vec<Result<Value, Fault>> {
        if said.body.len() <= SMALL {
            return values(payloads.iter().map(|payload| &**payload), &said.body);
        }
        let (count, turn) = (payloads.len(), Arc::clone(&self.turns).acquire_owned().await);
        // They are held by the reading itself: nobody may be waiting for it any more.
        let reading = move || {
            let _held = (turn, said.place);
            values(payloads.iter().map(|payload| &**payload), &said.body)
        };
        let read = tokio::task::spawn_blocking(reading).await;
        read.unwrap_or_else(|error| {
            vec![Err(Fault::Device(format!("the answer was not read: {error}"))); count]
        })
    }
}

/// Copies what comes until there are `enough` bytes, or all, which it says. Pieces are not kept: each of them costs more than a byte
/// that may be all that is in it.
async fn fill<B>(body: &mut B, said: &mut Vec<u8>, enough: usize, most: usize) -> Result<bool, Fault>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    while said.len() < enough {
        let Some(frame) = body.frame().await else { return Ok(true) };
        let frame = frame.map_err(|error| Fault::Link(format!("the answer broke off: {error}")))?;
        let Some(piece) = frame.data_ref() else { continue };
        if piece.len() > most - said.len() {
            return Err(too_long(most));
        }
        said.extend_from_slice(piece);
    }
    Ok(body.is_end_stream())
}

fn too_long(most: usize) -> Fault {
    Fault::Device(format!(
        "the answer has more than {most} bytes; raise `maxBytes`, which goes up to {BYTES_MAX}, or ask for less"
    ))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::task::{Context, Poll, Waker};

    use http_body_util::{Full, StreamBody};
    use hyper::body::Frame;

    use super::*;
    use crate::{Kind, Property, Settings};

    fn large() -> Full<Bytes> {
        Full::new(Bytes::from(vec![b' '; BYTES_MAX]))
    }

    #[tokio::test(start_paused = true)]
    async fn large_answers_share_a_room_and_small_ones_wait_for_nobody() {
        let answers = Answers::default();
        let mut held = Vec::new();
        for _ in 0..ALL_MAX / BYTES_MAX {
            held.push(answers.whole(large(), BYTES_MAX).await.unwrap());
        }
        let refused = answers.whole(large(), BYTES_MAX).await.unwrap_err();
        assert!(matches!(&refused, Fault::Device(why) if why.contains("other devices")), "{refused}");
        let small = Full::new(Bytes::from_static(b"7"));
        assert_eq!(answers.whole(small, BYTES_MAX).await.unwrap().body, b"7");
        held.pop();
        assert_eq!(answers.whole(large(), BYTES_MAX).await.unwrap().body.len(), BYTES_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_never_ends_gives_its_room_back() {
        let answers = Answers::default();
        let begin = Frame::data(Bytes::from(vec![b' '; SMALL + 1]));
        let stalled = futures::StreamExt::chain(
            futures::stream::iter([Ok::<_, Infallible>(begin)]),
            futures::stream::pending(),
        );
        let refused = answers.whole(StreamBody::new(stalled), BYTES_MAX).await.unwrap_err();
        assert!(matches!(&refused, Fault::Device(why) if why.contains("within 10 s")), "{refused}");
        assert_eq!(answers.bytes.available_permits(), ALL_MAX);
    }

    #[tokio::test]
    async fn pieces_of_a_byte_are_put_together_and_what_is_too_long_is_refused_however_it_comes() {
        let answers = Answers::default();
        let pieces = |count: usize| {
            let piece = |_| Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"x")));
            StreamBody::new(futures::stream::iter((0..count).map(piece)))
        };
        assert_eq!(answers.whole(pieces(100_000), 100_000).await.unwrap().body, vec![b'x'; 100_000]);
        let refused = answers.whole(pieces(100_001), 100_000).await.unwrap_err();
        assert!(matches!(&refused, Fault::Device(why) if why.contains("`maxBytes`")), "{refused}");
        let refused = answers.whole(Full::new(Bytes::from_static(b"xx")), 1).await.unwrap_err();
        assert!(matches!(refused, Fault::Device(_)), "{refused}");
    }

    #[tokio::test]
    async fn a_large_answer_is_read_beside_the_thread_of_all_devices() {
        let answers = Answers::default();
        let payload = Payload::read(Property::new("p", Kind::Int).kind, &Settings::from_pairs([])).unwrap();
        let payload = vec![Arc::new(Payload { pointer: Some("/1".to_owned()), ..payload })];
        let body = format!("[{}7,7]", " ".repeat(BYTES_MAX / 2));
        let said = answers.whole(Full::new(Bytes::from(body)), BYTES_MAX).await.unwrap();
        let mut reading = Box::pin(answers.values(said, payload));
        let first = reading.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(first, Poll::Pending), "it was read where it was asked for");
        assert_eq!(reading.await, [Ok(Value::Int(7))]);
        assert_eq!(answers.bytes.available_permits(), ALL_MAX);
    }
}
