//! Remote mailboxes.

pub mod wire;
