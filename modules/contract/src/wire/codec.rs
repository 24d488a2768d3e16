//! How a value becomes bytes: bincode in its version 1 layout with fixed-size integers, little-endian, within a limit.

use beehive::link::wire::{AnswerSlot, DecodeError, EncodeError, Outgoing, ReplyTo};
use beehive::{AskError, Fault, Reply};
use bincode::Options;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{BODY_MAX, WireError};

fn options() -> impl Options {
    bincode::DefaultOptions::new().with_fixint_encoding().with_limit(BODY_MAX).reject_trailing_bytes()
}

pub(crate) fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, WireError> {
    options().serialize(value).map_err(WireError::Codec)
}

pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, WireError> {
    options().deserialize(bytes).map_err(WireError::Codec)
}

pub(crate) fn refused(error: &WireError) -> DecodeError {
    DecodeError::new(Fault::from_error(error).reason)
}

pub(crate) fn too_large(error: &WireError) -> EncodeError {
    EncodeError::new(Fault::from_error(error).reason)
}

/// A message: the number of its kind, and its body.
pub(crate) fn outgoing(kind: u16, body: &[u8], reply: Option<AnswerSlot>) -> Outgoing {
    Outgoing { body: [&kind.to_le_bytes(), body].concat(), reply }
}

/// The number of a message's kind, and its body.
pub(crate) fn split(message: &[u8]) -> Result<(u16, &[u8]), DecodeError> {
    let Some((kind, body)) = message.split_first_chunk() else {
        return Err(DecodeError::new("a message begins with the number of its kind".to_owned()));
    };
    Ok((u16::from_le_bytes(*kind), body))
}

/// The sender's side of an ask: the answer's bytes become `A`, and that the value that the asker waits for.
pub(crate) fn slot<A, T>(reply: Reply<T>) -> AnswerSlot
where
    A: DeserializeOwned + Into<T>,
    T: Send + 'static,
{
    Box::new(move |answer| match answer {
        Ok(bytes) => match decode::<A>(&bytes) {
            Ok(value) => reply.send(value.into()),
            Err(error) => reply.fail(AskError::Rejected(Fault::from_error(&error).reason)),
        },
        Err(why) => reply.fail(why),
    })
}

/// The receiver's side of an ask: the value given to the reply becomes `A`, and that the answer's bytes.
pub(crate) fn back<A, T>(reply: Option<ReplyTo>) -> Result<Reply<T>, DecodeError>
where
    A: Serialize + From<T>,
    T: Send + 'static,
{
    let Some(reply) = reply else {
        return Err(DecodeError::new("a question came without a way back".to_owned()));
    };
    Ok(Reply::carried(move |answer: Result<T, AskError>| match answer {
        Ok(value) => match encode(&A::from(value)) {
            Ok(bytes) => reply.send(bytes),
            Err(error) => reply.fail(Fault::from_error(&error).reason),
        },
        Err(why) => reply.fail(why.to_string()),
    }))
}

pub(crate) fn converted<A: Into<B>, B>(all: Vec<A>) -> Vec<B> {
    all.into_iter().map(Into::into).collect()
}
