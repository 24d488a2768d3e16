//! Remote mailboxes.
