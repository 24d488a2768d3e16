//! The handler behind the link's door, with a runtime that a test makes and with containerd.

mod answers;
mod calls;
mod containerd;
mod follow;
mod node;
