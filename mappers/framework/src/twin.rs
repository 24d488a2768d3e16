//! A property's twin: what is reported of it.

use std::time::SystemTime;

use crate::value::Kind;

/// The two sides of a twin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TwinValue {
    /// The value that the device has; empty when there is none.
    pub(crate) value: String,
    /// Why there is none.
    pub(crate) fault: Option<String>,
    /// The desired value that the device was given; empty when there is none.
    pub(crate) observed: String,
    /// Why the device was not given what is desired now.
    pub(crate) refusal: Option<String>,
    /// When the value was read, or when it was found that there is none.
    pub(crate) read_at: SystemTime,
}

impl TwinValue {
    /// What edgecore takes of it: a desired value that is too long gives way to the reason. (The device's own value has done so already.)
    pub(crate) fn takable(mut self, property: &str) -> Self {
        if let Err(reason) = dmi::check_length(property, &self.observed) {
            self.observed.clear();
            self.refusal = Some(dmi::untaken(&reason));
        }
        self
    }

    /// Whether it would tell anybody something new. A time alone does not.
    pub(crate) fn says_the_same_as(&self, other: &TwinValue) -> bool {
        let said = |twin: &TwinValue| {
            (twin.value.clone(), twin.fault.clone(), twin.observed.clone(), twin.refusal.clone())
        };
        said(self) == said(other)
    }
}

/// The twin of one property, as a report carries it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PropertyTwin {
    pub(crate) property: String,
    pub(crate) kind: Kind,
    pub(crate) twin: TwinValue,
}
