//! How much of a server's bytes is ever kept: its chunks say how long they are, and are held to what was agreed.
//!
//! The library waits for as much as a chunk's header names, up to 4 GiB of memory, and asks none of its own bounds, before there is a
//! certificate or a session. So what it reads comes by [`ChunkSizes`], which reads the headers along and breaks the stream at the
//! first that names more.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

/// 65,535 bytes of a chunk: what our HEL says that we receive at the most, and no ACK makes it more (Part 6, 7.1.2.3 and 7.1.2.4).
pub(crate) const CHUNK_MAX: u32 = 65_535;
/// Bytes of a header: the type, whether it is the last chunk, and the size of the whole (Part 6, 7.1.2.2).
const HEADER: usize = 8;

/// What a server has sent that none may send, as soon as it has. The library's own errors do not say it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Breach(Arc<OnceLock<String>>);

impl Breach {
    /// Why nothing more is read of the server.
    pub(crate) fn words(&self) -> Option<&str> {
        self.0.get().map(String::as_str)
    }
}

/// See the module.
pub(crate) struct ChunkSizes<R> {
    stream: R,
    header: [u8; HEADER],
    /// How much of the header is there.
    known: usize,
    /// How much of the chunk is still to come.
    left: usize,
    breach: Breach,
}

impl<R> ChunkSizes<R> {
    pub(crate) fn new(stream: R, breach: Breach) -> Self {
        ChunkSizes { stream, header: [0; HEADER], known: 0, left: 0, breach }
    }

    /// Follows what was read.
    fn follow(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let taken = if self.left > 0 {
                let taken = self.left.min(bytes.len());
                self.left -= taken;
                taken
            } else {
                let mut free = self.header.get_mut(self.known..).unwrap_or_default();
                let taken = io::Write::write(&mut free, bytes)?;
                self.known += taken;
                if self.known == HEADER {
                    self.known = 0;
                    self.left = self.body()?;
                }
                taken
            };
            bytes = bytes.get(taken..).unwrap_or_default();
        }
        Ok(())
    }

    /// How much comes after this header.
    fn body(&self) -> io::Result<usize> {
        let [.., a, b, c, d] = self.header;
        let size = u32::from_le_bytes([a, b, c, d]);
        let body = usize::try_from(size).ok().and_then(|whole| whole.checked_sub(HEADER));
        body.filter(|_| size <= CHUNK_MAX).ok_or_else(|| {
            let kind = self.header.get(..3).unwrap_or_default().escape_ascii();
            let words = format!(
                "it announces a message `{kind}` of {size} bytes, where {HEADER} to {CHUNK_MAX} are agreed; this is no OPC UA server, \
                 or a broken one"
            );
            let words = self.breach.0.get_or_init(|| words).clone();
            io::Error::new(io::ErrorKind::InvalidData, words)
        })
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for ChunkSizes<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(words) = self.breach.words() {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, words)));
        }
        let before = into.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, into))?;
        Poll::Ready(self.follow(into.filled().get(before..).unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::AsyncReadExt as _;

    use super::*;

    fn chunk(kind: &[u8; 4], size: u32, body: usize) -> Vec<u8> {
        [kind.as_slice(), &size.to_le_bytes(), &vec![7; body]].concat()
    }

    /// What a reader gets that reads so many bytes at a time.
    async fn read(bytes: &[u8], at_a_time: usize) -> (Vec<u8>, Option<String>) {
        let breach = Breach::default();
        let mut reader = ChunkSizes::new(bytes, breach.clone());
        let (mut got, mut part) = (Vec::new(), vec![0; at_a_time]);
        loop {
            match reader.read(&mut part).await {
                Ok(0) => return (got, breach.words().map(str::to_owned)),
                Ok(count) => got.extend_from_slice(&part[..count]),
                Err(error) => {
                    assert_eq!(Some(error.to_string().as_str()), breach.words());
                    assert!(reader.read(&mut part).await.is_err(), "and nothing more after it");
                    return (got, breach.words().map(str::to_owned));
                }
            }
        }
    }

    #[tokio::test]
    async fn a_size_beyond_what_is_agreed_breaks_the_stream_at_the_header() {
        for (kind, size) in [
            (b"ACKF", u32::MAX),
            (b"ACKF", 0xffff_fff0),
            (b"OPNF", CHUNK_MAX + 1),
            (b"MSGC", 7),
            (b"\0\xff\0F", 0),
        ] {
            let good = chunk(b"ACKF", 28, 20);
            let bytes = [good.clone(), chunk(kind, size, 100_000)].concat();
            let (got, words) = read(&bytes, 1).await;
            assert_eq!(got.len(), good.len() + HEADER - 1, "not a byte after the header");
            let words = words.unwrap();
            assert!(words.contains(&format!(" {size} bytes")) && words.is_ascii(), "{words}");
        }
    }

    proptest! {
        #[test]
        fn what_is_agreed_comes_through_unchanged_however_it_is_cut(
            sizes in proptest::collection::vec(8..=CHUNK_MAX, 1..4), at_a_time in 1..70_000_usize,
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let bytes: Vec<u8> =
                sizes.iter().flat_map(|size| chunk(b"MSGF", *size, *size as usize - HEADER)).collect();
            let (got, words) = runtime.block_on(read(&bytes, at_a_time));
            prop_assert_eq!(words, None);
            prop_assert!(got == bytes);
        }
    }
}
