//! What cameras do, and what they do wrong.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../camera/mod.rs"]
mod camera;
#[path = "../../../framework/tests/edgecore/mod.rs"]
mod edgecore;
#[path = "../../../framework/tests/python/mod.rs"]
mod python;

mod events;
mod found;
mod hostile;
mod logins;
mod moves;
mod multicast;
mod pictures;
mod schemas;
mod virtual_camera;
