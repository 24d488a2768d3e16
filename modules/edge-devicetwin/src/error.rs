//! Why something that was said on the node is not kept.

use contract::devicetwin::DmiRefusal;

use crate::plan::{Code, Refused};

/// A sentence for whoever said it.
#[derive(Debug)]
pub(crate) enum UpdateError {
    /// The device, or all of its protocol, has as much as it may have.
    UsedUp(String),
    /// The store does not take it.
    Store(String),
}

impl From<UpdateError> for Refused {
    fn from(error: UpdateError) -> Self {
        match error {
            UpdateError::UsedUp(reason) => Refused::new(Code::BadRequest, reason),
            UpdateError::Store(reason) => Refused::new(Code::Internal, reason),
        }
    }
}

impl From<UpdateError> for DmiRefusal {
    fn from(error: UpdateError) -> Self {
        match error {
            UpdateError::UsedUp(reason) => DmiRefusal::UsedUp(reason),
            UpdateError::Store(reason) => DmiRefusal::Refused(reason),
        }
    }
}
