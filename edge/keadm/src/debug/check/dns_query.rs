//! One question to a name server, over UDP: does it answer, and does it know a name? The words are RFC 1035's. Pure but for [`ask`].

use std::net::SocketAddr;
use std::time::Duration;

use beehive::Env;
use tokio::net::UdpSocket;

/// 2 s for each try, of which there are two where it is looked for faults: a datagram may be lost.
const ANSWERS_WITHIN: Duration = Duration::from_secs(2);
pub(super) const TRIES: usize = 2;
/// 4 KiB of an answer are read; the head alone is looked at.
const ANSWER_MAX: usize = 4096;
/// A name has 253 letters, and a part of it 63.
const NAME_MAX: usize = 253;
const LABEL_MAX: usize = 63;
/// The port of name servers.
pub(super) const PORT: u16 = 53;

/// What a server said of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Said {
    /// It knows the name: so many records.
    Known(u16),
    /// There is no such name.
    Unknown,
    /// It will not or cannot say: the code of its answer.
    Refused(u8),
    /// Nothing in time.
    Silent,
}

/// A question for the addresses of a name; `None`: it is no name.
fn question(id: u16, name: &str) -> Option<Vec<u8>> {
    let name = name.trim_end_matches('.');
    if name.len() > NAME_MAX {
        return None;
    }
    let [high, low] = id.to_be_bytes();
    // A plain query that asks for recursion; one question.
    let mut message = vec![high, low, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        let length = u8::try_from(label.len()).ok().filter(|_| (1..=LABEL_MAX).contains(&label.len()))?;
        message.push(length);
        message.extend(label.bytes());
    }
    // The end of the name, type A, class IN.
    message.extend([0, 0, 1, 0, 1]);
    Some(message)
}

/// What an answer says, if it is one to this question.
fn answer(id: u16, message: &[u8]) -> Option<Said> {
    let word = |at: usize| Some(u16::from_be_bytes([*message.get(at)?, *message.get(at + 1)?]));
    let flags = word(2)?;
    let (is_answer, code, records) = (flags & 0x8000 != 0, flags & 0x0f, word(6)?);
    if word(0)? != id || !is_answer {
        return None;
    }
    Some(match code {
        // Without an address of IPv4 it is a name all the same.
        0 => Said::Known(records),
        3 => Said::Unknown,
        code => Said::Refused(u8::try_from(code).unwrap_or(u8::MAX)),
    })
}

/// Asks a server for a name, as often as `tries` until it answers.
///
/// # Errors
/// When this machine has no way there, or it is no name.
pub(super) async fn ask(server: SocketAddr, name: &str, tries: usize, env: &Env) -> std::io::Result<Said> {
    let [high, low, ..] = env.random_id();
    let id = u16::from_be_bytes([high, low]);
    let no_name = || std::io::Error::new(std::io::ErrorKind::InvalidInput, "it is no name of DNS");
    let question = question(id, name).ok_or_else(no_name)?;
    let socket = UdpSocket::bind(if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }).await?;
    socket.connect(server).await?;
    let mut buffer = [0; ANSWER_MAX];
    for _ in 0..tries {
        socket.send(&question).await?;
        let heard = env.timeout(ANSWERS_WITHIN, async {
            loop {
                let length = socket.recv(&mut buffer).await?;
                // Whatever else comes is of another question.
                if let Some(said) = answer(id, buffer.get(..length).unwrap_or_default()) {
                    return Ok::<_, std::io::Error>(said);
                }
            }
        });
        match heard.await {
            Some(Ok(said)) => return Ok(said),
            // Nobody listens there: that is an answer, too.
            Some(Err(error)) => return Err(error),
            None => {}
        }
    }
    Ok(Said::Silent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_written_and_an_answer_read() {
        let message = question(0x1234, "a.example.").unwrap();
        assert_eq!(message[..12], [0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(message[12..], *b"\x01a\x07example\x00\x00\x01\x00\x01");
        for wrong in ["", ".", "a..b", &"x".repeat(64), &"x.".repeat(200)] {
            assert_eq!(question(1, wrong), None, "{wrong}");
        }
        let head = |flags: u16, records: u8| {
            let [high, low] = flags.to_be_bytes();
            [0x12, 0x34, high, low, 0, 1, 0, records, 0, 0, 0, 0]
        };
        assert_eq!(answer(0x1234, &head(0x8180, 2)), Some(Said::Known(2)));
        assert_eq!(answer(0x1234, &head(0x8183, 0)), Some(Said::Unknown));
        assert_eq!(answer(0x1234, &head(0x8185, 0)), Some(Said::Refused(5)));
        assert_eq!(answer(0x1235, &head(0x8180, 2)), None, "of another question");
        assert_eq!(answer(0x1234, &head(0x0100, 0)), None, "the question itself");
        assert_eq!(answer(0x1234, &head(0x8180, 2)[..7]), None, "torn");
    }

    #[actix_rt::test]
    async fn a_server_that_is_silent_and_one_that_is_not_there_are_told() {
        let env = Env::real();
        let server = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let at = server.local_addr().unwrap();
        assert_eq!(ask(at, "cloud.example", TRIES, &env).await.unwrap(), Said::Silent);
        drop(server);
        assert!(ask(at, "cloud.example", TRIES, &env).await.is_err());
    }
}
