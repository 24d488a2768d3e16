//! The handler behind the link, with a runtime that a test makes and with containerd.

mod answers;
mod calls;
mod containerd;
mod follow;
mod node;
