//! The desired map of every node, and the only sender of it.
