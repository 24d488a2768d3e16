//! A connection to MySQL or MariaDB over which statements go that return no rows. Ours, because what a server may answer to those is
//! little, and a client of everything reserves and keeps whatever a server claims: a thousand million columns, texts of a gigabyte.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::payload::beginning;
use crate::push::mysql::login::{Greeting, Login, Proof, other_proof, sealed};

/// 16 KiB: the longest packet that is read. Servers say in 512 bytes why they refuse a statement.
const PACKET_MAX: usize = 16 << 10;
/// 16 MiB less one: the longest packet that is sent in one piece.
const STATEMENT_MAX: usize = 0xFF_FFFF;
const QUERY: u8 = 3;
const OK: u8 = 0;
const MORE: u8 = 1;
const FILE: u8 = 0xFB;
const SWITCH: u8 = 0xFE;
const ERROR: u8 = 0xFF;
/// What comes of `caching_sha2_password`: the server knows the proof; it wants the password itself.
const KNOWN: u8 = 3;
const FULL: u8 = 4;
const ASK_FOR_KEY: u8 = 2;

/// Why a statement has not been run.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The server says so, with its code. The connection is as before.
    Said(u16, String),
    /// The connection is of no use any more.
    Broken(String),
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Refusal::Broken(match error.kind() {
            io::ErrorKind::UnexpectedEof => "the server has closed the connection".to_owned(),
            _ => error.to_string(),
        })
    }
}

fn broken<T>(why: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal::Broken(why.into()))
}

/// A connection that is logged in. It is closed when it is dropped, whatever the server still sends.
pub(crate) struct Session<S> {
    stream: S,
    /// The number of the next packet, of either side.
    number: u8,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Session<S> {
    pub(crate) async fn open(stream: S, login: &Login) -> Result<Self, Refusal> {
        let mut session = Session { stream, number: 0 };
        let packet = session.receive().await?;
        let greeting = Greeting::read(&packet).map_err(Refusal::Broken)?;
        session.send(&greeting.answer(login)).await?;
        let (mut proof, mut nonce) = (greeting.proof, greeting.nonce);
        let (mut is_switched, mut is_sealed) = (false, false);
        loop {
            let packet = session.receive().await?;
            match (packet.as_slice(), proof) {
                ([OK, ..], _) => return Ok(session),
                ([SWITCH, other @ ..], _) if !is_switched => {
                    (proof, nonce) = other_proof(other).map_err(Refusal::Broken)?;
                    is_switched = true;
                    session.send(&proof.of(&login.password, &nonce)).await?;
                }
                ([MORE, KNOWN], Proof::CachingSha2) => {}
                ([MORE, FULL], Proof::CachingSha2) if !is_sealed => {
                    is_sealed = true;
                    session.send(&[ASK_FOR_KEY]).await?;
                    let [MORE, key @ ..] = &*session.receive().await? else {
                        return broken("the server gives no public key");
                    };
                    let sealed = sealed(&login.password, &nonce, key).map_err(Refusal::Broken)?;
                    session.send(&sealed).await?;
                }
                _ => return broken("what answers is no MySQL: it logs in otherwise"),
            }
        }
    }

    /// Runs a statement that returns no rows.
    pub(crate) async fn run(&mut self, statement: &str) -> Result<(), Refusal> {
        self.number = 0;
        self.send(&[&[QUERY], statement.as_bytes()].concat()).await?;
        match self.receive().await?.first() {
            Some(&OK) => Ok(()),
            Some(&FILE) => broken("the server asks for a file, which it does not get"),
            _ => broken("the server answers with rows to a statement that has none"),
        }
    }

    async fn send(&mut self, body: &[u8]) -> Result<(), Refusal> {
        let length = body.len();
        if length >= STATEMENT_MAX {
            return broken(format!("a statement of {length} bytes is too long"));
        }
        let [one, two, three, ..] = length.to_le_bytes();
        self.stream.write_all(&[&[one, two, three, self.number], body].concat()).await?;
        self.stream.flush().await?;
        self.number = self.number.wrapping_add(1);
        Ok(())
    }

    async fn receive(&mut self) -> Result<Vec<u8>, Refusal> {
        let mut head = [0; 4];
        self.stream.read_exact(&mut head).await?;
        let [one, two, three, number] = head;
        let length = usize::from(one) | usize::from(two) << 8 | usize::from(three) << 16;
        if length > PACKET_MAX {
            return broken(format!("the server answers {length} bytes; at most {PACKET_MAX} are read"));
        }
        if number != self.number {
            return broken("the server answers what was not asked");
        }
        self.number = number.wrapping_add(1);
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).await?;
        match body.as_slice() {
            [ERROR, one, two, said @ ..] => {
                // `#` and five letters of a state, except before the login.
                let said = match said {
                    [b'#', _, _, _, _, _, said @ ..] => said,
                    said => said,
                };
                Err(Refusal::Said(u16::from_le_bytes([*one, *two]), beginning(said)))
            }
            _ => Ok(body),
        }
    }
}

#[cfg(test)]
mod tests;
