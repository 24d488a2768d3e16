//! The pulls of one image that are under way.

/// How many there are.
#[derive(Debug, Default)]
pub(crate) struct Pulls {
    pub(crate) count: u32,
    /// The records say that there are some.
    pub(crate) is_noted: bool,
}
