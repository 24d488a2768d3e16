//! What EdgeHub accepts.

use beehive::Message;

/// Messages to EdgeHub.
#[derive(Debug)]
pub enum EdgeHubMsg {
    /// The link of this attempt ended or could not be made.
    LinkEnded {
        /// Which attempt.
        attempt: u64,
        /// Why, for a person.
        reason: String,
        /// What the cloud asked to wait, in milliseconds.
        wait_ms: Option<u64>,
    },
    /// The cloud answered the hello of this attempt.
    LinkUp {
        /// Which attempt.
        attempt: u64,
    },
    /// Time to dial.
    Dial,
}

impl Message for EdgeHubMsg {
    fn name(&self) -> &'static str {
        match self {
            EdgeHubMsg::LinkEnded { .. } => "LinkEnded",
            EdgeHubMsg::LinkUp { .. } => "LinkUp",
            EdgeHubMsg::Dial => "Dial",
        }
    }
}
