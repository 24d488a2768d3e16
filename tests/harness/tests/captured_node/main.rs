//! What somebody can do who has taken a node and its certificate: a hostile edge on the raw link tries everything.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod fixture;
mod floods;
mod reach;
