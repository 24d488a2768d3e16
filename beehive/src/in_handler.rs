//! Whether the thread is in the poll of a handler, rather than in that of a spawned task: there an address may not wait
//! that was granted for spawned tasks ([`crate::Flow::Spawned`]).

use std::cell::Cell;

thread_local! {
    static IN_HANDLER: Cell<bool> = const { Cell::new(false) };
}

pub(crate) fn is_in_handler() -> bool {
    IN_HANDLER.get()
}

/// Marks the poll of a handler until it is dropped.
pub(crate) struct InHandler {
    before: bool,
}

impl InHandler {
    pub(crate) fn enter() -> Self {
        InHandler { before: IN_HANDLER.replace(true) }
    }
}

impl Drop for InHandler {
    fn drop(&mut self) {
        IN_HANDLER.set(self.before);
    }
}
