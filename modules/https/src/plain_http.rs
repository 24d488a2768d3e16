//! Whoever speaks HTTP to a port of HTTPS is told so, as Go's servers tell it, instead of being cut.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// As Go's `net/http` has it, to the letter.
const ANSWER: &[u8] = b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";
/// 64 KiB of the request are read, so that the answer is not lost in a reset; the time is the handshake's.
const READ_MAX: u64 = 64 << 10;

/// Whether a connection that begins with this byte speaks HTTP: a method is of capital letters, and TLS records begin with 20 to 24
/// (RFC 8446, section 5.1).
pub(crate) fn begins_with(byte: u8) -> bool {
    byte.is_ascii_uppercase()
}

/// Answers, reads what else comes until the client has ended, and says why there is no handshake.
pub(crate) async fn answer(mut socket: impl AsyncRead + AsyncWrite + Unpin) -> io::Error {
    let answered = async {
        socket.write_all(ANSWER).await?;
        socket.shutdown().await?;
        tokio::io::copy(&mut (&mut socket).take(READ_MAX), &mut tokio::io::sink()).await
    };
    let failed = answered.await.err();
    failed.unwrap_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "an HTTP request"))
}
