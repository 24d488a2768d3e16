//! What a Redis server may answer to the commands that are sent here, held to it before a parser sees it: lines, and a list of lines.
//! The parser of a client of everything takes texts and lists of any length, and keeps what it has of them in memory.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// 4 KiB: the longest line. Servers say why they refuse a command in far less.
const LINE_MAX: usize = 4 << 10;
/// 256 KiB from one request to the next: more than each of its commands refused at length.
const ANSWER_MAX: usize = 256 << 10;
/// 5 bytes count a list.
const COUNT_MAX: usize = 5;

/// A connection over which only such answers come. It ends with an error at the first byte of another.
pub(crate) struct Lines<S> {
    stream: S,
    check: Check,
}

impl<S> Lines<S> {
    /// A list of more than `list_max` lines is none that was asked for.
    pub(crate) fn of(stream: S, list_max: usize) -> Self {
        Lines { stream, check: Check { list_max, left: ANSWER_MAX, at: At::Head } }
    }
}

/// Where in a line the next byte is. Texts may have a lone line feed in them, and then this sees more lines than there are: what it
/// refuses by that is nothing that was asked for either.
#[derive(Debug, Clone, PartialEq, Eq)]
enum At {
    Head,
    Text(usize),
    Count(Vec<u8>),
}

struct Check {
    list_max: usize,
    /// Of the bytes until the next request.
    left: usize,
    at: At,
}

impl Check {
    fn asked(&mut self) {
        self.left = ANSWER_MAX;
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.left = self
            .left
            .checked_sub(bytes.len())
            .ok_or_else(|| format!("it answers more than {} KiB", ANSWER_MAX >> 10))?;
        bytes.iter().try_for_each(|byte| self.one(*byte))
    }

    fn one(&mut self, byte: u8) -> Result<(), String> {
        match &mut self.at {
            At::Head => {
                self.at = match byte {
                    b'+' | b'-' | b':' => At::Text(1),
                    b'*' => At::Count(Vec::new()),
                    other => {
                        let head = char::from(other).escape_default();
                        return Err(format!(
                            "it answers `{head}...`, which was not asked for; is it a Redis?"
                        ));
                    }
                }
            }
            At::Text(_) if byte == b'\n' => self.at = At::Head,
            At::Text(length) if *length >= LINE_MAX => {
                return Err(format!("it answers a line of more than {} KiB", LINE_MAX >> 10));
            }
            At::Text(length) => *length += 1,
            At::Count(count) if byte == b'\n' => {
                let text = str::from_utf8(count).unwrap_or_default().trim_ascii();
                let is_asked = text == "-1" || text.parse().is_ok_and(|count: usize| count <= self.list_max);
                if !is_asked {
                    return Err("it answers a list that was not asked for; is it a Redis?".to_owned());
                }
                self.at = At::Head;
            }
            At::Count(count) if count.len() >= COUNT_MAX => {
                return Err("it answers a list of a length that was not asked for".to_owned());
            }
            At::Count(count) => count.push(byte),
        }
        Ok(())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Lines<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let (this, before) = (self.get_mut(), into.filled().len());
        let read = Pin::new(&mut this.stream).poll_read(cx, into);
        if let Poll::Ready(Ok(())) = &read
            && let Err(why) = this.check.take(into.filled().get(before..).unwrap_or_default())
        {
            into.set_filled(before);
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, why)));
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Lines<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.check.asked();
        Pin::new(&mut this.stream).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    /// What comes through of an answer that arrives in pieces of this size.
    async fn through(answer: &[u8], piece: usize) -> Result<Vec<u8>, String> {
        let (mut server, client) = tokio::io::duplex(piece);
        let mut lines = Lines::of(client, 64);
        let (mut into, sent) = (Vec::new(), async move {
            let _ = server.write_all(answer).await;
        });
        let (read, ()) = tokio::join!(
            async move {
                let read = lines.read_to_end(&mut into).await;
                read.map(|_| into).map_err(|error| error.to_string())
            },
            sent
        );
        read
    }

    #[tokio::test]
    async fn the_answers_of_a_transaction_pass_and_what_nobody_asked_for_ends_the_connection() {
        let transaction = b"+OK\r\n+QUEUED\r\n-WRONGTYPE of the key\r\n*2\r\n:1\r\n:0\r\n*-1\r\n*64\r\n";
        for piece in [1, 7, 4096] {
            assert_eq!(through(transaction, piece).await.as_deref(), Ok(&transaction[..]));
            for (answer, said) in [
                (&b"$2147483647\r\n"[..], "`$...`"),
                (b"+OK\r\n*65\r\n", "a list"),
                (b"*1000000000\r\n", "a list"),
                (b"*9223372036854775807\r\n", "a list"),
                (b"*+5 x\r\n", "a list"),
                (b"%1\r\n", "`%...`"),
                (b"|1\r\n", "`|...`"),
                (b">2\r\n", "`>...`"),
                (b"\x1b[2J", "`\\u{1b}...`"),
                (&[b'+'; 9999], "a line of more than 4 KiB"),
                (&b"*1\r\n".repeat(70_000), "more than 256 KiB"),
            ] {
                let refusal = through(answer, piece).await.unwrap_err();
                assert!(refusal.contains(said), "{refusal}");
            }
        }
    }

    #[tokio::test]
    async fn each_request_may_be_answered_at_length_and_nothing_more_unasked() {
        let (mut server, client) = tokio::io::duplex(1 << 20);
        let mut lines = Lines::of(client, 64);
        let answer = b"+OK\r\n".repeat(40_000);
        let mut into = vec![0; answer.len()];
        for _ in 0..2 {
            lines.write_all(b"PING").await.unwrap();
            server.write_all(&answer).await.unwrap();
            lines.read_exact(&mut into).await.unwrap();
        }
        server.write_all(&answer).await.unwrap();
        let refusal = lines.read_exact(&mut into).await.unwrap_err();
        assert!(refusal.to_string().contains("more than 256 KiB"), "{refusal}");
    }
}
