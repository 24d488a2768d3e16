//! Modbus over TCP without the answers that nobody waits for: what a device or a gateway says twice, or too late, is passed over.
//!
//! Each frame begins with the number of its request (Modbus Messaging on TCP/IP, 3.1.3). The client beneath looks at one frame for each
//! request, and gives the connection up if that is another one's.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Number, protocol and length.
const HEAD: usize = 6;
/// 16 answers of others while one is waited for; what comes then is handed on and ends the connection.
const PASSED_OVER_MAX: usize = 16;

/// A connection of which the answers to the last request are read, and no others.
#[derive(Debug)]
pub(crate) struct OwnAnswers<T> {
    stream: T,
    asked: Frames,
    last: Option<[u8; 2]>,
    answers: Frames,
    passed_over: usize,
    /// Of the head of an answer, what is yet to be handed on.
    handed_on: Vec<u8>,
    /// The rest of the frame is passed over.
    is_foreign: bool,
}

/// Where frames begin and end in what passes.
#[derive(Debug, Default)]
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
    pub(crate) fn of(stream: T) -> Self {
        OwnAnswers {
            stream,
            asked: Frames::default(),
            last: None,
            answers: Frames::default(),
            passed_over: 0,
            handed_on: Vec::new(),
            is_foreign: false,
        }
    }

    fn has_asked(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (piece, behind) = bytes.split_at(self.asked.most().min(bytes.len()));
            if let Some(head) = self.asked.pass(piece) {
                (self.last, self.passed_over) = (Some(head.number), 0);
            }
            bytes = behind;
        }
    }

    fn has_come(&mut self, bytes: &[u8]) {
        let Some(head) = self.answers.pass(bytes) else { return };
        // What is no Modbus is for the client to say.
        let is_other = self.last != Some(head.number) && head.protocol == [0, 0];
        self.is_foreign = is_other && self.passed_over < PASSED_OVER_MAX;
        if self.is_foreign {
            self.passed_over += 1;
            let (number, asked) = (u16::from_be_bytes(head.number), self.last.map(u16::from_be_bytes));
            tracing::debug!(number, asked, "an answer that nobody waits for is passed over");
        } else {
            self.handed_on.extend_from_slice(&head.bytes);
        }
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
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
        self.has_asked(bytes.get(..written).unwrap_or_default());
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
        let mut client = tcp::attach_slave(OwnAnswers::of(ours), Slave(0));
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
        let mut client = tcp::attach_slave(OwnAnswers::of(ours), Slave(0));
        let serve = async {
            let number = asked(&mut device).await;
            for _ in 0..=PASSED_OVER_MAX {
                device.write_all(&answer(number.wrapping_add(7), 9)).await.unwrap();
            }
        };
        let ((), asked) = tokio::join!(serve, client.read_holding_registers(0, 1));
        assert!(matches!(asked, Err(tokio_modbus::Error::Protocol(_))), "{asked:?}");
    }
}
