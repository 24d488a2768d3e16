//! What goes wrong between a mapper and a device.

use thiserror::Error;

use crate::value::Value;

/// What went wrong while talking to a device.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum Fault {
    /// The device is out of reach, or the connection cannot be used any more.
    #[error("the device does not answer: {0}")]
    Link(String),
    /// The device is out of reach, and nothing of this request was sent: it may be sent again, even if it is a command.
    #[error("the device is not reached: {0}")]
    NotSent(String),
    /// This one request was not answered. The session is usable: it has seen to that no late answer is taken for another's.
    #[error("no answer: {0}")]
    Silent(String),
    /// The device answered, and this one request cannot be served. The connection is fine.
    #[error("the device refused: {0}")]
    Device(String),
    /// The value cannot be written there, whatever the device would say: nothing was written, and a set point is not tried again
    /// until another one is desired. What hangs on what the device holds now is [`Fault::Device`].
    #[error("not written: {0}")]
    Unfit(String),
    /// The device answered that it has no value there now: no number, its own mark for that, a bad quality.
    #[error("the device has no value: {0}")]
    NoValue(String),
    /// The device answered with a value that it doubts, for this reason: the value is told, and the reason beside it.
    #[error("the device doubts its value {0}: {1}")]
    Doubtful(Value, String),
}

impl Fault {
    /// Whether the device has said nothing.
    pub fn is_unanswered(&self) -> bool {
        match self {
            Fault::Link(_) | Fault::NotSent(_) | Fault::Silent(_) => true,
            Fault::Device(_) | Fault::Unfit(_) | Fault::NoValue(_) | Fault::Doubtful(..) => false,
        }
    }

    /// Whether the session is of no use any more.
    pub fn ends_the_session(&self) -> bool {
        matches!(self, Fault::Link(_) | Fault::NotSent(_))
    }
}
