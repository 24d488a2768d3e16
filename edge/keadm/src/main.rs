//! Joins a node to a cluster, and undoes it.
fn main() {}
