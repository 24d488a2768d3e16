//! Ours beside a reference, in one run.
