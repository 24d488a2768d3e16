//! `cargo dist`.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;
use dist::order::Order;

fn main() -> ExitCode {
    let order = Order::parse();
    // A closed pipe must not end a release half way.
    let mut say = |line: &str| drop(writeln!(std::io::stdout().lock(), "{line}"));
    let made = dist::root().and_then(|root| {
        let epoch = std::env::var("SOURCE_DATE_EPOCH").ok();
        dist::release::make(&order, &root, epoch, &mut say)
    });
    match made {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            drop(writeln!(std::io::stderr().lock(), "cargo dist: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
