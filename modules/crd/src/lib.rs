//! The custom resources as Rust types, and the YAML made from them.
