//! Messages of a WebSocket. The first byte says whether the end was let in.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Some((first, rest)) = bytes.split_first() {
        fuzz::link::mux_frames(rest, first % 2 == 0);
    }
});
