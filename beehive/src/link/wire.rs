//! What a message enum implements to be sent over a link. The codec is the implementor's business.

use thiserror::Error;

use super::version::Protocol;
use crate::{AskError, Message};

/// Where the answer's bytes of an ask go at the asking end. Dropping it tells the asker nothing came.
pub type AnswerSlot = Box<dyn FnOnce(Result<Vec<u8>, AskError>) + Send>;

/// A message as bytes, with the slot of its answer if it is an ask.
pub struct Outgoing {
    /// The body of the frame.
    pub body: Vec<u8>,
    /// Where the answer goes.
    pub reply: Option<AnswerSlot>,
}

/// Why a message could not become bytes.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EncodeError {
    /// It fits no frame, for this reason.
    #[error("cannot encode the message: {0}")]
    TooLarge(String),
    /// It is not written in the version of this number.
    #[error("message is not of wire version {0}")]
    Version(u8),
}

impl EncodeError {
    /// It fits no frame, with a sentence.
    pub fn new(reason: String) -> Self {
        EncodeError::TooLarge(reason)
    }
}

/// Why bytes are no message that this end understands. Neither ends the stream: the sender is told, and the next message is
/// read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// It may well be one: of a kind that a later release has added.
    #[error("message of the unknown kind {kind} to `{mailbox}`")]
    UnknownKind {
        /// The mailbox.
        mailbox: &'static str,
        /// The number of the kind.
        kind: u16,
    },
    /// It is none, for this reason.
    #[error("cannot decode the message: {0}")]
    Malformed(String),
}

impl DecodeError {
    /// With a sentence.
    pub fn new(reason: String) -> Self {
        DecodeError::Malformed(reason)
    }
}

/// The way back to an asker at the other end of the link. Dropping it tells the asker that the actor crashed.
pub struct ReplyTo(Option<AnswerWriter>);

type AnswerWriter = Box<dyn FnOnce(Result<Vec<u8>, String>) + Send>;

impl ReplyTo {
    /// A way back that hands the answer, or a sentence why there is none, to `write`.
    pub fn new(write: impl FnOnce(Result<Vec<u8>, String>) + Send + 'static) -> Self {
        ReplyTo(Some(Box::new(write)))
    }

    /// Answers.
    pub fn send(mut self, answer: Vec<u8>) {
        if let Some(write) = self.0.take() {
            write(Ok(answer));
        }
    }

    /// Says why there is no answer.
    pub fn fail(mut self, why: String) {
        if let Some(write) = self.0.take() {
            write(Err(why));
        }
    }
}

impl Drop for ReplyTo {
    fn drop(&mut self) {
        if let Some(write) = self.0.take() {
            write(Err("the actor crashed while it handled the message".to_owned()));
        }
    }
}

/// A message enum that may cross a link.
pub trait Wire: Message + Sized {
    /// The name of the mailbox at the other end.
    const MAILBOX: &'static str;

    /// What an end that opens this mailbox understands, beyond what every end of the wire version does.
    const CAPABILITIES: &'static [&'static str] = &[];

    /// The capability that the other end must have named for this message; `None`: every end of the version understands it.
    fn capability(&self) -> Option<&'static str> {
        None
    }

    /// The message as bytes, by what both ends agreed on. The answer will be in the same version.
    ///
    /// # Errors
    /// When it does not fit a frame.
    fn encode(self, protocol: &Protocol) -> Result<Outgoing, EncodeError>;

    /// The message from bytes of that version that the other end sent: hostile until proved otherwise.
    ///
    /// # Errors
    /// When the bytes are no message, or an ask came without a way back.
    fn decode(body: &[u8], reply: Option<ReplyTo>, protocol: &Protocol) -> Result<Self, DecodeError>;
}
