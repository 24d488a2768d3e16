//! Commits what should be, acknowledges it, and keeps what is until the cloud has confirmed it.
