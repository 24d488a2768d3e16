//! A whole cluster in one process, for tests.
