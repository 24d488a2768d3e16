//! The invariants that hold over the whole repository.
