//! The node's side of the link: dials, says hello, mints addresses.
