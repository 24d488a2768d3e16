//! Modbus over TCP without the answers that nobody waits for: what a device or a gateway says twice, or too late, is passed over.
//!
//! Each frame begins with the number of its request (Modbus Messaging on TCP/IP, 3.1.3). The client beneath looks at one frame for each
//! request, and gives the connection up if that is another one's.
//!
//! The first request of a connection has the number 1 and not 0, the second 0: a device that answers each under 0 is told by its first
//! answer, and is not there for one request and away for the next.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Number, protocol and length.
const HEAD: usize = 6;
/// 16 answers of others while one is waited for; what comes then is handed on and ends the connection.
const PASSED_OVER_MAX: usize = 16;

/// What the lower byte of the client's numbers differs by on the wire.
const FLIP: u8 = 1;

/// An answer under another number than that of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ForeignAnswer {
    /// The answer's.
    pub(crate) came: u16,
    /// The request's.
    pub(crate) asked: u16,
}

/// The last answer that was passed over since the last request.
#[derive(Debug, Clone, Default)]
pub(crate) struct PassedOver(Arc<Mutex<Option<ForeignAnswer>>>);

impl PassedOver {
    /// Takes it.
    pub(crate) fn take(&self) -> Option<ForeignAnswer> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn set(&self, answer: Option<ForeignAnswer>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = answer;
    }
}

/// A connection of which the answers to the last request are read, and no others.
#[derive(Debug)]
pub(crate) struct OwnAnswers<T> {
    stream: T,
    asked: Frames,
    last: Option<[u8; 2]>,
    answers: Frames,
    /// Answers under any number are the last request's.
    takes_any: bool,
    passed_over: usize,
    last_passed_over: PassedOver,
    /// Of the head of an answer, what is yet to be handed on.
    handed_on: Vec<u8>,
    /// The rest of the frame is passed over.
    is_foreign: bool,
}

/// Where frames begin and end in what passes.
#[derive(Debug, Clone, Default)]
struct Frames {
    head: Vec<u8>,
    /// What belongs to the frame behind its head.
    rest: usize,
}

struct Head {
    number: [u8; 2],
    protocol: [u8; 2],
    bytes: [u8; HEAD],
}

impl Frames {
    /// How much to take at the most, so that it is of one head or of one body.
    fn most(&self) -> usize {
        if self.rest > 0 { self.rest } else { HEAD - self.head.len() }
    }

    /// At most so much has passed. The head that is complete with it.
    fn pass(&mut self, bytes: &[u8]) -> Option<Head> {
        if self.rest > 0 {
            self.rest = self.rest.saturating_sub(bytes.len());
            return None;
        }
        self.head.extend_from_slice(bytes);
        let bytes: [u8; HEAD] = self.head.as_slice().try_into().ok()?;
        self.head.clear();
        let [number, number_low, protocol, protocol_low, length, length_low] = bytes;
        self.rest = u16::from_be_bytes([length, length_low]).into();
        Some(Head { number: [number, number_low], protocol: [protocol, protocol_low], bytes })
    }
}

impl<T> OwnAnswers<T> {
    /// Of a device that gives the numbers back, or does not: then it `takes_any`. What it passes over is told to `last_passed_over`.
    pub(crate) fn of(stream: T, takes_any: bool, last_passed_over: PassedOver) -> Self {
        OwnAnswers {
            stream,
            asked: Frames::default(),
            last: None,
            answers: Frames::default(),
            takes_any,
            passed_over: 0,
            last_passed_over,
            handed_on: Vec::new(),
            is_foreign: false,
        }
    }

    fn has_asked(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (piece, behind) = bytes.split_at(self.asked.most().min(bytes.len()));
            if let Some(head) = self.asked.pass(piece) {
                (self.last, self.passed_over) = (Some(head.number), 0);
                self.last_passed_over.set(None);
            }
            bytes = behind;
        }
    }

    /// What the client writes, with the numbers of the wire.
    fn renumbered(&self, bytes: &[u8]) -> Vec<u8> {
        let (mut wire, mut frames) = (bytes.to_vec(), self.asked.clone());
        let mut rest = wire.as_mut_slice();
        while !rest.is_empty() {
            let low = (frames.rest == 0).then(|| 1_usize.checked_sub(frames.head.len())).flatten();
            let (piece, behind) = rest.split_at_mut(frames.most().min(rest.len()));
            frames.pass(piece);
            if let Some(byte) = low.and_then(|low| piece.get_mut(low)) {
                *byte ^= FLIP;
            }
            rest = behind;
        }
        wire
    }

    fn has_come(&mut self, bytes: &[u8]) {
        let Some(head) = self.answers.pass(bytes) else { return };
        // What is no Modbus is for the client to say.
        let is_other = self.last != Some(head.number) && head.protocol == [0, 0];
        self.is_foreign = is_other && !self.takes_any && self.passed_over < PASSED_OVER_MAX;
        let (came, asked) = (u16::from_be_bytes(head.number), self.last.map(u16::from_be_bytes));
        if is_other && !self.takes_any {
            self.last_passed_over.set(asked.map(|asked| ForeignAnswer { came, asked }));
        }
        if self.is_foreign {
            self.passed_over += 1;
            tracing::debug!(number = came, asked, "an answer that nobody waits for is passed over");
            return;
        }
        let [_, _, behind @ ..] = head.bytes;
        let [high, low] = if self.takes_any { self.last.unwrap_or(head.number) } else { head.number };
        self.handed_on.extend_from_slice(&[high, low ^ FLIP]);
        self.handed_on.extend_from_slice(&behind);
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for OwnAnswers<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let own = &mut *self;
        while into.remaining() > 0 {
            if !own.handed_on.is_empty() {
                let length = own.handed_on.len().min(into.remaining());
                into.put_slice(own.handed_on.drain(..length).as_slice());
                return Poll::Ready(Ok(()));
            }
            let is_body = own.answers.rest > 0;
            let mut piece = [0; 512];
            let most = own.answers.most().min(piece.len());
            let most = if is_body && !own.is_foreign { most.min(into.remaining()) } else { most };
            let mut piece = ReadBuf::new(piece.get_mut(..most).unwrap_or_default());
            ready!(Pin::new(&mut own.stream).poll_read(cx, &mut piece))?;
            if piece.filled().is_empty() {
                break;
            }
            own.has_come(piece.filled());
            if is_body && !own.is_foreign {
                into.put_slice(piece.filled());
                break;
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for OwnAnswers<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let wire = self.renumbered(bytes);
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &wire))?;
        self.has_asked(wire.get(..written).unwrap_or_default());
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
    use tokio_modbus::Slave;
    use tokio_modbus::client::{Reader as _, tcp};

    use super::*;

    /// An answer to request `number`: one holding register.
    fn answer(number: u16, value: u8) -> Vec<u8> {
        [&number.to_be_bytes()[..], &[0, 0, 0, 5, 0, 3, 2, 0, value]].concat()
    }

    /// The number of the next request.
    async fn asked(device: &mut DuplexStream) -> u16 {
        let mut request = [0; 12];
        device.read_exact(&mut request).await.unwrap();
        u16::from_be_bytes([request[0], request[1]])
    }

    #[tokio::test]
    async fn what_comes_late_or_twice_is_passed_over_and_the_own_answer_is_waited_for() {
        let (mut device, ours) = duplex(1 << 10);
        let mut client = tcp::attach_slave(OwnAnswers::of(ours, false, PassedOver::default()), Slave(0));
        let serve = async {
            let first = asked(&mut device).await;
            device.write_all(&answer(first.wrapping_sub(1), 9)).await.unwrap();
            // In pieces, of which one ends in the middle of a head.
            for piece in answer(first, 1).chunks(5) {
                device.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
            let second = asked(&mut device).await;
            for piece in [answer(first, 1), answer(first, 1), answer(second, 2)].concat().chunks(7) {
                device.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
        };
        let ask = async {
            for value in [1, 2] {
                assert_eq!(client.read_holding_registers(0, 1).await.unwrap().unwrap(), [value]);
            }
        };
        tokio::join!(serve, ask);
    }

    #[tokio::test]
    async fn a_device_that_answers_nothing_else_is_not_read_for_ever() {
        let (mut device, ours) = duplex(1 << 10);
        let passed_over = PassedOver::default();
        let mut client = tcp::attach_slave(OwnAnswers::of(ours, false, passed_over.clone()), Slave(0));
        let serve = async {
            let number = asked(&mut device).await;
            for _ in 0..=PASSED_OVER_MAX {
                device.write_all(&answer(number.wrapping_add(7), 9)).await.unwrap();
            }
        };
        let ((), asked) = tokio::join!(serve, client.read_holding_registers(0, 1));
        assert!(matches!(asked, Err(tokio_modbus::Error::Protocol(_))), "{asked:?}");
        assert_eq!(passed_over.take(), Some(ForeignAnswer { came: 8, asked: 1 }));
    }

    #[tokio::test]
    async fn a_device_that_answers_under_one_number_is_told_by_its_first_answer_or_taken_as_it_is() {
        let (mut device, ours) = duplex(1 << 10);
        let mut client = tcp::attach_slave(OwnAnswers::of(ours, true, PassedOver::default()), Slave(0));
        let serve = async {
            for (wire, value) in [(1, 1), (0, 2), (3, 3)] {
                assert_eq!(asked(&mut device).await, wire);
                device.write_all(&answer(0, value)).await.unwrap();
            }
        };
        let ask = async {
            for value in [1, 2, 3] {
                assert_eq!(client.read_holding_registers(0, 1).await.unwrap().unwrap(), [value]);
            }
        };
        tokio::join!(serve, ask);
    }

    #[tokio::test]
    async fn numbers_are_changed_however_the_bytes_are_written() {
        let (mut device, ours) = duplex(1 << 10);
        let mut own = OwnAnswers::of(ours, false, PassedOver::default());
        for byte in [answer(0, 1), answer(0x1FF, 2)].concat() {
            own.write_all(&[byte]).await.unwrap();
        }
        let mut wire = [0; 22];
        device.read_exact(&mut wire).await.unwrap();
        assert_eq!(wire.to_vec(), [answer(1, 1), answer(0x1FE, 2)].concat());
    }
}
