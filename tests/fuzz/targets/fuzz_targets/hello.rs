//! The first bytes of a link.
#![no_main]

use beehive::Env;
use libfuzzer_sys::fuzz_target;
use tokio::task::LocalSet;

fuzz_target!(|bytes: &[u8]| {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    LocalSet::new().block_on(&runtime, async { fuzz::link::hello(bytes, &Env::seeded(1)).await });
});
