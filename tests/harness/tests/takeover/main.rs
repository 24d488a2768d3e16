//! Several CloudCores over one API: one has the node, none writes an older report over a newer one, and a node that loses
//! its CloudCore goes on with another.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod devices;
mod fixture;
mod ownership;
mod reports;
