//! What comes of readings that were sent.

/// Why a target did not take a reading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// The target takes nothing now: it is not reached, or something at it has to be mended first. The readings wait.
    Away(String),
    /// The target will never take the first reading that it has not taken.
    Refused(String),
    /// The target takes none of those that were sent together, since it will never take one of them.
    OneRefused(String),
}

/// What came of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sent {
    /// How many of its first readings the target has.
    pub(crate) taken: usize,
    /// Why not those after them.
    pub(crate) trouble: Option<Trouble>,
}

impl Sent {
    /// The target has all of them, or none, for this reason.
    pub(crate) fn all(count: usize, outcome: Result<(), Trouble>) -> Self {
        match outcome {
            Ok(()) => Sent { taken: count, trouble: None },
            Err(trouble) => Sent { taken: 0, trouble: Some(trouble) },
        }
    }
}
