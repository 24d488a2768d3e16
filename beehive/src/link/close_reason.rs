//! Why a link ended.

use super::keepalive;

/// Why a link ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CloseReason {
    /// This end closed it.
    Local,
    /// The other end closed it in order.
    Remote,
    /// Nothing was heard for 10 s.
    IdleTimeout,
    /// The connection broke.
    Broken(String),
}

impl std::fmt::Display for CloseReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            CloseReason::Local => f.write_str("closed by this end"),
            CloseReason::Remote => f.write_str("closed by the other end"),
            CloseReason::IdleTimeout => {
                write!(f, "nothing was heard for {} s", keepalive::IDLE_TIMEOUT.as_secs())
            }
            CloseReason::Broken(why) => write!(f, "the connection broke: {why}"),
        }
    }
}
