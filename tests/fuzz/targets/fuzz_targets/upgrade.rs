//! The request for an upgrade to WebSocket.
#![no_main]

use std::sync::Arc;

use beehive::TokioClock;
use libfuzzer_sys::fuzz_target;
use tokio::task::LocalSet;

fuzz_target!(|bytes: &[u8]| {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    LocalSet::new().block_on(&runtime, async { fuzz::link::head(bytes, Arc::new(TokioClock::real())).await });
});
