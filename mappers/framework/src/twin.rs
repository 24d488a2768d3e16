//! A property's twin: what is reported of it.

use std::time::SystemTime;

use crate::value::Kind;

/// The two sides of a twin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TwinValue {
    /// The value that the device has.
    pub(crate) value: String,
    /// The desired value that the device was given; empty when there is none.
    pub(crate) observed: String,
    /// When the value was read.
    pub(crate) read_at: SystemTime,
}

/// The twin of one property, as a report carries it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PropertyTwin {
    pub(crate) property: String,
    pub(crate) kind: Kind,
    pub(crate) twin: TwinValue,
}
