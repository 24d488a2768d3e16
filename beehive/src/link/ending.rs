//! Why a link ended.

use super::life;

/// Why a link ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// This end closed it.
    Closed,
    /// The other end closed it in order.
    Left,
    /// Nothing was heard for 10 s.
    Silent,
    /// The connection broke.
    Broke(String),
}

impl std::fmt::Display for Ending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Ending::Closed => f.write_str("closed by this end"),
            Ending::Left => f.write_str("closed by the other end"),
            Ending::Silent => write!(f, "nothing was heard for {} s", life::DEAD_AFTER.as_secs()),
            Ending::Broke(why) => write!(f, "the connection broke: {why}"),
        }
    }
}
