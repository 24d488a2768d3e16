//! The request for an upgrade to WebSocket.
#![no_main]

use std::sync::Arc;

use beehive::TokioClock;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async { fuzz::link::head(bytes, Arc::new(TokioClock::real())).await });
});
