//! Formatting, lints and every test, in one command.
fn main() {}
